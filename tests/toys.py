"""Small canonical models built by hand, and a plain TVM run of them, for the tests of calibration and compression."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Expr
from tvm_ffi import structural_equal

from tvmcomp.compress.weight_form import WeightForm, bind_weight
from tvmcomp.frontend.block import Block, shape_of
from tvmcomp.model import Model, Provenance, Signature, TensorType

__all__ = ["Toy", "run"]


class Toy:
    """Collects inputs, parameters and operators; `model` is the finished canonical model."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self._block = Block()
        self._inputs: list[relax.Var] = []
        self._params: dict[relax.Var, np.ndarray] = {}

    def input(self, name: str, *shape: int, dtype: str = "float32") -> relax.Var:
        self._inputs.append(relax.Var(name, relax.TensorType(shape, dtype)))
        return self._inputs[-1]

    def param(self, name: str, array: np.ndarray) -> relax.Var:
        var = relax.Var(name, relax.TensorType(array.shape, array.dtype.name))
        self._params[var] = array
        return var

    def emit(self, name: str, expr: Expr) -> Expr:
        return self._block.emit(expr, name)

    def weight(self, name: str, form: WeightForm) -> Expr:
        """A compressed weight and its parameters."""
        bound = bind_weight(form, name)
        self._params.update({var: bound.params[str(var.name)] for var in bound.variables})
        return self.emit(name, bound.call)

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(np.float32)

    def conv(
        self, name: str, x: Expr, channels: int, *, k: int = 3, groups: int = 1, bias: bool = True
    ) -> Expr:
        """conv2d and, as `NAME.bias_add`, its bias."""
        inner = shape_of(x)[3] // groups
        array = self.normal(channels, k, k, inner) / np.float32(k * inner**0.5)
        weight = self.param(f"{name}.weight", array)
        attrs = {
            "padding": k // 2,
            "groups": groups,
            "data_layout": "NHWC",
            "kernel_layout": "OHWI",
        }
        y = self.emit(name, relax.op.nn.conv2d(x, weight, **attrs))
        return self._bias(name, y, channels) if bias else y

    def dense(self, name: str, x: Expr, channels: int) -> Expr:
        """matmul and, as `NAME.bias_add`, its bias."""
        inner = shape_of(x)[-1]
        weight = self.param(f"{name}.weight", self.normal(inner, channels) / np.float32(inner**0.5))
        return self._bias(name, self.emit(name, relax.op.matmul(x, weight)), channels)

    def model(self, *outputs: Expr) -> Model:
        module = self._block.finish([*self._inputs, *self._params], list(outputs))
        relax.analysis.well_formed(module)
        types = [TensorType(shape_of(var), str(var.ty.dtype)) for var in (*self._inputs, *outputs)]
        inputs = {str(var.name): kind for var, kind in zip(self._inputs, types, strict=False)}
        names = (f"output{i}" for i in range(len(outputs)))
        results = dict(zip(names, types[len(self._inputs) :], strict=True))
        params = {str(var.name): array for var, array in self._params.items()}
        return Model(module, params, Signature(inputs, results), Provenance("toy", "0", "torch"))

    def _bias(self, name: str, y: Expr, channels: int) -> Expr:
        bias = self.param(f"{name}.bias", self.normal(channels))
        return self.emit(f"{name}.bias_add", relax.op.add(y, bias))


# Modules that differ in parameters alone are compiled once.
_EXECUTABLES: list[tuple[tvm.IRModule, Any]] = []


def _compiled(module: tvm.IRModule) -> Any:
    for known, executable in _EXECUTABLES:
        if structural_equal(known, module):
            return executable
    executable = tvm.compile(module, tvm.target.Target({"kind": "llvm", "num-cores": 1}))
    _EXECUTABLES.append((module, executable))
    return executable


def run(model: Model) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """`model` compiled by TVM as it comes, with its parameters bound; no packed weights."""
    machine = relax.VirtualMachine(_compiled(model.module), tvm.cpu())
    params = [tvm.runtime.tensor(array) for array in model.params.values()]

    def call(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        arrays = [tvm.runtime.tensor(inputs[name]) for name in model.signature.inputs]
        result = machine["main"](*arrays, *params)
        results = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
        return {
            name: value.numpy()
            for name, value in zip(model.signature.outputs, results, strict=True)
        }

    return call
