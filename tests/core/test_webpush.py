from __future__ import annotations

from base64 import urlsafe_b64encode
from contextlib import suppress
from random import Random
from typing import Any

import http_ece
import jwt
import orjson
import pytest
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.http_message import HttpRequest, HttpResponse, Origin
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, ProviderConfig
from dispatcher.outcome import Outcome, OutcomeClass, RateScope
from dispatcher.providers.batching import Batching
from dispatcher.providers.probing import Probing
from dispatcher.providers.provider import Moment, Unbindable, Unsendable
from dispatcher.providers.tokens import Authorizing
from dispatcher.providers.webpush import (
    TOKEN_GRID_S,
    TOKENS_MAX,
    TTL_S_DEFAULT,
    TTL_S_MAX,
    WEBPUSH,
    BoundWebPush,
    bind,
    credentials_problems,
    is_known_service,
    settings_problems,
)
from dispatcher.providers.webpush_encryption import PLAINTEXT_BYTES_MAX, NoPoint, encrypt, encrypt_with
from dispatcher.providers.webpush_errors import BY_NUMBER, BY_STATUS, EXPLANATIONS
from push_accounts import (
    BROWSER_AUTH,
    BROWSER_PRIVATE_KEY,
    BROWSER_PUBLIC_KEY,
    VAPID_PRIVATE_KEY,
    VAPID_PUBLIC_KEY,
    browser,
    raw,
)

NOW = 1_700_000_000.0
ID = NotificationId("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
SETTINGS = {"subject": "mailto:ops@hall.example"}
SANDBOX = "http://127.0.0.1:8025"
MOMENT = Moment(NOW, Random(1).randbytes)
DELIVERY = Delivery(
    ID,
    OrganizationId("acme"),
    Channel.PUSH,
    browser(),
    {"title": "Doors", "text": "They open at seven.", "data": {"seat": 7}},
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


def bound(key: str = VAPID_PRIVATE_KEY, origin: str = SANDBOX, **settings: Any) -> BoundWebPush:
    given = {**SETTINGS, **settings}
    config = ProviderConfig("1", OrganizationId("acme"), Channel.PUSH, "webpush", given, {"vapid_private_key": key}, revision=1)
    return bind(config, {origin})


def private_key(text: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(raw(text)), ec.SECP256R1())


def decrypted(body: bytes) -> bytes:
    """What the browser reads, by somebody else's implementation."""
    plaintext: bytes = http_ece.decrypt(body, private_key=private_key(BROWSER_PRIVATE_KEY), auth_secret=raw(BROWSER_AUTH))
    return plaintext


def header(request: HttpRequest, name: bytes) -> bytes:
    return dict(request.headers)[name]


def claims(request: HttpRequest) -> dict[str, Any]:
    """The claims of a request's token, whose signature is verified with the key beside it."""
    token, key = header(request, b"authorization").decode().removeprefix("vapid t=").split(", k=")
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw(key))
    options: Any = {"verify_aud": False, "verify_exp": False}
    found: dict[str, Any] = jwt.decode(token, public, ["ES256"], options=options)
    return found


def test_a_bound_provider_has_no_extra_abilities() -> None:
    """It signs its own tokens, and without a subscription there is nothing to try it with."""
    assert not isinstance(bound(), Authorizing | Batching | Probing)


# --- encryption ---------------------------------------------------------------------------------------------


def test_the_example_of_rfc_8291_comes_out_byte_for_byte() -> None:
    body = encrypt_with(
        private_key(VAPID_PRIVATE_KEY),
        raw("DGv6ra1nlYgDCS1FRnbzlw"),
        b"When I grow up, I want to be a watermelon",
        raw(BROWSER_PUBLIC_KEY),
        raw(BROWSER_AUTH),
    )

    assert urlsafe_b64encode(body).rstrip(b"=") == (
        b"DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_y"
        b"l95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )


@given(st.binary(max_size=PLAINTEXT_BYTES_MAX), st.integers())
def test_another_implementation_reads_what_is_encrypted(plaintext: bytes, seed: int) -> None:
    body = encrypt(plaintext, raw(BROWSER_PUBLIC_KEY), raw(BROWSER_AUTH), Random(seed).randbytes)

    assert decrypted(body) == plaintext
    assert len(body) == 103 + len(plaintext) <= 4096


def test_every_message_has_a_key_and_a_salt_of_its_own() -> None:
    random_bytes = Random(1).randbytes
    bodies = [encrypt(b"", raw(BROWSER_PUBLIC_KEY), raw(BROWSER_AUTH), random_bytes) for _ in range(50)]

    assert len({body[:16] for body in bodies}) == len({body[21:86] for body in bodies}) == 50


def test_the_same_randomness_makes_the_same_body() -> None:
    first, second = (bound().request(DELIVERY, Moment(NOW, Random(7).randbytes)) for _ in range(2))

    assert first.body == second.body


def test_a_point_that_is_none_is_refused() -> None:
    with pytest.raises(NoPoint):
        encrypt(b"", b"\x04" + b"\x01" * 64, raw(BROWSER_AUTH), Random(1).randbytes)


# --- a request ----------------------------------------------------------------------------------------------


def test_a_notification_is_one_message_to_one_browser() -> None:
    request = bound().request(DELIVERY, MOMENT)

    assert (str(request.origin), request.method, request.target) == (
        "https://updates.push.services.mozilla.com:443",
        b"POST",
        b"/wpush/v2/gAAAA",
    )
    assert orjson.loads(decrypted(request.body)) == {
        "title": "Doors",
        "body": "They open at seven.",
        "data": {"seat": 7},
        "notification_id": ID,
    }
    assert header(request, b"content-encoding") == b"aes128gcm"
    assert header(request, b"content-type") == b"application/octet-stream"
    assert header(request, b"urgency") == b"normal"
    assert header(request, b"ttl") == str(TTL_S_DEFAULT).encode()


def test_a_repetition_replaces_what_still_waits() -> None:
    first, second = bound().request(DELIVERY, MOMENT), bound().request(evolve(DELIVERY, attempt=2), MOMENT)

    assert header(first, b"topic") == header(second, b"topic") == ID.replace("-", "").encode()
    assert len(header(first, b"topic")) <= 32


def test_settings_reach_the_request() -> None:
    request = bound(ttl_s=60, urgency="high").request(DELIVERY, MOMENT)

    assert (header(request, b"ttl"), header(request, b"urgency")) == (b"60", b"high")


@pytest.mark.parametrize(("left_s", "ttl"), [(90.9, b"60"), (30.9, b"30"), (-5.0, b"0")])
def test_no_browser_shows_it_after_its_end(left_s: float, ttl: bytes) -> None:
    assert header(bound(ttl_s=60).request(evolve(DELIVERY, expires_at_s=NOW + left_s), MOMENT), b"ttl") == ttl


def test_a_token_says_who_we_are_to_one_service() -> None:
    request = bound().request(DELIVERY, MOMENT)
    said = claims(request)

    assert header(request, b"authorization").endswith(b", k=" + VAPID_PUBLIC_KEY.encode())
    assert (said["aud"], said["sub"]) == ("https://updates.push.services.mozilla.com", "mailto:ops@hall.example")
    assert NOW + 6 * 3600 <= said["exp"] <= NOW + 12 * 3600


@pytest.mark.parametrize("origin", [SANDBOX, "http://[::1]:8025", "https://push.example:8443"])
def test_an_unusual_port_is_part_of_the_audience(origin: str) -> None:
    request = bound(origin=origin).request(evolve(DELIVERY, recipient=browser(f"{origin}/push/x")), MOMENT)

    assert claims(request)["aud"] == origin


def test_a_token_serves_one_service_for_a_stretch_of_time() -> None:
    it = bound()

    def token(host: str, now_s: float) -> bytes:
        delivery = evolve(DELIVERY, recipient=browser(f"https://{host}/x"))
        return header(it.request(delivery, evolve(MOMENT, unix_s=now_s)), b"authorization")

    begins_s = NOW // TOKEN_GRID_S * TOKEN_GRID_S
    first = token("web.push.apple.com", begins_s)

    assert token("web.push.apple.com", begins_s + TOKEN_GRID_S - 1) == first
    assert token("web.push.apple.com", begins_s + TOKEN_GRID_S) != first
    assert token("fcm.googleapis.com", begins_s) != first


def test_the_tokens_kept_are_bounded() -> None:
    it = bound()
    for number in range(3 * TOKENS_MAX):
        it.request(evolve(DELIVERY, recipient=browser(f"https://wns{number}.notify.windows.com/x")), MOMENT)

    assert len(it._tokens) <= TOKENS_MAX


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("fcm.googleapis.com", True),
        ("updates.push.services.mozilla.com", True),
        ("eu.push.services.mozilla.com", True),
        ("wns2-par02p.notify.windows.com", True),
        ("web.push.apple.com", True),
        ("googleapis.com", False),
        ("evil-fcm.googleapis.com", False),
        ("fcm.googleapis.com.evil.example", False),
        ("notify.windows.com.evil.example", False),
        ("evilnotify.windows.com", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
    ],
)
def test_only_known_services_are_sent_to(host: str, known: bool) -> None:
    delivery = evolve(DELIVERY, recipient=browser(f"https://{host}/x"))

    assert is_known_service(Origin("https", host, 443)) is known
    if known:
        assert bound().request(delivery, MOMENT).origin.host == host
    else:
        assert refused(delivery) == "endpoint_not_allowed"


@pytest.mark.parametrize("place", ["http://fcm.googleapis.com", "https://fcm.googleapis.com:8443", "http://127.0.0.1:8026"])
def test_a_known_name_over_plain_http_or_another_port_is_another_place(place: str) -> None:
    assert refused(evolve(DELIVERY, recipient=browser(f"{place}/x"))) == "endpoint_not_allowed"


def test_an_origin_that_is_allowed_besides_is_sent_to() -> None:
    assert str(bound().request(evolve(DELIVERY, recipient=browser(f"{SANDBOX}/push/x")), MOMENT).origin) == SANDBOX


def refused(delivery: Delivery) -> str:
    with pytest.raises(Unsendable) as error:
        bound().request(delivery, MOMENT)
    return error.value.code


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({}, "content_missing"),
        ({"text": ""}, "content_missing"),
        ({"text": "x", "title": []}, "content_invalid"),
        ({"text": "x" * PLAINTEXT_BYTES_MAX}, "payload_too_large"),
        ({"text": "\ud800"}, "payload_not_unicode"),
    ],
)
def test_what_does_not_fit_into_a_message_is_not_sent(payload: dict[str, Any], code: str) -> None:
    assert refused(evolve(DELIVERY, payload=payload)) == code


def test_the_largest_message_is_sent() -> None:
    empty = len(decrypted(bound().request(evolve(DELIVERY, payload={"text": "x"}), MOMENT).body)) - 1
    request = bound().request(evolve(DELIVERY, payload={"text": "x" * (PLAINTEXT_BYTES_MAX - empty)}), MOMENT)

    assert len(request.body) == 4096


@pytest.mark.parametrize(
    ("recipient", "code"),
    [
        ("a-token", "recipient_invalid"),
        (browser(auth="AAAA"), "recipient_invalid"),
        (browser(p256dh="BA" + "A" * 85), "subscription_key_invalid"),
    ],
)
def test_what_is_no_subscription_is_not_sent_to(recipient: str, code: str) -> None:
    assert refused(evolve(DELIVERY, recipient=recipient)) == code


# --- what comes back ----------------------------------------------------------------------------------------


def mozilla(status: int, number: int, message: str = "") -> HttpResponse:
    return HttpResponse(status, (), orjson.dumps({"code": status, "errno": number, "error": "x", "message": message}))


CHROME_MISMATCH = b"the VAPID credentials in the authorization header do not correspond to the credentials used.\n"
REFUSALS: list[tuple[HttpResponse, OutcomeClass, str]] = [
    (HttpResponse(400, (), b""), HARD, "http_400"),
    (mozilla(400, 101), HARD, "encryption_missing"),
    (mozilla(400, 108), SUPPRESS, "subscription_unknown"),
    (mozilla(400, 110), HARD, "encryption_invalid"),
    (mozilla(400, 111), HARD, "header_missing"),
    (mozilla(400, 112), HARD, "ttl_invalid"),
    (mozilla(400, 113), HARD, "topic_invalid"),
    (HttpResponse(401, (), b""), CONFIG, "vapid_refused"),
    (mozilla(401, 109), CONFIG, "vapid_refused"),
    (mozilla(401, 109, "VAPID public key mismatch"), HARD, "vapid_key_mismatch"),
    (HttpResponse(403, (), b""), CONFIG, "vapid_forbidden"),
    (HttpResponse(403, (), b'{"reason":"BadJwtToken"}'), CONFIG, "vapid_forbidden"),
    (HttpResponse(403, (), CHROME_MISMATCH), HARD, "vapid_key_mismatch"),
    (HttpResponse(400, (), b'{"reason":"VapidPkHashMismatch"}'), HARD, "vapid_key_mismatch"),
    (HttpResponse(404, (), b""), SUPPRESS, "subscription_unknown"),
    (mozilla(404, 102), SUPPRESS, "subscription_unknown"),
    (HttpResponse(410, (), b""), SUPPRESS, "subscription_gone"),
    (mozilla(410, 103), SUPPRESS, "subscription_gone"),
    (mozilla(410, 105), SUPPRESS, "subscription_gone"),
    (mozilla(410, 106), SUPPRESS, "subscription_gone"),
    (HttpResponse(413, (), b""), HARD, "too_large"),
    (mozilla(413, 104), HARD, "too_large"),
    (HttpResponse(406, (), b""), RATE, "http_406"),
    (HttpResponse(408, (), b""), SOFT, "http_408"),
    (HttpResponse(418, (), b""), HARD, "http_418"),
    (HttpResponse(429, (), b""), RATE, "http_429"),
    (mozilla(429, 201), RATE, "http_429"),
    (HttpResponse(429, (), b'{"reason":"TooManyRequests"}'), RATE, "subscription_rate_limited"),
    (HttpResponse(500, (), b""), SOFT, "http_500"),
    (mozilla(500, 999), SOFT, "http_500"),
    (HttpResponse(502, (), b"<html>"), UNKNOWN, "http_502"),
    *((mozilla(502, number), SOFT, "bridge_failed") for number in (900, 901, 902, 903)),
    (HttpResponse(503, (), b""), SOFT, "http_503"),
    (mozilla(503, 201), SOFT, "http_503"),
    (mozilla(503, 202), SOFT, "try_again"),
    (HttpResponse(504, (), b"<html>"), UNKNOWN, "http_504"),
    (HttpResponse(301, ((b"location", b"https://elsewhere.example/x"),), b""), HARD, "endpoint_moved"),
    (HttpResponse(307, ((b"location", b"https://elsewhere.example/x"),), b""), HARD, "endpoint_moved"),
    (HttpResponse(304, (), b""), HARD, "http_304"),
    (HttpResponse(700, (), b""), UNKNOWN, "answer_not_understood"),
    (HttpResponse(400, (), mozilla(400, 110).body + b" " * 20_000), HARD, "http_400"),
]


@pytest.mark.parametrize(("response", "kind", "code"), REFUSALS, ids=[f"{row[0].status}-{row[2]}" for row in REFUSALS])
def test_every_refusal_means_something(response: HttpResponse, kind: OutcomeClass, code: str) -> None:
    outcome = bound().classify(response, NOW)

    assert (outcome.kind, outcome.code) == (kind, code)


def test_every_row_of_the_tables_is_among_the_refusals() -> None:
    seen = {code for _, _, code in REFUSALS}

    assert {row.code for table in (BY_STATUS, BY_NUMBER) for row in table.rows.values()} <= seen


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_every_success_is_one(status: int) -> None:
    assert bound().classify(HttpResponse(status, (), b""), NOW) == Outcome(OutcomeClass.DELIVERED, "accepted")


@pytest.mark.parametrize(
    ("location", "id"),
    [
        (b"https://push.example/m/abc", "abc"),
        (b"/m/abc", "abc"),
        (b"/m/", None),
        (b"/m/a b", None),
        (b"/m/" + b"a" * 129, None),
        (b"\xff", None),
    ],
)
def test_the_message_is_named_by_the_end_of_its_address(location: bytes, id: str | None) -> None:
    assert bound().classify(HttpResponse(201, ((b"location", location),), b""), NOW).provider_message_id == id


def test_the_waits_are_the_services_own() -> None:
    later = ((b"retry-after", b"120"),)
    classify = bound().classify
    one_browser = classify(HttpResponse(429, (), b'{"reason":"TooManyRequests"}'), NOW)

    assert classify(HttpResponse(429, later, b""), NOW).retry_after_s == 120.0
    assert classify(HttpResponse(406, ((b"retry-after", b"5"),), b""), NOW).retry_after_s == 5.0
    assert classify(HttpResponse(406, (), b""), NOW).retry_after_s == 60.0
    assert classify(HttpResponse(429, later, b""), NOW).scope is RateScope.ACCOUNT
    assert (one_browser.scope, one_browser.retry_after_s) == (RateScope.RECIPIENT, 60.0)
    assert classify(HttpResponse(503, later, b""), NOW).retry_after_s == 120.0


@given(st.integers(100, 999), st.binary(max_size=100) | st.sampled_from([b'{"errno":[]}', b'{"errno":1e400}', b"[]", b"null"]))
def test_nothing_that_comes_back_is_an_error_of_ours(status: int, body: bytes) -> None:
    headers = ((b"retry-after", body[:20]), (b"location", body))

    assert isinstance(bound().classify(HttpResponse(status, headers, body), NOW), Outcome)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.text() | st.just(browser()), st.dictionaries(st.sampled_from(["title", "text", "data"]), JSON))
def test_a_request_is_whole_or_there_is_none(recipient: str, payload: dict[str, Any]) -> None:
    with suppress(Unsendable):
        request = bound().request(evolve(DELIVERY, recipient=recipient, payload=payload), MOMENT)

        assert orjson.loads(decrypted(request.body))["body"] == payload["text"]


# --- the configuration --------------------------------------------------------------------------------------

PEM = private_key(VAPID_PRIVATE_KEY).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
OTHER_CURVE = ec.generate_private_key(ec.SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize("key", [VAPID_PRIVATE_KEY, VAPID_PRIVATE_KEY + "=", PEM], ids=["base64url", "padded", "pem"])
def test_a_key_is_taken_in_either_form(key: str) -> None:
    assert credentials_problems({"vapid_private_key": key}) == []
    assert header(bound(key).request(DELIVERY, MOMENT), b"authorization").endswith(VAPID_PUBLIC_KEY.encode())


@pytest.mark.parametrize("key", [None, "", 7, "AAAA", "A" * 43, "_" * 43, "ü" * 43, OTHER_CURVE, "-----BEGIN PRIVATE KEY-----"])
def test_a_key_that_is_none_is_refused_with_a_pointer(key: object) -> None:
    (problem,) = credentials_problems({"vapid_private_key": key})

    assert problem.pointer == "/credentials/vapid_private_key"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("subject", None),
        ("subject", "ops@hall.example"),
        ("subject", "mailto: ops@hall.example"),
        ("subject", "http://hall.example"),
        ("subject", 7),
        ("ttl_s", -1),
        ("ttl_s", TTL_S_MAX + 1),
        ("ttl_s", 1.5),
        ("urgency", "urgent"),
        ("on_unknown", "ask"),
        ("rate_per_s", 0),
    ],
)
def test_a_setting_that_can_not_work_is_refused_with_a_pointer(name: str, value: object) -> None:
    assert [problem.pointer for problem in settings_problems({**SETTINGS, name: value})] == [f"/settings/{name}"]


def test_a_base_url_means_nothing_here() -> None:
    assert [problem.pointer for problem in settings_problems({**SETTINGS, "base_url": SANDBOX}, {SANDBOX})] == ["/settings"]


@pytest.mark.parametrize("subject", ["mailto:ops@hall.example", "https://hall.example/contact"])
def test_a_subject_is_an_address_of_mail_or_of_the_web(subject: str) -> None:
    assert settings_problems({"subject": subject, "ttl_s": 0, "urgency": "low", "rate_per_s": 5}) == []


def test_what_was_stored_and_can_not_be_used_any_more_is_not_bound() -> None:
    for key, settings in (("no", {}), (VAPID_PRIVATE_KEY, {"subject": "no"})):
        with pytest.raises(Unbindable):
            bound(key, **settings)


def test_every_code_has_words() -> None:
    assert WEBPUSH.explanations is EXPLANATIONS
    assert {row.code for table in (BY_STATUS, BY_NUMBER) for row in table.rows.values()} <= EXPLANATIONS.keys()
    assert all(words.endswith(".") for words in EXPLANATIONS.values())


def test_nothing_shows_the_key_or_the_browser() -> None:
    it = bound()
    shown = repr(it.request(DELIVERY, MOMENT)) + repr(it) + repr(DELIVERY)

    assert VAPID_PRIVATE_KEY not in shown
    assert "gAAAA" not in shown
    assert "eyJ" not in shown, "how a token begins"
    assert BROWSER_AUTH not in shown
