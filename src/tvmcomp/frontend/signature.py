"""What both importers check alike: input shapes, and one line from somebody else's exception."""

from __future__ import annotations

from collections.abc import Sequence

from tvmcomp.errors import ModelError

__all__ = ["first_line", "specialised"]


def specialised(
    name: str, declared: Sequence[int | object], wanted: Sequence[int] | None
) -> tuple[int, ...]:
    """The static shape of input `name`: its declared one, dynamic dimensions taken from `wanted`."""
    shown = ",".join(str(size) if isinstance(size, int) else "?" for size in declared)
    if wanted is None:
        wanted = [size for size in declared if isinstance(size, int)]
        if len(wanted) < len(declared):
            example = shown.replace("?", "1")
            raise ModelError(
                f"input {name} has a dynamic shape [{shown}]; "
                f"fix it with --input-shape {name}={example}"
            )
    fits = len(wanted) == len(declared) and all(
        not isinstance(size, int) or size == want
        for size, want in zip(declared, wanted, strict=False)
    )
    if not fits:
        raise ModelError(
            f"input {name} is declared [{shown}], --input-shape asks for "
            f"[{','.join(map(str, wanted))}]; only dynamic dimensions can be chosen"
        )
    # A file may say that an input is empty; asking for it is a mistake.
    least = 0 if list(wanted) == list(declared) else 1
    if any(size < least for size in wanted):
        raise ModelError(
            f"input {name} has shape [{','.join(map(str, wanted))}], every dimension must be positive; "
            "give it sizes of at least 1"
        )
    return tuple(wanted)


def first_line(error: BaseException) -> str:
    """The first line of a message that says something, cut to a readable length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
