"""Markers for hardware and time, each skip with its reason; warnings from our own code are errors."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tvmcomp.target import host_cpu
from tvmcomp.target.cpu import FEATURES

MARKERS = (
    "isa(*features): needs these CPU features, in the names of tvmcomp.target.cpu",
    "cuda: needs an NVIDIA GPU",
    "slow: takes more than half a minute; runs with --slow",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_runtest_setup(item: pytest.Item) -> None:
    needed = {name for marker in item.iter_markers("isa") for name in marker.args}
    unknown = needed.difference(*FEATURES.values())
    if unknown:
        raise pytest.UsageError(
            f"{item.nodeid}: isa marker with unknown features {sorted(unknown)}"
        )
    missing = needed - host_cpu().features
    if missing:
        pytest.skip(f"this CPU lacks {', '.join(sorted(missing))}")
    if item.get_closest_marker("cuda") and not Path("/dev/nvidiactl").exists():
        pytest.skip("no NVIDIA GPU here")
    if item.get_closest_marker("slow") and not item.config.getoption("--slow"):
        pytest.skip("slow; run with --slow")


@pytest.fixture(autouse=True)
def _our_warnings_are_errors() -> None:
    # pytest restores the filters after each test; `module` is where the warning is attributed to.
    warnings.filterwarnings("error", module=r"tvmcomp(\.|$)")
