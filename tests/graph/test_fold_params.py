from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from graph.modules import assert_rewritten, model_of
from tvmcomp.frontend.block import Block, as_array, op_name
from tvmcomp.graph.fold_params import FoldParams


@I.ir_module
class Transposed:
    @R.function
    def main(x: R.Tensor((2, 4), "float32"), w: R.Tensor((6, 4), "float32")):
        with R.dataflow():
            lv = R.permute_dims(w, axes=[1, 0])
            gv = R.matmul(x, lv)
            R.output(gv)
        return gv


@I.ir_module
class Plain:
    @R.function
    def main(x: R.Tensor((2, 4), "float32"), w: R.Tensor((4, 6), "float32")):
        with R.dataflow():
            gv = R.matmul(x, w)
            R.output(gv)
        return gv


@I.ir_module
class Computed:
    @R.function
    def main(
        x: R.Tensor((2, 4), "float32"),
        w: R.Tensor((4,), "float32"),
        v: R.Tensor((4,), "float32"),
    ):
        with R.dataflow():
            lv = R.exp(w)
            lv1 = R.multiply(lv, v)
            gv = R.add(x, lv1)
            R.output(gv)
        return gv


@I.ir_module
class OneParameter:
    @R.function
    def main(x: R.Tensor((2, 4), "float32"), w: R.Tensor((4,), "float32")):
        with R.dataflow():
            gv = R.add(x, w)
            R.output(gv)
        return gv


@I.ir_module
class SharedTwice:
    @R.function
    def main(x: R.Tensor((4, 4), "float32"), w: R.Tensor((4, 4), "float32")):
        with R.dataflow():
            lv = R.permute_dims(w, axes=[1, 0])
            lv1 = R.matmul(x, lv)
            lv2 = R.permute_dims(w, axes=[1, 0])
            gv = R.matmul(lv1, lv2)
            R.output(gv)
        return gv


@I.ir_module
class SharedOnce:
    @R.function
    def main(x: R.Tensor((4, 4), "float32"), w: R.Tensor((4, 4), "float32")):
        with R.dataflow():
            lv = R.matmul(x, w)
            gv = R.matmul(lv, w)
            R.output(gv)
        return gv


@I.ir_module
class Quantized:
    @R.function
    def main(
        x: R.Tensor((2, 4), "float32"),
        w: R.Tensor((4, 6), "int8"),
        s: R.Tensor((6,), "float32"),
        z: R.Tensor((6,), "int8"),
    ):
        with R.dataflow():
            lv = R.dequantize(w, s, z, axis=1, out_dtype="float32")
            gv = R.matmul(x, lv)
            R.output(gv)
        return gv


@I.ir_module
class Indices:
    @R.function
    def main(x: R.Tensor((2, 4), "float32")):
        with R.dataflow():
            lv = R.arange(0, 4, 1, dtype="int64")
            lv1 = R.subtract(R.const(3, "int64"), lv)
            gv = R.take(x, lv1, axis=1)
            R.output(gv)
        return gv


def test_a_transposed_weight_keeps_its_name():
    after = assert_rewritten(FoldParams, Transposed, Plain)
    np.testing.assert_array_equal(after.params["w"], model_of(Transposed).params["w"].T)


def test_arithmetic_on_parameters_is_done_once():
    after = assert_rewritten(FoldParams, Computed, OneParameter)
    old = model_of(Computed).params
    (value,) = after.params.values()
    np.testing.assert_allclose(value, np.exp(old["w"]) * old["v"], rtol=1e-6)


def test_a_shared_weight_stays_shared():
    after = assert_rewritten(FoldParams, SharedTwice, SharedOnce)
    assert list(after.params) == ["w"]


def test_quantized_weights_stay_quantized():
    after = assert_rewritten(FoldParams, Quantized, Quantized)
    assert after.params["w"].dtype == np.int8


def test_indices_become_constants():
    after = FoldParams(model_of(Indices)).run()
    (binding,) = after.module["main"].body.blocks[0].bindings
    assert op_name(binding.value) == "take"
    np.testing.assert_array_equal(as_array(binding.value.args[1]), [3, 2, 1, 0])
    assert as_array(binding.value.args[1]).dtype == np.int64


def test_a_scalar_parameter_becomes_a_constant():
    scalar = relax.Var("w", relax.TensorType((), "float32"))
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2, 4), "float32"))
    with builder.function("main", [x, scalar]):
        with builder.dataflow():
            out = builder.emit_output(relax.op.add(x, scalar))
        builder.emit_func_output(out)
    model = model_of(builder.get())
    after = FoldParams(model).run()
    assert after.params == {}
    (binding,) = after.module["main"].body.blocks[0].bindings
    assert as_array(binding.value.args[1]) == model.params["w"]


@I.ir_module
class Sliced:
    @R.function
    def main(x: R.Tensor((2, 4), "float32"), w: R.Tensor((6, 4), "float32")):
        with R.dataflow():
            lv = R.strided_slice(w, axes=[0, 1], begin=[-3, 0], end=[6, 3], strides=[2, 1])
            lv1 = R.split(lv, 2, axis=0)
            lv2 = R.matmul(lv1[1], R.ones((3, 4), "float32"))
            gv = R.add(x, lv2)
            R.output(gv)
        return gv


def test_slices_splits_and_products_are_computed():
    model = model_of(Sliced)
    folded = FoldParams(model).run()
    (array,) = folded.params.values()
    # Row 5, its first three columns.
    want = np.broadcast_to(model.params["w"][5, :3].sum(dtype=np.float64), (1, 4))
    np.testing.assert_allclose(array, want, rtol=1e-6)


@pytest.mark.parametrize(("name", "expected"), [("mod", [-1, 0, 1]), ("floor_mod", [2, 0, 1])])
def test_remainders_have_the_sign_their_operator_gives_them(name: str, expected: list[int]):
    block = Block()
    x = relax.Var("x", relax.TensorType((3,), "int64"))
    values = relax.const(np.array([-4, 3, 7]), "int64")
    remainder = block.emit(getattr(relax.op, name)(values, relax.const(3, "int64")))
    module = block.finish([x], [block.emit(relax.op.add(x, remainder))])
    run = relax.VirtualMachine(tvm.compile(module, "llvm"), tvm.cpu())["main"]
    np.testing.assert_array_equal(run(tvm.runtime.tensor(np.zeros(3, np.int64))).numpy(), expected)
    folded = FoldParams(model_of(module)).run().module["main"].body.blocks[0].bindings
    np.testing.assert_array_equal(as_array(folded[0].value.args[1]), expected)
