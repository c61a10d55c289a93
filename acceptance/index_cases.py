"""Every operator that reads or writes where its data says: a small model each, and what it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

__all__ = ["CASES", "OUTSIDE", "Case", "onnx_model"]

ROWS = 10
"""Length of every indexed axis."""
OUTSIDE = (-1000, 10, 10**6, -11, 2**31, -(2**31) - 1, -(2**63), 2**63 - 1)

Feeds = Mapping[str, np.ndarray]
_WITHIN = (0, 9, 3, -1, -10)


@dataclass(frozen=True)
class Case:
    """One operator on tables whose indexed axes have ROWS elements.

    model(computed): an ONNX model or a torch module with example inputs, whose indices are an input
    as it came or, `computed`, the sum of one and zeros; tables: float inputs; indices: shapes of the
    integer inputs; means(feeds): the result of any indices."""

    name: str
    model: Callable[[bool], Any]
    tables: Mapping[str, tuple[int, ...]]
    indices: Mapping[str, tuple[int, ...]]
    means: Callable[[Feeds], np.ndarray]
    dtype: str = "int64"

    def values(self, seed: int) -> dict[str, np.ndarray]:
        """Index tensors that mix what is inside and outside."""
        info, rng = np.iinfo(self.dtype), np.random.default_rng(seed)
        pool = [value for value in (*OUTSIDE, *_WITHIN) if info.min <= value <= info.max]
        return {
            name: rng.choice(np.array(pool, self.dtype), shape)
            for name, shape in self.indices.items()
        }


def _inside(indices: np.ndarray, length: int = ROWS) -> np.ndarray:
    """Counted from the end where negative, then the nearest that exists."""
    return np.clip(np.where(indices < 0, indices + length, indices), 0, length - 1)


def _kept(indices: np.ndarray, length: int = ROWS) -> np.ndarray:
    """Counted from the end where negative, `length` where that is outside too."""
    wrapped = np.where(indices < 0, indices + length, indices)
    return np.where((wrapped >= 0) & (wrapped < length), wrapped, length)


def onnx_model(
    op: str,
    tables: Mapping[str, Sequence[int]],
    indices: Mapping[str, Sequence[int]],
    order: Sequence[str],
    dtype: str = "int64",
    opset: int = 18,
    domain: str = "",
    **attributes: object,
) -> Callable[[bool], onnx.ModelProto]:
    def make(computed: bool) -> onnx.ModelProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        inputs = [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in tables.items()]
        nodes, names = [], {name: name for name in order}
        for name, shape in indices.items():
            inputs.append(helper.make_tensor_value_info(name, kind, shape))
            if computed:
                inputs.append(helper.make_tensor_value_info(f"{name}_zero", kind, shape))
                nodes.append(helper.make_node("Add", [name, f"{name}_zero"], [f"{name}_sum"]))
                names[name] = f"{name}_sum"
        operands = [names[name] for name in order]
        nodes.append(helper.make_node(op, operands, ["y"], "node", domain=domain, **attributes))
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(nodes, "indices", inputs, [output])
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)

    return make


def _read(
    name: str,
    op: str,
    table: tuple[int, ...],
    shape: tuple[int, ...],
    means: Callable[[np.ndarray, np.ndarray], np.ndarray],
    dtype: str = "int64",
    **attributes: object,
) -> Case:
    model = onnx_model(op, {"x": table}, {"i": shape}, ("x", "i"), dtype, **attributes)
    tables, indices = {"x": table}, {"i": shape}
    return Case(name, model, tables, indices, lambda f: means(f["x"], _inside(f["i"])), dtype)


def _write(
    name: str,
    op: str,
    table: tuple[int, ...],
    shape: tuple[int, ...],
    updates: tuple[int, ...],
    place: Callable[[np.ndarray, np.ndarray, np.ndarray], None],
    **attributes: object,
) -> Case:
    """place(x, i, u) changes x, whose indexed axes are longer by one that is cut off."""
    tables, indices = {"x": table, "u": updates}, {"i": shape}

    def means(feeds: Feeds) -> np.ndarray:
        x = np.pad(feeds["x"], [(0, 1)] * len(table))
        place(x, _kept(feeds["i"]), feeds["u"])
        return x[tuple(slice(length) for length in table)]

    model = onnx_model(op, tables, indices, ("x", "i", "u"), **attributes)
    return Case(name, model, tables, indices, means)


def _each(combine: Callable[[Any, Any], Any], axis: int) -> Callable[..., None]:
    """ScatterElements, one element after another."""

    def place(x: np.ndarray, i: np.ndarray, u: np.ndarray) -> None:
        for at in np.ndindex(i.shape):
            to = (*at[:axis], int(i[at]), *at[axis + 1 :])
            x[to] = combine(x[to], u[at])

    return place


def _rows(combine: Callable[[Any, Any], Any]) -> Callable[..., None]:
    """ScatterND, one slice after another."""

    def place(x: np.ndarray, i: np.ndarray, u: np.ndarray) -> None:
        for at in np.ndindex(i.shape[:-1]):
            to = tuple(int(n) for n in i[at])
            cut = tuple(slice(length) for length in u[at].shape)
            x[(*to, *cut)] = combine(x[(*to, *cut)], u[at])

    return place


def _new(_: Any, new: Any) -> Any:
    return new


def _torch(
    name: str,
    forward: Callable[..., Any],
    tables: Mapping[str, tuple[int, ...]],
    indices: Mapping[str, tuple[int, ...]],
    means: Callable[[Feeds], np.ndarray],
) -> Case:
    def make(computed: bool) -> Any:
        import torch

        class Net(torch.nn.Module):
            def forward(self, *inputs: Any) -> Any:
                count = len(tables)
                chosen = list(inputs[count:])
                if computed:
                    chosen = [a + b for a, b in zip(chosen[::2], chosen[1::2], strict=True)]
                return forward(*inputs[:count], *chosen)

        examples = [torch.zeros(shape) for shape in tables.values()]
        for shape in indices.values():
            copies = range(2 if computed else 1)  # one tensor given twice would be one input
            examples += [torch.zeros(shape, dtype=torch.int64) for _ in copies]
        return Net(), tuple(examples)

    return Case(name, make, tables, indices, means)


def _take_nd(x: np.ndarray, i: np.ndarray, batch: int = 0) -> np.ndarray:
    if batch:
        return np.stack([_take_nd(a, b, batch - 1) for a, b in zip(x, i, strict=True)])
    return x[tuple(np.moveaxis(i, -1, 0))]


def _scattered(feeds: Feeds) -> np.ndarray:
    x = np.pad(feeds["x"], [(0, 1), (0, 0)])
    _each(_new, 0)(x, _kept(feeds["i"]), feeds["u"])
    return x[:ROWS]


def _put(feeds: Feeds) -> np.ndarray:
    x = np.pad(feeds["x"], [(0, 1), (0, 0)])
    x[_kept(feeds["i"])] = feeds["u"]
    return x[:ROWS]


def _put_two(feeds: Feeds) -> np.ndarray:
    x = np.pad(feeds["x"], 1)[1:, 1:]
    np.add.at(x, (_kept(feeds["i"]), _kept(feeds["j"])), feeds["u"])
    return x[:ROWS, :ROWS]


def _select(dim: int) -> Callable[..., Any]:
    return lambda x, i: x.index_select(dim, i)


def _embedding(i_shape: tuple[int, ...]) -> Case:
    def forward(x: Any, i: Any) -> Any:
        import torch

        return torch.nn.functional.embedding(i, x)

    return _torch(
        f"torch embedding {len(i_shape)}-d", forward, {"x": (ROWS, 6)}, {"i": i_shape},
        lambda f: f["x"][_inside(f["i"])],
    )  # fmt: skip


CASES: tuple[Case, ...] = (
    _read("Gather", "Gather", (ROWS, 4), (7,), lambda x, i: x[i]),
    _read("Gather of a scalar", "Gather", (ROWS, 4), (), lambda x, i: x[i]),
    _read("Gather of int32", "Gather", (3, ROWS), (2, 5), lambda x, i: x[:, i], "int32", axis=1),
    _read(
        "GatherElements", "GatherElements", (ROWS, 4), (7, 3),
        lambda x, i: np.take_along_axis(x[:, :3], i, 0),
    ),
    _read(
        "GatherElements on the last axis", "GatherElements", (4, ROWS), (4, 7),
        lambda x, i: np.take_along_axis(x, i, 1), "int32", axis=-1,
    ),
    _read("GatherND", "GatherND", (ROWS, ROWS), (7, 2), _take_nd),
    _read("GatherND of rows", "GatherND", (ROWS, 5), (2, 3, 1), _take_nd),
    _read(
        "GatherND in batches", "GatherND", (2, ROWS, 3), (2, 5, 1),
        lambda x, i: _take_nd(x, i, 1), batch_dims=1,
    ),
    _write("ScatterElements", "ScatterElements", (ROWS, 4), (7, 4), (7, 4), _each(_new, 0)),
    _write(
        "ScatterElements add", "ScatterElements", (ROWS, 4), (7, 4), (7, 4), _each(np.add, 0),
        reduction="add",
    ),
    _write(
        "ScatterElements max, short", "ScatterElements", (4, ROWS), (3, 6), (3, 6),
        _each(np.maximum, 1), axis=1, reduction="max",
    ),
    _write("ScatterND", "ScatterND", (ROWS, 4), (7, 1), (7, 4), _rows(_new)),
    _write(
        "ScatterND mul", "ScatterND", (ROWS, ROWS), (7, 2), (7,), _rows(np.multiply),
        reduction="mul",
    ),
    _write("Scatter", "Scatter", (4, ROWS), (2, 3), (2, 3), _each(_new, 1), opset=10, axis=1),
    _embedding((7,)),
    _embedding((2, 5)),
    _torch(
        "torch index_select", _select(1), {"x": (3, ROWS)}, {"i": (6,)},
        lambda f: f["x"][:, _inside(f["i"])],
    ),
    _torch(
        "torch x[i]", lambda x, i: x[i], {"x": (ROWS, 4)}, {"i": (6,)},
        lambda f: f["x"][_inside(f["i"])],
    ),
    _torch(
        "torch x[i, j]", lambda x, i, j: x[i, j], {"x": (ROWS, ROWS)}, {"i": (6,), "j": (6,)},
        lambda f: f["x"][_inside(f["i"]), _inside(f["j"])],
    ),
    _torch(
        "torch gather", lambda x, i: x.gather(0, i), {"x": (ROWS, 4)}, {"i": (6, 4)},
        lambda f: np.take_along_axis(f["x"], _inside(f["i"]), 0),
    ),
    _torch(
        "torch take_along_dim", lambda x, i: x.take_along_dim(i, 1), {"x": (4, ROWS)},
        {"i": (4, 6)}, lambda f: np.take_along_axis(f["x"], f["i"] % ROWS, 1),  # torch writes a modulo

    ),
    _torch(
        "torch scatter", lambda x, u, i: x.scatter(0, i, u), {"x": (ROWS, 4), "u": (6, 4)},
        {"i": (6, 4)}, _scattered,
    ),
    _torch(
        "torch index_put", lambda x, u, i: x.index_put((i,), u), {"x": (ROWS, 4), "u": (4,)},
        {"i": (5,)}, _put,
    ),
    _torch(
        "torch index_put, added", lambda x, u, i, j: x.index_put((i, j), u, accumulate=True),
        {"x": (ROWS, ROWS), "u": (5,)}, {"i": (5,), "j": (5,)}, _put_two,
    ),
)  # fmt: skip
