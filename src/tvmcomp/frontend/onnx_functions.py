"""ONNX operators that the standard defines by other operators are replaced by their definition."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import onnx
import onnx.inliner
from onnx import FunctionProto, NodeProto, TypeProto, defs

from tvmcomp.errors import ModelError
from tvmcomp.frontend.onnx_graph import describe, without_weights
from tvmcomp.frontend.signature import first_line

__all__ = ["expand", "has_definition", "opsets"]

_DOMAIN = "tvmcomp.expanded"


def has_definition(node: NodeProto, versions: Mapping[str, int]) -> bool:
    """Whether the standard defines this operator by others."""
    schema = _schema(node, versions)
    return schema is not None and _version(schema, versions.get(_plain(node.domain), 1)) is not None


def expand(
    model: onnx.ModelProto,
    keep: Mapping[str, Collection[str]],
    special: Callable[[NodeProto], bool] = lambda node: False,
) -> onnx.ModelProto:
    """Nodes that have a definition and are not in `keep` (domain -> operators), or are `special`, become it.

    Operators of a definition that are themselves not kept are expanded by the next call. Raises ModelError.
    """
    versions = opsets(model)
    chosen = [
        index
        for index, node in enumerate(model.graph.node)
        if (node.op_type not in keep.get(_plain(node.domain), ()) or special(node))
        and has_definition(node, versions)
    ]
    if not chosen:
        return model
    types = _types(model)
    expanded = onnx.ModelProto()
    expanded.CopyFrom(model)
    functions: dict[str, FunctionProto] = {}
    for index in chosen:
        node = expanded.graph.node[index]
        function = _definition(node, versions, types)
        function.name, function.domain = f"{node.op_type}_{index}", _DOMAIN
        functions[function.name] = function
        node.op_type, node.domain = function.name, _DOMAIN
    expanded.functions.extend(functions.values())
    expanded.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    if "" not in versions:
        version = max(entry.version for f in functions.values() for entry in f.opset_import)
        expanded.opset_import.append(onnx.helper.make_opsetid("", version))
    inlined = onnx.inliner.inline_local_functions(expanded)
    kept = [entry for entry in inlined.opset_import if entry.domain != _DOMAIN]
    copies = [onnx.OperatorSetIdProto.FromString(entry.SerializeToString()) for entry in kept]
    del inlined.opset_import[:]
    inlined.opset_import.extend(copies)
    return inlined


def opsets(model: onnx.ModelProto) -> dict[str, int]:
    """Domain -> version; the default domain is "" however it is written."""
    return {_plain(entry.domain): entry.version for entry in model.opset_import}


def _plain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _schema(node: NodeProto, versions: Mapping[str, int]) -> defs.OpSchema | None:
    domain = _plain(node.domain)
    try:
        return defs.get_schema(node.op_type, versions.get(domain, 1), domain)
    except defs.SchemaError:
        return None


def _types(model: onnx.ModelProto) -> dict[str, TypeProto]:
    inferred = onnx.shape_inference.infer_shapes(without_weights(model), data_prop=True)
    graph = inferred.graph
    types = {value.name: value.type for value in (*graph.input, *graph.value_info, *graph.output)}
    for tensor in graph.initializer:
        types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    return types


def _definition(
    node: NodeProto, versions: Mapping[str, int], types: Mapping[str, TypeProto]
) -> FunctionProto:
    """The function that says what `node` computes; `node` gets the defaults its definition refers to."""
    schema = _schema(node, versions)
    assert schema is not None
    version = versions.get(_plain(node.domain), 1)
    best = _version(schema, version)
    if schema.has_context_dependent_function:
        operands = [types.get(name, TypeProto()).SerializeToString() for name in node.input]
        try:
            body = schema.get_context_dependent_function_with_opset_version(
                best, node.SerializeToString(), operands
            )
        except Exception as error:
            raise ModelError(f"{describe(node)} has no definition: {first_line(error)}") from None
    else:
        body = schema.get_function_with_opset_version(best)
    function = FunctionProto.FromString(body) if isinstance(body, bytes) else body
    own = FunctionProto()
    own.CopyFrom(function)
    _add_defaults(node, own, schema)
    del own.opset_import[:]
    own.opset_import.append(onnx.helper.make_opsetid("", versions.get("", version)))
    return own


def _add_defaults(node: NodeProto, function: FunctionProto, schema: defs.OpSchema) -> None:
    """Attributes the node leaves out take the operator's default."""
    given = {attribute.name for attribute in node.attribute}
    for name in function.attribute:
        known = schema.attributes.get(name)
        if name not in given and known is not None and known.default_value.type:
            node.attribute.append(known.default_value)


def _version(schema: defs.OpSchema, version: int) -> int | None:
    """The newest definition an opset may use."""
    known = (
        schema.context_dependent_function_opset_versions
        if schema.has_context_dependent_function
        else schema.function_opset_versions
    )
    return max((v for v in known if v <= version), default=None)
