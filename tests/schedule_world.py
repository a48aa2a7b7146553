"""One database with the store and the schedule on it, in memory or on Postgres, for tests of what waits for its time.

Time passes by moving what is stored towards the past, because a real server's clock can not be moved.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Protocol

import psycopg

from actors.io.postgres import open_pool
from actors.memory_schedule import MemorySchedule
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase
from actors.ports import Admission, DigestEntry, EventAdmission, Inserted, Store
from actors.schedule_ports import Digest, ScheduleStore, Telling
from actors.store.dispatching import PostgresStore
from actors.store.schedule import PostgresSchedule
from dispatcher.caps import CapUse
from dispatcher.ids import uuid7
from dispatcher.model import Channel, NotificationId, OrganizationId

ACME = OrganizationId("acme")
OTHER = OrganizationId("other")
OURS = "0198c000-0000-7000-8000-00000000000a"
LEASE_S = 1000.0


class Timed(Protocol):
    """What has a time of its own."""

    now_s: float


class World(Protocol):
    """One database, and what a test may do to it and see of it."""

    now_s: float
    store: Store
    schedule: ScheduleStore

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""

    def row(self, id: NotificationId) -> tuple[str, str | None]:
        """Status and reason of one notification."""

    def decisions(self, id: NotificationId) -> Any:
        """The chain of one notification."""

    def payloads(self) -> list[Mapping[str, Any]]:
        """What every notification says."""

    def items(self) -> list[str]:
        """The events that stand in digests."""

    def dead_letters(self) -> int:
        """How many there are."""


class MemoryWorld:
    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0
        self.database = MemoryDatabase(lambda: self.now_s)
        self.store: Store = MemoryStore(self.database, OURS)
        self.schedule: ScheduleStore = MemorySchedule(self.database)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    def row(self, id: NotificationId) -> tuple[str, str | None]:
        row = self.database.rows[id]
        return row.status.value, row.reason

    def decisions(self, id: NotificationId) -> Any:
        return self.database.rows[id].decisions

    def payloads(self) -> list[Mapping[str, Any]]:
        return [row.payload for row in self.database.rows.values()]

    def items(self) -> list[str]:
        return sorted(event for digest in self.database.digests.values() for event in digest.items)

    def dead_letters(self) -> int:
        return len(self.database.dead_letters)


class PostgresWorld:
    def __init__(self, store: Store, schedule: ScheduleStore, connection: psycopg.Connection[Any]) -> None:
        self.now_s = time.time()
        self.store = store
        self.schedule = schedule
        self._connection = connection
        connection.execute("INSERT INTO organizations (id, name) VALUES ('acme', 'Acme'), ('other', 'Other')")

    def pass_time(self, seconds: float) -> None:
        for table, column in (
            ("notifications", "created_at"),
            ("notifications", "updated_at"),
            ("notifications", "next_retry_at"),
            ("notifications", "expires_at"),
            ("digests", "due_at"),
        ):
            self._connection.execute(f"UPDATE {table} SET {column} = {column} - make_interval(secs => %s)", (seconds,))
        self._connection.execute(
            "UPDATE cap_times SET times = ARRAY(SELECT t - make_interval(secs => %s) FROM unnest(times) t)", (seconds,)
        )

    def row(self, id: NotificationId) -> tuple[str, str | None]:
        row = self._connection.execute("SELECT status, reason FROM notifications WHERE id = %s", (id,)).fetchone()
        assert row is not None
        return row[0], row[1]

    def decisions(self, id: NotificationId) -> Any:
        row = self._connection.execute("SELECT decisions FROM notifications WHERE id = %s", (id,)).fetchone()
        return None if row is None else row[0]

    def payloads(self) -> list[Mapping[str, Any]]:
        return [payload for (payload,) in self._connection.execute("SELECT payload FROM notifications").fetchall()]

    def items(self) -> list[str]:
        return [event for (event,) in self._connection.execute("SELECT event_id FROM digest_items ORDER BY 1").fetchall()]

    def dead_letters(self) -> int:
        row = self._connection.execute("SELECT count(*) FROM dead_letters").fetchone()
        return 0 if row is None else int(row[0])


@asynccontextmanager
async def memory_world() -> AsyncIterator[World]:
    yield MemoryWorld()


@asynccontextmanager
async def postgres_world(url: str) -> AsyncIterator[World]:
    with psycopg.connect(url, autocommit=True) as connection:
        async with open_pool(url, size_max=6, connect_deadline_s=30, statement_deadline_s=30, random=Random(1)) as pool:
            store = PostgresStore(pool, OURS)
            await store.register(LEASE_S)
            yield PostgresWorld(store, PostgresSchedule(pool), connection)


_RANDOM = Random(7)


def new_id() -> NotificationId:
    return NotificationId(uuid7(1_700_000_000_000, _RANDOM.getrandbits(74)))


def admission(
    world: Timed,
    *,
    organization_id: OrganizationId = ACME,
    send_in_s: float | None = None,
    key: str | None = None,
    caps: tuple[CapUse, ...] = (),
    **row: Any,
) -> Admission:
    """One email; scheduled if it is sent in so many seconds."""
    id = new_id()
    waits = {} if send_in_s is None else {"status": "scheduled", "send_at": world.now_s + send_in_s}
    columns = {
        "id": id,
        "organization_id": organization_id,
        "channel": "email",
        "attempts_max": 8,
        "created_at": world.now_s,
        "expires_at": None,
        "user_id": "ada",
        "recipient": "ada@example.org",
        "payload": {"subject": "s", "text": "t"},
        "template_id": None,
        "locale": None,
        "idempotency_key": key,
        "request_hash": "00",
        **waits,
        **row,
    }
    return Admission(organization_id, id, key, b"\x00", columns, is_planned=True, caps=caps)


def event(
    world: Timed, id: str, *, due_in_s: float = 60.0, user_id: str = "ada", correlation_id: str | None = None
) -> EventAdmission:
    """An event that joins the digest of somebody."""
    entry = DigestEntry(new_id(), "news", user_id, Channel.EMAIL, "", world.now_s + due_in_s)
    return EventAdmission(ACME, id, "news.item", b"\x00", correlation_id, world.now_s, (), (entry,), {"n": id}, lambda _: b"{}")


def telling(world: Timed, digest: Digest) -> Telling:
    """A notification that names the events it tells of."""
    events = [item.event_id for item in digest.items]
    return Telling(digest, admission(world, user_id=digest.user_id, payload={"subject": "s", "text": "t", "events": events}))


async def insert(world: World, *admissions: Admission) -> Inserted:
    """Insert them, and nothing else."""
    return await world.store.insert(admissions, ())
