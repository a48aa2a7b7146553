"""The actor of one organization: it carries out what its core decides, on the virtual clock and with everything in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actor_world import ACME, CALL_S, EPOCH_S, IDLE_S, IN_FLIGHT_MAX, LEASE_S, SWEEP_S, ActorWorld, Operations, order_of
from actors.memory import Moment
from actors.permits import PermitStatistics, Purse
from dispatcher.errors import QueueUnavailable, StoreUnavailable
from dispatcher.messages import Woken
from dispatcher.model import Channel, NotificationId, OrganizationId


async def hang() -> None:
    await trio.sleep_forever()


def fails(times: int, error: Callable[[str], Exception]) -> Callable[[], Awaitable[None]]:
    """Fails so often, then works."""
    left = times

    async def fail() -> None:
        nonlocal left
        if left > 0:
            left -= 1
            raise error("away")

    return fail


async def test_what_is_accepted_is_delivered_and_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    async with world.running():
        ids = await world.accept(50)
        await trio.sleep(5.0)

    assert world.statuses(ids) == {"delivered"}
    assert [world.provider.calls_of(id) for id in ids] == [1] * 50
    assert not any(world.queue.holds(ACME).values())
    assert len(world.queue.announced(ACME)) == 50
    assert world.permits.statistics() == PermitStatistics(total=64, held=0, waiting=0)


async def test_calls_begin_in_the_order_of_arrival_and_no_more_at_once_than_configured(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    async with world.running():
        await world.accept(30)
        await trio.sleep(5.0)

    assert [order_of(id) for id, _ in world.provider.called] == list(range(1, 31))
    assert world.provider.at_once_max == 4


async def test_a_retry_is_made_when_it_is_due_and_not_by_the_sweep(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    tries: list[int] = [503, 503, 202]

    async def conduct(_: NotificationId) -> int:
        return tries.pop(0)

    world.provider.conduct = conduct
    async with world.running():
        (id,) = await world.accept(1)
        await trio.sleep(7.0)
    retries = [row.next_retry_at_s for row in world.database.timeline]

    assert world.row(id).status == "delivered"
    assert world.row(id).attempts == 3
    for due_s, (_, called_s) in zip(retries, world.provider.called[1:], strict=True):
        assert due_s is not None
        assert due_s - 0.01 <= 1_700_000_000.0 + called_s <= due_s + 0.1


async def test_of_many_retries_each_is_made_when_it_is_due(autojump_clock: MockClock) -> None:
    """A timer set for one does not make another late."""
    world = ActorWorld()
    tried: set[NotificationId] = set()

    async def conduct(id: NotificationId) -> int:
        await trio.sleep(0.05 * (order_of(id) % 4))  # so that their timers are set one after the other
        first = id not in tried
        tried.add(id)
        return 503 if first else 202

    world.provider.conduct = conduct
    async with world.running():
        ids = [id for name in ("a", "b", "c") for id in await world.accept(3, OrganizationId(name))]
        await trio.sleep(SWEEP_S / 2)
    due_s = {row.notification_id: row.next_retry_at_s for row in world.database.timeline}
    last_s = dict(world.provider.called)

    assert world.statuses(ids) == {"delivered"}
    for id in ids:
        assert due_s[id] is not None
        assert EPOCH_S + last_s[id] - (due_s[id] or 0.0) < 0.15


async def test_a_timer_that_is_moved_forward_wakes_nobody_early(autojump_clock: MockClock) -> None:
    """One claim finds the work, one looks for more, one comes with the timer; nothing turns in circles."""
    world = ActorWorld()
    operations = world.queue.interrupt = Operations()
    answers = [503, 202]

    async def conduct(_: NotificationId) -> int:
        return answers.pop(0)

    world.provider.conduct = conduct
    async with world.running():
        await world.accept(1)
        await trio.sleep(6.0)

    assert not answers
    assert operations.count("claim") <= 5


async def test_a_failure_for_good_and_an_exhausted_one_become_dead_letters(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    async with world.running():
        hard, soft = await world.accept(2)

        async def conduct(id: NotificationId) -> int:
            return 400 if id == hard else 503

        world.provider.conduct = conduct
        await trio.sleep(1000.0)

    assert {world.database.dead_letters[id].reason.value for id in (hard, soft)} == {"hard", "exhausted"}
    assert world.row(soft).attempts == 8


# --- limits ---------------------------------------------------------------------------------------------------------------


async def test_no_more_is_held_than_there_are_permits_for(autojump_clock: MockClock) -> None:
    world = ActorWorld(permits=3)
    held: list[int] = []

    async def conduct(_: NotificationId) -> int:
        held.append(world.permits.statistics().held)
        await trio.sleep(0.1)
        return 202

    world.provider.conduct = conduct
    async with world.running():
        ids = await world.accept(20)
        await trio.sleep(20.0)

    assert world.statuses(ids) == {"delivered"}
    assert max(held) == 3
    assert world.permits.statistics().held == 0


async def test_nothing_is_claimed_while_no_call_could_begin(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.store.interrupt = operations = Operations()
    operations.on["renew_lease", Moment.BEFORE] = fails(1000, StoreUnavailable)
    async with world.running():
        await trio.sleep(LEASE_S - CALL_S + 1)
        ids = await world.accept(3)
        await trio.sleep(5.0)
        waiting = world.queue.holds(ACME)["queue"]
        operations.on.clear()
        await trio.sleep(20.0)

    assert waiting == ids
    assert world.statuses(ids) == {"delivered"}


async def test_an_open_breaker_parks_what_waits_and_calls_it_back_when_it_closes(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    healed_at_s = 12.0

    async def conduct(_: NotificationId) -> int:
        await trio.sleep(0.1)
        return 503 if trio.current_time() < healed_at_s else 202

    world.provider.conduct = conduct
    async with world.running():
        ids = await world.accept(40)
        await trio.sleep(5.0)
        calls_while_open = len(world.provider.called)
        await trio.sleep(100.0)

    assert calls_while_open <= 8
    assert world.statuses(ids) == {"delivered"}
    assert any(b"channel.breaker_opened" in notice for notice in world.queue.announced(ACME))
    assert sum(world.row(id).attempts for id in ids) == len(world.provider.called)


async def test_a_channel_without_a_provider_does_not_stand_in_the_way_of_another(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    async with world.running():
        texts = await world.accept(30, channel=Channel.SMS)
        mails = await world.accept(5)
        await trio.sleep(5.0)

    assert world.statuses(mails) == {"delivered"}
    assert world.statuses(texts) == {"queued"}
    assert [world.row(id).attempts for id in texts] == [0] * 30
    assert world.queue.holds(ACME)["parked:sms"] == texts


# --- servers that are away --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["claim", "unpark", "settle"])
@pytest.mark.parametrize("moment", Moment)
async def test_redis_being_away_costs_time_and_nothing_else(autojump_clock: MockClock, operation: str, moment: Moment) -> None:
    world = ActorWorld()
    world.queue.interrupt = operations = Operations()
    operations.on[operation, moment] = fails(8, QueueUnavailable)
    async with world.running():
        ids = await world.accept(10)
        await trio.sleep(3 * LEASE_S)

    assert world.statuses(ids) == {"delivered"}
    assert [world.provider.calls_of(id) for id in ids] == [1] * 10
    assert operations.count(operation) < 40  # asked again and again, but not in a circle


@pytest.mark.parametrize("what", [("claim", "unpark"), ("claim",), ("unpark",), ("settle",)])
async def test_while_redis_is_away_it_is_asked_now_and_then_and_not_in_a_circle(
    autojump_clock: MockClock, what: tuple[str, ...]
) -> None:
    world = ActorWorld()
    world.queue.interrupt = operations = Operations()

    async def away() -> None:
        assert sum(operations.counts.values()) < 1000
        raise QueueUnavailable("away")

    for operation in what:
        operations.on[operation, Moment.BEFORE] = away
    async with world.running():
        await world.accept(1)
        await trio.sleep(60.0)

    for operation in what:
        assert 20 < operations.count(operation) < 150


@pytest.mark.parametrize("operation", ["gate", "record"])
@pytest.mark.parametrize("moment", Moment)
async def test_postgres_being_away_costs_time_and_nothing_else(autojump_clock: MockClock, operation: str, moment: Moment) -> None:
    world = ActorWorld()
    world.store.interrupt = operations = Operations()
    operations.on[operation, moment] = fails(5, StoreUnavailable)
    async with world.running():
        ids = await world.accept(10)
        await trio.sleep(3 * LEASE_S)

    assert world.statuses(ids) == {"delivered"}
    assert [world.provider.calls_of(id) for id in ids] == [1] * 10
    assert world.metrics.events["actor_restart"] == 0


async def test_configurations_are_asked_for_until_they_can_be_read(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    good, failures = world.load, 3

    async def load() -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise StoreUnavailable("away")
        return await good()

    world.load = load  # type: ignore[method-assign]
    async with world.running():
        ids = await world.accept(1)
        await trio.sleep(8.0)

    assert world.statuses(ids) == {"delivered"}


# --- a change of configuration ----------------------------------------------------------------------------------------------


async def test_a_changed_configuration_is_in_force_at_once_for_what_has_not_begun(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.configure(concurrency_max=1)
    began = trio.Event()

    async def conduct(_: NotificationId) -> int:
        began.set()
        await trio.sleep(3.0)
        return 202

    world.provider.conduct = conduct
    async with world.running():
        ids = await world.accept(10)
        await began.wait()
        world.configure(concurrency_max=8, config_id="c-new")
        world.organizations.changed(ACME)
        await trio.sleep(7.0)
    configurations = [world.row(id).provider_config_id for id in ids]

    assert world.statuses(ids) == {"delivered"}
    assert [world.provider.calls_of(id) for id in ids] == [1] * 10
    assert [world.row(id).attempts for id in ids] == [1] * 10
    assert configurations == ["c-mail"] + ["c-new"] * 9


async def test_a_change_drops_the_cache(autojump_clock: MockClock) -> None:
    world = ActorWorld()

    async def template() -> str:
        return "compiled"

    async with world.running():
        actor = world.organizations.get(ACME)
        assert actor is not None
        await actor.cache.get("template", template)
        world.organizations.changed(ACME)

        assert actor.cache.peek("template") is None


async def test_of_two_loads_the_later_is_believed(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    answers = [(5.0, 1), (1.0, 8)]
    good = world.load

    async def load() -> Any:
        delay_s, concurrency_max = answers.pop(0)
        await trio.sleep(delay_s)
        world.configure(concurrency_max=concurrency_max)
        return await good()

    world.load = load  # type: ignore[method-assign]
    async with world.running():
        world.organizations.wake(ACME)
        await trio.sleep(1.0)
        world.organizations.changed(ACME)
        await trio.sleep(10.0)
        (actor,) = world.organizations.alive()
        (state,) = actor.core.routes.states.values()

    assert state.policy.concurrency_max == 8


# --- draining ---------------------------------------------------------------------------------------------------------------


async def test_a_drain_lets_calls_end_hands_back_the_rest_and_then_nothing_is_held(autojump_clock: MockClock) -> None:
    world = ActorWorld()

    async def conduct(_: NotificationId) -> int:
        await trio.sleep(4.0)
        return 202

    world.provider.conduct = conduct
    async with world.running():
        ids = await world.accept(30)
        await trio.sleep(1.0)
        await world.organizations.drain()
        drained_at_s = trio.current_time()
        rows = [world.row(id) for id in ids]
        holds = world.queue.holds(ACME)
        await world.accept(3)
        await trio.sleep(30.0)

    assert drained_at_s == pytest.approx(4.0, abs=0.5)
    assert [row.status.value for row in rows[:4]] == ["delivered"] * 4
    assert [(row.status.value, row.attempts) for row in rows[4:]] == [("queued", 0)] * 26
    assert holds["queue"] == ids[4:]
    assert not holds["inflight"]
    assert len(world.provider.called) == 4


async def test_a_drain_waits_for_a_claim_under_way_and_hands_back_what_it_brings(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.queue.interrupt = operations = Operations()

    async def slow() -> None:
        await trio.sleep(3.0)

    operations.on["claim", Moment.AFTER] = slow
    async with world.running():
        ids = await world.accept(5)
        await trio.sleep(1.0)
        await world.organizations.drain()
        holds = world.queue.holds(ACME)

    assert holds["queue"] == ids
    assert not holds["inflight"]
    assert world.provider.called == []


async def test_a_claim_that_waits_for_permits_is_not_made_after_a_drain_began(autojump_clock: MockClock) -> None:
    world = ActorWorld(permits=1)
    world.queue.interrupt = operations = Operations()
    elsewhere = Purse()
    await world.permits.acquire(elsewhere, 1)
    async with world.running():
        await world.accept(5)
        await trio.sleep(1.0)
        await world.organizations.drain()
        world.permits.release(elsewhere, 1)
        await trio.sleep(1.0)

    assert operations.count("claim") == 0
    assert world.permits.statistics().held == 0


# --- cancellation -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["claim", "gate", "call", "record", "settle", "unpark", "retire"])
@pytest.mark.parametrize("moment", Moment)
async def test_cancelled_anywhere_it_gives_every_permit_back(autojump_clock: MockClock, where: str, moment: Moment) -> None:
    world = ActorWorld()
    world.queue.interrupt = world.store.interrupt = operations = Operations()
    operations.on[where, moment] = hang
    if where == "call":

        async def conduct(_: NotificationId) -> int:
            await trio.sleep_forever()
            raise AssertionError

        world.provider.conduct = conduct
    async with world.running() as organizations:
        await world.accept(IN_FLIGHT_MAX)
        await trio.sleep(2 * IDLE_S)
        organizations.cancel_scope.cancel()

    assert world.permits.statistics() == PermitStatistics(total=64, held=0, waiting=0)


async def test_what_is_told_to_an_actor_that_has_ended_is_ignored(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    async with world.running():
        await world.accept(1)
        await trio.sleep(1.0)
        (actor,) = world.organizations.alive()
    calls = len(world.provider.called)
    actor.tell(Woken())

    assert len(world.provider.called) == calls
