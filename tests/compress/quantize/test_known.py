"""Scales and zero points of a model's codes, out of it and into another."""

from __future__ import annotations

import numpy as np
from tvm import relax
from tvm.relax.op import dequantize, quantize

from toys import Toy, run
from tvmcomp.compress.quantize.known import code_rows, with_codes
from tvmcomp.model import Model


def _model(scale: float, zero_point: int) -> Model:
    """y = dequantize(quantize(x))."""
    toy = Toy()
    x = toy.input("x", 1, 4)
    pair = relax.const(np.float32(scale)), relax.const(np.int8(zero_point), "int8")
    codes = toy.emit("x.q", quantize(x, *pair, out_dtype="int8"))
    return toy.model(toy.emit("x.dq", dequantize(codes, *pair)))


def test_rows_name_what_is_quantized_and_how() -> None:
    (row,) = code_rows(_model(0.25, 3))
    assert row == {"name": "x.q", "dtype": "int8", "scale": 0.25, "zero_point": 3}


def test_rows_of_one_model_in_another() -> None:
    wanted, other = _model(0.25, 3), _model(10.0, 0)
    changed = with_codes(other, code_rows(wanted))
    relax.analysis.well_formed(changed.module)
    assert code_rows(changed) == code_rows(wanted)
    x = {"x": np.array([[0.1, 0.2, -0.4, 1.0]], np.float32)}
    np.testing.assert_array_equal(run(changed)(x)["output0"], run(wanted)(x)["output0"])
    assert code_rows(other)[0]["scale"] == 10.0


def test_codes_that_no_row_names_stay() -> None:
    assert code_rows(with_codes(_model(0.5, 1), ())) == code_rows(_model(0.5, 1))
