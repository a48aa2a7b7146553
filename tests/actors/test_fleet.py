"""Several processes and their organizations: each is dispatched where it is owned, and taken over without losing or doubling."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock

import actor_world
from actor_world import ACME, LEASE_S, MAIL, SWEEP_S, Operations, unix_s
from actors.janitor import Janitor
from actors.memory import Moment, checkpoint
from actors.organizations import HAND_OVER_S
from dispatcher.keys import shard_of
from dispatcher.model import NotificationId, OrganizationId
from dispatcher.shares import preferred
from fleet_world import OWNER_S, SHARDS, Fleet, Member

NAMES = [OrganizationId(f"org-{number}") for number in range(24)]
HOME = preferred(shard_of(ACME, SHARDS), {"a", "b"})
"""Whose acme is when both are there."""


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Fleet, Member, Member]]:
    """Two processes that have shared everything out; acme belongs to the first of them. Nobody ever owns what another owns."""
    fleet = Fleet()
    host, guest = (fleet.member(name) for name in (HOME, "a" if HOME == "b" else "b"))
    async with trio.open_nursery() as watch, host.living(), guest.living():
        watch.start_soon(fleet.never_two_owners)
        await trio.sleep(1.0)
        assert host.shards.owns(ACME)
        assert not guest.shards.owns(ACME)
        yield fleet, host, guest
        watch.cancel_scope.cancel()


def janitor(member: Member) -> Janitor:
    return Janitor(member.store, member.queue, member.metrics, sweep_s=SWEEP_S, random=member.random, unix_s=unix_s)


def all_called_once(fleet: Fleet, ids: Sequence[NotificationId]) -> bool:
    return sorted(id for id, _ in fleet.provider.called) == sorted(ids)


# --- where -----------------------------------------------------------------------------------------------------------------


async def test_what_is_accepted_anywhere_is_dispatched_by_its_owner_only(autojump_clock: MockClock) -> None:
    async with pair() as (fleet, host, guest):
        ids = await guest.accept(20)
        for name in NAMES:
            ids += await guest.accept(1, name)
        await trio.sleep(2.0)
        lives = {m.name: {actor.organization_id for actor in m.organizations.alive()} for m in fleet.members}

    assert host.statuses(ids) == {"delivered"}
    assert all_called_once(fleet, ids)
    homes = {name: preferred(shard_of(name, SHARDS), {"a", "b"}) for name in (ACME, *NAMES)}
    assert lives == {m.name: {name for name, home in homes.items() if home == m.name} for m in fleet.members}


async def test_a_process_looks_for_lost_wake_ups_only_among_its_own(autojump_clock: MockClock) -> None:
    async with pair() as (fleet, host, guest):
        fleet.queue.on_wake = lambda _: None
        ids = [id for name in NAMES for id in await guest.accept(1, name, wake=False)]
        await trio.sleep(2 * SWEEP_S)
        lives = {m.name: {actor.organization_id for actor in m.organizations.alive()} for m in fleet.members}

    assert host.statuses(ids) == {"delivered"}
    assert not lives["a"] & lives["b"]
    assert lives["a"] | lives["b"] == set(NAMES)


# --- taking over ---------------------------------------------------------------------------------------------------------------


async def test_who_takes_over_finds_the_work_without_a_wake_up_and_before_its_next_sweep(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(scenario 18)"""
    monkeypatch.setattr(actor_world, "SWEEP_S", 1000.0)
    fleet = Fleet()
    guest = fleet.member("a" if HOME == "b" else "b")
    async with guest.living():
        async with fleet.member(HOME).living():
            await trio.sleep(1.0)
        fleet.queue.on_wake = lambda _: None
        ids = await guest.accept(20)
        await trio.sleep(OWNER_S + 3.0)

    assert guest.statuses(ids) == {"delivered"}


async def test_who_leaves_hands_over_at_once_and_nothing_is_sent_twice(autojump_clock: MockClock) -> None:
    async with pair() as (fleet, host, guest):
        ids = await guest.accept(200)
        await trio.sleep(0.25)
        began = len(fleet.provider.called)
        await host.leave()
        await trio.sleep(0.05)
        owned = guest.shards.owns(ACME)
        await trio.sleep(30.0)

    assert 0 < began < 200
    assert owned
    assert guest.statuses(ids) == {"delivered"}
    assert all_called_once(fleet, ids)
    assert all(guest.row(id).attempts == 1 for id in ids)


async def test_a_call_that_takes_its_time_delays_a_hand_over_by_no_more_than_a_death_would(autojump_clock: MockClock) -> None:
    """It ends where it was begun, and its outcome counts."""
    async with pair() as (fleet, host, guest):
        slow_s = 3 * HAND_OVER_S

        async def conduct(_: NotificationId) -> int:
            await trio.sleep(slow_s)
            return 202

        fleet.provider.conduct = conduct
        first = await guest.accept(1)
        await trio.sleep(0.5)
        fleet.provider.conduct = fleet.provider.accept
        host.shards.leave()
        await trio.sleep(0.1)
        early = guest.shards.owns(ACME)
        await trio.sleep(HAND_OVER_S + 0.1)
        late = guest.shards.owns(ACME)
        second = await host.accept(1)
        await trio.sleep(1.0)
        before = guest.statuses(first), guest.statuses(second)
        await trio.sleep(slow_s)

    assert (early, late) == (False, True)
    assert before == ({"sending"}, {"delivered"})
    assert guest.statuses(first) == {"delivered"}
    assert all_called_once(fleet, [*first, *second])
    assert guest.row(first[0]).attempts == 1


# --- two that believe ----------------------------------------------------------------------------------------------------


async def test_an_owner_cut_off_from_the_table_of_shards_claims_nothing_after_its_lease(autojump_clock: MockClock) -> None:
    """It still reaches the queue, the gate and the provider: only its own clock stops it. (scenarios 7 and 9)"""
    async with pair() as (fleet, host, guest):
        host.lose_shards()
        ids = []
        for _ in range(60):
            ids += await host.accept(3)
            await trio.sleep(0.25)
            assert [m.name for m in fleet.members if m.dispatches()] in ([], [host.name], [guest.name])
        taken = guest.shards.owns(ACME)
        host.find_shards()
        await trio.sleep(LEASE_S)
        back = host.shards.owns(ACME)

    assert taken
    assert back
    assert host.statuses(ids) == {"delivered"}
    assert all_called_once(fleet, ids)


async def test_nothing_is_claimed_while_nobody_owns_it(autojump_clock: MockClock) -> None:
    """Neither by the old owner, whose lease is not over for Postgres yet, nor by the next."""
    async with pair() as (fleet, host, _):
        await host.accept(1)
        await trio.sleep(1.0)
        host.lose_shards()
        await trio.sleep(OWNER_S * 0.8)
        owned = list(host.shards.owned)
        fleet.queue.interrupt = operations = Operations()
        ids = await host.accept(5)
        await trio.sleep(0.01)
        claims, waiting = operations.count("claim"), fleet.queue.holds(ACME)["queue"]
        fleet.queue.interrupt = checkpoint
        await trio.sleep(OWNER_S)

    assert (owned, claims) == ([], 0)
    assert waiting == ids
    assert host.statuses(ids) == {"delivered"}


async def test_what_passes_the_gate_after_the_ownership_ended_begins_nothing(autojump_clock: MockClock) -> None:
    async with pair() as (fleet, host, guest):
        released = trio.Event()
        host.store.interrupt = host.operations
        host.operations.on["gate", Moment.AFTER] = released.wait
        ids = await host.accept(4)
        await trio.sleep(0.5)
        host.operations.on["hold_shards", Moment.BEFORE] = trio.Event().wait  # says nothing from here on, as if it stood still
        await trio.sleep(OWNER_S + 1.5)
        taken = guest.shards.owns(ACME)
        released.set()
        await trio.sleep(0.5)
        await trio.sleep(2 * SWEEP_S)
        delivered = [m.metrics.attempts["email", "delivered"] for m in (host, guest)]

    assert taken
    assert delivered == [0, 4]
    assert all(guest.row(id).claimed_by is None for id in ids)
    assert guest.statuses(ids) == {"delivered"}
    assert all_called_once(fleet, ids)
    assert all(guest.row(id).attempts == 1 for id in ids)


@pytest.mark.parametrize("orderly", [True, False], ids=["handed over", "lapsed"])
async def test_however_often_the_owner_changes_no_organization_has_two_buckets(
    autojump_clock: MockClock, *, orderly: bool
) -> None:
    """Twenty flaps: what is sent is what one bucket allows, and the one token each new owner begins with. (scenario 40)"""
    rate_per_s, burst, flaps = 5.0, 5, 20
    changed_s: list[float] = []

    async def watch_epoch(fleet: Fleet) -> None:
        row = fleet.database.shards[shard_of(ACME, SHARDS)]
        epoch = row.epoch
        while True:
            if row.epoch != epoch:
                changed_s.append(trio.current_time())
                epoch = row.epoch
            await trio.sleep(0.05)

    async with trio.open_nursery() as nursery, pair() as (fleet, host, _):
        nursery.start_soon(watch_epoch, fleet)
        fleet.policies[:] = [evolve(MAIL, rate_per_s=rate_per_s, burst=burst)]
        ids = await host.accept(1000)
        for flap in range(flaps):
            if orderly:
                newcomer = fleet.member(f"newcomer-{flap}")
                async with newcomer.living():
                    await trio.sleep(1.5)
                    await newcomer.leave()
                    await trio.sleep(1.5)
                fleet.members.remove(newcomer)
            elif flap % 2 == 0:
                host.lose_shards()
                await trio.sleep(OWNER_S + 2.0)
            else:
                host.find_shards()
                await trio.sleep(2.0)
        nursery.cancel_scope.cancel()
    times = [at_s for _, at_s in fleet.provider.called]

    assert len(changed_s) >= flaps / 2
    assert len(times) > 2 * flaps
    assert len(times) == len({id for id, _ in fleet.provider.called})
    assert host.statuses(ids) <= {"delivered", "queued", "sending"}
    for window_s in (1.0, 5.0, 20.0, 1000.0):
        for first, at_s in enumerate(times):
            sent = bisect_left(times, at_s + window_s) - first
            changes = bisect_left(changed_s, at_s + window_s) - bisect_left(changed_s, at_s - 1.0)
            assert sent <= burst + rate_per_s * min(window_s, times[-1] - at_s) + changes + 1


# --- no turn that nobody gives back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["rescue", "expire", "queued"])
@pytest.mark.parametrize("moment", list(Moment))
async def test_a_process_killed_in_the_middle_of_mending_stops_nobody_else_from_it(
    autojump_clock: MockClock, operation: str, moment: Moment
) -> None:
    """There is no turn that could be held for ever: everybody mends, and a row is changed by one statement. (scenario 18)"""
    fleet = Fleet()
    dead, dying, survivor = (fleet.member(name) for name in ("dead", "dying", "survivor"))
    await dead.store.register(LEASE_S)
    ids = await dead.store_rows(5)
    await dead.store.gate(ids, frozenset(), again=False)
    await trio.sleep(LEASE_S + 2.0)
    dying.operations.on[operation, moment] = trio.sleep_forever
    dying.store.interrupt = dying.operations
    with trio.move_on_after(5.0) as killed:
        await janitor(dying).mend()
    async with survivor.living():
        await janitor(survivor).mend()
        await trio.sleep(40.0)  # longer than a row may be unknown to the queue
        await janitor(survivor).mend()
        await trio.sleep(5.0)

    assert killed.cancelled_caught
    assert survivor.statuses(ids) == {"delivered"}
    assert all_called_once(fleet, ids)
    assert {survivor.row(id).rescues for id in ids} == {1}


async def test_an_organization_that_comes_back_while_its_last_call_ends_goes_on_as_soon_as_it_has(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only at the next sweep; and until then nothing new begins, for there is one actor of it in a process."""
    monkeypatch.setattr(actor_world, "SWEEP_S", 1000.0)
    async with pair() as (fleet, host, _):

        async def conduct(_: NotificationId) -> int:
            await trio.sleep(4 * HAND_OVER_S)
            return 202

        fleet.provider.conduct = conduct
        first = await host.accept(1)
        await trio.sleep(0.5)
        fleet.provider.conduct = fleet.provider.accept
        host.lose_shards()
        await trio.sleep(OWNER_S + 1.0)
        host.find_shards()
        await trio.sleep(2.0)
        back = host.shards.owns(ACME)
        second = await host.accept(1)
        await trio.sleep(2.0)
        during = host.statuses(second)
        await trio.sleep(2 * HAND_OVER_S + 1.0)

    assert back
    assert during == {"queued"}
    assert host.statuses([*first, *second]) == {"delivered"}
    assert all_called_once(fleet, [*first, *second])
