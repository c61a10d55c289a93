"""`Dataflow`: the single block of a module's `main` as plain Python data, to read, to edit and to build again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tvm
from tvm import IRModule, relax

from tvmcomp.errors import ModelError

__all__ = ["Dataflow", "substitute"]


@dataclass(frozen=True, eq=False)
class Dataflow:
    """`main(parameters) { name = value; ... } -> outputs`.

    Plain copies (`a = b`) and bound tuples are resolved into their uses, so every binding computes a
    tensor. `outputs` may repeat and may name parameters.
    """

    parameters: tuple[relax.Var, ...]
    bindings: tuple[tuple[relax.Var, relax.Expr], ...]
    outputs: tuple[relax.Var, ...]
    attributes: Mapping[str, object]

    @classmethod
    def of(cls, module: IRModule) -> Dataflow:
        """The `main` of `module`, which must be one dataflow block."""
        function = module["main"]
        if len(function.body.blocks) > 1:
            raise ModelError(
                f"main has {len(function.body.blocks)} blocks, expected one; "
                "import the model with from_torch or from_onnx"
            )
        resolved: dict[relax.Var, relax.Expr] = {}
        bindings: list[tuple[relax.Var, relax.Expr]] = []
        for block in function.body.blocks:
            for binding in block.bindings:
                value = substitute(binding.value, resolved)
                if isinstance(value, relax.Var | relax.Tuple):
                    resolved[binding.var] = value
                else:
                    bindings.append((binding.var, value))
        result = substitute(function.body.body, resolved)
        outputs = tuple(result.fields) if isinstance(result, relax.Tuple) else (result,)
        attributes = dict(function.attrs.items()) if function.attrs is not None else {}
        return cls(tuple(function.params), tuple(bindings), outputs, attributes)

    def build(self) -> IRModule:
        """The module these bindings spell, normalized; every name is kept."""
        renewed: dict[relax.Var, relax.Expr] = {}
        block: list[relax.VarBinding] = []
        escaping = set(self.outputs)
        for var, value in self.bindings:
            # Only a plain Var may leave a dataflow block.
            kind = relax.Var if var in escaping else relax.DataflowVar
            renewed[var] = kind(var.name, var.ty)
            block.append(relax.VarBinding(renewed[var], substitute(value, renewed)))
        outputs = [renewed.get(var, var) for var in self.outputs]
        single = len(outputs) == 1
        body = relax.SeqExpr(
            [relax.DataflowBlock(block)], outputs[0] if single else relax.Tuple(outputs)
        )
        types = [output.ty for output in outputs]
        function = relax.Function(
            list(self.parameters), body, types[0] if single else relax.TupleType(types)
        )
        function = function.with_attrs({"global_symbol": "main", **self.attributes})
        return relax.transform.Normalize()(tvm.IRModule({"main": function}))


def substitute(value: relax.Expr, replacement: Mapping[relax.Var, relax.Expr]) -> relax.Expr:
    """`value` with variables replaced, in calls, tuples and tuple items."""
    if isinstance(value, relax.Var):
        return replacement.get(value, value)
    if isinstance(value, relax.Tuple):
        return relax.Tuple([substitute(item, replacement) for item in value.fields])
    if isinstance(value, relax.TupleGetItem):
        return relax.TupleGetItem(substitute(value.tuple_value, replacement), value.index)
    if isinstance(value, relax.Call):
        arguments = [substitute(argument, replacement) for argument in value.args]
        return relax.Call(value.op, arguments, value.attrs, value.ty_args)
    return value
