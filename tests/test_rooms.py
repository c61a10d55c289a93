"""Rooms import one way only, and heavy or dangerous modules stay where they belong."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "tvmcomp"

# docs/architecture.md's list, top to bottom: a room imports itself and rooms before it.
ROOMS = (
    "errors",
    "resources",
    "target",
    "vta",
    "model",
    "frontend",
    "graph",
    "calibrate",
    "compress",
    "train",
    "kernels",
    "schedule",
    "build",
    "tune",
    "measure",
    "artifact",
    "runtime",
    "search",
    "report",
    "serve",
    "flow",
    "cli",
    "__init__",
    "__main__",
)

TORCH_FILES = ("frontend/torch.py", "frontend/torch_ops/", "train/")
TORCH_LAZY_FILES = ("measure/peers",)  # a peer runs in a process of its own
NEVER_COMPILER = ("runtime", "artifact", "serve")
SOCKET_ROOMS = ("measure", "tune", "serve", "device")
SOCKET_MODULES = (
    "aiohttp",
    "asyncssh",
    "ftplib",
    "granian",
    "grpc",
    "http.client",
    "http.server",
    "httpx",
    "paramiko",
    "requests",
    "smtplib",
    "socket",
    "socketserver",
    "ssl",
    "starlette",
    "tornado",
    "tvm.rpc",
    "urllib.request",
    "uvicorn",
    "websockets",
    "xmlrpc",
)


@dataclass(frozen=True)
class Import:
    """`import module` or `from module import name`, wherever it stands in the file."""

    module: str
    line: int
    lazy: bool
    typing_only: bool


def imports_of(source: str) -> list[Import]:
    """Every import of a source text; `from a import b` counts as a.b, which may be a module."""
    return list(_walk(ast.parse(source), lazy=False, typing_only=False))


def _walk(node: ast.AST, *, lazy: bool, typing_only: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, node.lineno, lazy, typing_only)
    elif isinstance(node, ast.ImportFrom):
        if node.level:
            raise AssertionError(f"line {node.lineno}: relative import; spell out tvmcomp.ROOM")
        for alias in node.names:
            yield Import(f"{node.module}.{alias.name}", node.lineno, lazy, typing_only)
    lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    for name, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        for child in children:
            if isinstance(child, ast.AST):
                only = typing_only or (guarded and name == "body")
                yield from _walk(child, lazy=lazy, typing_only=only)


def room_of(path: str) -> str:
    """ "target/cpu.py" -> "target", "flow.py" -> "flow"."""
    return path.split("/")[0].removesuffix(".py")


def is_module(name: str, *modules: str) -> bool:
    """Whether `name` is one of `modules` or something inside one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def order_violations(path: str, source: str) -> list[str]:
    """Imports of rooms that come after the file's own."""
    room = room_of(path)
    if room not in ROOMS:
        return [f"{path}: room {room!r} is not in ROOMS; give it its place there and in the docs"]
    found = []
    for imported in imports_of(source):
        if not is_module(imported.module, "tvmcomp") or imported.module == "tvmcomp.__version__":
            continue
        parts = imported.module.split(".")
        other = parts[1] if len(parts) > 1 and parts[1] in ROOMS else "__init__"
        if ROOMS.index(other) > ROOMS.index(room):
            found.append(f"{path}:{imported.line} imports {imported.module}, a later room")
    return found


def confinement_violations(path: str, source: str) -> list[str]:
    """Imports of torch, the compiler, tensor intrinsics or sockets where they do not belong."""
    room, found = room_of(path), []
    for imported in imports_of(source):
        name, where = imported.module, f"{path}:{imported.line} imports {imported.module}"
        if is_module(name, "tvm.s_tir.tensor_intrin"):
            found.append(f"{where}: it takes 20 seconds")
        if imported.typing_only:
            continue
        if is_module(name, "torch", "torchvision") and not _may_import_torch(path, imported):
            found.append(f"{where}: torch stays in {', '.join(TORCH_FILES)}")
        if room in NEVER_COMPILER and is_module(name, "tvm", "torch", "onnx"):
            found.append(f"{where}: {room} must work without the compiler")
        if room not in SOCKET_ROOMS and is_module(name, *SOCKET_MODULES):
            found.append(f"{where}: sockets are opened in {', '.join(SOCKET_ROOMS)}")
    return found


def _may_import_torch(path: str, imported: Import) -> bool:
    return path.startswith(TORCH_FILES) or (imported.lazy and path.startswith(TORCH_LAZY_FILES))


def sources() -> list[tuple[str, str]]:
    files = sorted(PACKAGE.rglob("*.py"))
    return [(file.relative_to(PACKAGE).as_posix(), file.read_text()) for file in files]


SOURCES = sources()


@pytest.mark.parametrize(("path", "source"), SOURCES, ids=[path for path, _ in SOURCES])
def test_imports_go_one_way(path: str, source: str) -> None:
    assert order_violations(path, source) == []


@pytest.mark.parametrize(("path", "source"), SOURCES, ids=[path for path, _ in SOURCES])
def test_heavy_imports_stay_home(path: str, source: str) -> None:
    assert confinement_violations(path, source) == []


def test_no_code_asks_a_target_for_its_name() -> None:
    asks = re.compile(r"target\.name\s*(==|!=|in\b|not in\b|\.startswith)|match target\.name")
    found = [path for path, source in SOURCES if asks.search(source)]
    assert found == [], "ask target.accepts, target.features or another field instead"


def test_package_was_found() -> None:
    assert {"errors.py", "target/descriptor.py"} <= {path for path, _ in SOURCES}


@pytest.mark.parametrize(
    "source",
    [
        "import tvmcomp.build",
        "from tvmcomp import build",
        "from tvmcomp.build.pipeline import PHASES",
        "import tvmcomp",
        "from tvmcomp import compile",
        "def f():\n    from tvmcomp.cli import main",
        "if TYPE_CHECKING:\n    from tvmcomp.flow import compile",
        "try:\n    import tvmcomp.serve\nexcept ImportError:\n    pass",
    ],
)
def test_order_check_sees(source: str) -> None:
    assert len(order_violations("graph/shapes.py", source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from tvmcomp.errors import TargetError",
        "from tvmcomp.graph.layers import Conv",
        "from tvmcomp import __version__",
        "import numpy, tvmcomp_extras",
    ],
)
def test_order_check_allows(source: str) -> None:
    assert order_violations("graph/shapes.py", source) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("graph/a.py", "import torch.nn"),
        ("measure/peers.py", "import torch"),
        ("runtime/load.py", "def f():\n    import tvm"),
        ("artifact/zip.py", "from tvm.runtime import Tensor"),
        ("kernels/gemm.py", "import tvm.s_tir.tensor_intrin"),
        ("kernels/gemm.py", "from tvm.s_tir import tensor_intrin"),
        ("tune/search.py", "def f():\n    from tvm.s_tir.tensor_intrin import x86"),
        ("frontend/onnx.py", "from urllib.request import urlopen"),
        ("runtime/load.py", "import socket"),
    ],
)
def test_confinement_check_sees(path: str, source: str) -> None:
    assert len(confinement_violations(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("frontend/torch.py", "import torch"),
        ("train/fit.py", "import torch"),
        ("measure/peers.py", "def f():\n    import torch"),
        ("graph/a.py", "if TYPE_CHECKING:\n    import torch"),
        ("runtime/load.py", "import tvm_ffi"),
        ("serve/app.py", "import socket"),
    ],
)
def test_confinement_check_allows(path: str, source: str) -> None:
    assert confinement_violations(path, source) == []


def test_room_without_a_place_is_refused() -> None:
    assert "not in ROOMS" in order_violations("utils/misc.py", "")[0]


def test_relative_import_is_refused() -> None:
    with pytest.raises(AssertionError, match="relative import"):
        imports_of("from . import layers")
