"""Accepted means durable; a key means once; one bad row sinks no other. On the in-memory ports and a virtual clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import orjson
import pytest
import trio
import trio.testing
from attrs import evolve

from actors.acceptor import Acceptor
from actors.acceptor_answers import Answer
from actors.cache import HotCache
from actors.direct import DirectDesk
from actors.knowledge import Knowledge
from actors.memory import MemoryQueue, Moment, checkpoint
from actors.memory_people import MemoryPeople
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase
from actors.metrics import Metrics
from actors.planned_rows import Rows
from actors.ports import Admission, BatchAnswer, EventAdmission, Inserted
from actors.schedule_ports import Scheduled
from dispatcher.acceptance import AcceptLimits
from dispatcher.definitions import Definition, Kind
from dispatcher.errors import QueueUnavailable, StoreRefused, StoreUnavailable
from dispatcher.feedback.feedback import FeedbackKind
from dispatcher.model import Channel, Lane, OrganizationId, Status, Template
from dispatcher.problems import Refused
from dispatcher.setup import Setup
from dispatcher.template_sets import TemplateSet
from dispatcher.templates import CompiledTemplate

ORG = OrganizationId("acme")
NOW = 1_800_000_000.0
TEMPLATE = Template("t-1", ORG, "purchase", Channel.EMAIL, "en", 1, "For {{ name }}", "Hello {{ name }}", None, {})


def item(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "channel": "email",
        "recipient": f"reader{number}@example.org",
        "template": "purchase",
        "variables": {"name": f"Reader {number}"},
        **changes,
    }


class Bench:
    """An acceptor between memory ports, and what it did."""

    def __init__(self, pending_max: int = 1_000, store: type[MemoryStore] = MemoryStore) -> None:
        self.database = MemoryDatabase(lambda: NOW + trio.current_time())
        self.store = store(self.database, "0192d3a4-7c1e-7f00-8000-0123456789ab")
        self.queue = MemoryQueue(lambda: NOW + trio.current_time(), lease_s=60)
        self.metrics = Metrics()
        self.later_s = 0.0
        self.woken: list[str] = []
        self.templates_loaded: list[str] = []
        self.templates = {"purchase": TEMPLATE}
        self.setup, self.setups_loaded = Setup(), 0
        self.lanes: frozenset[Lane] = frozenset({"email"})
        self.cache: HotCache[Any] = HotCache(ttl_min_s=300, ttl_max_s=900, random=Random(1))
        self.acceptor = Acceptor(
            self.store,
            self.queue,
            self.metrics,
            limits=AcceptLimits(items_max=50, item_bytes_max=4_000),
            attempts_max=8,
            rows_max=100,
            pending_max=pending_max,
            tick_s=0.002,
            cache_of=lambda _: self.cache,
            load_template=self.load_template,
            load_setup=self.load_setup,
            load_lanes=self.load_lanes,
            stored_answer=self.stored_answer,
            direct=DirectDesk(
                Knowledge(
                    self.store,
                    MemoryPeople(self.database),
                    cache_of=lambda _: self.cache,
                    load_setup=self.load_setup,
                    load_template_set=self.load_no_set,
                    load_lane_limits=self.load_limits,
                    item_bytes_max=4_000,
                ),
                Rows(8, Random(9)),
                self.metrics,
            ),
            wake=self.woken.append,
            unix_s=lambda: NOW + self.later_s,
            random=Random(7),
        )

    async def load_template(
        self, _org: OrganizationId, name: str, _channel: Channel, _locale: str | None
    ) -> CompiledTemplate | None:
        await trio.lowlevel.checkpoint()
        self.templates_loaded.append(name)
        return CompiledTemplate.of(self.templates[name]) if name in self.templates else None

    async def load_setup(self, _org: OrganizationId) -> Setup:
        await trio.lowlevel.checkpoint()
        self.setups_loaded += 1
        return self.setup

    async def load_no_set(self, *_: object) -> TemplateSet | None:
        return None

    async def load_limits(self, _org: OrganizationId) -> Mapping[Lane, bool]:
        return dict.fromkeys(self.lanes, False)

    async def load_lanes(self, _org: OrganizationId) -> frozenset[Lane]:
        await trio.lowlevel.checkpoint()
        return self.lanes

    async def stored_answer(self, org: OrganizationId, key: str) -> tuple[bytes, bytes] | None:
        await trio.lowlevel.checkpoint()
        return self.database.batch_answers.get((org, key))

    async def accept(self, document: Any, key: str | None = None) -> Answer:
        return await self.acceptor.accept(ORG, orjson.dumps(document), key)

    async def refused(self, document: Any, key: str | None = None) -> tuple[int, str]:
        with pytest.raises(Refused) as caught:
            await self.accept(document, key)
        return caught.value.problem.status, caught.value.problem.code

    def queued(self) -> list[str]:
        return list(self.queue.holds(ORG)["queue"])


def body(answer: Answer) -> dict[str, Any]:
    parsed: dict[str, Any] = orjson.loads(answer.body)
    return parsed


@pytest.fixture
async def bench(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> Bench:
    bench = Bench()
    nursery.start_soon(bench.acceptor.run)
    return bench


async def test_an_accepted_notification_is_stored_rendered_queued_and_announced(bench: Bench) -> None:
    answer = await bench.accept(item(3))
    await trio.testing.wait_all_tasks_blocked()

    id = body(answer)["id"]
    row = bench.database.rows[id]
    assert (answer.status, body(answer)["status"]) == (202, "queued")
    assert answer.headers["Location"] == f"/v1/orgs/acme/notifications/{id}"
    assert dict(row.payload) == {"subject": "For Reader 3", "text": "Hello Reader 3"}
    assert bench.queued() == [id]
    assert [orjson.loads(event)["type"] for event in bench.queue.announced(ORG)] == ["notification.created"]
    assert bench.woken == ["acme"]


async def test_what_a_template_formats_is_written_for_the_locale_that_was_asked_for(bench: Bench) -> None:
    bench.templates["purchase"] = evolve(TEMPLATE, locale="pt", body_template="{{ 1234.5|money('BRL') }}")

    for locale, text in (("pt-PT", "1 234,50 R$"), ("pt-BR", "R$ 1.234,50"), ("fr", "R$ 1.234,50"), (None, "R$ 1.234,50")):
        id = body(await bench.accept(item(locale=locale)))["id"]
        assert bench.database.rows[id].payload["text"] == text
    assert bench.setups_loaded == 0


async def test_a_template_s_words_come_from_the_organization_s_catalogues(bench: Bench) -> None:
    bench.templates["purchase"] = evolve(TEMPLATE, body_template="{{ 'hello'|t(name=name) }}")
    words = {"en": "Hello {name}", "pt": "Olá {name}"}
    bench.setup = Setup.of(
        "en",
        [Definition(Kind.CATALOGUE, locale, {"messages": {"hello": {"text": text}}}) for locale, text in words.items()],
    )

    for locale, text in (("pt-BR", "Olá Reader 0"), ("fr", "Hello Reader 0"), (None, "Hello Reader 0")):
        id = body(await bench.accept(item(locale=locale)))["id"]
        assert bench.database.rows[id].payload["text"] == text
    assert bench.setups_loaded == 1


async def test_a_message_that_no_catalogue_has_is_refused_by_its_key(bench: Bench) -> None:
    bench.templates["purchase"] = evolve(TEMPLATE, body_template="{{ 'hello'|t(name=name) }}")

    with pytest.raises(Refused) as caught:
        await bench.accept(item())
    problem = caught.value.problem
    assert (problem.status, problem.code, problem.pointer) == (422, "template_message_missing", "/template")
    assert "hello" in problem.detail
    assert not bench.database.rows


async def test_variables_that_are_not_as_the_schema_says_are_all_named_and_nothing_is_stored(bench: Bench) -> None:
    schema = {
        "type": "object",
        "required": ["name", "order"],
        "properties": {"name": {"type": "string"}, "order": True, "total": {"minimum": 0}},
    }
    bench.templates["purchase"] = evolve(TEMPLATE, schema=schema)

    with pytest.raises(Refused) as caught:
        await bench.accept(item(variables={"name": 4711, "total": -5}))

    problem = caught.value.problem
    assert (problem.code, problem.pointer) == ("template_variable_missing", "/variables/order")
    assert [each.pointer for each in problem.errors] == ["/variables/order", "/variables/name", "/variables/total"]
    assert not {"4711", "-5"} & set(str(problem.document()).split())
    assert not bench.database.rows
    answer = body(await bench.accept({"items": [item(0), item(1, variables={"name": "Ann", "order": 1})]}))
    assert (answer["accepted"], answer["rejected"]) == (1, 1)
    rejected = answer["items"][0]["problem"]
    assert rejected["pointer"] == "/items/0/variables/order"


async def test_a_providers_template_is_stored_with_its_parameters_filled_in(bench: Bench) -> None:
    bench.lanes = frozenset({"whatsapp"})
    parts = {"whatsapp": {"name": "order", "language": "pt_BR", "parameters": ["{{ name }}"]}}
    bench.templates["purchase"] = evolve(TEMPLATE, channel=Channel.WHATSAPP, subject=None, body_template="", parts=parts)

    id = body(await bench.accept(item(channel="whatsapp", recipient="+15551234567")))["id"]

    assert bench.database.rows[id].payload == {"template": {"name": "order", "language": "pt_BR", "parameters": ["Reader 0"]}}


async def test_one_bad_item_sinks_no_other(bench: Bench) -> None:
    answer = await bench.accept(
        {"items": [item(0), item(1, variables={}), item(2, template="unknown"), item(3, channel="sms", recipient="+15551234567")]}
    )

    document = body(answer)
    assert (document["accepted"], document["rejected"]) == (1, 3)
    assert [one["status"] for one in document["items"]] == ["accepted", "rejected", "rejected", "rejected"]
    assert [one["problem"]["pointer"] for one in document["items"][1:]] == [
        "/items/1/variables/name",
        "/items/2/template",
        "/items/3/channel",
    ]
    assert len(bench.database.rows) == 1


async def test_the_same_key_and_body_get_the_first_answer(bench: Bench) -> None:
    first = await bench.accept(item(), "order-1")
    second = await bench.accept(item(), "order-1")

    assert second.body == first.body
    assert second.headers["Idempotent-Replayed"] == "true"
    assert len(bench.database.rows) == 1
    assert len(bench.queued()) == 1


async def test_a_replay_names_the_channel_the_first_answer_named_whatever_became_of_the_contact(bench: Bench) -> None:
    bench.lanes = frozenset({"email", "sms"})
    fallback = [{"channel": "sms", "recipient": "+15005550100", "content": {"text": "There."}}]
    plain, diverting = item(0, fallback=fallback), item(1, fallback=fallback)
    lost, opened = (bench.database.make_contact(ORG, Channel.EMAIL, each["recipient"]) for each in (plain, diverting))
    opened.contact = opened.contact.after(FeedbackKind.UNSUBSCRIBED, "unsubscribed", NOW - 1)
    first = [await bench.accept(each, key) for each, key in ((plain, "plain"), (diverting, "diverting"))]
    assert body(first[1])["diverted"] == {"from": "email", "reason": "unsubscribed"}
    assert body(await bench.accept(diverting, "diverting")) == body(first[1])

    lost.contact = lost.contact.after(FeedbackKind.UNSUBSCRIBED, "unsubscribed", NOW)
    opened.contact = opened.contact.reset(NOW)

    again = [await bench.accept(each, key) for each, key in ((plain, "plain"), (diverting, "diverting"))]
    assert body(again[0]) == body(first[0])
    assert [body(each)["channel"] for each in again] == ["email", "sms"]
    assert [body(each)["id"] for each in again] == [body(each)["id"] for each in first]


async def test_the_same_key_with_another_body_is_refused(bench: Bench) -> None:
    await bench.accept(item(0), "order-1")

    assert await bench.refused(item(1), "order-1") == (422, "idempotency_key_reused")


async def test_a_key_in_the_item_is_as_good_as_one_in_the_header(bench: Bench) -> None:
    await bench.accept(item(idempotency_key="order-1"))
    again = await bench.accept({"items": [item(idempotency_key="order-1"), item(5, idempotency_key="order-1")]})

    assert [one["status"] for one in body(again)["items"]] == ["duplicate", "rejected"]


async def test_two_keys_for_one_item_are_refused(bench: Bench) -> None:
    assert await bench.refused(item(idempotency_key="a"), "b") == (422, "idempotency_key_ambiguous")


async def test_the_same_key_twice_in_one_batch_is_one_notification(bench: Bench) -> None:
    keyed = [item(number, idempotency_key="k") for number in (1, 1, 2)]
    answer = await bench.accept({"items": keyed})

    first, second, third = body(answer)["items"]
    assert (first["status"], second["status"], third["status"]) == ("accepted", "duplicate", "rejected")
    assert first["id"] == second["id"]
    assert list(bench.database.rows) == [first["id"]]


async def test_a_batch_under_a_key_is_replayed_as_a_whole(bench: Bench) -> None:
    batch = {"items": [item(1), item(2, recipient="nobody")]}
    first = await bench.accept(batch, "import-1")
    second = await bench.accept(batch, "import-1")

    assert second.body == first.body
    assert second.headers == {"Idempotent-Replayed": "true"}
    assert await bench.refused({"items": [item(1)]}, "import-1") == (422, "idempotency_key_reused")
    assert len(bench.database.rows) == 1


async def test_a_replay_is_a_replay_even_when_nothing_it_needs_is_there_any_more(bench: Bench) -> None:
    """The template is gone, the provider removed, and its time has passed: the first answer still stands."""
    document = item(expires_at="2090-01-01T00:00:00Z")
    batch = {"items": [item(1, idempotency_key="b-1"), item(2, idempotency_key="b-2")]}
    first, first_batch = await bench.accept(document, "order-1"), await bench.accept(batch)
    bench.later_s = 80 * 366 * 86_400.0
    bench.cache.drop()
    bench.lanes = frozenset()

    assert (await bench.accept(document, "order-1")).body == first.body
    assert await bench.refused(item(9), "order-1") == (422, "idempotency_key_reused")
    assert await bench.refused(item(9), "order-2") == (422, "provider_missing")
    again = body(await bench.accept({"items": [*batch["items"], item(3, idempotency_key="b-1"), item(4)]}))["items"]
    assert [one["status"] for one in again] == ["duplicate", "duplicate", "rejected", "rejected"]
    assert [one["id"] for one in again[:2]] == [one["id"] for one in body(first_batch)["items"]]


async def test_a_push_recipient_that_no_configuration_reaches_is_refused_and_does_not_wait_for_ever(bench: Bench) -> None:
    def push(recipient: str) -> dict[str, Any]:
        return {"channel": "push", "recipient": recipient, "content": {"text": "Doors open at eight."}}

    bench.lanes = frozenset({"push:apple"})
    batch = body(await bench.accept({"items": [push("ab" * 32), push("zz"), item(1)]}))["items"]

    assert [one["status"] for one in batch] == ["accepted", "rejected", "rejected"]
    problems = [one["problem"] for one in batch[1:]]
    assert [problem["code"] for problem in problems] == ["provider_missing", "provider_missing"]
    assert [problem["pointer"] for problem in problems] == ["/items/1/recipient", "/items/2/channel"]


async def test_while_the_first_is_on_its_way_the_second_is_told_to_come_back(bench: Bench) -> None:
    seen: list[tuple[int, str]] = []

    async def slow(operation: str, moment: Moment) -> None:
        if (operation, moment) == ("insert", Moment.BEFORE):
            seen.append(await bench.refused(item(), "order-1"))

    bench.store.interrupt = slow
    await bench.accept(item(), "order-1")

    assert seen == [(409, "request_in_progress")]
    assert (await bench.accept(item(), "order-1")).headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize("same", [True, False])
async def test_a_batch_that_another_process_heard_first_is_answered_by_what_that_stored(bench: Bench, same: bool) -> None:
    batch = {"items": [item(1), item(2)]}
    other = {"items": [item(number) for number in (1, 3, 4)]}
    elsewhere = Bench()
    elsewhere.store = MemoryStore(bench.database, "0192d3a4-7c1e-7f00-8000-0123456789ac")
    elsewhere.acceptor._store = elsewhere.acceptor.admitting.store = elsewhere.store
    first: list[Answer] = []

    async def overtaken(operation: str, moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if (operation, moment) == ("insert", Moment.BEFORE) and not first:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(elsewhere.acceptor.run)
                first.append(await elsewhere.accept(batch, "import-1"))
                nursery.cancel_scope.cancel()

    bench.store.interrupt = overtaken
    if same:
        second = await bench.accept(batch, "import-1")
        assert (second.body, second.headers) == (first[0].body, {"Idempotent-Replayed": "true"})
    else:
        assert await bench.refused(other, "import-1") == (422, "idempotency_key_reused")
    assert len(bench.database.rows) == 2
    assert bench.queued() == []


async def test_a_busy_key_sinks_no_other_item_of_a_batch(bench: Bench) -> None:
    seen: list[dict[str, Any]] = []

    async def meanwhile(operation: str, moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if (operation, moment) == ("insert", Moment.BEFORE) and not seen:
            seen.append({})
            seen.append(body(await bench.accept({"items": [item(1, idempotency_key="k"), item(2)]})))

    bench.store.interrupt = meanwhile
    await bench.accept(item(1, idempotency_key="k"))

    refused, accepted = seen[1]["items"]
    assert (refused["problem"]["code"], accepted["status"]) == ("request_in_progress", "accepted")


async def test_requests_of_one_moment_share_an_insert(bench: Bench) -> None:
    inserts = 0

    async def count(operation: str, moment: Moment) -> None:
        nonlocal inserts
        await trio.lowlevel.checkpoint()
        inserts += (operation, moment) == ("insert", Moment.BEFORE)

    bench.store.interrupt = count
    await bench.accept(item())  # fills the caches
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(bench.accept, item(number))

    assert len(bench.database.rows) == 51
    assert inserts <= 4
    assert bench.templates_loaded == ["purchase"]


class Picky(MemoryStore):
    """A store that refuses one recipient, as Postgres refuses a character that slipped through validation."""

    async def insert(
        self, admissions: Sequence[Admission], batch_answers: Sequence[BatchAnswer], events: Sequence[EventAdmission] = ()
    ) -> Inserted:
        if any(admission.row["recipient"] == "reader3@example.org" for admission in admissions):
            await trio.lowlevel.checkpoint()
            raise StoreRefused("refused")
        return await super().insert(admissions, batch_answers, events)


async def test_a_row_that_can_not_be_stored_is_found_and_refused_alone(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench(store=Picky)
    answers: dict[str, Any] = {}

    async def one(name: str, document: Any, key: str | None = None) -> None:
        try:
            answers[name] = body(await bench.accept(document, key))
        except Refused as refusal:
            answers[name] = refusal.problem.code

    async with trio.open_nursery() as inserting:
        inserting.start_soon(bench.acceptor.run)
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(one, str(number), item(number))
            nursery.start_soon(one, "batch", {"items": [item(number) for number in range(6)]}, "import-1")
        inserting.cancel_scope.cancel()

    assert answers["3"] == "not_storable"
    assert all(answers[str(number)]["status"] == "queued" for number in (0, 1, 2, 4))
    assert [one["status"] for one in answers["batch"]["items"]] == ["accepted"] * 3 + ["rejected"] + ["accepted"] * 2
    assert answers["batch"]["items"][3]["problem"]["code"] == "not_storable"
    assert orjson.loads(bench.database.batch_answers[ORG, "import-1"][1]) == answers["batch"]
    assert len(bench.database.rows) == 9


async def test_without_postgres_nothing_is_accepted(bench: Bench) -> None:
    async def away(operation: str, moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if operation == "insert":
            raise StoreUnavailable("away")

    bench.store.interrupt = away
    with pytest.raises(StoreUnavailable):
        await bench.accept(item())

    bench.store.interrupt = checkpoint
    assert (await bench.accept(item())).status == 202


async def test_a_failure_nobody_thought_of_leaves_no_request_without_an_answer(bench: Bench) -> None:
    async def broken(operation: str, moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if operation == "insert":
            raise ValueError("canary")

    bench.store.interrupt = broken
    with pytest.raises(StoreUnavailable) as caught:
        await bench.accept(item())

    assert "canary" not in str(caught.value)


async def test_an_answer_lost_on_the_way_back_is_made_good_by_the_key(bench: Bench) -> None:
    async def lost(operation: str, moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if (operation, moment) == ("insert", Moment.AFTER):
            raise StoreUnavailable("gone")

    bench.store.interrupt = lost
    with pytest.raises(StoreUnavailable):
        await bench.accept(item(), "order-1")
    bench.store.interrupt = checkpoint

    assert (await bench.accept(item(), "order-1")).status == 202
    assert len(bench.database.rows) == 1


async def test_without_redis_accepted_is_still_accepted(bench: Bench) -> None:
    async def away(operation: str, moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        raise QueueUnavailable("away")

    bench.queue.interrupt = away
    answer = await bench.accept(item())
    await trio.testing.wait_all_tasks_blocked()

    assert answer.status == 202
    assert len(bench.database.rows) == 1
    assert bench.metrics.events["enqueue_missed"] == 1


async def test_a_producer_that_hangs_up_loses_nothing_it_was_not_told(bench: Bench) -> None:
    """The insert may still happen; the key is free again and its replay finds it."""
    with trio.move_on_after(0) as scope:
        await bench.accept(item(), "order-1")
    assert scope.cancelled_caught
    await trio.testing.wait_all_tasks_blocked()

    assert (await bench.accept(item(), "order-1")).status == 202
    assert len(bench.database.rows) == 1


async def test_what_waits_for_postgres_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench(pending_max=3)
    turned_away = []

    async def one(number: int) -> None:
        try:
            await bench.accept(item(number))
        except Refused as refusal:
            turned_away.append(refusal.problem)

    async with trio.open_nursery() as nursery:  # nobody inserts
        for number in range(5):
            nursery.start_soon(one, number)
        await trio.testing.wait_all_tasks_blocked()

        assert bench.acceptor.statistics().pending == 3
        assert [(problem.status, problem.code, problem.retry_after_s) for problem in turned_away] == [
            (429, "backlog_full", 1)
        ] * 2
        nursery.cancel_scope.cancel()


async def test_what_is_for_later_waits_and_the_clock_hears_of_it(bench: Bench) -> None:
    heard: list[Scheduled] = []
    bench.acceptor.admitting.on_scheduled = lambda waiting, _: heard.extend(waiting)
    at = "2027-02-01T12:00:00.000000Z"
    at_s = 1_801_483_200.0

    answer = await bench.accept(item(1, send_at=at, correlation_id="order-1"), "k")
    again = await bench.accept(item(1, send_at=at, correlation_id="order-1"), "k")
    batch = body(await bench.accept({"items": [item(2, send_at=at), item(3), item(4, send_at="2000-01-01T00:00:00Z")]}))
    await trio.testing.wait_all_tasks_blocked()

    id = body(answer)["id"]
    assert body(answer) == {**body(answer), "status": "scheduled", "send_at": at}
    assert (again.headers["Idempotent-Replayed"], body(again)) == ("true", body(answer))
    assert [one.get("send_at") for one in batch["items"]] == [at, None, None]
    waiting, later, now, past = (bench.database.rows[id] for id in (id, *(one["id"] for one in batch["items"])))
    assert (waiting.status, waiting.next_retry_at_s, waiting.correlation_id) == (Status.SCHEDULED, at_s, "order-1")
    assert [row.status for row in (later, now, past)] == [Status.SCHEDULED, Status.QUEUED, Status.QUEUED]
    assert sorted(bench.queued()) == sorted([now.id, past.id]), "Redis hears nothing of what waits"
    assert [(one.id, one.at_s) for one in heard] == [(waiting.id, at_s), (later.id, at_s)]
    assert await bench.refused(item(5, send_at="2030-01-01T00:00:00Z")) == (422, "send_at_too_far")


class Noting(MemoryStore):
    """Notes which rows were planned ones."""

    planned: list[bool]

    async def insert(
        self, admissions: Sequence[Admission], batch_answers: Sequence[BatchAnswer], events: Sequence[EventAdmission] = ()
    ) -> Inserted:
        self.planned = [admission.is_planned for admission in admissions]
        return await super().insert(admissions, batch_answers, events)


async def test_what_is_for_now_and_belongs_to_nothing_is_inserted_as_ever(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench(store=Noting)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.acceptor.run)
        await bench.accept({"items": [item(1), item(2, correlation_id="c")]})
        nursery.cancel_scope.cancel()

    assert isinstance(bench.store, Noting)
    assert bench.store.planned == [False, True]
