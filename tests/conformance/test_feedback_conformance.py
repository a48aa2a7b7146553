"""Reports, confirmations and contacts: one behaviour, in memory and on Postgres."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import permutations
from random import Random
from typing import Any

import pytest
from attrs import evolve, frozen

from actors.feedback_ports import JOIN_WINDOW_S, KEPT_S, FeedbackStore, Report
from actors.io.postgres import Pool, open_pool
from actors.memory_feedback import MemoryFeedback
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase
from actors.ports import Admission, BatchAnswer, Store
from actors.store import contacts
from actors.store.dispatching import PostgresStore
from actors.store.feedback import PostgresFeedback
from dispatcher.contacts import ContactStatus, address_of
from dispatcher.feedback.feedback import SOFT_BOUNCES_MAX, Feedback, FeedbackKind
from dispatcher.ids import uuid7
from dispatcher.messages import ProviderPolicy, Verdict
from dispatcher.model import Channel, DeadLetterReason, NotificationId, OrganizationId, Status
from dispatcher.outcome import Outcome, OutcomeClass

ACME, OTHER = OrganizationId("acme"), OrganizationId("other")
OURS = "0198c000-0000-7000-8000-00000000000a"
CONFIG = "0198c000-0000-7000-8000-0000000000c1"
ADA = "Ada@example.org"
VIA = ProviderPolicy(CONFIG, 1, "twilio", Channel.EMAIL, None, 1, 8)
Rows = Callable[..., Awaitable[Any]]


@frozen
class World:
    """One database: the two ports, and a look at it."""

    store: Store
    feedback: FeedbackStore
    now_s: float
    age: Rows  # makes everything taken in so far older
    confirmed: Rows  # (state, code) of a notification
    status: Rows  # of a contact
    reset: Rows  # make a contact active by hand


async def in_memory() -> AsyncIterator[World]:
    now = [1_700_000_000.0]
    database = MemoryDatabase(lambda: now[0])

    async def age(seconds: float) -> None:
        now[0] += seconds

    async def confirmed(id: NotificationId) -> Any:
        known = database.confirmations.get(id)
        return None if known is None else (known.state.value, known.code)

    async def status(recipient: str, organization_id: OrganizationId = ACME) -> Any:
        return database.suppressed_as(organization_id, Channel.EMAIL, recipient) or ContactStatus.ACTIVE

    async def reset(recipient: str) -> None:
        row = database.make_contact(ACME, Channel.EMAIL, recipient)
        row.contact = row.contact.reset(now[0])

    store = MemoryStore(database, OURS)
    await store.register(1000.0)
    yield World(store, MemoryFeedback(database), now[0], age, confirmed, status, reset)


async def on_postgres(pool: Pool) -> AsyncIterator[World]:
    now_s = time.time()
    await pool.execute("INSERT INTO organizations (id, name) VALUES ('acme', 'Acme'), ('other', 'Other')")
    await pool.execute(
        "INSERT INTO delivery_provider_configs (id, organization_id, provider, channel, credentials) VALUES (%s, %s, %s, %s, %s)",
        (CONFIG, ACME, "twilio", "email", b"x"),
    )

    async def age(seconds: float) -> None:
        await pool.execute("UPDATE feedback SET received_at = received_at - make_interval(secs => %s)", (seconds,))

    async def confirmed(id: NotificationId) -> Any:
        rows = await pool.fetch("SELECT state, code FROM confirmations WHERE notification_id = %s", (id,))
        return rows[0] if rows else None

    async def status(recipient: str, organization_id: OrganizationId = ACME) -> Any:
        rows = await pool.fetch(
            "SELECT status FROM contacts WHERE organization_id = %s AND channel = 'email' AND address = %s",
            (organization_id, address_of(Channel.EMAIL, recipient)),
        )
        return ContactStatus(rows[0][0]) if rows else ContactStatus.ACTIVE

    async def reset(recipient: str) -> None:
        await contacts.change(pool, ACME, [contacts.Wanted(Channel.EMAIL, recipient, ContactStatus.ACTIVE)], None)

    store = PostgresStore(pool, OURS)
    await store.register(1000.0)
    yield World(store, PostgresFeedback(pool), now_s, age, confirmed, status, reset)


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        async for found in in_memory():
            yield found
        return
    url: str = request.getfixturevalue("database_url")
    async with open_pool(url, size_max=3, connect_deadline_s=10, statement_deadline_s=10, random=Random(1)) as pool:
        async for found in on_postgres(pool):
            yield found


def admission(
    world: World, number: int, recipient: str = ADA, organization_id: OrganizationId = ACME, **fields: Any
) -> Admission:
    id = NotificationId(uuid7(int(world.now_s * 1000), number))
    row = {
        "id": id,
        "organization_id": ACME,
        "channel": "email",
        "attempts_max": 8,
        "created_at": world.now_s - 1,
        "expires_at": None,
        "user_id": None,
        "recipient": recipient,
        "payload": {"subject": "Hi", "text": "There."},
        "template_id": None,
        "locale": None,
        "idempotency_key": None,
        "request_hash": b"hash".hex(),
        **fields,
    }
    return Admission(ACME, id, row["idempotency_key"], b"hash", row)


def report(world: World, kind: FeedbackKind, number: int = 0, organization_id: OrganizationId = ACME, **fields: Any) -> Report:
    """Number ``number``: so many seconds before now."""
    known = Feedback(f"{kind}-{number}", kind, f"{kind}_code", round(world.now_s) - 1000.0 + number, **fields)
    return Report(organization_id, CONFIG, "twilio", Channel.EMAIL, known)


async def accepted(world: World, number: int = 1, **fields: Any) -> NotificationId:
    one = admission(world, number, **fields)
    assert not (await world.store.insert([one], ())).suppressed
    return one.id


async def sent(world: World, id: NotificationId, outcome: Outcome) -> None:
    """Gate it and record how the attempt ended."""
    (gated,) = (await world.store.gate([id], (), again=False)).values()
    (delivery,) = gated.deliveries
    delivered = outcome.kind is OutcomeClass.DELIVERED
    status, dead = (Status.DELIVERED, None) if delivered else (Status.FAILED, DeadLetterReason.SUPPRESSED)
    assert await world.store.record([Verdict(delivery, outcome, VIA, status, dead=dead)], again=False)


async def test_in_whatever_order_reports_come_the_end_is_the_same(world: World) -> None:
    kinds = (FeedbackKind.DELIVERED, FeedbackKind.READ, FeedbackKind.COMPLAINED)
    for number, order in enumerate(permutations(kinds), 1):
        recipient = f"guest{number}@example.org"
        id = await accepted(world, number, recipient=recipient)
        for kind in (*order, order[0]):
            await world.feedback.take([report(world, kind, number, notification_id=id)])

        assert await world.confirmed(id) == ("complained", "complained_code")
        assert await world.status(recipient) is ContactStatus.COMPLAINED


async def test_what_comes_twice_is_told_from_what_is_new(world: World) -> None:
    id = await accepted(world)
    delivered, read = (report(world, kind, notification_id=id) for kind in (FeedbackKind.DELIVERED, FeedbackKind.READ))

    first = await world.feedback.take([delivered, delivered])
    second = await world.feedback.take([delivered, read])

    assert (first.new, first.known, [one.state for one in first.confirmed]) == (1, 1, ["delivered"])
    assert (second.new, second.known, [one.state for one in second.confirmed]) == (1, 1, ["read"])
    assert (await world.feedback.take([delivered])).confirmed == []


async def test_a_delivery_is_timed_from_when_its_provider_took_it_on(world: World) -> None:
    id, early = await accepted(world, 1), await accepted(world, 2)
    await sent(world, id, Outcome(OutcomeClass.DELIVERED, "accepted", "m-1"))
    after = report(world, FeedbackKind.DELIVERED, notification_id=id)
    after = evolve(after, feedback=evolve(after.feedback, at_unix_s=world.now_s + 90.0))

    (timed,) = (await world.feedback.take([after])).confirmed
    (untimed,) = (await world.feedback.take([report(world, FeedbackKind.DELIVERED, 2, notification_id=early)])).confirmed

    assert timed.provider == "twilio"
    assert timed.after_s is not None
    assert 60.0 < timed.after_s < 120.0
    assert untimed.after_s is None  # it is not on record yet that it was taken on


async def test_a_report_that_comes_first_waits_for_its_notification(world: World) -> None:
    id = await accepted(world)
    early = await world.feedback.take([report(world, FeedbackKind.BOUNCED, provider_message_id="SM1")])
    assert (early.new, early.parked, early.confirmed) == (1, 1, [])
    assert (await world.feedback.join(10))[0].new == 0

    await sent(world, id, Outcome(OutcomeClass.DELIVERED, "accepted", "SM1"))
    taken, given_up = await world.feedback.join(10)

    assert ([one.id for one in taken.confirmed], given_up) == ([id], 0)
    assert [change.status for change in taken.contacts] == [ContactStatus.BOUNCED]
    assert await world.status(ADA) is ContactStatus.BOUNCED
    assert (await world.feedback.join(10))[0].new == 0


async def test_what_no_notification_can_be_found_by_waits_for_none(world: World) -> None:
    told = report(world, FeedbackKind.BOUNCED, provider_message_id="a-whole-request", recipient=ADA)

    taken = await world.feedback.take([evolve(told, provider="sendgrid")])

    assert (taken.new, taken.parked) == (1, 0)
    assert await world.status(ADA) is ContactStatus.BOUNCED
    await world.age(JOIN_WINDOW_S + 1)
    assert (await world.feedback.join(10))[1] == 0


async def test_a_report_nothing_ever_comes_of_is_given_up_and_counted_once(world: World) -> None:
    await world.feedback.take([report(world, FeedbackKind.BOUNCED, provider_message_id="SM1")])
    await world.age(JOIN_WINDOW_S + 1)

    assert [(await world.feedback.join(10))[1] for _ in range(2)] == [1, 0]


async def test_a_report_about_another_organizations_notification_is_about_nothing(world: World) -> None:
    id = await accepted(world)

    taken = await world.feedback.take([report(world, FeedbackKind.BOUNCED, 0, OTHER, notification_id=id)])

    assert not taken.confirmed
    assert not taken.contacts
    assert await world.confirmed(id) is None
    assert await world.status(ADA) is ContactStatus.ACTIVE


async def test_a_report_that_names_only_an_address_says_something_about_it(world: World) -> None:
    taken = await world.feedback.take([report(world, FeedbackKind.UNSUBSCRIBED, recipient="ADA@example.org")])

    assert [change.status for change in taken.contacts] == [ContactStatus.UNSUBSCRIBED]
    assert await world.status(ADA) is ContactStatus.UNSUBSCRIBED
    assert await world.status(ADA, OTHER) is ContactStatus.ACTIVE


async def test_to_leave_one_group_is_not_to_leave_all(world: World) -> None:
    await world.feedback.take([report(world, FeedbackKind.UNSUBSCRIBED, recipient=ADA, topic="7")])

    assert await world.status(ADA) is ContactStatus.ACTIVE


async def test_soft_bounces_count_until_something_is_delivered(world: World) -> None:
    id = await accepted(world)
    soft = [report(world, FeedbackKind.SOFT_BOUNCED, n, notification_id=id) for n in range(SOFT_BOUNCES_MAX)]
    await world.feedback.take(soft[:-1])
    assert await world.status(ADA) is ContactStatus.ACTIVE
    await world.feedback.take(soft)
    assert await world.status(ADA) is ContactStatus.BOUNCED

    taken = await world.feedback.take([report(world, FeedbackKind.DELIVERED, 500, notification_id=id)])

    assert [change.status for change in taken.contacts] == [ContactStatus.ACTIVE]
    assert await world.status(ADA) is ContactStatus.ACTIVE


async def test_what_is_for_a_suppressed_contact_is_not_inserted_unless_it_ignores_that(world: World) -> None:
    await world.feedback.take([report(world, FeedbackKind.BOUNCED, recipient=ADA)])
    for_ada, for_eve = admission(world, 1), admission(world, 2, "eve@example.org")
    in_spite = admission(world, 3, ignores_suppression=True)

    inserted = await world.store.insert([for_ada, for_eve, in_spite], ())

    assert inserted.suppressed == {for_ada.id: ContactStatus.BOUNCED}
    assert {id for gated in (await world.store.gate([for_ada.id, for_eve.id, in_spite.id], (), again=False)).values()
            for id in (delivery.id for delivery in gated.deliveries)} == {for_eve.id, in_spite.id}  # fmt: skip


async def test_a_complaint_is_never_ignored(world: World) -> None:
    await world.feedback.take([report(world, FeedbackKind.COMPLAINED, recipient=ADA)])
    in_spite = admission(world, 1, ignores_suppression=True)

    assert (await world.store.insert([in_spite], ())).suppressed == {in_spite.id: ContactStatus.COMPLAINED}
    assert await world.store.suppressed(ACME, [(Channel.EMAIL, ADA), (Channel.EMAIL, "eve@example.org")]) == {
        (Channel.EMAIL, ADA): ContactStatus.COMPLAINED
    }


async def test_the_answer_to_a_batch_knows_what_was_suppressed(world: World) -> None:
    await world.feedback.take([report(world, FeedbackKind.BOUNCED, recipient=ADA)])
    seen: list[Any] = []

    def answer(inserted: Any) -> bytes:
        seen.append(dict(inserted.suppressed))
        return b"{}"

    one = admission(world, 1)
    await world.store.insert([one], [BatchAnswer(ACME, "batch", b"hash", answer)])

    assert seen == [{one.id: ContactStatus.BOUNCED}]


async def test_what_waited_while_its_contact_was_lost_is_given_up_at_the_gate(world: World) -> None:
    id, other = await accepted(world), await accepted(world, 2, recipient="eve@example.org")
    await world.feedback.take([report(world, FeedbackKind.COMPLAINED, recipient=ADA)])

    (gated,) = (await world.store.gate([id, other], (), again=False)).values()

    assert [delivery.id for delivery in gated.deliveries] == [other]
    assert (list(gated.dropped), list(gated.suppressed)) == ([id], [(id, Channel.EMAIL, "contact_complained")])
    assert list((await world.store.gate([id], (), again=False))[ACME].dropped) == [id]


async def test_who_is_refused_for_good_at_sending_is_suppressed_with_the_verdict(world: World) -> None:
    id = await accepted(world)

    await sent(world, id, Outcome(OutcomeClass.SUPPRESS, "mailbox_gone"))

    assert await world.status(ADA) is ContactStatus.INVALID
    assert (await world.store.insert([admission(world, 2)], ())).suppressed


async def test_who_was_gone_before_the_contact_was_opened_again_stays_active(world: World) -> None:
    first, second = await accepted(world), await accepted(world, 2)
    await sent(world, first, Outcome(OutcomeClass.SUPPRESS, "mailbox_gone", since_unix_s=world.now_s - 900))
    assert await world.status(ADA) is ContactStatus.INVALID
    await world.reset(ADA)
    assert await world.status(ADA) is ContactStatus.ACTIVE

    await sent(world, second, Outcome(OutcomeClass.SUPPRESS, "mailbox_gone", since_unix_s=world.now_s - 800))

    assert await world.status(ADA) is ContactStatus.ACTIVE


async def test_old_reports_are_deleted_in_parts_and_what_they_said_stays(world: World) -> None:
    id = await accepted(world)
    old = [
        Report(
            ACME, CONFIG, "twilio", Channel.EMAIL, Feedback(f"e{n}", FeedbackKind.READ, "read", world.now_s - KEPT_S - 10 - n, id)
        )
        for n in range(3)
    ]
    await world.feedback.take([*old, report(world, FeedbackKind.DELIVERED, notification_id=id)])

    assert [await world.feedback.prune(2) for _ in range(3)] == [2, 1, 0]
    assert await world.confirmed(id) == ("read", "read")
    assert (await world.feedback.take([report(world, FeedbackKind.DELIVERED, notification_id=id)])).known == 1
