"""The suite's own markers: what they skip, what they refuse, which warnings they turn into errors."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = (Path(__file__).parent / "conftest.py").read_text()


def run(pytester: pytest.Pytester, test: str, *arguments: str) -> pytest.RunResult:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(f"import pytest, warnings\n{test}")
    return pytester.runpytest("-rs", *arguments)


def test_missing_feature_skips_with_its_name(pytester: pytest.Pytester) -> None:
    # No processor is both: one of the two is always missing.
    result = run(pytester, "@pytest.mark.isa('avx2', 'dotprod')\ndef test_a(): pass")
    result.assert_outcomes(skipped=1)
    assert "this CPU lacks" in result.stdout.str()


def test_misspelt_feature_is_no_skip(pytester: pytest.Pytester) -> None:
    result = run(pytester, "@pytest.mark.isa('avx512-vnni')\ndef test_a(): pass")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(errors=1)
    assert "unknown features ['avx512-vnni']" in result.stdout.str()


def test_feature_we_have_runs(pytester: pytest.Pytester) -> None:
    from tvmcomp.target import host_cpu

    feature = min(host_cpu().features)
    run(pytester, f"@pytest.mark.isa({feature!r})\ndef test_a(): pass").assert_outcomes(passed=1)


def test_slow_runs_on_request(pytester: pytest.Pytester) -> None:
    test = "@pytest.mark.slow\ndef test_a(): pass"
    run(pytester, test).assert_outcomes(skipped=1)
    run(pytester, test, "--slow").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("module", "outcome"),
    [("tvmcomp.graph.shapes", {"failed": 1}), ("tvmcompany", {"passed": 1, "warnings": 1})],
)
def test_our_warnings_fail(pytester: pytest.Pytester, module: str, outcome: dict[str, int]) -> None:
    test = (
        "def test_a():\n"
        f"    warnings.warn_explicit('old', RuntimeWarning, 'f.py', 1, module={module!r})"
    )
    run(pytester, test).assert_outcomes(**outcome)
