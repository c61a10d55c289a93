"""Quantize/dequantize pairs and compressed weights, written into a copy of a model.

y = conv2d(x, w)  ->  x.q = quantize(x); x.dq = dequantize(x.q)
                      w = dequantize_weight(w.codes, w.scale)
                      y = conv2d(x.dq, w)

or, with the range of x taken at run time, y = conv2d(dynamic_quantize(x), w)
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.compress.packed_weight import UniformWeight
from tvmcomp.compress.weight_form import BoundWeight, bind_weight
from tvmcomp.frontend.block import leaves, substitute
from tvmcomp.frontend.dynamic_form import DynamicForm, dynamic_quantize
from tvmcomp.graph.dataflow import Dataflow
from tvmcomp.graph.layers import QParams
from tvmcomp.model import Model

__all__ = ["write"]


def write(
    model: Model,
    flow: Dataflow,
    qparams: Mapping[str, QParams],
    dtype: str,
    forms: Mapping[str, UniformWeight],
    layers: Mapping[str, str],
    dynamic: Mapping[str, DynamicForm],
    exact: Set[str] = frozenset(),
) -> Model:
    """The model with a pair behind every tensor in `qparams` and `forms` in place of weights.

    flow:    the dataflow of `model`; dtype: of the codes.
    forms:   by parameter; layers: layer -> the parameter that is its weight.
    dynamic: layer -> the form of its input, for layers whose input's range is taken at run time.
    exact:   tensors made from the operands as they are, in front of their pairs.
    """
    bound = {name: bind_weight(form, name) for name, form in forms.items()}
    kept = _read_elsewhere(flow, layers)
    bindings: dict[relax.Var, Expr] = {}
    weights = {
        name: relax.DataflowVar(
            f"{name}.quantized" if name in kept else name, weight.call.ty_args[0]
        )
        for name, weight in bound.items()
    }
    renamed: dict[relax.Var, Expr] = {}
    inputs: dict[tuple[relax.Var, DynamicForm], relax.Var] = {}
    for var in flow.parameters:
        if str(var.name) in qparams:
            renamed[var] = _pair(bindings, var, qparams[str(var.name)], dtype)
    for var, value in flow.bindings.items():
        own = layers.get(str(var.name))
        if own is None:
            bindings[var] = value if str(var.name) in exact else substitute(value, renamed)
        else:
            bindings.setdefault(weights[own], bound[own].call)
            x = value.args[0]
            (weight,) = (arg for arg in value.args if getattr(arg, "name", None) == own)
            read = {**renamed, weight: weights[own]}
            if str(var.name) in dynamic:
                read[x] = _coded(bindings, inputs, x, dynamic[str(var.name)])
            bindings[var] = substitute(value, read)
        if str(var.name) in qparams:
            renamed[var] = _pair(bindings, var, qparams[str(var.name)], dtype)
    outputs = tuple(substitute(var, renamed) for var in flow.outputs)
    parameters, params = _parameters(model, flow, bound, kept)
    edited = replace(flow, parameters=parameters, bindings=bindings, outputs=outputs)
    return replace(model, module=edited.build(), params=params)


def _read_elsewhere(flow: Dataflow, layers: Mapping[str, str]) -> set[str]:
    """Parameters that something else than the layer whose weight they are reads, as float32."""
    return {
        name
        for var, value in flow.bindings.items()
        for read in leaves(value)
        if (name := str(read.name)) != layers.get(str(var.name))
    }


def _pair(
    bindings: dict[relax.Var, Expr], var: relax.Var, qparams: QParams, dtype: str
) -> relax.Var:
    """var -> dequantize(quantize(var)), for everything that reads it from here on."""
    scale = relax.const(np.float32(qparams.scale), "float32")
    zero_point = relax.const(np.array(qparams.zero_point, dtype), dtype)
    codes = relax.DataflowVar(f"{var.name}.q", relax.TensorType(var.ty.shape, dtype))
    bindings[codes] = relax.op.quantize(var, scale, zero_point, axis=-1, out_dtype=dtype)
    real = relax.DataflowVar(f"{var.name}.dq", var.ty)
    bindings[real] = relax.op.dequantize(codes, scale, zero_point, axis=-1, out_dtype="float32")
    return real


def _coded(
    bindings: dict[relax.Var, Expr],
    inputs: dict[tuple[relax.Var, DynamicForm], relax.Var],
    x: relax.Var,
    form: DynamicForm,
) -> relax.Var:
    """dynamic_quantize(x), once for all layers that read x in this form."""
    if (x, form) not in inputs:
        call = dynamic_quantize(x, form)
        name = f"{x.name}.{'per_token' if form.per_token else 'per_tensor'}"
        inputs[x, form] = relax.DataflowVar(name, call.ty_args[0])
        bindings[inputs[x, form]] = call
    return inputs[x, form]


def _parameters(
    model: Model, flow: Dataflow, bound: Mapping[str, BoundWeight], kept: set[str]
) -> tuple[tuple[relax.Var, ...], dict[str, np.ndarray]]:
    """A compressed weight's parameters take the place of the weight they replace."""
    parameters: list[relax.Var] = []
    arrays = dict(model.params)
    for var in flow.parameters:
        name = str(var.name)
        if name not in bound or name in kept:
            parameters.append(var)
        if name in bound:
            parameters.extend(bound[name].variables)
            arrays.update(bound[name].params)
    params = {name: arrays[name] for var in parameters if (name := str(var.name)) in arrays}
    return tuple(parameters), params
