"""Windows of pooling operators, and the pools that compute them on codes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvmcomp.build.lower.flow import Flow, Node
from tvmcomp.graph.layers import IntAvgPool, MaxPool

__all__ = ["average_layer", "max_pool_layer"]

Limits = tuple[int, int]


@dataclass(frozen=True)
class _Window:
    """Where a pool reads: per axis (height, width); pads are (top, left, bottom, right)."""

    sizes: tuple[int, int]
    outputs: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilation: tuple[int, int]

    @classmethod
    def of(cls, root: Node, shape: tuple[int, ...]) -> _Window | None:
        """The window of a pool2d node over an input of `shape`; None for another layout than NHWC."""
        attrs = root.value.attrs
        if attrs.layout != "NHWC":
            return None
        pads = tuple(int(p) for p in attrs.padding)
        top, left, bottom, right = pads if len(pads) == 4 else (*pads, *pads)
        return cls(
            sizes=(shape[1], shape[2]),
            outputs=(root.shape[1], root.shape[2]),
            kernel=_pair(attrs.pool_size),
            strides=_pair(attrs.strides),
            pads=(top, left, bottom, right),
            dilation=_pair(attrs.dilation),
        )

    def always_reads(self) -> bool:
        """Whether every window holds some of the input: what an empty one gives, TVM decides."""
        for axis in (0, 1):
            starts = np.arange(self.outputs[axis])[:, None] * self.strides[axis] - self.pads[axis]
            taps = starts + np.arange(self.kernel[axis]) * self.dilation[axis]
            if not ((taps >= 0) & (taps < self.sizes[axis])).any(axis=1).all():
                return False
        return True

    def border_after(self, axis: int) -> int:
        """What the last window reaches beyond the input, or the padding where that is more."""
        last = (self.outputs[axis] - 1) * self.strides[axis] - self.pads[axis]
        reach = last + (self.kernel[axis] - 1) * self.dilation[axis] + 1
        return max(self.pads[2 + axis], reach - self.sizes[axis])


def _pair(values: object) -> tuple[int, int]:
    first, second = (int(value) for value in values)  # type: ignore[attr-defined]
    return first, second


def max_pool_layer(flow: Flow, root: Node, source: str, output: str) -> MaxPool | None:
    """nn.max_pool2d  ->  MaxPool; a size rounded up is a larger border at the end, which never wins."""
    window = _Window.of(root, flow.shape(source))
    if window is None or not window.always_reads():
        return None
    return MaxPool(
        name=root.name,
        inputs=(source,),
        output=output,
        kernel=window.kernel,
        strides=window.strides,
        pads=(*window.pads[:2], window.border_after(0), window.border_after(1)),
        dilation=window.dilation,
    )


def average_layer(
    flow: Flow, root: Node, source: str, output: str, limits: Limits
) -> IntAvgPool | None:
    """nn.avg_pool2d  ->  IntAvgPool; None for a size rounded up, whose last windows count otherwise."""
    attrs, window = root.value.attrs, _Window.of(root, flow.shape(source))
    if window is None or attrs.ceil_mode or window.dilation != (1, 1) or not window.always_reads():
        return None
    return IntAvgPool(
        name=root.name,
        inputs=(source,),
        output=output,
        kernel=window.kernel,
        strides=window.strides,
        pads=window.pads,
        count_include_pad=bool(attrs.count_include_pad) or not any(window.pads),
        low=limits[0],
        high=limits[1],
    )
