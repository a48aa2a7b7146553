"""Dead letters with what is known of their notifications, page by page: each page is one short statement of its own.

Who they were for is read only where the reader may know it, so that it can not slip into an answer by mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from actors.store.dead_letter_filter import JOIN, LetterFilter
from dispatcher.model import Channel, DeadLetterReason, NotificationId, OrganizationId

if TYPE_CHECKING:
    from actors.io.postgres import Pool

ROWS_MAX = 500
"""Letters of one page: what one export holds in memory."""
STATEMENT_DEADLINE_S = 8.0

_COLUMNS = (
    "d.notification_id, d.reason, d.code, d.channel, d.provider, d.created_at, n.attempts, n.attempts_max, n.unknowns, "
    "n.created_at, n.expires_at, n.template_id, t.name, n.locale"
)
_PERSON = "n.recipient, n.user_id, n.idempotency_key"


@frozen
class Person:
    """Who a notification was for, in the organization's own words."""

    recipient: str = field(repr=False)
    user_id: str | None = field(repr=False)
    idempotency_key: str | None = field(repr=False)


@frozen
class ExportedLetter:
    """One dead letter and its notification. ``created_at`` is the letter's, ``accepted_at`` the notification's."""

    notification_id: NotificationId
    reason: DeadLetterReason
    code: str
    channel: Channel
    provider: str | None
    created_at: datetime
    attempts: int
    attempts_max: int
    unknowns: int
    accepted_at: datetime
    expires_at: datetime | None
    template_id: str | None
    template: str | None
    locale: str | None
    person: Person | None


async def read_letters(
    pool: Pool, organization_id: OrganizationId, which: LetterFilter, after: str | None, *, people: bool
) -> Sequence[ExportedLetter]:
    """The next letters, newest notification first; less than :data:`ROWS_MAX` are the last. ``people``: who it was for, too."""
    condition, params = which.condition(organization_id)
    if after is not None:
        condition += " AND d.notification_id < %(after)s"
        params["after"] = after
    rows = await pool.fetch(
        f"SELECT {_COLUMNS}{f', {_PERSON}' if people else ''} FROM dead_letters d {JOIN} "
        f"LEFT JOIN notification_templates t ON t.id = n.template_id WHERE {condition} "
        "ORDER BY d.notification_id DESC LIMIT %(limit)s",
        {**params, "limit": ROWS_MAX},
        deadline_s=STATEMENT_DEADLINE_S,
    )
    return [_letter(row) for row in rows]


def _letter(row: tuple[Any, ...]) -> ExportedLetter:
    id, reason, code, channel, *rest = row[:14]
    values: list[Any] = [*rest, Person(*row[14:]) if len(row) > 14 else None]
    return ExportedLetter(NotificationId(id), DeadLetterReason(reason), code, Channel(channel), *values)
