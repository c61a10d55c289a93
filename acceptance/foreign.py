"""Networks quantized by ONNX Runtime: in integers as they are, as near to their float simulation as its own run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from acceptance.context import Arrays, Context
from acceptance.opaque import opaque_runner
from acceptance.row import Check, Row, at_least, figure, holds, tried
from acceptance.sqnr import sqnr_db

if TYPE_CHECKING:
    import onnx

    from tvmcomp.graph.layers import LayerGraph

__all__ = ["CASES", "ROW", "Case"]

_BELOW = 1.0
# Beyond it, an output differs from the simulation by less than a thousandth.
_CEILING = 60.0
_LIMIT = 0.99


@dataclass(frozen=True)
class Case:
    """A network and what `quantize_static` is told about it.

    float_mask: the nodes from the input of that name up to each softmax stay float32.
    """

    net: str
    label: str
    settings: tuple[tuple[str, Any], ...] = ()
    float_mask: str = ""

    @property
    def about(self) -> str:
        return f"{self.net}, {self.label}"


CASES = (
    Case("resnet50", "QDQ u8s8 per channel", (("per_channel", True),)),
    Case("resnet50", "operator form", (("per_channel", True), ("quant_format", "QOperator"))),
    Case("mobilenet_v2", "QDQ u8s8 per channel", (("per_channel", True),)),
    Case("mobilenet_v2", "QDQ s8s8", (("activation_type", "QInt8"),)),
    # Codes for scores and mask together span the mask's -3e38, so all scores share one code.
    Case("bert_base", "QDQ u8s8 per channel", (("per_channel", True),)),
    Case("bert_base", "QDQ s8s8", (("activation_type", "QInt8"),)),
    Case(
        "bert_base",
        "QDQ u8s8 per channel, float mask",
        (("per_channel", True),),
        float_mask="attention_mask",
    ),
)


def _quantized(context: Context, case: Case) -> Path:
    """The file ONNX Runtime's quantizer writes."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    net = context.net(case.net)
    name = case.about.replace(", ", "-").replace(" ", "-")
    whole, prepared, target = (
        context.folder / f"{name}-{part}.onnx" for part in ("whole", "prepared", "int8")
    )
    onnx.save(onnx.load(context.files(net).onnx), whole)
    quant_pre_process(whole, prepared, skip_symbolic_shape=True)
    settings = {
        "quant_format": "QDQ",
        "activation_type": "QUInt8",
        "weight_type": "QInt8",
        **dict(case.settings),
    }
    kinds = {"quant_format": QuantFormat, "activation_type": QuantType, "weight_type": QuantType}
    settings = {k: kinds[k][v] if k in kinds else v for k, v in settings.items()}
    if case.float_mask:
        settings["nodes_to_exclude"] = list(_masking(onnx.load(prepared), case.float_mask))
    quantize_static(prepared, target, _reader(context.calibration(net)), **settings)
    return target


def _masking(model: onnx.ModelProto, mask: str) -> Iterator[str]:
    """Names of the nodes through which the mask reaches a softmax, and of these, which would quantize it."""
    reached = {mask}
    for node in model.graph.node:
        if reached.intersection(node.input):
            yield node.name
            if node.op_type != "Softmax":
                reached.update(node.output)


def _reader(samples: Arrays) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest = iter(range(len(next(iter(samples.values())))))

        def get_next(self) -> Arrays | None:
            at = next(self._rest, None)
            return None if at is None else {k: array[at : at + 1] for k, array in samples.items()}

    return Reader()


def _session(model: onnx.ModelProto, *, integers: bool) -> Callable[[Arrays], list[np.ndarray]]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if integers else level.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda inputs: session.run(None, inputs)


def _simulation(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same file with its operators on codes written as pairs, which then run in float."""
    import onnx

    from tvmcomp.frontend.onnx_operator_form import expand_operator_form

    simulated = onnx.ModelProto()
    simulated.CopyFrom(model)
    expand_operator_form(simulated.graph)
    return simulated


def _share(graph: LayerGraph, model: Any) -> tuple[float, list[str]]:
    """Share of the multiply-accumulates in integer layers, and the names of those that are not."""
    from tvmcomp.graph.cost import layer_costs
    from tvmcomp.graph.layers import IntConv, IntMatMul

    integer = {layer.name for layer in graph.layers if isinstance(layer, IntConv | IntMatMul)}
    costs = [cost for cost in layer_costs(model) if cost.macs]
    done = sum(cost.macs for cost in costs if cost.name in integer)
    rest = [f"{cost.name} ({cost.op})" for cost in costs if cost.name not in integer]
    return done / sum(cost.macs for cost in costs), rest


def _one(context: Context, case: Case) -> Iterator[Check]:
    import onnx

    import tvmcomp as tc
    from tvmcomp.compress import reference
    from tvmcomp.graph.layers import Dequantize, Quantize

    with context.stage(f"quantize_static {case.about}"):
        file = _quantized(context, case)
    with context.stage(f"compile {case.about}"):
        executable = tc.compile(tc.load_model(file))
    graph = executable.build.graph
    if graph is None:
        raise RuntimeError("a finished build has no layer graph")
    share, rest = _share(graph, executable.build.model)
    yield at_least(f"{case.about}: share of the MACs in integers", share, _LIMIT, ", ".join(rest))
    floats = [
        f"{layer.name} ({type(layer).__name__})"
        for layer in graph.layers
        if graph.tensors[layer.output].dtype == "float32" and not isinstance(layer, Dequantize)
    ]
    yield figure(f"{case.about}: layers with a float32 result", len(floats), ", ".join(floats))
    pairs = sum(isinstance(layer, Quantize) for layer in graph.layers)
    yield figure(f"{case.about}: layers that quantize floats", pairs)

    inputs = context.evaluation(context.net(case.net))
    model = onnx.load(file)
    wanted = _outputs(_session(_simulation(model), integers=False), inputs)
    theirs = _outputs(_session(model, integers=True), inputs)
    got = _outputs(lambda arrays: list(executable.run(arrays).values()), inputs)
    with context.stage(f"reference {case.about}"):
        exact = reference.run(graph, inputs[0], opaque_runner(graph)).values()
    same = all(np.array_equal(a[0], b) for a, b in zip(got, exact, strict=True))
    yield holds(f"{case.about}: equals the reference", same)
    for place, (want, peer, own) in enumerate(zip(wanted, theirs, got, strict=True)):
        about = f"{case.about}, output {place}" if len(wanted) > 1 else case.about
        reached = sqnr_db(want, peer)
        yield figure(f"{about}: SQNR of ONNX Runtime in integers, dB", reached)
        limit = min(reached, _CEILING) - _BELOW
        yield at_least(f"{about}: SQNR against the float simulation, dB", sqnr_db(want, own), limit)


def _outputs(run: Callable[[Arrays], list[np.ndarray]], inputs: list[Arrays]) -> list[np.ndarray]:
    """Each output over all inputs, [samples, ...]."""
    each = [run(arrays) for arrays in inputs]
    return [np.stack(arrays) for arrays in zip(*each, strict=True)]


def _run(context: Context) -> Iterator[Check]:
    known = {net.name for net in context.nets}
    for case in CASES:
        if case.net in known:
            yield from tried(case.about, lambda case=case: _one(context, case))


ROW = Row(
    "foreign",
    "ONNX Runtime's QDQ and operator form: integers for 99 % of the MACs, SQNR within 1 dB of its own run",
    _run,
)
