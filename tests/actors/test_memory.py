"""What makes the queue and the store in memory more than fakes: every operation can be interfered with, before and after it acts.

That they behave like Redis and Postgres otherwise is held by the conformance suites.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints

from actor_world import ACME, OTHER, ActorWorld
from actors.memory import ANNOUNCEMENTS_MAX, MemoryQueue, Moment
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase
from actors.ports import Arrival, Settlement
from dispatcher.errors import QueueUnavailable, StoreUnavailable
from dispatcher.model import Channel, NotificationId, OrganizationId

ID = NotificationId("0198c000-0000-7000-8000-000000000001")


class Away:
    """The server can not be asked, or its answers are lost."""

    def __init__(self, moment: Moment, error: type[Exception]) -> None:
        self.moment = moment
        self.error = error
        self.operations: list[str] = []

    async def __call__(self, operation: str, moment: Moment) -> None:
        if moment is self.moment:
            self.operations.append(operation)
            raise self.error(operation)


def queue(*woken: list[OrganizationId]) -> MemoryQueue:
    return MemoryQueue(lambda: 1000.0, lease_s=60.0, on_wake=woken[0].append if woken else lambda _: None)


@pytest.mark.parametrize(("moment", "acted"), [(Moment.BEFORE, False), (Moment.AFTER, True)])
async def test_a_queue_that_is_away_has_not_acted_and_one_whose_answer_is_lost_has(moment: Moment, acted: bool) -> None:
    memory = queue()
    memory.interrupt = away = Away(moment, QueueUnavailable)
    with pytest.raises(QueueUnavailable):
        await memory.enqueue([Arrival(ACME, [ID], [b"{}"])])

    assert (memory.holds(ACME)["queue"] == [ID]) is acted
    assert away.operations == ["enqueue"]


@pytest.mark.parametrize(("moment", "status"), [(Moment.BEFORE, "queued"), (Moment.AFTER, "sending")])
async def test_a_store_that_is_away_has_not_acted_and_one_whose_answer_is_lost_has(moment: Moment, status: str) -> None:
    world = ActorWorld()
    (id,) = await world.store_rows(1)
    await world.store.register(60.0)
    world.store.interrupt = Away(moment, StoreUnavailable)
    with pytest.raises(StoreUnavailable):
        await world.store.gate([id], frozenset(), again=False)

    assert world.row(id).status == status


async def test_every_operation_names_itself_and_is_interrupted_twice() -> None:
    seen: list[tuple[str, Moment]] = []

    async def note(operation: str, moment: Moment) -> None:
        seen.append((operation, moment))

    memory = queue()
    store = MemoryStore(MemoryDatabase(lambda: 1000.0), "incarnation", interrupt=note)
    memory.interrupt = note
    operations: dict[str, Coroutine[Any, Any, object]] = {
        "enqueue": memory.enqueue([]),
        "claim": memory.claim(ACME, 1),
        "settle": memory.settle([]),
        "unpark": memory.unpark(ACME, Channel.SMS, 1),
        "active": memory.active(1),
        "retire": memory.retire(ACME),
        "restore": memory.restore(ACME, []),
        "survived": memory.survived(),
        "insert": store.insert([], []),
        "known": store.known(ACME, []),
        "gate": store.gate([], frozenset(), again=False),
        "record": store.record([], again=False),
        "register": store.register(60.0),
        "renew_lease": store.renew_lease(60.0),
        "release_lease": store.release_lease(),
        "rescue": store.rescue(1),
        "hand_back": store.hand_back(ACME, {}),
        "disown": store.disown(ACME),
        "queued": store.queued(None, 0.0, 1),
        "hold_shards": store.hold_shards([0], 5.0, stays=True),
        "release_shards": store.release_shards([0]),
    }
    for name, operation in operations.items():
        seen.clear()
        await operation
        assert seen == [(name, Moment.BEFORE), (name, Moment.AFTER)]


async def test_an_operation_lets_others_run_and_cancelled_before_it_acts_it_does_nothing() -> None:
    memory = queue()
    with assert_checkpoints():
        await memory.claim(ACME, 1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await memory.enqueue([Arrival(ACME, [ID], ())])

    assert memory.holds(ACME)["queue"] == []


async def test_wake_ups_are_heard_when_a_queue_fills_and_when_ids_are_handed_back() -> None:
    woken: list[OrganizationId] = []
    memory = queue(woken)
    await memory.enqueue([Arrival(ACME, [ID], ())])
    await memory.enqueue([Arrival(ACME, [ID], ())])  # was not empty
    await memory.claim(ACME, 2)
    await memory.settle([Settlement(ACME, requeued=[ID])])
    await memory.restore(OTHER, [ID])
    await memory.restore(OTHER, [])

    assert woken == [ACME, ACME, OTHER]


async def test_a_lost_memory_is_lost_altogether() -> None:
    memory = queue()
    await memory.survived()
    await memory.enqueue([Arrival(ACME, [ID], [b"{}"])])
    memory.lose_memory()

    assert not any(memory.holds(ACME).values())
    assert memory.announced(ACME) == []
    assert await memory.active(10) == []
    assert not await memory.survived()


async def test_only_the_latest_announcements_are_kept() -> None:
    memory = queue()
    notices = [str(number).encode() for number in range(ANNOUNCEMENTS_MAX + 10)]
    await memory.enqueue([Arrival(ACME, [], notices)])

    assert memory.announced(ACME) == notices[10:]


async def test_leases_that_nobody_needs_any_more_are_forgotten() -> None:
    now_s = 1000.0
    database = MemoryDatabase(lambda: now_s)
    old, young = MemoryStore(database, "old"), MemoryStore(database, "young")
    await old.register(60.0)
    now_s += 2 * 3600.0
    await young.register(60.0)
    await young.rescue(10)

    assert set(database.leases) == {"young"}
