"""The simulated push service refuses what a real one refuses, and reads what a browser would."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import http_ece
import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.exchange import Exchange
from dispatcher_sandbox.ledger import Ledger
from dispatcher_sandbox.messages import Answer, Request
from dispatcher_sandbox.simulators import SIMULATORS
from dispatcher_sandbox.webpush import subscription
from push_accounts import VAPID_PRIVATE_KEY, VAPID_PUBLIC_KEY, raw

NOW = 1_800_000_000.0
ORIGIN = "http://127.0.0.1:8025"
PLAINTEXT = b'{"body":"Hello","notification_id":"n-1"}'
KEY = ec.derive_private_key(int.from_bytes(raw(VAPID_PRIVATE_KEY)), ec.SECP256R1())


@pytest.fixture
def exchange() -> Exchange:
    return Exchange(SIMULATORS, Ledger(), Behaviour(), 0)


def answer(exchange: Exchange, request: Request) -> tuple[int, int | None]:
    """Status, and Mozilla's number of a refusal."""
    reply = exchange.handle(request, NOW)
    assert isinstance(reply.answer, Answer)
    return reply.answer.status, orjson.loads(reply.answer.body)["errno"] if reply.answer.body else None


def authorization(key: ec.EllipticCurvePrivateKey = KEY, k: str = VAPID_PUBLIC_KEY, **claims: Any) -> bytes:
    said = {"aud": ORIGIN, "exp": NOW + 3600, "sub": "mailto:ops@hall.example", **claims}
    token = jwt.encode({name: value for name, value in said.items() if value is not None}, key, "ES256")
    return f"vapid t={token}, k={k}".encode()


def sealed(name: str = "firefox", plaintext: bytes = PLAINTEXT, **options: Any) -> bytes:
    keys = subscription(ORIGIN, name)["keys"]
    sender = ec.generate_private_key(ec.SECP256R1())
    body: bytes = http_ece.encrypt(
        plaintext, salt=os.urandom(16), private_key=sender, dh=raw(keys["p256dh"]), auth_secret=raw(keys["auth"]), **options
    )
    return body


def posting(
    name: str = "firefox", server_key: str | None = VAPID_PUBLIC_KEY, body: bytes | None = None, **headers: bytes | None
) -> Request:
    """A correct request but for these headers; None takes one away."""
    given: dict[str, bytes | None] = {
        "host": b"127.0.0.1:8025",
        "authorization": authorization(),
        "ttl": b"60",
        "content_encoding": b"aes128gcm",
        **headers,
    }
    target = urlsplit(subscription(ORIGIN, name, server_key)["endpoint"]).path.encode()
    sent = {field.replace("_", "-").encode(): value for field, value in given.items() if value is not None}
    return Request(b"POST", target, sent, sealed(name) if body is None else body)


@pytest.mark.parametrize("server_key", [VAPID_PUBLIC_KEY, None])
def test_a_message_is_taken_read_and_written_down(exchange: Exchange, server_key: str | None) -> None:
    assert answer(exchange, posting(server_key=server_key, topic=b"a" * 32, urgency=b"high")) == (201, None)
    assert exchange.ledger.recent[-1].body == PLAINTEXT
    assert exchange.ledger.effects("n-1") == 1


@pytest.mark.parametrize("plaintext", [b"Hello", b"[1]", b'{"notification_id":7}', b"x" * 3993])
def test_a_message_may_say_anything(exchange: Exchange, plaintext: bytes) -> None:
    assert answer(exchange, posting(body=sealed(plaintext=plaintext))) == (201, None)
    assert exchange.ledger.recent[-1].body == plaintext


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"authorization": None}, (401, 109)),
        ({"authorization": b"Bearer x"}, (401, 109)),
        ({"authorization": b"vapid t=x,k=y"}, (401, 109)),
        ({"authorization": authorization(ec.generate_private_key(ec.SECP256R1()))}, (401, 109)),
        ({"authorization": authorization(aud="https://elsewhere.example")}, (401, 109)),
        ({"authorization": authorization(exp=NOW - 3600)}, (401, 109)),
        ({"authorization": authorization(exp=NOW + 2 * 86_400)}, (401, 109)),
        ({"authorization": authorization(exp=None)}, (401, 109)),
        ({"authorization": authorization(sub=None)}, (401, 109)),
        ({"authorization": authorization(sub="ops@hall.example")}, (401, 109)),
        ({"ttl": None}, (400, 111)),
        ({"ttl": b"soon"}, (400, 111)),
        ({"topic": b"a" * 33}, (400, 113)),
        ({"topic": b"a b"}, (400, 113)),
        ({"urgency": b"urgent"}, (400, 110)),
        ({"content_encoding": b"aesgcm"}, (400, 110)),
        ({"content_encoding": None}, (400, 110)),
    ],
)
def test_a_request_against_the_rules_is_refused(exchange: Exchange, headers: Any, expected: tuple[int, int]) -> None:
    assert answer(exchange, posting(**headers)) == expected
    assert exchange.ledger.accepted == 0


def test_a_subscription_takes_messages_of_its_own_server_only(exchange: Exchange) -> None:
    other = subscription(ORIGIN, "x")["keys"]["p256dh"]

    assert answer(exchange, posting(server_key=other)) == (401, 109)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x" * 120,
        sealed("somebody-else"),
        sealed()[:-1],
        sealed(plaintext=b"x" * 3000, rs=1000),
    ],
    ids=["none", "noise", "for another", "cut", "two records"],
)
def test_what_no_browser_could_read_is_refused(exchange: Exchange, body: bytes) -> None:
    assert answer(exchange, posting(body=body)) == (400, 110)


def test_a_body_above_4096_bytes_is_too_large(exchange: Exchange) -> None:
    assert answer(exchange, posting(body=b"x" * 4097)) == (413, 104)


@pytest.mark.parametrize("target", [b"/push/any", b"/push/any/a/b", b"/push/short/a", b"/push/any/" + b"a" * 129])
def test_another_path_is_no_subscription(exchange: Exchange, target: bytes) -> None:
    assert answer(exchange, Request(b"POST", target, {}, b"")) == (404, 102)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gone", (410, 106)),
        ("expired", (404, 102)),
        ("bad", (400, 110)),
        ("unauthorized", (401, 109)),
        ("forbidden", (403, 109)),
        ("too-large", (413, 104)),
        ("rate-limited", (429, 999)),
        ("soft-1", (503, 201)),
        ("status-307", (307, 999)),
    ],
)
def test_a_subscription_with_a_name_fails_on_purpose(exchange: Exchange, name: str, expected: tuple[int, int]) -> None:
    assert answer(exchange, posting(f"sandbox-{name}-more")) == expected


@pytest.mark.parametrize(("name", "key"), [("", None), ("a/b", None), ("a b", None), ("a", "short")])
def test_a_subscription_has_a_name_and_a_key_of_the_right_form(name: str, key: str | None) -> None:
    with pytest.raises(ValueError, match="a name has"):
        subscription(ORIGIN, name, key)
