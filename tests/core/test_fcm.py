from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import Any
from urllib.parse import parse_qs

import jwt
import orjson
import pytest
from attrs import evolve
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.http_message import HttpRequest, HttpResponse, Origin
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, ProviderConfig
from dispatcher.outcome import Outcome, OutcomeClass, RateScope
from dispatcher.providers.batching import Batching
from dispatcher.providers.fcm import (
    AUDIENCE,
    FCM,
    PAYLOAD_BYTES_MAX,
    SCOPE,
    TTL_S_MAX,
    BoundFcm,
    bind,
    credentials_problems,
    settings_problems,
)
from dispatcher.providers.fcm_errors import BY_ERROR_CODE, BY_HTTP, BY_STATUS, EXPLANATIONS, TOKEN_BY_HTTP, TOKEN_ERRORS
from dispatcher.providers.probing import Probing
from dispatcher.providers.provider import Moment, Unbindable, Unsendable
from dispatcher.providers.tokens import Authorizing, Token
from push_accounts import rsa_pem, service_account

NOW = 1_700_000_000.0
ID = NotificationId("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
SANDBOX = "http://127.0.0.1:8025"
MOMENT = Moment(NOW, Random(1).randbytes, "ya29.hush")
DELIVERY = Delivery(
    ID,
    OrganizationId("acme"),
    Channel.PUSH,
    "device:APA91b",
    {"title": "Doors", "text": "They open at seven.", "data": {"seat": "B7"}},
    attempt=1,
    attempts_max=8,
    created_at_s=NOW,
)
D, HARD, SUPPRESS, SOFT, RATE, CONFIG, UNKNOWN = (
    OutcomeClass.DELIVERED,
    OutcomeClass.HARD,
    OutcomeClass.SUPPRESS,
    OutcomeClass.SOFT,
    OutcomeClass.RATE_LIMITED,
    OutcomeClass.MISCONFIGURED,
    OutcomeClass.UNKNOWN,
)


def bound(account: object = None, **settings: Any) -> BoundFcm:
    credentials: Any = {"service_account": account or service_account()}
    return bind(ProviderConfig("1", OrganizationId("acme"), Channel.PUSH, "fcm", settings, credentials, revision=1), {SANDBOX})


def message(request: HttpRequest) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(request.body)["message"]
    return body


def error(
    http: int,
    status: str,
    code: str | None = None,
    *,
    fields: tuple[str, ...] = (),
    text: str = "Request contains an invalid argument.",
    quota: str | None = None,
) -> HttpResponse:
    details: list[dict[str, Any]] = []
    if code is not None:
        details.append({"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code})
    if fields:
        violations = [{"field": field, "description": "Invalid"} for field in fields]
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations})
    if quota is not None:
        violations = [{"subject": quota, "description": ""}]
        details.append({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations})
    return HttpResponse(http, (), orjson.dumps({"error": {"code": http, "message": text, "status": status, "details": details}}))


def test_a_bound_provider_can_be_authorized_and_tried_out_and_takes_no_batches() -> None:
    assert isinstance(bound(), Authorizing)
    assert isinstance(bound(), Probing)
    assert not isinstance(bound(), Batching)


def test_a_notification_is_one_message_to_one_device() -> None:
    request = bound().request(DELIVERY, MOMENT)

    assert request.origin == Origin("https", "fcm.googleapis.com", 443)
    assert (request.method, request.target) == (b"POST", b"/v1/projects/hall-tickets/messages:send")
    assert dict(request.headers)[b"authorization"] == b"Bearer ya29.hush"
    assert message(request) == {
        "token": "device:APA91b",
        "notification": {"title": "Doors", "body": "They open at seven."},
        "data": {"seat": "B7", "notification_id": ID},
    }


def test_settings_reach_every_kind_of_device() -> None:
    settings = {
        "priority": "high",
        "ttl_s": 60,
        "collapse_key": "doors",
        "analytics_label": "doors-2024",
        "restricted_package_name": "org.hall.app",
        "project_id": "other-hall",
    }
    request = bound(**settings).request(DELIVERY, MOMENT)
    sent = message(request)

    assert request.target == b"/v1/projects/other-hall/messages:send"
    assert sent["android"] == {
        "ttl": "60s",
        "priority": "HIGH",
        "collapse_key": "doors",
        "restricted_package_name": "org.hall.app",
    }
    assert sent["apns"] == {
        "headers": {"apns-expiration": str(int(NOW) + 60), "apns-priority": "10", "apns-collapse-id": "doors"}
    }
    assert sent["webpush"] == {"headers": {"TTL": "60"}}
    assert sent["fcm_options"] == {"analytics_label": "doors-2024"}


@pytest.mark.parametrize(
    ("left_s", "ttl_s", "ttl"),
    [
        (90.9, None, "90s"),
        (90.0, 60, "60s"),
        (90.0, 600, "90s"),
        (-5.0, None, "0s"),
        (1e9, None, f"{TTL_S_MAX}s"),
        (None, 0, "0s"),
    ],
)
def test_no_device_shows_it_after_its_end(left_s: float | None, ttl_s: int | None, ttl: str) -> None:
    delivery = evolve(DELIVERY, expires_at_s=None if left_s is None else NOW + left_s)
    sent = message(bound(**({} if ttl_s is None else {"ttl_s": ttl_s})).request(delivery, MOMENT))

    assert sent["android"]["ttl"] == ttl
    assert sent["webpush"]["headers"]["TTL"] + "s" == ttl


def test_a_base_url_and_the_key_files_token_uri_move_the_requests() -> None:
    it = bound(service_account(token_uri=f"{SANDBOX}/token"), base_url=f"{SANDBOX}/fcm/")

    assert (it.origin, it.request(DELIVERY, MOMENT).target) == (
        Origin("http", "127.0.0.1", 8025),
        b"/fcm/v1/projects/hall-tickets/messages:send",
    )
    assert (it.token_request(MOMENT).origin, it.token_request(MOMENT).target) == (it.origin, b"/token")


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({}, "content_missing"),
        ({"text": ""}, "content_missing"),
        ({"text": 1}, "content_missing"),
        ({"text": "x", "title": 1}, "content_invalid"),
        ({"text": "x", "data": []}, "data_invalid"),
        ({"text": "x", "data": {"seat": 7}}, "data_not_text"),
        ({"text": "x", "data": {"from": "us"}}, "data_key_reserved"),
        ({"text": "x", "data": {"message_type": "us"}}, "data_key_reserved"),
        ({"text": "x", "data": {"notification_id": "1"}}, "data_key_reserved"),
        ({"text": "x", "data": {"google.a": "1"}}, "data_key_reserved"),
        ({"text": "x", "data": {"gcm.notification.a": "1"}}, "data_key_reserved"),
        ({"text": "x" * (PAYLOAD_BYTES_MAX + 1)}, "payload_too_large"),
        ({"text": "ü" * (PAYLOAD_BYTES_MAX // 2), "data": {"a": ""}}, "payload_too_large"),
        ({"text": "\ud800"}, "payload_not_unicode"),
        ({"text": "\ud800" * 3000}, "payload_not_unicode"),
    ],
)
def test_what_fcm_can_not_take_is_not_sent(payload: dict[str, Any], code: str) -> None:
    with pytest.raises(Unsendable) as refused:
        bound().request(evolve(DELIVERY, payload=payload), MOMENT)

    assert refused.value.code == code


@pytest.mark.parametrize("payload", [{"text": "x" * PAYLOAD_BYTES_MAX}, {"text": "ü" * (PAYLOAD_BYTES_MAX // 2)}])
def test_the_largest_payload_is_sent(payload: dict[str, Any]) -> None:
    assert message(bound().request(evolve(DELIVERY, payload=payload), MOMENT))["notification"] == {"body": payload["text"]}


@pytest.mark.parametrize("recipient", ["", "a b", "tökén", "a\nb", "a" * 4097])
def test_what_can_be_no_registration_token_is_not_sent(recipient: str) -> None:
    with pytest.raises(Unsendable) as refused:
        bound().request(evolve(DELIVERY, recipient=recipient), MOMENT)

    assert refused.value.code == "recipient_invalid"


def test_without_an_access_token_nothing_is_sent() -> None:
    with pytest.raises(Unsendable):
        bound().request(DELIVERY, evolve(MOMENT, token=None))


# --- what comes back ----------------------------------------------------------------------------------------

REFUSALS: list[tuple[str, HttpResponse, OutcomeClass, str]] = [
    ("gone", error(404, "NOT_FOUND", "UNREGISTERED"), SUPPRESS, "unregistered"),
    ("token", error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", fields=("message.token",)), SUPPRESS, "registration_invalid"),
    ("token without code", error(400, "INVALID_ARGUMENT", fields=("message.token",)), SUPPRESS, "registration_invalid"),
    (
        "token in words only",
        error(
            400,
            "INVALID_ARGUMENT",
            "INVALID_ARGUMENT",
            text="The registration token is not a valid FCM registration token",
        ),
        SUPPRESS,
        "registration_invalid",
    ),
    ("argument", error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"), HARD, "invalid_argument"),
    ("ttl", error(400, "INVALID_ARGUMENT", fields=("message.android.ttl",)), HARD, "invalid_argument"),
    (
        "another field, and words about tokens",
        error(400, "INVALID_ARGUMENT", fields=("message.data",), text="registration token"),
        HARD,
        "invalid_argument",
    ),
    ("sender", error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"), SUPPRESS, "sender_id_mismatch"),
    ("quota", error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"), RATE, "quota_exceeded"),
    ("quota, no code", error(429, "RESOURCE_EXHAUSTED"), RATE, "quota_exceeded"),
    ("quota of a device", error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", quota="device:x"), RATE, "device_quota_exceeded"),
    ("unavailable", error(503, "UNAVAILABLE", "UNAVAILABLE"), SOFT, "unavailable"),
    ("unavailable, no code", error(503, "UNAVAILABLE"), SOFT, "unavailable"),
    ("internal", error(500, "INTERNAL", "INTERNAL"), SOFT, "internal"),
    ("internal, no code", error(500, "INTERNAL"), SOFT, "internal"),
    ("apple", error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"), CONFIG, "third_party_auth"),
    ("apple's old name", error(401, "UNAUTHENTICATED", "APNS_AUTH_ERROR"), CONFIG, "third_party_auth"),
    ("access token", error(401, "UNAUTHENTICATED"), CONFIG, "access_token_refused"),
    ("permission", error(403, "PERMISSION_DENIED"), CONFIG, "permission_denied"),
    ("project", error(404, "NOT_FOUND"), CONFIG, "project_not_found"),
    ("unspecified", error(500, "UNKNOWN", "UNSPECIFIED_ERROR"), SOFT, "unspecified_error"),
    ("a code nobody knows, with a status", error(503, "UNAVAILABLE", "BRAND_NEW"), SOFT, "unavailable"),
    ("a code and a status nobody knows", error(400, "BRAND_NEW", "BRAND_NEW"), HARD, "http_400"),
    ("a page 401", HttpResponse(401, (), b"<html>"), CONFIG, "access_token_refused"),
    ("a page 403", HttpResponse(403, (), b"<html>"), CONFIG, "permission_denied"),
    ("a page 404", HttpResponse(404, (), b"<html>"), CONFIG, "http_404"),
    ("a page 408", HttpResponse(408, (), b""), SOFT, "http_408"),
    ("a page 413", HttpResponse(413, (), b"<html>"), HARD, "too_large"),
    ("a page 429", HttpResponse(429, (), b"<html>"), RATE, "quota_exceeded"),
    ("a page 500", HttpResponse(500, (), b"<html>"), SOFT, "http_500"),
    ("a page 502", HttpResponse(502, (), b"<html>"), UNKNOWN, "http_502"),
    ("a page 503", HttpResponse(503, (), b"<html>"), SOFT, "http_503"),
    ("a page 504", HttpResponse(504, (), b"<html>"), UNKNOWN, "http_504"),
    ("elsewhere", HttpResponse(302, (), b""), CONFIG, "http_302"),
    ("no status there is", HttpResponse(700, (), b""), UNKNOWN, "answer_not_understood"),
    ("too long to read", HttpResponse(404, (), error(404, "NOT_FOUND", "UNREGISTERED").body + b" " * 70_000), CONFIG, "http_404"),
]


@pytest.mark.parametrize(("response", "kind", "code"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_every_refusal_means_something(response: HttpResponse, kind: OutcomeClass, code: str) -> None:
    outcome = bound().classify(response, NOW)

    assert (outcome.kind, outcome.code) == (kind, code)


def test_every_row_of_the_tables_is_among_the_refusals() -> None:
    seen = {row[3] for row in REFUSALS}
    rows = {row.code for table in (BY_ERROR_CODE, BY_STATUS) for row in table.rows.values()}

    assert rows | {row.code for row in BY_HTTP.rows.values()} <= seen


def test_success_names_the_message() -> None:
    name = "projects/hall-tickets/messages/0:1500415314455276%31bd1c9631bd1c96"

    assert bound().classify(HttpResponse(200, (), orjson.dumps({"name": name})), NOW) == Outcome(D, "accepted", name)
    for body in (b"", b"[]", b'{"name":7}', b'{"name":"a b"}', b'{"name":"' + b"x" * 300 + b'"}'):
        assert bound().classify(HttpResponse(200, (), body), NOW) == Outcome(D, "accepted")


def test_the_waits_are_the_providers_own_or_else_ours() -> None:
    quota = error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    device = error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", quota="Device message rate")
    away = error(503, "UNAVAILABLE", "UNAVAILABLE")
    later = ((b"retry-after", b"120"),)
    classify = bound().classify

    assert (classify(quota, NOW).retry_after_s, classify(quota, NOW).scope) == (60.0, RateScope.ACCOUNT)
    assert classify(quota._replace(headers=later), NOW).retry_after_s == 120.0
    assert classify(quota._replace(headers=((b"retry-after", b"5"),)), NOW).retry_after_s == 5.0
    assert (classify(device, NOW).retry_after_s, classify(device, NOW).scope) == (60.0, RateScope.RECIPIENT)
    assert (classify(away, NOW).retry_after_s, classify(away, NOW).wait_s) == (None, 1.0)
    assert classify(away._replace(headers=later), NOW).retry_after_s == 120.0


NAMES = [
    *("error", "details", "status", "message", "errorCode", "fieldViolations", "field", "violations", "name"),
    *("access_token", "expires_in", "subject"),
]
LEAVES = st.none() | st.integers(-9, 9) | st.text(st.characters(exclude_categories=["Cs"])) | st.just("INVALID_ARGUMENT")
ANSWERS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6)
)


@given(st.integers(100, 999), st.binary(max_size=200) | st.builds(orjson.dumps, ANSWERS))
def test_nothing_that_comes_back_is_an_error_of_ours(status: int, body: bytes) -> None:
    it, response = bound(), HttpResponse(status, ((b"retry-after", body[:20]),), body)

    assert isinstance(it.classify(response, NOW), Outcome)
    assert isinstance(it.token_of(response, NOW), Token | Outcome)
    assert it.probed(response, NOW).words


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


PAYLOADS = st.fixed_dictionaries(
    {"text": st.text() | JSON},
    optional={"title": st.text() | JSON, "data": st.dictionaries(st.text(), st.text() | st.integers()) | JSON},
)


@settings(max_examples=300)
@given(st.text(), PAYLOADS)
def test_a_request_is_whole_or_there_is_none(recipient: str, payload: dict[str, Any]) -> None:
    with suppress(Unsendable):
        request = bound().request(evolve(DELIVERY, recipient=recipient, payload=payload), MOMENT)

        assert message(request)["token"] == recipient
        assert all(isinstance(value, str) for value in message(request)["data"].values())


# --- the access token ---------------------------------------------------------------------------------------


def test_an_assertion_is_signed_by_the_account_for_googles_token_service() -> None:
    request = bound().token_request(MOMENT)
    form = parse_qs(request.body.decode())
    key = load_pem_private_key(rsa_pem().encode(), None).public_key()
    (assertion,) = form["assertion"]
    claims = jwt.decode(assertion, key, ["RS256"], audience=AUDIENCE, options={"verify_exp": False, "verify_iat": False})  # type: ignore[arg-type]

    assert (str(request.origin), request.method, request.target) == ("https://oauth2.googleapis.com:443", b"POST", b"/token")
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    assert jwt.get_unverified_header(assertion) == {"alg": "RS256", "typ": "JWT", "kid": service_account()["private_key_id"]}
    assert claims == {
        "iss": service_account()["client_email"],
        "scope": SCOPE,
        "aud": AUDIENCE,
        "iat": int(NOW) - 10,
        "exp": int(NOW) + 3590,
    }


def test_a_token_is_what_the_service_gives_for_as_long_as_it_says() -> None:
    body = orjson.dumps({"access_token": "ya29.x", "expires_in": 3599, "token_type": "Bearer"})

    assert bound().token_of(HttpResponse(200, (), body), NOW) == Token("ya29.x", NOW + 3599)


def refused(status: int, code: str | None = None) -> HttpResponse:
    body = b"<html>" if code is None else orjson.dumps({"error": code, "error_description": "x"})
    return HttpResponse(status, (), body)


@pytest.mark.parametrize(
    ("response", "kind", "code"),
    [
        (refused(400, "invalid_grant"), CONFIG, "token_grant_refused"),
        (refused(401, "invalid_client"), CONFIG, "token_client_refused"),
        (refused(401, "unauthorized_client"), CONFIG, "token_client_refused"),
        (refused(403, "access_denied"), CONFIG, "token_client_refused"),
        (refused(400, "invalid_scope"), CONFIG, "token_request_refused"),
        (refused(400, "internal_failure"), SOFT, "token_service_failed"),
        (refused(500, "server_error"), SOFT, "token_service_failed"),
        (refused(503, "temporarily_unavailable"), SOFT, "token_service_failed"),
        (refused(408), SOFT, "token_http_408"),
        (refused(429), SOFT, "token_http_429"),
        (refused(500), SOFT, "token_http_500"),
        (refused(502), SOFT, "token_http_502"),
        (refused(503), SOFT, "token_http_503"),
        (refused(504), SOFT, "token_http_504"),
        (refused(503, "brand_new"), SOFT, "token_http_503"),
        (refused(404), CONFIG, "token_http_404"),
        (refused(302), CONFIG, "token_http_302"),
        (refused(200), SOFT, "token_not_understood"),
        (HttpResponse(200, (), b'{"access_token":"a\\r\\nb","expires_in":3599}'), SOFT, "token_not_understood"),
        (HttpResponse(200, (), b'{"access_token":"a","expires_in":-1}'), SOFT, "token_not_understood"),
        (HttpResponse(200, (), b'{"access_token":"a","expires_in":"soon"}'), SOFT, "token_not_understood"),
    ],
)
def test_every_refusal_of_a_token_means_something(response: HttpResponse, kind: OutcomeClass, code: str) -> None:
    outcome = bound().token_of(response, NOW)

    assert isinstance(outcome, Outcome)
    assert (outcome.kind, outcome.code) == (kind, code)


def test_only_a_refused_access_token_is_worth_a_fresh_one() -> None:
    it = bound()

    assert [row[0] for row in REFUSALS if it.is_stale(it.classify(row[1], NOW))] == ["access token", "a page 401"]


# --- trying it out ------------------------------------------------------------------------------------------


def test_a_probe_is_checked_and_never_sent() -> None:
    body = orjson.loads(bound(ttl_s=5).probe(MOMENT).body)

    assert body["validateOnly"] is True
    assert body["message"]["android"] == {"ttl": "5s"}


@pytest.mark.parametrize(
    ("response", "good", "part"),
    [
        (error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", fields=("message.token",)), True, "accepts"),
        (HttpResponse(200, (), b"{}"), True, "accepts"),
        (error(404, "NOT_FOUND", "UNREGISTERED"), True, "accepts"),
        (error(400, "INVALID_ARGUMENT", fields=("message.android.ttl",)), False, "settings"),
        (error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"), False, "another Firebase project"),
        (error(403, "PERMISSION_DENIED"), False, "role"),
        (error(404, "NOT_FOUND"), False, "project_id"),
        (error(401, "UNAUTHENTICATED"), False, "service account"),
        (error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"), False, "APNs key"),
        (HttpResponse(404, (), b"<html>"), False, "base_url"),
        (HttpResponse(418, (), b"<html>"), False, "Try again"),
    ],
)
def test_a_probe_says_what_is_right_or_wrong(response: HttpResponse, good: bool, part: str) -> None:
    probed = bound().probed(response, NOW)

    assert probed.good is good
    assert part in probed.words


def test_every_code_has_words() -> None:
    tables = (BY_ERROR_CODE, BY_STATUS, BY_HTTP, TOKEN_ERRORS, TOKEN_BY_HTTP)

    assert FCM.explanations is EXPLANATIONS
    assert {row.code for table in tables for row in table.rows.values()} <= EXPLANATIONS.keys()
    assert all(words.endswith(".") for words in EXPLANATIONS.values())


# --- the configuration --------------------------------------------------------------------------------------


@pytest.mark.parametrize("account", [service_account(), orjson.dumps(service_account()).decode()], ids=["object", "text"])
def test_a_key_file_is_taken_as_an_object_or_as_its_text(account: object) -> None:
    assert credentials_problems({"service_account": account}) == []
    assert bound(account).request(DELIVERY, MOMENT)


@pytest.mark.parametrize(
    ("account", "pointer"),
    [
        (None, ""),
        ("{", ""),
        ([], ""),
        ({}, "/project_id"),
        (service_account(project_id="../x"), "/project_id"),
        (service_account(client_email=7), "/client_email"),
        (service_account(private_key_id=""), "/private_key_id"),
        (service_account(private_key="-----BEGIN PRIVATE KEY-----"), "/private_key"),
        (service_account(private_key=7), "/private_key"),
        (service_account(private_key=rsa_pem(1024)), "/private_key"),
        (service_account(token_uri="ftp://tokens.example"), "/token_uri"),
        (service_account(token_uri=7), "/token_uri"),
    ],
)
def test_a_key_file_that_can_not_work_is_refused_with_a_pointer(account: object, pointer: str) -> None:
    problems = credentials_problems({"service_account": account})

    assert problems[0].pointer == f"/credentials/service_account{pointer}"
    assert "PRIVATE KEY" not in repr(problems)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("project_id", "a/../b"),
        ("priority", "urgent"),
        ("ttl_s", -1),
        ("ttl_s", TTL_S_MAX + 1),
        ("ttl_s", True),
        ("collapse_key", ""),
        ("analytics_label", "a b"),
        ("restricted_package_name", 7),
        ("base_url", "https://fcm.example"),
        ("on_unknown", "ask"),
    ],
)
def test_a_setting_that_can_not_work_is_refused_with_a_pointer(name: str, value: object) -> None:
    assert [problem.pointer for problem in settings_problems({name: value}, {SANDBOX})] == [f"/settings/{name}"]


def test_unknown_fields_are_refused() -> None:
    assert settings_problems({"colour": "red"})[0].pointer == "/settings"
    assert credentials_problems({"api_key": "x", "service_account": service_account()})[0].pointer == "/credentials"


@pytest.mark.parametrize(
    ("account", "settings"),
    [
        (service_account(private_key="no"), {}),
        (service_account(private_key_id=None), {}),
        ("no", {}),
        (service_account(), {"base_url": "https://gone.example"}),
        (service_account(token_uri="https://tokens.example/token"), {}),
    ],
)
def test_what_was_stored_and_can_not_be_used_any_more_is_not_bound(account: object, settings: dict[str, Any]) -> None:
    with pytest.raises(Unbindable):
        bound(account, **settings)


def test_nothing_shows_the_key_or_the_device() -> None:
    it = bound()
    shown = repr(it) + repr(it.request(DELIVERY, MOMENT)) + repr(it.token_request(MOMENT)) + repr(MOMENT)

    assert "hush" not in shown
    assert "APA91b" not in shown
    assert "PRIVATE" not in shown
