"""Two releases at work on one Redis: scripts of both lie side by side, and what one puts there the other takes.

The first release's scripts are the recorded ones (tests/first_release_scripts.py), today's are whatever they are by now
(scenario 36).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Any

import pytest
import redis

import first_release_scripts
from actors.io.redis import open_redis
from actors.ports import Arrival, Settlement
from actors.redis_queue import RedisQueue
from dispatcher.ids import uuid7
from dispatcher.model import Channel, NotificationId, OrganizationId
from first_release import FirstReleaseQueue

ACME = OrganizationId("acme")
EMAIL = Channel.EMAIL


def made(count: int, first: int = 0) -> list[NotificationId]:
    return [NotificationId(uuid7(1_700_000_000_000 + first + number, number)) for number in range(count)]


class Server:
    """What a test does to the server itself and sees of it."""

    def __init__(self, client: redis.Redis) -> None:
        self.client: Any = client

    def pass_time(self, seconds: float) -> None:
        for kind in ("inflight", "delayed", "active"):
            for key in self.client.scan_iter(f"notifications:{kind}:*"):
                for member, score in self.client.zrange(key, 0, -1, withscores=True):
                    self.client.zadd(key, {member: score - seconds * 1000})

    def holds(self) -> list[str]:
        """Every id that stands anywhere, as often as it stands there."""
        found = [
            *self.client.lrange("notifications:queue:acme", 0, -1),
            *self.client.lrange("notifications:queue:acme:bulk", 0, -1),
        ]
        for pattern in ("inflight:acme", "delayed:acme", "parked:acme:*"):
            for key in self.client.scan_iter(f"notifications:{pattern}"):
                found += self.client.zrange(key, 0, -1)
        return sorted(id.decode() for id in found)

    def events(self) -> list[bytes]:
        return [fields[b"e"] for _, fields in self.client.xrange("notifications:events:acme")]


@pytest.fixture
def server(redis_url: str) -> Iterator[Server]:
    with redis.Redis.from_url(redis_url) as client:
        yield Server(client)


@pytest.fixture
def old(server: Server) -> FirstReleaseQueue:
    return FirstReleaseQueue(server.client, ACME)


@pytest.fixture
async def present(redis_url: str) -> AsyncIterator[RedisQueue]:
    async with open_redis(redis_url, connect_deadline_s=10, command_deadline_s=10, random=Random(1)) as connection:
        yield RedisQueue(connection, lease_s=1000, shards=1)


async def test_what_one_enqueues_the_other_claims_in_the_same_order(old: FirstReleaseQueue, present: RedisQueue) -> None:
    ids = made(6)
    old.enqueue(ids[:3], [b"{}"])
    await present.enqueue([Arrival(ACME, ids[3:], [b"{}"])])

    assert old.claim(1) == ids[:1]
    assert list((await present.claim(ACME, 4)).ids) == ids[1:5]
    assert old.claim(9) == ids[5:]
    assert await present.active(9) == [ACME]


async def test_what_one_claimed_the_other_settles_offers_again_or_unparks(
    old: FirstReleaseQueue, present: RedisQueue, server: Server
) -> None:
    ids = made(10)
    old.enqueue(ids)
    claimed = old.claim(5) + list((await present.claim(ACME, 5)).ids)
    assert claimed == ids
    await present.settle(
        [
            Settlement(
                ACME, done=[ids[0]], delayed=[(ids[1], 10.0)], requeued=[ids[2]], parked=[(EMAIL, ids[3])], announcements=[b"new"]
            )
        ]
    )
    old.settle(done=[ids[5]], delayed=[(ids[6], 10_000)], requeued=[ids[7]], parked=[ids[8]], announcements=[b"old"])

    assert server.events() == [b"new", b"old"]
    assert server.holds() == sorted(set(ids) - {ids[0], ids[5]})
    assert set(old.claim(10)) == {ids[2], ids[7]}
    assert old.unpark(1) == (1, 1)
    assert (await present.unpark(ACME, EMAIL, 1)).left == 0
    assert list((await present.claim(ACME, 1)).ids) == [ids[8]]
    assert old.claim(1) == [ids[3]]
    server.pass_time(20)
    assert set(old.claim(1)) | set((await present.claim(ACME, 1)).ids) == {ids[1], ids[6]}
    server.pass_time(2000)
    assert set((await present.claim(ACME, 100)).ids) == set(ids) - {ids[0], ids[5]}


async def test_neither_takes_what_the_other_knows_for_lost(old: FirstReleaseQueue, present: RedisQueue, server: Server) -> None:
    ids = made(5)
    old.enqueue(ids[:4])
    old.claim(4)
    old.settle(delayed=[(ids[1], 10_000)], parked=[ids[2]])

    assert await present.restore(ACME, ids[:4]) == 0
    assert old.restore(ids) == 1
    assert server.holds() == ids
    assert not await present.retire(ACME)
    assert not old.retire()
    assert old.claim(1) == [ids[4]]
    assert old.retire()
    assert await present.retire(ACME)


async def test_scripts_of_both_are_found_by_their_digests_after_a_flush(
    old: FirstReleaseQueue, present: RedisQueue, server: Server
) -> None:
    ids = made(4)
    old.enqueue(ids[:2])
    server.client.script_flush()
    await present.enqueue([Arrival(ACME, ids[2:], ())])
    server.client.script_flush()

    assert old.claim(2) == ids[:2]
    assert list((await present.claim(ACME, 2)).ids) == ids[2:]


async def test_the_bulk_lane_waits_for_a_process_that_knows_of_it(
    old: FirstReleaseQueue, present: RedisQueue, server: Server
) -> None:
    ids = made(4)
    await present.enqueue([Arrival(ACME, ids, (), True)])

    assert old.claim(9) == []
    assert old.retire()  # it sees nothing to do: the walk over old rows finds the organization again
    assert await present.active(9) == []
    assert await present.restore(ACME, [], ids) == 0
    assert await present.active(9) == [ACME]
    assert list((await present.claim(ACME, 9)).ids) == ids


async def test_what_an_older_process_takes_back_of_bulk_goes_on_in_the_lane_it_knows(
    old: FirstReleaseQueue, present: RedisQueue, server: Server
) -> None:
    ids = made(4)
    await present.enqueue([Arrival(ACME, ids, (), True)])
    assert list((await present.claim(ACME, 9)).ids) == ids
    await present.settle([Settlement(ACME, delayed=[(ids[0], 10.0)], parked=[(EMAIL, ids[1])])])
    old.settle(requeued=[ids[2]])
    assert old.unpark(1) == (1, 0)
    assert set(old.claim(9)) == {ids[1], ids[2]}
    server.pass_time(2000)

    assert set(old.claim(9)) == set(ids)
    assert server.holds() == ids


def test_the_record_says_which_scripts_there_were() -> None:
    names = {name for name in vars(first_release_scripts) if name.isupper() and not name.startswith("_")}

    assert names == {"ENQUEUE", "CLAIM", "SETTLE", "UNPARK", "RETIRE", "RESTORE"}


@pytest.mark.parametrize("seed", range(3))
async def test_both_at_work_for_a_while_keep_every_id_exactly_once(
    old: FirstReleaseQueue, present: RedisQueue, server: Server, seed: int
) -> None:
    random = Random(seed)
    ended: set[str] = set()
    everything: list[NotificationId] = []
    held: list[str] = []

    async def enqueue() -> None:
        ids = made(random.randrange(1, 8), len(everything))
        everything.extend(ids)
        if random.random() < 0.5:
            old.enqueue(ids)
        else:
            await present.enqueue([Arrival(ACME, ids, (), random.random() < 0.4)])

    async def claim() -> None:
        n = random.randrange(1, 8)
        ids = old.claim(n) if random.random() < 0.5 else list((await present.claim(ACME, n)).ids)
        assert not set(ids) & set(held)
        held.extend(ids)

    async def settle() -> None:
        random.shuffle(held)
        mine = [NotificationId(id) for id in held[:4]]
        del held[:4]
        done, delayed, requeued, parked = (mine[index : index + 1] for index in range(4))
        ended.update(done)
        if random.random() < 0.5:
            old.settle(done, [(id, 5000) for id in delayed], requeued, parked)
        else:
            await present.settle(
                [Settlement(ACME, done, [(id, 5.0) for id in delayed], requeued, [(EMAIL, id) for id in parked])]
            )

    async def unpark() -> None:
        if random.random() < 0.5:
            old.unpark(3)
        else:
            await present.unpark(ACME, EMAIL, 3)

    async def restore() -> None:
        lists = ("notifications:queue:acme", "notifications:queue:acme:bulk")
        queued = {id.decode() for name in lists for id in server.client.lrange(name, 0, -1)}
        waiting = [NotificationId(id) for id in server.holds() if id not in queued]  # those in the queue may be put there twice
        assert (old.restore(waiting) if random.random() < 0.5 else await present.restore(ACME, waiting)) == 0

    for _ in range(150):
        await random.choices([enqueue, claim, settle, unpark, restore], [2, 4, 4, 1, 1])[0]()
        server.pass_time(1)
        assert server.holds() == sorted(set(everything) - ended)
