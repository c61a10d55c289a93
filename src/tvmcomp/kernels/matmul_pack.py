"""Packing of a product's operands at run time, into memory of the kernel's own.

b -> [vector of columns][step][lane] dwords      a -> [row][step] dwords, only where it cannot be read in place
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.kernels.matmul_form import Form, Side
from tvmcomp.kernels.matmul_walk import Walk
from tvmcomp.kernels.vector import Operand, byte_size, each, i64, splat

__all__ = ["Packer"]


@dataclass(frozen=True, eq=False)
class Packer:
    """`lanes` dwords at a time; `steps` per column or row."""

    form: Form
    walk: Walk
    lanes: int

    @property
    def steps(self) -> int:
        return -(-self.walk.k // self.form.unit)

    @property
    def b_vector(self) -> int:
        """Bytes of one packed vector of columns."""
        return self.steps * self.lanes * 4

    @property
    def a_row(self) -> int:
        """Bytes of one packed row: whole vectors."""
        return -(-self.steps // self.lanes) * self.lanes * 4

    def pack_a(self, data: Operand, side: Side, start: Expr, rows: int, to: Operand) -> None:
        """Rows of a from byte `start`; what a last vector reads past K meets zeros of b."""
        per_vector = self.lanes * self.form.unit
        size = byte_size(side.dtype)

        def row(m: Expr) -> None:
            source, target = T.bind(start + m * i64(self.walk.a_row)), T.bind(m * i64(self.a_row))
            for chunk in range(-(-self.walk.k // per_vector)):
                at = source + i64(chunk * per_vector * size)
                parts = self.form.parts(data, at, side, per_vector, left=True)
                dwords = tirx.reinterpret(f"int32x{self.lanes}", parts)
                to.store(target + i64(chunk * self.lanes * 4), dwords, "int32", self.lanes)

        each(rows, row)

    def pack_b(self, data: Operand, side: Side, start: Expr, columns: int, to: Operand) -> None:
        """`columns` columns of b from byte `start`; lanes past the last one hold anything."""
        along_k = self.walk.b_k == byte_size(side.dtype)
        pack = self._transpose if along_k else self._interleave

        def vector(index: Expr) -> None:
            first = T.bind(index * i64(self.lanes))
            pack(data, side, start, (first, columns), to, T.bind(index * i64(self.b_vector)))

        each(-(-columns // self.lanes), vector)

    def _transpose(
        self,
        data: Operand,
        side: Side,
        start: Expr,
        place: tuple[Expr, int],
        to: Operand,
        target: Expr,
    ) -> None:
        """k is contiguous: vectors along k of a vector of columns, a square of dwords transposed."""
        per_vector = self.lanes * self.form.unit
        first, columns = place
        bases = []
        for lane in range(self.lanes):
            column = first + i64(lane)
            if columns % self.lanes:
                column = tirx.Min(column, i64(columns - 1))
            bases.append(T.bind(start + column * i64(self.walk.b_n)))
        full, rest = divmod(self.walk.k, per_vector)

        def square(chunk: Expr, valid: int = per_vector) -> None:
            along = T.bind(chunk * i64(per_vector * self.walk.b_k))
            rows = []
            for base in bases:
                parts = self.form.parts(data, base + along, side, per_vector, left=False)
                rows.append(T.bind(self._masked(parts, valid)))
            rows = _transposed(rows, self.lanes)
            square_at = T.bind(target + chunk * i64(self.lanes * self.lanes * 4))
            for step in range(-(-valid // self.form.unit)):
                to.store(square_at + i64(step * self.lanes * 4), rows[step], "int32", self.lanes)

        each(full, square)
        if rest:
            square(i64(full), rest)

    def _masked(self, parts: Expr, valid: int) -> Expr:
        """As dwords, the parts from `valid` on zero; whole dwords past it are not stored."""
        dwords = tirx.reinterpret(f"int32x{self.lanes}", parts)
        left = valid % self.form.unit
        if left == 0:
            return dwords
        bits = (1 << (left * 32 // self.form.unit)) - 1
        masks = [
            tirx.IntImm("int32", bits if i == valid // self.form.unit else -1)
            for i in range(self.lanes)
        ]
        return dwords & tirx.Shuffle(masks, [tirx.IntImm("int32", i) for i in range(self.lanes)])

    def _interleave(
        self,
        data: Operand,
        side: Side,
        start: Expr,
        place: tuple[Expr, int],
        to: Operand,
        target: Expr,
    ) -> None:
        """n is contiguous: the rows of one step, element by element in turn."""
        form, lanes = self.form, self.lanes
        start = T.bind(start + place[0] * i64(self.walk.b_n))
        full, rest = divmod(self.walk.k, form.unit)

        def step(index: Expr, valid: int = form.unit) -> None:
            at = T.bind(start + index * i64(form.unit * self.walk.b_k))
            rows = [
                T.bind(form.parts(data, at + i64(j * self.walk.b_k), side, lanes, left=False))
                for j in range(valid)
            ]
            rows += [splat(0, lanes, form.part)] * (form.unit - valid)
            dwords = rows[0]
            if form.unit > 1:
                order = [j * lanes + lane for lane in range(lanes) for j in range(form.unit)]
                dwords = tirx.Shuffle(rows, [tirx.IntImm("int32", i) for i in order])
            dwords = tirx.reinterpret(f"int32x{lanes}", dwords)
            to.store(target + index * i64(lanes * 4), dwords, "int32", lanes)

        each(full, step)
        if rest:
            step(i64(full), rest)


def _transposed(rows: list[Expr], lanes: int) -> list[Expr]:
    """The transpose of a square of dwords: in round s, blocks of s by s change places."""
    size = 1
    while size < lanes:
        upper = [i if not i & size else lanes + i - size for i in range(lanes)]
        lower = [i + size if not i & size else lanes + i for i in range(lanes)]
        turned = list(rows)
        for i in range(lanes):
            if not i & size:
                pair = [rows[i], rows[i + size]]
                for place, order in ((i, upper), (i + size, lower)):
                    indices = [tirx.IntImm("int32", lane) for lane in order]
                    turned[place] = T.bind(tirx.Shuffle(pair, indices))
        rows, size = turned, 2 * size
    return rows
