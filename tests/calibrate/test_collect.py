"""Taps and collection: a model's inner tensors are observed as they are, streaming, with progress."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tvm import relax

from toys import Toy, run
from tvmcomp.calibrate import (
    Entropy,
    MinMax,
    MovingAverage,
    Observer,
    Percentile,
    collect,
    taps,
)
from tvmcomp.errors import CalibrationError
from tvmcomp.graph.dataflow import Dataflow
from tvmcomp.model import Model

RNG = np.random.default_rng(3)


def chain() -> Model:
    """x -> a = 2x -> b = relu(a) -> c = b + 1 (output)."""
    toy = Toy()
    x = toy.input("x", 1, 4)
    a = toy.emit("layer.a", relax.op.multiply(x, relax.const(np.float32(2))))
    b = toy.emit("layer.b", relax.op.nn.relu(a))
    return toy.model(toy.emit("c", relax.op.add(b, relax.const(np.float32(1)))))


def samples(n: int = 5) -> np.ndarray:
    return RNG.standard_normal((n, 4)).astype(np.float32)


def test_taps_add_outputs_and_keep_the_rest() -> None:
    model = chain()
    tapped = taps(model, ["layer.b", "layer.a"])
    relax.analysis.well_formed(tapped.module)
    assert list(tapped.signature.outputs) == ["output0", "layer.b", "layer.a"]
    assert [str(var.name) for var in Dataflow.of(tapped.module).outputs] == [
        "c",
        "layer.b",
        "layer.a",
    ]
    assert list(model.signature.outputs) == ["output0"]
    x = samples(1)
    got = run(tapped)({"x": x})
    np.testing.assert_array_equal(got["layer.a"], 2 * x)
    np.testing.assert_array_equal(got["layer.b"], np.maximum(2 * x, 0))
    np.testing.assert_array_equal(got["output0"], run(model)({"x": x})["output0"])


def test_a_tap_with_the_name_of_another_output_is_that_tensor() -> None:
    """An exporter may call the output what we call an inner tensor."""
    model = chain()
    signature = replace(model.signature, outputs={"layer.a": model.signature.outputs["output0"]})
    named = replace(model, signature=signature)
    x = samples(5)
    stats = collect(named, {"x": x}, {"layer.a": MinMax(), "c": MinMax()}, run).stats
    assert stats["layer.a"].high == (2 * x).max()
    assert stats["c"].high == np.maximum(2 * x, 0).max() + 1


def test_taps_do_not_repeat_an_output() -> None:
    assert taps(chain(), ["c"]).signature == chain().signature


def test_taps_of_an_unknown_tensor() -> None:
    with pytest.raises(CalibrationError, match=r"no tensor 'layer.x'; it has layer.a, layer.b, c"):
        taps(chain(), ["layer.x"])


def test_collect_sees_inputs_inner_tensors_and_outputs() -> None:
    x = samples()
    seen: list[tuple[int, int | None]] = []
    observers = dict.fromkeys(("x", "layer.a", "layer.b", "c"), MinMax())
    result = collect(chain(), x, observers, run, lambda *step: seen.append(step))
    expected = {"x": x, "layer.a": 2 * x, "layer.b": np.maximum(2 * x, 0)}
    expected["c"] = expected["layer.b"] + 1
    assert result.stats.keys() == expected.keys()
    for name, values in expected.items():
        assert result.stats[name].low == values.min(), name
        assert result.stats[name].high == values.max(), name
        assert result.stats[name].count == values.size, name
    assert seen == [(i, 5) for i in range(1, 6)]
    assert (result.samples, len(result.digest)) == (5, 64)


def test_order_of_samples_does_not_matter() -> None:
    x = samples(20)
    observers = {"layer.a": Percentile(90.0)}
    one, other = (collect(chain(), data, observers, run).stats["layer.a"] for data in (x, x[::-1]))
    assert (one.low, one.high) == (other.low, other.high)


@pytest.mark.parametrize("observer", [MinMax(), MovingAverage(), Entropy()])
def test_a_model_that_overflows_is_an_error(observer: Observer) -> None:
    x = np.float32([[1, 1, 1, 1], [3e38, 0, 0, 0]])
    with pytest.raises(CalibrationError, match=r"tensor 'layer.a' is NaN or infinite on sample 1"):
        collect(chain(), x, {"layer.a": observer}, run)


def test_bad_data_is_refused_before_the_model_is_compiled() -> None:
    def execute(model: Model) -> None:
        raise AssertionError(f"compiled {model.provenance.source}")

    with pytest.raises(CalibrationError, match="holds no samples"):
        collect(chain(), samples(0), {"layer.a": MinMax()}, execute)  # type: ignore[arg-type]
