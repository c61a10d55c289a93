"""IntMatMul and FloatMatMul: layer and layouts in, `Kernel` out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tvmcomp.graph.layers import FloatMatMul, IntMatMul, Layer, MatMul, TensorSpec
from tvmcomp.kernels.kernel import Kernel
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.matmul_emit import FIELDS, Spec, emit
from tvmcomp.kernels.matmul_form import form_for
from tvmcomp.kernels.matmul_walk import Walk, walk_of
from tvmcomp.kernels.rows import halo_code, kernel_key, pack_constants, qparams_of
from tvmcomp.kernels.spec import Epilogue
from tvmcomp.kernels.vector import Isa

__all__ = ["MatMulPlan", "build_matmul"]

_FLIP = 128


@dataclass(frozen=True)
class MatMulPlan:
    """The knobs of one kernel: rows and vectors of columns of one block, rows of one share of the work."""

    rows: int
    vectors: int
    share: int


# Rows of a block by its vectors of columns: b's vectors, one broadcast and the accumulators share the registers.
_ROWS_32_REGISTERS = {1: 14, 2: 12, 3: 8, 4: 6}
_ROWS_16_REGISTERS = {1: 8, 2: 5, 3: 3}
# Shares of the work for the threads, none smaller than this many rows: each packs b for itself.
_SHARES, _SHARE_ROWS = 8, 48


def build_matmul(
    layer: Layer,
    tensors: Mapping[str, TensorSpec],
    layouts: Mapping[str, Layout],
    isa: Isa,
    plan: MatMulPlan | None = None,
) -> Kernel | None:
    """The layer's kernel, by `plan` or by the rules; None for operands no axis of which is contiguous."""
    if not isinstance(layer, MatMul):
        return None
    walk = walk_of(layer, tensors, layouts)
    if walk is None:
        return None
    a, b, y = (tensors[name] for name in (*layer.inputs, layer.output))
    form = form_for(a.dtype, isa)
    constants, corrects = _constants(layer, (a, b, y), walk, corrects=form.corrects)
    spec = Spec(
        walk=walk,
        plan=plan or choose_plan(walk, isa),
        form=form,
        dtypes=(a.dtype, b.dtype),
        epilogue=_epilogue(layer, y, walk),
        lanes=isa.lanes,
        corrects=corrects,
        y=layouts[y.name],
        # Without a halo the code changes nothing, and layers of the same shape share a function.
        halo=halo_code(y) if layouts[y.name].halo else 0,
    )
    return Kernel(
        key=kernel_key("matmul", spec, isa),
        func=emit(spec, isa),
        emitter="matmul",
        isa=isa.name,
        constants=constants,
        plan=spec.plan,
    )


def choose_plan(walk: Walk, isa: Isa) -> MatMulPlan:
    """The rules."""
    rows = _ROWS_16_REGISTERS if isa.lanes == 8 or not isa.fma else _ROWS_32_REGISTERS
    total = -(-walk.n // isa.lanes)
    most = max(rows)
    # As few blocks as possible, evenly filled.
    vectors = -(-total // -(-total // most))
    shares = -(-_SHARES // walk.matrices)
    share = walk.m if shares == 1 else min(walk.m, max(_SHARE_ROWS, -(-walk.m // shares)))
    blocks = -(-share // rows[vectors])
    return MatMulPlan(-(-share // blocks), vectors, share)


def _constants(
    layer: MatMul, specs: tuple[TensorSpec, TensorSpec, TensorSpec], walk: Walk, *, corrects: bool
) -> tuple[np.ndarray, tuple[bool, bool]]:
    """The numbers of `FIELDS`, and whether sums are corrected for a's and for b's zero point."""
    values = dict.fromkeys(FIELDS, np.array(0, np.int32))
    if isinstance(layer, FloatMatMul):
        values["multiplier"] = np.array(layer.scale, np.float32)
        needed = (False, False)
    else:
        assert isinstance(layer, IntMatMul)
        za, zb, zy = (qparams_of(spec).zero_point for spec in specs)
        if corrects:
            # The kernel reads an s8 of a as a + 128, a u8 of b as b - 128.
            za += _FLIP if specs[0].dtype == "int8" else 0
            zb -= _FLIP if specs[1].dtype == "uint8" else 0
        values["multiplier"] = np.array(layer.multiplier, np.float32)
        for name, point in zip(("zero_y", "zero_a", "zero_b"), (zy, za, zb), strict=True):
            values[name] = np.array(point, np.int32)
        values["both"] = np.array(walk.k * za * zb).astype(np.int32)
        needed = (corrects and za != 0, corrects and zb != 0)
    blob = np.zeros(len(FIELDS), np.int32)
    for name, place in FIELDS.items():
        blob[place : place + 1].view(values[name].dtype)[0] = values[name]
    return pack_constants(blob), needed


def _epilogue(layer: MatMul, y: TensorSpec, walk: Walk) -> Epilogue:
    assert isinstance(layer, IntMatMul | FloatMatMul)
    info = np.finfo("float32") if y.dtype == "float32" else np.iinfo(y.dtype)
    wide = False
    if isinstance(layer, IntMatMul):
        # Half of int32's range, for rounding may lift a value above its bound; a NaN is wide, too.
        wide = not abs(layer.multiplier) * 255**2 * walk.k + 255 < 2**30
    return Epilogue(
        dtype=y.dtype,
        low=float(layer.low) if layer.low > info.min else None,
        high=float(layer.high) if layer.high < info.max else None,
        wide=wide,
    )
