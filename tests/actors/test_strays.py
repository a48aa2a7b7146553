"""Attempts that nobody makes although their process lives: what a gate leaves behind that was carried out late."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from actor_world import ACME, LEASE_S, ActorWorld, unix_s
from actors.janitor import Janitor
from actors.strays import Strays
from dispatcher.model import NotificationId

SWEEP_S = 15.0


def janitor(world: ActorWorld) -> Janitor:
    holds = world.organizations.holds
    strays = Strays(world.store, world.queue, world.metrics, holds=holds, lease_s=LEASE_S, unix_s=unix_s)
    return Janitor(world.store, world.queue, world.metrics, sweep_s=SWEEP_S, random=world.random, unix_s=unix_s, strays=strays)


async def test_what_a_late_gate_left_behind_is_taken_back_as_unknown_and_sent(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.queue.on_wake = world.organizations.wake
    async with world.running() as nursery:
        nursery.start_soon(janitor(world).run)
        (id,) = await world.store_rows(1)
        await world.store.gate([id], frozenset(), again=False)  # its answer is heard by nobody
        await trio.sleep(LEASE_S / 2)
        early = world.row(id).status
        await trio.sleep(2 * LEASE_S + 2 * SWEEP_S)

    assert early == "sending"
    assert (world.row(id).status, world.row(id).unknowns, world.provider.calls_of(id)) == ("delivered", 1, 1)
    assert world.metrics.events["rescued"] == 1


async def test_what_an_actor_holds_is_never_taken_from_it_however_long(autojump_clock: MockClock) -> None:
    world = ActorWorld()

    async def conduct(_: NotificationId) -> int:
        await trio.sleep(10 * LEASE_S)
        return 202

    world.provider.conduct = conduct
    async with world.running() as nursery:
        nursery.start_soon(janitor(world).run)
        ids = await world.accept(6)
        await trio.sleep(21 * LEASE_S)

    assert world.statuses(ids) == {"delivered"}
    assert {(world.row(id).unknowns, world.provider.calls_of(id)) for id in ids} == {(0, 1)}


async def test_what_a_crashed_actor_held_is_left_to_who_mends_it(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    async with world.running():
        (id,) = await world.store_rows(1)
        world.organizations._unmended[ACME] = world.make(ACME)

        assert world.organizations.holds(ACME, id)
