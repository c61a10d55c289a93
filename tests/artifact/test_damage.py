"""A damaged or hostile file is refused with one line, whatever was done to it."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from artifact.forge import (
    CENTRAL,
    END,
    LOCAL,
    entries,
    forge,
    header_bytes,
    patched,
    payload,
    positions,
    seal,
)
from tvmcomp.artifact import container, read_artifact, write_artifact
from tvmcomp.errors import ArtifactError


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "net.tvmcomp"
    write_artifact(path, payload())
    return path.read_bytes()


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[bytes], str]:
    def check(data: bytes) -> str:
        path = tmp_path / "bad.tvmcomp"
        path.write_bytes(data)
        with pytest.raises(ArtifactError) as raised:
            read_artifact(path)
        message = str(raised.value)
        assert message.startswith(str(path))
        assert "\n" not in message
        assert raised.value.exit_code == 4
        return message

    return check


def test_the_sound_file_is_read(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "good.tvmcomp"
    path.write_bytes(seal(sound))
    assert path.read_bytes() == sound
    read_artifact(path)


def test_truncated_anywhere(sound: bytes, refused: Callable[[bytes], str]) -> None:
    spread = range(0, len(sound), max(1, len(sound) // 50))
    for size in sorted({*spread, *header_bytes(sound)}):
        refused(sound[:size])


def test_any_bit_flipped(sound: bytes, refused: Callable[[bytes], str]) -> None:
    rng = random.Random(1)
    headers = header_bytes(sound)
    chosen = rng.sample(range(len(sound)), 250) + rng.choices(headers, k=250)
    for at in [*chosen, *range(len(sound) - 101, len(sound))]:
        flipped = bytearray(sound)
        flipped[at] ^= 1 << rng.randrange(8)
        refused(bytes(flipped))


def test_a_seal_in_capitals(sound: bytes, refused: Callable[[bytes], str]) -> None:
    refused(sound[:-64] + sound[-64:].upper())


@pytest.mark.parametrize("junk", [b"\0", b"PK", bytes(64), b"#!/bin/sh\n", bytes(4096)])
def test_bytes_around_it(sound: bytes, refused: Callable[[bytes], str], junk: bytes) -> None:
    refused(junk + sound)
    refused(sound + junk)
    refused(seal(junk + sound))
    refused(seal(sound[:-79] + junk + sound[-79:]))
    refused(sound + junk + sound)


@pytest.mark.parametrize(
    "name",
    [
        "../evil", "a/../../evil", "/etc/passwd", "a\\b", "..\\evil", "C:\\evil", "C:evil", "a//b",
        "./a", "a/", "", "a\0b", "a\nb", "\u00fc.bin", ".hidden", "~", "a b", "x" * 201,
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere(
    sound: bytes, refused: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(container, "_lay_out", _latin_layout(container._lay_out))
    data = forge({**entries(sound), name: b"evil"}, monkeypatch)
    assert "is not a relative path" in refused(data)


def _latin_layout(lay_out: Callable[..., object]) -> Callable[..., object]:
    class Latin(str):
        def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
            return super().encode("latin-1", errors)

    def layout(table: list[container._Entry]) -> object:
        return lay_out([container._Entry(Latin(e.name), e.crc, e.size) for e in table])

    return layout


@pytest.mark.parametrize(
    "name", ["LIB.so", "Manifest.json", "weights.BIN", "golden/MAIN/inputs/0.bin"]
)
def test_names_that_differ_in_case(
    sound: bytes, refused: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    data = forge({**entries(sound), name: b"evil"}, monkeypatch)
    assert "differs from another only in case" in refused(data)


@pytest.mark.parametrize("name", ["lib.so", "manifest.json", "weights.bin", "measurements.json"])
def test_one_name_twice(
    sound: bytes, refused: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    other = "~" * len(name)
    data = forge({**entries(sound), other: b"evil"}, monkeypatch)
    assert "appears twice" in refused(seal(data.replace(other.encode(), name.encode())))


def _each(data: bytes, magic: bytes, offset: int, form: str, value: int) -> list[bytes]:
    return [seal(patched(data, at + offset, form, value)) for at in positions(data, magic)]


# Offsets of fields within a local header and a directory record.
FIELDS = [
    ("version", 4, 6, "H", 45),
    ("encrypted", 6, 8, "H", 1),
    ("descriptor", 6, 8, "H", 8),
    ("utf8", 6, 8, "H", 0x800),
    ("deflated", 8, 10, "H", 8),
    ("time", 10, 12, "H", 1),
    ("date", 12, 14, "H", 0),
    ("crc", 14, 16, "I", 12345),
    ("compressed size", 18, 20, "I", 3),
    ("size", 22, 24, "I", 3),
    ("bomb", 22, 24, "I", 2**32 - 2),
    ("zip64 compressed size", 18, 20, "I", 2**32 - 1),
    ("zip64 size", 22, 24, "I", 2**32 - 1),
    ("name length", 26, 28, "H", 2),
    ("name length", 26, 28, "H", 65535),
    ("extra length", 28, 30, "H", 0),
    ("extra length", 28, 30, "H", 65535),
]


@pytest.mark.parametrize(("what", "local", "central", "form", "value"), FIELDS)
def test_header_fields_that_lie(
    sound: bytes,
    refused: Callable[[bytes], str],
    what: str,
    local: int,
    central: int,
    form: str,
    value: int,
) -> None:
    one = _each(sound, LOCAL, local, form, value)
    other = _each(sound, CENTRAL, central, form, value)
    assert len(one) == len(other) == 7  # entries
    if (what, value) == ("extra length", 0):
        other = []  # true in the directory
    for data in one + other:
        assert data != sound
        refused(data)
    for at, record in zip(positions(sound, LOCAL), positions(sound, CENTRAL), strict=True):
        both = patched(patched(sound, at + local, form, value), record + central, form, value)
        refused(seal(both))


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (4, "H", (3 << 8) | 45),  # made by a zip64 writer
        (32, "H", 5),  # comment length
        (34, "H", 1),  # disk
        (36, "H", 1),  # text file
        (38, "I", 0o120777 << 16),  # symbolic link
        (38, "I", 0o040755 << 16),  # folder
        (38, "I", 0o104755 << 16),  # set-user-id
        (42, "I", 0),  # overlaps the first entry
        (42, "I", 64),
        (42, "I", 2**32 - 1),  # zip64 offset
    ],
)
def test_directory_fields_that_lie(
    sound: bytes, refused: Callable[[bytes], str], offset: int, form: str, value: int
) -> None:
    for data in _each(sound, CENTRAL, offset, form, value):
        if data != sound:
            refused(data)


@pytest.mark.parametrize(
    ("offset", "form", "values"),
    [
        (4, "H", [1, 65535]),
        (6, "H", [1, 65535]),
        (8, "H", [0, 6, 8, 65535]),
        (10, "H", [0, 6, 8, 65535]),
        (12, "I", [0, 1, 2**32 - 1]),
        (16, "I", [0, 1, 2**32 - 1]),
        (20, "H", [0, 78, 80, 65535]),
    ],
)
def test_end_record_that_lies(
    sound: bytes, refused: Callable[[bytes], str], offset: int, form: str, values: list[int]
) -> None:
    for value in values:
        for data in _each(sound, END, offset, form, value):
            refused(data)


def test_counts_that_lie_together(sound: bytes, refused: Callable[[bytes], str]) -> None:
    (end,) = positions(sound, END)
    for count in (0, 6, 8):
        refused(seal(patched(patched(sound, end + 8, "H", count), end + 10, "H", count)))
    # A directory that claims everything before it.
    refused(seal(patched(patched(sound, end + 12, "I", end), end + 16, "I", 0)))


def test_zip64_records(sound: bytes, refused: Callable[[bytes], str]) -> None:
    (end,) = positions(sound, END)
    locator = b"PK\x06\x07" + bytes(16)
    record = b"PK\x06\x06" + (44).to_bytes(8, "little") + bytes(44)
    for extra in (locator, record + locator):
        refused(seal(sound[:end] + extra + sound[end:]))
        longer = sound[:end] + extra + sound[end:]
        size = end - positions(sound, CENTRAL)[0] + len(extra)
        refused(seal(patched(longer, end + len(extra) + 12, "I", size)))


def test_padding_is_fixed(
    sound: bytes, refused: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in positions(sound, LOCAL):
        name = int.from_bytes(sound[at + 26 : at + 28], "little")
        extra = int.from_bytes(sound[at + 28 : at + 30], "little")
        for byte in range(at + 30 + name, at + 30 + name + extra):
            refused(seal(patched(sound, byte, "B", sound[byte] ^ 0x41)))
    content = entries(sound)
    with monkeypatch.context() as patch:
        patch.setattr(container, "ALIGNMENT", 128)
        holes = forge(content, monkeypatch)
    assert "local header" in refused(holes)


def test_a_foreign_zip(refused: Callable[[bytes], str], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "zip", "w") as file:
        file.writestr("manifest.json", "{}")
        file.comment = b"tvmcomp-sha256:" + b"0" * 64
    data = (tmp_path / "zip").read_bytes()
    assert "the seal says otherwise" in refused(data)
    refused(seal(data))
    assert "no tvmcomp seal" in refused(bytes(10_000))
    assert "no tvmcomp seal" in refused(b"\x7fELF" + bytes(10_000))


def test_an_empty_container(refused: Callable[[bytes], str]) -> None:
    empty = b"".join(bytes(piece) for piece in container.pack({}))
    assert "'manifest.json' is missing" in refused(empty)


@pytest.mark.parametrize("name", ["manifest.json", "measurements.json", "lib.so", "weights.bin",
                                  "golden/main/inputs/1.bin", "golden/main/outputs/0.bin"])  # fmt: skip
def test_a_missing_entry(
    sound: bytes, refused: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    kept = entries(sound)
    del kept[name]
    assert name in refused(forge(kept, monkeypatch))


def test_an_entry_too_many(
    sound: bytes, refused: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "evil.so" in refused(forge({**entries(sound), "evil.so": b"evil"}, monkeypatch))


@pytest.mark.parametrize("name", ["lib.so", "weights.bin", "golden/main/inputs/0.bin"])
def test_an_entry_that_is_another(
    sound: bytes, refused: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    content = entries(sound)[name]
    other = bytes([content[0] ^ 1]) + content[1:]
    for changed in (other, content[:-1], content + b"\0", b""):
        data = forge({**entries(sound), name: changed}, monkeypatch)
        assert name in refused(data)


def test_a_manifest_without_end(
    sound: bytes, refused: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    big = entries(sound)["manifest.json"].ljust(16 * 2**20 + 1)
    data = forge({**entries(sound), "manifest.json": big}, monkeypatch)
    assert "at most 16777216 are allowed" in refused(data)


NOT_JSON = [
    b"", b"\xff\xfe", b"{", b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000, b'{"a": NaN}',
    b'{"a": 1, "a": 1}',
]  # fmt: skip
NOT_OBJECTS = [b"null", b"[]", b'"text"', b"1"]


@pytest.mark.parametrize("name", ["manifest.json", "measurements.json"])
def test_texts_that_are_none(
    sound: bytes, refused: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for text in NOT_JSON + NOT_OBJECTS:
        data = forge({**entries(sound), name: text}, monkeypatch)
        assert name.split(".")[0] in refused(data)


def test_an_empty_manifest(
    sound: bytes, refused: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = forge({**entries(sound), "manifest.json": b"{}"}, monkeypatch)
    assert "manifest.schema_version: expected an integer" in refused(data)


def test_another_format_version(
    sound: bytes, refused: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = json.loads(entries(sound)["manifest.json"])
    for version in (0, 2, 99):
        manifest["schema_version"] = version
        text = json.dumps(manifest | {"unknown": 1}).encode()
        data = forge({**entries(sound), "manifest.json": text}, monkeypatch)
        assert f"format version {version}, this tvmcomp reads 1" in refused(data)


def test_resealed_headers_never_pass(sound: bytes, refused: Callable[[bytes], str]) -> None:
    rng = random.Random(2)
    headers = [at for at in header_bytes(sound) if at < len(sound) - 64]
    for _ in range(600):
        mutated = bytearray(sound)
        for at in rng.choices(headers, k=rng.choice((1, 1, 2, 5))):
            mutated[at] ^= rng.randrange(1, 256)
        if mutated != sound:
            refused(seal(bytes(mutated)))
