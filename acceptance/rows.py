"""All rows, in the table's order."""

from __future__ import annotations

from acceptance import (
    arrays,
    bad_files,
    bench_json,
    compile_time,
    damage,
    diff,
    dynamic,
    fallback,
    float_match,
    foreign,
    indices,
    int8_exact,
    int8_steps,
    integer_share,
    onnx_nodes,
    quickstart,
    speed,
    sqnr,
    threads,
    timm_zoo,
    vta_check,
    vta_fuzz,
    vta_speed,
)
from acceptance.mutants import row as mutants
from acceptance.row import Row

__all__ = ["ROWS"]

ROWS: tuple[Row, ...] = (
    quickstart.ROW,
    # Networks, from torch and from ONNX.
    float_match.ROW,
    int8_exact.ROW,
    int8_steps.ROW,
    sqnr.ROW,
    integer_share.ROW,
    dynamic.ROW,
    foreign.ROW,
    diff.ROW,
    # Breadth.
    onnx_nodes.ROW,
    timm_zoo.ROW,
    # Speed.
    speed.ROW,
    fallback.ROW,
    compile_time.ROW,
    # What must never happen.
    damage.ROW,
    bad_files.ROW,
    arrays.ROW,
    indices.ROW,
    mutants.ROW,
    threads.ROW,
    bench_json.ROW,
    # The VTA accelerator.
    vta_fuzz.ROW,
    vta_check.ROW,
    vta_speed.ROW,
)
