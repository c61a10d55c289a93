"""`bundle`: an artifact, its loader and the runtime libraries as one folder that needs only numpy.

OUT/run.py                       python run.py [inputs.npz outputs.npz]
OUT/NAME.tvmcomp
OUT/python/tvmcomp/              errors, model, artifact, runtime, target/cpu
OUT/python/tvmcomp/_bundle/      libtvm_runtime.so, versions.json
OUT/python/tvm_ffi/              its Python files and libtvm_ffi.so
OUT/licenses/
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from tvmcomp.artifact import read_artifact
from tvmcomp.errors import IncompatibleHostError, TvmcompError, UsageError
from tvmcomp.runtime.host import (
    BUNDLE_FOLDER,
    BUNDLE_VERSIONS,
    RuntimeFiles,
    check_machine,
    check_versions,
    find_runtime,
)

__all__ = ["bundle", "check_bundle"]

_OURS = ("__init__.py", "errors.py", "model.py", "artifact", "runtime", "target/cpu.py")
# Headers, sources and build helpers of tvm_ffi: nothing that running needs.
_NOT_NEEDED = shutil.ignore_patterns(
    "__pycache__", "3rdparty", "cython", "include", "share", "src", "testing", "*.pyi",
    ".gitignore", "CMakeLists.txt",
)  # fmt: skip

_RUN = '''\
"""Run the network of this folder: `python run.py inputs.npz outputs.npz`, or alone: its golden run."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "python"))

from tvmcomp.runtime.loader import main

sys.exit(main(HERE / {artifact!r}, sys.argv[1:]))
'''


def bundle(artifact: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Write the folder `out`, which must not exist yet; it appears whole or not at all.

    The folder runs on Linux hosts of the same architecture with the same minor version of Python and
    any numpy this tvmcomp takes. Returns its path.
    """
    runtime = check_bundle(artifact, out)
    artifact, out = Path(artifact), Path(out)
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(8)}.tmp")
    try:
        try:
            _fill(temporary, artifact, runtime)
            temporary.rename(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, shutil.Error) as error:
        raise TvmcompError(
            f"{out}: cannot be written ({error}); free space or choose another folder"
        ) from None
    return out


def check_bundle(artifact: str | os.PathLike[str], out: str | os.PathLike[str]) -> RuntimeFiles:
    """Raise what `bundle` would before it writes; returns the runtime it would copy."""
    if Path(out).exists():
        raise UsageError(f"{out}: already exists; choose a new folder")
    payload = read_artifact(artifact)
    runtime = find_runtime()
    check_versions(payload.manifest.versions, runtime)
    check_machine(payload)
    return runtime


def _fill(folder: Path, artifact: Path, runtime: RuntimeFiles) -> None:
    python = folder / "python"
    package = Path(__file__).parent.parent
    for name in _OURS:
        _copy(package / name, python / "tvmcomp" / name)
    (python / "tvmcomp" / "target" / "__init__.py").touch()
    _copy(runtime.ffi_package, python / "tvm_ffi")
    # tvm_ffi finds its library through its distribution's record, so that comes along too.
    for info in runtime.ffi_package.parent.glob("apache_tvm_ffi-*.dist-info"):
        _copy(info, python / info.name)
        _copy(info / "licenses", folder / "licenses" / "tvm_ffi")
    for info in runtime.library.parent.parent.parent.glob("apache_tvm-*.dist-info"):
        _copy(info / "licenses", folder / "licenses" / "tvm")
    extensions = find_spec("typing_extensions")
    if extensions is None or extensions.origin is None:
        raise IncompatibleHostError(
            "typing_extensions is not installed; pip install typing-extensions"
        )
    _copy(Path(extensions.origin), python / "typing_extensions.py")
    libraries = python / "tvmcomp" / BUNDLE_FOLDER
    _copy(runtime.library, libraries / runtime.library.name)
    versions = {
        "tvm": runtime.tvm,
        "tvm_ffi": runtime.tvm_ffi,
        "python": ".".join(map(str, sys.version_info[:2])),
    }
    (libraries / BUNDLE_VERSIONS).write_text(json.dumps(versions) + "\n", encoding="utf-8")
    _copy(artifact, folder / artifact.name)
    (folder / "run.py").write_text(_RUN.format(artifact=artifact.name), encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=_NOT_NEEDED)
    else:
        shutil.copyfile(source, target)
