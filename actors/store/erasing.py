"""Erasing a person: all that is known of them goes, what became of their notifications stays as counts.

It is done in steps, each a transaction of its own: the person first, so that nothing new is made for them, then their
notifications, some at a time. What waits is canceled under the lock of its row, which decides against the gate. What is being
sent at this moment is let end: it gets no further attempt, and is blanked when it has ended. A row of ``erasures`` remembers
whose data that is, until nothing that began before can turn up any more; so a crash in between loses nothing. Of an address its
digest stays in ``contacts``: whoever complained must not get mail again because they were erased, and a report that comes in
later finds the digest and brings no address back. Invariant: every step may be repeated.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from actors.store import users
from actors.store.feedback import translated
from actors.store.history import erase_history
from dispatcher.model import Channel, NotificationId, OrganizationId

if TYPE_CHECKING:
    from actors.io.postgres import Pool

logger = logging.getLogger(__name__)

ROWS_MAX = 500
"""Notifications of one step."""
REASON = "erased"
"""Of a notification that was canceled because its person was erased."""
AGAIN_S = 30.0
"""How long until it is looked again what has turned up."""
SETTLED_S = 600.0
"""How long what began before an erasure may take to be written down: many times as long as any accept may take."""
MARGIN_S = 60.0
"""How much later than the erasure a notification may say that it was made, and still have been begun before: clocks differ."""
PEOPLE_MAX = 20
"""Erasures that one round goes on with."""

_MARK = """
INSERT INTO erasures AS e (organization_id, user_id, next_at)
VALUES (%(organization_id)s, %(user_id)s, now() + make_interval(secs => %(again_s)s))
ON CONFLICT (organization_id, user_id) DO UPDATE SET asked_at = now(), next_at = excluded.next_at
RETURNING asked_at
"""
# Contacts in the order in which everybody locks them.
_BLANK_CONTACTS = """
    INSERT INTO contacts AS c (id, organization_id, channel, address, recipient)
    SELECT gen_random_uuid(), %(organization_id)s, channel, address, '' FROM (
        SELECT DISTINCT channel, contact_address(channel, recipient) AS address FROM {whose} WHERE recipient <> ''
    ) AS theirs ORDER BY channel, address
    ON CONFLICT (organization_id, channel, address) DO UPDATE SET recipient = '', note = NULL
    WHERE c.recipient <> '' OR c.note IS NOT NULL
"""
_OF_USER = "organization_id = %(organization_id)s AND user_id = %(user_id)s"
_POINTS = _BLANK_CONTACTS.format(whose=f"(SELECT channel, recipient FROM contact_points WHERE {_OF_USER}) AS p")
_PROFILE = f"""
WITH points AS (
    DELETE FROM contact_points WHERE {_OF_USER} RETURNING id
), person AS (
    DELETE FROM users WHERE organization_id = %(organization_id)s AND id = %(user_id)s RETURNING id
)
SELECT (SELECT count(*) FROM person), (SELECT count(*) FROM points)
"""
# What only somebody who is no user any more can have; also what a notification that was on its way has added since.
_BELONGINGS = f"""
WITH wishes AS (
    DELETE FROM preferences p WHERE {_OF_USER} AND {{is_gone}} RETURNING 1
), times AS (
    DELETE FROM cap_times p WHERE {_OF_USER} AND {{is_gone}} RETURNING 1
), waiting AS (
    DELETE FROM digests p WHERE {_OF_USER} AND {{is_gone}} RETURNING 1
)
SELECT (SELECT count(*) FROM wishes), (SELECT count(*) FROM waiting), (SELECT count(*) FROM times)
"""
_ALL_BELONGINGS = _BELONGINGS.format(is_gone="true")
_LEFT_BEHIND = _BELONGINGS.format(
    is_gone="NOT EXISTS (SELECT FROM users u WHERE u.organization_id = p.organization_id AND u.id = p.user_id)"
)
# Whoever is known by the same id again is somebody else, whose notifications are of later.
_THEIRS = f"""{_OF_USER}
    AND created_at <= %(asked_at)s::timestamptz + make_interval(secs => %(margin_s)s)
    AND created_at < coalesce(
        (SELECT u.created_at FROM users u WHERE u.organization_id = %(organization_id)s AND u.id = %(user_id)s), 'infinity')"""
# What is being sent gets no further attempt: one that has expired is given up by whoever claims it.
_LET_END = f"""
WITH mine AS (
    SELECT id FROM notifications WHERE {_THEIRS} AND status = 'sending' ORDER BY id FOR UPDATE
), told AS (
    UPDATE notifications n SET expires_at = least(n.expires_at, now()) FROM mine
    WHERE n.id = mine.id AND n.status = 'sending' AND n.expires_at IS DISTINCT FROM least(n.expires_at, now())
)
SELECT count(*) FROM mine
"""
# What becomes of the rows of ``mine``, of which some still wait.
BLANKED = f"""blank AS (
    UPDATE notifications n
    SET status = CASE WHEN mine.waits THEN 'canceled' ELSE n.status END,
        reason = CASE WHEN mine.waits THEN '{REASON}' ELSE n.reason END,
        next_retry_at = CASE WHEN mine.waits THEN NULL ELSE n.next_retry_at END,
        updated_at = CASE WHEN mine.waits THEN now() ELSE n.updated_at END,
        user_id = NULL, recipient = '', payload = '{{}}', idempotency_key = NULL, request_hash = NULL, decisions = NULL,
        plan = NULL
    FROM mine WHERE n.id = mine.id
), letters AS (
    DELETE FROM dead_letters l USING mine WHERE l.notification_id = mine.id
)"""
_BLANK = f"""
WITH mine AS (
    SELECT id, channel, recipient, status IN ('scheduled', 'queued') AS waits FROM notifications
    WHERE {_THEIRS} AND status <> 'sending' ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), {BLANKED}, kept AS ({_BLANK_CONTACTS.format(whose="mine")})
SELECT count(*), array_agg(id) FILTER (WHERE waits), array_agg(channel) FILTER (WHERE waits) FROM mine
"""
_HISTORY = _BLANK_CONTACTS.format(whose=f"(SELECT channel, recipient FROM notification_history WHERE {_OF_USER}) AS h")
_CLAIM = """
UPDATE erasures SET next_at = now() + make_interval(secs => %s) WHERE (organization_id, user_id) IN (
    SELECT organization_id, user_id FROM erasures WHERE next_at <= now() ORDER BY next_at LIMIT %s FOR UPDATE SKIP LOCKED)
RETURNING organization_id, user_id, asked_at, asked_at < now() - make_interval(secs => %s)
"""
_CLOSE = "DELETE FROM erasures WHERE organization_id = %s AND user_id = %s AND asked_at = %s"


@frozen
class Erased:
    """What has gone: rows of each kind. ``sending`` are notifications that are being sent at this moment, and go when that ends;
    ``more`` says that there are others still to be looked at.
    """

    users: int = 0
    contact_points: int = 0
    preferences: int = 0
    digests: int = 0
    notifications: int = 0
    canceled: tuple[tuple[NotificationId, Channel], ...] = ()
    sending: int = 0
    more: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left at this moment."""
        return not (self.sending or self.more)

    def and_then(self, later: Erased) -> Erased:
        """What both have done together, and how it stands after the later one."""
        return Erased(
            self.users + later.users,
            self.contact_points + later.contact_points,
            self.preferences + later.preferences,
            self.digests + later.digests,
            self.notifications + later.notifications,
            self.canceled + later.canceled,
            later.sending,
            later.more,
        )


async def erase(pool: Pool, organization_id: OrganizationId, user_id: str, steps_max: int) -> Erased:
    """Erase a person who need not be known as a user, as far as ``steps_max`` steps of notifications go. Rounds of
    :func:`go_on` do the rest.
    """
    whom = {"organization_id": organization_id, "user_id": user_id}
    with translated("an erasure"):
        async with pool.connection() as connection, connection.transaction():
            ((asked_at,),) = await (await connection.execute(_MARK, {**whom, "again_s": AGAIN_S})).fetchall()
            await connection.execute(_POINTS, whom)
            ((persons, points),) = await (await connection.execute(_PROFILE, whom)).fetchall()
            ((wishes, waiting, _),) = await (await connection.execute(_ALL_BELONGINGS, whom)).fetchall()
    done = await _notifications(pool, whom, asked_at, steps_max)
    return evolve(done, users=persons, contact_points=points, preferences=wishes, digests=waiting)


async def tidy(pool: Pool) -> None:
    """What is to be done about people every now and then: by the janitor."""
    await users.drop_expired(pool, ROWS_MAX)
    await go_on(pool)


async def go_on(pool: Pool) -> None:
    """Go on with erasures that are due for a look, and forget those that are settled."""
    for organization_id, user_id, asked_at, is_settled in await pool.fetch(_CLAIM, (AGAIN_S, PEOPLE_MAX, SETTLED_S)):
        whom = {"organization_id": organization_id, "user_id": user_id}
        with translated("an erasure"):
            await pool.fetch(_LEFT_BEHIND, whom)
        done = await _notifications(pool, whom, asked_at, steps_max=20)
        if done.notifications:
            logger.info("organization %s: %d more notifications of an erased person", organization_id, done.notifications)
        if is_settled and done.is_whole:
            await pool.execute(_CLOSE, (organization_id, user_id, asked_at))


async def _notifications(pool: Pool, whom: Mapping[str, Any], asked_at: datetime, steps_max: int) -> Erased:
    """Cancel and blank what there is of somebody's notifications, in both tables."""
    parameters = {**whom, "asked_at": asked_at, "margin_s": MARGIN_S, "limit": ROWS_MAX}
    erased, more = 0, True
    canceled: list[tuple[NotificationId, Channel]] = []
    with translated("an erasure"):
        ((sending,),) = await pool.fetch(_LET_END, parameters)
        for _ in range(steps_max):
            ((blanked, ids, channels),) = await pool.fetch(_BLANK, parameters)
            erased += blanked
            canceled += ((NotificationId(id), Channel(channel)) for id, channel in zip(ids or (), channels or (), strict=True))
            more = blanked == ROWS_MAX
            if not more:
                break
        if not more:
            async with pool.connection() as connection, connection.transaction():
                await connection.execute(_HISTORY, whom)
                erased += await erase_history(connection, whom["organization_id"], whom["user_id"])
    return Erased(notifications=erased, canceled=tuple(canceled), sending=sending, more=more)
