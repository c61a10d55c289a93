"""RNN, GRU and LSTM, unrolled: one matmul projects the inputs of all time steps, one per step the state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import shape_of
from tvmcomp.frontend.onnx_ops.node import Converter, OnnxNode

__all__ = ["RECURRENT"]

# Each step is a few layers; more steps than this take longer to compile than anyone waits.
_MAX_STEPS = 2048
# Joining reads through one comparison per operand, so many are joined in groups.
_JOIN = 8

State: TypeAlias = "tuple[Expr, ...]"
Step: TypeAlias = "Callable[[Expr, State], State]"


@dataclass(frozen=True, eq=False)
class _Direction:
    """One direction's operands: w [G*H, I], r [G*H, H], biases [G*H] or None, peephole [3*H] or None."""

    node: OnnxNode
    w: Expr
    r: Expr
    w_bias: Expr | None
    r_bias: Expr | None
    peephole: Expr | None
    hidden: int
    activations: tuple[Callable[[Expr], Expr], ...]

    def emit(self, expr: Expr) -> Expr:
        """Bind a value."""
        return self.node.emit(expr)

    def rows(self, x: Expr, first: int, last: int) -> Expr:
        """Gates `first` to `last` of a tensor whose leading axis holds all gates."""
        size = self.hidden
        if (first, last) == (0, shape_of(x)[0] // size):
            return x
        return self.emit(relax.op.strided_slice(x, [0], [first * size], [last * size]))

    def gates(self, x: Expr, count: int) -> list[Expr]:
        """The gates side by side in the last axis of x, apart."""
        if count == 1:
            return [x]
        parts = self.emit(relax.op.split(x, count, axis=-1))
        return [self.emit(relax.TupleGetItem(parts, index)) for index in range(count)]

    def project(self, x: Expr, weight: Expr, bias: Expr | None) -> Expr:
        """x @ weight.T + bias"""
        y = self.emit(relax.op.matmul(x, self.emit(relax.op.permute_dims(weight))))
        return y if bias is None else self.emit(relax.op.add(y, bias))

    def bound(self, x: Expr) -> Expr:
        """The attribute `clip` bounds what goes into an activation."""
        limit = self.node.attrs.get("clip")
        return x if limit is None else self.emit(relax.op.clip(x, -float(limit), float(limit)))

    def activate(self, index: int, x: Expr) -> Expr:
        """Activation number `index`."""
        return self.emit(self.activations[index](self.bound(x)))


def _sum(direction: _Direction, *terms: Expr | None) -> Expr | None:
    """The terms that are there, added."""
    total: Expr | None = None
    for term in terms:
        if term is not None:
            total = term if total is None else direction.emit(relax.op.add(total, term))
    return total


def _rnn(d: _Direction) -> tuple[Expr | None, Step]:
    """h' = f(x W.T + h R.T + wb + rb)"""

    def step(x: Expr, state: State) -> State:
        pre = d.emit(relax.op.add(x, d.project(state[0], d.r, None)))
        return (d.activate(0, pre),)

    return _sum(d, d.w_bias, d.r_bias), step


def _gru(d: _Direction) -> tuple[Expr | None, Step]:
    """z, r = f(x Wzr.T + h Rzr.T + b);  n = g(x Wn.T + (r * h) Rn.T + b);  h' = (1 - z) * n + z * h

    With linear_before_reset n = g(x Wn.T + wb + r * (h Rn.T + rb)).
    """
    linear_first = d.node.number("linear_before_reset", 0) != 0
    r_zr, r_n = d.rows(d.r, 0, 2), d.rows(d.r, 2, 3)
    rb_n = None if d.r_bias is None else d.rows(d.r_bias, 2, 3)
    bias = d.w_bias
    if d.r_bias is not None:
        late = relax.op.zeros((d.hidden,), d.r_bias.ty.dtype) if linear_first else rb_n
        early = relax.op.concat([d.rows(d.r_bias, 0, 2), d.emit(late)], axis=0)
        bias = _sum(d, d.w_bias, d.emit(early))

    def step(x: Expr, state: State) -> State:
        (h,) = state
        x_zr, x_n = _first_gates(d, x, 2)
        if linear_first:
            together = d.project(h, d.r, None)
            h_zr, h_n = _first_gates(d, together, 2)
        else:
            h_zr = d.project(h, r_zr, None)
        pre = d.emit(relax.op.add(x_zr, h_zr))
        z, reset = d.gates(d.activate(0, pre), 2)
        if linear_first:
            h_n = h_n if rb_n is None else d.emit(relax.op.add(h_n, rb_n))
            late = d.emit(relax.op.multiply(reset, h_n))
        else:
            late = d.project(d.emit(relax.op.multiply(reset, h)), r_n, None)
        n = d.activate(1, d.emit(relax.op.add(x_n, late)))
        # (1 - z) * n + z * h
        kept = d.emit(relax.op.multiply(z, d.emit(relax.op.subtract(h, n))))
        return (d.emit(relax.op.add(n, kept)),)

    return bias, step


def _first_gates(d: _Direction, x: Expr, count: int) -> tuple[Expr, Expr]:
    """The first `count` gates of [N, G*H] and the others."""
    parts = d.emit(relax.op.split(x, [count * d.hidden], axis=-1))
    return d.emit(relax.TupleGetItem(parts, 0)), d.emit(relax.TupleGetItem(parts, 1))


def _lstm(d: _Direction) -> tuple[Expr | None, Step]:
    """i, o, f = f(x W.T + h R.T + p * c + b);  c' = f * c + i * g(...);  h' = o * h(c')

    The output gate's peephole reads c'; input_forget takes f = 1 - i.
    """
    coupled = d.node.number("input_forget", 0) != 0
    peephole = None if d.peephole is None else [d.rows(d.peephole, g, g + 1) for g in range(3)]

    def peek(gate: int, pre: Expr, cell: Expr) -> Expr:
        if peephole is None:
            return pre
        return d.emit(relax.op.add(pre, d.emit(relax.op.multiply(peephole[gate], cell))))

    def step(x: Expr, state: State) -> State:
        h, c = state
        pre = d.emit(relax.op.add(x, d.project(h, d.r, None)))
        i, o, f, g = d.gates(pre, 4)
        i = d.activate(0, peek(0, i, c))
        open_ = relax.op.subtract(relax.const(1, str(i.ty.dtype)), i)
        f = d.emit(open_) if coupled else d.activate(0, peek(2, f, c))
        kept = d.emit(relax.op.multiply(f, c))
        c = d.emit(relax.op.add(kept, d.emit(relax.op.multiply(i, d.activate(1, g)))))
        o = d.activate(0, peek(1, o, c))
        # The standard bounds what goes into gates, not the cell.
        return d.emit(relax.op.multiply(o, d.emit(d.activations[2](c)))), c

    return _sum(d, d.w_bias, d.r_bias), step


_CELLS = {"RNN": (_rnn, 1, 1), "GRU": (_gru, 3, 1), "LSTM": (_lstm, 4, 2)}
_DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}


def _recurrent(node: OnnxNode) -> Expr | None:
    """(Y, Y_h[, Y_c]) of all directions.

    X: [T, N, I], or [N, T, I] with layout 1; W: [D, G*H, I]; R: [D, G*H, H]; B: [D, 2*G*H];
    Y: [T, D, N, H] or [N, T, D, H]; Y_h, Y_c: [D, N, H] or [N, D, H].
    """
    cell, gates, states = _CELLS[node.op]
    batch_first = node.number("layout", 0) == 1
    x = node.emit(relax.op.permute_dims(node.x, [1, 0, 2])) if batch_first else node.x
    steps, batch, features = shape_of(x)
    if steps > _MAX_STEPS:
        raise ValueError(f"{steps} time steps are more than {_MAX_STEPS}; export it for fewer")
    hidden = shape_of(node[2])[2]
    lengths = node.setting(4, "sequence_lens")
    flat = node.emit(relax.op.reshape(x, (steps * batch, features)))
    sequences, finals = [], []
    order = node.text("direction", "forward")
    for index, backwards in enumerate(
        {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[order]
    ):
        direction = _direction(node, index, hidden, gates)
        bias, step = cell(direction)
        projected = direction.project(flat, direction.w, bias)
        parts = _per_step(node, projected, (steps, batch, gates * hidden))
        state = tuple(
            _initial(node, 5 + which, index, batch, hidden, batch_first) for which in range(states)
        )
        sequence, state = _unroll(node, step, parts, state, lengths, backwards)
        sequences.append(sequence)
        finals.append(state)
    return _results(node, sequences, finals, batch_first)


def _direction(node: OnnxNode, index: int, hidden: int, gates: int) -> _Direction:
    def part(operand: int) -> Expr | None:
        whole = node.get(operand)
        if whole is None:
            return None
        shape = shape_of(whole)
        if shape[0] > 1:
            whole = node.emit(relax.op.strided_slice(whole, [0], [index], [index + 1]))
        return node.emit(relax.op.reshape(whole, shape[1:]))

    w, r, biases = part(1), part(2), part(3)
    w_bias = r_bias = None
    if biases is not None:
        size = gates * hidden
        w_bias = node.emit(relax.op.strided_slice(biases, [0], [0], [size]))
        r_bias = node.emit(relax.op.strided_slice(biases, [0], [size], [2 * size]))
    return _Direction(
        node=node,
        w=w,
        r=r,
        w_bias=w_bias,
        r_bias=r_bias,
        peephole=part(7) if node.op == "LSTM" else None,
        hidden=hidden,
        activations=_activations(node, index),
    )


def _per_step(node: OnnxNode, x: Expr, shape: tuple[int, int, int]) -> list[Expr]:
    """[T*N, G] as T tensors [N, G]."""
    steps = shape[0]
    if steps == 1:
        return [x]
    parts = node.emit(relax.op.split(x, steps, axis=0))
    return [node.emit(relax.TupleGetItem(parts, step)) for step in range(steps)]


def _initial(
    node: OnnxNode, operand: int, index: int, batch: int, hidden: int, batch_first: bool
) -> Expr:
    given = node.get(operand)
    if given is None:
        return relax.const(np.zeros((batch, hidden), node.dtype))
    axis = 1 if batch_first else 0
    if shape_of(given)[axis] > 1:
        given = node.emit(relax.op.strided_slice(given, [axis], [index], [index + 1]))
    return node.emit(relax.op.reshape(given, (batch, hidden)))


def _unroll(
    node: OnnxNode,
    step: Step,
    parts: Sequence[Expr],
    state: State,
    lengths: np.ndarray | None,
    backwards: bool,
) -> tuple[list[Expr], State]:
    """(h of every time step in order of time, the last state); past its length a sequence keeps its state."""
    sequence: dict[int, Expr] = {}
    times = range(len(parts))
    for time in reversed(times) if backwards else times:
        new = step(parts[time], state)
        alive = None if lengths is None else time < lengths.reshape(-1, 1)
        if alive is None or alive.all():
            sequence[time], state = new[0], new
            continue
        mask = relax.const(alive)
        zero = relax.const(0, str(new[0].ty.dtype))
        sequence[time] = node.emit(relax.op.where(mask, new[0], zero))
        state = tuple(
            node.emit(relax.op.where(mask, after, before))
            for after, before in zip(new, state, strict=True)
        )
    return [sequence[time] for time in times], state


def _results(
    node: OnnxNode, sequences: list[list[Expr]], finals: list[State], batch_first: bool
) -> Expr:
    batch, hidden = shape_of(finals[0][0])

    def stacked(values: Sequence[Expr]) -> Expr:
        """[N, H] each -> [len, N, H]"""
        return join(node, [node.emit(relax.op.reshape(v, (1, batch, hidden))) for v in values], 0)

    directions = len(sequences)
    interleaved = [value for values in zip(*sequences, strict=True) for value in values]
    y = stacked(interleaved)
    y = node.emit(relax.op.reshape(y, (len(sequences[0]), directions, batch, hidden)))
    last = [stacked(values) for values in zip(*finals, strict=True)]
    if batch_first:
        y = node.emit(relax.op.permute_dims(y, [2, 0, 1, 3]))
        last = [node.emit(relax.op.permute_dims(value, [1, 0, 2])) for value in last]
    return relax.Tuple([y, *last])


def join(node: OnnxNode, values: Sequence[Expr], axis: int) -> Expr:
    """concat, of many operands in groups."""
    while len(values) > 1:
        groups = [values[start : start + _JOIN] for start in range(0, len(values), _JOIN)]
        values = [
            group[0] if len(group) == 1 else node.emit(relax.op.concat(list(group), axis=axis))
            for group in groups
        ]
    return values[0]


def _activations(node: OnnxNode, index: int) -> tuple[Callable[[Expr], Expr], ...]:
    """The functions of direction `index`; each takes what alpha and beta it needs from the lists in turn."""
    count = len(_DEFAULTS[node.op])
    names = [
        name.decode() if isinstance(name, bytes) else name
        for name in node.attrs.get("activations", _DEFAULTS[node.op] * 2)
    ]
    alphas, betas = (
        list(node.attrs.get(key, ())) for key in ("activation_alpha", "activation_beta")
    )
    functions = []
    for name in names[: (index + 1) * count]:
        function, alpha, beta = _FUNCTIONS[name.lower()]
        arguments = {}
        if alpha is not None:
            arguments["alpha"] = alphas.pop(0) if alphas else alpha
        if beta is not None:
            arguments["beta"] = betas.pop(0) if betas else beta
        functions.append(partial(function, **arguments))
    return tuple(functions[-count:])


def _const(x: Expr, value: float) -> Expr:
    return relax.const(value, str(x.ty.dtype))


def _affine(x: Expr, alpha: float, beta: float) -> Expr:
    return relax.op.add(relax.op.multiply(x, _const(x, alpha)), _const(x, beta))


def _thresholded(x: Expr, alpha: float) -> Expr:
    return relax.op.where(relax.op.greater(x, _const(x, alpha)), x, _const(x, 0.0))


def _scaled_tanh(x: Expr, alpha: float, beta: float) -> Expr:
    inner = relax.op.tanh(relax.op.multiply(x, _const(x, beta)))
    return relax.op.multiply(inner, _const(x, alpha))


def _hard_sigmoid(x: Expr, alpha: float, beta: float) -> Expr:
    return relax.op.clip(_affine(x, alpha, beta), 0.0, 1.0)


def _elu(x: Expr, alpha: float) -> Expr:
    below = relax.op.subtract(relax.op.exp(relax.op.minimum(x, _const(x, 0.0))), _const(x, 1.0))
    return relax.op.add(relax.op.nn.relu(x), relax.op.multiply(below, _const(x, alpha)))


def _softsign(x: Expr) -> Expr:
    return relax.op.divide(x, relax.op.add(relax.op.abs(x), _const(x, 1.0)))


# Name -> (function, alpha's default, beta's default); None where it takes none.
_FUNCTIONS: dict[str, tuple[Callable[..., Expr], float | None, float | None]] = {
    "relu": (relax.op.nn.relu, None, None),
    "tanh": (relax.op.tanh, None, None),
    "sigmoid": (relax.op.sigmoid, None, None),
    "affine": (_affine, 1.0, 0.0),
    "leakyrelu": (relax.op.nn.leakyrelu, 0.01, None),
    "thresholdedrelu": (_thresholded, 1.0, None),
    "scaledtanh": (_scaled_tanh, 1.0, 1.0),
    "hardsigmoid": (_hard_sigmoid, 0.2, 0.5),
    "elu": (_elu, 1.0, None),
    "softsign": (_softsign, None, None),
    "softplus": (relax.op.nn.softplus, None, None),
}

RECURRENT: dict[str, Converter] = dict.fromkeys(("RNN", "GRU", "LSTM"), _recurrent)
