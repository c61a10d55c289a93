"""Weights a model brings as codes take the form every compressed weight has here.

w = dequantize(w.codes, scale, zero_point, axis)  ->  call_pure_packed("tvmcomp.dequantize_weight", w.codes, ...)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.compress.granularity import Granularity, PerAxis, PerTensor
from tvmcomp.compress.packed_weight import UniformWeight
from tvmcomp.compress.weight_form import bind_weight, match_weight
from tvmcomp.frontend.block import as_array, leaves, op_name, unique
from tvmcomp.graph.dataflow import Dataflow
from tvmcomp.model import Model

__all__ = ["adopt_weights", "is_quantized"]


def is_quantized(model: Model) -> bool:
    """Whether the model has codes between its layers already, its own or from another quantizer."""
    values = Dataflow.of(model.module).bindings.values()
    return any(op_name(value) in ("quantize", "dequantize") for value in values)


def adopt_weights(model: Model) -> Model:
    """A canonical model with every 8-bit parameter that is dequantized in the packed form."""
    flow = Dataflow.of(model.module)
    taken = {str(var.name): 0 for var in (*flow.parameters, *flow.bindings)}
    bindings: dict[relax.Var, Expr] = {}
    added: dict[relax.Var, np.ndarray] = {}
    for var, value in flow.bindings.items():
        form = _form(value, model.params)
        if form is None:
            bindings[var] = value
            continue
        name = unique(str(value.args[0].name).removesuffix("_quantized") + ".weight", taken)
        bound = bind_weight(form, name)
        bindings[var] = bound.call
        added |= {variable: bound.params[str(variable.name)] for variable in bound.variables}
    if not added:
        return model
    read = {var for value in bindings.values() for var in leaves(value)} | {*flow.outputs}
    count = len(model.signature.inputs)
    kept = [var for i, var in enumerate(flow.parameters) if i < count or var in read]
    module = replace(flow, parameters=(*kept, *added), bindings=bindings).build()
    arrays = {str(var.name): array for var, array in added.items()}
    params = {str(var.name): model.params[str(var.name)] for var in kept[count:]} | arrays
    return replace(model, module=module, params=params)


def _form(value: Expr, params: Mapping[str, np.ndarray]) -> UniformWeight | None:
    """The weight a dequantize node stands for if all its operands are known, else None."""
    if op_name(value) != "dequantize" or match_weight(value, params) is not None:
        return None
    codes, scale, zero_point = (_known(arg, params) for arg in value.args)
    if codes is None or scale is None or zero_point is None:
        return None
    if codes.dtype not in (np.int8, np.uint8) or str(value.ty.dtype) != "float32":
        return None
    axis = int(value.attrs.axis) % codes.ndim
    granularity: Granularity = PerTensor() if scale.size == zero_point.size == 1 else PerAxis(axis)
    shape = granularity.parameter_shape(codes.shape)
    points = np.broadcast_to(zero_point.reshape(-1), max(scale.size, zero_point.size))
    return UniformWeight.from_codes(
        codes,
        np.broadcast_to(scale.astype(np.float32).reshape(-1), points.shape).reshape(shape),
        points.astype(codes.dtype).reshape(shape) if points.any() else None,
        bits=8,
        granularity=granularity,
    )


def _known(arg: Expr, params: Mapping[str, np.ndarray]) -> np.ndarray | None:
    return params.get(str(arg.name)) if isinstance(arg, relax.Var) else as_array(arg)
