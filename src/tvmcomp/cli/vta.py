"""`tvmcomp vta`: instruction streams for the VTA accelerator, written, run, checked and profiled."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmcomp.cli.arguments import refuse_same
from tvmcomp.cli.screen import Answer, Screen, print_pairs, print_table
from tvmcomp.cli.verb import add_verb, group
from tvmcomp.errors import VtaError

if TYPE_CHECKING:
    from tvmcomp.vta.config import VtaConfig
    from tvmcomp.vta.container import Program
    from tvmcomp.vta.timing import Profile

__all__ = ["app"]

app = group("Programs for the VTA accelerator; docs/vta.md leads through them.")


class Start(Enum):
    """The queue that runs first."""

    COMPUTE = "compute"
    LOAD = "load"
    STORE = "store"
    ALL = "all"


class ModeName(Enum):
    """Whose behaviour is simulated."""

    REFERENCE = "reference"
    STRICT = "strict"
    HARDWARE = "hardware"


class TimingName(Enum):
    """Whose cycles are counted."""

    CLASSIC = "classic"
    PIPELINED = "pipelined"


_Container = Annotated[Path, typer.Argument(metavar="FILE", help="A program container.")]
_Config = Annotated[
    Path | None, typer.Option("--config", help="JSON description of the accelerator; default sizes without.")
]  # fmt: skip
_Latency = Annotated[
    int, typer.Option("--read-latency", min=0, help="Cycles from a read to its first beat.")
]
_LARGEST_BYTE = 255


@app.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def asm(
    screen: Screen,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A program as text.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The container to write.")],
    config: _Config = None,
) -> Answer:
    """Assemble text into a program container."""
    del screen
    refuse_same(file, config, output)
    from tvmcomp.vta.assembly import assemble
    from tvmcomp.vta.container import write_program

    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise VtaError(f"{file}: is not text: {error}") from error
    sizes = _load_config(config)
    try:
        program = assemble(text, sizes, file.parent)
    except VtaError as error:
        raise VtaError(f"{file}: {error}") from error
    write_program(program, output, sizes)
    counts = [len(stream) for stream in program.launches]
    data = {"output": str(output), "dram_bytes": program.dram.size, "instructions": counts}
    return Answer(data, lambda: print(f"{output}: {sum(counts)} instructions"))


def disasm(
    screen: Screen,
    file: _Container,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the text here instead of stdout.")
    ] = None,
    config: _Config = None,
) -> Answer:
    """Show a program container as text that assembles to the same container."""
    del screen
    refuse_same(file, config, output)
    from tvmcomp.vta.assembly import disassemble
    from tvmcomp.vta.container import read_program

    text = disassemble(read_program(file, _load_config(config)))
    if output is not None:
        _write(output, text)
    where = None if output is None else str(output)
    return Answer({"output": where, "text": text}, lambda: print(where or text.rstrip("\n")))


def run(
    screen: Screen,
    file: _Container,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where DRAM goes afterwards.")],
    stats: Annotated[Path, typer.Argument(metavar="STATS", help="Where the counters go, as JSON.")],
    config: _Config = None,
    mode: Annotated[ModeName, typer.Option(help="Whose behaviour.")] = ModeName.REFERENCE,
    start: Annotated[
        Start, typer.Option(help="The queue that runs first; all: each, and the same result.")
    ] = Start.COMPUTE,
    fill: Annotated[
        int, typer.Option(min=0, max=_LARGEST_BYTE, help="The byte on-chip memories begin with.")
    ] = 0,
    sram: Annotated[Path | None, typer.Option(help="Where on-chip memories go afterwards.")] = None,
    timing: Annotated[TimingName | None, typer.Option(help="Also count cycles.")] = None,
    read_latency: _Latency = 16,
    limit: Annotated[
        int | None, typer.Option(min=0, help="GEMM and ALU iterations that are too many; 2^32.")
    ] = None,
) -> Answer:
    """Run a program on the simulator. Exit code 3, with the reason in STATS, if the program is wrong."""
    del screen
    refuse_same(file, config, out, stats, sram)
    from tvmcomp.vta.container import read_program
    from tvmcomp.vta.files import write_file
    from tvmcomp.vta.isa import Stage
    from tvmcomp.vta.machine import Mode
    from tvmcomp.vta.simulate import LIMIT, simulate

    sizes = _load_config(config)
    program = read_program(file, sizes)
    stages = list(Stage) if start == Start.ALL else [Stage[start.name]]
    most = LIMIT if limit is None else limit
    results = [
        simulate(program, sizes, mode=Mode(mode.value), start=stage, fill=fill, limit=most)
        for stage in stages
    ]
    result = next((r for r in results if r.error), results[0])
    data = result.to_dict()
    states = {(r.dram.tobytes(), r.machine.dump()) for r in results}
    if result.error is None and len(states) > 1:
        data["error"] = "the result depends on which queue starts; see tvmcomp vta check"
    if timing is not None and data["error"] is None:
        try:
            data["cycles"] = _profile(program, sizes, timing, read_latency).cycles
        except VtaError as error:
            data["error"] = str(error)
    write_file(out, [result.dram.data])
    _write(stats, json.dumps(data, indent=1) + "\n")
    if sram is not None:
        write_file(sram, [result.machine.dump()])
    if data["error"] is not None:
        raise VtaError(f"{file}: {data['error']}")
    shown = [(name, value) for name, value in data.items() if not isinstance(value, dict)]
    return Answer(data, lambda: print_pairs(shown))


def check(screen: Screen, file: _Container, config: _Config = None) -> Answer:
    """Prove that tokens order every access, or show what races. Exit code 3 if something does."""
    del screen
    from tvmcomp.vta.check import check as check_program
    from tvmcomp.vta.container import read_program

    sizes = _load_config(config)
    program = read_program(file, sizes)
    findings = check_program(program, sizes)
    if findings:
        error = VtaError(f"{file}: launch {findings[0].launch}: {findings[0].message}")
        for finding in findings[1:]:
            error.add_note(f"launch {finding.launch}: {finding.message}")
        raise error
    count = sum(map(len, program.launches))
    return Answer(
        {"instructions": count}, lambda: print(f"{count} instructions, no race and no deadlock")
    )


def profile(
    screen: Screen,
    file: _Container,
    config: _Config = None,
    timing: Annotated[TimingName, typer.Option(help="Whose cycles.")] = TimingName.CLASSIC,
    read_latency: _Latency = 16,
    svg: Annotated[Path | None, typer.Option(help="Draw when each instruction runs.")] = None,
) -> Answer:
    """Count cycles: in all, per stage, and against the roofline."""
    del screen
    refuse_same(file, config, svg)
    from tvmcomp.vta.container import read_program
    from tvmcomp.vta.isa import Stage
    from tvmcomp.vta.picture import gantt, roofline

    sizes = _load_config(config)
    program = read_program(file, sizes)
    try:
        found = _profile(program, sizes, timing, read_latency)
    except VtaError as error:
        raise VtaError(f"{file}: {error}") from error
    roof = roofline(found, sizes)
    if svg is not None:
        _write(svg, gantt(found, program))
    stages = {
        stage.name.lower(): {"busy": found.busy(stage), "utilization": found.utilization(stage)}
        for stage in Stage
    }
    data = {
        "timing": timing.value,
        "read_latency": read_latency,
        "cycles": found.cycles,
        "stages": stages,
        "macs": found.macs,
        "bytes_read": found.bytes_read,
        "bytes_written": found.bytes_written,
        "roofline": {**asdict(roof), "bound": roof.bound, "share": roof.share},
    }

    def show() -> None:
        print(f"{found.cycles} cycles, {timing.value}, read latency {read_latency}")
        rows = [(n, f"{s['busy']}", f"{s['utilization']:.1%}") for n, s in stages.items()]
        print_table(("stage", "busy ", "utilization "), rows)
        print(
            f"{roof.reached:.1f} operations per cycle at {roof.intensity:.1f} per byte: "
            f"{roof.share:.1%} of the {roof.bound} bound of {min(roof.peak, roof.memory):.1f}"
        )

    return Answer(data, show)


def _load_config(path: Path | None) -> VtaConfig:
    from tvmcomp.vta.config import VtaConfig

    return VtaConfig() if path is None else VtaConfig.load(path)


def _profile(program: Program, config: VtaConfig, timing: TimingName, read_latency: int) -> Profile:
    from tvmcomp.vta.timing import TIMINGS, profile

    return profile(program, config, replace(TIMINGS[timing.value], read_latency=read_latency))


def _write(path: Path, text: str) -> None:
    from tvmcomp.vta.files import write_file

    write_file(path, [text.encode()])


for _name, _verb in (
    ("asm", asm),
    ("disasm", disasm),
    ("run", run),
    ("check", check),
    ("profile", profile),
):
    add_verb(app, _name, _verb)
