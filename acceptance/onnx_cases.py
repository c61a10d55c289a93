"""The ONNX backend node tests as cases: which count, and which of their inputs are settings."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

__all__ = ["Case", "excluded", "load_cases"]

# Element types an artifact's numpy interface has.
_TYPES = frozenset(
    {
        TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BOOL,
        TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
        TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
    }
)  # fmt: skip

_TRAINING = "ai.onnx.preview.training"
_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)  # fmt: skip

# Operand positions that decide shapes or what an operator does; a trained network stores them.
# Everything else is data, operands that decide a shape by what they hold (NonZero, Unique) included.
_SETTINGS: Mapping[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "Compress": (1,),
    "ConstantOfShape": (0,),
    "CumProd": (1,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "GRU": (4,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "If": (0,),
    "LSTM": (4,),
    "Loop": (0, 1),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "NonMaxSuppression": (2, 3, 4),
    "OneHot": (1,),
    "Pad": (1, 2, 3),
    "QLinearConv": (1, 2, 3, 4, 5, 6, 7, 8),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
    "RNN": (4,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
    **dict.fromkeys(
        (
            "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
            "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
        ),
        (1,),
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """One test: `operator` is what it is about; `model` has settings as initializers."""

    name: str
    operator: str
    original: onnx.ModelProto
    model: onnx.ModelProto
    inputs: Mapping[str, np.ndarray]  # of `model`
    all_inputs: Mapping[str, np.ndarray]  # of `original`
    outputs: tuple[np.ndarray, ...]  # what the test expects


def excluded(model: onnx.ModelProto) -> str:
    """Why a test is not about float or integer tensors in inference; "" if it is."""
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            return f"{kind.removesuffix('_type')} instead of a tensor"
        if value.type.tensor_type.elem_type == TensorProto.STRING:
            return "tensor of strings"
        if value.type.tensor_type.elem_type not in _TYPES:
            return "element type numpy lacks (bfloat16, 2 to 8 bit floats, 2 and 4 bit integers)"
    for node in model.graph.node:
        if node.op_type in _RANDOM:
            return "random results"
        if node.domain == _TRAINING:
            return "training step"
    return ""


@cache
def load_cases() -> tuple[dict[str, Case], Counter[str]]:
    """(name -> case, why left out -> how many); the order is the onnx package's."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        tests = load_model_tests(kind="node")
    operators = {test.name: _operator(test.model) for test in tests}
    cases: dict[str, Case] = {}
    left_out: Counter[str] = Counter()
    for test in tests:
        reason = excluded(test.model) or _training_mode(test)
        if reason:
            left_out[reason] += 1
            continue
        # An expanded test is the function body of the operator whose name it carries.
        operator = operators.get(test.name.partition("_expanded")[0], operators[test.name])
        cases[test.name] = _case(test, operator)
    return cases, left_out


def _operator(model: onnx.ModelProto) -> str:
    node = model.graph.node[0]
    return f"{node.domain}.{node.op_type}" if node.domain else str(node.op_type)


def _training_mode(test: Any) -> str:
    """Dropout and batch normalisation told to train: random, or a training step."""
    for node in test.model.graph.node:
        if any(a.name == "training_mode" and a.i for a in node.attribute):
            return "training step"
        names = [value.name for value in test.model.graph.input]
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] in names:
            value = test.data_sets[0][0][names.index(node.input[2])]
            if bool(_array(value).reshape(())):
                return "random results"
    return ""


def _case(test: Any, operator: str) -> Case:
    arrays, results = test.data_sets[0]
    names = [value.name for value in test.model.graph.input]
    feeds = {name: _array(array) for name, array in zip(names, arrays, strict=False)}
    settings = set(_setting_names(test.model, operator))
    model = onnx.ModelProto()
    model.CopyFrom(test.model)
    kept = [value for value in test.model.graph.input if value.name not in settings]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.extend(
        numpy_helper.from_array(feeds[name], name) for name in names if name in settings
    )
    return Case(
        name=test.name,
        operator=operator,
        original=test.model,
        model=model,
        inputs={name: feeds[name] for name in names if name not in settings},
        all_inputs=feeds,
        outputs=tuple(_array(result) for result in results),
    )


def _array(value: Any) -> np.ndarray:
    if isinstance(value, TensorProto):
        return np.asarray(numpy_helper.to_array(value))
    return np.asarray(value)


def _setting_names(model: onnx.ModelProto, operator: str) -> Iterator[str]:
    """Graph inputs that stand at a setting's place; an expanded test has its operator's inputs in order."""
    positions = _SETTINGS.get(operator, ())
    names = [value.name for value in model.graph.input]
    single = len(model.graph.node) == 1 and model.graph.node[0].op_type == operator
    operands = list(model.graph.node[0].input) if single else names
    yield from (name for i, name in enumerate(operands) if i in positions and name in names)
