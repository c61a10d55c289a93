"""A transposed convolution is an ordinary one that computes every phase of its stride, and a pixel shuffle."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import op_name, shape_of
from tvmcomp.graph.elementwise import UNARY
from tvmcomp.graph.rewrite import Rewriter

__all__ = ["SplitPhases"]


@dataclass(frozen=True, eq=False)
class _Shuffle:
    """phases: [N, C * SH * SW, H, W] whose pixels are interleaved into `shape`, cut where it is shorter."""

    phases: Expr
    shape: tuple[int, ...]
    strides: tuple[int, int]
    channels_first: bool  # channel c * SH * SW + phase, otherwise phase * C + c


class SplitPhases(Rewriter):
    """
    conv2d_transpose(x, w, strides=[SH, SW])      ->  shuffle(conv2d(x, w'))       w: [I, O/g, KH, KW]
    add(conv2d_transpose(x, w), b)                ->  shuffle(add(conv2d(x, w'), b'))
    relu(shuffle(y)) and other unary operators    ->  shuffle(relu(y))

    Output row q = m * SH + r takes x[m + d] * w[k] for every tap k with q + pad = (m + d) * SH + k * dilation,
    so phase r is a convolution over the offsets d; w' has the phases as output channels, zero where a phase
    has no such tap. The result is the same sum of the same products.
    """

    STARTS_FROM = frozenset({"nn.conv2d_transpose"})

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._shuffles: dict[Expr, _Shuffle] = {}

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        op = op_name(call)
        if op == "nn.conv2d_transpose":
            return self._split(call, name)
        shuffle = self._shuffles.get(call.args[0]) if call.args else None
        if shuffle is None or self.uses(call.args[0]) > 1:
            return None
        if op == "add":
            return self._bias(call, shuffle, name)
        if op in UNARY:
            made = relax.Call(call.op, [shuffle.phases, *call.args[1:]], call.attrs, call.ty_args)
            return self._shuffled(made, shuffle, name)
        return None

    def _split(self, call: relax.Call, name: str) -> Expr | None:
        attrs = call.attrs
        weight = self.value(call.args[1])
        if weight is None or (attrs.data_layout, attrs.kernel_layout) != ("NCHW", "IOHW"):
            return None
        x, shape = call.args[0], shape_of(call)
        strides = int(attrs.strides[0]), int(attrs.strides[1])
        top, left, *_ = (int(pad) for pad in attrs.padding)
        dilation = [int(step) for step in attrs.dilation]
        axes = [
            _Axis.of(
                strides[i],
                (top, left)[i],
                dilation[i],
                shape_of(x)[2 + i],
                weight.shape[2 + i],
                shape[2 + i],
            )
            for i in range(2)
        ]
        groups = int(attrs.groups)
        array = _phase_weight(weight, axes, groups)
        rows, columns = axes
        for axis, index in ((rows, 2), (columns, 3)):
            if axis.skip or axis.drop:
                x = self.emit(
                    relax.op.strided_slice(
                        x, [index], [axis.skip], [shape_of(x)[index] - axis.drop]
                    )
                )
        made = relax.op.nn.conv2d(
            x,
            self.param(str(getattr(call.args[1], "name", name)), array),
            padding=[rows.before, columns.before, rows.after, columns.after],
            groups=groups,
        )
        return self._shuffled(made, _Shuffle(made, shape, strides, groups > 1), name)

    def _bias(self, call: relax.Call, shuffle: _Shuffle, name: str) -> Expr | None:
        bias = self.value(call.args[1])
        channels = shuffle.shape[1]
        if bias is None or bias.ndim < 3 or bias.size != channels or bias.shape[-3] != channels:
            return None
        count = shuffle.strides[0] * shuffle.strides[1]
        flat = bias.reshape(-1)
        tiled = np.repeat(flat, count) if shuffle.channels_first else np.tile(flat, count)
        variable = self.param(str(getattr(call.args[1], "name", name)), tiled.reshape(1, -1, 1, 1))
        return self._shuffled(relax.op.add(shuffle.phases, variable), shuffle, name)

    def _shuffled(self, made: Expr, like: _Shuffle, name: str) -> Expr:
        phases = self.emit(made, name)
        shuffle = _Shuffle(phases, like.shape, like.strides, like.channels_first)
        result = self.emit(self._interleaved(shuffle))
        self._shuffles[result] = shuffle
        return result

    def _interleaved(self, shuffle: _Shuffle) -> Expr:
        batch, channels, height, width = shuffle.shape
        step_h, step_w = shuffle.strides
        rows, columns = shape_of(shuffle.phases)[2:]
        result = shuffle.phases
        if (step_h, step_w) != (1, 1):
            if shuffle.channels_first:
                split, order = (channels, step_h, step_w), [0, 1, 4, 2, 5, 3]
            else:
                split, order = (step_h, step_w, channels), [0, 3, 4, 1, 5, 2]
            parts = self.emit(relax.op.reshape(result, (batch, *split, rows, columns)))
            moved = self.emit(relax.op.permute_dims(parts, order))
            whole = (batch, channels, rows * step_h, columns * step_w)
            result = self.emit(relax.op.reshape(moved, whole))
        if shape_of(result) == shuffle.shape:
            return result
        return relax.op.strided_slice(result, [2, 3], [0, 0], [height, width])


@dataclass(frozen=True)
class _Axis:
    """One axis: taps[r] lists (offset - the lowest, k) of phase r; pads, or elements of x nothing reads."""

    taps: tuple[tuple[tuple[int, int], ...], ...]
    length: int
    before: int
    after: int
    skip: int
    drop: int

    @classmethod
    def of(cls, stride: int, pad: int, dilation: int, size: int, kernel: int, out: int) -> _Axis:
        found = [
            [
                ((phase + pad - k * dilation) // stride, k)
                for k in range(kernel)
                if (phase + pad - k * dilation) % stride == 0
            ]
            for phase in range(stride)
        ]
        offsets = [offset for taps in found for offset, _ in taps]
        low, high = min(offsets), max(offsets)
        positions = -(-out // stride)
        before, after = -low, positions - 1 + high - (size - 1)
        return cls(
            taps=tuple(tuple((offset - low, k) for offset, k in taps) for taps in found),
            length=high - low + 1,
            before=max(before, 0),
            after=max(after, 0),
            skip=max(-before, 0),
            drop=max(-after, 0),
        )


def _phase_weight(weight: np.ndarray, axes: list[_Axis], groups: int) -> np.ndarray:
    """[I, O/g, KH, KW] -> [O * SH * SW, I/g, TH, TW] with the phases after, or before, the channels."""
    inputs, outputs = weight.shape[0] // groups, weight.shape[1]
    rows, columns = axes
    steps = len(rows.taps), len(columns.taps)
    split = weight.reshape(groups, inputs, outputs, *weight.shape[2:]).transpose(0, 2, 1, 3, 4)
    made = np.zeros((*steps, groups * outputs, inputs, rows.length, columns.length), weight.dtype)
    for r, c in product(range(steps[0]), range(steps[1])):
        for (i, k), (j, m) in product(rows.taps[r], columns.taps[c]):
            made[r, c, :, :, i, j] = split[..., k, m].reshape(groups * outputs, inputs)
    if groups > 1:
        made = made.transpose(2, 0, 1, 3, 4, 5)
    return np.ascontiguousarray(made.reshape(-1, inputs, rows.length, columns.length))
