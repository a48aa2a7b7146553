"""The registry: one actor per organization, started on demand, put to sleep, mended after a crash, quarantined when it must."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actor_world import ACME, BUDGET, IDLE_S, LEASE_S, OTHER, SWEEP_S, ActorWorld, Operations
from actors.memory import Moment
from actors.organizations import QUARANTINE_S
from dispatcher.backoff import RESCUE_FIRST_S
from dispatcher.errors import QueueUnavailable, StoreUnavailable
from dispatcher.messages import Concluded, Event, Gated, Settled
from dispatcher.model import NotificationId, OrganizationId
from dispatcher.outcome import OnUnknown


class Crashes:
    """Dislikes the first so many events of one type that one organization hears."""

    def __init__(self, event_type: type[Event], times: int = 1, organization_id: OrganizationId = ACME) -> None:
        self.event_type = event_type
        self.left = times
        self.organization_id = organization_id

    def __call__(self, organization_id: OrganizationId, event: Event) -> bool:
        if organization_id != self.organization_id or not isinstance(event, self.event_type) or self.left <= 0:
            return False
        self.left -= 1
        return True


# --- living and sleeping ----------------------------------------------------------------------------------------------------


async def test_an_organization_lives_from_its_first_wake_up_until_it_was_idle_for_long_enough(
    autojump_clock: MockClock,
) -> None:
    world = ActorWorld()
    async with world.running():
        before = world.organizations.alive()
        await world.accept(1)
        await trio.sleep(IDLE_S - 5.0)
        during = world.organizations.alive()
        await trio.sleep(10.0)
        after = world.organizations.alive()

    assert before == []
    assert [actor.organization_id for actor in during] == [ACME]
    assert after == []


async def test_what_it_hears_keeps_an_organization_awake(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    async with world.running():
        for _ in range(5):
            await world.accept(1)
            await trio.sleep(IDLE_S - 5.0)
        alive = world.organizations.alive()

    assert len(alive) == 1
    assert len(world.made) == 1
    assert world.loads == 1


async def test_an_organization_at_work_is_not_put_to_sleep(autojump_clock: MockClock) -> None:
    world = ActorWorld()

    async def conduct(_: NotificationId) -> int:
        await trio.sleep(5 * IDLE_S)
        return 202

    world.provider.conduct = conduct
    async with world.running():
        ids = await world.accept(1)
        await trio.sleep(6 * IDLE_S)

    assert world.statuses(ids) == {"delivered"}
    assert len(world.made) == 1


async def test_a_sleeping_organization_wakes_for_its_next_notification(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    async with world.running():
        await world.accept(1)
        await trio.sleep(2 * IDLE_S)
        ids = await world.accept(1)
        await trio.sleep(1.0)

    assert world.statuses(ids) == {"delivered"}
    assert len(world.made) == 2


async def test_a_sleeping_organization_wakes_for_a_retry_that_is_due(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.configure()
    answers = [429, 202]

    async def conduct(_: NotificationId) -> int:
        return answers.pop(0)

    world.provider.conduct = conduct
    world.queue.interrupt = operations = Operations()
    async with world.running():
        (id,) = await world.accept(1)
        await trio.sleep(10 * IDLE_S)

    assert world.row(id).status == "delivered"
    assert operations.count("retire") >= 1


@pytest.mark.parametrize("checkpoints", range(8))
async def test_a_wake_up_during_the_falling_asleep_is_not_lost(autojump_clock: MockClock, checkpoints: int) -> None:
    """Before the registry lets go the actor stays, afterwards another one starts, and never are there two."""
    world = ActorWorld()
    world.queue.interrupt = operations = Operations()
    ids: list[NotificationId] = []

    async def wake_later() -> None:
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        world.organizations.wake(ACME)

    async with world.running() as nursery:

        async def wake() -> None:
            operations.on.clear()
            ids.extend(await world.accept(1, wake=False))
            nursery.start_soon(wake_later)

        operations.on["retire", Moment.AFTER] = wake
        await world.accept(1)
        await trio.sleep(IDLE_S + 1.0)
        alive = world.organizations.alive()
        await trio.sleep(IDLE_S / 2)
        still_alive = world.organizations.alive()

    assert world.statuses(ids) == {"delivered"}
    assert len(alive) == 1
    assert still_alive == alive
    assert len(world.made) <= 2


async def test_a_wake_up_while_it_asks_whether_it_may_sleep_keeps_it_awake(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.queue.interrupt = operations = Operations()
    ids: list[NotificationId] = []

    async def accept() -> None:
        operations.on.clear()
        ids.extend(await world.accept(1))

    operations.on["retire", Moment.AFTER] = accept
    async with world.running():
        await world.accept(1)
        await trio.sleep(IDLE_S + 1.0)

    assert world.statuses(ids) == {"delivered"}
    assert len(world.made) == 1


async def test_redis_being_away_keeps_an_idle_organization_awake(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.queue.interrupt = operations = Operations()

    async def away() -> None:
        raise QueueUnavailable("away")

    operations.on["retire", Moment.BEFORE] = away
    async with world.running():
        await world.accept(1)
        await trio.sleep(3 * IDLE_S)
        awake = len(world.organizations.alive())
        operations.on.clear()
        await trio.sleep(2 * IDLE_S)
        asleep = len(world.organizations.alive())

    assert (awake, asleep) == (1, 0)


async def test_no_more_organizations_live_than_allowed_and_the_others_have_their_turn_later(
    autojump_clock: MockClock,
) -> None:
    world = ActorWorld(alive_max=2)
    names = [OrganizationId(f"org-{number}") for number in range(5)]
    async with world.running():
        ids = [(await world.accept(1, name))[0] for name in names]
        await trio.sleep(1.0)
        alive = len(world.organizations.alive())
        await trio.sleep(4 * (IDLE_S + 2 * SWEEP_S))

    assert alive == 2
    assert world.statuses(ids) == {"delivered"}


async def test_the_sweep_finds_work_whose_wake_up_was_lost(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    async with world.running():
        ids = await world.accept(1, wake=False)
        await trio.sleep(2 * SWEEP_S)

    assert world.statuses(ids) == {"delivered"}


async def test_the_sweep_goes_on_after_redis_was_away(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.queue.interrupt = operations = Operations()

    async def away() -> None:
        raise QueueUnavailable("away")

    operations.on["active", Moment.BEFORE] = away
    async with world.running():
        ids = await world.accept(1, wake=False)
        await trio.sleep(5 * SWEEP_S)
        operations.on.clear()
        await trio.sleep(2 * SWEEP_S)

    assert world.statuses(ids) == {"delivered"}


# --- crashes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event_type", [Gated, Concluded, Settled])
async def test_what_a_crashed_actor_held_is_taken_back_and_delivered(autojump_clock: MockClock, event_type: type[Event]) -> None:
    world = ActorWorld()
    world.dislikes = Crashes(event_type)
    async with world.running():
        ids = await world.accept(12)
        theirs = await world.accept(12, OTHER)
        await trio.sleep(2 * LEASE_S)

    assert world.metrics.events["actor_restart"] == 1
    assert world.statuses(ids) == {"delivered"}
    assert world.statuses(theirs) == {"delivered"}
    assert all(world.row(id).attempts == 1 for id in theirs)
    assert all(world.provider.calls_of(id) <= 1 + world.row(id).unknowns for id in ids)
    assert world.permits.statistics().held == 0


async def test_what_a_crashed_actor_had_not_begun_is_begun_once(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.configure(concurrency_max=1)
    world.dislikes = Crashes(Concluded)

    async def conduct(_: NotificationId) -> int:
        await trio.sleep(1.0)
        return 202

    world.provider.conduct = conduct
    async with world.running():
        ids = await world.accept(2)  # one is called and one waits when the actor crashes
        await trio.sleep(60.0)

    assert world.statuses(ids) == {"delivered"}
    assert [world.provider.calls_of(id) for id in ids] == [2, 1]


@pytest.mark.parametrize("crashes", [1, 2])
async def test_crashes_under_the_default_policy_neither_mark_nor_hold_what_never_began(
    autojump_clock: MockClock, crashes: int
) -> None:
    """One is called, the others wait for it when the actor fails."""
    world = ActorWorld()
    world.configure(concurrency_max=1, on_unknown=OnUnknown.RESEND_ONCE, key_retention_s=None)
    world.dislikes = Crashes(Concluded, times=crashes)
    async with world.running():
        ids = await world.accept(8)
        await trio.sleep(LEASE_S + 60.0)
    rows = [world.row(id) for id in ids]
    begun = [row for row in rows if row.unknowns]

    assert world.metrics.events["actor_restart"] == crashes
    assert 1 <= len(begun) <= crashes
    assert sum(row.unknowns for row in rows) == crashes
    assert all(
        (row.status, row.attempts, world.provider.calls_of(row.id)) == ("delivered", 1, 1) for row in rows if row not in begun
    )
    assert world.permits.statistics().held == 0


async def test_what_passes_the_gate_of_a_crashed_actor_is_handed_back_at_once_and_unmarked(autojump_clock: MockClock) -> None:
    """Its answer comes to somebody who no longer listens."""
    world = ActorWorld()
    world.configure(on_unknown=OnUnknown.HOLD, key_retention_s=None)
    world.store.interrupt = operations = Operations()
    world.dislikes = Crashes(Concluded)

    async def slow() -> None:
        if world.provider.called:
            await trio.sleep(5.0)

    operations.on["gate", Moment.BEFORE] = slow
    async with world.running():
        (first,) = await world.accept(1)
        await trio.sleep(0.05)
        second = await world.accept(3)  # at the gate when the actor crashes
        await trio.sleep(20.0)

    assert (world.row(first).status, world.row(first).reason) == ("failed", "unknown_held")
    assert world.statuses(second) == {"delivered"}
    assert {(world.row(id).attempts, world.row(id).unknowns) for id in second} == {(1, 0)}


async def test_what_an_actor_fails_over_again_and_again_ends_as_poison_although_it_never_began(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.dislikes = Crashes(Gated, times=1000)
    async with world.running():
        (id,) = await world.accept(1)
        await trio.sleep(4 * QUARANTINE_S)

    assert (world.row(id).status, world.provider.calls_of(id)) == ("failed", 0)
    assert world.database.dead_letters[id].reason == "poison"


async def test_handing_back_is_repeated_when_postgres_or_redis_went_away_meanwhile(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.configure(concurrency_max=1)
    world.store.interrupt = operations = Operations()
    world.dislikes = Crashes(Concluded)

    async def away() -> None:
        operations.on.clear()
        raise StoreUnavailable("away")

    operations.on["hand_back", Moment.AFTER] = away
    async with world.running():
        ids = await world.accept(4)
        await trio.sleep(20.0)

    assert operations.count("hand_back") == 2
    assert world.statuses(ids) == {"delivered"}
    assert sum(world.row(id).unknowns for id in ids) == 1


async def test_a_crash_is_announced_to_listeners_as_a_retry(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.dislikes = Crashes(Concluded)
    async with world.running():
        await world.accept(1)
        await trio.sleep(30.0)
    announced = b"".join(world.queue.announced(ACME))

    assert b'"process_lost"' in announced
    assert b"notification.delivered" in announced


async def test_mending_waits_until_the_ledger_is_through_with_what_the_actor_began(autojump_clock: MockClock) -> None:
    """A gate that was still on its way would hand out attempts that nobody holds."""
    world = ActorWorld()
    world.store.interrupt = operations = Operations()
    world.dislikes = Crashes(Concluded)
    slow_s = 5.0

    async def slow() -> None:
        if world.provider.called:
            await trio.sleep(slow_s)

    operations.on["gate", Moment.BEFORE] = slow
    async with world.running():
        first = await world.accept(1)
        await trio.sleep(0.05)
        second = await world.accept(1)  # at the gate when the actor crashes
        await trio.sleep(2 * LEASE_S)

    assert world.statuses([*first, *second]) == {"delivered"}


async def test_an_actor_that_keeps_failing_is_quarantined_and_nobody_else_notices(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    world = ActorWorld()
    world.dislikes = Crashes(Gated, times=1000)
    with caplog.at_level(logging.ERROR):
        async with world.running():
            ids = await world.accept(3)
            await trio.sleep(100.0)
            quarantined = world.organizations.quarantined
            theirs = await world.accept(3, OTHER)
            await trio.sleep(10.0)
            refused = world.organizations.get(ACME)
            crashes = world.metrics.events["organization_quarantined"]

    assert (quarantined, crashes, refused) == (1, 1, None)
    assert world.statuses(theirs) == {"delivered"}
    assert "delivered" not in world.statuses(ids)
    assert len([actor for actor in world.made if actor.organization_id == ACME]) == BUDGET.restarts_max + 1
    assert "under quarantine" in caplog.text
    assert "person@" not in caplog.text
    assert world.permits.statistics().held == 0


async def test_after_its_quarantine_an_organization_is_mended_and_goes_on(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.dislikes = Crashes(Gated, times=BUDGET.restarts_max + 1)
    async with world.running():
        ids = await world.accept(3)
        await trio.sleep(QUARANTINE_S + 100.0)
        quarantined = world.organizations.quarantined

    assert quarantined == 0
    assert world.statuses(ids) == {"delivered"}


async def test_what_a_quarantined_organization_held_is_taken_back_although_the_queue_no_longer_names_it(
    autojump_clock: MockClock,
) -> None:
    """Another process may have claimed the ids meanwhile and dropped them, because the rows say that this one is sending."""
    world = ActorWorld()
    world.dislikes = Crashes(Gated, times=BUDGET.restarts_max + 1)
    async with world.running():
        ids = await world.accept(1)
        await trio.sleep(100.0)
        world.queue.lose_memory()
        await trio.sleep(QUARANTINE_S)

    assert world.statuses(ids) == {"delivered"}


async def test_a_changed_configuration_ends_a_quarantine(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.dislikes = Crashes(Gated, times=BUDGET.restarts_max + 1)
    async with world.running():
        ids = await world.accept(3)
        await trio.sleep(60.0)
        before = world.organizations.quarantined
        world.organizations.changed(ACME)
        await trio.sleep(RESCUE_FIRST_S + 5.0)

    assert before == 1
    assert world.statuses(ids) == {"delivered"}


async def test_postgres_being_away_while_mending_spends_no_budget(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.store.interrupt = operations = Operations()
    world.dislikes = Crashes(Concluded)

    async def away() -> None:
        if trio.current_time() < 60.0:
            raise StoreUnavailable("away")

    operations.on["disown", Moment.BEFORE] = away
    async with world.running():
        ids = await world.accept(3)
        await trio.sleep(2 * LEASE_S)

    assert operations.count("disown") > 10
    assert world.organizations.quarantined == 0
    assert world.statuses(ids) == {"delivered"}


# --- the end ----------------------------------------------------------------------------------------------------------------


async def test_after_a_drain_began_no_actor_starts(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    async with world.running():
        await world.organizations.drain()
        ids = await world.accept(1)
        await trio.sleep(5 * SWEEP_S)

    assert world.made == []
    assert world.statuses(ids) == {"queued"}


async def test_a_drain_does_not_wait_for_an_actor_that_crashes(autojump_clock: MockClock) -> None:
    """And the actor that replaces it claims nothing any more."""
    world = ActorWorld()

    async def conduct(_: NotificationId) -> int:
        await trio.sleep(2.0)
        return 202

    world.provider.conduct = conduct
    world.dislikes = Crashes(Concluded)
    async with world.running():
        ids = await world.accept(8)
        await trio.sleep(1.0)
        with trio.fail_after(5.0):
            await world.organizations.drain()
        await trio.sleep(30.0)

    assert all(world.provider.calls_of(id) <= 1 for id in ids)
    assert world.statuses(ids) == {"queued"}


async def test_actors_that_are_woken_in_the_moment_of_the_drain_claim_nothing(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.queue.interrupt = operations = Operations()
    async with world.running():
        ids = await world.accept(3)
        await world.organizations.drain()
        await wait_all_tasks_blocked()
        await trio.sleep(10.0)

    assert operations.count("claim") == 0
    assert world.statuses(ids) == {"queued"}


async def test_missed_changes_reload_every_living_organization(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    async with world.running():
        await world.accept(1)
        await world.accept(1, OTHER)
        await trio.sleep(5.0)
        before = world.loads
        world.organizations.all_changed()
        await trio.sleep(5.0)

    assert (before, world.loads) == (2, 4)
