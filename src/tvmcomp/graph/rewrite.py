"""`Rewriter`: one walk over `main` that emits a new one; each rewrite of the canonical form is a subclass."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import Block, as_array, leaves, op_name, substitute
from tvmcomp.model import Model

__all__ = ["Rewriter"]


class Rewriter:
    """Walks the bindings in order. `rewrite` sees each call with its operands already rewritten.

    A rewrite may look at what an operand is (`definition`), how often it is read (`uses`), and what a
    parameter holds (`value`); it returns the expression to bind instead, or None to keep the call.
    Parameters nothing reads any more are dropped, new ones are made with `param`.

    A binding `rewrite` leaves alone stays as it is, variable and all, and a walk that changes nothing
    returns the model itself: most of the canonical form's passes find nothing in most networks.
    """

    # Operators without which the rewrite has nothing to do; None where there are none to name.
    STARTS_FROM: ClassVar[frozenset[str] | None] = None

    def __init__(self, model: Model) -> None:
        self.model = model
        self.block = Block()
        self.env: dict[relax.Var, Expr] = {}
        self.arrays: dict[relax.Var, np.ndarray] = {}
        self._main = model.module["main"]
        self._uses: Counter[relax.Var] = Counter()
        self._names: dict[relax.Var, str] = {}
        for var in self._main.params[len(model.signature.inputs) :]:
            self.arrays[var] = model.params[str(var.name)]

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        """The replacement of `call`, or None."""
        raise NotImplementedError

    def run(self) -> Model:
        """The rewritten model."""
        bindings = [
            (binding.var, binding.value)
            for block in self._main.body.blocks
            for binding in block.bindings
        ]
        if not self._has_work([expr for _, expr in bindings]):
            return self.model
        counts: Counter[relax.Var] = Counter()
        for _, expr in bindings:
            counts.update(leaves(expr))
        counts.update(leaves(self._main.body.body))
        for var in self._main.params:
            self._uses[var] = counts[var]
        changed = bool(self.env)
        for var, expr in bindings:
            value = self.bind(var, expr)
            if value is not var:
                changed = True
                self.env[var] = value
            if isinstance(value, relax.Var):
                self._uses[value] += counts[var]
        if not changed and self._is_tidy(counts, [var for var, _ in bindings]):
            return self.model
        return self._finish()

    def bind(self, var: relax.Var, expr: Expr) -> Expr:
        """What takes the place of `var`, which was bound to `expr`; `var` itself if nothing changes."""
        name = str(var.name)
        new = substitute(expr, self.env) if self.env else expr
        if not op_name(new):
            return self._as_it_is(var, new) if new is expr else self.emit(new, name)
        call = self.block.typed(new)
        replacement = self.rewrite(call, name)
        if replacement is None and call is expr:
            return self._as_it_is(var, expr)
        return self.emit(call if replacement is None else replacement, name)

    def _as_it_is(self, var: relax.Var, expr: Expr) -> Expr:
        if not isinstance(expr, relax.Call | relax.TupleGetItem):
            return self.emit(expr)
        self.block.definitions[var] = expr
        return var

    def _has_work(self, values: list[Expr]) -> bool:
        starts = self.STARTS_FROM
        return starts is None or any(op_name(value) in starts for value in values)

    def _is_tidy(self, counts: Counter[relax.Var], variables: list[relax.Var]) -> bool:
        """Whether `_finish` would find nothing to drop, to name anew or to put in another order."""
        read = [var for var in counts if var in self.arrays]
        names = {str(var.name) for var in (*self._main.params, *variables)}
        return (
            read == list(self.arrays)
            and all(counts[var] for var in variables)
            and len(names) == len(self._main.params) + len(variables)
        )

    def results(self, body: Expr) -> list[Expr]:
        """The values `main` returns, rewritten."""
        result = substitute(body, self.env)
        return list(result.fields) if isinstance(result, relax.Tuple) else [result]

    def emit(self, expr: Expr, name: str = "") -> Expr:
        """Bind an intermediate value."""
        return self.block.emit(expr, name)

    def param(self, name: str, array: np.ndarray) -> relax.Var:
        """A new parameter; it takes the place of one of that name unless something still reads it."""
        array = np.asarray(array, order="C")
        var = relax.Var(name, relax.TensorType(array.shape, str(array.dtype)))
        self.arrays[var] = array
        return var

    def definition(self, expr: Expr, op: str) -> relax.Call | None:
        """The call of operator `op` that `expr` is bound to, or None."""
        found = self.block.definitions.get(expr) if isinstance(expr, relax.Var) else None
        return found if op_name(found) == op else None

    def uses(self, expr: Expr) -> int:
        """How often a rewritten value is read."""
        return self._uses[expr] if isinstance(expr, relax.Var) else 0

    def value(self, expr: Expr) -> np.ndarray | None:
        """What a parameter or constant holds; None for anything computed."""
        if isinstance(expr, relax.Var):
            return self.arrays.get(expr)
        return as_array(expr)

    def _finish(self) -> Model:
        results = self.results(self._main.body.body)
        live = self.block.live(results)
        inputs = self._main.params[: len(self.model.signature.inputs)]
        reads = dict.fromkeys(
            var for expr in self.block.definitions.values() for var in leaves(expr)
        )
        used = [var for var in (*reads, *self.arrays) if var in self.arrays and var in live]
        used = list(dict.fromkeys(used))
        env: dict[relax.Var, Expr] = {}
        params: dict[str, np.ndarray] = {}
        for var in used:
            name = str(var.name)
            while name in params:
                name += "_copy"
            if name != str(var.name):
                env[var] = relax.Var(name, var.ty)
            params[name] = self.arrays[var]
        if env:
            for var, expr in self.block.definitions.items():
                self.block.definitions[var] = substitute(expr, env)
        module = self.block.finish(
            [*inputs, *(env.get(var, var) for var in used)],
            [substitute(result, env) for result in results],
            self._helpers(),
        )
        relax.analysis.well_formed(module)
        return Model(module, params, self.model.signature, self.model.provenance)

    def _helpers(self) -> dict[tvm.ir.GlobalVar, tvm.ir.BaseFunc]:
        functions = self.model.module.functions
        return {var: func for var, func in functions.items() if var.name_hint != "main"}
