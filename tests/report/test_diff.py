"""Each layer is judged by what it adds to its own inputs; scales by the values they serve."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tvmcomp.report import RenamedSide, diff_networks
from tvmcomp.report.diff import base_name
from tvmcomp.report.scale import Range
from tvmcomp.runtime.capture import Call, Stored


def stored(name: str, scale: float | None = None, size: int = 64) -> Stored:
    dtype = "float32" if scale is None else "int8"
    zero_point = None if scale is None else 0
    return Stored(name, dtype, (size,), scale, zero_point, (1, 1, 1, size), 0, size)


class Chain:
    """a = x + 1, b = 2 a, c = b - 3 in floats or codes; `faults` adds to a tensor what its layer does wrong."""

    def __init__(
        self, scale: float | None = None, faults: Mapping[str, float] | None = None
    ) -> None:
        ending = "" if scale is None else ".q"
        self.tensors = {f"{n}{ending}": stored(f"{n}{ending}", scale) for n in "abc"}
        reads = zip(("x", *self.tensors), self.tensors, strict=False)
        self.calls = tuple(
            Call(name[0], "Layer", (read,), (self.tensors[name],), False) for read, name in reads
        )
        self._faults = faults or {}

    def run(
        self, inputs: Mapping[str, Any], given: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        found, value = {}, np.asarray(inputs["x"], np.float64)
        steps = (lambda x: x + 1, lambda x: 2 * x, lambda x: x - 3)
        for step, (name, tensor) in zip(steps, self.tensors.items(), strict=True):
            value = step(value) + self._faults.get(name[0], 0.0)
            if tensor.scale is None:
                found[name] = value.astype(np.float32)
            else:
                found[name] = np.clip(np.rint(value / tensor.scale), -128, 127).astype(np.int8)
            value = tensor.real((given or {}).get(name, found[name]))
        return found


def samples(count: int = 2) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    return [{"x": rng.standard_normal(64)} for _ in range(count)]


@pytest.mark.parametrize("scale", [None, 0.1])
def test_equal_networks_do_not_depart(scale: float | None) -> None:
    found = diff_networks(Chain(scale), Chain(scale), samples())  # type: ignore[arg-type]
    assert found.first is None
    assert [row.own for row in found.layers] == [0.0, 0.0, 0.0]
    assert {row.mode for row in found.layers} == {"float" if scale is None else "codes"}


@pytest.mark.parametrize("fault", "abc")
@pytest.mark.parametrize("scale", [None, 0.1])
def test_only_the_faulty_layer_departs(scale: float | None, fault: str) -> None:
    subject = Chain(scale, {fault: 0.3})
    found = diff_networks(subject, Chain(scale), samples())  # type: ignore[arg-type]
    assert [row.layer for row in found.layers if row.departs] == [fault]
    assert found.first is not None
    after = found.layers[found.layers.index(found.first) :]
    assert all(row.total_sqnr_db is not None for row in after)
    assert all(row.own == 0 for row in after[1:])


def test_codes_against_floats_are_judged_in_steps() -> None:
    sound = diff_networks(Chain(0.1), Chain(), samples())  # type: ignore[arg-type]
    assert sound.first is None
    assert all(row.mode == "steps" and 0 < row.own < 1 for row in sound.layers if row.own)
    faulty = diff_networks(Chain(0.1, {"b": 1.5}), Chain(), samples())  # type: ignore[arg-type]
    assert [row.tensor for row in faulty.layers if row.departs] == ["b.q"]
    allowed = diff_networks(
        Chain(0.1, {"b": 1.5}), Chain(), samples(), 20.0  # type: ignore[arg-type]
    )  # fmt: skip
    assert allowed.first is None


def test_not_finite_where_the_other_is() -> None:
    found = diff_networks(Chain(None, {"b": np.nan}), Chain(), samples())  # type: ignore[arg-type]
    assert found.first is not None
    assert (found.first.layer, found.first.own) == ("b", None)
    assert found.first.departs == "one side alone holds NaN or infinity"
    both = Chain(None, {"b": np.nan}), Chain(None, {"b": np.nan})
    assert diff_networks(*both, samples()).first is None  # type: ignore[arg-type]


def test_a_tensor_written_again_is_held_against_itself() -> None:
    """Against floats a Dequantize would have all its codes' error otherwise."""
    subject = Chain(0.1)
    again, wrong = stored("c.dq"), 0.0
    subject.tensors["c.dq"] = again
    subject.calls += (Call("again", "Dequantize", ("c.q",), (again,), False),)
    plain = subject.run

    def run(inputs: Mapping[str, Any], given: Any = None) -> dict[str, np.ndarray]:
        subject.tensors.pop("c.dq")
        found = plain(inputs, given)
        subject.tensors["c.dq"] = again
        real = subject.tensors["c.q"].real(found["c.q"]) + wrong
        return {**found, "c.dq": real.astype(np.float32)}

    subject.run = run  # type: ignore[method-assign]
    assert diff_networks(subject, Chain(), samples()).first is None  # type: ignore[arg-type]
    wrong = 0.01
    first = diff_networks(subject, Chain(), samples()).first  # type: ignore[arg-type]
    assert first is not None
    assert (first.layer, first.mode) == ("again", "float")


@pytest.mark.parametrize(("ours", "theirs"), [(0.1, 0.13), (0.13, 0.02)])
@pytest.mark.parametrize("kind", ["Dequantize", "IntConv"])
def test_floats_made_of_other_codes_are_no_departure(kind: str, ours: float, theirs: float) -> None:
    """Inputs are given rounded to the other side's codes, 0.02 clips them as well."""

    def side(scale: float, wrong: float = 0.0) -> Chain:
        chain = Chain(scale)
        plain, real = chain.run, stored("y")
        codes = dict(chain.tensors)
        chain.tensors["y"] = real
        chain.calls += (Call("y", kind, ("c.q",), (real,), False),)

        def run(inputs: Mapping[str, Any], given: Any = None) -> dict[str, np.ndarray]:
            chain.tensors = codes
            found = plain(inputs, given)
            chain.tensors = {**codes, "y": real}
            made = codes["c.q"].real((given or {}).get("c.q", found["c.q"])) + wrong
            return {**found, "y": made.astype(np.float32)}

        chain.run = run  # type: ignore[method-assign]
        return chain

    if kind == "Dequantize" or theirs > ours:
        found = diff_networks(side(ours), side(theirs), samples(), 60.0)  # type: ignore[arg-type]
        assert found.first is None
    rows = diff_networks(side(ours), side(theirs), samples()).layers  # type: ignore[arg-type]
    last = rows[-1]
    assert (last.mode, last.departs is None) == ("float", kind == "Dequantize" or theirs > ours)
    wrong = diff_networks(side(ours, 2.0), side(theirs), samples()).layers[-1]  # type: ignore[arg-type]
    assert wrong.departs is not None


def test_what_only_one_side_has_is_told() -> None:
    found = diff_networks(Chain(), RenamedSide(Chain(), {"b": "z"}), samples())  # type: ignore[arg-type]
    assert found.unmatched == ("b",)
    assert [row.tensor for row in found.layers] == ["a", "c"]
    assert found.first is None


def test_renamed_tensors_are_given_under_their_own_names() -> None:
    side = RenamedSide(Chain(), {"a": "first"})
    assert list(side.tensors) == ["first", "b", "c"]
    x = samples(1)[0]
    given = {"first": np.ones(64, np.float32)}
    np.testing.assert_array_equal(side.run(x, given)["b"], np.full(64, 2, np.float32))


def test_names_without_what_marks_codes_and_copies() -> None:
    assert base_name("relu_3.q.halo") == "relu_3"
    assert base_name("layer1.0.out") == "layer1.0"
    assert base_name("conv.quiet") == "conv.quiet"


@pytest.mark.parametrize(("factor", "least", "most"), [(1, 0, 3), (16, 21, 27), (1 / 8, 20, 60)])
def test_what_a_scale_costs(factor: float, least: float, most: float) -> None:
    values = np.random.default_rng(2).standard_normal(4096)
    spread = Range()
    spread.add(values)
    codes = stored("y", factor * float(np.abs(values).max()) / 127)
    loss = spread.loss_db(codes)
    assert loss is not None
    assert least <= loss <= most


@pytest.mark.parametrize(
    ("size", "factor", "departs"),
    [(2048, 1, False), (2048, 16, True), (2048, 1 / 8, True), (64, 16, False), (64, 1 / 32, True)],
)
def test_of_few_values_only_a_loss_of_nearly_all_counts(
    size: int, factor: float, departs: bool
) -> None:
    values = np.random.default_rng(2).standard_normal(size).astype(np.float32)
    scale = factor * float(np.abs(values).max()) / 127
    codes = stored("a.q", scale, size)
    made = np.clip(np.rint(values / scale), -128, 127).astype(np.int8)
    call = Call("a", "Quantize", ("x",), (codes,), False)
    ours = SimpleNamespace(tensors={"a.q": codes}, calls=(call,), run=lambda *_: {"a.q": made})
    theirs = SimpleNamespace(tensors={"a": stored("a", None, size)}, run=lambda *_: {"a": values})
    found = diff_networks(ours, theirs, [{}])  # type: ignore[arg-type]
    assert [bool(row.departs) for row in found.layers] == [departs]
    assert "its scale costs" in str(found.layers[0].departs) or not departs


def test_zeros_have_no_scale() -> None:
    zeros = Range()
    zeros.add(np.zeros(10))
    assert zeros.loss_db(stored("y", 1.0)) is None
