"""Announcements carry ids and states, and nothing of a person."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from actors import announcements
from dispatcher.messages import Alarm, Verdict
from dispatcher.model import Channel, DeadLetterReason, Delivery, NotificationId, OrganizationId, Status
from dispatcher.outcome import Outcome, OutcomeClass

ID = NotificationId("0192d3a4-7c1e-7f00-8000-0123456789ab")
DELIVERY = Delivery(ID, OrganizationId("acme"), Channel.EMAIL, "canary@example.org", {"text": "canary"}, 2, 8, 0.0)


def verdict(kind: OutcomeClass, status: Status, **more: Any) -> Verdict:
    return Verdict(DELIVERY, Outcome(kind, "code_1"), None, status, **more)


def heard(event: bytes | None) -> dict[str, Any]:
    assert event is not None
    assert b"canary" not in event
    parsed: dict[str, Any] = orjson.loads(event)
    return parsed


def test_created_names_the_notification_and_its_channel() -> None:
    assert heard(announcements.created(ID, Channel.EMAIL, 12.5)) == {
        "type": "notification.created",
        "id": ID,
        "channel": "email",
        "status": "queued",
        "at": 12.5,
    }


def test_a_delivery_tells_its_attempt_and_no_code() -> None:
    event = heard(announcements.concluded(verdict(OutcomeClass.DELIVERED, Status.DELIVERED), 1.0))

    assert (event["type"], event["status"], event["attempt"]) == ("notification.delivered", "delivered", 2)
    assert "code" not in event


def test_a_retry_tells_when() -> None:
    event = heard(announcements.concluded(verdict(OutcomeClass.SOFT, Status.QUEUED, retry_in_s=2.0), 1.0))

    assert (event["type"], event["code"], event["retry_in_s"]) == ("notification.retrying", "code_1", 2.0)


def test_a_failure_tells_why() -> None:
    event = heard(announcements.concluded(verdict(OutcomeClass.HARD, Status.FAILED, dead=DeadLetterReason.HARD), 1.0))

    assert (event["type"], event["reason"]) == ("notification.failed", "hard")


def test_an_interruption_is_nobody_s_news() -> None:
    assert announcements.concluded(verdict(OutcomeClass.INTERRUPTED, Status.QUEUED, retry_in_s=0.0), 1.0) is None


@pytest.mark.parametrize(("dead", "kind"), [(False, "notification.retrying"), (True, "notification.failed")])
def test_a_rescue_tells_what_it_led_to(dead: bool, kind: str) -> None:
    event = heard(announcements.rescued(ID, Channel.EMAIL, dead=dead, at_unix_s=1.0))

    assert event["type"] == kind
    assert (event.get("reason") == "poison") is dead


def test_an_expiry_is_a_failure() -> None:
    event = heard(announcements.expired(ID, Channel.EMAIL, 1.0))

    assert (event["type"], event["reason"], event["code"]) == ("notification.failed", "expired", "expired")


def test_a_requeue_and_an_alarm_are_announced() -> None:
    assert heard(announcements.requeued(ID, 1.0))["type"] == "notification.requeued"
    assert heard(announcements.channel_alarm(Alarm("breaker_opened", Channel.EMAIL, "c-1"), 1.0)) == {
        "type": "channel.breaker_opened",
        "channel": "email",
        "provider_config_id": "c-1",
        "at": 1.0,
    }
