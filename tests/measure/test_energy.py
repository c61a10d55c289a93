"""Energy from a counter tree of the test's own: domains, wraparound, and every reason for null."""

from __future__ import annotations

import importlib

import pytest

from tvmcomp.errors import UsageError
from tvmcomp.measure import energy

SPAN = 262_143_328_850


class Tree:
    """A fake /sys/class/powercap; `use` advances counters the way the hardware does."""

    def __init__(self, root):
        self.root = root

    def add(self, folder, name, start=0, span=SPAN):
        path = self.root / folder
        path.mkdir(parents=True)
        (path / "name").write_text(f"{name}\n")
        (path / "energy_uj").write_text(f"{start}\n")
        (path / "max_energy_range_uj").write_text(f"{span}\n")

    def use(self, folder, microjoules):
        path = self.root / folder
        span = int((path / "max_energy_range_uj").read_text())
        now = int((path / "energy_uj").read_text())
        (path / "energy_uj").write_text(f"{(now + microjoules) % span}\n")


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "powercap")


def measure(tree, call, windows=3):
    return energy(call, windows=windows, seconds=0, root=tree.root)


def test_joules_per_call_of_package_and_memory_only(tree):
    tree.add("intel-rapl:0", "package-0", 1000)
    tree.add("intel-rapl:0:0", "core", 0)
    tree.add("intel-rapl:0:1", "dram", 500)
    tree.add("intel-rapl:1", "package-1", 7)
    tree.add("intel-rapl:2", "psys", 0)
    tree.add("intel-rapl-mmio:0", "package-0", 0)

    def call():
        for folder, used in [
            ("intel-rapl:0", 3_000_000),
            ("intel-rapl:0:0", 2_000_000),
            ("intel-rapl:0:1", 500_000),
            ("intel-rapl:1", 1_000_000),
            ("intel-rapl:2", 9_000_000),
            ("intel-rapl-mmio:0", 3_000_000),
        ]:
            tree.use(folder, used)

    found = measure(tree, call)
    assert found.reason is None
    assert found.joules == pytest.approx(4.5)
    assert found.domains == (
        "intel-rapl:0 package-0",
        "intel-rapl:0:1 dram",
        "intel-rapl:1 package-1",
    )
    assert (found.windows, found.calls) == (3, 3)


def test_a_counter_that_starts_again_is_followed(tree):
    tree.add("intel-rapl:0", "package-0", SPAN - 3_000_000)
    found = measure(tree, lambda: tree.use("intel-rapl:0", 2_000_000), windows=4)
    assert found.joules == pytest.approx(2.0)
    assert found.p10 == pytest.approx(2.0)
    assert found.p90 == pytest.approx(2.0)


def test_only_the_counter_that_wrapped_is_corrected(tree):
    tree.add("intel-rapl:0", "package-0", SPAN - 1)
    tree.add("intel-rapl:1", "package-1", 10, span=5_000_000)

    def call():
        tree.use("intel-rapl:0", 1_000_000)
        tree.use("intel-rapl:1", 2_000_000)

    found = measure(tree, call, windows=5)
    assert found.joules == pytest.approx(3.0)
    assert found.p90 == pytest.approx(3.0)


def test_median_over_windows_and_spread(tree):
    tree.add("intel-rapl:0", "package-0")
    used = iter([9, 1, 2, 3, 4, 100])  # the first call is the warm-up
    found = measure(tree, lambda: tree.use("intel-rapl:0", next(used) * 1_000_000), windows=5)
    assert found.joules == pytest.approx(3.0)
    assert found.p10 == pytest.approx(1.4)
    assert found.p90 == pytest.approx(61.6)


def test_a_window_is_divided_by_its_calls(tree, monkeypatch):
    tree.add("intel-rapl:0", "package-0")
    now = [0.0]
    monkeypatch.setattr(
        importlib.import_module("tvmcomp.measure.energy"), "perf_counter", lambda: now[0]
    )

    def call():
        now[0] += 0.1
        tree.use("intel-rapl:0", 1_000_000)

    found = energy(call, windows=2, seconds=0.95, root=tree.root)
    assert found.calls == 20
    assert found.joules == pytest.approx(1.0)


def null(found, *words):
    assert found.joules is found.p10 is found.p90 is None
    assert (found.windows, found.calls, found.domains) == (0, 0, ())
    for word in words:
        assert word in found.reason
    assert found.to_dict()["reason"] == found.reason


def never():
    pytest.fail("called without a counter to read")


def test_no_tree_is_null_with_the_reason(tree):
    null(measure(tree, never), "no RAPL counters", str(tree.root))


def test_no_package_is_null_with_the_reason(tree):
    tree.add("intel-rapl:0", "psys")
    null(measure(tree, never), "no RAPL counters")


def test_an_unreadable_counter_is_null_with_path_and_fix(tree):
    tree.add("intel-rapl:0", "package-0")
    counter = tree.root / "intel-rapl:0" / "energy_uj"
    counter.unlink()
    counter.mkdir()  # fails to read for root too, where a file mode would not
    null(measure(tree, never), str(counter), "run as root")


def test_a_counter_that_holds_no_number_is_null(tree):
    tree.add("intel-rapl:0", "package-0")
    (tree.root / "intel-rapl:0" / "max_energy_range_uj").write_text("plenty")
    null(measure(tree, never), "plenty")


def test_a_counter_that_stands_still_is_null(tree):
    tree.add("intel-rapl:0", "package-0", 5)
    null(measure(tree, lambda: None), "stand still")


def test_this_machine_gives_a_figure_or_a_reason():
    found = energy(lambda: sum(range(1000)), windows=1, seconds=0.05)
    assert (found.joules is None) == (found.reason is not None)


def test_no_windows_is_refused(tree):
    with pytest.raises(UsageError, match="windows >= 1"):
        measure(tree, never, windows=0)
