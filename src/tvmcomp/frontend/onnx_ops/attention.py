"""Attention of the standard and of ONNX Runtime's own operators."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import NodeProto
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.attention import attention, causal_mask, merge_heads, split_heads
from tvmcomp.frontend.block import shape_of
from tvmcomp.frontend.onnx_ops.node import Converter, OnnxNode

__all__ = ["ATTENTION", "is_special"]

# Attributes of the standard's Attention that `_attention` follows.
_PLAIN = frozenset({"is_causal", "kv_num_heads", "q_num_heads", "scale"})


def is_special(node: NodeProto, stored: Collection[str]) -> bool:
    """Whether the standard's definition serves this Attention better: a cache, attributes beyond the plain ones,
    scores as a result, and masks computed at run time, which may exclude all of a row. `stored`: names of initializers.
    """
    if node.op_type != "Attention" or node.domain not in ("", "ai.onnx"):
        return False
    # A soft cap, a window, whatever later opsets add.
    unusual = any(
        attribute.name not in _PLAIN and bool(onnx.helper.get_attribute_value(attribute))
        for attribute in node.attribute
    )
    mask = node.input[3] if len(node.input) > 3 else ""
    return (
        unusual
        or any(node.input[4:])
        or any(node.output[1:])
        or (mask != "" and mask not in stored)
    )


def _attention(node: OnnxNode) -> Expr:
    """The operator of the standard (opset 23), or ONNX Runtime's of the same name, which has `num_heads`."""
    if "num_heads" in node.attrs:
        return _packed_attention(node)
    q, k, v = node[0], node[1], node[2]
    flat = len(shape_of(q)) == 3
    if flat:
        heads, shared = node.number("q_num_heads", 1), node.number("kv_num_heads", 1)
        q = split_heads(node.emit, q, heads)
        k, v = (split_heads(node.emit, x, shared) for x in (k, v))
    masks = [mask for mask in (node.get(3),) if mask is not None]
    if node.number("is_causal", 0):
        masks.append(causal_mask(shape_of(q)[2], shape_of(k)[2], node.dtype))
    scale = node.real("scale", shape_of(q)[-1] ** -0.5)
    result = attention(node.emit, (q, k, v), scale=scale, masks=tuple(masks))
    return merge_heads(node.emit, result) if flat else result


def _packed_attention(node: OnnxNode) -> Expr:
    """com.microsoft.Attention: one weight for queries, keys and values."""
    x, weight = node[0], node[1]
    total = shape_of(weight)[1]
    sizes = [int(size) for size in node.attrs.get("qkv_hidden_sizes", [total // 3] * 3)]
    _refuse(node, "past", node.get(4) is not None or node.outputs > 1)
    _refuse(node, "do_rotary", bool(node.attrs.get("do_rotary", 0)))
    product = node.emit(relax.op.matmul(x, weight))
    if node.get(2) is not None:
        product = node.emit(relax.op.add(product, node[2]))
    parts = node.emit(relax.op.split(product, [sizes[0], sizes[0] + sizes[1]], axis=2))
    fields = [node.emit(relax.TupleGetItem(parts, index)) for index in range(3)]
    return _heads(node, fields, mask=3, bias=5)


def _multi_head(node: OnnxNode) -> Expr:
    """com.microsoft.MultiHeadAttention: queries, keys and values already projected, [B, L, H*E]."""
    _refuse(node, "packed operands", node.get(1) is None or node.get(2) is None)
    fields = [node[0], node[1], node[2]]
    _refuse(node, "packed operands", any(len(shape_of(x)) != 3 for x in fields))
    _refuse(node, "past", node.get(6) is not None or node.outputs > 1)
    if node.get(3) is not None:
        widths = np.cumsum([shape_of(x)[-1] for x in fields])
        parts = node.emit(relax.op.split(node[3], [int(w) for w in widths[:2]], axis=0))
        fields = [
            node.emit(relax.op.add(x, node.emit(relax.TupleGetItem(parts, index))))
            for index, x in enumerate(fields)
        ]
    return _heads(node, fields, mask=4, bias=5)


def _heads(node: OnnxNode, fields: list[Expr], *, mask: int, bias: int) -> Expr:
    heads = int(node.attrs["num_heads"])
    q, k, v = (split_heads(node.emit, x, heads) for x in fields)
    masks = [added for added in (node.get(bias),) if added is not None]
    if node.get(mask) is not None:
        masks.append(_padding(node, node[mask], shape_of(k)[2]))
    if node.attrs.get("unidirectional", 0):
        masks.append(causal_mask(shape_of(q)[2], shape_of(k)[2], node.dtype))
    scale = float(node.attrs.get("scale", 0.0))
    result = attention(
        node.emit, (q, k, v), scale=None if scale == 0.0 else scale, masks=tuple(masks)
    )
    return merge_heads(node.emit, result)


def _padding(node: OnnxNode, mask: Expr, length: int) -> Expr:
    """(1 - mask) * mask_filter_value for a mask [B, T] or [B, L, T] of ones and zeros."""
    shape = shape_of(mask)
    _refuse(node, f"a mask of shape {list(shape)}", len(shape) not in (2, 3) or shape[-1] != length)
    full = (shape[0], *(1,) * (4 - len(shape)), *shape[1:])
    mask = node.emit(relax.op.reshape(node.emit(relax.op.astype(mask, node.dtype)), full))
    value = float(node.attrs.get("mask_filter_value", -10000.0))
    one = relax.const(1.0, node.dtype)
    return node.emit(
        relax.op.multiply(node.emit(relax.op.subtract(one, mask)), relax.const(value, node.dtype))
    )


def _refuse(node: OnnxNode, what: str, found: bool) -> None:
    if found:
        raise ValueError(f"{what} is not supported; export the attention as plain operators")


ATTENTION: dict[str, Converter] = {"Attention": _attention, "MultiHeadAttention": _multi_head}
