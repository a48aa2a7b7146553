"""Counters: whatever writes notifications, of whatever release, and whatever cuts it off, they say what a recount would."""

from __future__ import annotations

import time
from collections import Counter
from itertools import count
from random import Random
from typing import Any

import psycopg
import pytest
import trio

from actors.archive import FIRST_ID
from actors.feedback_ports import Report
from actors.io.postgres import Pool
from actors.ports import Admission
from actors.store import dead_letters, statistics
from actors.store.dead_letter_filter import LetterFilter
from actors.store.dead_letters import Pace
from actors.store.dispatching import PostgresStore
from actors.store.feedback import PostgresFeedback
from actors.store.history import PostgresArchive, erase_history
from actors.store.statistics import By
from dispatcher.feedback.feedback import Feedback, FeedbackKind
from dispatcher.ids import uuid7
from dispatcher.messages import Verdict
from dispatcher.model import Channel, DeadLetterReason, Delivery, NotificationId, OrganizationId, Status
from dispatcher.outcome import Outcome, OutcomeClass
from first_release import FirstReleaseStore
from store_rows import insert_notification

ORGANIZATIONS = [OrganizationId("acme"), OrganizationId("globex")]
KEY = "0198c000-0000-7000-8000-0000000000c1"
ALL = [By.CHANNEL, By.OUTCOME, By.REASON]
RECOUNT = """
SELECT organization_id, channel, status, CASE WHEN status = 'failed' THEN reason ELSE '' END AS why, count(*) FROM (
    SELECT organization_id, channel, status, reason FROM notifications
    UNION ALL SELECT organization_id, channel, status, reason FROM notification_history
) AS every GROUP BY 1, 2, 3, 4
"""
CANCEL = (
    "UPDATE notifications SET status = 'canceled', updated_at = now() WHERE id = ANY(%s) AND status IN ('scheduled', 'queued')"
)


async def counted(pool: Pool) -> Counter[tuple[str, ...]]:
    """What the counters say of every organization."""
    day, found = await statistics.today(pool), Counter[tuple[str, ...]]()
    for organization_id in ORGANIZATIONS:
        read = await statistics.read(pool, organization_id, day, day, ALL)
        found.update({(organization_id, *values): n for values, n in read.rows})
    return found


async def recounted(pool: Pool) -> Counter[tuple[str, ...]]:
    """What rows and history say: the only time anybody counts them."""
    found: Counter[tuple[str, ...]] = Counter()
    for organization_id, channel, status, why, n in await pool.fetch(RECOUNT):
        found[organization_id, channel, "accepted", ""] += n
        if status in ("delivered", "failed", "canceled"):
            found[organization_id, channel, status, why or ""] += n
    return found


def net(counts: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    """What has failed and was not taken back; that is what rows can tell."""
    left = Counter({name: n for name, n in counts.items() if name[2] != "requeued"})
    for (organization_id, channel, outcome, why), n in counts.items():
        if outcome == "requeued":
            left[organization_id, channel, "failed", why] -= n
    return Counter({name: n for name, n in left.items() if n != 0})


class Run:
    """A random life: processes of both releases that insert, send, die and are rescued; people; and the archivist."""

    def __init__(self, pool: Pool, old: FirstReleaseStore, seed: int) -> None:
        self.pool, self.old, self.random = pool, old, Random(seed)
        self.stores: list[PostgresStore] = []
        self.held: list[tuple[PostgresStore, Delivery]] = []
        self.held_by_old: dict[str, int] = {}
        self.ids: list[NotificationId] = []
        self.archive = PostgresArchive(pool, 1e-6)

    async def start(self) -> None:
        """A process."""
        self.stores.append(PostgresStore(self.pool, uuid7(int(time.time() * 1000), self.random.getrandbits(74))))
        await self.stores[-1].register(1000.0)

    async def end(self) -> None:
        """A process dies with all it holds."""
        if len(self.stores) > 1:
            store = self.stores.pop()
            self.held = [(holder, delivery) for holder, delivery in self.held if holder is not store]
            await store.release_lease()

    async def of_each(self) -> None:
        """Something of each kind, whatever luck has brought about."""
        for number, status in enumerate(("delivered", "canceled", "failed", "failed")):
            id = uuid7(1_764_000_000_000 + number, 1)
            await insert_notification(self.pool, id)
            change = "UPDATE notifications SET status = %s, reason = 'given_up', updated_at = now() WHERE id = %s"
            await self.pool.execute(change, (status, id))
        await self.pool.execute("UPDATE notifications SET status = 'queued', updated_at = now() WHERE id = %s", (id,))

    async def insert(self) -> None:
        rows = [self._row() for _ in range(self.random.randrange(1, 8))]
        if self.random.random() < 0.3:
            self.old.insert([{name: value for name, value in row.items() if name != "ignores_suppression"} for row in rows])
        else:
            admissions = [
                Admission(row["organization_id"], NotificationId(row["id"]), row["idempotency_key"], b"x", row) for row in rows
            ]
            await self._store().insert(admissions, ())

    async def gate(self) -> None:
        ids = self.random.sample(self.ids, min(len(self.ids), 12))
        if self.random.random() < 0.3:
            self.held_by_old.update(self.old.gate(ids))
            return
        store = self._store()
        for gated in (await store.gate(ids, frozenset(), again=False)).values():
            self.held.extend((store, delivery) for delivery in gated.deliveries)

    async def record(self) -> None:
        self.random.shuffle(self.held)
        store = self._store()
        mine = [delivery for holder, delivery in self.held if holder is store][:6]
        self.held = [(holder, delivery) for holder, delivery in self.held if delivery not in mine]
        verdicts = [self._verdict(delivery) for delivery in mine]
        await store.record(verdicts, again=False)
        await store.record(verdicts, again=True)  # as if the answer had been lost

    async def record_by_old(self) -> None:
        plain = {id: attempt for id, attempt in self.held_by_old.items() if self.random.random() < 0.5}
        self.old.delivered(plain)
        for id, attempt in self.held_by_old.items() - plain.items():
            self.old.ended(id, attempt, "hard", dead="hard")
        self.held_by_old.clear()

    async def rescue(self) -> None:
        await self._store().rescue(100)
        await self.pool.execute("UPDATE notifications SET next_retry_at = NULL WHERE status = 'queued'")

    async def expire(self) -> None:
        await self._store().expire(3)

    async def requeue(self) -> None:
        for organization_id in ORGANIZATIONS:
            await dead_letters.requeue_many(self.pool, organization_id, LetterFilter(), 2, Pace(), 8, KEY)

    async def discard(self) -> None:
        for organization_id in ORGANIZATIONS:
            await dead_letters.discard_many(self.pool, organization_id, LetterFilter(), 2, KEY)

    async def cancel(self) -> None:
        await self.pool.execute(CANCEL, (self.random.sample(self.ids, min(len(self.ids), 3)),))

    async def erase(self) -> None:
        await self.pool.execute("UPDATE notifications SET recipient = '', payload = '{}' WHERE user_id = 'ada'")
        async with self.pool.connection() as connection:
            await erase_history(connection, ORGANIZATIONS[0], "ada")

    async def move(self) -> None:
        found = await self.archive.look(FIRST_ID, 1000)
        await self.archive.prepare(set(found.due.values()))
        await self.archive.move(dict(list(found.due.items())[:10]))

    async def fold(self) -> None:
        await self.archive.fold(self.random.randrange(1, 20))

    def _store(self) -> PostgresStore:
        return self.random.choice(self.stores)

    def _row(self) -> dict[str, Any]:
        now_s, again = time.time(), self.ids and self.random.random() < 0.1
        id = self.random.choice(self.ids) if again else NotificationId(uuid7(int(now_s * 1000) - 5, self.random.getrandbits(74)))
        self.ids.append(id)
        return {
            "id": id,
            "organization_id": self.random.choice(ORGANIZATIONS),
            "channel": self.random.choice(["email", "sms"]),
            "attempts_max": 8,
            "created_at": now_s,
            "expires_at": now_s - 1 if self.random.random() < 0.1 else None,
            "user_id": self.random.choice(["ada", None]),
            "recipient": f"person{len(self.ids)}@example.org",
            "payload": {"text": "…"},
            "template_id": None,
            "locale": None,
            "idempotency_key": self.random.choice(["k1", "k2", None, None]),
            "request_hash": "00",
            "ignores_suppression": None,
        }

    def _verdict(self, delivery: Delivery) -> Verdict:
        kind, status, dead = self.random.choice(
            [
                (OutcomeClass.DELIVERED, Status.DELIVERED, None),
                (OutcomeClass.DELIVERED, Status.DELIVERED, None),
                (OutcomeClass.SOFT, Status.QUEUED, None),
                (OutcomeClass.HARD, Status.FAILED, DeadLetterReason.HARD),
                (OutcomeClass.UNKNOWN, Status.FAILED, DeadLetterReason.UNKNOWN),
            ]
        )
        outcome = Outcome(kind, self.random.choice(["http_400", "http_503"]))
        retry_in_s = 0.0 if status is Status.QUEUED else None
        doubt = kind is OutcomeClass.UNKNOWN
        return Verdict(delivery, outcome, None, status, possible_double=doubt, retry_in_s=retry_in_s, dead=dead)


@pytest.mark.parametrize("seed", range(3))
async def test_counters_equal_a_recount_after_a_life_of_kills_and_rescues(pool: Pool, database_url: str, seed: int) -> None:
    with FirstReleaseStore(database_url, "0198c000-0000-7000-8000-00000000000a") as old:
        old.register()
        run = Run(pool, old, seed)
        await run.start()
        weights = {
            run.insert: 6,
            run.gate: 8,
            run.record: 8,
            run.record_by_old: 2,
            run.start: 1,
            run.end: 1,
            run.rescue: 2,
            run.expire: 1,
            run.requeue: 1,
            run.discard: 1,
            run.cancel: 1,
            run.erase: 1,
            run.move: 2,
            run.fold: 2,
        }
        for step in run.random.choices(list(weights), list(weights.values()), k=150):
            with trio.move_on_after(run.random.choice([60.0, 60.0, 60.0, 0.001])):  # now and then cut off at any moment
                await step()
        await run.of_each()
        await run.move()
        seen = await counted(pool)

        assert net(seen) == await recounted(pool)
        assert {name[2] for name in seen} == {"accepted", "delivered", "failed", "canceled", "requeued"}
        assert len(await pool.fetch("SELECT FROM notification_history")) > 0
        while await run.archive.fold(7):
            pass
        assert await counted(pool) == seen
        assert await pool.fetch("SELECT FROM count_deltas") == []


async def test_several_that_add_up_at_once_add_everything_once(pool: Pool) -> None:
    for number in range(60):
        await insert_notification(pool, uuid7(1_764_000_000_000 + number, 1), channel=("email", "sms")[number % 2])
    folded: list[int] = []

    async def fold() -> None:
        archive = PostgresArchive(pool, 1.0)
        while n := await archive.fold(4):
            folded.append(n)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(fold)

    assert sum(folded) == 60
    assert await counted(pool) == {("acme", "email", "accepted", ""): 30, ("acme", "sms", "accepted", ""): 30}


async def test_a_change_that_is_undone_counts_nothing(pool: Pool, database_url: str) -> None:
    id = await insert_notification(pool, uuid7(1_764_000_000_000, 1), status="queued")
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE notifications SET status = 'delivered' WHERE id = %s", (id,))
        connection.rollback()

    assert await counted(pool) == {("acme", "email", "accepted", ""): 1}


async def test_numbers_are_told_apart_by_what_is_asked_for(pool: Pool) -> None:
    for number, channel in enumerate(("email", "email", "sms")):
        id = await insert_notification(pool, uuid7(1_764_000_000_000 + number, 1), channel=channel)
        if number:
            await pool.execute("UPDATE notifications SET status = 'failed', reason = 'expired' WHERE id = %s", (id,))
    day = await statistics.today(pool)

    async def read(*by: By) -> list[tuple[list[str], int]]:
        return [(list(values), n) for values, n in (await statistics.read(pool, ORGANIZATIONS[0], day, day, by)).rows]

    assert await read(By.OUTCOME) == [(["accepted"], 3), (["failed"], 2)]
    assert await read(By.CHANNEL, By.OUTCOME) == [
        (["email", "accepted"], 2),
        (["email", "failed"], 1),
        (["sms", "accepted"], 1),
        (["sms", "failed"], 1),
    ]
    assert await read(By.REASON, By.DAY) == [(["", str(day)], 3), (["expired", str(day)], 2)]


async def test_what_providers_report_in_the_end_counts_once_for_each_state_it_comes_to(pool: Pool) -> None:
    ids = [NotificationId(uuid7(1_764_000_000_000 + number, 1)) for number in range(3)]
    for id in ids:
        await insert_notification(pool, id, status="delivered", channel="sms")
    feedback, numbers = PostgresFeedback(pool), count(1)

    async def told(*reports: tuple[NotificationId, FeedbackKind]) -> None:
        at, taken = time.time(), []
        for id, kind in reports:
            n = next(numbers)
            said = Feedback(uuid7(n, n), kind, f"c_{kind}", at - n, notification_id=id)  # the earlier counts
            taken.append(Report(ORGANIZATIONS[0], KEY, "twilio", Channel.SMS, said))
        await feedback.take(taken)

    delivered, bounced, complained = FeedbackKind.DELIVERED, FeedbackKind.BOUNCED, FeedbackKind.COMPLAINED
    await told((ids[0], delivered), (ids[1], bounced), (ids[2], delivered))
    await told((ids[0], bounced), (ids[1], bounced))
    await told((ids[0], delivered), (ids[1], complained))
    seen = Counter({("acme", "sms", "accepted", ""): 3})
    worse = {("acme", "sms", "bounced", "c_bounced"): 2, ("acme", "sms", "complained", "c_complained"): 1}
    assert await counted(pool) == seen | worse

    archive = PostgresArchive(pool, 1.0)
    found = await archive.look(FIRST_ID, 10)
    await archive.prepare(set(found.due.values()))
    assert (await archive.move(found.due)).kept == 3
    await told((ids[0], bounced), (ids[1], complained), (ids[2], complained))  # of which only the last is news
    await told((ids[0], complained), (ids[2], complained))

    assert await counted(pool) == seen | worse | {("acme", "sms", "complained", "c_complained"): 3}
