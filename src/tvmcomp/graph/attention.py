"""Attention has one spelling: products of [..., M, K] and [..., K, N], each with one scalar factor behind it."""

from __future__ import annotations

from math import inf

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.errors import ModelError
from tvmcomp.frontend.attention import attention, causal_mask
from tvmcomp.frontend.block import op_name, scalar, shape_of
from tvmcomp.graph.rewrite import Rewriter

__all__ = ["Attention"]

_MOVES = ("reshape", "permute_dims")


class Attention(Rewriter):
    """
    nn.attention(q, k, v, bias)               ->  softmax(matmul(q', k') * scale + bias) @ v'    [B, L, H, E]
    matmul(a * c, permute_dims(reshape(b * d)))  ->  matmul(a, permute_dims(reshape(b))) * (c * d)
    matmul(a, b) * c * d, / d                 ->  matmul(a, b) * (c * d), * (c / d)
    matmul(reshape(a), reshape(b))            ->  reshape(matmul(a, b))    where the reshapes merge batch axes
    """

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        op = op_name(call)
        if op in ("nn.attention", "nn.attention_bias"):
            return self._fused(call)
        if op == "matmul":
            factored = self._outer_factor(call)
            return self._whole_batch(call) if factored is None else factored
        if op in ("multiply", "divide"):
            return self._one_factor(call)
        return None

    def _fused(self, call: relax.Call) -> Expr:
        q, k, v, *rest = call.args
        if call.attrs.window_size is not None:
            raise ModelError(
                "nn.attention with a window is not supported; pass the window as a mask"
            )
        heads = tuple(self.emit(relax.op.permute_dims(x, [0, 2, 1, 3])) for x in (q, k, v))
        masks = list(rest)
        kind = call.attrs.causal_mask
        if kind is not None:
            rows, columns = shape_of(q)[1], shape_of(k)[1]
            shift = columns - rows if str(kind) == "BottomRight" else 0
            masks.append(self._causal(rows, columns, shift, str(q.ty.dtype)))
        scale = call.attrs.scale
        result = attention(
            self.emit,
            (heads[0], heads[1], heads[2]),
            scale=None
            if scale is None
            else float(scale.value if hasattr(scale, "value") else scale),
            masks=tuple(masks),
        )
        return relax.op.permute_dims(result, [0, 2, 1, 3])

    def _causal(self, rows: int, columns: int, shift: int, dtype: str) -> Expr:
        if not shift:
            mask = causal_mask(rows, columns, dtype)
            return self.param("causal_mask", mask.value.numpy())
        return self.param("causal_mask", np.triu(np.full((rows, columns), -inf, dtype), 1 + shift))

    def _outer_factor(self, call: relax.Call) -> Expr | None:
        """Factors of the operands become one of the product."""
        if any(self.value(arg) is not None for arg in call.args):
            return None
        (a, c), (b, d) = (self._without_factor(arg) for arg in call.args)
        if c * d == 1.0:
            return None
        product = self.emit(relax.op.matmul(a, b))
        return relax.op.multiply(product, relax.const(c * d, str(call.ty.dtype)))

    def _without_factor(self, x: Expr) -> tuple[Expr, float]:
        """(x', c) with x = x' * c; moves of elements between x and its factor are made again."""
        if self.uses(x) > 1:
            return x, 1.0
        for op in ("multiply", "divide"):
            scaled = self.definition(x, op)
            factor = None if scaled is None else scalar(scaled.args[1])
            if scaled is None or not factor or not np.isfinite(factor):
                continue
            inner, outer = self._without_factor(scaled.args[0])
            return inner, outer * (factor if op == "multiply" else 1.0 / factor)
        for op in _MOVES:
            moved = self.definition(x, op)
            if moved is None:
                continue
            inner, factor = self._without_factor(moved.args[0])
            if factor == 1.0:
                return x, 1.0
            again = relax.Call(moved.op, [inner, *moved.args[1:]], moved.attrs, moved.ty_args)
            return self.emit(again), factor
        return x, 1.0

    def _one_factor(self, call: relax.Call) -> Expr | None:
        """Factors of a product are one multiplication."""
        factor = scalar(call.args[1])
        if not factor or not np.isfinite(factor):
            return None
        scaled = self.definition(call.args[0], "multiply")
        before = None if scaled is None else scalar(scaled.args[1])
        if scaled is None or before is None:
            product, before = call.args[0], 1.0
        else:
            product = scaled.args[0]
        if self.definition(product, "matmul") is None:
            return None
        if scaled is None and op_name(call) == "multiply":
            return None
        total = before * (factor if op_name(call) == "multiply" else 1.0 / factor)
        return relax.op.multiply(product, relax.const(total, str(call.ty.dtype)))

    def _whole_batch(self, call: relax.Call) -> Expr | None:
        """Batch axes stay apart: merging them would stand between a product and its permutations."""
        sources = []
        for arg in call.args:
            merged = self.definition(arg, "reshape")
            if merged is None:
                return None
            sources.append(merged.args[0])
        shapes = [shape_of(x) for x in sources]
        if any(len(shape) < 3 for shape in shapes) or shapes[0][:-2] != shapes[1][:-2]:
            return None
        if any(
            shape_of(arg)[-2:] != shape[-2:] for arg, shape in zip(call.args, shapes, strict=True)
        ):
            return None
        return relax.op.reshape(self.emit(relax.op.matmul(*sources)), shape_of(call))
