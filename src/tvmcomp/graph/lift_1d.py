"""One-dimensional convolutions and pools work on images one pixel high."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import op_name, shape_of
from tvmcomp.graph.elementwise import BROADCAST, UNARY
from tvmcomp.graph.rewrite import Rewriter

__all__ = ["Lift1d"]


class Lift1d(Rewriter):
    """
    conv1d(x, w)              ->  reshape(conv2d(reshape(x, [N, C, 1, L]), w'), [N, O, L'])    w': [O, I, 1, K]
    conv1d_transpose, pools   ->  the same
    relu(reshape(y))          ->  reshape(relu(y)), and so on for what stands between two of them

    so that the reshapes in between meet and vanish.
    """

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        rule = _RULES.get(op_name(call))
        if rule is None or not isinstance(call.ty, relax.TensorType | relax.TupleType):
            return None
        return rule(self, call, name)

    def image(self, x: Expr) -> Expr | None:
        """The image [N, C, 1, L] that `x` [N, C, L] is a view of, if it is one."""
        view = self.definition(x, "reshape")
        if view is None or len(shape_of(x)) != 3:
            return None
        batch, channels, length = shape_of(x)
        return view.args[0] if shape_of(view.args[0]) == (batch, channels, 1, length) else None

    def lifted(self, x: Expr) -> Expr:
        """`x` with its height; a parameter is reshaped itself."""
        found = self.image(x)
        if found is not None:
            return found
        shape = shape_of(x)
        if len(shape) < 2:
            return x
        target = (*shape[:-1], 1, shape[-1])
        array = self.value(x)
        if array is None:
            return self.emit(relax.op.reshape(x, target))
        if isinstance(x, relax.Var):
            return self.param(str(x.name), array.reshape(target))
        return relax.const(array.reshape(target), str(array.dtype))

    def flat(self, image: Expr, shape: tuple[int, ...], name: str) -> Expr:
        """The view of `image` that the model knows."""
        return relax.op.reshape(self.emit(image, name), shape)


Rule: TypeAlias = Callable[[Lift1d, relax.Call, str], Expr | None]


def _flat(values: object, before: int) -> list[int]:
    """The attribute of a 2-D operator: `before` for the height; pads are (top, left, bottom, right)."""
    found = [int(value) for value in values]  # type: ignore[attr-defined]
    return [item for value in found for item in (before, value)]


def _weight(lift: Lift1d, call: relax.Call) -> Expr:
    weight = call.args[1]
    array = lift.value(weight)
    if array is not None and isinstance(weight, relax.Var):
        return lift.param(str(weight.name), array[:, :, None])
    return lift.lifted(weight)


def _conv1d(lift: Lift1d, call: relax.Call, name: str) -> Expr | None:
    attrs = call.attrs
    if (attrs.data_layout, attrs.kernel_layout) != ("NCW", "OIW"):
        return None
    made = relax.op.nn.conv2d(
        lift.lifted(call.args[0]),
        _weight(lift, call),
        strides=_flat(attrs.strides, 1),
        padding=_flat(attrs.padding, 0),
        dilation=_flat(attrs.dilation, 1),
        groups=int(attrs.groups),
    )
    return lift.flat(made, shape_of(call), name)


def _conv1d_transpose(lift: Lift1d, call: relax.Call, name: str) -> Expr | None:
    attrs = call.attrs
    if (attrs.data_layout, attrs.kernel_layout) != ("NCW", "IOW"):
        return None
    made = relax.op.nn.conv2d_transpose(
        lift.lifted(call.args[0]),
        _weight(lift, call),
        strides=_flat(attrs.strides, 1),
        padding=_flat(attrs.padding, 0),
        output_padding=_flat(attrs.output_padding, 0),
        dilation=_flat(attrs.dilation, 1),
        groups=int(attrs.groups),
    )
    return lift.flat(made, shape_of(call), name)


def _pool(make: Callable[..., Expr]) -> Rule:
    def rule(lift: Lift1d, call: relax.Call, name: str) -> Expr | None:
        attrs = call.attrs
        if attrs.layout != "NCW":
            return None
        made = make(
            lift.lifted(call.args[0]),
            pool_size=_flat(attrs.pool_size, 1),
            strides=_flat(attrs.strides, 1),
            padding=_flat(attrs.padding, 0),
            dilation=_flat(attrs.dilation, 1),
            ceil_mode=bool(attrs.ceil_mode),
            count_include_pad=bool(attrs.count_include_pad),
        )
        return lift.flat(made, shape_of(call), name)

    return rule


def _adaptive_pool(lift: Lift1d, call: relax.Call, name: str) -> Expr | None:
    if call.attrs.layout != "NCW":
        return None
    length = shape_of(call)[2]
    made = relax.op.nn.adaptive_avg_pool2d(lift.lifted(call.args[0]), output_size=(1, length))
    return lift.flat(made, shape_of(call), name)


def _batch_norm(lift: Lift1d, call: relax.Call, name: str) -> Expr | None:
    image = lift.image(call.args[0])
    if image is None:
        return None
    made = relax.Call(call.op, [image, *call.args[1:]], call.attrs, call.ty_args)
    normed = lift.emit(relax.TupleGetItem(lift.emit(made), 0))
    result = lift.emit(lift.flat(normed, shape_of(call.args[0]), name))
    return relax.Tuple([result, call.args[3], call.args[4]])


def _elementwise(lift: Lift1d, call: relax.Call, name: str) -> Expr | None:
    tensors = [arg for arg in call.args if isinstance(arg.ty, relax.TensorType)]
    if len(shape_of(call)) != 3 or all(lift.image(arg) is None for arg in tensors):
        return None
    args = [lift.lifted(arg) if isinstance(arg.ty, relax.TensorType) else arg for arg in call.args]
    made = relax.Call(call.op, args, call.attrs, call.ty_args)
    return lift.flat(made, shape_of(call), name)


def _mean(lift: Lift1d, call: relax.Call, name: str) -> Expr | None:
    image = lift.image(call.args[0])
    if image is None or call.attrs.axis is None or [int(a) % 3 for a in call.attrs.axis] != [2]:
        return None
    made = relax.op.mean(image, axis=[2, 3], keepdims=True)
    return lift.flat(made, shape_of(call), name)


def _pad(lift: Lift1d, call: relax.Call, name: str) -> Expr | None:
    image = lift.image(call.args[0])
    if image is None:
        return None
    width = [int(size) for size in call.attrs.pad_width]
    mode, value = str(call.attrs.pad_mode), float(call.attrs.pad_value)
    made = relax.op.nn.pad(image, [*width[:4], 0, 0, *width[4:]], mode, value)
    return lift.flat(made, shape_of(call), name)


def _concat(lift: Lift1d, call: relax.Call, name: str) -> Expr | None:
    fields = list(call.args[0].fields)
    if call.attrs.axis is None or all(lift.image(field) is None for field in fields):
        return None
    axis = int(call.attrs.axis) % 3
    made = relax.op.concat([lift.lifted(field) for field in fields], axis=3 if axis == 2 else axis)
    return lift.flat(made, shape_of(call), name)


def _reshape(lift: Lift1d, call: relax.Call, name: str) -> Expr | None:
    """Back to the image: PyTorch itself pools images one pixel high."""
    image = lift.image(call.args[0])
    return image if image is not None and shape_of(image) == shape_of(call) else None


_RULES: dict[str, Rule] = {
    "reshape": _reshape,
    "nn.conv1d": _conv1d,
    "nn.conv1d_transpose": _conv1d_transpose,
    "nn.max_pool1d": _pool(relax.op.nn.max_pool2d),
    "nn.avg_pool1d": _pool(relax.op.nn.avg_pool2d),
    "nn.adaptive_avg_pool1d": _adaptive_pool,
    "nn.batch_norm": _batch_norm,
    "nn.pad": _pad,
    "concat": _concat,
    "mean": _mean,
    **dict.fromkeys((*UNARY, *BROADCAST), _elementwise),
}
