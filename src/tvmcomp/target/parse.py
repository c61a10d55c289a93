"""From a descriptor's TOML to the fields of `Target`, every value checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from tvmcomp.target.cpu import FEATURES, Caches
from tvmcomp.target.scheme import DYNAMIC, GRANULARITIES, OPS, CodeRange, Scheme
from tvmcomp.target.toml import Table

__all__ = ["FUSION_OPS", "Kind", "Measure", "parse_descriptor"]

Kind = Literal["llvm", "cuda", "vta"]
Measure = Literal["local", "rpc", "qemu", "simulator", "none"]

# What may stand in a fusion pattern: operators, and the bias and bounded activations that follow them.
FUSION_OPS = (*OPS, "bias", "scale", "relu", "clip")

_LAYOUTS = ("NHWC", "NCHW")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_DTYPE_RANGES = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-(1 << 15), (1 << 15) - 1),
}
_ACCUMULATORS = ("int32",)


def parse_descriptor(file: Path) -> dict[str, object]:
    """The keyword arguments of `Target` that `file` describes."""
    top = Table.load(file)
    kind = top.text("kind", choices=get_args(Kind))
    fields: dict[str, object] = {
        "name": _name(top),
        "description": top.text("description"),
        "kind": kind,
        **_processor(top, kind),
        "cores": top.integer("cores", minimum=1),
        "channel_multiple": top.integer("channel_multiple", minimum=1),
        "layout": top.text("layout", choices=_LAYOUTS),
        "measure": top.text("measure", choices=get_args(Measure)),
        "caches": _caches(top),
        "sm": _gpu(top, kind),
        **_detection(top),
        "unavailable": _unavailable(top),
        "fusions": _fusions(top),
        "schemes": _schemes(top),
    }
    top.finish()
    return fields


def _name(top: Table) -> str:
    name = top.text("name")
    if not _NAME.fullmatch(name):
        raise top.error("name", f"{name!r} must be lower-case letters, digits, '.', '_' and '-'")
    if name == "host":
        raise top.error("name", "'host' is reserved for the machine itself; choose another")
    return name


def _processor(top: Table, kind: str) -> dict[str, object]:
    """triple, mcpu, mattr, features: of the processor, or of the one that feeds the accelerator."""
    if kind == "vta":
        return {"triple": "", "mcpu": "", "mattr": (), "features": frozenset[str]()}
    triple = top.text("triple")
    arch = triple.partition("-")[0]
    if arch not in FEATURES:
        raise top.error("triple", f"{triple!r} must start with one of {', '.join(FEATURES)}")
    mattr = top.texts("mattr", default=())
    for item in mattr:
        if item[:1] not in ("+", "-") or item[1:] not in FEATURES[arch]:
            raise top.error("mattr", f"{item!r} must be + or - and a feature, e.g. '+avx512vnni'")
    return {
        "triple": triple,
        "mcpu": top.text("mcpu"),
        "mattr": mattr,
        "features": frozenset(top.texts("features", choices=sorted(FEATURES[arch]))),
    }


def _caches(top: Table) -> Caches:
    table = top.table("caches")
    caches = Caches(*(table.integer(level, minimum=0) for level in ("l1d", "l2", "l3")))
    table.finish()
    return caches


def _gpu(top: Table, kind: str) -> int | None:
    if kind != "cuda":
        return None
    table = top.table("gpu")
    sm = table.integer("sm", minimum=50)
    table.finish()
    return sm


def _detection(top: Table) -> dict[str, object]:
    """detected_by, vendor: which machines are this target."""
    table = top.table("detect", optional=True)
    features = frozenset(table.texts("features", default=()))
    vendor = table.text("vendor", default="")
    table.finish()
    unlisted = sorted(features - set(top.texts("features", default=())))
    if unlisted:
        raise table.error("features", f"{unlisted[0]!r} is not among the target's own features")
    return {"detected_by": features, "vendor": vendor}


def _unavailable(top: Table) -> str:
    """Why nothing can be compiled for this target yet; empty if it can."""
    table = top.table("status")
    available = table.flag("available")
    reason = table.text("reason", default="")
    table.finish()
    if available == bool(reason):
        raise table.error("reason", "must be given exactly when available is false")
    return reason


def _fusions(top: Table) -> frozenset[str]:
    table = top.table("fusion")
    pairs = table.texts("pairs")
    table.finish()
    for pair in pairs:
        ops = pair.split("+")
        unknown = [op for op in ops if op not in FUSION_OPS]
        if len(ops) != 2 or unknown:
            raise table.error(
                "pairs", f"{pair!r} must be OP+OP with each OP one of {', '.join(FUSION_OPS)}"
            )
    return frozenset(pairs)


def _schemes(top: Table) -> Mapping[str, tuple[Scheme, ...]]:
    by_op: dict[str, tuple[Scheme, ...]] = {}
    for table in top.tables("schemes"):
        ops = table.texts("ops", choices=OPS)
        scheme = Scheme(
            activation=_code_range(table.table("activation")),
            weight=_code_range(table.table("weight")) if "weight" in table else None,
            accumulate=table.text("accumulate", choices=_ACCUMULATORS, default="int32"),
            granularity=tuple(
                name
                for name in GRANULARITIES
                if name in table.texts("granularity", choices=GRANULARITIES, default=("tensor",))
            ),
            power_of_two=table.flag("power_of_two", default=False),
            dynamic=tuple(
                name
                for name in DYNAMIC
                if name in table.texts("dynamic", choices=DYNAMIC, default=())
            ),
            note=table.text("note", default=""),
        )
        table.finish()
        for op in ops:
            by_op[op] = (*by_op.get(op, ()), scheme)
    return by_op


def _code_range(table: Table) -> CodeRange:
    dtype = table.text("dtype", choices=tuple(_DTYPE_RANGES))
    lowest, highest = _DTYPE_RANGES[dtype]
    low, high = table.integer("low"), table.integer("high")
    symmetric = table.flag("symmetric", default=False)
    table.finish()
    if not lowest <= low < high <= highest:
        raise table.error("low", f"{low}..{high} must rise within {lowest}..{highest} of {dtype}")
    return CodeRange(dtype, low, high, symmetric)
