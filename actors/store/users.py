"""Users as their organization writes and sees them: profiles and contact points.

What is read here is the organization's own data, addresses included; it goes into an answer and nowhere else. Rows are written in
the order of their ids, so that two writers never wait for each other. Invariant: a push token belongs to one user of an
organization, whoever registered it last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
from attrs import field, frozen

from actors.store.feedback import translated
from actors.store.people import quiet_hours_of
from dispatcher.contacts import ContactStatus
from dispatcher.model import Channel, OrganizationId
from dispatcher.people import QuietHours
from dispatcher.people_documents import POINTS_MAX, Profile, Token
from dispatcher.spans import document_of

if TYPE_CHECKING:
    from actors.io.postgres import Pool

EXPIRED_KEPT_S = 7 * 86_400.0
"""How long a token that has expired is still shown, for whoever wonders why nothing comes. It is not used any more."""
_PUT = """
INSERT INTO users AS u (organization_id, id, locale, time_zone, quiet_hours)
SELECT %(organization_id)s, id, locale, time_zone, quiet_hours
FROM json_to_recordset(%(users)s::json) AS r(id text, locale text, time_zone text, quiet_hours jsonb) ORDER BY id
ON CONFLICT (organization_id, id) DO UPDATE
SET locale = excluded.locale, time_zone = excluded.time_zone, quiet_hours = excluded.quiet_hours, updated_at = now()
"""
# Of the channels that are named, whatever is not among the recipients goes.
_DROP_POINTS = """
DELETE FROM contact_points p
USING json_to_recordset(%(named)s::json) AS n(user_id text, channel text, recipients jsonb)
WHERE p.organization_id = %(organization_id)s AND p.user_id = n.user_id AND p.channel = n.channel
  AND NOT EXISTS (SELECT FROM jsonb_array_elements_text(n.recipients) AS r(recipient)
    WHERE contact_address(n.channel, r.recipient) = p.address)
"""
# The first to be tried is the newest: each that follows is a microsecond older.
_PUT_POINTS = """
INSERT INTO contact_points (id, organization_id, user_id, channel, address, recipient, refreshed_at)
SELECT DISTINCT ON (n.user_id, n.channel, contact_address(n.channel, r.recipient))
    gen_random_uuid(), %(organization_id)s, n.user_id, n.channel, contact_address(n.channel, r.recipient), r.recipient,
    now() - make_interval(secs => r.place / 1e6)
FROM json_to_recordset(%(named)s::json) AS n(user_id text, channel text, recipients jsonb),
    jsonb_array_elements_text(n.recipients) WITH ORDINALITY AS r(recipient, place)
ORDER BY n.user_id, n.channel, contact_address(n.channel, r.recipient), r.place
ON CONFLICT (organization_id, user_id, channel, address) DO UPDATE
SET recipient = excluded.recipient, refreshed_at = excluded.refreshed_at
"""
_POINT_COLUMNS = """p.id, p.channel, p.recipient, coalesce(c.status, 'active'), p.app, p.platform, p.expires_at, p.created_at,
    p.refreshed_at"""
_POINTS = f"""
SELECT {_POINT_COLUMNS} FROM contact_points p LEFT JOIN contacts c USING (organization_id, channel, address)
WHERE p.organization_id = %s AND p.user_id = %s ORDER BY p.channel, p.refreshed_at DESC, p.id DESC
"""
_LOCK = "SELECT FROM users WHERE organization_id = %s AND id = %s FOR UPDATE"
_ADD_POINT = """
INSERT INTO contact_points AS p (id, organization_id, user_id, channel, address, recipient)
VALUES (gen_random_uuid(), %(organization_id)s, %(user_id)s, %(channel)s, contact_address(%(channel)s, %(recipient)s),
    %(recipient)s)
ON CONFLICT (organization_id, user_id, channel, address) DO UPDATE
SET recipient = excluded.recipient, refreshed_at = now()
RETURNING p.id
"""
_REGISTER = """
INSERT INTO contact_points AS p (id, organization_id, user_id, channel, address, recipient, app, platform, expires_at)
VALUES (gen_random_uuid(), %(organization_id)s, %(user_id)s, 'push', contact_address('push', %(recipient)s), %(recipient)s,
    %(app)s, %(platform)s, to_timestamp(%(expires_at_s)s))
ON CONFLICT (organization_id, address) WHERE channel = 'push' DO UPDATE
SET user_id = excluded.user_id, app = excluded.app, platform = excluded.platform, expires_at = excluded.expires_at,
    created_at = CASE WHEN p.user_id = excluded.user_id THEN p.created_at ELSE now() END, refreshed_at = now()
RETURNING p.id
"""
# An app that registers a token says that it lives, whatever was heard of it before.
_REVIVE = """
UPDATE contacts SET reset_at = greatest(now(), failed_at, exhausted_at, reset_at), changed_at = now()
WHERE organization_id = %s AND channel = 'push' AND address = contact_address('push', %s) AND status IN ('invalid', 'bounced')
RETURNING id
"""
_DROP_SURPLUS = """
DELETE FROM contact_points WHERE id IN (
    SELECT id FROM contact_points WHERE organization_id = %s AND user_id = %s AND channel = 'push'
    ORDER BY refreshed_at DESC, id DESC OFFSET %s)
"""
_ONE_POINT = f"""
SELECT {_POINT_COLUMNS} FROM contact_points p LEFT JOIN contacts c USING (organization_id, channel, address) WHERE p.id = %s
"""
_DROP_EXPIRED = """
DELETE FROM contact_points WHERE id IN (
    SELECT id FROM contact_points WHERE expires_at < now() - make_interval(secs => %s) ORDER BY expires_at LIMIT %s)
"""


@frozen
class StoredPoint:
    """One contact point, and what is known of its contact."""

    id: str
    channel: Channel
    recipient: str = field(repr=False)
    status: ContactStatus
    app: str | None
    platform: str | None
    expires_at: datetime | None
    created_at: datetime
    refreshed_at: datetime


@frozen
class StoredUser:
    """One user, with contact points by channel, of each the one to try first in front."""

    id: str = field(repr=False)
    locale: str | None
    time_zone: str | None
    quiet_hours: QuietHours | None
    created_at: datetime
    updated_at: datetime
    points: Sequence[StoredPoint] = field(repr=False)


@frozen
class Registered:
    """A token as it is now. ``revived`` is its contact, if that had been given up before."""

    point: StoredPoint
    revived: str | None


async def put(pool: Pool, organization_id: OrganizationId, profiles: Sequence[Profile]) -> None:
    """Write profiles, new or not, all or none. Their ids are different ones."""
    users = [
        {
            "id": each.id,
            "locale": each.locale,
            "time_zone": each.time_zone,
            "quiet_hours": None if each.quiet_hours is None else document_of(each.quiet_hours),
        }
        for each in profiles
    ]
    named = [
        {"user_id": each.id, "channel": channel, "recipients": list(recipients)}
        for each in sorted(profiles, key=_id)
        for channel, recipients in each.points.items()
    ]
    parameters = {"organization_id": organization_id, "users": _json(users), "named": _json(named)}
    with translated("users"):
        async with pool.connection() as connection, connection.transaction():
            await connection.execute(_PUT, parameters)
            if named:
                await connection.execute(_DROP_POINTS, parameters)
                await connection.execute(_PUT_POINTS, parameters)


async def read(pool: Pool, organization_id: OrganizationId, user_id: str) -> StoredUser | None:
    """One user, whole."""
    rows = await pool.fetch(
        "SELECT id, locale, time_zone, quiet_hours, created_at, updated_at FROM users WHERE organization_id = %s AND id = %s",
        (organization_id, user_id),
    )
    if not rows:
        return None
    id, locale, time_zone, quiet_hours, created_at, updated_at = rows[0]
    points = [_point(*row) for row in await pool.fetch(_POINTS, (organization_id, user_id))]
    return StoredUser(id, locale, time_zone, quiet_hours_of(quiet_hours), created_at, updated_at, points)


async def add_point(
    pool: Pool, organization_id: OrganizationId, user_id: str, channel: Channel, recipient: str
) -> StoredPoint | None:
    """Add a contact point, or put it in front of the others. None when there is no such user.

    Raises ValueError when the user has ``POINTS_MAX`` others on the channel.
    """
    parameters = {"organization_id": organization_id, "user_id": user_id, "channel": channel.value, "recipient": recipient}
    with translated("contact points"):
        async with pool.connection() as connection, connection.transaction():
            if not (await connection.execute(_LOCK, (organization_id, user_id))).rowcount:
                return None
            ((id,),) = await (await connection.execute(_ADD_POINT, parameters)).fetchall()
            cursor = await connection.execute(
                "SELECT count(*) FROM contact_points WHERE organization_id = %s AND user_id = %s AND channel = %s",
                (organization_id, user_id, channel.value),
            )
            if (await cursor.fetchall())[0][0] > POINTS_MAX:
                raise ValueError(channel)
            return _point(*(await (await connection.execute(_ONE_POINT, (id,))).fetchall())[0])


async def remove_point(pool: Pool, organization_id: OrganizationId, user_id: str, id: str) -> bool:
    """Remove a contact point, of whatever channel. False when the user has none of this id."""
    return bool(
        await pool.execute(
            "DELETE FROM contact_points WHERE organization_id = %s AND user_id = %s AND id = %s", (organization_id, user_id, id)
        )
    )


async def put_token(pool: Pool, organization_id: OrganizationId, user_id: str, token: Token) -> Registered | None:
    """Register a token, or refresh it; from another user it moves to this one. None when there is no such user.

    The oldest of more than ``POINTS_MAX`` go: apps come and go with the devices they were on.
    """
    parameters: Mapping[str, Any] = {
        "organization_id": organization_id,
        "user_id": user_id,
        "recipient": token.recipient,
        "app": token.app,
        "platform": token.platform,
        "expires_at_s": token.expires_at_s,
    }
    with translated("push tokens"):
        async with pool.connection() as connection, connection.transaction():
            if not (await connection.execute(_LOCK, (organization_id, user_id))).rowcount:
                return None
            # The contact before the point, as whoever records that a token is dead holds them.
            revived = await (await connection.execute(_REVIVE, (organization_id, token.recipient))).fetchall()
            ((id,),) = await (await connection.execute(_REGISTER, parameters)).fetchall()
            await connection.execute(_DROP_SURPLUS, (organization_id, user_id, POINTS_MAX))
            point = _point(*(await (await connection.execute(_ONE_POINT, (id,))).fetchall())[0])
            return Registered(point, revived[0][0] if revived else None)


async def remove_token(pool: Pool, organization_id: OrganizationId, user_id: str, recipient: str) -> bool:
    """Remove a token of this user. False when it is not theirs."""
    return bool(
        await pool.execute(
            "DELETE FROM contact_points WHERE organization_id = %s AND user_id = %s AND channel = 'push' "
            "AND address = contact_address('push', %s)",
            (organization_id, user_id, recipient),
        )
    )


async def drop_expired(pool: Pool, limit: int) -> int:
    """Remove tokens that expired ``EXPIRED_KEPT_S`` ago, at most so many; how many there were."""
    return await pool.execute(_DROP_EXPIRED, (EXPIRED_KEPT_S, limit))


def _point(id: str, channel: str, recipient: str, status: str, *rest: Any) -> StoredPoint:
    return StoredPoint(id, Channel(channel), recipient, ContactStatus(status), *rest)


def _json(rows: Sequence[Mapping[str, Any]]) -> str:
    return orjson.dumps(rows).decode()


def _id(profile: Profile) -> str:
    return profile.id
