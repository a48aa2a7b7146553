"""Many requeued letters on their way to the queue: in bounded portions, with one event for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random

import orjson
import pytest
import redis

from actors import letter_news
from actors.io.redis import open_redis
from actors.letter_news import LetterNews
from actors.redis_queue import RedisQueue
from dispatcher.keys import Keys
from dispatcher.model import NotificationId, OrganizationId

ACME = OrganizationId("acme")
KEYS = Keys()
AT_S = 1_764_000_000.0


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[RedisQueue]:
    async with open_redis(redis_url, connect_deadline_s=5, command_deadline_s=5, random=Random(1)) as connection:
        yield RedisQueue(connection, lease_s=60, shards=1)


async def test_each_waits_for_its_turn_and_listeners_hear_once(
    queue: RedisQueue, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letter_news, "SCRIPT_IDS_MAX", 2)
    woken: list[OrganizationId] = []
    news = LetterNews(queue, woken.append, lambda: AT_S)
    ids = [NotificationId(f"0194{number:032x}") for number in range(7)]

    await news.requeued(ACME, [(id, 0.0 if number < 3 else 1000.0 * number) for number, id in enumerate(ids)])
    await news.discarded(ACME, 2)

    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        assert client.lrange(KEYS.queue(ACME), 0, -1) == ids[2::-1]
        assert client.zrange(KEYS.delayed(ACME), 0, -1) == ids[3:]
        events = [orjson.loads(fields["e"]) for _, fields in client.xrange(KEYS.events(ACME))]
    assert events == [
        {"type": "dead_letters.requeued", "count": 7, "last_due_in_s": 6000.0, "at": AT_S},
        {"type": "dead_letters.discarded", "count": 2, "at": AT_S},
    ]
    assert woken == [ACME]
