"""Batches that a slow Postgres can not take in time become smaller until it can. On the in-memory ports and a virtual clock."""

from __future__ import annotations

from random import Random

import pytest
import trio
import trio.testing

from actor_world import ACME, ActorWorld, unix_s
from actors.ledger import RETRY_CAP_S, ROWS_MIN, TIMEOUTS_MAX, Ledger
from dispatcher.errors import StoreTimedOut, StoreUnavailable
from dispatcher.messages import Event, Gated


class SlowDesk:
    """A ledger on a store whose gate takes so many ids in time."""

    def __init__(self, takes: int, error: type[StoreUnavailable] = StoreTimedOut) -> None:
        self.world = ActorWorld()
        self.sizes: list[int] = []
        self.told: list[Event] = []
        self.takes = takes
        gate = self.world.store.gate

        async def slow(ids, *ways, again):  # type: ignore[no-untyped-def]
            self.sizes.append(len(ids))
            if len(ids) > self.takes:
                await trio.sleep(10)
                raise error("Postgres did not answer within 10 s")
            return await gate(ids, *ways, again=again)

        self.world.store.gate = slow  # type: ignore[method-assign]
        self.ledger = Ledger(
            self.world.store,
            self.world.queue,
            self.world.metrics,
            tick_s=0.01,
            rows_max=500,
            pending_max=10_000,
            unix_s=unix_s,
            random=Random(1),
        )

    def passed(self) -> int:
        return sum(len(event.deliveries) for event in self.told if isinstance(event, Gated))


@pytest.mark.parametrize("takes", [ROWS_MIN, 120, 399])
async def test_a_batch_that_is_too_much_is_halved_until_it_is_not(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, takes: int
) -> None:
    desk = SlowDesk(takes)
    await desk.world.lease.register()
    for part in (desk.ledger.run, desk.world.lease.run):
        nursery.start_soon(part)
    ids = await desk.world.store_rows(400)
    desk.ledger.gate(ACME, ids, frozenset(), desk.told.append)
    await trio.sleep(600)

    assert desk.passed() == 400
    assert desk.sizes[:TIMEOUTS_MAX] == [400] * TIMEOUTS_MAX
    assert max(desk.sizes[TIMEOUTS_MAX:]) == 200
    assert sum(size > takes for size in desk.sizes) <= 3 * TIMEOUTS_MAX  # what is too much is known after that
    assert desk.world.metrics.events["row_refused"] == 0


async def test_once_postgres_is_quick_again_batches_grow_to_what_they_were(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    desk = SlowDesk(takes=60)
    await desk.world.lease.register()
    for part in (desk.ledger.run, desk.world.lease.run):
        nursery.start_soon(part)
    desk.ledger.gate(ACME, await desk.world.store_rows(400), frozenset(), desk.told.append)
    await trio.sleep(600)
    desk.takes = 1000
    for _ in range(20):
        desk.ledger.gate(ACME, await desk.world.store_rows(400), frozenset(), desk.told.append)
        await trio.sleep(10)

    assert desk.passed() == 21 * 400
    assert desk.sizes[-1] == 400


async def test_an_absence_makes_no_batch_smaller(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    desk = SlowDesk(takes=0, error=StoreUnavailable)
    await desk.world.lease.register()
    for part in (desk.ledger.run, desk.world.lease.run):
        nursery.start_soon(part)
    ids = await desk.world.store_rows(400)
    desk.ledger.gate(ACME, ids, frozenset(), desk.told.append)
    await trio.sleep(100)
    desk.takes = 1000
    await trio.sleep(10 + RETRY_CAP_S)

    assert set(desk.sizes) == {400}
    assert desk.passed() == 400
