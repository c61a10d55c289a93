"""If, Loop and Scan whose course is known are resolved at import; others are refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

import tvmcomp as tc
from frontend.graphs import onnxruntime_outputs
from tvmcomp.errors import ModelError

HEAD = '<ir_version: 10, opset_import: ["" : 18]>'
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def _equals_onnxruntime(model: onnx.ModelProto, x: np.ndarray = X) -> Any:
    want = onnxruntime_outputs(model, {"x": x})
    imported = tc.from_onnx(model)
    got = tc.compile(imported, golden={"x": x}).payload.golden_outputs
    for ours, theirs in zip(got.values(), want, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    return imported


def _if_on_a_shape(rows: int) -> onnx.ModelProto:
    return parser.parse_model(f"""{HEAD}
        g (float[{rows}, 3] x) => (float[{rows}, 3] y) {{
            shape = Shape(x)
            one = Constant<value_ints = [0]>()
            first = Gather(shape, one)
            two = Constant<value_ints = [2]>()
            small = LessOrEqual(first, two)
            condition = Squeeze(small)
            y = If(condition) <
                then_branch = a () => (float[{rows}, 3] u) {{ u = Relu(x) }},
                else_branch = b () => (float[{rows}, 3] v) {{ v = Neg(x) }}>
        }}""")


@pytest.mark.parametrize("rows", [2, 3])
def test_a_condition_on_a_shape_chooses_its_branch(rows: int) -> None:
    x = np.linspace(-1, 1, rows * 3, dtype=np.float32).reshape(rows, 3)
    imported = _equals_onnxruntime(_if_on_a_shape(rows), x)
    assert ("R.nn.relu" in str(imported.module)) == (rows == 2)


def test_a_loop_of_known_length_is_unrolled_with_its_scan_outputs() -> None:
    model = parser.parse_model(f"""{HEAD}
        g (float[2, 3] x) => (float[2, 3] last, float[4, 2, 3] all) {{
            trips = Constant<value_int = 4>()
            going = Constant<value = bool {{1}}>()
            last, all = Loop(trips, going, x) <body = step (int64 i, bool c, float[2, 3] h)
                => (bool d, float[2, 3] next, float[2, 3] out) {{
                d = Identity(c)
                number = Cast<to = 1>(i)
                next = Add(h, number)
                out = Mul(next, x)
            }}>
        }}""")
    _equals_onnxruntime(model)


def test_a_loop_ends_when_its_own_condition_folds_to_false() -> None:
    model = parser.parse_model(f"""{HEAD}
        g (float[2, 3] x) => (float[2, 3] y) {{
            trips = Constant<value_int = 100>()
            going = Constant<value = bool {{1}}>()
            y = Loop(trips, going, x) <body = step (int64 i, bool c, float[2, 3] h)
                => (bool d, float[2, 3] next) {{
                limit = Constant<value_int = 2>()
                d = Less(i, limit)
                next = Add(h, x)
            }}>
        }}""")
    imported = _equals_onnxruntime(model)
    assert str(imported.module).count("R.add(") == 3


def test_a_scan_is_unrolled_in_both_directions() -> None:
    model = parser.parse_model(f"""{HEAD}
        g (float[2, 3] x) => (float[2] sum, float[2, 3] back) {{
            start = Constant<value_floats = [0.0, 0.0]>()
            sum, back = Scan(start, x) <num_scan_inputs = 1, scan_input_axes = [1],
                scan_input_directions = [1], scan_output_axes = [1],
                body = step (float[2] s, float[2] e) => (float[2] t, float[2] o) {{
                t = Add(s, e)
                o = Identity(t)
            }}>
        }}""")
    _equals_onnxruntime(model)


def test_a_branch_chosen_by_data_is_refused_with_node_and_fix() -> None:
    model = parser.parse_model(f"""{HEAD}
        g (float[2, 3] x) => (float[2, 3] y) {{
            total = ReduceSum<keepdims = 0>(x)
            zero = Constant<value_float = 0.0>()
            condition = Greater(total, zero)
            y = If(condition) <
                then_branch = a () => (float[2, 3] u) {{ u = Relu(x) }},
                else_branch = b () => (float[2, 3] v) {{ v = Neg(x) }}>
        }}""")
    model.graph.node[-1].name = "/choose"
    with pytest.raises(ModelError, match=r"If node /choose chooses its branch by data") as error:
        tc.from_onnx(model)
    assert "export the model with one branch fixed" in str(error.value)


def test_a_loop_as_long_as_data_says_is_refused() -> None:
    model = parser.parse_model(f"""{HEAD}
        g (float[2, 3] x, int64 trips) => (float[2, 3] y) {{
            going = Constant<value = bool {{1}}>()
            y = Loop(trips, going, x) <body = step (int64 i, bool c, float[2, 3] h)
                => (bool d, float[2, 3] next) {{
                d = Identity(c)
                next = Add(h, x)
            }}>
        }}""")
    with pytest.raises(ModelError, match=r"Loop node .* runs as often as data says"):
        tc.from_onnx(model)


def test_a_loop_too_long_to_unroll_is_refused() -> None:
    model = parser.parse_model(f"""{HEAD}
        g (float[2, 3] x) => (float[2, 3] y) {{
            trips = Constant<value_int = 1000000>()
            y = Loop(trips, , x) <body = step (int64 i, bool c, float[2, 3] h)
                => (bool d, float[2, 3] next) {{
                d = Identity(c)
                next = Add(h, x)
            }}>
        }}""")
    with pytest.raises(ModelError, match="unrolls to more than"):
        tc.from_onnx(model)
