"""Placement on small graphs, as the modules that QuantizeUniform writes: Before and Expected side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.ir import Expr

from toys import Toy
from tvmcomp.calibrate import TensorStats
from tvmcomp.compress.granularity import PerAxis
from tvmcomp.compress.packed_weight import UniformWeight
from tvmcomp.compress.quantize import QuantizeUniform
from tvmcomp.compress.quantize.graph import Graph
from tvmcomp.compress.quantize.placement import Placement, Selection, place
from tvmcomp.model import Model
from tvmcomp.target import Target

TARGET = Target.load("x86-zen4")


def stats_of(scales: Mapping[str, float]) -> dict[str, TensorStats]:
    """Ranges [0, 255 * scale]: every tensor has a scale of its own, so that no two can be confused."""
    low = np.zeros(())
    ends = {name: np.array(255.0 * scale) for name, scale in scales.items()}
    return {name: TensorStats(low, high, low, high, 1) for name, high in ends.items()}


def pair(toy: Toy, x: Expr, scale: float) -> Expr:
    arguments = (relax.const(np.float32(scale)), relax.const(np.uint8(0)))
    codes = toy.emit(f"{x.name}.q", relax.op.quantize(x, *arguments, axis=-1, out_dtype="uint8"))
    return toy.emit(
        f"{x.name}.dq", relax.op.dequantize(codes, *arguments, axis=-1, out_dtype="float32")
    )


def floats(toy: Toy, x: Expr, scale: float) -> Expr:
    """What Before has where Expected has a pair."""
    del toy, scale
    return x


Pair = Callable[[Toy, Expr, float], Expr]


class Layers(Toy):
    """A Toy whose weights are plain, or compressed as QuantizeUniform compresses them."""

    def __init__(self, quantized: bool) -> None:
        super().__init__()
        self._quantized = quantized
        self.pair: Pair = pair if quantized else floats

    def put(self, x: Expr, scale: float) -> Expr:
        """A pair in Expected, nothing in Before."""
        return self.pair(self, x, scale)

    def param(self, name: str, array: np.ndarray) -> Expr:
        if not self._quantized or not name.endswith(".weight"):
            return super().param(name, array)
        return self._compressed(name, array, 0 if array.ndim == 4 else 1)

    def table(self, name: str, rows: int, channels: int) -> Expr:
        """An embedding's table: a scale per row."""
        array = self.normal(rows, channels)
        return self._compressed(name, array, 0) if self._quantized else super().param(name, array)

    def _compressed(self, name: str, array: np.ndarray, axis: int) -> Expr:
        form = UniformWeight.from_codes(
            np.zeros(array.shape, np.int8),
            np.ones(array.shape[axis], np.float32),
            None,
            bits=8,
            granularity=PerAxis(axis),
        )
        return self.weight(name, form)


Network = Callable[[Layers], tuple[Expr, ...]]


def stem(net: Layers) -> tuple[Expr, ...]:
    """NCHW in: the pair stands behind the permute; none inside conv, bias and relu, none on the result."""
    x = net.input("x", 1, 4, 8, 8)
    x = net.put(net.emit("nhwc", relax.op.permute_dims(x, [0, 2, 3, 1])), 0.5)
    y = net.emit("relu", relax.op.nn.relu(net.conv("conv1", x, 8)))
    return (y,)


def clipped(net: Layers) -> tuple[Expr, ...]:
    """ReLU6 behind a depthwise convolution without bias."""
    x = net.put(net.input("x", 1, 8, 8, 4), 0.5)
    y = net.emit("clip", relax.op.clip(net.conv("dw", x, 4, groups=4, bias=False), 0, 6))
    return (y,)


def residual(net: Layers) -> tuple[Expr, ...]:
    """Nothing between the convolution, its residual addition and the relu after it."""
    x = net.put(net.input("x", 1, 8, 8, 4), 0.5)
    a = net.put(net.emit("relu1", relax.op.nn.relu(net.conv("conv1", x, 4))), 0.25)
    b = net.conv("conv2", a, 4)
    y = net.emit("relu2", relax.op.nn.relu(net.emit("sum", relax.op.add(b, x))))
    return (y,)


def downsample(net: Layers) -> tuple[Expr, ...]:
    """Of two convolutions into one addition the later takes it; the earlier one's result gets the pair."""
    x = net.put(net.input("x", 1, 8, 8, 4), 0.5)
    early = net.put(net.conv("shortcut", x, 6, k=1), 0.25)
    late = net.conv("conv", x, 6)
    y = net.emit("relu", relax.op.nn.relu(net.emit("sum", relax.op.add(late, early))))
    return (y,)


def shared_conv(net: Layers) -> tuple[Expr, ...]:
    """A convolution that is read twice cannot take the addition: pairs on both of its operands."""
    x = net.put(net.input("x", 1, 8, 8, 4), 0.5)
    a = net.put(net.conv("conv1", x, 4), 0.25)
    b = net.put(net.emit("sum", relax.op.add(a, x)), 0.125)
    c = net.conv("conv2", a, 4)
    return c, b


def plain_add(net: Layers) -> tuple[Expr, ...]:
    """Two tensors no convolution makes: their addition takes the relu."""
    x, y = net.input("x", 1, 8, 8, 4), net.input("y", 1, 8, 8, 4)
    x, y = net.put(x, 0.5), net.put(y, 0.25)
    z = net.emit("relu", relax.op.nn.relu(net.emit("sum", relax.op.add(x, y))))
    return (net.put(z, 0.125),)


def silu(net: Layers) -> tuple[Expr, ...]:
    """A unary function other than relu: a pair before and a pair after."""
    x = net.put(net.input("x", 1, 8, 8, 4), 0.5)
    a = net.put(net.conv("conv", x, 4), 0.25)
    return (net.put(net.emit("silu", relax.op.nn.silu(a)), 0.125),)


def hard_swish(net: Layers) -> tuple[Expr, ...]:
    """x * clip(x + 3, 0, 6) / 6: one chain over one tensor, no pair inside it."""
    x = net.put(net.input("x", 1, 8, 8, 4), 0.5)
    a = net.put(net.conv("conv", x, 4), 0.25)
    shifted = net.emit("shifted", relax.op.add(a, relax.const(np.float32(3))))
    gate = net.emit("gate", relax.op.clip(shifted, 0, 6))
    product = net.emit("product", relax.op.multiply(a, gate))
    y = net.emit("hswish", relax.op.divide(product, relax.const(np.float32(6))))
    return (net.put(y, 0.125),)


def gate_used_twice(net: Layers) -> tuple[Expr, ...]:
    """sigmoid(x) needed elsewhere: it ends its chain, and x * sigmoid(x) is a multiplication."""
    x = net.put(net.input("x", 1, 8, 8, 4), 0.5)
    gate = net.put(net.emit("gate", relax.op.sigmoid(x)), 0.25)
    y = net.put(net.emit("product", relax.op.multiply(x, gate)), 0.125)
    return net.conv("conv", gate, 4), y


def squeeze_excite(net: Layers) -> tuple[Expr, ...]:
    """Global pool, two 1x1 convolutions, sigmoid, gate."""
    x = net.put(net.input("x", 1, 8, 8, 4), 0.5)
    pooled = net.put(net.emit("mean", relax.op.mean(x, [1, 2], keepdims=True)), 0.25)
    hidden = net.put(net.emit("relu", relax.op.nn.relu(net.conv("fc1", pooled, 2, k=1))), 0.125)
    gate = net.put(net.conv("fc2", hidden, 4, k=1), 0.0625)
    gate = net.put(net.emit("sigmoid", relax.op.sigmoid(gate)), 0.03125)
    return (net.put(net.emit("scaled", relax.op.multiply(x, gate)), 0.015625),)


def moves(net: Layers) -> tuple[Expr, ...]:
    """Max pool, resize and reshape keep their input's scale and zero point."""
    x = net.put(net.input("x", 1, 8, 8, 4), 0.5)
    a = net.put(net.conv("conv", x, 4), 0.25)
    a = net.put(net.emit("pool", relax.op.nn.max_pool2d(a, (2, 2), (2, 2), layout="NHWC")), 0.25)
    size = relax.ShapeExpr([8, 8])
    a = net.put(
        net.emit("up", relax.op.image.resize2d(a, size, layout="NHWC", method="linear")), 0.25
    )
    a = net.put(net.emit("flat", relax.op.reshape(a, (1, 256))), 0.25)
    return (net.dense("fc", a, 10),)


def concat(net: Layers) -> tuple[Expr, ...]:
    """Each operand has its own scale, and so has the result."""
    x = net.put(net.input("x", 1, 8, 8, 4), 0.5)
    a = net.put(net.conv("conv", x, 4), 0.25)
    return (net.put(net.emit("cat", relax.op.concat([a, x], axis=-1)), 0.125),)


def scores(net: Layers) -> tuple[Expr, ...]:
    """Head split, product with the transposed keys, scale: one pair on each operand, carried, and one behind."""
    x = net.put(net.input("x", 1, 8, 16), 0.5)
    q, k = net.put(net.dense("q", x, 16), 0.25), net.put(net.dense("k", x, 16), 0.125)
    heads = []
    for name, part, scale, axes in (("q", q, 0.25, [0, 2, 1, 3]), ("k", k, 0.125, [0, 2, 3, 1])):
        split = net.put(net.emit(f"{name}.split", relax.op.reshape(part, (1, 8, 2, 8))), scale)
        heads.append(net.put(net.emit(f"{name}.heads", relax.op.permute_dims(split, axes)), scale))
    product = net.emit("product", relax.op.matmul(*heads))
    scaled = net.emit("scaled", relax.op.multiply(product, relax.const(np.float32(0.35))))
    return (net.put(scaled, 0.0625),)


def float_tail(net: Layers) -> tuple[Expr, ...]:
    """A softmax at the end stays in float: the dense layer before it is integer, its own result has no pair."""
    x = net.put(net.input("x", 1, 16), 0.5)
    return (net.emit("softmax", relax.op.nn.softmax(net.dense("fc", x, 10))),)


def attention_mask(net: Layers) -> tuple[Expr, ...]:
    """Pairs on the scores before factor and mask, and on the result; the mask and what makes it stay in float."""
    x, m = net.input("x", 1, 4, 16), net.input("m", 1, 1, 16)
    x = net.put(x, 0.5)
    scores = net.put(
        net.emit("scores", relax.op.matmul(x, net.param("w.weight", net.normal(16, 16)))), 0.25
    )
    gone = net.emit("gone", relax.op.subtract(m, relax.const(np.float32(1))))
    mask = net.emit("mask", relax.op.multiply(gone, relax.const(np.float32(1e4))))
    scaled = net.emit("scaled", relax.op.multiply(scores, relax.const(np.float32(0.125))))
    masked = net.emit("masked", relax.op.add(scaled, mask))
    soft = net.put(net.emit("soft", relax.op.nn.softmax(masked)), 0.125)
    return (net.dense("fc", soft, 8),)


def norms(net: Layers) -> tuple[Expr, ...]:
    """Dense with its residual, then a layer norm, an RMS norm and a bias that no dense layer takes."""
    x = net.put(net.input("x", 1, 4, 16), 0.5)
    total = net.put(net.emit("sum", relax.op.add(net.dense("fc", x, 16), x)), 0.25)
    gamma, beta = net.param("gamma", net.normal(16)), net.param("beta", net.normal(16))
    y = net.put(net.emit("ln", relax.op.nn.layer_norm(total, gamma, beta, axes=[-1])), 0.125)
    z = net.put(net.emit("rms", relax.op.nn.rms_norm(y, gamma, axes=[-1])), 0.0625)
    position = net.param("position", net.normal(4, 16))
    return (net.put(net.emit("placed", relax.op.add(z, position)), 0.03125),)


def layer_scale(net: Layers) -> tuple[Expr, ...]:
    """A multiplication and an addition with arrays are one layer; an addition of smaller tensors is another."""
    x = net.put(net.input("x", 1, 4, 16), 0.5)
    scaled = net.emit("scaled", relax.op.multiply(x, net.param("gamma", net.normal(16))))
    y = net.put(net.emit("shifted", relax.op.add(scaled, net.param("beta", net.normal(16)))), 0.25)
    row = net.put(net.emit("row", relax.op.mean(y, [1], True)), 0.125)
    return (net.put(net.emit("sum", relax.op.add(y, row)), 0.0625),)


def tokens(net: Layers) -> tuple[Expr, ...]:
    """A class token joined as codes and sliced off again, with the scale of what it was joined to."""
    x = net.put(net.input("x", 1, 4, 16), 0.5)
    token = net.param("token", net.normal(1, 1, 16))
    joined = net.put(net.emit("joined", relax.op.concat([token, x], 1)), 0.25)
    first = net.put(net.emit("first", relax.op.strided_slice(joined, [1], [0], [1])), 0.25)
    flat = net.put(net.emit("flat", relax.op.reshape(first, (1, 16))), 0.25)
    return (net.dense("fc", flat, 8),)


def embedded(net: Layers) -> tuple[Expr, ...]:
    """A table by an integer input: its weight is compressed by rows, its result gets the pair."""
    index = net.input("index", 1, 4, dtype="int64")
    table = net.table("words.weight", 10, 16)
    x = net.put(net.emit("words", relax.op.take(table, index, axis=0)), 0.5)
    return (net.dense("fc", x, 8),)


NETWORKS: tuple[Network, ...] = (
    stem,
    clipped,
    residual,
    downsample,
    shared_conv,
    plain_add,
    silu,
    hard_swish,
    gate_used_twice,
    squeeze_excite,
    moves,
    concat,
    scores,
    float_tail,
    attention_mask,
    norms,
    layer_scale,
    tokens,
    embedded,
)


def scales_in(module: tvm.IRModule) -> dict[str, float]:
    """Tensor -> scale, from the quantize operators of a module."""
    return {
        str(binding.value.args[0].name): float(binding.value.args[1].value.numpy())
        for block in module["main"].body.blocks
        for binding in block.bindings
        if str(binding.var.name).endswith(".q")
    }


@pytest.mark.parametrize("network", NETWORKS)
def test_before_becomes_expected(network: Network) -> None:
    before, expected = Layers(quantized=False), Layers(quantized=True)
    model = before.model(*network(before))
    wanted = expected.model(*network(expected))
    result = QuantizeUniform()(model, stats_of(scales_in(wanted.module)), TARGET).model
    relax.analysis.well_formed(result.module)
    tvm.ir.assert_structural_equal(result.module, wanted.module)
    assert list(result.params) == list(wanted.params)
    assert scales_in(result.module) == scales_in(wanted.module)


@pytest.mark.parametrize("network", NETWORKS)
def test_exactly_the_tensors_that_need_statistics_are_asked_for(network: Network) -> None:
    before, expected = Layers(quantized=False), Layers(quantized=True)
    model = before.model(*network(before))
    needed = QuantizeUniform().observers(model, TARGET)
    carried = placed(model).carried
    assert {*needed, *carried} == set(scales_in(expected.model(*network(expected)).module))
    assert not needed.keys() & carried.keys()


def placed(model: Model, **selection: tuple[str, ...]) -> Placement:
    return place(Graph(model), TARGET, Selection(**selection))


def model_of(network: Network) -> Model:
    net = Layers(quantized=False)
    return net.model(*network(net))


def test_groups_name_their_operators() -> None:
    groups = placed(model_of(residual)).groups
    assert [(group.op, group.members) for group in groups] == [
        ("conv2d", ("conv1", "conv1.bias_add", "relu1")),
        ("conv2d", ("conv2", "conv2.bias_add", "sum", "relu2")),
    ]


def test_an_excluded_layer_stays_in_float_with_what_follows_it() -> None:
    placement = placed(model_of(residual), exclude=("conv2*",))
    assert [group.members[0] for group in placement.groups] == ["conv1", "sum"]
    # conv2 cannot take the residual: the addition is an integer layer of its own.
    assert placement.pairs == ("x", "conv2.bias_add", "relu2")
    (skipped,) = placement.skipped
    assert (skipped.name, skipped.op, skipped.reason) == ("conv2", "conv2d", "excluded by 'conv2*'")
    assert skipped.macs == 8 * 8 * 4 * 4 * 9


def test_operators_not_listed_stay_in_float() -> None:
    placement = placed(model_of(silu), ops=("conv2d",))
    assert placement.pairs == ("x",)
    assert [(s.name, s.reason) for s in placement.skipped] == [("silu", "ops does not list unary")]


def test_an_excluded_max_pool_does_not_pass_its_scale_on() -> None:
    placement = placed(model_of(moves), exclude=("pool",))
    assert placement.carried == {}
    assert placement.pairs == ("x", "flat")
    assert [skip.name for skip in placement.skipped] == ["pool"]


def test_what_stays_in_float_is_listed() -> None:
    (skipped,) = placed(model_of(float_tail)).skipped
    assert (skipped.name, skipped.op, skipped.reason) == (
        "softmax",
        "softmax",
        "its result leaves the network",
    )


def test_arithmetic_on_indices_is_not_listed() -> None:
    def network(net: Layers) -> tuple[Expr, ...]:
        index, table = net.input("i", 1, 4, dtype="int64"), net.table("words.weight", 10, 16)
        ten = relax.const(10, "int64")
        negative = net.emit("negative", relax.op.less(index, relax.const(0, "int64")))
        counted = net.emit("counted", relax.op.add(index, ten))
        index = net.emit("index", relax.op.where(negative, counted, index))
        words = net.emit("words", relax.op.take(table, index, axis=0))
        return (net.emit("best", relax.op.argmax(net.dense("fc", words, 8), axis=-1)),)

    assert [skip.name for skip in placed(model_of(network)).skipped] == ["best"]


def test_the_operators_of_a_mask_are_listed() -> None:
    placement = placed(model_of(attention_mask))
    assert [(skip.name, skip.op) for skip in placement.skipped] == [
        ("gone", "subtract"),
        ("mask", "multiply"),
    ]
    softmax = next(group for group in placement.groups if group.op == "softmax")
    assert (softmax.members, softmax.plain) == (("scaled", "masked", "soft"), ("mask",))


def test_a_target_without_fusions_gets_a_pair_everywhere() -> None:
    class Apart:  # fuses only the bias
        name, schemes = "apart", TARGET.schemes

        def fuses(self, pattern: str) -> bool:
            return pattern.endswith("+bias")

    placement = place(Graph(model_of(residual)), Apart(), Selection())  # type: ignore[arg-type]
    assert placement.pairs == ("x", "conv1.bias_add", "relu1", "conv2.bias_add", "sum", "relu2")
