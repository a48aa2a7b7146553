"""The store port on Postgres: every statement of the hot path, each a batch.

Statements take ids in sorted order, so that two batches can never wait for each other's rows in a circle. Each can be repeated when its
answer was lost: inserts skip what is there, the gate hands out again what this very incarnation holds, records check claimer and attempt.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson
import psycopg

from actors.io.postgres import Pool, TrioConnection
from actors.ports import Admission, BatchAnswer, Existing, Page, Rescued
from dispatcher.errors import StoreRefused
from dispatcher.messages import Gated, Verdict
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, Status

RESCUES_MAX = 5
"""An attempt that died this often together with its process is poison: it goes to the dead letters instead of a sixth process."""

INSERT = """
INSERT INTO notifications (id, organization_id, channel, attempts_max, created_at, updated_at, expires_at, user_id, recipient, payload,
                           template_id, locale, idempotency_key, request_hash)
SELECT id, organization_id, channel, attempts_max, to_timestamp(created_at), to_timestamp(created_at), to_timestamp(expires_at), user_id,
       recipient, payload, template_id, locale, idempotency_key, decode(request_hash, 'hex')
FROM json_to_recordset(%s::json) AS r(id uuid, organization_id text, channel text, attempts_max smallint, created_at float8,
     expires_at float8, user_id text, recipient text, payload jsonb, template_id uuid, locale text, idempotency_key text, request_hash text)
ON CONFLICT DO NOTHING
"""

EXISTING = """
SELECT n.organization_id, n.idempotency_key, n.id, n.request_hash, extract(epoch FROM n.created_at)::float8
FROM unnest(%s::text[], %s::text[]) AS k(organization_id, idempotency_key)
JOIN notifications n USING (organization_id, idempotency_key)
"""

KEEP_ANSWERS = """
INSERT INTO batch_answers (organization_id, idempotency_key, request_hash, answer)
SELECT organization_id, idempotency_key, decode(request_hash, 'hex'), answer
FROM json_to_recordset(%s::json) AS r(organization_id text, idempotency_key text, request_hash text, answer text)
ON CONFLICT DO NOTHING
"""

_GATE = """
UPDATE notifications
SET status = 'sending', attempts = attempts + {step}, claimed_by = %(claimer)s, updated_at = now()
WHERE id = ANY(%(ids)s::uuid[]) AND {free}
  AND (next_retry_at IS NULL OR next_retry_at <= now() + interval '10 milliseconds'){open}
  AND EXISTS (SELECT FROM incarnations WHERE incarnations.id = %(claimer)s AND lease_until > now())
RETURNING id, organization_id, channel, recipient, payload, attempts, attempts_max,
          extract(epoch FROM created_at)::float8, extract(epoch FROM expires_at)::float8
"""
_OPEN = " AND NOT (organization_id || '/' || channel = ANY(%(closed)s::text[]))"
_AGAIN = {
    "step": "CASE status WHEN 'queued' THEN 1 ELSE 0 END",
    "free": "(status = 'queued' OR (status = 'sending' AND claimed_by = %(claimer)s))",
}
_FIRST = {"step": "1", "free": "status = 'queued'"}
GATE = _GATE.format(**_FIRST, open="")
GATE_OPEN = _GATE.format(**_FIRST, open=_OPEN)
GATE_AGAIN = _GATE.format(**_AGAIN, open=_OPEN)

# What the gate did not let through, and why: only queued rows have a future here.
LEFT_OUT = """
SELECT id, organization_id, channel, status, greatest(0, extract(epoch FROM next_retry_at - now()))::float8
FROM notifications WHERE id = ANY(%s::uuid[])
"""

RECORD_DELIVERED = """
UPDATE notifications n
SET status = 'delivered', claimed_by = NULL, next_retry_at = NULL, reason = NULL, updated_at = now(),
    provider = u.provider, provider_config_id = u.config_id, provider_message_id = u.provider_message_id
FROM unnest(%s::uuid[], %s::smallint[], %s::text[], %s::uuid[], %s::text[]) AS u(id, attempt, provider, config_id, provider_message_id)
WHERE n.id = u.id AND n.attempts = u.attempt AND n.claimed_by = %s AND n.status = 'sending'
RETURNING n.id
"""

RECORD_OTHERS = """
WITH u AS (
    SELECT * FROM json_to_recordset(%s::json) AS u(id uuid, attempt smallint, status text, refund smallint, doubles smallint,
        retry_in_s float8, outcome text, code text, dead text, provider text, config_id uuid)
), done AS (
    UPDATE notifications n
    SET status = u.status, attempts = n.attempts - u.refund, unknowns = n.unknowns + u.doubles, claimed_by = NULL, updated_at = now(),
        next_retry_at = now() + make_interval(secs => u.retry_in_s), reason = u.code,
        provider = coalesce(u.provider, n.provider), provider_config_id = coalesce(u.config_id, n.provider_config_id)
    FROM u
    WHERE n.id = u.id AND n.attempts = u.attempt AND n.claimed_by = %s AND n.status = 'sending'
    RETURNING n.id, n.organization_id, n.channel, n.next_retry_at, u.attempt, u.outcome, u.code, u.dead, u.provider, u.config_id
), timeline AS (
    INSERT INTO attempts (notification_id, attempt, organization_id, outcome, code, provider, provider_config_id, at, next_retry_at)
    SELECT id, attempt, organization_id, outcome, code, provider, config_id, clock_timestamp(), next_retry_at FROM done
), dead AS (
    INSERT INTO dead_letters (notification_id, organization_id, reason, code, channel, provider, created_at)
    SELECT id, organization_id, dead, code, channel, provider, now() FROM done WHERE dead IS NOT NULL
    ON CONFLICT DO NOTHING
)
SELECT id FROM done
"""

RENEW = """
UPDATE incarnations SET lease_until = now() + make_interval(secs => %s) WHERE id = %s AND lease_until > now() RETURNING id
"""
REGISTER = """
INSERT INTO incarnations (id, lease_until) VALUES (%s, now() + make_interval(secs => %s))
ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until
"""
RELEASE = "DELETE FROM incarnations WHERE id = %s"

# An attempt whose process is gone: it may or may not have reached the provider, so it counts as a possible double. It costs none of
# the notification's attempts (attempts_max moves along), only one of its rescues.
_RESCUE = """
WITH lost AS (
    SELECT id FROM notifications n
    WHERE status = 'sending' AND {whose}
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), done AS (
    UPDATE notifications n
    SET status = CASE WHEN n.rescues >= %(rescues_max)s THEN 'failed' ELSE 'queued' END, claimed_by = NULL, updated_at = now(),
        next_retry_at = NULL, unknowns = n.unknowns + 1, rescues = n.rescues + 1, attempts_max = n.attempts_max + 1, reason = 'process_lost'
    FROM lost WHERE n.id = lost.id
    RETURNING n.id, n.organization_id, n.channel, n.attempts, n.status
), timeline AS (
    INSERT INTO attempts (notification_id, attempt, organization_id, outcome, code, at)
    SELECT id, attempts, organization_id, 'unknown', 'process_lost', clock_timestamp() FROM done
), dead AS (
    INSERT INTO dead_letters (notification_id, organization_id, reason, code, channel, created_at)
    SELECT id, organization_id, 'poison', 'process_lost', channel, now() FROM done WHERE status = 'failed'
    ON CONFLICT DO NOTHING
)
SELECT organization_id, id, channel, status = 'failed' FROM done
"""
RESCUE = _RESCUE.format(
    whose="NOT EXISTS (SELECT FROM incarnations i WHERE i.id = n.claimed_by AND i.lease_until > now() - interval '1 second')"
)
DISOWN = _RESCUE.format(whose="claimed_by = %(claimer)s AND organization_id = %(organization_id)s")
PRUNE = """
DELETE FROM incarnations i WHERE lease_until < now() - interval '1 hour'
AND NOT EXISTS (SELECT FROM notifications n WHERE n.status = 'sending' AND n.claimed_by = i.id)
"""

QUEUED = """
SELECT organization_id, id, greatest(0, extract(epoch FROM next_retry_at - now()))::float8, extract(epoch FROM updated_at)::float8
FROM notifications
WHERE status IN ('queued', 'sending') AND status = 'queued' AND (updated_at, id) > (to_timestamp(%s), %s::uuid)
  AND greatest(updated_at, next_retry_at) < now() - make_interval(secs => %s)
ORDER BY updated_at, id LIMIT %s
"""
QUEUED_ALL = QUEUED.replace("greatest(updated_at, next_retry_at) < now() - make_interval(secs => %s)", "%s::float8 IS NOT NULL")

_FIRST_ID = NotificationId("00000000-0000-0000-0000-000000000000")


class PostgresStore:
    """The durable state of notifications, written by one process incarnation.

    ``incarnation`` is a fresh UUID per process start, never a host name: a restarted host must not look like its dead self.
    """

    def __init__(self, pool: Pool, incarnation: str) -> None:
        self._pool = pool
        self.incarnation = incarnation

    async def insert(
        self, admissions: Sequence[Admission], batch_answers: Sequence[BatchAnswer]
    ) -> Mapping[tuple[OrganizationId, str], Existing]:
        """Insert all in one transaction. Rows whose key is taken are left out; the answer says what those keys stand for."""
        rows = orjson.dumps([admission.row for admission in admissions]).decode()
        try:
            return await self._insert_all(rows, admissions, batch_answers)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise StoreRefused(f"Postgres refused a batch of {len(admissions)} notifications: {type(error).__name__}") from None

    async def _insert_all(
        self, rows: str, admissions: Sequence[Admission], batch_answers: Sequence[BatchAnswer]
    ) -> Mapping[tuple[OrganizationId, str], Existing]:
        async with self._pool.connection() as connection:
            if not batch_answers:
                return await self._insert(connection, rows, admissions)
            async with connection.transaction():
                existing = await self._insert(connection, rows, admissions)
                answers = [
                    {
                        "organization_id": kept.organization_id,
                        "idempotency_key": kept.idempotency_key,
                        "request_hash": kept.request_hash.hex(),
                        "answer": kept.answer(existing).decode(),
                    }
                    for kept in batch_answers
                ]
                await connection.execute(KEEP_ANSWERS, (orjson.dumps(answers).decode(),))
                return existing

    async def _insert(
        self, connection: TrioConnection[Any], rows: str, admissions: Sequence[Admission]
    ) -> Mapping[tuple[OrganizationId, str], Existing]:
        cursor = await connection.execute(INSERT, (rows,))
        if cursor.rowcount == len(admissions):
            return {}
        keyed = [a for a in admissions if a.idempotency_key is not None]
        found = await connection.execute(EXISTING, ([a.organization_id for a in keyed], [a.idempotency_key for a in keyed]))
        return {
            (organization_id, key): Existing(id, bytes(request_hash), created_at)
            for organization_id, key, id, request_hash, created_at in await found.fetchall()
        }

    async def gate(
        self, ids: Sequence[NotificationId], closed: Collection[tuple[OrganizationId, Channel]], *, again: bool
    ) -> Mapping[OrganizationId, Gated]:
        """Record the intent to send. ``again`` repeats a call whose answer was lost, for ids nobody else in this process holds."""
        names = [f"{organization_id}/{channel}" for organization_id, channel in closed]
        statement = GATE_AGAIN if again else GATE_OPEN if closed else GATE
        params = {"claimer": self.incarnation, "ids": sorted(ids), "closed": names}
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(statement, params)).fetchall()
            left_out: list[tuple[str, str, str, str, float | None]] = []
            if len(rows) < len(ids):
                passed = {row[0] for row in rows}
                rest = [id for id in ids if id not in passed]
                left_out = await (await connection.execute(LEFT_OUT, (rest,))).fetchall()
        answer: dict[OrganizationId, Gated] = {}
        deliveries: dict[OrganizationId, list[Delivery]] = {}
        for id, organization_id, channel, recipient, payload, attempt, attempts_max, created_at, expires_at in rows:
            delivery = Delivery(
                id, organization_id, Channel(channel), recipient, payload, attempt, attempts_max, created_at, expires_at
            )
            deliveries.setdefault(organization_id, []).append(delivery)
        for organization_id, batch in deliveries.items():
            answer[organization_id] = Gated(batch)
        if left_out:
            _add_left_out(answer, left_out, frozenset(names))
        return answer

    async def record(self, verdicts: Sequence[Verdict], *, again: bool) -> set[NotificationId]:
        """Write verdicts; returns the ids that were still ours. ``again`` repeats a call whose answer was lost."""
        delivered = sorted((v for v in verdicts if v.status is Status.DELIVERED), key=_delivery_id)
        others = sorted((v for v in verdicts if v.status is not Status.DELIVERED), key=_delivery_id)
        ours: set[NotificationId] = set()
        async with self._pool.connection() as connection:
            if delivered:
                cursor = await connection.execute(
                    RECORD_DELIVERED,
                    (
                        [v.delivery.id for v in delivered],
                        [v.delivery.attempt for v in delivered],
                        [v.via.provider if v.via else None for v in delivered],
                        [v.via.config_id if v.via else None for v in delivered],
                        [v.outcome.provider_message_id for v in delivered],
                        self.incarnation,
                    ),
                )
                ours.update(row[0] for row in await cursor.fetchall())
            if others:
                text = orjson.dumps([_verdict_row(v) for v in others]).decode()
                cursor = await connection.execute(RECORD_OTHERS, (text, self.incarnation))
                ours.update(row[0] for row in await cursor.fetchall())
        if again:  # the first try may have done it: nobody else can have, while our lease holds
            ours.update(v.delivery.id for v in verdicts)
        return ours

    async def register(self, lease_s: float) -> None:
        """Make this incarnation known; nothing passes the gate before."""
        await self._pool.execute(REGISTER, (self.incarnation, lease_s))

    async def renew_lease(self, lease_s: float) -> bool:
        """Prolong this incarnation's lease. False when it had lapsed: others may have taken over what we hold."""
        return bool(await self._pool.fetch(RENEW, (lease_s, self.incarnation)))

    async def release_lease(self) -> None:
        """Give the lease up: what is still ``sending`` under it may be rescued at once."""
        await self._pool.execute(RELEASE, (self.incarnation,))

    async def rescue(self, limit: int) -> Sequence[Rescued]:
        """Take back attempts of incarnations whose lease lapsed."""
        rows = await self._pool.fetch(RESCUE, {"limit": limit, "rescues_max": RESCUES_MAX})
        await self._pool.execute(PRUNE)
        return [Rescued(organization_id, id, Channel(channel), dead) for organization_id, id, channel, dead in rows]

    async def disown(self, organization_id: OrganizationId) -> Sequence[Rescued]:
        """Take back the attempts one organization's actor held when it crashed inside this incarnation."""
        params = {
            "limit": 100_000,
            "rescues_max": RESCUES_MAX,
            "claimer": self.incarnation,
            "organization_id": organization_id,
        }
        rows = await self._pool.fetch(DISOWN, params)
        return [Rescued(organization, id, Channel(channel), dead) for organization, id, channel, dead in rows]

    async def queued(self, after: tuple[float, NotificationId] | None, older_than_s: float, limit: int) -> Page:
        """Walk the queued rows whose last change is older than this, oldest first; with 0, those that are not due yet as well."""
        since_s, last_id = after or (0.0, _FIRST_ID)
        statement = QUEUED if older_than_s > 0 else QUEUED_ALL
        rows = await self._pool.fetch(statement, (since_s, last_id, older_than_s, limit))
        end = len(rows) < limit
        return Page([(row[0], row[1], row[2] or 0.0) for row in rows], None if end else (rows[-1][3], rows[-1][1]))


def _delivery_id(verdict: Verdict) -> str:
    return verdict.delivery.id


def _verdict_row(v: Verdict) -> dict[str, object]:
    return {
        "id": v.delivery.id,
        "attempt": v.delivery.attempt,
        "status": v.status.value,
        "refund": int(v.refund),
        "doubles": int(v.possible_double),
        "retry_in_s": v.retry_in_s,
        "outcome": v.outcome.kind.value,
        "code": v.outcome.code,
        "dead": None if v.dead is None else v.dead.value,
        "provider": v.via.provider if v.via else None,
        "config_id": v.via.config_id if v.via else None,
    }


def _add_left_out(
    answer: dict[OrganizationId, Gated],
    left_out: Sequence[tuple[str, str, str, str, float | None]],
    closed: frozenset[str],
) -> None:
    """Sort what the gate left out into parked, deferred and dropped, per organization."""
    parked: dict[str, list[tuple[Channel, NotificationId]]] = {}
    deferred: dict[str, list[tuple[NotificationId, float]]] = {}
    dropped: dict[str, list[NotificationId]] = {}
    for raw_id, organization_id, channel, status, due_in_s in left_out:
        id = NotificationId(raw_id)
        if status != Status.QUEUED:
            dropped.setdefault(organization_id, []).append(id)
        elif due_in_s:
            deferred.setdefault(organization_id, []).append((id, due_in_s))
        elif f"{organization_id}/{channel}" in closed:
            parked.setdefault(organization_id, []).append((Channel(channel), id))
        else:  # became queued between the two statements, or our lease lapsed: try again shortly
            deferred.setdefault(organization_id, []).append((id, 1.0))
    for name in parked.keys() | deferred.keys() | dropped.keys():
        organization_id_ = OrganizationId(name)
        passed = answer.get(organization_id_)
        answer[organization_id_] = Gated(
            passed.deliveries if passed else (),
            parked=parked.get(name, ()),
            deferred=deferred.get(name, ()),
            dropped=dropped.get(name, ()),
        )
