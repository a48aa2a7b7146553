"""Owning shards: one owner each, succession of one that falls silent, hand-over in milliseconds, what actors are told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from actor_world import ACME
from actors.memory import Moment
from actors.shards import BEATS, MARGIN
from dispatcher.shares import share
from fleet_world import OWNER_S, SHARDS, Fleet, Member

BEAT_S = OWNER_S / BEATS * 1.25
ALL = list(range(SHARDS))


class Dispatcher:
    """Hears what a registry of organizations would, and takes its time to hand over."""

    def __init__(self, hand_over_s: float = 0.0) -> None:
        self.hand_over_s = hand_over_s
        self.heard: list[str] = []

    def gained(self) -> None:
        self.heard.append("gained")

    def resumed(self) -> None:
        self.heard.append("resumed")

    def dismiss(self, shards: Collection[int]) -> None:
        self.heard.append(f"dismiss {len(shards)}")

    async def hand_over(self, shard: int) -> None:
        await trio.sleep(self.hand_over_s)


@asynccontextmanager
async def owning(member: Member, dispatcher: Dispatcher | None = None) -> AsyncIterator[Dispatcher]:
    """The member's ownership runs, without anything that dispatches; at the end it is killed."""
    dispatcher = dispatcher or Dispatcher()
    await member.lease.register()
    await member.shards.take()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.lease.run)
        nursery.start_soon(member.shards.run, dispatcher)
        yield dispatcher
        nursery.cancel_scope.cancel()


def parts(fleet: Fleet) -> list[list[int]]:
    return [sorted(member.shards.owned) for member in fleet.members]


async def test_the_first_process_owns_everything_with_its_first_statement(autojump_clock: MockClock) -> None:
    fleet = Fleet()
    first = fleet.member("a")
    before = fleet.owned()
    await first.lease.register()
    await first.shards.take()

    assert before == [0]
    assert fleet.owned() == [SHARDS]
    assert first.shards.owns(ACME)
    assert first.operations.count("hold_shards") == 1


async def test_who_joins_gets_its_share_in_a_moment_and_nobody_ever_owns_what_another_does(autojump_clock: MockClock) -> None:
    fleet = Fleet()
    async with trio.open_nursery() as watch, owning(fleet.member("a")), owning(fleet.member("b")):
        watch.start_soon(fleet.never_two_owners)
        await trio.sleep(0.1)
        soon = parts(fleet)
        await trio.sleep(10 * OWNER_S)
        later = parts(fleet)
        watch.cancel_scope.cancel()

    assert sorted(soon[0] + soon[1]) == ALL
    assert [set(part) for part in later] == [share("a", {"a", "b"}, SHARDS), share("b", {"a", "b"}, SHARDS)]
    assert soon == later
    assert {fleet.database.shards[shard].epoch for shard in soon[1]} == {2}


async def test_without_hints_it_takes_a_beat_or_two_longer(autojump_clock: MockClock) -> None:
    fleet = Fleet()
    fleet.hints = False
    async with owning(fleet.member("a")), owning(fleet.member("b")):
        await trio.sleep(3 * BEAT_S)
        owned = fleet.owned()

    assert min(owned) > 0
    assert sum(owned) == SHARDS


async def test_a_killed_owner_is_succeeded_when_its_lease_ends(autojump_clock: MockClock) -> None:
    """(scenario 18)"""
    fleet = Fleet()
    async with owning(fleet.member("a")):
        async with owning(fleet.member("b")):
            await trio.sleep(OWNER_S)
        await trio.sleep(OWNER_S / 2)
        during = sum(1 for shard in ALL if fleet.database.shards[shard].owner == "a")
        await trio.sleep(OWNER_S / 2 + BEAT_S)
        after = sum(1 for shard in ALL if fleet.database.shards[shard].owner == "a")

    assert during < SHARDS
    assert after == SHARDS


async def test_who_comes_back_at_once_under_a_new_name_waits_for_its_dead_self(autojump_clock: MockClock) -> None:
    """A restarted host is a new incarnation: it never passes for the old one, and is never passed over for it. (scenario 19)"""
    fleet = Fleet()
    async with owning(fleet.member("first life")):
        await trio.sleep(OWNER_S)
    async with owning(fleet.member("second life")):
        at_once = fleet.members[1].shards.owned
        await trio.sleep(OWNER_S + BEAT_S)
        later = sorted(fleet.members[1].shards.owned)

    assert (list(at_once), later) == ([], ALL)
    assert {row.epoch for row in fleet.database.shards.values()} == {2}


async def test_who_leaves_hands_over_in_a_moment(autojump_clock: MockClock) -> None:
    fleet = Fleet()
    async with owning(fleet.member("a")), owning(fleet.member("b")):
        await trio.sleep(OWNER_S)
        fleet.members[0].shards.leave()
        nothing = fleet.members[0].shards.owned
        await trio.sleep(0.01)
        everything = sorted(fleet.members[1].shards.owned)

    assert list(nothing) == []
    assert everything == ALL


async def test_a_shard_is_kept_for_as_long_as_its_hand_over_takes(autojump_clock: MockClock) -> None:
    """But nothing is claimed for it meanwhile."""
    fleet = Fleet()
    async with owning(fleet.member("a"), Dispatcher(hand_over_s=4 * OWNER_S)), owning(fleet.member("b")):
        await trio.sleep(3 * OWNER_S)
        during, owners = fleet.owned(), {fleet.database.shards[shard].owner for shard in ALL}
        await trio.sleep(2 * OWNER_S)
        after = fleet.owned()

    assert during == [len(share("a", {"a", "b"}, SHARDS)), 0]
    assert owners == {"a"}
    assert after == [during[0], SHARDS - during[0]]


async def test_whoever_can_not_renew_stops_before_its_lease_ends(autojump_clock: MockClock) -> None:
    fleet = Fleet()
    member = fleet.member("a")
    async with owning(member):
        await trio.sleep(OWNER_S)
        member.lose_shards()
        await trio.sleep(OWNER_S * (1 - MARGIN) + 0.001)
        owned, until_s = fleet.owned(), min(row.lease_until_s for row in fleet.database.shards.values())

    assert owned == [0]
    assert fleet.database.unix_s() < until_s


async def test_what_nobody_else_owned_meanwhile_goes_on_as_it_was(autojump_clock: MockClock) -> None:
    fleet = Fleet()
    member = fleet.member("a")
    async with owning(member) as dispatcher:
        await trio.sleep(OWNER_S)
        member.lose_shards()
        await trio.sleep(2 * OWNER_S)
        member.find_shards()
        await trio.sleep(BEAT_S)
        owned = fleet.owned()

    assert owned == [SHARDS]
    assert dispatcher.heard == ["resumed"]


async def test_what_somebody_else_owned_meanwhile_begins_anew(autojump_clock: MockClock) -> None:
    """(scenario 7)"""
    fleet = Fleet()
    first = fleet.member("a")
    async with trio.open_nursery() as watch, owning(first) as dispatcher:
        watch.start_soon(fleet.never_two_owners)
        async with owning(fleet.member("b")):
            await trio.sleep(OWNER_S)
            kept = len(first.shards.owned)
            dispatcher.heard.clear()
            first.lose_shards()
            await trio.sleep(2 * OWNER_S)
            taken = fleet.owned()
            first.find_shards()
            await trio.sleep(2 * BEAT_S)
            again = fleet.owned()
        watch.cancel_scope.cancel()

    assert taken == [0, SHARDS]
    assert again == [kept, SHARDS - kept]
    assert dispatcher.heard[0] == f"dismiss {kept}"
    assert dispatcher.heard[-1] == "gained"


async def test_a_shard_that_was_lost_while_it_was_handed_over_is_not_released_when_it_is_owned_again(
    autojump_clock: MockClock,
) -> None:
    """The hand-over that ends then was that of another time."""
    fleet = Fleet()
    first = fleet.member("a")
    async with owning(first, Dispatcher(hand_over_s=6 * OWNER_S)):
        async with owning(fleet.member("b")):
            await trio.sleep(BEAT_S)
            first.lose_shards()
            await trio.sleep(1.5 * OWNER_S)
            first.find_shards()
            taken = {row.owner for row in fleet.database.shards.values()}
        await trio.sleep(2 * OWNER_S)
        epochs = [(row.owner, row.epoch) for row in fleet.database.shards.values()]
        await trio.sleep(6 * OWNER_S)
        later = [(row.owner, row.epoch) for row in fleet.database.shards.values()]

    assert taken == {"b"}
    assert {owner for owner, _ in epochs} == {"a"}
    assert later == epochs


async def test_a_database_that_takes_seconds_leaves_nothing_without_an_owner(autojump_clock: MockClock) -> None:
    """The lease is asked for longer the longer an answer takes, so that it is worth something when it comes."""
    fleet = Fleet()
    member = fleet.member("a")

    async def slow() -> None:
        await trio.sleep(OWNER_S)

    async with owning(member):
        member.operations.on["hold_shards", Moment.BEFORE] = slow
        await trio.sleep(10 * OWNER_S)
        owned = 0
        for _ in range(100):
            owned += len(member.shards.owned) == SHARDS
            await trio.sleep(0.5)

    assert owned == 100


async def test_an_incarnation_that_lost_its_lease_of_attempts_owns_nothing_until_it_has_one_again(
    autojump_clock: MockClock,
) -> None:
    fleet = Fleet()
    member = fleet.member("a")
    async with owning(member):
        fleet.database.leases.clear()
        await trio.sleep(BEAT_S)
        without = fleet.owned()
        await member.store.register(60.0)
        await trio.sleep(BEAT_S)
        with_it = fleet.owned()

    assert (without, with_it) == ([0], [SHARDS])


async def test_a_beat_is_one_statement_a_second(autojump_clock: MockClock) -> None:
    fleet = Fleet()
    member = fleet.member("a")
    async with owning(member):
        await trio.sleep(100.0)

    assert 95 <= member.operations.count("hold_shards") <= 106
    assert member.operations.count("release_shards") == 0


async def test_a_lease_that_was_given_up_on_leaving_is_no_cause_for_a_warning(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = Fleet()
    member = fleet.member("a")
    async with owning(member, Dispatcher(hand_over_s=OWNER_S)):
        await trio.sleep(OWNER_S)
        member.shards.leave()
        await member.store.release_lease()
        await trio.sleep(2 * BEAT_S)

    assert fleet.owned() == [0]
    assert "another owner" not in caplog.text


# --- a process that stood still ---------------------------------------------------------------------------------------------


async def test_whoever_doubts_owns_nothing_until_postgres_says_so_which_is_asked_at_once(autojump_clock: MockClock) -> None:
    """What nobody took meanwhile goes on as it was."""
    fleet = Fleet()
    member = fleet.member("a")
    async with owning(member) as dispatcher:
        await trio.sleep(OWNER_S)
        dispatcher.heard.clear()
        asked = member.operations.count("hold_shards")
        member.shards.doubt()
        in_doubt = (fleet.owned(), member.shards.owns(ACME))
        await trio.sleep(0.001)
        owned, answers = fleet.owned(), member.operations.count("hold_shards") - asked

    assert in_doubt == ([0], False)
    assert (owned, answers) == ([SHARDS], 1)
    assert dispatcher.heard == ["resumed"]


async def test_after_a_pause_of_the_machine_nobody_owns_what_was_taken_meanwhile(autojump_clock: MockClock) -> None:
    """Its own clock stood still with it, and says that the lease still holds; that of Postgres went on."""
    fleet = Fleet()
    paused, other = fleet.member("a"), fleet.member("b")
    async with owning(paused) as dispatcher:
        await trio.sleep(OWNER_S)
        dispatcher.heard.clear()
        for row in fleet.database.shards.values():
            row.lease_until_s -= 10 * OWNER_S
        await other.lease.register()
        await other.shards.take()
        believed = [len(member.shards.owned) for member in fleet.members]
        paused.shards.doubt()
        known = fleet.owned()
        await trio.sleep(0.001)
        later = fleet.owned()

    assert believed == [SHARDS, SHARDS]  # what a look at the monotonic clock alone makes of it
    assert known == later == [0, SHARDS]
    assert dispatcher.heard[0] == f"dismiss {SHARDS}"


async def test_an_answer_that_was_asked_for_before_the_doubt_is_not_believed(autojump_clock: MockClock) -> None:
    """Nor does what it told get lost: shards that came with it are heard of with the next one."""
    fleet = Fleet()
    member = fleet.member("a")
    answered, believed = trio.Event(), []

    async def held_up() -> None:
        member.operations.on.clear()
        await answered.wait()

    async def look() -> None:
        await trio.lowlevel.checkpoint()
        believed.extend(fleet.owned())

    await member.lease.register()
    dispatcher = Dispatcher()
    member.operations.on["hold_shards", Moment.AFTER] = held_up
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.shards.run, dispatcher)
        await trio.sleep(BEAT_S)
        member.shards.doubt()
        member.operations.on["hold_shards", Moment.BEFORE] = look
        answered.set()
        await trio.sleep(0.001)
        owned = fleet.owned()
        nursery.cancel_scope.cancel()

    assert believed[0] == 0
    assert owned == [SHARDS]
    assert dispatcher.heard == ["gained"]
