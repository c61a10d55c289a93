"""`Model`: a Relax module whose weights are named parameters beside it, with its signature and origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from tvm import IRModule

__all__ = ["Model", "Provenance", "Signature", "TensorType"]


@dataclass(frozen=True)
class TensorType:
    """Static shape and dtype of one input or output.

    bounds: (lowest, highest) value of an integer input that is used as an index; None where any will do.
    """

    shape: tuple[int, ...]
    dtype: str
    bounds: tuple[int, int] | None = None


@dataclass(frozen=True)
class Signature:
    """Named inputs and outputs in calling order."""

    inputs: Mapping[str, TensorType]
    outputs: Mapping[str, TensorType]


@dataclass(frozen=True)
class Provenance:
    """Where a model came from and which transforms it has been through.

    `source` is the file path or a description; `sha256` is of the source file's bytes (or of the
    parameters' bytes for an in-memory torch module); `framework` is "torch" or "onnx".
    """

    source: str
    sha256: str
    framework: str
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network between import and compilation.

    module:     one Relax function `main(inputs..., params...)`, a single dataflow block, static shapes.
                Parameter variables carry the names of `params` (`var.name_hint == key`), in its order;
                every binding in the block has a unique, stable name.
    params:     name -> array; never folded into the module as constants.
    """

    module: IRModule
    params: Mapping[str, np.ndarray]
    signature: Signature
    provenance: Provenance

    def with_step(self, step: str, **changes: object) -> Model:
        """A copy with `changes` applied and `step` appended to its provenance."""
        provenance = replace(self.provenance, steps=(*self.provenance.steps, step))
        return replace(self, provenance=provenance, **changes)  # type: ignore[arg-type]

    @property
    def params_bytes(self) -> int:
        """Size of all parameters in bytes."""
        return sum(array.nbytes for array in self.params.values())
