from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from random import Random
from typing import Any

import jwt
import orjson
import pytest
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from apple_keys import KEY_ID, TEAM_ID, apple_credentials, p8
from dispatcher.http_message import HttpRequest, HttpResponse, Origin
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, ProviderConfig
from dispatcher.outcome import OutcomeClass, RateScope
from dispatcher.providers.apns import APNS, PAYLOAD_BYTES_MAX, BoundApns, bind, credentials_problems, settings_problems
from dispatcher.providers.apns_errors import BY_REASON, BY_STATUS, EXPLANATIONS
from dispatcher.providers.probing import Probing
from dispatcher.providers.provider import Moment, Unbindable, Unsendable
from dispatcher.providers.provider_token import SLACK_S, STEP_S
from push_accounts import rsa_pem

NOW = 1_700_000_000.0
ID = NotificationId("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
SANDBOX = "https://127.0.0.1:8026"
MOMENT = Moment(NOW, Random(1).randbytes)
DEVICE = "ab" * 32
TOPIC = "org.example.tickets"
DELIVERY = Delivery(
    ID,
    OrganizationId("acme"),
    Channel.PUSH,
    DEVICE,
    {"title": "Doors", "text": "They open at seven.", "data": {"seat": "B7", "row": 4}},
    attempt=1,
    attempts_max=8,
    created_at_s=NOW,
)
HARD, SUPPRESS, SOFT, RATE, CONFIG, UNKNOWN = (
    OutcomeClass.HARD,
    OutcomeClass.SUPPRESS,
    OutcomeClass.SOFT,
    OutcomeClass.RATE_LIMITED,
    OutcomeClass.MISCONFIGURED,
    OutcomeClass.UNKNOWN,
)


def bound(credentials: dict[str, str] | None = None, **settings: Any) -> BoundApns:
    given = {"topic": TOPIC, **settings}
    return bind(
        ProviderConfig("1", OrganizationId("acme"), Channel.PUSH, "apns", given, credentials or apple_credentials(), revision=1),
        {SANDBOX},
    )


def payload(request: HttpRequest) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(request.body)
    return body


def refusal(status: int, reason: str | None, **more: Any) -> HttpResponse:
    return HttpResponse(status, (), b"" if reason is None else orjson.dumps({"reason": reason, **more}))


def test_one_request_carries_one_notification_to_one_device() -> None:
    request = bound().request(DELIVERY, MOMENT)
    headers = dict(request.headers)

    assert request.origin == Origin("h2", "api.push.apple.com", 443)
    assert (request.method, request.target) == (b"POST", b"/3/device/" + DEVICE.encode())
    assert headers[b"apns-topic"] == TOPIC.encode()
    assert headers[b"apns-push-type"] == b"alert"
    assert headers[b"apns-priority"] == b"10"
    assert headers[b"apns-id"] == ID.encode()
    assert b"apns-expiration" not in headers
    assert headers[b"authorization"].startswith(b"bearer ey")
    assert payload(request) == {
        "aps": {"alert": {"title": "Doors", "body": "They open at seven."}},
        "seat": "B7",
        "row": 4,
    }


def test_what_there_is_not_is_left_out() -> None:
    request = bound().request(evolve(DELIVERY, payload={"text": "Now."}), MOMENT)

    assert payload(request) == {"aps": {"alert": {"body": "Now."}}}


def test_settings_go_into_headers_and_payload() -> None:
    settings: Any = {"priority": 5, "collapse_id": "doors", "sound": "default", "category": "EVENT", "thread_id": "hall"}
    request = bound(environment="sandbox", **settings).request(DELIVERY, MOMENT)
    headers = dict(request.headers)

    assert request.origin == Origin("h2", "api.sandbox.push.apple.com", 443)
    assert headers[b"apns-priority"] == b"5"
    assert headers[b"apns-collapse-id"] == b"doors"
    assert payload(request)["aps"] == {
        "alert": {"title": "Doors", "body": "They open at seven."},
        "sound": "default",
        "category": "EVENT",
        "thread-id": "hall",
    }


def test_a_background_notification_shows_nothing_and_hands_the_texts_to_the_app() -> None:
    request = bound(push_type="background").request(DELIVERY, MOMENT)

    assert dict(request.headers)[b"apns-push-type"] == b"background"
    assert dict(request.headers)[b"apns-priority"] == b"5"
    assert payload(request) == {
        "aps": {"content-available": 1},
        "title": "Doors",
        "text": "They open at seven.",
        "seat": "B7",
        "row": 4,
    }


@pytest.mark.parametrize(
    ("ttl_s", "expires_at_s", "header"),
    [
        (None, None, None),
        (None, NOW + 100.9, b"1700000100"),
        (60, None, b"1700000060"),
        (60, NOW + 100, b"1700000060"),
        (600, NOW + 100, b"1700000100"),
        (0, NOW + 100, b"0"),
        (0, None, b"0"),
    ],
)
def test_apple_keeps_a_notification_no_longer_than_it_is_good_for(
    ttl_s: int | None, expires_at_s: float | None, header: bytes | None
) -> None:
    settings: Any = {} if ttl_s is None else {"ttl_s": ttl_s}
    request = bound(**settings).request(evolve(DELIVERY, expires_at_s=expires_at_s), MOMENT)

    assert dict(request.headers).get(b"apns-expiration") == header


def test_a_base_url_leads_elsewhere_over_tls_all_the_same() -> None:
    request = bound(base_url=SANDBOX + "/apns").request(DELIVERY, MOMENT)

    assert request.origin == Origin("h2", "127.0.0.1", 8026)
    assert request.target == b"/apns/3/device/" + DEVICE.encode()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"recipient": "not hexadecimal"}, "recipient_invalid"),
        ({"recipient": "ab" * 31}, "recipient_invalid"),
        ({"recipient": "ab" * 101}, "recipient_invalid"),
        ({"recipient": "ab" * 32 + "a"}, "recipient_invalid"),
        ({"recipient": DEVICE + "\n"}, "recipient_invalid"),
        ({"payload": {"title": "Doors"}}, "content_missing"),
        ({"payload": {"text": ""}}, "content_missing"),
        ({"payload": {"text": "x", "title": 4}}, "content_invalid"),
        ({"payload": {"text": "x", "data": [1]}}, "data_invalid"),
        ({"payload": {"text": "x", "data": {"aps": {}}}}, "data_key_reserved"),
        ({"payload": {"text": "x" * PAYLOAD_BYTES_MAX}}, "payload_too_large"),
        ({"payload": {"text": "\ud800"}}, "payload_not_unicode"),
        ({"payload": {"text": "x", "data": {"n": 1 << 70}}}, "payload_not_unicode"),
    ],
)
def test_what_apns_can_not_take_is_unsendable(change: dict[str, Any], code: str) -> None:
    with pytest.raises(Unsendable, match=code):
        bound().request(evolve(DELIVERY, **change), MOMENT)


def test_a_payload_of_exactly_the_limit_is_sent() -> None:
    overhead = len(bound().request(evolve(DELIVERY, payload={"text": "x"}), MOMENT).body) - 1
    text = "x" * (PAYLOAD_BYTES_MAX - overhead)

    assert len(bound().request(evolve(DELIVERY, payload={"text": text}), MOMENT).body) == PAYLOAD_BYTES_MAX
    with pytest.raises(Unsendable, match="payload_too_large"):
        bound().request(evolve(DELIVERY, payload={"text": text + "x"}), MOMENT)


# --- the provider token -----------------------------------------------------------------------------------------------------


def token_at(now_s: float, provider: BoundApns | None = None) -> bytes:
    request = (provider or bound()).request(DELIVERY, Moment(now_s, Random(1).randbytes))
    return dict(request.headers)[b"authorization"].removeprefix(b"bearer ")


def issued_at(token: bytes) -> int:
    key = load_pem_private_key(p8().encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    claims = jwt.decode(token, key.public_key(), ["ES256"], options={"verify_iat": False})
    issued_at_s: int = claims.pop("iat")
    assert claims == {"iss": TEAM_ID}
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": KEY_ID}
    return issued_at_s


def test_every_process_and_every_start_makes_the_same_token() -> None:
    assert token_at(NOW, bound()) == token_at(NOW, bound())


@given(st.floats(1.6e9, 2e9))
def test_a_token_is_never_older_than_an_hour_nor_from_the_future(now_s: float) -> None:
    age_s = now_s - issued_at(token_at(now_s))

    assert SLACK_S <= age_s <= 45 * 60


def test_a_new_token_comes_no_more_often_than_every_20_minutes() -> None:
    provider = bound()
    seen = dict.fromkeys(issued_at(token_at(NOW + minute * 60, provider)) for minute in range(300))
    moments = list(seen)

    assert all(later - earlier == STEP_S >= 20 * 60 for earlier, later in pairwise(moments))


def test_between_two_steps_the_token_is_not_signed_again() -> None:
    provider = bound()
    headers = [provider.request(DELIVERY, Moment(NOW + second, Random(1).randbytes)).headers[0] for second in range(3)]

    assert len(set(headers)) == 1


# --- settings and credentials -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({}, "/settings/topic"),
        ({"topic": "with blank"}, "/settings/topic"),
        ({"topic": 4}, "/settings/topic"),
        ({"topic": TOPIC, "environment": "staging"}, "/settings/environment"),
        ({"topic": TOPIC, "push_type": "voip"}, "/settings/push_type"),
        ({"topic": TOPIC, "priority": 7}, "/settings/priority"),
        ({"topic": TOPIC, "priority": True}, "/settings/priority"),
        ({"topic": TOPIC, "priority": 10, "push_type": "background"}, "/settings/priority"),
        ({"topic": TOPIC, "ttl_s": -1}, "/settings/ttl_s"),
        ({"topic": TOPIC, "ttl_s": 1.5}, "/settings/ttl_s"),
        ({"topic": TOPIC, "collapse_id": "x" * 65}, "/settings/collapse_id"),
        ({"topic": TOPIC, "sound": "a\nb"}, "/settings/sound"),
        ({"topic": TOPIC, "category": ""}, "/settings/category"),
        ({"topic": TOPIC, "thread_id": ["x"]}, "/settings/thread_id"),
        ({"topic": TOPIC, "base_url": "http://127.0.0.1:8026"}, "/settings/base_url"),
        ({"topic": TOPIC, "base_url": "https://evil.test"}, "/settings/base_url"),
        ({"topic": TOPIC, "on_unknown": "ask"}, "/settings/on_unknown"),
        ({"topic": TOPIC, "colour": "red"}, "/settings"),
    ],
)
def test_every_fault_of_the_settings_has_a_pointer(settings: dict[str, Any], pointer: str) -> None:
    problems = settings_problems(settings, {SANDBOX, "http://127.0.0.1:8026"})

    assert [problem.pointer for problem in problems] == [pointer]


def test_apples_own_hosts_and_both_ports_may_be_named() -> None:
    for host in ("api.push.apple.com", "api.sandbox.push.apple.com"):
        for port in ("", ":443", ":2197"):
            assert not settings_problems({"topic": TOPIC, "base_url": f"https://{host}{port}"})


def other_key() -> str:
    key = ec.generate_private_key(ec.SECP384R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"team_id": None}, "/credentials/team_id"),
        ({"team_id": "short"}, "/credentials/team_id"),
        ({"key_id": "lowercase1"}, "/credentials/key_id"),
        ({"private_key": None}, "/credentials/private_key"),
        ({"private_key": "hush"}, "/credentials/private_key"),
        ({"private_key": rsa_pem()}, "/credentials/private_key"),
        ({"private_key": other_key()}, "/credentials/private_key"),
        ({"password": "hush"}, "/credentials"),
    ],
)
def test_every_fault_of_the_credentials_has_a_pointer_and_repeats_nothing(change: dict[str, Any], pointer: str) -> None:
    problems = credentials_problems({**apple_credentials(), **change})

    assert [problem.pointer for problem in problems] == [pointer]
    assert "hush" not in repr(problems)


def test_a_configuration_that_has_become_invalid_does_not_bind() -> None:
    with pytest.raises(Unbindable):
        bound({**apple_credentials(), "private_key": "gone"})
    with pytest.raises(Unbindable):
        bound(base_url="https://127.0.0.1:9")


def test_nothing_shows_a_credential_or_a_recipient() -> None:
    provider = bound()
    shown = repr((provider, provider.request(DELIVERY, MOMENT), provider._token))

    assert DEVICE not in shown
    assert "PRIVATE" not in shown
    assert "bearer" not in shown


# --- what answers mean ------------------------------------------------------------------------------------------------------


def test_accepted() -> None:
    outcome = bound().classify(HttpResponse(200, ((b"apns-id", ID.upper().encode()),), b""), NOW)

    assert outcome.kind is OutcomeClass.DELIVERED
    assert outcome.provider_message_id == ID


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "BadDeviceToken", SUPPRESS),
        (400, "DeviceTokenNotForTopic", SUPPRESS),
        (400, "BadCollapseId", CONFIG),  # a setting, as are the next two: every other message would fail as well
        (400, "BadPriority", CONFIG),
        (400, "InvalidPushType", CONFIG),
        (400, "BadExpirationDate", HARD),
        (400, "BadMessageId", HARD),
        (400, "DuplicateHeaders", HARD),
        (400, "MissingDeviceToken", HARD),
        (400, "PayloadEmpty", HARD),
        (400, "BadTopic", CONFIG),
        (400, "MissingTopic", CONFIG),
        (400, "TopicDisallowed", CONFIG),
        (400, "IdleTimeout", SOFT),
        (403, "ExpiredProviderToken", SOFT),
        (403, "InvalidProviderToken", CONFIG),
        (403, "MissingProviderToken", CONFIG),
        (403, "BadCertificate", CONFIG),
        (403, "BadCertificateEnvironment", CONFIG),
        (403, "Forbidden", CONFIG),
        (403, "UnrelatedKeyIdInToken", CONFIG),
        (403, "BadEnvironmentKeyIdInToken", CONFIG),
        (404, "BadPath", CONFIG),
        (405, "MethodNotAllowed", CONFIG),
        (410, "Unregistered", SUPPRESS),
        (410, "ExpiredToken", SUPPRESS),
        (413, "PayloadTooLarge", HARD),
        (429, "TooManyRequests", RATE),
        (429, "TooManyProviderTokenUpdates", RATE),
        (500, "InternalServerError", SOFT),
        (503, "ServiceUnavailable", SOFT),
        (503, "Shutdown", SOFT),
        # Without a reason, or with one that nobody has heard of, the status decides.
        (400, None, HARD),
        (400, "SomethingNew", HARD),
        (403, "SomethingNew", CONFIG),
        (404, None, CONFIG),
        (405, None, CONFIG),
        (408, None, SOFT),
        (410, "SomethingNew", SUPPRESS),
        (413, None, HARD),
        (429, "SomethingNew", RATE),
        (301, None, CONFIG),
        (500, None, SOFT),
        (502, None, UNKNOWN),
        (504, None, UNKNOWN),
        (599, "SomethingNew", SOFT),
        (700, None, UNKNOWN),
    ],
)
def test_every_refusal_has_its_class(status: int, reason: str | None, kind: OutcomeClass) -> None:
    outcome = bound().classify(refusal(status, reason), NOW)

    assert outcome.kind is kind
    assert outcome.code.isascii()
    assert len(outcome.code) <= 64


def test_every_row_has_words_and_a_code_of_its_own() -> None:
    rows = [*BY_REASON.rows.values(), *BY_STATUS.rows.values()]

    assert len({row.code for row in rows}) == len(rows)
    assert all(row.words.endswith(".") and EXPLANATIONS[row.code] == row.words for row in rows)


def test_who_is_meant_by_too_many_and_how_long_to_wait() -> None:
    device = bound().classify(refusal(429, "TooManyRequests"), NOW)
    account = bound().classify(refusal(429, "TooManyProviderTokenUpdates"), NOW)
    failed = bound().classify(refusal(503, "ServiceUnavailable"), NOW)
    leaving = bound().classify(refusal(503, "Shutdown"), NOW)

    assert (device.scope, device.retry_after_s) == (RateScope.RECIPIENT, None)
    assert (account.scope, account.retry_after_s) == (RateScope.ACCOUNT, 300.0)
    assert failed.wait_s == 900.0
    assert leaving.wait_s == 0.0


def test_a_token_that_is_gone_tells_since_when() -> None:
    provider = bound()

    assert provider.classify(refusal(410, "Unregistered", timestamp=1_699_999_000_500), NOW).since_unix_s == 1_699_999_000.5
    for odd in ("soon", True, -1, 1 << 60, None, 1.5):
        assert provider.classify(refusal(410, "Unregistered", timestamp=odd), NOW).since_unix_s is None
    assert provider.classify(refusal(400, "PayloadEmpty", timestamp=1_699_999_000_500), NOW).since_unix_s is None


@given(
    st.integers(100, 999),
    st.binary(max_size=300),
    st.lists(st.tuples(st.sampled_from([b"apns-id", b"x"]), st.binary(max_size=40))),
)
def test_whatever_comes_back_means_something(status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    outcome = bound().classify(HttpResponse(status, tuple(headers), body), NOW)

    assert 0 < len(outcome.code) <= 64


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["reason", "timestamp"]), _JSON)
def test_an_answer_of_any_form_means_something(name: str, value: Any) -> None:
    with suppress(TypeError):  # what orjson does not write, Apple does not either
        bound().classify(HttpResponse(410, (), orjson.dumps({"reason": "Unregistered", name: value})), NOW)


@given(
    recipient=st.text(max_size=210) | st.from_regex(r"[0-9a-f]{60,80}", fullmatch=True),
    content=st.dictionaries(st.sampled_from(["title", "text", "data", "other"]), _JSON | st.text(min_size=1)),
    push_type=st.sampled_from(["alert", "background"]),
)
def test_a_request_is_valid_or_unsendable(recipient: str, content: dict[str, Any], push_type: str) -> None:
    delivery = evolve(DELIVERY, recipient=recipient, payload=content)
    try:
        request = bound(push_type=push_type).request(delivery, MOMENT)
    except Unsendable:
        return
    assert "aps" in payload(request)
    assert len(request.body) <= PAYLOAD_BYTES_MAX
    assert request.target.removeprefix(b"/3/device/").isalnum()


# --- trying it out ----------------------------------------------------------------------------------------------------------


def test_a_probe_goes_to_no_device_and_is_not_kept() -> None:
    provider = bound()
    assert isinstance(provider, Probing)
    request = provider.probe(MOMENT)

    assert request.target == b"/3/device/" + b"0" * 64
    assert dict(request.headers)[b"apns-expiration"] == b"0"
    assert b"apns-id" not in dict(request.headers)


@pytest.mark.parametrize(
    ("status", "reason", "good", "word"),
    [
        (400, "BadDeviceToken", True, "accepts"),
        (200, None, True, "accepts"),
        (400, "TopicDisallowed", False, "topic"),
        (403, "InvalidProviderToken", False, "key_id"),
        (403, "BadEnvironmentKeyIdInToken", False, "environment"),
        (403, "ExpiredProviderToken", False, "clock"),
        (404, None, False, "base_url"),
        (400, "SomethingNew", False, "."),
    ],
)
def test_a_probes_answer_is_said_in_words(status: int, reason: str | None, good: bool, word: str) -> None:
    probed = bound().probed(refusal(status, reason), NOW)

    assert probed.good is good
    assert word in probed.words


def test_it_is_for_push() -> None:
    assert APNS.channels == {Channel.PUSH}
