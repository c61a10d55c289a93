"""`import tvmcomp` is fast and light."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

PROBE = """
import json, sys, time
{before}
start = time.perf_counter()
import tvmcomp
seconds = time.perf_counter() - start
print(json.dumps({{"seconds": seconds, "modules": sorted(sys.modules)}}))
"""
# None in sys.modules makes the import system raise ImportError.
WITHOUT_TORCH = PROBE.format(before="sys.modules['torch'] = None")
WITH_TORCH = PROBE.format(before="")
HEAVY = ("tvm", "tvm.s_tir.tensor_intrin", "onnx", "scipy", "sklearn", "onnxruntime", "openvino")


def probe(program: str) -> tuple[float, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return answer["seconds"], set(answer["modules"])


def test_import_without_torch_takes_less_than_a_second() -> None:
    runs = [probe(WITHOUT_TORCH)[0] for _ in range(3)]
    assert statistics.median(runs) < 1.0, runs


def test_import_loads_no_heavy_module() -> None:
    _, modules = probe(WITH_TORCH)
    assert "tvmcomp" in modules
    assert modules.isdisjoint({"torch", *HEAVY})


def test_public_names_are_what_they_say() -> None:
    # The room `compress` must not hide the function of that name, whichever was imported first.
    program = (
        "import types, tvmcomp, tvmcomp.compress, tvmcomp.runtime\n"
        "for name in tvmcomp.__all__:\n"
        "    value = getattr(tvmcomp, name)\n"
        "    assert callable(value) and not isinstance(value, types.ModuleType), (name, value)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_unknown_public_name_is_an_attribute_error() -> None:
    import tvmcomp

    assert not hasattr(tvmcomp, "quantise")
