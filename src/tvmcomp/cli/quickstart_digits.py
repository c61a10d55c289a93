"""The quickstart: a small CNN on real digits, in float and in int8, measured beside PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import starmap
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tvmcomp.cli.arguments import check_output
from tvmcomp.cli.screen import Progress, no_progress, staged
from tvmcomp.cli.subject import contender
from tvmcomp.flow import Executable, compile_model, compress_model
from tvmcomp.measure import Accuracy, Contender, Turns, accuracy, bench, peer_contenders
from tvmcomp.model import Model
from tvmcomp.train.digits import (
    Digits,
    digit_scores,
    digits_model,
    read_digits,
    save_program,
    train_digits,
)

__all__ = ["Quickstart", "Row", "missed_gates", "quickstart"]

ARTIFACT = "digits.tvmcomp"
EPOCHS = 30
CALIBRATION_SAMPLES = 256
# What int8 may cost and must save: the gates of the quickstart.
MAX_LOSS = 0.004
MAX_PARAMS = 0.30


@dataclass(frozen=True)
class Row:
    """One network of the table; PyTorch has no file of its own kind, a failed run has no times."""

    name: str
    precision: str
    accuracy: float
    samples: int | None
    median_ms: float | None
    p10_ms: float | None
    p90_ms: float | None
    params_bytes: int
    file_bytes: int | None
    reason: str | None = None


@dataclass(frozen=True)
class Quickstart:
    """What the quickstart made and measured; `missed` lists the gates it did not reach.

    bench: all of what was measured side by side, as `tvmcomp bench --json` gives it.
    """

    artifact: Path
    peers: tuple[Row, ...]
    float32: Row
    int8: Row
    missed: tuple[str, ...]
    bench: Mapping[str, Any]
    seconds: float

    @property
    def next_commands(self) -> tuple[str, ...]:
        """What to try next."""
        return (
            f"tvmcomp inspect {self.artifact} --kernels",
            "tvmcomp compile net.onnx --recipe int8 --calibration data.npz -o net.tvmcomp",
        )

    def to_dict(self) -> dict[str, object]:
        """JSON values."""
        return {
            "artifact": str(self.artifact),
            "float32": asdict(self.float32),
            "int8": asdict(self.int8),
            "peers": [asdict(row) for row in self.peers],
            "missed": list(self.missed),
            "bench": dict(self.bench),
            "seconds": self.seconds,
            "next": list(self.next_commands),
        }


def quickstart(
    folder: Path = Path(),
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    turns: Turns | None = None,
    progress: Progress = no_progress,
) -> Quickstart:
    """Train, compress, compile, measure; `digits.tvmcomp` is written to `folder` at the end."""
    begun = perf_counter()
    output = folder / ARTIFACT
    check_output(output)
    progress("read digits", 0, None)
    digits = read_digits(seed)
    net = train_digits(digits, epochs=epochs, seed=seed, progress=staged(progress, "train"))
    progress("compile float32", 0, None)
    model = digits_model(net)
    test_digit = {name: digits.test_images[:1] for name in model.signature.inputs}
    wide = compile_model(model, golden=test_digit)
    compressed = compress_model(
        model,
        "int8",
        digits.train_images[:CALIBRATION_SAMPLES],
        progress=staged(progress, "calibrate"),
    )
    progress("compile int8", 0, None)
    small = compile_model(compressed, golden=test_digit)
    progress("accuracy", 0, None)
    accuracies = [
        _accuracy(predict, digits)
        for predict in (lambda images: digit_scores(net, images), wide, small)
    ]
    with tempfile.TemporaryDirectory(prefix="tvmcomp-quickstart-") as folder_name:
        scratch = Path(folder_name)
        wide.save(scratch / "float32.tvmcomp")
        small.save(scratch / "int8.tvmcomp")
        save_program(net, scratch / "digits.pt2")
        float_bytes = (scratch / "float32.tvmcomp").stat().st_size
        measured = bench(
            contender(scratch / "int8.tvmcomp", small.payload.manifest),
            [
                *_eager(scratch / "digits.pt2", model, scratch),
                contender(scratch / "float32.tvmcomp", wide.payload.manifest),
            ],
            [test_digit],
            description="the first digit of the test split",
            turns=turns,
            progress=progress,
        )
    small.measurements |= {"accuracy": accuracies[2].to_dict(), "bench": measured}
    small.save(output)
    entries = [*measured["peers"], measured["subject"]]
    params = [model.params_bytes, _params_bytes(wide), _params_bytes(small)]
    files = [None, float_bytes, output.stat().st_size]
    *peers, float32, int8 = starmap(_row, zip(entries, accuracies, params, files, strict=True))
    return Quickstart(
        artifact=output,
        peers=tuple(peers),
        float32=float32,
        int8=int8,
        missed=missed_gates(float32, int8),
        bench=measured,
        seconds=perf_counter() - begun,
    )


def _accuracy(predict: Callable[[np.ndarray], object], digits: Digits) -> Accuracy:
    return accuracy(predict, digits.test_images, digits.test_labels)


def _eager(program: Path, model: Model, scratch: Path) -> list[Contender]:
    """PyTorch as most people run it."""
    peers = peer_contenders(
        ["torch"], source=program, signature=model.signature, calibration=None, scratch=scratch
    )
    return [peer for peer in peers if (peer.name, peer.precision) == ("torch", "float32")]


def _params_bytes(executable: Executable) -> int:
    return executable.payload.manifest.sizes["params"]


def _row(
    entry: Mapping[str, Any], found: Accuracy, params_bytes: int, file_bytes: int | None
) -> Row:
    return Row(
        name=entry["name"],
        precision=entry["precision"],
        accuracy=found.value,
        samples=found.samples,
        median_ms=entry["median_ms"],
        p10_ms=entry["p10_ms"],
        p90_ms=entry["p90_ms"],
        params_bytes=params_bytes,
        file_bytes=file_bytes,
        reason=entry["reason"],
    )


def missed_gates(wide: Row, small: Row) -> tuple[str, ...]:
    """What the int8 network promised and did not keep."""
    missed = []
    loss = wide.accuracy - small.accuracy
    if loss > MAX_LOSS:
        missed.append(f"int8 loses {loss:.2%} of accuracy, more than {MAX_LOSS:.2%}")
    share = small.params_bytes / wide.params_bytes
    if share > MAX_PARAMS:
        missed.append(f"int8 parameters are {share:.2f}x of float's, more than {MAX_PARAMS:.2f}x")
    return tuple(missed)
