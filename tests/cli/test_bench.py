"""`tvmcomp bench`: the artifact alone, beside a peer, and where the peer's model is found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cli.conftest import Done
from runtime import tiny
from tvmcomp.artifact import Source, write_artifact
from tvmcomp.cli import bench_artifact as room
from tvmcomp.cli.bench_artifact import bench_artifact, find_source
from tvmcomp.errors import DataError
from tvmcomp.measure import Contender, Turns

Call = Callable[..., Done]
QUICK = Turns(rounds=2, repeats=6, min_seconds=0.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benches of a few calls, whatever the verb asks for."""
    honest = room.bench
    monkeypatch.setattr(room, "bench", lambda *a, **k: honest(*a, **{**k, "turns": QUICK}))


@pytest.mark.usefixtures("quick")
def test_artifact_alone(call: Call, artifact: Path) -> None:
    data = call("bench", artifact, "--json").json
    subject = data["subject"]
    assert (subject["name"], subject["precision"]) == ("tvmcomp", "float32")
    assert 0 < subject["p10_ms"] <= subject["median_ms"] <= subject["p90_ms"]
    assert subject["repeats"] >= 6
    assert data["peers"] == []
    assert data["threads"] == 1


@pytest.mark.usefixtures("quick")
def test_beside_a_peer(
    call: Call, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "net.onnx"
    source.write_bytes(b"a model")
    asked: dict[str, object] = {}

    def peers(names: Sequence[str], **options: object) -> tuple[Contender, ...]:
        asked.update(names=list(names), **options)
        factory = "tvmcomp.cli.subject:open_artifact"
        broken = Contender("broken", "int8", factory, {"path": str(tmp_path / "none")})
        return Contender("peer", "float32", factory, {"path": str(artifact)}), broken

    monkeypatch.setattr(room, "peer_contenders", peers)
    np.savez(tmp_path / "in.npz", **tiny.inputs(5))
    command = ("bench", artifact, "--against", "peer, broken", "--source", source)
    data = call(*command, "--input", tmp_path / "in.npz", "--json").json
    assert asked["names"] == ["peer", "broken"]
    assert asked["source"] == source
    peer, broken = data["peers"]
    assert peer["ratio"] == pytest.approx(peer["median_ms"] / data["subject"]["median_ms"])
    assert peer["agreement"]["identical"] is True
    assert broken["median_ms"] is None
    assert "none" in broken["reason"]
    assert "in.npz" in data["input"]["description"]
    text = call(*command)
    assert text.code == 0
    lines = text.out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["tvmcomp", "peer", "broken"]
    assert "above 1.00x we are faster" in text.out


def test_input_that_does_not_fit(call: Call, artifact: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.zeros(3, np.float32))
    assert "missing" in call("bench", artifact, "-i", tmp_path / "in.npz").failed(3)


def test_unknown_peer(call: Call, artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").touch()
    done = call("bench", artifact, "--against", "tflite", "--source", tmp_path / "net.onnx")
    assert "unknown peer tflite" in done.failed(2)


def test_damaged_artifact(call: Call, damaged: Path) -> None:
    assert "damaged" in call("bench", damaged).failed(4)


def recorded(path: Path, name: str | None = None) -> Source:
    return Source(name or str(path), hashlib.sha256(path.read_bytes()).hexdigest(), "onnx")


def test_source_is_the_recorded_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, artifact = tmp_path / "net.onnx", tmp_path / "net.tvmcomp"
    model.write_bytes(b"a model")
    assert find_source(artifact, recorded(model), None) == model
    # A relative path counts from here, or from the artifact's folder.
    assert find_source(artifact, recorded(model, "net.onnx"), None) == model
    monkeypatch.chdir(tmp_path)
    assert find_source(artifact, recorded(model, "net.onnx"), None) == Path("net.onnx")


def test_source_that_has_changed_or_gone(tmp_path: Path) -> None:
    model, artifact = tmp_path / "net.onnx", tmp_path / "net.tvmcomp"
    model.write_bytes(b"a model")
    source = recorded(model)
    model.write_bytes(b"another")
    with pytest.raises(DataError, match="has changed since"):
        find_source(artifact, source, None)
    model.unlink()
    with pytest.raises(DataError, match="is not there; name it with --source"):
        find_source(artifact, source, None)


def test_given_source_may_differ_but_not_silently(tmp_path: Path) -> None:
    model, other = tmp_path / "net.onnx", tmp_path / "net.pt2"
    model.write_bytes(b"a model")
    other.write_bytes(b"the same model, saved by torch")
    with pytest.warns(UserWarning, match="not the file"):
        assert find_source(tmp_path / "net.tvmcomp", recorded(model), other) == other
    assert find_source(tmp_path / "net.tvmcomp", recorded(model), model) == model


def test_from_python(artifact: Path) -> None:
    stages: list[str] = []
    data = bench_artifact(artifact, turns=QUICK, progress=lambda stage, *_: stages.append(stage))
    assert data["subject"]["median_ms"] > 0
    assert "round" in stages


def test_precision_is_the_recipes_name(tmp_path: Path) -> None:
    payload = tiny.payload()
    manifest = replace(payload.manifest, recipe={"name": "int8", "passes": []})
    write_artifact(tmp_path / "a.tvmcomp", replace(payload, manifest=manifest))
    data = bench_artifact(tmp_path / "a.tvmcomp", turns=QUICK)
    assert data["subject"]["precision"] == "int8"
