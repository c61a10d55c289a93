"""Quantize, Dequantize and Copy: changes of dtype, axis order and physical layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.graph.layers import Copy, Dequantize, Layer, Quantize, TensorSpec
from tvmcomp.kernels.halo import write_halo
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.permute import merged_axes, permute
from tvmcomp.kernels.rows import (
    as_bytes,
    each_vector,
    halo_code,
    kernel_key,
    qparams_of,
    same_dims,
)
from tvmcomp.kernels.vector import (
    Isa,
    Operand,
    build_func,
    cast,
    each_row,
    each_segment,
    i64,
    round_clip,
    splat,
)

__all__ = ["build_copy", "build_dequantize", "build_quantize"]

_TO_NHWC = (0, 2, 3, 1)

Tensors = Mapping[str, TensorSpec]
Layouts = Mapping[str, Layout]


def build_quantize(layer: Layer, tensors: Tensors, layouts: Layouts, isa: Isa) -> Kernel | None:
    """float32 -> codes, dividing as the definition does; a permutation to NHWC is read on the way."""
    if not isinstance(layer, Quantize):
        return None
    spec = tensors[layer.output]
    qparams = qparams_of(spec)
    info = {"uint8": (0, 255), "int8": (-128, 127)}[spec.dtype]
    zero = qparams.zero_point

    def code(value: Expr, lanes: int) -> Expr:
        steps = value / splat(qparams.scale, lanes)
        return round_clip(steps, *info, lanes, spec.dtype, zero)

    return _convert("quantize", layer, layer.perm, tensors, layouts, isa, (qparams,), code)


def build_dequantize(layer: Layer, tensors: Tensors, layouts: Layouts, isa: Isa) -> Kernel | None:
    """codes -> float32."""
    if not isinstance(layer, Dequantize):
        return None
    qparams = qparams_of(tensors[layer.inputs[0]])

    def real(codes: Expr, lanes: int) -> Expr:
        steps = cast("int32", codes, lanes) - splat(qparams.zero_point, lanes, "int32")
        return cast("float32", steps, lanes) * splat(qparams.scale, lanes)

    return _convert("dequantize", layer, None, tensors, layouts, isa, (qparams,), real)


def build_copy(layer: Layer, tensors: Tensors, layouts: Layouts, isa: Isa) -> Kernel | None:
    """The same elements in another axis order or physical layout."""
    if not isinstance(layer, Copy):
        return None

    def same(value: Expr, lanes: int) -> Expr:
        return value

    return _convert("copy", layer, layer.perm, tensors, layouts, isa, (), same)


def _convert(
    name: str,
    layer: Layer,
    layer_perm: tuple[int, ...] | None,
    tensors: Tensors,
    layouts: Layouts,
    isa: Isa,
    baked: tuple[object, ...],
    value: Callable[[Expr, int], Expr],
) -> Kernel | None:
    source, spec = tensors[layer.inputs[0]], tensors[layer.output]
    x, y = layouts[layer.inputs[0]], layouts[layer.output]
    perm = layer_perm
    if perm is None and not same_dims(x, y):
        return None
    if perm is not None and tuple(source.shape[axis] for axis in perm) != spec.shape:
        return None

    def body(data: Operand, out: Operand) -> None:
        write_halo(out, y, halo_code(spec))
        if perm is None:
            if name == "copy":
                _copy_bytes(data, out, x, y, isa)
            else:
                _straight(data, out, (x, y), (source.dtype, spec.dtype), isa, value)
        elif perm == _TO_NHWC and y.itemsize == 1 and y.channels <= 4 and y.pitch <= 8:
            _interleave(data, out, (x, y), (source.dtype, spec.dtype), isa, value)
        else:
            axes = merged_axes(source.shape, x, y, perm)
            starts = x.offset(0, 0, 0), y.offset(0, 0, 0)
            permute(data, out, axes, starts, (source.dtype, spec.dtype), isa, value)

    shape = source.shape if perm is not None else ()
    key = kernel_key(name, isa, x, y, shape, source.dtype, spec.dtype, perm, halo_code(spec), baked)
    return Kernel(key, build_func(name, ("x", "y"), body), "convert", isa.name)


def _copy_bytes(data: Operand, out: Operand, x: Layout, y: Layout, isa: Isa) -> None:
    def vector(to: Expr, at: list[Expr], lanes: int) -> None:
        out.store(to, data.load(at[0], "uint8", lanes), "uint8", lanes)

    each_vector(as_bytes(y), [as_bytes(x)], isa.bytes, vector)


def _straight(
    data: Operand,
    out: Operand,
    layouts: tuple[Layout, Layout],
    dtypes: tuple[str, str],
    isa: Isa,
    value: Callable[[Expr, int], Expr],
) -> None:
    x, y = layouts

    def vector(to: Expr, at: list[Expr], lanes: int) -> None:
        loaded = T.bind(data.load(at[0], dtypes[0], lanes))
        out.store(to, value(loaded, lanes), dtypes[1], lanes)

    each_vector(y, [x], isa.lanes if y.itemsize == 4 else isa.bytes, vector)


def _interleave(
    data: Operand,
    out: Operand,
    layouts: tuple[Layout, Layout],
    dtypes: tuple[str, str],
    isa: Isa,
    value: Callable[[Expr, int], Expr],
) -> None:
    """A few planes -> pixels of a few bytes: a vector along W of each plane, then one byte shuffle."""
    x, y = layouts  # x: [N, C, H, W] as (batch, height, width, channels)
    pitch = y.pitch

    def row(n: Expr, h: Expr) -> None:
        planes = [T.bind(x.offset(n, i64(c), h)) for c in range(y.channels)]
        base = T.bind(y.offset(n, h, i64(0)))

        def pixels(start: Expr, lanes: int) -> None:
            codes = []
            for plane in planes:
                at = plane + start * i64(x.itemsize)
                codes.append(T.bind(value(T.bind(data.load(at, dtypes[0], lanes)), lanes)))
            to = base + start * i64(pitch)
            if lanes == 1:
                for c, code in enumerate(codes):
                    out.store(to + i64(c), code, dtypes[1], 1)
                return
            # Pixel bytes past the channels are inside the pitch: they may hold anything.
            codes += codes[-1:] * (pitch - y.channels)
            order = [c * lanes + w for w in range(lanes) for c in range(pitch)]
            packed = tirx.Shuffle(codes, [tirx.IntImm("int32", i) for i in order])
            out.store(to, packed, dtypes[1], lanes * pitch)

        each_segment(y.width, isa.lanes, y.width, pixels)

    each_row(y, row)
