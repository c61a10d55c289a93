from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from graph.modules import assert_rewritten, model_of
from toys import run
from tvmcomp.frontend.block import Block, op_name, shape_of
from tvmcomp.graph.nhwc import ToNHWC

op = relax.op
nn = relax.op.nn


@I.ir_module
class Before:
    @R.function
    def main(
        x: R.Tensor((1, 4, 8, 8), "float32"),
        w: R.Tensor((6, 4, 3, 3), "float32"),
        b: R.Tensor((1, 6, 1, 1), "float32"),
        d: R.Tensor((6, 1, 3, 3), "float32"),
    ):
        with R.dataflow():
            lv = R.nn.conv2d(x, w, padding=[1, 1, 1, 1])
            lv1 = R.add(lv, b)
            lv2 = R.nn.max_pool2d(lv1, pool_size=[2, 2], strides=[2, 2])
            lv3 = R.nn.conv2d(lv2, d, strides=[2, 2], padding=[1, 1, 1, 1], groups=6)
            lv4 = R.mean(lv3, axis=[2, 3], keepdims=True)
            gv = R.reshape(lv4, R.shape([1, 6]))
            R.output(lv3, gv)
        return (lv3, gv)


@I.ir_module
class Expected:
    @R.function
    def main(
        x: R.Tensor((1, 4, 8, 8), "float32"),
        w: R.Tensor((6, 3, 3, 4), "float32"),
        b: R.Tensor((6,), "float32"),
        d: R.Tensor((6, 3, 3, 1), "float32"),
    ):
        with R.dataflow():
            x_nhwc = R.permute_dims(x, axes=[0, 2, 3, 1])
            lv = R.nn.conv2d(
                x_nhwc,
                w,
                padding=[1, 1, 1, 1],
                data_layout="NHWC",
                kernel_layout="OHWI",
                out_layout="NHWC",
            )
            lv1 = R.add(lv, b)
            lv2 = R.nn.max_pool2d(
                lv1, pool_size=[2, 2], strides=[2, 2], layout="NHWC", out_layout="NHWC"
            )
            lv3 = R.nn.conv2d(
                lv2,
                d,
                strides=[2, 2],
                padding=[1, 1, 1, 1],
                groups=6,
                data_layout="NHWC",
                kernel_layout="OHWI",
                out_layout="NHWC",
            )
            lv4 = R.mean(lv3, axis=[1, 2], keepdims=True)
            gv = R.reshape(lv4, R.shape([1, 6]))
            y = R.permute_dims(lv3, axes=[0, 3, 1, 2])
            R.output(gv, y)
        return (y, gv)


def test_a_network_is_permuted_at_its_ends_only():
    after = assert_rewritten(ToNHWC, Before, Expected)
    old = model_of(Before).params
    np.testing.assert_array_equal(after.params["w"], old["w"].transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(after.params["d"], old["d"].transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(after.params["b"], old["b"].ravel())


def network(build):
    """main(x, w, p) = build(block, conv2d(x, w), p): x [1, 4, 6, 8], p [6, 1, 1]."""
    block = Block()
    x = relax.Var("x", relax.TensorType((1, 4, 6, 8), "float32"))
    w = relax.Var("w", relax.TensorType((6, 4, 3, 3), "float32"))
    p = relax.Var("p", relax.TensorType((6, 1, 1), "float32"))
    image = block.emit(op.add(block.emit(nn.conv2d(x, w, padding=1)), p))
    result = build(block, image, p)
    results = list(result.fields) if isinstance(result, relax.Tuple) else [result]
    return block.finish([x, w, p], [block.emit(value) for value in results])


def parts(b, x, *, axis):
    split = b.emit(op.split(x, [2, 3], axis=axis))
    return [b.emit(relax.TupleGetItem(split, index)) for index in range(3)]


def gate(b, x):
    """Squeeze-excite through a [1, 6] vector, as a Linear layer would leave it."""
    pooled = b.emit(op.reshape(b.emit(op.mean(x, [2, 3], keepdims=True)), (1, 6)))
    return b.emit(op.reshape(b.emit(op.sigmoid(pooled)), (1, 6, 1, 1)))


# How often the result is permuted, besides the one permutation of the input.
CASES = {
    "average pool": (1, lambda b, x, p: nn.avg_pool2d(x, (3, 3), (2, 2), (1, 0, 1, 2))),
    "padded average": (1, lambda b, x, p: nn.avg_pool2d(x, 3, 1, 1, count_include_pad=True)),
    "adaptive pool": (1, lambda b, x, p: nn.adaptive_avg_pool2d(x, (3, 2))),
    "resize": (1, lambda b, x, p: op.image.resize2d(x, (9, 16), method="linear", layout="NCHW")),
    "pad": (1, lambda b, x, p: nn.pad(x, [0, 0, 1, 2, 3, 4, 5, 6], pad_value=2.0)),
    "concat of channels": (1, lambda b, x, p: op.concat([x, b.emit(op.exp(x))], axis=1)),
    "concat of columns": (1, lambda b, x, p: op.concat([x, b.emit(op.exp(x))], axis=-1)),
    "split of channels": (1, lambda b, x, p: op.concat(parts(b, x, axis=1)[::-1], axis=1)),
    "split of rows": (1, lambda b, x, p: op.concat(parts(b, x, axis=2)[::-1], axis=2)),
    "slice": (1, lambda b, x, p: op.strided_slice(x, [1, 3], [1, 0], [6, 8], [2, 3])),
    "softmax of channels": (1, lambda b, x, p: nn.softmax(x, axis=1)),
    "log softmax of columns": (1, lambda b, x, p: nn.log_softmax(x, axis=-1)),
    "channel maximum": (0, lambda b, x, p: op.max(x, [1], keepdims=True)),
    "mean of all": (0, lambda b, x, p: op.mean(x)),
    "sum of channels": (0, lambda b, x, p: op.sum(x, [1])),
    "sum of columns": (1, lambda b, x, p: op.sum(x, [3])),
    "vector from the image": (0, lambda b, x, p: op.max(x, [2, 3])),
    "per channel, [C, 1, 1]": (1, lambda b, x, p: op.multiply(x, p)),
    "gate": (1, lambda b, x, p: op.multiply(x, gate(b, x))),
    "prelu": (1, lambda b, x, p: nn.prelu(x, b.emit(op.reshape(p, (6,))), axis=1)),
    "permuted by the model": (0, lambda b, x, p: op.permute_dims(x, [0, 2, 3, 1])),
    "transposed by the model": (1, lambda b, x, p: op.permute_dims(x, [0, 3, 2, 1])),
    "norm between permutations": (
        1,
        lambda b, x, p: op.permute_dims(
            b.emit(op.exp(b.emit(op.permute_dims(x, [0, 2, 3, 1])))), [0, 3, 1, 2]
        ),
    ),
    "flatten": (1, lambda b, x, p: op.reshape(x, (1, 288))),
    "flatten after a full pool": (
        0,
        lambda b, x, p: op.reshape(b.emit(nn.max_pool2d(x, (6, 8))), (1, 6)),
    ),
    "operator without a rule": (1, lambda b, x, p: op.cumsum(x, axis=1)),
    "two results": (1, lambda b, x, p: relax.Tuple([nn.relu(x), op.mean(x)])),
    "spatial weights": (
        1,
        lambda b, x, p: op.multiply(
            x, relax.const(np.arange(48, dtype=np.float32).reshape(6, 8), "float32")
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_computes_the_same(case):
    permutes, build = CASES[case]
    model = model_of(network(build))
    after = ToNHWC(model).run()
    x = {"x": np.random.default_rng(2).standard_normal((1, 4, 6, 8)).astype(np.float32)}
    expected, actual = run(model)(x), run(after)(x)
    for name, value in expected.items():
        assert actual[name].shape == value.shape
        np.testing.assert_allclose(actual[name], value, rtol=1e-4, atol=1e-4)
    bindings = after.module["main"].body.blocks[0].bindings
    names = [op_name(binding.value) for binding in bindings]
    assert names.count("permute_dims") == 1 + permutes
    for binding in bindings:
        if op_name(binding.value) == "nn.conv2d":
            assert binding.value.attrs.data_layout == "NHWC"
            assert shape_of(binding.value.args[1]) == (6, 3, 3, 4)


def test_a_network_without_images_is_left_alone():
    block = Block()
    x = relax.Var("x", relax.TensorType((1, 2, 3, 4), "float32"))
    y = block.emit(nn.softmax(block.emit(op.exp(x)), axis=1))
    module = block.finish([x], [y])
    assert_rewritten(ToNHWC, module, module)
