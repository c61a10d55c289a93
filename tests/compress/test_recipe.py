"""Recipes: TOML and dataclasses one to one, mistakes by file and key, refusals before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toys import Toy, run
from tvmcomp.calibrate import MSE, Entropy, MinMax, MovingAverage, Percentile, collect
from tvmcomp.compress import (
    DynamicActivations,
    FloatActivations,
    PerAxis,
    PerGroup,
    PerTensor,
    PerToken,
    QuantizeUniform,
    Recipe,
    StaticActivations,
    compress,
)
from tvmcomp.errors import QuantizeError, RecipeError
from tvmcomp.target import OPS, Target

OBSERVERS = st.one_of(
    st.builds(MinMax, axis=st.none()),
    st.builds(Percentile, st.floats(51, 100)),
    st.builds(MovingAverage, st.floats(0, 0.99)),
    st.builds(Entropy, levels=st.integers(3, 256)),
    st.builds(MSE, levels=st.integers(2, 256), exact_zero=st.booleans()),
)
STEPS = st.builds(
    QuantizeUniform,
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
    granularity=st.one_of(
        st.none(),
        st.just(PerTensor()),
        st.builds(PerAxis, st.one_of(st.none(), st.integers(0, 3))),
        st.builds(PerGroup, st.integers(1, 128)),
    ),
    observer=st.sampled_from([MinMax(), MSE()]),
    activations=st.one_of(
        st.just(FloatActivations()),
        st.builds(DynamicActivations, st.sampled_from([PerTensor(), PerToken()])),
        st.builds(StaticActivations, OBSERVERS),
    ),
    ops=st.lists(st.sampled_from(OPS), unique=True).map(tuple),
    exclude=st.lists(st.text(max_size=8)).map(tuple),
)


@given(steps=st.lists(STEPS, min_size=1, max_size=3), name=st.text(max_size=8))
@settings(max_examples=100, deadline=None)
def test_toml_round_trip(steps: list[QuantizeUniform], name: str) -> None:
    recipe = Recipe(tuple(steps), name)
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_a_recipe_as_it_is_written_by_hand() -> None:
    text = """
    [[passes]]
    type = "QuantizeUniform"
    bits = 4
    granularity = { type = "PerGroup", size = 32 }
    activations = { type = "FloatActivations" }
    exclude = ["stem", "layer4.*"]
    """
    step = QuantizeUniform(
        bits=4,
        granularity=PerGroup(32),
        activations=FloatActivations(),
        exclude=("stem", "layer4.*"),
    )
    assert Recipe.from_toml(text) == Recipe((step,))


@pytest.mark.parametrize("target", Target.names())
def test_int8_is_what_every_target_runs(target: str) -> None:
    Recipe.load("int8").validate(Target.load(target))


def test_shipped_recipes_load_and_say_their_name() -> None:
    assert "int8" in Recipe.names()
    for name in Recipe.names():
        assert Recipe.load(name).name == name


def test_a_file_of_your_own(tmp_path: Path) -> None:
    recipe = Recipe((QuantizeUniform(bits=5),), "five")
    (tmp_path / "mine.toml").write_text(recipe.to_toml())
    assert Recipe.load(tmp_path / "mine.toml") == Recipe.load(str(tmp_path / "mine.toml")) == recipe


STEP = '[[passes]]\ntype = "QuantizeUniform"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bits =", "my.toml: not valid TOML"),
        ("", r"key passes: must hold at least one table \[\[passes\]\]"),
        ("pases = 1", "key pases: is unknown; did you mean 'passes'?"),
        ("name = 3\n" + STEP, "key name: must be a string, got 3"),
        ("[[passes]]\nbits = 8", r"key passes\[0\].type: is missing; use one of QuantizeUniform"),
        (
            '[[passes]]\ntype = "QuantiseUniform"',
            r"passes\[0\].type: .* did you mean 'QuantizeUniform'",
        ),
        (
            STEP + "bit = 8",
            r"key passes\[0\].bit: is unknown to QuantizeUniform; did you mean 'bits'",
        ),
        (STEP + STEP + "bits = true", r"key passes\[1\].bits: must be a whole number, got True"),
        (STEP + 'bits = "8"', r"passes\[0\].bits: must be a whole number, got '8'"),
        (STEP + "bits = 9", r"passes\[0\]: bits is 9; weights take 2 to 8 bits"),
        (STEP + "symmetric = 1", r"passes\[0\].symmetric: must be true or false, got 1"),
        (STEP + 'ops = ["conv"]', r"passes\[0\]: ops lists 'conv'; use some of conv2d"),
        (STEP + 'exclude = "x"', r"passes\[0\].exclude: must be an array, got 'x'"),
        (STEP + "exclude = [1]", r"passes\[0\].exclude\[0\]: must be a string, got 1"),
        (
            STEP + 'granularity = "axis"',
            r'granularity: must be a table \{ type = "PerTensor" \} or',
        ),
        (
            STEP + 'granularity = { type = "PerGroup" }',
            r"granularity.size: is missing; PerGroup needs it",
        ),
        (
            STEP + 'granularity = { type = "PerGrop", size = 4 }',
            "granularity.type: .*mean 'PerGroup'",
        ),
        (
            STEP
            + 'activations = { type = "StaticActivations", observer = { type = "Percentile", percentile = 5 } }',
            r"activations.observer: percentile 5.0 is out of range; use one above 50",
        ),
    ],
)
def test_a_mistake_names_file_and_key_and_fix(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=message) as error:
        Recipe.load(file)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_unknown_and_unreadable_recipes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe 'int9' is unknown; did you mean 'int8'\?"):
        Recipe.load("int9")
    with pytest.raises(RecipeError, match=r"missing\.toml: cannot be read: No such file"):
        Recipe.load(tmp_path / "missing.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(RecipeError, match=r"latin\.toml"):
        Recipe.load(tmp_path / "latin.toml")


def test_compress_runs_the_passes_and_keeps_the_evidence() -> None:
    toy = Toy()
    model = toy.model(toy.dense("b", toy.dense("a", toy.input("x", 1, 8), 8), 4))
    target = Target.load("x86-zen4")
    recipe = Recipe((QuantizeUniform(exclude=("b",)),), "test")
    data = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    calibration = collect(model, data, recipe.observations(model, target), run)
    result = compress(model, recipe, calibration, target)
    assert [row.name for row in result.layers] == ["a"]
    assert [skip.name for skip in result.skipped] == ["b"]
    assert result.skipped[0].share == pytest.approx(1 / 3)
    assert result.calibration_digest == calibration.digest
    assert result.recipe is recipe
    assert list(result.model.params) == [
        "a.weight.codes",
        "a.weight.scale",
        "a.bias",
        "b.weight",
        "b.bias",
    ]
    assert model.params["a.weight"].dtype == np.float32


def test_what_the_target_lacks_is_refused_before_any_work() -> None:
    toy = Toy()
    model = toy.model(toy.dense("a", toy.input("x", 1, 8), 8))
    recipe = Recipe(
        (QuantizeUniform(activations=FloatActivations()), QuantizeUniform(symmetric=False))
    )
    with pytest.raises(QuantizeError, match="no integer conv2d for weights with zero points"):
        compress(model, recipe, None, Target.load("x86-zen4"))
