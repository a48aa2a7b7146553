"""Dead letters: notifications that will not be tried again, until somebody decides otherwise.

To requeue is one statement: the letter goes, the notification is queued again with as many further attempts as a new one
gets, and its timeline says so. Two requeues of one letter cannot both succeed. Redis hears of it afterwards; if that
call is lost, the sweep finds the row.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from attrs import frozen

from actors.store.page import Page, PageRequest, page_of
from dispatcher.model import Channel, DeadLetterReason, NotificationId, OrganizationId

if TYPE_CHECKING:
    from actors.io.postgres import Pool


@frozen
class DeadLetter:
    """Why one notification was given up. Says nothing of its recipient or content."""

    notification_id: NotificationId
    reason: DeadLetterReason
    code: str
    channel: Channel
    provider: str | None
    created_at: datetime


async def read_page(
    pool: Pool, organization_id: OrganizationId, reason: DeadLetterReason | None, request: PageRequest
) -> Page[DeadLetter]:
    """Dead letters, newest notification first; of one reason, if given."""
    condition = "organization_id = %s"
    parameters: list[object] = [organization_id]
    if reason is not None:
        condition += " AND reason = %s"
        parameters.append(reason)
    if request.after is not None:
        condition += " AND notification_id < %s"
        parameters.append(request.after)
    rows = await pool.fetch(
        "SELECT notification_id, reason, code, channel, provider, created_at FROM dead_letters "
        f"WHERE {condition} ORDER BY notification_id DESC LIMIT %s",
        (*parameters, request.size + 1),
    )
    return page_of([_letter(row) for row in rows], [row[0] for row in rows], request.size)


async def requeue(pool: Pool, organization_id: OrganizationId, id: str, attempts_more: int) -> NotificationId | None:
    """Queue a dead notification again, with ``attempts_more`` further attempts. None when it is no dead letter.

    A deadline that has passed is dropped: whoever requeues an expired notification wants it sent. The count of attempts
    that died with their process starts anew, or a poisonous one would be given up again before it was tried. Whoever requeues
    what may have been sent has decided that it may be sent again: it is held no longer, while ``unknowns`` stays.
    """
    rows = await pool.fetch(
        "WITH letter AS (DELETE FROM dead_letters WHERE organization_id = %s AND notification_id = %s "
        "RETURNING notification_id), "
        "back AS (UPDATE notifications AS n SET status = 'queued', rescues = 0, "
        "attempts_max = least(n.attempts::integer + %s, 32767), "
        "next_retry_at = NULL, claimed_by = NULL, updated_at = now(), unknown_since = NULL, unknown_last = NULL, "
        "expires_at = CASE WHEN n.expires_at > now() THEN n.expires_at END "
        "FROM letter WHERE n.id = letter.notification_id AND n.status = 'failed' RETURNING n.id, n.attempts, n.organization_id) "
        "INSERT INTO attempts (notification_id, attempt, organization_id, outcome, code, at) "
        "SELECT id, attempts, organization_id, 'requeued', 'requeued', now() FROM back RETURNING notification_id",
        (organization_id, id, attempts_more),
    )
    return NotificationId(rows[0][0]) if rows else None


async def discard(pool: Pool, organization_id: OrganizationId, id: str) -> bool:
    """Drop a dead letter; its notification stays failed. False when there was none."""
    return bool(
        await pool.execute("DELETE FROM dead_letters WHERE organization_id = %s AND notification_id = %s", (organization_id, id))
    )


def _letter(row: tuple[Any, ...]) -> DeadLetter:
    id, reason, code, channel, *rest = row
    return DeadLetter(NotificationId(id), DeadLetterReason(reason), code, Channel(channel), *rest)
