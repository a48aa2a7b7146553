"""The queue port: one behaviour, in memory and on Redis.

Time passes by moving what is stored towards the past, because a real server's clock can not be moved: no test here waits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any, Protocol

import pytest
import redis as redis_py

from actors.io.redis import Redis, open_redis
from actors.memory import MemoryQueue
from actors.ports import PARKED_LOOK_AGAIN_S, Arrival, Queue, Settlement
from actors.redis_queue import RedisQueue
from dispatcher.errors import QueueUnavailable
from dispatcher.ids import uuid7
from dispatcher.keys import Keys, shard_of
from dispatcher.messages import Unparked
from dispatcher.model import Channel, NotificationId, OrganizationId

ACME = OrganizationId("acme")
OTHER = OrganizationId("other")
LEASE_S = 1000.0
SHARDS = 4
EMAIL, SMS = Channel.EMAIL, Channel.SMS


class World(Protocol):
    """One queue, and what a test may do to the server behind it."""

    queue: Queue

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""

    def lose_memory(self) -> None:
        """Forget everything."""

    def lose_active(self) -> None:
        """Forget only who needs attention."""

    def divide(self, shards: int) -> None:
        """Go on with another number of shards."""

    def announced(self, organization_id: OrganizationId) -> list[bytes]:
        """What a listener could catch up on."""


class MemoryWorld:
    def __init__(self) -> None:
        self._now_s = 1_700_000_000.0
        self.queue: Queue = MemoryQueue(lambda: self._now_s, lease_s=LEASE_S, shards=SHARDS)

    def pass_time(self, seconds: float) -> None:
        self._now_s += seconds

    def lose_memory(self) -> None:
        assert isinstance(self.queue, MemoryQueue)
        self.queue.lose_memory()

    def lose_active(self) -> None:
        assert isinstance(self.queue, MemoryQueue)
        self.queue.lose_active()

    def divide(self, shards: int) -> None:
        assert isinstance(self.queue, MemoryQueue)
        self.queue.divide(shards)

    def announced(self, organization_id: OrganizationId) -> list[bytes]:
        assert isinstance(self.queue, MemoryQueue)
        return self.queue.announced(organization_id)


class RedisWorld:
    def __init__(self, redis: Redis, client: redis_py.Redis) -> None:
        self.queue: Queue = RedisQueue(redis, lease_s=LEASE_S, shards=SHARDS)
        self._redis = redis
        self._client: Any = client  # whose annotations know neither of its defaults nor of the protocol in use

    def pass_time(self, seconds: float) -> None:
        for kind in ("inflight", "delayed", "active"):
            for key in self._client.scan_iter(f"notifications:{kind}:*"):
                for member, score in self._client.zrange(key, 0, -1, withscores=True):
                    self._client.zadd(key, {member: score - seconds * 1000})

    def lose_memory(self) -> None:
        self._client.flushall()

    def lose_active(self) -> None:
        for key in list(self._client.scan_iter("notifications:active:*")):
            self._client.delete(key)

    def divide(self, shards: int) -> None:
        self.queue = RedisQueue(self._redis, lease_s=LEASE_S, shards=shards)

    def announced(self, organization_id: OrganizationId) -> list[bytes]:
        return [fields[b"e"] for _, fields in self._client.xrange(Keys().events(organization_id))]


@asynccontextmanager
async def memory_world() -> AsyncIterator[World]:
    yield MemoryWorld()


@asynccontextmanager
async def redis_world(url: str) -> AsyncIterator[World]:
    with redis_py.Redis.from_url(url) as client:
        async with open_redis(url, connect_deadline_s=10, command_deadline_s=10, random=Random(1)) as redis:
            yield RedisWorld(redis, client)


@pytest.fixture(params=["memory", "redis"])
def open_world(request: pytest.FixtureRequest) -> Callable[[], AbstractAsyncContextManager[World]]:
    if request.param == "memory":
        return memory_world
    url: str = request.getfixturevalue("redis_url")
    return lambda: redis_world(url)


@pytest.fixture
async def world(open_world: Callable[[], AbstractAsyncContextManager[World]]) -> AsyncIterator[World]:
    async with open_world() as world:
        yield world


def ids(n: int, first: int = 0) -> list[NotificationId]:
    """Ids in the order of their creation."""
    return [NotificationId(uuid7(1_700_000_000_000 + first + i, i)) for i in range(n)]


async def filled(world: World, n: int, organization_id: OrganizationId = ACME) -> list[NotificationId]:
    made = ids(n)
    await world.queue.enqueue([Arrival(organization_id, made, ())])
    return made


async def all_claimed(queue: Queue, organization_id: OrganizationId = ACME) -> Sequence[NotificationId]:
    return (await queue.claim(organization_id, 1000)).ids


# --- enqueue and claim --------------------------------------------------------------------------------------------------


async def test_ids_are_claimed_in_the_order_of_their_arrival(world: World) -> None:
    made = await filled(world, 5)
    first = await world.queue.claim(ACME, 2)
    second = await world.queue.claim(ACME, 5)

    assert (list(first.ids), first.backlog, first.due_in_s) == (made[:2], 3, None)
    assert (list(second.ids), second.backlog, second.due_in_s) == (made[2:], 0, None)


async def test_later_arrivals_stand_behind_earlier_ones(world: World) -> None:
    early, late = ids(2), ids(2, first=10)
    await world.queue.enqueue([Arrival(ACME, early, ()), Arrival(ACME, late, ())])

    assert list(await all_claimed(world.queue)) == early + late


async def test_an_empty_queue_yields_nothing(world: World) -> None:
    claimed = await world.queue.claim(ACME, 10)

    assert (list(claimed.ids), claimed.backlog, claimed.due_in_s) == ([], 0, None)


async def test_organizations_do_not_share_a_queue(world: World) -> None:
    mine, theirs = ids(2), ids(2, first=10)
    await world.queue.enqueue([Arrival(ACME, mine, ()), Arrival(OTHER, theirs, ())])

    assert list(await all_claimed(world.queue, OTHER)) == theirs
    assert list(await all_claimed(world.queue, ACME)) == mine


async def test_many_thousand_ids_pass_in_one_piece(world: World) -> None:
    made = await filled(world, 12_000)
    claimed = (await world.queue.claim(ACME, 12_000)).ids
    await world.queue.settle([Settlement(ACME, requeued=list(claimed))])
    again = (await world.queue.claim(ACME, 9_000)).ids
    await world.queue.settle([Settlement(ACME, done=list(again))])

    assert list(claimed) == made
    assert list(again) == made[:9_000]
    assert list((await world.queue.claim(ACME, 12_000)).ids) == made[9_000:]


async def test_what_is_claimed_is_not_claimed_again_while_its_lease_holds(world: World) -> None:
    await filled(world, 3)
    await all_claimed(world.queue)
    world.pass_time(LEASE_S - 100)

    assert list(await all_claimed(world.queue)) == []


async def test_ids_whose_lease_ran_out_are_handed_out_again_before_all_others(world: World) -> None:
    made = await filled(world, 4)
    await world.queue.claim(ACME, 2)
    world.pass_time(LEASE_S + 1)

    assert list((await world.queue.claim(ACME, 3)).ids) == made[:3]


async def test_a_second_claim_starts_a_lease_of_its_own(world: World) -> None:
    await filled(world, 1)
    await all_claimed(world.queue)
    world.pass_time(LEASE_S + 1)
    await all_claimed(world.queue)
    world.pass_time(LEASE_S - 100)

    assert list(await all_claimed(world.queue)) == []


async def test_an_id_that_stands_in_the_queue_twice_is_in_flight_once(world: World) -> None:
    (id,) = await filled(world, 1)
    await world.queue.enqueue([Arrival(ACME, [id], ())])
    claimed = await all_claimed(world.queue)
    await world.queue.settle([Settlement(ACME, done=[id])])
    world.pass_time(LEASE_S + 1)

    assert list(claimed) == [id, id]
    assert list(await all_claimed(world.queue)) == []


# --- settle -------------------------------------------------------------------------------------------------------------


async def test_what_is_done_never_comes_back(world: World) -> None:
    made = await filled(world, 3)
    await all_claimed(world.queue)
    await world.queue.settle([Settlement(ACME, done=made)])
    world.pass_time(LEASE_S + 1)

    assert list(await all_claimed(world.queue)) == []


async def test_delayed_ids_wait_for_their_time_and_then_come_first(world: World) -> None:
    made = await filled(world, 4)
    held = (await world.queue.claim(ACME, 2)).ids
    await world.queue.settle([Settlement(ACME, delayed=[(held[0], 500.0), (held[1], 300.0)])])
    before = await world.queue.claim(ACME, 1)
    world.pass_time(400)
    between = await world.queue.claim(ACME, 1)
    world.pass_time(200)
    after = await world.queue.claim(ACME, 2)

    assert list(before.ids) == [made[2]]
    assert before.due_in_s is not None
    assert 200 < before.due_in_s <= 300
    assert list(between.ids) == [made[1]]
    assert between.due_in_s is not None
    assert 0 < between.due_in_s <= 100
    assert list(after.ids) == [made[0], made[3]]
    assert after.due_in_s is None


async def test_a_delayed_id_is_no_longer_under_lease(world: World) -> None:
    (id,) = await filled(world, 1)
    await all_claimed(world.queue)
    await world.queue.settle([Settlement(ACME, delayed=[(id, 2 * LEASE_S)])])
    world.pass_time(LEASE_S + 1)

    assert list(await all_claimed(world.queue)) == []


async def test_ids_can_be_delayed_that_were_never_in_flight(world: World) -> None:
    """Which is how a queue that lost its memory learns of retries again."""
    (id,) = ids(1)
    await world.queue.settle([Settlement(ACME, delayed=[(id, 60.0)])])
    world.pass_time(61)

    assert await world.queue.active(10) == [ACME]
    assert list(await all_claimed(world.queue)) == [id]


async def test_requeued_ids_return_to_the_head_in_their_order(world: World) -> None:
    made = await filled(world, 4)
    held = (await world.queue.claim(ACME, 2)).ids
    await world.queue.settle([Settlement(ACME, requeued=list(held))])

    assert list(await all_claimed(world.queue)) == made


async def test_a_requeued_id_whose_lease_had_run_out_is_not_queued_twice(world: World) -> None:
    made = await filled(world, 1)
    await all_claimed(world.queue)
    world.pass_time(LEASE_S + 1)
    await world.queue.claim(ACME, 0)  # puts it back
    await world.queue.settle([Settlement(ACME, requeued=made)])

    assert list(await all_claimed(world.queue)) == made


async def test_handing_ids_back_makes_the_organization_active_for_others(world: World) -> None:
    made = await filled(world, 1)
    await all_claimed(world.queue)
    await world.queue.retire(ACME)
    asleep = await world.queue.active(10)
    await world.queue.settle([Settlement(ACME, requeued=made)])

    assert asleep == []
    assert await world.queue.active(10) == [ACME]


@pytest.mark.parametrize("kind", ["done", "requeued", "delayed", "parked"])
async def test_repeating_a_settlement_does_no_harm(world: World, kind: str) -> None:
    (id,) = await filled(world, 1)
    await all_claimed(world.queue)
    settlement = {
        "done": Settlement(ACME, done=[id]),
        "requeued": Settlement(ACME, requeued=[id]),
        "delayed": Settlement(ACME, delayed=[(id, 60.0)]),
        "parked": Settlement(ACME, parked=[(SMS, id)]),
    }[kind]
    await world.queue.settle([settlement])
    await world.queue.settle([settlement])
    await world.queue.unpark(ACME, SMS, 10)
    world.pass_time(100)

    assert list(await all_claimed(world.queue)) == ([] if kind == "done" else [id])


async def test_one_call_settles_everything_of_many_organizations(world: World) -> None:
    mine, theirs = ids(4), ids(1, first=10)
    await world.queue.enqueue([Arrival(ACME, mine, ()), Arrival(OTHER, theirs, ())])
    await all_claimed(world.queue, ACME)
    await all_claimed(world.queue, OTHER)
    await world.queue.settle(
        [
            Settlement(ACME, [mine[0]], [(mine[1], 60.0)], [mine[2]], [(SMS, mine[3])], [b'{"a":1}']),
            Settlement(OTHER, done=theirs),
        ]
    )

    assert list(await all_claimed(world.queue)) == [mine[2]]
    assert await world.queue.unpark(ACME, SMS, 10) == Unparked(SMS, 1, 0)
    world.pass_time(100)
    assert list(await all_claimed(world.queue)) == [mine[1], mine[3]]
    assert world.announced(ACME) == [b'{"a":1}']


# --- parked -------------------------------------------------------------------------------------------------------------


async def park(world: World, channel: Channel, n: int) -> list[NotificationId]:
    made = await filled(world, n)
    await all_claimed(world.queue)
    await world.queue.settle([Settlement(ACME, parked=[(channel, id) for id in reversed(made)])])
    return made


async def test_parked_ids_stay_away_until_called_back(world: World) -> None:
    await park(world, SMS, 3)
    world.pass_time(10 * LEASE_S)

    assert list(await all_claimed(world.queue)) == []


async def test_the_oldest_parked_ids_come_back_first_and_to_the_head(world: World) -> None:
    made = await park(world, SMS, 3)
    (later,) = ids(1, first=100)
    await world.queue.enqueue([Arrival(ACME, [later], ())])
    first = await world.queue.unpark(ACME, SMS, 2)
    claimed = await all_claimed(world.queue)

    assert first == Unparked(SMS, 2, 1)
    assert list(claimed) == [made[0], made[1], later]
    assert await world.queue.unpark(ACME, SMS, 2) == Unparked(SMS, 1, 0)
    assert await world.queue.unpark(ACME, SMS, 2) == Unparked(SMS, 0, 0)


async def test_channels_are_parked_apart(world: World) -> None:
    made = await filled(world, 2)
    await all_claimed(world.queue)
    await world.queue.settle([Settlement(ACME, parked=[(SMS, made[0]), (EMAIL, made[1])])])

    assert await world.queue.unpark(ACME, EMAIL, 10) == Unparked(EMAIL, 1, 0)
    assert list(await all_claimed(world.queue)) == [made[1]]


async def test_an_id_whose_lease_had_run_out_is_not_parked_as_well(world: World) -> None:
    made = await filled(world, 1)
    await all_claimed(world.queue)
    world.pass_time(LEASE_S + 1)
    await world.queue.claim(ACME, 0)
    await world.queue.settle([Settlement(ACME, parked=[(SMS, made[0])])])

    assert await world.queue.unpark(ACME, SMS, 10) == Unparked(SMS, 0, 0)
    assert list(await all_claimed(world.queue)) == made


# --- active and retire --------------------------------------------------------------------------------------------------


async def test_an_organization_is_active_from_its_first_arrival(world: World) -> None:
    before = await world.queue.active(10)
    await filled(world, 1)

    assert before == []
    assert await world.queue.active(10) == [ACME]


async def test_the_longest_overdue_organizations_come_first_across_shards(world: World) -> None:
    names = [OrganizationId(f"org-{number}") for number in range(8)]
    assert len({shard_of(name, SHARDS) for name in names}) > 1
    for name in names:
        await filled(world, 1, name)
        world.pass_time(10)

    assert await world.queue.active(3) == names[:3]
    assert await world.queue.active(100) == names


async def test_only_organizations_of_the_shards_that_were_asked_for_are_named(world: World) -> None:
    names = [OrganizationId(f"org-{number}") for number in range(8)]
    for name in names:
        await filled(world, 1, name)
        world.pass_time(10)
    asked = {shard_of(names[0], SHARDS), shard_of(names[5], SHARDS)}

    assert await world.queue.active(100, asked) == [name for name in names if shard_of(name, SHARDS) in asked]
    assert await world.queue.active(1, asked) == names[:1]
    assert await world.queue.active(100, ()) == []


async def test_an_organization_with_a_queue_does_not_retire(world: World) -> None:
    await filled(world, 2)
    await world.queue.claim(ACME, 1)

    assert not await world.queue.retire(ACME)
    assert await world.queue.active(10) == [ACME]


async def test_an_organization_without_ids_retires_for_good(world: World) -> None:
    made = await filled(world, 1)
    await all_claimed(world.queue)
    await world.queue.settle([Settlement(ACME, done=made)])

    assert await world.queue.retire(ACME)
    world.pass_time(10 * LEASE_S)
    assert await world.queue.active(10) == []


@pytest.mark.parametrize("why", ["inflight", "delayed", "parked"])
async def test_a_retired_organization_is_active_again_when_its_next_id_is_due(world: World, why: str) -> None:
    (id,) = await filled(world, 1)
    await all_claimed(world.queue)
    due_in_s = {"inflight": LEASE_S, "delayed": 500.0, "parked": PARKED_LOOK_AGAIN_S}[why]
    if why == "delayed":
        await world.queue.settle([Settlement(ACME, delayed=[(id, due_in_s)])])
    elif why == "parked":
        await world.queue.settle([Settlement(ACME, parked=[(SMS, id)])])

    assert await world.queue.retire(ACME)
    world.pass_time(due_in_s - 20)
    assert await world.queue.active(10) == []
    world.pass_time(21)
    assert await world.queue.active(10) == [ACME]


async def test_an_arrival_makes_a_retired_organization_active_at_once(world: World) -> None:
    (id,) = await filled(world, 1)
    await all_claimed(world.queue)
    await world.queue.settle([Settlement(ACME, delayed=[(id, 500.0)])])
    await world.queue.retire(ACME)
    await world.queue.enqueue([Arrival(ACME, ids(1, first=10), ())])

    assert await world.queue.active(10) == [ACME]


# --- announcements ------------------------------------------------------------------------------------------------------


async def test_announcements_are_kept_in_order_and_apart(world: World) -> None:
    await world.queue.enqueue([Arrival(ACME, ids(1), [b'{"n":1}', b'{"n":2}']), Arrival(OTHER, ids(1), [b'{"n":3}'])])
    await world.queue.settle([Settlement(ACME, announcements=[b'{"n":4}'])])

    assert world.announced(ACME) == [b'{"n":1}', b'{"n":2}', b'{"n":4}']
    assert world.announced(OTHER) == [b'{"n":3}']


async def test_announcements_need_no_ids(world: World) -> None:
    await world.queue.enqueue([Arrival(ACME, [], [b'{"n":1}'])])

    assert world.announced(ACME) == [b'{"n":1}']
    assert list(await all_claimed(world.queue)) == []


# --- restore and survived -----------------------------------------------------------------------------------------------


async def test_ids_that_the_queue_lost_are_put_back_at_the_head_oldest_first(world: World) -> None:
    lost, later = ids(3), ids(1, first=100)
    await world.queue.enqueue([Arrival(ACME, later, ())])
    restored = await world.queue.restore(ACME, list(reversed(lost)))

    assert restored == 3
    assert list(await all_claimed(world.queue)) == lost + later


async def test_restoring_makes_the_organization_active(world: World) -> None:
    await world.queue.restore(ACME, ids(1))

    assert await world.queue.active(10) == [ACME]


async def test_nothing_to_restore_changes_nothing(world: World) -> None:
    assert await world.queue.restore(ACME, []) == 0
    assert await world.queue.active(10) == []


@pytest.mark.parametrize("where", ["queue", "inflight", "delayed", "parked"])
async def test_ids_that_are_known_are_not_put_back(world: World, where: str) -> None:
    made = await filled(world, 3)
    if where != "queue":
        await all_claimed(world.queue)
    if where == "delayed":
        await world.queue.settle([Settlement(ACME, delayed=[(id, 60.0) for id in made])])
    elif where == "parked":
        await world.queue.settle([Settlement(ACME, parked=[(SMS, id) for id in reversed(made)])])

    assert await world.queue.restore(ACME, made) == 0


async def test_parked_ids_of_one_channel_never_hide_what_was_lost_of_another(world: World) -> None:
    parked = await park(world, SMS, 2)
    lost = ids(2, first=100)

    assert await world.queue.restore(ACME, parked + lost) == 2
    assert list(await all_claimed(world.queue)) == lost


async def test_an_id_behind_an_older_head_is_left_alone_until_the_head_has_passed_it(world: World) -> None:
    """The queue is not searched: what may stand in it is taken to stand in it."""
    oldest, newer, newest = ids(3)
    await world.queue.enqueue([Arrival(ACME, [oldest, newest], ())])
    too_early = await world.queue.restore(ACME, [newer])
    await world.queue.claim(ACME, 1)

    assert too_early == 0
    assert await world.queue.restore(ACME, [newer]) == 1


@pytest.mark.parametrize("where", ["queue", "inflight", "delayed", "parked"])
async def test_an_organization_whose_ids_are_known_is_found_again_when_it_was_forgotten_that_it_has_any(
    world: World, where: str
) -> None:
    made = await filled(world, 3)
    due_in_s = {"queue": 0.0, "inflight": LEASE_S, "delayed": 500.0, "parked": PARKED_LOOK_AGAIN_S}[where]
    if where != "queue":
        await all_claimed(world.queue)
    if where == "delayed":
        await world.queue.settle([Settlement(ACME, delayed=[(id, due_in_s + n) for n, id in enumerate(made)])])
    elif where == "parked":
        await world.queue.settle([Settlement(ACME, parked=[(SMS, id) for id in made])])
    world.lose_active()
    forgotten = await world.queue.active(10)
    restored = await world.queue.restore(ACME, made)

    assert (forgotten, restored) == ([], 0)
    if due_in_s:
        world.pass_time(due_in_s - 20)
        assert await world.queue.active(10) == []
        world.pass_time(21)
    assert await world.queue.active(10) == [ACME]


async def test_restoring_what_is_known_puts_no_attention_off(world: World) -> None:
    made = await filled(world, 2)
    await world.queue.claim(ACME, 2)
    await world.queue.settle([Settlement(ACME, parked=[(SMS, id) for id in made])])
    await world.queue.restore(ACME, made)

    assert await world.queue.active(10) == [ACME]


@pytest.mark.parametrize("shards", [1, 3, 5, 16])
async def test_after_a_change_of_the_number_of_shards_every_organization_is_found_by_the_owner_of_its_own(
    world: World, shards: int
) -> None:
    names = [OrganizationId(f"org-{number}") for number in range(20)]
    made = ids(20)
    await world.queue.enqueue([Arrival(name, [id], ()) for name, id in zip(names, made, strict=True)])
    world.divide(shards)
    for shard in range(shards):
        assert {shard_of(name, shards) for name in await world.queue.active(100, {shard})} <= {shard}
    for name, id in zip(names, made, strict=True):
        await world.queue.restore(name, [id])

    for shard in range(shards):
        found = await world.queue.active(100, {shard})
        assert sorted(found) == sorted(name for name in names if shard_of(name, shards) == shard)


async def test_a_sweep_hands_who_was_left_in_a_shard_of_others_on_to_its_own(world: World) -> None:
    """So that after a change to more shards nobody waits for the walk over old rows."""
    names = [OrganizationId(f"org-{number}") for number in range(20)]
    for name in names:
        await filled(world, 1, name)
        world.pass_time(1)
    more = 4 * SHARDS + 1
    world.divide(more)
    at_first = {shard: await world.queue.active(100, {shard}) for shard in range(more)}
    then = {shard: await world.queue.active(100, {shard}) for shard in range(more)}

    assert all(shard_of(name, more) == shard for shard, found in at_first.items() for name in found)
    assert then == {shard: [name for name in names if shard_of(name, more) == shard] for shard in range(more)}


async def test_a_queue_survives_until_it_loses_its_memory_and_says_so_once(world: World) -> None:
    first = await world.queue.survived()
    second = await world.queue.survived()
    await filled(world, 2)
    world.lose_memory()
    third = await world.queue.survived()
    fourth = await world.queue.survived()

    assert (first, second, third, fourth) == (False, True, False, True)
    assert list(await all_claimed(world.queue)) == []


# --- only on Redis ------------------------------------------------------------------------------------------------------


async def test_a_queue_command_that_redis_refuses_is_unavailability_and_nothing_of_the_driver(redis_url: str) -> None:
    async with redis_world(redis_url) as world:
        with redis_py.Redis.from_url(redis_url) as client:
            client.set(Keys().queue(ACME), "not a list")
            client.set(Keys().active(shard_of(ACME, SHARDS)), "not a sorted set")
        for call in (
            lambda: world.queue.enqueue([Arrival(ACME, ids(1), ())]),
            lambda: world.queue.claim(ACME, 1),
            lambda: world.queue.active(10),
            lambda: world.queue.retire(ACME),
            lambda: world.queue.restore(ACME, ids(1)),
        ):
            with pytest.raises(QueueUnavailable, match="refused"):
                await call()


async def test_a_settlement_that_redis_refuses_stops_no_other(redis_url: str) -> None:
    async with redis_world(redis_url) as world:
        made = await filled(world, 1)
        await all_claimed(world.queue)
        with redis_py.Redis.from_url(redis_url) as client:
            client.set(Keys().queue(OTHER), "not a list")
            client.zadd(Keys().inflight(OTHER), {ids(1)[0]: 1})
        await world.queue.settle([Settlement(OTHER, requeued=ids(1)), Settlement(ACME, done=made)])
        world.pass_time(LEASE_S + 1)

        assert list(await all_claimed(world.queue)) == []


async def test_wake_ups_are_published_when_a_queue_fills_and_when_ids_are_handed_back(redis_url: str) -> None:
    with redis_py.Redis.from_url(redis_url) as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(Keys().wake(shard_of(ACME, SHARDS)))
        pubsub.get_message(timeout=10)

        async with redis_world(redis_url) as world:
            made = await filled(world, 2)
            await world.queue.enqueue([Arrival(ACME, ids(1, first=10), ())])  # was not empty: no second one
            await world.queue.claim(ACME, 1)
            await world.queue.settle([Settlement(ACME, requeued=made[:1])])
            await world.queue.restore(OTHER, ids(1))
            world.lose_active()
            for _ in range(3):  # the first finds that it is forgotten, the others have nothing to tell
                assert await world.queue.restore(ACME, made) == 0
            with redis_py.Redis.from_url(redis_url) as last:
                last.publish(Keys().wake(shard_of(ACME, SHARDS)), "end")

        heard: list[bytes] = []
        while not heard or heard[-1] != b"end":
            message = pubsub.get_message(timeout=10)
            if message is not None:
                heard.append(message["data"])

    assert heard[:-1].count(b"acme") == 3


async def test_claims_and_settlements_pass_when_redis_is_out_of_memory(redis_url: str) -> None:
    async with redis_world(redis_url) as world:
        made = await filled(world, 3)
        with redis_py.Redis.from_url(redis_url) as client:
            client.config_set("maxmemory", "1")
            try:
                with pytest.raises(QueueUnavailable):
                    await world.queue.enqueue([Arrival(ACME, ids(1, first=10), ())])
                claimed = await all_claimed(world.queue)
                await world.queue.settle([Settlement(ACME, [made[0]], [(made[1], 60.0)], [], [(SMS, made[2])])])
                unparked = await world.queue.unpark(ACME, SMS, 1)
                retired = await world.queue.retire(ACME)
            finally:
                client.config_set("maxmemory", "0")

    assert list(claimed) == made
    assert unparked == Unparked(SMS, 1, 0)
    assert not retired


# --- two lanes ----------------------------------------------------------------------------------------------------------


async def both(world: World, n: int, n_bulk: int) -> tuple[list[NotificationId], list[NotificationId]]:
    """Ids that wait in the two queues; those of bulk are the older ones."""
    bulk, others = ids(n_bulk), ids(n, first=100_000)
    await world.queue.enqueue([Arrival(ACME, bulk, (), True), Arrival(ACME, others, ())])
    return others, bulk


@pytest.mark.parametrize("sizes", [[1] * 60, [7] * 9, [100], [3, 1, 14, 1, 1, 20, 2, 9, 30]], ids=str)
async def test_while_both_lanes_wait_every_tenth_id_is_one_of_bulk_whatever_the_sizes_of_claims(
    world: World, sizes: list[int]
) -> None:
    others, bulk = await both(world, 200, 50)
    seen: list[NotificationId] = []
    for size in sizes:
        claimed = await world.queue.claim(ACME, size)
        lanes = [id in bulk for id in claimed.ids]
        seen.extend(claimed.ids)
        of_bulk = sum(id in bulk for id in seen)

        assert len(claimed.ids) == size
        assert claimed.backlog == 250 - len(seen)
        assert of_bulk == len(seen) // 10
        assert lanes == sorted(lanes), "the others come first"
    assert [id for id in seen if id in others] == others[: len(seen) - of_bulk]
    assert [id for id in seen if id in bulk] == bulk[:of_bulk]


async def test_a_lane_that_waits_alone_gets_all_of_a_claim(world: World) -> None:
    others, bulk = await both(world, 3, 20)
    first = await world.queue.claim(ACME, 10)
    second = await world.queue.claim(ACME, 100)

    assert (list(first.ids), first.backlog) == (others + bulk[:7], 13)
    assert (list(second.ids), second.backlog) == (bulk[7:], 0)


@pytest.mark.parametrize("seed", range(4))
async def test_neither_lane_starves_however_much_the_other_gets(world: World, seed: int) -> None:
    random = Random(seed)
    waiting = {False: set[NotificationId](), True: set[NotificationId]()}
    claimed = {False: 0, True: 0}
    n = 0
    for _ in range(60):
        for lane in (False, True):
            fresh = ids(random.randrange(3, 25), first=1000 * n)
            n += 1
            waiting[lane].update(fresh)
            await world.queue.enqueue([Arrival(ACME, fresh, (), lane)])
        for id in (await world.queue.claim(ACME, random.randrange(1, 8))).ids:
            lane = id in waiting[True]
            waiting[lane].remove(id)
            claimed[lane] += 1

    assert claimed[True] == sum(claimed.values()) // 10


async def test_what_is_of_bulk_returns_to_its_own_lane(world: World) -> None:
    others, bulk = await both(world, 1, 5)
    assert set((await world.queue.claim(ACME, 6)).ids) == {*others, *bulk}
    requeued, delayed, parked, kept, done = bulk
    await world.queue.settle([Settlement(ACME, [done], [(delayed, 10.0)], [requeued, others[0]], [(SMS, parked)])])
    await world.queue.unpark(ACME, SMS, 5)
    world.pass_time(LEASE_S + 1)
    late = ids(50, first=200_000)
    await world.queue.enqueue([Arrival(ACME, late, ())])
    claimed = (await world.queue.claim(ACME, 40)).ids  # with the six before, some four or five are of bulk

    assert claimed[: 40 - 4] == [others[0], *late[:35]]
    assert set(claimed[36:]) == {requeued, delayed, parked, kept}


async def test_a_settlement_says_of_which_lane_is_what_was_never_in_flight(world: World) -> None:
    one, other = ids(2)
    await world.queue.settle([Settlement(ACME, delayed=[(one, 5.0)], bulk=True), Settlement(ACME, delayed=[(other, 5.0)])])
    world.pass_time(6)
    later = ids(9, first=100)
    await world.queue.enqueue([Arrival(ACME, later, ())])

    assert list((await world.queue.claim(ACME, 9)).ids) == [other, *later[:8]]
    assert list((await world.queue.claim(ACME, 9)).ids) == [later[8], one]


async def test_of_parked_ids_every_tenth_that_returns_is_one_of_bulk(world: World) -> None:
    others, bulk = await both(world, 30, 10)
    await all_claimed(world.queue)
    await world.queue.settle([Settlement(ACME, parked=[(SMS, id) for id in (*bulk, *others)])])
    seen: list[NotificationId] = []
    for _ in range(20):
        assert (await world.queue.unpark(ACME, SMS, 1)).moved == 1
        seen.extend(await all_claimed(world.queue))

    assert [id for id in seen if id in bulk] == bulk[:2]
    assert [id for id in seen if id in others] == others[:18]
    assert await world.queue.unpark(ACME, SMS, 100) == Unparked(SMS, 20, 0)
    assert set(await all_claimed(world.queue)) == {*others[18:], *bulk[2:]}


async def test_an_organization_with_bulk_only_is_active_and_does_not_retire(world: World) -> None:
    await world.queue.enqueue([Arrival(ACME, ids(1), (), True)])

    assert await world.queue.active(10) == [ACME]
    assert not await world.queue.retire(ACME)
    world.lose_active()
    assert await world.queue.restore(ACME, [], ids(1)) == 0
    assert await world.queue.active(10) == [ACME]
    await all_claimed(world.queue)
    assert await world.queue.retire(ACME)


async def test_lost_ids_are_put_back_into_their_own_lane(world: World) -> None:
    lost, lost_bulk, later = ids(2), ids(2, first=50), ids(30, first=100)
    await world.queue.enqueue([Arrival(ACME, later, ())])

    assert await world.queue.restore(ACME, lost[::-1], lost_bulk[::-1]) == 4
    assert await world.queue.restore(ACME, [], lost_bulk) == 0
    assert list((await world.queue.claim(ACME, 20)).ids) == [*lost, *later[:16], *lost_bulk]
    assert await world.queue.restore(ACME, lost, lost_bulk) == 0
