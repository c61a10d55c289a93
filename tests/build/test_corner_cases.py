"""Graphs at the edge of what a matcher may claim: each computes what TVM's float simulation does."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from build.graphs import Net, simulate
from tvmcomp.build.lower import lower
from tvmcomp.compress.reference import run
from tvmcomp.flow import compile_model
from tvmcomp.graph.layers import (
    Concat,
    Copy,
    FloatConv,
    IntConv,
    Layer,
    MaxPool,
    Opaque,
    Resize,
    Table,
)
from tvmcomp.model import Model

op = relax.op


def kinds(model: Model) -> set[type[Layer]]:
    return {type(layer) for layer in lower(model).layers}


def check(model: Model, steps: float, x: np.ndarray | None = None) -> None:
    """Every output is within `steps` of the simulation, on one thread and on two alike."""
    executable = compile_model(model)
    if x is None:
        shape = model.signature.inputs["x"].shape
        x = (np.random.default_rng(3).standard_normal(shape) * 2).astype(np.float32)
    results = executable.run({"x": x})
    for result, expected in zip(results.values(), simulate(model, x), strict=True):
        assert len(np.unique(expected)) > 3
        assert np.abs(result.astype(np.float64) - expected).max() <= steps


def test_codes_from_outside_are_dequantized_by_tvm():
    net = Net((1, 4, 4, 16), dtype="uint8")
    real = net.dequantize(net.x, 0.05, 120, "real")
    conv = net.quantize(net.conv(real, 8, 3, "c"), 0.05, 120, "y")
    table = net.quantize(net.emit(op.nn.silu(real), "silu"), 0.05, 20, "s")
    codes = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 16)).astype(np.uint8)
    check(net.model(conv, table), 0.051, codes)


def test_codes_read_with_other_numbers_than_they_were_written_with():
    net = Net((1, 4, 4, 16))
    codes = net.codes(net.x, 0.03, 131, "in.q")
    real = net.dequantize(codes, 0.05, 100, "d")
    model = net.model(net.quantize(net.conv(real, 8, 3, "c"), 0.05, 120, "y"))
    assert IntConv not in kinds(model)
    check(model, 0.051)


@pytest.mark.parametrize("operator", ["pool", "concat", "unary", "none"])
def test_a_table_changes_the_dtype_of_codes_and_a_concatenation_does_not(operator: str):
    net = Net((1, 4, 4, 16))
    a = net.quantize(net.x, 0.03, 5, "in")
    value = {
        "pool": lambda: op.nn.max_pool2d(a, (2, 2), (2, 2), layout="NHWC"),
        "concat": lambda: op.concat([a, net.quantize(net.x, 0.03, 5, "b", "int8")], 3),
        "unary": lambda: op.nn.silu(a),
        "none": lambda: a,
    }[operator]()
    value = a if operator == "none" else net.emit(value, "value")
    model = net.model(net.quantize(value, 0.03, 5, "y", "int8"))
    assert kinds(model) & {Concat, Table} == (set() if operator == "concat" else {Table})
    check(model, 0.031)


def test_clips_in_a_row_act_one_after_the_other():
    net = Net((1, 4, 4, 16))
    a = net.quantize(net.x, 0.03, 131, "in")
    rows = []
    for i, bounds in enumerate([((-5, -1), (0, 4)), ((0, 4), (-5, -1)), ((-2, 3), (-1, 9))]):
        value: relax.Expr = net.conv(a, 8, 3, f"c{i}")
        for j, (low, high) in enumerate(bounds):
            value = net.emit(op.clip(value, low, high), f"clip{i}{j}")
        rows.append(net.quantize(value, 0.05, 100, f"y{i}"))
    model = net.model(*rows)
    convs = [layer for layer in lower(model).layers if isinstance(layer, IntConv)]
    assert [(conv.low, conv.high) for conv in convs] == [(100, 100), (80, 80), (80, 160)]


def test_of_crossed_clip_bounds_the_upper_counts():
    net = Net((1, 4, 4, 16))
    a = net.quantize(net.x, 0.03, 131, "in")
    conv = net.quantize(net.emit(op.clip(net.conv(a, 8, 3, "c"), 3, -1), "k"), 0.1, 20, "y")
    table = net.quantize(net.emit(op.clip(a, 2, -1), "t"), 0.03, 131, "z")
    real = net.emit(op.clip(net.conv(net.x, 8, 3, "d", quantized=False), 3, -1), "r")
    for result in (
        compile_model(net.model(conv, table, real))
        .run({"x": np.ones((1, 4, 4, 16), np.float32)})
        .values()
    ):
        np.testing.assert_allclose(result, -1, atol=0.02)


@pytest.mark.parametrize("kind", ["left", "batched", "vector", "conv1d", "shared"])
def test_a_compressed_weight_of_an_operator_no_kernel_claims_is_expanded(kind: str):
    shape = {"left": (2, 3, 5, 7), "batched": (3, 5, 7), "vector": (7,)}.get(kind, (1, 9, 4))
    net = Net(shape)
    a = net.quantize(net.x, 0.03, 131, "in")
    if kind == "left":
        value = op.matmul(net.weight((9, 5), 0, "w"), a)
    elif kind == "batched":
        value = op.matmul(a, net.weight((3, 7, 4), 2, "w"))
    elif kind == "vector":
        value = op.matmul(a, net.weight((7, 6), 1, "w"))
    elif kind == "conv1d":
        weight = net.weight((6, 3, 4), 0, "w")
        value = op.nn.conv1d(a, weight, padding=1, data_layout="NWC", kernel_layout="OWI")
    else:
        weight = net.weight((4, 4), 1, "w")
        dense = net.quantize(net.emit(op.matmul(a, weight), "d"), 0.05, 120, "dq")
        value = op.add(dense, net.emit(op.sum(weight, 0), "sums"))
    check(net.model(net.quantize(net.emit(value, "value"), 0.05, 120, "y")), 0.051)


def test_permutations_of_more_than_four_axes_are_left_to_tvm():
    net = Net((1, 4, 4, 8))
    split = net.emit(op.reshape(net.x, (1, 4, 4, 2, 2, 2)), "split")
    real = net.quantize(net.emit(op.permute_dims(split, [0, 1, 3, 2, 4, 5]), "p"), 0.03, 131, "a")
    moved = net.emit(op.permute_dims(real, [0, 2, 1, 4, 3, 5]), "q")
    codes = net.quantize(moved, 0.03, 131, "b")
    shuffled = net.quantize(net.emit(op.reshape(codes, (1, 8, 8, 2)), "joined"), 0.03, 131, "y")
    check(net.model(shuffled), 0.031)


@pytest.mark.parametrize("quantized", [True, False])
def test_windows_that_lie_in_the_border_are_left_to_tvm(quantized: bool):
    net = Net((1, 5, 7, 17))
    a = net.quantize(net.x, 0.03, 131, "in") if quantized else net.x
    pools = [
        net.emit(op.nn.max_pool2d(a, (2, 2), (2, 2), (0, 2), layout="NHWC"), "max"),
        net.emit(op.nn.avg_pool2d(a, (2, 2), (1, 1), (2, 2), layout="NHWC"), "avg"),
    ]
    if quantized:
        pools = [net.quantize(pool, 0.03, 131, f"y{i}") for i, pool in enumerate(pools)]
    model = net.model(*pools)
    assert Opaque in kinds(model)
    x = np.random.default_rng(0).standard_normal((1, 5, 7, 17)).astype(np.float32)
    for result, expected in zip(
        compile_model(model).run({"x": x}).values(), simulate(model, x), strict=True
    ):
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=0.031 * quantized)


@pytest.mark.parametrize("pads", [(0, 0), (1, 1)])
def test_max_pooling_that_rounds_its_size_up_stays_on_codes(pads: tuple[int, int]):
    net = Net((1, 6, 9, 17))
    a = net.quantize(net.x, 0.03, 131, "in")
    pool = op.nn.max_pool2d(a, (3, 3), (2, 2), pads, ceil_mode=True, layout="NHWC")
    model = net.model(net.quantize(net.emit(pool, "pool"), 0.03, 131, "y"))
    assert Opaque not in kinds(model)
    assert MaxPool in kinds(model)
    check(model, 0)


@pytest.mark.parametrize(
    ("method", "rounding"),
    [
        ("linear", "round"),
        *(
            ("nearest_neighbor", how)
            for how in ("round", "floor", "ceil", "round_prefer_floor", "")
        ),
    ],
)
@pytest.mark.parametrize(
    "coordinates", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]
)
def test_resize_takes_the_taps_tvm_takes(method: str, rounding: str, coordinates: str):
    net = Net((1, 5, 8, 3))
    a = net.quantize(net.x, 0.03, 131, "in")
    outs = []
    for i, size in enumerate([(10, 16), (3, 4), (8, 20)]):
        resized = op.image.resize2d(
            a,
            size,
            layout="NHWC",
            method=method,
            coordinate_transformation_mode=coordinates,
            rounding_method=rounding,
        )
        outs.append(net.quantize(net.emit(resized, f"r{i}"), 0.03, 131, f"y{i}"))
    model = net.model(*outs)
    assert Resize in kinds(model)
    check(model, 0.031 if method == "linear" else 0)


def test_average_pools_read_no_halo():
    net = Net((1, 6, 6, 16))
    soft = net.emit(op.nn.softmax(net.x), "soft")
    a = net.quantize(soft, 0.01, 3, "in")
    pool = op.nn.avg_pool2d(a, (3, 3), (1, 1), (1, 1), layout="NHWC")
    model = net.model(net.quantize(net.emit(pool, "pool"), 0.01, 3, "y"))
    scheduled = compile_model(model).build.scheduled
    assert all(layout.halo == 0 for layout in scheduled.layouts.values())


def test_what_feeds_itself_and_what_is_read_twice():
    net = Net((2, 6, 6, 17))
    a = net.quantize(net.x, 0.03, 131, "in")
    own = net.quantize(net.emit(op.add(net.conv(a, 17, 3, "c"), a), "own"), 0.05, 120, "y0")
    twice = net.conv(a, 17, 3, "d")
    doubled = net.quantize(net.emit(op.add(twice, twice), "doubled"), 0.1, 120, "y1")
    rectified = net.conv(a, 17, 5, "e")
    both = [
        net.quantize(net.emit(op.nn.relu(rectified), "relu"), 0.1, 0, "y2"),
        net.quantize(rectified, 0.1, 120, "y3"),
    ]
    model = net.model(own, doubled, *both, net.x, own, net.emit(op.reshape(net.x, (72, 17)), "v"))
    assert IntConv in kinds(model)
    assert FloatConv not in kinds(model)
    check(model, 0.11)
    scheduled = compile_model(model).build.scheduled.graph
    assert len(set(scheduled.outputs)) == 7
    assert sum(isinstance(layer, Copy) for layer in scheduled.layers) >= 3


@pytest.mark.parametrize("shape", [(3, 7), (2, 3, 7), (2, 1, 3, 5, 7)])
def test_a_dense_layer_of_any_rank_equals_the_reference(shape: tuple[int, ...]):
    net = Net(shape)
    a = net.quantize(net.x, 0.03, 131, "in")
    dense = net.emit(op.matmul(a, net.weight((7, 7), 1, "w")), "dense")
    model = net.model(net.quantize(net.emit(op.add(dense, a), "sum"), 0.05, 120, "y"))
    executable = compile_model(model)
    assert kinds(model) >= {IntConv}
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (expected,) = run(executable.build.graph, {"x": x}).values()
    np.testing.assert_array_equal(executable(x), expected)
    check(model, 0.051, x)
