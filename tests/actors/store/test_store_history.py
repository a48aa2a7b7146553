"""History on Postgres: what is final moves into it once and whole, what is pending never, and nobody who reads notices."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import attrs
import pytest
import trio
from psycopg.types.json import Jsonb

from actors.archive import FIRST_ID, Moved
from actors.feedback_ports import Report
from actors.io.postgres import Pool
from actors.store import dead_letters, notifications
from actors.store.dead_letter_filter import LetterFilter
from actors.store.events import decisions_of
from actors.store.feedback import PostgresFeedback
from actors.store.history import PostgresArchive, erase_history, history_of_user
from actors.store.history_statements import LOOK
from actors.store.page import PageRequest
from actors.store.schedule import PostgresSchedule
from dispatcher.errors import StoreUnavailable
from dispatcher.feedback.feedback import Feedback, FeedbackKind
from dispatcher.ids import uuid7
from dispatcher.model import Channel, NotificationId, OrganizationId, Status
from dispatcher.policy import KEPT_DAYS, KEPT_DAYS_DEFAULT
from dispatcher.retention import STEP_DAYS, Span, span_of
from store_rows import insert, insert_attempt, insert_dead_letter, insert_letter_of, insert_notification

ACME, GLOBEX = OrganizationId("acme"), OrganizationId("globex")
FINAL = (Status.DELIVERED, Status.FAILED, Status.CANCELED)
DAY = timedelta(days=1)
AFTER_S = 7 * DAY.total_seconds()
CONFIG = "0198c000-0000-7000-8000-0000000000c1"
EVERYTHING = PageRequest(size=250)


def now() -> datetime:
    return datetime.now(UTC)


async def old(pool: Pool, id: str, days: float, status: str = "delivered", organization_id: str = "acme", **columns: Any) -> str:
    """A notification whose last change was so many days ago."""
    at = now() - days * DAY
    return await insert_notification(
        pool, id, organization_id, **({"status": status, "updated_at": at, "created_at": at, "attempts": 1} | columns)
    )


async def keep_for(pool: Pool, organization_id: str, kept_days: int) -> None:
    """Its policy."""
    await pool.execute("DELETE FROM definitions WHERE organization_id = %s", (organization_id,))
    await insert(
        pool, "definitions", organization_id=organization_id, kind="policy", name="default", body={"kept_days": kept_days}
    )


async def walk(archive: PostgresArchive) -> Moved:
    """Look, prepare, move, to the end."""
    after, kept, let_go = FIRST_ID, 0, 0
    while True:
        found = await archive.look(after, 3)
        await archive.prepare(set(found.due.values()))
        moved = await archive.move(found.due)
        kept, let_go = kept + moved.kept, let_go + moved.let_go
        if found.after is None:
            return Moved(kept, let_go)
        after = found.after


async def here(pool: Pool) -> set[str]:
    return {id for (id,) in await pool.fetch("SELECT id FROM notifications")}


async def moved(pool: Pool) -> list[tuple[str, int]]:
    """Ids and classes of what is history."""
    return [(id, kept_days) for id, kept_days in await pool.fetch("SELECT id, kept_days FROM notification_history ORDER BY id")]


def made(days_ago: float, number: int = 0) -> str:
    """An id of a notification that was accepted then."""
    return uuid7(int((now() - days_ago * DAY).timestamp() * 1000), number)


@pytest.fixture
def archive(pool: Pool) -> PostgresArchive:
    return PostgresArchive(pool, AFTER_S)


# --- what goes and what stays


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_final_and_old_moves_once_and_whatever_is_pending_stays(pool: Pool, seed: int) -> None:
    random = Random(seed)
    kept = {"acme": random.choice(KEPT_DAYS), "globex": None}
    await keep_for(pool, "acme", kept["acme"] or 0)
    stays, goes, let_go = set(), set(), set()
    for number in range(60):
        organization_id, status = random.choice(sorted(kept)), random.choice(list(Status))
        days, class_ = (
            random.choice([0.1, 0.9, 1.1, 6.9, 7.1, 29.0, 31.0, 100.0, 400.0]),
            kept[organization_id] or KEPT_DAYS_DEFAULT,
        )
        has_letter = status is Status.FAILED and random.random() < 0.5
        id = await old(pool, made(days + random.random(), number), days, status, organization_id)
        if has_letter:
            columns = {"reason": "hard", "code": "x", "channel": "email", "created_at": now()}
            await insert(pool, "dead_letters", notification_id=id, organization_id=organization_id, **columns)
        if status not in FINAL or days <= min(7, class_) or (has_letter and days <= class_):
            stays.add(id)
        elif days > class_:
            let_go.add(id)
        else:
            goes.add((id, class_))
    before = await pool.fetch("SELECT * FROM notifications WHERE id = ANY(%s) ORDER BY id", (sorted(stays),))

    result = await walk(PostgresArchive(pool, AFTER_S))

    assert result == Moved(len(goes), len(let_go))
    assert await here(pool) == stays
    assert await moved(pool) == sorted(goes)
    assert await pool.fetch("SELECT * FROM notifications ORDER BY id") == before
    assert await pool.fetch("SELECT FROM dead_letters WHERE notification_id <> ALL(%s)", (sorted(stays),)) == []
    assert await walk(PostgresArchive(pool, AFTER_S)) == Moved()


async def test_cut_off_at_any_moment_nothing_is_lost_and_nothing_doubled(pool: Pool) -> None:
    random = Random(5)
    ids = {await old(pool, made(8, number), 8) for number in range(30)}
    for _ in range(25):
        archive = PostgresArchive(pool, AFTER_S)  # of a process that has just started
        with trio.move_on_after(random.random() * 0.03):
            await walk(archive)
        await pool.fetch("SELECT 1")
        gone = [id for id, _ in await moved(pool)]
        assert sorted([*gone, *await here(pool)]) == sorted(ids)

    await walk(PostgresArchive(pool, AFTER_S))
    assert [id for id, _ in await moved(pool)] == sorted(ids)


async def test_several_at_once_move_everything_once(pool: Pool) -> None:
    ids = [await old(pool, made(8 + number / 10, number), 8 + number / 10) for number in range(40)]
    results: list[Moved] = []

    async def work() -> None:
        results.append(await walk(PostgresArchive(pool, AFTER_S)))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(work)
    await walk(PostgresArchive(pool, AFTER_S))

    assert [id for id, _ in await moved(pool)] == sorted(ids)
    assert sum(result.kept for result in results) <= 40


async def test_what_was_requeued_since_it_was_found_stays(
    pool: Pool, archive: PostgresArchive, new_id: Callable[[], str]
) -> None:
    id = await insert_letter_of(pool, new_id(), columns={"updated_at": now() - 400 * DAY})
    found = await archive.look(FIRST_ID, 10)
    await archive.prepare({*found.due.values(), span_of(KEPT_DAYS_DEFAULT, int(now().timestamp() // 86_400))})
    assert list(found.due) == [id]
    assert await dead_letters.requeue(pool, ACME, id, 8) == id

    assert await archive.move(found.due) == Moved()
    assert await here(pool) == {id}


async def test_a_move_without_its_partition_moves_nothing_and_the_next_one_does(pool: Pool, archive: PostgresArchive) -> None:
    id = await old(pool, made(8), 8)
    found = await archive.look(FIRST_ID, 10)
    (span,) = found.due.values()
    await archive.prepare([span])
    await pool.execute(f"DROP TABLE {span.name}")  # by hand

    assert await archive.move(found.due) == Moved()
    assert await here(pool) == {id}
    assert await walk(archive) == Moved(1)


async def test_a_table_that_is_in_the_way_of_a_partition_is_told_and_nothing_is_lost(
    pool: Pool, archive: PostgresArchive
) -> None:
    id = await old(pool, made(8), 8)
    found = await archive.look(FIRST_ID, 10)
    (span,) = found.due.values()
    await pool.execute(f"CREATE TABLE {span.name} ()")

    with pytest.raises(StoreUnavailable, match="DuplicateTable"):
        await archive.prepare([span])
    assert await archive.move(found.due) == Moved()
    assert await here(pool) == {id}


async def test_a_look_reads_no_more_than_it_may_however_much_there_is_that_stays(pool: Pool, archive: PostgresArchive) -> None:
    for number in range(9):
        await old(pool, made(30, number), 30, "scheduled")
    last = await old(pool, made(8), 8)

    first = await archive.look(FIRST_ID, 5)
    second = await archive.look(first.after or FIRST_ID, 5)

    assert (len(first.due), list(second.due)) == (0, [last])
    assert first.after is not None


async def test_a_look_asks_the_index_of_ids_alone(pool: Pool, archive: PostgresArchive) -> None:
    await pool.execute(
        "INSERT INTO notifications "
        "(id, organization_id, status, channel, attempts_max, created_at, updated_at, recipient, payload) "
        "SELECT id, 'acme', 'scheduled', 'email', 8, now(), now(), 'a', '{}' FROM unnest(%s::uuid[]) AS id",
        ([made(30 - number / 100, number) for number in range(3000)],),
    )
    await pool.execute("ANALYZE notifications")
    params = {"after": FIRST_ID, "before": made(7), "limit": 1000, "after_s": AFTER_S}
    plan = str(await pool.fetch(f"EXPLAIN (COSTS OFF) {LOOK}", params))

    assert "Limit',), ('        ->  Index Scan using notifications_pkey" in plan


# --- partitions


async def test_a_changed_policy_holds_for_what_moves_from_then_on(pool: Pool, archive: PostgresArchive) -> None:
    await keep_for(pool, "acme", 30)
    first = await old(pool, made(8, 1), 8)
    await walk(archive)
    await keep_for(pool, "acme", 90)
    second = await old(pool, made(8, 2), 8)
    await walk(archive)

    assert await moved(pool) == sorted([(first, 30), (second, 90)])


async def test_what_is_not_a_length_that_there_is_counts_as_the_usual_one(pool: Pool, archive: PostgresArchive) -> None:
    await keep_for(pool, "acme", 31)
    id = await old(pool, made(8), 8)
    await walk(archive)

    assert await moved(pool) == [(id, KEPT_DAYS_DEFAULT)]


async def test_partitions_are_made_once_by_however_many(pool: Pool) -> None:
    spans = [span_of(kept_days, 20_000 + step) for kept_days, step in STEP_DAYS.items()]
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(PostgresArchive(pool, AFTER_S).prepare, spans)

    assert [partition.span for partition in await PostgresArchive(pool, AFTER_S).partitions()] == spans


async def test_a_partition_is_dropped_whole_and_nobody_waits_for_long_behind_one_in_use(
    pool: Pool, archive: PostgresArchive
) -> None:
    ids = [await old(pool, made(days), days) for days in (8, 100)]
    await walk(archive)
    older, younger = [partition.span for partition in await archive.partitions()]
    async with pool.connection() as reader, reader.transaction():
        await (await reader.execute("SELECT * FROM notification_history")).fetchall()
        assert not await archive.drop(older)
        assert len(await moved(pool)) == 2  # whoever stood behind it went on

    assert await archive.drop(older)
    assert await archive.drop(older)
    assert await moved(pool) == [(ids[0], KEPT_DAYS_DEFAULT)]
    assert [partition.span for partition in await archive.partitions()] == [younger]


async def test_a_partition_is_made_while_the_history_is_read_and_written(pool: Pool, archive: PostgresArchive) -> None:
    await old(pool, made(8), 8)
    await walk(archive)
    async with pool.connection() as other, other.transaction():
        await (await other.execute("SELECT * FROM notification_history")).fetchall()
        await other.execute("UPDATE notification_history SET reason = 'x'")
        await archive.prepare([span_of(KEPT_DAYS_DEFAULT, 10_000)])

    assert len(await archive.partitions()) == 2


# --- reading


async def full(pool: Pool, id: str) -> str:
    """A notification of which everything is known that can be."""
    at = now() - 8 * DAY
    named = {
        name: f"{name}_1" for name in ("user_id", "locale", "idempotency_key", "provider", "topic", "correlation_id", "event_id")
    }
    ids = {"template_id": uuid7(1, 1), "provider_config_id": CONFIG, "provider_message_id": "m1"}
    await old(pool, id, 8, "delivered", attempts=2, unknowns=1, expires_at=at + DAY, next_retry_at=at, bulk=True, **named, **ids)
    await pool.execute("UPDATE notifications SET decisions = %s WHERE id = %s", (Jsonb([{"step": "rule"}]), id))
    await insert_attempt(pool, id, 1, "unknown", provider="sendgrid", next_retry_at=at)
    await insert_attempt(pool, id, 2, "delivered", provider_config_id=CONFIG, api_key_id=CONFIG)
    for number, kind in enumerate(("delivered", "opened")):
        columns = {"key": uuid7(number, 1), "organization_id": "acme", "config_id": CONFIG, "code": "c", "kind": kind}
        await insert(pool, "feedback", notification_id=id, at=at + number * DAY, **columns)
    await insert(pool, "confirmations", notification_id=id, state="delivered", rank=3, code="c", at=at)
    return id


async def test_nobody_sees_that_a_notification_has_moved(pool: Pool, archive: PostgresArchive) -> None:
    id = await full(pool, made(9))
    before = await notifications.read(pool, ACME, id)
    chain = await decisions_of(pool, ACME, id)
    assert await walk(archive) == Moved(1)

    assert await notifications.read(pool, ACME, id) == before
    assert before is not None
    assert len(before.timeline) == 5
    assert await decisions_of(pool, ACME, id) == chain == ([{"step": "rule"}], "event_id_1", "topic_1", "correlation_id_1")
    assert await decisions_of(pool, GLOBEX, id) == (None, None, None, None)
    assert await pool.fetch("SELECT bulk FROM notification_history") == [(True,)]
    await pool.execute("DELETE FROM feedback")  # which is kept for less long
    assert await notifications.read(pool, ACME, id) == before
    assert await notifications.read(pool, GLOBEX, id) is None
    for table in ("notifications", "attempts", "confirmations"):
        assert await pool.fetch(f"SELECT FROM {table}") == []


async def test_a_list_goes_on_in_history_in_the_same_order(pool: Pool, archive: PostgresArchive) -> None:
    for number in range(12):
        # Some that came later have ended earlier, and what is pending may be older than all.
        days = 8 if number % 3 else 1
        status = ("delivered", "failed", "queued")[number % 4 % 3]
        channel = ("email", "sms")[number % 2]
        await old(pool, made(20 - number, number), days, status, ("acme", "globex")[number == 5], channel=channel)
    which: list[tuple[Status | None, Channel | None]] = [
        (None, None),
        (Status.DELIVERED, None),
        (Status.QUEUED, None),
        (Status.FAILED, Channel.SMS),
    ]

    async def listed(size: int) -> list[list[notifications.NotificationSummary]]:
        found = []
        for status, channel in which:
            items: list[notifications.NotificationSummary] = []
            page = await notifications.read_page(pool, ACME, status, channel, PageRequest(size=size))
            items.extend(page.items)
            while page.next is not None:
                page = await notifications.read_page(pool, ACME, status, channel, PageRequest(page.next, size))
                items.extend(page.items)
            found.append(items)
        return found

    before = await listed(250)
    result = await walk(archive)

    assert 0 < result.kept < 11
    assert len(before[0]) == 11
    assert await listed(250) == await listed(2) == before


async def test_what_has_moved_is_too_late_to_be_canceled_and_says_what_it_is(pool: Pool, archive: PostgresArchive) -> None:
    ids = [NotificationId(await old(pool, made(9, n), 8, status)) for n, status in enumerate(("delivered", "canceled"))]
    schedule = PostgresSchedule(pool)
    before = [await schedule.cancel(ACME, id) for id in ids]
    await walk(archive)

    assert [await schedule.cancel(ACME, id) for id in ids] == before
    assert [each.status for each in before if each is not None] == [Status.DELIVERED, Status.CANCELED]
    assert await schedule.cancel(GLOBEX, ids[0]) is None


async def test_one_is_looked_for_only_where_it_can_be(pool: Pool, archive: PostgresArchive) -> None:
    spans = {span_of(30, int(now().timestamp() // 86_400) - days) for days in range(31)}
    await archive.prepare(spans)
    id = made(8)
    plan = str(
        await pool.fetch(
            f"EXPLAIN (COSTS OFF) SELECT id FROM notification_history WHERE organization_id = 'acme' AND id = '{id}' "
            f"AND updated_at >= '{now() - 8 * DAY - DAY / 24}'"
        )
    )

    looked_at = [span for span in spans if span.name in plan]
    assert 9 <= len(looked_at) <= 10
    assert min(looked_at) >= span_of(30, int(now().timestamp() // 86_400) - 9)


# --- what comes late


def report(id: str, kind: FeedbackKind, code: str = "c", number: int = 1) -> Report:
    feedback = Feedback(uuid7(number, number), kind, code, now().timestamp(), notification_id=NotificationId(id))
    return Report(ACME, CONFIG, "sendgrid", Channel.EMAIL, feedback)


async def confirmed(pool: Pool, id: str) -> tuple[str, str] | None:
    detail = await notifications.read(pool, ACME, id)
    assert detail is not None
    listed = (await notifications.read_page(pool, ACME, None, None, EVERYTHING)).items
    assert [each for each in listed if each.id == id] == [detail.summary]
    known = detail.summary.confirmation
    return None if known is None else (known.state.value, known.code)


@pytest.mark.parametrize("is_confirmed", [False, True])
async def test_a_report_that_comes_late_is_known_of_what_has_moved(
    pool: Pool, archive: PostgresArchive, is_confirmed: bool
) -> None:
    id, feedback = await old(pool, made(9), 8), PostgresFeedback(pool)
    if is_confirmed:
        await feedback.take([report(id, FeedbackKind.DELIVERED)])
    await walk(archive)

    late = report(id, FeedbackKind.COMPLAINED, number=2)
    taken, again = await feedback.take([late]), await feedback.take([late])

    assert [(each.id, each.state) for each in taken.confirmed] == [(id, FeedbackKind.COMPLAINED)]
    assert [change.status.value for change in taken.contacts] == ["complained"]
    assert (len(taken.fresh), len(again.fresh), again.known, again.confirmed) == (1, 0, 1, [])
    assert await confirmed(pool, id) == ("complained", "c")
    detail = await notifications.read(pool, ACME, id)
    assert detail is not None
    assert [entry.event for entry in detail.timeline][-1] == "feedback.complained"

    assert await archive.confirm(FIRST_ID, 10) == (1, None)
    assert await pool.fetch("SELECT FROM confirmations") == []
    assert await confirmed(pool, id) == ("complained", "c")


async def test_of_two_confirmations_the_one_that_says_more_stays(pool: Pool, archive: PostgresArchive) -> None:
    id, feedback = await old(pool, made(9), 8), PostgresFeedback(pool)
    await feedback.take([report(id, FeedbackKind.COMPLAINED)])
    await walk(archive)
    await feedback.take([report(id, FeedbackKind.DELIVERED, number=2)])

    assert await confirmed(pool, id) == ("complained", "c")
    assert await archive.confirm(FIRST_ID, 10) == (0, None)
    assert await confirmed(pool, id) == ("complained", "c")
    assert await pool.fetch("SELECT FROM confirmations") == []


async def test_confirmations_of_what_has_not_moved_stay_where_they_are(pool: Pool, archive: PostgresArchive) -> None:
    stays, gone = await old(pool, made(9, 1), 1), made(9, 2)
    for id in (stays, gone):
        await insert(pool, "confirmations", notification_id=id, state="delivered", rank=3, code="c", at=now())

    assert await archive.confirm(FIRST_ID, 1) == (0, min(stays, gone))
    assert await archive.confirm(FIRST_ID, 10) == (0, None)
    assert await pool.fetch("SELECT notification_id FROM confirmations") == [(stays,)]


async def test_a_foreign_report_finds_nothing_in_history(pool: Pool, archive: PostgresArchive) -> None:
    id = await old(pool, made(9), 8, organization_id="globex")
    await walk(archive)
    taken = await PostgresFeedback(pool).take([report(id, FeedbackKind.COMPLAINED)])

    assert taken.confirmed == []
    assert await pool.fetch("SELECT FROM confirmations") == []


# --- dead letters, people, and small records


async def test_a_dead_letter_keeps_its_notification_until_somebody_decides(
    pool: Pool, archive: PostgresArchive, new_id: Callable[[], str]
) -> None:
    at = now() - 8 * DAY
    kept, dropped = [await insert_dead_letter(pool, new_id(), updated_at=at) for _ in range(2)]
    assert await walk(archive) == Moved()
    await dead_letters.discard(pool, ACME, dropped)

    assert await walk(archive) == Moved(1)
    assert await here(pool) == {kept}
    assert (await dead_letters.count(pool, ACME, LetterFilter())).rows == 1
    detail = await notifications.read(pool, ACME, dropped)
    assert detail is not None
    assert [entry.event for entry in detail.timeline] == ["created", "failed", "discarded"]


async def test_erasing_a_person_blanks_their_history_and_leaves_the_rest(pool: Pool, archive: PostgresArchive) -> None:
    ids = [await old(pool, made(9, n), 8, user_id=user, locale="pt") for n, user in enumerate(("ada", "ada", "bob", None))]
    foreign = await old(pool, made(9, 9), 8, organization_id="globex", user_id="ada")
    await walk(archive)
    async with pool.connection() as connection, connection.transaction():
        theirs = await history_of_user(connection, ACME, "ada")
        erased = await erase_history(connection, ACME, "ada")

    assert [row["id"] for row in theirs] == ids[:2]
    assert theirs[0]["recipient"] == "somebody@example.org"
    assert erased == 2
    rows = await pool.fetch("SELECT id, user_id, recipient, payload, status FROM notification_history ORDER BY id")
    blank: list[tuple[Any, ...]] = [(id, None, "", {}, "delivered") for id in ids[:2]]
    assert [row for row in rows if row[0] in ids[:2]] == blank
    assert {row[0] for row in rows if row[2]} == {*ids[2:], foreign}


async def test_events_and_answers_are_forgotten_when_keys_are_a_few_at_a_time(pool: Pool, archive: PostgresArchive) -> None:
    for number, days in enumerate((1, 6.9, 7.1, 8, 9)):
        at, name = now() - days * DAY, f"e{number}"
        await insert(pool, "events", organization_id="acme", id=name, type="t", request_hash=b"", received_at=at, answer="{}")
        await insert(
            pool, "batch_answers", organization_id="acme", idempotency_key=name, request_hash=b"", answer="{}", created_at=at
        )

    assert [await archive.forget(2) for _ in range(3)] == [4, 2, 0]
    assert await pool.fetch("SELECT id FROM events ORDER BY id") == [("e0",), ("e1",)]
    assert await pool.fetch("SELECT idempotency_key FROM batch_answers ORDER BY 1") == [("e0",), ("e1",)]


def test_a_span_sorts_by_class_and_age() -> None:
    assert sorted([Span(30, 5), Span(7, 9), Span(30, 4)]) == [Span(7, 9), Span(30, 4), Span(30, 5)]
    assert attrs.asdict(Span(7, 9)) == {"kept_days": 7, "first_day": 9}
