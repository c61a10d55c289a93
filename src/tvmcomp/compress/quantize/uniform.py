"""`QuantizeUniform`: integer weights on a uniform grid, and 8-bit activations for the layers that multiply them.

conv2d(x, w) -> add bias -> relu -> y
    =>  conv2d(dequantize(quantize(x)), dequantize_weight(w.codes, w.scale)) -> add bias -> relu
          -> y -> dequantize(quantize(y))

or, with `DynamicActivations`,

    =>  conv2d(dynamic_quantize(x), dequantize_weight(w.codes, w.scale)) -> add bias -> relu -> y

x, y: float32 with codes of the target's activation dtype, per tensor; w: int8 codes, packed; bias: float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from tvmcomp.calibrate import MSE, Entropy, MinMax, Observer, TensorStats
from tvmcomp.compress.granularity import Granularity, PerAxis, PerGroup, PerTensor, resolve
from tvmcomp.compress.packed_weight import UniformWeight
from tvmcomp.compress.quantize.activations import (
    Activations,
    DynamicActivations,
    FloatActivations,
    StaticActivations,
)
from tvmcomp.compress.quantize.adopt import is_quantized
from tvmcomp.compress.quantize.affine import activation_qparams, quantize_weight
from tvmcomp.compress.quantize.dynamic import place_dynamic, span
from tvmcomp.compress.quantize.graph import Graph, Weighted
from tvmcomp.compress.quantize.placement import Placement, Selection, place
from tvmcomp.compress.quantize.write import write
from tvmcomp.compress.transform import LayerReport, PassResult, SkippedLayer
from tvmcomp.errors import CalibrationError, QuantizeError
from tvmcomp.frontend.dynamic_form import DynamicForm
from tvmcomp.graph.layers import QParams
from tvmcomp.model import Model
from tvmcomp.target import OPS, CodeRange, Scheme, Target

__all__ = ["QuantizeUniform"]

_WEIGHTED = ("conv2d", "depthwise_conv2d", "dense")
# Our granularities in the words of target descriptors.
_KINDS: Mapping[type, Literal["tensor", "axis", "group"]] = {
    PerTensor: "tensor",
    PerAxis: "axis",
    PerGroup: "group",
}


@dataclass(frozen=True)
class QuantizeUniform:
    """Quantize weights uniformly, and with `StaticActivations` run the network on integers; with
    `DynamicActivations` only the layers with weights, and nothing is calibrated.

    bits:        of a weight, 2 to 8.
    symmetric:   no zero points; activations in codes need it on every target so far.
    granularity: weights that share a scale; None is the finest the target runs on integers.
    observer:    range of each weight slice, `MinMax` or `MSE`.
    ops:         operators to quantize, in the target's words; empty is all it has.
    exclude:     layers by name, or by patterns like "layer4.*", that stay in float.
    """

    bits: int = 8
    symmetric: bool = True
    granularity: Granularity | None = None
    observer: MinMax | MSE = field(default_factory=MinMax)
    activations: Activations = field(default_factory=StaticActivations)
    ops: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise QuantizeError(f"bits is {self.bits}; weights take 2 to 8 bits")
        unknown = sorted(set(self.ops) - set(OPS))
        if unknown:
            raise QuantizeError(f"ops lists {unknown[0]!r}; use some of {', '.join(OPS)}")

    @property
    def calibrated(self) -> bool:
        """Whether ranges come from data."""
        return isinstance(self.activations, StaticActivations)

    def check(self, target: Target) -> None:
        """Refuse a scheme `target` has no integer arithmetic for."""
        if isinstance(self.activations, FloatActivations):
            return
        ops = [
            op for op in _WEIGHTED if target.schemes.get(op) and (op in self.ops or not self.ops)
        ]
        if not ops:
            raise QuantizeError(
                f"target {target.name!r} has no integer {' or '.join(self.ops or _WEIGHTED)}; "
                "use FloatActivations or another target"
            )
        if isinstance(self.activations, DynamicActivations):
            ops = self._dynamic_ops(ops, target)
        for op in ops:
            scheme = self._scheme(op, target)
            if not target.accepts(op, scheme):
                raise QuantizeError(_refusal(target, op, scheme))

    def observers(self, model: Model, target: Target) -> Mapping[str, Observer]:
        """One observer per tensor that carries a pair of its own."""
        _require_float(model)
        if not isinstance(self.activations, StaticActivations):
            return {}
        observer = _fitted(self.activations.observer, _activation(target))
        placement = place(Graph(model), target, self._selection)
        return dict.fromkeys(placement.pairs, observer)

    def __call__(
        self, model: Model, stats: Mapping[str, TensorStats], target: Target
    ) -> PassResult:
        """The quantized model, a row per layer with a weight, and what stays in float."""
        self.check(target)
        _require_float(model)
        graph = Graph(model)
        qparams: dict[str, QParams] = {}
        dynamic: Mapping[str, DynamicForm] = {}
        exact: frozenset[str] = frozenset()
        if isinstance(self.activations, DynamicActivations):
            found = place_dynamic(graph, target, self._selection, self.activations)
            layers, dynamic, skips = list(found.layers), found.inputs, found.skipped
        else:
            placement = place(graph, target, self._selection)
            layers = [(g.members[0], g.weighted) for g in placement.groups if g.weighted]
            skips = placement.skipped
            if isinstance(self.activations, StaticActivations):
                qparams = self._qparams(placement, stats, target)
                exact = placement.exact
        forms = {
            layer.weight: self._weight(
                model.params[layer.weight], layer, target, _row_scale(graph, layer.weight, qparams)
            )
            for _, layer in layers
        }
        quantized = {name: layer.weight for name, layer in layers}
        dtype = _activation(target).dtype
        result = write(model, graph.flow, qparams, dtype, forms, quantized, dynamic, exact)
        total = sum(map(graph.macs, graph.values)) or 1
        rows = tuple(
            _report(name, layer, graph, model.params[layer.weight], forms[layer.weight])
            for name, layer in layers
        )
        skipped = tuple(
            SkippedLayer(skip.name, skip.op, skip.reason, skip.macs, skip.macs / total)
            for skip in skips
        )
        return PassResult(result.with_step(repr(self)), rows, skipped)

    @property
    def _selection(self) -> Selection:
        return Selection(self.ops, self.exclude)

    def _codes(self, op: str, target: Target) -> CodeRange:
        """The codes of a weight: as many as `bits` hold, less what the target's arithmetic cannot take."""
        if not self.symmetric:
            return CodeRange("uint8", 0, (1 << self.bits) - 1)
        most = (1 << (self.bits - 1)) - 1
        schemes = target.schemes.get(op)
        offered = schemes[0].weight if schemes else None
        if offered is None or isinstance(self.activations, FloatActivations):
            return CodeRange("int8", -most, most, symmetric=True)
        return CodeRange("int8", max(-most, offered.low), min(most, offered.high), symmetric=True)

    def _scheme(self, op: str, target: Target) -> Scheme:
        offered = target.scheme_for(op)
        if isinstance(self.activations, DynamicActivations):
            offered = replace(offered, dynamic=(span(self.activations, op),))
        kind = _KINDS[type(self._granularity(op, target))]
        return replace(offered, weight=self._codes(op, target), granularity=(kind,))

    def _dynamic_ops(self, ops: Sequence[str], target: Target) -> list[str]:
        """Those of `ops` whose input's range `target` can take at run time; a QuantizeError if there is none."""
        assert isinstance(self.activations, DynamicActivations)
        able = [op for op in ops if target.dynamic_scheme(op, span(self.activations, op))]
        if not able:
            per_tensor = any(target.dynamic_scheme(op, "tensor") for op in ops)
            raise QuantizeError(
                f"target {target.name!r} takes no range of a {' or '.join(ops)} input at run time per "
                f"{span(self.activations, ops[0])}; use {'PerTensor()' if per_tensor else 'StaticActivations'}"
            )
        return able

    def _granularity(self, op: str, target: Target) -> Granularity:
        if self.granularity is not None:
            return self.granularity
        schemes = target.schemes.get(op)
        if schemes and "axis" not in schemes[0].granularity:
            return PerTensor()
        return PerAxis()

    def _weight(
        self, weight: np.ndarray, layer: Weighted, target: Target, least: float
    ) -> UniformWeight:
        granularity = resolve(
            self._granularity(layer.op, target), out_axis=layer.out_axis, in_axis=layer.in_axis
        )
        integer = not isinstance(self.activations, FloatActivations)
        if integer and isinstance(granularity, PerAxis) and granularity.axis != layer.out_axis:
            raise QuantizeError(
                f"weight {layer.weight!r}: {granularity} is not its output channel axis "
                f"{layer.out_axis}, over which integer sums are scaled; use PerAxis()"
            )
        power_of_two = integer and target.scheme_for(layer.op).power_of_two
        return quantize_weight(
            weight,
            granularity,
            self._codes(layer.op, target),
            bits=self.bits,
            observer=self.observer,
            power_of_two=power_of_two,
            least=least if self.symmetric else 0.0,
        )

    def _qparams(
        self, placement: Placement, stats: Mapping[str, TensorStats], target: Target
    ) -> dict[str, QParams]:
        missing = [name for name in placement.pairs if name not in stats]
        if missing:
            raise CalibrationError(
                f"no statistics for tensor {missing[0]!r} and {len(missing) - 1} more; "
                "collect them with the observers of this pass"
            )
        codes = _activation(target)
        power_of_two = any(schemes[0].power_of_two for schemes in target.schemes.values())
        own = {
            name: activation_qparams(stats[name], codes, power_of_two=power_of_two)
            for name in placement.pairs
        }
        return own | {name: own[source] for name, source in placement.carried.items()}


def _row_scale(graph: Graph, weight: str, qparams: Mapping[str, QParams]) -> float:
    """The least scale of a table's rows; 0 for a weight that is multiplied, or rows read as float32.

    A row is rounded to 8 bits again as the embedding's result. On that grid from the start it is rounded once;
    only a row that leaves its codes there has a coarser scale of its own.
    """
    readers = [name for name in graph.values if _reads_table(graph, name, weight)]
    scales = [qparams[name].scale for name in readers if name in qparams]
    return min(scales) if scales and len(scales) == len(readers) else 0.0


def _reads_table(graph: Graph, name: str, weight: str) -> bool:
    layer = graph.weighted(name)
    return layer is not None and layer.op == "embedding" and layer.weight == weight


def _require_float(model: Model) -> None:
    """A pair more behind each of another quantizer's would only add its error."""
    if is_quantized(model):
        raise QuantizeError(
            "the model is quantized already; compile it without a recipe, which runs it in integers "
            "as it is, or compress the float32 model it was made from"
        )


def _activation(target: Target) -> CodeRange:
    """The codes between layers: what the target's layers with weights read."""
    op = next((op for op in _WEIGHTED if target.schemes.get(op)), _WEIGHTED[0])
    return target.scheme_for(op).activation


def _fitted(observer: Observer, codes: CodeRange) -> Observer:
    """An observer that counts levels asked about the codes the tensor will get."""
    if not isinstance(observer, MSE | Entropy):
        return observer
    return replace(
        observer,
        levels=2 * codes.high + 1 if codes.symmetric else codes.high - codes.low + 1,
        symmetric=codes.symmetric,
    )


def _refusal(target: Target, op: str, scheme: Scheme) -> str:
    offered, weight = target.scheme_for(op), scheme.weight
    assert weight is not None
    assert offered.weight is not None
    if offered.weight.symmetric and not weight.symmetric:
        problem, fix = "weights with zero points", "set symmetric = true"
    elif not set(scheme.granularity) <= set(offered.granularity):
        problem = f"weight scales per {scheme.granularity[0]}"
        fix = f"use a scale per {' or '.join(offered.granularity)}"
    else:
        problem = f"{weight.dtype} weights in [{weight.low}, {weight.high}]"
        fix = f"use codes within [{offered.weight.low}, {offered.weight.high}]"
    return (
        f"target {target.name!r} has no integer {op} for {problem}; "
        f"{fix}, or FloatActivations to shrink weights only"
    )


def _report(
    name: str, layer: Weighted, graph: Graph, weight: np.ndarray, form: UniformWeight
) -> LayerReport:
    noise = np.square(form.dequantized().astype(np.float64) - weight).sum()
    power = np.square(weight.astype(np.float64)).sum()
    sqnr = float(10 * np.log10(power / noise)) if noise and power else float("inf")
    scheme = f"int{form.bits} {form.granularity}"
    return LayerReport(name, layer.op, scheme, graph.macs(name), weight.nbytes, form.nbytes, sqnr)
