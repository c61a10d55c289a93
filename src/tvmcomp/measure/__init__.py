"""Measuring: latency, accuracy, size, energy, and other frameworks side by side."""

from __future__ import annotations

from tvmcomp.measure.accuracy import Accuracy, accuracy
from tvmcomp.measure.bench import Limits, Turns, bench
from tvmcomp.measure.contender import Contender, Runner, Step
from tvmcomp.measure.dataset import DataSet, load_dataset
from tvmcomp.measure.energy import Energy, energy
from tvmcomp.measure.entry_point import EntryPoint, is_entry_point, load_entry_point
from tvmcomp.measure.evaluate import Evaluation, Reference, check_gate, evaluate
from tvmcomp.measure.inputs import GENERATED, sample_inputs
from tvmcomp.measure.latency import Measurement, latency
from tvmcomp.measure.original import original
from tvmcomp.measure.peers import PEERS, peer_contenders
from tvmcomp.measure.provenance import InputInfo, describe_inputs
from tvmcomp.measure.size import Size, size

__all__ = [
    "GENERATED",
    "PEERS",
    "Accuracy",
    "Contender",
    "DataSet",
    "Energy",
    "EntryPoint",
    "Evaluation",
    "InputInfo",
    "Limits",
    "Measurement",
    "Reference",
    "Runner",
    "Size",
    "Step",
    "Turns",
    "accuracy",
    "bench",
    "check_gate",
    "describe_inputs",
    "energy",
    "evaluate",
    "is_entry_point",
    "latency",
    "load_dataset",
    "load_entry_point",
    "original",
    "peer_contenders",
    "sample_inputs",
    "size",
]
