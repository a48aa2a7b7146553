"""History in a whole dispatcher: what was delivered moves while it runs, and its customers go on seeing it."""

from __future__ import annotations

from dispatcher.ids import uuid7
from dispatcher_sandbox.sandbox import open_sandbox
from running import dispatching, until
from store_rows import insert_notification


async def test_what_was_delivered_moves_into_history_and_is_read_and_counted_as_before(database_url: str, redis_url: str) -> None:
    async with (
        open_sandbox() as sandbox,
        dispatching(database_url, redis_url, [sandbox], history_after_s="0.05") as running,
    ):
        customer, pool = await running.customer("acme"), running.service.node.pool
        await customer.add_provider(sandbox.url)
        async with customer.listen() as feed:
            ids = await customer.send_all(f"person{number}@example.org" for number in range(7))
            await feed.outcomes(ids)
        waiting = await insert_notification(pool, uuid7(1_764_000_000_000, 1), status="scheduled")

        async def moved() -> bool:
            return (await running.metrics()).get('dispatcher_events_total{event="history_moved"}') == len(ids)

        await until(moved)

        assert await customer.statuses() == {**dict.fromkeys(ids, "delivered"), waiting: "scheduled"}
        assert await customer.timeline(ids[0]) == ["created", "delivered"]
        assert await pool.fetch("SELECT id FROM notifications") == [(waiting,)]
        numbers = await customer.get("statistics?by=outcome")
        assert {item["outcome"]: item["count"] for item in numbers["items"]} == {"accepted": 8, "delivered": 7}

        async def added_up() -> bool:
            return await pool.fetch("SELECT FROM count_deltas") == []

        await until(added_up)
        assert await customer.get("statistics?by=outcome") == numbers
