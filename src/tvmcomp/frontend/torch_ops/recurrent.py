"""LSTM, GRU and RNN, unrolled: one product for the inputs of all steps, one per step for the state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from torch import fx
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import shape_of

__all__ = ["RECURRENT"]

# Joining reads through one comparison per operand, so many are joined in groups.
_JOIN = 8

Emit: TypeAlias = Callable[[Expr], Expr]
State: TypeAlias = tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class _Weights:
    """x: [G*H, I], h: [G*H, H], the biases [G*H] or None; G gates of H values in torch's order."""

    x: Expr
    h: Expr
    bias_x: Expr | None = None
    bias_h: Expr | None = None


class _Cell(Protocol):
    """One step: the state after it; its first tensor [N, H] is the step's result."""

    def __call__(self, emit: Emit, x: Expr, h: Expr, state: State) -> State:
        """x, h: [N, G*H], what the step's input and the state before it add to the gates, biases included."""


@dataclass(frozen=True)
class _Rnn:
    """h = act(x + h)"""

    act: Callable[[Expr], Expr]

    def __call__(self, emit: Emit, x: Expr, h: Expr, state: State) -> State:
        return (emit(self.act(emit(relax.op.add(x, h)))),)


def _gru(emit: Emit, x: Expr, h: Expr, state: State) -> State:
    """r, z = sigmoid(x + h);  n = tanh(x_n + r * h_n);  h' = n + z * (h - n)"""
    own, theirs = _split(emit, x, 3), _split(emit, h, 3)
    r, z = (emit(relax.op.sigmoid(emit(relax.op.add(own[g], theirs[g])))) for g in range(2))
    inner = emit(relax.op.multiply(r, theirs[2]))
    n = emit(relax.op.tanh(emit(relax.op.add(own[2], inner))))
    change = emit(relax.op.multiply(z, emit(relax.op.subtract(state[0], n))))
    return (emit(relax.op.add(n, change)),)


def _lstm(emit: Emit, x: Expr, h: Expr, state: State) -> State:
    """i, f, o = sigmoid(x + h);  g = tanh(x + h);  c' = f * c + i * g;  h' = o * tanh(c')"""
    i, f, g, o = _split(emit, emit(relax.op.add(x, h)), 4)
    i, f, o = (emit(relax.op.sigmoid(gate)) for gate in (i, f, o))
    kept = emit(relax.op.multiply(f, state[1]))
    c = emit(relax.op.add(kept, emit(relax.op.multiply(i, emit(relax.op.tanh(g))))))
    return emit(relax.op.multiply(o, emit(relax.op.tanh(c)))), c


def _unrolled(
    emit: Emit, x: Expr, weights: _Weights, cell: _Cell, state: State, *, reverse: bool
) -> tuple[Expr, State]:
    """Results [T, N, H] and the last state of `cell` over x: [T, N, I]; `reverse` begins at the end."""
    steps, batch, _ = shape_of(x)
    gates = _product(emit, x, weights.x, weights.bias_x)
    width = shape_of(gates)[-1]
    parts = [gates] if steps == 1 else _split(emit, gates, steps, axis=0)
    results: list[Expr] = [gates] * steps
    for step in reversed(range(steps)) if reverse else range(steps):
        own = emit(relax.op.reshape(parts[step], (batch, width)))
        state = cell(emit, own, _product(emit, state[0], weights.h, weights.bias_h), state)
        results[step] = emit(relax.op.expand_dims(state[0], axis=0))
    return _joined(emit, results), state


def _recurrent(cell: _Cell, states: int) -> Callable[[fx.Node, Any], Expr]:
    """(x, initial states [L*D, N, H], weights, biases?, layers, dropout, train, two ways?, batch first?)."""

    def convert(node: fx.Node, importer: Any) -> Expr:
        emit = importer.block_builder.emit
        x, initial, params, biased, layers, _, _, bidirectional, batch_first = (
            importer.retrieve_args(node)
        )
        initial = list(initial) if states > 1 else [initial]
        directions = 2 if bidirectional else 1
        each = len(params) // (layers * directions)
        if each != (4 if biased else 2):
            raise NotImplementedError("projections of the state; build the LSTM without proj_size")
        if batch_first:
            x = emit(relax.op.permute_dims(x, [1, 0, 2]))
        finals: list[State] = []
        for layer in range(layers):
            results = []
            for direction in range(directions):
                index = layer * directions + direction
                weights = _Weights(*params[index * each : (index + 1) * each])
                state = tuple(_at(emit, tensor, index) for tensor in initial)
                result, final = _unrolled(emit, x, weights, cell, state, reverse=direction == 1)
                results.append(result)
                finals.append(final)
            x = emit(relax.op.concat(results, axis=2)) if directions > 1 else results[0]
        if batch_first:
            x = emit(relax.op.permute_dims(x, [1, 0, 2]))
        stacked = [
            emit(relax.op.stack([final[place] for final in finals], axis=0))
            for place in range(states)
        ]
        return relax.Tuple([x, *stacked])

    return convert


def _product(emit: Emit, x: Expr, weight: Expr, bias: Expr | None) -> Expr:
    """x @ weight.T + bias"""
    product = emit(relax.op.matmul(x, emit(relax.op.permute_dims(weight))))
    return product if bias is None else emit(relax.op.add(product, bias))


def _split(emit: Emit, x: Expr, count: int, axis: int = -1) -> list[Expr]:
    parts = emit(relax.op.split(x, count, axis=axis))
    return [emit(relax.TupleGetItem(parts, index)) for index in range(count)]


def _joined(emit: Emit, parts: Sequence[Expr]) -> Expr:
    """Side by side along the first axis."""
    while len(parts) > 1:
        groups = [parts[start : start + _JOIN] for start in range(0, len(parts), _JOIN)]
        parts = [emit(relax.op.concat(g, axis=0)) if len(g) > 1 else g[0] for g in groups]
    return parts[0]


def _at(emit: Emit, states: Expr, index: int) -> Expr:
    part = emit(relax.op.strided_slice(states, [0], [index], [index + 1]))
    return emit(relax.op.reshape(part, shape_of(part)[1:]))


RECURRENT: dict[str, Callable[[fx.Node, Any], Expr]] = {
    "gru.input": _recurrent(_gru, 1),
    "lstm.input": _recurrent(_lstm, 2),
    "rnn_relu.input": _recurrent(_Rnn(relax.op.nn.relu), 1),
    "rnn_tanh.input": _recurrent(_Rnn(relax.op.tanh), 1),
}
