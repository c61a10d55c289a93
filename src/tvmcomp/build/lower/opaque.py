"""Reads what TVM's fusion left: each remaining call_tir, and each constant result, becomes an Opaque layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import tvm
from tvm import IRModule, relax

from tvmcomp.build.lower.flow import constant_value
from tvmcomp.errors import ModelError
from tvmcomp.graph.layers import Layer, Opaque, QParams, TensorSpec

__all__ = ["OpaqueReader"]


class OpaqueReader:
    """Bindings in order in, layers out; keeps the tensors' specs and which variable is which tensor."""

    def __init__(self, module: IRModule, params: Mapping[str, np.ndarray]) -> None:
        self.tensors: dict[str, TensorSpec] = {}
        self.stored: list[Layer] = []
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

    def outputs(self, function: relax.Function, names: Sequence[str]) -> tuple[str, ...]:
        """Names of the graph's outputs in order; constants among them become layers that store them."""
        result = function.body.body
        if isinstance(result, relax.Var) and isinstance(self._values.get(result), tuple):
            return tuple(self._values[result])
        fields = result.fields if isinstance(result, relax.Tuple) else [result]
        return tuple(self._output(field, name) for field, name in zip(fields, names, strict=True))

    def _output(self, field: relax.Expr, name: str) -> str:
        array = self._array(field)
        if array is None:
            return self.name(field)
        while name in self.tensors:
            name += "_"
        self._add_spec(name, field.ty)
        self.stored.append(
            Opaque(name=name, inputs=(), output=name, function=_store(array), arguments=(array,))
        )
        return name

    def _array(self, expr: relax.Expr) -> np.ndarray | None:
        """What a constant or a parameter holds."""
        constant = constant_value(expr)
        if constant is not None:
            return constant
        if not isinstance(expr, relax.Var) or expr in self._values:
            return None
        array = self._params.get(expr.name)
        return None if array is None else np.asarray(array)

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
        array = self._array(expr)
        return self.name(expr) if array is None else array

    def _add_spec(self, name: str, ty: relax.TensorType) -> None:
        shape = tuple(int(dim) for dim in ty.shape.values)
        self.tensors[name] = TensorSpec(name, shape, str(ty.dtype))


def _store(array: np.ndarray) -> tvm.tirx.PrimFunc:
    """y = array"""
    source = tvm.te.placeholder(array.shape, str(array.dtype), "constant")
    copy = tvm.te.compute(array.shape, lambda *index: source(*index), "stored")
    return tvm.te.create_prim_func([source, copy])
