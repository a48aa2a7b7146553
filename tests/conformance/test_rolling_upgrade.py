"""Two releases at work on one database: what either begins, the other may go on with, and nothing is lost or done twice.

The first release's statements are the recorded ones (tests/first_release_statements.py), today's are whatever they are by now;
the schema is the newest (scenario 36).
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
import trio

import migrations
from actors.io.postgres import Pool, open_pool
from actors.ports import Admission
from actors.store import dead_letters, notifications
from actors.store.dead_letter_filter import LetterFilter
from actors.store.dead_letters import Pace
from actors.store.dispatching import PostgresStore
from dispatcher.ids import uuid7
from dispatcher.messages import Gated, Verdict
from dispatcher.model import DeadLetterReason, Delivery, NotificationId, OrganizationId, Status
from dispatcher.outcome import Outcome, OutcomeClass
from first_release import LEASE_S, FirstReleaseStore

ALL_DUE = "UPDATE notifications SET next_retry_at = NULL WHERE status = 'queued'"
"""What was rescued becomes due spread over time, and here nobody waits."""
ACME = OrganizationId("acme")
OLD = "0198c000-0000-7000-8000-00000000000a"
NEW = "0198c000-0000-7000-8000-00000000000b"
KEY = "0198c000-0000-7000-8000-00000000000c"
FIRST_MIGRATION = "0001_first_schema"


def row(number: int, key: str | None = None, expires_in_s: float | None = None, text: str = "…") -> dict[str, Any]:
    """What is inserted for one notification."""
    now_s = time.time()
    return {
        "id": uuid7(1_700_000_000_000 + number, number),
        "organization_id": ACME,
        "channel": "email",
        "attempts_max": 8,
        "created_at": now_s,
        "expires_at": None if expires_in_s is None else now_s + expires_in_s,
        "user_id": None,
        "recipient": f"person{number}@example.org",
        "payload": {"subject": f"number {number}", "text": text},
        "template_id": None,
        "locale": None,
        "idempotency_key": key,
        "request_hash": text.encode().hex(),
    }


def admission(values: dict[str, Any]) -> Admission:
    key, request_hash = values["idempotency_key"], bytes.fromhex(values["request_hash"])
    return Admission(ACME, NotificationId(values["id"]), key, request_hash, values)


class Present:
    """Today's store, spoken to as the recorded one is."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.store = PostgresStore(pool, NEW)
        self.deliveries: dict[str, Delivery] = {}

    async def gate(self, ids: list[str], *, again: bool = False) -> dict[str, int]:
        gated = (await self.store.gate([NotificationId(id) for id in ids], frozenset(), again=again)).get(ACME, Gated(()))
        self.deliveries.update((delivery.id, delivery) for delivery in gated.deliveries)
        return {delivery.id: delivery.attempt for delivery in gated.deliveries}

    async def delivered(self, attempts: dict[str, int]) -> set[str]:
        verdicts = [self._verdict(id, OutcomeClass.DELIVERED, Status.DELIVERED) for id in attempts]
        return set(await self.store.record(verdicts, again=False))

    async def ended(self, id: str, kind: OutcomeClass, *, dead: DeadLetterReason | None = None) -> bool:
        verdict = self._verdict(id, kind, Status.QUEUED if dead is None else Status.FAILED, dead)
        return id in await self.store.record([verdict], again=False)

    def _verdict(self, id: str, kind: OutcomeClass, status: Status, dead: DeadLetterReason | None = None) -> Verdict:
        return Verdict(
            self.deliveries[id],
            Outcome(kind, "http_503"),
            None,
            status,
            possible_double=kind is OutcomeClass.UNKNOWN,
            retry_in_s=0.0 if status is Status.QUEUED else None,
            dead=dead,
        )


@pytest.fixture
def old(database_url: str) -> Iterator[FirstReleaseStore]:
    with FirstReleaseStore(database_url, OLD) as old:
        old.register()
        yield old


@pytest.fixture
async def present(database_url: str) -> AsyncIterator[Present]:
    async with open_pool(database_url, size_max=4, connect_deadline_s=30, statement_deadline_s=30, random=Random(1)) as pool:
        await pool.execute("INSERT INTO organizations (id, name) VALUES ('acme', 'Acme')")
        present = Present(pool)
        await present.store.register(LEASE_S)
        yield present


async def insert(present: Present, *rows: dict[str, Any]) -> list[str]:
    await present.store.insert([admission(values) for values in rows], ())
    return [values["id"] for values in rows]


async def steps(present: Present, id: str) -> list[str]:
    detail = await notifications.read(present.pool, ACME, id)
    assert detail is not None
    return [entry.event for entry in detail.timeline]


async def statuses(present: Present) -> dict[str, int]:
    return dict(Counter(status for (status,) in await present.pool.fetch("SELECT status FROM notifications")))


# --- the schema -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def first_folder(tmp_path: Path) -> Path:
    """The migrations of the first release."""
    shutil.copy(migrations.FOLDER / f"{FIRST_MIGRATION}.sql", tmp_path)
    return tmp_path


def columns(url: str) -> dict[tuple[str, str], tuple[str, bool, bool]]:
    """Type, whether it may be null, whether it has a default, by table and column."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT table_name, column_name, data_type, is_nullable = 'YES', column_default IS NOT NULL "
            "FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE '%yoyo%'"
        ).fetchall()
    return {(table, column): (kind, nullable, default) for table, column, kind, nullable, default in rows}


def constraints(url: str) -> set[tuple[str, str]]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text NOT LIKE '%yoyo%'"
        ).fetchall()
    return {(table, definition) for table, definition in rows}


def test_the_schema_only_expands(fresh_database: Callable[[], str], database_url: str, first_folder: Path) -> None:
    """What the first release reads is still there as it was; what it does not know of, it need not write; and no rule was added
    to its tables that it could break."""
    first_url = fresh_database()
    migrations.up(first_url, folder=first_folder)
    first, newest = columns(first_url), columns(database_url)
    tables = {table for table, _ in first}
    added = {name: column for name, column in newest.items() if name[0] in tables and name not in first}
    new_rules = {rule for rule in constraints(database_url) - constraints(first_url) if rule[0] in tables}

    assert {name: newest.get(name) for name in first} == first
    assert [name for name, (_, nullable, default) in added.items() if not (nullable or default)] == []
    # A list of allowed values may have grown, which only a word-for-word comparison takes for a new rule.
    assert [rule for rule in new_rules if not rule[1].startswith("CHECK")] == []


async def test_a_process_at_work_does_not_notice_the_migration(fresh_database: Callable[[], str], first_folder: Path) -> None:
    """Its statements are prepared on the old schema and go on working on the new one."""
    url = fresh_database()
    migrations.up(url, folder=first_folder)
    rows = [row(number) for number in range(4)]
    with FirstReleaseStore(url, OLD) as old:
        old.register()
        old.insert(rows[:2])
        attempts = old.gate([rows[0]["id"]])
        applied = await trio.to_thread.run_sync(migrations.up, url)
        assert FIRST_MIGRATION not in applied
        assert applied
        assert old.renew()
        assert old.delivered(attempts) == {rows[0]["id"]}
        old.insert(rows[2:])
        again = old.gate([values["id"] for values in rows[1:]])
        assert old.ended(rows[1]["id"], again[rows[1]["id"]], "soft")
        assert old.ended(rows[2]["id"], again[rows[2]["id"]], "hard", dead="hard")
        assert (old.rescue(), old.expire()) == (set(), set())
        assert old.queued() == {rows[1]["id"]}


# --- one by one ---------------------------------------------------------------------------------------------------------------


async def test_a_key_taken_in_one_release_is_taken_in_the_other(present: Present, old: FirstReleaseStore) -> None:
    (theirs,) = [row(1, key="theirs")]
    old.insert([theirs])
    ours = row(2, key="ours")
    await insert(present, ours)

    answer = await present.store.insert([admission(row(3, key="theirs"))], ())
    inserted = old.insert([row(4, key="ours"), row(5)])

    assert {key: existing.id for (_, key), existing in answer.items()} == {"theirs": theirs["id"]}
    assert inserted == 1
    assert old.existing(ACME, "ours") == (ours["id"], bytes.fromhex(ours["request_hash"]))
    assert await statuses(present) == {"queued": 3}


async def test_each_passes_the_gate_in_one_release_only(present: Present, old: FirstReleaseStore) -> None:
    rows = [row(number) for number in range(40)]
    old.insert(rows[:20])
    await insert(present, *rows[20:])
    ids = [values["id"] for values in rows]
    passed: dict[str, dict[str, int]] = {}

    async def pass_old() -> None:
        passed["old"] = await trio.to_thread.run_sync(old.gate, ids)

    async def pass_new() -> None:
        passed["new"] = await present.gate(ids)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_old)
        nursery.start_soon(pass_new)

    assert not passed["old"].keys() & passed["new"].keys()
    assert passed["old"] | passed["new"] == dict.fromkeys(ids, 1)


async def test_an_attempt_is_recorded_by_whom_it_belongs_to(present: Present, old: FirstReleaseStore) -> None:
    mine, theirs = await insert(present, row(1), row(2))
    (attempts_old, attempts_new) = old.gate([theirs]), await present.gate([mine])

    assert old.delivered(attempts_new) == set()
    assert not old.ended(mine, 1, "soft")
    present.deliveries[theirs] = Delivery(NotificationId(theirs), ACME, present.deliveries[mine].channel, "", {}, 1, 8, 0.0)
    assert await present.delivered(attempts_old) == set()
    assert await present.delivered(attempts_new) == {mine}
    assert old.delivered(attempts_old) == {theirs}


async def test_a_retry_begun_in_one_release_is_ended_in_the_other(present: Present, old: FirstReleaseStore) -> None:
    there, back = await insert(present, row(1), row(2))
    old.ended(there, old.gate([there])[there], "soft")
    await present.gate([back])
    await present.ended(back, OutcomeClass.UNKNOWN)

    assert await present.gate([there]) == {there: 2}
    assert await present.delivered({there: 2}) == {there}
    assert old.gate([back]) == {back: 2}
    assert old.delivered({back: 2}) == {back}
    assert await steps(present, there) == ["created", "soft", "delivered"]
    assert await steps(present, back) == ["created", "unknown", "delivered"]
    assert old.timeline(ACME, back) == ["unknown"]


async def test_a_lost_answer_of_the_gate_is_asked_for_again_in_either(present: Present, old: FirstReleaseStore) -> None:
    first, second = await insert(present, row(1), row(2))
    old.gate([first])
    await present.gate([second])

    assert old.gate([first, second], again=True) == {first: 1}
    assert await present.gate([first, second], again=True) == {second: 1}


async def test_each_rescues_what_a_dead_process_of_the_other_held(present: Present, old: FirstReleaseStore) -> None:
    theirs, mine = await insert(present, row(1), row(2))
    old.gate([theirs])
    await present.gate([mine])

    old.release()
    assert {rescued.id for rescued in await present.store.rescue(100)} == {theirs}
    await present.pool.execute(ALL_DUE)
    await present.store.release_lease()
    assert old.rescue() == {mine}

    old.register()
    assert old.gate([theirs, mine]) == {theirs: 2, mine: 2}
    assert old.delivered({theirs: 2, mine: 2}) == {theirs, mine}
    assert await steps(present, mine) == ["created", "unknown", "delivered"]


async def test_what_expires_is_given_up_once_by_either(present: Present, old: FirstReleaseStore) -> None:
    theirs, mine = row(1, expires_in_s=-1), row(2, expires_in_s=-1)
    old.insert([theirs])
    assert [expired.id for expired in await present.store.expire(10)] == [theirs["id"]]
    await insert(present, mine)
    assert old.expire() == {mine["id"]}
    assert await dead_letters.count(present.pool, ACME, LetterFilter(DeadLetterReason.EXPIRED)) == dead_letters.Count(2)


async def test_dead_letters_of_either_get_another_chance_in_either(present: Present, old: FirstReleaseStore) -> None:
    ids = await insert(present, *(row(number) for number in range(6)))
    for id, attempt in old.gate(ids[:3]).items():
        old.ended(id, attempt, "hard", dead="hard")
    await present.gate(ids[3:])
    for id in ids[3:]:
        await present.ended(id, OutcomeClass.HARD, dead=DeadLetterReason.HARD)

    assert old.requeue(ACME, ids[3])
    assert old.discard(ACME, ids[4])
    many = await dead_letters.requeue_many(present.pool, ACME, LetterFilter(), 10, Pace(), 8, KEY)
    assert [id for id, _ in many.due] == [*ids[:3], ids[5]]
    assert not old.requeue(ACME, ids[0])

    assert old.gate(ids) == dict.fromkeys([*ids[:4], ids[5]], 2)
    assert old.timeline(ACME, ids[0]) == ["hard", "requeued"]
    assert await statuses(present) == {"sending": 5, "failed": 1}


# --- all together ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_both_at_work_for_a_while_lose_nothing_and_deliver_each_once(
    present: Present, old: FirstReleaseStore, seed: int
) -> None:
    """Either inserts, gates, calls, records, forgets (a crash) and rescues, in any order; then they end what is left."""
    random = Random(seed)
    accepted: set[str] = set()
    held: dict[str, dict[str, int]] = {"old": {}, "new": {}}
    calls: Counter[tuple[str, int]] = Counter()
    delivered: Counter[str] = Counter()

    async def insert_some(who: str) -> None:
        rows = [row(len(accepted) + number) for number in range(random.randrange(1, 6))]
        if who == "old":
            old.insert(rows)
        else:
            await insert(present, *rows)
        accepted.update(values["id"] for values in rows)

    async def gate_some(who: str) -> None:
        ids = random.sample(sorted(accepted), min(len(accepted), 12))
        passed = old.gate(ids) if who == "old" else await present.gate(ids)
        calls.update(passed.items())
        assert not passed.keys() & (held["old"].keys() | held["new"].keys())
        held[who].update(passed)

    async def record_some(who: str) -> None:
        for id, attempt in [*held[who].items()][:6]:
            del held[who][id]
            if random.random() < 0.5:
                ours = old.delivered({id: attempt}) if who == "old" else await present.delivered({id: attempt})
                assert ours == {id}
                delivered[id] += 1
            elif who == "old":
                assert old.ended(id, attempt, "soft")
            else:
                assert await present.ended(id, OutcomeClass.SOFT)

    async def crash(who: str) -> None:
        held[who].clear()
        if who == "old":
            old.release()
            await present.store.rescue(1000)
            await present.pool.execute(ALL_DUE)
            old.register()
        else:
            await present.store.release_lease()
            old.rescue()
            await present.store.register(LEASE_S)

    for _ in range(120):
        action = random.choices([insert_some, gate_some, record_some, crash], [3, 4, 4, 1])[0]
        await action(random.choice(["old", "new"]))
    await crash("old")
    await crash("new")
    while left := sorted(old.queued()):
        who = random.choice(["old", "new"])
        passed = old.gate(left[:20]) if who == "old" else await present.gate(left[:20])
        calls.update(passed.items())
        delivered.update(old.delivered(passed) if who == "old" else await present.delivered(passed))

    assert await statuses(present) == {"delivered": len(accepted)}
    assert delivered == Counter(accepted)
    assert set(calls.values()) == {1}, "an attempt was handed out twice"
