"""tvmcomp: compress a trained model, compile it for one described device, and ship it as one measured file."""

from __future__ import annotations

__version__ = "0.1.0"
