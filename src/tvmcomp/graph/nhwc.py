"""Image tensors are stored NHWC from one end of the network to the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import op_name, shape_of, substitute
from tvmcomp.frontend.dynamic_form import dynamic_quantize, match_dynamic
from tvmcomp.graph import nhwc_ops
from tvmcomp.graph.elementwise import BROADCAST, UNARY
from tvmcomp.graph.rewrite import Rewriter
from tvmcomp.graph.shuffle import shuffled_axes
from tvmcomp.model import Model

__all__ = ["ToNHWC"]


@dataclass(frozen=True, eq=False)
class Stored:
    """A value of the model: `expr` holds it as the model means it, or moved to NHWC."""

    expr: Expr
    nhwc: bool = False


Result: TypeAlias = "Stored | list[Stored] | None"


class ToNHWC(Rewriter):
    """
    conv2d(x, w) NCHW, OIHW  ->  conv2d(x', w') NHWC, OHWI   w: [O, I/groups, KH, KW] -> [O, KH, KW, I/groups]
    pools, resize            ->  the same with layout NHWC
    pad, concat, split, slice, softmax, reductions  ->  the same on the moved axis
    elementwise operators    ->  unchanged; a parameter [1, C, 1, 1] becomes [C]
    reshape(permute(reshape(x)))  ->  the same from NHWC to NHWC: pixel and channel shuffles
    permute(reshape(x))      ->  the same from NHWC: pixels as tokens, boxes of a detector

    Each 4-D input of a network with convolutions or pools is permuted once; results, and operands of
    operators without a rule in `_RULES`, are permuted back. `main` keeps its signature.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._stored: dict[relax.Var, Stored | list[Stored]] = {}
        self._originals: dict[relax.Var, Expr] = {}
        self._moved: dict[tuple[relax.Var, bool], Expr] = {}
        self._params: dict[tuple[relax.Var, tuple[int, ...]], relax.Var] = {}
        bindings = [binding for block in self._main.body.blocks for binding in block.bindings]
        self._has_images = any(_is_image_op(binding.value) for binding in bindings)
        for var in self._main.params[: len(model.signature.inputs)]:
            if self._has_images and len(shape_of(var)) == 4:
                moved = self.move(var, nhwc=True, name=f"{var.name}_nhwc")
                self._stored[var] = Stored(moved, nhwc=True)

    def _has_work(self, values: list[Expr]) -> bool:
        return self._has_images

    def bind(self, var: relax.Var, expr: Expr) -> Expr:
        self._originals[var] = expr
        if isinstance(expr, relax.TupleGetItem):
            fields = self._stored.get(expr.tuple_value)
            if isinstance(fields, list):
                self._stored[var] = fields[expr.index]
                return fields[expr.index].expr
        rule = _RULES.get(op_name(expr))
        result = rule(self, expr) if rule and self._has_images else None
        if result is None:
            result = Stored(self._logical_call(expr))
        if isinstance(result, list):
            self._stored[var] = result
            return relax.Tuple([field.expr for field in result])
        value = self.emit(result.expr, str(var.name))
        self._stored[var] = Stored(value, result.nhwc)
        return value

    def results(self, body: Expr) -> list[Expr]:
        fields = list(body.fields) if isinstance(body, relax.Tuple) else [body]
        return [self.logical(field) for field in fields]

    def original(self, expr: Expr, op: str) -> relax.Call | None:
        """The call of `op` a variable of the original function is bound to, or None."""
        found = self._originals.get(expr) if isinstance(expr, relax.Var) else None
        return found if op_name(found) == op else None

    def lookup(self, expr: Expr) -> Stored:
        """How an operand of the original function is held now."""
        value = self._stored.get(expr) if isinstance(expr, relax.Var) else None
        return value if isinstance(value, Stored) else Stored(substitute(expr, self.env))

    def logical(self, expr: Expr) -> Expr:
        """An operand of the original function, as the model means it."""
        value = self.lookup(expr)
        return self.move(value.expr, nhwc=False) if value.nhwc else value.expr

    def image(self, expr: Expr) -> Expr:
        """A 4-D operand of the original function, in NHWC."""
        value = self.lookup(expr)
        return value.expr if value.nhwc else self.move(value.expr, nhwc=True)

    def move(self, expr: Expr, *, nhwc: bool, name: str = "") -> Expr:
        """`expr` permuted to NHWC or back; the same value is permuted once."""
        key = (expr, nhwc)
        if key not in self._moved:
            axes = nhwc_ops.TO_NHWC if nhwc else nhwc_ops.TO_NCHW
            array = self.value(expr)
            if array is not None:
                return self.moved_param(expr, array.transpose(axes))
            moved = self.emit(nhwc_ops.permuted(expr, axes), name)
            self._moved[key] = moved
            self._moved[moved, not nhwc] = expr
        return self._moved[key]

    def moved_param(self, expr: Expr, array: np.ndarray) -> Expr:
        """A parameter or constant whose value is now `array`; shared ones stay shared."""
        if not isinstance(expr, relax.Var):
            return relax.const(np.asarray(array, order="C"), str(array.dtype))
        key = (expr, array.shape)
        if key not in self._params:
            self._params[key] = self.param(str(expr.name), array)
        return self._params[key]

    def broadcast(self, expr: Expr) -> Expr:
        """An operand of an elementwise operator on images, whatever its rank."""
        value = self.lookup(expr)
        if value.nhwc or not isinstance(expr.ty, relax.TensorType):
            return value.expr
        shape = shape_of(expr)
        array = self.value(value.expr)
        if array is None:
            if len(shape) == 0:
                return value.expr
            if len(shape) < 4:
                full = relax.op.reshape(value.expr, (*(1,) * (4 - len(shape)), *shape))
                return self.move(self.emit(full), nhwc=True)
            return self.move(value.expr, nhwc=True)
        if array.size == 1:
            # A bias of one channel stays a vector; a scalar constant stays a scalar.
            shape = (1,) if isinstance(value.expr, relax.Var) else ()
            return self.moved_param(value.expr, array.reshape(shape))
        full = array.reshape((*(1,) * (4 - array.ndim), *array.shape)).transpose(nhwc_ops.TO_NHWC)
        while full.shape[0] == 1 and full.ndim > 1:
            full = full[0]
        return self.moved_param(value.expr, full)

    def is_image(self, expr: Expr) -> bool:
        """Whether an operand of the original function is held in NHWC."""
        return isinstance(expr.ty, relax.TensorType) and self.lookup(expr).nhwc

    def _logical_call(self, expr: Expr) -> Expr:
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self.logical(field) for field in expr.fields])
        if not isinstance(expr, relax.Call):
            return substitute(expr, self.env)
        args = [
            self._logical_call(arg) if isinstance(arg, relax.Tuple) else self.logical(arg)
            for arg in expr.args
        ]
        return relax.Call(expr.op, args, expr.attrs, expr.ty_args)


def _is_image_op(expr: Expr) -> bool:
    if op_name(expr) == "mean" and len(shape_of(expr.args[0])) == 4 and expr.attrs.keepdims:
        return expr.attrs.axis is not None and [int(axis) for axis in expr.attrs.axis] == [2, 3]
    return op_name(expr) in _IMAGE_OPS


def _conv2d(rewriter: ToNHWC, call: relax.Call) -> Result:
    attrs = call.attrs
    if (attrs.data_layout, attrs.kernel_layout) != ("NCHW", "OIHW"):
        return None
    weight = rewriter.move(rewriter.logical(call.args[1]), nhwc=True)
    return Stored(nhwc_ops.conv2d(rewriter.image(call.args[0]), weight, attrs), nhwc=True)


def _with_layout(
    make: Callable[[Expr, relax.Call], Expr],
) -> Callable[[ToNHWC, relax.Call], Result]:
    def rule(rewriter: ToNHWC, call: relax.Call) -> Result:
        if call.attrs.layout != "NCHW":
            return None
        return Stored(make(rewriter.image(call.args[0]), call), nhwc=True)

    return rule


def _on_image(make: Callable[[Expr, relax.Call], Expr]) -> Callable[[ToNHWC, relax.Call], Result]:
    def rule(rewriter: ToNHWC, call: relax.Call) -> Result:
        if not rewriter.is_image(call.args[0]):
            return None
        return Stored(make(rewriter.image(call.args[0]), call), nhwc=True)

    return rule


def _elementwise(rewriter: ToNHWC, call: relax.Call) -> Result:
    if not any(rewriter.is_image(arg) for arg in call.args) or len(shape_of(call)) != 4:
        return None
    args = [rewriter.broadcast(arg) for arg in call.args]
    return Stored(relax.Call(call.op, args, call.attrs, call.ty_args), nhwc=True)


def _quantization(rewriter: ToNHWC, call: relax.Call) -> Result:
    """quantize and dequantize of an image, per tensor or per axis."""
    if not rewriter.is_image(call.args[0]):
        return None
    args = [rewriter.image(call.args[0]), *(rewriter.logical(arg) for arg in call.args[1:])]
    axis = nhwc_ops.moved_axis(int(call.attrs.axis))
    make = relax.op.quantize if op_name(call) == "quantize" else relax.op.dequantize
    return Stored(make(*args, axis, str(call.attrs.out_dtype)), nhwc=True)


def _dynamic(rewriter: ToNHWC, call: relax.Call) -> Result:
    """One grid for the whole tensor does not depend on the order of its axes."""
    found = match_dynamic(call)
    if found is None or found[1].per_token or not rewriter.is_image(found[0]):
        return None
    return Stored(dynamic_quantize(rewriter.image(found[0]), found[1]), nhwc=True)


def _concat(rewriter: ToNHWC, call: relax.Call) -> Result:
    fields = list(call.args[0].fields)
    if not any(rewriter.is_image(field) for field in fields) or call.attrs.axis is None:
        return None
    images = [rewriter.image(field) for field in fields]
    axis = nhwc_ops.moved_axis(int(call.attrs.axis))
    return Stored(relax.op.concat(images, axis=axis), nhwc=True)


def _split(rewriter: ToNHWC, call: relax.Call) -> Result:
    if not rewriter.is_image(call.args[0]):
        return None
    parts = rewriter.emit(nhwc_ops.split(rewriter.image(call.args[0]), call))
    count = len(call.ty.fields)
    return [
        Stored(rewriter.emit(relax.TupleGetItem(parts, index)), nhwc=True) for index in range(count)
    ]


def _reduction(rewriter: ToNHWC, call: relax.Call) -> Result:
    if not rewriter.is_image(call.args[0]):
        return None
    axes = range(4) if call.attrs.axis is None else [int(axis) % 4 for axis in call.attrs.axis]
    reduce = getattr(relax.op, op_name(call))
    moved = sorted(nhwc_ops.moved_axis(axis) for axis in axes)
    kept = [nhwc_ops.moved_axis(axis) for axis in range(4) if axis not in axes]
    image = rewriter.image(call.args[0])
    if call.attrs.keepdims:
        return Stored(reduce(image, axis=moved, keepdims=True), nhwc=True)
    return Stored(reduce(image, axis=moved, keepdims=False)) if kept == sorted(kept) else None


def _permute(rewriter: ToNHWC, call: relax.Call) -> Result:
    axes = _order(call)
    value = rewriter.lookup(call.args[0])
    if tuple(axes) == nhwc_ops.TO_NCHW and not value.nhwc:
        return Stored(value.expr, nhwc=True)
    if not value.nhwc:
        shuffled = _shuffled(rewriter, call, None)
        return None if shuffled is None else Stored(shuffled)
    composed = [nhwc_ops.moved_axis(axis) for axis in axes]
    if composed == [0, 1, 2, 3]:
        return Stored(value.expr)
    return Stored(relax.op.permute_dims(value.expr, composed))


def _order(call: relax.Call) -> list[int]:
    rank, axes = len(shape_of(call)), call.attrs.axes
    return list(range(rank))[::-1] if axes is None else [int(axis) % rank for axis in axes]


def _shuffled(rewriter: ToNHWC, permute: relax.Call, target: tuple[int, ...] | None) -> Expr | None:
    """permute_dims(reshape(image)), reshaped to the image `target` if there is one, from NHWC."""
    view = rewriter.original(permute.args[0], "reshape")
    if view is None or not rewriter.is_image(view.args[0]):
        return None
    found = shuffled_axes(shape_of(view.args[0]), shape_of(view), _order(permute), target)
    if found is None:
        return None
    shape, axes = found
    moved = rewriter.emit(relax.op.reshape(rewriter.image(view.args[0]), shape))
    moved = rewriter.emit(relax.op.permute_dims(moved, axes))
    result = shape_of(permute) if target is None else nhwc_ops.moved_shape(target)
    return relax.op.reshape(moved, result)


def _prelu(rewriter: ToNHWC, call: relax.Call) -> Result:
    if not rewriter.is_image(call.args[0]):
        return None
    axis = nhwc_ops.moved_axis(int(call.attrs.axis))
    slope = rewriter.logical(call.args[1])
    return Stored(relax.op.nn.prelu(rewriter.image(call.args[0]), slope, axis), nhwc=True)


def _layer_norm(rewriter: ToNHWC, call: relax.Call) -> Result:
    axes = [int(axis) for axis in call.attrs.axes]
    if not rewriter.is_image(call.args[0]) or len(axes) != 1:
        return None
    weights = [rewriter.logical(arg) for arg in call.args[1:]]
    image = rewriter.image(call.args[0])
    return Stored(nhwc_ops.layer_norm(image, weights, call), nhwc=True)


def _reshape(rewriter: ToNHWC, call: relax.Call) -> Result:
    source, target = shape_of(call.args[0]), shape_of(call)
    value = rewriter.lookup(call.args[0])
    if value.nhwc and not nhwc_ops.same_order(source):
        return None
    if len(target) == 4 and nhwc_ops.same_order(target) and rewriter.value(value.expr) is None:
        return Stored(relax.op.reshape(value.expr, nhwc_ops.moved_shape(target)), nhwc=True)
    if value.nhwc:
        return Stored(relax.op.reshape(value.expr, target))
    moved = rewriter.original(call.args[0], "permute_dims")
    if moved is None or len(target) != 4:
        return None
    if _order(moved) == [0, 2, 1] and target[:2] == source[:2]:
        # Tokens that become pixels: [N, H * W, C] is NHWC already.
        tokens = rewriter.logical(moved.args[0])
        return Stored(relax.op.reshape(tokens, nhwc_ops.moved_shape(target)), nhwc=True)
    shuffled = _shuffled(rewriter, moved, target)
    return None if shuffled is None else Stored(shuffled, nhwc=True)


_IMAGE_OPS = (
    "image.resize2d",
    "nn.adaptive_avg_pool2d",
    "nn.avg_pool2d",
    "nn.conv2d",
    "nn.max_pool2d",
)

_RULES: dict[str, Callable[[ToNHWC, relax.Call], Result]] = {
    "nn.conv2d": _conv2d,
    "nn.max_pool2d": _with_layout(nhwc_ops.pool2d),
    "nn.avg_pool2d": _with_layout(nhwc_ops.pool2d),
    "nn.adaptive_avg_pool2d": _with_layout(nhwc_ops.adaptive_pool2d),
    "image.resize2d": _with_layout(nhwc_ops.resize2d),
    "nn.prelu": _prelu,
    "nn.layer_norm": _layer_norm,
    "nn.pad": _on_image(nhwc_ops.pad),
    "nn.softmax": _on_image(nhwc_ops.softmax),
    "nn.log_softmax": _on_image(nhwc_ops.softmax),
    "strided_slice": _on_image(nhwc_ops.strided_slice),
    "quantize": _quantization,
    "dequantize": _quantization,
    "call_pure_packed": _dynamic,
    "concat": _concat,
    "split": _split,
    "permute_dims": _permute,
    "reshape": _reshape,
    **dict.fromkeys(("mean", "sum", "max", "min", "prod", "variance", "std"), _reduction),
    **dict.fromkeys(UNARY, _elementwise),
    **dict.fromkeys(BROADCAST, _elementwise),
}
