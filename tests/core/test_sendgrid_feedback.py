from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from sendgrid.helpers.eventwebhook import EventWebhook

from dispatcher.feedback.feedback import REPLAY_WINDOW_S, Feedback, FeedbackKind, WebhookRequest
from dispatcher.feedback.sendgrid import SENDGRID_FEEDBACK, SIGNATURE, TIMESTAMP, meaning_of
from dispatcher.model import NotificationId
from dispatcher.problems import Problem
from dispatcher.providers.sendgrid import settings_problems
from dispatcher_sandbox.callbacks import Hook
from dispatcher_sandbox.sendgrid.events import Events

NOW_S = 1_700_000_000.0
ID = NotificationId("0198c000-0000-7000-8000-000000000001")
KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC = base64.b64encode(
    KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).decode()
SETTINGS = {"from_email": "tickets@hall.example", "event_webhook_public_key": PUBLIC}


def event(name: str = "delivered", **fields: Any) -> dict[str, Any]:
    return {
        "event": name,
        "email": "ada@example.org",
        "timestamp": 1_699_999_990,
        "sg_event_id": "ZGVsaXZlcmVkLTA",
        "sg_message_id": "14c5d75ce93.recvd-5f54b-6.0",
        "notification_id": ID,
        **fields,
    }


def signed(body: bytes, at_s: float = NOW_S, key: ec.EllipticCurvePrivateKey = KEY) -> WebhookRequest:
    timestamp = str(int(at_s))
    signature = base64.b64encode(key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))).decode()
    return WebhookRequest("POST", "https://hooks.example/", {SIGNATURE: signature, TIMESTAMP: timestamp}, body)


def read(request: WebhookRequest, settings: dict[str, Any] | None = None, now_s: float = NOW_S) -> Any:
    return SENDGRID_FEEDBACK.read(request, SETTINGS if settings is None else settings, {}, now_s, {})


def one(**fields: Any) -> Feedback:
    (report,) = read(signed(orjson.dumps([event(**fields)])))
    assert isinstance(report, Feedback)
    return report


# Every event, and every reason, of the provider.
@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"name": "processed"}, None),
        ({"name": "deferred", "response": "421 later", "attempt": "1"}, FeedbackKind.DEFERRED),
        ({"name": "delivered", "response": "250 OK"}, FeedbackKind.DELIVERED),
        ({"name": "bounce", "type": "bounce", "status": "5.1.1"}, FeedbackKind.BOUNCED),
        ({"name": "bounce", "type": "bounce"}, FeedbackKind.BOUNCED),
        ({"name": "bounce", "type": "bounce", "bounce_classification": "Invalid Address"}, FeedbackKind.BOUNCED),
        ({"name": "bounce", "type": "blocked", "status": "5.7.1"}, FeedbackKind.REFUSED),
        ({"name": "bounce", "type": "blocked"}, FeedbackKind.REFUSED),
        ({"name": "bounce", "type": "blocked", "bounce_classification": "Technical"}, FeedbackKind.SOFT_BOUNCED),
        ({"name": "bounce", "type": "blocked", "bounce_classification": "Content"}, FeedbackKind.REFUSED),
        ({"name": "bounce", "type": "blocked", "bounce_classification": "Reputation"}, FeedbackKind.REFUSED),
        ({"name": "bounce", "type": "blocked", "bounce_classification": "Frequency or Volume Too High"}, FeedbackKind.REFUSED),
        ({"name": "bounce", "type": "blocked", "bounce_classification": "Mailbox Unavailable"}, FeedbackKind.SOFT_BOUNCED),
        ({"name": "bounce", "type": "blocked", "bounce_classification": "Unclassified"}, FeedbackKind.REFUSED),
        ({"name": "bounce", "type": "blocked", "status": "4.2.2"}, FeedbackKind.SOFT_BOUNCED),
        ({"name": "bounce", "type": "something new"}, FeedbackKind.REFUSED),
        ({"name": "dropped", "reason": "Bounced Address"}, FeedbackKind.BOUNCED),
        ({"name": "dropped", "reason": "Unsubscribed Address"}, FeedbackKind.UNSUBSCRIBED),
        ({"name": "dropped", "reason": "Spam Reporting Address"}, FeedbackKind.COMPLAINED),
        ({"name": "dropped", "reason": "Invalid"}, FeedbackKind.INVALID),
        ({"name": "dropped", "reason": "Spam Content"}, FeedbackKind.REFUSED),
        ({"name": "dropped", "reason": "Invalid SMTPAPI header"}, FeedbackKind.REFUSED),
        ({"name": "dropped", "reason": "Recipient List over Package Quota"}, FeedbackKind.REFUSED),
        ({"name": "dropped", "reason": "Something new"}, FeedbackKind.REFUSED),
        ({"name": "dropped"}, FeedbackKind.REFUSED),
        ({"name": "spamreport"}, FeedbackKind.COMPLAINED),
        ({"name": "unsubscribe"}, FeedbackKind.UNSUBSCRIBED),
        ({"name": "group_unsubscribe", "asm_group_id": 7}, FeedbackKind.UNSUBSCRIBED),
        ({"name": "group_resubscribe", "asm_group_id": 7}, FeedbackKind.RESUBSCRIBED),
        ({"name": "open"}, FeedbackKind.READ),
        ({"name": "click", "url": "https://x"}, FeedbackKind.READ),
        ({"name": "account_status_change"}, None),
        ({"name": "something new"}, None),
    ],
)
def test_every_event_has_its_meaning(fields: dict[str, Any], kind: FeedbackKind | None) -> None:
    meaning = meaning_of(event(**fields))

    assert (None if meaning is None else meaning.kind) is kind


def test_an_event_says_whom_and_what_it_is_about() -> None:
    known = Feedback(
        "ZGVsaXZlcmVkLTA", FeedbackKind.DELIVERED, "delivered", 1_699_999_990.0, ID, "14c5d75ce93", "ada@example.org"
    )
    assert one() == known
    assert one(name="group_unsubscribe", asm_group_id=7).topic == "7"
    assert one(name="unsubscribe").topic is None
    assert one(notification_id="not ours").notification_id is None
    assert one(sg_message_id=None).provider_message_id is None
    assert "ada" not in repr(one())


@pytest.mark.parametrize("timestamp", [-1, 10_000_000_000, 1_699_999_990_000, 1e300, True, None, "1699999990"])
def test_an_event_of_no_time_that_can_be_shown_is_passed_over(timestamp: Any) -> None:
    assert read(signed(orjson.dumps([event(timestamp=timestamp)]))) == []


def test_what_is_signed_with_another_key_or_changed_or_not_signed_is_refused() -> None:
    body = orjson.dumps([event()])
    request = signed(body)
    changed = WebhookRequest("POST", request.url, request.headers, body + b" ")
    bare = WebhookRequest("POST", request.url, {}, body)

    for wrong in (signed(body, key=ec.generate_private_key(ec.SECP256R1())), changed, bare):
        problem = read(wrong)
        assert isinstance(problem, Problem)
        assert (problem.status, problem.code) == (403, "signature_invalid")


@pytest.mark.parametrize("off_s", [-REPLAY_WINDOW_S - 1, REPLAY_WINDOW_S + 1])
def test_a_replay_is_refused(off_s: float) -> None:
    problem = read(signed(orjson.dumps([event()]), NOW_S + off_s))

    assert isinstance(problem, Problem)
    assert problem.code == "signature_too_old"
    assert len(read(signed(orjson.dumps([event()]), NOW_S + off_s * 0.99))) == 1


def test_without_a_key_nothing_is_believed() -> None:
    problem = read(signed(b"[]"), {})

    assert isinstance(problem, Problem)
    assert problem.code == "webhook_not_set_up"


def test_the_key_is_checked_when_it_is_stored() -> None:
    assert settings_problems(SETTINGS) == []
    for wrong in ("no", "", 5, base64.b64encode(b"no key").decode()):
        (problem,) = settings_problems({**SETTINGS, "event_webhook_public_key": wrong})
        assert problem.pointer == "/settings/event_webhook_public_key"


def test_sendgrids_own_helper_agrees_about_what_the_sandbox_signs() -> None:
    events = Events()
    hook = Hook("sendgrid", "http://127.0.0.1/", None, events.keep({}))
    public = events.shown(hook)["public_key"]
    callback = events.callback(hook, [event(), event("open")], NOW_S, 7)
    headers = {name.lower(): value for name, value in callback.headers.items()}
    helper = EventWebhook()

    assert helper.verify_signature(
        callback.body.decode(), headers[SIGNATURE], headers[TIMESTAMP], helper.convert_public_key_to_ecdsa(public)
    )
    request = WebhookRequest("POST", callback.url, headers, callback.body)
    assert [report.kind for report in read(request, {"event_webhook_public_key": public})] == ["delivered", "read"]


scalars = st.none() | st.booleans() | st.floats() | st.integers(-5, 2**40) | st.text(max_size=8)
json_values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=5), scalars, max_size=3)
names = st.sampled_from([*event(), "type", "reason", "status", "asm_group_id"])
fields = st.dictionaries(names, json_values)


@given(st.lists(fields.map(lambda changed: {**event("bounce"), **changed}), max_size=3) | json_values)
def test_whatever_is_signed_reading_it_never_raises(document: Any) -> None:
    reading = read(signed(orjson.dumps(document)))

    assert isinstance(reading, Problem | list)


@given(st.binary(max_size=60), st.text(max_size=20), st.text(max_size=20))
def test_whatever_comes_reading_it_never_raises(body: bytes, signature: str, timestamp: str) -> None:
    request = WebhookRequest("POST", "http://x/", {SIGNATURE: signature, TIMESTAMP: timestamp}, body)

    assert isinstance(read(request), Problem)
