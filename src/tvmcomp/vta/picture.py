"""What a profile says: utilization and roofline in figures, and a Gantt picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tvmcomp.vta.config import VtaConfig
from tvmcomp.vta.container import Program
from tvmcomp.vta.isa import Stage
from tvmcomp.vta.text import format_instruction
from tvmcomp.vta.timing import BUS_BYTES, STORE_BYTES, Event, Profile

__all__ = ["Roofline", "gantt", "roofline"]

_WIDTH, _ROW, _LEFT, _TOP = 1200, 40, 90, 30
_COLOURS = {Stage.LOAD: "#4c78a8", Stage.COMPUTE: "#f58518", Stage.STORE: "#54a24b"}
_WAIT = "#d9d9d9"


@dataclass(frozen=True)
class Roofline:
    """int8 operations (two per multiply-accumulate) per cycle: reached, and the two bounds on it.

    intensity: operations per byte of DRAM traffic; peak: the GEMM unit's; memory: what the read or the write channel,
    whichever has more to do, lets through; bound: "compute" or "memory", whichever is lower.
    """

    intensity: float
    reached: float
    peak: float
    memory: float

    @property
    def bound(self) -> str:
        """What limits the program."""
        return "compute" if self.peak <= self.memory else "memory"

    @property
    def share(self) -> float:
        """Reached, as a share of the lower bound."""
        return self.reached / min(self.peak, self.memory) if self.reached else 0.0


def roofline(profile: Profile, config: VtaConfig) -> Roofline:
    """Where `profile` stands under the roof of its timing."""
    operations = 2 * profile.macs
    traffic = profile.bytes_read + profile.bytes_written
    intensity = operations / traffic if traffic else 0.0
    peak = 2 * config.batch * config.block**2 / profile.timing.gemm[0]
    reached = operations / profile.cycles if profile.cycles else 0.0
    writing = profile.timing.store[0] * profile.bytes_written / STORE_BYTES
    busy = max(profile.bytes_read / BUS_BYTES, writing)
    return Roofline(intensity, reached, peak, operations / busy if busy else peak)


def gantt(profile: Profile, program: Program) -> str:
    """An SVG picture: one line per stage, a bar per instruction, grey where one waits for a token."""
    scale = (_WIDTH - _LEFT - 10) / max(profile.cycles, 1)
    height = _TOP + len(Stage) * _ROW + 30
    stages = (Stage.LOAD, Stage.COMPUTE, Stage.STORE)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<text x="{_LEFT}" y="18">{profile.cycles} cycles, {escape(profile.timing.name)}, '
        f"read latency {profile.timing.read_latency}</text>",
    ]
    for line, stage in enumerate(stages):
        top = _TOP + line * _ROW
        parts.append(
            f'<text x="4" y="{top + 16}">{stage.name.lower()}</text>'
            f'<text x="4" y="{top + 30}" fill="#666">{profile.utilization(stage):.0%}</text>'
        )
        own = [event for event in profile.events if event.stage == stage]
        parts += _bars(own, program, top, scale)
    parts += _axis(profile.cycles, height, scale)
    return "\n".join([*parts, "</svg>", ""])


def _bars(events: Sequence[Event], program: Program, top: int, scale: float) -> list[str]:
    parts = []
    for event in events:
        text = escape(format_instruction(program.launches[event.launch][event.index]))
        if event.start > event.ready:
            parts.append(
                _bar(event.ready, event.start, top + 12, 6, scale, _WAIT, "waits: " + text)
            )
        parts.append(
            _bar(event.start, event.end, top + 4, _ROW - 16, scale, _COLOURS[event.stage],
                 f"{event.index}: {text}, cycles {event.start} to {event.end}")
        )  # fmt: skip
    return parts


def _bar(start: int, end: int, top: int, height: int, scale: float, colour: str, title: str) -> str:
    x, width = _LEFT + start * scale, max((end - start) * scale, 0.5)
    return (
        f'<rect x="{x:.2f}" y="{top}" width="{width:.2f}" height="{height}" fill="{colour}" '
        f'stroke="white" stroke-width="0.2"><title>{title}</title></rect>'
    )


def _axis(cycles: int, height: int, scale: float) -> list[str]:
    marks = range(0, cycles + 1, max(cycles // 10, 1))
    return [
        f'<text x="{_LEFT + mark * scale:.1f}" y="{height - 8}" fill="#666">{mark}</text>'
        for mark in marks
    ]
