"""Reports in Postgres: one statement for any number of them, and a second step for those that say something about a contact."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import attrs
import orjson
import psycopg

from actors.feedback_ports import JOIN_WINDOW_S, KEPT_S, Confirmed, ContactChange, Report, Taken
from actors.io.pg_errors import is_about_content
from actors.io.postgres import Pool
from actors.store.contact_statements import CHANGE, DEAD_TOKENS, ENSURE, LOCK
from dispatcher.contacts import CLEARING_KINDS, CONTACT_KINDS, Contact, ContactStatus, address_of, merged
from dispatcher.errors import StoreRefused, StoreUnavailable
from dispatcher.feedback.confirmation import RANKS
from dispatcher.feedback.feedback import Feedback, FeedbackKind
from dispatcher.ids import uuid7
from dispatcher.model import Channel, NotificationId, OrganizationId
from dispatcher.retention import SKEW_S, made_at_unix_s

# ``u`` are reports, ``matched`` with the notification each is about, if that is known.
_TAKE = """
WITH u AS (
    SELECT * FROM json_to_recordset(%(reports)s::json) AS u(ord int, key uuid, organization_id text, config_id uuid,
        notification_id uuid, message_id text, kind text, rank smallint, code text, at float8)
), {named}, matched AS (
    SELECT DISTINCT ON (u.ord) u.*, named.id, named.channel, named.recipient, named.taken_at
    FROM u LEFT JOIN named USING (ord) ORDER BY u.ord, named.id
), {kept}, confirmed AS (
    INSERT INTO confirmations AS c (notification_id, state, rank, code, at)
    SELECT DISTINCT ON (id) id, kind, rank, code, to_timestamp(at) FROM matched
    WHERE id IS NOT NULL AND rank IS NOT NULL ORDER BY id, rank DESC, at, code DESC
    ON CONFLICT (notification_id) DO UPDATE
    SET state = excluded.state, rank = excluded.rank, code = excluded.code, at = excluded.at
    WHERE (excluded.rank, c.at, excluded.code) > (c.rank, excluded.at, c.code)
    RETURNING notification_id, state, code, extract(epoch FROM at)::float8 AS at
)
SELECT m.ord, m.id, m.channel, m.recipient, kept.key IS NOT NULL, c.state, c.code, c.at,
    m.kind = ANY(%(clearing)s::text[]) AND EXISTS (
        SELECT FROM contacts k WHERE k.organization_id = m.organization_id AND k.channel = m.channel
        AND k.address = contact_address(m.channel, m.recipient) AND k.soft_bounces <> '{{}}'),
    extract(epoch FROM f.at)::float8, c.at - m.taken_at
FROM matched m LEFT JOIN feedback f USING (key) LEFT JOIN kept USING (key) LEFT JOIN confirmed c ON c.notification_id = m.id
ORDER BY m.ord
"""
# Nothing but an attempt changes a row's last date, so that of a delivered one is when its provider took it on.
_TAKEN_AT = "CASE WHEN n.status = 'delivered' THEN extract(epoch FROM n.updated_at)::float8 END AS taken_at"
_NAMED = f"""named AS (
    SELECT u.ord, n.id, n.channel, n.recipient, {_TAKEN_AT} FROM u
    JOIN notifications n ON n.id = u.notification_id AND n.organization_id = u.organization_id
    UNION ALL
    SELECT u.ord, n.id, n.channel, n.recipient, {_TAKEN_AT} FROM u
    JOIN notifications n ON n.provider_message_id = u.message_id AND n.provider <> 'sendgrid'
        AND n.organization_id = u.organization_id AND n.provider_config_id = u.config_id
    WHERE u.notification_id IS NULL AND u.message_id IS NOT NULL
)"""
# For reports that come when their notification has moved. Its last change was not before its id was made.
_NAMED_MOVED = f"""named AS (
    SELECT u.ord, n.id, n.channel, n.recipient, {_TAKEN_AT} FROM u
    JOIN notification_history n ON n.id = u.notification_id AND n.organization_id = u.organization_id
        AND n.updated_at >= to_timestamp(%(since)s)
)"""
_KEPT = """kept AS (
    INSERT INTO feedback (key, organization_id, config_id, notification_id, message_id, kind, code, at)
    SELECT key, organization_id, config_id, id, CASE WHEN id IS NULL THEN message_id END, kind, code, to_timestamp(at)
    FROM matched ORDER BY key
    ON CONFLICT DO NOTHING RETURNING key
)"""
_FOUND = """kept AS (
    UPDATE feedback f SET notification_id = m.id, message_id = NULL FROM matched m
    WHERE f.key = m.key AND f.message_id IS NOT NULL AND m.id IS NOT NULL RETURNING f.key
)"""
_FOUND_MOVED = """kept AS (
    UPDATE feedback f SET notification_id = m.id FROM matched m
    WHERE f.key = m.key AND f.notification_id IS NULL AND m.id IS NOT NULL RETURNING f.key
)"""
TAKE = _TAKE.format(kept=_KEPT, named=_NAMED)
JOIN = _TAKE.format(kept=_FOUND, named=_NAMED)
TAKE_MOVED = _TAKE.format(kept=_FOUND_MOVED, named=_NAMED_MOVED)
PARKED = """
SELECT f.key, f.organization_id, f.config_id, p.provider, p.channel, f.message_id, f.kind, f.code,
    extract(epoch FROM f.at)::float8, f.received_at < now() - make_interval(secs => %s)
FROM feedback f JOIN delivery_provider_configs p ON p.id = f.config_id
WHERE f.message_id IS NOT NULL ORDER BY f.received_at LIMIT %s
"""
# Given up: they stay, and are nobody's.
GIVE_UP = "UPDATE feedback SET message_id = NULL WHERE key = ANY(%s::uuid[]) AND notification_id IS NULL"
GIVE_UP_ORPHANS = """
UPDATE feedback SET message_id = NULL
WHERE message_id IS NOT NULL AND received_at < now() - make_interval(secs => %s)
  AND NOT EXISTS (SELECT FROM delivery_provider_configs p WHERE p.id = feedback.config_id)
"""
PRUNE = """
DELETE FROM feedback WHERE key IN (SELECT key FROM feedback WHERE key < %s::uuid ORDER BY key LIMIT %s)
"""


class PostgresFeedback:
    """Reports and what follows from them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def take(self, reports: Sequence[Report]) -> Taken:
        """Take reports in; they are durable when this returns."""
        by_key = {report.key: report for report in reports}
        documents = [_document(report, key) for key, report in by_key.items()]
        taken = await self._take(TAKE, list(by_key.values()), documents)
        return taken._replace(known=taken.known + len(reports) - len(by_key))

    async def join(self, limit: int) -> tuple[Taken, int]:
        """Look again for the notifications of parked reports; and how many were given up as unmatched."""
        rows = await self._pool.fetch(PARKED, (JOIN_WINDOW_S, limit))
        if not rows:
            return Taken((), 0, 0, (), ()), 0
        documents = [
            {
                "key": key,
                "organization_id": organization_id,
                "config_id": config_id,
                "message_id": message_id,
                "kind": kind,
                "rank": RANKS.get(FeedbackKind(kind)),
                "code": code,
                "at": at,
            }
            for key, organization_id, config_id, _, _, message_id, kind, code, at, _ in rows
        ]
        taken = await self._take(JOIN, [_parked(*row) for row in rows], documents)
        late = [row[0] for row in rows if row[-1]]
        given_up = await self._pool.execute(GIVE_UP, (late,)) if late else 0
        return taken, given_up + await self._pool.execute(GIVE_UP_ORPHANS, (JOIN_WINDOW_S,))

    async def prune(self, limit: int) -> int:
        """Delete the oldest reports past ``KEPT_S``, at most ``limit``; how many there were."""
        ((now_s,),) = await self._pool.fetch("SELECT extract(epoch FROM now())::float8")
        return await self._pool.execute(PRUNE, (uuid7(int((now_s - KEPT_S) * 1000), 0), limit))

    async def _take(self, statement: str, reports: Sequence[Report], documents: Sequence[dict[str, Any]]) -> Taken:
        for ord, document in enumerate(documents):
            document["ord"] = ord
        parameters = {"reports": orjson.dumps(documents).decode(), "clearing": [str(kind) for kind in CLEARING_KINDS]}
        with translated("reports"):
            rows = await self._find_moved(await self._pool.fetch(statement, parameters), documents)
            parked = 0
            fresh: list[Report] = []
            confirmed: dict[str, Confirmed] = {}
            events: dict[Address, list[Event]] = defaultdict(list)
            for ord, id, channel, recipient, is_new, state, code, at, clears, first_at, after_s in rows:
                report, reached = reports[ord], Channel(channel or reports[ord].channel)
                feedback = report.feedback
                if is_new:
                    fresh.append(report)
                parked += id is None and documents[ord]["message_id"] is not None
                if state is not None:
                    notification_id, organization_id = NotificationId(id), report.organization_id
                    kind = FeedbackKind(state)
                    after_s = None if kind is not FeedbackKind.DELIVERED or after_s is None else max(0.0, after_s)
                    confirmed[id] = Confirmed(organization_id, notification_id, reached, kind, code, at, report.provider, after_s)
                whom = recipient or feedback.recipient  # empty when its person was erased: then the contact is one of a digest
                at = feedback.at_unix_s if feedback.key_unix_s is None or is_new else first_at
                # Without a time of its own: a repetition that came in the same moment, and is merged by who took in the first.
                is_told = at is not None and feedback.topic is None
                if whom is not None and is_told and (feedback.kind in CONTACT_KINDS or clears):
                    address = Address(report.organization_id, reached, address_of(reached, whom))
                    events[address].append(Event(whom, report.provider, feedback.kind, feedback.code, at))
            changes = await self._merge(events) if events else ()
        return Taken(fresh, len(rows) - len(fresh), parked, list(confirmed.values()), changes)

    async def _find_moved(
        self, rows: Sequence[tuple[Any, ...]], documents: Sequence[dict[str, Any]]
    ) -> Sequence[tuple[Any, ...]]:
        """The same rows, and with them what history knows of notifications that are named and are no longer where they were."""
        wanted = [documents[ord] for ord, id, *_ in rows if id is None and documents[ord].get("notification_id") is not None]
        if not wanted:
            return rows
        since = min(made_at_unix_s(document["notification_id"]) for document in wanted) - SKEW_S
        reports = orjson.dumps(wanted).decode()
        found = await self._pool.fetch(
            TAKE_MOVED, {"reports": reports, "clearing": [str(kind) for kind in CLEARING_KINDS], "since": since}
        )
        moved = {row[0]: row for row in found if row[1] is not None}
        return [moved.get(row[0], row) for row in rows]

    async def _merge(self, events: Mapping[Address, Sequence[Event]]) -> Sequence[ContactChange]:
        """What events say of contacts. Rows are locked in one order, so that two of us never wait for each other."""
        ordered = sorted(events)
        async with self._pool.connection() as connection, connection.transaction():
            columns = ([a.organization_id for a in ordered], [a.channel.value for a in ordered])
            await connection.execute(ENSURE, (*columns, [events[a][0].recipient for a in ordered]))
            cursor = await connection.execute(LOCK, (*columns, [a.digest for a in ordered]))
            updates, changes = [], []
            for organization_id, channel, digest, id, *components in await cursor.fetchall():
                address = Address(organization_id, Channel(channel), bytes(digest))
                known, heard = contact_of(components), events[address]
                contact = merged(known, [(event.kind, event.code, event.at_unix_s) for event in heard])
                if contact != known:
                    updates.append(contact_document(id, contact, provider=heard[-1].provider))
                    if contact.status is not known.status:
                        status, code, _ = contact.standing
                        changes.append(ContactChange(address.organization_id, id, address.channel, status, code))
            if updates:
                await connection.execute(CHANGE, (orjson.dumps(updates).decode(),))
            dead = [each.id for each in changes if each.channel is Channel.PUSH and each.status is ContactStatus.INVALID]
            if dead:
                await connection.execute(DEAD_TOKENS, (dead,))
        return changes


class Address(NamedTuple):
    """What identifies a contact."""

    organization_id: OrganizationId
    channel: Channel
    digest: bytes


class Event(NamedTuple):
    """What a report says of a contact."""

    recipient: str
    provider: str
    kind: FeedbackKind
    code: str
    at_unix_s: float


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Lets nothing of the driver out: only what may be the fault of a row refuses rows, everything else may be tried again."""
    try:
        yield
    except psycopg.Error as error:
        if is_about_content(error):
            raise StoreRefused(f"Postgres refused {what}: {type(error).__name__}") from None
        raise StoreUnavailable(f"Postgres could not take {what} at this moment: {type(error).__name__}") from error


def contact_of(components: Sequence[Any]) -> Contact:
    """The contact in a row's ``COMPONENTS``."""
    failed_as = None if components[3] is None else ContactStatus(components[3])
    values = [*components[:3], failed_as, *components[4:11], tuple(components[11])]
    return Contact(*values)


def contact_document(
    id: str, contact: Contact, *, provider: str | None = None, changed_by: str | None = None, note: str | None = None
) -> dict[str, Any]:
    """One row of the statement ``CHANGE``."""
    return {"id": id, **attrs.asdict(contact), "provider": provider, "changed_by": changed_by, "note": note}


def _document(report: Report, key: str) -> dict[str, Any]:
    feedback = report.feedback
    return {
        "key": key,
        "organization_id": report.organization_id,
        "config_id": report.config_id,
        "notification_id": feedback.notification_id,
        "message_id": report.message_id,
        "kind": feedback.kind.value,
        "rank": RANKS.get(feedback.kind),
        "code": feedback.code,
        "at": feedback.at_unix_s,
    }


def _parked(
    _key: str,
    organization_id: OrganizationId,
    config_id: str,
    provider: str,
    channel: str,
    message_id: str,
    kind: str,
    code: str,
    at_unix_s: float,
    _is_late: bool,
) -> Report:
    feedback = Feedback("", FeedbackKind(kind), code, at_unix_s, provider_message_id=message_id)
    return Report(organization_id, config_id, provider, Channel(channel), feedback)
