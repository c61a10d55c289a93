"""What is told of finished artifacts: where two networks depart, layer by layer."""

from __future__ import annotations

from tvmcomp.report.diff import Diff, LayerDiff, diff_networks
from tvmcomp.report.sides import GraphSide, RenamedSide, Side

__all__ = ["Diff", "GraphSide", "LayerDiff", "RenamedSide", "Side", "diff_networks"]
