"""The janitor: what crashes and lost memories leave behind is put back."""

from __future__ import annotations

import logging

import orjson
import pytest
import trio
from trio.testing import MockClock

from actor_world import ACME, LEASE_S, OTHER, ActorWorld, Operations, unix_s
from actors.janitor import GRACE_S, Janitor
from actors.memory import Moment
from actors.memory_store import MemoryStore
from actors.ports import RESCUES_MAX, Arrival
from dispatcher.backoff import RESCUE_FIRST_S, rescue_delay_s
from dispatcher.errors import QueueUnavailable, StoreUnavailable
from dispatcher.messages import Verdict
from dispatcher.model import NotificationId, Status
from dispatcher.outcome import Outcome, OutcomeClass

SWEEP_S = 15.0


def janitor(world: ActorWorld) -> Janitor:
    return Janitor(world.store, world.queue, world.metrics, sweep_s=SWEEP_S, random=world.random, unix_s=unix_s)


async def sent_by_a_dead_process(world: ActorWorld, ids: list[NotificationId]) -> None:
    """They passed the gate of an incarnation that is gone."""
    dead = MemoryStore(world.database, "dead")
    await dead.register(LEASE_S)
    await dead.gate(ids, frozenset(), again=False)
    await dead.release_lease()


async def queued_in(world: ActorWorld, ids: list[NotificationId], retry_in_s: float) -> None:
    """They are queued again, due in a while; the queue does not know them."""
    await world.store.register(10 * LEASE_S)
    gated = await world.store.gate(ids, frozenset(), again=False)
    outcome = Outcome(OutcomeClass.SOFT, "http_503")
    await world.store.record(
        [Verdict(d, outcome, None, Status.QUEUED, retry_in_s=retry_in_s) for d in gated[ACME].deliveries], again=False
    )


async def test_attempts_of_a_dead_process_are_queued_again_and_announced(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    ids, theirs = await world.store_rows(3), await world.store_rows(2, OTHER)
    await sent_by_a_dead_process(world, [*ids, *theirs])
    await janitor(world).rescue()

    assert world.statuses([*ids, *theirs]) == {"queued"}
    assert sorted(world.queue.holds(ACME)["delayed"]) == ids
    assert sorted(world.queue.holds(OTHER)["delayed"]) == theirs
    assert all(b'"notification.retrying"' in notice for notice in world.queue.announced(ACME))
    assert world.metrics.events["rescued"] == 5


async def test_what_was_rescued_is_begun_one_after_the_other_and_not_when_the_next_sweep_looks(
    autojump_clock: MockClock,
) -> None:
    """What killed their process meets few of the others again (scenario 20)."""
    world = ActorWorld()
    world.queue.on_wake = world.organizations.wake
    ids = await world.store_rows(10)
    await sent_by_a_dead_process(world, ids)
    async with world.running():
        await janitor(world).rescue()
        began_s = trio.current_time()
        await trio.sleep(RESCUE_FIRST_S + 1.0)
    waited_s = {id: called_s - began_s for id, called_s in world.provider.called}

    assert world.statuses(ids) == {"delivered"}
    assert waited_s == {id: pytest.approx(rescue_delay_s(id, 0, None, survived=False), abs=0.1) for id in ids}


@pytest.mark.parametrize("operation", ["settle", "enqueue"])
async def test_what_redis_did_not_take_of_a_rescue_is_found_by_the_walk(autojump_clock: MockClock, operation: str) -> None:
    world = ActorWorld()
    ids = await world.store_rows(3)
    await sent_by_a_dead_process(world, ids)
    world.queue.interrupt = operations = Operations()

    async def away() -> None:
        operations.on.clear()
        raise QueueUnavailable("away")

    operations.on[operation, Moment.BEFORE] = away
    async with world.running() as nursery:
        nursery.start_soon(janitor(world).run)
        await trio.sleep(GRACE_S + RESCUE_FIRST_S + 4 * SWEEP_S)

    assert world.statuses(ids) == {"delivered"}


async def test_attempts_of_a_living_process_are_left_alone(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    ids = await world.store_rows(3)
    await world.store.register(LEASE_S)
    await world.store.gate(ids, frozenset(), again=False)
    await janitor(world).mend()

    assert world.statuses(ids) == {"sending"}
    assert not world.queue.holds(ACME)["queue"]


async def test_what_died_too_often_is_announced_as_failed_and_not_queued(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    (id,) = await world.store_rows(1)
    world.row(id).rescues = RESCUES_MAX
    await sent_by_a_dead_process(world, [id])
    await janitor(world).rescue()

    assert world.row(id).status == "failed"
    assert not world.queue.holds(ACME)["queue"]
    (notice,) = world.queue.announced(ACME)
    assert b'"poison"' in notice


async def test_a_queue_that_lost_its_memory_is_filled_again_with_everything_that_is_queued(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    world = ActorWorld()
    sweeper = janitor(world)
    await sweeper.mend()
    ready, waiting = await world.store_rows(3), await world.store_rows(2)
    await queued_in(world, waiting, retry_in_s=500.0)
    world.queue.lose_memory()
    with caplog.at_level(logging.WARNING):
        await sweeper.mend()
    holds = world.queue.holds(ACME)

    assert (holds["queue"], holds["delayed"]) == (ready, waiting)
    assert world.metrics.events["reseeded"] == 5
    assert "knew nothing of 5" in caplog.text
    due = await world.queue.claim(ACME, 0)
    assert due.due_in_s == pytest.approx(500.0, abs=0.01)


@pytest.mark.parametrize("operation", ["queued", "settle", "enqueue"])
async def test_a_filling_that_was_interrupted_is_done_again(autojump_clock: MockClock, operation: str) -> None:
    """The queue says only once that it lost its memory."""
    world = ActorWorld()
    world.store.interrupt = world.queue.interrupt = operations = Operations()
    sweeper = janitor(world)
    ready, waiting = await world.store_rows(3), await world.store_rows(2)
    await queued_in(world, waiting, retry_in_s=500.0)

    async def away() -> None:
        operations.on.clear()
        raise StoreUnavailable("away") if operation == "queued" else QueueUnavailable("away")

    operations.on[operation, Moment.BEFORE] = away
    with pytest.raises((StoreUnavailable, QueueUnavailable)):
        await sweeper.mend()
    await sweeper.mend()
    holds = world.queue.holds(ACME)

    assert (sorted(set(holds["queue"])), holds["delayed"]) == (ready, waiting)


async def test_what_the_queue_lost_alone_is_put_back_after_a_grace(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    sweeper = janitor(world)
    await sweeper.mend()
    lost = await world.store_rows(3)
    await sweeper.mend()
    early = world.queue.holds(ACME)["queue"]
    await trio.sleep(GRACE_S + 1.0)
    known = await world.accept(1, OTHER, wake=False)
    await sweeper.mend()

    assert early == []
    assert world.queue.holds(ACME)["queue"] == lost
    assert world.queue.holds(OTHER)["queue"] == known
    assert world.metrics.events["restored"] == 3


async def test_a_retry_that_the_queue_lost_is_put_back_a_grace_after_it_was_due(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    sweeper = janitor(world)
    await sweeper.mend()
    ids = await world.store_rows(1)
    await queued_in(world, ids, retry_in_s=100.0)
    await trio.sleep(100.0 + GRACE_S - 1.0)
    await sweeper.mend()
    early = world.queue.holds(ACME)["queue"]
    await trio.sleep(2.0)
    await sweeper.mend()

    assert early == []
    assert world.queue.holds(ACME)["queue"] == ids


async def test_what_waits_in_the_queue_for_long_is_not_queued_twice(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    sweeper = janitor(world)
    await sweeper.mend()
    ids = await world.accept(5, wake=False)
    for _ in range(5):
        await trio.sleep(GRACE_S)
        await sweeper.mend()

    assert world.queue.holds(ACME)["queue"] == ids
    assert world.metrics.events["restored"] == 0


async def test_the_walk_over_old_rows_reaches_all_of_them_in_turns(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.janitor.ROWS_MAX", 4)
    world = ActorWorld()
    sweeper = janitor(world)
    await sweeper.mend()
    ids = await world.store_rows(10)
    await world.queue.enqueue([Arrival(ACME, ids[:1] + ids[4:5] + ids[8:9], ())])
    held = list((await world.queue.claim(ACME, 100)).ids)
    await trio.sleep(GRACE_S + 1.0)
    restored: list[NotificationId] = []
    for _ in range(3):
        await sweeper.mend()
        restored.extend((await world.queue.claim(ACME, 100)).ids)

    assert sorted(restored + held) == ids
    assert world.metrics.events["restored"] == 7


async def test_when_a_whole_page_is_lost_everything_is_put_back_at_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.janitor.ROWS_MAX", 4)
    world = ActorWorld()
    sweeper = janitor(world)
    await sweeper.mend()
    ids = await world.store_rows(50)
    await trio.sleep(GRACE_S + 1.0)
    await sweeper.mend()

    assert set((await world.queue.claim(ACME, 1_000)).ids) == set(ids)


async def test_all_dead_attempts_are_rescued_in_one_round_however_many(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.janitor.ROWS_MAX", 4)
    world = ActorWorld()
    ids = await world.store_rows(10)
    await sent_by_a_dead_process(world, ids)
    await janitor(world).rescue()

    assert world.statuses(ids) == {"queued"}


async def test_it_goes_on_after_a_server_was_away(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.store.interrupt = world.queue.interrupt = operations = Operations()

    async def away() -> None:
        raise StoreUnavailable("away")

    async def queue_away() -> None:
        raise QueueUnavailable("away")

    operations.on["rescue", Moment.BEFORE] = away
    operations.on["survived", Moment.BEFORE] = queue_away
    nursery.start_soon(janitor(world).run)
    ids = await world.store_rows(2)
    await trio.sleep(100.0)
    del operations.on["rescue", Moment.BEFORE]
    await trio.sleep(100.0)
    operations.on.clear()
    await trio.sleep(2 * SWEEP_S)

    assert world.queue.holds(ACME)["queue"] == ids
    assert 8 <= operations.count("rescue") <= 40


async def test_two_janitors_at_once_do_no_harm(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    ids = await world.store_rows(20)
    await sent_by_a_dead_process(world, ids[:10])
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(janitor(world).mend)
    holds = world.queue.holds(ACME)

    assert world.statuses(ids) == {"queued"}
    assert set(holds["queue"]) == set(ids[10:])
    assert set(holds["delayed"]) == set(ids[:10])
    assert all(world.row(id).rescues == 1 for id in ids[:10])


async def test_what_nobody_could_claim_in_time_is_given_up_and_announced(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    late = await world.store_rows(3, expires_in_s=5.0)
    kept = await world.store_rows(2, expires_in_s=500.0)
    await trio.sleep(10.0)
    await janitor(world).mend()
    await janitor(world).mend()

    assert (world.statuses(late), world.statuses(kept)) == ({"failed"}, {"queued"})
    told = [orjson.loads(event) for event in world.queue.announced(ACME)]
    assert [(event["id"], event["reason"]) for event in told] == [(id, "expired") for id in late]
    assert world.metrics.dead_letters["email", "expired"] == 3


async def test_what_redis_lost_is_put_back_into_its_own_lane(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    ids = await world.store_rows(6)
    await queued_in(world, ids[3:], 60.0)
    for id in (*ids[1:3], *ids[4:]):
        world.row(id).bulk = True
    await janitor(world).reseed()  # as after the loss of everything

    assert world.queue.holds(ACME)["queue"] == ids[:1]
    assert world.queue.holds(ACME)["bulk"] == ids[1:3]
    await trio.sleep(61.0)
    await world.queue.claim(ACME, 0)
    assert sorted(world.queue.holds(ACME)["bulk"]) == sorted([*ids[1:3], *ids[4:]])
    world.queue.lose_memory()
    await janitor(world).restore()  # of those that have waited for long
    assert world.queue.holds(ACME)["bulk"] == ids[1:3]


async def test_what_is_rescued_goes_on_in_its_own_lane(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    ids = await world.store_rows(3)
    world.row(ids[1]).bulk = True
    await sent_by_a_dead_process(world, ids)
    await janitor(world).rescue()
    await trio.sleep(RESCUE_FIRST_S + 1.0)
    await world.queue.claim(ACME, 0)

    assert sorted(world.queue.holds(ACME)["queue"]) == [ids[0], ids[2]]
    assert world.queue.holds(ACME)["bulk"] == [ids[1]]
