"""RNN, GRU and LSTM against ONNX Runtime, in every direction and with every option."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tvmcomp as tc
from frontend.graphs import make, node, onnxruntime_outputs
from tvmcomp.errors import ModelError

STEPS, BATCH, FEATURES, HIDDEN = 5, 2, 4, 3
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_RNG = np.random.default_rng(0)


def _array(*shape: int) -> np.ndarray:
    return (_RNG.standard_normal(shape) * 0.5).astype(np.float32)


def _compiled_equals_onnxruntime(model: Any, inputs: dict[str, np.ndarray]) -> None:
    want = onnxruntime_outputs(model, inputs)
    got = tc.compile(tc.from_onnx(model), golden=inputs).payload.golden_outputs
    for ours, theirs in zip(got.values(), want, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def _model(
    cell: str, direction: str, extra: dict[int, np.ndarray] | None = None, **attributes: Any
) -> tuple[Any, dict[str, np.ndarray]]:
    """Weights are stored; `extra` are further stored operands by position."""
    d, g = 2 if direction == "bidirectional" else 1, _GATES[cell]
    weights = {
        "w": _array(d, g * HIDDEN, FEATURES),
        "r": _array(d, g * HIDDEN, HIDDEN),
        "b": _array(d, 2 * g * HIDDEN),
    }
    operands = ["x", "w", "r", "b", "", "", "", ""]
    for position, array in (extra or {}).items():
        operands[position] = f"operand{position}"
        weights[f"operand{position}"] = array
    while not operands[-1]:
        operands.pop()
    outputs = ["y", "h", "c"] if cell == "LSTM" else ["y", "h"]
    layer = node(
        cell, operands, outputs, name="/rnn", hidden_size=HIDDEN, direction=direction, **attributes
    )
    model = make([layer], {"x": (STEPS, BATCH, FEATURES)}, outputs, weights)
    return model, {"x": _array(STEPS, BATCH, FEATURES)}


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM"])
def test_every_direction_with_lengths_and_initial_states(cell: str, direction: str) -> None:
    d = 2 if direction == "bidirectional" else 1
    extra = {4: np.array([5, 3], np.int32), 5: _array(d, BATCH, HIDDEN)}
    if cell == "LSTM":
        extra |= {6: _array(d, BATCH, HIDDEN), 7: _array(d, 3 * HIDDEN)}
    _compiled_equals_onnxruntime(*_model(cell, direction, extra))


@pytest.mark.parametrize("linear_before_reset", [0, 1])
def test_gru_applies_the_reset_gate_before_or_after_the_product(linear_before_reset: int) -> None:
    model, inputs = _model("GRU", "bidirectional", linear_before_reset=linear_before_reset)
    _compiled_equals_onnxruntime(model, inputs)


def test_activations_with_parameters_of_both_directions() -> None:
    model, inputs = _model(
        "LSTM",
        "bidirectional",
        activations=["HardSigmoid", "LeakyRelu", "Tanh", "Sigmoid", "ScaledTanh", "Softsign"],
        activation_alpha=[0.3, 0.1, 1.7159],
        activation_beta=[0.4, 0.6667],
    )
    _compiled_equals_onnxruntime(model, inputs)


def test_the_input_projection_is_one_matmul() -> None:
    model = tc.from_onnx(_model("LSTM", "forward")[0])
    text = str(model.module)
    # One for all time steps, one per step for the state.
    assert text.count("R.matmul(") == 1 + STEPS


def test_too_many_steps_are_refused_with_their_number() -> None:
    weights = {"w": _array(1, HIDDEN, 2), "r": _array(1, HIDDEN, HIDDEN)}
    layer = node("RNN", ["x", "w", "r"], ["y"], name="/long", hidden_size=HIDDEN)
    model = make([layer], {"x": (5000, 1, 2)}, ["y"], weights)
    with pytest.raises(ModelError, match=r"RNN node /long .*5000 time steps"):
        tc.from_onnx(model)
