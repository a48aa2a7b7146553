"""What is for later, from the request to the provider or to its cancelation: everything real, in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from running import Customer, dispatching, mail


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def acme(database_url: str, redis_url: str, sandbox: Sandbox) -> AsyncIterator[Customer]:
    async with dispatching(database_url, redis_url, [sandbox]) as running:
        acme = await running.customer("acme")
        await acme.add_provider(sandbox.url)
        yield acme


def after(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def test_what_waits_is_sent_when_its_time_has_come_and_not_when_it_was_canceled(acme: Customer, sandbox: Sandbox) -> None:
    async with acme.listen() as feed:
        soon = await acme.post("notifications", mail("ada@example.org", send_at=after(0.4)))
        one = await acme.post("notifications", mail("bob@example.org", send_at=after(3600)))
        many = await acme.post(
            "notifications",
            {"items": [mail("eve@example.org", send_at=after(3600), correlation_id="order-1") for _ in range(3)]},
        )
        canceled = await acme.call("POST", f"notifications/{one['id']}/cancel")
        all_of = (await acme.call("POST", "notifications/cancel", {"correlation_id": "order-1"})).json()
        scheduled = await feed.until(type="notification.scheduled")
        await feed.until(type="notification.canceled", id=many["items"][2]["id"])
        released = await feed.until(type="notification.released")
        delivered = await feed.until(type="notification.delivered")

    assert soon["status"] == "scheduled"
    assert {event["id"] for event in (scheduled, released, delivered)} == {soon["id"]}
    assert canceled.json() == {"id": one["id"], "status": "canceled"}
    assert all_of == {"canceled": 3, "digest_items": 0, "more": False, "statuses": {"canceled": 3}}
    found = await acme.get(f"notifications/{soon['id']}")
    assert (found["status"], found["send_at"]) == ("delivered", None)
    assert len(sandbox.ledger.recent) == 1
