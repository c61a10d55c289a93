"""`OnnxNode`: one node of an ONNX graph as its converter sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import as_array, shape_of

__all__ = ["Converter", "OnnxNode"]


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """operands: None where one is left out; outputs: how many the node has, named or not; opset: of the default domain.

    emit:    binds an intermediate value and gives its variable, which has a type
    compute: binds what a tensor expression function of `tvm.te` computes: compute(function, *operands)
    dynamic: codes quantized at run time -> (what they were made from, their scale, their zero point); one for the graph
    """

    op: str
    name: str
    opset: int
    operands: tuple[Expr | None, ...]
    attrs: Mapping[str, Any]
    outputs: int
    emit: Callable[[Expr], Expr]
    compute: Callable[..., Expr]
    weights: Mapping[str, np.ndarray]
    dynamic: MutableMapping[Expr, tuple[Expr, Expr, Expr]] = field(default_factory=dict)

    @property
    def x(self) -> Expr:
        """The first operand."""
        return self[0]

    def __getitem__(self, index: int) -> Expr:
        """An operand that must be there."""
        operand = self.get(index)
        if operand is None:
            raise ValueError(f"operand {index} is missing")
        return operand

    def get(self, index: int) -> Expr | None:
        """An operand that may be left out."""
        return self.operands[index] if index < len(self.operands) else None

    def value(self, index: int) -> np.ndarray | None:
        """What a stored operand holds; None for one that is left out or computed."""
        operand = self.get(index)
        if operand is None:
            return None
        if isinstance(operand, relax.Var):
            return self.weights.get(str(operand.name))
        return as_array(operand)

    def setting(self, index: int, name: str) -> np.ndarray | None:
        """What a stored operand holds; one that is computed is an error, one left out is None."""
        value = self.value(index)
        if value is None and self.get(index) is not None:
            raise ValueError(f"{name} depends on data; store it in the model")
        return value

    def ints(self, index: int, name: str) -> list[int] | None:
        """Integers that are an operand in newer opsets and the attribute `name` in older ones."""
        value = self.setting(index, name)
        if value is not None:
            return [int(number) for number in value.reshape(-1)]
        attribute = self.attrs.get(name)
        if attribute is None:
            return None
        return [attribute] if isinstance(attribute, int) else [int(number) for number in attribute]

    def number(self, name: str, default: int) -> int:
        """An attribute that is an integer."""
        return int(self.attrs.get(name, default))

    def real(self, name: str, default: float) -> float:
        """An attribute that is a number."""
        return float(self.attrs.get(name, default))

    def text(self, name: str, default: str) -> str:
        """An attribute that is a string."""
        value = self.attrs.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first operand."""
        return shape_of(self.x)

    @property
    def dtype(self) -> str:
        """Of the first operand."""
        return str(self.x.ty.dtype)


Converter: TypeAlias = Callable[[OnnxNode], Expr | None]
"""The node's result (a tuple where it has several), or None to leave the node to TVM's importer."""
