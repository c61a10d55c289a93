"""The ISA rows and how channels are cut into vectors."""

from __future__ import annotations

import pytest

from kernel_harness import spec
from tvmcomp.errors import ModelError
from tvmcomp.kernels.layout import Layout
from tvmcomp.kernels.rows import qparams_of, with_dims
from tvmcomp.kernels.vector import GENERIC, isa_for, segments

AVX512 = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx2", "fma"}


@pytest.mark.parametrize("room", [0, 1, 5, 64])
@pytest.mark.parametrize("width", [1, 16, 64])
def test_segments_cover_every_element_and_stay_in_their_room(width, room):
    for count in range(1, 200):
        cuts = segments(count, width, count + room)
        covered = {i for start, lanes in cuts for i in range(start, start + lanes)}
        assert covered >= set(range(count))
        assert max(covered) < count + room
        assert all(start >= 0 and lanes & (lanes - 1) == 0 for start, lanes in cuts)


def test_tails():
    assert segments(67, 64, 70) == ((0, 64), (64, 4))
    assert segments(67, 64, 67) == ((0, 64), (63, 4))
    assert segments(3, 64, 3) == ((0, 2), (2, 1))


def test_rows_follow_the_features():
    vnni = isa_for(frozenset(AVX512 | {"avx512_vnni", "avx512vbmi"}))
    assert (vnni.name, vnni.lanes, vnni.vnni, vnni.vbmi) == ("avx512-vnni", 16, True, True)
    assert isa_for(frozenset(AVX512)).name == "avx512"
    assert isa_for(frozenset(AVX512 - {"avx512bw"})).name == "avx2"
    assert isa_for(frozenset({"avx2"})) == GENERIC
    assert isa_for(frozenset({"neon"})).fma


def test_dense_layouts_take_other_dims():
    flat = Layout.dense((2, 40), 1)
    assert with_dims(flat, (2, 1, 1, 40)) == Layout(2, 1, 1, 40, 1)
    assert with_dims(flat, (2, 1, 1, 41)) is None
    haloed = Layout(1, 2, 2, 4, 1, halo=1)
    assert with_dims(haloed, (1, 1, 1, 16)) is None


def test_codes_without_qparams_are_an_error():
    with pytest.raises(ModelError, match="'x' \\(float32\\) has no qparams"):
        qparams_of(spec("x", (1,), "float32"))
