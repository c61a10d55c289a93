"""Random legal VTA programs: the simulator, from each of the three queues, against a slow model of its own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from acceptance.context import Context
from acceptance.from_tests import from_tests
from acceptance.row import Check, Row, holds

__all__ = ["ROW", "differences"]

_PROGRAMS = 2000


def differences(seed: int) -> list[str]:
    """What one random program, with all start orders, gives that the slow model does not."""
    from tvmcomp.vta.isa import Stage
    from tvmcomp.vta.simulate import simulate

    programs, model = from_tests("vta_programs"), from_tests("vta_model")
    rng = np.random.default_rng(seed)
    config = programs.CONFIGS[seed % len(programs.CONFIGS)]
    program = programs.random_program(rng, config, launches=int(rng.integers(1, 3)))
    fill = int(rng.integers(0, 256))
    slow = model.SlowModel(config, program.dram.tobytes(), fill)
    slow.run(program, "compute")
    wrong = []
    for start in Stage:
        result = simulate(program, config, start=start, fill=fill)
        same = {
            "error": result.error is None,
            "DRAM": result.dram.tobytes() == bytes(slow.dram),
            "SRAM": result.machine.dump() == slow.sram(),
            "counters": result.counters.to_dict() == slow.counters,
        }
        wrong += [f"seed {seed}, {start.name}: {what}" for what, ok in same.items() if not ok]
    return wrong


def _run(context: Context) -> Iterator[Check]:
    count = context.scaled(_PROGRAMS)
    wrong = [text for seed in range(count) for text in differences(seed)]
    yield holds(
        f"{count} programs, 5 configurations, 3 start orders: DRAM, SRAM and counters are the slow model's",
        not wrong,
        "; ".join(wrong[:5]),
    )


ROW = Row(
    "vta-fuzz",
    "2,000 random legal programs: identical DRAM, SRAM and counters, all start orders",
    _run,
)
