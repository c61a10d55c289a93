"""`--eval` from data to manifest, screen and exit code, on a small network of torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cli.conftest import Done
from tvmcomp.artifact import read_artifact
from tvmcomp.cli import compile_file
from tvmcomp.train.digits import digit_scores, digits_net, read_digits, save_program

Call = Callable[..., Done]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.pt2, its own answers as labels, calibration that fits and one that is far too small."""
    folder = tmp_path_factory.mktemp("eval")
    torch.manual_seed(0)  # weights decide how much a calibration that is too small costs
    net, digits = digits_net().eval(), read_digits()
    save_program(net, folder / "net.pt2")
    images = digits.test_images[:40]
    np.savez(folder / "test.npz", input=images, labels=digit_scores(net, images).argmax(-1))
    np.savez(folder / "unlabelled.npz", input=images[:4])
    np.savez(folder / "data.npz", input=digits.train_images[:16])
    np.savez(folder / "tiny.npz", input=digits.train_images[:16] * 1e-3)
    return folder


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_int8_beside_its_sources(call: Call, folder: Path) -> None:
    command = ("compile", folder / "net.pt2", "-r", "int8", "-c", folder / "data.npz")
    done = call(*command, "--eval", folder / "test.npz", "-o", "net.tvmcomp", "--json")
    assert done.code == 0, done.err
    found = done.json["evaluation"]
    assert (found["schema"], found["samples"], found["labels"]) == (1, 40, "labels")
    assert found["artifact"]["top1"]["value"] > 0.8
    ours, original = found["references"]
    assert (ours["name"], ours["precision"]) == ("tvmcomp", "float32")
    assert ours["metrics"]["top1"]["value"] == 1.0
    assert ours["agreement"] == found["artifact"]["top1"]["value"]  # labels are its own answers
    assert 15 < ours["outputs"]["output"]["sqnr_db"] < 60
    assert (original["name"], original["reason"]) == ("torch", None)
    assert original["metrics"]["top1"]["value"] == 1.0
    assert original["versions"]["torch"]
    assert read_artifact("net.tvmcomp").measurements["evaluation"] == found
    text = call("inspect", "net.tvmcomp").out
    assert "evaluated on" in text
    assert "same best class as tvmcomp float32" in text


def test_a_missed_gate_keeps_both_artifacts(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_file, "evaluate_model", _without_the_original())
    Path("net.tvmcomp").write_bytes(b"old")
    command = ("compile", folder / "net.pt2", "-r", "int8", "-c", folder / "tiny.npz")
    options = ("--eval", folder / "test.npz", "--max-drop", 1, "-o", "net.tvmcomp")
    done = call(*command, *options)
    assert done.code == 7
    assert "more than the 1 points allowed; wrote net.missed.tvmcomp instead" in done.err
    assert "points" in done.out
    assert Path("net.tvmcomp").read_bytes() == b"old"
    assert read_artifact("net.missed.tvmcomp").measurements["evaluation"]["drop"] > 1
    compress = call("compress", *command[1:], "--eval", folder / "test.npz", "--max-drop", 100)
    assert compress.code == 0
    assert "evaluated on" in compress.out


def test_without_labels_it_says_what_it_cannot(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = call(
        "compile", folder / "net.pt2", "-o", "n.tvmcomp", "--eval", folder / "unlabelled.npz"
    )
    assert done.code == 0
    assert "no labels: agreement and SQNR only" in done.out
    assert "against torch as given" in done.out


def _without_the_original() -> Callable[..., object]:
    """PyTorch's process takes seconds to start; one test has it."""
    from tvmcomp import flow

    def evaluate(executable: flow.Executable, data: object, **options: object) -> object:
        provenance = executable.build.model.provenance
        object.__setattr__(provenance, "source", "elsewhere.bin")
        return flow.evaluate_model(executable, data, **options)  # type: ignore[arg-type]

    return evaluate


@pytest.mark.parametrize("extra", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--eval", "none.npz"), 3, "no such file"),
        (("--eval", "no_such_module:f"), 3, "cannot be imported"),
        (("--eval", "labels.npz"), 3, "holds labels; the model takes input"),
        (("--eval", "unlabelled.npz", "--max-drop", "1"), 3, "holds no labels"),
        (("--eval", "unlabelled.npz", "--labels", "truth"), 3, "no labels 'truth'"),
        (("--eval", "mine:f", "--labels", "y"), 2, "a function brings its own"),
        (("--max-drop", "1"), 2, "add --eval"),
        (("--eval", "test.npz", "--max-drop", "-1"), 2, "max-drop"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_the_work(
    call: Call, folder: Path, options: tuple[str, ...], code: int, words: str,
    extra: tuple[str, ...], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(compile_file, "compile_model", lambda *_, **__: pytest.fail("begun"))
    np.savez(folder / "labels.npz", labels=np.zeros(3, int))
    places = [folder / word if (folder / word).is_file() else word for word in options]
    command = ("compile", folder / "net.pt2", "-o", "net.tvmcomp", *places, *extra)
    assert words in call(*command).failed(code)
    assert not list(Path().iterdir())
