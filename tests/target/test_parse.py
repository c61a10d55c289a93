"""Descriptor files: what is wrong is said with file, key and fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvmcomp.errors import TargetError
from tvmcomp.target import CodeRange, Scheme, Target
from tvmcomp.target.cpu import Caches

GOOD = """\
name = "my-board"
description = "a board of mine"
kind = "llvm"
triple = "x86_64-linux-gnu"
mcpu = "x86-64-v3"
mattr = ["-movbe"]
features = ["sse3", "avx2", "fma"]
cores = 3
channel_multiple = 8
layout = "NHWC"
measure = "local"

[caches]
l1d = 32_768
l2 = 1_048_576
l3 = 0

[detect]
features = ["avx2"]

[status]
available = true

[fusion]
pairs = ["conv2d+bias", "bias+relu"]

[[schemes]]
ops = ["conv2d", "dense"]
activation = { dtype = "uint8", low = 0, high = 255 }
weight = { dtype = "int8", low = -64, high = 63, symmetric = true }
granularity = ["axis", "tensor"]

[[schemes]]
ops = ["conv2d"]
activation = { dtype = "uint8", low = 0, high = 255 }
weight = { dtype = "int8", low = -127, high = 127, symmetric = true }
granularity = ["tensor"]
note = "slower"
"""

GPU = GOOD.replace('kind = "llvm"', 'kind = "cuda"').replace(
    "[status]", "[gpu]\nsm = 87\n\n[status]"
)

BROKEN = [
    ("cores = 3", "cores = 0", "key cores: must be at least 1, got 0"),
    ("cores = 3", "cores = true", "key cores: must be a whole number, got True"),
    ("cores = 3", 'cores = "3"', "key cores: must be a whole number, got '3'"),
    ("cores = 3\n", "", "key cores: is missing; add it with a whole number"),
    ("cores = 3", "core = 3\ncores = 3", "key core: is unknown; did you mean 'cores'?"),
    ("cores = 3", "colour = 3\ncores = 3", "key colour: is unknown; "),
    ("cores = 3", "cores = 3 3", "not valid TOML"),
    ('"my-board"', '"My Board"', "key name: 'My Board' must be lower-case"),
    ('"my-board"', '"host"', "key name: 'host' is reserved"),
    ('"a board of mine"', '""', "key description: is empty"),
    ('kind = "llvm"', 'kind = "lvm"', "key kind: 'lvm' is not known; did you mean 'llvm'?"),
    ('kind = "llvm"', 'kind = "cuda"', "key gpu: is missing; add it with a table"),
    ("x86_64-linux", "sparc-linux", "key triple: 'sparc-linux-gnu' must start with one of"),
    ('"-movbe"', '"movbe"', "key mattr: 'movbe' must be + or - and a feature"),
    ('"-movbe"', '"+moveb"', "key mattr: '+moveb' must be + or - and a feature"),
    (
        '"sse3", "avx2"',
        '"sse3", "avx_2"',
        "key features: 'avx_2' is not known; did you mean 'avx2'?",
    ),
    ('"sse3", "avx2"', '"sse3", "avx2", "sse3"', "key features: lists 'sse3' twice"),
    ('"sse3", "avx2"', "3", "key features: must hold strings only, got 3"),
    ('"NHWC"', '"NWHC"', "key layout: 'NWHC' is not known; did you mean 'NHWC'?"),
    ('measure = "local"', 'measure = "remote"', "key measure: 'remote' is not known; "),
    ("l2 = 1_048_576", "L2 = 1", "key caches.l2: is missing"),
    ("l3 = 0", "l3 = 0\nl4 = 0", "key caches.l4: is unknown; "),
    ("l3 = 0", "l3 = -1", "key caches.l3: must be at least 0, got -1"),
    (
        'features = ["avx2"]',
        'features = ["avx512f"]',
        "key detect.features: 'avx512f' is not among",
    ),
    ("available = true", "available = 1", "key status.available: must be true or false, got 1"),
    ("available = true", "available = false", "key status.reason: must be given exactly when"),
    ("available = true", 'available = true\nreason = "x"', "key status.reason: must be given"),
    ('"conv2d+bias"', '"conv2d"', "key fusion.pairs: 'conv2d' must be OP+OP"),
    ('"conv2d+bias"', '"conv2d+bias+add"', "key fusion.pairs: 'conv2d+bias+add' must be OP+OP"),
    ('"conv2d+bias"', '"conv+bias"', "key fusion.pairs: 'conv+bias' must be OP+OP"),
    (
        '"conv2d", "dense"',
        '"conv2", "dense"',
        "key schemes[0].ops: 'conv2' is not known; did you mean 'conv2d'",
    ),
    (
        '"uint8", low = 0, high = 255 }\nweight',
        '"uint9", low = 0, high = 255 }\nweight',
        "key schemes[0].activation.dtype: 'uint9' is not known",
    ),
    (
        "low = -64",
        "low = -129",
        "key schemes[0].weight.low: -129..63 must rise within -128..127 of int8",
    ),
    ("low = -64", "low = 63", "key schemes[0].weight.low: 63..63 must rise"),
    (
        'symmetric = true }\ngranularity = ["axis',
        'symetric = true }\ngranularity = ["axis',
        "key schemes[0].weight.symetric: is unknown; did you mean 'symmetric'",
    ),
    (
        '"axis", "tensor"',
        '"axes", "tensor"',
        "key schemes[0].granularity: 'axes' is not known; did you mean 'axis'",
    ),
    ('note = "slower"', 'accumulate = "int16"', "key schemes[1].accumulate: 'int16' is not known"),
    ('note = "slower"', "pow2 = true", "key schemes[1].pow2: is unknown; "),
]


def write(folder: Path, text: str) -> Path:
    file = folder / "board.toml"
    file.write_text(text)
    return file


def test_every_field_is_read(tmp_path: Path) -> None:
    target = Target.load(write(tmp_path, GOOD))
    assert (target.name, target.description) == ("my-board", "a board of mine")
    assert (target.kind, target.triple, target.arch) == ("llvm", "x86_64-linux-gnu", "x86_64")
    assert (target.mcpu, target.mattr) == ("x86-64-v3", ("-movbe",))
    assert target.features == {"sse3", "avx2", "fma"}
    assert (target.cores, target.channel_multiple) == (3, 8)
    assert (target.layout, target.measure) == ("NHWC", "local")
    assert target.caches == Caches(32768, 1048576, 0)
    assert (target.detected_by, target.vendor) == ({"avx2"}, "")
    assert target.available
    assert target.sm is None
    assert target.fusions == {"conv2d+bias", "bias+relu"}
    narrow = Scheme(
        CodeRange("uint8", 0, 255),
        CodeRange("int8", -64, 63, symmetric=True),
        granularity=("tensor", "axis"),
    )
    wide = Scheme(CodeRange("uint8", 0, 255), CodeRange("int8", -127, 127, symmetric=True))
    assert target.schemes == {"conv2d": (narrow, wide), "dense": (narrow,)}
    assert target.schemes["conv2d"][1].note == "slower"


def test_gpu_is_read(tmp_path: Path) -> None:
    assert Target.load(write(tmp_path, GPU)).sm == 87


def test_path_as_text(tmp_path: Path) -> None:
    assert Target.load(str(write(tmp_path, GOOD))).name == "my-board"


@pytest.mark.parametrize(("old", "new", "message"), BROKEN, ids=[new[:30] for _, new, _ in BROKEN])
def test_mistakes_name_file_key_and_fix(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    file = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(TargetError) as caught:
        Target.load(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"nowhere\.toml: cannot be read: No such file"):
        Target.load(tmp_path / "nowhere.toml")


def test_not_text(tmp_path: Path) -> None:
    file = tmp_path / "board.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TargetError, match="not valid TOML"):
        Target.load(file)
