"""Every way in which an attempt can end without anybody knowing its effect is marked; what never began is not.

On the row (``unknowns``), in the timeline, and in a metric. The channel holds such notifications, so none is sent again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from actor_world import ACME, LEASE_S, ActorWorld, unix_s
from actors.io.http import MaybeSent
from actors.janitor import Janitor
from actors.memory_store import MemoryStore
from actors.ports import Arrival
from dispatcher.messages import Concluded, Event
from dispatcher.model import DeadLetterReason, NotificationId, Status
from dispatcher.outcome import OnUnknown

Way = Callable[[ActorWorld], Awaitable[NotificationId]]


def holding() -> ActorWorld:
    world = ActorWorld()
    world.configure(on_unknown=OnUnknown.HOLD, key_retention_s=None)
    return world


async def an_answer_that_never_comes(world: ActorWorld) -> NotificationId:
    async def conduct(_: NotificationId) -> int:
        raise MaybeSent("read", "timeout_read")

    world.provider.conduct = conduct
    (id,) = await world.accept(1)
    return id


async def an_answer_that_is_not_understood(world: ActorWorld) -> NotificationId:
    async def conduct(_: NotificationId) -> int:
        return 299

    world.provider.conduct = conduct
    (id,) = await world.accept(1)
    return id


async def an_actor_that_fails(world: ActorWorld) -> NotificationId:
    crashes = 1

    def dislikes(_: object, event: Event) -> bool:
        nonlocal crashes
        crashes -= isinstance(event, Concluded)
        return isinstance(event, Concluded) and crashes == 0

    world.dislikes = dislikes
    (id,) = await world.accept(1)
    return id


async def a_process_that_dies(world: ActorWorld) -> NotificationId:
    (id,) = await world.store_rows(1)
    dead = MemoryStore(world.database, "dead")
    await dead.register(LEASE_S)
    await dead.gate([id], frozenset(), again=False)
    await dead.release_lease()
    await Janitor(world.store, world.queue, world.metrics, sweep_s=15.0, random=world.random, unix_s=unix_s).rescue()
    world.organizations.wake(ACME)
    return id


@pytest.mark.parametrize(
    ("way", "calls", "code"),
    [
        (an_answer_that_never_comes, 1, "timeout_read"),
        (an_answer_that_is_not_understood, 1, "answer_not_understood"),
        (an_actor_that_fails, 1, "process_lost"),
        (a_process_that_dies, 0, "process_lost"),
    ],
)
async def test_an_unknown_effect_is_marked_everywhere_and_held(
    autojump_clock: MockClock, way: Way, calls: int, code: str
) -> None:
    world = holding()
    async with world.running():
        id = await way(world)
        await trio.sleep(2 * LEASE_S)
    row = world.row(id)
    counted = world.metrics.attempts["email", "unknown"] + world.metrics.events["rescued"]

    assert (row.unknowns, counted) == (1, 1)
    assert [(step.outcome, step.code) for step in world.database.timeline] == [("unknown", code)]
    assert world.provider.calls_of(id) == calls
    assert (row.status, row.reason) == (Status.FAILED, "unknown_held")
    assert world.database.dead_letters[id].reason is DeadLetterReason.UNKNOWN
    assert world.metrics.dead_letters["email", "unknown"] == 1


async def test_a_call_that_is_cut_off_by_the_end_of_its_process_is_marked_by_who_rescues_it(autojump_clock: MockClock) -> None:
    world = holding()

    async def conduct(_: NotificationId) -> int:
        await trio.sleep(3600.0)
        return 202

    world.provider.conduct = conduct
    async with world.running():
        (id,) = await world.accept(1)
        await trio.sleep(1.0)
    (row,) = [world.row(id)]
    assert (row.status, row.unknowns) == (Status.SENDING, 0)  # it ended without a word
    await world.store.release_lease()
    await MemoryStore(world.database, "next").rescue(10)

    assert (row.status, row.unknowns) == (Status.QUEUED, 1)
    assert [(step.outcome, step.code) for step in world.database.timeline] == [("unknown", "process_lost")]


async def test_what_never_began_is_not_marked(autojump_clock: MockClock) -> None:
    """Handed back by a drain, before anybody called for it."""
    world = holding()

    async def conduct(_: NotificationId) -> int:
        await trio.sleep(4.0)
        return 202

    world.provider.conduct = conduct
    async with world.running():
        ids = await world.accept(10)
        await trio.sleep(1.0)
        await world.organizations.drain()

    assert sum(world.provider.calls_of(id) for id in ids) == 4
    assert sum(world.row(id).unknowns for id in ids) == 0
    assert world.statuses(ids) == {"delivered", "queued"}


async def test_an_item_rescued_after_the_providers_memory_of_its_key_is_held_and_never_silently_sent_again(
    autojump_clock: MockClock,
) -> None:
    """However late the rescue: the key's age counts from the attempt (scenario 6)."""
    world = ActorWorld()
    world.configure(key_retention_s=3600.0)
    early, late = await world.store_rows(2)
    dead = MemoryStore(world.database, "dead")
    await dead.register(LEASE_S)
    await dead.gate([late], frozenset(), again=False)
    await trio.sleep(3500.0)
    await dead.register(LEASE_S)
    await dead.gate([early], frozenset(), again=False)
    await trio.sleep(100.0)
    async with world.running():
        rescued = await world.store.rescue(10)
        await world.queue.enqueue([Arrival(ACME, [row.id for row in rescued], ())])
        world.organizations.wake(ACME)
        await trio.sleep(60.0)

    assert (world.row(early).status, world.provider.calls_of(early)) == (Status.DELIVERED, 1)
    assert (world.row(late).reason, world.provider.calls_of(late)) == ("key_retention_passed", 0)
    assert world.database.dead_letters[late].reason is DeadLetterReason.UNKNOWN
