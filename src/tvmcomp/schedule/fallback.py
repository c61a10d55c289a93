"""The default schedule for functions no kernel claims: threaded over outer loops, vectorized over the innermost.

for n, h, w, c:  y[n,h,w,c] = ...             ->  parallel(n*h*w) { vectorize(c) }
for n, w, c, k:  y[n,w,c] += x[n,w,k] * b[k,c]  ->  parallel(n*w_outer*c_outer) {
                                                        k { unroll(w_inner) { vectorize(c_inner) } } }
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np
from tvm import IRModule, tirx
from tvm.s_tir import SBlockRealize, Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvm.tirx import PrimFunc
from tvm_ffi import structural_equal, structural_hash

from tvmcomp.graph.layers import Opaque
from tvmcomp.kernels.kernel import ALIGNMENT, Kernel

__all__ = ["build_opaque", "default_schedule"]

_LANES = 16
# So many sums at once hide the latency of a multiply-add and reuse what one step of the reduction loads.
_SUMS = 8


def default_schedule(function: PrimFunc) -> PrimFunc:
    """Apply the docstring's rewrite to every block; the result computes exactly what `function` does."""
    if not isinstance(function.body, SBlockRealize) or function.body.block.name_hint != "root":
        return function  # Written as loops by hand (scatters, sorts, scans), threads included.
    schedule = Schedule(IRModule({"main": function}))
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        _schedule_block(schedule, block)
    return schedule.mod["main"]


def _schedule_block(schedule: Schedule, block: SBlockRV) -> None:
    loops = schedule.get_loops(block)
    kinds = [str(var.iter_type) for var in schedule.get(block).iter_vars]
    if not loops or len(loops) != len(kinds):
        return
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == "0"]
    reduce = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == "2"]
    if not spatial or len(spatial) + len(reduce) != len(loops):
        return
    outer, vector = _split(schedule, spatial[-1], (_LANES, 8, 4), spatial[:-1])
    tile: list[LoopRV] = []
    if reduce and vector and len(spatial) > 1:
        rows, tile = _split(schedule, spatial[-2], range(_SUMS, 1, -1), spatial[:-2])
        outer = [*rows, *outer[len(spatial) - 1 :]]
    schedule.reorder(*outer, *reduce, *tile, *vector)
    if outer:
        schedule.parallel(schedule.fuse(*outer))
    for loop in tile:
        schedule.unroll(loop)
    for loop in vector:
        schedule.vectorize(loop)
    if reduce:
        # Last, because an update block without its init is no reduction block to the other primitives.
        schedule.decompose_reduction(block, reduce[0])


def _split(
    schedule: Schedule, loop: LoopRV, factors: Iterable[int], before: list[LoopRV]
) -> tuple[list[LoopRV], list[LoopRV]]:
    """(`before` and the outer part of `loop`, its inner part) by the first factor that divides it.

    Without one the loop stays whole in the outer part; a loop as long as the factor is all inner.
    """
    extent = int(schedule.get(loop).extent)
    factor = next((n for n in factors if extent % n == 0), None)
    if factor is None:
        return [*before, loop], []
    if extent == factor:
        return before, [loop]
    split_outer, split_inner = schedule.split(loop, [None, factor])
    return [*before, split_outer], [split_inner]


def build_opaque(layer: Opaque) -> Kernel:
    """The layer's function under the default schedule and the kernel calling convention.

    Layers that differ in names and in what their constants hold share one: the steps of an unrolled loop,
    the blocks of a transformer.
    """
    constants = [np.ascontiguousarray(a) for a in layer.arguments if isinstance(a, np.ndarray)]
    sizes = tuple(None if isinstance(a, str) else a.nbytes for a in layer.arguments)
    key, function = _scheduled(_Form(layer.function, sizes, 1 + len(layer.extra_outputs)))
    blob = None
    if constants:
        blob = np.zeros(sum(_aligned(a.nbytes) for a in constants), np.uint8)
        for array, start in zip(constants, _starts([a.nbytes for a in constants]), strict=True):
            blob[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
    return Kernel(key=key, func=function, emitter="tvm", isa="generic", constants=blob)


@dataclass(frozen=True, eq=False)
class _Form:
    """All that decides a layer's kernel; sizes: per operand a constant's bytes, None for a tensor."""

    function: PrimFunc
    sizes: tuple[int | None, ...]
    outputs: int

    def __hash__(self) -> int:
        return hash((structural_hash(self.function, map_free_vars=True), self.sizes, self.outputs))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Form)
            and (self.sizes, self.outputs) == (other.sizes, other.outputs)
            and bool(structural_equal(self.function, other.function, map_free_vars=True))
        )


_number = count()


@lru_cache(maxsize=1024)
def _scheduled(form: _Form) -> tuple[str, PrimFunc]:
    """(key, function) of a form; the key is new for each form, so equal keys are equal functions."""
    return f"opaque:{next(_number)}", _byte_operands(form, default_schedule(form.function))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _starts(sizes: list[int]) -> list[int]:
    starts = np.cumsum([0, *(_aligned(size) for size in sizes)])
    return [int(s) for s in starts[:-1]]


def _byte_operands(form: _Form, function: PrimFunc) -> PrimFunc:
    """f(A: f32[..], B: f32[..])  ->  f(a: u8[n], a_offset, b: u8[m], b_offset) with A and B declared inside."""
    buffers = list(function.params)
    split = len(buffers) - form.outputs
    inputs, results = buffers[:split], buffers[split:]
    tensors = [b for b, size in zip(inputs, form.sizes, strict=True) if size is None]
    constants = [b for b, size in zip(inputs, form.sizes, strict=True) if size is not None]
    sizes = [size for size in form.sizes if size is not None]
    params: list[tirx.Var] = []
    declared: list[tirx.Stmt] = []

    def operand(name: str, views: list[tirx.Var], starts: list[int]) -> None:
        size, offset = tirx.Var(f"{name}_size", "int64"), tirx.Var(f"{name}_offset", "int64")
        data = tirx.decl_buffer((size,), "uint8", name, data_alignment=ALIGNMENT)
        params.extend((data, offset))
        for view, start in zip(views, starts, strict=True):
            at = tirx.BufferLoad(data, [offset + tirx.IntImm("int64", start)])
            pointer = tirx.call_intrin(view.data.ty, "tirx.address_of", at)
            if isinstance(view.elem_offset, tirx.Var):
                # Loops written by hand leave it open where a buffer starts: here, at its pointer.
                declared.append(
                    tirx.Bind(view.elem_offset, tirx.IntImm(str(view.elem_offset.ty), 0))
                )
            declared.append(tirx.DeclBuffer(view, data=pointer))

    for i, buffer in enumerate(tensors):
        operand(f"x{i}", [buffer], [0])
    if constants:
        operand("constants", constants, _starts(sizes))
    for i, buffer in enumerate(results):
        operand(f"y{i}", [buffer], [0])
    wrapped = PrimFunc(params, tirx.SeqStmt([*declared, function.body]))
    return wrapped.with_attr("tirx.noalias", True).with_attr("s_tir", True)
