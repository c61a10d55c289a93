"""What each binding of a model costs: multiply-accumulates and bytes of parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from tvm import relax

from tvmcomp.frontend.block import leaves, op_name, shape_of
from tvmcomp.model import Model

__all__ = ["LayerCost", "layer_costs"]


@dataclass(frozen=True)
class LayerCost:
    """One operator: the name of its binding, `nn.conv2d` or the like, multiply-accumulates, parameter bytes."""

    name: str
    op: str
    macs: int
    bytes: int


def layer_costs(model: Model) -> list[LayerCost]:
    """The cost of every operator in order; one that only prepares a parameter belongs to its reader.

    A parameter read by several layers counts for each of them.
    """
    main = model.module["main"]
    sizes = {str(name): array.nbytes for name, array in model.params.items()}
    prepared: dict[str, int] = dict(sizes)
    costs = []
    for block in main.body.blocks:
        for binding in block.bindings:
            op = op_name(binding.value)
            reads = [str(var.name) for var in dict.fromkeys(leaves(binding.value))]
            held = sum(prepared.get(name, 0) for name in reads)
            name = str(binding.var.name)
            if reads and all(read in prepared for read in reads):
                prepared[name] = held
            elif op:
                count = _MACS.get(op)
                costs.append(LayerCost(name, op, count(binding.value) if count else 0, held))
    return costs


def _conv(call: relax.Call) -> int:
    """Each output element sums over one filter: a kernel over the input channels of its group."""
    layout = str(call.attrs.kernel_layout)
    filter_size = prod(shape_of(call.args[1])) // shape_of(call.args[1])[layout.index("O")]
    return prod(shape_of(call)) * filter_size


def _conv_transpose(call: relax.Call) -> int:
    """Each input element is spread over one filter."""
    layout = str(call.attrs.kernel_layout)
    weight = shape_of(call.args[1])
    return prod(shape_of(call.args[0])) * (prod(weight) // weight[layout.index("I")])


def _matmul(call: relax.Call) -> int:
    return prod(shape_of(call)) * shape_of(call.args[0])[-1]


_MACS: dict[str, Callable[[relax.Call], int]] = {
    "matmul": _matmul,
    "nn.conv1d": _conv,
    "nn.conv2d": _conv,
    "nn.conv2d_transpose": _conv_transpose,
}
