"""Where two networks depart: each layer's own error, given its own inputs, and what has built up until it.

The error a layer adds is seen by putting the subject's tensors into the reference before each of its
layers: both then work on the same inputs, and an early fault does not show in later layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tvmcomp.report.scale import Range
from tvmcomp.report.sides import Side
from tvmcomp.runtime.capture import Capture, Stored

__all__ = ["FLOAT_TOLERANCE", "STEPS", "Diff", "LayerDiff", "base_name", "diff_networks"]

SCHEMA = 1
# Sums in another order differ by less, any fault that matters by more.
FLOAT_TOLERANCE = 1e-4
# Where a layer's inputs are codes, or other codes, on one side alone: half a step of each adds up, and the weights'.
ROUNDED_TOLERANCE = 0.05
# Codes against the float layer: rounding and 8-bit weights cost a step or two; in RMS over a channel.
STEPS = 8.0
# Samples may be quieter than those of calibration; scales that waste more than three bits are another matter.
SCALE_LOSS_DB = 20.0
# A tensor of few values shows no range; what counts there is that little of it is left.
LOST_SQNR_DB = 10.0
# What compression and layouts add to the name of a tensor they write again in another form.
_SUFFIXES = (".q", ".dq", ".local", ".halo", ".dense", ".out")


@dataclass(frozen=True)
class LayerDiff:
    """One tensor both sides have.

    mode:      "codes" (the same integers are expected), "float", or "steps" (codes against real values).
    own:       error the layer adds: max |difference| in codes, or relative to the largest value, or the
               RMS of the worst channel in steps of the code; None where one side is not finite alone.
    own_sqnr_db, total_sqnr_db: of the layer alone, and of all until it; None where nothing differs.
    scale_loss_db: what the tensor's scale costs against the best for the same values; None if not codes.
    departs:   why it does, None if it does not.
    """

    tensor: str
    layer: str
    kind: str
    mode: str
    own: float | None
    own_sqnr_db: float | None
    total_sqnr_db: float | None
    scale_loss_db: float | None
    departs: str | None


@dataclass(frozen=True)
class Diff:
    """All tensors both sides have, in the subject's order; `unmatched` are only the subject's."""

    layers: tuple[LayerDiff, ...]
    unmatched: tuple[str, ...]
    samples: int

    @property
    def first(self) -> LayerDiff | None:
        """The first layer that departs."""
        return next((layer for layer in self.layers if layer.departs is not None), None)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        first = self.first
        return {
            "first": None if first is None else asdict(first),
            "layers": [asdict(layer) for layer in self.layers],
            "unmatched": list(self.unmatched),
            "samples": self.samples,
        }


def diff_networks(
    subject: Capture,
    reference: Side,
    samples: Sequence[Mapping[str, np.ndarray]],
    tolerance: float | None = None,
) -> Diff:
    """Run both on `samples` and judge every layer of `subject` by its own error.

    tolerance: what a layer may add: codes (by default none), relative to the largest float value (by
               default 1e-4), or RMS steps of codes against floats (by default 8).
    """
    tensors = subject.tensors
    pairs = _pairs(tensors, reference.tensors)
    again = _again(subject, pairs, reference.tensors)
    tallies = {
        name: _Tally(
            tensors[name],
            tensors[again[name]] if name in again else reference.tensors[other],
            reference.tensors[other],
        )
        for name, other in pairs.items()
    }
    for inputs in samples:
        ours = subject.run(inputs)
        given = _given(ours, tensors, reference.tensors, pairs)
        alone, whole = reference.run(inputs, given), reference.run(inputs)
        for name, tally in tallies.items():
            expected = ours[again[name]] if name in again else alone[pairs[name]]
            tally.add(ours[name], expected, whole[pairs[name]])
    rows, unmatched = [], []
    for call in subject.calls:
        for tensor in call.writes:
            if tensor.name not in tallies:
                unmatched.append(tensor.name)
                continue
            carried = any(_same_codes(tensors.get(name), tensor) for name in call.reads)
            rounded = any(
                name in pairs and not _alike(tensors[name], reference.tensors[pairs[name]])
                for name in call.reads
            )
            tally = tallies[tensor.name]
            rows.append(
                tally.row(call.layer, call.kind, tolerance, carried=carried, rounded=rounded)
            )
    return Diff(tuple(rows), tuple(unmatched), len(samples))


def base_name(name: str) -> str:
    """The source's name of a tensor, of its codes or of a copy: "relu_3.q.halo" -> "relu_3"."""
    while ending := next((end for end in _SUFFIXES if name.endswith(end)), None):
        name = name.removesuffix(ending)
    return name


def _pairs(ours: Mapping[str, Stored], theirs: Mapping[str, Stored]) -> dict[str, str]:
    """Our tensor -> theirs of the same name, or of the name without what marks codes."""
    found = {}
    for name, tensor in ours.items():
        base = base_name(name)
        for other in (name, base, f"{base}.q"):
            if (
                other in theirs
                and theirs[other].shape == tensor.shape
                and (_real(tensor) == _real(theirs[other]))
            ):
                found[name] = other
                break
    return found


def _again(
    subject: Capture, pairs: Mapping[str, str], theirs: Mapping[str, Stored]
) -> dict[str, str]:
    """Tensor -> the tensor its layer reads and only writes again: the other side has both as one, or it has
    other codes, whose values are no measure of ours."""
    tensors = subject.tensors
    return {
        tensor.name: name
        for call in subject.calls
        for tensor in call.writes
        for name in call.reads
        if tensor.name in pairs
        and name in pairs
        and (
            pairs[name] == pairs[tensor.name]
            or (
                call.kind == "Dequantize"
                and tensors[name].shape == tensor.shape
                and _rounded(tensors[name], theirs[pairs[name]])
            )
        )
    }


def _rounded(own: Stored, other: Stored) -> bool:
    """Whether our values of a tensor change when they are given to the other side."""
    return other.scale is not None and not _same_codes(own, other)


def _alike(own: Stored, other: Stored) -> bool:
    """Whether both sides hold a tensor in the same codes, or neither in codes."""
    return (own.scale is None and other.scale is None) or _same_codes(own, other)


def _real(tensor: Stored) -> bool:
    """Whether its values mean real numbers: floats, or codes with a scale."""
    return tensor.scale is not None or np.dtype(tensor.dtype).kind == "f"


def _same_codes(one: Stored | None, other: Stored) -> bool:
    return one is not None and (one.scale, one.zero_point) == (other.scale, other.zero_point)


def _given(
    ours: Mapping[str, np.ndarray],
    tensors: Mapping[str, Stored],
    theirs: Mapping[str, Stored],
    pairs: Mapping[str, str],
) -> dict[str, np.ndarray]:
    """Our tensors in the form of theirs; of a tensor and its codes, the codes, which later layers read."""
    given: dict[str, np.ndarray] = {}
    for name, other in pairs.items():
        if other in given and tensors[name].scale is None:
            continue
        given[other] = _converted(ours[name], tensors[name], theirs[other])
    return given


def _converted(array: np.ndarray, own: Stored, other: Stored) -> np.ndarray:
    if own.dtype == other.dtype and (own.scale, own.zero_point) == (other.scale, other.zero_point):
        return array
    real = own.real(array)
    if other.scale is None:
        return real.astype(other.dtype)
    info = np.iinfo(other.dtype)
    codes = np.rint(real / other.scale) + (other.zero_point or 0)
    return np.clip(codes, info.min, info.max).astype(other.dtype)


@dataclass(eq=False)
class _Tally:
    """Sums over samples for one tensor `own`; `other` is what it should equal, `whole` the reference's."""

    own: Stored
    other: Stored
    whole: Stored
    worst: float = 0.0
    largest: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    whole_signal: float = 0.0
    whole_noise: float = 0.0
    steps: np.ndarray | None = None
    rows: int = 0
    range: Range = field(default_factory=Range)

    @property
    def mode(self) -> str:
        if self.own.dtype == self.other.dtype and (
            (self.own.scale, self.own.zero_point) == (self.other.scale, self.other.zero_point)
        ):
            return "codes" if np.dtype(self.own.dtype).kind in "iub" else "float"
        if self.own.scale is None and self.other.scale is None:
            return "float"
        if self.own.scale is None and self.other is not self.whole:
            return "float"  # codes of our own as real values
        return "steps"

    def add(self, ours: np.ndarray, alone: np.ndarray, whole: np.ndarray) -> None:
        """Ours, the reference's on our inputs, the reference's on its own."""
        real, wide = self.own.real(ours), self.other.real(alone)
        with np.errstate(all="ignore"):
            off = np.abs(real - wide)
            equal = (real == wide) | (np.isnan(real) & np.isnan(wide))
        off = np.where(equal, 0.0, np.where(np.isfinite(off), off, np.inf))
        self.worst = max(self.worst, float(off.max(initial=0.0)))
        finite = wide[np.isfinite(wide)]
        self.largest = max(self.largest, float(np.abs(finite).max(initial=0.0)))
        self.signal += float(np.square(finite).sum())
        self.noise += float(np.square(off).sum())
        entire = self.whole.real(whole)
        with np.errstate(all="ignore"):
            self.whole_signal += float(np.square(entire).sum())
            self.whole_noise += float(np.square(entire - real).sum())
        if self.mode == "steps":
            self._add_steps(real, wide)
            self.range.add(entire)

    def _add_steps(self, real: np.ndarray, wide: np.ndarray) -> None:
        codes = self.own if self.own.scale is not None else self.other
        scale = codes.scale or 1.0
        info = np.iinfo(codes.dtype)
        low, high = ((end - (codes.zero_point or 0)) * scale for end in (info.min, info.max))
        # What lies outside the codes' range is a matter of the scale, which is judged apart.
        off = (np.clip(real, low, high) - np.clip(wide, low, high)) / scale
        rows = off.reshape(-1, off.shape[-1] if off.ndim else 1)
        squares = np.square(rows).sum(0)
        self.steps = squares if self.steps is None else self.steps + squares
        self.rows += len(rows)

    def row(
        self, layer: str, kind: str, tolerance: float | None, *, carried: bool, rounded: bool
    ) -> LayerDiff:
        """The verdict; `carried`: its scale is that of a tensor it was made from; `rounded`: the other side
        had its inputs not in the same codes."""
        mode = self.mode
        own, limit, unit = self._own(mode, kind)
        if mode == "float" and rounded and self.other is self.whole:
            limit = ROUNDED_TOLERANCE
        limit = limit if tolerance is None else tolerance
        departs = None
        if not math.isfinite(own):
            departs = "one side alone holds NaN or infinity"
        elif own > limit:
            departs = f"adds {own:.4g} {unit}, {limit:g} allowed"
        sqnr = _db(self.signal, self.noise)
        loss = None
        if mode == "steps" and not carried:
            codes = self.own if self.own.scale is not None else self.other
            loss = self.range.loss_db(codes)
            certain = self.range.telling or (sqnr is not None and sqnr < LOST_SQNR_DB)
            if departs is None and certain and loss is not None and loss > SCALE_LOSS_DB:
                departs = (
                    f"its scale costs {loss:.1f} dB against the best for these values, "
                    f"{SCALE_LOSS_DB:g} allowed"
                )
        return LayerDiff(
            tensor=self.own.name,
            layer=layer,
            kind=kind,
            mode=mode,
            own=own if math.isfinite(own) else None,
            own_sqnr_db=sqnr,
            total_sqnr_db=_db(self.whole_signal, self.whole_noise),
            scale_loss_db=loss,
            departs=departs,
        )

    def _own(self, mode: str, kind: str) -> tuple[float, float, str]:
        """(own error, what is allowed by default, its unit)."""
        if mode == "codes":
            # Float arithmetic inside a fragment of TVM's has no fixed order, so a code may round otherwise.
            allowed = 1.0 if kind == "Opaque" and self.own.scale is not None else 0.0
            return self.worst / (self.own.scale or 1.0), allowed, "codes"
        if mode == "float":
            scaled = self.worst / self.largest if self.largest else self.worst
            return scaled, FLOAT_TOLERANCE, "of the largest value"
        assert self.steps is not None
        return float(np.sqrt(self.steps.max() / self.rows)), STEPS, "steps RMS in one channel"


def _db(signal: float, noise: float) -> float | None:
    if not (math.isfinite(signal) and math.isfinite(noise)) or signal <= 0 or noise <= 0:
        return None
    return 10 * math.log10(signal / noise)
