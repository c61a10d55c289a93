"""The emitter of products of two activations: `Spec` to PrimFunc.

parallel matrices of the batch, shares of the rows
    blocks of columns: pack b
        blocks of rows:  acc[row][vector] += a[row, step] * b[step, vector];  y = epilogue(acc)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.kernels.epilogue import Outputs, store_codes, store_floats
from tvmcomp.kernels.halo import write_halo
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.matmul_form import Form, Side
from tvmcomp.kernels.matmul_pack import Packer
from tvmcomp.kernels.matmul_walk import Columns, Walk, column_blocks
from tvmcomp.kernels.spec import Epilogue
from tvmcomp.kernels.vector import (
    Isa,
    Operand,
    build_func,
    byte_size,
    cast,
    each,
    i64,
    pure,
    splat,
)

if TYPE_CHECKING:
    from tvmcomp.kernels.matmul import MatMulPlan

__all__ = ["FIELDS", "Spec", "emit"]

# Places in the constants, in dwords; `both` is what undoing both zero points adds to every sum.
FIELDS = {"multiplier": 0, "zero_y": 1, "zero_a": 2, "zero_b": 3, "both": 4}
# With less to do, waking the thread pool costs more than it saves.
_PARALLEL_PRODUCTS = 1 << 20


@dataclass(frozen=True)
class Spec:
    """One kernel. Equal specs are equal functions, so scales and zero points are not in it.

    dtypes:   of a and b.
    corrects: whether sums are corrected for a's zero point (by column) and for b's (by row).
    y:        its layout, for its halo, and the code written there.
    """

    walk: Walk
    plan: MatMulPlan
    form: Form
    dtypes: tuple[str, str]
    epilogue: Epilogue
    lanes: int
    corrects: tuple[bool, bool]
    y: Layout
    halo: int


@lru_cache(maxsize=256)
def emit(spec: Spec, isa: Isa) -> tirx.PrimFunc:
    """The kernel: (a, b, constants, y), each a byte buffer and an offset."""

    def body(a: Operand, b: Operand, constants: Operand, y: Operand) -> None:
        write_halo(y, spec.y, spec.halo)
        _Emitter(spec, isa, a, b, constants, y).loops()

    return build_func("matmul", ("a", "b", "constants", "y"), body)


@dataclass(frozen=True)
class _Share:
    """One thread's part: where its rows of a and y and its matrix of b start, and memory of its own."""

    a: Expr
    b: Expr
    y: Expr
    packed_a: Operand | None
    packed_b: Operand
    column_sums: Operand | None
    row_sums: Operand | None


@dataclass(frozen=True, eq=False)
class _Emitter:
    spec: Spec
    isa: Isa
    a: Operand
    b: Operand
    constants: Operand
    y: Operand

    def loops(self) -> None:
        """Every share of every matrix; the last share of a matrix is moved back to fit."""
        walk, share = self.spec.walk, self.spec.plan.share
        shares = -(-walk.m // share)

        def item(index: Expr) -> None:
            matrix, part = index, i64(0)
            if shares > 1:
                matrix = T.bind(tirx.FloorDiv(index, i64(shares)))
                part = T.bind(tirx.FloorMod(index, i64(shares)))
            row = T.bind(tirx.Min(part * i64(share), i64(walk.m - share)))
            a, b, y = self._matrix(matrix)
            a = T.bind(a + row * i64(walk.a_row) + i64(walk.a_start))
            y = T.bind(y + row * i64(walk.y_row) + i64(walk.y_start))
            self._share(a, T.bind(b + i64(walk.b_start)), y)

        each(walk.matrices * shares, item, parallel=walk.products >= _PARALLEL_PRODUCTS)

    def _matrix(self, index: Expr) -> list[Expr]:
        """Byte offsets in a, b and y of one matrix of the batch."""
        offsets: list[Expr] = [i64(0)] * 3
        for axis in reversed(self.spec.walk.batch):
            place = index
            if axis is not self.spec.walk.batch[0]:
                place = T.bind(tirx.FloorMod(index, i64(axis.count)))
                index = T.bind(tirx.FloorDiv(index, i64(axis.count)))
            steps = (axis.a, axis.b, axis.y)
            offsets = [at + place * i64(step) for at, step in zip(offsets, steps, strict=True)]
        return offsets

    def _share(self, a: Expr, b: Expr, y: Expr) -> None:
        spec, walk, plan = self.spec, self.spec.walk, self.spec.plan
        packer = Packer(spec.form, walk, spec.lanes)
        left, right = self._sides()
        by_column, by_row = spec.corrects
        in_place = spec.form.in_place(spec.dtypes[0])
        share = _Share(
            a=a,
            b=b,
            y=y,
            packed_a=None if in_place else _scratch(plan.share * packer.a_row),
            packed_b=_scratch(plan.vectors * packer.b_vector),
            column_sums=_scratch(plan.vectors * spec.lanes * 4) if by_column else None,
            row_sums=_scratch(plan.share * 4) if by_row else None,
        )
        if share.packed_a is not None:
            packer.pack_a(self.a, left, a, plan.share, share.packed_a)
        if share.row_sums is not None:
            self._sum_rows(packer, share, share.row_sums)
        total = -(-walk.n // spec.lanes)
        size = byte_size(spec.epilogue.dtype)
        for part in column_blocks(total, plan.vectors, whole=total * spec.lanes <= walk.room):

            def block(index: Expr, part: Columns = part) -> None:
                vector = T.bind(index * i64(part.vectors) + i64(part.start))
                columns = min(part.vectors * spec.lanes, walk.n - part.start * spec.lanes)
                if part.count == 1:
                    counts = self._counts(part)
                else:
                    # Only a block that runs once may be short of columns; others read garbage of the next row.
                    columns, counts = part.vectors * spec.lanes, (spec.lanes,) * part.vectors
                at = T.bind(b + vector * i64(spec.lanes * walk.b_n))
                packer.pack_b(self.b, right, at, columns, share.packed_b)
                if share.column_sums is not None:
                    self._sum_columns(packer, share, part.vectors, share.column_sums)
                first = T.bind(y + vector * i64(spec.lanes * size))
                self._rows(packer, share, first, counts)

            each(part.count, block)

    def _counts(self, part: Columns) -> tuple[int, ...]:
        """Elements to store of each vector of a block: all lanes if there is room for them."""
        lanes, walk = self.spec.lanes, self.spec.walk
        firsts = [(part.start + h) * lanes for h in range(part.vectors)]
        return tuple(lanes if first + lanes <= walk.room else walk.n - first for first in firsts)

    def _sides(self) -> tuple[Side, Side]:
        a, b = self.spec.dtypes
        if a == "float32":
            return Side(a, None), Side(b, None)
        return Side(a, T.bind(self._field("zero_a"))), Side(b, T.bind(self._field("zero_b")))

    def _field(self, name: str, dtype: str = "int32") -> Expr:
        return self.constants.load(i64(4 * FIELDS[name]), dtype, 1)

    def _sum_rows(self, packer: Packer, share: _Share, to: Operand) -> None:
        """-zero_b * (the sum of a row of a) for each row."""
        k, form, lanes = self.spec.walk.k, self.spec.form, self.spec.lanes
        per_vector = lanes * form.unit
        source, start, step = self._left(packer, share)
        zero = T.bind(tirx.IntImm("int32", 0) - self._field("zero_b"))

        def row(m: Expr) -> None:
            total: Expr = splat(0, lanes, "int32")
            at = T.bind(start + m * i64(step))
            for first in range(0, k, per_vector):
                ones = [tirx.IntImm("int8", int(first + i < k)) for i in range(per_vector)]
                order = [tirx.IntImm("int32", i) for i in range(per_vector)]
                parts = source.load(at + i64(first), "uint8", per_vector)
                total = T.bind(form.step(total, parts, tirx.Shuffle(ones, order), lanes))
            reduced = pure("int32", 1, f"llvm.vector.reduce.add.v{lanes}i32", total)
            to.store(m * i64(4), zero * reduced, "int32", 1)

        each(self.spec.plan.share, row)

    def _sum_columns(self, packer: Packer, share: _Share, vectors: int, to: Operand) -> None:
        """k * zero_a * zero_b - zero_a * (the sum of a column of b) for each column."""
        form, lanes = self.spec.form, self.spec.lanes
        ones = splat(1, form.unit * lanes, "uint8")
        zero, both = T.bind(self._field("zero_a")), T.bind(self._field("both"))
        whole = [tirx.Ramp(i64(0), i64(1), lanes)]

        def vector(h: Expr) -> None:
            acc = T.alloc_buffer((lanes,), "int32", scope="global")
            T.buffer_store(acc, splat(0, lanes, "int32"), whole)
            base = T.bind(h * i64(packer.b_vector))

            def step(s: Expr) -> None:
                b = share.packed_b.load(base + s * i64(lanes * 4), "int32", lanes)
                T.buffer_store(acc, form.step(tirx.BufferLoad(acc, whole), ones, b, lanes), whole)

            each(packer.steps, step)
            sums = splat(both, lanes, "int32") - splat(zero, lanes, "int32") * tirx.BufferLoad(
                acc, whole
            )
            to.store(h * i64(lanes * 4), sums, "int32", lanes)

        each(vectors, vector)

    def _left(self, packer: Packer, share: _Share) -> tuple[Operand, Expr, int]:
        """Where rows of a are read from: operand, start and step."""
        if share.packed_a is None:
            return self.a, share.a, self.spec.walk.a_row
        return share.packed_a, i64(0), packer.a_row

    def _rows(self, packer: Packer, share: _Share, y: Expr, counts: tuple[int, ...]) -> None:
        """Every block of rows; the last one is moved back to fit."""
        rows, total = self.spec.plan.rows, self.spec.plan.share

        def block(index: Expr) -> None:
            row = T.bind(tirx.Min(index * i64(rows), i64(total - rows)))
            self._block(packer, share, row, T.bind(y + row * i64(self.spec.walk.y_row)), counts)

        each(-(-total // rows), block)

    def _block(
        self, packer: Packer, share: _Share, row: Expr, y: Expr, counts: tuple[int, ...]
    ) -> None:
        """One block of accumulators from start to store."""
        spec, lanes, vectors = self.spec, self.spec.lanes, len(counts)
        rows = spec.plan.rows
        whole = [tirx.Ramp(i64(0), i64(1), lanes)]
        acc = [
            [T.alloc_buffer((lanes,), spec.form.acc, scope="global") for _ in range(vectors)]
            for _ in range(rows)
        ]
        self._start(share, row, acc)
        source, start, step = self._left(packer, share)
        a = T.bind(start + row * i64(step))

        def steps(first: Expr, count: int) -> None:
            for u in range(count):
                at = T.bind((first + i64(u)) * i64(4 * lanes))
                b = [
                    T.bind(share.packed_b.load(at + i64(h * packer.b_vector), self._dword, lanes))
                    for h in range(vectors)
                ]
                k = T.bind((first + i64(u)) * i64(4))
                for p in range(rows):
                    dword = source.load(a + k + i64(p * step), self._dword, 1)
                    value = T.bind(splat(dword, lanes))
                    for h in range(vectors):
                        old = tirx.BufferLoad(acc[p][h], whole)
                        T.buffer_store(acc[p][h], spec.form.step(old, value, b[h], lanes), whole)

        unroll = min(4 if rows * vectors < 16 else 2, packer.steps)
        bodies, rest = divmod(packer.steps, unroll)
        each(bodies, lambda q: steps(T.bind(q * i64(unroll)), unroll))
        if rest:
            steps(i64(bodies * unroll), rest)
        outputs = Outputs(
            lanes=lanes,
            y=y,
            y_pixels=tuple(p * spec.walk.y_row for p in range(rows)),
            counts=counts,
        )
        self._finish(outputs, lambda p, h: tirx.BufferLoad(acc[p][h], whole))

    @property
    def _dword(self) -> str:
        return "float32" if self.spec.form.acc == "float32" else "int32"

    def _start(self, share: _Share, row: Expr, acc: list[list[tirx.Buffer]]) -> None:
        """What accumulators start at: what undoes the zero points, or zero."""
        lanes, dtype = self.spec.lanes, self.spec.form.acc
        whole = [tirx.Ramp(i64(0), i64(1), lanes)]
        starts = [
            splat(0, lanes, dtype)
            if share.column_sums is None
            else T.bind(share.column_sums.load(i64(h * lanes * 4), dtype, lanes))
            for h in range(len(acc[0]))
        ]
        for p, buffers in enumerate(acc):
            by_row = None
            if share.row_sums is not None:
                at = row * i64(4) + i64(4 * p)
                by_row = T.bind(splat(share.row_sums.load(at, dtype, 1), lanes))
            for buffer, start in zip(buffers, starts, strict=True):
                T.buffer_store(buffer, start if by_row is None else start + by_row, whole)

    def _finish(self, outputs: Outputs, acc: Callable[[int, int], Expr]) -> None:
        lanes = self.spec.lanes
        multiplier = T.bind(splat(self._field("multiplier", "float32"), lanes))
        if self.spec.form.acc == "float32":
            store_floats(self.spec.epilogue, self.y, outputs, lambda p, h: acc(p, h) * multiplier)
            return

        def value(p: int, h: int) -> Expr:
            return T.bind(cast("float32", acc(p, h), lanes) * multiplier)

        zero = T.bind(self._field("zero_y"))
        store_codes(self.spec.epilogue, self.isa, self.y, outputs, value, zero)


def _scratch(size: int) -> Operand:
    """Memory of the thread's own, with room to read a little past it."""
    return Operand(T.alloc_buffer((size + 64,), "uint8", scope="global"), i64(0))
