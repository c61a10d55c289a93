"""Faults of known place: one constant of one layer changed, in a sealed artifact or in the model before compilation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tvmcomp.artifact import Payload
    from tvmcomp.compress import CompressResult
    from tvmcomp.flow import Executable
    from tvmcomp.graph.layers import Layer, LayerGraph
    from tvmcomp.model import Model

__all__ = [
    "FAMILIES",
    "Planted",
    "family",
    "plant_in_artifact",
    "plant_in_model",
    "plant_in_scale",
    "shows",
]

FAMILIES = ("conv", "depthwise", "dense", "residual", "table")
# Of the tensor's largest value: less is within what floats may differ by.
_SEEN = 1e-3
_TRIES = 40


@dataclass(frozen=True, eq=False)
class Planted:
    """An artifact's content with a fault, in which layer it is, and what was done."""

    payload: Payload
    layer: str
    about: str


def family(graph: LayerGraph, layer: Layer) -> str:
    """What a user calls the layer; "" for one without constants of its own."""
    from tvmcomp.graph.layers import Conv, IntAdd, Table

    if isinstance(layer, Table):
        return "table"
    if isinstance(layer, IntAdd) or (isinstance(layer, Conv) and len(layer.inputs) > 1):
        return "residual"
    if not isinstance(layer, Conv):
        return ""
    if layer.groups > 1:
        return "depthwise"
    image = len(graph.tensors[layer.output].shape) == 4
    return "conv" if image else "dense"


def plant_in_artifact(
    sound: Executable, wanted: str, role: str, inputs: Mapping[str, np.ndarray], seed: int
) -> Planted:
    """`role` of a layer of family `wanted` changed in the packed constants: a field of the layer's record, or
    "bytes" for four bytes at any place of the kernel's constants.

    Faults that `inputs` do not show (of a channel that is always clipped, say) are drawn again.
    """
    rng = np.random.default_rng(seed)
    graph = _scheduled(sound)
    layers = [layer for layer in graph.layers if family(graph, layer) == wanted]
    for _ in range(_TRIES):
        layer = layers[rng.integers(len(layers))]
        payload = _patched(sound, layer, role, rng)
        if payload is not None and shows(sound.payload, payload, layer.name, inputs):
            return Planted(payload, layer.name, f"{role} of {wanted} {layer.name}")
    raise ValueError(f"no fault in the {role} of a {wanted} layer shows in {_TRIES} tries")


def _scheduled(executable: Executable) -> LayerGraph:
    assert executable.build.scheduled is not None
    return executable.build.scheduled.graph


def _patched(
    sound: Executable, layer: Layer, role: str, rng: np.random.Generator
) -> Payload | None:
    """The content with the layer's constants changed; None where they hold no such thing."""
    linked, kernels = sound.build.linked, sound.build.kernels
    assert linked is not None
    assert kernels is not None
    offset = next(call.constants_offset for call in linked.calls if call.layer == layer.name)
    old = kernels[layer.name].constants
    if old is None or offset is None:
        return None
    new = _scratched(old, rng) if role == "bytes" else _packed(sound, layer, role, rng)
    if new is None or new.nbytes != old.nbytes:
        return None
    weights = np.array(sound.payload.weights)
    weights[offset : offset + new.nbytes] = new
    return replace(sound.payload, weights=weights)


def _scratched(constants: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Four neighbouring bytes, a float among them or codes, with their top bits turned."""
    changed = constants.copy()
    at = 4 * int(rng.integers(constants.nbytes // 4))
    changed[at : at + 4] ^= np.uint8(0xC0)
    return changed


def _packed(
    sound: Executable, layer: Layer, role: str, rng: np.random.Generator
) -> np.ndarray | None:
    """The constants the layer's kernel would have if its `role` were wrong."""
    from tvmcomp.kernels.vector import isa_for
    from tvmcomp.schedule.select import select_kernels

    value = getattr(layer, role, None)
    if value is None:
        return None
    scheduled, kernels = sound.build.scheduled, sound.build.kernels
    assert scheduled is not None
    assert kernels is not None
    wrong = replace(layer, **{role: _wrong(value, role, rng)})
    layers = tuple(wrong if other is layer else other for other in scheduled.graph.layers)
    changed = replace(scheduled, graph=replace(scheduled.graph, layers=layers))
    kernel = select_kernels(changed, isa_for(sound.build.target.features))[layer.name]
    # Another key is another function, not another constant.
    return kernel.constants if kernel.key == kernels[layer.name].key else None


def _wrong(value: Any, role: str, rng: np.random.Generator) -> Any:
    """One channel of a weight turned over, one scale doubled, one bias moved, eight entries of a table mirrored."""
    if not isinstance(value, np.ndarray):
        return 2 * value
    wrong = value.copy()
    channel = int(rng.integers(len(value)))
    if role == "weight":
        wrong[channel] = -value[channel]
    elif role == "bias":
        wrong[channel] += 0.5 * np.abs(value).max() + 0.25
    elif role == "table":
        at = int(rng.integers(len(value) - 8))
        wrong[at : at + 8] = value[::-1][at : at + 8]
    else:
        wrong[channel] *= 2
    return wrong


def shows(sound: Payload, faulty: Payload, layer: str, inputs: Mapping[str, np.ndarray]) -> bool:
    """Whether the outputs of `layer` are what differs first, by more than floats may."""
    from tvmcomp.runtime.capture import Capture

    ours, theirs = Capture(faulty), Capture(sound)
    got, want = ours.run(inputs), theirs.run(inputs)
    for call in ours.calls:
        for tensor in call.writes:
            a, b = (tensor.real(made[tensor.name]) for made in (got, want))
            with np.errstate(all="ignore"):
                off = float(np.abs(a - b).max(initial=0.0))
            if off == 0:
                continue
            least = 0.0 if tensor.scale is not None else _SEEN * float(np.abs(b).max())
            return call.layer == layer and not off <= least
    return False


def plant_in_model(
    model: Model,
    sound: Executable,
    compressed: CompressResult | None,
    wanted: str,
    seed: int,
    calibration: Mapping[str, np.ndarray],
    inputs: Mapping[str, np.ndarray],
) -> Planted:
    """A weight or bias of the canonical `model` wrong in one channel before compression and compilation.

    sound:       the same compiled as it is, compressed by `compressed`'s recipe if given.
    calibration: what the faulty model is calibrated on; all scales are then made those of the sound one, so
                 that the one constant is the only difference.
    """
    from tvmcomp.build.lower import lower

    rng = np.random.default_rng(seed)
    plain = lower(model)
    names = [name for name, array in model.params.items() if array.dtype == np.float32]
    for _ in range(_TRIES):
        name = names[rng.integers(len(names))]
        if model.params[name].ndim == 0:
            continue
        array = model.params[name]
        role = "weight" if array.ndim > 1 else "bias"
        params = {**model.params, name: _wrong(array, role, rng)}
        faulty = replace(model, params=params)
        lowered = lower(faulty)
        changed = list(_differing(plain, lowered))
        if len(changed) != 1 or family(lowered, changed[0]) != wanted:
            continue
        executable = _compiled(faulty, compressed, calibration)
        changed = list(_differing(_scheduled(sound), _scheduled(executable)))
        if len(changed) != 1:
            continue
        found = changed[0]
        if shows(sound.payload, executable.payload, found.name, inputs):
            return Planted(executable.payload, found.name, f"{name} of {wanted} {found.name}")
    raise ValueError(f"no fault in a parameter of a {wanted} layer shows in {_TRIES} tries")


def _compiled(
    faulty: Model, compressed: CompressResult | None, calibration: Mapping[str, np.ndarray]
) -> Executable:
    """As the sound one was, with its scales."""
    import tvmcomp as tc
    from tvmcomp.compress.quantize.known import code_rows, with_codes

    if compressed is None:
        return tc.compile(faulty)
    wrong = tc.compress(faulty, compressed.recipe, calibration)
    return tc.compile(replace(wrong, model=with_codes(wrong.model, code_rows(compressed.model))))


def _differing(sound: LayerGraph, faulty: LayerGraph) -> Iterator[Layer]:
    for a, b in zip(sound.layers, faulty.layers, strict=True):
        pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)]
        if any(isinstance(x, np.ndarray) and not np.array_equal(x, y) for x, y in pairs):
            yield b


def plant_in_scale(
    compressed: CompressResult, sound: Executable, wanted: str, seed: int
) -> Planted:
    """The scale of the codes one layer writes 16 times too large or 8 times too small before it is compiled."""
    import tvmcomp as tc
    from tvmcomp.compress.quantize.known import code_rows, with_codes

    rng = np.random.default_rng(seed)
    graph = _scheduled(sound)
    writers = {layer.output: layer for layer in graph.layers if family(graph, layer) == wanted}
    rows = code_rows(compressed.model)
    able = [i for i, row in enumerate(rows) if row["name"] in writers]
    at, factor = able[rng.integers(len(able))], (16.0, 1 / 8)[rng.integers(2)]
    wrong: dict[str, Any] = {**rows[at]}
    wrong["scale"] *= factor
    changed = [wrong if i == at else row for i, row in enumerate(rows)]
    executable = tc.compile(replace(compressed, model=with_codes(compressed.model, changed)))
    layer = writers[wrong["name"]]
    return Planted(
        executable.payload, layer.name, f"scale of {wanted} {layer.name} times {factor:g}"
    )
