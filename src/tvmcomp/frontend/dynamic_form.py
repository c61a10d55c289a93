"""The one form of an activation quantized at run time in Relax: `dynamic_quantize` writes it, `match_dynamic` reads it.

    x: f32  ->  call_pure_packed("tvmcomp.dynamic_quantize", x, signed, per_token)        f32, of the shape of x

The call stands for the float32 values of the codes x gets on a grid of its own, call by call: quantize and
dequantize in one. It is a packed function TVM knows nothing about, so no pass expands, folds or moves it.
`DynamicQuantize` in `graph/layers.py` is its arithmetic, `fake_quantize` of `compress/reference` its value.
Here, because importers write it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import op_name

__all__ = ["DynamicDtype", "DynamicForm", "dynamic_quantize", "match_dynamic"]

DynamicDtype: TypeAlias = Literal["uint8", "int8"]

_SYMBOL = "tvmcomp.dynamic_quantize"


@dataclass(frozen=True)
class DynamicForm:
    """Codes of all of `dtype`; one grid per call for the whole tensor, or one for each row of its last axis."""

    dtype: DynamicDtype = "uint8"
    per_token: bool = False


def dynamic_quantize(x: Expr, form: DynamicForm) -> relax.Call:
    """The float32 values that the codes of `x`, a float32 tensor of known shape, stand for."""
    flags = (int(form.dtype == "int8"), int(form.per_token))
    return relax.op.call_pure_packed(
        _SYMBOL, x, *map(relax.prim_value, flags), ty_args=relax.TensorType(x.ty.shape, "float32")
    )


def match_dynamic(expr: Expr) -> tuple[Expr, DynamicForm] | None:
    """(x, form) if `expr` is `dynamic_quantize(x, form)`, else None."""
    if op_name(expr) != "call_pure_packed" or not isinstance(expr.args[0], relax.ExternFunc):
        return None
    if str(expr.args[0].global_symbol) != _SYMBOL:
        return None
    _, x, signed, per_token = expr.args
    dtype: DynamicDtype = "int8" if int(signed.value) else "uint8"
    return x, DynamicForm(dtype, bool(per_token.value))
