"""Table: any function of one code, looked up in 256 entries."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.graph.layers import Layer, Table, TensorSpec
from tvmcomp.kernels.halo import write_halo
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.rows import each_vector, halo_code, kernel_key, pack_constants, same_dims
from tvmcomp.kernels.vector import Isa, Operand, build_func, i64, pure

__all__ = ["LookUp", "build_table", "table_bytes"]


def table_bytes(table: np.ndarray, dtype: str) -> np.ndarray:
    """The table in the order of x's bytes (int8 codes count from 0 up, then from -128), as bytes."""
    codes = np.ascontiguousarray(table).astype(table.dtype).view(np.uint8)
    return np.roll(codes, 128) if dtype == "int8" else codes


class LookUp:
    """One table in `constants` at byte `start`; with VBMI it is held in four registers."""

    def __init__(self, isa: Isa, constants: Operand, start: int) -> None:
        self._constants = constants
        self._start = start
        self._vbmi = isa.vbmi and isa.lanes == 16

    @staticmethod
    def width(isa: Isa) -> int:
        """Codes per lookup."""
        return 64 if isa.vbmi and isa.lanes == 16 else 1

    def __call__(self, data: Operand, at: Expr, lanes: int) -> Expr:
        """The entries for `lanes` codes of `data` at `at`, as uint8 lanes."""
        if not self._vbmi:
            code = tirx.Cast("int64", data.load(at, "uint8", 1))
            return self._constants.load(i64(self._start) + code, "uint8", 1)
        # 64 codes whatever `lanes`: there is slack behind every tensor. LLVM keeps the four
        # loop-invariant loads in registers.
        codes = T.bind(data.load(at, "uint8", 64))
        quarter = [
            T.bind(self._constants.load(i64(self._start + 64 * i), "uint8", 64)) for i in range(4)
        ]
        name = "llvm.x86.avx512.vpermi2var.qi.512"
        low = T.bind(pure("uint8", 64, name, quarter[0], codes, quarter[1]))
        high = T.bind(pure("uint8", 64, name, quarter[2], codes, quarter[3]))
        upper = codes > tirx.Broadcast(tirx.IntImm("uint8", 127), 64)
        found = tirx.Select(upper, high, low)
        if lanes == 64:
            return found
        return tirx.Shuffle([T.bind(found)], [tirx.IntImm("int32", i) for i in range(lanes)])


def build_table(
    layer: Layer, tensors: Mapping[str, TensorSpec], layouts: Mapping[str, Layout], isa: Isa
) -> Kernel | None:
    """y = table[x]; constants: the 256 bytes."""
    if not isinstance(layer, Table):
        return None
    source, spec = tensors[layer.inputs[0]], tensors[layer.output]
    x, y = layouts[layer.inputs[0]], layouts[layer.output]
    if not same_dims(x, y):
        return None

    def body(data: Operand, constants: Operand, out: Operand) -> None:
        write_halo(out, y, halo_code(spec))
        look_up = LookUp(isa, constants, 0)

        def vector(to: Expr, at: list[Expr], lanes: int) -> None:
            out.store(to, look_up(data, at[0], lanes), "uint8", lanes)

        each_vector(y, [x], LookUp.width(isa), vector)

    key = kernel_key("table", isa, x, y, halo_code(spec))
    blob = pack_constants(table_bytes(layer.table.astype(spec.dtype), source.dtype))
    func = build_func("table", ("x", "constants", "y"), body)
    return Kernel(key, func, "table", isa.name, constants=blob)
