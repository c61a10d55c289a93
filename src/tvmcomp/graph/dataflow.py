"""`Dataflow`: the block of a module's `main` as plain Python data, to read, to edit and to build again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tvm
from tvm import IRModule, relax
from tvm.ir import Expr

from tvmcomp.frontend.block import Block, substitute

__all__ = ["Dataflow"]


@dataclass(frozen=True, eq=False)
class Dataflow:
    """main(parameters) { variable = value; ... } -> outputs.

    Plain copies (`a = b`) and bound tuples are resolved into their uses, so every binding computes a
    tensor. `outputs` may name parameters. `functions` are the module's other functions.
    """

    parameters: tuple[relax.Var, ...]
    bindings: Mapping[relax.Var, Expr]
    outputs: tuple[relax.Var, ...]
    functions: Mapping[tvm.ir.GlobalVar, tvm.ir.BaseFunc]

    @classmethod
    def of(cls, module: IRModule) -> Dataflow:
        """The `main` of `module`."""
        function = module["main"]
        resolved: dict[relax.Var, Expr] = {}
        bindings: dict[relax.Var, Expr] = {}
        for block in function.body.blocks:
            for binding in block.bindings:
                value = substitute(binding.value, resolved)
                if isinstance(value, relax.Var | relax.Tuple):
                    resolved[binding.var] = value
                else:
                    bindings[binding.var] = value
        result = substitute(function.body.body, resolved)
        outputs = tuple(result.fields) if isinstance(result, relax.Tuple) else (result,)
        others = {name: f for name, f in module.functions.items() if name.name_hint != "main"}
        return cls(tuple(function.params), bindings, outputs, others)

    def build(self) -> IRModule:
        """The module these bindings spell; names are kept, bindings nothing needs are dropped."""
        block = Block()
        block.definitions = dict(self.bindings)
        return block.finish(self.parameters, self.outputs, self.functions)
