"""Times of the kernel calls: one per call, in order, and about as long as the run itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tvmcomp.artifact import Payload
from tvmcomp.errors import IncompatibleHostError
from tvmcomp.runtime.profile import kernel_times


def test_one_time_per_kernel_call(tiny_payload: Payload) -> None:
    times = kernel_times(tiny_payload, repeats=5)
    assert len(times) == len(tiny_payload.function.variants[0].kernels)
    assert all(0 <= time < 10 for time in times)
    assert sum(times) > 0


def test_host_is_checked(tiny_payload: Payload) -> None:
    function = tiny_payload.function
    variant = replace(function.variants[0], required_features=("avx512teleport",))
    manifest = replace(tiny_payload.manifest, functions=(replace(function, variants=(variant,)),))
    with pytest.raises(IncompatibleHostError, match="avx512teleport"):
        kernel_times(replace(tiny_payload, manifest=manifest))
