from __future__ import annotations

import re
from random import Random
from typing import Any

import orjson
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.http_message import HttpRequest, HttpResponse, Origin
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, ProviderConfig
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.error_table import Row
from dispatcher.providers.provider import Limits, Moment, Unbindable, Unsendable
from dispatcher.providers.sendgrid import (
    SENDGRID,
    BoundSendGrid,
    bind,
    credentials_problems,
    settings_problems,
)
from dispatcher.providers.sendgrid_errors import CREDITS_EXCEEDED_RETRY_S, FIELDS, STATUSES

NOW = 1_700_000_000.0
ID = NotificationId("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
SETTINGS = {"from_email": "tickets@example.org"}
CONFIG = ProviderConfig("1", OrganizationId("acme"), Channel.EMAIL, "sendgrid", SETTINGS, {"api_key": "SG.hush"}, revision=1)
MOMENT = Moment(NOW, Random(1).randbytes)
DELIVERY = Delivery(
    ID,
    OrganizationId("acme"),
    Channel.EMAIL,
    "ann@example.com",
    {"subject": "Your tickets", "text": "Hello", "html": "<p>Hello</p>"},
    attempt=1,
    attempts_max=8,
    created_at_s=NOW,
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
LINES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1)


def bound(**settings: Any) -> BoundSendGrid:
    return bind(evolve(CONFIG, settings={**SETTINGS, **settings}), {"http://127.0.0.1:8025"})


def delivery(**payload: Any) -> Delivery:
    return evolve(DELIVERY, payload=payload)


def sent(request: HttpRequest) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(request.body)
    return body


def answer(status: int, body: bytes = b"", **headers: str) -> Outcome:
    fields = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
    return bound().classify(HttpResponse(status, fields, body), NOW)


def refusal(field: str | None) -> bytes:
    return orjson.dumps({"errors": [{"message": "ann@example.com is wrong", "field": field, "help": None}]})


def test_a_mail_is_one_request_in_the_providers_form() -> None:
    request = bound().request(DELIVERY, MOMENT)

    assert request.origin == Origin("https", "api.sendgrid.com", 443)
    assert (request.method, request.target) == (b"POST", b"/v3/mail/send")
    assert sent(request) == {
        "personalizations": [
            {
                "to": [{"email": "ann@example.com"}],
                "custom_args": {"organization_id": "acme", "notification_id": ID},
            }
        ],
        "from": {"email": "tickets@example.org"},
        "subject": "Your tickets",
        "content": [{"type": "text/plain", "value": "Hello"}, {"type": "text/html", "value": "<p>Hello</p>"}],
    }


def test_headers_authorize_and_name_the_notification_but_never_the_attempt() -> None:
    first, second = bound().request(DELIVERY, MOMENT), bound().request(evolve(DELIVERY, attempt=2), MOMENT)
    headers = dict(first.headers)

    assert headers[b"authorization"] == b"Bearer SG.hush"
    assert headers[b"content-type"] == headers[b"accept"] == b"application/json"
    assert headers[b"idempotency-key"] == ID.encode()
    assert first == second


def test_settings_reach_the_mail() -> None:
    body = sent(
        bound(from_name="Ann & Co", reply_to="help@example.org", categories=["tickets"], sandbox_mode=True).request(
            DELIVERY, MOMENT
        )
    )

    assert body["from"] == {"email": "tickets@example.org", "name": "Ann & Co"}
    assert body["reply_to"] == {"email": "help@example.org"}
    assert body["categories"] == ["tickets"]
    assert body["mail_settings"] == {"sandbox_mode": {"enable": True}}


def test_a_base_url_moves_the_request() -> None:
    request = bound(base_url="http://127.0.0.1:8025/gateway/").request(DELIVERY, MOMENT)

    assert request.origin == Origin("http", "127.0.0.1", 8025)
    assert request.target == b"/gateway/v3/mail/send"


def test_limits_are_taken_from_the_settings() -> None:
    assert bound(rate_per_s=5, burst=7, concurrency_max=3).limits == Limits(5.0, 7, 3)
    assert bound().limits.concurrency_max == 32
    assert bound(quota=1000, quota_window_h=1).limits[3:] == (1000, 1)


@given(LINES, TEXTS, st.none() | TEXTS, st.sampled_from(["ann@example.com", "änn+x@exämple.com", "a'b@c"]))
def test_every_payload_survives_the_way_into_json(subject: str, text: str, html: str | None, recipient: str) -> None:
    body = sent(bound().request(evolve(delivery(subject=subject, text=text, html=html), recipient=recipient), MOMENT))

    assert body["subject"] == subject
    assert body["personalizations"][0]["to"] == [{"email": recipient}]
    assert [part["value"] for part in body["content"]] == [text] + ([html] if html else [])


@pytest.mark.parametrize(
    ("payload", "types"),
    [
        ({"text": "x"}, ["text/plain"]),
        ({"html": "x"}, ["text/html"]),
        ({"text": "", "html": "x"}, ["text/html"]),
        ({"text": "x", "html": ""}, ["text/plain"]),
        ({"html": "x", "text": "y"}, ["text/plain", "text/html"]),
    ],
)
def test_plain_text_stands_first_and_empty_parts_are_left_out(payload: dict[str, str], types: list[str]) -> None:
    body = sent(bound().request(delivery(subject="s", **payload), MOMENT))

    assert [part["type"] for part in body["content"]] == types


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"text": "x"}, "subject_missing"),
        ({"subject": "", "text": "x"}, "subject_missing"),
        ({"subject": 7, "text": "x"}, "subject_missing"),
        ({"subject": "a\r\nbcc: eve@example.com", "text": "x"}, "subject_has_line_break"),
        ({"subject": "a\u2028b", "text": "x"}, "subject_has_line_break"),
        ({"subject": "s"}, "content_missing"),
        ({"subject": "s", "text": "", "html": ""}, "content_missing"),
        ({"subject": "s", "text": 5}, "content_invalid"),
        ({"subject": "s", "html": ["x"]}, "content_invalid"),
        ({"subject": "s", "text": {"a": 1}, "html": "x"}, "content_invalid"),
        ({"subject": "s", "text": "\ud800"}, "payload_not_unicode"),
        ({"subject": "\ud800", "text": "x"}, "payload_not_unicode"),
    ],
)
def test_a_payload_that_can_not_be_sent_is_told_by_code(payload: dict[str, Any], code: str) -> None:
    with pytest.raises(Unsendable) as refused:
        bound().request(delivery(**payload), MOMENT)

    assert refused.value.code == code
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize("recipient", ["", "ann", "ann@", "@x", "a@b@c", "a b@c", "a@b\r\nc", "<a@b>", "a@b,c@d", "a@b;c"])
def test_a_recipient_is_one_address(recipient: str) -> None:
    with pytest.raises(Unsendable, match="recipient_invalid"):
        bound().request(evolve(DELIVERY, recipient=recipient), MOMENT)


def test_accepted_mail_is_delivered_and_keeps_the_providers_id() -> None:
    assert answer(202, date="x", x_message_id="AbC_d-9") == Outcome(OutcomeClass.DELIVERED, "accepted", "AbC_d-9")


@pytest.mark.parametrize("message_id", ["", "with blank", "x" * 129, "tab\t"])
def test_an_odd_message_id_is_left_out(message_id: str) -> None:
    assert answer(202, x_message_id=message_id).provider_message_id is None


def test_a_missing_message_id_is_no_fault() -> None:
    assert answer(202) == Outcome(OutcomeClass.DELIVERED, "accepted")


def test_sandbox_mode_and_other_successes_count_as_delivered() -> None:
    assert answer(200, x_message_id="m") == Outcome(OutcomeClass.DELIVERED, "validated", "m")
    assert answer(204) == Outcome(OutcomeClass.DELIVERED, "http_204")


@pytest.mark.parametrize(("status", "row"), sorted(STATUSES.rows.items()))
def test_every_status_of_the_table_means_what_the_table_says(status: int, row: Row) -> None:
    outcome = answer(status)

    assert (outcome.kind, outcome.code) == (row.kind, row.code)


@pytest.mark.parametrize("status", [500, 503, 599])
def test_a_fault_of_the_provider_is_soft(status: int) -> None:
    assert answer(status) == Outcome(OutcomeClass.SOFT, f"http_{status}")


@pytest.mark.parametrize("status", [502, 504])
def test_a_gateway_that_got_no_answer_may_have_handed_the_mail_on(status: int) -> None:
    """So it is a possible double, marked and left to the channel's policy, and not a refusal that is believed."""
    assert answer(status) == Outcome(OutcomeClass.UNKNOWN, f"http_{status}")


@pytest.mark.parametrize(
    ("status", "kind"), [(302, "misconfigured"), (410, "hard"), (100, "unknown"), (0, "unknown"), (999, "unknown")]
)
def test_a_status_without_a_row_goes_by_its_hundred(status: int, kind: str) -> None:
    assert answer(status) == Outcome(OutcomeClass(kind), f"http_{status}")


@pytest.mark.parametrize(("prefix", "row"), FIELDS)
def test_a_refused_field_decides_what_a_400_means(prefix: str, row: Row) -> None:
    for field in (prefix, f"{prefix}.0.email"):
        outcome = answer(400, refusal(field))
        assert (outcome.kind, outcome.code) == (row.kind, row.code)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"7",
        b"null",
        b'{"errors":[]}',
        b'{"errors":{}}',
        b'{"errors":[null]}',
        b'{"errors":["x"]}',
        b'{"errors":[{"field":7}]}',
        refusal(None),
        refusal("fromage"),
        refusal("subject") + b" " * 70_000,
    ],
)
def test_a_400_that_names_no_known_field_is_hard(body: bytes) -> None:
    assert answer(400, body) == Outcome(OutcomeClass.HARD, "http_400")


def test_used_up_credits_are_a_limit_and_not_a_wrong_key() -> None:
    outcome = answer(401, orjson.dumps({"errors": [{"message": "Maximum credits exceeded", "field": None}]}))

    assert outcome == Outcome(OutcomeClass.RATE_LIMITED, "credits_exceeded", None, CREDITS_EXCEEDED_RETRY_S)


def test_a_rate_limit_tells_when_to_come_back() -> None:
    assert answer(429, x_ratelimit_reset="1700000012").retry_after_s == 12.0
    assert answer(429, retry_after="9").retry_after_s == 9.0
    assert answer(429).retry_after_s is None
    assert answer(503, retry_after="30") == Outcome(OutcomeClass.SOFT, "http_503", None, 30.0)


@given(
    st.integers(0, 1000),
    st.lists(st.tuples(st.sampled_from([b"x-message-id", b"retry-after", b"x-ratelimit-reset", b"x"]), st.binary(max_size=40))),
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["errors", "field"]), inner)
    ).map(orjson.dumps),
)
def test_whatever_comes_back_is_classified_by_a_short_code(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    outcome = bound().classify(HttpResponse(status, headers, body), NOW)

    assert re.fullmatch(r"[a-z0-9_]{1,64}", outcome.code)
    assert outcome.retry_after_s is None or outcome.retry_after_s >= 0
    assert outcome.provider_message_id is None or outcome.kind is OutcomeClass.DELIVERED


def test_the_providers_words_never_come_through() -> None:
    assert "ann" not in repr(answer(400, refusal("personalizations.0.to")))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"from_name": "Ann & Co.", "reply_to": "help@example.org", "categories": [], "sandbox_mode": False},
        {"from_name": None, "reply_to": None, "categories": None},
        {"base_url": "https://api.eu.sendgrid.com"},
        {"base_url": "http://127.0.0.1:8025"},
    ],
)
def test_settings_that_can_be_used_have_no_problem(settings: dict[str, Any]) -> None:
    assert settings_problems({**SETTINGS, **settings}, ["http://127.0.0.1:8025"]) == []


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({"from_email": None}, "/settings/from_email"),
        ({"from_email": "Ann <a@b>"}, "/settings/from_email"),
        ({"from_email": 7}, "/settings/from_email"),
        ({"from_name": "a;b"}, "/settings/from_name"),
        ({"from_name": "a\r\nb"}, "/settings/from_name"),
        ({"from_name": ""}, "/settings/from_name"),
        ({"reply_to": "nobody"}, "/settings/reply_to"),
        ({"categories": "x"}, "/settings/categories"),
        ({"categories": ["x", "x"]}, "/settings/categories"),
        ({"categories": ["x" * 256]}, "/settings/categories"),
        ({"categories": [""]}, "/settings/categories"),
        ({"categories": [["x"]]}, "/settings/categories"),
        ({"categories": [str(number) for number in range(11)]}, "/settings/categories"),
        ({"sandbox_mode": 1}, "/settings/sandbox_mode"),
        ({"rate_per_s": 0}, "/settings/rate_per_s"),
        ({"base_url": "https://evil.example"}, "/settings/base_url"),
        ({"base_url": "http://api.sendgrid.com"}, "/settings/base_url"),
        ({"from": "x"}, "/settings"),
    ],
)
def test_settings_that_can_not_be_used_are_pointed_at(settings: dict[str, Any], pointer: str) -> None:
    assert [problem.pointer for problem in settings_problems({**SETTINGS, **settings})] == [pointer]


def test_the_sender_has_to_be_set() -> None:
    (problem,) = settings_problems({})

    assert (problem.code, problem.pointer) == ("setting_missing", "/settings/from_email")


@pytest.mark.parametrize(
    ("credentials", "codes"),
    [
        ({"api_key": "SG.x-y_z"}, []),
        ({}, ["setting_missing"]),
        ({"api_key": ""}, ["setting_invalid"]),
        ({"api_key": "a b"}, ["setting_invalid"]),
        ({"api_key": "a\r\nx: y"}, ["setting_invalid"]),
        ({"api_key": "ä"}, ["setting_invalid"]),
        ({"api_key": 7}, ["setting_invalid"]),
        ({"api_key": "x", "hush": "y"}, ["setting_unknown"]),
    ],
)
def test_credentials_are_one_key_that_fits_a_header(credentials: dict[str, Any], codes: list[str]) -> None:
    problems = credentials_problems(credentials)

    assert [problem.code for problem in problems] == codes
    assert "hush" not in repr(problems)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (evolve(CONFIG, settings={**SETTINGS, "base_url": "http://127.0.0.1:8025"}), "base_url_not_allowed"),
        (evolve(CONFIG, credentials={}), "setting_missing"),
    ],
)
def test_a_stored_configuration_that_fails_the_checks_is_not_bound(config: ProviderConfig, code: str) -> None:
    with pytest.raises(Unbindable) as refused:
        bind(config)

    assert refused.value.code == code


def test_a_bound_provider_shows_no_credentials() -> None:
    assert repr(bound()) == "<BoundSendGrid https://api.sendgrid.com:443>"


def test_it_is_a_provider_of_email() -> None:
    assert (SENDGRID.name, SENDGRID.channels) == ("sendgrid", frozenset({Channel.EMAIL}))
    assert SENDGRID.bind(CONFIG).origin == Origin("https", "api.sendgrid.com", 443)
