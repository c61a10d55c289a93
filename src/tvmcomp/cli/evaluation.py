"""An evaluation told in lines: what is shipped, and each network it was held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["evaluation_lines"]

_SHOWN = 4  # outputs


def evaluation_lines(data: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """`Evaluation.to_dict()` as (name, line) pairs; none if there is none."""
    if data is None:
        return
    counted = "" if data["samples"] is None else f", {data['samples']} samples"
    yield "evaluated on", f"{data['data']}{counted}"
    labelled = data["labels"] is not None
    for name, of in data["artifact"].items():
        yield name, f"{_value(of, labelled)}, this artifact"
        for found in data["references"]:
            if name in found["metrics"]:
                shown = _value(found["metrics"][name], labelled)
                yield name, f"{shown}, {_who(found)}: {_difference(found, name, labelled)}"
    for found in data["references"]:
        if found["reason"] is not None:
            yield "not compared", f"{_who(found)}: {found['reason']}"
            continue
        if found["agreement"] is not None:
            yield "agreement", f"{found['agreement']:.2%} same best class as {_who(found)}"
        yield "SQNR", f"{_outputs(found['outputs'])} against {_who(found)}"
    if data["note"] is not None:
        yield "accuracy", data["note"]


def _who(found: Mapping[str, Any]) -> str:
    return f"{found['name']} {found['precision']}"


def _value(of: Mapping[str, Any], labelled: bool) -> str:
    if of["low"] is None:
        return _figure(of["value"], labelled)
    low, high = (_figure(of[key], labelled) for key in ("low", "high"))
    return f"{_figure(of['value'], labelled)} (95 %: {low} to {high})"


def _difference(found: Mapping[str, Any], name: str, labelled: bool) -> str:
    of = found["difference"].get(name)
    if of is None:
        return "not comparable"
    scale, unit = (100, " points") if labelled else (1, "")
    interval = ""
    if of["low"] is not None:
        interval = f" (95 %: {of['low'] * scale:+.3g} to {of['high'] * scale:+.3g})"
    return f"{of['value'] * scale:+.3g}{unit}{interval} from it to the artifact"


def _figure(value: float, labelled: bool) -> str:
    return f"{value:.2%}" if labelled else f"{value:.6g}"


def _outputs(outputs: Mapping[str, Mapping[str, Any]]) -> str:
    shown = []
    for name, of in list(outputs.items())[:_SHOWN]:
        if of["identical"]:
            shown.append(f"{name} identical")
        elif of["sqnr_db"] is None:
            shown.append(f"{name} {of['reason']}")
        else:
            shown.append(f"{name} {of['sqnr_db']:.1f} dB")
    more = len(outputs) - _SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
