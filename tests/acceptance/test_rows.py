"""Rows on one tiny network: they pass on it as it is, and each sees the fault it is there to see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from acceptance.apart import run_apart
from acceptance.arrays import _forms
from acceptance.bad_files import refused
from acceptance.context import Compiled, Context
from acceptance.forge import forgeries, header_offsets
from acceptance.nets import TINY
from acceptance.row import Check

from acceptance import damage, float_match, int8_exact, int8_steps, integer_share, locate, threads
from tvmcomp.compress import reference
from tvmcomp.graph.layers import IntConv, LayerGraph

NET = TINY[0]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    folder = tmp_path_factory.mktemp("acceptance")
    return Context((NET,), folder, calibration_samples=4, evaluation_samples=3, trials=0.02)


def _compiled(context: Context) -> Compiled:
    return context.compiled(NET, "onnx", "int8")


def _with_graph(
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[IntConv], Mapping[str, object]],
) -> str:
    """`context` with the graph's second convolution changed; its name."""
    compiled = _compiled(context)
    layers = list(compiled.graph.layers)
    index = [i for i, layer in enumerate(layers) if isinstance(layer, IntConv)][1]
    layers[index] = replace(layers[index], **change(layers[index]))
    graph: LayerGraph = replace(compiled.graph, layers=tuple(layers))
    monkeypatch.setattr(context, "compiled", lambda *_: replace(compiled, graph=graph))
    return layers[index].name


def _judged(checks: list[Check]) -> list[bool]:
    return [check.ok for check in checks if check.ok is not None]


def test_exactness_sees_a_bias_that_is_off(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _judged(list(int8_exact._one(context, NET, "onnx"))) == [True] * 4
    _with_graph(context, monkeypatch, lambda layer: {"bias": layer.bias + 1})
    checks = list(int8_exact._one(context, NET, "onnx"))
    assert checks[0].ok is False
    assert "of 10 values differ" in checks[0].detail


def test_the_layer_whose_kernel_differs_is_named(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = _compiled(context).graph
    inputs = {graph.inputs[0]: context.evaluation(NET)[0]["x"]}
    assert locate.first_difference(graph, inputs).startswith("no layer differs")
    wrong = graph.layers[3]
    real = locate._run

    def off_by_one(changed: LayerGraph, *rest: object) -> list[np.ndarray]:
        arrays = [array.copy() for array in real(changed, *rest)]  # type: ignore[arg-type]
        arrays[3].flat[5] += 1
        return arrays

    monkeypatch.setattr(locate, "_run", off_by_one)
    assert f"{wrong.name} ({type(wrong).__name__}), 1 of" in locate.first_difference(graph, inputs)


def test_steps_see_two_steps(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _judged(list(int8_steps._one(context, NET, "onnx"))) == [True]
    real = reference.simulate_layer

    def two_off(*arguments: object) -> np.ndarray:
        codes = real(*arguments)  # type: ignore[arg-type]
        return (codes.astype(np.int32) ^ 2).astype(codes.dtype)

    monkeypatch.setattr(reference, "simulate_layer", two_off)
    (check, _) = int8_steps._one(context, NET, "onnx")
    assert check.ok is False
    assert check.value == 2


def test_the_share_sees_layers_left_in_float(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _judged(list(integer_share._one(context, NET, "onnx"))) == [True]
    compiled = _compiled(context)
    kept = [layer for layer in compiled.graph.layers if not isinstance(layer, IntConv)]
    convs = [layer for layer in compiled.graph.layers if isinstance(layer, IntConv)]
    graph = replace(compiled.graph, layers=(*kept, *convs[1:]))
    monkeypatch.setattr(context, "compiled", lambda *_: replace(compiled, graph=graph))
    checks = list(integer_share._one(context, NET, "onnx"))
    assert checks[0].ok is False
    assert checks[0].value > 0.01


def test_float_sees_one_part_in_a_thousand(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _judged(list(float_match._one(context, NET, "torch"))) == [True]
    real = float_match._torch

    def off(*arguments: object) -> list[np.ndarray]:
        return [[y * np.float32(1.001) for y in call] for call in real(*arguments)]  # type: ignore[arg-type]

    monkeypatch.setitem(float_match._FRAMEWORKS, "torch", off)
    assert _judged(list(float_match._one(context, NET, "torch"))) == [False]


def test_damage_is_refused_and_native_code_is_noticed(context: Context) -> None:
    options = {"artifact": str(_compiled(context).path), "truncations": 3, "flips": 6}
    found = run_apart("acceptance.damage:measure", options)
    assert found["faults"] == []
    assert found["sound"]
    assert found["counts"]["truncated"] == 3
    # TVM is loaded here already, which is what the row must notice.
    _compiled(context)
    here = damage.measure(truncations=0, flips=0, artifact=options["artifact"])
    assert "loaded" in here["faults"][0]


def test_forgeries_are_sealed_and_none_is_the_file_itself(context: Context) -> None:
    data = _compiled(context).path.read_bytes()
    made = dict(forgeries(data))
    assert len(made) >= 20
    assert data not in made.values()
    assert len(set(made.values())) == len(made)
    headers = header_offsets(data)
    assert {0, len(data) - 1} <= set(headers)
    assert len(headers) < len(data) / 2


def test_a_refusal_must_say_why_exit_3_and_write_nothing(tmp_path: Path) -> None:
    """With verbs that start in a second; those that compile are tried in the row itself."""
    absent = ["inspect", "absent.tvmcomp"]
    assert refused("", tmp_path, absent, ("absent.tvmcomp",)).ok is True
    assert "does not name" in refused("", tmp_path, absent, ("cyclic",)).detail
    usage = refused("", tmp_path, ["inspect", "--no-such-option"], ())
    assert usage.ok is False
    assert "exit 2" in usage.detail
    (tmp_path / "p.vta").write_text(".dram 0x1000\n.launch\nfinish\n")
    written = refused("", tmp_path, ["vta", "asm", "p.vta", "-o", "p.bin"], ())
    assert written.ok is False
    assert "exit 0" in written.detail
    assert "wrote ['p.bin']" in written.detail


def test_callers_get_equal_results(context: Context) -> None:
    np.save(context.folder / "inputs.npy", np.stack([s["x"] for s in context.evaluation(NET)]))
    options = {
        "artifact": str(_compiled(context).path),
        "inputs": str(context.folder / "inputs.npy"),
        "callers": 3,
        "calls": 20,
        "threads": 2,
        "executors": 1,
    }
    found = run_apart("acceptance.threads:measure", options)
    assert (found["wrong"], found["failures"], found["calls"]) == (0, [], 60)
    assert 0 <= found["threads"] <= 2
    assert threads._status("Threads") >= 1


def test_every_form_of_an_array_holds_the_same_values() -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 5, 7)).astype(np.float32)
    forms = _forms(x)
    assert all(np.array_equal(form, x) for form in forms.values())
    assert forms["4 bytes past alignment"].ctypes.data % 64 == 4
    assert not forms["read-only"].flags.writeable
    assert not forms["every second element"].flags.c_contiguous
    assert not forms["byte-swapped"].dtype.isnative
