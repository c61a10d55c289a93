"""`tvmcomp compile` and `compress` on a small network of torch, and everything that may go wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cli.conftest import Done
from tvmcomp.artifact import read_artifact
from tvmcomp.artifact import store as artifact_store
from tvmcomp.cli import compile_file
from tvmcomp.errors import TargetError
from tvmcomp.runtime import load
from tvmcomp.target import Target
from tvmcomp.train.digits import digit_scores, digits_net, read_digits, save_program

Call = Callable[..., Done]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.pt2 (8x8 digits to 10 scores, not trained) and data.npz; shared by the tests here."""
    folder = tmp_path_factory.mktemp("models")
    save_program(digits_net().eval(), folder / "net.pt2")
    np.savez(folder / "data.npz", input=read_digits().train_images[:16])
    return folder


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def nothing_written() -> bool:
    return not list(Path().iterdir())


def test_float32(call: Call, folder: Path) -> None:
    done = call("compile", folder / "net.pt2", "-o", "net.tvmcomp", "--json")
    assert done.code == 0, done.err
    assert done.json["recipe"] is None
    assert done.json["file_bytes"] == Path("net.tvmcomp").stat().st_size
    assert done.json["latency"]["median_ms"] > 0
    assert [path.name for path in Path().iterdir()] == ["net.tvmcomp"]
    payload = read_artifact("net.tvmcomp")
    assert payload.manifest.source.path == str(folder / "net.pt2")
    assert "latency_threads_1" in payload.measurements
    assert call("verify", "net.tvmcomp").code == 0


def test_a_recipe_without_calibration(call: Call, folder: Path) -> None:
    command = ("compile", folder / "net.pt2", "-r", "int8-dynamic", "-o", "net.tvmcomp")
    assert call(*command, "--dry-run").code == 0
    done = call(*command)
    assert done.code == 0, done.err
    manifest = read_artifact("net.tvmcomp").manifest
    assert manifest.recipe is not None
    assert manifest.recipe["name"] == "int8-dynamic"
    assert manifest.calibration_digest is None
    kinds = {row["kind"] for row in manifest.functions[0].variants[0].kernels}
    assert {"DynamicQuantize", "DynamicConv"} <= kinds
    assert call("compress", folder / "net.pt2", "-r", "int8-dynamic").code == 0


def test_int8(call: Call, folder: Path) -> None:
    command = ("compile", folder / "net.pt2", "-r", "int8", "-c", folder / "data.npz")
    done = call(*command, "-o", "net.tvmcomp")
    assert done.code == 0, done.err
    assert done.out.startswith("wrote ")
    assert "quantized" in done.out
    manifest = read_artifact("net.tvmcomp").manifest
    assert manifest.recipe is not None
    assert manifest.recipe["name"] == "int8"
    assert manifest.calibration_digest
    kernels = call("inspect", "net.tvmcomp", "--kernels", "--json").json["kernels"]
    assert all(row["median_ms"] >= 0 and row["kernel"] and row["isa"] for row in kernels)
    assert sum(row["share"] for row in kernels) == pytest.approx(1)


def test_compiled_samples_equal_torch(call: Call, tmp_path: Path) -> None:
    net, images = digits_net().eval(), read_digits().test_images[:3]
    save_program(net, Path("net.pt2"))
    np.savez("in.npz", input=images)
    assert call("compile", "net.pt2", "-o", "net.tvmcomp").code == 0
    assert call("run", "net.tvmcomp", "-i", "in.npz", "-o", "out.npz").code == 0
    with np.load("out.npz") as outputs:
        (scores,) = (outputs[name] for name in outputs.files)
    expected = digit_scores(net, images)
    assert np.abs(scores - expected).max() <= 1e-4 * np.abs(expected).max()
    with load("net.tvmcomp") as network:
        np.testing.assert_array_equal(np.asarray(network(images[1:2])), scores[1:2])


def test_dump_ir_has_a_file_per_phase(call: Call, folder: Path) -> None:
    call("compile", folder / "net.pt2", "-o", "net.tvmcomp", "--dump-ir", "ir")
    names = sorted(path.name for path in Path("ir").iterdir())
    assert names[:2] == ["00_canonical.txt", "01_lower.txt"]


def test_compress_reports_every_layer(call: Call, folder: Path) -> None:
    command = ("compress", folder / "net.pt2", "--calibration", folder / "data.npz")
    data = call(*command, "--json").json
    assert data["recipe"]["name"] == "int8"
    assert len(data["layers"]) == 4
    assert all(layer["after"] < 0.5 * layer["before"] for layer in data["layers"])
    assert data["skipped"] == [] or all(skip["reason"] for skip in data["skipped"])
    text = call(*command).out
    assert all(layer["name"] in text for layer in data["layers"])
    assert nothing_written()


@pytest.mark.parametrize("verb", ["compile", "compress"])
def test_dry_run_writes_nothing(call: Call, folder: Path, verb: str) -> None:
    output = ("-o", "net.tvmcomp") if verb == "compile" else ()
    command = (verb, folder / "net.pt2", "-r", "int8", "-c", folder / "data.npz", *output)
    done = call(*command, "--dry-run")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("ok: ")
    assert call(*command, "--dry-run", "--json").json["target"]
    assert nothing_written()


@pytest.mark.parametrize("extra", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"input": np.full((2, 1, 8, 8), np.nan, np.float32)}, "NaN"),
        ({"input": np.zeros((0, 1, 8, 8), np.float32)}, "no samples"),
        ({"input": np.zeros((2, 1, 8, 7), np.float32)}, "shape"),
        ({"input": np.zeros((2, 1, 8, 8), np.float64)}, "float64"),
        ({"image": np.zeros((2, 1, 8, 8), np.float32)}, "image"),
    ],
)
def test_bad_calibration(
    call: Call, folder: Path, arrays: dict[str, np.ndarray], words: str, extra: tuple[str, ...]
) -> None:
    np.savez("data.npz", **arrays)
    command = ("compile", folder / "net.pt2", "-r", "int8", "-c", "data.npz", "-o", "net.tvmcomp")
    assert words in call(*command, *extra).failed(3)
    assert [path.name for path in Path().iterdir()] == ["data.npz"]


@pytest.mark.parametrize("extra", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("name", "content"),
    [("a.pt2", b"junk"), ("a.onnx", b"junk"), ("a.txt", b"text"), ("a.pt2", b"")],
)
def test_bad_model(call: Call, name: str, content: bytes, extra: tuple[str, ...]) -> None:
    Path(name).write_bytes(content)
    assert name in call("compile", name, "-o", "net.tvmcomp", *extra).failed(3)
    done = call("compile", name, "-o", "net.tvmcomp", "--json", *extra)
    assert done.json["error"]["exit_code"] == 3
    assert [path.name for path in Path().iterdir()] == [name]


def test_missing_model_knows_its_neighbour(call: Call, folder: Path) -> None:
    done = call("compile", folder / "nt.pt2", "-o", "net.tvmcomp")
    assert "no such file" in done.failed(3)
    assert f"hint: did you mean {folder / 'net.pt2'}?" in done.err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--calibration", "data.npz"), 2, "without --recipe"),
        (("--recipe", "int8"), 2, "add --calibration"),
        (("--recipe", "int9", "-c", "data.npz"), 3, "did you mean 'int8'?"),
        (("--recipe", "none.toml", "-c", "data.npz"), 3, "none.toml"),
        (("--target", "x86-avx"), 3, "did you mean 'x86-avx2'?"),
        (("--input-shape", "input:1,8"), 2, "write it like"),
        (("--input-shape", "nonsense=1,8"), 3, "nonsense"),
    ],
)
@pytest.mark.parametrize("extra", [(), ("--dry-run",)])
def test_options_that_cannot_be(
    call: Call,
    folder: Path,
    options: tuple[str, ...],
    code: int,
    words: str,
    extra: tuple[str, ...],
) -> None:
    places = tuple(str(folder / word) if word == "data.npz" else word for word in options)
    done = call("compile", folder / "net.pt2", "-o", "net.tvmcomp", *places, *extra)
    assert words in done.failed(code)
    assert nothing_written()


def test_target_without_a_code_path(call: Call, folder: Path) -> None:
    name = next(name for name in Target.names() if not Target.load(name).available)
    for extra in ((), ("--dry-run",)):
        done = call("compile", folder / "net.pt2", "-o", "net.tvmcomp", "-t", name, *extra)
        assert name in done.failed(TargetError.exit_code)
    assert nothing_written()


def test_output_is_checked_before_the_work(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_file, "load_model", lambda *_: pytest.fail("work was begun"))
    assert "does not exist" in call("compile", "net.pt2", "-o", "none/net.tvmcomp").failed(2)
    assert "is a folder" in call("compile", "net.pt2", "-o", ".").failed(2)


@pytest.mark.parametrize("output", ["net.pt2", "./data.npz", "test.npz", "link"])
def test_no_input_is_overwritten(call: Call, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_file, "load_model", lambda *_: pytest.fail("work was begun"))
    for name in ("net.pt2", "data.npz", "test.npz"):
        Path(name).write_bytes(b"dear")
    Path("link").symlink_to("net.pt2")
    options = ("-r", "int8", "-c", "data.npz", "--eval", "test.npz")
    done = call("compile", "net.pt2", *options, "-o", output)
    assert "is named twice" in done.failed(2)


@pytest.mark.parametrize(
    ("error", "code"), [(OSError(28, "No space left on device"), 3), (KeyboardInterrupt(), 130)]
)
def test_a_failed_write_leaves_the_old_artifact(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    Path("net.tvmcomp").write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise error

    monkeypatch.setattr(artifact_store.os, "fsync", fail)
    done = call("compile", folder / "net.pt2", "-o", "net.tvmcomp")
    assert ("net.tvmcomp" if code == 3 else "interrupted") in done.failed(code)
    assert Path("net.tvmcomp").read_bytes() == b"old"
    assert [path.name for path in Path().iterdir()] == ["net.tvmcomp"]


def test_a_bug_in_the_middle_leaves_nothing(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(compile_file, "compile_model", fail)
    done = call("compile", folder / "net.pt2", "-o", "net.tvmcomp")
    assert done.failed(1) == "bug in tvmcomp: ZeroDivisionError: inside"
    assert nothing_written()
