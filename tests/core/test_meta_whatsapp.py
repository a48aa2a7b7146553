from __future__ import annotations

from typing import Any

import orjson
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.http_message import HttpRequest, HttpResponse, Origin
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.meta_whatsapp import META_WHATSAPP, bind, credentials_problems, settings_problems
from dispatcher.providers.probing import Probing
from dispatcher.providers.provider import Unbindable, Unsendable
from meta_world import ACCOUNT_ID, CONFIG, CREDENTIALS, DELIVERY, PHONE_NUMBER_ID, SETTINGS, meta
from twilio_world import ID, MOMENT, NOW, NUMBER, TEMPLATE

TEMPLATES = st.fixed_dictionaries({"name": st.text(), "language": st.text(), "parameters": st.lists(st.text())})
SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(st.characters(codec="utf-8"))
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["error", "code", "error_subcode", "messages", "id", "status"]), inner)
    ),
)


def sent(request: HttpRequest) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(request.body)
    return body


def answered(status: int, document: object = None) -> Outcome:
    return meta().classify(HttpResponse(status, (), b"" if document is None else orjson.dumps(document)), NOW)


def test_a_text_is_one_message_of_the_number() -> None:
    request = meta().request(DELIVERY, MOMENT)

    assert request.origin == Origin("https", "graph.facebook.com", 443)
    assert (request.method, request.target) == (b"POST", f"/v23.0/{PHONE_NUMBER_ID}/messages".encode())
    assert sent(request) == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "biz_opaque_callback_data": f"organization_id=acme&notification_id={ID}",
        "to": NUMBER,
        "type": "text",
        "text": {"preview_url": False, "body": "Doors at 7 & later"},
    }
    assert dict(request.headers) == {
        b"authorization": b"Bearer hush-token",
        b"content-type": b"application/json",
        b"accept": b"application/json",
        b"user-agent": b"notification-dispatcher",
        b"idempotency-key": ID.encode(),
    }


def test_settings_reach_the_message() -> None:
    request = meta(api_version="v24.0", preview_url=True, base_url="http://127.0.0.1:8025/graph").request(DELIVERY, MOMENT)

    assert request.target == f"/graph/v24.0/{PHONE_NUMBER_ID}/messages".encode()
    assert sent(request)["text"]["preview_url"] is True


@pytest.mark.parametrize("language", ["en_US", "en-us"])
def test_a_template_is_named_in_metas_spelling(language: str) -> None:
    payload = {"template": {**TEMPLATE, "language": language}}
    body = sent(meta().request(evolve(DELIVERY, payload=payload), MOMENT))

    assert body["type"] == "template"
    assert "text" not in body
    assert body["template"] == {
        "name": "order_update",
        "language": {"code": "en_US"},
        "components": [{"type": "body", "parameters": [{"type": "text", "text": "Ann"}, {"type": "text", "text": "B7"}]}],
    }


def test_a_template_without_parameters_has_no_components() -> None:
    payload = {"template": {"name": "hello_world", "language": "en"}}

    assert sent(meta().request(evolve(DELIVERY, payload=payload), MOMENT))["template"] == {
        "name": "hello_world",
        "language": {"code": "en"},
    }


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"template": {**TEMPLATE, "name": "Other!"}}, "template_invalid"),
        ({"template": None}, "template_invalid"),
        ({}, "text_missing"),
        ({"text": ""}, "text_missing"),
        ({"text": ["x"]}, "text_missing"),
        ({"text": "x" * 4097}, "text_too_long"),
        ({"text": "\ud800"}, "payload_not_unicode"),
        ({"template": {**TEMPLATE, "parameters": ["\ud800"]}}, "payload_not_unicode"),
    ],
)
def test_what_meta_could_not_take_is_not_sent(payload: dict[str, Any], code: str) -> None:
    with pytest.raises(Unsendable) as refused:
        meta().request(evolve(DELIVERY, payload=payload), MOMENT)

    assert refused.value.code == code


@pytest.mark.parametrize("recipient", ["ann@example.org", "15551230000", "+1", '+1555123"000', ""])
def test_a_recipient_is_a_number(recipient: str) -> None:
    with pytest.raises(Unsendable, match="recipient_invalid"):
        meta().request(evolve(DELIVERY, recipient=recipient), MOMENT)


@given(
    st.dictionaries(st.sampled_from(["text", "template"]), st.none() | st.text() | st.integers() | TEMPLATES),
    st.text() | st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True),
)
def test_a_request_is_valid_or_there_is_none(payload: dict[str, Any], recipient: str) -> None:
    try:
        body = sent(meta().request(evolve(DELIVERY, payload=payload, recipient=recipient), MOMENT))
    except Unsendable:
        return

    assert body["to"] == recipient
    assert body["type"] in body
    assert body["type"] == "template" or body["text"]["body"] == payload["text"]


# --- answers ------------------------------------------------------------------------------------------------


def test_an_answer_with_a_message_is_accepted_under_its_id() -> None:
    accepted = {
        "messaging_product": "whatsapp",
        "contacts": [{"input": NUMBER, "wa_id": "1"}],
        "messages": [{"id": "wamid.HBg="}],
    }

    assert answered(200, accepted) == Outcome(OutcomeClass.DELIVERED, "accepted", "wamid.HBg=")
    assert answered(200, {"messages": [{"id": "x y"}]}) == Outcome(OutcomeClass.DELIVERED, "accepted")
    assert answered(200, {"messages": 5}) == answered(200) == Outcome(OutcomeClass.DELIVERED, "accepted")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, OutcomeClass.MISCONFIGURED),
        (400, OutcomeClass.HARD),
        (401, OutcomeClass.MISCONFIGURED),
        (404, OutcomeClass.MISCONFIGURED),
        (413, OutcomeClass.HARD),
        (429, OutcomeClass.RATE_LIMITED),
        (500, OutcomeClass.SOFT),
        (502, OutcomeClass.UNKNOWN),
        (504, OutcomeClass.UNKNOWN),
    ],
)
def test_without_a_code_the_status_decides(status: int, kind: OutcomeClass) -> None:
    assert answered(status) == Outcome(kind, f"http_{status}")
    assert answered(status, {"error": {"code": "190"}}) == Outcome(kind, f"http_{status}")
    assert answered(status, {"error": [190]}) == Outcome(kind, f"http_{status}")


@given(st.integers(0, 999), st.binary() | DOCUMENTS.map(orjson.dumps))
def test_whatever_comes_back_has_a_meaning(status: int, body: bytes) -> None:
    response = HttpResponse(status, (), body)
    outcome, probed = meta().classify(response, NOW), meta().probed(response, NOW)

    assert len(outcome.code.encode("ascii")) <= 64
    assert probed.words


# --- configurations -----------------------------------------------------------------------------------------


def pointers(**settings: Any) -> list[str | None]:
    return [problem.pointer for problem in settings_problems({**SETTINGS, **settings})]


def test_settings_that_do() -> None:
    assert pointers() == pointers(business_account_id=ACCOUNT_ID, api_version="v22.0", preview_url=False, quota=5) == []


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({"phone_number_id": None}, "/settings/phone_number_id"),
        ({"phone_number_id": 106540352242922}, "/settings/phone_number_id"),
        ({"phone_number_id": "1/../2"}, "/settings/phone_number_id"),
        ({"business_account_id": "x"}, "/settings/business_account_id"),
        ({"api_version": "23"}, "/settings/api_version"),
        ({"preview_url": 1}, "/settings/preview_url"),
        ({"on_unknown": "ask"}, "/settings/on_unknown"),
        ({"colour": 1}, "/settings"),
        ({"base_url": "https://elsewhere.example"}, "/settings/base_url"),
    ],
)
def test_settings_that_do_not(settings: dict[str, Any], pointer: str) -> None:
    assert pointers(**settings) == [pointer]


@pytest.mark.parametrize(
    ("credentials", "names"),
    [
        (CREDENTIALS, []),
        ({"access_token": "x"}, []),
        ({}, ["access_token"]),
        ({"access_token": "a b", "app_secret": 5, "verify_token": ""}, ["access_token", "app_secret", "verify_token"]),
    ],
)
def test_credentials_are_a_token_and_what_reports_need(credentials: dict[str, Any], names: list[str]) -> None:
    assert [problem.pointer for problem in credentials_problems(credentials)] == [f"/credentials/{name}" for name in names]


def test_what_does_not_pass_the_checks_is_not_bound() -> None:
    with pytest.raises(Unbindable):
        bind(evolve(CONFIG, settings={}))


def test_nothing_shows_what_it_holds() -> None:
    shown = repr(meta()) + repr(meta().request(DELIVERY, MOMENT)) + repr(CONFIG)

    assert repr(meta()) == "<BoundMetaWhatsApp https://graph.facebook.com:443>"
    assert [word for word in ("hush", NUMBER, "Doors") if word in shown] == []


def test_every_outcome_can_be_explained() -> None:
    assert {"http_429", "token_expired_190"} <= set(META_WHATSAPP.explanations)


# --- probes -------------------------------------------------------------------------------------------------


def test_a_probe_asks_for_the_number_and_sends_nothing() -> None:
    assert isinstance(meta(), Probing)
    request = meta().probe(MOMENT)

    assert (request.method, request.body) == (b"GET", b"")
    assert request.target.startswith(f"/v23.0/{PHONE_NUMBER_ID}?fields=".encode())


@pytest.mark.parametrize(
    ("status", "document", "good", "code"),
    [
        (200, {"id": PHONE_NUMBER_ID}, True, "number_connected"),
        (200, {"id": PHONE_NUMBER_ID, "status": "CONNECTED"}, True, "number_connected"),
        (200, {"id": PHONE_NUMBER_ID, "status": "DISCONNECTED"}, False, "number_not_connected"),
        (200, {"id": "7"}, False, "answer_not_understood"),
        (200, None, False, "answer_not_understood"),
        (400, {"error": {"code": 100, "error_subcode": 33}}, False, "number_deleted_33"),
        (401, {"error": {"code": 190}}, False, "token_expired_190"),
        (403, {"error": {"code": 10}}, False, "permission_missing_10"),
        (403, {"error": {"code": 200}}, False, "permission_200"),
        (400, {"error": {"code": 2_000_000}}, False, "http_400"),
        (503, None, False, "http_503"),
    ],
)
def test_a_probe_says_what_is_right_or_wrong(status: int, document: object, good: bool, code: str) -> None:
    body = b"" if document is None else orjson.dumps(document)
    probed = meta().probed(HttpResponse(status, (), body), NOW)

    assert (probed.good, probed.code) == (good, code)
    assert probed.words
