"""Erasing somebody to whom mails are being sent at this moment: each is canceled or sent, and nothing of theirs is left."""

from __future__ import annotations

from typing import Any

import pytest

from actors.io.postgres import Pool
from actors.store import erasing
from canary import MARK
from dispatcher_sandbox.sandbox import open_sandbox
from running import dispatching, mail, store, until

COUNT = 300
USER, MAIL = f"user-{MARK}", f"{MARK}@example.org"


async def left(pool: Pool) -> int:
    """Rows that still know of them, or may still change; or are looked after."""
    ((count,),) = await pool.fetch(
        "SELECT (SELECT count(*) FROM notifications WHERE user_id IS NOT NULL OR recipient <> '' OR payload <> '{}' "
        "OR status NOT IN ('delivered', 'canceled')) + (SELECT count(*) FROM erasures)"
    )
    return int(count)


async def test_each_is_either_canceled_or_sent_and_nothing_is_left(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "AGAIN_S", 0.1)
    monkeypatch.setattr(erasing, "SETTLED_S", 1.0)
    async with open_sandbox() as sandbox, dispatching(database_url, redis_url, [sandbox]) as running:
        acme = await running.customer("acme")
        await acme.add_provider(sandbox.url, rate_per_s=50)
        profile = {"contact_points": {"email": [MAIL]}}
        assert (await acme.call("PUT", f"users/{USER}", profile)).status_code == 200
        async with acme.listen() as feed:
            rows: list[dict[str, Any]] = [mail(MAIL, user_id=USER) for _ in range(COUNT)]
            answer = await acme.post("notifications", {"items": rows})
            ids = [item["id"] for item in answer["items"]]
            await feed.until(type="notification.delivered")
            erased = await acme.call("POST", f"users/{USER}/erase")

        async with store(database_url) as pool:

            async def is_done() -> bool:
                return await left(pool) == 0

            await until(is_done)
            statuses = dict(await pool.fetch("SELECT status, count(*) FROM notifications GROUP BY status"))

        assert erased.status_code in (200, 202)
        assert statuses.keys() == {"delivered", "canceled"}
        assert sum(statuses.values()) == COUNT
        assert {id: sandbox.ledger.effects(id) for id in ids} == {
            id: int(status == "delivered") for id, status in (await acme.statuses()).items()
        }
