"""The published workloads as hand-written programs, each with what numpy says its result is."""

from __future__ import annotations

import numpy as np

from tvmcomp.vta.builder import Builder, Loop
from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.container import Program
from tvmcomp.vta.isa import AluOp, Stage, Uop

LOAD, COMPUTE, STORE = Stage.LOAD, Stage.COMPUTE, Stage.STORE
CONFIG = VtaConfig()
K = CONFIG.block


def tiles(matrix: np.ndarray) -> np.ndarray:
    """[out, in] -> [out/K, in/K, K, K], the order of WGT elements."""
    rows, columns = (n // K for n in matrix.shape)
    return matrix.reshape(rows, K, columns, K).transpose(0, 2, 1, 3)


def token(b: Builder, source: Stage, to: Stage) -> None:
    b.push(source, to)
    b.pop(source, to)


def matrix_multiply(n: int = 256, seed: int = 0) -> tuple[Program, int, np.ndarray]:
    """1 x n times n x n, everything on chip at once; program, address of the result, the result."""
    rng = np.random.default_rng(seed)
    x, w = rng.integers(-128, 128, n, dtype=np.int8), rng.integers(-128, 128, (n, n), dtype=np.int8)
    b, m = Builder(CONFIG), n // K
    xa, wa, ya = b.data(x), b.data(tiles(w)), b.space(n)
    reset, dot = b.uops([Uop()]), b.uops([Uop()])
    b.gemm(reset, Loop(m, dst=1), reset=True)
    b.load(Memory.INP, xa, cols=m)
    b.load(Memory.WGT, wa, cols=m * m)
    token(b, LOAD, COMPUTE)
    b.gemm(dot, Loop(m, src=1, wgt=1), Loop(m, dst=1, wgt=m))
    token(b, COMPUTE, STORE)
    b.store(ya, cols=m)
    return b.build(), ya, (w.astype(np.int32) @ x).astype(np.int8)


def matrix_matrix(n: int = 256) -> tuple[Program, int, np.ndarray]:
    """n x n times n x n, low bytes; the rows of the left matrix are INP elements."""
    rng = np.random.default_rng(3)
    x, w = (rng.integers(-128, 128, (n, n), dtype=np.int8) for _ in range(2))
    b, m = Builder(CONFIG), n // K
    half = min(CONFIG.depth(Memory.ACC) // m, n)  # rows at a time
    xa, wa, ya = b.data(x), b.data(tiles(w)), b.space(n * n)
    reset = b.uops([Uop(out) for out in range(m)])
    dot = b.uops([Uop(out, k, out * m + k) for k in range(m) for out in range(m)])
    b.load(Memory.WGT, wa, cols=m * m)
    for first in range(0, n, half):
        if first:
            b.pop(COMPUTE, LOAD)
            b.pop(STORE, COMPUTE)
        b.gemm(reset, Loop(half, dst=m), reset=True)
        b.load(Memory.INP, xa + first * n, cols=half * m)
        token(b, LOAD, COMPUTE)
        b.gemm(dot, Loop(half, dst=m, src=m))
        b.push(COMPUTE, LOAD)
        token(b, COMPUTE, STORE)
        b.store(ya + first * n, cols=half * m)
        b.push(STORE, COMPUTE)
    b.pop(COMPUTE, LOAD)
    b.pop(STORE, COMPUTE)
    y = (x.astype(np.int32) @ w.T.astype(np.int32)).astype(np.int8)
    return b.build(), ya, y.reshape(-1)


def matrix_multiply_opt(
    n: int = 1024, tile: int = 256, *, contexts: int = 1, rounds: int = 1
) -> tuple[Program, int, np.ndarray]:
    """1 x n times n x n in tiles, then >> 8 and clip; with two contexts loads run under the GEMMs.

    `rounds` repeats each GEMM, so that computing takes longer than loading.
    """
    rng = np.random.default_rng(1)
    x, w = rng.integers(-128, 128, n, dtype=np.int8), rng.integers(-128, 128, (n, n), dtype=np.int8)
    b, m, t = Builder(CONFIG), n // K, tile // K
    xa, wa, ya = b.data(x), b.data(tiles(w)), b.space(n)
    reset, shift, low, high = (b.uops([Uop()]) for _ in range(4))
    dots = [b.uops([Uop(0, side * t, side * t * t)]) for side in range(contexts)]
    steps = n // tile
    for step in range(steps * steps):
        out, inner, side = *divmod(step, steps), step % contexts
        if inner == 0:
            if out:
                b.pop(STORE, COMPUTE)
            b.gemm(reset, Loop(t, dst=1), reset=True)
        if step >= contexts:
            b.pop(COMPUTE, LOAD)
        b.load(Memory.INP, xa + inner * tile, sram=side * t, cols=t)
        first = wa + (out * t * m + inner * t) * K * K
        b.load(Memory.WGT, first, sram=side * t * t, rows=t, cols=t, stride=m)
        token(b, LOAD, COMPUTE)
        for _ in range(rounds):
            b.gemm(dots[side], Loop(t, src=1, wgt=1), Loop(t, dst=1, wgt=t))
        b.push(COMPUTE, LOAD)
        if inner == steps - 1:
            b.alu(AluOp.SHR, shift, Loop(t, dst=1), imm=8)
            b.alu(AluOp.MAX, low, Loop(t, dst=1), imm=-127)
            b.alu(AluOp.MIN, high, Loop(t, dst=1), imm=127)
            token(b, COMPUTE, STORE)
            b.store(ya + out * tile, cols=t)
            b.push(STORE, COMPUTE)
    for _ in range(contexts):
        b.pop(COMPUTE, LOAD)
    b.pop(STORE, COMPUTE)
    product = w.astype(np.int32) @ x.astype(np.int32) * rounds
    return b.build(), ya, np.clip(product >> 8, -127, 127).astype(np.int8)


def convolution_opt(size: int = 14, channels: int = 256) -> tuple[Program, int, np.ndarray]:
    """3x3, stride 1, pad 1 on [channels, size, size]; halves of the rows, two contexts of the output channels."""
    rng = np.random.default_rng(2)
    x = rng.integers(-128, 128, (channels, size, size), dtype=np.int8)
    w = rng.integers(-128, 128, (channels, channels, 3, 3), dtype=np.int8)
    b, blocks = Builder(CONFIG), channels // K
    xa = b.data(x.reshape(blocks, K, size, size).transpose(0, 2, 3, 1))
    wa = b.data(w.reshape(blocks, K, blocks, K, 3, 3).transpose(0, 2, 4, 5, 1, 3))
    ya = b.space(x.size)
    high, out = size // 2, blocks // 2  # rows and output blocks of one context
    area, pitch = high * size, size + 2
    patch = (high + 2) * pitch
    resets, dots, shifts, lows, highs = [], [], [], [], []
    for side in range(2):
        acc, inp, wgt = side * out * area, side * patch, side * out * 9
        resets.append(b.uops([Uop(acc + x0) for x0 in range(size)]))
        dots.append(
            b.uops([
                Uop(acc + x0, inp + dy * pitch + dx + x0, wgt + dy * 3 + dx)
                for dy in range(3) for dx in range(3) for x0 in range(size)
            ])
        )  # fmt: skip
        for kind in (shifts, lows, highs):
            kind.append(b.uops([Uop(acc)]))
    for half in range(2):
        for side in range(2):
            if half:
                b.pop(STORE, COMPUTE)
            b.gemm(resets[side], Loop(out, dst=area), Loop(high, dst=size), reset=True)
        for inner in range(blocks):
            for side in range(2):
                if half or inner:
                    b.pop(COMPUTE, LOAD)
                row = max(half * high - 1, 0)
                b.load(
                    Memory.INP, xa + (inner * size + row) * size * K, sram=side * patch, rows=high + 1,
                    cols=size, pad=(1 - half, half, 1, 1),
                )  # fmt: skip
                first = wa + (side * out * blocks + inner) * 9 * K * K
                b.load(Memory.WGT, first, sram=side * out * 9, rows=out, cols=9, stride=blocks * 9)
                token(b, LOAD, COMPUTE)
                b.gemm(
                    dots[side], Loop(out, dst=area, wgt=9), Loop(high, dst=size, src=pitch)
                )  # fmt: skip
                b.push(COMPUTE, LOAD)
        for side in range(2):
            for op, kind, imm in (
                (AluOp.SHR, shifts, 8), (AluOp.MAX, lows, -127), (AluOp.MIN, highs, 127),
            ):  # fmt: skip
                b.alu(op, kind[side], Loop(out * area, dst=1), imm=imm)
            token(b, COMPUTE, STORE)
            first = ya + (side * out * size * size + half * area) * K
            b.store(first, sram=side * out * area, rows=out, cols=area, stride=size * size)
            b.push(STORE, COMPUTE)
    for _ in range(2):
        b.pop(COMPUTE, LOAD)
        b.pop(STORE, COMPUTE)
    padded = np.pad(x.astype(np.int32), ((0, 0), (1, 1), (1, 1)))
    total = sum(
        np.tensordot(w[:, :, dy, dx].astype(np.int32), padded[:, dy : dy + size, dx : dx + size], 1)
        for dy in range(3) for dx in range(3)
    )  # fmt: skip
    y = np.clip(total >> 8, -127, 127).astype(np.int8)
    return b.build(), ya, y.reshape(blocks, K, size, size).transpose(0, 2, 3, 1).reshape(-1)


# Section 6 of the specification: inp, wgt, acc, uop, out bytes, gemm and alu iterations.
PUBLISHED = {
    matrix_multiply: (256, 65536, 0, 8, 256, 256, 0),
    matrix_multiply_opt: (4096, 1048576, 0, 20, 1024, 4096, 192),
    convolution_opt: (114688, 1179648, 0, 1144, 50176, 451584, 9408),
}
