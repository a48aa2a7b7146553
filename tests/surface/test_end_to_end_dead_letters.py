"""A provider's outage and what it leaves behind: found by cause, sent again at a pace, each once, while listeners hear of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
import pytest
import redis

from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from running import Customer, Running, dispatching, until


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def running(database_url: str, redis_url: str, sandbox: Sandbox) -> AsyncIterator[Running]:
    async with dispatching(
        database_url, redis_url, [sandbox], attempts_max="1", breaker_calls_min="1000", breaker_failures_in_a_row="1000"
    ) as running:
        yield running


@pytest.fixture
async def acme(running: Running, sandbox: Sandbox) -> Customer:
    acme = await running.customer("acme")
    await acme.add_provider(sandbox.url)
    return acme


async def fail(customer: Customer, kind: str, count: int) -> list[str]:
    """So many dead letters."""
    ids = await customer.send_all(f"{kind}-1+{number}@sandbox.test" for number in range(count))
    async with customer.listen(since="0") as feed:
        outcomes = await feed.outcomes(ids)
    assert set(outcomes.values()) == {"notification.failed"}
    return ids


async def test_one_cause_is_requeued_at_a_pace_and_each_is_delivered_once(acme: Customer, sandbox: Sandbox) -> None:
    """The soft ones succeed at their second attempt; the bounces are another cause and stay where they are."""
    bounced = await fail(acme, "bounce", 3)
    soft = await fail(acme, "soft", 12)
    groups = (await acme.get("dead-letters/groups"))["items"]
    asked = {"filter": groups[0]["filter"], "per_s": 20, "limit": 10}

    async with acme.listen() as feed:
        first = await acme.post("dead-letters/requeue", asked)
        second = await acme.post("dead-letters/requeue", {**asked, "start_at": first["last_due_at"]})
        third = await acme.post("dead-letters/requeue", asked)
        news = await feed.until(type="dead_letters.requeued")
        outcomes = await feed.outcomes(soft)

    assert [(group["reason"], group["count"]) for group in groups] == [("exhausted", 12), ("hard", 3)]
    assert [(answer["requeued"], answer["left"]["count"]) for answer in (first, second, third)] == [(10, 2), (2, 0), (0, 0)]
    assert first["last_due_at"] < second["last_due_at"]
    assert news["count"] == 10
    assert set(outcomes.values()) == {"notification.delivered"}
    assert dict(sandbox.ledger.notifications.items()) == dict.fromkeys(soft, 1)
    assert await acme.timeline(soft[0]) == ["created", "soft", "requeued", "delivered"]
    assert {item["notification_id"] for item in (await acme.get("dead-letters"))["items"]} == set(bounced)


async def test_what_redis_never_heard_of_is_sent_all_the_same(
    acme: Customer, sandbox: Sandbox, redis_url: str, running: Running
) -> None:
    """A requeue is on record before Redis hears of it: here its keys are lost right after, the way a restart loses them."""
    soft = await fail(acme, "soft", 5)
    done = await acme.post("dead-letters/requeue", {"ids": soft, "per_s": 4})
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()

    assert done["requeued"] == 5
    await until(lambda: acme.all_delivered(soft))
    assert dict(sandbox.ledger.notifications.items()) == dict.fromkeys(soft, 1)


async def test_discarded_ones_are_gone_and_stay_failed(acme: Customer) -> None:
    bounced = await fail(acme, "bounce", 4)
    async with acme.listen() as feed:
        done = await acme.post("dead-letters/discard", {"filter": {"reason": "hard"}, "limit": 3})
        news = await feed.until(type="dead_letters.discarded")
    response = await acme.call("GET", "dead-letters/export")

    assert (done["discarded"], done["left"], news["count"]) == (3, {"count": 1, "more": False}, 3)
    (letter,) = [orjson.loads(line) for line in response.content.splitlines()]
    assert (letter["notification_id"], letter["recipient"][:9]) == (max(bounced), "bounce-1+")
    assert set((await acme.statuses()).values()) == {"failed"}
    assert await acme.timeline(min(bounced)) == ["created", "hard", "failed", "discarded"]
