"""Compress, compile, measure, save, load: the story of flow.py on a small network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tvm import relax

import tvmcomp as tc
from build.graphs import Net
from tvmcomp.artifact import read_artifact, write_artifact
from tvmcomp.compress.reference import run
from tvmcomp.errors import (
    CalibrationError,
    IncompatibleHostError,
    TargetError,
    VerificationError,
)
from tvmcomp.graph.layers import IntConv
from tvmcomp.model import Model
from tvmcomp.target import Target, host_cpu

op = relax.op
SHAPE = (1, 3, 10, 10)


@pytest.fixture(scope="module")
def model() -> Model:
    net = Net(SHAPE, seed=3)
    x = net.emit(op.permute_dims(net.x, [0, 2, 3, 1]), "nhwc")
    a = net.emit(op.nn.relu(net.conv(x, 16, 3, "c1", quantized=False)), "r1")
    b = net.emit(
        op.nn.relu(net.emit(op.add(net.conv(a, 16, 3, "c2", quantized=False), a), "s")), "r2"
    )
    pooled = net.emit(op.mean(b, [1, 2], True), "gap")
    flat = net.emit(op.reshape(pooled, (1, 16)), "flat")
    weight = net.param("fc.weight", net.rng.standard_normal((16, 10)).astype(np.float32))
    bias = net.param("fc.bias", net.rng.standard_normal(10).astype(np.float32))
    return net.model(net.emit(op.add(net.emit(op.matmul(flat, weight), "fc"), bias), "logits"))


@pytest.fixture(scope="module")
def samples() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal(SHAPE).astype(np.float32)} for _ in range(6)]


@pytest.fixture(scope="module")
def compiled(model: Model, samples: list[dict[str, np.ndarray]]) -> tc.Executable:
    steps: list[tuple[int, int | None]] = []
    small = tc.compress(
        model, "int8", samples, progress=lambda done, total: steps.append((done, total))
    )
    assert steps[-1][0] == len(samples)
    assert small.skipped == ()
    return tc.compile(small)


def test_compressed_weights_are_a_quarter(model: Model, compiled: tc.Executable):
    sizes = compiled.payload.manifest.sizes
    assert model.params_bytes * 0.2 < sizes["params"] < model.params_bytes * 0.3


def test_the_compiled_network_is_integer_and_equals_the_reference(
    compiled: tc.Executable, samples: list[dict[str, np.ndarray]]
):
    graph = compiled.build.graph
    assert sum(isinstance(layer, IntConv) for layer in graph.layers) == 3
    for sample in samples:
        (expected,) = run(graph, sample).values()
        np.testing.assert_array_equal(compiled(sample["x"]), expected)


def test_int8_stays_close_to_float(
    model: Model, compiled: tc.Executable, samples: list[dict[str, np.ndarray]]
):
    exact = tc.compile(model)
    a = np.concatenate([exact(s["x"]) for s in samples])
    b = np.concatenate([compiled(s["x"]) for s in samples])
    assert 10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()) > 28


def test_save_load_and_the_evidence_inside(
    compiled: tc.Executable, samples: list[dict[str, np.ndarray]], tmp_path: Path
):
    measured = compiled.measure(samples[0])
    path = tmp_path / "net.tvmcomp"
    compiled.save(path)
    payload = read_artifact(path)
    assert payload.measurements["latency_threads_1"] == measured.to_dict()
    assert payload.manifest.recipe["name"] == "int8"
    assert payload.manifest.calibration_digest
    assert len(payload.manifest.functions[0].variants[0].kernels) == len(
        compiled.build.linked.calls
    )
    for threads in (1, 2):
        with tc.load(path, threads=threads) as network:
            np.testing.assert_array_equal(network(samples[1]["x"]), compiled(samples[1]["x"]))


def test_a_golden_run_that_no_longer_holds_is_refused(compiled: tc.Executable, tmp_path: Path):
    golden = {k: v.copy() for k, v in compiled.payload.golden_outputs.items()}
    next(iter(golden.values())).flat[0] += 1
    write_artifact(tmp_path / "x.tvmcomp", replace(compiled.payload, golden_outputs=golden))
    with pytest.raises(VerificationError, match="golden"):
        tc.load(tmp_path / "x.tvmcomp")


def test_bad_calibration_is_refused_before_anything_is_compiled(model: Model):
    bad = np.full(SHAPE, np.nan, np.float32)
    with pytest.raises(CalibrationError):
        tc.compress(model, "int8", [{"x": bad}])
    with pytest.raises(CalibrationError):
        tc.compress(model, "int8", [])


def test_an_unknown_target_is_named(model: Model):
    with pytest.raises(TargetError, match="x86-avx512-vni"):
        tc.compile(model, target="x86-avx512-vni")


def test_a_target_this_machine_cannot_run_gets_its_golden_output_from_this_machine(
    model: Model, samples: list[dict[str, np.ndarray]], tmp_path: Path
):
    other = next(
        name
        for name in ("x86-sapphirerapids", "x86-zen4")
        if not Target.load(name).features <= host_cpu().features
    )
    small = tc.compress(model, "int8", samples, target=other)
    elsewhere, here = tc.compile(small, target=other, golden=samples[0]), tc.compile(small)
    elsewhere.save(tmp_path / "elsewhere.tvmcomp")
    for output in elsewhere.payload.golden_outputs.values():
        np.testing.assert_array_equal(output, here(samples[0]["x"]))
    with pytest.raises(IncompatibleHostError):
        tc.load(tmp_path / "elsewhere.tvmcomp")
