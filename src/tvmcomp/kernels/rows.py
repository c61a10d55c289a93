"""Walk tensors pixel by pixel in vectors of channels; where pitches agree, a whole row is one run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.errors import ModelError
from tvmcomp.graph.layers import QParams, TensorSpec
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.vector import each, each_row, each_segment, i64

__all__ = [
    "as_bytes",
    "dims",
    "each_vector",
    "halo_code",
    "kernel_key",
    "pack_constants",
    "qparams_of",
    "same_dims",
    "split_rows",
    "with_dims",
]

# body(offset of y's vector, offsets of the others' vectors, lanes)
VectorBody = Callable[[Expr, list[Expr], int], None]


def kernel_key(emitter: str, *parts: object) -> str:
    """A name that is equal exactly when everything the function was built from is equal."""
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()
    return f"{emitter}_{digest[:20]}"


def qparams_of(spec: TensorSpec) -> QParams:
    """The tensor's qparams; an integer kernel on a tensor without them is a broken graph."""
    if spec.qparams is None:
        raise ModelError(
            f"tensor {spec.name!r} ({spec.dtype}) has no qparams; lowering must set them"
        )
    return spec.qparams


def halo_code(spec: TensorSpec) -> int:
    """What `write_halo` puts around this tensor."""
    return 0 if spec.qparams is None else spec.qparams.zero_point


def dims(layout: Layout) -> tuple[int, int, int, int]:
    """Logical (batch, height, width, channels)."""
    return layout.batch, layout.height, layout.width, layout.channels


def same_dims(*layouts: Layout) -> bool:
    """Whether the layouts describe tensors of one logical shape."""
    return len({dims(layout) for layout in layouts}) == 1


def with_dims(layout: Layout, shape: tuple[int, int, int, int]) -> Layout | None:
    """`layout` seen as NHWC `shape`: itself, or a dense one of as many elements; None if neither."""
    if dims(layout) == shape:
        return layout
    dense = Layout(*shape, layout.itemsize)
    return dense if layout.is_dense and dense.nbytes == layout.nbytes else None


def as_bytes(layout: Layout) -> Layout:
    """The same memory counted in bytes per pixel instead of channels."""
    size = layout.itemsize
    return replace(layout, channels=layout.channels * size, itemsize=1, pitch=layout.pitch * size)


def pack_constants(*arrays: np.ndarray) -> np.ndarray:
    """The arrays' bytes one after the other, each padded to 64 bytes."""
    parts = []
    for array in arrays:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        parts.append(np.pad(data, (0, -data.size % 64)))
    return np.concatenate(parts)


def split_rows(layouts: Sequence[Layout]) -> list[Layout]:
    """Dense tensors of a single row ([M, K], say) become M rows, so that threads can share them."""
    first = layouts[0]
    if first.batch * first.height == 1 and all(layout.is_dense for layout in layouts):
        return [replace(layout, height=layout.width, width=1) for layout in layouts]
    return list(layouts)


def each_vector(y: Layout, others: Sequence[Layout], width: int, body: VectorBody) -> None:
    """`body` for every vector of at most `width` channels of y; all layouts have the same dims."""
    y, *others = split_rows([y, *others])
    flat = all(layout.pitch == y.pitch for layout in others)

    def row(n: Expr, h: Expr) -> None:
        base = T.bind(y.offset(n, h, i64(0)))
        bases = [T.bind(layout.offset(n, h, i64(0))) for layout in others]

        def run(w: Expr, count: int, room: int) -> None:
            def vector(start: Expr, lanes: int) -> None:
                body(
                    base + w * i64(y.pixel) + start * i64(y.itemsize),
                    [
                        at + w * i64(layout.pixel) + start * i64(layout.itemsize)
                        for at, layout in zip(bases, others, strict=True)
                    ],
                    lanes,
                )

            each_segment(count, width, room, vector)

        if flat:
            row_elements = y.width * y.pitch
            run(i64(0), row_elements - (y.pitch - y.channels), row_elements)
        else:
            each(y.width, lambda w: run(w, y.channels, y.pitch))

    each_row(y, row)
