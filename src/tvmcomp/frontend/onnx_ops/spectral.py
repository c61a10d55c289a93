"""Discrete Fourier transforms as products with stored matrices."""

from __future__ import annotations

import numpy as np
from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import shape_of
from tvmcomp.frontend.onnx_ops.node import Converter, OnnxNode

__all__ = ["SPECTRAL"]


def _dft(node: OnnxNode) -> Expr:
    """[.., n, .., 1 or 2] -> [.., m, .., 2]; the result has one component where it is real (inverse, one-sided)."""
    rank = len(node.shape)
    axis = node.number("axis", 1)
    if node.opset >= 20:
        stored = node.setting(2, "axis")
        axis = -2 if stored is None else int(stored.reshape(()))
    axis %= rank
    inverse, onesided = node.number("inverse", 0) != 0, node.number("onesided", 0) != 0
    wanted = node.setting(1, "dft_length")
    x = _moved(node, node.x, axis, rank - 2)
    given = shape_of(x)[-2]
    if inverse and onesided:
        length = 2 * (given - 1) if wanted is None else int(wanted.reshape(()))
        y = _inverse_real(node, x, length)
    else:
        length = given if wanted is None else int(wanted.reshape(()))
        y = _transform(node, _cut(node, x, length), inverse, onesided)
    return _moved(node, y, rank - 2, axis)


def _moved(node: OnnxNode, x: Expr, source: int, target: int) -> Expr:
    if source == target:
        return x
    order = [axis for axis in range(len(shape_of(x))) if axis != source]
    order.insert(target, source)
    return node.emit(relax.op.permute_dims(x, order))


def _cut(node: OnnxNode, x: Expr, length: int) -> Expr:
    """The second last axis cut, or filled with zeros, to `length`."""
    shape = shape_of(x)
    axis, given = len(shape) - 2, shape[-2]
    if given > length:
        return node.emit(relax.op.strided_slice(x, [axis], [0], [length]))
    if given < length:
        width = [0] * (2 * len(shape))
        width[2 * axis + 1] = length - given
        return node.emit(relax.op.nn.pad(x, width))
    return x


def _transform(node: OnnxNode, x: Expr, inverse: bool, onesided: bool) -> Expr:
    """x: [.., n, 1 or 2] -> [.., n or n // 2 + 1, 2]"""
    *_, length, parts = shape_of(x)
    count = length // 2 + 1 if onesided else length
    turn = np.outer(np.arange(length), np.arange(count)) * (2 * np.pi / length)
    scale = 1.0 / length if inverse else 1.0
    sign = 1.0 if inverse else -1.0
    cosine, sine = np.cos(turn) * scale, sign * np.sin(turn) * scale
    real, imaginary = _components(node, x, parts)
    re = _product(node, real, cosine)
    im = _product(node, real, sine)
    if imaginary is not None:
        re = node.emit(relax.op.subtract(re, _product(node, imaginary, sine)))
        im = node.emit(relax.op.add(im, _product(node, imaginary, cosine)))
    return _pair(node, re, im)


def _inverse_real(node: OnnxNode, x: Expr, length: int) -> Expr:
    """x: [.., length // 2 + 1, 2], half of a spectrum -> [.., length, 1]"""
    x = _cut(node, x, length // 2 + 1)
    count = length // 2 + 1
    turn = np.outer(np.arange(count), np.arange(length)) * (2 * np.pi / length)
    # Every coefficient but the first, and the middle one of an even length, stands for two.
    share = np.full((count, 1), 2.0 / length)
    share[0] = 1.0 / length
    if length % 2 == 0:
        share[-1] = 1.0 / length
    real, imaginary = _components(node, x, shape_of(x)[-1])
    y = _product(node, real, np.cos(turn) * share)
    if imaginary is not None:
        y = node.emit(relax.op.subtract(y, _product(node, imaginary, np.sin(turn) * share)))
    return node.emit(relax.op.expand_dims(y, len(shape_of(y))))


def _components(node: OnnxNode, x: Expr, parts: int) -> tuple[Expr, Expr | None]:
    shape = shape_of(x)[:-1]
    if parts == 1:
        return node.emit(relax.op.reshape(x, shape)), None
    halves = node.emit(relax.op.split(x, 2, axis=-1))
    real, imaginary = (
        node.emit(relax.op.reshape(node.emit(relax.TupleGetItem(halves, side)), shape))
        for side in range(2)
    )
    return real, imaginary


def _product(node: OnnxNode, x: Expr, matrix: np.ndarray) -> Expr:
    return node.emit(relax.op.matmul(x, relax.const(matrix.astype(node.dtype))))


def _pair(node: OnnxNode, re: Expr, im: Expr) -> Expr:
    last = len(shape_of(re))
    both = [node.emit(relax.op.expand_dims(part, last)) for part in (re, im)]
    return node.emit(relax.op.concat(both, axis=last))


def _stft(node: OnnxNode) -> Expr:
    """signal [N, n, 1 or 2] -> [N, frames, bins, 2]: windowed frames, each transformed."""
    stride = node.setting(1, "frame_step")
    wanted = node.setting(3, "frame_length")
    window = node.get(2)
    if stride is None:
        raise ValueError("frame_step is missing")
    step = int(stride.reshape(()))
    if wanted is not None:
        size = int(wanted.reshape(()))
    elif window is not None:
        size = shape_of(window)[0]
    else:
        raise ValueError("frame_length and window are both missing")
    batch, length, parts = node.shape
    frames = (length - size) // step + 1
    index = np.arange(frames)[:, None] * step + np.arange(size)
    x = node.emit(relax.op.take(node.x, relax.const(index.reshape(-1)), axis=1))
    x = node.emit(relax.op.reshape(x, (batch, frames, size, parts)))
    if window is not None:
        column = node.emit(relax.op.reshape(window, (shape_of(window)[0], 1)))
        x = node.emit(relax.op.multiply(x, column))
    return _transform(node, x, inverse=False, onesided=node.number("onesided", 1) != 0)


SPECTRAL: dict[str, Converter] = {"DFT": _dft, "STFT": _stft}
