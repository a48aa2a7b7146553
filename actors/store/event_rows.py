"""Rows of events, and of digests that they join, inside the transaction that inserts what comes of them.

An event's row goes in first: whoever gets it in is the one who inserts its notifications, so two processes that hear of the same
event at the same moment make no doubles. Its answer is written down as it will be if nothing is left out, and corrected where
something was. Invariant: rows are taken in the order of their keys, before any other row of the transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from actors.ports import EventAdmission, Inserted, KnownEvent
from dispatcher.model import OrganizationId

if TYPE_CHECKING:
    from actors.io.postgres import TrioConnection

_INSERT = """
INSERT INTO events (organization_id, id, type, request_hash, correlation_id, received_at, answer)
SELECT organization_id, id, type, decode(request_hash, 'hex'), correlation_id, to_timestamp(received_at), answer
FROM json_to_recordset(%s::json) AS r(
    organization_id text, id text, type text, request_hash text, correlation_id text, received_at float8, answer text
)
ON CONFLICT DO NOTHING
RETURNING organization_id, id
"""
KNOWN = """
SELECT e.organization_id, e.id, e.request_hash, e.answer
FROM unnest(%s::text[], %s::text[]) AS k(organization_id, id) JOIN events e USING (organization_id, id)
"""
_CORRECT = """
UPDATE events e SET answer = u.answer
FROM unnest(%s::text[], %s::text[], %s::text[]) AS u(organization_id, id, answer)
WHERE e.organization_id = u.organization_id AND e.id = u.id
"""
# What is told of, and so deleted, at this moment is waited for; then there is no such digest any more, and a new one begins.
_JOIN_DIGESTS = """
WITH given AS (
    SELECT * FROM json_to_recordset(%s::json) AS r(
        id uuid, organization_id text, rule text, user_id text, channel text, key text, due_at float8, event_id text,
        correlation_id text, data jsonb, at float8
    )
), joined AS (
    INSERT INTO digests AS d (id, organization_id, rule, user_id, channel, key, due_at)
    SELECT DISTINCT ON (organization_id, rule, user_id, channel, key)
        id, organization_id, rule, user_id, channel, key, to_timestamp(due_at)
    FROM given ORDER BY organization_id, rule, user_id, channel, key, due_at
    ON CONFLICT (organization_id, rule, user_id, channel, key) DO UPDATE SET rule = excluded.rule
    RETURNING id, organization_id, rule, user_id, channel, key
)
INSERT INTO digest_items (digest_id, event_id, correlation_id, data, at)
SELECT j.id, g.event_id, g.correlation_id, g.data, to_timestamp(g.at)
FROM given g JOIN joined j USING (organization_id, rule, user_id, channel, key)
ON CONFLICT DO NOTHING
"""


async def insert(
    connection: TrioConnection[Any], events: Sequence[EventAdmission]
) -> tuple[list[EventAdmission], dict[tuple[OrganizationId, str], KnownEvent]]:
    """Insert those that are new, and what of them joins digests; returns them, and what is known of the others."""
    untouched = Inserted()
    events = sorted(events, key=_key)
    rows = [
        {
            "organization_id": event.organization_id,
            "id": event.id,
            "type": event.type,
            "request_hash": event.request_hash.hex(),
            "correlation_id": event.correlation_id,
            "received_at": event.received_at_s,
            "answer": event.answer(untouched).decode(),
        }
        for event in events
    ]
    cursor = await connection.execute(_INSERT, (orjson.dumps(rows).decode(),))
    fresh = {(organization_id, id) for organization_id, id in await cursor.fetchall()}
    new = [event for event in events if _key(event) in fresh]
    known = {}
    if len(new) < len(events):
        keys = [_key(event) for event in events if _key(event) not in fresh]
        found = await connection.execute(KNOWN, ([organization_id for organization_id, _ in keys], [id for _, id in keys]))
        for organization_id, id, request_hash, answer in await found.fetchall():
            known[organization_id, id] = KnownEvent(bytes(request_hash), answer.encode())
    entries = [row for event in new for row in _digest_rows(event)]
    if entries:
        await connection.execute(_JOIN_DIGESTS, (orjson.dumps(entries).decode(),))
    return new, known


async def correct(connection: TrioConnection[Any], events: Sequence[EventAdmission], inserted: Inserted) -> None:
    """Write the answers anew of those of which something was left out."""
    if not (inserted or inserted.suppressed or inserted.capped):
        return
    untouched = Inserted()
    answers = [(event, event.answer(inserted)) for event in events]
    wrong = [(event, answer) for event, answer in answers if answer != event.answer(untouched)]
    if wrong:
        columns = [e.organization_id for e, _ in wrong], [e.id for e, _ in wrong], [answer.decode() for _, answer in wrong]
        await connection.execute(_CORRECT, columns)


def _digest_rows(event: EventAdmission) -> list[Mapping[str, Any]]:
    return [
        {
            "id": entry.id,
            "organization_id": event.organization_id,
            "rule": entry.rule,
            "user_id": entry.user_id,
            "channel": entry.channel.value,
            "key": entry.key,
            "due_at": entry.due_at_s,
            "event_id": event.id,
            "correlation_id": event.correlation_id,
            "data": event.data,
            "at": event.received_at_s,
        }
        for entry in event.digests
    ]


def _key(event: EventAdmission) -> tuple[OrganizationId, str]:
    return event.organization_id, event.id
