"""What the machine says about itself is read, and null where it says nothing."""

from __future__ import annotations

from tvmcomp.measure.provenance import clock, device, versions


def test_governor_and_clock_source_are_read(tmp_path):
    governor = tmp_path / "devices/system/cpu/cpu0/cpufreq"
    source = tmp_path / "devices/system/clocksource/clocksource0"
    for folder, name, text in [
        (governor, "scaling_governor", "powersave\n"),
        (source, "current_clocksource", "tsc\n"),
    ]:
        folder.mkdir(parents=True)
        (folder / name).write_text(text)
    assert device(tmp_path)["governor"] == "powersave"
    assert clock(tmp_path)["source"] == "tsc"
    assert clock(tmp_path)["name"] == "perf_counter_ns"


def test_what_is_not_shown_is_null(tmp_path):
    assert device(tmp_path)["governor"] is None
    assert clock(tmp_path)["source"] is None


def test_versions_come_without_importing_the_compiler():
    import subprocess
    import sys

    code = (
        "import sys; from tvmcomp.measure.provenance import versions; print(sorted(versions()));"
        "print([m for m in ('tvm', 'torch', 'onnx', 'onnxruntime', 'openvino') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, heavy = out.stdout.splitlines()
    assert names == str(sorted(versions()))
    assert heavy == "[]"
