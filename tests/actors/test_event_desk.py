"""An event is taken in once, with all that comes of it; one bad event sinks no other. On memory ports and a virtual clock."""

from __future__ import annotations

from datetime import time
from typing import Any

import orjson
import pytest
import trio
import trio.testing
from attrs import evolve

from actors.memory import Moment
from dispatcher.feedback.feedback import FeedbackKind
from dispatcher.model import Channel, Status
from dispatcher.people import QuietHours, User
from event_world import ANA, NOW, ORG, RULE, Desk, event, point, template, template_set


@pytest.fixture
async def desk(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> Desk:
    desk = Desk()
    desk.set_up(rule={"purchase": RULE})
    desk.user(ANA)
    nursery.start_soon(desk.admitting.run)
    return desk


async def test_an_event_becomes_a_rendered_notification_that_is_queued(desk: Desk) -> None:
    answer = await desk.accept(event(7, correlation_id="order-7"))
    await trio.testing.wait_all_tasks_blocked()

    (row,) = desk.rows()
    assert answer.status == 202
    assert answer.headers["Location"] == "/v1/orgs/acme/events/evt-7"
    assert orjson.loads(answer.body) == {
        "id": "evt-7",
        "matched": True,
        "rules": ["purchase"],
        "notifications": 1,
        "skipped": 0,
        "items": [{"id": row.id, "rule": "purchase", "channel": "email", "status": "queued"}],
        "skips": [],
    }
    assert (row.payload["subject"], row.payload["text"]) == ("O seu pedido 7", "Obrigado, Ana.")
    assert (row.recipient, row.user_id, row.topic, row.event_id) == ("ana@example.org", "ana", "purchases", "evt-7")
    assert (row.correlation_id, row.status) == ("order-7", Status.QUEUED)
    assert desk.queued() == [row.id]
    assert [orjson.loads(notice)["type"] for notice in desk.queue.announced(ORG)] == ["notification.created"]


async def test_the_chain_of_decisions_is_kept_with_a_notification(desk: Desk) -> None:
    await desk.accept(event())

    (row,) = desk.rows()
    assert desk.codes(row) == [
        "rule_matched",
        "recipient_of_user",
        "preference_default",
        "contact_usable",
        "provider_configured",
        "locale_shortened",
        "template_used",
        "time_now",
        "cap_none",
        "rate_unlimited",
    ]


async def test_an_event_that_no_rule_is_for_is_accepted_and_says_so(desk: Desk) -> None:
    none = await desk.answer(event(1, type="billing.refund"))
    false = await desk.answer(event(2, data={"total": 0}))
    desk.set_up(rule={"purchase": {**RULE, "enabled": False}})
    disabled = await desk.answer(event(3))

    assert none == {"id": "evt-1", "matched": False, "reason": "rule_none"}
    assert (false["reason"], disabled["reason"]) == ("rule_condition_false", "rule_disabled")
    assert desk.metrics.taken_in == {"unmatched": 3}
    assert desk.rows() == []


async def test_the_same_event_again_gets_the_first_answer_and_nothing_is_sent_twice(desk: Desk) -> None:
    first = await desk.accept(event(1))
    again = await desk.accept(dict(reversed(event(1).items())))
    batch = await desk.answer({"items": [event(1), event(2), event(2)]})

    assert again.body == first.body
    assert (first.headers.get("Idempotent-Replayed"), again.headers["Idempotent-Replayed"]) == (None, "true")
    assert [item["status"] for item in batch["items"]] == ["duplicate", "accepted", "duplicate"]
    assert batch["items"][2]["event"] == batch["items"][1]["event"]
    assert len(desk.rows()) == 2


async def test_another_event_under_the_same_id_is_refused(desk: Desk) -> None:
    await desk.accept(event(1))
    problem = await desk.refused(event(1, user_id="ben"))
    batch = await desk.answer({"items": [event(2), event(2, user_id="ben")]})

    assert (problem.status, problem.code, problem.pointer) == (422, "event_id_reused", "/id")
    assert batch["items"][1]["problem"]["pointer"] == "/items/1/id"
    assert len(desk.rows()) == 2


async def test_others_have_their_turns_while_one_event_reaches_many_people_by_many_rules(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.events.TURN_S", 0.0)  # the virtual clock stands still while somebody computes
    desk.set_up(rule={f"r{number}": {**RULE, "when": f"data.total > {number}"} for number in range(50)})
    many = [f"user-{number}" for number in range(50)]
    for id in many:
        desk.user(evolve(ANA, id=id))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as others:
        others.start_soon(other)
        await desk.knowledge.setup(ORG)
        before = turns
        shown = await desk.explain(event(data={"buyer": many, "total": 1, "name": "Ana", "order": 7}))
        taken = turns - before
        others.cancel_scope.cancel()

    assert [fate["outcome"] for fate in shown["notifications"]] == ["send"] * 50 + ["skip"] * 49
    assert taken >= 50 + 50, "one for every rule, and for every person"


async def test_an_event_that_is_still_on_its_way_is_told_to_come_back(desk: Desk) -> None:
    seen: list[str] = []

    async def slow(operation: str, moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if (operation, moment) == ("insert", Moment.BEFORE):
            seen.append((await desk.refused(event(1))).code)

    desk.store.interrupt = slow
    await desk.accept(event(1))

    assert seen == ["request_in_progress"]


async def test_two_processes_that_take_in_one_event_at_once_send_once(desk: Desk, nursery: trio.Nursery) -> None:
    other = Desk(desk.database, "0192d3a4-7c1e-7f00-8000-0123456789ac")
    other.set_up(rule={"purchase": RULE})
    nursery.start_soon(other.admitting.run)
    answers = []

    async def take_in(one: Desk) -> None:
        answers.append(await one.accept(event(1)))

    async with trio.open_nursery() as both:
        both.start_soon(take_in, desk)
        both.start_soon(take_in, other)

    assert answers[0].body == answers[1].body
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers].count("true") == 1
    assert len(desk.rows()) == 1


async def test_a_missing_variable_refuses_the_event_and_names_rule_template_and_variable(desk: Desk) -> None:
    problem = await desk.refused(event(1, data={"buyer": "ana", "total": 1, "order": 1}))

    assert (problem.status, problem.code, problem.pointer) == (422, "template_variable_missing", "/data/name")
    assert "Rule purchase, template purchase (email)" in problem.detail
    assert desk.rows() == []
    assert desk.database.events == {}


async def test_one_bad_event_sinks_no_other(desk: Desk) -> None:
    batch = await desk.answer({"items": [event(1, id=""), event(2), event(3, data={"buyer": "ana", "total": 1}), event(4)]})

    assert (batch["accepted"], batch["rejected"]) == (2, 2)
    assert [item["status"] for item in batch["items"]] == ["rejected", "accepted", "rejected", "accepted"]
    assert batch["items"][0]["problem"]["pointer"] == "/items/0/id"
    assert {row.event_id for row in desk.rows()} == {"evt-2", "evt-4"}


async def test_a_replay_is_a_replay_even_when_its_template_is_broken_by_now(desk: Desk) -> None:
    first = await desk.accept(event(1))
    desk.templates["purchase", Channel.EMAIL] = template_set(template("purchase", Channel.EMAIL, "en", "{{ gone }}", "Hello"))
    desk.cache.drop()

    assert (await desk.accept(event(1))).body == first.body
    assert (await desk.refused(event(2))).pointer == "/data/gone"


async def test_a_push_goes_to_every_device_and_counts_once(desk: Desk) -> None:
    cap = {"name": "daily", "count_max": 1, "window_s": 86_400}
    desk.set_up(
        rule={"purchase": {**RULE, "send": [{"channel": "push", "template": "purchase"}]}}, policy={"default": {"caps": [cap]}}
    )
    await desk.accept(event(1))
    second = await desk.answer(event(2))

    assert sorted(row.recipient for row in desk.rows()) == ["token-1", "token-2"]
    assert (second["notifications"], second["skips"]) == (0, [{"rule": "purchase", "channel": "push", "code": "cap_reached"}])


async def test_a_rule_that_uses_the_first_usable_channel_goes_on_only_when_it_must(desk: Desk) -> None:
    sends = [{"channel": channel, "template": "purchase"} for channel in ("sms", "email", "push")]
    desk.set_up(rule={"purchase": {**RULE, "mode": "first", "send": sends}})
    answer = await desk.answer(event(1))

    assert [row.channel for row in desk.rows()] == [Channel.EMAIL]
    assert [(skip["channel"], skip["code"]) for skip in answer["skips"]] == [
        ("sms", "recipient_no_contact_point"),
        ("push", "recipient_not_needed"),
    ]


async def test_what_waits_for_its_time_is_scheduled_and_not_queued(desk: Desk) -> None:
    desk.set_up(rule={"purchase": {**RULE, "delay_s": 60, "expires_in_s": 600}})
    answer = await desk.answer(event(1))
    await trio.testing.wait_all_tasks_blocked()

    (row,) = desk.rows()
    assert (row.status, row.next_retry_at_s, row.expires_at_s) == (Status.SCHEDULED, NOW + 60, NOW + 660)
    assert answer["items"][0]["status"] == "scheduled"
    assert answer["items"][0]["send_at"] == "2027-01-15T08:01:00.000000Z"
    assert row.plan == {
        "channel": "email",
        "topic": "purchases",
        "rule": "purchase",
        "user": True,
        "point": ANA.points[0].id,
        "considerate": True,
    }
    assert desk.queued() == []


async def test_a_contact_that_bounces_while_the_event_is_taken_in_is_left_out_and_named(desk: Desk) -> None:
    async def bounce(operation: str, moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if (operation, moment) == ("insert", Moment.BEFORE):
            row = desk.database.make_contact(ORG, Channel.EMAIL, "ana@example.org")
            row.contact = row.contact.after(FeedbackKind.BOUNCED, "gone", NOW)

    desk.store.interrupt = bounce
    first = await desk.answer(event(1))

    assert (first["notifications"], first["skips"]) == (0, [{"rule": "purchase", "channel": "email", "code": "contact_bounced"}])
    assert await desk.answer(event(1)) == first


async def test_a_mail_of_a_topic_can_be_unsubscribed_from_unless_the_topic_is_critical(desk: Desk) -> None:
    await desk.accept(event(1))
    desk.set_up(rule={"purchase": RULE}, topic={"purchases": {"critical": True}})
    await desk.accept(event(2))

    headers = [row.payload.get("headers", {}).keys() for row in desk.rows()]
    assert [set(names) for names in headers] == [{"List-Unsubscribe", "List-Unsubscribe-Post"}, set()]


async def test_attachments_come_from_the_event_and_are_checked(desk: Desk) -> None:
    send = {"channel": "email", "template": "purchase", "attachments": "data.files"}
    desk.set_up(rule={"purchase": {**RULE, "send": [send]}})
    file = {"filename": "ticket.pdf", "content_type": "application/pdf", "content": "aGVsbG8="}
    data = event()["data"]
    await desk.accept(event(1, data={**data, "files": [file]}))
    await desk.accept(event(2, data=data))
    problem = await desk.refused(event(3, data={**data, "files": [{**file, "content": "???"}]}))
    large = await desk.refused(event(4, data={**data, "files": [{**file, "content": "QUJD" * 4_900}], "name": "x" * 500}))

    assert [row.payload.get("attachments") for row in desk.rows()] == [[file], None]
    assert (problem.code, large.code) == ("attachments_invalid", "item_too_large")


async def test_a_digest_gathers_events_and_is_told_at_once(desk: Desk) -> None:
    desk.templates["weekly", Channel.EMAIL] = template_set(
        template("weekly", Channel.EMAIL, "en", "{{ count }}: {% for item in items %}{{ item.order }} {% endfor %}", "News")
    )
    send = {"channel": "email", "template": "weekly"}
    desk.set_up(rule={"purchase": {**RULE, "send": [send], "digest": {"window_s": 3600}}})
    answer = await desk.answer(event(1))
    await desk.accept(event(2))

    assert desk.rows() == []
    assert [digest["due_at"] for digest in answer["digests"]] == ["2027-01-15T09:00:00.000000Z"]
    assert [sorted(row.items) for row in desk.database.digests.values()] == [["evt-1", "evt-2"]]


async def test_one_event_reaches_a_person_once_however_often_a_rule_names_them(desk: Desk) -> None:
    desk.set_up(rule={"purchase": {**RULE, "recipients": [{"user": "[data.buyer, data.buyer]"}, {"user_ids": ["ana", "ben"]}]}})
    answer = await desk.answer(event(1))

    assert len(desk.rows()) == 1
    assert answer["skips"] == [{"rule": "purchase", "channel": None, "code": "recipient_unknown"}]


async def test_somebody_who_is_no_user_is_reached_by_an_address_of_the_event(desk: Desk) -> None:
    contact = {"contact": {"email": "data.email"}, "locale": "data.language", "time_zone": "data.zone"}
    desk.set_up(rule={"purchase": {**RULE, "recipients": [contact]}})
    data = {**event()["data"], "email": "guest@example.org", "language": "pt", "zone": "Europe/Lisbon"}
    await desk.accept(event(1, data=data))
    nobody = await desk.answer(event(2, data={**data, "email": "no address"}))

    (row,) = desk.rows()
    assert (row.recipient, row.user_id, row.locale) == ("guest@example.org", None, "pt")
    assert [skip["code"] for skip in nobody["skips"]] == ["recipient_unknown"]


async def test_quiet_hours_hold_a_message_back_and_a_critical_one_not(desk: Desk) -> None:
    # NOW is 05:00 in São Paulo.
    desk.user(evolve(ANA, quiet_hours=QuietHours(time(22), time(7))))
    await desk.accept(event(1))
    desk.set_up(rule={"purchase": RULE}, topic={"purchases": {"critical": True}})
    await desk.accept(event(2))

    held, sent = desk.rows()
    assert (held.status, held.next_retry_at_s) == (Status.SCHEDULED, NOW + 2 * 3600)
    assert desk.codes(held)[-3:] == ["time_quiet_hours", "cap_none", "rate_unlimited"]
    assert (sent.status, desk.codes(sent)[7]) == (Status.QUEUED, "time_critical")


async def test_a_dry_run_shows_every_chain_and_keeps_nothing(desk: Desk) -> None:
    sends = [{"channel": channel, "template": "purchase"} for channel in ("email", "sms")]
    desk.set_up(rule={"purchase": {**RULE, "send": sends}, "other": {**RULE, "when": "data.total > 100"}})
    shown = await desk.explain(event(1), with_payload=True)

    assert [(one["rule"], one["channel"], one["outcome"]) for one in shown["notifications"]] == [
        ("other", None, "skip"),
        ("purchase", "email", "send"),
        ("purchase", "sms", "skip"),
    ]
    assert shown["notifications"][1]["payload"]["text"] == "Obrigado, Ana."
    assert [one["decisions"][-1]["code"] for one in shown["notifications"]] == [
        "rule_condition_false",
        "rate_unlimited",
        "recipient_no_contact_point",
    ]
    assert (desk.rows(), desk.database.events) == ([], {})


async def test_a_dry_run_shows_why_an_event_would_be_refused(desk: Desk) -> None:
    shown = await desk.explain(event(1, data={"buyer": "ana", "total": 1, "order": 1}))

    assert shown["refused"]["code"] == "template_variable_missing"
    assert shown["notifications"][0]["decisions"][-1] == {
        "step": "template",
        "code": "template_failed",
        "detail": {
            "template": "purchase", "locale": "pt", "error": "template_variable_missing", "part": "body_template", "name": "name",
        },
    }  # fmt: skip


async def test_too_many_people_for_one_event_are_refused(desk: Desk) -> None:
    desk.set_up(rule={"purchase": {**RULE, "recipients": [{"user": "data.all"}]}})
    data: dict[str, Any] = {**event()["data"], "all": [f"user-{number}" for number in range(1001)]}
    asked: list[str] = []

    async def note(operation: str, _: Moment) -> None:
        await trio.lowlevel.checkpoint()
        asked.append(operation)

    desk.people.interrupt = note

    assert (await desk.refused(event(1, data=data))).code == "recipients_too_many"
    assert asked == [], "nobody was read for it"


async def test_of_the_events_of_a_batch_a_cap_lets_the_first_pass(desk: Desk) -> None:
    desk.set_up(rule={"purchase": RULE}, policy={"default": {"caps": [{"name": "day", "count_max": 1, "window_s": 86_400}]}})

    batch = await desk.answer({"items": [event(number) for number in (1, 2, 3)]})

    assert [item["event"]["notifications"] for item in batch["items"]] == [1, 0, 0]


async def test_no_more_comes_of_a_request_than_fits_into_memory(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.events.BYTES_MAX", 20_000)
    digest = {**RULE, "event": "alert", "digest": {"window_s": 60}}
    desk.set_up(rule={"alert": digest, "purchase": {**RULE, "recipients": [{"user": "data.all"}]}})
    many = [f"user-{number}" for number in range(30)]
    for id in many:
        desk.user(evolve(ANA, id=id))
    data = {**event()["data"], "name": "x" * 1_000}

    told = await desk.refused(event(1, data={**data, "all": many}))
    gathered = await desk.refused(event(2, type="alert", data={**data, "buyer": many}))
    batch = await desk.answer({"items": [event(number, data={**data, "all": many[:6]}) for number in (3, 4, 5)]})

    assert (told.status, told.code, gathered.code) == (413, "notifications_too_large", "notifications_too_large")
    assert [item["status"] for item in batch["items"]] == ["accepted", "accepted", "rejected"]
    assert (len(desk.rows()), desk.database.digests) == (12, {})


async def test_a_token_that_has_expired_or_bounced_gives_way_to_the_next(desk: Desk) -> None:
    mails = (point(Channel.EMAIL, "old@example.org", 1), point(Channel.EMAIL, "new@example.org", 2))
    desk.user(User("ana", points=mails))
    bounced = desk.database.make_contact(ORG, Channel.EMAIL, "old@example.org")
    bounced.contact = bounced.contact.after(FeedbackKind.BOUNCED, "gone", NOW)
    await desk.accept(event(1))

    assert [row.recipient for row in desk.rows()] == ["new@example.org"]
