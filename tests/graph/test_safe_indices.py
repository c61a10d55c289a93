from __future__ import annotations

import numpy as np
import onnx
import pytest
from acceptance.apart import run_apart
from acceptance.index_cases import CASES, onnx_model
from acceptance.indices import _compiled, _import
from tvm.script import ir as I
from tvm.script import relax as R

import tvmcomp as tc
from graph.modules import assert_rewritten, model_of
from tvmcomp.errors import DataError, ModelError
from tvmcomp.frontend import from_onnx
from tvmcomp.graph.safe_indices import SafeIndices


@I.ir_module
class Computed:
    @R.function
    def main(
        i: R.Tensor((3,), "int64"),
        j: R.Tensor((3,), "int32"),
        x: R.Tensor((10, 4), "float32"),
    ):
        with R.dataflow():
            lv = R.add(i, i)
            lv1 = R.take(x, lv, axis=0)
            lv2 = R.astype(lv, "int32")
            lv3 = R.add(lv2, j)
            lv4 = R.take(x, lv3, axis=1)
            gv = R.add(lv1, R.astype(R.sum(lv4), "float32"))
            R.output(gv)
        return gv


@I.ir_module
class Safe:
    @R.function
    def main(
        i: R.Tensor((3,), "int64"),
        j: R.Tensor((3,), "int32"),
        x: R.Tensor((10, 4), "float32"),
    ):
        with R.dataflow():
            lv = R.add(i, i)
            less = R.less(lv, R.const(0, "int64"))
            add = R.add(lv, R.const(10, "int64"))
            where = R.where(less, add, lv)
            lv1 = R.take(x, where, axis=0, mode="clip")
            lv2 = R.astype(lv, "int32")
            lv3 = R.add(lv2, j)
            less1 = R.less(lv3, R.const(0, "int32"))
            add1 = R.add(lv3, R.const(4, "int32"))
            where1 = R.where(less1, add1, lv3)
            lv4 = R.take(x, where1, axis=1, mode="clip")
            gv = R.add(lv1, R.astype(R.sum(lv4), "float32"))
            R.output(gv)
        return gv


@I.ir_module
class Proven:
    @R.function
    def main(i: R.Tensor((3, 5), "int64"), x: R.Tensor((10, 4), "float32")):
        with R.dataflow():
            lv = R.clip(i, R.prim_value(0), R.prim_value(9))
            lv1 = R.take(x, lv, axis=0)
            lv2 = R.argmax(i, axis=1)
            lv3 = R.take(x, R.reshape(lv2, R.shape([3, 1])), axis=0)
            lv4 = R.take(x, R.const([[9, 0], [3, 3], [1, 2]], "int64"), axis=0)
            lv5 = R.take(x, R.floor_mod(i, R.const(10, "int64")), axis=0)
            lv6 = R.take(x, i, axis=0, mode="clip")
            gv = R.concat((lv1, lv3, lv4, lv5, lv6), axis=1)
            R.output(gv)
        return gv


@I.ir_module
class Clipped:
    @R.function
    def main(i: R.Tensor((3, 5), "int64"), x: R.Tensor((10, 4), "float32")):
        with R.dataflow():
            lv = R.clip(i, R.prim_value(0), R.prim_value(9))
            lv1 = R.take(x, lv, axis=0, mode="clip")
            lv2 = R.argmax(i, axis=1)
            lv3 = R.take(x, R.reshape(lv2, R.shape([3, 1])), axis=0, mode="clip")
            lv4 = R.take(x, R.const([[9, 0], [3, 3], [1, 2]], "int64"), axis=0, mode="clip")
            lv5 = R.take(x, R.floor_mod(i, R.const(10, "int64")), axis=0, mode="clip")
            lv6 = R.take(x, i, axis=0, mode="clip")
            gv = R.concat((lv1, lv3, lv4, lv5, lv6), axis=1)
            R.output(gv)
        return gv


@I.ir_module
class Negative:
    @R.function
    def main(x: R.Tensor((10, 4), "float32")):
        with R.dataflow():
            gv = R.take(x, R.const([-1, 3, -10], "int64"), axis=0)
            R.output(gv)
        return gv


@I.ir_module
class FromTheFront:
    @R.function
    def main(x: R.Tensor((10, 4), "float32")):
        with R.dataflow():
            gv = R.take(x, R.const([9, 3, 0], "int64"), axis=0, mode="clip")
            R.output(gv)
        return gv


def test_computed_indices_are_wrapped_and_clipped():
    after = assert_rewritten(SafeIndices, Computed, Safe, inputs=3)
    assert all(tensor.bounds is None for tensor in after.signature.inputs.values())


def test_what_is_proven_costs_nothing():
    after = assert_rewritten(SafeIndices, Proven, Clipped, inputs=2)
    assert after.signature.inputs["i"].bounds is None


def test_constants_count_from_the_front():
    assert_rewritten(SafeIndices, Negative, FromTheFront)


@pytest.mark.parametrize("index", [10, -11, 2**63 - 1, -(2**63)])
def test_a_constant_outside_is_refused(index):
    @I.ir_module
    class Outside:
        @R.function
        def main(x: R.Tensor((10, 4), "float32")):
            with R.dataflow():
                gv = R.take(x, R.const(index, "int64"), axis=0)
                R.output(gv)
            return gv

    with pytest.raises(ModelError, match=rf"index {index} is outside an axis of length 10; use"):
        SafeIndices(model_of(Outside)).run()


def test_a_constant_outside_is_refused_at_import_with_its_node():
    model = onnx_model("Gather", {"x": (10, 4)}, {"i": (2,)}, ("x", "i"))(False)
    value = np.array([3, 10])
    model.graph.input.pop()
    model.graph.initializer.append(onnx.numpy_helper.from_array(value, "i"))
    with pytest.raises(ModelError, match=r"Gather node node .*index 10 is outside.*-10 to 9"):
        from_onnx(model)


def test_a_network_refuses_inputs_outside_and_says_the_range():
    network = _compiled(onnx_model("Gather", {"x": (10, 4)}, {"i": (3,)}, ("x", "i"))(False))
    assert network.signature.inputs["i"].bounds == (-10, 9)
    x = np.arange(40, dtype=np.float32).reshape(10, 4)
    np.testing.assert_array_equal(network(x, np.array([9, -10, -1])), x[[9, 0, 9]])
    for index in (10, -11, 10**6, 2**63 - 1, -(2**63)):
        with pytest.raises(DataError, match=rf"'i': got {index}, .* as an index; .* -10 to 9"):
            network(x, np.array([0, index, 1]))


def test_no_operator_leaves_its_table(tmp_path):
    """In a process of its own, which a stray address may kill; all operators are an acceptance row."""
    names = ("Gather of int32", "ScatterElements max, short", "ScatterND mul", "torch index_put")
    artifacts = {}
    for case in (case for case in CASES if case.name in names):
        artifacts[case.name] = str(tmp_path / f"{len(artifacts)}.tvmcomp")
        tc.compile(_import(case.model(True))).save(artifacts[case.name])
    options = {"artifacts": artifacts, "seeds": 4}
    found = run_apart("acceptance.indices:measure_saved", options)
    assert found == dict.fromkeys(names, "")
