"""Preferences as people and their organization write them, and opting out by a link.

Invariant: only users have preferences; who is no user opts out as a contact.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson
from attrs import frozen

from actors.feedback_ports import ContactChange
from actors.store.feedback import translated
from dispatcher.contacts import ContactStatus
from dispatcher.model import Channel, OrganizationId
from dispatcher.people_documents import Preference
from dispatcher.problems import Problem
from dispatcher.topics import Topic, parse_topic
from dispatcher.unsubscribe import Unsubscription

if TYPE_CHECKING:
    from actors.io.postgres import Pool

UNSUBSCRIBE_CODE = "one_click"
"""The code of a contact that opted out by a link."""
LINK_SLACK_S = 300.0
"""How much younger a user may be than a link to them: by the clocks of two servers."""

_USER = "SELECT FROM users WHERE organization_id = %s AND id = %s FOR UPDATE"
_PUT = """
INSERT INTO preferences AS p (organization_id, user_id, topic, channel, allowed, source)
SELECT %s, %s, topic, channel, allowed, %s
FROM json_to_recordset(%s::json) AS r(topic text, channel text, allowed boolean) ORDER BY topic, channel
ON CONFLICT (organization_id, user_id, topic, channel) DO UPDATE
SET allowed = excluded.allowed, source = excluded.source, changed_at = now()
WHERE (p.allowed, p.source) IS DISTINCT FROM (excluded.allowed, excluded.source)
"""
_DROP_OTHERS = """
DELETE FROM preferences p WHERE organization_id = %s AND user_id = %s AND NOT EXISTS (
    SELECT FROM json_to_recordset(%s::json) AS r(topic text, channel text) WHERE r.topic = p.topic AND r.channel = p.channel)
"""
# To opt out of everything is to opt out of what was asked for in particular, too. A link to somebody who was erased says nothing
# about whoever came to bear the same id later.
_OPT_OUT = """
INSERT INTO preferences AS p (organization_id, user_id, topic, channel, allowed, source)
SELECT organization_id, id, w.topic, %(channel)s, false, %(source)s
FROM users, (
    SELECT %(topic)s AS topic
    UNION SELECT topic FROM preferences
    WHERE %(topic)s = '*' AND organization_id = %(organization_id)s AND user_id = %(user_id)s
        AND allowed AND channel IN (%(channel)s, '*')
) w
WHERE organization_id = %(organization_id)s AND id = %(user_id)s
  AND created_at <= to_timestamp(%(issued_at_s)s) + make_interval(secs => %(slack_s)s)
ON CONFLICT (organization_id, user_id, topic, channel) DO UPDATE
SET allowed = false, source = excluded.source, changed_at = now() WHERE p.allowed
"""
# The address itself is not known here; a contact that was never heard of before is one of a digest.
_OPT_OUT_CONTACT = """
INSERT INTO contacts AS c (id, organization_id, channel, address, recipient, unsubscribed_at, unsubscribe_code, changed_at)
VALUES (gen_random_uuid(), %(organization_id)s, %(channel)s, %(address)s, '', now(), %(code)s, now())
ON CONFLICT (organization_id, channel, address) DO UPDATE
SET unsubscribed_at = greatest(c.unsubscribed_at, excluded.unsubscribed_at), unsubscribe_code = excluded.unsubscribe_code,
    changed_by = NULL, changed_at = now()
WHERE c.status = 'active'
RETURNING c.id
"""


class Source(StrEnum):
    """Who said so."""

    API = "api"
    LINK = "unsubscribe_link"


@frozen
class StoredPreference:
    """One preference, and since when."""

    preference: Preference
    source: Source
    changed_at: datetime


async def read(pool: Pool, organization_id: OrganizationId, user_id: str) -> Sequence[StoredPreference] | None:
    """All preferences of a user by topic and channel; None when there is no such user."""
    rows = await pool.fetch(
        "SELECT p.topic, p.channel, p.allowed, p.source, p.changed_at FROM users u "
        "LEFT JOIN preferences p ON p.organization_id = u.organization_id AND p.user_id = u.id "
        'WHERE u.organization_id = %s AND u.id = %s ORDER BY p.topic COLLATE "C", p.channel COLLATE "C"',
        (organization_id, user_id),
    )
    return [_stored(*row) for row in rows if row[0] is not None] if rows else None


async def put(
    pool: Pool,
    organization_id: OrganizationId,
    user_id: str,
    preferences: Sequence[Preference],
    *,
    whole: bool,
    without: Collection[tuple[str, str]] = (),
) -> bool:
    """Write preferences; with ``whole`` others go, and so do those named ``without``. False when there is no such user."""
    rows = _json([{"topic": each.topic, "channel": each.channel, "allowed": each.allowed} for each in preferences])
    with translated("preferences"):
        async with pool.connection() as connection, connection.transaction():
            if not (await connection.execute(_USER, (organization_id, user_id))).rowcount:
                return False
            if whole:
                await connection.execute(_DROP_OTHERS, (organization_id, user_id, rows))
            for topic, channel in without:
                await connection.execute(
                    "DELETE FROM preferences WHERE organization_id = %s AND user_id = %s AND topic = %s AND channel = %s",
                    (organization_id, user_id, topic, channel),
                )
            await connection.execute(_PUT, (organization_id, user_id, Source.API.value, rows))
            return True


async def topics(pool: Pool, organization_id: OrganizationId) -> Mapping[str, Topic]:
    """The topics of an organization by name. One that this program can not read is none."""
    rows = await pool.fetch(
        "SELECT name, body FROM definitions WHERE organization_id = %s AND kind = 'topic' ORDER BY name", (organization_id,)
    )
    parsed = [parse_topic(name, body) for name, body in rows]
    return {topic.name: topic for topic in parsed if not isinstance(topic, Problem)}


async def opt_out(pool: Pool, wish: Unsubscription) -> ContactChange | None:
    """Do what a link is for, which may have been done before; and which contact has another status now."""
    organization_id, channel = wish.organization_id, wish.channel.value
    with translated("an opt-out"):
        if wish.user_id is not None:
            await pool.execute(
                _OPT_OUT,
                {
                    "organization_id": organization_id,
                    "user_id": wish.user_id,
                    "topic": wish.topic,
                    "channel": channel,
                    "source": Source.LINK.value,
                    "issued_at_s": wish.issued_at_s,
                    "slack_s": LINK_SLACK_S,
                },
            )
            return None
        rows = await pool.fetch(
            _OPT_OUT_CONTACT,
            {"organization_id": organization_id, "channel": channel, "address": wish.address, "code": UNSUBSCRIBE_CODE},
        )
    if not rows:
        return None
    return ContactChange(organization_id, rows[0][0], Channel(channel), ContactStatus.UNSUBSCRIBED, UNSUBSCRIBE_CODE)


def _stored(topic: str, channel: str, allowed: bool, source: str, changed_at: datetime) -> StoredPreference:
    return StoredPreference(Preference(topic, channel, allowed), Source(source), changed_at)


def _json(rows: Sequence[Mapping[str, Any]]) -> str:
    return orjson.dumps(rows).decode()
