from __future__ import annotations

import json
from base64 import b64encode
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.http_message import HttpRequest, HttpResponse, Origin
from dispatcher.model import Channel
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.probing import Probing
from dispatcher.providers.provider import Unbindable, Unsendable
from dispatcher.providers.registry import REGISTRY
from dispatcher.providers.twilio import BoundTwilio
from dispatcher.providers.twilio_errors import ERRORS
from twilio_world import (
    ACCOUNT,
    CONTENT,
    CREDENTIALS,
    DELIVERY,
    ID,
    KEY,
    MOMENT,
    NOW,
    NUMBER,
    ORIGINS,
    SERVICE,
    SETTINGS,
    SMS,
    TEMPLATE,
    TOKEN,
    WHATSAPP,
    sms,
    whatsapp,
)

CALLBACK = "https://dispatcher.example/hooks/7"
TEMPLATES = st.fixed_dictionaries({"name": st.text(), "language": st.text(), "parameters": st.lists(st.text())})
SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(st.characters(codec="utf-8"))
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["code", "sid", "status", "error_code", "detail"]), inner),
)
SENT = evolve(DELIVERY, channel=Channel.WHATSAPP, payload={"template": TEMPLATE})


def fields(request: HttpRequest) -> dict[str, str]:
    """The form of a request; no field twice."""
    read = parse_qs(request.body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
    assert {len(values) for values in read.values()} == {1}
    return {name: values[0] for name, values in read.items()}


def answered(status: int, document: object = None, bound: BoundTwilio | None = None) -> Outcome:
    body = b"" if document is None else orjson.dumps(document)
    return (bound or sms()).classify(HttpResponse(status, (), body), NOW)


# --- requests -----------------------------------------------------------------------------------------------


def test_a_text_is_one_form_to_the_accounts_messages() -> None:
    request = sms().request(DELIVERY, MOMENT)

    assert request.origin == Origin("https", "api.twilio.com", 443)
    assert (request.method, request.target) == (b"POST", f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json".encode())
    assert fields(request) == {"To": NUMBER, "Body": "Doors at 7 & later", "From": "+15005550006"}
    assert dict(request.headers) == {
        b"authorization": b"Basic " + b64encode(f"{ACCOUNT}:{TOKEN}".encode()),
        b"content-type": b"application/x-www-form-urlencoded",
        b"accept": b"application/json",
        b"user-agent": b"notification-dispatcher",
        b"idempotency-key": ID.encode(),
    }


def test_an_api_key_stands_in_for_the_token() -> None:
    request = sms({"account_sid": ACCOUNT, "api_key_sid": KEY, "api_key_secret": "hush"}).request(DELIVERY, MOMENT)

    assert request.target == f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json".encode()
    assert dict(request.headers)[b"authorization"] == b"Basic " + b64encode(f"{KEY}:hush".encode())


def test_settings_reach_the_form() -> None:
    request = sms(from_number=None, messaging_service_sid=SERVICE, validity_period_s=600, smart_encoded=True).request(
        DELIVERY, MOMENT
    )

    assert fields(request) == {
        "To": NUMBER,
        "Body": "Doors at 7 & later",
        "MessagingServiceSid": SERVICE,
        "ValidityPeriod": "600",
        "SmartEncoded": "true",
    }


@pytest.mark.parametrize("url", [CALLBACK, f"{CALLBACK}?a=1&b=%20"])
def test_the_callback_carries_our_ids_in_its_query(url: str) -> None:
    given = fields(sms(status_callback_url=url).request(DELIVERY, MOMENT))["StatusCallback"]
    parts = urlsplit(given)

    assert given.startswith(url)
    assert parse_qs(parts.query)["notification_id"] == [ID]
    assert parse_qs(parts.query)["organization_id"] == ["acme"]
    assert parts.fragment == "rc=5&rp=5xx,ct,rt"


@pytest.mark.parametrize(
    ("left_s", "setting", "sent"), [(90.7, None, "90"), (90, 60, "60"), (-5, None, "1"), (1e6, None, "36000")]
)
def test_what_expires_here_does_not_wait_longer_there(left_s: float, setting: int | None, sent: str) -> None:
    request = sms(validity_period_s=setting).request(evolve(DELIVERY, expires_at_s=NOW + left_s), MOMENT)

    assert fields(request)["ValidityPeriod"] == sent


def test_a_whatsapp_message_marks_both_numbers() -> None:
    request = whatsapp().request(evolve(SENT, payload={"text": "Doors at 7"}), MOMENT)

    assert fields(request) == {"To": f"whatsapp:{NUMBER}", "From": "whatsapp:+15005550006", "Body": "Doors at 7"}


@pytest.mark.parametrize("language", ["en_US", "en-us"])
def test_a_template_becomes_its_content_sid_and_numbered_variables(language: str) -> None:
    bound = whatsapp(content_sids={"order_update": {language: CONTENT, "de": "HX" + "0" * 32}})
    sent = fields(bound.request(SENT, MOMENT))

    assert sent == {
        "To": f"whatsapp:{NUMBER}",
        "From": "whatsapp:+15005550006",
        "ContentSid": CONTENT,
        "ContentVariables": '{"1": "Ann", "2": "B7"}',
    }


def test_a_template_without_parameters_has_no_variables() -> None:
    bound = whatsapp(content_sids={"order_update": {"en_US": CONTENT}})
    request = bound.request(evolve(SENT, payload={"template": {"name": "order_update", "language": "en_US"}}), MOMENT)

    assert "ContentVariables" not in fields(request)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"template": {**TEMPLATE, "language": "de"}}, "template_without_content_sid"),
        ({"template": {**TEMPLATE, "name": "other"}}, "template_without_content_sid"),
        ({"template": {**TEMPLATE, "name": "Other!"}}, "template_invalid"),
        ({"template": "order_update"}, "template_invalid"),
        ({}, "text_missing"),
        ({"text": ""}, "text_missing"),
        ({"text": 7}, "text_missing"),
        ({"text": "x" * 1601}, "text_too_long"),
        ({"text": "\ud800"}, "payload_not_unicode"),
        ({"template": {**TEMPLATE, "parameters": ["\ud800"]}}, "payload_not_unicode"),
    ],
)
def test_what_twilio_could_not_take_is_not_sent(payload: dict[str, Any], code: str) -> None:
    with pytest.raises(Unsendable) as refused:
        whatsapp(content_sids={"order_update": {"en_US": CONTENT}}).request(evolve(SENT, payload=payload), MOMENT)

    assert refused.value.code == code


@pytest.mark.parametrize("recipient", ["ann@example.org", "15551230000", "+1", "+1555123000a", "+1555\n1230000", ""])
def test_a_recipient_is_a_number(recipient: str) -> None:
    with pytest.raises(Unsendable, match="recipient_invalid"):
        sms().request(evolve(DELIVERY, recipient=recipient), MOMENT)


def test_another_attempt_is_the_same_request() -> None:
    assert sms().request(DELIVERY, MOMENT) == sms().request(evolve(DELIVERY, attempt=2), MOMENT)


@given(
    st.dictionaries(
        st.sampled_from(["text", "template"]),
        st.none() | st.text() | st.integers() | TEMPLATES,
    ),
    st.text() | st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True),
    st.booleans(),
)
def test_a_request_is_valid_or_there_is_none(payload: dict[str, Any], recipient: str, is_sms: bool) -> None:
    bound = sms(status_callback_url=CALLBACK) if is_sms else whatsapp(content_sids={"a": {"en": CONTENT}})
    try:
        request = bound.request(evolve(DELIVERY, payload=payload, recipient=recipient), MOMENT)
    except Unsendable:
        return
    form = fields(request)

    assert form["To"].removeprefix("whatsapp:") == recipient
    assert form.get("Body", payload.get("text")) == payload.get("text")
    assert ("Body" in form) != ("ContentSid" in form)


# --- answers ------------------------------------------------------------------------------------------------


def test_created_is_accepted_under_twilios_id() -> None:
    sid = "SM" + "1f" * 16

    assert answered(201, {"sid": sid, "status": "queued", "error_code": None}) == Outcome(OutcomeClass.DELIVERED, "accepted", sid)
    assert answered(201, {"sid": "x" * 999, "status": ["queued"]}) == Outcome(OutcomeClass.DELIVERED, "accepted")
    assert answered(201) == Outcome(OutcomeClass.DELIVERED, "accepted")


def test_a_message_that_failed_at_once_is_not_accepted() -> None:
    assert answered(201, {"sid": "SM", "status": "failed", "error_code": 30006}).kind is OutcomeClass.SUPPRESS
    assert answered(201, {"sid": "SM", "status": "undelivered", "error_code": None}).kind is OutcomeClass.HARD


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, OutcomeClass.MISCONFIGURED),
        (400, OutcomeClass.HARD),
        (401, OutcomeClass.MISCONFIGURED),
        (403, OutcomeClass.MISCONFIGURED),
        (404, OutcomeClass.MISCONFIGURED),
        (405, OutcomeClass.MISCONFIGURED),
        (408, OutcomeClass.SOFT),
        (413, OutcomeClass.HARD),
        (415, OutcomeClass.MISCONFIGURED),
        (418, OutcomeClass.HARD),
        (425, OutcomeClass.SOFT),
        (429, OutcomeClass.RATE_LIMITED),
        (500, OutcomeClass.SOFT),
        (502, OutcomeClass.UNKNOWN),
        (503, OutcomeClass.SOFT),
        (504, OutcomeClass.UNKNOWN),
        (999, OutcomeClass.UNKNOWN),
    ],
)
def test_without_a_code_the_status_decides(status: int, kind: OutcomeClass) -> None:
    assert answered(status) == Outcome(kind, f"http_{status}")
    assert answered(status, {"code": "21211"}) == Outcome(kind, f"http_{status}")


@given(
    st.integers(0, 999),
    st.lists(st.tuples(st.sampled_from([b"retry-after", b"x"]), st.binary())),
    st.binary() | DOCUMENTS.map(orjson.dumps),
)
def test_whatever_comes_back_has_a_meaning(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    response = HttpResponse(status, headers, body)
    outcome, probed = sms().classify(response, NOW), sms().probed(response, NOW)

    assert outcome.code.isascii()
    assert len(outcome.code) <= 64
    assert probed.words


# --- configurations -----------------------------------------------------------------------------------------


def problems(name: str, **settings: Any) -> dict[str | None, str]:
    chosen = {key: value for key, value in {**SETTINGS, **settings}.items() if value is not None}
    return {problem.pointer: problem.code for problem in REGISTRY[name].settings_problems(chosen, ORIGINS)}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"from_number": "12345"},
        {"from_number": "Acme Shop"},
        {"from_number": None, "messaging_service_sid": SERVICE},
        {"validity_period_s": 1, "smart_encoded": False},
        {"validity_period_s": 36_000, "status_callback_url": "http://127.0.0.1:8080/hooks?x=1"},
        {"base_url": "http://127.0.0.1:8025", "rate_per_s": 1, "on_unknown": "hold"},
    ],
)
def test_settings_that_do(settings: dict[str, Any]) -> None:
    assert problems("twilio_sms", **settings) == {}


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({"from_number": None}, "/settings/from_number"),
        ({"messaging_service_sid": SERVICE}, "/settings/from_number"),
        ({"from_number": "+0123"}, "/settings/from_number"),
        ({"from_number": "Acme & Sons"}, "/settings/from_number"),
        ({"from_number": "Acme Tickets!"}, "/settings/from_number"),
        ({"from_number": 5}, "/settings/from_number"),
        ({"from_number": None, "messaging_service_sid": "MG1"}, "/settings/messaging_service_sid"),
        ({"validity_period_s": 0}, "/settings/validity_period_s"),
        ({"validity_period_s": 36_001}, "/settings/validity_period_s"),
        ({"validity_period_s": True}, "/settings/validity_period_s"),
        ({"smart_encoded": "yes"}, "/settings/smart_encoded"),
        ({"status_callback_url": "https://under_score.example/"}, "/settings/status_callback_url"),
        ({"status_callback_url": "ftp://a.example/"}, "/settings/status_callback_url"),
        ({"status_callback_url": "https://a.example/#x"}, "/settings/status_callback_url"),
        ({"status_callback_url": "https://me:hush@a.example/"}, "/settings/status_callback_url"),
        ({"status_callback_url": "https://a.example/" + "x" * 4000}, "/settings/status_callback_url"),
        ({"status_callback_url": "https://[::1/"}, "/settings/status_callback_url"),
        ({"status_callback_url": 5}, "/settings/status_callback_url"),
        ({"content_sids": {}}, "/settings"),
        ({"on_unknown": "ask"}, "/settings/on_unknown"),
        ({"base_url": "https://elsewhere.example"}, "/settings/base_url"),
    ],
)
def test_settings_that_do_not(settings: dict[str, Any], pointer: str) -> None:
    assert list(problems("twilio_sms", **settings)) == [pointer]


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({"from_number": "12345"}, "/settings/from_number"),
        ({"smart_encoded": True}, "/settings"),
        ({"content_sids": []}, "/settings/content_sids"),
        ({"content_sids": {"Order": {"en": CONTENT}}}, "/settings/content_sids"),
        ({"content_sids": {"order": CONTENT}}, "/settings/content_sids"),
        ({"content_sids": {"order": {"english!": CONTENT}}}, "/settings/content_sids/order"),
        ({"content_sids": {"order": {"en": "HX1"}}}, "/settings/content_sids/order/en"),
    ],
)
def test_whatsapp_has_its_own_settings(settings: dict[str, Any], pointer: str) -> None:
    assert problems("twilio_whatsapp") == problems("twilio_whatsapp", content_sids={"order": {"pt_BR": CONTENT}}) == {}
    assert list(problems("twilio_whatsapp", **settings)) == [pointer]


@pytest.mark.parametrize(
    ("credentials", "pointers"),
    [
        (CREDENTIALS, []),
        ({"account_sid": ACCOUNT, "api_key_sid": KEY, "api_key_secret": "hush"}, []),
        ({**CREDENTIALS, "api_key_sid": KEY, "api_key_secret": "hush", "webhook_key": "hush"}, []),
        ({}, ["account_sid", "auth_token"]),
        ({"account_sid": ACCOUNT}, ["auth_token"]),
        ({"account_sid": ACCOUNT, "api_key_sid": KEY}, ["api_key_secret"]),
        ({"account_sid": ACCOUNT, "api_key_secret": "hush"}, ["api_key_sid"]),
        ({"account_sid": "AC1", "auth_token": "a b"}, ["account_sid", "auth_token"]),
        ({**CREDENTIALS, "api_key_sid": "SK1", "api_key_secret": "é"}, ["api_key_sid", "api_key_secret"]),
        ({**CREDENTIALS, "webhook_key": 5}, ["webhook_key"]),
    ],
)
def test_credentials_are_a_token_or_a_key(credentials: dict[str, Any], pointers: list[str]) -> None:
    found = REGISTRY["twilio_sms"].credentials_problems(credentials)

    assert [problem.pointer for problem in found] == [f"/credentials/{name}" for name in pointers]
    assert "hush" not in repr(found)


def test_an_unknown_field_of_the_credentials_is_not_repeated() -> None:
    (problem,) = REGISTRY["twilio_sms"].credentials_problems({**CREDENTIALS, "hush": "x"})

    assert "hush" not in repr(problem)


@pytest.mark.parametrize("config", [SMS, WHATSAPP])
def test_what_does_not_pass_the_checks_is_not_bound(config: Any) -> None:
    with pytest.raises(Unbindable):
        REGISTRY[config.provider].bind(evolve(config, settings={}))


def test_nothing_shows_what_it_holds() -> None:
    bound = sms(status_callback_url=CALLBACK)
    shown = repr(bound) + repr(bound.request(DELIVERY, MOMENT)) + repr(SMS)

    assert repr(bound) == "<BoundTwilio sms https://api.twilio.com:443>"
    assert [word for word in (TOKEN, NUMBER, ACCOUNT, "Doors") if word in shown] == []


def test_every_outcome_can_be_explained() -> None:
    explanations = REGISTRY["twilio_whatsapp"].explanations

    assert set(ERRORS.explanations) | {"http_429", "http_502"} <= set(explanations)


# --- probes -------------------------------------------------------------------------------------------------


def test_a_probe_asks_for_the_account_and_sends_nothing() -> None:
    bound = sms()
    assert isinstance(bound, Probing)
    request = bound.probe(MOMENT)

    assert (request.method, request.target) == (b"GET", f"/2010-04-01/Accounts/{ACCOUNT}.json".encode())
    assert request.body == b""
    assert b"content-type" not in dict(request.headers)


def test_a_key_is_probed_with_what_it_may_see() -> None:
    request = sms({"account_sid": ACCOUNT, "api_key_sid": KEY, "api_key_secret": "hush"}).probe(MOMENT)

    assert request.target == f"/2010-04-01/Accounts/{ACCOUNT}/IncomingPhoneNumbers.json?PageSize=1".encode()


@pytest.mark.parametrize(
    ("status", "document", "code"),
    [
        (200, {"status": "suspended"}, "account_suspended"),
        (200, {"status": "closed"}, "account_closed"),
        (200, {"status": {}}, "answer_not_understood"),
        (401, {"code": 20003}, "credentials_refused_20003"),
        (401, None, "http_401"),
        (403, {"code": 20005}, "account_inactive_20005"),
        (404, {"code": 20404}, "not_found_20404"),
        (429, {"code": 20429}, "api_rate_20429"),
        (503, None, "http_503"),
    ],
)
def test_a_probe_that_fails_says_why(status: int, document: object, code: str) -> None:
    body = b"" if document is None else json.dumps(document).encode()
    probed = sms().probed(HttpResponse(status, (), body), NOW)

    assert (probed.good, probed.code) == (False, code)
    assert probed.words


def test_an_active_account_is_good() -> None:
    assert sms().probed(HttpResponse(200, (), b'{"status": "active"}'), NOW).good
    assert sms().probed(HttpResponse(200, (), b'{"incoming_phone_numbers": []}'), NOW).good
