"""The text form of an instruction.

load.inp   sram=0 dram=0x100 y=1 x=16 stride=16 pad=0,0,0,0 pop_next
gemm       uops=0:1 iter=16x1 dst=1,0 src=1,0 wgt=0,0 reset pop_prev push_next
alu.shr    uops=0:1 iter=16x1 dst=1,0 src=0,0 imm=8
store.out  sram=0 dram=0x400 y=1 x=16 stride=16 push_prev
finish
word       0x5

pad: top, bottom, left, right; dst, src, wgt: factor of the outer, of the inner loop; what is left out is 0, iter 1x1.
An ALU instruction without `imm` reads ACC[src]; `unused_imm` fills the immediate it then ignores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tvmcomp.errors import VtaError
from tvmcomp.vta.config import Memory
from tvmcomp.vta.isa import Alu, AluOp, Finish, Gemm, Illegal, Instruction, Load, Store
from tvmcomp.vta.layout import DEPENDENCIES

__all__ = ["format_instruction", "parse_instruction", "parse_number"]

# Key -> (fields, separator); a key with one field has none.
_TRANSFER: Mapping[str, tuple[tuple[str, ...], str]] = {
    "sram": (("sram_base",), ""),
    "dram": (("dram_base",), ""),
    "y": (("y_size",), ""),
    "x": (("x_size",), ""),
    "stride": (("x_stride",), ""),
    "pad": (("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1"), ","),
}
_LOOPS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "uops": (("uop_bgn", "uop_end"), ":"),
    "iter": (("iter_out", "iter_in"), "x"),
    "dst": (("dst_factor_out", "dst_factor_in"), ","),
    "src": (("src_factor_out", "src_factor_in"), ","),
}
_WGT = {"wgt": (("wgt_factor_out", "wgt_factor_in"), ",")}
_IMM = {"unused_imm": (("imm",), "")}
_RESERVED = {"reserved": (("reserved",), "")}
_HEX = ("dram", "reserved")
_KEYS: Mapping[type, Mapping[str, tuple[tuple[str, ...], str]]] = {
    Load: {**_TRANSFER, **_RESERVED},
    Store: {**_TRANSFER, **_RESERVED},
    Gemm: {**_LOOPS, **_WGT, **_RESERVED},
    Alu: {**_LOOPS, **_IMM, **_RESERVED},
    Finish: _RESERVED,
}
_NAMES: Mapping[str, type[Any]] = {
    "load": Load,
    "store": Store,
    "gemm": Gemm,
    "alu": Alu,
    "finish": Finish,
}
_SUFFIXES: Mapping[type, tuple[str, type[Memory] | type[AluOp]]] = {
    Load: ("memory_type", Memory),
    Store: ("memory_type", Memory),
    Alu: ("alu_opcode", AluOp),
}
_NUMBER = re.compile(r"-?(0[xX][0-9a-fA-F]{1,64}|[0-9]{1,64})")


def format_instruction(instruction: Instruction) -> str:
    """One line; `parse_instruction` gives the same instruction back."""
    if isinstance(instruction, Illegal):
        return f"word {instruction.word:#x}"
    kind = type(instruction)
    parts = [_mnemonic(instruction)]
    default = kind()
    for key, (names, separator) in _KEYS[kind].items():
        values = [getattr(instruction, name) for name in names]
        if key == "unused_imm" and getattr(instruction, "use_imm", False):
            parts.append(f"imm={values[0]}")
        elif values != [getattr(default, name) for name in names]:
            texts = [f"{v:#x}" if key in _HEX else str(v) for v in values]
            parts.append(f"{key}={separator.join(texts)}")
    flags = ("reset", *DEPENDENCIES)
    return " ".join([*parts, *(flag for flag in flags if getattr(instruction, flag, 0))])


def parse_instruction(line: str) -> Instruction:
    """The instruction of one line without comment. Raises VtaError."""
    mnemonic, *words = line.split()
    if mnemonic == "word":
        return _word(words)
    name, _, suffix = mnemonic.partition(".")
    kind = _NAMES.get(name)
    if kind is None:
        raise VtaError(f"unknown instruction {mnemonic!r}; use {', '.join(_NAMES)} or word")
    values = _suffix(kind, mnemonic, suffix)
    for word in words:
        key, equals, text = word.partition("=")
        new = _keyword(kind, key, text) if equals else _flag(kind, word)
        repeated = new.keys() & values.keys()
        if repeated:
            raise VtaError(f"{word!r} sets {min(repeated)} a second time")
        values |= new
    return kind(**values)


def _mnemonic(instruction: Any) -> str:
    kind = type(instruction)
    name = kind.__name__.lower()
    if kind not in _SUFFIXES:
        return name
    field, names = _SUFFIXES[kind]
    code = getattr(instruction, field)
    known = code in {int(member) for member in names}
    return f"{name}.{names(code).name.lower() if known else code}"


def _suffix(kind: type, mnemonic: str, suffix: str) -> dict[str, int]:
    if kind not in _SUFFIXES:
        if suffix:
            raise VtaError(f"{mnemonic!r}: {mnemonic.partition('.')[0]} takes no suffix")
        return {}
    field, names = _SUFFIXES[kind]
    choices = {member.name.lower(): int(member) for member in names}
    if _NUMBER.fullmatch(suffix):
        return {field: parse_number(suffix)}
    if suffix not in choices:
        example = f"{mnemonic.partition('.')[0]}.{next(iter(choices))}"
        raise VtaError(f"{mnemonic!r}: use one of .{', .'.join(choices)}, as in {example}")
    return {field: choices[suffix]}


def _keyword(kind: type, key: str, text: str) -> dict[str, int]:
    if kind is Alu and key == "imm":
        return {"use_imm": 1, "imm": _number(key, text)}
    keys = _KEYS[kind]
    if key not in keys:
        raise VtaError(f"{kind.__name__.lower()} has no {key!r}; use {', '.join(keys)}")
    names, separator = keys[key]
    texts = text.split(separator) if separator else [text]
    if len(texts) != len(names):
        shape = separator.join("N" for _ in names)
        raise VtaError(f"{key}={text} has {len(texts)} numbers; write {key}={shape}")
    return {name: _number(key, value) for name, value in zip(names, texts, strict=True)}


def _flag(kind: type, word: str) -> dict[str, int]:
    if word in DEPENDENCIES or (word == "reset" and kind in (Gemm, Alu)):
        return {word: 1}
    raise VtaError(
        f"{word!r} is neither key=value nor a flag; the flags are {', '.join(DEPENDENCIES)}"
    )


def parse_number(text: str) -> int:
    """A decimal or 0x number. Raises VtaError."""
    if not _NUMBER.fullmatch(text):
        raise VtaError(f"{text[:40]!r} is not a number; write it like 12, -3 or 0x1f")
    return int(text, 16 if "x" in text.lower() else 10)


def _number(key: str, text: str) -> int:
    try:
        return parse_number(text)
    except VtaError as error:
        raise VtaError(f"{key}: {error}") from None


def _word(words: list[str]) -> Illegal:
    if len(words) != 1:
        raise VtaError("word takes one number of 128 bits, as in word 0x5")
    value = _number("word", words[0])
    if not 0 <= value < 1 << 128:
        raise VtaError(f"word {words[0]} does not fit 128 bits")
    return Illegal(value)
