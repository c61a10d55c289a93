"""Every tensor of one run, read right after the kernel that wrote it, and runs whose tensors are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmcomp.artifact import Payload
from tvmcomp.errors import ArtifactError
from tvmcomp.runtime.arrays import admit, aligned_empty
from tvmcomp.runtime.host import check_host, find_runtime
from tvmcomp.runtime.native import Executor, Program, set_threads
from tvmcomp.runtime.profile import OWN

__all__ = ["Call", "Capture", "Stored", "calls_of"]


@dataclass(frozen=True)
class Stored:
    """A tensor in memory: [batch][height + 2 halo][width + 2 halo][pitch] elements, `shape` without them.

    scale, zero_point: of codes with one pair per tensor, else None.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None
    zero_point: int | None
    extent: tuple[int, int, int, int]
    halo: int
    pitch: int

    def view(self, memory: np.ndarray, offset: int) -> np.ndarray:
        """[batch, height + 2 halo, width + 2 halo, pitch] on a flat uint8 buffer."""
        batch, height, width, _ = self.extent
        shape = (batch, height + 2 * self.halo, width + 2 * self.halo, self.pitch)
        dtype = np.dtype(self.dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        return memory[offset : offset + size].view(dtype).reshape(shape)

    def inner(self, view: np.ndarray) -> np.ndarray:
        """The part of `view` that is the tensor."""
        _, height, width, channels = self.extent
        h = self.halo
        return view[:, h : h + height, h : h + width, :channels]

    def real(self, array: np.ndarray) -> np.ndarray:
        """Real values, float64: codes times scale."""
        wide = array.astype(np.float64)
        if self.scale is None:
            return wide
        return (wide - (self.zero_point or 0)) * self.scale


@dataclass(frozen=True)
class Call:
    """One kernel call: its layer, what it reads (views by the tensor behind them) and what it writes."""

    layer: str
    kind: str
    reads: tuple[str, ...]
    writes: tuple[Stored, ...]
    constants: bool


def calls_of(payload: Payload) -> tuple[Call, ...]:
    """The kernel calls an artifact's manifest tells of.

    Raises ArtifactError if it was made before manifests told tensors, or if what they tell is no such row.
    """
    rows = payload.function.variants[0].kernels
    try:
        return tuple(_call(row) for row in rows)
    except (KeyError, TypeError, ValueError):
        raise ArtifactError(
            "its manifest does not tell which tensors its kernels write; compile the model again"
        ) from None


def _call(row: Mapping[str, Any]) -> Call:
    return Call(
        layer=str(row["layer"]),
        kind=str(row["kind"]),
        reads=tuple(map(str, row["reads"])),
        writes=tuple(_stored(of) for of in row["writes"]),
        constants=row["constants_offset"] is not None,
    )


def _stored(of: Mapping[str, Any]) -> Stored:
    batch, height, width, channels = map(int, of["extent"])
    scale, zero_point = of["scale"], of["zero_point"]
    return Stored(
        name=str(of["name"]),
        dtype=np.dtype(of["dtype"]).name,
        shape=tuple(map(int, of["shape"])),
        scale=None if scale is None else float(scale),
        zero_point=None if zero_point is None else int(zero_point),
        extent=(batch, height, width, channels),
        halo=int(of["halo"]),
        pitch=int(of["pitch"]),
    )


class Capture:
    """An artifact that gives all its tensors; one thread. Checked like `load`, less its golden run."""

    def __init__(self, payload: Payload) -> None:
        self.calls = calls_of(payload)
        runtime = find_runtime()
        check_host(payload, runtime)
        self._program = Program(payload, runtime)
        self._signature = payload.function.signature
        self._tap = _Tap(self.calls)
        self._executor = Executor(self._program, self._tap)

    @property
    def tensors(self) -> dict[str, Stored]:
        """Every tensor a kernel writes, in order."""
        return {tensor.name: tensor for call in self.calls for tensor in call.writes}

    def run(
        self, inputs: Mapping[str, object], given: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """name -> what its kernel wrote, in the tensor's dtype and shape.

        given: tensors put in place of the network's own before each kernel that reads them, so that
               what a kernel writes depends on its own inputs alone.
        """
        signature = self._signature
        arrays = [admit(name, inputs[name], t) for name, t in signature.inputs.items()]
        outputs = [aligned_empty(t.shape, np.dtype(t.dtype)) for t in signature.outputs.values()]
        self._tap.start(given or {})
        set_threads(self._program.ffi, 1)
        self._executor.run(arrays, outputs)
        return self._tap.finish()


class _Tap:
    """An instrument: writes what is given before each kernel, reads what it wrote after it."""

    def __init__(self, calls: tuple[Call, ...]) -> None:
        self._calls = calls
        self._stored = {tensor.name: tensor for call in calls for tensor in call.writes}
        self._given: Mapping[str, np.ndarray] = {}
        self._found: dict[str, np.ndarray] = {}
        self._next = 0
        self._error: Exception | None = None

    def start(self, given: Mapping[str, np.ndarray]) -> None:
        """Before a run."""
        self._given, self._found, self._next, self._error = given, {}, 0, None

    def finish(self) -> dict[str, np.ndarray]:
        """What the run wrote."""
        if self._error is not None:
            raise self._error
        if self._next != len(self._calls):
            raise ArtifactError(
                f"its library makes {self._next} kernel calls, its manifest tells of "
                f"{len(self._calls)}; compile the model again"
            )
        return self._found

    def __call__(
        self, function: object, name: str, before: bool, result: object, *arguments: Any
    ) -> None:
        if name.startswith(OWN) or self._error is not None:
            return
        try:
            self._look(before, arguments)
        except Exception as error:  # TVM would wrap what passes through it
            self._error = error

    def _look(self, before: bool, arguments: tuple[Any, ...]) -> None:
        if self._next >= len(self._calls):
            self._next += 0 if before else 1
            return
        call = self._calls[self._next]
        operands = self._operands(arguments)
        if len(operands) != len(call.reads) + call.constants + len(call.writes):
            raise ArtifactError(
                f"kernel call {self._next} takes {len(operands)} operands, its manifest tells of "
                "another number; compile the model again"
            )
        if before:
            for name, (memory, offset) in zip(call.reads, operands, strict=False):
                if name in self._given and name in self._stored:
                    self._put(self._stored[name], memory, offset)
            return
        written = operands[len(operands) - len(call.writes) :]
        for tensor, (memory, offset) in zip(call.writes, written, strict=True):
            inner = tensor.inner(tensor.view(memory, offset))
            self._found[tensor.name] = inner.reshape(tensor.shape).copy()
        self._next += 1

    def _operands(self, arguments: tuple[Any, ...]) -> list[tuple[np.ndarray, int]]:
        """Buffer and offset, in turns."""
        buffers, offsets = arguments[::2], arguments[1::2]
        try:
            return [(np.from_dlpack(b), int(o)) for b, o in zip(buffers, offsets, strict=True)]
        except (TypeError, ValueError, AttributeError):
            raise ArtifactError(
                f"kernel call {self._next} does not take buffers and offsets; compile the model again"
            ) from None

    def _put(self, tensor: Stored, memory: np.ndarray, offset: int) -> None:
        view = tensor.view(memory, offset)
        view[...] = tensor.zero_point or 0
        inner = tensor.inner(view)
        inner[...] = self._given[tensor.name].reshape(inner.shape)
