"""The simulated Cloud API. Whether its calls are rightly signed is looked at here once more, without anything of ours."""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from attrs import evolve

from dispatcher.feedback.feedback import Feedback, WebhookReply, WebhookRequest
from dispatcher.feedback.meta import META_FEEDBACK
from dispatcher.outcome import OutcomeClass, RateScope
from dispatcher.problems import Problem
from dispatcher_sandbox.callbacks import Callback
from dispatcher_sandbox.exchange import Exchange
from dispatcher_sandbox.messages import Request
from dispatcher_sandbox.meta.reports import ACCOUNT
from meta_world import CREDENTIALS, DELIVERY, PHONE_NUMBER_ID, SETTINGS, meta
from sandbox_phones import MAGIC, NOW, answered, calls, handed, sandbox
from twilio_world import ID, MOMENT, NUMBER, TEMPLATE

HOOK = "https://dispatcher.example/hooks/7"
PATH = f"/v23.0/{PHONE_NUMBER_ID}/messages".encode()
TEXT = {"messaging_product": "whatsapp", "to": NUMBER, "type": "text", "text": {"body": "Hello"}}
FILLED = {
    "name": "order_update",
    "language": {"code": "en_US"},
    "components": [{"type": "body", "parameters": [{"type": "text", "text": "Ann"}]}],
}


def error(exchange: Exchange, document: Any, path: bytes = PATH, method: bytes = b"POST", token: bytes = b"Bearer x") -> Any:
    """The status of an answer and the error in it."""
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    answer = exchange.handle(Request(method, path, {b"authorization": token}, body), NOW).answer
    assert answer is not None
    return answer.status, orjson.loads(answer.body).get("error", {}).get("code")


def template(**changes: Any) -> dict[str, Any]:
    return {"messaging_product": "whatsapp", "to": NUMBER, "type": "template", "template": {**FILLED, **changes}}


def hooked(**settings: Any) -> Exchange:
    """A sandbox that reports, once it has our consent."""
    exchange = sandbox(**settings)
    secrets = {name: CREDENTIALS[name] for name in ("app_secret", "verify_token")}
    exchange.reporting.hook("meta", HOOK, None, secrets, NOW)
    (challenge,) = calls(exchange)
    assert challenge.method == "GET"
    return exchange


def reported(exchange: Exchange) -> list[Feedback]:
    """What the dispatcher reads from the calls that are made now."""
    found: list[Feedback] = []
    for call in calls(exchange):
        mac = hmac.new(b"hush-secret", call.body, sha256).hexdigest()
        assert call.headers["x-hub-signature-256"] == f"sha256={mac}"
        request = WebhookRequest("POST", call.url, call.headers, call.body)
        settings = {**SETTINGS, "business_account_id": ACCOUNT}
        read = META_FEEDBACK.read(request, settings, CREDENTIALS, NOW, {})
        assert not isinstance(read, Problem | WebhookReply)
        found += read
    return found


# --- messages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [{"text": "Grüße"}, {"template": TEMPLATE}, {"template": {**TEMPLATE, "parameters": []}}])
def test_what_the_dispatcher_sends_is_taken(payload: dict[str, Any]) -> None:
    exchange = sandbox()
    answer = answered(exchange, meta().request(evolve(DELIVERY, payload=payload), MOMENT))
    document = orjson.loads(answer.body)
    outcome = meta().classify(answer, NOW)

    assert document["messaging_product"] == "whatsapp"
    assert document["contacts"] == [{"input": NUMBER, "wa_id": NUMBER[1:]}]
    assert outcome.kind is OutcomeClass.DELIVERED
    assert outcome.provider_message_id == document["messages"][0]["id"] == exchange.ledger.recent[-1].message_id
    assert exchange.ledger.effects(ID) == 1
    assert dict(exchange.ledger.organizations.items()) == {"acme": 1}


def test_a_key_may_be_honoured_by_a_gateway() -> None:
    exchange = sandbox(honour_idempotency_keys=True)
    first, again = (meta().classify(answered(exchange, meta().request(DELIVERY, MOMENT)), NOW) for _ in range(2))

    assert first == again
    assert exchange.ledger.effects(ID) == 1


@pytest.mark.parametrize(
    "document",
    [
        TEXT,
        {**TEXT, "to": "1 555-123-0000", "recipient_type": "individual"},
        {name: value for name, value in TEXT.items() if name != "type"},
        template(),
        template(components=[{"type": "HEADER", "parameters": [{"type": "currency"}]}]),
        {"messaging_product": "whatsapp", "to": NUMBER, "type": "image", "image": {"id": "1"}},
    ],
)
def test_what_the_description_allows_is_taken(document: dict[str, Any]) -> None:
    assert error(sandbox(), document) == (200, None)


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (b"{", 100),
        ([], 100),
        ({}, 100),
        ({**TEXT, "messaging_product": "sms"}, 100),
        ({**TEXT, "recipient_type": "crowd"}, 100),
        ({**TEXT, "to": ""}, 100),
        ({**TEXT, "to": "Ann"}, 131009),
        ({**TEXT, "biz_opaque_callback_data": "x" * 513}, 100),
        ({**TEXT, "type": "fax"}, 131051),
        ({**TEXT, "type": "template"}, 131008),
        ({**TEXT, "text": {}}, 131008),
        ({**TEXT, "text": {"body": "x" * 4097}}, 100),
        ({**TEXT, "text": {"body": "x", "preview_url": "no"}}, 100),
        (template(name=""), 131008),
        (template(name="Order Update"), 132001),
        (template(name="missing_template"), 132001),
        (template(name="paused_template"), 132015),
        (template(language="en"), 131008),
        (template(language={"code": "en-US"}), 132001),
        (template(components={}), 100),
        (template(components=[{"type": "foot"}]), 100),
        (template(components=[{"type": "body", "parameters": {}}]), 100),
        (template(components=[{"type": "body", "parameters": ["Ann"]}]), 132012),
        (template(components=[{"type": "body", "parameters": [{"type": "text"}]}]), 131008),
        (template(components=[{"type": "body", "parameters": [{"type": "text", "text": "x" * 1025}]}]), 132005),
        (template(components=[{"type": "body", "parameters": [{"type": "text", "text": "a\nb"}]}]), 132012),
    ],
)
def test_a_rule_that_is_broken_is_told_in_metas_words(document: Any, code: int) -> None:
    exchange = sandbox()

    assert error(exchange, document) == (400, code)
    assert exchange.ledger.accepted == 0


@pytest.mark.parametrize(
    ("path", "method", "token", "status", "code"),
    [
        (b"/v23.0/me", b"POST", b"Bearer x", 400, 2500),
        (PATH, b"GET", b"Bearer x", 400, 100),
        (b"/v23.0/1", b"POST", b"Bearer x", 400, 100),
        (PATH, b"POST", b"", 401, 190),
        (PATH, b"POST", b"Bearer ", 401, 190),
        (PATH, b"POST", b"Basic x", 401, 190),
        (b"/v23.0/4041/messages", b"POST", b"Bearer x", 400, 100),
    ],
)
def test_what_is_no_message_is_refused(path: bytes, method: bytes, token: bytes, status: int, code: int) -> None:
    assert error(sandbox(), TEXT, path, method, token) == (status, code)


def test_the_probe_finds_the_number_connected_or_not_at_all() -> None:
    good = meta().probed(answered(sandbox(), meta().probe(MOMENT)), NOW)
    elsewhere = meta(phone_number_id="4041")
    bad = elsewhere.probed(answered(sandbox(), elsewhere.probe(MOMENT)), NOW)

    assert good.good
    assert (bad.good, bad.code) == (False, "number_deleted_33")


def test_a_number_that_is_not_there_is_a_matter_of_configuration() -> None:
    elsewhere = meta(phone_number_id="4041")

    assert elsewhere.classify(answered(sandbox(), elsewhere.request(DELIVERY, MOMENT)), NOW).kind is OutcomeClass.MISCONFIGURED


def test_a_busy_app_is_told_so() -> None:
    exchange = sandbox(rate_limit_per_s=1)
    kinds = [meta().classify(answered(exchange, meta().request(DELIVERY, MOMENT)), NOW).kind for _ in range(2)]

    assert kinds == [OutcomeClass.DELIVERED, OutcomeClass.RATE_LIMITED]


@pytest.mark.parametrize(
    ("digits", "kind"),
    [
        ("0000", OutcomeClass.DELIVERED),
        ("0001", OutcomeClass.SUPPRESS),
        ("0002", OutcomeClass.SOFT),
        ("0003", OutcomeClass.HARD),
        ("0004", OutcomeClass.HARD),
        ("0009", OutcomeClass.SUPPRESS),
        ("0020", OutcomeClass.SOFT),
        ("0022", OutcomeClass.RATE_LIMITED),
        ("0023", OutcomeClass.MISCONFIGURED),
        ("0024", OutcomeClass.MISCONFIGURED),
        ("0030", OutcomeClass.RATE_LIMITED),
        ("0031", OutcomeClass.HARD),
        ("0032", OutcomeClass.HARD),
        ("0033", OutcomeClass.MISCONFIGURED),
        ("0034", OutcomeClass.RATE_LIMITED),
        ("4711", OutcomeClass.DELIVERED),
    ],
)
def test_a_magic_number_ends_an_attempt_in_its_way(digits: str, kind: OutcomeClass) -> None:
    request = meta().request(evolve(DELIVERY, recipient=MAGIC + digits), MOMENT)
    outcome = meta().classify(answered(sandbox(), request), NOW)

    assert outcome.kind is kind
    assert (outcome.scope is RateScope.RECIPIENT) == (digits == "0030")


@pytest.mark.parametrize("digits", ["0025", "0027", "0028"])
def test_a_magic_number_may_get_no_answer(digits: str) -> None:
    assert handed(sandbox(), meta().request(evolve(DELIVERY, recipient=MAGIC + digits), MOMENT)).answer is None


# --- reports ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("digits", "kinds"),
    [
        ("0000", "sent delivered"),
        ("0010", "refused"),
        ("0011", "invalid"),
        ("0012", "invalid"),
        ("0013", "refused"),
        ("0014", "refused unsubscribed"),
        ("0015", "sent delivered read"),
        ("0016", "sent delivered unsubscribed"),
        ("0017", ""),
        ("0019", "sent delivered unsubscribed"),
        ("4711", "sent delivered"),
    ],
)
def test_what_becomes_of_a_message_is_reported(digits: str, kinds: str) -> None:
    exchange = hooked()
    answered(exchange, meta().request(evolve(DELIVERY, recipient=MAGIC + digits), MOMENT))
    found = reported(exchange)

    assert [str(one.kind) for one in found] == kinds.split()
    assert {one.recipient for one in found} <= {MAGIC + digits}
    assert [one.topic for one in found if one.topic] == (["marketing"] if digits in ("0014", "0019") else [])
    assert all(one.notification_id == ID for one in found if one.provider_message_id)


def test_many_reports_come_in_one_call_and_none_without_a_hook() -> None:
    exchange, silent = hooked(), sandbox()
    for number in range(4):
        request = meta().request(evolve(DELIVERY, recipient=f"{NUMBER}{number}"), MOMENT)
        answered(exchange, request)
        answered(silent, request)

    assert len(calls(exchange)) == 1
    assert calls(silent) == []


def test_a_new_hook_is_asked_for_its_consent() -> None:
    exchange = sandbox()
    shown = exchange.reporting.hook("meta", f"{HOOK}?a=b", None, {}, NOW)
    (call,) = calls(exchange)
    reply = META_FEEDBACK.read(WebhookRequest(call.method, call.url, call.headers, b""), SETTINGS, shown, NOW, {})

    assert parse_qs(urlsplit(call.url).query)["a"] == ["b"]
    assert reply == WebhookReply(200, "webhook_verified", call.expected or b"")
    with pytest.raises(ValueError, match="app_secret"):
        exchange.reporting.hook("meta", HOOK, None, {"secret": "x"}, NOW)


def test_a_repetition_has_the_same_bytes() -> None:
    exchange = hooked()
    answered(exchange, meta().request(evolve(DELIVERY, recipient=MAGIC + "0016"), MOMENT))
    (parcel,) = exchange.reporting.due(exchange.behaviour, NOW)
    first, again = parcel.callback(NOW), parcel.callback(NOW + 60)

    assert isinstance(first, Callback)
    assert first == again
    assert b"\\u00eb" in first.body
