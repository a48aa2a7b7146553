"""The rules of the simulated APNs, one request at a time."""

from __future__ import annotations

import time
from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from apple_keys import KEY_ID, TEAM_ID, p8
from dispatcher_sandbox.apns import Apns, device_token
from dispatcher_sandbox.apns.simulator import PAYLOAD_BYTES_MAX
from dispatcher_sandbox.behaviour import Behaviour, changed
from dispatcher_sandbox.exchange import Exchange
from dispatcher_sandbox.ledger import Ledger
from dispatcher_sandbox.messages import Answer, Request
from dispatcher_sandbox.simulator import Intake

NOW = 1_700_000_000.0
DEVICE = "ab" * 32
ID = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
BODY = b'{"aps":{"alert":{"body":"Doors"}}}'
DROPPED = "\0"


def token(key: str = "", *, iat: float = NOW, kid: object = KEY_ID, iss: object = TEAM_ID, algorithm: str = "ES256") -> str:
    secret = p8(key) if algorithm == "ES256" else "x" * 32
    return "bearer " + jwt.encode({"iss": iss, "iat": iat}, secret, algorithm, {"kid": kid})


def public_key(key: str = "") -> str:
    private = load_pem_private_key(p8(key).encode(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def request(path: str = f"/3/device/{DEVICE}", method: str = "POST", body: bytes = BODY, **headers: str) -> Request:
    """A good request, with these headers changed; ``DROPPED`` leaves one out."""
    fields = {
        "authorization": token(),
        "apns-topic": "org.example.tickets",
        "apns-push-type": "alert",
        "apns-priority": "10",
        "apns-id": ID,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    wire = {name.encode(): value.encode() for name, value in fields.items() if value != DROPPED}
    return Request(method.encode(), path.encode(), wire, body)


def read(given: Request, now_s: float = NOW, **behaviour: Any) -> str:
    """The reason of the refusal, or ``taken``."""
    answer = Apns().read(given, Behaviour(**behaviour), now_s)
    if isinstance(answer, Intake):
        assert [correlation.notification_id for correlation in answer.correlations] == [ID]
        return "taken"
    assert isinstance(answer, Answer)
    reason: str = orjson.loads(answer.body)["reason"]
    return reason


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (request(), "taken"),
        (request(apns_id=ID.upper()), "taken"),
        (request(apns_priority=DROPPED, apns_push_type=DROPPED), "taken"),
        (request(apns_expiration="0", apns_collapse_id="x" * 64, apns_priority="1"), "taken"),
        (request(f"/3/device/{DEVICE.upper()}"), "taken"),
        (request(apns_id="1"), "BadMessageId"),
        (request(method="GET"), "MethodNotAllowed"),
        (request(apns_topic=DROPPED), "MissingTopic"),
        (request(apns_topic="with blank"), "BadTopic"),
        (request(apns_collapse_id="x" * 65), "BadCollapseId"),
        (request(apns_priority="7"), "BadPriority"),
        (request(apns_priority="10", apns_push_type="background"), "BadPriority"),
        (request(apns_expiration="soon"), "BadExpirationDate"),
        (request(apns_push_type="carrier-pigeon"), "InvalidPushType"),
        (request("/4/device/" + DEVICE), "BadPath"),
        (request("/3/device/"), "MissingDeviceToken"),
        (request("/3/device/xyz"), "BadDeviceToken"),
        (request("/3/device/" + DEVICE + "a"), "BadDeviceToken"),
        (request(authorization=DROPPED), "MissingProviderToken"),
        (request(authorization="Basic abc"), "MissingProviderToken"),
        (request(authorization="bearer abc"), "InvalidProviderToken"),
        (request(authorization=token(algorithm="HS256")), "InvalidProviderToken"),
        (request(authorization=token(kid="short")), "InvalidProviderToken"),
        (request(authorization=token(iss="short")), "InvalidProviderToken"),
        (request(authorization=token(iat=NOW + 400)), "InvalidProviderToken"),
        (request(authorization=token(iat=NOW - 3599)), "taken"),
        (request(authorization=token(iat=NOW - 3600)), "ExpiredProviderToken"),
        (request(body=b""), "PayloadEmpty"),
        (request(body=b"[]"), "PayloadEmpty"),
        (request(body=b'{"alert":1}'), "PayloadEmpty"),
        (request(body=b'{"aps":{},"x":"' + b"x" * (PAYLOAD_BYTES_MAX - 17) + b'"}'), "taken"),
        (request(body=b'{"aps":{},"x":"' + b"x" * (PAYLOAD_BYTES_MAX - 16) + b'"}'), "PayloadTooLarge"),
        # Of two faults Apple names the one it looks for first.
        (request("/3/device/xyz", apns_topic=DROPPED, authorization=DROPPED), "MissingTopic"),
        (request("/3/device/xyz", authorization=DROPPED, body=b""), "BadDeviceToken"),
        (request(authorization=DROPPED, body=b""), "MissingProviderToken"),
    ],
)
def test_apples_checks(given: Request, reason: str) -> None:
    assert read(given) == reason


def test_a_key_that_is_known_has_to_have_signed() -> None:
    keys = {f"{TEAM_ID}.{KEY_ID}": public_key()}

    assert read(request(), apns_keys=keys) == "taken"
    assert read(request(authorization=token("other")), apns_keys=keys) == "InvalidProviderToken"
    assert read(request(authorization=token(kid="KEYUNKNOWN")), apns_keys=keys) == "InvalidProviderToken"
    assert read(request(authorization=token(iss="TEAMOTHERS")), apns_keys=keys) == "InvalidProviderToken"
    assert read(request(authorization=token("other"))) == "taken"


def test_a_verdict_on_a_token_does_not_outlast_the_keys() -> None:
    apns = Apns()
    good = Behaviour(apns_keys={f"{TEAM_ID}.{KEY_ID}": public_key()})
    bad = Behaviour(apns_keys={f"{TEAM_ID}.{KEY_ID}": public_key("other")})

    assert isinstance(apns.read(request(), good, NOW), Intake)
    assert isinstance(apns.read(request(), bad, NOW), Answer)
    assert isinstance(apns.read(request(), good, NOW), Intake)
    assert isinstance(apns.read(request(), good, NOW + 3600), Answer), "it is still too old some day"


def test_new_tokens_of_a_key_come_no_more_often_than_every_20_minutes() -> None:
    apns, behaviour = Apns(), Behaviour()

    def send(iat: float, kid: str = KEY_ID) -> object:
        answer = apns.read(request(authorization=token(iat=iat, kid=kid)), behaviour, NOW)
        return answer.body if isinstance(answer, Answer) else "taken"

    assert send(NOW - 2000) == "taken"
    assert send(NOW - 1000) == b'{"reason":"TooManyProviderTokenUpdates"}'
    assert send(NOW - 1000, "KEYOTHERS0") == "taken"
    assert send(NOW - 2000) == "taken"
    assert send(NOW - 800) == "taken"
    assert send(NOW - 2000) == "taken", "the old one stays good"


def test_topics_can_be_restricted() -> None:
    assert read(request(), apns_topics=["org.example.other"]) == "TopicDisallowed"
    assert read(request(), apns_topics=["org.example.tickets"]) == "taken"


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("delivered", [(200, None)]),
        ("bad", [(400, "BadDeviceToken")]),
        ("topic", [(400, "DeviceTokenNotForTopic")]),
        ("unregistered", [(410, "Unregistered")]),
        ("expired", [(410, "ExpiredToken")]),
        ("soft", [(503, "Shutdown"), (503, "Shutdown"), (200, None)]),
        ("soft-1-x", [(503, "Shutdown"), (200, None)]),
        ("stale", [(403, "ExpiredProviderToken"), (200, None)]),
        ("updates", [(429, "TooManyProviderTokenUpdates"), (200, None)]),
        ("rate-limited", [(429, "TooManyRequests"), (200, None)]),
        ("forbidden", [(403, "InvalidProviderToken")]),
        ("disallowed", [(400, "TopicDisallowed")]),
        ("status-500", [(500, "InternalServerError")]),
        ("status-418", [(418, None)]),
        ("nonsense", [(200, None)]),
    ],
)
def test_device_tokens_that_fail_on_purpose(name: str, answers: list[tuple[int, str | None]]) -> None:
    exchange = Exchange((), Ledger(), Behaviour(), 0)
    seen = []
    for _ in answers:
        reply = exchange.handle_as(Apns(), request(f"/3/device/{device_token(name)}"), NOW)
        assert reply.answer is not None
        seen.append((reply.answer.status, orjson.loads(reply.answer.body)["reason"] if reply.answer.body else None))

    assert seen == answers
    assert exchange.ledger.effects(ID) == sum(status == 200 for status, _ in answers)


def test_a_token_of_zeros_belongs_to_no_device() -> None:
    reply = Exchange((), Ledger(), Behaviour(), 0).handle_as(Apns(), request("/3/device/" + "0" * 64), NOW)

    assert reply.answer is not None
    assert orjson.loads(reply.answer.body) == {"reason": "BadDeviceToken"}


def test_a_device_that_is_gone_tells_since_when_in_milliseconds() -> None:
    answer = Apns().refused(410, "Unregistered")

    assert 1e12 < orjson.loads(answer.body)["timestamp"] < time.time() * 1000


@pytest.mark.parametrize(
    ("document", "name"),
    [
        ({"streams_max": 0}, "streams_max"),
        ({"streams_until_accepted": "1"}, "streams_until_accepted"),
        ({"goaway_after": True}, "goaway_after"),
        ({"apns_topics": "one"}, "apns_topics"),
        ({"apns_keys": {"a": 1}}, "apns_keys"),
    ],
)
def test_a_wrong_setting_is_named(document: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        changed(Behaviour(), document)
