"""Measuring: latency, accuracy, size, energy, and other frameworks side by side."""

from __future__ import annotations

from tvmcomp.measure.accuracy import Accuracy, accuracy, judge
from tvmcomp.measure.bench import Limits, Turns, bench
from tvmcomp.measure.contender import Contender, Runner, Step
from tvmcomp.measure.energy import Energy, energy
from tvmcomp.measure.inputs import GENERATED, sample_inputs
from tvmcomp.measure.latency import Measurement, latency
from tvmcomp.measure.peers import PEERS, peer_contenders
from tvmcomp.measure.provenance import InputInfo, describe_inputs
from tvmcomp.measure.size import Size, size

__all__ = [
    "GENERATED",
    "PEERS",
    "Accuracy",
    "Contender",
    "Energy",
    "InputInfo",
    "Limits",
    "Measurement",
    "Runner",
    "Size",
    "Step",
    "Turns",
    "accuracy",
    "bench",
    "describe_inputs",
    "energy",
    "judge",
    "latency",
    "peer_contenders",
    "sample_inputs",
    "size",
]
