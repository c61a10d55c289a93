"""`Rewriter`: one walk over `main` that emits a new one; each rewrite of the canonical form is a subclass."""

from __future__ import annotations

from collections import Counter

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
    """

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
        counts: Counter[relax.Var] = Counter()
        for _, expr in bindings:
            counts.update(leaves(expr))
        counts.update(leaves(self._main.body.body))
        for var in self._main.params:
            self._uses[var] = counts[var]
        for var, expr in bindings:
            value = self.bind(var, expr)
            self.env[var] = value
            if isinstance(value, relax.Var):
                self._uses[value] += counts[var]
        return self._finish()

    def bind(self, var: relax.Var, expr: Expr) -> Expr:
        """What takes the place of `var`, which was bound to `expr`."""
        name = str(var.name)
        expr = substitute(expr, self.env)
        if not op_name(expr):
            return self.emit(expr, name)
        call = self.block.typed(expr)
        replacement = self.rewrite(call, name)
        return self.emit(call if replacement is None else replacement, name)

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
            env[var] = var if name == str(var.name) else relax.Var(name, var.ty)
            params[name] = self.arrays[var]
        for var, expr in self.block.definitions.items():
            self.block.definitions[var] = substitute(expr, env)
        module = self.block.finish(
            [*inputs, *env.values()],
            [substitute(result, env) for result in results],
            self._helpers(),
        )
        relax.analysis.well_formed(module)
        return Model(module, params, self.model.signature, self.model.provenance)

    def _helpers(self) -> dict[tvm.ir.GlobalVar, tvm.ir.BaseFunc]:
        functions = self.model.module.functions
        return {var: func for var, func in functions.items() if var.name_hint != "main"}
