"""Indices, lengths and coordinates a client chooses: an error or the defined meaning, and no foreign memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from acceptance.apart import run_apart
from acceptance.context import Context
from acceptance.index_cases import CASES, OUTSIDE, Case
from acceptance.row import Check, Row, figure, holds

__all__ = ["ROW", "measure", "measure_saved"]

_CANARY = np.float32(1e30)
_SEEDS = 8
_COORDINATES = (np.nan, np.inf, -np.inf, 1e30, -1e30, 2.0**31, -(2.0**31), -1.7, 0.3, 1.0)


def _guarded(table: np.ndarray) -> np.ndarray:
    """The table in place inside memory full of canaries, where the kernels read it without a copy."""
    room = 1 << 16
    memory = np.full(table.nbytes // 4 + 2 * room, _CANARY, np.float32)
    start = room - (memory.ctypes.data % 64) // 4
    view = memory[start : start + table.size].reshape(table.shape)
    view[...] = table
    return view


def _import(model: Any) -> Any:
    import tvmcomp as tc

    return tc.from_torch(*model) if isinstance(model, tuple) else tc.from_onnx(model)


def _compiled(model: Any) -> Any:
    import tvmcomp as tc

    return tc.compile(_import(model)).network


def _fault(case: Case, network: Any, seed: int, computed: bool) -> str:
    """Empty if the network answers as it must."""
    from tvmcomp.errors import DataError

    rng = np.random.default_rng(seed)
    tables = {k: rng.standard_normal(v).astype(np.float32) for k, v in case.tables.items()}
    chosen = case.values(seed)
    arrays = [_guarded(table) for table in tables.values()]
    for values in chosen.values():
        arrays += [values, np.zeros_like(values)] if computed else [values]
    try:
        got = network(*arrays)
    except DataError as error:
        return f"seed {seed}: {error}" if computed or "as an index" not in str(error) else ""
    want = case.means({**tables, **chosen})
    return "" if np.array_equal(got, want) else f"seed {seed}: wrong: {np.ravel(got)[:6]}"


def _coordinate_models() -> Mapping[str, Any]:
    """Operators whose addresses follow from float coordinates or from lengths."""
    from acceptance.index_cases import onnx_model

    image = {"x": (2, 3, 6, 6)}
    grids = {
        f"GridSample {mode} {padding}": onnx_model(
            "GridSample", {**image, "g": (2, 4, 5, 2)}, {}, ("x", "g"), opset=16,
            mode=mode, padding_mode=padding,
        )
        for mode in ("bilinear", "nearest", "bicubic")
        for padding in ("zeros", "border", "reflection")
    }  # fmt: skip
    regions = {
        f"RoiAlign, sampling ratio {ratio}": onnx_model(
            "RoiAlign", {**image, "g": (5, 4)}, {"i": (5,)}, ("x", "g", "i"), opset=16,
            output_height=2, output_width=2, sampling_ratio=ratio,
        )
        for ratio in (0, 2)
    }  # fmt: skip
    pool = onnx_model("MaxRoiPool", {**image, "g": (5, 5)}, {}, ("x", "g"), pooled_shape=[2, 2])
    return {**grids, **regions, "MaxRoiPool": pool}


def _coordinate_fault(network: Any, seed: int) -> str:
    """Results come from the image or from zero, and from nothing an earlier call left in memory."""
    rng = np.random.default_rng(seed)
    arrays = []
    for name, tensor in network.signature.inputs.items():
        if name == "x":
            arrays.append(_guarded(rng.uniform(-1, 1, tensor.shape).astype(np.float32)))
        elif name == "g":
            arrays.append(rng.choice(np.array(_COORDINATES, np.float32), tensor.shape))
        elif name.endswith("_zero"):
            arrays.append(np.zeros(tensor.shape, tensor.dtype))
        else:
            arrays.append(rng.choice(np.array(OUTSIDE, tensor.dtype), tensor.shape))
    result = np.array(network(*arrays))
    network(*(np.full_like(array, 3) if array.dtype == np.float32 else array for array in arrays))
    if result.tobytes() != np.asarray(network(*arrays)).tobytes():
        return f"seed {seed}: another result after another call"
    # Cubic weights overshoot, sums of weights do not.
    far = np.abs(result[np.isfinite(result)]) > 4
    return f"seed {seed}: {result[np.isfinite(result)][far][:4]}" if far.any() else ""


def measure(names: Sequence[str], seeds: int, direct: bool = True) -> dict[str, str]:
    """What is wrong, by case, with computed indices and, `direct`, with those of an input.

    For a process of its own, which a stray address may kill.
    """
    from tvmcomp.errors import ModelError

    found: dict[str, str] = {}
    for case in CASES:
        if names and case.name not in names:
            continue
        for computed in (True, False) if direct else (True,):
            what = f"{case.name}, {'computed' if computed else 'as they come'}"
            try:
                network = _compiled(case.model(computed))
            except ModelError as error:
                found[what] = f"refused: {error}"
                continue
            faults = [_fault(case, network, seed, computed) for seed in range(seeds)]
            found[what] = next(filter(None, faults), "")
    for name, make in _coordinate_models().items():
        if names and name not in names:
            continue
        try:
            network = _compiled(make(True))
        except ModelError as error:
            found[name] = f"refused: {error}"
            continue
        faults = [_coordinate_fault(network, seed) for seed in range(seeds)]
        found[name] = next(filter(None, faults), "")
    return found


def measure_saved(artifacts: Mapping[str, str], seeds: int) -> dict[str, str]:
    """What is wrong, by case, with its model for computed indices that is already compiled: case -> file.

    Needs no compiler, so its process starts in a second.
    """
    import tvmcomp as tc

    cases = {case.name: case for case in CASES}
    networks = {name: tc.load(path) for name, path in artifacts.items()}
    return {
        name: next(filter(None, (_fault(cases[name], net, s, True) for s in range(seeds))), "")
        for name, net in networks.items()
    }


def _run(context: Context) -> Iterator[Check]:
    yield figure("indices", ", ".join(map(str, OUTSIDE)))
    found = run_apart("acceptance.indices:measure", {"names": [], "seeds": context.scaled(_SEEDS)})
    for what, fault in found.items():
        refused = fault.startswith("refused: ")
        yield holds(f"{what}{': refused' if refused else ''}", not fault or refused, fault)


ROW = Row(
    "indices",
    "indices outside a 10-row table in every gather-like operator: a clear error where they are an "
    "input, the nearest element (reads) or nothing (writes) where computed, and no foreign memory",
    _run,
)
