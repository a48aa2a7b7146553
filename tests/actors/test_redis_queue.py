"""The queue on Redis never lets anything of its driver out: too much pending is the same to its callers as Redis being away."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import cast

import trio

from actors.io.redis import Redis, Reply, ScriptCall, open_redis
from actors.ports import Arrival, Settlement
from actors.redis_queue import ENQUEUE_IDS_MAX, RedisQueue
from dispatcher.errors import QueueUnavailable
from dispatcher.model import NotificationId, OrganizationId

ORG = OrganizationId("acme")
ID = NotificationId("0192d3a4-7c1e-7f00-8000-0123456789ab")


async def test_a_redis_that_does_not_keep_up_counts_as_away(redis_url: str) -> None:
    refused = 0

    async with open_redis(redis_url, random=Random(1), connect_deadline_s=5, command_deadline_s=5, pending_max=1) as redis:
        queue = RedisQueue(redis, lease_s=60, shards=4)
        await queue.survived()

        async def ask(number: int) -> None:
            nonlocal refused
            try:
                match number % 3:
                    case 0:
                        await queue.claim(ORG, 1)
                    case 1:
                        await queue.settle([Settlement(ORG, done=[ID])])
                    case _:
                        await queue.active(10)
            except QueueUnavailable:
                refused += 1

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(ask, number)

        assert refused > 0
        assert (await queue.claim(ORG, 1)).ids == []


class Recorder:
    """Takes script calls for a Redis; notes how many ids each round trip carried for whom."""

    def __init__(self) -> None:
        self.round_trips: list[list[tuple[object, list[object]]]] = []

    async def run_many(self, calls: Sequence[ScriptCall]) -> list[Reply]:
        await trio.lowlevel.checkpoint()
        self.round_trips.append([(args[0], list(args[4 : 4 + cast("int", args[3])])) for _, _, args in calls])
        return [0 for _ in calls]


async def test_a_batch_of_thousands_is_added_in_pieces_so_that_others_have_their_turn() -> None:
    recorder = Recorder()
    queue = RedisQueue(cast("Redis", recorder), lease_s=60, shards=4)
    many = [NotificationId(str(number)) for number in range(2 * ENQUEUE_IDS_MAX + 5)]
    other = OrganizationId("other")

    await queue.enqueue([Arrival(ORG, many, [b"{}"] * len(many)), Arrival(other, [ID], [b"{}"])])

    assert ENQUEUE_IDS_MAX <= 500
    assert [sum(len(ids) for _, ids in calls) for calls in recorder.round_trips] == [ENQUEUE_IDS_MAX, ENQUEUE_IDS_MAX, 6]
    assert [id for calls in recorder.round_trips for name, ids in calls if name == ORG for id in ids] == many
    assert recorder.round_trips[-1][-1] == (other, [ID])
