"""Reads what TVM's fusion left of a function: each remaining call_tir becomes an Opaque layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from tvm import IRModule, relax

from tvmcomp.build.lower.flow import constant_value
from tvmcomp.errors import ModelError
from tvmcomp.graph.layers import Layer, Opaque, QParams, TensorSpec

__all__ = ["OpaqueReader"]


class OpaqueReader:
    """Bindings in order in, layers out; keeps the tensors' specs and which variable is which tensor."""

    def __init__(self, module: IRModule, params: Mapping[str, np.ndarray]) -> None:
        self.tensors: dict[str, TensorSpec] = {}
        self._module = module
        self._params = params
        self._values: dict[relax.Var, str | tuple[str, ...]] = {}

    def add_input(self, var: relax.Var, qparams: QParams | None) -> None:
        """Declare a graph input, and how its codes are read."""
        self._add_spec(var.name, var.ty)
        self.tensors[var.name] = replace(self.tensors[var.name], qparams=qparams)

    def define(
        self, var: relax.Var, specs: Sequence[TensorSpec], exported: tuple[str, ...] = ()
    ) -> None:
        """`var` is the last of `specs`, which layers made elsewhere produce, or the tuple of those `exported`."""
        self.tensors.update((spec.name, spec) for spec in specs)
        self._values[var] = exported or specs[-1].name

    def name(self, expr: relax.Expr) -> str:
        """The tensor a variable stands for."""
        value = self._values.get(expr, getattr(expr, "name", None))
        if not isinstance(value, str) or value not in self.tensors:
            got = expr.name if isinstance(expr, relax.Var) else type(expr).__name__
            raise ModelError(
                f"lowering: {got} is used as a tensor but is a parameter, a constant or a tuple; "
                "compute it from an input in the source model"
            )
        return value

    def read(self, binding: relax.VarBinding) -> list[Layer]:
        """The layers of one binding: none for a renaming, one for a call_tir."""
        var, value = binding.var, binding.value
        if isinstance(value, relax.Var):
            self._values[var] = self.name(value)
            return []
        if isinstance(value, relax.Tuple):
            self._values[var] = tuple(self.name(item) for item in value.fields)
            return []
        if isinstance(value, relax.TupleGetItem):
            members = self._values[value.tuple_value]
            self._values[var] = members[value.index]
            return []
        if isinstance(value, relax.Call) and getattr(value.op, "name", "") == "relax.call_tir":
            return [self._call_tir(var, value)]
        operator = getattr(getattr(value, "op", None), "name", type(value).__name__)
        raise ModelError(
            f"lowering: operator {operator} ({var.name}) has no implementation in TVM; "
            "replace it in the source model"
        )

    def outputs(self, function: relax.Function) -> tuple[str, ...]:
        """Names of the graph's outputs in order."""
        result = function.body.body
        if isinstance(result, relax.Var) and isinstance(self._values.get(result), tuple):
            return tuple(self._values[result])
        fields = result.fields if isinstance(result, relax.Tuple) else [result]
        return tuple(self.name(field) for field in fields)

    def _call_tir(self, var: relax.Var, call: relax.Call) -> Opaque:
        arguments = tuple(self._argument(arg) for arg in call.args[1].fields)
        out = call.ty_args[0]
        types = list(out.fields) if isinstance(out, relax.TupleType) else [out]
        names = [var.name] + [f"{var.name}.{i}" for i in range(1, len(types))]
        for name, ty in zip(names, types, strict=True):
            self._add_spec(name, ty)
        self._values[var] = names[0] if len(types) == 1 else tuple(names)
        return Opaque(
            name=var.name,
            inputs=tuple(a for a in arguments if isinstance(a, str)),
            output=names[0],
            function=self._module[call.args[0]],
            arguments=arguments,
            extra_outputs=tuple(names[1:]),
        )

    def _argument(self, expr: relax.Expr) -> str | np.ndarray:
        constant = constant_value(expr)
        if constant is not None:
            return constant
        if isinstance(expr, relax.Var) and expr not in self._values:
            array = self._params.get(expr.name)
            if array is not None:
                return np.asarray(array)
        return self.name(expr)

    def _add_spec(self, name: str, ty: relax.TensorType) -> None:
        shape = tuple(int(dim) for dim in ty.shape.values)
        self.tensors[name] = TensorSpec(name, shape, str(ty.dtype))
