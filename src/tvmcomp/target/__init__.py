"""Devices as data: descriptors, what they accept, and which one this machine is."""

from __future__ import annotations

from tvmcomp.target.cpu import Caches, HostCpu, host_cpu
from tvmcomp.target.descriptor import Target
from tvmcomp.target.detect import Detection, detect
from tvmcomp.target.scheme import OPS, CodeRange, Granularity, RangeOf, Scheme

__all__ = [
    "OPS",
    "Caches",
    "CodeRange",
    "Detection",
    "Granularity",
    "HostCpu",
    "RangeOf",
    "Scheme",
    "Target",
    "detect",
    "host_cpu",
]
