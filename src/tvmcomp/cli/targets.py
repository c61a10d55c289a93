"""`tvmcomp targets`: the devices tvmcomp knows, one of them in full, and which one this machine is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from tvmcomp.cli.screen import Answer, Screen, print_pairs, print_table
from tvmcomp.cli.verb import add_verb, group
from tvmcomp.target import CodeRange, Scheme, Target, detect

__all__ = ["app"]

app = group("The devices tvmcomp knows.")


@app.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def list_targets(screen: Screen) -> Answer:
    """List every target with whether code can be compiled for it."""
    del screen
    targets = [Target.load(name) for name in Target.names()]
    rows = [
        {
            "name": t.name,
            "description": t.description,
            "kind": t.kind,
            "available": t.available,
            "unavailable": t.unavailable or None,
        }
        for t in targets
    ]
    return Answer(
        {"targets": rows},
        lambda: print_table(
            ("target", "kind", "compiles", "what it is"),
            [
                (t.name, t.kind, "yes" if t.available else f"no: {t.unavailable}", t.description)
                for t in targets
            ],
        ),
    )


def show_target(
    screen: Screen,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A name, a .toml file, or host.")
    ] = "host",
) -> Answer:
    """Show one target: processor, instruction sets, caches, and what it runs on integers."""
    del screen
    found = Target.load(target)
    return Answer(_target_json(found), lambda: _show(found))


def detect_target(screen: Screen) -> Answer:
    """Name the best target for this machine, and the CPU flags that decided it."""
    del screen
    found = detect()
    data = {
        "target": found.target.name,
        "cpu": found.host.model,
        "cores": found.host.cores,
        "flags_that_decided": list(found.flags_that_decided),
        "next_better": found.next_better,
        "missing_for_next_better": list(found.missing_for_next_better),
    }

    def show() -> None:
        missing = ", ".join(found.missing_for_next_better) or "another vendor's CPU"
        print_pairs(
            [
                ("target", found.target.name),
                ("cpu", f"{found.host.model}, {found.host.cores} cores"),
                ("decided by", ", ".join(found.flags_that_decided)),
                ("next better", f"{found.next_better}; missing: {missing}")
                if found.next_better
                else ("next better", None),
            ]
        )

    return Answer(data, show)


add_verb(app, "list", list_targets)
add_verb(app, "show", show_target)
add_verb(app, "detect", detect_target)


def _target_json(target: Target) -> dict[str, object]:
    schemes = {op: [_scheme_json(s) for s in found] for op, found in target.schemes.items()}
    return {
        **target.to_dict(),
        "description": target.description,
        "unavailable": target.unavailable or None,
        "caches": asdict(target.caches),
        "layout": target.layout,
        "channel_multiple": target.channel_multiple,
        "measure": target.measure,
        "fusions": sorted(target.fusions),
        "schemes": schemes,
    }


def _scheme_json(scheme: Scheme) -> dict[str, object]:
    return {
        **asdict(scheme),
        "granularity": list(scheme.granularity),
        "dynamic": list(scheme.dynamic),
        "note": scheme.note or None,
    }


def _show(target: Target) -> None:
    print_pairs(
        [
            ("target", f"{target.name}: {target.description}"),
            ("compiles", "yes" if target.available else f"no: {target.unavailable}"),
            ("processor", f"{target.mcpu} ({target.triple}), {target.cores} cores"),
            ("features", ", ".join(sorted(target.features)) or None),
            ("gpu", None if target.sm is None else f"sm_{target.sm}"),
            ("caches", ", ".join(f"{k} {v}" for k, v in asdict(target.caches).items())),
            ("layout", f"{target.layout}, channels in multiples of {target.channel_multiple}"),
            ("measured by", target.measure),
        ]
    )
    print()
    print_table(
        ("operator", "activation", "weight", "scales per", "ranges at run time per", "note"),
        [
            (
                op,
                _codes(s.activation),
                _codes(s.weight),
                ", ".join(s.granularity),
                ", ".join(s.dynamic) or "-",
                s.note,
            )
            for op, schemes in target.schemes.items()
            for s in schemes
        ],
    )


def _codes(codes: CodeRange | None) -> str:
    return "-" if codes is None else f"{codes.dtype} [{codes.low}, {codes.high}]"
