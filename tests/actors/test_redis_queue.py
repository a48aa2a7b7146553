"""The queue on Redis never lets anything of its driver out: too much pending is the same to its callers as Redis being away."""

from __future__ import annotations

from random import Random

import trio

from actors.io.redis import open_redis
from actors.ports import Settlement
from actors.redis_queue import RedisQueue
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
