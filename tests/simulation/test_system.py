"""A thousand seeds of the whole system: real actors over ports in memory, any order of tasks, any fault at any await.

Each seed runs some organizations, notifications and processes through minutes of faults, heals, and is judged by
``tests/system_checker.py``. A failing seed is printed with the command that replays it, step by step. ``SIMULATION_SEEDS`` names
other seeds, for example ``SIMULATION_SEEDS=5001-9000``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from beside import Result, beside
from system_plan import Report, run_seed

SEEDS = os.environ.get("SIMULATION_SEEDS", "1-1000")
PARTS = 50
"""So many that none takes minutes, however busy the machine is: a test that waits so long is taken for one that hangs."""


def parts() -> list[range]:
    """The seeds in equal parts."""
    first, _, last = SEEDS.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    return [part for n in range(PARTS) if (part := seeds[len(seeds) * n // PARTS : len(seeds) * (n + 1) // PARTS])]


def run_part(part: Sequence[int]) -> list[Report]:
    """Run some seeds, in another process."""
    return [run_seed(seed) for seed in part]


@beside(run_part)
@pytest.mark.parametrize("part", parts(), ids=lambda part: f"seeds {part.start} to {part.stop - 1}")
def test_whatever_fails_in_whatever_order_nothing_is_lost_and_nothing_doubled_without_a_mark(part: range, result: Result) -> None:
    reports: list[Report] = result()
    assert [report.seed for report in reports] == list(part)

    failed = [report for report in reports if report.broken]
    shown = ["\n    ".join((f"python tests/simulation/replay.py {report.seed}", *report.broken[:5])) for report in failed]
    assert not failed, f"{len(failed)} of {len(reports)} seeds failed; to see one step by step:\n" + "\n".join(shown)
    assert len(reports) < 10 or sum(report.notifications for report in reports) > 10 * len(reports), "they hardly send anything"
