"""Notifications handed in for a user or about a topic: decided about like a rule's, and refused by name when not sent."""

from __future__ import annotations

from datetime import time
from typing import Any

import pytest
import trio
import trio.testing
from attrs import evolve

from actors.memory import Moment
from dispatcher.feedback.feedback import FeedbackKind
from dispatcher.model import Channel, Status
from dispatcher.people import QuietHours
from event_world import ANA, NOW, ORG, Desk

FALLBACK = {"channel": "sms", "recipient": "+15550000001", "content": {"text": "Hello"}}
QUIET = QuietHours(time(22), time(7))  # NOW is 05:00 for Ana
TOPICS: dict[str, dict[str, Any]] = {"offers": {}, "news": {}}
DAILY = {"default": {"caps": [{"name": "daily", "count_max": 1, "window_s": 86_400}]}}


@pytest.fixture
async def desk(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> Desk:
    desk = Desk()
    desk.set_up(topic=TOPICS)
    desk.user(ANA)
    nursery.start_soon(desk.admitting.run)
    return desk


def item(**changes: Any) -> dict[str, Any]:
    variables = {"name": "Ana", "order": 7}
    return {"channel": "email", "user_id": "ana", "template": "purchase", "variables": variables, **changes}


async def test_a_notification_for_a_user_goes_to_their_contact_point_in_their_language(desk: Desk) -> None:
    answer = await desk.accept_item(item())

    (row,) = desk.rows()
    assert (answer["id"], answer["status"]) == (row.id, "queued")
    assert (row.recipient, row.user_id, row.payload["text"]) == ("ana@example.org", "ana", "Obrigado, Ana.")
    assert desk.codes(row)[:3] == ["rule_direct", "recipient_of_user", "preference_no_topic"]


async def test_one_without_user_and_topic_is_decided_about_by_nobody(desk: Desk) -> None:
    await desk.accept_item(item(recipient="ana@example.org"))

    (row,) = desk.rows()
    assert (row.decisions, row.plan, row.topic) == (None, None, None)


async def test_only_what_is_about_a_topic_respects_quiet_hours(desk: Desk) -> None:
    desk.user(evolve(ANA, quiet_hours=QUIET))
    about_nothing = await desk.accept_item(item())
    about_offers = await desk.accept_item(item(topic="offers", recipient="other@example.org"))

    assert about_nothing["status"] == "queued"
    assert (about_offers["status"], about_offers["send_at"]) == ("scheduled", "2027-01-15T10:00:00.000000Z")
    row = desk.rows()[1]
    assert (row.status, row.next_retry_at_s, row.topic, row.recipient) == (
        Status.SCHEDULED,
        NOW + 7200,
        "offers",
        "other@example.org",
    )


@pytest.mark.parametrize(
    ("changes", "code", "pointer"),
    [
        ({"user_id": "nobody"}, "recipient_unknown", "/user_id"),
        ({"channel": "sms"}, "recipient_no_contact_point", "/user_id"),
        ({"topic": "offers"}, "preference_denied", "/topic"),
        ({"template": "unknown"}, "template_unknown", "/template"),
        ({"variables": {"order": 7}}, "template_variable_missing", "/variables/name"),
        ({"expires_at": "2026-01-01T00:00:00Z"}, "already_expired", "/expires_at"),
        ({"topic": "offres"}, "topic_unknown", "/topic"),
        ({"topic": "Offers!"}, "field_invalid", "/topic"),
        ({"user_id": None}, "field_invalid", "/recipient"),
        ({"topic": "news", "fallback": [FALLBACK]}, "field_invalid", "/fallback"),
    ],
)
async def test_what_is_not_sent_is_refused_and_says_why(desk: Desk, changes: dict[str, Any], code: str, pointer: str) -> None:
    desk.user(evolve(ANA, preferences={("offers", "*"): False}))
    problem = await desk.refused_item(item(**changes))

    assert (problem.status, problem.code, problem.pointer) == (422, code, pointer)
    assert desk.rows() == []


async def test_a_bounced_contact_refuses_unless_the_producer_insists(desk: Desk) -> None:
    row = desk.database.make_contact(ORG, Channel.EMAIL, "ana@example.org")
    row.contact = row.contact.after(FeedbackKind.BOUNCED, "gone", NOW)

    assert (await desk.refused_item(item())).code == "recipient_suppressed"
    await desk.accept_item(item(ignore_suppression=True))
    assert [row.ignores_suppression for row in desk.rows()] == [True]


async def test_caps_count_within_one_batch_and_over_requests(desk: Desk) -> None:
    desk.set_up(policy=DAILY, topic=TOPICS)
    batch = await desk.accept_item({"items": [item(topic="offers"), item(topic="offers"), item()]})

    assert [one["status"] for one in batch["items"]] == ["accepted", "rejected", "accepted"]
    assert batch["items"][1]["problem"]["code"] == "cap_reached"
    assert desk.metrics.planned == {"planned": 2, "cap_reached": 1}
    assert (await desk.refused_item(item(topic="offers"))).code == "cap_reached"


async def test_a_cap_that_is_reached_while_it_is_inserted_refuses_it(desk: Desk) -> None:
    desk.set_up(policy=DAILY, topic=TOPICS)

    async def meanwhile(operation: str, moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        if (operation, moment) == ("insert", Moment.BEFORE):
            desk.database.cap_times[ORG, "ana", "daily"] = (NOW - 10,)

    desk.store.interrupt = meanwhile

    assert (await desk.refused_item(item(topic="offers"))).code == "cap_reached"
    assert desk.rows() == []


async def test_a_repeated_key_replays_whatever_has_changed_since(desk: Desk) -> None:
    first = await desk.accept_item(item(topic="offers", idempotency_key="k"))
    desk.user(evolve(ANA, preferences={("*", "*"): False}))
    again = await desk.accept_item(item(topic="offers", idempotency_key="k"))

    assert again["id"] == first["id"]
    assert len(desk.rows()) == 1


async def test_a_dry_run_shows_the_chain_and_keeps_nothing(desk: Desk) -> None:
    shown = await desk.explain_item(item(recipient="somebody@example.org"))

    assert [decision["code"] for decision in shown["notification"]["decisions"]] == [
        "rule_direct", "recipient_given", "preference_no_topic", "contact_usable", "provider_configured", "locale_shortened",
        "template_used", "time_now", "cap_none", "rate_unlimited",
    ]  # fmt: skip
    assert shown["notification"]["outcome"] == "send"
    assert desk.rows() == []
