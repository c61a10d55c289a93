"""Other frameworks as contenders; their libraries are imported only in the workers."""

from __future__ import annotations

from tvmcomp.measure.peers.select import PEERS, original_contender, peer_contenders

__all__ = ["PEERS", "original_contender", "peer_contenders"]
