"""Configurations: derived geometry, and what is refused."""

from __future__ import annotations

import json

import pytest

from tvmcomp.errors import VtaError
from tvmcomp.vta.config import Memory, VtaConfig

DEFAULT = {
    "TARGET": "sim", "HW_VER": "0.0.2", "LOG_INP_WIDTH": 3, "LOG_WGT_WIDTH": 3, "LOG_ACC_WIDTH": 5,
    "LOG_BATCH": 0, "LOG_BLOCK": 4, "LOG_UOP_BUFF_SIZE": 15, "LOG_INP_BUFF_SIZE": 15,
    "LOG_WGT_BUFF_SIZE": 18, "LOG_ACC_BUFF_SIZE": 17,
}  # fmt: skip


def test_the_default_description(tmp_path):
    file = tmp_path / "vta.json"
    file.write_text(json.dumps(DEFAULT))
    config = VtaConfig.load(file)
    assert config == VtaConfig()
    assert config.name == "1x16_i8w8a32_15_15_18_17"
    depths = {m: config.depth(m) for m in Memory}
    assert depths == {
        Memory.UOP: 8192, Memory.WGT: 1024, Memory.INP: 2048, Memory.ACC: 2048, Memory.OUT: 2048,
        Memory.ACC_8BIT: 2048,
    }  # fmt: skip
    sizes = {m: config.element_bytes(m) for m in Memory}
    assert sizes == {
        Memory.UOP: 4, Memory.WGT: 256, Memory.INP: 16, Memory.ACC: 64, Memory.OUT: 16, Memory.ACC_8BIT: 16,
    }  # fmt: skip
    assert config.buffer_bytes(Memory.OUT) == 1 << 15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"LOG_BLOCKS": 4}, "unknown key 'LOG_BLOCKS'"),
        ({"LOG_BLOCK": "4"}, "LOG_BLOCK is '4'; give a whole number"),
        ({"LOG_BLOCK": True}, "LOG_BLOCK is True"),
        ({"LOG_BATCH": -1}, "LOG_BATCH is -1; use 0 to 32"),
        ({"LOG_INP_WIDTH": 2}, "LOG_INP_WIDTH is 2; only 3 is supported"),
        ({"LOG_WGT_BUFF_SIZE": 8}, "LOG_WGT_BUFF_SIZE is too small"),
        ({"LOG_BLOCK": 7}, "more than a page of 4096"),
        ({"LOG_ACC_BUFF_SIZE": 19}, "GEMM needs 132 bits and has 128"),
        (
            {"LOG_WGT_BUFF_SIZE": 19, "LOG_INP_BUFF_SIZE": 14},
            "micro-op needs 33 bits and has 32",
        ),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(VtaError, match=message):
        VtaConfig.from_mapping(DEFAULT | change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds a list"),
        ("[" * 100_000, "not valid JSON"),
        (None, "cannot be read"),
    ],
)
def test_files_that_are_no_description(tmp_path, text, message):
    file = tmp_path / "vta.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(VtaError, match=message):
        VtaConfig.load(file)
