"""Dead letters: notifications that will not be tried again, until somebody decides otherwise.

To requeue is one statement: the letter goes, the notification is queued again with as many further attempts as a new one
gets, and its timeline says so and by whom. To discard is one as well: the letter goes, the notification stays failed.

Invariant: whoever takes letters first holds their notifications' rows, always in that order, so that two requeues, a discard
and the erasure of a notification can neither both have one letter nor wait for each other in a circle. Redis hears of it
afterwards; if that call is lost, the sweep finds the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg
from attrs import frozen

from actors.store.dead_letter_filter import COUNT_MAX, LetterFilter, Params
from actors.store.page import Page, PageRequest, page_of
from dispatcher.errors import StoreUnavailable
from dispatcher.model import Channel, DeadLetterReason, NotificationId, OrganizationId

if TYPE_CHECKING:
    from actors.io.postgres import Pool

ROWS_MAX = 10_000
"""Letters requeued or discarded by one call: about a second of Postgres, and as many ids in memory."""
STATEMENT_DEADLINE_S = 8.0
LEFT_DEADLINE_S = 3.0
"""To count what a change has left: less than the rest of a request that changed and must still tell others."""

# What a new round of attempts must not inherit is reset here, for one letter as for many. A deadline that will have passed when
# its turn comes is dropped: whoever requeues an expired notification wants it sent. The count of attempts that died with their
# process starts anew, or a poisonous one would be given up again before it was tried. Whoever requeues what was given up
# because it may have been sent has decided about that: it is held no longer, while ``unknowns`` stays. So it is with what
# processes died of, whose every attempt is in doubt. Other letters name no doubt, so nobody has decided about one: the channel's
# policy judges it.
_BACK = """
    status = 'queued', rescues = 0, claimed_by = NULL, updated_at = now(),
    unknown_since = CASE WHEN turn.reason NOT IN ('unknown', 'poison') THEN n.unknown_since END,
    unknown_last = CASE WHEN turn.reason NOT IN ('unknown', 'poison') THEN n.unknown_last END,
    attempts_max = least(n.attempts::integer + %(attempts_more)s, 32767),
    next_retry_at = turn.due_at,
    expires_at = CASE WHEN n.expires_at > coalesce(turn.due_at, now()) THEN n.expires_at END
"""
_PICKED = """
WITH picked AS MATERIALIZED (
    SELECT d.notification_id AS id FROM dead_letters d JOIN notifications n ON n.id = d.notification_id
    WHERE {condition} AND n.status = 'failed'
    ORDER BY d.notification_id LIMIT %(limit)s FOR NO KEY UPDATE OF n {locked}
), letter AS (
    DELETE FROM dead_letters d USING picked WHERE d.notification_id = picked.id RETURNING d.notification_id AS id, d.reason
)
"""
_REQUEUE = (
    _PICKED
    + """, turn AS (
    SELECT id, reason, CASE
        WHEN %(per_s)s::float8 IS NOT NULL THEN greatest(now(), %(start_at)s::timestamptz)
            + make_interval(secs => row_number() OVER (ORDER BY id) / %(per_s)s::float8)
        WHEN %(start_at)s::timestamptz > now() THEN %(start_at)s::timestamptz
    END AS due_at FROM letter
), back AS (
    UPDATE notifications AS n SET {back} FROM turn WHERE n.id = turn.id
    RETURNING n.id, n.attempts, n.organization_id, n.next_retry_at
), timeline AS (
    INSERT INTO attempts (notification_id, attempt, organization_id, outcome, code, at, next_retry_at, api_key_id)
    SELECT id, attempts, organization_id, 'requeued', 'requeued', now(), next_retry_at, %(by)s FROM back
)
SELECT id, next_retry_at, greatest(0, extract(epoch FROM next_retry_at - now()))::float8 FROM back ORDER BY id
"""
)
_PREVIEW = """
SELECT found, CASE
    WHEN %(per_s)s::float8 IS NOT NULL THEN greatest(now(), %(start_at)s::timestamptz)
        + make_interval(secs => least(found, %(limit)s) / %(per_s)s::float8)
    WHEN %(start_at)s::timestamptz > now() THEN %(start_at)s::timestamptz
END
FROM (SELECT count(*) AS found FROM (SELECT FROM {source} WHERE {condition} LIMIT %(count_max)s) AS matching) AS counted
"""
_DISCARD = (
    _PICKED
    + """, timeline AS (
    INSERT INTO attempts (notification_id, attempt, organization_id, outcome, code, at, api_key_id)
    SELECT n.id, n.attempts, n.organization_id, 'discarded', 'discarded', now(), %(by)s
    FROM letter JOIN notifications n ON n.id = letter.id
)
SELECT id FROM letter
"""
)


@frozen
class DeadLetter:
    """Why one notification was given up; ``unknowns`` of its attempts may have been effects. Says nothing of whom it was for."""

    notification_id: NotificationId
    reason: DeadLetterReason
    code: str
    channel: Channel
    provider: str | None
    created_at: datetime
    unknowns: int


@frozen
class Count:
    """How many there are; with ``more``, at least so many."""

    rows: int
    more: bool = False


@frozen
class Pace:
    """When requeued notifications are due: ``per_s`` of them each second from ``start_at`` on; all at once, and now, for None."""

    per_s: float | None = None
    start_at: datetime | None = None


@frozen
class Requeued:
    """What is queued again, in order of age: each id with the seconds until it is due. ``left`` match the filter still."""

    due: Sequence[tuple[NotificationId, float]]
    last_due_at: datetime | None
    left: Count


@frozen
class Preview:
    """How many would be queued again, when the last of them would be due, and how many would be left."""

    rows: int
    last_due_at: datetime | None
    left: Count


@frozen
class Discarded:
    """How many letters were dropped. ``left`` match the filter still."""

    rows: int
    left: Count


async def read_page(pool: Pool, organization_id: OrganizationId, which: LetterFilter, request: PageRequest) -> Page[DeadLetter]:
    """Dead letters, newest notification first."""
    condition, params = which.condition(organization_id)
    if request.after is not None:
        condition += " AND d.notification_id < %(after)s"
        params["after"] = request.after
    rows = await pool.fetch(
        "SELECT d.notification_id, d.reason, d.code, d.channel, d.provider, d.created_at, coalesce(("
        "SELECT doubt.unknowns FROM notifications doubt WHERE doubt.id = d.notification_id), 0) "
        f"FROM {which.source()} "
        f"WHERE {condition} ORDER BY d.notification_id DESC LIMIT %(limit)s",
        {**params, "limit": request.size + 1},
    )
    return page_of([_letter(row) for row in rows], [row[0] for row in rows], request.size)


async def requeue(
    pool: Pool, organization_id: OrganizationId, id: str, attempts_more: int, by: str | None = None
) -> NotificationId | None:
    """Queue a dead notification again, with ``attempts_more`` further attempts. None when it is no dead letter.

    ``by`` is the id of the API key that asked for it.
    """
    condition, params = LetterFilter(ids=[id]).condition(organization_id)
    pace: Params = {"per_s": None, "start_at": None, "attempts_more": attempts_more, "by": by, "limit": 1}
    rows = await _change(pool, _REQUEUE.format(condition=condition, locked="", back=_BACK), {**params, **pace})
    return NotificationId(rows[0][0]) if rows else None


async def requeue_many(
    pool: Pool, organization_id: OrganizationId, which: LetterFilter, limit: int, pace: Pace, attempts_more: int, by: str
) -> Requeued:
    """Queue up to ``limit`` dead notifications again, oldest first, due one after the other.

    Letters that somebody else is taking at this moment are passed over.
    """
    condition, params = which.condition(organization_id)
    asked: Params = {**params, **_of(pace), "attempts_more": attempts_more, "by": by, "limit": limit}
    statement = _REQUEUE.format(condition=condition, locked="SKIP LOCKED", back=_BACK)
    rows = await _change(pool, statement, asked)
    return Requeued(
        [(id, due_in_s or 0.0) for id, _, due_in_s in rows],
        rows[-1][1] if rows else None,
        await _left(pool, organization_id, which),
    )


async def preview(pool: Pool, organization_id: OrganizationId, which: LetterFilter, limit: int, pace: Pace) -> Preview:
    """What :func:`requeue_many` would do; changes nothing."""
    condition, params = which.condition(organization_id)
    rows = await pool.fetch(
        _PREVIEW.format(source=which.source(), condition=condition),
        {**params, **_of(pace), "limit": limit, "count_max": limit + COUNT_MAX + 1},
        deadline_s=STATEMENT_DEADLINE_S,
    )
    found, last_due_at = rows[0]
    taken = min(found, limit)
    return Preview(taken, last_due_at if taken else None, Count(min(found - taken, COUNT_MAX), found - taken > COUNT_MAX))


async def count(
    pool: Pool,
    organization_id: OrganizationId,
    which: LetterFilter,
    rows_max: int = COUNT_MAX,
    deadline_s: float = STATEMENT_DEADLINE_S,
) -> Count:
    """How many letters match, counted no further than ``rows_max``."""
    condition, params = which.condition(organization_id)
    rows = await pool.fetch(
        f"SELECT count(*) FROM (SELECT FROM {which.source()} WHERE {condition} LIMIT %(count_max)s) AS found",
        {**params, "count_max": rows_max + 1},
        deadline_s=deadline_s,
    )
    found: int = rows[0][0]
    return Count(min(found, rows_max), found > rows_max)


async def _left(pool: Pool, organization_id: OrganizationId, which: LetterFilter) -> Count:
    """How many letters a change has left. The change is on record, so it does not fail with its count: then there may be more."""
    try:
        return await count(pool, organization_id, which, deadline_s=LEFT_DEADLINE_S)
    except StoreUnavailable:
        return Count(0, more=True)


async def discard(pool: Pool, organization_id: OrganizationId, id: str, by: str | None = None) -> bool:
    """Drop a dead letter; its notification stays failed, and its timeline says by whom. False when there was none."""
    condition, params = LetterFilter(ids=[id]).condition(organization_id)
    return bool(await _change(pool, _DISCARD.format(condition=condition, locked=""), {**params, "by": by, "limit": 1}))


async def discard_many(pool: Pool, organization_id: OrganizationId, which: LetterFilter, limit: int, by: str) -> Discarded:
    """Drop up to ``limit`` dead letters, oldest first, passing over those that somebody else is taking at this moment."""
    condition, params = which.condition(organization_id)
    statement = _DISCARD.format(condition=condition, locked="SKIP LOCKED")
    rows = await _change(pool, statement, {**params, "by": by, "limit": limit})
    return Discarded(len(rows), await _left(pool, organization_id, which))


async def _change(pool: Pool, statement: str, params: Params) -> list[tuple[Any, ...]]:
    try:
        return await pool.fetch(statement, params, deadline_s=STATEMENT_DEADLINE_S)
    except psycopg.errors.DeadlockDetected as error:
        # The release before takes a letter before its notification. Whoever loses has changed nothing and may try again.
        raise StoreUnavailable("Postgres ended one of two changes of the same dead letter") from error


def _of(pace: Pace) -> Params:
    return {"per_s": pace.per_s, "start_at": pace.start_at}


def _letter(row: tuple[Any, ...]) -> DeadLetter:
    id, reason, code, channel, *rest = row
    return DeadLetter(NotificationId(id), DeadLetterReason(reason), code, Channel(channel), *rest)
