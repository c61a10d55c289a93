"""The accelerator once more, one Python number at a time, from the specification's words alone.

Shares nothing with the simulator but the configuration and the decoded instructions.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from tvmcomp.vta.config import Memory, VtaConfig
from tvmcomp.vta.container import Program
from tvmcomp.vta.isa import Alu, Finish, Gemm, Load, Store

ORDER = {"compute": 0, "load": 1, "store": 2}


def wrap(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def byte(value: int) -> int:
    value &= 0xFF
    return value - 256 if value >= 128 else value


class Sparse(dict):
    """Index -> element; what was never written holds `default`."""

    def __init__(self, default) -> None:
        super().__init__()
        self.default = default

    def __missing__(self, index):
        return self.default


class SlowModel:
    def __init__(self, config: VtaConfig, dram: bytes, fill: int = 0) -> None:
        self.config = config
        self.fill = fill
        self.dram = bytearray(dram)
        tile, weights = config.batch * config.block, config.block**2
        word = wrap(int.from_bytes(bytes([fill] * 4), "little"))
        self.uop = Sparse(word & 0xFFFFFFFF)
        self.inp = Sparse([byte(fill)] * tile)
        self.wgt = Sparse([byte(fill)] * weights)
        self.acc = Sparse([word] * tile)
        self.counters = dict.fromkeys(
            ("inp_load_nbytes", "wgt_load_nbytes", "acc_load_nbytes", "uop_load_nbytes",
             "out_store_nbytes", "gemm_counter", "alu_counter"), 0)  # fmt: skip
        self.tokens = dict.fromkeys(("l2g", "g2l", "g2s", "s2g"), 0)

    def run(self, program: Program, start: str) -> None:
        for stream in program.launches:
            queues = {"compute": deque(), "load": deque(), "store": deque()}
            for instruction in stream:
                queues[self.queue(instruction)].append(instruction)
            names = sorted(queues, key=lambda n: (ORDER[n] - ORDER[start]) % 3)
            progress = True
            while progress:
                progress = False
                for name in names:
                    while queues[name] and self.step(name, queues[name][0]):
                        queues[name].popleft()
                        progress = True
            assert not any(queues.values())

    @staticmethod
    def queue(instruction) -> str:
        if isinstance(instruction, Store):
            return "store"
        if isinstance(instruction, Load) and instruction.memory_type in (1, 2):
            return "load"
        return "compute"

    def step(self, queue: str, instruction) -> bool:
        waits = {"compute": ("l2g", "s2g"), "load": (None, "g2l"), "store": ("g2s", None)}[queue]
        gives = {"compute": ("g2l", "g2s"), "load": (None, "l2g"), "store": ("s2g", None)}[queue]
        wanted = [
            token
            for token, flag in zip(waits, (instruction.pop_prev, instruction.pop_next), strict=True)
            if flag
        ]
        if any(self.tokens[token] == 0 for token in wanted):
            return False
        for token in wanted:
            self.tokens[token] -= 1
        self.execute(instruction)
        for token, flag in zip(gives, (instruction.push_prev, instruction.push_next), strict=True):
            if flag:
                self.tokens[token] += 1
        return True

    def execute(self, i) -> None:
        if isinstance(i, Finish):
            return
        if isinstance(i, Load):
            self.load(i)
        elif isinstance(i, Store):
            self.store(i)
        elif isinstance(i, Gemm):
            self.gemm(i)
        elif isinstance(i, Alu):
            self.alu(i)

    def load(self, i: Load) -> None:
        if i.x_size == 0:
            return
        c = self.config
        tile = c.batch * c.block
        kind = {0: "uop", 1: "wgt", 2: "inp", 3: "acc", 5: "acc"}[i.memory_type]
        sram_bytes = {"uop": 4, "wgt": c.block**2, "inp": tile, "acc": 4 * tile}[kind]
        self.counters[f"{kind}_load_nbytes"] += i.x_size * i.y_size * sram_bytes
        dram_bytes = tile if i.memory_type == 5 else sram_bytes
        to = i.sram_base
        for row in range(i.y_pad_0 + i.y_size + i.y_pad_1):
            for column in range(i.x_pad_0 + i.x_size + i.x_pad_1):
                y, x = row - i.y_pad_0, column - i.x_pad_0
                data = bytes(dram_bytes)
                if 0 <= y < i.y_size and 0 <= x < i.x_size:
                    at = (i.dram_base + y * i.x_stride + x) * dram_bytes
                    data = bytes(self.dram[at : at + dram_bytes])
                if kind == "uop":
                    self.uop[to] = int.from_bytes(data, "little")
                elif kind == "acc" and i.memory_type == 3:
                    self.acc[to] = [
                        wrap(int.from_bytes(data[n : n + 4], "little"))
                        for n in range(0, 4 * tile, 4)
                    ]
                else:
                    getattr(self, kind)[to] = [byte(value) for value in data]
                to += 1

    def store(self, i: Store) -> None:
        if i.x_size == 0:
            return
        tile = self.config.batch * self.config.block
        self.counters["out_store_nbytes"] += i.x_size * i.y_size * tile
        for y in range(i.y_size):
            for x in range(i.x_size):
                values = self.acc[i.sram_base + y * i.x_size + x]
                at = (i.dram_base + y * i.x_stride + x) * tile
                self.dram[at : at + tile] = bytes(value & 0xFF for value in values)

    def iterations(self, i):
        c = self.config
        la, li = c.log_depth(Memory.ACC), c.log_depth(Memory.INP)
        for o in range(i.iter_out):
            for n in range(i.iter_in):
                for k in range(i.uop_bgn, i.uop_end):
                    word = self.uop[k]
                    dst = word & ((1 << la) - 1)
                    src = (word >> la) & ((1 << max(la, li)) - 1)
                    wgt = (word >> (la + max(la, li))) & ((1 << c.log_depth(Memory.WGT)) - 1)
                    yield (
                        dst + o * i.dst_factor_out + n * i.dst_factor_in,
                        src + o * i.src_factor_out + n * i.src_factor_in,
                        wgt
                        + o * getattr(i, "wgt_factor_out", 0)
                        + n * getattr(i, "wgt_factor_in", 0),
                    )

    def gemm(self, i: Gemm) -> None:
        batch, block = self.config.batch, self.config.block
        for dst, src, wgt in self.iterations(i):
            if i.reset:
                self.acc[dst] = [0] * (batch * block)
                continue
            self.counters["gemm_counter"] += 1
            sums = list(self.acc[dst])
            for b in range(batch):
                for n in range(block):
                    dot = sum(
                        self.inp[src][b * block + k] * self.wgt[wgt][n * block + k]
                        for k in range(block)
                    )
                    sums[b * block + n] = wrap(sums[b * block + n] + dot)
            self.acc[dst] = sums

    def alu(self, i: Alu) -> None:
        for dst, src, _ in self.iterations(i):
            self.counters["alu_counter"] += 1
            right = [i.imm] * len(self.acc[dst]) if i.use_imm else list(self.acc[src])
            self.acc[dst] = [
                self.lane(i.alu_opcode, x, y) for x, y in zip(self.acc[dst], right, strict=True)
            ]

    @staticmethod
    def lane(op: int, x: int, y: int) -> int:
        if op == 0:
            return min(x, y)
        if op == 1:
            return max(x, y)
        if op == 2:
            return wrap(x + y)
        if op == 4:
            return wrap(x * y)
        return x >> y if y >= 0 else wrap(x << -y)

    def sram(self) -> bytes:
        parts = []
        for memory, dtype, kind in (
            (self.uop, np.uint32, Memory.UOP),
            (self.wgt, np.int8, Memory.WGT),
            (self.inp, np.int8, Memory.INP),
            (self.acc, np.int32, Memory.ACC),
        ):
            data = np.full(self.config.buffer_bytes(kind), self.fill, np.uint8).view(dtype)
            data = data.reshape(self.config.depth(kind), -1)
            for index, element in memory.items():
                data[index] = element
            parts.append(data.tobytes())
        return b"".join(parts)
