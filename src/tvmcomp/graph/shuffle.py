"""Which axes of a reshaped and permuted image come from where: pixel shuffles, channel shuffles, tokens of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import mul

__all__ = ["common_factors", "shuffled_axes"]

# Where N, H, W and C stand in NCHW.
_NHWC = (0, 2, 3, 1)

Groups = list[list[int]]


def common_factors(a: Sequence[int], b: Sequence[int]) -> tuple[list[int], Groups, Groups] | None:
    """Lengths both shapes can be split into, and which of them each axis of `a` and of `b` is made of.

    common_factors([1, 8, 6], [2, 4, 6]) = [2, 4, 6], [[], [0, 1], [2]], [[0], [1], [2]]; None if there are none.
    """
    ends = [list(accumulate(shape, mul)) for shape in (a, b)]
    cuts = sorted({1, *ends[0], *ends[1]})
    if ends[0][-1:] != ends[1][-1:] or any(high % low for low, high in pairwise(cuts)):
        return None
    factors = [high // low for low, high in pairwise(cuts)]
    groups = [
        [list(range(cuts.index(low), cuts.index(high))) for low, high in pairwise([1, *end])]
        for end in ends
    ]
    return factors, groups[0], groups[1]


def shuffled_axes(
    source: Sequence[int], parts: Sequence[int], axes: Sequence[int], target: Sequence[int] | None
) -> tuple[list[int], list[int]] | None:
    """permute_dims(reshape(x, parts), axes) of an image `source` [N, C, H, W], for x held in NHWC.

    Returns (shape, permutation): reshape the NHWC image to `shape`, permute, and reshape to the result's
    shape. With a `target` [N, C, H, W] the result is that image, in NHWC too. None if the axes do not
    come apart so.
    """
    found = common_factors(source, parts)
    if found is None:
        return None
    factors, of_source, of_parts = found
    moved = [factor for axis in axes for factor in of_parts[axis]]
    order = [factor for place in _NHWC for factor in of_source[place]]
    final = moved
    if target is not None:
        again = common_factors([factors[factor] for factor in moved], target)
        if again is None:
            return None
        factors, of_moved, of_target = again
        order = [part for factor in order for part in of_moved[moved.index(factor)]]
        final = [part for place in _NHWC for part in of_target[place]]
    return _merged([factors[part] for part in order], [order.index(part) for part in final])


def _merged(shape: list[int], axes: list[int]) -> tuple[list[int], list[int]]:
    """The same permutation with axes that stay neighbours as one."""
    starts = [axis for i, axis in enumerate(axes) if i == 0 or axis != axes[i - 1] + 1]
    merged: list[int] = []
    for axis, length in enumerate(shape):
        if axis in starts:
            merged.append(length)
        else:
            merged[-1] *= length
    return merged, [sorted(starts).index(start) for start in starts]
