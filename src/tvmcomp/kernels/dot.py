"""The dot-product emitter: `Spec` to PrimFunc.

    parallel blocks of output channels, blocks of output pixels        (or pixels first: Plan.split)
        acc[pixel][vector] = start
        for taps, steps:  acc[p][v] += x[p, tap, step] * w[tap, step, v]
        y[p, v] = epilogue(acc[p][v])

x is read in place: a tap is the same load at a shifted address, and the halo stands for the border.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from tvmcomp.kernels.epilogue import Block, Operands, finish
from tvmcomp.kernels.halo import write_halo
from tvmcomp.kernels.pack import parts, places
from tvmcomp.kernels.plan import Split
from tvmcomp.kernels.spec import Band, Columns, Segment, Spec, bands, columns
from tvmcomp.kernels.vector import Isa, Operand, build_func, byte_size, each, i64, splat

__all__ = ["emit"]

_LINE = 64
# With less to do, waking the thread pool costs more than it saves.
_PARALLEL_PRODUCTS = 1 << 20


@lru_cache(maxsize=1024)
def emit(spec: Spec, isa: Isa) -> tirx.PrimFunc:
    """The kernel: (x, [scale, zero,] [residual,] constants, y), each a byte buffer and an offset."""
    optional = {
        "scale": spec.epilogue.dynamic,
        "zero": spec.epilogue.dynamic,
        "r": spec.epilogue.residual is not None,
    }
    names = [
        name for name in ("x", "scale", "zero", "r", "constants", "y") if optional.get(name, True)
    ]

    def body(*tensors: Operand) -> None:
        operands = Operands(**dict(zip(names, tensors, strict=True)))
        write_halo(operands.y, spec.y, spec.zero)
        _Emitter(spec, isa, operands).loops()

    return build_func("dot", ["residual" if name == "r" else name for name in names], body)


@dataclass(frozen=True)
class _Column:
    """A block of output channels: offsets of its first channel in x, y and r, of its scales and weights."""

    part: Columns
    x: Expr
    y: Expr
    r: Expr
    s: Expr
    scales: Expr
    weights: Expr


@dataclass(frozen=True, eq=False)
class _Emitter:
    spec: Spec
    isa: Isa
    operands: Operands

    def loops(self) -> None:
        """The order of blocks."""
        rows = self.spec.geometry.batch * bands(self.spec)[0].count
        parallel = self.spec.products >= _PARALLEL_PRODUCTS
        if self.spec.plan.split is Split.CHANNELS:
            self._columns(lambda c: self._pixels(c, i64(0), i64(rows), None), parallel=parallel)
            return
        chunk = min(self.spec.plan.chunk, rows)
        items = -(-rows // chunk)

        def item(index: Expr) -> None:
            first = T.bind(index * i64(chunk))
            count = i64(chunk)
            if rows % chunk:
                count = T.bind(tirx.Min(count, i64(rows) - first))
            last = None if items == 1 else tirx.EQ(index, i64(items - 1))
            self._columns(lambda c: self._pixels(c, first, count, last), parallel=False)

        each(items, item, parallel=parallel)

    def _columns(self, visit: Callable[[_Column], None], *, parallel: bool) -> None:
        """Every block of output channels of every group."""
        groups = self.spec.geometry.groups
        head, *tails = columns(self.spec)

        def item(index: Expr) -> None:
            if groups == 1:
                group, n = i64(0), index
            else:
                group = T.bind(tirx.FloorDiv(index, i64(head.count)))
                n = T.bind(tirx.FloorMod(index, i64(head.count)))
            visit(self._column(head, group, n))
            for part in tails:
                if head.count == 1:
                    visit(self._column(part, group, i64(0)))
                else:
                    with T.If(tirx.EQ(n, i64(head.count - 1))), T.Then():
                        visit(self._column(part, group, i64(0)))

        each(groups * head.count, item, parallel=parallel)

    def _column(self, part: Columns, group: Expr, n: Expr) -> _Column:
        spec, g, at = self.spec, self.spec.geometry, places(self.spec)
        vector = T.bind(n * i64(part.vectors) + i64(part.start))
        size_y = spec.lanes * byte_size(spec.epilogue.dtype)
        size_r = spec.lanes * byte_size(spec.epilogue.residual or "")
        row = T.bind(group * i64(spec.vectors) + vector)
        return _Column(
            part,
            x=T.bind(group * i64(g.group.x)),
            y=T.bind(group * i64(g.group.y) + vector * i64(size_y)),
            r=T.bind(group * i64(g.group.r) + vector * i64(size_r)),
            s=i64(0),
            scales=T.bind(row * i64(parts(spec) * spec.lanes * 4) + i64(at.scales)),
            weights=T.bind(row * i64(spec.steps * at.step) + i64(at.weights)),
        )

    def _pixels(self, column: _Column, first: Expr, count: Expr, last: Expr | None) -> None:
        """`count` rows of blocks from `first`; after the last ones the smaller blocks of the rest."""
        batch = self.spec.geometry.batch
        head, *tails = bands(self.spec)
        if isinstance(count, tirx.IntImm) and int(count.value) == 1:
            self._row(column, head, first, i64(0))
        else:
            with T.serial(i64(0), count) as k:
                self._row(column, head, T.bind(first + k), i64(0))
        before = batch * head.count * head.blocks
        for band in tails:
            rest = partial(self._row, column, band, before=i64(before))
            if last is None:
                each(batch, rest)
            else:
                with T.If(last), T.Then():
                    each(batch, rest)

    def _row(self, column: _Column, band: Band, index: Expr, before: Expr) -> None:
        """The blocks of one row; `index` counts rows over all images, `before` blocks of other bands."""
        g = self.spec.geometry
        number = T.bind(before + index * i64(band.blocks))
        image, t = i64(0), index
        if g.batch > 1:
            image = T.bind(tirx.FloorDiv(index, i64(band.count)))
            t = T.bind(tirx.FloorMod(index, i64(band.count)))

        def start(field: str) -> Expr:
            if field == "s" and not g.pixel.s:
                return i64(0)
            steps = i64(getattr(g.image, field)), i64(getattr(band.step, field))
            return T.bind(getattr(column, field) + image * steps[0] + t * steps[1])

        x, y, r, scales = start("x"), start("y"), start("r"), start("s")
        done = 0
        for segment in band.segments:

            def block(i: Expr, segment: Segment = segment, done: int = done) -> None:
                s = segment.step
                at = [T.bind(b + i * i64(n)) for b, n in ((x, s.x), (y, s.y), (r, s.r))]
                at.append(T.bind(scales + i * i64(s.s)) if g.pixel.s else scales)
                self._block(column, segment, at, T.bind(number + i + i64(done)))

            each(segment.count, block)
            done += segment.count

    def _block(self, column: _Column, segment: Segment, at: list[Expr], number: Expr) -> None:
        """One block of accumulators from start to store."""
        spec, lanes = self.spec, self.spec.lanes
        pixels, vectors = segment.pixels, column.part.vectors
        acc = [
            [T.alloc_buffer((lanes,), spec.mac.acc, scope="global") for _ in range(vectors)]
            for _ in pixels
        ]
        whole = [tirx.Ramp(i64(0), i64(1), lanes)]
        for h in range(vectors):
            first = T.bind(self._first(column, h))
            for row in acc:
                T.buffer_store(row[h], first, whole)
        self._accumulate(column, segment, at[0], number, acc)
        finish(
            spec,
            self.isa,
            self.operands,
            Block(
                lanes=lanes,
                acc=lambda p, h: tirx.BufferLoad(acc[p][h], whole),
                scales=column.scales,
                y=at[1],
                r=at[2],
                s=at[3],
                y_pixels=tuple(pixel.y for pixel in pixels),
                r_pixels=tuple(pixel.r for pixel in pixels),
                s_pixels=tuple(pixel.s for pixel in pixels),
                counts=tuple(spec.stored(column.part.start + h) for h in range(vectors)),
            ),
        )

    def _first(self, column: _Column, h: int) -> Expr:
        """What an accumulator starts at: a float's bias, what undoes zero point and shift of x, or zero.

        Where the zero point comes at run time the epilogue undoes the shift with it.
        """
        lanes = self.spec.lanes
        if self.spec.mac.acc == "int32" and not self.spec.start:
            return splat(0, lanes, "int32")
        part = 0 if self.spec.mac.acc == "float32" else 2
        offset = (h * parts(self.spec) + part) * lanes * 4
        return self.operands.constants.load(column.scales + i64(offset), self.spec.mac.acc, lanes)

    def _accumulate(
        self,
        column: _Column,
        segment: Segment,
        x: Expr,
        number: Expr,
        acc: list[list[tirx.Buffer]],
    ) -> None:
        """All taps and steps."""
        spec, mac, constants = self.spec, self.spec.mac, self.operands.constants
        (kernel_h, step_h), (kernel_w, step_w) = spec.geometry.taps
        vectors = column.part.vectors
        unroll = min(spec.plan.unroll, spec.units)
        bodies, rest = divmod(spec.units, unroll)
        whole = [tirx.Ramp(i64(0), i64(1), spec.lanes)]
        step = vectors * places(spec).step
        unit = spec.mac.unit * byte_size(spec.dtype)
        weights = column.weights
        if kernel_h * kernel_w * bodies == 1:
            # The same loads in every block would be hoisted out of the loop over blocks and spilled:
            # a zero the compiler cannot see makes them differ.
            zero = constants.load(i64(places(spec).zero), "int32", 1)
            weights = T.bind(weights + number * tirx.Cast("int64", zero))

        per_tap = bodies + (rest > 0)
        lines = self._prefetched(vectors * unroll)
        span = per_tap * lines * _LINE
        ahead = i64(0)
        if lines:
            size, share = spec.steps * step, kernel_h * kernel_w * span
            done = tirx.Min(number * i64(share), i64(max(0, size - share)))
            ahead = T.bind(weights + i64(size) + done)

        def body(x: Expr, w: Expr, fetch: Expr, count: int) -> None:
            for u in range(count):
                for line in range(u * lines // count, (u + 1) * lines // count):
                    _prefetch(constants, fetch + i64(line * _LINE))
                loaded = [
                    T.bind(
                        mac.weights(
                            constants, w + i64(u * step + h * places(spec).step), spec.lanes
                        )
                    )
                    for h in range(vectors)
                ]
                for p, pixel in enumerate(segment.pixels):
                    value = T.bind(
                        mac.broadcast(self.operands.x, x + i64(pixel.x + u * unit), spec.lanes)
                    )
                    for h in range(vectors):
                        old = tirx.BufferLoad(acc[p][h], whole)
                        T.buffer_store(
                            acc[p][h], mac.step(old, value, loaded[h], spec.lanes), whole
                        )

        def tap(i: Expr, j: Expr) -> None:
            t = T.bind(i * i64(kernel_w) + j)
            start = T.bind(x + i * i64(step_h) + j * i64(step_w))
            w = T.bind(weights + t * i64(spec.units * step))
            fetch = T.bind(ahead + t * i64(span))

            def bodies_at(q: Expr, count: int = unroll) -> None:
                body(
                    T.bind(start + q * i64(unroll * unit)),
                    T.bind(w + q * i64(unroll * step)),
                    T.bind(fetch + q * i64(lines * _LINE)),
                    count,
                )

            each(bodies, bodies_at)
            if rest:
                bodies_at(i64(bodies), rest)

        each(kernel_h, lambda i: each(kernel_w, lambda j: tap(i, j)))

    def _prefetched(self, vectors: int) -> int:
        """Lines of the next block of weights to fetch per body, which reads `vectors` vectors of this one."""
        if not self.spec.plan.prefetch:
            return 0
        g = self.spec.geometry
        blocks = g.batch * sum(band.count * band.blocks for band in bands(self.spec))
        return -(-vectors * places(self.spec).step // (_LINE * blocks))


def _prefetch(operand: Operand, offset: Expr) -> None:
    locality = tirx.IntImm("int32", 2)  # into L2: L1 holds the block in use
    zero, data = tirx.IntImm("int32", 0), tirx.IntImm("int32", 1)
    address = operand.address(offset)
    T.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch.p0", address, zero, locality, data))
