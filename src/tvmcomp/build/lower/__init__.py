"""From canonical Relax to the layer graph."""

from __future__ import annotations

from tvmcomp.build.lower.lower import lower

__all__ = ["lower"]
