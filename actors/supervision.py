"""Restarts with a budget, then escalation. No business in here.

A child that raises is started again after a jittered pause, at most ``restarts_max`` times within ``period_s``; one failure
more and the supervisor gives up with :class:`BudgetSpent`, for its own owner to deal with. An outage of Postgres or Redis
spends nothing: waiting for a server is not a fault of the child, and no number of restarts mends it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from random import Random

import trio
from attrs import frozen

from dispatcher.errors import DispatcherError, QueueUnavailable, StoreUnavailable

logger = logging.getLogger(__name__)

OUTAGES = (StoreUnavailable, QueueUnavailable)


@frozen
class RestartBudget:
    """How often a child may fail. ``pause_s`` is the mean pause before a restart."""

    restarts_max: int = 5
    period_s: float = 60.0
    pause_s: float = 0.5


class Stalled(DispatcherError):
    """A child lived and got nowhere, which was noticed after ``took_s``."""

    def __init__(self, what: str, took_s: float) -> None:
        super().__init__(what)
        self.took_s = took_s


class BudgetSpent(DispatcherError):
    """A child failed more often than its budget allows. The last failure is the cause."""


async def supervise(
    name: str,
    child: Callable[[], Awaitable[None]],
    budget: RestartBudget,
    random: Random,
) -> None:
    """Run ``child`` until it returns. What a failed one left behind, the next one finds: it mends that first if need be.

    A failure that took long to notice is remembered for longer: that time was no time of doing well.

    Cancellation passes through. What is logged of a failure is its type and place, never its text: that may hold data.
    """
    failures: list[float] = []  # until when each is remembered
    while True:
        try:
            await child()
            return
        except Exception as error:
            now_s = trio.current_time()
            if not is_outage(error):
                took_s = error.took_s if isinstance(error, Stalled) else 0.0
                failures = [until_s for until_s in failures if until_s > now_s]
                failures.append(now_s + budget.period_s + took_s * (budget.restarts_max + 1))
            logger.error("%s failed: %s", name, describe(error))
            if len(failures) > budget.restarts_max:
                raise BudgetSpent(f"{name} failed {len(failures)} times in {budget.period_s:g} s") from error
        await trio.sleep(budget.pause_s * (0.5 + random.random()))


def is_outage(error: BaseException) -> bool:
    """Whether a failure is nothing but servers being away, however deeply grouped."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_outage(inner) for inner in error.exceptions)
    return isinstance(error, OUTAGES)


def describe(error: BaseException) -> str:
    """The type and the innermost place of a failure, groups flattened; never its text."""
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(describe(inner) for inner in error.exceptions)
    place = ""
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        place = f" at {code.co_qualname}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return type(error).__name__ + place
