"""Any array a service may have: the right answer or one clear error, never a crash."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from runtime import tiny
from tvmcomp.artifact import Payload
from tvmcomp.errors import DataError
from tvmcomp.model import TensorType
from tvmcomp.runtime import Network
from tvmcomp.runtime.arrays import ALIGNMENT, SLACK, admit, aligned_empty, is_direct

GIVEN = tiny.inputs(11)
WANT = tiny.expected(**GIVEN)


@pytest.fixture(scope="module")
def net(tiny_payload: Payload) -> Iterator[Network]:
    with Network.from_payload(tiny_payload) as net:
        yield net


def aligned(array: np.ndarray) -> np.ndarray:
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def at_offset(array: np.ndarray, offset: int) -> np.ndarray:
    block = aligned_empty((array.nbytes + offset,), np.dtype(np.uint8))
    view = block[offset:].view(array.dtype) if offset % array.itemsize == 0 else None
    if view is None:
        view = np.ndarray(array.size, array.dtype, block, offset)
    view = view.reshape(array.shape)
    view[...] = array
    return view


def strided(array: np.ndarray) -> np.ndarray:
    wide = np.zeros((*array.shape[:-1], array.shape[-1] * 3), array.dtype)
    wide[..., ::3] = array
    return wide[..., ::3]


def read_only(array: np.ndarray) -> np.ndarray:
    copy = aligned(array)
    copy.flags.writeable = False
    return copy


def mapped(array: np.ndarray) -> np.ndarray:
    """Ends exactly where mapped memory ends."""
    size = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    block = np.frombuffer(mmap.mmap(-1, size), np.uint8)
    view = block[size - array.nbytes :].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "aligned": aligned,
    "numpy's own": np.array,
    **{f"{n} bytes off": lambda a, n=n: at_offset(a, n) for n in (1, 2, 3, 4, 8, 16, 32, 48, 65)},
    "Fortran order": np.asfortranarray,
    "strided": strided,
    "reversed": lambda a: a[::-1].copy()[::-1],
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "broadcast view": lambda a: np.lib.stride_tricks.as_strided(a, a.shape, a.strides),
    "read-only": read_only,
    "from bytes": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder("S")),
    "other byte order, off": lambda a: at_offset(a.astype(a.dtype.newbyteorder("S")), 4),
    "subclass": lambda a: a.view(np.ma.MaskedArray),
    "end of memory": mapped,
    "list": lambda a: a.tolist(),
    "tuple": lambda a: tuple(map(tuple, a.tolist())),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(net: Network, form: str) -> None:
    x, k = FORMS[form](GIVEN["x"]), FORMS[form](GIVEN["k"])
    for _ in range(3):
        y, n = net(x, k, GIVEN["gain"])
        assert y.tobytes() == WANT["y"].tobytes()
        assert n.tobytes() == WANT["n"].tobytes()


@pytest.mark.parametrize(
    "gain",
    [
        GIVEN["gain"],
        GIVEN["gain"][()],
        float(GIVEN["gain"]),
        GIVEN["gain"].astype(">f4"),
        np.broadcast_to(GIVEN["gain"], (4,))[2:3].reshape(()),
    ],
)
def test_zero_dimensions(net: Network, gain: object) -> None:
    assert net(GIVEN["x"], GIVEN["k"], gain)[0].tobytes() == WANT["y"].tobytes()


def test_other_libraries_arrays(net: Network) -> None:
    torch = pytest.importorskip("torch", reason="torch tensors are what is tried")
    y, _ = net(torch.from_numpy(GIVEN["x"]), torch.from_numpy(GIVEN["k"]), GIVEN["gain"])
    assert y.tobytes() == WANT["y"].tobytes()
    with pytest.raises(DataError, match="input 'x': Tensor is not an array"):
        net(torch.ones(8, 16, requires_grad=True), GIVEN["k"], 0.0)
    with pytest.raises(DataError, match="input 'x': Tensor is not an array"):
        net(torch.ones(8, 16, dtype=torch.bfloat16), GIVEN["k"], 0.0)


def test_inputs_are_not_changed(net: Network) -> None:
    x, k = aligned(GIVEN["x"]), aligned(GIVEN["k"])
    before = x.tobytes(), k.tobytes()
    net(x, k, GIVEN["gain"])
    assert (x.tobytes(), k.tobytes()) == before


def test_outputs_are_new_and_aligned(net: Network) -> None:
    first, second = net.run(GIVEN), net.run(GIVEN)
    for name in tiny.SIGNATURE.outputs:
        assert first[name].ctypes.data % ALIGNMENT == 0
        assert first[name].flags.writeable
        assert not np.shares_memory(first[name], second[name])


def test_ways_to_call(net: Network) -> None:
    x, k, gain = GIVEN.values()
    for outputs in (
        net(x, k, gain),
        net(x, k, gain=gain),
        net(gain=gain, k=k, x=x),
        net({"k": k, "gain": gain, "x": x}),
        tuple(net.run({"k": k, "gain": gain, "x": x}).values()),
    ):
        assert isinstance(outputs, tuple)
        assert [o.tobytes() for o in outputs] == [w.tobytes() for w in WANT.values()]
    assert list(net.run(GIVEN)) == ["y", "n"]


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, r"missing \['x', 'k', 'gain'\]"),
        ((1, 2, 3, 4), {}, "got 4 inputs, the network takes 3"),
        ((GIVEN["x"],), {"k": GIVEN["k"]}, r"missing \['gain'\]"),
        (({**GIVEN, "z": 1},), {}, r"unknown \['z'\]"),
        (({"X": GIVEN["x"]},), {}, r"missing \['x', 'k', 'gain'\], unknown \['X'\]"),
        ((GIVEN["x"],), {**GIVEN}, r"inputs \['x'\] are given by position and by name"),
    ],
)
def test_wrong_names(
    net: Network, args: tuple[object, ...], kwargs: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message) as raised:
        net(*args, **kwargs)
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (GIVEN["x"].astype(np.float64), r"'x': got dtype float64, expected float32; convert it"),
        (GIVEN["x"].astype(np.float16), "got dtype float16"),
        (GIVEN["k"], "got dtype int32"),
        (GIVEN["x"].astype(">f8"), "got dtype >f8"),
        (GIVEN["x"].astype(complex), "got dtype complex128"),
        (GIVEN["x"].astype(object), "got dtype object"),
        (GIVEN["x"].view([("a", "f4")]), "got dtype"),
        (GIVEN["x"].astype("datetime64[s]"), "got dtype datetime64"),
        (GIVEN["x"].T, r"got shape \(16, 8\), expected \(8, 16\)"),
        (GIVEN["x"].reshape(-1), r"got shape \(128,\)"),
        (GIVEN["x"][None], r"got shape \(1, 8, 16\)"),
        (GIVEN["x"][:0], r"got shape \(0, 16\)"),
        (np.float32(1), r"got shape \(\)"),
        (np.broadcast_to(np.float32(1), (2**40, 16)), "got shape"),
        (None, "'x': a NoneType with these values does not fit float32"),
        ("text", "a str with these values"),
        (b"bytes", "a bytes with these values"),
        ([[1.0, 2.0], [3.0]], "list is not an array"),
        ({"a": 1}, "a dict with these values"),
        ([], r"got shape \(0,\)"),
        (object(), "a object with these values"),
    ],
)
def test_wrong_values(net: Network, x: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        net(x, GIVEN["k"], GIVEN["gain"])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("value", "dtype", "fits"),
    [
        ([0, 255], "uint8", True),
        ([0, 256], "uint8", False),
        ([-1, 0], "uint8", False),
        ([1.0, 2.0], "int8", True),
        ([1.5, 2.0], "int8", False),
        ([float("nan"), 2.0], "int32", False),
        ([1e30, 2.0], "int32", False),
        ([2**40, 2], "int64", True),
        ([2**70, 2], "int64", False),
        ([1, 2], "float32", True),
        ([0.1, float("inf")], "float32", True),
        ([True, False], "bool", True),
        ([1, 0], "bool", True),
        ([2, 0], "bool", False),
        (["1", "2"], "float32", False),
    ],
)
def test_numbers_without_a_dtype(value: list[object], dtype: str, fits: bool) -> None:
    tensor = TensorType((2,), dtype)
    if not fits:
        with pytest.raises(DataError, match=r"input 'v': .*(does not fit|not an array)"):
            admit("v", value, tensor)
        return
    array = admit("v", value, tensor)
    assert array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(array, np.array(value, dtype))


def test_what_kernels_may_touch_in_place() -> None:
    good = aligned_empty((3, 5), np.dtype(np.float32))
    assert is_direct(good)
    assert is_direct(good[:2])
    assert not is_direct(good[1:])
    assert not is_direct(good[:, :3])
    assert not is_direct(good.view(good.dtype.newbyteorder("S")))
    assert not is_direct(read_only(good))
    assert not is_direct(np.empty(0, np.float32))
    page = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.uint8)
    assert is_direct(page[: mmap.PAGESIZE - SLACK])
    assert not is_direct(page)
    assert not is_direct(page[-SLACK:])


def test_direct_arrays_are_not_copied_and_others_are() -> None:
    tensor = TensorType((8, 16), "float32")
    good = aligned(GIVEN["x"])
    assert admit("x", good, tensor) is good
    for form in ("4 bytes off", "strided", "read-only", "other byte order", "end of memory"):
        copy = admit("x", FORMS[form](GIVEN["x"]), tensor)
        assert is_direct(copy)
        np.testing.assert_array_equal(copy, GIVEN["x"])


def test_every_dtype_passes_through_the_tensor_exchange(net: Network) -> None:
    program = net._pool._program
    for name in ("bool", "int8", "uint8", "int16", "uint16", "float16", "int64", "float64"):
        array = aligned(np.ones((2, 3), name))
        assert program.tensor(array).shape == (2, 3)


def test_saved_arrays(net: Network, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", GIVEN["x"])
    for mode in ("r", "c", "r+"):
        x = np.load(tmp_path / "x.npy", mmap_mode=mode)
        assert net(x, GIVEN["k"], GIVEN["gain"])[0].tobytes() == WANT["y"].tobytes()
