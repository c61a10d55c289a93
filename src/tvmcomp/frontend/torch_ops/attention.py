"""The converter of torch's fused attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tvm.ir import Expr

from tvmcomp.frontend.attention import attention, causal_mask
from tvmcomp.frontend.block import shape_of

if TYPE_CHECKING:
    from torch import fx

__all__ = ["ATTENTION"]

_NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


def _attention(node: fx.Node, importer: Any) -> Expr:
    settings = dict(zip(_NAMES, node.args, strict=False)) | node.kwargs
    q, k, v = (importer.env[settings[name]] for name in _NAMES[:3])
    if settings.get("dropout_p"):
        raise NotImplementedError("attention with dropout; export the module in evaluation mode")
    masks = []
    if settings.get("attn_mask") is not None:
        masks.append(importer.env[settings["attn_mask"]])
    if settings.get("is_causal"):
        masks.append(causal_mask(shape_of(q)[-2], shape_of(k)[-2], str(q.ty.dtype)))
    emit = importer.block_builder.emit
    if len(shape_of(q)) == 2:
        raise NotImplementedError("attention on matrices; add a batch axis to query, key and value")
    return attention(emit, (q, k, v), scale=settings.get("scale"), masks=tuple(masks))


ATTENTION: dict[str, Callable[[fx.Node, Any], Expr]] = {
    "scaled_dot_product_attention.default": _attention,
}
