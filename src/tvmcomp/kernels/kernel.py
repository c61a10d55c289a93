"""`Kernel`: one TIR function that computes one layer, with its packed constants and the plan it was built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from tvm.tirx import PrimFunc

__all__ = ["ALIGNMENT", "SLACK", "Kernel"]

# Every tensor starts at a multiple of ALIGNMENT bytes and at least SLACK readable bytes follow it (and the whole
# arena and constant blob), so a kernel may load, never store, a little past a tensor's end.
ALIGNMENT = 64
SLACK = 256


@dataclass(frozen=True, eq=False)
class Kernel:
    """func(x0, x0_offset, ..., [constants, constants_offset,] y, y_offset): each operand is a byte buffer
    (`T.buffer((n,), "uint8")`, n symbolic) and an int64 byte offset into it, inputs in layer order.

    key:       equal keys mean equal functions: layers of the same shape share one compiled function.
    emitter:   name of the generator ("dot", "depthwise", "pool", ...), for `inspect --kernels`.
    isa:       the instruction set it needs ("avx512-vnni", "avx512-f32", "generic").
    constants: uint8 [n]: packed weights, multipliers, tables; None if the kernel has none.
    plan:      the knobs it was built with, a dataclass or None.
    """

    key: str
    func: PrimFunc
    emitter: str
    isa: str
    constants: np.ndarray | None = None
    plan: object = None
