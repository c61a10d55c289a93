"""Random legal programs: any instructions in a line, and the tokens that keep that line's order where it matters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.container import Program
from tvmcomp.vta.isa import Alu, AluOp, Finish, Gemm, Load, Stage, Store, Uop, encode_uops, stage_of
from tvmcomp.vta.tokens import TOKENS

CONFIGS = [
    VtaConfig(0, 4, 15, 15, 18, 17),
    VtaConfig(0, 4, 11, 13, 15, 15),
    VtaConfig(1, 4, 15, 15, 18, 17),
    VtaConfig(0, 5, 15, 16, 19, 18),
    VtaConfig(2, 3, 15, 15, 14, 17),
]
UOPS = 64
PAGES = {Memory.UOP: 1, Memory.INP: 2, Memory.ACC: 34, Memory.WGT: 66, Memory.OUT: 98}
DRAM_PAGES = 114


def random_program(rng: np.random.Generator, config: VtaConfig, launches: int = 1) -> Program:
    dram = rng.integers(0, 256, DRAM_PAGES * 4096, dtype=np.uint8)
    dram[:4096] = 0
    bound = {m: min(config.depth(m), 40) for m in (Memory.INP, Memory.WGT, Memory.ACC)}
    span = {m: max(1, bound[m] // 3) for m in bound}
    uops = [
        Uop(*(int(rng.integers(0, span[m])) for m in (Memory.ACC, Memory.INP, Memory.WGT)))
        for _ in range(UOPS)
    ]
    page = PAGES[Memory.UOP] * 4096
    dram[page : page + 4 * UOPS] = encode_uops(uops, config).view(np.uint8)
    streams = []
    for _ in range(launches):
        line = [
            Load(memory_type=Memory.UOP, dram_base=page // 4, y_size=1, x_size=UOPS, x_stride=1)
        ]
        line += [_random(rng, config, bound, uops) for _ in range(int(rng.integers(4, 24)))]
        streams.append(tuple(order(line)))
    return Program(dram, tuple(streams))


def order(line: list) -> list:
    """`line` with tokens that keep it: whoever touches a memory waits for the last of its neighbour before it."""
    line = [*line, Load(), Finish()]
    synced: dict[tuple[Stage, Stage], int] = {}
    last: dict[Stage, int] = {}
    for index, instruction in enumerate(line):
        stage = stage_of(instruction)
        for token in (token for token in TOKENS.values() if token.to == stage):
            before = token.source
            if before not in last or not _needs(line, index, before):
                continue
            if last[before] <= synced.get((before, stage), -1):
                continue
            line[last[before]] = replace(line[last[before]], **{token.push: 1})
            line[index] = replace(line[index], **{token.pop: 1})
            synced[before, stage] = last[before]
        last[stage] = index
    return line


def _needs(line: list, index: int, before: Stage) -> bool:
    """The NOP in front of FINISH waits for both other queues; all else for what its memories have in common."""
    if index == len(line) - 2:
        return True
    instruction = line[index]
    if isinstance(instruction, Finish):
        return False
    if isinstance(instruction, Gemm) and not instruction.reset:
        return True
    if isinstance(instruction, Load) and instruction.memory_type == Memory.UOP:
        return False
    return before == Stage.COMPUTE or not (
        isinstance(instruction, Gemm | Alu | Load) and before == Stage.LOAD
    )


def _random(rng: np.random.Generator, config: VtaConfig, bound: dict, uops: list[Uop]):
    pick = rng.integers(0, 8)
    if pick < 3:
        memory = (Memory.INP, Memory.WGT, Memory.ACC, Memory.ACC_8BIT)[int(rng.integers(0, 4))]
        return _load(rng, config, bound, memory)
    if pick < 4:
        return _store(rng, config, bound)
    if pick < 6:
        reset = int(rng.random() < 0.2)
        return Gemm(reset=reset, **_loops(rng, config, bound, uops, Memory.INP, wgt=True))
    op = AluOp(int(rng.integers(0, 5)))
    imm = int(rng.integers(-31, 32)) if op == AluOp.SHR else int(rng.integers(-(1 << 15), 1 << 15))
    use_imm = 1 if op == AluOp.SHR else int(rng.integers(0, 2))
    loops = _loops(rng, config, bound, uops, Memory.ACC, wgt=False)
    return Alu(alu_opcode=op, use_imm=use_imm, imm=imm, **loops)


def _load(rng, config, bound, memory):
    on_chip = Memory.ACC if memory == Memory.ACC_8BIT else memory
    pads = [int(n) for n in rng.integers(0, 3, 4)] if rng.random() < 0.4 else [0] * 4
    room = bound[on_chip]
    y, x = int(rng.integers(0, 4)), int(rng.integers(1, 6))
    while (y + pads[0] + pads[1]) * (x + pads[2] + pads[3]) > room:
        pads, y = [0] * 4, 1
        x = min(x, room)
    total = (y + pads[0] + pads[1]) * (x + pads[2] + pads[3])
    base = PAGES[on_chip] * 4096 // config.element_bytes(memory)
    return Load(
        memory_type=memory, sram_base=int(rng.integers(0, room - total + 1)),
        dram_base=base + int(rng.integers(0, 8)), y_size=y, x_size=x, x_stride=int(rng.integers(0, 8)),
        y_pad_0=pads[0], y_pad_1=pads[1], x_pad_0=pads[2], x_pad_1=pads[3],
    )  # fmt: skip


def _store(rng, config, bound):
    y, x = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    base = PAGES[Memory.OUT] * 4096 // config.element_bytes(Memory.OUT)
    return Store(
        memory_type=Memory.OUT, sram_base=int(rng.integers(0, bound[Memory.ACC] - x * y + 1)),
        dram_base=base + int(rng.integers(0, 64)), y_size=y, x_size=x, x_stride=int(rng.integers(x, 9)),
    )  # fmt: skip


def _loops(rng, config, bound, uops, source, *, wgt):
    begin = int(rng.integers(0, UOPS - 4))
    end = begin + int(rng.integers(1, 5))
    shape = {"iter_out": int(rng.integers(1, 4)), "iter_in": int(rng.integers(1, 5))}
    values = {"uop_bgn": begin, "uop_end": end, **shape}
    names = {"dst": Memory.ACC, "src": source} | ({"wgt": Memory.WGT} if wgt else {})
    for name, memory in names.items():
        highest = max(getattr(uop, name) for uop in uops[begin:end])
        for loop, count in (("out", shape["iter_out"]), ("in", shape["iter_in"])):
            factor = int(rng.integers(0, 4))
            if count > 1 and highest + factor * (count - 1) >= bound[memory]:
                factor = 0
            highest += factor * (count - 1)
            values[f"{name}_factor_{loop}"] = factor
    return values
