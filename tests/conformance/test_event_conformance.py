"""Taking in events, with what comes of them: one behaviour, in memory and on Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any, Protocol

import psycopg
import pytest
import trio

from actors.io.postgres import open_pool
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase
from actors.ports import Admission, DigestEntry, EventAdmission, Inserted, Store
from actors.store.dispatching import PostgresStore
from dispatcher.errors import StoreRefused
from dispatcher.feedback.feedback import FeedbackKind
from dispatcher.ids import uuid7
from dispatcher.model import Channel, NotificationId, OrganizationId

ACME = OrganizationId("acme")
OTHER = OrganizationId("other")
OURS, THEIRS = "0198c000-0000-7000-8000-00000000000a", "0198c000-0000-7000-8000-00000000000b"
NOW = 1_700_000_000.0


class World(Protocol):
    """One database, and what a test sees of it."""

    def store(self, incarnation: str) -> Store:
        """The access of one incarnation."""

    def planned(self) -> list[tuple[str, str, str | None, str | None]]:
        """Id, status, event and topic of every notification, by id."""

    def digests(self) -> list[tuple[str, str, float, list[tuple[str, Mapping[str, Any]]]]]:
        """Organization, user and due time of every digest, by these, with its events and their data."""

    def suppress(self, recipient: str) -> None:
        """Nobody may write to them by email."""


class MemoryWorld:
    def __init__(self) -> None:
        self.database = MemoryDatabase(lambda: NOW)

    def store(self, incarnation: str) -> Store:
        return MemoryStore(self.database, incarnation)

    def planned(self) -> list[tuple[str, str, str | None, str | None]]:
        return sorted((row.id, row.status.value, row.event_id, row.topic) for row in self.database.rows.values())

    def digests(self) -> list[tuple[str, str, float, list[tuple[str, Mapping[str, Any]]]]]:
        found = self.database.digests.items()
        return sorted(
            (name[0], name[2], row.due_at_s, sorted((id, item.data) for id, item in row.items.items())) for name, row in found
        )

    def suppress(self, recipient: str) -> None:
        row = self.database.make_contact(ACME, Channel.EMAIL, recipient)
        row.contact = row.contact.after(FeedbackKind.BOUNCED, "gone", NOW)


class PostgresWorld:
    def __init__(self, store: Callable[[str], Store], connection: psycopg.Connection[Any]) -> None:
        self.store = store
        self._connection = connection
        connection.execute("INSERT INTO organizations (id, name) VALUES ('acme', 'Acme'), ('other', 'Other')")

    def planned(self) -> list[tuple[str, str, str | None, str | None]]:
        rows = self._connection.execute("SELECT id::text, status, event_id, topic FROM notifications ORDER BY id").fetchall()
        return [(id, status, event_id, topic) for id, status, event_id, topic in rows]

    def digests(self) -> list[tuple[str, str, float, list[tuple[str, Mapping[str, Any]]]]]:
        rows = self._connection.execute(
            "SELECT id, organization_id, user_id, extract(epoch FROM due_at)::float8 FROM digests ORDER BY 2, 3, 4"
        ).fetchall()
        items = "SELECT event_id, data FROM digest_items WHERE digest_id = %s ORDER BY event_id"
        return [
            (org, user, due, [(event, data) for event, data in self._connection.execute(items, (id,)).fetchall()])
            for id, org, user, due in rows
        ]

    def suppress(self, recipient: str) -> None:
        self._connection.execute(
            """INSERT INTO contacts (id, organization_id, channel, address, recipient, failed_at, failed_as)
               VALUES (gen_random_uuid(), 'acme', 'email', contact_address('email', %(who)s), %(who)s, now(), 'bounced')""",
            {"who": recipient},
        )


@asynccontextmanager
async def memory_world() -> AsyncIterator[World]:
    yield MemoryWorld()


@asynccontextmanager
async def postgres_world(url: str) -> AsyncIterator[World]:
    with psycopg.connect(url, autocommit=True) as connection:
        async with open_pool(url, size_max=4, connect_deadline_s=30, statement_deadline_s=30, random=Random(1)) as pool:
            yield PostgresWorld(lambda incarnation: PostgresStore(pool, incarnation), connection)


@pytest.fixture(params=["memory", "postgres"])
def open_world(request: pytest.FixtureRequest) -> Callable[[], AbstractAsyncContextManager[World]]:
    if request.param == "memory":
        return memory_world
    url: str = request.getfixturevalue("database_url")
    return lambda: postgres_world(url)


@pytest.fixture
async def world(open_world: Callable[[], AbstractAsyncContextManager[World]]) -> AsyncIterator[World]:
    async with open_world() as world:
        yield world


@pytest.fixture
def store(world: World) -> Store:
    return world.store(OURS)


def admission(number: int, event_id: str, key: str | None = None, **columns: Any) -> Admission:
    id = NotificationId(uuid7(1_700_000_000_000 + number, number))
    row = {
        "id": id,
        "organization_id": ACME,
        "channel": "email",
        "attempts_max": 8,
        "created_at": NOW,
        "expires_at": None,
        "user_id": None,
        "recipient": f"person{number}@example.org",
        "payload": {"subject": f"number {number}", "text": "…"},
        "template_id": None,
        "locale": None,
        "idempotency_key": key,
        "request_hash": b"h".hex(),
        "event_id": event_id,
        "topic": "tickets",
        **columns,
    }
    return Admission(ACME, id, key, b"h", row, is_planned=True)


def event(
    id: str, admissions: Sequence[Admission] = (), digests: Sequence[DigestEntry] = (), request_hash: bytes = b"one", **more: Any
) -> EventAdmission:
    def answer(inserted: Inserted) -> bytes:
        return b'{"kept":%d}' % sum(a.id not in inserted.suppressed for a in admissions)

    organization_id = more.get("organization_id", ACME)
    data = more.get("data", {"n": 1})
    return EventAdmission(organization_id, id, "a.b", request_hash, None, NOW, admissions, digests, data, answer)


async def test_an_event_is_taken_in_with_all_that_comes_of_it(world: World, store: Store) -> None:
    first, second = admission(1, "e-1"), admission(2, "e-1", status="scheduled", send_at=NOW + 60)
    inserted = await store.insert((), (), [event("e-1", [first, second])])

    assert inserted.events == {}
    assert world.planned() == [(first.id, "queued", "e-1", "tickets"), (second.id, "scheduled", "e-1", "tickets")]
    assert (await store.known_events(ACME, ["e-1", "e-2"])) == {"e-1": (b"one", b'{"kept":2}')}


async def test_of_an_event_that_was_there_already_nothing_is_inserted(world: World, store: Store) -> None:
    first = admission(1, "e-1")
    await store.insert((), (), [event("e-1", [first])])
    third = admission(3, "e-2")
    inserted = await store.insert((), (), [event("e-1", [admission(2, "e-1")], request_hash=b"two"), event("e-2", [third])])

    assert inserted.events == {(ACME, "e-1"): (b"one", b'{"kept":1}')}
    assert [id for id, *_ in world.planned()] == [first.id, third.id]


async def test_two_processes_that_hear_of_one_event_at_once_make_no_doubles(world: World) -> None:
    answers: list[Inserted] = []

    async def take_in(incarnation: str, number: int) -> None:
        events = [event(f"e-{n}", [admission(1000 * number + n, f"e-{n}")]) for n in range(50)]
        answers.append(await world.store(incarnation).insert((), (), events if number else events[::-1]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_in, OURS, 0)
        nursery.start_soon(take_in, THEIRS, 1)

    assert sorted(row[2] or "" for row in world.planned()) == sorted(f"e-{n}" for n in range(50))
    assert sum(len(inserted.events) for inserted in answers) == 50


async def test_organizations_do_not_share_events(world: World, store: Store) -> None:
    await store.insert((), (), [event("e-1")])
    inserted = await store.insert((), (), [event("e-1", organization_id=OTHER)])

    assert inserted.events == {}
    assert await store.known_events(OTHER, ["e-1"]) == {"e-1": (b"one", b'{"kept":0}')}


async def test_the_answer_that_is_kept_tells_what_was_left_out(world: World, store: Store) -> None:
    world.suppress("person1@example.org")
    inserted = await store.insert((), (), [event("e-1", [admission(1, "e-1"), admission(2, "e-1")]), event("e-2")])

    assert list(inserted.suppressed) == [admission(1, "e-1").id]
    assert await store.known_events(ACME, ["e-1", "e-2"]) == {"e-1": (b"one", b'{"kept":1}'), "e-2": (b"one", b'{"kept":0}')}


async def test_events_of_one_digest_wait_together_until_it_is_due(world: World, store: Store) -> None:
    def entry(number: int, user_id: str, due_s: float) -> DigestEntry:
        return DigestEntry(uuid7(1_700_000_000_000, number), "weekly", user_id, Channel.EMAIL, "", NOW + due_s)

    one, two = entry(1, "ana", 60), entry(2, "ana", 90)
    await store.insert((), (), [event("e-1", digests=[one, entry(3, "ben", 60)]), event("e-2", digests=[two], data={"n": 2})])
    await store.insert((), (), [event("e-3", digests=[entry(4, "ana", 120)], data={"n": 3})])
    await store.insert((), (), [event("e-3", digests=[entry(5, "eva", 120)], data={"n": 3})])

    assert world.digests() == [
        ("acme", "ana", NOW + 60, [("e-1", {"n": 1}), ("e-2", {"n": 2}), ("e-3", {"n": 3})]),
        ("acme", "ben", NOW + 60, [("e-1", {"n": 1})]),
    ]


async def test_an_event_that_can_not_be_stored_is_refused_with_all_that_comes_of_it(world: World, store: Store) -> None:
    with pytest.raises(StoreRefused):
        await store.insert((), (), [event("e-1", [admission(1, "e-1"), admission(2, "e-1", payload={"text": "a\x00b"})])])

    assert world.planned() == []
    assert await store.known_events(ACME, ["e-1"]) == {}


async def test_the_walk_over_queued_rows_tells_those_of_the_bulk_lane(store: Store) -> None:
    plain, bulk = admission(1, "e-1"), admission(2, "e-1", bulk=True)
    await store.insert((), (), [event("e-1", [plain, bulk])])
    page = await store.queued(None, 0, 10)

    assert {row[1] for row in page.rows} == {plain.id, bulk.id}
    assert page.bulk == {bulk.id}


async def test_what_is_taken_back_is_told_with_its_lane(store: Store) -> None:
    plain, bulk = admission(1, "e-1"), admission(2, "e-1", bulk=True)
    await store.insert((), (), [event("e-1", [plain, bulk])])
    await store.register(60.0)
    await store.gate([plain.id, bulk.id], frozenset(), again=False)

    assert {row.id: row.bulk for row in await store.disown(ACME)} == {plain.id: False, bulk.id: True}
