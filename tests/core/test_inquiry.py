"""A provider that can be asked what it has sent, and the settings that say when."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.http_message import HttpResponse
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, ProviderConfig
from dispatcher.outcome import OnUnknown
from dispatcher.providers.inquiry import Askable, CannotTell, Found, NotFound, unknown_policy, unknown_problems
from dispatcher.providers.sendgrid import INQUIRY_LAG_S, SENDGRID, BoundSendGrid, bind, settings_problems

NOW_S = 1_700_000_000.0
ID = NotificationId("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
SETTINGS = {"from_email": "tickets@example.org"}
CONFIG = ProviderConfig("1", OrganizationId("acme"), Channel.EMAIL, "sendgrid", SETTINGS, {"api_key": "SG.hush"}, revision=1)
DELIVERY = Delivery(ID, OrganizationId("acme"), Channel.EMAIL, "ann@example.com", {"subject": "Hello"}, 2, 8, NOW_S)


def bound(**settings: Any) -> BoundSendGrid:
    return bind(evolve(CONFIG, settings={**SETTINGS, **settings}), {"http://127.0.0.1:8025"})


def answer(status: int, body: bytes = b"", *headers: tuple[bytes, bytes]) -> Found | NotFound | CannotTell:
    return bound().found(HttpResponse(status, headers, body), NOW_S)


# --- settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"on_unknown": None, "key_retention_s": None}, {"key_retention_s": 0.5}])
def test_nothing_has_to_be_said_about_unknown_effects(settings: dict[str, Any]) -> None:
    assert unknown_problems(settings, askable=False) == []


@pytest.mark.parametrize("choice", OnUnknown)
def test_who_can_be_asked_may_have_any_policy_and_others_any_but_to_ask(choice: OnUnknown) -> None:
    settings = {"on_unknown": choice.value}

    assert unknown_problems(settings, askable=True) == []
    assert [(p.pointer, p.detail) for p in unknown_problems(settings, askable=False)] == (
        [("/settings/on_unknown", "this provider can not be asked what it has sent")] if choice is OnUnknown.ASK else []
    )


@pytest.mark.parametrize("value", ["", "RESEND", "ignore", 1, True, [], {}])
def test_a_policy_is_one_of_the_four(value: object) -> None:
    (problem,) = unknown_problems({"on_unknown": value}, askable=True)

    assert problem.pointer == "/settings/on_unknown"
    assert problem.detail == "must be one of resend, resend_once, hold, ask"


@pytest.mark.parametrize("value", [0, -1, True, "60", float("nan"), float("inf"), 366 * 86_400 + 1, []])
def test_a_retention_is_a_sensible_number_of_seconds(value: object) -> None:
    assert [p.pointer for p in unknown_problems({"key_retention_s": value}, askable=True)] == ["/settings/key_retention_s"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (OnUnknown.RESEND_ONCE, None)),
        ({"on_unknown": None, "key_retention_s": None}, (OnUnknown.RESEND_ONCE, None)),
        ({"key_retention_s": 3600}, (OnUnknown.RESEND, 3600.0)),
        ({"on_unknown": "resend"}, (OnUnknown.RESEND, None)),
        ({"on_unknown": "hold", "key_retention_s": 3600}, (OnUnknown.HOLD, 3600.0)),
        ({"on_unknown": "ask"}, (OnUnknown.ASK, None)),
    ],
)
def test_the_policy_of_a_provider_that_honours_no_keys(
    settings: dict[str, Any], expected: tuple[OnUnknown, float | None]
) -> None:
    policy = unknown_policy(settings, SENDGRID)

    assert (policy.on_unknown, policy.key_retention_s) == expected
    assert policy.inquiry_lag_s == INQUIRY_LAG_S


def test_where_keys_are_honoured_they_are_relied_on_and_a_setting_may_shorten_their_retention() -> None:
    honours = evolve(SENDGRID, key_retention_s=86_400.0, inquiry_lag_s=None)

    assert unknown_policy({}, honours) == (OnUnknown.RESEND, 86_400.0, 0.0)
    assert unknown_policy({"key_retention_s": 60}, honours) == (OnUnknown.RESEND, 60.0, 0.0)


def test_sendgrid_takes_these_settings_and_can_be_asked() -> None:
    assert settings_problems({**SETTINGS, "on_unknown": "ask", "key_retention_s": 60}) == []
    assert [p.pointer for p in settings_problems({**SETTINGS, "on_unknown": "guess"})] == ["/settings/on_unknown"]
    assert isinstance(bound(), Askable)


# --- SendGrid's email activity --------------------------------------------------------------------------------------------


def test_the_question_names_the_notification_and_nobody_else() -> None:
    request = bound(base_url="http://127.0.0.1:8025/gate").inquiry(DELIVERY)

    assert (request.method, request.body) == (b"GET", b"")
    assert request.target == (
        b"/gate/v3/messages?limit=1&query=%28unique_args%5B%27notification_id%27%5D%3D%22" + ID.encode() + b"%22%29"
    )
    assert dict(request.headers)[b"authorization"] == b"Bearer SG.hush"
    assert b"content-type" not in dict(request.headers)


@pytest.mark.parametrize("status", ["processed", "delivered", "not_delivered"])
def test_a_mail_in_the_activity_was_taken_on_whatever_became_of_it(status: str) -> None:
    body = orjson.dumps({"messages": [{"msg_id": "abc.filter-1", "status": status, "to_email": "ann@example.com"}]})

    assert answer(200, body) == Found("abc.filter-1")


@pytest.mark.parametrize("name", [None, 7, "", "two words", "x" * 129, "über"])
def test_a_mail_with_an_odd_name_was_taken_on_all_the_same(name: object) -> None:
    assert answer(200, orjson.dumps({"messages": [{"msg_id": name}]})) == Found(None)


def test_an_empty_activity_is_the_only_way_to_be_told_that_nothing_was_sent() -> None:
    assert answer(200, b'{"messages":[]}') == NotFound()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"messages":null}', b'{"messages":{}}', b'{"messages":[1]}', b"<html>"])
def test_an_answer_that_is_not_understood_tells_nothing(body: bytes) -> None:
    assert answer(200, body) == CannotTell("inquiry_not_understood")


@pytest.mark.parametrize("status", [202, 302, 400, 401, 403, 404, 429, 500, 503])
def test_any_other_status_tells_nothing(status: int) -> None:
    assert answer(status, b'{"messages":[]}') == CannotTell(f"inquiry_http_{status}")


def test_the_hint_of_a_refused_question_is_kept() -> None:
    assert answer(429, b"", (b"retry-after", b"12")) == CannotTell("inquiry_http_429", 12.0)


@given(st.integers(100, 599), st.binary(max_size=200) | st.builds(orjson.dumps, st.dictionaries(st.text(), st.integers(-9, 9))))
def test_whatever_comes_back_is_understood_as_something(status: int, body: bytes) -> None:
    heard = answer(status, body)

    assert isinstance(heard, Found | NotFound | CannotTell)
    assert isinstance(heard, CannotTell) or status == 200
