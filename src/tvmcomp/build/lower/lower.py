"""Canonical Relax (float or QDQ) to the layer graph: matched groups become layers, TVM fuses what is left.

dequantize -> conv2d -> add -> relu -> quantize      ->  IntConv
conv2d -> add -> relu                                ->  FloatConv
anything unmatched                                   ->  Opaque, after LegalizeOps and FuseOps
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import tvm
from tvm import IRModule, relax
from tvm.relax import transform

from tvmcomp.build.lower.claim import Claim
from tvmcomp.build.lower.conv import match_conv
from tvmcomp.build.lower.dynamic import match_dynamic_quantize
from tvmcomp.build.lower.float import match_float
from tvmcomp.build.lower.flow import Flow, Node, names_in
from tvmcomp.build.lower.fold_permutes import fold_permutes
from tvmcomp.build.lower.integer import match_dequantize, match_integer, match_quantize
from tvmcomp.build.lower.legalize import LEGALIZE
from tvmcomp.build.lower.matmul import match_matmul
from tvmcomp.build.lower.opaque import OpaqueReader
from tvmcomp.build.lower.unary import match_unary
from tvmcomp.compress.weight_form import match_weight
from tvmcomp.graph.layers import DynamicConv, Layer, LayerGraph
from tvmcomp.model import Model

__all__ = ["lower"]

_EXTERN = "tvmcomp.claim."


def lower(model: Model) -> LayerGraph:
    """The layer graph of a canonical model.

    Raises ModelError for an operator TVM cannot legalize.
    """
    flow = Flow(model.module, model.params)
    claims = _claims(flow)
    module = _with_externs(flow, claims)
    return fold_permutes(_read_back(module, flow, claims))


def _claims(flow: Flow) -> dict[str, Claim]:
    claims: dict[str, Claim] = {}
    taken: set[str] = set()

    def take(claim: Claim | None) -> bool:
        # A layer reads tensors; what computes with parameters alone is TVM's.
        if claim is None or any(name in flow.params for name in claim.inputs):
            return False
        claims[claim.end] = claim
        taken.update((claim.end, *claim.absorbed))
        return True

    # Of two convolutions that feed one addition the later takes it, so that the other is complete by then.
    for node in reversed(flow.nodes):
        take(match_conv(flow, node, taken) or match_matmul(flow, node, taken))
    for node in flow.nodes:
        if node.op == "relax.quantize" and node.name not in taken:
            claim = match_integer(flow, node, taken) or match_unary(flow, node, taken)
            if claim is None or not _self_contained(flow, claim):
                claim = match_quantize(flow, node)
            take(claim)
    integer = [
        layer.name
        for claim in claims.values()
        for layer in claim.layers
        if isinstance(layer, DynamicConv)
    ]
    for node in flow.nodes:
        if node.name in taken or take(match_dynamic_quantize(flow, node, integer)):
            continue
        if node.op == "relax.dequantize":
            take(match_dequantize(flow, node))
        else:
            take(match_float(flow, node))
    return claims


def _self_contained(flow: Flow, claim: Claim) -> bool:
    """No node inside the group is needed outside it."""
    inside = {claim.end, *claim.absorbed}
    return all(
        name not in flow.outputs and all(user.name in inside for user in flow.users(name))
        for name in claim.absorbed
    )


def _with_externs(flow: Flow, claims: Mapping[str, Claim]) -> IRModule:
    """The function again with every claim as one opaque call, legalized and fused around them."""
    absorbed = {name for claim in claims.values() for name in claim.absorbed}
    read = _read_names(flow, claims, absorbed)
    builder = relax.BlockBuilder()
    for var, function in flow.helpers.items():
        builder.update_func(var, function)
    params = list(flow.function.params)
    values: dict[str, relax.Expr] = {var.name: var for var in params} | flow.constants
    with builder.function("main", params):
        with builder.dataflow():
            for node in flow.nodes:
                if node.name in absorbed:
                    continue
                form = match_weight(node.value, flow.params)
                if form is not None:
                    # Claims hold their weights themselves; TVM gets the few it computes with as they are in float.
                    if node.name in read:
                        values[node.name] = relax.const(form.dequantized())
                    continue
                claim = claims.get(node.name)
                value = _extern(claim, node, values) if claim else _remap(node.value, values)
                var = builder.emit(value, name_hint=node.name)
                exported = claim.exported if claim else ()
                for i, name in enumerate(exported):
                    values[name] = builder.emit(relax.TupleGetItem(var, i))
                if not exported:
                    values[node.name] = var
            outputs = [_output(builder, values[name]) for name in flow.outputs]
        builder.emit_func_output(outputs[0] if len(outputs) == 1 else relax.Tuple(outputs))
    passes = [
        transform.LegalizeOps(LEGALIZE),
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
        transform.CanonicalizeBindings(),
    ]
    return tvm.ir.transform.Sequential(passes)(builder.get())


def _output(builder: relax.BlockBuilder, value: relax.Expr) -> relax.Expr:
    """Constants and parameters stay themselves, for the reader to store."""
    return builder.emit_output(value) if isinstance(value, relax.DataflowVar) else value


def _read_names(flow: Flow, claims: Mapping[str, Claim], absorbed: set[str]) -> set[str]:
    """Tensors that something outside of claims reads."""
    rest = (n for n in flow.nodes if n.name not in claims and n.name not in absorbed)
    return {*flow.outputs, *(name for node in rest for name in names_in(node.value))}


def _extern(claim: Claim, node: Node, values: Mapping[str, relax.Expr]) -> relax.Expr:
    arguments = [values[name] for name in claim.inputs]
    out: relax.TensorType | list[relax.TensorType] = relax.TensorType(node.shape, node.dtype)
    if claim.exported:
        specs = {spec.name: spec for spec in claim.specs}
        made = [specs[name] for name in claim.exported]
        out = [relax.TensorType(spec.shape, spec.dtype) for spec in made]
    return relax.op.call_dps_packed(_EXTERN + claim.end, relax.Tuple(arguments), out_ty=out)


def _remap(value: relax.Expr, values: Mapping[str, relax.Expr]) -> relax.Expr:
    """The expression over the new function's variables."""
    if isinstance(value, relax.Var):
        return values[value.name]
    if isinstance(value, relax.Tuple):
        return relax.Tuple([_remap(item, values) for item in value.fields])
    if isinstance(value, relax.TupleGetItem):
        return relax.TupleGetItem(_remap(value.tuple_value, values), value.index)
    if isinstance(value, relax.Call):
        arguments = [_remap(arg, values) for arg in value.args]
        return relax.Call(value.op, arguments, value.attrs, value.ty_args)
    return value


def _read_back(module: IRModule, flow: Flow, claims: Mapping[str, Claim]) -> LayerGraph:
    function = module["main"]
    reader = OpaqueReader(module, flow.params)
    for var in flow.inputs:
        reader.add_input(var, flow.codes(var))
    layers: list[Layer] = []
    for block in function.body.blocks:
        for binding in block.bindings:
            value = binding.value
            if not (isinstance(value, relax.Call) and isinstance(value.args[0], relax.ExternFunc)):
                layers += reader.read(binding)
                continue
            claim = claims[str(value.args[0].global_symbol).removeprefix(_EXTERN)]
            actual = [reader.name(arg) for arg in value.args[1].fields]
            renamed = dict(zip(claim.inputs, actual, strict=True))
            layers += [
                replace(layer, inputs=tuple(renamed.get(name, name) for name in layer.inputs))
                for layer in claim.layers
            ]
            reader.define(binding.var, claim.specs, claim.exported)
    outputs = reader.outputs(function, flow.outputs)
    inputs = tuple(var.name for var in flow.inputs)
    return LayerGraph(reader.tensors, (*layers, *reader.stored), inputs, outputs)
