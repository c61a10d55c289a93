"""What is written is read back; bytes are reproducible; a failed write leaves the old file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from artifact.forge import payload
from tvmcomp.artifact import (
    Function,
    Payload,
    Tolerance,
    read_artifact,
    store,
    verify,
    with_measurements,
    write_artifact,
)
from tvmcomp.errors import ArtifactError, DataError, TvmcompError
from tvmcomp.model import Signature, TensorType


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "net.tvmcomp", payload())
    return tmp_path / "net.tvmcomp"


def test_everything_comes_back(path: Path) -> None:
    want, got = payload(), read_artifact(path)
    assert replace(got.manifest, files={}) == want.manifest
    assert bytes(got.lib) == want.lib
    assert got.measurements == want.measurements
    np.testing.assert_array_equal(got.weights, want.weights)
    for mine, theirs in (
        (got.golden_inputs, want.golden_inputs),
        (got.golden_outputs, want.golden_outputs),
    ):
        assert list(mine) == list(theirs)
        for name, array in theirs.items():
            assert mine[name].dtype == array.dtype
            assert mine[name].shape == array.shape
            np.testing.assert_array_equal(mine[name], array)


def test_functions_keep_their_tolerance(tmp_path: Path) -> None:
    given = payload()
    function = replace(given.function, golden=Tolerance(rtol=1e-4, atol=1e-6))
    write_artifact(
        tmp_path / "a", replace(given, manifest=replace(given.manifest, functions=(function,)))
    )
    assert read_artifact(tmp_path / "a").function.golden == Tolerance(rtol=1e-4, atol=1e-6)


def test_weights_are_an_aligned_view_with_room_behind(path: Path) -> None:
    weights = read_artifact(path).weights
    assert weights.ctypes.data % 64 == 0
    assert not weights.flags.owndata
    assert weights.base.nbytes == path.stat().st_size + 4096


def test_every_entry_is_aligned_in_the_file(path: Path) -> None:
    data = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        for info in file.infolist():
            at = info.header_offset
            begin = at + 30 + int.from_bytes(data[at + 26 : at + 28], "little")
            begin += int.from_bytes(data[at + 28 : at + 30], "little")
            assert begin % 64 == 0
            assert data[begin : begin + info.file_size] == file.read(info)
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (1980, 1, 1, 0, 0, 0)


def test_equal_content_gives_equal_bytes(path: Path, tmp_path: Path) -> None:
    write_artifact(tmp_path / "again", payload())
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_measurements_are_replaced_and_nothing_else(path: Path) -> None:
    before = read_artifact(path)
    with_measurements(path, {"accuracy": {"top1": 0.75, "samples": 360}})
    after = read_artifact(path)
    assert after.measurements == {"accuracy": {"top1": 0.75, "samples": 360}}
    assert after.manifest == before.manifest
    with_measurements(path, dict(payload().measurements))
    assert bytes(read_artifact(path).lib) == bytes(before.lib)


def test_report_lists_every_entry(path: Path) -> None:
    report = verify(path)
    with zipfile.ZipFile(path) as file:
        assert {name: entry.bytes for name, entry in report.entries.items()} == {
            info.filename: info.file_size for info in file.infolist()
        }
        assert file.comment == b"tvmcomp-sha256:" + report.sha256.encode()
    assert report.bytes == path.stat().st_size


def test_no_weights_is_allowed(tmp_path: Path) -> None:
    write_artifact(tmp_path / "a", replace(payload(), weights=np.empty(0, np.uint8)))
    assert read_artifact(tmp_path / "a").weights.shape == (0,)


def test_a_failed_write_keeps_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def fails(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(TvmcompError, match=r"net\.tvmcomp: cannot be written \(No space left"):
        with_measurements(path, {})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_written_to_disk_before_it_gets_its_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("sync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), rename(a, b)))
    with_measurements(path, {})
    assert order == ["sync", "rename", "sync"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_artifact(tmp_path / "a", payload())
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.zeros((2, 2), np.uint8)}, r"weights: got uint8 \(2, 2\)"),
        ({"weights": np.zeros(4, np.int8)}, "weights: got int8"),
        ({"golden_inputs": {}}, "golden inputs: got "),
        ({"golden_outputs": {"y": np.zeros((), np.int32)}}, r"golden outputs 'y': got int32"),
        ({"golden_outputs": {"y": np.zeros(1, np.int64)}}, r"golden outputs 'y': got int64 \(1,\)"),
        ({"measurements": {"ms": float("nan")}}, "measurements: not JSON"),
        ({"measurements": {"ms": np.float32(1)}}, "measurements: not JSON"),
    ],
)
def test_a_payload_that_contradicts_itself(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        write_artifact(tmp_path / "a", replace(payload(), **change))
    assert os.listdir(tmp_path) == []


def test_several_variants_are_for_a_later_reader(tmp_path: Path) -> None:
    given = payload()
    twice = replace(given.function, variants=given.function.variants * 2)
    manifest = replace(given.manifest, functions=(twice,))
    with pytest.raises(ArtifactError, match="reads one with one; update tvmcomp"):
        write_artifact(tmp_path / "a", replace(given, manifest=manifest))


def test_a_signature_numpy_cannot_hold(tmp_path: Path) -> None:
    given = payload()
    for tensor, message in (
        (TensorType((2**31, 2**31), "float32"), "under 1 TiB"),
        (TensorType((1,) * 33, "float32"), "at most 32 dimensions"),
        (TensorType((2, 3), "O"), "one of bool, int8"),
    ):
        signature = Signature({"x": tensor}, given.function.signature.outputs)
        function = Function("main", signature, given.function.variants)
        manifest = replace(given.manifest, functions=(function,))
        array = np.empty(0, np.uint8)
        with pytest.raises(ArtifactError, match=f"{message}|golden inputs"):
            write_artifact(
                tmp_path / "a", replace(given, manifest=manifest, golden_inputs={"x": array})
            )


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing: cannot be read"):
        read_artifact(tmp_path / "missing")
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        read_artifact(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    writer = os.open(tmp_path / "pipe", os.O_RDWR)
    try:
        with pytest.raises(ArtifactError, match="not a regular file"):
            read_artifact(tmp_path / "pipe")
    finally:
        os.close(writer)


def test_one_copy_of_the_file_in_memory(tmp_path: Path) -> None:
    size = 96 * 2**20
    write_artifact(tmp_path / "big", replace(payload(), weights=np.ones(size, np.uint8)))
    script = (
        "import resource, sys\n"
        "import tvmcomp.artifact as a\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); p = a.read_artifact(sys.argv[1]); print(peak() - before)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "big"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) * 1024 <= size + 64 * 2**20


def test_payload_is_what_the_reader_returns(path: Path) -> None:
    assert isinstance(read_artifact(path), Payload)
