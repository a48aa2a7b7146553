"""The history in Postgres: moving into it, its partitions, and what a person asks of it.

A partition is made beside its class and then attached, and dropped whole: the one takes no lock that a reader or a writer of the
history would wait for, the other gives up after :data:`LOCK_S`, so that nobody waits behind it for longer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.abc import Params

from actors.archive import FIRST_ID, Found, Late, Moved, Partition
from actors.io.postgres import Pool, TrioConnection
from actors.store.history_statements import (
    ERASE,
    FOLD,
    FORGET_ANSWERS,
    FORGET_EVENTS,
    LATE,
    LOOK,
    MOVE,
    OF_USER,
    PARTITIONS,
    SHORTEST,
)
from actors.store.translated import translated
from dispatcher.ids import uuid7
from dispatcher.model import NotificationId, OrganizationId
from dispatcher.policy import KEPT_DAYS
from dispatcher.retention import TABLE, Span, span_named, span_of

LOCK_S = 0.25
"""How long a change of partitions may wait for a lock, and everybody else behind it."""
TURN = 0x68697374  # "hist": the advisory lock of whoever makes partitions
_CLASSES = [f"{TABLE}_{days}" for days in KEPT_DAYS]


class PostgresArchive:
    """``after_s``: how long what is final stays among the notifications, after its last change."""

    def __init__(self, pool: Pool, after_s: float) -> None:
        self._pool = pool
        self._after_s = after_s
        self._there: set[Span] = set()

    async def look(self, after: NotificationId, limit: int) -> Found:
        """What may go, among the next ``limit`` notifications that are old enough to ask."""
        ((shortest_s, now_s),) = await self._fetch(SHORTEST, (self._after_s,))
        before = uuid7(max(0, int((now_s - shortest_s) * 1000)), 0)
        rows = await self._fetch(LOOK, {"after": after, "before": before, "limit": limit, "after_s": self._after_s})
        due = {NotificationId(id): span_of(kept_days, day) for id, kept_days, day, may_go in rows if may_go}
        return Found(due, None if len(rows) < limit else rows[-1][0])

    async def prepare(self, spans: Collection[Span]) -> None:
        """Make the partitions that are not there yet. Raises StoreUnavailable when a lock can not be had in time."""
        missing = sorted(set(spans) - self._there)
        if not missing:
            return
        with translated("partitions"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(%s)", (TURN,))
                await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_S}s'")
                there = {span for span, _, _ in await self._partitions(connection)}
                for span in missing:
                    if span not in there:
                        await _make(connection, span)
        self._there.update(missing)

    async def move(self, due: Mapping[NotificationId, Span]) -> Moved:
        """Move those that still may go, all or none. A partition that has gone meanwhile is made anew before the next.

        Raises StoreRefused for a row that history does not take.
        """
        ids = sorted(due)
        params = {"ids": ids, "kept_days": [due[id].kept_days for id in ids], "after_s": self._after_s}
        with translated("what is final"):
            try:
                ((moved, kept),) = await self._pool.fetch(MOVE, params)
            except psycopg.errors.CheckViolation:  # no partition for a row
                self._there.clear()
                return Moved()
        return Moved(kept, moved - kept)

    async def confirm(self, after: NotificationId, limit: int) -> Late:
        """Write what was confirmed of moved notifications to their history."""
        ((now_s,),) = await self._fetch("SELECT extract(epoch FROM now())::float8")
        before = uuid7(max(0, int((now_s - min(self._after_s, 86_400.0)) * 1000)), 0)
        ((seen, last, _, written),) = await self._fetch(LATE, {"after": after, "before": before, "limit": limit})
        return Late(written, None if seen < limit else last)

    async def partitions(self) -> Sequence[Partition]:
        """All partitions there are, by class and age."""
        with translated("a look at the history"):
            async with self._pool.connection() as connection:
                return await self._partitions(connection)

    async def drop(self, span: Span) -> bool:
        """Drop a partition; False when its class could not be had within ``LOCK_S``."""
        with translated("the end of a partition"):
            async with self._pool.connection() as connection:
                try:
                    async with connection.transaction():
                        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_S}s'")
                        await connection.execute(f"DROP TABLE IF EXISTS {span.name}")
                except psycopg.errors.LockNotAvailable:
                    return False
        self._there.discard(span)
        return True

    async def fold(self, limit: int) -> int:
        """Add up to ``limit`` changes of counts to the counts; how many there were."""
        ((folded,),) = await self._fetch(FOLD, (limit,))
        return int(folded)

    async def forget(self, limit: int) -> int:
        """Forget up to ``limit`` each of the events and batch answers that are old enough; how many there were."""
        with translated("what is forgotten"):
            answers = await self._pool.execute(FORGET_ANSWERS, (self._after_s, limit))
            return answers + await self._pool.execute(FORGET_EVENTS, (self._after_s, limit))

    async def _fetch(self, sql: str, params: Params = ()) -> list[tuple[Any, ...]]:
        with translated("a change of the history"):
            return await self._pool.fetch(sql, params)

    async def _partitions(self, connection: TrioConnection[Any]) -> list[Partition]:
        found = await (await connection.execute(PARTITIONS, (_CLASSES,))).fetchall()
        named = [(span_named(name), rows, size) for name, rows, size in found]
        return sorted(Partition(span, rows, size) for span, rows, size in named if span is not None)


async def _make(connection: TrioConnection[Any], span: Span) -> None:
    first, end = span.bounds
    await connection.execute(f"CREATE TABLE {span.name} (LIKE {span.parent})")
    await connection.execute(f"ALTER TABLE {span.parent} ATTACH PARTITION {span.name} FOR VALUES FROM ('{first}') TO ('{end}')")


async def erase_history(
    connection: TrioConnection[Any], organization_id: OrganizationId, user_id: str, recipient: str = ""
) -> int:
    """Blank all that history has of a person: the user, the recipient (``recipient`` stands there instead), the content, the key
    of the request. What became of it, and when, stays. How many rows there were.

    For a transaction that has erased the same of ``notifications`` before: what moves in between is found here then.
    """
    params = {"organization_id": organization_id, "user_id": user_id, "recipient": recipient}
    return (await connection.execute(ERASE, params)).rowcount


async def history_of_user(
    connection: TrioConnection[Any], organization_id: OrganizationId, user_id: str
) -> Sequence[Mapping[str, Any]]:
    """What history has of a person, oldest first, as it is handed to them."""
    cursor = await connection.execute(OF_USER, (organization_id, user_id))
    names = ("id", "channel", "status", "recipient", "payload", "locale", "topic", "created_at", "updated_at")
    return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]


__all__ = ["FIRST_ID", "LOCK_S", "PostgresArchive", "erase_history", "history_of_user"]
