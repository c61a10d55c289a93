"""Arrays as users have them (unaligned, strided, read-only, byte-swapped) give the same answer as plain ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np

from acceptance.apart import environment
from acceptance.context import Context, Precision
from acceptance.row import Check, Row, holds, tried

__all__ = ["ROW"]


def _offset(x: np.ndarray, offset: int) -> np.ndarray:
    """The same values at an address `offset` bytes past a multiple of 64."""
    memory = np.empty(x.nbytes + 128, np.uint8)
    begin = -memory.ctypes.data % 64 + offset
    moved = memory[begin : begin + x.nbytes].view(x.dtype).reshape(x.shape)
    moved[...] = x
    return moved


def _forms(x: np.ndarray) -> dict[str, np.ndarray]:
    """The same values, each in memory another way."""
    read_only = x.copy()
    read_only.flags.writeable = False
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    mapped = np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape)
    return {
        "4 bytes past alignment": _offset(x, 4),
        "32 bytes past alignment": _offset(x, 32),
        "1 byte past alignment": _offset(x, 1),
        "read-only": read_only,
        "read-only and unaligned, from bytes": mapped,
        "Fortran order": np.asfortranarray(x),
        "every second element": wide[..., ::2],
        "mirrored view": np.ascontiguousarray(x[..., ::-1])[..., ::-1],
        "NHWC memory seen as NCHW": np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(
            0, 3, 1, 2
        ),
        "byte-swapped": x.astype(x.dtype.newbyteorder(">")),
        "byte-swapped, read-only, strided": np.asfortranarray(x.astype(x.dtype.newbyteorder(">"))),
    }


def _one(context: Context, precision: Precision) -> Iterator[Check]:
    import tvmcomp as tc

    net = context.net("resnet18")
    compiled = context.compiled(net, "torch", precision)
    x = context.evaluation(net)[0]["x"]
    with tc.load(compiled.path) as network:
        want = np.asarray(network(x)).tobytes()
        for what, form in _forms(x).items():
            if not np.array_equal(form, x):
                raise RuntimeError(f"the form {what} holds other values")
            before = form.tobytes()
            got = np.asarray(network(form))
            ok = got.tobytes() == want and form.tobytes() == before
            yield holds(f"{net.name} {precision}, {what}: same bytes out, input untouched", ok)
    data, output = context.folder / "swapped.npz", context.folder / "swapped-out.npz"
    np.savez(data, **{compiled.inputs[0]: x.astype(">f4")})
    command = ["run", str(compiled.path), "-i", str(data), "-o", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "tvmcomp", *command],
        env=environment(),
        capture_output=True,
        text=True,
    )
    ok = done.returncode == 0
    if ok:
        with np.load(output) as file:
            ok = file[file.files[0]].tobytes() == want
    yield holds(
        f"{net.name} {precision}, tvmcomp run on a byte-swapped .npz", ok, done.stderr.strip()
    )


def _run(context: Context) -> Iterator[Check]:
    precisions: tuple[Precision, ...] = ("int8", "float32")
    for precision in precisions:
        yield from tried(precision, lambda p=precision: _one(context, p))


ROW = Row(
    "arrays",
    "unaligned, non-contiguous, read-only and byte-swapped inputs give the right answer",
    _run,
)
