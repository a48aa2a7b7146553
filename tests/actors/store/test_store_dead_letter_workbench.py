"""Many dead letters at once: found by filter, counted honestly, given another chance one after the other, never twice."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import trio

from actors.io.postgres import Pool
from actors.store import dead_letter_filter, dead_letter_groups, dead_letters, notifications
from actors.store.dead_letter_export import Person, read_letters
from actors.store.dead_letter_filter import LetterFilter
from actors.store.dead_letter_groups import read_groups
from actors.store.dead_letters import Count, Pace
from actors.store.page import PageRequest
from dispatcher.model import Channel, DeadLetterReason, OrganizationId, Status
from store_rows import START, insert, insert_letter_of, insert_notification

ACME, GLOBEX = OrganizationId("acme"), OrganizationId("globex")
KEY = "01940000-0000-7000-8000-00000000000a"
Ids = Callable[[], str]
EVERYTHING = LetterFilter()


async def found(pool: Pool, which: LetterFilter) -> list[str]:
    return [letter.notification_id for letter in (await dead_letters.read_page(pool, ACME, which, PageRequest())).items]


async def requeue(
    pool: Pool, which: LetterFilter = EVERYTHING, limit: int = 100, pace: Pace | None = None
) -> dead_letters.Requeued:
    return await dead_letters.requeue_many(pool, ACME, which, limit, pace or Pace(), 8, KEY)


async def detail(pool: Pool, id: str) -> notifications.NotificationDetail:
    found = await notifications.read(pool, ACME, id)
    assert found is not None
    return found


async def statuses(pool: Pool) -> dict[str, int]:
    return dict(await pool.fetch("SELECT status, count(*) FROM notifications GROUP BY status"))


# --- the filter ---------------------------------------------------------------------------------------------------------


async def add_template(pool: Pool, id: str, name: str, organization_id: str = "acme", version: int = 1) -> str:
    await insert(
        pool,
        "notification_templates",
        id=id,
        organization_id=organization_id,
        name=name,
        channel="email",
        locale="en",
        version=version,
        body_template="Hello",
    )
    return id


async def test_each_part_of_a_filter_narrows_and_all_together_meet(pool: Pool, new_id: Ids) -> None:
    first = await add_template(pool, new_id(), "welcome")
    second = await add_template(pool, new_id(), "welcome", version=2)
    theirs = await add_template(pool, new_id(), "welcome", "globex")
    plain = await insert_letter_of(pool, new_id())
    other = await insert_letter_of(
        pool,
        new_id(),
        reason="exhausted",
        code="http_503",
        channel="sms",
        provider="twilio",
        created_at=START + timedelta(hours=1),
        columns={"template_id": first},
    )
    expired = await insert_letter_of(
        pool,
        new_id(),
        reason="expired",
        code="expired",
        provider=None,
        created_at=START + timedelta(hours=2),
        columns={"template_id": second},
    )
    await insert_letter_of(pool, new_id(), organization_id="globex", columns={"template_id": theirs})

    assert await found(pool, EVERYTHING) == [expired, other, plain]
    assert await found(pool, LetterFilter(reason=DeadLetterReason.EXHAUSTED)) == [other]
    assert await found(pool, LetterFilter(code="http_400")) == [plain]
    assert await found(pool, LetterFilter(channel=Channel.SMS)) == [other]
    assert await found(pool, LetterFilter(provider="sendgrid")) == [plain]
    assert await found(pool, LetterFilter(provider=dead_letter_filter.NO_PROVIDER)) == [expired]
    assert await found(pool, LetterFilter(template=first)) == [other]
    assert await found(pool, LetterFilter(template="welcome")) == [expired, other]
    assert await found(pool, LetterFilter(template=theirs)) == await found(pool, LetterFilter(template="farewell")) == []
    assert await found(pool, LetterFilter(created_from=START + timedelta(hours=1))) == [expired, other]
    assert await found(pool, LetterFilter(created_before=START + timedelta(hours=1))) == [plain]
    assert await found(pool, LetterFilter(ids=[plain, expired, new_id()])) == [expired, plain]
    assert await found(pool, LetterFilter(code="http_503", channel=Channel.SMS, template="welcome", ids=[other])) == [other]
    assert await found(pool, LetterFilter(code="http_503", channel=Channel.EMAIL)) == []
    assert [
        letter.notification_id
        for letter in await read_letters(pool, ACME, LetterFilter(template="welcome"), expired, people=False)
    ] == [other]


# --- groups ---------------------------------------------------------------------------------------------------------------


async def test_letters_are_grouped_by_cause_the_largest_first(pool: Pool, new_id: Ids) -> None:
    soft = [
        await insert_letter_of(pool, new_id(), reason="exhausted", code="http_503", created_at=START + timedelta(minutes=minute))
        for minute in range(5)
    ]
    hard = [await insert_letter_of(pool, new_id(), provider=provider) for provider in (None, "sendgrid", None)]
    await insert_letter_of(pool, new_id(), organization_id="globex")

    groups = await read_groups(pool, ACME, EVERYTHING)

    assert not groups.more
    assert [(g.reason.value, g.code, g.channel.value, g.provider, g.count) for g in groups.groups] == [
        ("exhausted", "http_503", "email", "sendgrid", Count(5)),
        ("hard", "http_400", "email", None, Count(2)),
        ("hard", "http_400", "email", "sendgrid", Count(1)),
    ]
    assert (groups.groups[0].oldest_at, groups.groups[0].newest_at) == (START, START + timedelta(minutes=4))
    assert groups.groups[0].examples == soft[:-4:-1]
    assert groups.groups[2].examples == [hard[1]]


async def test_groups_can_be_narrowed_by_cause_and_time(pool: Pool, new_id: Ids) -> None:
    for minute in range(4):
        await insert_letter_of(pool, new_id(), created_at=START + timedelta(minutes=minute))
    await insert_letter_of(pool, new_id(), reason="expired", code="expired", provider=None)

    async def counts(which: LetterFilter) -> list[tuple[str, int]]:
        return [(group.code, group.count.rows) for group in (await read_groups(pool, ACME, which)).groups]

    assert await counts(LetterFilter(reason=DeadLetterReason.EXPIRED)) == [("expired", 1)]
    assert await counts(LetterFilter(provider=dead_letter_filter.NO_PROVIDER)) == [("expired", 1)]
    assert await counts(LetterFilter(provider="sendgrid", created_from=START + timedelta(minutes=2))) == [("http_400", 2)]
    assert await counts(LetterFilter(created_before=START)) == []
    assert await counts(LetterFilter(code="nothing")) == []


async def test_a_count_that_is_cut_short_says_so(pool: Pool, new_id: Ids, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_groups, "COUNT_MAX", 2)
    for _ in range(3):
        await insert_letter_of(pool, new_id())
    for _ in range(2):
        await insert_letter_of(pool, new_id(), code="http_403")

    groups = await read_groups(pool, ACME, EVERYTHING)

    assert {group.code: group.count for group in groups.groups} == {"http_400": Count(2, more=True), "http_403": Count(2)}
    assert await dead_letters.count(pool, ACME, EVERYTHING, 4) == Count(4, more=True)
    assert await dead_letters.count(pool, ACME, EVERYTHING, 5) == Count(5)


async def test_causes_past_the_limit_are_said_to_be_there(pool: Pool, new_id: Ids, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_groups, "GROUPS_MAX", 2)
    for code in ("a", "b"):
        await insert_letter_of(pool, new_id(), code=code)

    assert not (await read_groups(pool, ACME, EVERYTHING)).more
    await insert_letter_of(pool, new_id(), code="c")
    groups = await read_groups(pool, ACME, EVERYTHING)

    assert ([group.code for group in groups.groups], groups.more) == (["a", "b"], True)


# --- requeue ----------------------------------------------------------------------------------------------------------------


async def test_a_pace_gives_each_its_turn_oldest_first(pool: Pool, new_id: Ids) -> None:
    ids = [await insert_letter_of(pool, new_id()) for _ in range(5)]

    done = await requeue(pool, limit=4, pace=Pace(per_s=0.5))

    assert [id for id, _ in done.due] == ids[:4]
    assert [round(due_in_s) for _, due_in_s in done.due] == [2, 4, 6, 8]
    assert done.left == Count(1)
    rows = [(await detail(pool, id)).summary for id in ids]
    assert [row.status for row in rows] == [Status.QUEUED] * 4 + [Status.FAILED]
    assert rows[3].next_retry_at == done.last_due_at
    times = [row.next_retry_at for row in rows[:4] if row.next_retry_at]
    assert [(later - sooner).total_seconds() for sooner, later in itertools.pairwise(times)] == [2.0] * 3


async def test_without_a_pace_they_are_due_at_once_or_at_the_given_time(pool: Pool, new_id: Ids) -> None:
    start_at = datetime.now(UTC) + timedelta(hours=1)
    past = datetime.now(UTC) - timedelta(hours=1)
    now, later, paced = [await insert_letter_of(pool, new_id()) for _ in range(3)]

    at_once = await requeue(pool, LetterFilter(ids=[now]), pace=Pace(start_at=past))
    tonight = await requeue(pool, LetterFilter(ids=[later]), pace=Pace(start_at=start_at))
    following = await requeue(pool, LetterFilter(ids=[paced]), pace=Pace(1.0, start_at))

    assert (at_once.due, at_once.last_due_at) == ([(now, 0.0)], None)
    assert tonight.last_due_at == start_at
    assert following.last_due_at == start_at + timedelta(seconds=1)


async def test_a_requeue_begins_a_new_round_and_says_who_wanted_it(pool: Pool, new_id: Ids) -> None:
    id = await insert_letter_of(pool, new_id(), columns={"attempts": 8, "rescues": 5, "unknowns": 2})

    await requeue(pool)

    after = await detail(pool, id)
    assert (after.summary.attempts, after.summary.attempts_max, after.summary.unknowns) == (8, 16, 2)
    assert [(step.event, step.api_key_id) for step in after.timeline] == [("created", None), ("requeued", KEY)]
    assert await pool.fetch("SELECT rescues FROM notifications") == [(0,)]


async def test_a_deadline_that_will_pass_before_its_turn_is_dropped(pool: Pool, new_id: Ids) -> None:
    now = datetime.now(UTC)
    expiries = [now - timedelta(hours=1), now + timedelta(seconds=30), now + timedelta(hours=1)]
    ids = [await insert_letter_of(pool, new_id(), columns={"expires_at": at}) for at in expiries]

    await requeue(pool, pace=Pace(per_s=0.01))

    assert [(await detail(pool, id)).summary.expires_at for id in ids] == [None, None, expiries[2]]


async def test_a_repeat_finds_nothing_twice_and_takes_what_is_left(pool: Pool, new_id: Ids) -> None:
    for _ in range(5):
        await insert_letter_of(pool, new_id())

    rounds = [await requeue(pool, limit=3) for _ in range(3)]

    assert [(len(done.due), done.left.rows) for done in rounds] == [(3, 2), (2, 0), (0, 0)]
    assert len(await pool.fetch("SELECT FROM attempts")) == 5


async def test_a_preview_says_what_would_happen_and_changes_nothing(pool: Pool, new_id: Ids) -> None:
    for _ in range(5):
        await insert_letter_of(pool, new_id())

    would = await dead_letters.preview(pool, ACME, EVERYTHING, 3, Pace(per_s=0.1))
    nothing = await dead_letters.preview(pool, ACME, LetterFilter(code="x"), 3, Pace(per_s=0.1))

    assert (would.rows, would.left) == (3, Count(2))
    assert would.last_due_at is not None
    assert timedelta(seconds=20) < would.last_due_at - datetime.now(UTC) < timedelta(seconds=40)
    assert (nothing.rows, nothing.last_due_at, nothing.left) == (0, None, Count(0))
    assert await statuses(pool) == {"failed": 5}


async def test_other_organizations_and_living_notifications_are_left_alone(pool: Pool, new_id: Ids) -> None:
    foreign = await insert_letter_of(pool, new_id(), organization_id="globex")
    living = await insert_notification(pool, new_id())

    for which in (EVERYTHING, LetterFilter(ids=[foreign, living])):
        assert (await requeue(pool, which)).due == []
        assert (await dead_letters.discard_many(pool, ACME, which, 10, KEY)).rows == 0
    assert await dead_letters.count(pool, GLOBEX, EVERYTHING) == Count(1)


@pytest.mark.parametrize("reason", list(DeadLetterReason))
async def test_only_whoever_requeues_a_doubt_has_decided_about_it(pool: Pool, new_id: Ids, reason: DeadLetterReason) -> None:
    """A letter of another cause keeps its doubt for the channel's policy, whether it is requeued alone or with others."""
    decided = reason in {DeadLetterReason.UNKNOWN, DeadLetterReason.POISON}
    doubt = {"unknowns": 1, "unknown_since": START, "unknown_last": START + timedelta(minutes=1)}
    one, other = [await insert_letter_of(pool, new_id(), columns=dict(doubt), reason=reason.value) for _ in range(2)]

    await dead_letters.requeue(pool, ACME, one, 8, KEY)
    assert [id for id, _ in (await requeue(pool)).due] == [other]
    rows = await pool.fetch("SELECT status, unknowns::int, unknown_since, unknown_last FROM notifications")
    kept = (None, None) if decided else (doubt["unknown_since"], doubt["unknown_last"])

    assert rows == [("queued", 1, *kept)] * 2


# --- discard ------------------------------------------------------------------------------------------------------------------


async def test_discarded_ones_stay_failed_and_their_timeline_ends_with_who_did_it(pool: Pool, new_id: Ids) -> None:
    ids = [await insert_letter_of(pool, new_id(), columns={"reason": "http_400"}) for _ in range(3)]

    one = await dead_letters.discard(pool, ACME, ids[0], KEY)
    done = await dead_letters.discard_many(pool, ACME, EVERYTHING, 1, KEY)

    assert (one, done.rows, done.left) == (True, 1, Count(1))
    for id in ids[:2]:
        after = await detail(pool, id)
        assert after.summary.status is Status.FAILED
        assert [(step.event, step.api_key_id) for step in after.timeline] == [
            ("created", None),
            ("failed", None),
            ("discarded", KEY),
        ]
    assert (await requeue(pool)).left == Count(0)


# --- export -------------------------------------------------------------------------------------------------------------------


async def test_an_export_knows_people_only_where_it_is_told_to(pool: Pool, new_id: Ids) -> None:
    template = await add_template(pool, new_id(), "welcome")
    id = await insert_letter_of(
        pool, new_id(), columns={"template_id": template, "user_id": "u-1", "idempotency_key": "order-1", "locale": "en"}
    )

    (with_people,) = await read_letters(pool, ACME, EVERYTHING, None, people=True)
    (without,) = await read_letters(pool, ACME, EVERYTHING, None, people=False)

    assert with_people.person == Person("somebody@example.org", "u-1", "order-1")
    assert without.person is None
    assert (without.notification_id, without.template_id, without.template, without.locale) == (id, template, "welcome", "en")
    assert "somebody" not in repr(with_people)


# --- at the same time ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def letters(pool: Pool, new_id: Ids) -> list[str]:
    return [await insert_letter_of(pool, new_id()) for _ in range(40)]


async def all_at_once(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    answers: dict[int, Any] = {}

    async def make(index: int) -> None:
        answers[index] = await calls[index]()

    async with trio.open_nursery() as nursery:
        for index in range(len(calls)):
            nursery.start_soon(make, index)
    return [answers[index] for index in range(len(calls))]


async def test_requeues_and_discards_at_once_share_the_letters(pool: Pool, letters: list[str]) -> None:
    async def requeued() -> set[str]:
        return {id for id, _ in (await requeue(pool, limit=15)).due}

    async def discarded() -> int:
        return (await dead_letters.discard_many(pool, ACME, EVERYTHING, 15, KEY)).rows

    async def one() -> str | None:
        return await dead_letters.requeue(pool, ACME, letters[0], 8, KEY)

    first, second, dropped, single = await all_at_once(requeued, requeued, discarded, one)

    taken = len(first) + len(second) + (single is not None)
    assert not first & second
    assert single not in first | second
    assert (await statuses(pool)).get("queued", 0) == taken
    steps = await pool.fetch("SELECT outcome, count(*) FROM attempts GROUP BY outcome")
    assert dict(steps) == {name: count for name, count in (("requeued", taken), ("discarded", dropped)) if count}
    assert await dead_letters.count(pool, ACME, EVERYTHING) == Count(40 - taken - dropped)


async def test_a_letter_that_is_being_discarded_is_passed_over_and_not_waited_for(
    pool: Pool, letters: list[str], database_url: str
) -> None:
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM notifications WHERE id = %s FOR NO KEY UPDATE", [letters[0]])
        with trio.fail_after(10):
            done = await requeue(pool)
        other.execute("DELETE FROM dead_letters WHERE notification_id = %s", [letters[0]])

    assert [id for id, _ in done.due] == letters[1:]
    assert (await requeue(pool)).due == []


async def test_what_is_being_erased_is_neither_requeued_nor_waited_for(pool: Pool, letters: list[str], database_url: str) -> None:
    with psycopg.connect(database_url) as eraser:
        eraser.execute("DELETE FROM notifications WHERE id = ANY(%s::uuid[])", [letters[20:]])
        with trio.fail_after(10):
            done = await requeue(pool)
        eraser.commit()

    assert [id for id, _ in done.due] == letters[:20]
    assert await statuses(pool) == {"queued": 20}
    assert (await requeue(pool)).left == Count(0)
