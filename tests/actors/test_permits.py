"""Leave to hold ids in flight: bounded, in order, never lost."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.permits import Permits, PermitStatistics


async def test_what_is_free_is_taken_at_once_and_no_more() -> None:
    permits = Permits(5)

    assert await permits.acquire(3) == 3
    assert await permits.acquire(3) == 2
    assert permits.statistics() == PermitStatistics(total=5, held=5, waiting=0)


async def test_who_waits_takes_what_comes_free_however_little(nursery: trio.Nursery) -> None:
    permits = Permits(3)
    await permits.acquire(3)
    granted: list[int] = []

    async def ask() -> None:
        granted.append(await permits.acquire(3))

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    permits.release(1)
    await wait_all_tasks_blocked()

    assert granted == [1]


async def test_permits_go_to_those_in_line_in_their_order(nursery: trio.Nursery) -> None:
    permits = Permits(2)
    await permits.acquire(2)
    served: list[int] = []

    async def ask(number: int) -> None:
        await permits.acquire(1)
        served.append(number)

    for number in range(4):
        nursery.start_soon(ask, number)
        await wait_all_tasks_blocked()
    waiting = permits.statistics().waiting
    for _ in range(4):
        permits.release(1)
        await wait_all_tasks_blocked()

    assert waiting == 3  # and one in front, who has left the line and waits for a permit
    assert served == [0, 1, 2, 3]


async def test_a_late_comer_does_not_overtake_the_line(nursery: trio.Nursery) -> None:
    permits = Permits(1)
    await permits.acquire(1)
    served: list[str] = []

    async def ask(name: str) -> None:
        await permits.acquire(1)
        served.append(name)

    nursery.start_soon(ask, "early")
    await wait_all_tasks_blocked()
    permits.release(1)
    nursery.start_soon(ask, "late")
    await wait_all_tasks_blocked()

    assert served == ["early"]


async def test_who_is_cancelled_in_line_takes_nothing_and_leaves_the_line_moving(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    permits = Permits(1)
    await permits.acquire(1)
    served: list[str] = []

    async def ask(name: str, patience_s: float) -> None:
        with trio.move_on_after(patience_s):
            await permits.acquire(1)
            served.append(name)

    nursery.start_soon(ask, "first", 1.0)
    await wait_all_tasks_blocked()
    nursery.start_soon(ask, "second", 1.0)
    await wait_all_tasks_blocked()
    nursery.start_soon(ask, "third", 100.0)
    await trio.sleep(2.0)
    permits.release(1)
    await wait_all_tasks_blocked()

    assert served == ["third"]
    assert permits.statistics() == PermitStatistics(total=1, held=1, waiting=0)


async def test_releasing_nothing_wakes_nobody(nursery: trio.Nursery) -> None:
    permits = Permits(1)
    await permits.acquire(1)
    permits.release(0)

    assert permits.statistics().held == 1


async def test_more_permits_than_went_out_can_not_come_back() -> None:
    permits = Permits(1)

    with pytest.raises(AssertionError):
        permits.release(1)
