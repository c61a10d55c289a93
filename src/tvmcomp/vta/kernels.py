"""GEMM and ALU of the simulator, compiled for this host: one call runs one instruction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import tvm
import tvm_ffi
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from tvmcomp.target import detect
from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.isa import AluOp

__all__ = ["ALIGNMENT", "LARGEST_SHIFT", "Kernel", "kernels"]

ALIGNMENT = 64
LARGEST_SHIFT = 31

Kernel: TypeAlias = Callable[..., int]
_Expr: TypeAlias = Any  # TVM's builder is dynamic


@cache
def kernels(config: VtaConfig) -> Mapping[str, Kernel]:
    """ "gemm", and "min", "max", "add", "shr", "mul" each with "_imm" or "_acc"; compiled once per process.

    gemm(acc, inp, wgt, uops, loops), op_imm(acc, uops, loops, imm), op_acc(acc, uops, loops), over whole memories;
    shr_both(acc, uops, loops, imm) shifts by ACC[src] into the direction of imm, as hardware does:
    acc int32 [depth * B*K], inp int8 [depth * B*K], wgt int8 [depth * K_in*K_out] (transposed), uops int32 [n * 3],
    loops int32 [8] = iter_out, iter_in, then the factors of dst, src and wgt, each out and in.
    The caller has checked every index. The result is 1 if a lane was to shift by more than LARGEST_SHIFT, else 0.
    """
    functions = {"gemm": _gemm(config)}
    for op in AluOp:
        for source in ("imm", "acc"):
            name = f"{op.name.lower()}_{source}"
            functions[name] = _alu(config, op, name, source)
    functions["shr_both"] = _alu(config, AluOp.SHR, "shr_both", "both")
    library = tvm.compile(tvm.IRModule(functions), target=detect().narrowed().tvm_target())
    return {name: _callable(library[name]) for name in functions}


def _callable(function: Any) -> Kernel:
    def run(*arguments: np.ndarray | int) -> int:
        status = np.zeros(1, np.int32)
        views = [tvm_ffi.from_dlpack(a) if isinstance(a, np.ndarray) else a for a in arguments]
        function(*views, tvm_ffi.from_dlpack(status))
        return int(status[0])

    return run


def _gemm(config: VtaConfig) -> _Expr:
    """acc[dst] += inp[src] . wgt[wgt]^T, one vector of K outputs per batch row."""
    batch, block = config.batch, config.block

    with IRBuilder() as builder, T.prim_func(s_tir=True):
        _head("gemm")
        acc, inp, wgt = (_memory(config, m) for m in (Memory.ACC, Memory.INP, Memory.WGT))
        uops, loops = _argument("uops"), _argument("loops")
        _argument("status")

        def step(dst: _Expr, src: _Expr, weight: _Expr) -> None:
            with T.serial(_i64(0), _i64(batch)) as row:
                tile = T.bind(weight * (block * block))
                codes = T.bind(src * (batch * block) + row * block)
                # At most K * 2^14 in size, so only the last addition can overflow.
                total: _Expr = _splat(0, block)
                for k in range(block):
                    one = tirx.Cast("int32", inp[codes + k])
                    column = tirx.Cast(_lanes("int32", block), wgt[_range(tile + k * block, block)])
                    total = T.bind(total + column * _splat(one, block))
                at = _range(dst * (batch * block) + row * block, block)
                T.buffer_store(acc, _wrapping(acc[at], total, block, product=False), [at])

        _nest(uops, loops, step)
    return builder.get()


def _alu(config: VtaConfig, op: AluOp, name: str, source: str) -> _Expr:
    """acc[dst] = op(acc[dst], imm or acc[src]), in the order of the loops; `source`: imm, acc, or both."""
    lanes = config.batch * config.block

    with IRBuilder() as builder, T.prim_func(s_tir=True):
        _head(name)
        acc = _memory(config, Memory.ACC)
        uops, loops = _argument("uops"), _argument("loops")
        imm: _Expr = T.arg("imm", T.int32()) if source != "acc" else None
        status = _argument("status")

        def step(dst: _Expr, src: _Expr, _: _Expr) -> None:
            at = _range(dst * lanes, lanes)
            x = T.bind(acc[at])
            fixed = source == "imm"
            y = _splat(imm, lanes) if fixed else T.bind(acc[_range(src * lanes, lanes)])
            sign = y if source == "acc" else _splat(imm, lanes)
            if op == AluOp.SHR:
                with T.serial(_i64(0), _i64(lanes)) as lane:
                    amount = imm if fixed else acc[src * lanes + lane]
                    beyond = tirx.any(amount > LARGEST_SHIFT, amount < -LARGEST_SHIFT)
                    flag = tirx.Cast("int32", beyond)
                    T.buffer_store(status, tirx.Max(status[_i64(0)], flag), [_i64(0)])
            T.buffer_store(acc, _apply(op, x, y, sign, lanes), [at])

        _nest(uops, loops, step)
    return builder.get()


def _apply(op: AluOp, x: _Expr, y: _Expr, sign: _Expr, lanes: int) -> _Expr:
    if op == AluOp.MIN:
        return tirx.Min(x, y)
    if op == AluOp.MAX:
        return tirx.Max(x, y)
    if op != AluOp.SHR:
        return _wrapping(x, y, lanes, product=op == AluOp.MUL)
    zero, mask = _splat(0, lanes), _splat(LARGEST_SHIFT, lanes)
    right = tirx.shift_right(x, tirx.bitwise_and(y, mask))
    unsigned = tirx.reinterpret(_lanes("uint32", lanes), x)
    amount = tirx.reinterpret(_lanes("uint32", lanes), tirx.bitwise_and(zero - y, mask))
    left = tirx.reinterpret(_lanes("int32", lanes), tirx.shift_left(unsigned, amount))
    return tirx.Select(sign < zero, left, right)


def _wrapping(x: _Expr, y: _Expr, lanes: int, *, product: bool) -> _Expr:
    """The low 32 bits of x + y or x * y: LLVM may take it that int32 does not overflow, int64 cannot."""
    x, y = (tirx.Cast(_lanes("int64", lanes), value) for value in (x, y))
    return tirx.Cast(_lanes("int32", lanes), x * y if product else x + y)


def _nest(uops: _Expr, loops: _Expr, step: Callable[[_Expr, _Expr, _Expr], None]) -> None:
    """step(dst, src, wgt) for each index of the two loops over the micro-ops."""
    iter_out, iter_in, *factors = (T.bind(tirx.Cast("int64", loops[_i64(i)])) for i in range(8))
    with T.serial(_i64(0), iter_out) as o, T.serial(_i64(0), iter_in) as i:
        bases = [T.bind(o * factors[2 * n] + i * factors[2 * n + 1]) for n in range(3)]
        with T.serial(_i64(0), tirx.floordiv(uops.shape[0], _i64(3))) as k:
            step(*(T.bind(b + tirx.Cast("int64", uops[k * 3 + n])) for n, b in enumerate(bases)))


def _head(name: str) -> None:
    T.func_name(name)
    T.func_attr({"global_symbol": name, "tirx.noalias": True})


def _memory(config: VtaConfig, memory: Memory) -> _Expr:
    dtype = "int32" if memory == Memory.ACC else "int8"
    size = config.depth(memory) * config.element_bytes(memory) // (4 if dtype == "int32" else 1)
    return T.arg(memory.name.lower(), T.buffer((size,), dtype, align=ALIGNMENT))


def _argument(name: str) -> _Expr:
    return T.arg(name, T.buffer((tirx.Var(f"{name}_size", "int64"),), "int32", align=4))


def _i64(value: int) -> _Expr:
    return tirx.IntImm("int64", value)


def _lanes(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def _range(start: _Expr, lanes: int) -> _Expr:
    return start if lanes == 1 else tirx.Ramp(start, _i64(1), lanes)


def _splat(value: _Expr, lanes: int) -> _Expr:
    value = tirx.IntImm("int32", value) if isinstance(value, int) else value
    return value if lanes == 1 else tirx.Broadcast(value, lanes)
