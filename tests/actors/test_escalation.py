"""From one actor to the process: restarts, quarantine, the end of a process that fails everybody. And great numbers."""

from __future__ import annotations

import orjson
import pytest
import trio
from trio.testing import MockClock

from actor_world import ACME, BUDGET, IDLE_S, SWEEP_S, ActorWorld, Operations
from actors.memory import Moment
from actors.organizations import QUARANTINE_S, QUARANTINES_MAX, QUARANTINES_PERIOD_S
from actors.supervision import BudgetSpent
from dispatcher.errors import QueueUnavailable, StoreUnavailable
from dispatcher.messages import Event, Gated
from dispatcher.model import NotificationId, OrganizationId

SICK = [OrganizationId(f"sick-{number}") for number in range(QUARANTINES_MAX + 1)]
WELL = [OrganizationId(f"well-{number}") for number in range(3 * QUARANTINES_MAX)]
FAILING_S = 5.0
"""Longer than an actor needs to use up its restarts, its pauses included."""


def sicken(world: ActorWorld) -> None:
    """What passes the gate for one of the sick makes its actor fail."""

    def dislikes(organization_id: OrganizationId, event: Event) -> bool:
        return organization_id in SICK and isinstance(event, Gated)

    world.dislikes = dislikes


# --- the process --------------------------------------------------------------------------------------------------------


async def test_a_process_in_which_everybody_fails_at_once_ends(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    sicken(world)
    with pytest.RaisesGroup(pytest.RaisesGroup(BudgetSpent)):
        async with world.running():
            for name in SICK:
                await world.accept(1, name)
            await trio.sleep(BUDGET.restarts_max * FAILING_S)

    assert world.metrics.events["organization_quarantined"] == len(SICK)
    assert trio.current_time() < QUARANTINES_PERIOD_S
    assert world.permits.statistics().held == 0


async def test_a_few_that_fail_end_nothing_and_nobody_else_notices(autojump_clock: MockClock) -> None:
    """(scenario 33)"""
    world = ActorWorld()
    sicken(world)
    async with world.running():
        for name in SICK[:-1]:
            await world.accept(1, name)
        await trio.sleep(BUDGET.restarts_max * FAILING_S)
        ids = [id for name in WELL for id in await world.accept(3, name)]
        await trio.sleep(5.0)
        quarantined = world.organizations.quarantined

    assert quarantined == QUARANTINES_MAX
    assert world.statuses(ids) == {"delivered"}
    assert all(world.provider.calls_of(id) == 1 for id in ids)


async def test_many_that_fail_among_more_that_do_not_end_nothing(autojump_clock: MockClock) -> None:
    """What their owners did may be the cause, as long as others thrive in the same process."""
    world = ActorWorld()
    sicken(world)
    async with world.running():
        ids = [id for name in (*WELL, *SICK) for id in await world.accept(1, name)]
        await trio.sleep(BUDGET.restarts_max * FAILING_S)
        quarantined = world.organizations.quarantined

    assert quarantined == len(SICK)
    assert world.statuses(ids[: len(WELL)]) == {"delivered"}


async def test_quarantines_far_apart_are_no_series(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    sicken(world)
    async with world.running():
        for name in SICK:
            await world.accept(1, name)
            await trio.sleep(QUARANTINES_PERIOD_S / QUARANTINES_MAX + 1.0)
        await trio.sleep(BUDGET.restarts_max * FAILING_S)

    assert world.metrics.events["organization_quarantined"] == len(SICK)


async def test_one_organization_that_fails_again_and_again_is_one_organization(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    sicken(world)
    async with world.running():
        for _ in range(QUARANTINES_MAX + 5):
            await world.accept(1, SICK[0])
            await trio.sleep(3.5)
            world.organizations.changed(SICK[0])

    assert world.metrics.events["organization_quarantined"] > QUARANTINES_MAX


async def test_servers_that_are_away_fail_nobody(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.store.interrupt = in_store = Operations()
    world.queue.interrupt = in_queue = Operations()

    async def store_away() -> None:
        raise StoreUnavailable("away")

    async def queue_away() -> None:
        raise QueueUnavailable("away")

    async with world.running():
        ids = [id for name in (*WELL, *SICK) for id in await world.accept(1, name)]
        for operation in ("gate", "record", "disown"):
            in_store.on[operation, Moment.BEFORE] = store_away
        for operation in ("claim", "settle", "active", "retire", "unpark"):
            in_queue.on[operation, Moment.BEFORE] = queue_away
        await trio.sleep(QUARANTINES_PERIOD_S)
        in_store.on.clear()
        in_queue.on.clear()
        await trio.sleep(3 * SWEEP_S)

    assert world.metrics.events["actor_restart"] == world.metrics.events["organization_quarantined"] == 0
    assert world.statuses(ids) == {"delivered"}


async def test_the_listeners_of_an_organization_hear_of_its_quarantine_once(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    sicken(world)
    async with world.running():
        await world.accept(2, SICK[0])
        await trio.sleep(BUDGET.restarts_max * FAILING_S)
    heard = [orjson.loads(event) for event in world.queue.announced(SICK[0])]
    alarms = [event for event in heard if event["type"] == "organization.quarantined"]

    assert [alarm["resumes_in_s"] for alarm in alarms] == [QUARANTINE_S]
    assert alarms[0].keys() == {"type", "resumes_in_s", "at"}


# --- great numbers ----------------------------------------------------------------------------------------------------------


async def test_very_many_organizations_that_wake_in_one_second_are_taken_in_turns(autojump_clock: MockClock) -> None:
    """Actors, claims and calls stay within their bounds, and everybody is served. (scenario 31)"""
    organizations, alive_max, permits = 2_000, 1_200, 64
    world = ActorWorld(permits=permits, alive_max=alive_max)
    world.queue.interrupt = operations = Operations()
    claiming = claiming_max = alive_seen = 0

    async def begin() -> None:
        nonlocal claiming, claiming_max, alive_seen
        claiming += 1
        claiming_max = max(claiming_max, claiming)
        alive_seen = max(alive_seen, len(world.organizations.alive()))
        await trio.sleep(0.01)

    async def end() -> None:
        nonlocal claiming
        claiming -= 1

    async def conduct(_: NotificationId) -> int:
        await trio.lowlevel.checkpoint()
        if len(world.provider.called) == organizations:
            served.set()
        return 202

    served = trio.Event()
    operations.on["claim", Moment.BEFORE] = begin
    operations.on["claim", Moment.AFTER] = end
    world.provider.conduct = conduct
    async with world.running():
        ids = []
        for number in range(organizations):
            ids += await world.accept(1, OrganizationId(f"org-{number}"))
        with trio.fail_after(10 * (IDLE_S + SWEEP_S)):
            await served.wait()
        await trio.sleep(1.0)

    assert world.statuses(ids) == {"delivered"}
    assert sorted(id for id, _ in world.provider.called) == sorted(ids)
    assert alive_seen == alive_max
    assert claiming_max <= permits
    assert world.provider.at_once_max <= 8


# --- falling asleep -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", list(Moment))
@pytest.mark.parametrize("checkpoints", range(12))
async def test_a_notification_in_any_gap_of_falling_asleep_is_delivered_once(
    autojump_clock: MockClock, moment: Moment, checkpoints: int
) -> None:
    """Before, while and after the queue lets go of the organization; and never do two of its actors live. (scenario 32)"""
    world = ActorWorld()
    world.queue.interrupt = operations = Operations()
    ids: list[NotificationId] = []
    async with world.running() as nursery:

        async def arrive() -> None:
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            ids.extend(await world.accept(1))

        async def fall_asleep() -> None:
            operations.on.clear()
            nursery.start_soon(arrive)

        operations.on["retire", moment] = fall_asleep
        await world.accept(1)
        await trio.sleep(IDLE_S + 3.0)
        alive = [actor.organization_id for actor in world.organizations.alive()]

    assert world.statuses(ids) == {"delivered"}
    assert [world.provider.calls_of(id) for id in ids] == [1]
    assert alive == [ACME]
