"""Dense layers have one form, whether they came as Linear, Gemm or MatMul and Add."""

from __future__ import annotations

from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import op_name, shape_of
from tvmcomp.graph.rewrite import Rewriter

__all__ = ["Dense"]


class Dense(Rewriter):
    """
    linear(x, w), matmul(x, w)                       ->  matmul(x, w)                w: [K, N]
    reshape(matmul(reshape(x, [M, K]), w), [..., N]) ->  matmul(x, w)                x: [..., K]
    matmul(x, w)            w: [..., K, N], repeated ->  matmul(x, w)                w: [K, N]
    add(matmul(x, w), b)    b: [..., N], repeated    ->  add(matmul(x, w), b)        b: [N]
    reshape(matmul(x, w), [..., N])                  ->  matmul(reshape(x, [..., K]), w)
    reshape(add(matmul(x))) likewise
    """

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        op = op_name(call)
        if op == "matmul":
            return self._flat_weight(call)
        if op == "add":
            return self._flat_bias(call)
        if op == "reshape":
            return self._unfolded(call)
        return None

    def _flat_weight(self, call: relax.Call) -> Expr | None:
        x, weight = call.args
        array = self.value(weight)
        if array is None or array.ndim < 3 or not isinstance(weight, relax.Var):
            return None
        matrix = array.reshape(-1, *array.shape[-2:])
        if not (matrix == matrix[:1]).all() or len(shape_of(x)) < array.ndim:
            return None
        return relax.op.matmul(x, self.param(str(weight.name), matrix[0]))

    def _flat_bias(self, call: relax.Call) -> Expr | None:
        x, bias = call.args
        array = self.value(bias)
        product = self.definition(x, "matmul")
        if product is None or array is None or array.ndim <= 1 or not isinstance(bias, relax.Var):
            return None
        rows = array.reshape(-1, array.shape[-1])
        if shape_of(x)[-1] != rows.shape[1] or shape_of(call) != shape_of(x):
            return None
        if not (rows == rows[:1]).all():
            return None
        return relax.op.add(x, self.param(str(bias.name), rows[0]))

    def _unfolded(self, call: relax.Call) -> Expr | None:
        x = call.args[0]
        added = self.definition(x, "add")
        product = self.definition(x if added is None else added.args[0], "matmul")
        if product is None or self.value(product.args[1]) is None:
            return None
        if added is not None and len(shape_of(added.args[1])) != 1:
            return None
        rows = self.definition(product.args[0], "reshape")
        source = product.args[0] if rows is None else rows.args[0]
        width = shape_of(product.args[1])
        if len(width) != 2 or shape_of(call)[-1] != width[1] or self.uses(x) != 1:
            return None
        if rows is None and len(shape_of(product.args[0])) >= len(shape_of(call)):
            return None
        wanted = (*shape_of(call)[:-1], width[0])
        if shape_of(source) != wanted:
            # The rows are cut as their reader wants them, so that a residual can be added to the sums.
            source = self.emit(relax.op.reshape(product.args[0], wanted))
        result = relax.op.matmul(source, product.args[1])
        if added is None:
            return result
        return relax.op.add(self.emit(result), added.args[1])
