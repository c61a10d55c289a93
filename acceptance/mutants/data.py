"""Damage to stored values: weights, external files, scales, element types, the bytes of the file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from acceptance.mutants.sound import build, initializer, node, save, sound, weight

__all__ = ["DATA", "FILES", "OUTSIDE"]

# What lies outside the model's folder; a result that shows it has read where it must not.
OUTSIDE = 12345.5


def _not_finite(rng: Random) -> onnx.ModelProto:
    model = sound(rng, 0, 1)
    floats = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
    tensor = rng.choice(floats)
    array = numpy_helper.to_array(tensor).copy()
    for _ in range(rng.choice([1, 3])):
        array.flat[rng.randrange(array.size)] = rng.choice([np.nan, np.inf, -np.inf])
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def _short(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    tensor = rng.choice([t for t in model.graph.initializer if t.raw_data])
    tensor.raw_data = rng.choice(
        [
            tensor.raw_data[:-1],
            tensor.raw_data[:-4],
            b"",
            tensor.raw_data + b"1234",
            tensor.raw_data * 2,
        ]
    )
    return model


def _wrong_field(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    tensor = rng.choice(model.graph.initializer)
    if rng.random() < 0.5:
        tensor.ClearField("raw_data")
    field = rng.choice(["float_data", "int32_data", "int64_data", "double_data", "string_data"])
    values = [b"x"] if field == "string_data" else [1] * rng.choice([1, int(np.prod(tensor.dims))])
    getattr(tensor, field).extend(values)
    return model


def _element_number(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    tensor = rng.choice(model.graph.initializer)
    tensor.data_type = rng.choice([0, 8, 14, 15, 16, 17, 20, 21, 22, 23, 24, 99, -1])
    return model


def _scales(rng: Random) -> onnx.ModelProto:
    model = sound(rng, 2)
    name = rng.choice(["x.scale", "w.scale"])
    bad = rng.choice([0.0, -0.05, np.nan, np.inf, 1e-45, 1e38])
    array = np.array(bad, np.float32) if name == "x.scale" else np.full(4, 0.01, np.float32)
    if name == "w.scale":
        array[rng.randrange(4)] = bad
    initializer(model, name).CopyFrom(numpy_helper.from_array(array, name))
    return model


def _scale_shapes(rng: Random) -> onnx.ModelProto:
    model = sound(rng, 2)
    name = rng.choice(["x.scale", "x.zero", "w.scale", "w.zero"])
    kind = numpy_helper.to_array(initializer(model, name)).dtype
    shape = rng.choice([(), (1,), (3,), (5,), (4, 1), (2, 2), (0,)])
    initializer(model, name).CopyFrom(numpy_helper.from_array(np.ones(shape, kind), name))
    return model


def _zero_points(rng: Random) -> onnx.ModelProto:
    model = sound(rng, 2)
    if rng.random() < 0.5:
        target = rng.choice([n for n in model.graph.node if "Linear" in n.op_type])
        del target.attribute[:]
        target.attribute.append(helper.make_attribute("axis", rng.choice([1, 2, 4, -5, 1 << 40])))
        return model
    name = rng.choice(["x.zero", "w.zero"])
    shape = numpy_helper.to_array(initializer(model, name)).shape
    kind = rng.choice([np.int8, np.int16, np.int32, np.float32, np.uint8, np.bool_])
    initializer(model, name).CopyFrom(numpy_helper.from_array(np.ones(shape, kind), name))
    return model


def _exotic(rng: Random) -> onnx.ModelProto:
    kind = rng.choice(
        [
            "BFLOAT16",
            "FLOAT8E4M3FN",
            "FLOAT8E5M2",
            "INT4",
            "UINT4",
            "COMPLEX64",
            "STRING",
            "FLOAT4E2M1",
        ]
    )
    element = TensorProto.DataType.Value(kind)
    if rng.random() < 0.5:
        return build([node("Identity", ["x"], ["y"], "the_node")], {"x": (element, (2, 4))}, {})
    tensor = TensorProto(name="w", data_type=element, dims=[2, 4])
    if kind == "STRING":
        tensor.string_data.extend([b"a"] * 8)
    else:
        tensor.raw_data = bytes(64 if kind == "COMPLEX64" else 16 if kind == "BFLOAT16" else 8)
    cast = node("Cast", ["w"], ["c"], "the_cast", to=TensorProto.FLOAT)
    add = node("Add", ["x", rng.choice(["w", "c"])], ["y"], "the_add")
    return build([cast, add], {"x": (2, 4)}, {"w": tensor})


def _no_tensors(rng: Random) -> onnx.ModelProto:
    model = sound(rng)
    inner = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    kind = rng.choice(
        [
            helper.make_sequence_type_proto(inner),
            helper.make_optional_type_proto(inner),
            helper.make_map_type_proto(TensorProto.INT64, inner),
            helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, [2]),
            onnx.TypeProto(),
        ]
    )
    value = rng.choice([model.graph.input[0], model.graph.output[0]])
    value.type.CopyFrom(kind)
    return model


def _sparse(rng: Random) -> onnx.ModelProto:
    model = sound(rng, 0, 1)
    values = numpy_helper.from_array(np.ones(2, np.float32), "sparse")
    at = rng.choice([[0, 1], [5, 1 << 40], [-1, 0], [0, 0]])
    indices = numpy_helper.from_array(np.array(at), "at")
    dims = rng.choice([[8], [4], [1 << 40]])
    if rng.random() < 0.7:
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, dims))
        model.graph.node[0].input[1] = "sparse"
    else:
        constant = node("Constant", [], ["s"], "the_constant")
        sparse = helper.make_sparse_tensor(values, indices, dims)
        constant.attribute.append(helper.make_attribute("sparse_value", sparse))
        model.graph.node.insert(0, constant)
        model.graph.node[1].input[1] = "s"
    return model


DATA: dict[str, Callable[[Random], onnx.ModelProto]] = {
    "NaN or infinite weight": _not_finite,
    "weight with too few or too many bytes": _short,
    "weight in the wrong field": _wrong_field,
    "weight of another or unknown type": _element_number,
    "scale zero, negative or not finite": _scales,
    "scale of the wrong shape": _scale_shapes,
    "zero point of the wrong type, axis outside": _zero_points,
    "element types nobody computes in": _exotic,
    "values that are no tensors": _no_tensors,
    "sparse tensors": _sparse,
}


# Damage that needs a folder


def _external(rng: Random, folder: Path, location: str, **entries: object) -> Path:
    model = build([node("Add", ["x", "w"], ["y"], "the_add")], {"x": (4,)}, {"w": weight(0, 4)})
    tensor = model.graph.initializer[0]
    (folder / "inside.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": 0, "length": 16, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    path = folder / "model.onnx"
    path.write_bytes(save(model))
    return path


def _outside(folder: Path) -> Path:
    path = folder.parent / "outside.bin"
    path.write_bytes(np.full(4, OUTSIDE, np.float32).tobytes())
    return path


def _away(rng: Random, folder: Path) -> Path:
    outside = _outside(folder)
    places = [
        "../outside.bin", str(outside), "./../outside.bin", "sub/../../outside.bin", "/etc/hostname",
        "..\\outside.bin", "file://" + str(outside), "~/outside.bin", "", ".", "..", "absent.bin",
        "inside.bin\0", "/dev/zero", "/proc/self/mem",
    ]  # fmt: skip
    return _external(rng, folder, rng.choice(places))


def _links(rng: Random, folder: Path) -> Path:
    outside, link = _outside(folder), folder / "link.bin"
    kind = rng.choice(["symbolic", "hard", "folder", "pipe", "loop"])
    if kind == "symbolic":
        link.symlink_to(outside)
    elif kind == "hard":
        os.link(outside, link)
    elif kind == "folder":
        (folder / "sub").symlink_to(folder.parent)
        return _external(rng, folder, "sub/outside.bin")
    elif kind == "pipe":
        os.mkfifo(link)
    else:
        link.symlink_to(link)
    return _external(rng, folder, "link.bin")


def _extent(rng: Random, folder: Path) -> Path:
    big = [-1, -16, 1, 8, 17, 1 << 40, (1 << 63) - 1, 1 << 70, "x", "", "0x10", "1e3"]
    name = rng.choice(["offset", "length"])
    return _external(rng, folder, "inside.bin", **{name: rng.choice(big)})


def _write(folder: Path, data: bytes) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(data)
    return path


def _flips(rng: Random, folder: Path) -> Path:
    data = bytearray(save(sound(rng)))
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return _write(folder, bytes(data))


def _cut(rng: Random, folder: Path) -> Path:
    data = save(sound(rng))
    return _write(folder, data[: rng.randrange(len(data))])


def _shifted(rng: Random, folder: Path) -> Path:
    data = save(sound(rng))
    at, size = rng.randrange(len(data)), rng.randrange(1, 40)
    pieces = [
        data[:at] + data[at + size :],
        data[:at] + bytes(rng.randrange(256) for _ in range(size)) + data[at:],
        data[:at] + data[max(0, at - size) : at] + data[at:],
        data + data,
        rng.randbytes(rng.randrange(1, 2000)),
        b"",
    ]
    return _write(folder, rng.choice(pieces))


def _not_utf8(rng: Random, folder: Path) -> Path:
    data = save(sound(rng))
    names = [b"the_", b"conv", b"weight", b"scale", b"net", b"Conv", b"Relu", b"kernel"]
    name = rng.choice([n for n in names if n in data])
    return _write(
        folder, data.replace(name, b"\xff\xfe\x80\xc0"[: len(name)].ljust(len(name), b"\xff"))
    )


FILES: dict[str, Callable[[Random, Path], Path]] = {
    "external data outside the folder": _away,
    "external data by links": _links,
    "external data of the wrong extent": _extent,
    "flipped bits": _flips,
    "cut off": _cut,
    "bytes lost, inserted or repeated": _shifted,
    "names that are not UTF-8": _not_utf8,
}
