"""The definition of run-time quantization against ONNX Runtime's DynamicQuantizeLinear."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcomp.compress.reference import dynamic_quantize, fake_quantize

ort = pytest.importorskip("onnxruntime")


def session():
    from onnx import TensorProto, helper

    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [
            helper.make_tensor_value_info("y", TensorProto.UINT8, [None]),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, []),
            helper.make_tensor_value_info("z", TensorProto.UINT8, []),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_equals_onnx_runtime():
    run = session().run
    rng = np.random.default_rng(0)
    cases = [
        rng.standard_normal(n).astype(np.float32) * s for n, s in ((1, 1), (50, 9), (999, 1e-3))
    ]
    cases += [np.abs(cases[1]), -np.abs(cases[1]), np.zeros(7, np.float32), np.ones(3, np.float32)]
    cases += [np.rint(rng.standard_normal(400) * 8).astype(np.float32) / 2]
    for x in cases:
        codes, scale, zero = dynamic_quantize(x, per_row=False, dtype="uint8")
        for mine, theirs in zip((codes, scale[0], zero[0]), run(None, {"x": x}), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_row_has_its_own_range():
    x = np.array([[1, 2, 255], [0, 0, 0], [-1, 0, 1], [1, np.nan, 2]], np.float32)
    codes, scale, zero = dynamic_quantize(x, per_row=True, dtype="int8")
    np.testing.assert_array_equal(scale[:, 0], np.array([1, 1, 2 / 255, np.nan], np.float32))
    np.testing.assert_array_equal(zero[:, 0], [-128, -128, -1, -128])  # 2 / 255 rounds up
    np.testing.assert_array_equal(codes[0], [-127, -126, 127])
    np.testing.assert_array_equal(codes[3], [-128] * 3)
    real = fake_quantize(x, per_row=True, dtype="int8")
    assert np.abs(real[:3] - x[:3]).max() <= 0.5 * scale[:3].max()
    assert np.isnan(real[3]).all()


def test_the_span_of_the_largest_numbers_does_not_overflow():
    x = np.array([-3e38, 0, 3e38], np.float32)
    np.testing.assert_allclose(fake_quantize(x, per_row=False, dtype="uint8"), x, rtol=0.005)
