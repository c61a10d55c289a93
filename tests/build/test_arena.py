"""Tensors that are alive together never share bytes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from tvm import relax

from build.graphs import Net
from tvmcomp.build.arena import plan_arena
from tvmcomp.build.lower import lower
from tvmcomp.graph.layers import Copy, LayerGraph, TensorSpec, View
from tvmcomp.schedule.layouts import assign_layouts

op = relax.op


def chain(sizes: list[int]) -> LayerGraph:
    """x -> t0 -> t1 -> ... -> y, one float row each."""
    names = ["x", *(f"t{i}" for i in range(len(sizes))), "y"]
    shapes = [(sizes[0],), *((n,) for n in sizes), (sizes[-1],)]
    tensors = {n: TensorSpec(n, s, "float32") for n, s in zip(names, shapes, strict=True)}
    layers = tuple(Copy(name=b, inputs=(a,), output=b) for a, b in pairwise(names))
    return LayerGraph(tensors, layers, ("x",), ("y",))


def live_intervals(graph: LayerGraph) -> dict[str, tuple[int, int]]:
    lives: dict[str, tuple[int, int]] = {}
    for step, layer in enumerate(graph.layers):
        for name in (layer.output, *layer.inputs):
            first, _ = lives.get(name, (step, step))
            lives[name] = (first, step)
    return lives


def test_no_two_live_tensors_overlap():
    rng = np.random.default_rng(3)
    net = Net((1, 12, 12, 16))
    values = [net.x]
    for i in range(8):
        source = values[int(rng.integers(max(0, len(values) - 3), len(values)))]
        values.append(net.conv(source, 16, 3, f"c{i}", quantized=False))
    total = values[-1]
    for i, value in enumerate(values[1:-1]):
        total = net.emit(op.add(total, value), f"sum{i}")
    scheduled = assign_layouts(lower(net.model(total)))
    plan = plan_arena(scheduled)
    lives = live_intervals(scheduled.graph)
    placed = [n for n, place in plan.places.items() if place.region == "arena"]
    assert len(placed) > 8
    for a in placed:
        start, end = plan.places[a].offset, plan.places[a].offset + scheduled.layouts[a].nbytes
        assert start % 64 == 0
        assert end <= plan.size
        for b in placed:
            together = lives[a][0] <= lives[b][1] and lives[b][0] <= lives[a][1]
            if a < b and together:
                other = plan.places[b].offset
                assert end <= other or other + scheduled.layouts[b].nbytes <= start


def test_a_chain_reuses_memory():
    scheduled = assign_layouts(chain([1024] * 6))
    plan = plan_arena(scheduled)
    one = scheduled.layouts["t0"].nbytes
    assert plan.size < 3 * one


def test_a_view_shares_its_sources_memory_and_keeps_it_alive():
    tensors = {n: TensorSpec(n, (64,), "float32") for n in ("x", "a", "c", "y")}
    tensors["v"] = TensorSpec("v", (8, 8), "float32")
    layers = (
        Copy(name="a", inputs=("x",), output="a"),
        View(name="v", inputs=("a",), output="v"),
        Copy(name="c", inputs=("x",), output="c"),
        Copy(name="y", inputs=("v",), output="y"),
    )
    plan = plan_arena(assign_layouts(LayerGraph(tensors, layers, ("x",), ("y", "c"))))
    assert plan.places["v"] == plan.places["a"]
    assert plan.places["y"].region == "y"
