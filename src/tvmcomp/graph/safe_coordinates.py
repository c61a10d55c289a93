"""Coordinates computed at run time sample inside their image and for a bounded time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import op_name, shape_of
from tvmcomp.graph.rewrite import Rewriter

__all__ = ["SafeCoordinates"]

# Coordinates in pixels stay below this, where rounding to int32 is still defined.
_LARGEST = float(1 << 30)
# A region of interest reaches at most this many image lengths to either side.
_REACH = 8


class SafeCoordinates(Rewriter):
    """
    grid_sample(x, g)   ->  grid_sample(x, clip(where(isnan(g), -1, g), -limit, limit))
    roi_align(x, r)     ->  roi_align(x, min(max(r, low), high))
    roi_pool(x, r)      ->  roi_pool(x, min(max(r, low), high))

    NaN is -1 as in torch; beyond the limit nothing but the border or zero is sampled. r: [count, 5], the
    batch index and two corners: the index is kept inside the batch, the corners near the image, since the
    number of samples follows from a region's size. Without a fixed number of samples a region of no or
    negative size has none, so that nothing would be written: it moves off the image, which gives its zeros.
    """

    STARTS_FROM = frozenset({"image.grid_sample", "vision.roi_align", "vision.roi_pool"})

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        safe = _REWRITES.get(op_name(call))
        return safe(self, call) if safe is not None else None

    def _grid(self, call: relax.Call) -> Expr:
        x, grid = call.args
        limit = _LARGEST / max(shape_of(x)[2:])
        dtype = str(grid.ty.dtype)
        wrong = self.emit(relax.op.isnan(grid))
        number = self.emit(relax.op.where(wrong, relax.const(-1.0, dtype), grid))
        safe = self.emit(relax.op.clip(number, -limit, limit))
        return relax.Call(call.op, [x, safe], call.attrs, call.ty_args)

    def _regions(self, call: relax.Call) -> Expr:
        x, rois = call.args
        layout = str(call.attrs.layout)
        batch, height, width = (shape_of(x)[layout.index(axis)] for axis in "NHW")
        scale = float(call.attrs.spatial_scale)
        reach_x, reach_y = (_REACH * max(size, 8) / scale for size in (width, height))
        dtype = str(rois.ty.dtype)
        low = np.array([0, -reach_x, -reach_y, -reach_x, -reach_y], dtype)
        high = np.array([batch - 1, reach_x, reach_y, reach_x, reach_y], dtype)
        # maximum comes first: of NaN and a number it gives the number.
        raised = self.emit(relax.op.maximum(rois, relax.const(low, dtype)))
        safe = self.emit(relax.op.minimum(raised, relax.const(high, dtype)))
        if op_name(call) == "vision.roi_align" and int(call.attrs.sample_ratio) <= 0:
            safe = self._sized(safe, low)
        return relax.Call(call.op, [x, safe], call.attrs, call.ty_args)

    def _sized(self, rois: Expr, low: np.ndarray) -> Expr:
        """Regions of a size that survives rounding; those that had none lie off the image."""
        dtype = str(rois.ty.dtype)
        least = (np.abs(low[1:3]) * 2.0**-20).astype(dtype)
        index, first, second = (
            self.emit(relax.op.strided_slice(rois, [1], [begin], [end]))
            for begin, end in ((0, 1), (1, 3), (3, 5))
        )
        size = self.emit(relax.op.subtract(second, first))
        smallest = self.emit(relax.op.min(size, axis=1, keepdims=True))
        none = self.emit(relax.op.less_equal(smallest, relax.const(0.0, dtype)))
        end = self.emit(relax.op.add(first, relax.const(least, dtype)))
        corners = (
            self.emit(relax.op.where(none, relax.const(low[1:3], dtype), first)),
            self.emit(
                relax.op.where(
                    none,
                    relax.const(low[1:3] + 4 * least, dtype),
                    self.emit(relax.op.maximum(second, end)),
                )
            ),
        )
        return self.emit(relax.op.concat(relax.Tuple([index, *corners]), axis=1))


_REWRITES: dict[str, Callable[[SafeCoordinates, relax.Call], Expr]] = {
    "image.grid_sample": SafeCoordinates._grid,
    "vision.roi_align": SafeCoordinates._regions,
    "vision.roi_pool": SafeCoordinates._regions,
}
