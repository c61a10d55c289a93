"""`diff` on faults planted in a small network with every family of layer: each is named, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from acceptance.faults import FAMILIES, family, plant_in_artifact, plant_in_model, plant_in_scale
from torch import nn

import tvmcomp as tc
from acceptance import diff
from tvmcomp.artifact import write_artifact
from tvmcomp.graph.canonical import canonicalize


class Small(nn.Module):
    """Convolution, depthwise convolution with a table, residual and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.each = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.act = nn.SiLU()
        self.back = nn.Conv2d(16, 16, 1)
        self.last = nn.Linear(16 * 64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = x + self.back(self.act(self.each(x)))
        return self.last(torch.flatten(x, 1))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, diff._Made]:
    """The network compiled in both precisions."""
    folder = tmp_path_factory.mktemp("faults")
    torch.manual_seed(4)
    images = np.random.default_rng(6).standard_normal((10, 3, 8, 8)).astype(np.float32)
    example = (torch.from_numpy(images[:1]),)
    torch.export.save(torch.export.export(Small().eval(), example), folder / "net.pt2")
    model = canonicalize(tc.load_model(folder / "net.pt2"))
    (name,) = model.signature.inputs
    np.savez(folder / "in.npz", **{name: images[8:]})
    found = {}
    for precision in ("float32", "int8"):
        compressed = tc.compress(model, "int8", images[:8]) if precision == "int8" else None
        executable = tc.compile(compressed or model)
        artifact = folder / f"{precision}.tvmcomp"
        executable.save(artifact)
        found[precision] = diff._Made(
            folder / "net.pt2", folder / "in.npz", artifact, model, compressed, executable,
            {name: images[:8]}, {name: images[8:9]},
        )  # fmt: skip
    return found


def _found(made: diff._Made, planted: object, against: str, folder: Path) -> tuple[str, str]:
    write_artifact(folder / "faulty.tvmcomp", planted.payload)  # type: ignore[attr-defined]
    return diff._named(made, folder / "faulty.tvmcomp", against)


def test_the_network_has_every_family(made: dict[str, diff._Made]) -> None:
    scheduled = made["int8"].executable.build.scheduled
    assert scheduled is not None
    graph = scheduled.graph
    assert {family(graph, layer) for layer in graph.layers} >= set(FAMILIES)


@pytest.mark.parametrize(
    ("precision", "wanted", "role", "against"),
    [
        ("int8", "conv", "weight", "source"),
        ("int8", "depthwise", "multiplier", "artifact"),
        ("int8", "table", "table", "source"),
        ("int8", "dense", "bytes", "artifact"),
        ("float32", "residual", "bias", "source"),
        ("float32", "depthwise", "weight", "artifact"),
    ],
)
def test_a_constant_of_an_artifact(
    made: dict[str, diff._Made],
    precision: str,
    wanted: str,
    role: str,
    against: str,
    tmp_path: Path,
) -> None:
    subject = made[precision]
    planted = plant_in_artifact(subject.executable, wanted, role, subject.sample, 3)
    assert _found(subject, planted, against, tmp_path)[0] == planted.layer


def test_a_parameter_before_compression(made: dict[str, diff._Made], tmp_path: Path) -> None:
    subject = made["int8"]
    planted = plant_in_model(
        subject.model, subject.executable, subject.compressed, "conv", 1, subject.calibration,
        subject.sample,
    )  # fmt: skip
    layer, why = _found(subject, planted, "source", tmp_path)
    assert layer == planted.layer
    assert why.endswith("codes, 0 allowed")


def test_a_scale_of_activations(made: dict[str, diff._Made], tmp_path: Path) -> None:
    subject = made["int8"]
    assert subject.compressed is not None
    planted = plant_in_scale(subject.compressed, subject.executable, "conv", 2)
    layer, why = _found(subject, planted, "source", tmp_path)
    assert layer == planted.layer
    assert why.startswith("its scale costs")


def test_without_a_fault_none_is_named(made: dict[str, diff._Made]) -> None:
    for subject in made.values():
        assert diff._named(subject, subject.artifact, "source") == ("", "")
