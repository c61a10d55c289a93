"""Building blocks for every walk over a Relax function: substitute, emit, finish one dataflow block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Expr, Op

__all__ = [
    "Block",
    "abandon",
    "as_array",
    "leaves",
    "op_name",
    "scalar",
    "shape_of",
    "substitute",
    "unique",
]


def op_name(expr: Expr | None) -> str:
    """`nn.conv2d` for a call of that operator, "" for anything else."""
    if isinstance(expr, relax.Call) and isinstance(expr.op, Op):
        return str(expr.op.name).removeprefix("relax.")
    return ""


def shape_of(expr: Expr) -> tuple[int, ...]:
    """Static shape of a tensor-valued expression."""
    return tuple(int(size) for size in expr.ty.shape)


def leaves(expr: Expr) -> list[relax.Var]:
    """Variables an expression reads, with repetition."""
    if isinstance(expr, relax.Var):
        return [expr]
    if isinstance(expr, relax.Tuple):
        return [var for field in expr.fields for var in leaves(field)]
    if isinstance(expr, relax.TupleGetItem):
        return leaves(expr.tuple_value)
    if isinstance(expr, relax.Call):
        return [var for arg in expr.args for var in leaves(arg)]
    return []


def substitute(expr: Expr, env: Mapping[relax.Var, Expr]) -> Expr:
    """`expr` with its variables replaced; a field of a known tuple becomes that field."""
    if isinstance(expr, relax.Var):
        return env.get(expr, expr)
    if isinstance(expr, relax.Tuple):
        old = list(expr.fields)
        fields = [substitute(field, env) for field in old]
        return expr if _same(fields, old) else relax.Tuple(fields)
    if isinstance(expr, relax.TupleGetItem):
        value = substitute(expr.tuple_value, env)
        if isinstance(value, relax.Tuple):
            return value.fields[expr.index]
        unchanged = value.same_as(expr.tuple_value)
        return expr if unchanged else relax.TupleGetItem(value, expr.index)
    if isinstance(expr, relax.Call):
        old = list(expr.args)
        args = [substitute(arg, env) for arg in old]
        return expr if _same(args, old) else relax.Call(expr.op, args, expr.attrs, expr.ty_args)
    return expr


def _same(new: Sequence[Expr], old: Sequence[Expr]) -> bool:
    return all(a is b or a.same_as(b) for a, b in zip(new, old, strict=True))


def unique(name: str, taken: dict[str, int]) -> str:
    """`name`, or `name_1`, `name_2` ... if taken; the result is added to `taken`.

    taken: name -> the last number that was tried for it.
    """
    candidate = name
    while candidate in taken:
        taken[name] = taken.get(name, 0) + 1
        candidate = f"{name}_{taken[name]}"
    taken[candidate] = 0
    return candidate


def as_array(expr: Expr) -> np.ndarray | None:
    """What a constant holds."""
    value = getattr(expr, "value", None)
    if isinstance(value, tvm.runtime.Tensor):
        return value.numpy()
    return np.asarray(value) if isinstance(value, int | float) else None


def scalar(expr: Expr) -> float | None:
    """The value of a one-element constant."""
    array = as_array(expr)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def abandon(builder: relax.BlockBuilder) -> None:
    """End every block that an exception left open in `builder`.

    One that goes away with an open block warns on stderr, which has room for one line, and as the
    exception's traceback holds it, that may be in the middle of something else.
    """
    with contextlib.suppress(RuntimeError):  # raised when no block is left
        while True:
            builder._end_block()


class Block:
    """Collects the bindings of `main`'s dataflow block in order; `finish` drops dead ones."""

    def __init__(self) -> None:
        self._builder = relax.BlockBuilder()
        self.definitions: dict[relax.Var, Expr] = {}

    def typed(self, expr: Expr) -> Expr:
        """`expr` with its type deduced."""
        return self._builder.normalize(expr) if expr.ty.is_missing() else expr

    def emit(self, expr: Expr, name: str = "") -> Expr:
        """Bind `expr` to a new variable called `name`, by default after its operator.

        Variables, constants and tuples are not bound: they stand for themselves.
        """
        if isinstance(expr, relax.Var | relax.Tuple) or not isinstance(
            expr, relax.Call | relax.TupleGetItem
        ):
            return expr
        expr = self.typed(expr)
        hint = name or op_name(expr).rpartition(".")[2] or "value"
        var = relax.DataflowVar(hint, expr.ty)
        self.definitions[var] = expr
        return var

    def finish(
        self,
        params: Sequence[relax.Var],
        outputs: Sequence[Expr],
        functions: Mapping[tvm.ir.GlobalVar, tvm.ir.BaseFunc] | None = None,
    ) -> tvm.IRModule:
        """The module: live bindings under unique names, results as one value or one tuple."""
        live = self.live(outputs)
        results = {var for var in leaves(relax.Tuple(list(outputs))) if var in self.definitions}
        taken = {str(param.name): 0 for param in params}
        env: dict[relax.Var, Expr] = {}
        builder = relax.BlockBuilder()
        for var, function in (functions or {}).items():
            builder.update_func(var, function)
        with builder.function("main", list(params)):
            with builder.dataflow():
                for var, expr in self.definitions.items():
                    if var not in live:
                        continue
                    value = substitute(expr, env)
                    if value.ty.is_missing():
                        value = builder.normalize(value)
                    kind = relax.Var if var in results else relax.DataflowVar
                    name = unique(str(var.name), taken)
                    bound = var
                    if name != str(var.name) or type(var) is not kind:
                        bound = env[var] = kind(name, value.ty)
                    builder.emit_normalized(relax.VarBinding(bound, value))
            final = [substitute(output, env) for output in outputs]
            builder.emit_func_output(final[0] if len(final) == 1 else relax.Tuple(final))
        return builder.get()

    def live(self, outputs: Iterable[Expr]) -> set[relax.Var]:
        """Every variable the outputs depend on, parameters included."""
        pending = [var for output in outputs for var in leaves(output)]
        seen: set[relax.Var] = set()
        while pending:
            var = pending.pop()
            if var not in seen:
                seen.add(var)
                pending.extend(leaves(self.definitions[var]) if var in self.definitions else [])
        return seen
