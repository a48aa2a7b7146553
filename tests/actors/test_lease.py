"""The lease: when calls may start, and when what was gated before no longer may."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

import pytest
import trio
from trio.testing import MockClock

from actors.lease import Lease
from actors.memory import Moment
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase
from actors.metrics import Metrics
from dispatcher.errors import StoreUnavailable
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId

LEASE_S = 60.0
CALL_S = 21.0
ME = "incarnation"


class World:
    def __init__(self) -> None:
        self.away = False
        self.answers_lost = False
        self.stall: Callable[[], Awaitable[None]] | None = None
        self.database = MemoryDatabase(trio.current_time)
        self.store = MemoryStore(self.database, ME, interrupt=self.interrupt)
        self.metrics = Metrics()
        self.lease = Lease(self.store, self.metrics, lease_s=LEASE_S, call_s=CALL_S, random=Random(1))

    async def interrupt(self, operation: str, moment: Moment) -> None:
        if moment is Moment.BEFORE:
            await trio.lowlevel.checkpoint()
            if self.stall is not None:
                await self.stall()
        if self.away or (self.answers_lost and moment is Moment.AFTER):
            raise StoreUnavailable("away")

    def remaining_s(self) -> float:
        return self.database.leases[ME] - trio.current_time()


def delivery(term: int) -> Delivery:
    return Delivery(NotificationId("n"), OrganizationId("acme"), Channel.EMAIL, "", {}, 1, 8, 0.0, None, term)


async def test_before_it_is_taken_nothing_may_start() -> None:
    assert not World().lease.holds


async def test_calls_may_start_until_one_whole_call_before_its_end(autojump_clock: MockClock) -> None:
    world = World()
    await world.lease.register()
    start = world.lease.holds
    await trio.sleep(LEASE_S - CALL_S - 0.1)
    late = world.lease.holds
    await trio.sleep(0.2)

    assert (start, late, world.lease.holds) == (True, True, False)
    assert world.remaining_s() > CALL_S - 0.2


async def test_it_is_counted_from_before_it_was_asked_for(autojump_clock: MockClock) -> None:
    """Postgres may have begun to count at any moment in between."""
    world = World()

    async def stall() -> None:
        await trio.sleep(10.0)

    world.stall = stall
    await world.lease.register()
    await trio.sleep(LEASE_S - CALL_S - 10.0)

    assert not world.lease.holds


async def test_a_renewal_as_well_is_counted_from_before_it_was_asked_for(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world = World()
    asked_s: list[float] = []

    async def stall() -> None:
        asked_s.append(trio.current_time())
        await trio.sleep(5.0)
        world.away = len(asked_s) > 2

    await world.lease.register()
    world.stall = stall
    nursery.start_soon(world.lease.run)
    await trio.sleep(LEASE_S)

    assert world.lease.start_until_s == asked_s[1] + LEASE_S - CALL_S


async def test_renewed_in_time_it_never_runs_out(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    world = World()
    await world.lease.register()
    nursery.start_soon(world.lease.run)
    for _ in range(100):
        await trio.sleep(7.0)
        assert world.lease.holds
        assert world.remaining_s() > LEASE_S / 2

    assert world.lease.covers(delivery(1))
    assert world.metrics.events["lease_lapsed"] == 0


async def test_several_renewals_in_a_row_may_fail(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    world = World()
    await world.lease.register()
    nursery.start_soon(world.lease.run)
    await trio.sleep(100.0)
    world.away = True
    await trio.sleep(25.0)
    during = world.lease.holds
    world.away = False
    await trio.sleep(15.0)

    assert during
    assert world.lease.holds
    assert world.metrics.events["lease_lapsed"] == 0


async def test_while_postgres_is_away_for_too_long_nothing_starts_any_more(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world = World()
    await world.lease.register()
    nursery.start_soon(world.lease.run)
    world.away = True
    await trio.sleep(LEASE_S - CALL_S + 0.1)
    stopped_in_time = not world.lease.holds and world.remaining_s() > CALL_S - 1.0
    await trio.sleep(100.0)

    assert stopped_in_time
    assert not world.lease.holds


async def test_after_a_lapse_it_is_taken_anew_and_covers_only_what_was_gated_since(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world = World()
    await world.lease.register()
    nursery.start_soon(world.lease.run)
    await trio.sleep(1.0)
    before = delivery(world.store.term)
    covered = world.lease.covers(before)
    world.away = True
    await trio.sleep(LEASE_S + 1.0)
    world.away = False
    await trio.sleep(15.0)

    assert covered
    assert world.lease.holds
    assert not world.lease.covers(before)
    assert world.lease.covers(delivery(world.store.term))
    assert world.metrics.events["lease_lapsed"] == 1


async def test_an_answer_that_was_lost_when_it_was_taken_anew_does_no_lasting_harm(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world = World()
    await world.lease.register()
    nursery.start_soon(world.lease.run)
    world.away = True
    await trio.sleep(LEASE_S + 1.0)
    world.away, world.answers_lost = False, True
    await trio.sleep(15.0)
    world.answers_lost = False
    await trio.sleep(15.0)

    assert world.lease.holds
    assert world.lease.covers(delivery(world.store.term))


async def test_it_can_not_be_taken_the_first_time_while_postgres_is_away() -> None:
    world = World()
    world.away = True

    with pytest.raises(StoreUnavailable):
        await world.lease.register()
    assert not world.lease.holds
