"""People as deciding sees them: one behaviour, in memory and on Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import time
from random import Random
from typing import Any

import orjson
import pytest
from attrs import evolve, frozen

from actors.feedback_ports import FeedbackStore, Report
from actors.io.postgres import Pool, open_pool
from actors.memory_feedback import MemoryFeedback
from actors.memory_people import MemoryPeople
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase
from actors.people_ports import People
from actors.ports import Admission, Store
from actors.store import contacts
from actors.store.dispatching import PostgresStore
from actors.store.feedback import PostgresFeedback
from actors.store.people import PostgresPeople
from dispatcher.contacts import Contact, ContactStatus
from dispatcher.feedback.feedback import Feedback, FeedbackKind
from dispatcher.messages import ProviderPolicy, Verdict
from dispatcher.model import Channel, DeadLetterReason, NotificationId, OrganizationId, Status
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.people import ANY, ContactPoint, QuietHours, User
from dispatcher.spans import document_of

ACME, OTHER = OrganizationId("acme"), OrganizationId("other")
OURS = "0198c000-0000-7000-8000-00000000000a"
CONFIG = "0198c000-0000-7000-8000-0000000000c1"
NOTIFICATION = NotificationId("0198c000-0000-7000-8000-0000000000d1")
MAIL = ContactPoint("0198c000-0000-7000-8000-000000000001", Channel.EMAIL, "Ada@example.org")
PHONE = ContactPoint("0198c000-0000-7000-8000-000000000002", Channel.SMS, "+15551234567")
TOKEN = ContactPoint(
    "0198c000-0000-7000-8000-000000000003", Channel.PUSH, "t" * 30, app="hall", platform="android", expires_at_s=1_700_000_000.5
)
ADA = User(
    "ada",
    locale="pt-BR",
    time_zone="America/Sao_Paulo",
    quiet_hours=QuietHours(time(22), time(7), frozenset({0, 4})),
    points=(TOKEN, PHONE, MAIL),
    preferences={("offers", ANY): False, (ANY, "email"): True},
)
Put = Callable[..., Awaitable[None]]


@frozen
class World:
    """The port, and ways to fill what it reads."""

    people: People
    store: Store
    feedback: FeedbackStore
    put: Put  # (user, organization)
    suppress: Put  # an email address
    count: Put  # (user id, cap, times)


def in_memory() -> World:
    database = MemoryDatabase(lambda: 1_700_000_000.0)
    people = MemoryPeople(database)

    async def put(user: User, organization_id: OrganizationId = ACME) -> None:
        people.put(organization_id, user)

    async def suppress(recipient: str) -> None:
        database.make_contact(ACME, Channel.EMAIL, recipient).contact = Contact(complained_at_s=1.0, complaint_code="spam")

    async def count(user_id: str, cap: str, times_s: tuple[float, ...]) -> None:
        database.cap_times[ACME, user_id, cap] = times_s

    return World(people, MemoryStore(database, OURS), MemoryFeedback(database), put, suppress, count)


def on_postgres(pool: Pool) -> World:
    async def put(user: User, organization_id: OrganizationId = ACME) -> None:
        quiet = user.quiet_hours
        document = None if quiet is None else orjson.dumps(document_of(quiet)).decode()
        await pool.execute(
            "INSERT INTO users (organization_id, id, locale, time_zone, quiet_hours) VALUES (%s, %s, %s, %s, %s::jsonb)",
            (organization_id, user.id, user.locale, user.time_zone, document),
        )
        for place, point in enumerate(user.points):
            await pool.execute(
                "INSERT INTO contact_points (id, organization_id, user_id, channel, address, recipient, app, platform, "
                "expires_at, refreshed_at) VALUES (%s, %s, %s, %s, contact_address(%s, %s), %s, %s, %s, to_timestamp(%s),"
                " now() - make_interval(secs => %s))",
                (
                    point.id, organization_id, user.id, point.channel, point.channel, point.recipient, point.recipient,
                    point.app, point.platform, point.expires_at_s, place,
                ),
            )  # fmt: skip
        for (topic, channel), allowed in user.preferences.items():
            await pool.execute(
                "INSERT INTO preferences (organization_id, user_id, topic, channel, allowed, source) "
                "VALUES (%s, %s, %s, %s, %s, 'api')",
                (organization_id, user.id, topic, channel, allowed),
            )

    async def suppress(recipient: str) -> None:
        await contacts.change(pool, ACME, [contacts.Wanted(Channel.EMAIL, recipient, ContactStatus.COMPLAINED)], None)

    async def count(user_id: str, cap: str, times_s: tuple[float, ...]) -> None:
        await pool.execute(
            "INSERT INTO cap_times (organization_id, user_id, cap, times) "
            "VALUES (%s, %s, %s, ARRAY(SELECT to_timestamp(s) FROM unnest(%s::float8[]) AS s))",
            (ACME, user_id, cap, list(times_s)),
        )

    return World(PostgresPeople(pool), PostgresStore(pool, OURS), PostgresFeedback(pool), put, suppress, count)


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        yield in_memory()
        return
    url: str = request.getfixturevalue("database_url")
    async with open_pool(url, size_max=2, connect_deadline_s=10, statement_deadline_s=10, random=Random(1)) as pool:
        await pool.execute("INSERT INTO organizations (id, name) VALUES ('acme', 'Acme'), ('other', 'Other')")
        yield on_postgres(pool)


async def test_a_user_comes_whole_and_the_points_in_the_order_to_try_them(world: World) -> None:
    await world.put(ADA)

    assert await world.people.read(ACME, ["ada"]) == {"ada": ADA}


async def test_who_has_nothing_is_a_user_all_the_same(world: World) -> None:
    await world.put(User("eve"))

    assert await world.people.read(ACME, ["eve", "nobody", "nul\0"]) == {"eve": User("eve")}
    assert await world.people.read(ACME, []) == {}


async def test_any_number_are_read_together_each_with_their_own(world: World) -> None:
    users = {f"u{n}": User(f"u{n}", locale="en", preferences={("offers", ANY): n % 2 == 0}) for n in range(20)}
    for user in users.values():
        await world.put(user)

    assert await world.people.read(ACME, list(users)) == users


async def test_what_is_known_of_a_contact_stands_with_its_point(world: World) -> None:
    await world.put(ADA)
    await world.suppress("ada@EXAMPLE.org")

    points = (await world.people.read(ACME, ["ada"]))["ada"].points

    assert {point.channel: point.status for point in points} == {
        Channel.EMAIL: ContactStatus.COMPLAINED,
        Channel.SMS: ContactStatus.ACTIVE,
        Channel.PUSH: ContactStatus.ACTIVE,
    }


async def test_what_caps_have_counted_comes_along(world: World) -> None:
    await world.put(ADA)
    await world.put(User("eve"))
    await world.count("ada", "daily", (1_700_000_000.0, 1_700_000_060.5))

    read: Any = await world.people.read(ACME, ["ada", "eve"])

    assert read["ada"].cap_times_s == {"daily": (1_700_000_000.0, 1_700_000_060.5)}
    assert read["eve"].cap_times_s == {}


async def test_two_organizations_never_see_each_others_users(world: World) -> None:
    await world.put(ADA)
    await world.put(evolve(ADA, locale="de", points=(), preferences={}), OTHER)
    await world.suppress("ada@example.org")

    await world.put(User("bob", points=(evolve(MAIL, id="0198c000-0000-7000-8000-000000000008"),)), OTHER)

    assert (await world.people.read(OTHER, ["bob"]))["bob"].points[0].status is ContactStatus.ACTIVE
    assert (await world.people.read(OTHER, ["ada"]))["ada"].locale == "de"
    assert (await world.people.read(OTHER, ["ada"]))["ada"].points == ()
    assert (await world.people.read(ACME, ["ada"]))["ada"].locale == "pt-BR"


async def channels(world: World, organization_id: OrganizationId = ACME) -> set[Channel]:
    return {point.channel for point in (await world.people.read(organization_id, ["ada"]))["ada"].points}


async def sent(world: World, channel: Channel, recipient: str, outcome: Outcome) -> None:
    """Accept one notification and record what became of its first attempt."""
    await world.store.register(1000.0)
    row = {
        "id": NOTIFICATION, "organization_id": ACME, "channel": channel.value, "attempts_max": 8, "created_at": 1_600_000_000.0,
        "expires_at": None, "user_id": "ada", "recipient": recipient, "payload": {"text": "Hi."}, "template_id": None,
        "locale": None, "idempotency_key": None, "request_hash": b"hash".hex(),
    }  # fmt: skip
    await world.store.insert([Admission(ACME, NOTIFICATION, None, b"hash", row)], ())
    (gated,) = (await world.store.gate([NOTIFICATION], (), again=False)).values()
    via = ProviderPolicy(CONFIG, 1, "fcm", channel, None, 1, 8)
    verdict = Verdict(gated.deliveries[0], outcome, via, Status.FAILED, dead=DeadLetterReason.SUPPRESSED)
    assert await world.store.record([verdict], again=False)


async def test_a_token_that_is_refused_for_good_leaves_its_user_and_no_other_point_does(world: World) -> None:
    await world.put(ADA)
    await world.put(evolve(ADA, points=(evolve(TOKEN, id="0198c000-0000-7000-8000-000000000009"),)), OTHER)

    await sent(world, Channel.PUSH, TOKEN.recipient, Outcome(OutcomeClass.SUPPRESS, "unregistered"))

    assert await channels(world) == {Channel.EMAIL, Channel.SMS}
    assert await channels(world, OTHER) == {Channel.PUSH}


async def test_a_mailbox_that_is_gone_stays_with_its_user_as_what_it_is(world: World) -> None:
    await world.put(ADA)

    await sent(world, Channel.EMAIL, MAIL.recipient, Outcome(OutcomeClass.SUPPRESS, "mailbox_gone"))

    points = (await world.people.read(ACME, ["ada"]))["ada"].points
    assert {point.channel: point.status for point in points}[Channel.EMAIL] is ContactStatus.INVALID


@pytest.mark.parametrize(("kind", "leaves"), [(FeedbackKind.INVALID, True), (FeedbackKind.SOFT_BOUNCED, False)])
async def test_a_token_that_a_report_calls_dead_leaves_its_user(world: World, kind: FeedbackKind, leaves: bool) -> None:
    await world.put(ADA)
    told = Feedback("e1", kind, "unregistered", 1_650_000_000.0, recipient=TOKEN.recipient)

    await world.feedback.take([Report(ACME, CONFIG, "fcm", Channel.PUSH, told)])

    assert (Channel.PUSH in await channels(world)) is not leaves
