"""Reading an ONNX file and its external data, and nothing outside the model's folder."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import onnx
from onnx import TensorProto, external_data_helper, numpy_helper

from tvmcomp.errors import ModelError
from tvmcomp.frontend.assemble import MAX_TENSOR_BYTES

__all__ = ["check_tensors", "check_text", "read_model", "tensors_of"]

# Many tensors may name the same bytes of a file, so the sum needs a limit of its own.
MAX_MODEL_BYTES = 16 << 30

# Elements that share bytes: their size is not the product of the shape.
_PACKED = (TensorProto.INT4, TensorProto.UINT4)


def read_model(path: Path) -> tuple[onnx.ModelProto, str]:
    """The model with all weights in memory, and the sha256 of the file's bytes."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path}: {error.strerror or error}; give a file that can be read"
        ) from None
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise ModelError(
            f"{path} is not an ONNX model or is cut short ({type(error).__name__}); "
            "export it or copy it again"
        ) from None
    room = MAX_MODEL_BYTES - len(data)
    for tensor in tensors_of(model.graph):
        if external_data_helper.uses_external_data(tensor):
            room -= _load_external(tensor, path.parent, room)
    return model, hashlib.sha256(data).hexdigest()


def tensors_of(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Every tensor stored in a graph, subgraphs and attributes included."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from tensors_of(attribute.g)
            for subgraph in attribute.graphs:
                yield from tensors_of(subgraph)


def check_text(model: onnx.ModelProto, source: str) -> None:
    """Every name is text: protobuf hands out bytes where a damaged file is not UTF-8."""
    text = next((text for text in _texts(model) if isinstance(text, bytes)), None)
    if text is not None:
        raise ModelError(
            f"{source} is not a valid ONNX model: {text!r} in it is not UTF-8; "
            "export it or copy it again"
        )


def _texts(message: Any) -> Iterator[str | bytes]:
    if isinstance(message, TensorProto):
        yield message.name
        return
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            continue
        values = value if field.is_repeated else [value]
        if field.type == field.TYPE_STRING:
            yield from values
        elif field.type == field.TYPE_MESSAGE:
            for inner in values:
                yield from _texts(inner)


def check_tensors(graph: onnx.GraphProto) -> None:
    """Every stored tensor has the bytes its shape asks for."""
    for tensor in tensors_of(graph):
        _check_size(tensor)
        try:
            numpy_helper.to_array(tensor)
        except Exception:
            raise ModelError(
                f"tensor {tensor.name} does not hold the values of a "
                f"{_type_name(tensor)} tensor of shape {list(tensor.dims)}; save the model again"
            ) from None


def _check_size(tensor: TensorProto) -> None:
    if any(size < 0 for size in tensor.dims):
        raise ModelError(
            f"tensor {tensor.name} has a negative dimension: {list(tensor.dims)}; save the model again"
        )
    if prod(tensor.dims) * _itemsize(tensor) > MAX_TENSOR_BYTES:
        raise ModelError(
            f"tensor {tensor.name} of shape {list(tensor.dims)} is larger than "
            f"{MAX_TENSOR_BYTES >> 30} GiB; split it or make it smaller"
        )


def _itemsize(tensor: TensorProto) -> int:
    """Bytes of one element; 1 for those stored in less or in strings."""
    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except (KeyError, ValueError):
        raise ModelError(
            f"tensor {tensor.name} has the unknown element type {tensor.data_type}; "
            "save it in a type of ONNX"
        ) from None


def _type_name(tensor: TensorProto) -> str:
    return str(TensorProto.DataType.Name(tensor.data_type)).lower()


def _load_external(tensor: TensorProto, folder: Path, room: int) -> int:
    """Read the tensor's data and return its length; `room` is how much may still be read."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
    except ValueError:
        raise ModelError(
            f"tensor {tensor.name}: its external data entry is malformed; save the model again"
        ) from None
    _check_size(tensor)
    needed = None if tensor.data_type in _PACKED else prod(tensor.dims) * _itemsize(tensor)
    if "length" in entries and length < 0:
        raise ModelError(
            f"tensor {tensor.name}: its external data entry has length {length}; save the model again"
        )
    if needed is not None and 0 <= length != needed:
        raise ModelError(
            f"tensor {tensor.name} of shape {list(tensor.dims)} needs {needed} bytes; "
            f"its external data entry holds {length}; save the model again"
        )
    descriptor = _open_inside(folder, location, tensor.name)
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        wanted = length if length >= 0 else needed if needed is not None else size - offset
        if offset < 0 or wanted < 0 or offset + wanted > size:
            raise ModelError(
                f"tensor {tensor.name}: {location} has {size} bytes, "
                f"{wanted} at offset {offset} are asked for; save the model again"
            )
        if wanted > room:
            raise ModelError(
                f"tensor {tensor.name}: with it the weights exceed {MAX_MODEL_BYTES >> 30} GiB; "
                "split the model"
            )
        file.seek(offset)
        tensor.raw_data = file.read(wanted)
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]
    return wanted


def _open_inside(folder: Path, location: str, tensor: str) -> int:
    """Open `location` below `folder`; no step on the way may be a link."""
    parts = PurePosixPath(location).parts
    if (
        not parts
        or location.startswith("/")
        or "\\" in location
        or ".." in parts
        or "\0" in location
    ):
        raise ModelError(
            f"tensor {tensor}: external data {location!r} is outside the model's folder; "
            "keep it beside the model and save the model again"
        )
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            inner = os.open(part, flags, dir_fd=directory)
            os.close(directory)
            directory = inner
        descriptor = os.open(
            parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory
        )
    except FileNotFoundError:
        raise ModelError(
            f"tensor {tensor}: external data {location!r} is missing; copy it beside the model"
        ) from None
    except OSError:
        raise ModelError(
            f"tensor {tensor}: external data {location!r} is a link or cannot be opened; "
            "copy the file itself into the model's folder"
        ) from None
    finally:
        os.close(directory)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(descriptor)
        raise ModelError(
            f"tensor {tensor}: external data {location!r} is a hard link or no regular file; "
            "copy the file itself into the model's folder"
        )
    return descriptor
