"""Compressed weights in Relax: written, read back, and left packed by every pass TVM may run over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.ir import Expr, GenericConst

from toys import Toy, run
from tvmcomp.compress.granularity import PerAxis, PerGroup, PerTensor
from tvmcomp.compress.weight_form import (
    BlockSparseWeight,
    LookupWeight,
    UniformWeight,
    WeightForm,
    bind_weight,
    expand_weights,
    match_weight,
)
from tvmcomp.frontend.block import op_name
from tvmcomp.model import Model

RNG = np.random.default_rng(5)
SHAPE = (8, 3, 3, 4)


def uniform() -> UniformWeight:
    codes = RNG.integers(-4, 4, SHAPE).astype(np.int8)
    scale = RNG.uniform(0.1, 1, 8).astype(np.float32)
    return UniformWeight.from_codes(codes, scale, None, bits=3, granularity=PerAxis(0))


def grouped() -> UniformWeight:
    codes = RNG.integers(0, 16, SHAPE).astype(np.uint8)
    scale = RNG.uniform(0.1, 1, (8, 3, 3, 2)).astype(np.float32)
    zero_point = RNG.integers(0, 16, (8, 3, 3, 2)).astype(np.uint8)
    return UniformWeight.from_codes(codes, scale, zero_point, bits=4, granularity=PerGroup(2, 3))


def lookup() -> LookupWeight:
    codes = RNG.integers(0, 5, SHAPE).astype(np.uint8)
    table = RNG.standard_normal(5).astype(np.float32)
    return LookupWeight.from_codes(codes, table, bits=3, granularity=PerTensor())


def sparse() -> BlockSparseWeight:
    dense = RNG.integers(-9, 9, SHAPE).astype(np.int8)
    dense[:4, 1] = 0
    scale = RNG.uniform(0.1, 1, 8).astype(np.float32)
    return BlockSparseWeight.from_dense(dense, (4, 1, 1, 4), scale, PerAxis(0))


FORMS = (uniform, grouped, lookup, sparse)


def network(form: WeightForm) -> Model:
    """relu(conv2d(x, w) + b)."""
    toy = Toy()
    x = toy.input("x", 1, 6, 6, 4)
    w = toy.weight("conv1.weight", form)
    y = toy.emit("conv1", relax.op.nn.conv2d(x, w, data_layout="NHWC", kernel_layout="OHWI"))
    bias = toy.param("conv1.bias", toy.normal(8))
    return toy.model(toy.emit("relu", relax.op.nn.relu(toy.emit("add", relax.op.add(y, bias)))))


def bound_params(model: Model) -> tvm.IRModule:
    """The module with its parameters as constants, as TVM's own pipelines like to have them."""
    arrays = {str(var.name): var for var in model.module["main"].params}
    values = {arrays[name]: array for name, array in model.params.items()}
    return relax.transform.BindParams("main", values)(model.module)


def weight_calls(module: tvm.IRModule) -> list[Expr]:
    return [
        binding.value
        for block in module["main"].body.blocks
        for binding in block.bindings
        if op_name(binding.value) == "call_pure_packed"
    ]


def tensors(module: tvm.IRModule) -> list[Expr]:
    """Every parameter and constant of main and its helper functions."""
    found: list[Expr] = list(module["main"].params)

    def visit(node: Expr) -> None:
        if isinstance(node, GenericConst):
            found.append(node)

    for function in module.functions.values():
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, visit)
    return found


# What TVM's default pipelines consist of, and every other transform that folds, fuses or moves weights.
TRANSFORMS: dict[str, Callable[[], tvm.transform.Pass]] = {
    name: getattr(relax.transform, name)
    for name in (
        "AdjustMatmulOrder",
        "AnnotateTIROpPattern",
        "CallTIRRewrite",
        "CanonicalizeBindings",
        "CombineParallelMatmul",
        "ComputePrimValue",
        "DeadCodeElimination",
        "DecomposeOpsForInference",
        "EliminateCommonSubexpr",
        "ExpandMatmulOfSum",
        "FoldConstant",
        "FuseOps",
        "FuseTIR",
        "InlinePrivateFunctions",
        "LambdaLift",
        "LegalizeOps",
        "Normalize",
        "RealizeVDevice",
        "RemoveUnusedOutputs",
        "ReorderPermuteDimsAfterConcat",
        "ReorderTakeAfterMatmul",
        "RewriteDataflowReshape",
        "ToNonDataflow",
        "TopologicalSort",
    )
}
PIPELINE = (
    "LegalizeOps",
    "AnnotateTIROpPattern",
    "FoldConstant",
    "FuseOps",
    "FuseTIR",
    "FoldConstant",
    "DeadCodeElimination",
    "EliminateCommonSubexpr",
    "CanonicalizeBindings",
)


@pytest.mark.parametrize("make", FORMS)
def test_what_is_bound_is_matched(make: Callable[[], WeightForm]) -> None:
    form = make()
    bound = bind_weight(form, "conv1.weight")
    assert all(str(var.name) == key for var, key in zip(bound.variables, bound.params, strict=True))
    assert all(key.startswith("conv1.weight.") for key in bound.params)
    matched = match_weight(bound.call, bound.params)
    assert type(matched) is type(form)
    assert matched is not None
    assert (matched.shape, matched.granularity) == (form.shape, form.granularity)
    assert matched.nbytes == form.nbytes
    np.testing.assert_array_equal(matched.dequantized(), form.dequantized())


def test_what_is_not_a_weight_is_not_matched() -> None:
    model = network(uniform())
    values = [b.value for block in model.module["main"].body.blocks for b in block.bindings]
    assert [match_weight(value, model.params) is not None for value in values] == [
        True,
        *[False] * (len(values) - 1),
    ]
    foreign = relax.op.call_pure_packed(
        "other.function", model.module["main"].params[0], ty_args=relax.TensorType((1,), "float32")
    )
    assert match_weight(foreign, model.params) is None


@pytest.mark.parametrize("make", FORMS)
@pytest.mark.parametrize("constants", [False, True], ids=("params", "constants"))
@pytest.mark.parametrize("name", [*TRANSFORMS, "pipeline"])
def test_every_pass_leaves_the_weight_packed(
    make: Callable[[], WeightForm], constants: bool, name: str
) -> None:
    form = make()
    model = network(form)
    module = bound_params(model) if constants else model.module
    steps = PIPELINE if name == "pipeline" else (name,)
    for step in steps:
        module = TRANSFORMS[step]()(module)
    relax.analysis.well_formed(module)
    (call,) = weight_calls(module)
    matched = match_weight(call, {} if constants else model.params)
    assert matched is not None
    np.testing.assert_array_equal(matched.dequantized(), form.dequantized())
    shapes = [tuple(int(n) for n in tensor.ty.shape) for tensor in tensors(module)]
    assert SHAPE not in [
        shape
        for shape, tensor in zip(shapes, tensors(module), strict=True)
        if str(tensor.ty.dtype) == "float32"
    ]


def test_tvms_own_dequantize_would_not_survive() -> None:
    """Why the form is a call TVM does not know: its own operator is folded back to float32."""
    codes = relax.const(np.zeros(SHAPE, np.int8))
    toy = Toy()
    x = toy.input("x", *SHAPE)
    w = toy.emit(
        "w", relax.op.dequantize(codes, relax.const(np.float32(2)), relax.const(np.int8(0)))
    )
    module = relax.transform.FoldConstant()(toy.model(toy.emit("y", relax.op.add(x, w))).module)
    assert any(
        str(t.ty.dtype) == "float32" and isinstance(t, GenericConst) for t in tensors(module)
    )


@pytest.mark.parametrize("make", FORMS)
def test_expanded_weights_compute_what_the_form_means(make: Callable[[], WeightForm]) -> None:
    form = make()
    model = network(form)
    plain = expand_weights(model)
    relax.analysis.well_formed(plain.module)
    assert list(plain.params) == [str(v.name) for v in plain.module["main"].params[1:]]
    assert set(plain.params) == {"conv1.weight", "conv1.bias"}
    np.testing.assert_array_equal(plain.params["conv1.weight"], form.dequantized())
    assert not weight_calls(plain.module)
    assert weight_calls(model.module)
    x = RNG.standard_normal((1, 6, 6, 4)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    expected = (
        np.einsum("nhwikl,okli->nhwo", windows, form.dequantized()) + model.params["conv1.bias"]
    )
    got = run(plain)({"x": x})["output0"]
    np.testing.assert_allclose(got, np.maximum(expected, 0), rtol=1e-4, atol=1e-4)


def test_a_granularity_without_axis_cannot_be_bound() -> None:
    form = UniformWeight(
        np.zeros(8, np.uint8), np.ones((), np.float32), None, (8,), 8, True, PerTensor()
    )
    object.__setattr__(form, "granularity", PerAxis())
    with pytest.raises(ValueError, match="must be resolved"):
        bind_weight(form, "w")
