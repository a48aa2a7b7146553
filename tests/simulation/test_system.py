"""A thousand seeds of the whole system: real actors over ports in memory, any order of tasks, any fault at any await.

Each seed runs some organizations, notifications and processes through minutes of faults, heals, and is judged by
``tests/system_checker.py``. A failing seed is printed with the command that replays it, step by step. ``SIMULATION_SEEDS`` names
other seeds, for example ``SIMULATION_SEEDS=5001-9000``.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import pytest

from system_plan import Report, run_seed

SEEDS = os.environ.get("SIMULATION_SEEDS", "1-1000")
PARTS = 20
PROCESSES = 2


def parts() -> list[range]:
    """The seeds in equal parts."""
    first, _, last = SEEDS.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    return [part for n in range(PARTS) if (part := seeds[len(seeds) * n // PARTS : len(seeds) * (n + 1) // PARTS])]


def run_part(seeds: Sequence[int]) -> list[Report]:
    """Run some seeds, in a process of their own."""
    return [run_seed(seed) for seed in seeds]


def end_with_the_parent() -> None:
    """A run of tests that is killed leaves nobody behind."""
    threading.Thread(target=_wait_for_its_end, daemon=True).start()


def _wait_for_its_end() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Processes that run seeds beside each other."""
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_the_parent) as pool:
        yield pool


@pytest.mark.parametrize("part", parts(), ids=lambda part: f"seeds {part.start} to {part.stop - 1}")
def test_whatever_fails_in_whatever_order_nothing_is_lost_and_nothing_doubled_without_a_mark(
    part: range, pool: ProcessPoolExecutor
) -> None:
    reports = [report for share in pool.map(run_part, [part[n::PROCESSES] for n in range(PROCESSES)]) for report in share]

    failed = [report for report in reports if report.broken]
    shown = ["\n    ".join((f"python tests/simulation/replay.py {report.seed}", *report.broken[:5])) for report in failed]
    assert not failed, f"{len(failed)} of {len(reports)} seeds failed; to see one step by step:\n" + "\n".join(shown)
    assert len(reports) < 10 or sum(report.notifications for report in reports) > 10 * len(reports), "they hardly send anything"
