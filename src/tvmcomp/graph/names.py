"""Bindings get names a reader finds again in the source: the layer's for its weights, else the operator's."""

from __future__ import annotations

from collections import Counter

from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import op_name
from tvmcomp.graph.fold_batch_norm import weight_prefix
from tvmcomp.graph.rewrite import Rewriter
from tvmcomp.model import Model

__all__ = ["NameBindings"]

_WEIGHTED = ("nn.conv2d", "nn.conv1d", "nn.conv2d_transpose", "matmul")


class NameBindings(Rewriter):
    """
    conv2d_3 = conv2d(x, layer1.0.conv1.weight)  ->  layer1.0.conv1 = ...
    lv17 = add(a, b)                             ->  add_3 = ...         numbered per operator, in order
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._counts: Counter[str] = Counter()

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        weight = str(call.args[1].name) if self._has_weight(call) else ""
        if weight_prefix(weight) != weight:
            return self.emit(call, weight_prefix(weight))
        op = op_name(call).rpartition(".")[2]
        self._counts[op] += 1
        return self.emit(call, f"{op}_{self._counts[op]}")

    def _has_weight(self, call: relax.Call) -> bool:
        return op_name(call) in _WEIGHTED and call.args[1] in self.arrays
