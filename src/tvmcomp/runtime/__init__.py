"""Loads and runs artifacts with numpy, tvm_ffi and TVM's runtime library alone."""

from __future__ import annotations

from tvmcomp.runtime.bundle import bundle
from tvmcomp.runtime.network import Network, load, verify

__all__ = ["Network", "bundle", "load", "verify"]
