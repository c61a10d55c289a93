"""Scale and zero point of every quantized tensor of a model: read out, and put in place of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import as_array, op_name
from tvmcomp.graph.dataflow import Dataflow
from tvmcomp.model import Model

__all__ = ["code_rows", "with_codes"]


def code_rows(model: Model) -> tuple[Mapping[str, object], ...]:
    """{"name", "dtype", "scale", "zero_point"} per `quantize` with constants of one element."""
    rows = []
    for var, value in Dataflow.of(model.module).bindings.items():
        if op_name(value) != "quantize":
            continue
        scale, zero_point = (_constant(model, value.args[i]) for i in (1, 2))
        if scale is None or zero_point is None:
            continue
        rows.append(
            {
                "name": str(var.name),
                "dtype": str(var.ty.dtype),
                "scale": float(np.float32(scale)),
                "zero_point": int(zero_point),
            }
        )
    return tuple(rows)


def with_codes(model: Model, rows: Sequence[Mapping[str, Any]]) -> Model:
    """The model with the scales and zero points of `rows` (`code_rows` of another build of it).

    y.q = quantize(y, s, z); y.dq = dequantize(y.q, s, z)  ->  the same with s and z of the row "y.q"
    """
    known = {str(row["name"]): row for row in rows}
    flow = Dataflow.of(model.module)
    bindings: dict[relax.Var, Expr] = {}
    for var, value in flow.bindings.items():
        op = op_name(value)
        codes = {"quantize": str(var.name)}.get(op)
        if op == "dequantize" and isinstance(value.args[0], relax.Var):
            codes = str(value.args[0].name)
        row = known.get(codes) if codes is not None else None
        if row is None:
            bindings[var] = value
            continue
        scale = relax.const(np.float32(row["scale"]), "float32")
        dtype = str(row["dtype"])
        zero_point = relax.const(np.array(row["zero_point"], dtype), dtype)
        arguments = [value.args[0], scale, zero_point]
        bindings[var] = relax.Call(value.op, arguments, value.attrs, value.ty_args)
    return replace(model, module=replace(flow, bindings=bindings).build())


def _constant(model: Model, expr: Expr) -> float | None:
    array = as_array(expr)
    if array is None and isinstance(expr, relax.Var):
        array = model.params.get(str(expr.name))
    return float(np.asarray(array).reshape(())) if array is not None and array.size == 1 else None
