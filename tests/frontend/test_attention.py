"""Every spelling of attention, from torch and ONNX, against the framework's own result."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto
from torch.nn import functional

from frontend.graphs import make, node, onnxruntime_outputs
from toys import run
from tvmcomp.flow import compile_model
from tvmcomp.frontend import from_onnx, from_torch
from tvmcomp.frontend.block import op_name
from tvmcomp.graph.canonical import canonicalize
from tvmcomp.model import Model

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def operators(model: Model) -> set[str]:
    main = model.module["main"]
    return {op_name(binding.value) for block in main.body.blocks for binding in block.bindings}


PLAIN = {"matmul", "multiply", "add", "nn.softmax", "permute_dims", "reshape"}


def close(canonical: Model, inputs: dict[str, np.ndarray], expected: list[np.ndarray]) -> None:
    results = list(run(canonical)(inputs).values())
    for got, wanted in zip(results, expected, strict=True):
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


class Torch(torch.nn.Module):
    def forward(self, q, k, v, keep, added):
        attend = functional.scaled_dot_product_attention
        return (
            attend(q, k, v),
            attend(q, k, v, attn_mask=keep),
            attend(q, k, v, attn_mask=added, scale=0.3),
            attend(q, k, v, is_causal=True),
            attend(q, k[:, :2], v[:, :2], attn_mask=keep, enable_gqa=True),
            attend(q, k[:, :1], v[:, :1], attn_mask=added, enable_gqa=True),
        )


def test_torch():
    q, k, v = normal(2, 4, 5, 8), normal(2, 4, 7, 8), normal(2, 4, 7, 6)
    keep = RNG.random((2, 1, 1, 7)) < 0.6
    keep[..., 0] = True
    inputs = {"q": q, "k": k, "v": v, "keep": keep, "added": normal(2, 4, 5, 7)}
    tensors = tuple(torch.from_numpy(array) for array in inputs.values())
    net = Torch()
    model = from_torch(net, tensors)
    canonical = canonicalize(model)
    assert operators(canonical) == PLAIN | {"where", "strided_slice"}
    close(canonical, inputs, [result.numpy() for result in net(*tensors)])


def test_dropout_is_refused():
    class Dropout(torch.nn.Module):
        def forward(self, x):
            return functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5)

    with pytest.raises(Exception, match="dropout"):
        from_torch(Dropout(), (torch.zeros(1, 1, 2, 2),))


# name: attributes, shapes of (q, k, v), shape of the mask
STANDARD = {
    "plain": ({}, ((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 6)), None),
    "scale and mask": ({"scale": 0.3}, ((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 6)), (5, 7)),
    "causal": ({"is_causal": 1}, ((2, 4, 5, 8), (2, 4, 5, 8), (2, 4, 5, 6)), None),
    "grouped": ({}, ((2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 6)), (2, 1, 5, 7)),
    "flat": ({"q_num_heads": 4, "kv_num_heads": 2}, ((2, 5, 32), (2, 7, 16), (2, 7, 12)), None),
}


@pytest.mark.parametrize("name", STANDARD)
def test_the_standards_attention(name: str):
    attrs, shapes, mask = STANDARD[name]
    inputs = {key: normal(*shape) for key, shape in zip("qkv", shapes, strict=True)}
    stored = {} if mask is None else {"m": normal(*mask)}
    attention = node("Attention", [*inputs, *stored], ["y"], name="/attention", **attrs)
    model = make([attention], shapes_of(inputs), weights=stored, opset=23)
    canonical = canonicalize(from_onnx(model))
    assert operators(canonical) <= PLAIN
    close(canonical, inputs, onnxruntime_outputs(model, inputs))


def shapes_of(arrays: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {key: array.shape for key, array in arrays.items()}


def test_a_row_excluded_at_run_time_is_zero_in_the_standards_attention():
    q = normal(1, 2, 5, 8)
    mask = np.zeros((5, 5), np.float32)
    mask[3] = -np.inf
    attention = node("Attention", ["q", "q", "q", "m"], ["y"], name="/attention")
    model = make([attention], {"q": q.shape, "m": mask.shape}, opset=23)
    (got,) = compile_model(canonicalize(from_onnx(model))).run({"q": q, "m": mask}).values()
    assert not got[:, :, 3].any()
    assert np.isfinite(got).all()
    assert got[:, :, :3].any()


def test_the_standards_window_is_not_overlooked():
    """Position i attends to i-1 and i alone."""
    q = normal(1, 2, 5, 8)
    attention = node("Attention", ["q", "q", "q"], ["y"], left_window_size=1, right_window_size=0)
    model = make([attention], {"q": q.shape}, opset=25)
    (got,) = compile_model(from_onnx(model)).run({"q": q}).values()
    place = torch.arange(5)
    near = (place[:, None] - place <= 1) & (place[:, None] >= place)
    x = torch.from_numpy(q)
    want = functional.scaled_dot_product_attention(x, x, x, attn_mask=near).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def contrib(operator: str, inputs: dict[str, np.ndarray], attrs: dict[str, object]):
    """The operator of ONNX Runtime; the mask "m" is of integers."""
    names = ["" if key.startswith("_") else key for key in inputs]
    values = {key: array for key, array in inputs.items() if not key.startswith("_")}
    attention = node(operator, names, ["y"], name="/a", domain="com.microsoft", **attrs)
    model = make(
        [attention],
        {key: array.shape for key, array in values.items()},
        domains=("com.microsoft",),
    )
    for value in model.graph.input:
        if value.name == "m":
            value.type.tensor_type.elem_type = TensorProto.INT32
    return model, values


MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
PACKED = {"x": normal(2, 5, 16), "w": normal(16, 48) / 4, "b": normal(48)}
CONTRIB = {
    "packed": ("Attention", PACKED, {"num_heads": 4}),
    "packed masked": ("Attention", PACKED | {"m": MASK}, {"num_heads": 4, "scale": 0.4}),
    "packed causal": ("Attention", PACKED, {"num_heads": 2, "unidirectional": 1}),
    "multi head": (
        "MultiHeadAttention",
        {"q": normal(2, 5, 16), "k": normal(2, 5, 16), "v": normal(2, 5, 8), "b": normal(40)}
        | {"m": MASK},
        {"num_heads": 4},
    ),
}


@pytest.mark.parametrize("name", CONTRIB)
def test_onnx_runtimes_attention(name: str):
    model, inputs = contrib(*CONTRIB[name])
    canonical = canonicalize(from_onnx(model))
    close(canonical, inputs, onnxruntime_outputs(model, inputs))
