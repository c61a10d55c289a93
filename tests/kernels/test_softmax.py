"""IntSoftmax kernels against their definition: rows of every length, masks of every shape, extreme codes."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_harness import check, every_isa, layout, spec
from tvmcomp.compress.reference import exp_factors
from tvmcomp.graph.layers import IntSoftmax, MaskSteps
from tvmcomp.kernels.softmax import build_mask_steps, build_softmax

SCALE = 0.08
RNG = np.random.default_rng(0)


def softmax(length, inputs=("x",), scale=SCALE, **fields):
    masked = bool(fields.get("masks"))
    exps = exp_factors(scale, length, masked=masked, shift=fields.get("shift", 0))
    return IntSoftmax(
        name="s",
        inputs=inputs,
        output="y",
        exps=exps,
        inverse_scale=float(np.float32(255)),
        **fields,
    )


@every_isa
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_rows_of_every_length(row, dtype):
    zero = 0 if dtype == "uint8" else -128
    for shape, halo, pad in [
        ((2, 3, 4, 1), 0, 0),
        ((1, 2, 3, 5), 1, 3),
        ((3, 16), 0, 0),
        ((1, 2, 3, 49), 0, 15),
        ((2, 2, 2, 3, 70), 0, 0),
        ((1, 1, 2, 197), 1, 0),
        ((1, 1, 2, 1100), 0, 4),
    ]:
        x, y = spec("x", shape, dtype, SCALE, 7), spec("y", shape, dtype, 1 / 255, zero)
        layouts = {"x": layout(x, 0, pad), "y": layout(y, halo, pad)}
        check(build_softmax, row, softmax(shape[-1]), {"x": x, "y": y}, layouts)


def steps(shape):
    """Zero, moderate and saturated steps, and excluded elements."""
    array = RNG.choice([0, -40, 9, -MaskSteps.STEPS_LIMIT, MaskSteps.STEPS_EXCLUDED], shape)
    return array.astype(np.int32)


@every_isa
@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize(
    ("shape", "masks"),
    [
        ((2, 3, 5, 21), [(2, 1, 1, 21)]),
        ((2, 3, 5, 21), [(5, 21), (2, 1, 1, 21)]),
        ((2, 4, 3, 5, 19), [(1, 4, 1, 5, 19), (1, 1, 3, 5, 19), (5, 1)]),
        ((3, 40), [(1,)]),
    ],
)
@pytest.mark.parametrize("constant", [True, False])
def test_masks(row, shift, shape, masks, constant):
    arrays = [steps(mask) for mask in masks]
    arrays[0][..., 1:] = MaskSteps.STEPS_EXCLUDED
    arrays[0][..., :1] = RNG.choice([0, MaskSteps.STEPS_EXCLUDED], arrays[0][..., :1].shape)
    x, y = spec("x", shape, scale=SCALE), spec("y", shape, scale=1 / 255, zero=0)
    tensors = {"x": x, "y": y}
    held = tuple(a if constant or i == 1 else None for i, a in enumerate(arrays))
    fed = [a for a, kept in zip(arrays, held, strict=True) if kept is None]
    for i, array in enumerate(fed):
        tensors[f"m{i}"] = spec(f"m{i}", array.shape, "int32")
    layer = softmax(shape[-1], ("x", *(f"m{i}" for i in range(len(fed)))), masks=held, shift=shift)
    layouts = {name: layout(tensor, 0, 3) for name, tensor in tensors.items()}
    codes = RNG.integers(0, 256, shape).astype(np.uint8)
    check(build_softmax, row, layer, tensors, layouts, arrays=[codes, *fed])


@every_isa
def test_a_row_that_is_masked_whole(row):
    """The lowest float32 everywhere is uniform, -inf everywhere is zero, as documented."""
    shape = (1, 1, 3, 20)
    mask = np.zeros((3, 20), np.int32)
    mask[0], mask[1] = -MaskSteps.STEPS_LIMIT, MaskSteps.STEPS_EXCLUDED
    tensors = {"x": spec("x", shape, scale=SCALE), "y": spec("y", shape, scale=1 / 255, zero=0)}
    layouts = {name: layout(tensor) for name, tensor in tensors.items()}
    layer = softmax(20, masks=(mask,))
    got = check(build_softmax, row, layer, tensors, layouts)[0, 0]
    assert set(got[0].tolist()) == {13}
    assert set(got[1].tolist()) == {0}
    assert len(set(got[2].tolist())) > 5


@every_isa
def test_extreme_rows(row):
    """All codes equal, one code above all others, and all 256 at a scale where every e is large."""
    shape = (1, 1, 3, 256)
    codes = np.zeros(shape, np.uint8)
    codes[0, 0, 1, 7] = 255
    codes[0, 0, 2] = np.arange(256)
    for scale in (1e-4, 0.05, 3.0):
        x, y = spec("x", shape, scale=scale), spec("y", shape, scale=1 / 255, zero=0)
        layouts = {"x": layout(x), "y": layout(y)}
        layer = softmax(256, scale=scale)
        check(build_softmax, row, layer, {"x": x, "y": y}, layouts, arrays=[codes])


@every_isa
def test_steps_of_a_mask(row):
    values = [0.0, -0.04, -0.0401, 1.0, -100.0, -1e4, -3.4028235e38, -np.inf, np.nan, np.inf, 3e38]
    shape = (2, 1, 3, 13)
    array = np.resize(np.array(values, np.float32), shape)
    tensors = {"x": spec("x", shape, "float32"), "y": spec("y", shape, "int32")}
    layouts = {name: layout(tensor, 0, 2) for name, tensor in tensors.items()}
    layer = MaskSteps(name="m", inputs=("x",), output="y", step=float(np.float32(0.08)))
    got = check(build_mask_steps, row, layer, tensors, layouts, arrays=[array]).ravel()
    limit, excluded = MaskSteps.STEPS_LIMIT, MaskSteps.STEPS_EXCLUDED
    want = [0, 0, -1, 12, -1250, -125000, -limit, excluded, excluded, limit, limit]
    assert got[:11].tolist() == want
