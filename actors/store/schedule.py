"""What waits for its time, in Postgres. Each method is one statement, or one transaction about digests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from actors.io.postgres import Pool
from actors.schedule_ports import (
    ITEMS_BYTES_MAX,
    ITEMS_MAX,
    Cancelation,
    Cancelations,
    Digest,
    DigestItem,
    Due,
    Moved,
    Ruling,
    Telling,
    Told,
    reason_of,
)
from actors.store import inserting
from actors.store.schedule_statements import (
    CANCEL,
    CANCEL_CORRELATED,
    CLOSE_DIGESTS,
    DIGEST_ITEMS,
    DIGESTS,
    DROP_DIGESTS,
    DROP_EMPTY,
    DUE,
    ENDED,
    HOLD_DIGESTS,
    HOLD_DIGESTS_OF,
    MARKS,
    NEXT,
    PASSED_OVER,
    PUT_OFF,
    RELEASE,
    RULE,
    STANDING,
    TAKE_OUT,
)
from actors.store.translated import translated
from dispatcher.model import Channel, NotificationId, OrganizationId, Status
from dispatcher.retention import changed_since


class PostgresSchedule:
    """What waits for its time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def next_in_s(self) -> float | None:
        """How long until the first scheduled notification or digest is due, by the server's clock; None without any."""
        due_in_s: float | None = (await self._pool.fetch(NEXT))[0][0]
        return due_in_s

    async def release(self, limit: int) -> Sequence[Moved]:
        """Queue what is due and has nothing to be asked again; cancel what has outlived its ``expires_at``."""
        return [_moved(*row) for row in await self._pool.fetch(RELEASE, (limit,))]

    async def due(self, limit: int) -> Sequence[Due]:
        """What is due and has a plan, the longest overdue first."""
        rows = await self._pool.fetch(DUE, (limit,))
        return [Due(organization_id, id, Channel(channel), *rest) for organization_id, id, channel, *rest in rows]

    async def rule(self, rulings: Sequence[Ruling]) -> Sequence[Moved]:
        """Carry out rulings on rows that still wait as they did when they were read; returns those."""
        documents = [
            {
                "id": ruling.due.id,
                "seen": ruling.due.due_at_s,
                "status": ruling.status.value,
                "at": ruling.at_s,
                "reason": reason_of(ruling),
                "decisions": [decision.document() for decision in ruling.decisions] or None,
            }
            for ruling in rulings
        ]
        with translated("rulings on what was due"):
            return [_moved(*row) for row in await self._pool.fetch(RULE, (orjson.dumps(documents).decode(),))]

    async def digests(self, limit: int) -> Sequence[Digest]:
        """Digests that are due, the longest overdue first, as they are at one moment each."""
        await self._pool.execute(CLOSE_DIGESTS, (limit,))
        rows = await self._pool.fetch(DIGESTS, (limit,))
        if not rows:
            return []
        items: dict[str, list[DigestItem]] = {}
        params = {"ids": [row[0] for row in rows], "items_max": ITEMS_MAX, "bytes_max": ITEMS_BYTES_MAX}
        for digest_id, *item in await self._pool.fetch(DIGEST_ITEMS, params):
            items.setdefault(digest_id, []).append(DigestItem(*item))
        return [
            Digest(
                id,
                organization_id,
                rule,
                user_id,
                Channel(channel),
                key,
                due_at_s,
                tuple(items.get(id, ())),
                int(mark.split()[0]),
                mark,
            )
            for id, organization_id, rule, user_id, channel, key, due_at_s, mark in rows
        ]

    async def tell(self, tellings: Sequence[Telling]) -> Told:
        """Insert notifications of digests and delete these, in one transaction; those that have changed since stay."""
        ids = [telling.digest.id for telling in tellings]
        with translated("notifications of digests"):
            async with self._pool.connection() as connection, connection.transaction():
                held = {id for (id,) in await (await connection.execute(HOLD_DIGESTS, (ids,))).fetchall()}
                now: Mapping[str, str] = dict(await (await connection.execute(MARKS, (ids,))).fetchall())
                same = [t for t in tellings if t.digest.id in held and now[t.digest.id] == t.digest.mark]
                admissions = [telling.admission for telling in same if telling.admission is not None]
                done = frozenset(telling.digest.id for telling in same)
                await connection.execute(DROP_DIGESTS, (sorted(done),))
                return Told(done, await inserting.insert_within(connection, admissions))

    async def put_off(self, digests: Sequence[str], by_s: float) -> None:
        """Make digests due so many seconds from now."""
        await self._pool.execute(PUT_OFF, (by_s, list(digests)))

    async def cancel(self, organization_id: OrganizationId, id: NotificationId) -> Cancelation | None:
        """Cancel one that is scheduled or queued; None when there is no such one."""
        rows = await self._pool.fetch(CANCEL, {"organization_id": organization_id, "id": id})
        if not rows:  # it may have moved into history
            rows = await self._pool.fetch(ENDED, (organization_id, id, changed_since(id)))
        return next((Cancelation(id, Channel(channel), Status(status), now) for id, channel, status, now in rows), None)

    async def cancel_correlated(self, organization_id: OrganizationId, correlation_id: str, limit: int) -> Cancelations:
        """Cancel up to ``limit`` of a correlation id, and take its items out of digests."""
        params: dict[str, Any] = {"organization_id": organization_id, "correlation_id": correlation_id, "limit": limit}
        async with self._pool.connection() as connection:
            async with connection.transaction():
                digests = [id for (id,) in await (await connection.execute(HOLD_DIGESTS_OF, params)).fetchall()]
                items = 0
                if digests:
                    items = (await connection.execute(TAKE_OUT, (digests, correlation_id))).rowcount
                    await connection.execute(DROP_EMPTY, (digests,))
            rows = await (await connection.execute(CANCEL_CORRELATED, params)).fetchall()
            held = await (await connection.execute(PASSED_OVER, params)).fetchall() if len(rows) < limit else []
            for (id,) in held[: limit - len(rows)]:
                one = await connection.execute(CANCEL, {"organization_id": organization_id, "id": id})
                rows.extend((id, channel) for id, channel, _, now in await one.fetchall() if now)
        return Cancelations([(id, Channel(channel)) for id, channel in rows], items, len(rows) >= limit)

    async def standing(self, organization_id: OrganizationId, correlation_id: str, limit: int) -> Mapping[Status, int]:
        """How many notifications of a correlation id have each status, counting up to ``limit`` of them."""
        rows = await self._pool.fetch(STANDING, (organization_id, correlation_id, limit))
        return {Status(status): count for status, count in rows}


def _moved(organization_id: str, id: str, channel: str, status: str, reason: str | None, at_s: float, bulk: bool) -> Moved:
    moved_to = Status(status)
    when = at_s if moved_to is Status.SCHEDULED else None
    return Moved(OrganizationId(organization_id), NotificationId(id), Channel(channel), moved_to, reason, when, bulk)
