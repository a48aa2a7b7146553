"""One process, many organizations: neither a long queue nor silent providers of some make another wait."""

from __future__ import annotations

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock

from actor_world import CALL_S, IN_FLIGHT_MAX, MAIL, ActorWorld
from actors.callers import Callers
from dispatcher.messages import Woken
from dispatcher.model import NotificationId, OrganizationId

QUIET = OrganizationId("quiet")
CALL_TAKES_S = 0.1


def organization(number: int) -> OrganizationId:
    return OrganizationId(f"org-{number}")


def world_of(*, permits: int, calls_max: int, at_once: int = IN_FLIGHT_MAX) -> ActorWorld:
    world = ActorWorld(permits=permits, alive_max=2000)
    world.callers = Callers(calls_max)
    world.policies = [evolve(MAIL, concurrency_max=at_once)]
    return world


async def dwells_of_the_quiet_one(world: ActorWorld, count: int) -> list[float]:
    """One notification now and then; how long each took from being accepted to being recorded."""
    ids: dict[NotificationId, float] = {}
    for _ in range(count):
        (id,) = await world.accept(1, QUIET)
        ids[id] = trio.current_time()
        await trio.sleep(0.37)
    await trio.sleep(30.0)
    assert world.statuses(list(ids)) == {"delivered"}
    began = {id: at_s for id, at_s in world.provider.called if id in ids}
    return sorted(began[id] - accepted_s + CALL_TAKES_S for id, accepted_s in ids.items())


async def flood(world: ActorWorld, kind: str) -> None:
    """A thousand notifications of one organization, alike or to as many readers under as many keys."""
    ids = await world.accept(1000, OrganizationId("flood"), wake=False)
    if kind == "split":
        for number, id in enumerate(ids):
            world.row(id).recipient = f"reader{number}@example.org"
            world.row(id).idempotency_key = f"key-{number}"
    world.organizations.wake(OrganizationId("flood"))


@pytest.mark.parametrize("calls_max", [8, 64])
@pytest.mark.parametrize("kind", ["alike", "split"])
async def test_a_flood_at_most_doubles_what_a_quiet_organization_waits(
    calls_max: int, kind: str, autojump_clock: MockClock
) -> None:
    """One organization has more than nine tenths of all that is queued (scenario 30)."""
    alone = world_of(permits=64, calls_max=calls_max)
    async with alone.running():
        without = await dwells_of_the_quiet_one(alone, 20)
    flooded = world_of(permits=64, calls_max=calls_max)
    async with flooded.running():
        await flood(flooded, kind)
        within = await dwells_of_the_quiet_one(flooded, 20)

    assert len(flooded.provider.called) == 1020
    assert flooded.provider.at_once_max <= calls_max
    assert within[-1] <= 2 * without[-1]


@pytest.mark.parametrize(("permits", "calls_max"), [(4096, 256), (256, 4096)], ids=["callers are scarce", "permits are scarce"])
async def test_silent_providers_of_sixteen_organizations_delay_nobody_else(
    permits: int, calls_max: int, autojump_clock: MockClock
) -> None:
    """They hold all they may get until the deadline; the first call of another one begins at once (scenario 30)."""
    world = world_of(permits=permits, calls_max=calls_max)

    async def conduct(id: NotificationId) -> int:
        hangs = world.row(id).organization_id != QUIET
        await trio.sleep(CALL_S if hangs else CALL_TAKES_S)
        return 503 if hangs else 202

    world.provider.conduct = conduct
    async with world.running():
        for number in range(16):
            await world.accept(50, organization(number))
        await trio.sleep(1.0)
        hanging = world.provider.at_once
        dwells_s = await dwells_of_the_quiet_one(world, 20)

    assert hanging >= min(permits, calls_max) * 3 / 4
    assert dwells_s[-1] <= 2 * CALL_TAKES_S


async def test_hundreds_of_organizations_that_wake_at_once_are_served_in_one_round(autojump_clock: MockClock) -> None:
    """Claims and calls stay within their bounds, and each has its first call before any has many (scenario 31)."""
    calls_max, permits, organizations = 32, 128, 300
    world = world_of(permits=permits, calls_max=calls_max)
    held: list[int] = []

    async def conduct(id: NotificationId) -> int:
        held.append(world.permits.statistics().held)
        await trio.sleep(CALL_TAKES_S)
        return 202

    world.provider.conduct = conduct
    each = 3
    ids = [id for number in range(organizations) for id in await world.accept(each, organization(number), wake=False)]
    async with world.running():
        for number in range(organizations):
            world.organizations.wake(organization(number))
        await trio.sleep(each * organizations / (calls_max * 3 / 4) * CALL_TAKES_S + 5.0)
        statuses = world.statuses(ids)

    assert statuses == {"delivered"}
    assert len(world.provider.called) == len(ids)
    assert world.provider.at_once_max <= calls_max
    assert max(held) <= permits


async def test_calls_under_way_count_for_the_actor_that_replaces_a_crashed_one(autojump_clock: MockClock) -> None:
    world = world_of(permits=64, calls_max=64)

    async def conduct(_: NotificationId) -> int:
        await trio.sleep(15.0)
        return 202

    world.provider.conduct = conduct
    async with world.running():
        await world.accept(5, QUIET)
        await trio.sleep(0.05)
        share = world.callers.share_of(QUIET)
        world.dislikes = lambda name, event: isinstance(event, Woken)
        world.organizations.wake(QUIET)
        world.dislikes = None
        await world.accept(3, QUIET)
        await trio.sleep(10.0)
        actors, under_way, now_share = len(world.made), share.under_way, world.callers.share_of(QUIET)
        await trio.sleep(60.0)

    assert actors == 2
    assert under_way > 5
    assert now_share is share
    assert share.under_way == 0
