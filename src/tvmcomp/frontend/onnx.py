"""Import of ONNX models."""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tvm.ir import Expr
from tvm.relax.frontend.onnx import onnx_frontend

from tvmcomp.errors import ModelError
from tvmcomp.frontend.assemble import assemble, check_type
from tvmcomp.frontend.block import abandon
from tvmcomp.frontend.onnx_control import CONTROL, refuse_control, resolve_control
from tvmcomp.frontend.onnx_files import check_tensors, check_text, read_model, tensors_of
from tvmcomp.frontend.onnx_fold import explicit_pads, fold_constants, split_weights
from tvmcomp.frontend.onnx_functions import expand, has_definition, opsets
from tvmcomp.frontend.onnx_graph import (
    check,
    check_operators,
    check_windows,
    fix_inputs,
    name_nodes,
    sort_nodes,
)
from tvmcomp.frontend.onnx_limits import check_limits
from tvmcomp.frontend.onnx_operator_form import OPERATOR_FORM, expand_operator_form
from tvmcomp.frontend.onnx_ops import CONVERTERS, DEFINED, OnnxNode
from tvmcomp.frontend.onnx_ops.attention import is_special
from tvmcomp.frontend.onnx_own_functions import inline_functions
from tvmcomp.frontend.signature import first_line
from tvmcomp.model import Model, Provenance

__all__ = ["from_onnx"]

_CONTRIB = frozenset(
    {
        "Attention",
        "BiasGelu",
        "EmbedLayerNormalization",
        "FastGelu",
        "MultiHeadAttention",
        "SkipLayerNormalization",
    }
)
_ONLY_CONTRIB = _CONTRIB - {"Attention"}


def from_onnx(
    path_or_proto: str | Path | onnx.ModelProto,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Model:
    """Import an ONNX file or an in-memory model without external data.

    `input_shapes` fixes dynamic dimensions. External data is read only from the file's own folder.
    Raises ModelError.
    """
    if isinstance(path_or_proto, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(path_or_proto)
        source, digest = "ModelProto", hashlib.sha256(model.SerializeToString()).hexdigest()
        _refuse_external(model)
    else:
        path = Path(path_or_proto)
        model, digest = read_model(path)
        source = str(path)
    return _import(model, dict(input_shapes or {}), Provenance(source, digest, "onnx"))


def _import(
    model: onnx.ModelProto, input_shapes: dict[str, tuple[int, ...]], provenance: Provenance
) -> Model:
    check_text(model, provenance.source)
    model = inline_functions(model)
    graph = model.graph
    if not graph.output:
        raise ModelError(
            f"{provenance.source}: the graph has no outputs; declare one and save the model again"
        )
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise ModelError(f"initializer {name} is sparse, which is not supported; save it densely")
    check_tensors(graph)
    versions = opsets(model)
    check_operators(graph, lambda node: _converted(node) or has_definition(node, versions))
    name_nodes(graph)
    sort_nodes(graph)
    check_limits(model)
    inputs = fix_inputs(graph, input_shapes)
    check(model)
    model, shapes = _resolve(model)
    graph = model.graph
    check_operators(graph, _converted)
    check_windows(graph, shapes)
    explicit_pads(graph, shapes)
    weights = split_weights(graph)
    outputs = [value.name for value in graph.output]
    variables = _rename(graph, weights)
    # The importer takes what is left of `graph.input` that is no initializer as the real inputs.
    arrays = {variables[name]: array for name, array in weights.items()}
    known = {name: shapes[name] for name in inputs}
    module = _Importer(opsets(model).get("", 1), arrays, known).convert(graph)
    return assemble(
        module,
        inputs={name: name for name in inputs},
        params={variables[name]: (name, array) for name, array in weights.items()},
        outputs=outputs,
        provenance=provenance,
    )


def _resolve(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, tuple[int, ...]]]:
    """Constants computed, control flow resolved, operators without a converter and those on codes expanded,
    until none is left.
    """
    while True:
        expanded = _expanded(model)
        while expanded is not model:
            model, expanded = expanded, _expanded(expanded)
        expand_operator_form(model.graph)
        shapes = fold_constants(model)
        if not resolve_control(model, shapes):
            refuse_control(model.graph)
            return model, shapes


def _expanded(model: onnx.ModelProto) -> onnx.ModelProto:
    stored = {tensor.name for tensor in model.graph.initializer}
    return expand(model, _operators(), lambda node: is_special(node, stored))


@cache
def _operators() -> dict[str, frozenset[str]]:
    """Domain -> operators that have a converter, TVM's or our own, or are control flow."""
    own = {*CONVERTERS, "Constant", *CONTROL}
    standard = (frozenset(onnx_frontend._get_convert_map()) - DEFINED | own) - _ONLY_CONTRIB
    supported = {"": standard, "com.microsoft": _CONTRIB}
    return {domain: names | OPERATOR_FORM[domain] for domain, names in supported.items()}


def _converted(node: onnx.NodeProto) -> bool:
    domain = "" if node.domain == "ai.onnx" else node.domain
    return node.op_type in _operators().get(domain, frozenset())


def _refuse_external(model: onnx.ModelProto) -> None:
    for tensor in tensors_of(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ModelError(
                f"tensor {tensor.name} is in an external file; pass the model's path instead"
            )


def _rename(graph: onnx.GraphProto, weights: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Give weights names the importer leaves alone; returns name -> variable."""
    taken = {name for node in graph.node for name in node.output}
    taken |= {value.name for value in graph.input}
    prefix = "weight"
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    variables = {name: f"{prefix}{index}" for index, name in enumerate(weights)}
    for tensor in graph.initializer:
        tensor.name = variables[tensor.name]
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = variables.get(name, name)
    for value in graph.output:
        value.name = variables.get(value.name, value.name)
    kept = [value for value in graph.input if value.name not in variables]
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in kept]
    del graph.input[:]
    graph.input.extend(copies)
    return variables


class _Importer(onnx_frontend.ONNXGraphImporter):  # type: ignore[misc]
    """TVM's importer with our converters, and errors that name the node."""

    def __init__(
        self,
        opset: int,
        weights: Mapping[str, np.ndarray],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        # Told the shapes, it does not take a length of 0 for an unknown one.
        super().__init__(dict(shapes), None, keep_params_in_input=True, sanitize=False)
        self._version = opset
        self._arrays = weights
        self._dynamic: dict[Expr, tuple[Expr, Expr, Expr]] = {}

    def convert(self, graph: onnx.GraphProto) -> Any:
        # The importer prints to stdout before it raises, and stdout may be promised to JSON.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return self.from_onnx(graph, self._version)
            except ModelError:
                abandon(self.bb)
                raise
            except Exception as error:
                abandon(self.bb)
                raise ModelError(
                    f"graph {graph.name}: cannot be imported: {first_line(error)}; "
                    "check the model with onnx.checker and export it again"
                ) from error

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        """Done, with our own converters counted."""

    def _convert_operator(
        self, op_name: str, inputs: Any, attrs: dict[str, Any], opset: int
    ) -> Expr:
        node = self._node(op_name, inputs, attrs, opset)
        converter = CONVERTERS.get(op_name)
        try:
            converted = None if converter is None else converter(node)
            if converted is not None:
                converted = self.bb.normalize(converted)
            else:
                converted = super()._convert_operator(op_name, inputs, attrs, opset)
        except Exception as error:
            shapes = ", ".join(_operand(operand) for operand in node.operands)
            raise ModelError(
                f"{op_name} node {node.name} cannot be imported: "
                f"{first_line(error)}; its inputs: {shapes or 'none'}; "
                "export the model again or replace the node"
            ) from error
        # Settings may be stored as nothing, such as the region of a Resize.
        check_type(f"{op_name} node {node.name}", converted.ty, empty=op_name == "Constant")
        return converted

    def _node(self, op: str, inputs: Any, attrs: dict[str, Any], opset: int) -> OnnxNode:
        return OnnxNode(
            op=op,
            name=attrs["tvm_custom"]["name"],
            opset=opset,
            operands=tuple(list(inputs)),
            attrs=attrs,
            outputs=attrs["tvm_custom"]["num_outputs"],
            emit=self.bb.emit,
            compute=self.bb.emit_te,
            weights=self._arrays,
            dynamic=self._dynamic,
        )


def _operand(operand: Expr | None) -> str:
    if operand is None:
        return "none"
    shape = getattr(operand.ty, "shape", None)
    return str(operand.ty) if shape is None else f"{operand.ty.dtype}{list(shape)}"
