"""`Network`: a loaded artifact as a callable on numpy arrays, safe to call from many threads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType

import numpy as np

from tvmcomp.artifact import Payload, read_artifact
from tvmcomp.artifact import verify as verify_file
from tvmcomp.artifact.store import Report
from tvmcomp.errors import DataError, TvmcompError, UsageError, VerificationError
from tvmcomp.model import Signature
from tvmcomp.runtime.arrays import admit, aligned_empty
from tvmcomp.runtime.host import check_host, find_runtime
from tvmcomp.runtime.native import Program
from tvmcomp.runtime.pool import CallerPool, Pool, WorkerPool

__all__ = ["Network", "load", "verify"]

MAX_THREADS = 1024


class Network:
    """A compiled network. Made by `load` or `Network.from_payload`.

    net(x) or net(a, b) in the signature's order, or net(name=x), or net({name: x}): one output is an
    array, several are a tuple in the signature's order. `net.run({name: x})` gives {name: array}.

    threads:   threads one call uses. 1 runs on the calling thread, where TVM code called later also
               stays on one thread; more run on threads of the network's own.
    executors: calls that may run at once (each takes an arena); further callers wait. By default as
               many as fit on the processors this process may use.
    """

    def __init__(self, payload: Payload, *, threads: int = 1, executors: int | None = None) -> None:
        _check_count("threads", threads)
        if executors is None:
            executors = max(1, len(os.sched_getaffinity(0)) // threads)
        _check_count("executors", executors)
        runtime = find_runtime()
        check_host(payload, runtime)
        function = payload.function
        self.manifest = payload.manifest
        self.threads = threads
        self.executors = executors
        self._inputs = dict(function.signature.inputs)
        self._outputs = {
            name: (tensor.shape, np.dtype(tensor.dtype))
            for name, tensor in function.signature.outputs.items()
        }
        program = Program(payload, runtime)
        self._pool: Pool = (
            CallerPool(program, executors)
            if threads == 1
            else WorkerPool(program, executors, threads)
        )

    @classmethod
    def from_payload(
        cls,
        payload: Payload,
        *,
        threads: int = 1,
        executors: int | None = None,
        check_golden: bool = True,
    ) -> Network:
        """A network from an artifact's content in memory; the host is checked before it loads."""
        network = cls(payload, threads=threads, executors=executors)
        if check_golden:
            try:
                network._check_golden(payload)
            except BaseException:
                network.close()
                raise
        return network

    @property
    def signature(self) -> Signature:
        """Names, dtypes and shapes of inputs and outputs, in order."""
        return self.manifest.functions[0].signature

    def __call__(self, *args: object, **kwargs: object) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run the network on arrays given by position, by name, or as one mapping."""
        if len(args) == 1 and not kwargs and isinstance(args[0], Mapping):
            outputs = self._run(args[0])
        else:
            outputs = self._run(self._by_name(args, kwargs))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def run(self, inputs: Mapping[str, object]) -> dict[str, np.ndarray]:
        """Run the network; names in, names out, every output a new array."""
        return dict(zip(self._outputs, self._run(inputs), strict=True))

    def close(self) -> None:
        """Wait for running calls, then give threads and memory back; later calls are errors."""
        self._pool.close()

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, inputs: Mapping[str, object]) -> list[np.ndarray]:
        if inputs.keys() != self._inputs.keys():
            missing = [name for name in self._inputs if name not in inputs]
            unknown = [name for name in inputs if name not in self._inputs]
            raise DataError(
                f"inputs: missing {missing}, unknown {unknown}; "
                f"the network takes {list(self._inputs)}, name the arrays so"
            )
        admitted = [admit(name, inputs[name], tensor) for name, tensor in self._inputs.items()]
        outputs = [aligned_empty(shape, dtype) for shape, dtype in self._outputs.values()]
        self._pool.run(admitted, outputs)
        return outputs

    def _by_name(
        self, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> Mapping[str, object]:
        if len(args) > len(self._inputs):
            raise DataError(
                f"got {len(args)} inputs, the network takes {len(self._inputs)}: "
                f"{list(self._inputs)}"
            )
        named = dict(zip(self._inputs, args, strict=False))
        twice = sorted(named.keys() & kwargs.keys())
        if twice:
            raise DataError(f"inputs {twice} are given by position and by name; give them once")
        return {**named, **kwargs}

    def _check_golden(self, payload: Payload) -> None:
        allowed = payload.function.golden
        outputs = self.run(payload.golden_inputs)
        for name, golden in payload.golden_outputs.items():
            got = outputs[name]
            exact = allowed.rtol == 0 and allowed.atol == 0
            if exact and got.tobytes() == golden.tobytes():
                continue
            if not exact and np.allclose(
                got, golden, rtol=allowed.rtol, atol=allowed.atol, equal_nan=True
            ):
                continue
            raise VerificationError(
                f"the golden run's output {name!r} differs in {_differences(got, golden)} of "
                f"{golden.size} values; compile the model again on this host"
            )


def load(
    path: str | os.PathLike[str],
    *,
    threads: int = 1,
    executors: int | None = None,
    check_golden: bool = True,
) -> Network:
    """Load an artifact as a `Network`, which explains `threads` and `executors`.

    In this order: seal and content are checked, then versions, architecture and CPU features, and
    only then is native code loaded, from the bytes that were checked; last, the golden run must give
    its recorded outputs.
    """
    payload = read_artifact(path)
    try:
        return Network.from_payload(
            payload, threads=threads, executors=executors, check_golden=check_golden
        )
    except UsageError:
        raise
    except TvmcompError as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from None


def verify(path: str | os.PathLike[str]) -> Report:
    """Check every byte of an artifact, that this host can run it, and that its golden run holds."""
    report = verify_file(path)
    load(path).close()
    return report


def _differences(got: np.ndarray, golden: np.ndarray) -> int:
    return int(np.count_nonzero(got != golden))


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_THREADS:
        raise UsageError(f"{name}={value!r}; give a whole number from 1 to {MAX_THREADS}")
