"""Whole small networks: the compiled library equals the integer reference bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tvm import relax

from build.graphs import Net
from tvmcomp.build.pipeline import PHASES, build
from tvmcomp.compress.reference import run
from tvmcomp.errors import TargetError
from tvmcomp.flow import compile_model
from tvmcomp.graph.layers import Copy, Opaque
from tvmcomp.model import Model
from tvmcomp.target import Target

op = relax.op


def mobile_net() -> Model:
    """Stem, residual, depthwise, SiLU, squeeze-excite gate, pools, concat, resize, dense: every integer layer."""
    net = Net((1, 3, 12, 12), seed=5)
    x = net.quantize(net.emit(op.permute_dims(net.x, [0, 2, 3, 1]), "nhwc"), 0.03, 128, "in")
    stem = net.emit(op.nn.relu(net.conv(x, 24, 3, "stem", strides=2)), "stem.relu")
    a = net.quantize(stem, 0.04, 0, "a")
    pre = net.quantize(net.conv(a, 24, 3, "dw", groups=24), 0.02, 131, "pre")
    b = net.quantize(net.emit(op.nn.silu(pre), "silu"), 0.015, 19, "b")
    squeezed = net.quantize(net.emit(op.mean(b, [1, 2], True), "gap"), 0.01, 20, "gap")
    gate = net.quantize(net.conv(squeezed, 24, 1, "se", padding=0), 0.03, 120, "se")
    opened = net.quantize(net.emit(op.sigmoid(gate), "sigmoid"), 1 / 255, 0, "open")
    scaled = net.quantize(net.emit(op.multiply(b, opened), "gated"), 0.012, 17, "gated")
    total = net.emit(op.add(net.conv(scaled, 24, 1, "project"), a), "sum")
    c = net.quantize(total, 0.06, 40, "c")
    pooled = net.quantize(
        net.emit(op.nn.max_pool2d(c, (3, 3), (2, 2), (1, 1), layout="NHWC"), "pool"), 0.06, 40, "p"
    )
    averaged = net.emit(op.nn.avg_pool2d(c, (2, 2), (2, 2), layout="NHWC"), "avg")
    q = net.quantize(averaged, 0.05, 45, "q")
    both = net.quantize(net.emit(op.concat([pooled, q], 3), "cat"), 0.06, 42, "cat")
    other = net.quantize(net.emit(op.add(both, both), "double"), 0.12, 42, "double")
    last = net.quantize(net.emit(op.mean(other, [1, 2], True), "gap2"), 0.08, 44, "gap2")
    flat = net.quantize(net.emit(op.reshape(last, (1, 48)), "flat"), 0.08, 44, "flat")
    dense = net.emit(op.matmul(flat, net.weight((48, 10), 1, "fc.weight")), "fc")
    bias = net.param("fc.bias", net.rng.standard_normal(10).astype(np.float32))
    return net.model(net.quantize(net.emit(op.add(dense, bias), "fc.add"), 0.05, 128, "out"))


@pytest.mark.parametrize("target", ["host", "x86-avx2"])
def test_a_network_of_every_integer_layer_equals_the_reference(target: str):
    executable = compile_model(mobile_net(), target=target)
    graph = executable.build.graph
    assert not any(isinstance(layer, Opaque) for layer in graph.layers)
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal((1, 3, 12, 12)).astype(np.float32) * 3
        (expected,) = run(graph, {"x": x}).values()
        assert len(np.unique(expected)) > 3
        np.testing.assert_array_equal(executable(x), expected)


def test_results_do_not_depend_on_what_the_arena_held_before():
    executable = compile_model(mobile_net())
    rng = np.random.default_rng(1)
    inputs = [rng.standard_normal((1, 3, 12, 12)).astype(np.float32) * s for s in (0.1, 50, 1, 9)]
    first = [executable(x) for x in inputs]
    again = [executable(x) for x in reversed(inputs)]
    for a, b in zip(first, reversed(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_float_and_opaque_layers_run_beside_each_other():
    net = Net((2, 6, 6, 16), seed=2)
    a = net.emit(op.nn.relu(net.conv(net.x, 20, 3, "c1", quantized=False)), "r")
    soft = net.emit(op.nn.softmax(a), "soft")
    b = net.emit(op.add(net.conv(soft, 20, 3, "c2", quantized=False), a), "sum")
    model = net.model(b)
    executable = compile_model(model)
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 16)).astype(np.float32)
    e = {k: v.astype(np.float64) for k, v in model.params.items()}

    def conv(x: np.ndarray, name: str) -> np.ndarray:
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        return np.einsum("nhwcij,oijc->nhwo", windows, e[f"{name}.weight"]) + e[f"{name}.bias"]

    first = np.maximum(conv(x.astype(np.float64), "c1"), 0)
    powers = np.exp(first - first.max(-1, keepdims=True))
    expected = conv(powers / powers.sum(-1, keepdims=True), "c2") + first
    assert np.abs(executable(x) - expected).max() / np.abs(expected).max() < 1e-5


def test_several_outputs_and_an_output_read_inside():
    net = Net((1, 5, 5, 16))
    a = net.conv(net.x, 16, 1, "c1", quantized=False)
    b = net.conv(a, 8, 3, "c2", quantized=False)
    executable = compile_model(net.model(b, a))
    x = np.random.default_rng(0).standard_normal((1, 5, 5, 16)).astype(np.float32)
    second, first = executable(x)
    weight, bias = net.params["c1.weight"][:, 0, 0, :], net.params["c1.bias"]
    np.testing.assert_allclose(first, x @ weight.T + bias, rtol=1e-4, atol=1e-5)
    assert second.shape == (1, 5, 5, 8)
    assert sum(isinstance(layer, Copy) for layer in executable.build.scheduled.graph.layers) == 2


def test_every_phase_is_dumped(tmp_path: Path):
    net = Net((1, 4, 4, 8))
    build(net.model(net.conv(net.x, 8, 3, "c1", quantized=False)), Target.load("host"), tmp_path)
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert names == [f"{i:02d}_{name}.txt" for i, (name, _) in enumerate(PHASES)]
    assert "conv2d" in (tmp_path / "00_canonical.txt").read_text()
    assert "FloatConv c1" in (tmp_path / "01_lower.txt").read_text()
    assert "halo=1" in (tmp_path / "02_layouts.txt").read_text()
    assert "T.prim_func" in (tmp_path / "03_kernels.txt").read_text()


def test_a_target_without_code_path_is_refused_before_any_work():
    net = Net((1, 4, 4, 8))
    with pytest.raises(TargetError, match="cuda-sm90") as error:
        build(net.model(net.x), Target.load("cuda-sm90"))
    assert error.value.exit_code == 3
    assert "\n" not in str(error.value)


def test_the_same_model_compiles_to_the_same_bytes():
    libraries = [compile_model(mobile_net()).payload for _ in range(2)]
    assert libraries[0].lib == libraries[1].lib
    np.testing.assert_array_equal(libraries[0].weights, libraries[1].weights)
