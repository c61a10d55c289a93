"""A network built by hand, before and without the compiler: three kernels called by one VM function.

a = f*x + w0            x: float32 [8, 16], w: float32 [3, 8, 16]; a and b live in the arena
b = f*a + w1
y = f*b + w2 + gain     gain: float32 []
n = k + 1               k, n: int32 [8, 16]
"""

from __future__ import annotations

import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from tvmcomp.artifact import Function, Manifest, Payload, Source, Variant, Versions
from tvmcomp.model import Signature, TensorType

ROWS, LANES = 8, 16
ROW_BYTES = LANES * 4
TENSOR_BYTES = ROWS * ROW_BYTES
ARENA_BYTES = 2 * TENSOR_BYTES + 256
TRIPLE = "x86_64-unknown-linux-gnu"
SIGNATURE = Signature(
    inputs={
        "x": TensorType((ROWS, LANES), "float32"),
        "k": TensorType((ROWS, LANES), "int32"),
        "gain": TensorType((), "float32"),
    },
    outputs={
        "y": TensorType((ROWS, LANES), "float32"),
        "n": TensorType((ROWS, LANES), "int32"),
    },
)


def weights() -> np.ndarray:
    """The three weight tensors, packed."""
    return np.random.default_rng(7).standard_normal((3, ROWS, LANES), np.float32)


def expected(
    x: np.ndarray, k: np.ndarray, gain: np.ndarray, factor: float = 2.0
) -> dict[str, np.ndarray]:
    """The network in numpy, each float32 operation in the kernels' order."""
    w0, w1, w2 = weights()
    f = np.float32(factor)
    return {"y": (((x * f + w0) * f + w1) * f + w2) + gain, "n": k + np.int32(1)}


def inputs(seed: int) -> dict[str, np.ndarray]:
    """One set of inputs of the signature."""
    rng = np.random.default_rng(seed)
    return {
        "x": rng.standard_normal((ROWS, LANES), np.float32),
        "k": rng.integers(-1000, 1000, (ROWS, LANES), np.int32),
        "gain": np.array(rng.standard_normal(), np.float32),
    }


def payload(factor: float = 2.0) -> Payload:
    """The compiled network as an artifact's content."""
    given = inputs(0)
    return Payload(
        manifest=Manifest(
            functions=(
                Function(
                    name="main",
                    signature=SIGNATURE,
                    variants=(
                        Variant(
                            target="host",
                            triple=TRIPLE,
                            required_features=("sse4.2",),
                            arena_bytes=ARENA_BYTES,
                            kernels=({"layer": "enter"}, {"layer": "middle"}, {"layer": "leave"}),
                        ),
                    ),
                ),
            ),
            versions=Versions(
                tvmcomp="0.1.0",
                tvm=tvm.__version__,
                tvm_ffi=tvm_ffi.__version__,
                python=sys.version.split()[0],
            ),
            source=Source("tiny", "", "onnx"),
            steps=("built by hand",),
        ),
        lib=library(factor),
        weights=weights().reshape(-1).view(np.uint8),
        golden_inputs=given,
        golden_outputs=expected(**given, factor=factor),
    )


def _bytes(name: str) -> tuple[tirx.Buffer, tirx.Var]:
    size = tirx.Var(f"{name}_size", "int64")
    buffer = T.arg(name, T.buffer((size,), "uint8", align=64))
    return buffer, T.arg(f"{name}_offset", T.int64())


def _tensor(name: str, tensor: TensorType) -> tirx.Buffer:
    return T.arg(name, T.buffer(tensor.shape, tensor.dtype, align=64))


def _ramp(base: object, lanes: int) -> tirx.Ramp:
    return tirx.Ramp(base, tirx.IntImm("int64", 1), lanes)


def _load(operand: object, row: object) -> object:
    if isinstance(operand, tuple):
        buffer, offset = operand
        at = _ramp(offset + tirx.Cast("int64", row) * ROW_BYTES, ROW_BYTES)
        return tirx.reinterpret(f"float32x{LANES}", tirx.BufferLoad(buffer, [at]))
    at = _ramp(tirx.IntImm("int64", 0), LANES)
    return tirx.BufferLoad(operand, [tirx.Cast("int64", row), at])


def _store(operand: object, row: object, value: object) -> None:
    if isinstance(operand, tuple):
        buffer, offset = operand
        at = _ramp(offset + tirx.Cast("int64", row) * ROW_BYTES, ROW_BYTES)
        T.buffer_store(buffer, tirx.reinterpret(f"uint8x{ROW_BYTES}", value), [at])
        return
    at = _ramp(tirx.IntImm("int64", 0), LANES)
    T.buffer_store(operand, value, [tirx.Cast("int64", row), at])


def _scaled(operand: object, row: object, w: object, factor: float) -> object:
    f = tirx.Broadcast(tirx.FloatImm("float32", factor), LANES)
    return _load(operand, row) * f + _load(w, row)


def _kernels(factor: float) -> dict[str, tirx.PrimFunc]:
    i, o = SIGNATURE.inputs, SIGNATURE.outputs
    result = {}
    for name in ("enter", "middle", "leave"):
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name(name)
            source = _tensor("x", i["x"]) if name == "enter" else _bytes("x")
            w = _bytes("w")
            extra = [_tensor("k", i["k"]), _tensor("gain", i["gain"])] if name == "leave" else []
            target = _tensor("y", o["y"]) if name == "leave" else _bytes("y")
            more = [_tensor("n", o["n"])] if name == "leave" else []
            T.func_attr({"tirx.noalias": True})
            with T.parallel(0, ROWS) as row:
                value = _scaled(source, row, w, factor)
                if name == "leave":
                    k, gain = extra
                    value = value + tirx.Broadcast(tirx.BufferLoad(gain, []), LANES)
                    one = tirx.Broadcast(tirx.IntImm("int32", 1), LANES)
                    _store(more[0], row, _load(k, row) + one)
                _store(target, row, value)
        result[name] = builder.get()
    return result


@cache
def library(factor: float) -> bytes:
    """The shared library of the network, compiled for plain x86-64."""
    block = relax.BlockBuilder()
    calls = {name: block.add_func(f, name) for name, f in _kernels(factor).items()}

    def variable(name: str, shape: tuple[int, ...], dtype: str) -> relax.Var:
        return relax.Var(name, relax.TensorType(shape, dtype))

    def offset(value: int) -> relax.PrimValue:
        return relax.prim_value(tirx.IntImm("int64", value))

    tensors = {**SIGNATURE.inputs, **SIGNATURE.outputs}
    v = {name: variable(name, t.shape, t.dtype) for name, t in tensors.items()}
    w = variable("weights", (3 * TENSOR_BYTES,), "uint8")
    arena = variable("arena", (ARENA_BYTES,), "uint8")
    a, b = (arena, offset(0)), (arena, offset(TENSOR_BYTES))
    arguments = {
        "enter": (v["x"], w, offset(0), *a),
        "middle": (*a, w, offset(TENSOR_BYTES), *b),
        "leave": (*b, w, offset(2 * TENSOR_BYTES), v["k"], v["gain"], v["y"], v["n"]),
    }
    with block.function("main", [*v.values(), w, arena], attrs={"relax.force_pure": True}):
        for name, args in arguments.items():
            block.emit(relax.Call(calls[name], list(args), ty_args=[relax.TupleType([])]))
        block.emit_func_output(relax.Tuple([]))
    passes = tvm.ir.transform.Sequential(
        [
            relax.transform.ComputePrimValue(),
            relax.transform.VMShapeLower(),
            relax.transform.AttachGlobalSymbol(),
        ]
    )
    # Plain x86-64 has no fused multiply-add, so the result is numpy's to the last bit.
    target = tvm.target.Target({"kind": "llvm", "mtriple": TRIPLE, "num-cores": 2})
    executable = relax.build(block.get(), target, relax_pipeline=passes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lib.so"
        executable.export_library(str(path))
        return path.read_bytes()
