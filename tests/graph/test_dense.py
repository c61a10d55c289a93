from __future__ import annotations

from tvm.script import ir as I
from tvm.script import relax as R

from graph.modules import assert_rewritten
from tvmcomp.graph.dense import Dense


@I.ir_module
class Rows:
    @R.function
    def main(
        x: R.Tensor((2, 3, 4), "float32"),
        w: R.Tensor((4, 6), "float32"),
        b: R.Tensor((6,), "float32"),
    ):
        with R.dataflow():
            lv = R.reshape(x, R.shape([6, 4]))
            lv1 = R.matmul(lv, w)
            lv2 = R.add(lv1, b)
            gv = R.reshape(lv2, R.shape([2, 3, 6]))
            R.output(gv)
        return gv


@I.ir_module
class Whole:
    @R.function
    def main(
        x: R.Tensor((2, 3, 4), "float32"),
        w: R.Tensor((4, 6), "float32"),
        b: R.Tensor((6,), "float32"),
    ):
        with R.dataflow():
            lv = R.matmul(x, w)
            gv = R.add(lv, b)
            R.output(gv)
        return gv


@I.ir_module
class WideBias:
    @R.function
    def main(
        x: R.Tensor((2, 3, 4), "float32"),
        w: R.Tensor((4, 6), "float32"),
        b: R.Tensor((1, 1, 6), "float32"),
    ):
        with R.dataflow():
            lv = R.matmul(x, w)
            gv = R.add(lv, b)
            R.output(gv)
        return gv


@I.ir_module
class RowBias:
    @R.function
    def main(
        x: R.Tensor((3, 4), "float32"),
        w: R.Tensor((4, 6), "float32"),
        b: R.Tensor((3, 1), "float32"),
    ):
        with R.dataflow():
            lv = R.matmul(x, w)
            gv = R.add(lv, b)
            R.output(gv)
        return gv


@I.ir_module
class OtherShape:
    @R.function
    def main(x: R.Tensor((2, 3, 4), "float32"), w: R.Tensor((4, 6), "float32")):
        with R.dataflow():
            lv = R.reshape(x, R.shape([6, 4]))
            lv1 = R.matmul(lv, w)
            gv = R.reshape(lv1, R.shape([3, 2, 6]))
            R.output(gv)
        return gv


@I.ir_module
class ReadersRows:
    @R.function
    def main(x: R.Tensor((2, 3, 4), "float32"), w: R.Tensor((4, 6), "float32")):
        with R.dataflow():
            lv = R.reshape(x, R.shape([6, 4]))
            lv1 = R.reshape(lv, R.shape([3, 2, 4]))
            gv = R.matmul(lv1, w)
            R.output(gv)
        return gv


@I.ir_module
class OtherColumns:
    @R.function
    def main(x: R.Tensor((2, 3, 4), "float32"), w: R.Tensor((4, 6), "float32")):
        with R.dataflow():
            lv = R.matmul(x, w)
            gv = R.reshape(lv, R.shape([2, 3, 2, 3]))
            R.output(gv)
        return gv


def test_reshapes_around_a_dense_layer_go():
    assert_rewritten(Dense, Rows, Whole)


def test_a_bias_is_a_vector():
    after = assert_rewritten(Dense, WideBias, Whole)
    assert after.params["b"].shape == (6,)


def test_a_value_per_row_is_no_bias():
    assert_rewritten(Dense, RowBias, RowBias)


def test_a_dense_layer_has_the_rows_its_reader_wants():
    assert_rewritten(Dense, OtherShape, ReadersRows)


def test_a_reshape_of_the_columns_stays():
    assert_rewritten(Dense, OtherColumns, OtherColumns)
