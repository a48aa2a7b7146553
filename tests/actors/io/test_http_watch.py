from __future__ import annotations

from math import inf

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.io.http_watch import Watch


class Looker:
    """Notes when it was called and what is still to come."""

    def __init__(self, *pending: float) -> None:
        self.pending = list(pending)
        self.looked_at_s: list[float] = []

    def look(self, now_s: float) -> float:
        self.looked_at_s.append(now_s)
        self.pending = [at_s for at_s in self.pending if at_s > now_s]
        return min(self.pending, default=inf)


async def test_it_looks_at_every_deadline_exactly_and_never_else(autojump_clock: MockClock) -> None:
    watch, looker = Watch(), Looker(5.0, 2.0, 9.0)
    start_s = trio.current_time()
    looker.pending = [start_s + at_s for at_s in looker.pending]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run, looker.look)
        for at_s in looker.pending:
            watch.by(at_s)
        await trio.sleep(100)
        watch.stop()

    assert looker.looked_at_s == [start_s + 2.0, start_s + 5.0, start_s + 9.0]


async def test_it_can_be_set_before_it_runs(autojump_clock: MockClock) -> None:
    watch, looker = Watch(), Looker()
    deadline_s = trio.current_time() + 3
    watch.by(deadline_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run, looker.look)
        await trio.sleep(10)
        watch.stop()

    assert looker.looked_at_s == [deadline_s]


async def test_a_later_deadline_does_not_postpone_an_earlier_one(autojump_clock: MockClock) -> None:
    watch, looker = Watch(), Looker()
    start_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run, looker.look)
        await wait_all_tasks_blocked()
        watch.by(start_s + 3)
        watch.by(start_s + 8)
        await trio.sleep(5)
        watch.stop()

    assert looker.looked_at_s == [start_s + 3]


async def test_stopping_before_it_starts_ends_it_without_a_look() -> None:
    watch, looker = Watch(), Looker()
    watch.by(trio.current_time() - 1)
    watch.stop()

    await watch.run(looker.look)

    assert looker.looked_at_s == []


async def test_it_passes_on_the_cancellation_of_its_owner() -> None:
    watch = Watch()
    with trio.CancelScope() as scope:
        scope.cancel()
        await watch.run(Looker().look)

    assert scope.cancelled_caught
