"""What became of notifications, as their organization reads it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from actors.io.postgres import Pool
from actors.store import notifications
from actors.store.page import PageRequest
from dispatcher.model import Channel, OrganizationId, Status
from store_rows import START, insert_attempt, insert_notification

ACME, GLOBEX = OrganizationId("acme"), OrganizationId("globex")
Ids = Callable[[], str]


async def events(pool: Pool, id: str) -> list[tuple[str, int | None, str | None]]:
    detail = await notifications.read(pool, ACME, id)
    assert detail is not None
    return [(entry.event, entry.attempt, entry.code) for entry in detail.timeline]


async def test_one_is_read_whole_by_its_owner_only(pool: Pool, new_id: Ids) -> None:
    id = await insert_notification(pool, new_id(), user_id="u1", expires_at=START + timedelta(hours=1))

    detail = await notifications.read(pool, ACME, id)

    assert detail is not None
    assert (detail.summary.id, detail.summary.status, detail.summary.channel) == (id, Status.QUEUED, Channel.EMAIL)
    assert (detail.summary.recipient, detail.summary.user_id) == ("somebody@example.org", "u1")
    assert detail.summary.expires_at == START + timedelta(hours=1)
    assert detail.payload == {"subject": "Hello", "text": "Hello there"}
    assert await notifications.read(pool, GLOBEX, id) is None
    assert await notifications.read(pool, ACME, new_id()) is None


async def test_no_repr_shows_who_or_what(pool: Pool, new_id: Ids) -> None:
    id = await insert_notification(pool, new_id(), user_id="user-17", idempotency_key="order-of-somebody")

    shown = repr(await notifications.read(pool, ACME, id))

    for personal in ("somebody", "Hello", "user-17"):
        assert personal not in shown


async def test_what_was_delivered_at_the_first_try_has_an_end_although_no_step_is_stored(pool: Pool, new_id: Ids) -> None:
    id = await insert_notification(pool, new_id(), status="delivered", attempts=1, updated_at=START + timedelta(seconds=1))

    assert await events(pool, id) == [("created", None, None), ("delivered", 1, None)]


async def test_a_stored_delivery_is_not_told_twice(pool: Pool, new_id: Ids) -> None:
    id = await insert_notification(pool, new_id(), status="delivered", attempts=2)
    await insert_attempt(pool, id, 2, "delivered")
    await insert_attempt(pool, id, 1, "soft")

    assert await events(pool, id) == [("created", None, None), ("soft", 1, "code_1"), ("delivered", 2, "code_2")]


async def test_a_failure_is_told_after_its_last_attempt(pool: Pool, new_id: Ids) -> None:
    id = await insert_notification(
        pool, new_id(), status="failed", attempts=1, reason="http_400", updated_at=START + timedelta(hours=1)
    )
    await insert_attempt(pool, id, 1, "hard")

    assert await events(pool, id) == [("created", None, None), ("hard", 1, "code_1"), ("failed", 1, "http_400")]


@pytest.mark.parametrize("status", ["queued", "sending"])
async def test_what_is_under_way_has_no_end(pool: Pool, new_id: Ids, status: str) -> None:
    id = await insert_notification(pool, new_id(), status=status, attempts=1)
    await insert_attempt(pool, id, 1, "soft")

    assert await events(pool, id) == [("created", None, None), ("soft", 1, "code_1")]


async def test_steps_of_others_stay_out(pool: Pool, new_id: Ids) -> None:
    id = await insert_notification(pool, new_id())
    await insert_attempt(pool, await insert_notification(pool, new_id()), 1, "soft")

    assert await events(pool, id) == [("created", None, None)]


async def test_pages_are_newest_first_filtered_and_of_one_organization(pool: Pool, new_id: Ids) -> None:
    emails = [await insert_notification(pool, new_id(), status=status) for status in ("queued", "failed", "queued")]
    sms = await insert_notification(pool, new_id(), channel="sms")
    await insert_notification(pool, new_id(), "globex")

    async def page(status: Status | None, channel: Channel | None, request: PageRequest) -> tuple[list[str], str | None]:
        found = await notifications.read_page(pool, ACME, status, channel, request)
        return [each.id for each in found.items], found.next

    assert await page(None, None, PageRequest()) == ([sms, *emails[::-1]], None)
    assert await page(Status.QUEUED, Channel.EMAIL, PageRequest()) == ([emails[2], emails[0]], None)
    assert await page(Status.FAILED, None, PageRequest()) == ([emails[1]], None)
    assert await page(None, None, PageRequest(size=3)) == ([sms, emails[2], emails[1]], emails[1])
    assert await page(None, None, PageRequest(emails[1], 3)) == ([emails[0]], None)
    assert await page(Status.QUEUED, None, PageRequest(emails[2], 3)) == ([emails[0]], None)
