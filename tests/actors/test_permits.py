"""Leave to hold ids in flight: bounded, in order, never lost, and never all with those that hold some already."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.permits import FEW, Permits, PermitStatistics, Purse


async def test_what_is_free_is_taken_at_once_and_no_more() -> None:
    permits = Permits(5)

    assert await permits.acquire(Purse(), 3) == 3
    assert await permits.acquire(Purse(), 3) == 2
    assert permits.statistics() == PermitStatistics(total=5, held=5, waiting=0)


async def test_who_waits_takes_what_comes_free_however_little(nursery: trio.Nursery) -> None:
    permits = Permits(3)
    holder = Purse()
    await permits.acquire(holder, 3)
    granted: list[int] = []

    async def ask() -> None:
        granted.append(await permits.acquire(Purse(), 3))

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    permits.release(holder, 1)
    await wait_all_tasks_blocked()

    assert granted == [1]


async def test_permits_go_to_those_in_line_in_their_order(nursery: trio.Nursery) -> None:
    permits = Permits(4)
    holder = Purse()
    await permits.acquire(holder, 4)
    served: list[int] = []

    async def ask(number: int) -> None:
        await permits.acquire(Purse(), 1)
        served.append(number)

    for number in range(4):
        nursery.start_soon(ask, number)
        await wait_all_tasks_blocked()
    waiting = permits.statistics().waiting
    for _ in range(4):
        permits.release(holder, 1)
        await wait_all_tasks_blocked()

    assert waiting == 4
    assert served == [0, 1, 2, 3]


async def test_a_late_comer_does_not_overtake_the_line(nursery: trio.Nursery) -> None:
    permits = Permits(1)
    holder = Purse()
    await permits.acquire(holder, 1)
    served: list[str] = []

    async def ask(name: str) -> None:
        await permits.acquire(Purse(), 1)
        served.append(name)

    nursery.start_soon(ask, "early")
    await wait_all_tasks_blocked()
    permits.release(holder, 1)
    nursery.start_soon(ask, "late")
    await wait_all_tasks_blocked()

    assert served == ["early"]


async def test_who_is_cancelled_in_line_takes_nothing_and_leaves_the_line_moving(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    permits = Permits(1)
    holder = Purse()
    await permits.acquire(holder, 1)
    served: list[str] = []

    async def ask(name: str, patience_s: float) -> None:
        with trio.move_on_after(patience_s):
            await permits.acquire(Purse(), 1)
            served.append(name)

    nursery.start_soon(ask, "first", 1.0)
    await wait_all_tasks_blocked()
    nursery.start_soon(ask, "second", 1.0)
    await wait_all_tasks_blocked()
    nursery.start_soon(ask, "third", 100.0)
    await trio.sleep(2.0)
    permits.release(holder, 1)
    await wait_all_tasks_blocked()

    assert served == ["third"]
    assert permits.statistics() == PermitStatistics(total=1, held=1, waiting=0)


async def test_who_is_cancelled_with_its_permits_on_the_way_has_them_in_its_purse(nursery: trio.Nursery) -> None:
    permits = Permits(1)
    holder, purse = Purse(), Purse()
    await permits.acquire(holder, 1)
    scope = trio.CancelScope()

    async def ask() -> None:
        with scope:
            await permits.acquire(purse, 1)

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    permits.release(holder, 1)
    scope.cancel()
    await wait_all_tasks_blocked()

    assert purse.held == permits.statistics().held == 1


async def test_releasing_nothing_wakes_nobody() -> None:
    permits = Permits(1)
    purse = Purse()
    await permits.acquire(purse, 1)
    permits.release(purse, 0)

    assert permits.statistics().held == 1


async def test_more_permits_than_went_out_can_not_come_back() -> None:
    permits = Permits(1)

    with pytest.raises(AssertionError):
        permits.release(Purse(), 1)


async def test_who_holds_permits_leaves_the_last_ones_to_those_that_hold_none(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    permits = Permits(800)
    floods = [Purse() for _ in range(14)]
    for _ in range(2):
        for flood in floods:
            nursery.start_soon(permits.acquire, flood, 50)
        await wait_all_tasks_blocked()

    before = permits.statistics()
    with trio.fail_after(1.0):
        quiet = await permits.acquire(Purse(), 64)
        other = await permits.acquire(Purse(), 1)

    assert before == PermitStatistics(total=800, held=700, waiting=14)
    assert (quiet, other) == (FEW, 1)


async def test_who_waits_and_has_given_all_back_may_take_the_last_ones(nursery: trio.Nursery) -> None:
    permits = Permits(80)
    purse = Purse()
    await permits.acquire(Purse(), 70)
    await permits.acquire(purse, 3)
    nursery.start_soon(permits.acquire, purse, 2)
    await wait_all_tasks_blocked()
    before = purse.held
    permits.release(purse, 3)
    await wait_all_tasks_blocked()

    assert (before, purse.held) == (3, 2)


async def test_what_is_there_is_shared_among_those_who_wait(nursery: trio.Nursery) -> None:
    permits = Permits(640)
    holder = Purse()
    while permits.statistics().held < 640:
        await permits.acquire(holder if not holder.held else Purse(), 640)
    purses = [Purse() for _ in range(20)]
    for purse in purses:
        nursery.start_soon(permits.acquire, purse, 64)
    await wait_all_tasks_blocked()
    permits.release(holder, holder.held)
    await wait_all_tasks_blocked()

    assert min(purse.held for purse in purses) >= 24
    assert permits.statistics().waiting == 0


@given(st.data())
def test_everybody_in_line_is_served_whatever_comes_and_goes(data: st.DataObject) -> None:
    """As long as whoever holds permits gives them back in the end, with any others in between and any number asked for."""
    organizations = data.draw(st.integers(2, 12))
    total = data.draw(st.integers(1, 40))
    picks = data.draw(st.lists(st.tuples(st.integers(0, organizations - 1), st.integers(1, 64)), min_size=1, max_size=60))

    async def play() -> None:
        permits = Permits(total)
        purses = [Purse() for _ in range(organizations)]
        asking: set[int] = set()

        async def ask(who: int, n: int) -> None:
            asking.add(who)
            granted = await permits.acquire(purses[who], n)
            assert 1 <= granted <= n
            asking.discard(who)

        async with trio.open_nursery() as nursery:
            for who, n in picks:
                if who in asking:
                    permits.release(purses[who], purses[who].held)
                else:
                    nursery.start_soon(ask, who, n)
                await wait_all_tasks_blocked()
                assert sum(purse.held for purse in purses) == permits.statistics().held <= total
            for _ in range(organizations):  # one round: each gives back what it has and claims no more
                for purse in purses:
                    permits.release(purse, purse.held)
                await wait_all_tasks_blocked()
            assert not asking
            nursery.cancel_scope.cancel()

    trio.run(play)


async def test_a_thousand_that_ask_at_once_are_served_within_bounds(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Many organizations wake in one moment (scenario 31): never more held than there is, and nobody is left out."""
    permits = Permits(256)
    most = 0
    served: list[int] = []

    async def live(number: int) -> None:
        nonlocal most
        purse = Purse()
        granted = await permits.acquire(purse, 64)
        most = max(most, permits.statistics().held)
        await trio.sleep(0.1)
        permits.release(purse, granted)
        served.append(number)

    async with trio.open_nursery() as living:
        for number in range(1000):
            living.start_soon(live, number)

    assert most <= 256
    assert len(served) == 1000
    assert permits.statistics() == PermitStatistics(total=256, held=0, waiting=0)
    assert trio.current_time() <= 0.1 * (1000 / (256 / FEW) + 1)
