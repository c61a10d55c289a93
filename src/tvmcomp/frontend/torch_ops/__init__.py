"""ATen operators kept whole for import, and converters of our own for those TVM's importer lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from tvm.ir import Expr

from tvmcomp.frontend.torch_ops.attention import ATTENTION
from tvmcomp.frontend.torch_ops.image import IMAGE
from tvmcomp.frontend.torch_ops.index import INDEX
from tvmcomp.frontend.torch_ops.qdq import QDQ
from tvmcomp.frontend.torch_ops.recurrent import RECURRENT

__all__ = ["CONVERTERS", "decompositions"]

aten = torch.ops.aten

# Decomposed, each of these becomes gathers or arithmetic that no later room recognises.
_WHOLE = (
    aten.gru.input,
    aten.lstm.input,
    aten.prelu.default,
    aten.reflection_pad1d.default,
    aten.reflection_pad2d.default,
    aten.replication_pad1d.default,
    aten.replication_pad2d.default,
    aten.rnn_relu.input,
    aten.rnn_tanh.input,
    aten.scaled_dot_product_attention.default,
    aten.upsample_bicubic2d.vec,
    aten._upsample_nearest_exact2d.vec,
)

CONVERTERS: dict[str, Callable[[fx.Node, Any], Expr]] = {
    **ATTENTION,
    **IMAGE,
    **INDEX,
    **QDQ,
    **RECURRENT,
}


def decompositions() -> Any:
    """Torch's table of decompositions without the operators kept whole."""
    table = torch.export.default_decompositions()
    for operator in _WHOLE:
        table.pop(operator, None)
    return table
