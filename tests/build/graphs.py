"""Canonical modules written by hand: what lowering and scheduling tests start from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tvm
from tvm import relax

from tvmcomp.compress.granularity import PerAxis
from tvmcomp.compress.weight_form import UniformWeight, bind_weight, expand_weights
from tvmcomp.graph.dataflow import Dataflow
from tvmcomp.graph.layers import Opaque
from tvmcomp.model import Model, Provenance, Signature, TensorType

__all__ = ["Net", "run_opaque", "simulate"]


class Net:
    """A canonical function under construction: `emit` adds a named binding, `model` closes it."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0, dtype: str = "float32") -> None:
        self.rng = np.random.default_rng(seed)
        self.params: dict[str, np.ndarray] = {}
        self.x = relax.Var("x", relax.TensorType(shape, dtype))
        self._input = TensorType(shape, dtype)
        self._parameters: list[relax.Var] = [self.x]
        self._bindings: list[tuple[relax.Var, relax.Expr]] = []
        self._builder = relax.BlockBuilder()

    def emit(self, value: relax.Expr, name: str) -> relax.Var:
        with self._builder.testing_scope(def_vars=[]):
            value = self._builder.normalize(value)
        var = relax.Var(name, value.ty)
        self._bindings.append((var, value))
        return var

    def param(self, name: str, array: np.ndarray) -> relax.Var:
        self.params[name] = array
        self._parameters.append(relax.Var(name, relax.TensorType(array.shape, array.dtype.name)))
        return self._parameters[-1]

    def quantize(
        self, x: relax.Expr, scale: float, zero: int, name: str, dtype: str = "uint8"
    ) -> relax.Var:
        """quantize then dequantize; the codes are `NAME.q`, the result `NAME.dq`."""
        return self.dequantize(
            self.codes(x, scale, zero, f"{name}.q", dtype), scale, zero, f"{name}.dq"
        )

    def codes(
        self, x: relax.Expr, scale: float, zero: int, name: str, dtype: str = "uint8"
    ) -> relax.Var:
        """quantize alone."""
        arguments = (relax.const(np.float32(scale)), relax.const(np.array(zero, dtype)))
        return self.emit(relax.op.quantize(x, *arguments, -1, dtype), name)

    def dequantize(self, codes: relax.Var, scale: float, zero: int, name: str) -> relax.Var:
        """dequantize alone."""
        dtype = str(codes.ty.dtype)
        arguments = (relax.const(np.float32(scale)), relax.const(np.array(zero, dtype)))
        return self.emit(relax.op.dequantize(codes, *arguments, -1, "float32"), name)

    def weight(self, shape: tuple[int, ...], axis: int, name: str) -> relax.Var:
        """A per-axis int8 weight with random codes."""
        codes = self.rng.integers(-127, 128, shape).astype(np.int8)
        scale = self.rng.uniform(0.001, 0.003, shape[axis]).astype(np.float32)
        form = UniformWeight.from_codes(codes, scale, None, bits=8, granularity=PerAxis(axis))
        bound = bind_weight(form, name)
        for variable in bound.variables:
            self._parameters.append(variable)
        self.params.update(bound.params)
        return self.emit(bound.call, name)

    def conv(
        self,
        x: relax.Expr,
        channels: int,
        kernel: int,
        name: str,
        *,
        quantized: bool = True,
        **attrs: object,
    ) -> relax.Var:
        """conv2d plus bias, "same" padding unless told otherwise."""
        c = int(x.ty.shape[3]) // int(attrs.get("groups", 1))  # type: ignore[call-overload]
        shape = (channels, kernel, kernel, c)
        if quantized:
            weight = self.weight(shape, 0, f"{name}.weight")
        else:
            weight = self.param(
                f"{name}.weight",
                (self.rng.standard_normal(shape) / (kernel * c**0.5)).astype(np.float32),
            )
        attrs.setdefault("padding", kernel // 2)
        conv = relax.op.nn.conv2d(
            x, weight, data_layout="NHWC", kernel_layout="OHWI", out_layout="NHWC", **attrs
        )
        bias = self.param(f"{name}.bias", self.rng.standard_normal(channels).astype(np.float32))
        return self.emit(relax.op.add(self.emit(conv, name), bias), f"{name}.add")

    def model(self, *outputs: relax.Var) -> Model:
        """The finished model, marked canonical."""
        flow = Dataflow(tuple(self._parameters), tuple(self._bindings), outputs, {})
        types = {
            f"y{i}": TensorType(tuple(int(d) for d in o.ty.shape), str(o.ty.dtype))
            for i, o in enumerate(outputs)
        }
        signature = Signature({"x": self._input}, types)
        provenance = Provenance("test", "0" * 64, "test", ("canonicalize",))
        return Model(flow.build(), self.params, signature, provenance)


def simulate(model: Model, x: np.ndarray) -> list[np.ndarray]:
    """What TVM's own legalization computes: the float simulation of every quantize and dequantize."""
    plain = expand_weights(model)
    target = tvm.target.Target({"kind": "llvm", "num-cores": 1})
    machine = relax.VirtualMachine(tvm.compile(plain.module, target=target), tvm.cpu())
    arrays = [plain.params.get(var.name, x) for var in plain.module["main"].params]
    result = machine["main"](*(tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays))
    tensors = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
    return [tensor.numpy() for tensor in tensors]


def run_opaque(layer: Opaque, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """An opaque layer by TVM's own code, for the reference's `run`."""
    module = tvm.IRModule({"main": layer.function.with_attr("global_symbol", "main")})
    function = tvm.compile(module, tvm.target.Target({"kind": "llvm", "num-cores": 1}))["main"]
    computed = iter(arrays)
    operands = [next(computed) if isinstance(a, str) else a for a in layer.arguments]
    outputs = list(layer.function.params)[len(operands) :]
    results = [
        tvm.runtime.tensor(np.zeros([int(n) for n in buffer.shape], str(buffer.dtype)))
        for buffer in outputs
    ]
    function(*(tvm.runtime.tensor(np.asarray(a, order="C")) for a in operands), *results)
    return [result.numpy() for result in results]
