"""Import of PyTorch modules and exported programs."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from tvmcomp.errors import ModelError
from tvmcomp.frontend.assemble import assemble
from tvmcomp.frontend.block import abandon
from tvmcomp.frontend.signature import first_line, specialised
from tvmcomp.frontend.torch_ops import CONVERTERS, decompositions
from tvmcomp.frontend.torch_ops.qdq import register_operators
from tvmcomp.model import Model, Provenance

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["from_torch", "load_pt2"]


def from_torch(
    net_or_exported: torch.nn.Module | ExportedProgram,
    example_inputs: tuple[torch.Tensor, ...] | torch.Tensor | None = None,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Model:
    """Import a module (exported here with `example_inputs`) or an ExportedProgram.

    `input_shapes` fixes the dynamic dimensions of an ExportedProgram, and replaces the shapes of
    `example_inputs` for a module. Raises ModelError.
    """
    if isinstance(net_or_exported, torch.nn.Module):
        exported = _export(net_or_exported, example_inputs, input_shapes or {})
        source = type(net_or_exported).__name__
    else:
        exported = net_or_exported
        source = "ExportedProgram"
    provenance = Provenance(source, _digest(exported), "torch")
    return _import(exported, dict(input_shapes or {}), provenance)


def load_pt2(path: Path, input_shapes: Mapping[str, tuple[int, ...]] | None = None) -> Model:
    """Import a saved ExportedProgram (`torch.export.save`)."""
    try:
        data = path.read_bytes()
        register_operators()
        with _quiet():
            exported = torch.export.load(path)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except Exception as error:
        raise ModelError(f"{path} is not a saved ExportedProgram: {first_line(error)}") from error
    provenance = Provenance(str(path), hashlib.sha256(data).hexdigest(), "torch")
    return _import(exported, dict(input_shapes or {}), provenance)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # PyTorch logs the traceback of a file it cannot read before it raises; our error is one line.
    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _export(
    net: torch.nn.Module,
    example_inputs: tuple[torch.Tensor, ...] | torch.Tensor | None,
    input_shapes: Mapping[str, tuple[int, ...]],
) -> ExportedProgram:
    if example_inputs is None:
        raise ModelError(
            "a torch module needs example_inputs to be exported; "
            "pass a tuple of tensors of the shapes to compile for"
        )
    if isinstance(example_inputs, torch.Tensor):
        example_inputs = (example_inputs,)
    names = inspect.signature(net.forward).parameters
    shapes = [input_shapes.get(name) for name in names]
    training = net.training
    try:
        examples = tuple(
            example if shape is None else torch.zeros(shape, dtype=example.dtype)
            for example, shape in zip_longest(example_inputs, shapes[: len(example_inputs)])
        )
        return torch.export.export(net.eval(), examples)
    except Exception as error:
        raise ModelError(
            f"torch.export cannot trace {type(net).__name__}: {first_line(error)}"
        ) from error
    finally:
        net.train(training)


def _import(
    exported: ExportedProgram, input_shapes: dict[str, tuple[int, ...]], provenance: Provenance
) -> Model:
    exported = _specialise(exported, input_shapes).run_decompositions(decompositions())
    importer = _Importer()
    _check_operators(exported, importer)
    try:
        module = importer.from_exported_program(
            _Unbound(exported),
            keep_params_as_input=True,
            unwrap_unit_return_tuple=True,
            no_bind_return_tuple=False,
            custom_convert_map=CONVERTERS,
        )
    except Exception as error:
        abandon(importer.block_builder)
        raise ModelError(f"{provenance.source}: {first_line(error)}") from error
    signature = exported.graph_signature
    inputs = {}
    params = {}
    for spec in signature.input_specs:
        name = spec.arg.name
        if spec.kind is InputKind.USER_INPUT:
            inputs[name] = name
        else:
            params[name] = (spec.target, _numpy(_tensor(exported, spec.target)))
    count = sum(spec.kind is OutputKind.USER_OUTPUT for spec in signature.output_specs)
    outputs = ["output"] if count == 1 else [f"output_{index}" for index in range(count)]
    return assemble(module, inputs=inputs, params=params, outputs=outputs, provenance=provenance)


@dataclass(frozen=True)
class _Unbound:
    """An ExportedProgram that shows its importer no values.

    TVM's importer binds buffers as constants even when asked to keep parameters; without values
    all of them stay parameters.
    """

    program: ExportedProgram

    def __getattr__(self, name: str) -> Any:
        return getattr(self.program, name)

    @property
    def constants(self) -> dict[str, torch.Tensor]:
        return {}

    def named_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        return iter(())

    def named_buffers(self) -> Iterator[tuple[str, torch.Tensor]]:
        return iter(())


class _Importer(ExportedProgramImporter):  # type: ignore[misc]
    def create_input_vars(self, exported_program: _Unbound) -> Any:
        # Shapes and dtypes of buffers do come from their values.
        return super().create_input_vars(exported_program.program)


def _check_operators(exported: ExportedProgram, importer: ExportedProgramImporter) -> None:
    supported = importer.convert_map.keys() | CONVERTERS.keys()
    for node in exported.graph.nodes:
        if node.op != "call_function" or node.target.__name__ in supported:
            continue
        operands = ", ".join(f"{arg.name}{_shape(arg)}" for arg in node.all_input_nodes)
        raise ModelError(
            f"operator {node.target.__name__} of node {node.name} is not supported; "
            f"its inputs: {operands or 'none'}"
        )


def _shape(node: torch.fx.Node) -> str:
    value = node.meta.get("val")
    return str(list(value.shape)) if isinstance(value, torch.Tensor) else ""


def _specialise(
    exported: ExportedProgram, input_shapes: dict[str, tuple[int, ...]]
) -> ExportedProgram:
    """The program with every dynamic dimension fixed, traced anew if there is one."""
    for spec in exported.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT and not isinstance(spec.arg, TensorArgument):
            raise ModelError(
                f"input {spec.arg.name} is no tensor; wrap the module so that all inputs are tensors"
            )
    values = {
        node.name: node.meta.get("val")
        for node in exported.graph.nodes
        if node.op == "placeholder" and node.name in exported.graph_signature.user_inputs
    }
    unknown = input_shapes.keys() - values.keys()
    if unknown:
        raise ModelError(
            f"the model has no input {min(unknown)!r}; its inputs: {', '.join(values)}"
        )
    examples = []
    changed = False
    for name, value in values.items():
        declared = tuple(value.shape)
        shape = specialised(name, declared, input_shapes.get(name))
        changed = changed or not all(isinstance(size, int) for size in declared)
        examples.append(torch.zeros(shape, dtype=value.dtype))
    if not changed:
        return exported
    try:
        return torch.export.export(exported.module(), tuple(examples))
    except Exception as error:
        raise ModelError(
            f"the model does not accept {input_shapes}: {first_line(error)}"
        ) from error


def _tensor(exported: ExportedProgram, target: str) -> torch.Tensor:
    state = exported.state_dict
    return state[target] if target in state else exported.constants[target]


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.numpy().copy()


def _digest(exported: ExportedProgram) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(exported.state_dict.items()):
        digest.update(name.encode())
        digest.update(_numpy(tensor).tobytes())
    return digest.hexdigest()
