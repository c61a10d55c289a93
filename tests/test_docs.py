"""Pages name files that exist; pages with sessions are played beside the rooms they are about."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
# Rooms of later work, and the example of a transform's three names.
PLANNED = {"tune/", "search/", "serve/", "prune_nm.py", "test_prune_nm.py"}


def named(page: Path) -> set[str]:
    """What the page writes in `code` outside of fences that looks like a path."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`\s]+)`", prose) + re.findall(r"\]\(([^)#:]+)\)", prose)
    return {s for s in spans if re.fullmatch(r"[\w.-]+(/[\w.-]*)+|[\w-]+\.(py|md)", s)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    below = [path.as_posix() for path in (ROOT / "src").rglob("*.py")]
    missing = [
        name
        for name in sorted(named(page) - PLANNED)
        if not any((base / name).exists() for base in (ROOT, ROOT / "src/tvmcomp", page.parent))
        and not any(path.endswith(f"/{name}") for path in below)
    ]
    assert not missing


def test_every_page_is_named_in_the_readme() -> None:
    assert {f"docs/{page.name}" for page in PAGES if page.parent.name == "docs"} <= named(PAGES[0])
