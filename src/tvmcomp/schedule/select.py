"""Which kernel serves which layer: one table of builders per kind of layer, the first that claims it wins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from tvmcomp.graph.layers import (
    Concat,
    Copy,
    Dequantize,
    DynamicConv,
    DynamicDequantize,
    DynamicQuantize,
    Embedding,
    FloatConv,
    FloatMatMul,
    IntAdd,
    IntAffine,
    IntAvgPool,
    IntConv,
    IntLayerNorm,
    IntMatMul,
    IntMul,
    IntSoftmax,
    Layer,
    MaskSteps,
    MaxPool,
    Opaque,
    Pad,
    Quantize,
    Resize,
    Slice,
    Table,
    TensorSpec,
    View,
)
from tvmcomp.kernels.binary import build_add, build_affine, build_mul
from tvmcomp.kernels.box import build_box_concat, build_pad, build_slice
from tvmcomp.kernels.concat import build_concat
from tvmcomp.kernels.conv import build_conv
from tvmcomp.kernels.convert import build_copy, build_dequantize, build_quantize
from tvmcomp.kernels.depthwise import build_depthwise
from tvmcomp.kernels.dynamic_quantize import build_dynamic_dequantize, build_dynamic_quantize
from tvmcomp.kernels.embedding import build_embedding
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.layer_norm import build_layer_norm
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.matmul import build_matmul
from tvmcomp.kernels.pool import build_avg_pool, build_max_pool
from tvmcomp.kernels.resize import build_resize
from tvmcomp.kernels.softmax import build_mask_steps, build_softmax
from tvmcomp.kernels.table import build_table
from tvmcomp.kernels.vector import Isa
from tvmcomp.schedule.fallback import build_opaque
from tvmcomp.schedule.layouts import ScheduledGraph

__all__ = ["KERNELS", "select_kernels"]

# Builders narrow the layer's type themselves; the table is keyed by it.
Builder: TypeAlias = Callable[
    [Any, Mapping[str, TensorSpec], Mapping[str, Layout], Isa], Kernel | None
]


def _opaque(layer: Opaque, *_: object) -> Kernel:
    return build_opaque(layer)


KERNELS: Mapping[type[Layer], tuple[Builder, ...]] = {
    IntConv: (build_depthwise, build_conv),
    FloatConv: (build_depthwise, build_conv),
    DynamicConv: (build_conv,),
    DynamicQuantize: (build_dynamic_quantize,),
    DynamicDequantize: (build_dynamic_dequantize,),
    IntMatMul: (build_matmul,),
    FloatMatMul: (build_matmul,),
    Quantize: (build_quantize,),
    Dequantize: (build_dequantize,),
    Copy: (build_copy,),
    Table: (build_table,),
    IntAdd: (build_add,),
    IntMul: (build_mul,),
    IntAffine: (build_affine,),
    IntSoftmax: (build_softmax,),
    MaskSteps: (build_mask_steps,),
    IntLayerNorm: (build_layer_norm,),
    Embedding: (build_embedding,),
    Concat: (build_concat, build_box_concat),
    Slice: (build_slice,),
    Pad: (build_pad,),
    MaxPool: (build_max_pool,),
    IntAvgPool: (build_avg_pool,),
    Resize: (build_resize,),
    Opaque: (_opaque,),
}


def select_kernels(scheduled: ScheduledGraph, isa: Isa) -> dict[str, Kernel]:
    """Layer name -> kernel, for every layer that computes (views do not).

    Raises RuntimeError if no builder claims a layer: the generic rows must cover every layer there is.
    """
    graph = scheduled.graph
    kernels = {}
    for layer in graph.layers:
        if isinstance(layer, View):
            continue
        for build in KERNELS[type(layer)]:
            kernel = build(layer, graph.tensors, scheduled.layouts, isa)
            if kernel is not None:
                kernels[layer.name] = kernel
                break
        else:
            raise RuntimeError(
                f"no kernel claims {type(layer).__name__} {layer.name} on {isa.name}"
            )
    return kernels
