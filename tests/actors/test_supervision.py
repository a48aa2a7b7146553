"""Restarts with a budget, and what spends it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from itertools import pairwise
from random import Random

import pytest
import trio
from trio.testing import MockClock

from actors.supervision import BudgetSpent, RestartBudget, Stalled, describe, is_outage, supervise
from dispatcher.errors import QueueUnavailable, StoreUnavailable

BUDGET = RestartBudget(restarts_max=3, period_s=60.0, pause_s=2.0)


def child_that(*ends: BaseException | None, lives_s: float = 0.0) -> tuple[Callable[[], Awaitable[None]], list[float]]:
    """A child that ends in these ways, one after the other; and when it was started."""
    starts: list[float] = []

    async def child() -> None:
        starts.append(trio.current_time())
        await trio.sleep(lives_s)
        end = ends[len(starts) - 1]
        if end is not None:
            raise end

    return child, starts


async def test_a_child_that_returns_is_done(autojump_clock: MockClock) -> None:
    child, starts = child_that(None)
    await supervise("child", child, BUDGET, Random(1))

    assert len(starts) == 1


async def test_a_child_that_fails_is_started_again_after_a_jittered_pause(autojump_clock: MockClock) -> None:
    child, starts = child_that(ValueError(), ValueError(), None)
    await supervise("child", child, BUDGET, Random(1))
    pauses = [later - earlier for earlier, later in pairwise(starts)]

    assert len(starts) == 3
    assert all(1.0 <= pause < 3.0 for pause in pauses)
    assert pauses[0] != pauses[1]


async def test_one_failure_more_than_the_budget_escalates_with_its_cause(autojump_clock: MockClock) -> None:
    child, starts = child_that(*(ValueError(str(number)) for number in range(9)))
    with pytest.raises(BudgetSpent, match="child failed 4 times") as escalated:
        await supervise("child", child, BUDGET, Random(1))

    assert len(starts) == 4
    assert str(escalated.value.__cause__) == "3"


async def test_failures_that_lie_a_period_back_do_not_count(autojump_clock: MockClock) -> None:
    child, starts = child_that(*(ValueError() for _ in range(20)), None, lives_s=25.0)
    await supervise("child", child, BUDGET, Random(1))

    assert len(starts) == 21


async def test_a_failure_that_took_long_to_notice_is_remembered_for_longer(autojump_clock: MockClock) -> None:
    """Otherwise one that stands still for an hour each time would be started again for ever."""
    child, starts = child_that(*(Stalled("it stood still", 3600.0) for _ in range(9)), lives_s=3600.0)
    with pytest.raises(BudgetSpent):
        await supervise("child", child, BUDGET, Random(1))

    assert len(starts) == BUDGET.restarts_max + 1


@pytest.mark.parametrize(
    "outage",
    [
        StoreUnavailable("away"),
        QueueUnavailable("away"),
        ExceptionGroup("", [StoreUnavailable("away"), ExceptionGroup("", [QueueUnavailable("away")])]),
    ],
)
async def test_an_outage_spends_no_budget(autojump_clock: MockClock, outage: Exception) -> None:
    child, starts = child_that(*([outage] * 50), None)
    await supervise("child", child, BUDGET, Random(1))

    assert len(starts) == 51


async def test_a_fault_beside_an_outage_is_a_fault(autojump_clock: MockClock) -> None:
    both = ExceptionGroup("", [StoreUnavailable("away"), ValueError()])
    child, _ = child_that(*([both] * 9))

    with pytest.raises(BudgetSpent):
        await supervise("child", child, BUDGET, Random(1))
    assert not is_outage(both)


async def test_cancellation_is_no_failure_and_passes_through(autojump_clock: MockClock) -> None:
    child, starts = child_that(None, lives_s=100.0)
    with trio.move_on_after(1.0) as scope:
        await supervise("child", child, BUDGET, Random(1))

    assert scope.cancelled_caught
    assert len(starts) == 1


async def test_a_pause_can_be_cancelled(autojump_clock: MockClock) -> None:
    child, starts = child_that(ValueError(), None)
    with trio.move_on_after(0.5) as scope:
        await supervise("child", child, BUDGET, Random(1))

    assert scope.cancelled_caught
    assert len(starts) == 1


async def test_the_log_says_where_a_child_failed_and_nothing_it_said(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def child() -> None:
        if not caplog.records:
            raise ExceptionGroup("person@example.org", [ValueError("person@example.org"), KeyError("person@example.org")])

    with caplog.at_level(logging.ERROR):
        await supervise("child", child, BUDGET, Random(1))

    assert "person" not in caplog.text
    assert "ValueError" in caplog.text
    assert "KeyError" in caplog.text


def test_a_description_names_the_innermost_place() -> None:
    def innermost() -> None:
        raise ValueError("person@example.org")

    try:
        innermost()
    except ValueError as error:
        described = describe(error)

    assert described.startswith("ValueError at ")
    assert "innermost" in described
    assert "person" not in described
