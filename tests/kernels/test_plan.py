"""The plan's rules, and the cutting of pixels and channels into blocks that they lead to."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conv_cases import Case, make
from tvmcomp.kernels.conv import build_spec
from tvmcomp.kernels.geometry import Geometry, geometry_of
from tvmcomp.kernels.mac import Floats, Mac, Vnni
from tvmcomp.kernels.plan import Plan, Split, choose_plan
from tvmcomp.kernels.spec import Spec, bands, columns
from tvmcomp.kernels.vector import GENERIC, Isa

VNNI = Isa("avx512-vnni", 16, vnni=True, vbmi=True, fma=True, madd=True)
AVX2 = Isa("avx2", 8, fma=True, madd=True)


def spec_of(case: Case, isa: Isa = VNNI, plan: Plan | None = None) -> Spec:
    problem = make(case)
    return build_spec(problem.layer, problem.tensors, problem.layouts, isa, plan)


def geometry(case: Case) -> Geometry:
    problem = make(case)
    return geometry_of(problem.layer, problem.layouts["x"], problem.layouts["y"], None)


def conv(size: int, inputs: int, outputs: int, k: int = 3) -> Geometry:
    pads = (k // 2,) * 4
    return geometry(
        Case(height=size, width=size, inputs=inputs, outputs=outputs, kernel=(k, k), pads=pads)
    )


@pytest.mark.parametrize(
    ("size", "channels", "tile"),
    [(56, 64, (1, 14)), (28, 128, (1, 14)), (14, 256, (1, 14)), (7, 512, (2, 7))],
)
def test_blocks_of_resnet(size: int, channels: int, tile: tuple[int, int]) -> None:
    plan = choose_plan(conv(size, channels, channels), VNNI, Vnni(0))
    assert (plan.tile, plan.vectors) == (tile, 2)


def test_dear_broadcasts_serve_more_vectors() -> None:
    plan = choose_plan(conv(14, 256, 256), VNNI, Vnni(128))
    assert (plan.tile, plan.vectors) == ((1, 5), 4)


def test_small_weights_are_passed_over_once_per_chunk_of_rows() -> None:
    plan = choose_plan(conv(56, 64, 64), VNNI, Vnni(0))
    assert plan.split is Split.ROWS
    assert not plan.prefetch


def test_large_weights_are_read_once_and_fetched_ahead() -> None:
    plan = choose_plan(conv(14, 256, 256), VNNI, Vnni(0))
    assert plan.split is Split.CHANNELS
    assert plan.prefetch


def test_x_beyond_the_cache_is_read_once() -> None:
    large, small = conv(56, 512, 256, 1), conv(28, 512, 256, 1)
    assert choose_plan(large, VNNI, Vnni(0)).split is Split.ROWS
    assert choose_plan(small, VNNI, Vnni(0)).split is Split.CHANNELS


def test_one_row_of_a_dense_layer_takes_many_vectors() -> None:
    plan = choose_plan(geometry(Case(height=1, width=1, inputs=2048, outputs=1000)), VNNI, Vnni(0))
    assert plan == Plan((1, 1), 8, 4, Split.CHANNELS)


def test_rows_are_cut_evenly() -> None:
    assert choose_plan(conv(15, 16, 32), VNNI, Vnni(0)).tile == (1, 8)
    assert choose_plan(conv(9, 16, 32), VNNI, Vnni(0)).tile == (1, 9)
    assert choose_plan(conv(5, 16, 32), VNNI, Vnni(0)).tile == (2, 5)
    assert choose_plan(conv(4, 16, 32, 1), VNNI, Vnni(0)).tile == (8, 1)


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 300),
    st.sampled_from([VNNI, AVX2, GENERIC]),
    st.sampled_from([Vnni(0), Vnni(128), Floats(True)]),
)
@settings(max_examples=200, deadline=None)
def test_accumulators_fit_the_registers(
    height: int, width: int, outputs: int, isa: Isa, mac: Mac
) -> None:
    base = conv(8, 16, 16)
    plan = choose_plan(replace(base, height=height, width=width, outputs=outputs), isa, mac)
    most = 28 if isa.lanes == 16 else 12
    assert 1 <= plan.tile[0] * plan.tile[1] * plan.vectors <= most
    assert plan.tile[0] <= height
    assert plan.tile[1] <= width


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.tuples(st.integers(1, 10), st.integers(1, 10)),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_bands_cover_every_pixel_once(
    height: int, width: int, tile: tuple[int, int], halo: bool
) -> None:
    case = Case(height=height, width=width, inputs=4, outputs=4, y_halo=int(halo), x_halo=1)
    case = replace(case, residual="uint8", r_pitch=24)
    problem = make(case)
    spec = build_spec(
        problem.layer, problem.tensors, problem.layouts, VNNI, Plan(tile, 1, 4, Split.ROWS)
    )
    seen: Counter[tuple[int, int, int]] = Counter()
    for band in bands(spec):
        for i, segment in np.ndindex(band.count, len(band.segments)):
            part = band.segments[segment]
            for j in range(part.count):
                base = band.step * i + part.step * j
                for pixel in part.pixels:
                    at = base + pixel
                    seen[at.x, at.y, at.r] += 1
    x, y, r = (problem.layouts[name] for name in ("x", "y", "r"))
    expected = Counter(
        (x.offset(0, h, w), y.offset(0, h, w), r.offset(0, h, w))
        for h, w in np.ndindex(height, width)
    )
    assert seen == expected


@given(st.integers(1, 200), st.integers(1, 9), st.sampled_from([0, 16, 64]))
@settings(max_examples=80, deadline=None)
def test_columns_cover_every_channel_and_store_nothing_past_the_pitch(
    outputs: int, vectors: int, align: int
) -> None:
    pitch = -(-outputs // align) * align if align else outputs
    case = Case(height=1, width=1, inputs=4, outputs=outputs, y_pitch=pitch)
    spec = spec_of(case, plan=Plan((1, 1), vectors, 4, Split.ROWS))
    stored = []
    for part in columns(spec):
        for n in range(part.count):
            first = part.start + n * part.vectors
            for v in range(first, first + part.vectors):
                # One body serves all blocks of a part, so all of them store what its first does.
                count = spec.stored(part.start + v - first)
                assert count == spec.stored(v)
                stored += range(16 * v, 16 * v + count)
    assert stored[:outputs] == list(range(outputs))
    assert len(stored) <= pitch


def test_pixels_without_gaps_are_one_column() -> None:
    flat = geometry(Case(batch=2, height=5, width=7))
    assert (flat.batch, flat.height, flat.width) == (1, 70, 1)
    gaps = geometry(Case(batch=2, height=5, width=7, y_halo=1))
    assert (gaps.batch, gaps.height, gaps.width) == (2, 5, 7)


def test_a_row_of_taps_without_gaps_is_one_run() -> None:
    stem = geometry(Case(height=9, width=9, inputs=3, kernel=(7, 7), pads=(3, 3, 3, 3)))
    assert (stem.run, stem.taps[1][0]) == (21, 1)
    pitched = geometry(Case(height=9, width=9, inputs=3, x_pitch=4, kernel=(7, 7)))
    assert (pitched.run, pitched.taps[1][0]) == (3, 7)
    dilated = geometry(Case(height=9, width=9, inputs=3, kernel=(3, 3), dilation=(1, 2)))
    assert (dilated.run, dilated.taps[1][0]) == (3, 3)
