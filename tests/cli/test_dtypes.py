"""Integer, boolean and half-precision inputs from the command line to the outputs' file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cli.conftest import Done

ROWS, WIDTH, TOKENS, SAMPLES = 12, 16, 6, 8
RNG = np.random.default_rng(0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Embedded tokens, masked, plus a half-precision bias and a scaled int32 count, through a dense layer."""
    weights = {
        "table": RNG.standard_normal((ROWS, WIDTH)).astype(np.float32),
        "w": RNG.standard_normal((WIDTH, 4)).astype(np.float32),
    }
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Gather", ["table", "ids"], ["embedded"], name="/embed"),
            node("Cast", ["bias"], ["wide"], to=TensorProto.FLOAT),
            node("Add", ["embedded", "wide"], ["biased"]),
            node("Cast", ["keep"], ["kept"], to=TensorProto.FLOAT),
            node("Mul", ["biased", "kept"], ["masked"]),
            node("MatMul", ["masked", "w"], ["y"], name="/dense"),
            node("ArgMax", ["y"], ["best"], axis=-1, keepdims=0),
        ],
        "tokens",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, (1, TOKENS)),
            helper.make_tensor_value_info("keep", TensorProto.BOOL, (1, TOKENS, 1)),
            helper.make_tensor_value_info("bias", TensorProto.FLOAT16, (1, 1, WIDTH)),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("best", TensorProto.INT64, None),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = tmp_path / "tokens.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path
    )
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "in.npz"
    np.savez(
        path,
        ids=RNG.integers(0, ROWS, (SAMPLES, TOKENS)),
        keep=RNG.random((SAMPLES, TOKENS, 1)) > 0.3,
        bias=RNG.standard_normal((SAMPLES, 1, WIDTH)).astype(np.float16),
    )
    return path


def _expected(model: Path, data: Path) -> dict[str, np.ndarray]:
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(model).graph.initializer}
    with np.load(data) as arrays:
        x = weights["table"][arrays["ids"]] + arrays["bias"].astype(np.float32)
        y = (x * arrays["keep"]) @ weights["w"]
    return {"y": y, "best": y.argmax(-1)}


@pytest.mark.parametrize("recipe", [None, "int8"])
def test_every_dtype_runs(
    call: Callable[..., Done], model: Path, data: Path, recipe: str | None
) -> None:
    artifact, out = model.with_suffix(".tvmcomp"), data.with_name("out.npz")
    extra = () if recipe is None else ("--recipe", recipe, "--calibration", data)
    done = call("compile", model, "-o", artifact, *extra)
    assert done.code == 0, done.err
    done = call("run", artifact, "-i", data, "-o", out, "--json")
    assert done.code == 0, done.err
    assert done.json["calls"] == SAMPLES
    want = _expected(model, data)
    with np.load(out) as outputs:
        assert outputs["best"].dtype == np.int64
        scale = np.abs(want["y"]).max()
        tolerance = 1e-5 if recipe is None else 0.05
        assert np.abs(outputs["y"].reshape(want["y"].shape) - want["y"]).max() <= tolerance * scale
        if recipe is None:
            np.testing.assert_array_equal(outputs["best"].reshape(want["best"].shape), want["best"])
