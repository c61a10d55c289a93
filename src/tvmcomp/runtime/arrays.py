"""Arrays that kernels may touch: which ones are, how to make one, how to admit a caller's."""

from __future__ import annotations

import ctypes

import numpy as np

from tvmcomp.errors import DataError
from tvmcomp.model import TensorType

__all__ = ["ALIGNMENT", "SLACK", "admit", "aligned_empty", "is_direct"]

# Kernels load whole aligned vectors and may read, never write, a little past a tensor's end; the
# same two numbers as in kernels/kernel.py, which this package must not import.
ALIGNMENT = 64
SLACK = 256
_PAGE = 4096


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array on an ALIGNMENT boundary with SLACK readable bytes behind it."""
    size = dtype.itemsize
    for dimension in shape:
        size *= dimension
    block = np.empty(size + ALIGNMENT + SLACK, np.uint8)
    return np.ndarray(shape, dtype, block, -_address(block) % ALIGNMENT)


def is_direct(array: np.ndarray) -> bool:
    """Whether kernels may read `array` in place."""
    flags = array.flags
    if not (flags.c_contiguous and flags.writeable and array.dtype.isnative and array.size):
        return False
    begin = _address(array)
    return begin % ALIGNMENT == 0 and _has_slack(array, begin)


def _address(array: np.ndarray) -> int:
    # A third of the time of `array.ctypes.data`, for arrays that are contiguous and writable.
    return ctypes.addressof(ctypes.c_char.from_buffer(array.data))


def _has_slack(array: np.ndarray, begin: int) -> bool:
    # Memory is mapped in whole pages: what lies in the page of the last byte can be read.
    last = begin + array.nbytes - 1
    if last // _PAGE == (last + SLACK) // _PAGE:
        return True
    base = array.base
    if not isinstance(base, np.ndarray) or not base.flags.c_contiguous:
        return False
    return last + SLACK < base.ctypes.data + base.nbytes


def admit(name: str, value: object, tensor: TensorType) -> np.ndarray:
    """The caller's `value` for input `name` as an array kernels may read, copied where it must be.

    An object with a dtype of its own must have exactly the input's, in either byte order; Python
    numbers and lists have none and are converted, if that keeps their values' kind and range.
    """
    dtype = np.dtype(tensor.dtype)
    array = _as_array(name, value, dtype)
    if array.dtype != dtype and array.dtype.newbyteorder("=") != dtype:
        raise DataError(
            f"input {name!r}: got dtype {array.dtype}, expected {tensor.dtype}; "
            f"convert it with .astype({tensor.dtype!r})"
        )
    if array.shape != tensor.shape:
        raise DataError(
            f"input {name!r}: got shape {array.shape}, expected {tensor.shape}; "
            "reshape it, or compile the model for this shape"
        )
    if tensor.bounds is not None:
        _check_bounds(name, array, *tensor.bounds)
    if type(array) is np.ndarray and is_direct(array):
        return array
    copy = aligned_empty(tensor.shape, dtype)
    copy[...] = array
    return copy


def _check_bounds(name: str, array: np.ndarray, low: int, high: int) -> None:
    smallest, largest = int(array.min()), int(array.max())
    if smallest < low or largest > high:
        raise DataError(
            f"input {name!r}: got {smallest if smallest < low else largest}, which the network uses "
            f"as an index; pass values from {low} to {high}"
        )


def _as_array(name: str, value: object, dtype: np.dtype) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    try:
        array = np.asarray(value)
        if hasattr(value, "dtype"):
            return array
        with np.errstate(all="ignore"):
            converted = array.astype(dtype) if array.dtype.kind in "biuf" else None
    except (ValueError, TypeError, RuntimeError, BufferError) as error:
        raise DataError(
            f"input {name!r}: {type(value).__name__} is not an array "
            f"({str(error).splitlines()[0]}); pass a numpy array"
        ) from None
    exact = dtype.kind not in "biu" or (converted is not None and np.array_equal(converted, array))
    if converted is None or not exact:
        raise DataError(
            f"input {name!r}: a {type(value).__name__} with these values does not fit {dtype.name}; "
            "pass a numpy array of that dtype"
        )
    return converted
