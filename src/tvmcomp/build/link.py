"""Kernels and their places to one shared library whose VM function runs the network.

    main(inputs..., outputs..., weights, arena):
        kernel_0(x, 0, weights, 0, arena, 64); kernel_1(arena, 64, weights, 4096, y, 0); ...

Inputs and outputs are dense tensors of the signature; weights and arena are flat uint8.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import tvm
from tvm import DataType, relax, tirx
from tvm.ir import GenericConst
from tvm.relax import AnyType

from tvmcomp.build.arena import ArenaPlan, Place
from tvmcomp.graph.layers import TensorSpec, View
from tvmcomp.kernels.kernel import ALIGNMENT, SLACK, Kernel
from tvmcomp.schedule.layouts import ScheduledGraph

__all__ = ["ENTRY", "KernelCall", "Linked", "link"]

ENTRY = "main"


@dataclass(frozen=True)
class KernelCall:
    """One step of the network, for `inspect --kernels`."""

    layer: str
    function: str
    kernel: Kernel
    constants_offset: int | None


@dataclass(frozen=True, eq=False)
class Linked:
    """The library's bytes, the constants of all kernels in one blob, and the calls in order."""

    lib: bytes
    weights: np.ndarray  # uint8, 64-byte aligned parts
    calls: tuple[KernelCall, ...]


def link(
    scheduled: ScheduledGraph,
    kernels: Mapping[str, Kernel],
    arena: ArenaPlan,
    target: tvm.target.Target,
) -> Linked:
    """Compile each distinct kernel once and the VM function that calls them."""
    calls, weights = _calls(scheduled, kernels)
    module = _module(scheduled, calls, arena, weights.nbytes)
    pipeline = tvm.ir.transform.Sequential(
        [
            relax.transform.ComputePrimValue(),
            relax.transform.VMShapeLower(),
            relax.transform.AttachGlobalSymbol(),
        ]
    )
    executable = relax.build(module, target, relax_pipeline=pipeline)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lib.so"
        executable.export_library(str(path))
        lib = path.read_bytes()
    return Linked(lib, weights, calls)


def _calls(
    scheduled: ScheduledGraph, kernels: Mapping[str, Kernel]
) -> tuple[tuple[KernelCall, ...], np.ndarray]:
    functions: dict[str, str] = {}
    parts: list[np.ndarray] = []
    calls, end = [], 0
    for layer in scheduled.graph.layers:
        if isinstance(layer, View):
            continue
        kernel = kernels[layer.name]
        function = functions.setdefault(kernel.key, f"{kernel.emitter}_{len(functions)}")
        offset = None
        if kernel.constants is not None:
            offset = end
            padding = -kernel.constants.nbytes % ALIGNMENT
            parts += [kernel.constants, np.zeros(padding, np.uint8)]
            end += kernel.constants.nbytes + padding
        calls.append(KernelCall(layer.name, function, kernel, offset))
    parts.append(np.zeros(SLACK, np.uint8))
    return tuple(calls), np.concatenate(parts)


def _module(
    scheduled: ScheduledGraph, calls: tuple[KernelCall, ...], arena: ArenaPlan, weights_bytes: int
) -> tvm.IRModule:
    graph = scheduled.graph
    builder = relax.BlockBuilder()
    globals_ = {}
    for call in calls:
        if call.function not in globals_:
            globals_[call.function] = builder.add_func(call.kernel.func, call.function)
    external = (*graph.inputs, *graph.outputs)
    variables = {name: _typed_var(f"t{i}", graph.tensors[name]) for i, name in enumerate(external)}
    weights, memory = _bytes_var("weights", weights_bytes), _bytes_var("arena", arena.size)
    layers = {layer.name: layer for layer in graph.layers}
    params = [*variables.values(), weights, memory]
    # An input nothing reads, an empty one among them, needs no view.
    read = {*graph.outputs, *(name for layer in graph.layers for name in layer.inputs)}
    with builder.function(ENTRY, params, attrs={"relax.force_pure": True}):
        used = {place.region for name, place in arena.places.items() if name in read}
        regions = {name: _as_bytes(builder, var) for name, var in variables.items() if name in used}
        regions["arena"] = memory
        for call in calls:
            layer = layers[call.layer]
            arguments: list[relax.Expr] = []
            for name in layer.inputs:
                arguments += _operand(regions, arena.places[name])
            if call.constants_offset is not None:
                arguments += [weights, _integer(call.constants_offset)]
            for name in (layer.output, *getattr(layer, "extra_outputs", ())):
                arguments += _operand(regions, arena.places[name])
            builder.emit(
                relax.Call(globals_[call.function], arguments, ty_args=[relax.TupleType([])])
            )
        builder.emit_func_output(relax.Tuple([]))
    return builder.get()


def _typed_var(name: str, spec: TensorSpec) -> relax.Var:
    return relax.Var(name, relax.TensorType(spec.shape, spec.dtype))


def _as_bytes(builder: relax.BlockBuilder, var: relax.Var) -> relax.Var:
    """The same memory as a flat uint8 tensor, which is what every kernel takes."""
    size = prod(int(dim) for dim in var.ty.shape) * np.dtype(str(var.ty.dtype)).itemsize
    view = relax.Call(
        relax.ExternFunc("runtime.TVMTensorCreateView"),
        [var, relax.ShapeExpr([size]), GenericConst(DataType("uint8"), AnyType()), _integer(0)],
        ty_args=[relax.TensorType((size,), "uint8")],
    )
    return builder.emit(view)


def _bytes_var(name: str, size: int) -> relax.Var:
    return relax.Var(name, relax.TensorType((size,), "uint8"))


def _operand(regions: Mapping[str, relax.Var], place: Place) -> list[relax.Expr]:
    return [regions[place.region], _integer(place.offset)]


def _integer(value: int) -> relax.Expr:
    return relax.prim_value(tirx.IntImm("int64", value))
