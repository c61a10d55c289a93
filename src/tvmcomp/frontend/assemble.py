"""From what TVM's importers return to a `Model`: names restored, tuples and dead code gone, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Expr

from tvmcomp.errors import ModelError
from tvmcomp.frontend.block import Block, as_array, leaves, op_name, substitute, unique
from tvmcomp.frontend.indexing import check_constant, indexed
from tvmcomp.model import Model, Provenance, Signature, TensorType

__all__ = ["MAX_TENSOR_BYTES", "assemble", "check_type"]

_MASKING = frozenset({"add", "where", "maximum", "minimum", "reshape"})

# No tensor of a network this project targets comes near it; a model that asks for more is broken or hostile.
MAX_TENSOR_BYTES = 8 << 30


def assemble(
    module: tvm.IRModule,
    *,
    inputs: Mapping[str, str],
    params: Mapping[str, tuple[str, np.ndarray]],
    outputs: Sequence[str],
    provenance: Provenance,
) -> Model:
    """A `Model` from an imported module.

    inputs:  parameter variable of `module` -> the input's name, in calling order
    params:  parameter variable of `module` -> (the weight's name, its value)
    outputs: names of the results
    """
    main = module["main"]
    variables = {str(var.name): var for var in main.params}
    block = Block()
    env: dict[relax.Var, Expr] = {}
    input_vars = []
    for variable, name in inputs.items():
        old = variables[variable]
        env[old] = relax.Var(name, old.ty)
        input_vars.append(env[old])
        check_type(name, old.ty, empty=True)
    arrays: dict[relax.Var, np.ndarray] = {}
    taken = dict.fromkeys(inputs.values(), 0)
    for variable, (name, array) in params.items():
        old = variables[variable]
        env[old] = relax.Var(unique(name, taken), old.ty)
        arrays[env[old]] = array
    last = main.body.body
    given = list(last.fields) if isinstance(last, relax.Tuple) else [last]
    called = {var: f"output {name}" for var, name in zip(given, outputs, strict=False)}
    for part in main.body.blocks:
        for binding in part.bindings:
            expr = _promote(substitute(_plain(binding), env), arrays, taken)
            env[binding.var] = block.emit(expr)
            what = op_name(expr) or called.get(binding.var, str(binding.var.name))
            check_type(what, env[binding.var].ty)
            _check_indices(expr, arrays)
    result = substitute(last, env)
    results = list(result.fields) if isinstance(result, relax.Tuple) else [result]
    if len(results) != len(outputs):
        raise ModelError(
            f"{provenance.source}: the graph returns {len(results)} values for {len(outputs)} outputs; "
            "export the model again"
        )
    for name, result_value in zip(outputs, results, strict=True):
        check_type(f"output {name}", result_value.ty)
    live = block.live(results)
    used = {var: array for var, array in arrays.items() if var in live}
    for var, array in used.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            _refuse_values(str(var.name), array, _readers(block, var))
    functions = {var: func for var, func in module.functions.items() if var.name_hint != "main"}
    return Model(
        module=block.finish([*input_vars, *used], results, functions),
        params={str(var.name): np.asarray(array, order="C") for var, array in used.items()},
        signature=Signature(
            inputs={str(var.name): _tensor_type(var) for var in input_vars},
            outputs={name: _tensor_type(expr) for name, expr in zip(outputs, results, strict=True)},
        ),
        provenance=provenance,
    )


def _plain(binding: relax.Binding) -> Expr:
    if not isinstance(binding, relax.VarBinding):
        raise ModelError("a shape depends on data; export the model with static shapes")
    if isinstance(binding.value, relax.If):
        raise ModelError("the model branches on data (If); export it with one branch fixed")
    return binding.value


def _promote(expr: Expr, arrays: dict[relax.Var, np.ndarray], taken: dict[str, int]) -> Expr:
    """Float tensors written into the graph become parameters; scalars and integers stay constants."""
    if not isinstance(expr, relax.Call) or op_name(expr) in ("quantize", "dequantize"):
        return expr
    args = list(expr.args)
    for index, arg in enumerate(args):
        value = getattr(arg, "value", None)
        if not isinstance(value, tvm.runtime.Tensor) or prod(value.shape) <= 1:
            continue
        array = value.numpy()
        if array.dtype.kind == "f":
            var = relax.Var(unique("constant", taken), arg.ty)
            arrays[var] = array
            args[index] = var
    if not any(isinstance(new, relax.Var) and new in arrays for new in args):
        return expr
    return relax.Call(expr.op, args, expr.attrs, expr.ty_args)


def _tensor_type(expr: Expr) -> TensorType:
    return TensorType(tuple(int(size) for size in expr.ty.shape), str(expr.ty.dtype))


def check_type(what: str, ty: relax.Type, *, empty: bool = False) -> None:
    """Raise ModelError unless `ty` is static, within our limits and, but for `empty`, not empty."""
    if isinstance(ty, relax.TupleType):
        for field in ty.fields:
            check_type(what, field)
        return
    if not isinstance(ty, relax.TensorType):
        return
    if ty.shape is None or not all(_is_int(size) for size in ty.shape):
        raise ModelError(
            f"the shape of {what} depends on data: {ty}; export the model with static shapes"
        )
    shape = tuple(int(size) for size in ty.shape)
    if any(size <= 0 for size in shape) and not empty:
        raise ModelError(
            f"{what} has shape {list(shape)}, every dimension must be positive; "
            "correct the shapes it comes from"
        )
    nbytes = prod(shape) * np.dtype(_numpy_name(str(ty.dtype))).itemsize
    if nbytes > MAX_TENSOR_BYTES:
        raise ModelError(
            f"{what} of shape {list(shape)} takes {nbytes / 2**30:.0f} GiB; "
            f"a tensor may take {MAX_TENSOR_BYTES >> 30} GiB; make it smaller"
        )


def _check_indices(expr: Expr, arrays: Mapping[relax.Var, np.ndarray]) -> None:
    """Indices the model holds stay inside what they index."""
    for use in indexed(expr):
        known = isinstance(use.indices, relax.Var)
        values = arrays.get(use.indices) if known else as_array(use.indices)
        if values is not None:
            check_constant(op_name(expr), use, values)


def _is_int(size: Expr) -> bool:
    return isinstance(size, int | tvm.tirx.IntImm)


def _numpy_name(dtype: str) -> str:
    return "float16" if dtype == "bfloat16" else dtype


def _readers(block: Block, var: relax.Var) -> set[str]:
    """Operators that read a parameter; none where it is a result."""
    return {op_name(expr) for expr in block.definitions.values() if var in leaves(expr)}


def _refuse_values(name: str, array: np.ndarray, readers: set[str]) -> None:
    """Weights are finite; what is only added, chosen from or reshaped may mask with minus infinity."""
    bad = ~np.isfinite(array)
    if readers <= _MASKING:
        bad &= ~np.isneginf(array)
    if readers and bad.any():
        raise ModelError(
            f"parameter {name} holds {int(bad.sum())} values that are NaN or infinite; "
            "train it again or export an earlier state"
        )
