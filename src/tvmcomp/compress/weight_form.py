"""The one form of every compressed weight in Relax: `bind_weight` writes the call, `match_weight` reads it back.

    w: [K, N] f32  ->  call_pure_packed("tvmcomp.dequantize_weight", w.codes, w.scale[, w.zero_point], ...)
                       call_pure_packed("tvmcomp.lookup_weight", w.codes, w.table, ...)
                       call_pure_packed("tvmcomp.block_sparse_weight", w.values, w.index[, w.scale], ...)

Each is a packed function TVM knows nothing about, so constant folding, legalization and fusion leave the
call and the arrays behind it as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from tvm import relax
from tvm.ir import Expr, GenericConst

from tvmcomp.compress.granularity import Granularity, PerAxis, PerGroup, PerTensor
from tvmcomp.compress.packed_weight import (
    BlockSparseWeight,
    LookupWeight,
    UniformWeight,
    WeightForm,
)
from tvmcomp.frontend.block import op_name, substitute
from tvmcomp.graph.dataflow import Dataflow
from tvmcomp.model import Model

__all__ = [
    "BlockSparseWeight",
    "BoundWeight",
    "LookupWeight",
    "UniformWeight",
    "WeightForm",
    "bind_weight",
    "expand_weights",
    "match_weight",
]

_UNIFORM = "tvmcomp.dequantize_weight"
_LOOKUP = "tvmcomp.lookup_weight"
_BLOCK_SPARSE = "tvmcomp.block_sparse_weight"


@dataclass(frozen=True, eq=False)
class BoundWeight:
    """A weight as an expression of type float32 `shape`, over new parameters in calling order."""

    call: relax.Call
    variables: tuple[relax.Var, ...]
    params: Mapping[str, np.ndarray]


def bind_weight(form: WeightForm, name: str) -> BoundWeight:
    """The call that stands for `form`; its parameters are named `NAME.codes`, `NAME.scale` and so on."""
    numbers: tuple[int, ...]
    match form:
        case UniformWeight():
            arrays = {"codes": form.packed, "scale": form.scale, "zero_point": form.zero_point}
            numbers = (form.bits, int(form.signed))
            symbol = _UNIFORM
        case LookupWeight():
            arrays = {"codes": form.packed, "table": form.table}
            numbers = (form.bits,)
            symbol = _LOOKUP
        case BlockSparseWeight():
            arrays = {"values": form.values, "index": form.index, "scale": form.scale}
            numbers = ()
            symbol = _BLOCK_SPARSE
    params = {f"{name}.{key}": array for key, array in arrays.items() if array is not None}
    variables = tuple(
        relax.Var(key, relax.TensorType(array.shape, array.dtype.name))
        for key, array in params.items()
    )
    numbers = (*numbers, *_encode(form.granularity))
    call = relax.op.call_pure_packed(
        symbol,
        *variables,
        *(relax.prim_value(number) for number in numbers),
        ty_args=relax.TensorType(form.shape, "float32"),
    )
    return BoundWeight(call, variables, params)


def match_weight(expr: Expr, params: Mapping[str, np.ndarray]) -> WeightForm | None:
    """The weight `expr` stands for, None if it is not a compressed weight's call."""
    symbol = _symbol(expr)
    if symbol not in (_UNIFORM, _LOOKUP, _BLOCK_SPARSE):
        return None
    arrays = [array for arg in expr.args[1:] if (array := _array(arg, params)) is not None]
    numbers = [int(arg.value) for arg in expr.args[1 + len(arrays) :]]
    shape = tuple(int(n) for n in expr.ty_args[0].shape)
    granularity = _decode(*numbers[-2:])
    optional = arrays[2] if len(arrays) > 2 else None
    if symbol == _UNIFORM:
        bits, signed = numbers[0], bool(numbers[1])
        return UniformWeight(arrays[0], arrays[1], optional, shape, bits, signed, granularity)
    if symbol == _LOOKUP:
        return LookupWeight(arrays[0], arrays[1], shape, numbers[0], granularity)
    return BlockSparseWeight(arrays[0], arrays[1], optional, shape, granularity)


def expand_weights(model: Model) -> Model:
    """The model with every compressed weight as a plain float32 parameter: what its calls compute.

    call_pure_packed("tvmcomp.dequantize_weight", w.codes, w.scale)  ->  w: f32
    """
    flow = Dataflow.of(model.module)
    plain: dict[relax.Var, relax.Var] = {}
    arrays = dict(model.params)
    kept: dict[relax.Var, Expr] = {}
    packed: set[relax.Var] = set()
    for var, value in flow.bindings.items():
        form = match_weight(value, model.params)
        if form is None:
            kept[var] = substitute(value, plain)
            continue
        plain[var] = relax.Var(var.name, var.ty)
        arrays[var.name] = form.dequantized()
        packed.update(arg for arg in value.args if isinstance(arg, relax.Var))
    parameters = (*(var for var in flow.parameters if var not in packed), *plain.values())
    module = replace(flow, parameters=parameters, bindings=kept).build()
    params = {var.name: arrays[var.name] for var in parameters if var.name in arrays}
    return replace(model, module=module, params=params)


def _symbol(expr: Expr) -> str:
    if op_name(expr) != "call_pure_packed" or not isinstance(expr.args[0], relax.ExternFunc):
        return ""
    return str(expr.args[0].global_symbol)


def _array(arg: Expr, params: Mapping[str, np.ndarray]) -> np.ndarray | None:
    if isinstance(arg, relax.Var):
        return params[arg.name]
    return arg.value.numpy() if isinstance(arg, GenericConst) else None


def _encode(granularity: Granularity) -> tuple[int, int]:
    """(axis, group): axis -1 is the whole tensor, group 0 a single index of the axis."""
    match granularity:
        case PerTensor():
            return -1, 0
        case PerAxis(axis) if axis is not None:
            return axis, 0
        case PerGroup(size, axis) if axis is not None:
            return axis, size
    raise ValueError(f"{granularity} must be resolved before it is bound")


def _decode(axis: int, group: int) -> Granularity:
    if axis < 0:
        return PerTensor()
    return PerGroup(group, axis) if group else PerAxis(axis)
