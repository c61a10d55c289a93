"""Output files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from tvmcomp.errors import VtaError

__all__ = ["write_file"]


def write_file(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write `parts` one after the other; a file that stood there stays until all is written. Raises VtaError."""
    # A device such as /dev/null is written to, not replaced.
    special = path.exists() and not path.is_file()
    target = path.resolve()
    temporary = target.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(path if special else temporary, "wb" if special else "xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            if not special:
                os.fsync(file.fileno())
        if not special:
            os.replace(temporary, target)
    except OSError as error:
        raise VtaError(
            f"{path}: cannot be written: {error.strerror}; choose another path or free space"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
