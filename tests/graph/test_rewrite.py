from __future__ import annotations

import pytest
from tvm import relax

from graph.modules import model_of
from tvmcomp.frontend.block import Block, op_name, unique
from tvmcomp.graph.canonical import CANONICAL, canonicalize
from tvmcomp.graph.names import NameBindings
from tvmcomp.graph.rewrite import Rewriter


class SinForCos(Rewriter):
    """cos(x)  ->  sin(x)"""

    STARTS_FROM = frozenset({"cos"})

    def rewrite(self, call, name):
        return relax.op.sin(call.args[0]) if op_name(call) == "cos" else None


class Nothing(Rewriter):
    def rewrite(self, call, name):
        return None


def model(*operators, params=("w", "v")):
    """main(x, w, v) = (f_n(...f_1(x + w)), v)"""
    block = Block()
    x, *arrays = (relax.Var(name, relax.TensorType((2, 3), "float32")) for name in ("x", *params))
    named = {str(var.name): var for var in arrays}
    value = block.emit(relax.op.add(x, named["w"]))
    for operator in operators:
        value = block.emit(getattr(relax.op, operator)(value))
    outputs = [value, block.emit(relax.op.exp(named["v"]))]
    return model_of(block.finish([x, *arrays], outputs), 1)


def bindings(result):
    return [b for block in result.module["main"].body.blocks for b in block.bindings]


def test_a_walk_that_changes_nothing_returns_the_model():
    source = model("cos")
    assert Nothing(source).run() is source


def test_without_its_operators_a_rewrite_does_not_walk(monkeypatch):
    source = model("tanh")
    monkeypatch.setattr(SinForCos, "rewrite", lambda *_: pytest.fail("walked"))
    assert SinForCos(source).run() is source


def test_bindings_before_and_after_a_change():
    source = model("tanh", "cos", "exp")
    result = SinForCos(source).run()
    assert [op_name(b.value) for b in bindings(result)] == ["add", "tanh", "sin", "exp", "exp"]
    relax.analysis.well_formed(result.module)
    # What no change reaches is not built again.
    for old, new in list(zip(bindings(source), bindings(result), strict=True))[:2]:
        assert new.var.same_as(old.var)
        assert new.value.same_as(old.value)


def test_parameters_come_in_the_order_they_are_read():
    result = Nothing(model("cos", params=("v", "w"))).run()
    assert list(result.params) == ["w", "v"]


def test_unread_parameters_are_dropped():
    source = model("cos", params=("w", "v", "unread"))
    assert list(Nothing(source).run().params) == ["w", "v"]


def test_canonical_passes_find_nothing_in_what_they_made():
    canonical = canonicalize(model("cos", "tanh"))
    for rewriter in CANONICAL:
        if rewriter is not NameBindings:
            result = rewriter(canonical).run()
            assert result.module.same_as(canonical.module), rewriter


def test_unique_names_are_numbered_from_one():
    taken = {"add": 0, "add_2": 0}
    assert [unique(name, taken) for name in ("add", "add", "mul", "add_1", "mul")] == [
        "add_1",
        "add_3",
        "mul",
        "add_1_1",
        "mul_1",
    ]
