"""Pairs around operators that only move or compare elements, which then run on codes."""

from __future__ import annotations

from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import op_name, scalar, shape_of
from tvmcomp.graph.rewrite import Rewriter
from tvmcomp.model import Model

__all__ = ["QuantizeMoves"]

_MOVES = ("reshape", "permute_dims", "nn.max_pool2d")


class QuantizeMoves(Rewriter):
    """
    quantize(move(x))    ->  quantize(move(dequantize(quantize(x))))     x computed by another operator
    move(dequantize(q))  ->  dequantize(quantize(move(dequantize(q))))
    quantize(dequantize(q))  ->  q                                       all with the same scale and zero point
    quantize(x), quantize(x)  ->  one of them, read twice                 likewise

    The pair it adds changes no value: a move commutes with a quantization, and codes that are dequantized and
    quantized alike stay what they are. So a foreign graph's own pairs keep their meaning, wherever they stand.
    """

    STARTS_FROM = frozenset({"quantize", "dequantize"})

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._made: dict[tuple[object, ...], Expr] = {}

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        op = op_name(call)
        if op == "quantize":
            return self._quantize(call, name)
        if op in _MOVES:
            return self._behind(call)
        return None

    def _quantize(self, call: relax.Call, name: str) -> Expr | None:
        if not _per_tensor(call):
            return None
        key = (call.args[0], *_numbers(call), str(call.attrs.out_dtype))
        if key not in self._made:
            same = self._same_codes(call)
            moved = self._before(call) if same is None else same
            self._made[key] = self.emit(call if moved is None else moved, name)
        return self._made[key]

    def _same_codes(self, call: relax.Call) -> Expr | None:
        """The q in quantize(dequantize(q)) where both say the same."""
        inner = self.definition(call.args[0], "dequantize")
        if inner is None or not _per_tensor(inner):
            return None
        q = inner.args[0]
        same = _numbers(call) == _numbers(inner) and str(q.ty.dtype) == str(call.attrs.out_dtype)
        return q if same and _exact(_numbers(call)[0]) else None

    def _before(self, call: relax.Call) -> Expr | None:
        """The same codes, with a pair in front of the moves that end in `call`."""
        move = self._move(call.args[0])
        if move is None:
            return None
        x = move.args[0]
        if self.definition(x, "dequantize") is not None or self.uses(call.args[0]) != 1:
            return None
        if x not in self.block.definitions or self.uses(x) != 1:
            return None
        real = self._pair(x, call)
        moved = self.emit(relax.Call(move.op, [real, *move.args[1:]], move.attrs, move.ty_args))
        return relax.op.quantize(moved, *call.args[1:], _last(moved), str(call.attrs.out_dtype))

    def _behind(self, call: relax.Call) -> Expr | None:
        inner = self.definition(call.args[0], "dequantize")
        if inner is None or not _per_tensor(inner) or self.value(inner.args[0]) is not None:
            return None
        if str(inner.args[0].ty.dtype) not in ("int8", "uint8"):
            return None
        moved = self.emit(call)
        codes = self.emit(
            relax.op.quantize(moved, *inner.args[1:], _last(moved), str(inner.args[0].ty.dtype))
        )
        return relax.op.dequantize(codes, *inner.args[1:], _last(codes), str(call.ty.dtype))

    def _pair(self, x: Expr, like: relax.Call) -> Expr:
        """x quantized as `like` does and dequantized, in front of whatever move made it."""
        quantized = relax.op.quantize(x, *like.args[1:], _last(x), str(like.attrs.out_dtype))
        earlier = self._before(self.block.typed(quantized))
        codes = self.emit(quantized if earlier is None else earlier)
        return self.emit(relax.op.dequantize(codes, *like.args[1:], _last(codes), str(x.ty.dtype)))

    def _move(self, x: Expr) -> relax.Call | None:
        found = (self.definition(x, op) for op in _MOVES)
        return next((call for call in found if call is not None), None)


def _per_tensor(call: relax.Call) -> bool:
    return None not in _numbers(call)


def _exact(scale: float | None) -> bool:
    """Whether scale * code and its quotient stay normal float32 numbers, so that a code comes back."""
    return scale is not None and 2.0**-100 < scale < 2.0**100


def _numbers(call: relax.Call) -> tuple[float | None, ...]:
    """Scale and zero point."""
    return tuple(scalar(arg) for arg in call.args[1:])


def _last(x: Expr) -> int:
    return max(len(shape_of(x)) - 1, 0)
