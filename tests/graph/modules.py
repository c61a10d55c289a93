"""From a TVMScript module to a `Model` with random parameters, for tests of one rewrite."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from tvmcomp.frontend.block import shape_of
from tvmcomp.graph.rewrite import Rewriter
from tvmcomp.model import Model, Provenance, Signature, TensorType

__all__ = ["assert_rewritten", "model_of"]


def model_of(module: tvm.IRModule, inputs: int = 1) -> Model:
    """The first `inputs` parameters of `main` are inputs, the others weights in [0.5, 1.5]."""
    rng = np.random.default_rng(0)
    main = module["main"]
    params = {
        str(var.name): rng.uniform(0.5, 1.5, shape_of(var)).astype(str(var.ty.dtype))
        for var in main.params[inputs:]
    }
    types = {
        str(var.name): TensorType(shape_of(var), str(var.ty.dtype)) for var in main.params[:inputs]
    }
    result = main.body.body.ty
    fields = list(result.fields) if isinstance(result, relax.TupleType) else [result]
    outputs = {
        f"output{index}": TensorType(tuple(int(size) for size in field.shape), str(field.dtype))
        for index, field in enumerate(fields)
    }
    return Model(module, params, Signature(types, outputs), Provenance("test", "", "torch"))


def assert_rewritten(
    rewriter: type[Rewriter], before: tvm.IRModule, expected: tvm.IRModule, inputs: int = 1
) -> Model:
    """`rewriter` turns `before` into `expected`, up to names, and leaves the old model alone."""
    source = model_of(before, inputs)
    text = before.script()
    after = rewriter(source).run()
    relax.analysis.well_formed(after.module)
    tvm.ir.assert_structural_equal(after.module, expected, map_free_vars=True)
    assert before.script() == text
    assert list(after.params) == [str(var.name) for var in after.module["main"].params[inputs:]]
    return after
