"""One run of Trio that a seed decides: the order of tasks, the clock, and nothing of this machine.

Trio puts the tasks that may run into an order of its own, on purpose a random one. Two private names of its scheduler make that
order follow a seed; whoever upgrades Trio finds out here, and in ``tests/simulation/test_determinism.py``, if they are gone.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar

import trio
import trio._core._run as scheduler
from trio.testing import MockClock

T = TypeVar("T")


class UnknownTrio(Exception):
    """This Trio has no seam where a seed could go in."""


def check_seams() -> None:
    """Raises UnknownTrio when the scheduler's private names are not what they were."""
    allowed = getattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", None)
    if not isinstance(allowed, bool) or not isinstance(getattr(scheduler, "_r", None), Random):
        raise UnknownTrio(
            f"Trio {trio.__version__} has renamed _ALLOW_DETERMINISTIC_SCHEDULING or _r in trio._core._run: "
            "look there for what orders the tasks of a batch, and change tests/system_trio.py"
        )


def run_seeded(main: Callable[[], Awaitable[T]], seed: int) -> T:
    """Run ``main`` on a clock that jumps to the next deadline whenever nobody can run; the same seed runs the same way."""
    check_seams()
    allowed, state = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()
    collecting = gc.isenabled()
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    scheduler._r.seed(seed)
    gc.disable()  # what a collection finds it may finalize in the middle of a step
    try:
        return trio.run(main, clock=MockClock(autojump_threshold=0))
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = allowed  # type: ignore[misc]
        scheduler._r.setstate(state)
        if collecting:
            gc.enable()
