"""Dead letters: given another chance at most once, or dropped."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import trio

from actors.io.postgres import Pool
from actors.store import dead_letters, notifications
from actors.store.dead_letter_filter import LetterFilter
from actors.store.notifications import NotificationDetail
from actors.store.page import PageRequest
from dispatcher.model import DeadLetterReason, OrganizationId, Status
from store_rows import insert_dead_letter, insert_notification

ACME, GLOBEX = OrganizationId("acme"), OrganizationId("globex")
Ids = Callable[[], str]


async def read(pool: Pool, id: str) -> NotificationDetail:
    detail = await notifications.read(pool, ACME, id)
    assert detail is not None
    return detail


async def letters(pool: Pool, reason: DeadLetterReason | None = None) -> list[str]:
    return [
        letter.notification_id for letter in (await dead_letters.read_page(pool, ACME, LetterFilter(reason), PageRequest())).items
    ]


async def test_they_are_listed_newest_first_by_reason_and_owner(pool: Pool, new_id: Ids) -> None:
    hard, expired = await insert_dead_letter(pool, new_id(), "hard"), await insert_dead_letter(pool, new_id(), "expired")
    await insert_dead_letter(pool, new_id(), organization_id="globex")

    assert await letters(pool) == [expired, hard]
    assert await letters(pool, DeadLetterReason.HARD) == [hard]
    assert await letters(pool, DeadLetterReason.POISON) == []
    page = await dead_letters.read_page(pool, ACME, LetterFilter(), PageRequest(size=1))
    assert page.next == expired
    rest = await dead_letters.read_page(pool, ACME, LetterFilter(), PageRequest(page.next, 1))
    assert ([letter.notification_id for letter in rest.items], rest.next) == ([hard], None)


async def test_a_requeued_one_is_queued_with_as_many_further_attempts_as_a_new_one(pool: Pool, new_id: Ids) -> None:
    id = await insert_dead_letter(pool, new_id(), attempts=8, rescues=3, reason="http_503")

    assert await dead_letters.requeue(pool, ACME, id, 8) == id

    detail = await read(pool, id)
    assert (detail.summary.status, detail.summary.attempts, detail.summary.attempts_max) == (Status.QUEUED, 8, 16)
    assert (detail.summary.next_retry_at, [entry.event for entry in detail.timeline]) == (None, ["created", "requeued"])
    assert await pool.fetch("SELECT rescues, claimed_by FROM notifications") == [(0, None)]
    assert await letters(pool) == []


async def test_attempts_stay_within_what_their_column_holds(pool: Pool, new_id: Ids) -> None:
    id = await insert_dead_letter(pool, new_id(), attempts=32_000)

    await dead_letters.requeue(pool, ACME, id, 1000)

    assert (await read(pool, id)).summary.attempts_max == 32_767


async def test_of_many_requeues_one_succeeds(pool: Pool, new_id: Ids) -> None:
    id = await insert_dead_letter(pool, new_id())
    results: list[str | None] = []

    async def requeue() -> None:
        results.append(await dead_letters.requeue(pool, ACME, id, 8))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(requeue)

    assert sorted(results, key=str) == [id] + [None] * 7
    assert [entry.event for entry in (await read(pool, id)).timeline] == ["created", "requeued"]


async def test_a_deadline_that_passed_is_dropped_and_one_to_come_is_kept(pool: Pool, new_id: Ids) -> None:
    now = datetime.now(UTC)
    expired = await insert_dead_letter(pool, new_id(), "expired", expires_at=now - timedelta(hours=1))
    pending = await insert_dead_letter(pool, new_id(), "hard", expires_at=now + timedelta(hours=1))

    await dead_letters.requeue(pool, ACME, expired, 8)
    await dead_letters.requeue(pool, ACME, pending, 8)

    assert (await read(pool, expired)).summary.expires_at is None
    assert (await read(pool, pending)).summary.expires_at == now + timedelta(hours=1)


async def test_only_its_owner_can_do_anything_with_one(pool: Pool, new_id: Ids) -> None:
    id = await insert_dead_letter(pool, new_id())
    living = await insert_notification(pool, new_id())

    assert await dead_letters.requeue(pool, GLOBEX, id, 8) is None
    assert not await dead_letters.discard(pool, GLOBEX, id)
    assert await dead_letters.requeue(pool, ACME, living, 8) is None
    assert not await dead_letters.discard(pool, ACME, living)
    assert await letters(pool) == [id]


async def test_a_dropped_one_leaves_its_notification_failed(pool: Pool, new_id: Ids) -> None:
    id = await insert_dead_letter(pool, new_id())

    assert await dead_letters.discard(pool, ACME, id)
    assert not await dead_letters.discard(pool, ACME, id)
    assert await dead_letters.requeue(pool, ACME, id, 8) is None
    assert (await read(pool, id)).summary.status is Status.FAILED
