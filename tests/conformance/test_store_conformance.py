"""The store port: one behaviour, in memory and on Postgres.

Time passes by moving what is stored towards the past, because a real server's clock can not be moved: no test here waits.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from random import Random
from typing import Any, Protocol

import psycopg
import pytest
import trio
from attrs import evolve, frozen

from actors.io.postgres import Pool, open_pool
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase
from actors.ports import RESCUES_MAX, Admission, BatchAnswer, Existing, Holding, Rescued, Store
from actors.store.dispatching import PostgresStore
from dispatcher.audience import audience_of
from dispatcher.backoff import RESCUE_FIRST_S, RESCUE_LATER_S, rescue_delay_s
from dispatcher.errors import KeyTaken, StoreRefused
from dispatcher.ids import uuid7
from dispatcher.messages import Gated, ProviderPolicy, Verdict
from dispatcher.model import Channel, DeadLetterReason, Delivery, NotificationId, OrganizationId, Status
from dispatcher.outcome import Outcome, OutcomeClass

ACME = OrganizationId("acme")
OTHER = OrganizationId("other")
EMAIL, SMS = Channel.EMAIL, Channel.SMS
OURS = "0198c000-0000-7000-8000-00000000000a"
THEIRS = "0198c000-0000-7000-8000-00000000000b"
CONFIG = "0198c000-0000-7000-8000-0000000000c1"
LEASE_S = 1000.0
VIA = ProviderPolicy(CONFIG, 1, "sendgrid", EMAIL, None, 1, 8)
OPEN: frozenset[tuple[OrganizationId, Channel]] = frozenset()


@frozen
class Stored:
    """What a test looks at of one row. ``due_in_s`` is rounded to whole seconds."""

    status: str
    attempts: int
    attempts_max: int
    unknowns: int
    rescues: int
    claimed_by: str | None
    due_in_s: int | None
    reason: str | None
    provider: str | None
    provider_config_id: str | None
    provider_message_id: str | None


class World(Protocol):
    """One database, and what a test may do to it and see of it."""

    now_s: float

    def store(self, incarnation: str) -> Store:
        """The access of one incarnation."""

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""

    def stored(self, id: NotificationId) -> Stored | None:
        """One row."""

    def timeline(self, id: NotificationId) -> list[tuple[int, str, str]]:
        """Attempt, outcome and code of every entry, oldest first."""

    def dead_letter(self, id: NotificationId) -> tuple[str, str] | None:
        """Reason and code."""

    def batch_answer(self, key: str) -> tuple[bytes, bytes] | None:
        """Request hash and answer."""


class MemoryWorld:
    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0
        self.database = MemoryDatabase(lambda: self.now_s)

    def store(self, incarnation: str) -> Store:
        return MemoryStore(self.database, incarnation)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    def stored(self, id: NotificationId) -> Stored | None:
        row = self.database.rows.get(id)
        if row is None:
            return None
        return Stored(
            row.status.value,
            row.attempts,
            row.attempts_max,
            row.unknowns,
            row.rescues,
            row.claimed_by,
            None if row.next_retry_at_s is None else round(row.next_retry_at_s - self.now_s),
            row.reason,
            row.provider,
            row.provider_config_id,
            row.provider_message_id,
        )

    def timeline(self, id: NotificationId) -> list[tuple[int, str, str]]:
        return [(row.attempt, row.outcome, row.code) for row in self.database.timeline if row.notification_id == id]

    def dead_letter(self, id: NotificationId) -> tuple[str, str] | None:
        letter = self.database.dead_letters.get(id)
        return None if letter is None else (letter.reason.value, letter.code)

    def batch_answer(self, key: str) -> tuple[bytes, bytes] | None:
        return self.database.batch_answers.get((ACME, key))


class PostgresWorld:
    def __init__(self, pool: Pool, connection: psycopg.Connection[Any]) -> None:
        self.now_s = time.time()
        self._pool = pool
        self._connection = connection
        connection.execute("INSERT INTO organizations (id, name) VALUES ('acme', 'Acme'), ('other', 'Other')")

    def store(self, incarnation: str) -> Store:
        return PostgresStore(self._pool, incarnation)

    def pass_time(self, seconds: float) -> None:
        for table, column in (
            ("notifications", "created_at"),
            ("notifications", "updated_at"),
            ("notifications", "next_retry_at"),
            ("notifications", "expires_at"),
            ("notifications", "unknown_since"),
            ("notifications", "unknown_last"),
            ("incarnations", "lease_until"),
            ("incarnations", "beats_until"),
            ("shards", "lease_until"),
            ("attempts", "at"),
        ):
            self._connection.execute(f"UPDATE {table} SET {column} = {column} - make_interval(secs => %s)", (seconds,))

    def stored(self, id: NotificationId) -> Stored | None:
        row = self._connection.execute(
            """SELECT status, attempts, attempts_max, unknowns, rescues, claimed_by::text,
                      round(extract(epoch FROM next_retry_at - now()))::int, reason,
                      provider, provider_config_id::text, provider_message_id
               FROM notifications WHERE id = %s""",
            (id,),
        ).fetchone()
        return None if row is None else Stored(*row)

    def timeline(self, id: NotificationId) -> list[tuple[int, str, str]]:
        rows = self._connection.execute(
            "SELECT attempt, outcome, code FROM attempts WHERE notification_id = %s ORDER BY at", (id,)
        )
        return rows.fetchall()

    def dead_letter(self, id: NotificationId) -> tuple[str, str] | None:
        return self._connection.execute("SELECT reason, code FROM dead_letters WHERE notification_id = %s", (id,)).fetchone()

    def batch_answer(self, key: str) -> tuple[bytes, bytes] | None:
        row = self._connection.execute(
            "SELECT request_hash, answer FROM batch_answers WHERE organization_id = 'acme' AND idempotency_key = %s", (key,)
        ).fetchone()
        return None if row is None else (bytes(row[0]), row[1].encode())


@asynccontextmanager
async def memory_world() -> AsyncIterator[World]:
    yield MemoryWorld()


@asynccontextmanager
async def postgres_world(url: str) -> AsyncIterator[World]:
    with psycopg.connect(url, autocommit=True) as connection:
        async with open_pool(url, size_max=4, connect_deadline_s=30, statement_deadline_s=30, random=Random(1)) as pool:
            yield PostgresWorld(pool, connection)


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
async def store(world: World) -> Store:
    """The store of an incarnation that holds its lease."""
    store = world.store(OURS)
    await store.register(LEASE_S)
    return store


def admission(
    world: World,
    number: int,
    *,
    organization_id: OrganizationId = ACME,
    channel: Channel = EMAIL,
    key: str | None = None,
    request_hash: bytes = b"h",
    attempts_max: int = 8,
    expires_in_s: float | None = None,
    payload: Mapping[str, Any] | None = None,
    recipient: str | None = None,
) -> Admission:
    id = NotificationId(uuid7(1_700_000_000_000 + number, number))
    row = {
        "id": id,
        "organization_id": organization_id,
        "channel": channel.value,
        "attempts_max": attempts_max,
        "created_at": world.now_s,
        "expires_at": None if expires_in_s is None else world.now_s + expires_in_s,
        "user_id": None,
        "recipient": recipient or f"person{number}@example.org",
        "payload": {"subject": f"number {number}", "text": "…"} if payload is None else payload,
        "template_id": None,
        "locale": None,
        "idempotency_key": key,
        "request_hash": request_hash.hex(),
    }
    return Admission(organization_id, id, key, request_hash, row)


async def inserted(world: World, store: Store, n: int = 1, first: int = 0, **details: Any) -> list[NotificationId]:
    admissions = [admission(world, first + number, **details) for number in range(n)]
    await store.insert(admissions, ())
    return [a.id for a in admissions]


async def gated(
    store: Store,
    ids: Sequence[NotificationId],
    organization_id: OrganizationId = ACME,
    closed: frozenset[tuple[OrganizationId, Channel]] = OPEN,
    *,
    again: bool = False,
) -> Gated:
    """The gate's answer for one organization, each list in the order of the ids."""
    gated = (await store.gate(ids, closed, again=again)).get(organization_id, Gated(()))
    return Gated(
        sorted(gated.deliveries, key=lambda delivery: delivery.id),
        sorted(gated.parked, key=lambda pair: pair[1]),
        sorted(gated.deferred),
        sorted(gated.dropped),
        sorted(gated.elsewhere),
    )


async def attempt(world: World, store: Store, **details: Any) -> Delivery:
    """One notification that has passed the gate."""
    (delivery,) = (await gated(store, await inserted(world, store, **details))).deliveries
    return delivery


def verdict(delivery: Delivery, kind: OutcomeClass, status: Status, code: str = "http_503", **details: Any) -> Verdict:
    return Verdict(delivery, Outcome(kind, code), VIA, status, **details)


def delivered(delivery: Delivery, message_id: str | None = "m-1") -> Verdict:
    return Verdict(delivery, Outcome(OutcomeClass.DELIVERED, "accepted", message_id), VIA, Status.DELIVERED)


def again_in(delivery: Delivery, retry_in_s: float, **details: Any) -> Verdict:
    return verdict(delivery, OutcomeClass.SOFT, Status.QUEUED, retry_in_s=retry_in_s, **details)


def failed(delivery: Delivery, reason: DeadLetterReason = DeadLetterReason.HARD) -> Verdict:
    return verdict(delivery, OutcomeClass.HARD, Status.FAILED, "http_400", dead=reason)


def status_of(world: World, id: NotificationId) -> tuple[str, int]:
    stored = world.stored(id)
    assert stored is not None
    return stored.status, stored.attempts


# --- insert -------------------------------------------------------------------------------------------------------------


async def test_a_new_notification_is_queued_and_untried(world: World, store: Store) -> None:
    (id,) = await inserted(world, store)

    assert world.stored(id) == Stored("queued", 0, 8, 0, 0, None, None, None, None, None, None)


async def test_a_delivery_is_what_was_inserted(world: World, store: Store) -> None:
    delivery = await attempt(world, store, expires_in_s=60.0, payload={"subject": "ü", "data": {"n": [1, None, 2.5]}})

    assert delivery.payload == {"subject": "ü", "data": {"n": [1, None, 2.5]}}
    assert (delivery.organization_id, delivery.channel, delivery.recipient) == (ACME, EMAIL, "person0@example.org")
    assert (delivery.attempt, delivery.attempts_max) == (1, 8)
    assert delivery.created_at_s == pytest.approx(world.now_s, abs=1e-5)
    assert delivery.expires_at_s == pytest.approx(world.now_s + 60.0, abs=1e-5)


async def test_nothing_exists_when_all_rows_were_new(world: World, store: Store) -> None:
    assert await store.insert([admission(world, 1, key="k"), admission(world, 2)], ()) == {}
    assert await store.insert([], ()) == {}


async def test_a_row_whose_key_is_taken_is_left_out_and_the_answer_says_by_what(world: World, store: Store) -> None:
    first = admission(world, 1, key="k", request_hash=b"one")
    await store.insert([first], ())
    second, third = admission(world, 2, key="k", request_hash=b"two"), admission(world, 3, key="l")
    existing = await store.insert([second, third, admission(world, 4)], ())

    assert {key: (found.id, found.request_hash) for key, found in existing.items()} == {
        (ACME, "k"): (first.id, b"one"),
        (ACME, "l"): (third.id, b"h"),
    }
    assert existing[ACME, "k"].created_at_unix_s == pytest.approx(world.now_s, abs=1e-5)
    assert world.stored(second.id) is None
    assert world.stored(third.id) is not None


async def test_of_two_rows_with_one_key_in_one_batch_the_first_is_inserted(world: World, store: Store) -> None:
    admissions = [admission(world, number, key="k", request_hash=bytes([number])) for number in (5, 4, 3)]
    existing = await store.insert(admissions, ())

    assert existing[ACME, "k"].id == admissions[0].id
    assert [world.stored(a.id) is None for a in admissions] == [False, True, True]


async def test_organizations_do_not_share_keys(world: World, store: Store) -> None:
    assert await store.insert([admission(world, 1, key="k"), admission(world, 2, key="k", organization_id=OTHER)], ()) == {}


async def test_an_insert_whose_answer_was_lost_may_be_repeated(world: World, store: Store) -> None:
    admissions = [admission(world, 1, key="k"), admission(world, 2)]
    await store.insert(admissions, ())
    existing = await store.insert(admissions, ())

    assert {key: found.id for key, found in existing.items()} == {(ACME, "k"): admissions[0].id}


@pytest.mark.parametrize(
    "bad", [{"payload": {"text": "a\x00b"}}, {"attempts_max": 40_000}], ids=["a character that can not be stored", "too large"]
)
async def test_a_batch_with_a_row_that_can_not_be_stored_is_refused_as_a_whole(
    world: World, store: Store, bad: Mapping[str, Any]
) -> None:
    good = admission(world, 1)
    with pytest.raises(StoreRefused) as refusal:
        await store.insert([good, admission(world, 2, **bad)], ())

    assert world.stored(good.id) is None
    assert "a\x00b" not in str(refusal.value)
    assert "person" not in str(refusal.value)


async def test_thousands_of_rows_are_inserted_as_one_batch_or_not_at_all(world: World, store: Store) -> None:
    taken = admission(world, 1, key="k0100")
    await store.insert([taken], ())
    many = [admission(world, 10 + number, key=f"k{number:04d}") for number in range(2_300)]
    with pytest.raises(StoreRefused):
        await store.insert([*many, admission(world, 5_000, key="last", attempts_max=40_000)], ())
    before = world.stored(many[0].id)
    existing = await store.insert(many, ())

    assert before is None
    assert existing[ACME, "k0100"].id == taken.id
    assert sum(world.stored(a.id) is None for a in many) == 1


async def test_it_is_known_what_keys_stand_for(world: World, store: Store) -> None:
    first, foreign = admission(world, 1, key="k", request_hash=b"one"), admission(world, 2, key="l", organization_id=OTHER)
    await store.insert([first, foreign], ())
    known = await store.known(ACME, ["new", "k", "l", "k"])

    assert {key: (found.id, found.request_hash) for key, found in known.items()} == {"k": (first.id, b"one")}
    assert known["k"].created_at_unix_s == pytest.approx(world.now_s, abs=1e-5)
    assert await store.known(ACME, []) == {}


async def test_the_answer_to_a_batch_is_kept_with_its_rows(world: World, store: Store) -> None:
    taken, new = admission(world, 1, key="k"), admission(world, 2, key="k")
    await store.insert([taken], ())
    seen: list[Mapping[tuple[OrganizationId, str], Existing]] = []

    def answer(existing: Mapping[tuple[OrganizationId, str], Existing]) -> bytes:
        seen.append(existing)
        return b'{"n":1}'

    existing = await store.insert([new], [BatchAnswer(ACME, "batch", b"hash", answer)])

    assert world.batch_answer("batch") == (b"hash", b'{"n":1}')
    assert seen == [existing]
    assert existing[ACME, "k"].id == taken.id


async def test_the_first_answer_to_a_batch_stays(world: World, store: Store) -> None:
    await store.insert([], [BatchAnswer(ACME, "batch", b"one", lambda _: b"1")])
    late = admission(world, 1)
    with pytest.raises(KeyTaken):
        await store.insert([late], [BatchAnswer(ACME, "batch", b"two", lambda _: b"2")])

    assert world.batch_answer("batch") == (b"one", b"1")
    assert world.stored(late.id) is None


async def test_an_answer_that_can_not_be_made_keeps_its_rows_out_too(world: World, store: Store) -> None:
    new = admission(world, 1)

    def no_answer(_: object) -> bytes:
        raise LookupError("no answer")

    with pytest.raises(LookupError):
        await store.insert([new], [BatchAnswer(ACME, "batch", b"hash", no_answer)])

    assert world.stored(new.id) is None
    assert world.batch_answer("batch") is None


async def test_batches_that_share_keys_in_any_order_insert_each_key_once(world: World, store: Store) -> None:
    other = world.store(THEIRS)
    one = [admission(world, number, key=f"k{number:03}") for number in range(200)]
    two = [admission(world, 1000 + number, key=f"k{number:03}") for number in reversed(range(200))]
    for _ in range(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.insert, one, ())
            nursery.start_soon(other.insert, two, ())

    assert sum(world.stored(a.id) is not None for a in one + two) == 200


async def test_batches_that_share_keys_never_wait_for_each_other_in_a_circle(database_url: str) -> None:
    """Both are held up half-way by a third; taken in the order they were handed in, each would then want what the other has."""
    async with postgres_world(database_url) as world:
        store, other = world.store(OURS), world.store(THEIRS)
        with psycopg.connect(database_url) as third, psycopg.connect(database_url, autocommit=True) as watch:
            third.execute(
                "INSERT INTO notifications (id, organization_id, channel, attempts_max, created_at, updated_at, recipient,"
                " payload, idempotency_key)"
                " SELECT gen_random_uuid(), 'acme', 'email', 8, now(), now(), '', '{}', unnest(%s::text[])",
                (["x", "y"],),
            )
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(store.insert, [admission(world, n, key=k) for n, k in enumerate("axb")], ())
                    nursery.start_soon(other.insert, [admission(world, 10 + n, key=k) for n, k in enumerate("bya")], ())
                    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
                    while watch.execute(waiting).fetchone() != (2,):  # noqa: ASYNC110 - Postgres tells nobody who waits
                        await trio.sleep(0.01)
                    third.rollback()
            found = watch.execute("SELECT idempotency_key FROM notifications ORDER BY 1").fetchall()

    assert [key for (key,) in found] == ["a", "b", "x", "y"]


# --- the gate -----------------------------------------------------------------------------------------------------------


async def test_the_gate_records_the_intent_and_counts_the_attempt(world: World, store: Store) -> None:
    delivery = await attempt(world, store)
    stored = world.stored(delivery.id)

    assert stored is not None
    assert (stored.status, stored.attempts, stored.claimed_by) == ("sending", 1, OURS)


async def test_the_gate_lets_each_id_through_once(world: World, store: Store) -> None:
    other = world.store(THEIRS)
    await other.register(LEASE_S)
    ids = await inserted(world, store, 3)
    first = await gated(store, ids[:2])
    second = await gated(store, ids)
    third = await gated(other, ids)

    assert [d.id for d in first.deliveries] == ids[:2]
    assert ([d.id for d in second.deliveries], list(second.elsewhere)) == (ids[2:], ids[:2])
    assert (list(third.deliveries), list(third.elsewhere)) == ([], ids)
    assert [status_of(world, id) for id in ids] == [("sending", 1)] * 3


async def test_two_incarnations_at_once_never_get_the_same_id(world: World, store: Store) -> None:
    other = world.store(THEIRS)
    await other.register(LEASE_S)
    ids = await inserted(world, store, 300)
    passed: list[NotificationId] = []

    async def claim(who: Store, order: Sequence[NotificationId]) -> None:
        passed.extend(d.id for d in (await gated(who, order)).deliveries)

    async with trio.open_nursery() as nursery:
        for part in range(3):
            nursery.start_soon(claim, store, ids[part * 100 :])
            nursery.start_soon(claim, other, ids[: 300 - part * 100])

    assert sorted(passed) == ids


async def test_the_gate_answers_for_all_organizations_apart(world: World, store: Store) -> None:
    mine = await inserted(world, store, 2)
    theirs = await inserted(world, store, 2, first=10, organization_id=OTHER)
    answer = await store.gate(mine + theirs, OPEN, again=False)

    assert {name: sorted(d.id for d in gated.deliveries) for name, gated in answer.items()} == {ACME: mine, OTHER: theirs}


async def test_an_id_that_nobody_knows_is_not_answered_for(store: Store) -> None:
    assert await store.gate([NotificationId(uuid7(1, 1))], OPEN, again=False) == {}


async def test_an_id_that_is_none_is_refused(store: Store) -> None:
    with pytest.raises(StoreRefused):
        await store.gate([NotificationId("not an id")], OPEN, again=False)


async def test_a_closed_channel_parks_its_ids_without_an_attempt(world: World, store: Store) -> None:
    mails = await inserted(world, store, 2)
    texts = await inserted(world, store, 2, first=10, channel=SMS)
    answer = await gated(store, mails + texts, closed=frozenset({(ACME, SMS), (OTHER, EMAIL)}))

    assert [d.id for d in answer.deliveries] == mails
    assert list(answer.parked) == [(SMS, id) for id in texts]
    assert [status_of(world, id) for id in texts] == [("queued", 0)] * 2


async def test_what_is_all_but_due_waits_for_its_closed_channel_like_what_is_due(world: World, store: Store) -> None:
    """Put off for no time at all, it would be offered again at once, and again."""
    delivery = await attempt(world, store)
    await store.record([again_in(delivery, 0.005)], again=False)
    answer = await gated(store, [delivery.id], closed=frozenset({(ACME, EMAIL)}))

    assert list(answer.parked) == [(EMAIL, delivery.id)]


async def test_an_id_that_is_not_due_is_deferred_for_the_rest_of_its_wait(world: World, store: Store) -> None:
    delivery = await attempt(world, store)
    await store.record([again_in(delivery, 500.0)], again=False)
    world.pass_time(200)
    early = [await gated(store, [delivery.id], closed=closed) for closed in (OPEN, frozenset({(ACME, EMAIL)}))]
    world.pass_time(301)
    answer = await gated(store, [delivery.id])

    for gate in early:
        ((id, due_in_s),) = gate.deferred
        assert id == delivery.id
        assert 290 < due_in_s <= 300
        assert not gate.deliveries
    assert [d.attempt for d in answer.deliveries] == [2]


async def test_what_is_finished_is_dropped(world: World, store: Store) -> None:
    one, two = (await gated(store, await inserted(world, store, 2))).deliveries
    await store.record([delivered(one), failed(two)], again=False)

    answer = await gated(store, [one.id, two.id])

    assert (list(answer.dropped), list(answer.elsewhere)) == ([one.id, two.id], [])


async def test_nothing_passes_the_gate_before_the_incarnation_is_registered(world: World) -> None:
    stranger = world.store(OURS)
    ids = await inserted(world, stranger, 1)
    answer = await gated(stranger, ids)

    assert not answer.deliveries
    assert [id for id, _ in answer.deferred] == ids
    assert status_of(world, ids[0]) == ("queued", 0)


async def test_nothing_passes_the_gate_after_the_lease_has_lapsed(world: World, store: Store) -> None:
    ids = await inserted(world, store, 1)
    world.pass_time(LEASE_S + 1)
    answer = await gated(store, ids)

    assert not answer.deliveries
    assert [id for id, due_in_s in answer.deferred if due_in_s > 0] == ids


async def test_a_gate_whose_answer_was_lost_hands_the_same_attempts_out_again(world: World, store: Store) -> None:
    mails = await inserted(world, store, 2)
    texts = await inserted(world, store, 1, first=10, channel=SMS)
    late = await inserted(world, store, 1, first=20)
    closed = frozenset({(ACME, SMS)})
    await gated(store, mails + texts, closed=closed)
    answer = await gated(store, mails + texts + late, closed=closed, again=True)

    assert [(d.id, d.attempt) for d in answer.deliveries] == [(mails[0], 1), (mails[1], 1), (late[0], 1)]
    assert list(answer.parked) == [(SMS, texts[0])]


async def test_a_gate_that_is_repeated_after_the_lease_lapsed_leaves_nothing_behind_that_nobody_sends(
    world: World, store: Store
) -> None:
    ids = await inserted(world, store, 2)
    await gated(store, ids)
    world.pass_time(LEASE_S + 1)
    answer = await gated(store, ids, again=True)

    assert not answer.deliveries
    assert [id for id, _ in answer.deferred] == ids
    assert [status_of(world, id) for id in ids] == [("queued", 0)] * 2


async def test_repeating_the_gate_never_hands_out_what_another_incarnation_holds(world: World, store: Store) -> None:
    other = world.store(THEIRS)
    await other.register(LEASE_S)
    ids = await inserted(world, store, 1)
    await gated(other, ids)
    answer = await gated(store, ids, again=True)

    assert (list(answer.deliveries), list(answer.dropped), list(answer.elsewhere)) == ([], [], ids)


# --- record -------------------------------------------------------------------------------------------------------------


async def test_a_delivery_is_recorded_with_who_made_it(world: World, store: Store) -> None:
    delivery = await attempt(world, store)
    ours = await store.record([delivered(delivery)], again=False)

    assert ours == {delivery.id}
    assert world.stored(delivery.id) == Stored("delivered", 1, 8, 0, 0, None, None, None, "sendgrid", CONFIG, "m-1")
    assert world.timeline(delivery.id) == []
    assert world.dead_letter(delivery.id) is None


async def test_a_delivery_after_a_failure_leaves_no_reason_behind(world: World, store: Store) -> None:
    delivery = await attempt(world, store)
    await store.record([again_in(delivery, 0.0)], again=False)
    (second,) = (await gated(store, [delivery.id])).deliveries
    await store.record([delivered(second, None)], again=False)
    stored = world.stored(delivery.id)

    assert stored is not None
    assert (stored.status, stored.attempts, stored.reason, stored.provider_message_id) == ("delivered", 2, None, None)


async def test_a_soft_failure_waits_for_its_next_attempt_and_stands_in_the_timeline(world: World, store: Store) -> None:
    delivery = await attempt(world, store)
    ours = await store.record([again_in(delivery, 500.0)], again=False)
    stored = world.stored(delivery.id)

    assert ours == {delivery.id}
    assert stored is not None
    assert stored.due_in_s in (499, 500)
    assert evolve(stored, due_in_s=None) == Stored("queued", 1, 8, 0, 0, None, None, "http_503", "sendgrid", CONFIG, None)
    assert world.timeline(delivery.id) == [(1, "soft", "http_503")]


async def test_a_refunded_attempt_is_not_counted(world: World, store: Store) -> None:
    delivery = await attempt(world, store)
    interruption = Verdict(
        delivery, Outcome(OutcomeClass.INTERRUPTED, "interrupted"), None, Status.QUEUED, refund=True, retry_in_s=0.0
    )
    await store.record([interruption], again=False)
    (second,) = (await gated(store, [delivery.id])).deliveries

    assert second.attempt == 1
    assert world.timeline(delivery.id) == []  # what never began is no attempt


async def test_a_possible_double_is_marked(world: World, store: Store) -> None:
    delivery = await attempt(world, store)
    lost = verdict(delivery, OutcomeClass.UNKNOWN, Status.QUEUED, "timeout_read", possible_double=True, retry_in_s=0.0)
    await store.record([lost], again=False)
    stored = world.stored(delivery.id)

    assert stored is not None
    assert stored.unknowns == 1
    assert world.timeline(delivery.id) == [(1, "unknown", "timeout_read")]


def lost_answer(delivery: Delivery) -> Verdict:
    return verdict(delivery, OutcomeClass.UNKNOWN, Status.QUEUED, "timeout_read", possible_double=True, retry_in_s=0.0)


def ages(delivery: Delivery) -> tuple[int, int | None, int | None]:
    """How many attempts are unknown, and for how many seconds the first and the last of them."""
    first, last = delivery.unknown_for_s, delivery.unknown_last_s
    return delivery.unknowns, None if first is None else round(first), None if last is None else round(last)


async def test_a_delivery_without_unknown_attempts_says_so(world: World, store: Store) -> None:
    first = await attempt(world, store)
    await store.record([again_in(first, 0.0)], again=False)
    (second,) = (await gated(store, [first.id])).deliveries

    assert ages(first) == ages(second) == (0, None, None)


async def test_unknown_attempts_are_dated_to_the_gate_of_the_first_and_to_the_end_of_the_last(world: World, store: Store) -> None:
    """No effect is older than the one, so a key is remembered at least so long; none is younger than the other, so records that
    lag behind are waited for long enough.
    """
    first = await attempt(world, store)
    world.pass_time(20)
    await store.record([lost_answer(first)], again=False)
    world.pass_time(100)
    (second,) = (await gated(store, [first.id])).deliveries
    world.pass_time(10)
    await store.record([lost_answer(second)], again=False)
    world.pass_time(50)
    (third,) = (await gated(store, [first.id])).deliveries

    assert ages(second) == (1, 120, 100)
    assert ages(third) == (2, 180, 50)


async def test_what_ends_with_a_known_effect_leaves_what_is_unknown_as_it_is(world: World, store: Store) -> None:
    first = await attempt(world, store)
    await store.record([lost_answer(first)], again=False)
    (second,) = (await gated(store, [first.id])).deliveries
    world.pass_time(100)
    await store.record([again_in(second, 0.0)], again=False)
    (third,) = (await gated(store, [first.id])).deliveries

    assert ages(third) == (1, 100, 100)


async def test_a_rescue_is_dated_to_the_attempt_and_not_to_the_rescue(world: World, store: Store) -> None:
    """Or a key would be relied on that the provider has long forgotten (scenario 6)."""
    first = await attempt(world, store)
    world.pass_time(LEASE_S + 5000)
    await world.store(THEIRS).rescue(10)
    world.pass_time(100)
    await store.register(LEASE_S)
    (second,) = (await gated(store, [first.id])).deliveries
    world.pass_time(LEASE_S + 20)
    await world.store(THEIRS).rescue(10)
    await store.register(LEASE_S)
    world.pass_time(RESCUE_LATER_S)
    (third,) = (await gated(store, [first.id])).deliveries

    assert ages(second) == (1, LEASE_S + 5100, 100)
    assert ages(third) == (2, 2 * LEASE_S + 5120 + RESCUE_LATER_S, RESCUE_LATER_S)


async def test_what_is_disowned_is_dated_to_the_attempt_too(world: World, store: Store) -> None:
    first = await attempt(world, store)
    world.pass_time(30)
    await store.disown(ACME)
    (second,) = (await gated(store, [first.id])).deliveries

    assert ages(second) == (1, 30, 0)


async def test_a_gate_whose_answer_was_lost_marks_nothing_because_nothing_began(world: World, store: Store) -> None:
    ids = await inserted(world, store)
    await gated(store, ids)
    (delivery,) = (await gated(store, ids, again=True)).deliveries

    assert ages(delivery) == (0, None, None)


async def test_what_is_held_for_a_person_is_a_dead_letter_and_no_attempt(world: World, store: Store) -> None:
    delivery = await attempt(world, store)
    held = Verdict(
        delivery,
        Outcome(OutcomeClass.INTERRUPTED, "unknown_held"),
        VIA,
        Status.FAILED,
        refund=True,
        dead=DeadLetterReason.UNKNOWN,
    )

    assert await store.record([held], again=False) == {delivery.id}
    assert await store.record([held], again=True) == {delivery.id}
    assert status_of(world, delivery.id) == ("failed", 0)
    assert world.dead_letter(delivery.id) == ("unknown", "unknown_held")
    assert world.timeline(delivery.id) == []


async def test_a_delivery_that_the_provider_was_found_to_have_says_so_in_the_timeline(world: World, store: Store) -> None:
    first = await attempt(world, store)
    await store.record([lost_answer(first)], again=False)
    (second,) = (await gated(store, [first.id])).deliveries
    outcome = Outcome(OutcomeClass.DELIVERED, "found_at_provider", "m-9")
    found = Verdict(second, outcome, VIA, Status.DELIVERED)

    assert await store.record([found], again=False) == {first.id}
    assert await store.record([found], again=True) == {first.id}
    assert world.stored(first.id) == Stored("delivered", 2, 8, 1, 0, None, None, None, "sendgrid", CONFIG, "m-9")
    assert world.timeline(first.id) == [(1, "unknown", "timeout_read"), (2, "delivered", "found_at_provider")]


@pytest.mark.parametrize("reason", list(DeadLetterReason))
async def test_a_failure_for_good_becomes_a_dead_letter_with_its_reason(
    world: World, store: Store, reason: DeadLetterReason
) -> None:
    delivery = await attempt(world, store)
    await store.record([failed(delivery, reason)], again=False)

    assert world.stored(delivery.id) == Stored("failed", 1, 8, 0, 0, None, None, "http_400", "sendgrid", CONFIG, None)
    assert world.dead_letter(delivery.id) == (reason.value, "http_400")
    assert world.timeline(delivery.id) == [(1, "hard", "http_400")]


async def test_a_verdict_without_a_provider_keeps_the_one_known(world: World, store: Store) -> None:
    delivery = await attempt(world, store)
    await store.record([again_in(delivery, 0.0)], again=False)
    (second,) = (await gated(store, [delivery.id])).deliveries
    expired = Verdict(second, Outcome(OutcomeClass.HARD, "expired"), None, Status.FAILED, dead=DeadLetterReason.EXPIRED)
    await store.record([expired], again=False)
    stored = world.stored(delivery.id)

    assert stored is not None
    assert (stored.provider, stored.provider_config_id) == ("sendgrid", CONFIG)


async def test_verdicts_of_all_kinds_are_recorded_together(world: World, store: Store) -> None:
    one, two, three = (await gated(store, await inserted(world, store, 3))).deliveries
    ours = await store.record([failed(three), delivered(one), again_in(two, 5.0)], again=False)

    assert ours == {one.id, two.id, three.id}
    assert [status_of(world, d.id)[0] for d in (one, two, three)] == ["delivered", "queued", "failed"]


async def test_an_attempt_is_concluded_once(world: World, store: Store) -> None:
    delivery = await attempt(world, store)
    await store.record([delivered(delivery)], again=False)
    ours = await store.record([failed(delivery)], again=False)

    assert ours == set()
    assert status_of(world, delivery.id) == ("delivered", 1)
    assert world.timeline(delivery.id) == []
    assert world.dead_letter(delivery.id) is None


@pytest.mark.parametrize("make", [delivered, failed, lambda delivery: again_in(delivery, 5.0)])
async def test_an_earlier_attempt_can_not_conclude_a_later_one(
    world: World, store: Store, make: Callable[[Delivery], Verdict]
) -> None:
    delivery = await attempt(world, store)
    await store.record([again_in(delivery, 0.0)], again=False)
    await gated(store, [delivery.id])
    ours = await store.record([make(delivery)], again=False)

    assert ours == set()
    assert status_of(world, delivery.id) == ("sending", 2)


@pytest.mark.parametrize("make", [delivered, failed, lambda delivery: again_in(delivery, 5.0)])
async def test_another_incarnation_can_not_conclude_our_attempt(
    world: World, store: Store, make: Callable[[Delivery], Verdict]
) -> None:
    delivery = await attempt(world, store)
    other = world.store(THEIRS)
    await other.register(LEASE_S)

    assert await other.record([make(delivery)], again=False) == set()
    assert await other.record([make(delivery)], again=True) == set()
    assert status_of(world, delivery.id) == ("sending", 1)


@pytest.mark.parametrize("make", [delivered, failed, lambda delivery: again_in(delivery, 5.0)])
async def test_a_record_whose_answer_was_lost_is_ours_and_written_once(
    world: World, store: Store, make: Callable[[Delivery], Verdict]
) -> None:
    delivery = await attempt(world, store)
    await store.record([make(delivery)], again=False)
    before = world.timeline(delivery.id)
    ours = await store.record([make(delivery)], again=True)

    assert ours == {delivery.id}
    assert world.timeline(delivery.id) == before


@pytest.mark.parametrize("make", [delivered, failed, lambda delivery: again_in(delivery, 5.0)])
async def test_repeating_a_record_does_not_claim_what_was_rescued_meanwhile(
    world: World, store: Store, make: Callable[[Delivery], Verdict]
) -> None:
    delivery = await attempt(world, store)
    world.pass_time(LEASE_S + 2)
    await world.store(THEIRS).rescue(10)

    assert await store.record([make(delivery)], again=True) == set()
    assert status_of(world, delivery.id) == ("queued", 1)


async def test_repeating_a_record_writes_what_the_first_try_did_not(world: World, store: Store) -> None:
    one, two = (await gated(store, await inserted(world, store, 2))).deliveries
    await store.record([delivered(one)], again=False)
    ours = await store.record([delivered(one), failed(two)], again=True)

    assert ours == {one.id, two.id}
    assert status_of(world, two.id) == ("failed", 1)


async def test_verdicts_that_can_not_be_stored_are_refused(world: World, store: Store) -> None:
    one, two = (await gated(store, await inserted(world, store, 2))).deliveries
    with pytest.raises(StoreRefused):
        await store.record([delivered(one, "m\x00")], again=False)
    with pytest.raises(StoreRefused):
        await store.record([verdict(two, OutcomeClass.SOFT, Status.QUEUED, "a\x00", retry_in_s=1.0)], again=False)

    assert [status_of(world, d.id) for d in (one, two)] == [("sending", 1)] * 2


async def test_nothing_to_record_is_nothing(store: Store) -> None:
    assert await store.record([], again=False) == set()
    assert await store.record([], again=True) == set()
    assert await store.gate([], OPEN, again=False) == {}


# --- leases and rescue --------------------------------------------------------------------------------------------------


async def test_a_lease_is_renewed_while_it_holds(world: World, store: Store) -> None:
    for _ in range(3):
        world.pass_time(LEASE_S - 100)
        assert await store.renew_lease(LEASE_S)


async def test_a_lapsed_lease_can_not_be_renewed_but_taken_anew(world: World, store: Store) -> None:
    world.pass_time(LEASE_S + 1)
    renewed = await store.renew_lease(LEASE_S)
    await store.register(LEASE_S)

    assert not renewed
    assert await store.renew_lease(LEASE_S)


async def test_a_lease_that_was_never_taken_can_not_be_renewed(world: World) -> None:
    assert not await world.store(THEIRS).renew_lease(LEASE_S)


async def test_what_has_outlived_itself_in_the_queue_is_given_up_once(world: World, store: Store) -> None:
    late, later, never = (admission(world, n, expires_in_s=s) for n, s in ((1, 5.0), (2, 50.0), (3, None)))
    await store.insert([late, later, never], ())
    world.pass_time(10.0)
    expired = await store.expire(10)

    assert [(one.organization_id, one.id, one.channel) for one in expired] == [(ACME, late.id, EMAIL)]
    assert await store.expire(10) == []
    row = world.stored(late.id)
    assert row is not None
    assert (row.status, row.reason, world.dead_letter(late.id)) == ("failed", "expired", ("expired", "expired"))
    assert (await gated(store, [late.id, later.id, never.id])).dropped == [late.id]


async def test_what_is_being_sent_does_not_expire_under_whoever_sends_it(world: World, store: Store) -> None:
    delivery = await attempt(world, store, expires_in_s=5.0)
    world.pass_time(10.0)

    assert await store.expire(10) == []
    assert world.stored(delivery.id).status == "sending"  # type: ignore[union-attr]


async def test_nothing_is_rescued_from_an_incarnation_that_lives(world: World, store: Store) -> None:
    delivery = await attempt(world, store)
    world.pass_time(LEASE_S - 100)

    assert await world.store(THEIRS).rescue(10) == []
    assert status_of(world, delivery.id) == ("sending", 1)


async def test_attempts_of_a_lapsed_incarnation_are_taken_back_as_unknown(world: World, store: Store) -> None:
    delivery = await attempt(world, store)
    (waiting,) = await inserted(world, store, first=10)
    world.pass_time(LEASE_S + 2)
    rescued = await world.store(THEIRS).rescue(10)

    (one,) = rescued
    assert one == Rescued(ACME, delivery.id, EMAIL, dead=False, due_in_s=one.due_in_s)
    stored = world.stored(delivery.id)
    assert stored is not None
    assert stored.due_in_s == pytest.approx(one.due_in_s, abs=2.0)
    assert evolve(stored, due_in_s=None) == Stored("queued", 1, 9, 1, 1, None, None, "process_lost", None, None, None)
    assert world.timeline(delivery.id) == [(1, "unknown", "process_lost")]
    assert status_of(world, waiting) == ("queued", 0)


async def test_a_rescued_attempt_can_no_longer_be_concluded_by_who_lost_it(world: World, store: Store) -> None:
    delivery = await attempt(world, store)
    world.pass_time(LEASE_S + 2)
    await world.store(THEIRS).rescue(10)
    await store.register(LEASE_S)

    assert await store.record([delivered(delivery)], again=False) == set()
    assert status_of(world, delivery.id) == ("queued", 1)


async def test_what_was_not_rescued_in_time_is_still_ours_after_taking_the_lease_anew(world: World, store: Store) -> None:
    delivery = await attempt(world, store)
    world.pass_time(LEASE_S + 2)
    await store.register(LEASE_S)

    assert await world.store(THEIRS).rescue(10) == []
    assert await store.record([delivered(delivery)], again=False) == {delivery.id}


async def test_a_released_lease_lets_others_rescue_at_once(world: World, store: Store) -> None:
    delivery = await attempt(world, store)
    await store.release_lease()

    assert [row.id for row in await world.store(THEIRS).rescue(10)] == [delivery.id]


async def test_a_rescue_takes_the_oldest_first_and_no_more_than_it_was_allowed(world: World, store: Store) -> None:
    ids = await inserted(world, store, 5)
    await gated(store, ids)
    await store.release_lease()
    other = world.store(THEIRS)
    first = await other.rescue(2)
    second = await other.rescue(10)

    assert sorted(row.id for row in first) == ids[:2]
    assert sorted(row.id for row in second) == ids[2:]
    assert await other.rescue(10) == []


async def test_a_rescue_costs_no_attempt(world: World, store: Store) -> None:
    delivery = await attempt(world, store, attempts_max=1)
    await store.release_lease()
    await world.store(THEIRS).rescue(10)
    await store.register(LEASE_S)
    world.pass_time(RESCUE_FIRST_S)
    (second,) = (await gated(store, [delivery.id])).deliveries

    assert (second.attempt, second.attempts_max) == (2, 2)


@pytest.mark.parametrize(
    ("how", "first_s", "later_s"),
    [("rescued", RESCUE_FIRST_S, RESCUE_LATER_S), ("disowned", 0.0, RESCUE_FIRST_S)],
)
async def test_what_was_lost_together_becomes_due_spread_over_time_and_over_more_when_it_is_lost_again(
    world: World, store: Store, how: str, first_s: float, later_s: float
) -> None:
    """One of them may be what killed the process (scenario 20). Both stores draw the same delays."""
    ids = await inserted(world, store, 20)
    found: list[list[float]] = []
    for _ in range(2):
        assert sorted(d.id for d in (await gated(store, ids)).deliveries) == ids
        if how == "rescued":
            await store.release_lease()
            rescued = sorted(await world.store(THEIRS).rescue(100))
            await store.register(LEASE_S)
        else:
            rescued = sorted(await store.disown(ACME))
        found.append([row.due_in_s for row in rescued])
        stored = [world.stored(row.id) for row in rescued]
        assert [row.due_in_s for row in stored if row] == pytest.approx(found[-1], abs=2.0)
        world.pass_time(RESCUE_LATER_S)
    first, later = ([rescue_delay_s(id, n, None, survived=how == "disowned") for id in ids] for n in (0, 1))

    assert found == [pytest.approx(first, abs=1e-4), pytest.approx(later, abs=1e-4)]
    assert all(0.0 <= delay_s <= first_s for delay_s in first)
    assert max(first) >= 0.8 * first_s
    assert max(later) - min(later) >= 0.8 * later_s


async def test_until_it_is_due_what_was_rescued_does_not_pass_the_gate(world: World, store: Store) -> None:
    delivery = await attempt(world, store)
    await store.release_lease()
    (rescued,) = await world.store(THEIRS).rescue(10)
    await store.register(LEASE_S)
    early = await gated(store, [delivery.id])

    ((id, due_in_s),) = early.deferred
    assert id == delivery.id
    assert due_in_s == pytest.approx(rescued.due_in_s, abs=1.0)
    world.pass_time(rescued.due_in_s)
    assert [d.id for d in (await gated(store, [delivery.id])).deliveries] == [delivery.id]


@pytest.mark.parametrize("left_s", [4.0, -1.0])
async def test_the_spread_leaves_time_before_a_notification_expires(world: World, store: Store, left_s: float) -> None:
    ids = await inserted(world, store, 20, expires_in_s=LEASE_S + 2.0 + left_s)
    await gated(store, ids)
    world.pass_time(LEASE_S + 2.0)
    rescued = await world.store(THEIRS).rescue(100)

    assert len(rescued) == 20
    assert max(row.due_in_s for row in rescued) <= max(0.0, left_s) / 2


async def test_an_attempt_that_keeps_dying_with_its_process_is_poison(world: World, store: Store) -> None:
    (id,) = await inserted(world, store)
    other = world.store(THEIRS)
    rescued: list[Rescued] = []
    for _ in range(RESCUES_MAX + 1):
        await store.register(LEASE_S)
        world.pass_time(RESCUE_LATER_S)
        await gated(store, [id])
        await store.release_lease()
        rescued.extend(await other.rescue(10))

    assert [row.dead for row in rescued] == [False] * RESCUES_MAX + [True]
    assert status_of(world, id) == ("failed", RESCUES_MAX + 1)
    assert world.dead_letter(id) == ("poison", "process_lost")
    assert await other.rescue(10) == []


async def test_two_incarnations_rescue_each_attempt_once(world: World, store: Store) -> None:
    ids = await inserted(world, store, 200)
    await gated(store, ids)
    await store.release_lease()
    rescued: list[NotificationId] = []

    async def rescue(who: Store) -> None:
        rescued.extend(row.id for row in await who.rescue(1000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(rescue, world.store(THEIRS))
        nursery.start_soon(rescue, world.store("0198c000-0000-7000-8000-00000000000c"))

    assert sorted(rescued) == ids


async def test_disowning_takes_back_what_this_incarnation_holds_of_one_organization(world: World, store: Store) -> None:
    other = world.store(THEIRS)
    await other.register(LEASE_S)
    mine = await inserted(world, store, 2)
    foreign = await inserted(world, store, 1, first=10, organization_id=OTHER)
    elsewhere = await inserted(world, store, 1, first=20)
    await store.gate(mine + foreign, OPEN, again=False)
    await gated(other, elsewhere)
    disowned = await store.disown(ACME)

    assert sorted(disowned) == [Rescued(ACME, id, EMAIL, dead=False) for id in mine]
    assert [status_of(world, id)[0] for id in mine + foreign + elsewhere] == ["queued", "queued", "sending", "sending"]
    assert await store.disown(ACME) == []


async def test_what_never_began_is_handed_back_as_if_it_had_never_been_tried(world: World, store: Store) -> None:
    ids = await inserted(world, store, 3)
    await gated(store, ids)
    back = await store.hand_back(ACME, dict.fromkeys(ids[:2], 1))

    assert sorted(back) == ids[:2]
    assert [world.stored(id) for id in ids[:2]] == [Stored("queued", 0, 8, 0, 0, None, None, None, None, None, None)] * 2
    assert world.timeline(ids[0]) == []
    assert [row.id for row in await store.disown(ACME)] == ids[2:]
    assert [d.attempt for d in (await gated(store, ids)).deliveries] == [1, 1, 2]


async def test_repeating_a_handing_back_names_the_same_ids_and_does_no_more(world: World, store: Store) -> None:
    ids = await inserted(world, store, 2)
    await gated(store, ids)
    await store.hand_back(ACME, dict.fromkeys(ids, 1))

    assert sorted(await store.hand_back(ACME, dict.fromkeys(ids, 1))) == ids
    assert [status_of(world, id) for id in ids] == [("queued", 0)] * 2


async def test_only_that_very_attempt_of_ours_is_handed_back(world: World, store: Store) -> None:
    other = world.store(THEIRS)
    await other.register(LEASE_S)
    later = await attempt(world, store)
    await store.record([again_in(later, 0.0)], again=False)
    (later,) = (await gated(store, [later.id])).deliveries
    (theirs,) = await inserted(world, store, first=10)
    await gated(other, [theirs])
    (foreign,) = await inserted(world, store, first=20, organization_id=OTHER)
    await store.gate([foreign], OPEN, again=False)
    ended = await attempt(world, store, first=30)
    await store.record([delivered(ended)], again=False)
    claimed = {later.id: 1, theirs: 1, foreign: 1, ended.id: 1, NotificationId(uuid7(1, 1)): 1}

    assert await store.hand_back(ACME, claimed) == []
    assert [status_of(world, id) for id in (later.id, theirs, foreign, ended.id)] == [
        ("sending", 2),
        ("sending", 1),
        ("sending", 1),
        ("delivered", 1),
    ]


async def test_what_has_been_sending_for_long_under_a_living_incarnation_can_be_found_and_taken_back(
    world: World, store: Store
) -> None:
    other = world.store(THEIRS)
    await other.register(LEASE_S)
    stray, held, ended = await inserted(world, store, 3)
    (foreign,) = await inserted(world, store, first=10)
    await gated(other, [foreign])
    await gated(store, [stray, held])
    (delivery,) = (await gated(store, [ended])).deliveries
    await store.record([delivered(delivery)], again=False)
    world.pass_time(50.0)
    (young,) = await inserted(world, store, first=20)
    await gated(store, [young])

    assert sorted(await store.sending(40.0, 10)) == [(ACME, stray), (ACME, held)]
    assert len(await store.sending(40.0, 1)) == 1
    assert await store.reclaim([stray, young, foreign, ended], 40.0) == [Rescued(ACME, stray, EMAIL, dead=False)]
    assert status_of(world, stray) == ("queued", 1)
    assert world.timeline(stray) == [(1, "unknown", "process_lost")]
    assert [status_of(world, id)[0] for id in (held, young, foreign, ended)] == ["sending", "sending", "sending", "delivered"]


async def test_what_was_gated_anew_since_it_was_looked_for_is_not_taken_back(world: World, store: Store) -> None:
    delivery = await attempt(world, store)
    world.pass_time(50.0)
    ((_, id),) = await store.sending(40.0, 10)
    await gated(store, [delivery.id], again=True)

    assert await store.reclaim([id], 40.0) == []
    assert status_of(world, delivery.id) == ("sending", 1)


# --- the walk over queued rows ------------------------------------------------------------------------------------------


async def walk(store: Store, older_than_s: float, limit: int) -> list[tuple[OrganizationId, NotificationId, float]]:
    rows: list[tuple[OrganizationId, NotificationId, float]] = []
    after = None
    while True:
        page = await store.queued(after, older_than_s, limit)
        assert len(page.rows) <= limit
        rows.extend(page.rows)
        after = page.after
        if after is None:
            return rows


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_a_walk_meets_every_queued_row_once_in_the_order_of_its_last_change(world: World, store: Store, limit: int) -> None:
    late = await inserted(world, store, 2)
    world.pass_time(10)
    early = await inserted(world, store, 3, first=10, organization_id=OTHER)
    (touched,) = (await gated(store, late[:1])).deliveries
    world.pass_time(10)
    await store.record([again_in(touched, 0.0)], again=False)

    assert await walk(store, 0.0, limit) == [(ACME, late[1], 0.0), *((OTHER, id, 0.0) for id in early), (ACME, late[0], 0.0)]


async def test_a_walk_leaves_out_what_is_not_queued(world: World, store: Store) -> None:
    one, two, _ = (await gated(store, await inserted(world, store, 3))).deliveries
    await store.record([delivered(one), failed(two)], again=False)

    assert await walk(store, 0.0, 10) == []


async def test_a_walk_over_old_rows_leaves_out_what_changed_lately_or_is_not_long_due(world: World, store: Store) -> None:
    old = await inserted(world, store, 1)
    soon, later = (await gated(store, await inserted(world, store, 2, first=10))).deliveries
    await store.record([again_in(soon, 50.0), again_in(later, 90.0)], again=False)
    world.pass_time(100)
    fresh = await inserted(world, store, 1, first=20)
    (claimed,) = (await gated(store, fresh)).deliveries
    await store.record([again_in(claimed, 0.0)], again=False)

    assert {id for _, id, _ in await walk(store, 30.0, 10)} == {*old, soon.id}
    assert {id for _, id, _ in await walk(store, 0.0, 10)} == {*old, soon.id, later.id, *fresh}


async def test_a_walk_over_all_rows_says_when_each_is_due(world: World, store: Store) -> None:
    one, two = (await gated(store, await inserted(world, store, 2))).deliveries
    await store.record([again_in(one, 500.0), again_in(two, 100.0)], again=False)
    world.pass_time(200)
    due = {id: due_in_s for _, id, due_in_s in await walk(store, 0.0, 10)}

    assert 290 < due[one.id] <= 300
    assert due[two.id] == 0.0


# --- shards -------------------------------------------------------------------------------------------------------------

OWNER_S = 5.0


async def held(store: Store, *shards: int, stays: bool = True) -> Mapping[int, int]:
    return (await store.hold_shards(shards, OWNER_S, stays=stays)).epochs


@pytest.fixture
async def other(world: World) -> Store:
    """The store of a second incarnation that holds its lease."""
    other = world.store(THEIRS)
    await other.register(LEASE_S)
    return other


async def test_whoever_asks_first_owns_everything_at_once(store: Store) -> None:
    assert await store.hold_shards(range(4), OWNER_S, stays=True) == Holding({0: 1, 1: 1, 2: 1, 3: 1}, frozenset({OURS}))


async def test_an_owner_that_renews_is_not_succeeded_and_keeps_its_epoch(world: World, store: Store, other: Store) -> None:
    await held(store, 0, 1)
    world.pass_time(OWNER_S - 1)
    renewed = await held(store, 0, 1)
    world.pass_time(OWNER_S - 1)

    assert renewed == {0: 1, 1: 1}
    assert await held(other, 0, 1, 2) == {2: 1}


async def test_who_says_nothing_is_succeeded_when_its_lease_ends_under_another_epoch(
    world: World, store: Store, other: Store
) -> None:
    await held(store, 0, 1)
    world.pass_time(OWNER_S + 1)

    assert await held(other, 0) == {0: 2}
    assert await held(store, 0, 1) == {1: 1}  # nobody wanted it meanwhile


async def test_a_shard_that_comes_back_shows_that_it_was_elsewhere(world: World, store: Store, other: Store) -> None:
    await held(store, 0)
    world.pass_time(OWNER_S + 1)
    await held(other, 0)
    world.pass_time(OWNER_S + 1)

    assert await held(store, 0) == {0: 3}


async def test_what_is_released_is_free_at_once_and_only_the_owner_can_release_it(store: Store, other: Store) -> None:
    await held(store, 0, 1)
    await other.release_shards([0, 1])
    kept = await held(other, 0, 1)
    await store.release_shards([1, 7])

    assert kept == {}
    assert await held(other, 0, 1) == {1: 2}
    assert await held(store, 0, 1) == {0: 1}


async def test_members_are_those_who_ask_and_stay_until_they_are_silent(world: World, store: Store, other: Store) -> None:
    await held(store, 0)
    both = (await other.hold_shards([], OWNER_S, stays=True)).members
    await held(store, 0, stays=False)
    left = (await other.hold_shards([], OWNER_S, stays=True)).members
    world.pass_time(OWNER_S + 1)
    silent = (await store.hold_shards([], OWNER_S, stays=True)).members

    assert [sorted(members) for members in (both, left, silent)] == [[OURS, THEIRS], [THEIRS], [OURS]]


async def test_who_leaves_may_keep_what_it_owns_until_it_is_released(store: Store, other: Store) -> None:
    await held(store, 0)

    assert await held(store, 0, stays=False) == {0: 1}
    assert await held(other, 0) == {}


async def test_without_a_lease_of_attempts_nothing_is_owned(world: World, store: Store) -> None:
    stranger = world.store(THEIRS)
    nothing = await stranger.hold_shards([0], OWNER_S, stays=True)
    await held(store, 0)
    world.pass_time(LEASE_S + 1)

    assert nothing == Holding({}, frozenset())
    assert await store.hold_shards([0], OWNER_S, stays=True) == Holding({}, frozenset())


async def test_with_its_lease_an_incarnation_gives_up_its_shards(store: Store, other: Store) -> None:
    await held(store, 0, 1)
    await store.release_lease()

    assert await other.hold_shards([0, 1], OWNER_S, stays=True) == Holding({0: 2, 1: 2}, frozenset({THEIRS}))


async def test_a_shard_has_one_owner_however_many_ask_for_it_at_once(world: World) -> None:
    """(scenario 9)"""
    stores = [world.store(f"0198c000-0000-7000-8000-0000000001{number:02}") for number in range(4)]
    answers: list[Mapping[int, int]] = []

    async def ask(store: Store, *, backwards: bool) -> None:
        shards = list(range(16))
        answers.append((await store.hold_shards(shards[::-1] if backwards else shards, OWNER_S, stays=True)).epochs)

    for store in stores:
        await store.register(LEASE_S)
    async with trio.open_nursery() as nursery:
        for number, store in enumerate(stores):
            nursery.start_soon(partial(ask, store, backwards=number % 2 == 1))

    assert sorted(shard for answer in answers for shard in answer) == list(range(16))
    assert {epoch for answer in answers for epoch in answer.values()} == {1}


# --- through whom ---------------------------------------------------------------------------------------------------------

FIRST, SECOND = "0198c000-0000-7000-8000-0000000000d1", "0198c000-0000-7000-8000-0000000000d2"
BY_FIRST: Mapping[tuple[OrganizationId, str], str] = {(ACME, "email"): FIRST}
BY_SECOND: Mapping[tuple[OrganizationId, str], str] = {(ACME, "email"): SECOND}


def config_of(world: World, id: NotificationId) -> str | None:
    """Through whom the row says that it goes."""
    row = world.stored(id)
    return None if row is None else row.provider_config_id


async def sent_through(
    store: Store, ids: Sequence[NotificationId], through: Mapping[tuple[OrganizationId, str], str], unbound: Sequence[str] = ()
) -> dict[NotificationId, Delivery]:
    """What the gate lets through with these ways."""
    gated = (await store.gate(ids, OPEN, through, unbound, again=False)).get(ACME, Gated(()))
    return {delivery.id: delivery for delivery in gated.deliveries}


async def test_the_gate_puts_through_whom_on_record_with_the_intent(world: World) -> None:
    store = world.store(OURS)
    await store.register(LEASE_S)
    (id,) = await inserted(world, store)
    delivery = (await sent_through(store, [id], BY_FIRST))[id]

    assert delivery.config_id == FIRST
    assert config_of(world, id) == FIRST


async def test_another_organization_and_another_channel_have_ways_of_their_own(world: World) -> None:
    store = world.store(OURS)
    await store.register(LEASE_S)
    (mail,) = await inserted(world, store)
    (text,) = await inserted(world, store, first=1, channel=SMS)
    (foreign,) = await inserted(world, store, first=2, organization_id=OTHER)
    await store.gate([mail, text, foreign], OPEN, {(ACME, "email"): FIRST, (OTHER, "email"): SECOND}, again=False)

    assert [config_of(world, id) for id in (mail, text, foreign)] == [FIRST, None, SECOND]


async def test_after_a_plain_failure_the_next_attempt_goes_where_it_is_planned(world: World) -> None:
    store = world.store(OURS)
    await store.register(LEASE_S)
    (id,) = await inserted(world, store)
    delivery = (await sent_through(store, [id], BY_FIRST))[id]
    await store.record(
        [Verdict(delivery, Outcome(OutcomeClass.SOFT, "http_503"), VIA, Status.QUEUED, retry_in_s=0.0)], again=False
    )

    assert (await sent_through(store, [id], BY_SECOND))[id].config_id == SECOND


@pytest.mark.parametrize("way_of_ending", ["answered", "rescued", "disowned"])
async def test_what_may_have_been_sent_keeps_its_configuration_unless_that_is_unbound(world: World, way_of_ending: str) -> None:
    dead, store = world.store(THEIRS), world.store(OURS)
    await store.register(LEASE_S)
    await dead.register(LEASE_S)
    (id,) = await inserted(world, store)
    delivery = (await sent_through(dead, [id], BY_FIRST))[id]
    if way_of_ending == "answered":
        via = evolve(VIA, config_id=FIRST)
        lost = Verdict(delivery, Outcome(OutcomeClass.UNKNOWN, "reset"), via, Status.QUEUED, possible_double=True, retry_in_s=0.0)
        await dead.record([lost], again=False)
    elif way_of_ending == "rescued":
        await dead.release_lease()
        world.pass_time(2.0)
        await store.rescue(10)
    else:
        await dead.disown(ACME)
    world.pass_time(RESCUE_FIRST_S + 1.0)

    assert (await sent_through(store, [id], BY_SECOND))[id].config_id == FIRST
    await store.disown(ACME)
    world.pass_time(RESCUE_LATER_S + 1.0)
    assert (await sent_through(store, [id], BY_SECOND, unbound=[SECOND]))[id].config_id == FIRST
    await store.disown(ACME)
    world.pass_time(RESCUE_LATER_S + 1.0)
    assert (await sent_through(store, [id], BY_SECOND, unbound=[FIRST]))[id].config_id == SECOND


async def test_where_no_way_is_named_what_stood_there_stays(world: World) -> None:
    store = world.store(OURS)
    await store.register(LEASE_S)
    (id,) = await inserted(world, store)
    await sent_through(store, [id], BY_FIRST)
    await store.gate([id], OPEN, again=True)

    assert config_of(world, id) == FIRST


async def test_a_repeated_gate_takes_the_ways_it_is_told_the_second_time(world: World) -> None:
    store = world.store(OURS)
    await store.register(LEASE_S)
    (id,) = await inserted(world, store)
    await sent_through(store, [id], BY_FIRST)
    again = await store.gate([id], OPEN, BY_SECOND, again=True)

    assert [(each.id, each.attempt, each.config_id) for each in again[ACME].deliveries] == [(id, 1, SECOND)]


HEX = "ab" * 32
TOKENS = (HEX, "AF" * 60, HEX[1:], HEX + "z", HEX + "\n", "a:token", '{"endpoint":"x"}', "{", "\u00e9" * 80, "0" * 64)


async def test_each_push_token_goes_to_the_lane_of_its_audience(world: World) -> None:
    """The rule of dispatcher/audience.py, at the gate."""
    store = world.store(OURS)
    await store.register(LEASE_S)
    ids = [(await inserted(world, store, first=n, channel=Channel.PUSH, recipient=token))[0] for n, token in enumerate(TOKENS)]
    ways = {(ACME, "push:apple"): FIRST, (ACME, "push:google"): SECOND, (ACME, "push:web"): CONFIG}
    passed = await sent_through(store, ids, ways)

    assert {passed[id].config_id for id in ids} == {FIRST, SECOND, CONFIG}
    for id, token in zip(ids, TOKENS, strict=True):
        assert passed[id].config_id == ways[ACME, f"push:{audience_of(Channel.PUSH, token)}"]


async def test_only_the_closed_audience_is_parked_and_for_itself(world: World) -> None:
    store = world.store(OURS)
    await store.register(LEASE_S)
    (apple,) = await inserted(world, store, channel=Channel.PUSH, recipient="ab" * 32)
    (google,) = await inserted(world, store, first=1, channel=Channel.PUSH, recipient="a:token")
    closed = {(ACME, "push:apple"), (ACME, "push:web")}
    answer = (await store.gate([apple, google], closed, {(ACME, "push:google"): FIRST}, again=False))[ACME]

    assert [(each.id, each.config_id) for each in answer.deliveries] == [(google, FIRST)]
    assert list(answer.parked) == [("push:apple", apple)]


async def test_a_channel_that_is_closed_as_a_whole_is_parked_as_a_whole_beside_others_that_are_parted(world: World) -> None:
    store = world.store(OURS)
    await store.register(LEASE_S)
    (mine,) = await inserted(world, store, channel=Channel.PUSH, recipient="ab" * 32)
    (theirs,) = await inserted(world, store, first=1, channel=Channel.PUSH, recipient="ab" * 32, organization_id=OTHER)
    answer = await store.gate([mine, theirs], {(ACME, "push")}, {(OTHER, "push:apple"): FIRST}, again=False)

    assert list(answer[ACME].parked) == [("push", mine)]
    assert [each.config_id for each in answer[OTHER].deliveries] == [FIRST]
