"""Callers serve channels in turns, never more at once than allowed, and leave when there is nothing to do."""

from __future__ import annotations

from collections import deque

import trio
import trio.testing

from actors.callers import Callers, Work
from dispatcher.fairness import CALL_GUESS_S, Share
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId


def delivery(name: str) -> Delivery:
    return Delivery(NotificationId(name), OrganizationId("acme"), Channel.EMAIL, "", {}, 1, 8, 0.0)


class Line:
    """A channel that writes down who was called, and holds each call until told."""

    def __init__(
        self, name: str, count: int, at_once: int, called: list[str], hold: trio.Event, share: Share | None = None
    ) -> None:
        self.in_line = False
        self.call_s = CALL_GUESS_S
        self.share = share or Share()
        self._waiting = deque(delivery(f"{name}{number}") for number in range(count))
        self._at_once = at_once
        self._called = called
        self._hold = hold
        self.under_way = 0
        self.most = 0

    @property
    def has_work(self) -> bool:
        return bool(self._waiting) and self.under_way < self._at_once

    def take(self) -> Delivery:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        return self._waiting.popleft()

    async def attempt(self, work: Work) -> float:
        assert isinstance(work, Delivery)
        self._called.append(work.id)
        began_s = trio.current_time()
        try:
            await self._hold.wait()
            await trio.lowlevel.checkpoint()
        finally:
            self.under_way -= 1
        return trio.current_time() - began_s


def released() -> trio.Event:
    event = trio.Event()
    event.set()
    return event


async def test_channels_take_turns(autojump_clock: trio.testing.MockClock) -> None:
    called: list[str] = []
    callers = Callers(1)
    long, short = Line("long", 5, 9, called, released()), Line("short", 2, 9, called, released())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(callers.run)
        await trio.testing.wait_all_tasks_blocked()
        callers.join(long)
        callers.join(short)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert called == ["long0", "short0", "long1", "short1", "long2", "long3", "long4"]


async def test_no_more_calls_at_once_than_allowed(autojump_clock: trio.testing.MockClock) -> None:
    called: list[str] = []
    callers = Callers(3)
    hold = trio.Event()
    line = Line("a", 10, 10, called, hold)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(callers.run)
        await trio.testing.wait_all_tasks_blocked()
        callers.join(line)
        await trio.testing.wait_all_tasks_blocked()

        assert (len(called), callers.statistics().calling) == (3, 3)

        hold.set()
        await trio.testing.wait_all_tasks_blocked()

        assert (len(called), line.most) == (10, 3)
        assert callers.statistics().calling == 0
        nursery.cancel_scope.cancel()


async def test_a_channel_s_own_limit_keeps_callers_for_the_others(autojump_clock: trio.testing.MockClock) -> None:
    called: list[str] = []
    callers = Callers(4)
    hold = trio.Event()
    narrow, wide = Line("n", 5, 1, called, hold), Line("w", 5, 5, called, hold)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(callers.run)
        await trio.testing.wait_all_tasks_blocked()
        callers.join(narrow)
        callers.join(wide)
        await trio.testing.wait_all_tasks_blocked()

        assert sorted(called) == ["n0", "w0", "w1", "w2"]

        hold.set()
        await trio.testing.wait_all_tasks_blocked()

        assert (len(called), narrow.most) == (10, 1)
        nursery.cancel_scope.cancel()


async def test_work_that_joined_before_the_start_is_done(autojump_clock: trio.testing.MockClock) -> None:
    called: list[str] = []
    callers = Callers(2)
    callers.join(Line("a", 3, 3, called, released()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(callers.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert called == ["a0", "a1", "a2"]


async def test_cancelled_callers_give_their_places_back(autojump_clock: trio.testing.MockClock) -> None:
    callers = Callers(2)
    line = Line("a", 5, 5, [], trio.Event())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(callers.run)
        await trio.testing.wait_all_tasks_blocked()
        callers.join(line)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert (callers.statistics().calling, line.under_way) == (0, 0)


async def test_a_resting_caller_serves_again(autojump_clock: trio.testing.MockClock) -> None:
    called: list[str] = []
    callers = Callers(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(callers.run)
        await trio.testing.wait_all_tasks_blocked()
        for name in ("a", "b", "c"):
            callers.join(Line(name, 4, 4, called, released()))
            await trio.testing.wait_all_tasks_blocked()
            assert callers.statistics().calling == 0
        tasks = len(nursery.child_tasks)
        nursery.cancel_scope.cancel()

    assert sorted(called) == sorted(f"{name}{number}" for name in "abc" for number in range(4))
    assert tasks == 1
    assert callers.statistics().calling == 0


async def test_a_call_that_ends_lets_its_own_organization_have_one_that_it_had_to_leave_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """With a call less it has few, even if somebody with many stands in front of it."""
    called: list[str] = []
    callers = Callers(16)
    never, soon = trio.Event(), trio.Event()
    share = Share()
    cheap = Line("x", 12, 12, called, never)
    cheap.call_s = 0.001
    async with trio.open_nursery() as nursery:
        nursery.start_soon(callers.run)
        await trio.testing.wait_all_tasks_blocked()
        callers.join(Line("a", 3, 3, called, never, share))
        callers.join(Line("b", 1, 1, called, soon, share))
        await trio.testing.wait_all_tasks_blocked()
        callers.join(cheap)
        await trio.testing.wait_all_tasks_blocked()
        callers.join(Line("c", 1, 1, called, never, share))
        await trio.testing.wait_all_tasks_blocked()
        before = (len(called), cheap.under_way, "c0" in called)
        soon.set()
        await trio.testing.wait_all_tasks_blocked()
        after = (cheap.under_way, "c0" in called)
        nursery.cancel_scope.cancel()

    assert before == (14, 10, False)
    assert after == (10, True)
