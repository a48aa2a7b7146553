"""The simulated FCM and its token service refuse what the real ones refuse."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import jwt
import orjson
import pytest

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.exchange import Exchange
from dispatcher_sandbox.fcm.tokens import AUDIENCE, GRANT_TYPE
from dispatcher_sandbox.ledger import Ledger
from dispatcher_sandbox.messages import Answer, Request
from dispatcher_sandbox.simulators import ACCOUNTS, SIMULATORS
from push_accounts import rsa_pem

NOW = 1_800_000_000.0
DEVICE = "cRx0000Device:APA91b" + "x" * 120
SEND = b"/v1/projects/hall/messages:send"
KEY_FILE = ACCOUNTS.key_file("hall", "http://127.0.0.1:8025")


@pytest.fixture
def exchange() -> Exchange:
    return Exchange(SIMULATORS, Ledger(), Behaviour(), 0)


def answer(exchange: Exchange, request: Request, now_s: float = NOW) -> Answer:
    reply = exchange.handle(request, now_s)
    assert reply.answer is not None
    return reply.answer


def asking(key: str = KEY_FILE["private_key"], kid: str = KEY_FILE["private_key_id"], form: Any = None, **claims: Any) -> Request:
    said = {
        "iss": KEY_FILE["client_email"],
        "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "aud": AUDIENCE,
        "iat": int(NOW),
        "exp": int(NOW) + 3600,
        **claims,
    }
    assertion = jwt.encode({name: value for name, value in said.items() if value is not None}, key, "RS256", {"kid": kid})
    body = urlencode(form or {"grant_type": GRANT_TYPE, "assertion": assertion}).encode()
    return Request(b"POST", b"/token", {b"content-type": b"application/x-www-form-urlencoded"}, body)


def sending(message: Any, token: str | None = None, target: bytes = SEND, **rest: Any) -> Request:
    token = ACCOUNTS.token("hall", NOW) if token is None else token
    body = orjson.dumps({"message": message, **rest})
    return Request(b"POST", target, {b"authorization": f"Bearer {token}".encode()}, body)


def message(**fields: Any) -> dict[str, Any]:
    return {"token": DEVICE, "notification": {"body": "Hello"}, "data": {"notification_id": "n-1"}, **fields}


def error(found: Answer) -> tuple[int, str, str | None, list[str]]:
    """Status, Google's word, FCM's code, and the fields complained about."""
    said = orjson.loads(found.body)["error"]
    assert said["code"] == found.status
    codes = [detail["errorCode"] for detail in said["details"] if "errorCode" in detail]
    fields = [violation["field"] for detail in said["details"] for violation in detail.get("fieldViolations", ())]
    return found.status, said["status"], codes[0] if codes else None, fields


# --- access tokens ------------------------------------------------------------------------------------------


def test_a_signed_assertion_is_worth_an_access_token_for_an_hour(exchange: Exchange) -> None:
    given = orjson.loads(answer(exchange, asking()).body)

    assert (given["expires_in"], given["token_type"]) == (3599, "Bearer")
    assert answer(exchange, sending(message(), given["access_token"]), NOW + 3598).status == 200
    assert error(answer(exchange, sending(message(), given["access_token"]), NOW + 3600))[:2] == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    ("request_", "error_"),
    [
        (asking(rsa_pem()), "invalid_grant"),
        (asking(kid="deleted"), "invalid_grant"),
        (asking(iss="somebody@example.org"), "invalid_grant"),
        (asking(iss=None), "invalid_grant"),
        (asking(aud="https://elsewhere.example"), "invalid_grant"),
        (asking(iat=int(NOW) + 3600, exp=int(NOW) + 7200), "invalid_grant"),
        (asking(iat=int(NOW) - 7200, exp=int(NOW) - 3600), "invalid_grant"),
        (asking(exp=int(NOW) + 7200), "invalid_grant"),
        (asking(iat="now"), "invalid_grant"),
        (asking(scope="https://www.googleapis.com/auth/drive"), "invalid_scope"),
        (asking(form={"grant_type": "password"}), "unsupported_grant_type"),
        (asking(form={"grant_type": GRANT_TYPE, "assertion": "x.y.z"}), "invalid_grant"),
        (Request(b"POST", b"/token", {}, b""), "invalid_request"),
    ],
)
def test_what_google_would_not_sign_for_gets_no_token(exchange: Exchange, request_: Request, error_: str) -> None:
    refused = answer(exchange, request_)

    assert (refused.status, orjson.loads(refused.body)["error"]) == (400, error_)


def test_an_assertion_for_the_sandboxs_own_address_is_taken_as_well(exchange: Exchange) -> None:
    assert answer(exchange, asking(aud="http://127.0.0.1:8025/token")).status == 200


def test_an_outage_reaches_the_token_service(exchange: Exchange) -> None:
    exchange.behaviour = Behaviour(outage="unavailable")

    assert answer(exchange, asking()).status == 503


# --- messages -----------------------------------------------------------------------------------------------


def test_a_message_is_taken_and_written_down(exchange: Exchange) -> None:
    taken = answer(exchange, sending(message()))

    assert taken.status == 200
    assert orjson.loads(taken.body)["name"] == exchange.ledger.recent[-1].message_id
    assert exchange.ledger.effects("n-1") == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"data": {"a": "x" * 4000}},
        {"android": {"ttl": "2419200s", "priority": "high", "collapse_key": "a", "restrictedPackageName": "b"}},
        {"android": {"ttl": "3.5s", "priority": "NORMAL", "collapseKey": "a", "direct_boot_ok": True}},
        {"apns": {"headers": {"apns-priority": "5"}, "payload": {"aps": {}}}, "webpush": {"headers": {"TTL": "5"}}},
        {"fcm_options": {"analytics_label": "a-b_c"}},
        {"fcmOptions": {"analyticsLabel": "a-b_c"}},
    ],
)
def test_either_spelling_of_a_correct_message_is_taken(exchange: Exchange, fields: dict[str, Any]) -> None:
    assert answer(exchange, sending(message(**fields))).status == 200


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ([], "message"),
        ({"notification": {"body": "x"}}, "message"),
        (message(topic="news"), "message"),
        (message(token=7), "message"),
        (message(colour="red"), "message"),
        (message(data={"seat": 7}), "message.data"),
        (message(data=[1]), "message.data"),
        (message(data={"from": "x"}), "message.data"),
        (message(data={"google.x": "x"}), "message.data"),
        (message(data={"a": "x" * 4096}), "message"),
        (message(notification={"body": 7}), "message.notification"),
        (message(notification={"colour": "red"}), "message.notification"),
        (message(notification=[1]), "message.notification"),
        (message(android={"ttl": 60}), "message.android.ttl"),
        (message(android={"ttl": "2419201s"}), "message.android.ttl"),
        (message(android={"priority": "urgent"}), "message.android.priority"),
        (message(android={"colour": "red"}), "message.android"),
        (message(android=[1]), "message.android"),
        (message(apns={"headers": {"apns-priority": 5}}), "message.apns.headers"),
        (message(fcm_options={"analytics_label": "a b"}), "message.fcm_options.analytics_label"),
    ],
)
def test_a_message_against_the_rules_is_refused_by_field(exchange: Exchange, given: Any, field: str) -> None:
    status, word, code, fields = error(answer(exchange, sending(given)))

    assert (status, word, code) == (400, "INVALID_ARGUMENT", None)
    assert field in fields
    assert exchange.ledger.accepted == 0


@pytest.mark.parametrize("body", [b"{", b"[]"])
def test_what_is_no_message_at_all_is_refused(exchange: Exchange, body: bytes) -> None:
    request = sending(message())
    request.body = body

    assert error(answer(exchange, request))[:2] == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("request_", "status", "word"),
    [
        (sending(message(), "ya29.made.up"), 401, "UNAUTHENTICATED"),
        (sending(message(), ""), 401, "UNAUTHENTICATED"),
        (sending(message(), target=b"/v1/projects/other/messages:send"), 403, "PERMISSION_DENIED"),
        (sending(message(), target=b"/v1/projects/missing-one/messages:send"), 404, "NOT_FOUND"),
    ],
)
def test_who_may_not_send_is_refused(exchange: Exchange, request_: Request, status: int, word: str) -> None:
    assert error(answer(exchange, request_))[:3] == (status, word, None)


@pytest.mark.parametrize("target", [b"/v1/projects/hall/messages", b"/v1/projects/hall"])
def test_another_path_is_a_page(exchange: Exchange, target: bytes) -> None:
    assert answer(exchange, sending(message(), target=target)).body.startswith(b"<html>")


def test_what_is_only_checked_has_no_effect(exchange: Exchange) -> None:
    checked = answer(exchange, sending(message(), validateOnly=True))
    snake = answer(exchange, sending(message(), validate_only=True))
    no_token = answer(exchange, sending(message(token="dispatcher-probe"), validateOnly=True))

    assert (checked.status, snake.status) == (200, 200)
    assert error(no_token) == (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", ["message.token"])
    assert (exchange.ledger.accepted, exchange.ledger.validated) == (0, 2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unregistered", (404, "NOT_FOUND", "UNREGISTERED", [])),
        ("invalid", (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", ["message.token"])),
        ("argument", (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", [])),
        ("sender", (403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", [])),
        ("device", (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", [])),
        ("rate-limited", (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", [])),
        ("third-party", (401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR", [])),
        ("unauthorized", (401, "UNAUTHENTICATED", None, [])),
        ("forbidden", (403, "PERMISSION_DENIED", None, [])),
        ("soft-2", (503, "UNAVAILABLE", "UNAVAILABLE", [])),
        ("status-500", (500, "INTERNAL", "INTERNAL", [])),
    ],
)
def test_a_token_with_a_name_fails_on_purpose(
    exchange: Exchange, name: str, expected: tuple[int, str, str | None, list[str]]
) -> None:
    assert error(answer(exchange, sending(message(token=f"sandbox-{name}-more")))) == expected


def test_a_trick_is_over_after_its_number(exchange: Exchange) -> None:
    statuses = [answer(exchange, sending(message(token="sandbox-soft-2"))).status for _ in range(3)]

    assert statuses == [503, 503, 200]


def test_magic_can_be_switched_off(exchange: Exchange) -> None:
    exchange.behaviour = Behaviour(magic_recipients=False)

    assert error(answer(exchange, sending(message(token="sandbox-soft-2"))))[3] == ["message.token"]


def test_the_server_in_front_answers_in_html(exchange: Exchange) -> None:
    assert answer(exchange, sending(message(token="sandbox-status-502"))).body.startswith(b"<html>")
