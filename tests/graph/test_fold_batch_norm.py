from __future__ import annotations

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from graph.modules import assert_rewritten, model_of
from toys import run
from tvmcomp.errors import ModelError
from tvmcomp.graph.fold_batch_norm import FoldBatchNorm, weight_prefix
from tvmcomp.graph.simplify import Simplify


@I.ir_module
class ConvBatchNorm:
    @R.function
    def main(
        x: R.Tensor((1, 4, 8, 8), "float32"),
        c_weight: R.Tensor((6, 4, 3, 3), "float32"),
        gamma: R.Tensor((6,), "float32"),
        beta: R.Tensor((6,), "float32"),
        mean: R.Tensor((6,), "float32"),
        var: R.Tensor((6,), "float32"),
    ):
        with R.dataflow():
            lv = R.nn.conv2d(x, c_weight, padding=[1, 1, 1, 1])
            lv1 = R.nn.batch_norm(lv, gamma, beta, mean, var, axis=1, epsilon=1e-3, training=False)
            gv = lv1[0]
            R.output(gv)
        return gv


@I.ir_module
class ConvBias:
    @R.function
    def main(
        x: R.Tensor((1, 4, 8, 8), "float32"),
        c_weight: R.Tensor((6, 4, 3, 3), "float32"),
        c_bias: R.Tensor((1, 6, 1, 1), "float32"),
    ):
        with R.dataflow():
            lv = R.nn.conv2d(x, c_weight, padding=[1, 1, 1, 1])
            gv = R.add(lv, c_bias)
            R.output(gv)
        return gv


@I.ir_module
class BiasedConvBatchNorm:
    @R.function
    def main(
        x: R.Tensor((1, 4, 8, 8), "float32"),
        c_weight: R.Tensor((6, 4, 3, 3), "float32"),
        c_bias: R.Tensor((1, 6, 1, 1), "float32"),
        gamma: R.Tensor((6,), "float32"),
        beta: R.Tensor((6,), "float32"),
        mean: R.Tensor((6,), "float32"),
        var: R.Tensor((6,), "float32"),
    ):
        with R.dataflow():
            lv = R.nn.conv2d(x, c_weight, padding=[1, 1, 1, 1])
            lv1 = R.add(lv, c_bias)
            lv2 = R.nn.batch_norm(lv1, gamma, beta, mean, var, axis=1, epsilon=1e-3, training=False)
            gv = lv2[0]
            R.output(gv)
        return gv


@I.ir_module
class ConvReadTwice:
    @R.function
    def main(
        x: R.Tensor((1, 4, 8, 8), "float32"),
        c_weight: R.Tensor((6, 4, 3, 3), "float32"),
        bn_weight: R.Tensor((6,), "float32"),
        beta: R.Tensor((6,), "float32"),
        mean: R.Tensor((6,), "float32"),
        var: R.Tensor((6,), "float32"),
    ):
        with R.dataflow():
            lv = R.nn.conv2d(x, c_weight, padding=[1, 1, 1, 1])
            lv1 = R.nn.batch_norm(
                lv, bn_weight, beta, mean, var, axis=1, epsilon=1e-3, training=False
            )
            lv2 = lv1[0]
            gv = R.add(lv, lv2)
            R.output(gv)
        return gv


@I.ir_module
class MultiplyAdd:
    @R.function
    def main(
        x: R.Tensor((1, 4, 8, 8), "float32"),
        c_weight: R.Tensor((6, 4, 3, 3), "float32"),
        scale: R.Tensor((1, 6, 1, 1), "float32"),
        shift: R.Tensor((1, 6, 1, 1), "float32"),
    ):
        with R.dataflow():
            lv = R.nn.conv2d(x, c_weight, padding=[1, 1, 1, 1])
            lv1 = R.multiply(lv, scale)
            lv2 = R.add(lv1, shift)
            gv = R.add(lv, lv2)
            R.output(gv)
        return gv


@I.ir_module
class DenseBatchNorm:
    @R.function
    def main(
        x: R.Tensor((3, 4), "float32"),
        d_weight: R.Tensor((4, 6), "float32"),
        d_bias: R.Tensor((6,), "float32"),
        gamma: R.Tensor((6,), "float32"),
        beta: R.Tensor((6,), "float32"),
        mean: R.Tensor((6,), "float32"),
        var: R.Tensor((6,), "float32"),
    ):
        with R.dataflow():
            lv = R.matmul(x, d_weight)
            lv1 = R.add(lv, d_bias)
            lv2 = R.nn.batch_norm(lv1, gamma, beta, mean, var, axis=1, epsilon=1e-3, training=False)
            gv = lv2[0]
            R.output(gv)
        return gv


@I.ir_module
class DenseBias:
    @R.function
    def main(
        x: R.Tensor((3, 4), "float32"),
        d_weight: R.Tensor((4, 6), "float32"),
        d_bias: R.Tensor((1, 6), "float32"),
    ):
        with R.dataflow():
            lv = R.matmul(x, d_weight)
            gv = R.add(lv, d_bias)
            R.output(gv)
        return gv


@I.ir_module
class TrainingMode:
    @R.function
    def main(
        x: R.Tensor((2, 6, 4, 4), "float32"),
        gamma: R.Tensor((6,), "float32"),
        beta: R.Tensor((6,), "float32"),
        mean: R.Tensor((6,), "float32"),
        var: R.Tensor((6,), "float32"),
    ):
        with R.dataflow():
            lv = R.nn.batch_norm(x, gamma, beta, mean, var, axis=1, training=True)
            gv = lv[0]
            R.output(gv)
        return gv


@I.ir_module
class BatchStatistics:
    @R.function
    def main(
        x: R.Tensor((2, 6, 4, 4), "float32"),
        gamma: R.Tensor((6,), "float32"),
        beta: R.Tensor((6,), "float32"),
    ):
        with R.dataflow():
            lv = R.mean(x, axis=[0, 2, 3])
            lv1 = R.variance(x, axis=[0, 2, 3])
            lv2 = R.nn.batch_norm(x, gamma, beta, lv, lv1, axis=1, training=False)
            gv = lv2[0]
            R.output(gv)
        return gv


def affine(params: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    scale = params["gamma"] / np.sqrt(params["var"] + 1e-3)
    return scale, params["beta"] - params["mean"] * scale


def test_folds_into_a_convolution_without_bias():
    after = assert_rewritten(FoldBatchNorm, ConvBatchNorm, ConvBias)
    old = model_of(ConvBatchNorm).params
    scale, shift = affine(old)
    assert list(after.params) == ["c_weight", "c.bias"]
    expected = old["c_weight"] * scale[:, None, None, None]
    np.testing.assert_allclose(after.params["c_weight"], expected, rtol=1e-6)
    np.testing.assert_allclose(after.params["c.bias"].ravel(), shift, rtol=1e-5, atol=1e-6)


def test_folds_into_a_convolution_with_bias():
    after = assert_rewritten(FoldBatchNorm, BiasedConvBatchNorm, ConvBias)
    old = model_of(BiasedConvBatchNorm).params
    scale, shift = affine(old)
    expected = old["c_bias"].ravel() * scale + shift
    assert list(after.params) == ["c_weight", "c_bias"]
    np.testing.assert_allclose(after.params["c_bias"].ravel(), expected, rtol=1e-5, atol=1e-6)


def test_a_convolution_read_elsewhere_keeps_its_weights():
    after = assert_rewritten(FoldBatchNorm, ConvReadTwice, MultiplyAdd)
    old = model_of(ConvReadTwice).params
    np.testing.assert_array_equal(after.params["c_weight"], old["c_weight"])
    assert set(after.params) == {"c_weight", "bn.scale", "bn.shift"}


def test_folds_into_a_dense_layer():
    after = assert_rewritten(FoldBatchNorm, DenseBatchNorm, DenseBias)
    old = model_of(DenseBatchNorm).params
    scale, shift = affine(old)
    np.testing.assert_allclose(after.params["d_weight"], old["d_weight"] * scale, rtol=1e-6)
    expected = old["d_bias"] * scale + shift
    np.testing.assert_allclose(after.params["d_bias"].ravel(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("before", [ConvBatchNorm, BiasedConvBatchNorm, ConvReadTwice])
def test_computes_the_same(before):
    model = Simplify(model_of(before)).run()
    x = {"x": np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float32)}
    expected = run(model)(x)["output0"]
    actual = run(FoldBatchNorm(model).run())(x)["output0"]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("before", [BatchStatistics, TrainingMode])
def test_statistics_of_the_batch_are_refused(before):
    with pytest.raises(ModelError, match="evaluation mode"):
        FoldBatchNorm(model_of(before)).run()


def test_weight_prefix():
    assert weight_prefix("layer1.0.conv1.weight") == "layer1.0.conv1"
    assert weight_prefix("onnx::Conv_12") == "onnx::Conv_12"
