"""A push service after RFC 8030, 8291 and 8292, wording its refusals as Mozilla's does.

``POST`` to a subscription's endpoint. The JWT is verified, the body is decrypted with the subscription's keys, and the ledger
keeps the plaintext: a real service could not. A body that no browser could read is refused with 400, where a real service would
take it and the browser would drop it. The notification's id is read from ``notification_id`` of a plaintext that is JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import jwt
import orjson

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.ledger import Correlation, Sent
from dispatcher_sandbox.magic import Magic, Trick
from dispatcher_sandbox.magic_token import COMMON, magic_token
from dispatcher_sandbox.messages import JSON, REASONS, Answer, Request, gateway_page
from dispatcher_sandbox.rate import Rate
from dispatcher_sandbox.simulator import Intake, Search
from dispatcher_sandbox.webpush.subscriptions import (
    BODY_BYTES_MAX,
    PREFIX,
    Undecryptable,
    decrypt,
    public_key_of,
    subscription_at,
)

LIFE_S_MAX = 86_400
CLOCK_SLACK_S = 60
_TTL = re.compile(rb"[0-9]{1,10}")
_TOPIC = re.compile(rb"[A-Za-z0-9_-]{1,32}")
_URGENCIES = frozenset({b"very-low", b"low", b"normal", b"high"})
_VAPID = re.compile(rb"vapid\s+(.+)", re.IGNORECASE)

MAGIC: Mapping[str, Magic] = MappingProxyType(
    {
        **COMMON,
        "gone": Magic(Trick.REFUSE, status=410, explanation="410: the subscription has ended"),
        "expired": Magic(Trick.REFUSE, status=404, explanation="404: no such subscription"),
        "bad": Magic(Trick.REFUSE, status=400, explanation="400: refused for a fault of the request"),
        "unauthorized": Magic(Trick.REFUSE, status=401, explanation="401: the VAPID token is not accepted"),
        "forbidden": Magic(Trick.REFUSE, status=403, explanation="403: the VAPID token is not accepted"),
        "too-large": Magic(Trick.REFUSE, status=413, explanation="413: the body is too large"),
    }
)
"""Subscriptions with these names fail on purpose."""

_NUMBERS = {400: 110, 401: 109, 403: 109, 404: 102, 410: 106, 413: 104, 500: 999, 503: 201}
_BY_FRONT_SERVER = frozenset({502, 504})


class WebPush:
    """The simulator. Holds nothing."""

    name = "webpush"
    prefix = PREFIX.encode()
    ceiling_per_s = 1_000

    def account(self, request: Request) -> bytes:
        """The server's key, as far as it is to be had."""
        return b"webpush " + request.headers.get(b"authorization", b"").rpartition(b"k=")[2]

    def read(self, request: Request, behaviour: Behaviour, now_s: float) -> Intake | Search | Answer:
        """Find the subscription, authenticate, check, decrypt."""
        subscription = subscription_at(request.path.decode("latin-1"))
        if subscription is None:
            return _refusal(404, 102)
        if request.method != b"POST":
            return _refusal(405, 999)
        headers = request.headers
        key = _authenticated(headers, now_s)
        if key is None:
            return _refusal(401, 109)
        if subscription.server_key not in (None, key):
            return _refusal(401, 109, "VAPID public key mismatch")
        if _TTL.fullmatch(headers.get(b"ttl", b"")) is None:
            return _refusal(400, 111)
        if _TOPIC.fullmatch(headers.get(b"topic", b"none")) is None:
            return _refusal(400, 113)
        if headers.get(b"urgency", b"normal") not in _URGENCIES or headers.get(b"content-encoding") != b"aes128gcm":
            return _refusal(400, 110)
        if len(request.body) > BODY_BYTES_MAX:
            return _refusal(413, 104)
        try:
            request.body = decrypt(subscription.name, request.body)
        except Undecryptable:
            return _refusal(400, 110)
        return _intake(subscription.name, request.body, behaviour.magic_recipients)

    def accepted(self, id_bits: int) -> tuple[str, Answer]:
        """201, and where the message waits."""
        message_id = f"{id_bits:032x}"
        return message_id, self.replayed(message_id)

    def replayed(self, message_id: str) -> Answer:
        """The 201 again."""
        return Answer(201, b"Location: /m/%b\r\nTTL: 60\r\n" % message_id.encode())

    def validated(self) -> Answer:
        """Never asked for: no request can ask to be checked only."""
        return Answer(201)

    def listing(self, sent: Sequence[Sent]) -> Answer:
        """A push service can not be asked what it sent."""
        return _refusal(404, 102)

    def refused(self, status: int, reason: str) -> Answer:
        """A refusal that was decided, not found."""
        return _refusal(status, _NUMBERS.get(status, 999))

    def rate_headers(self, rate: Rate) -> bytes:
        """None."""
        return b""


def _authenticated(headers: Mapping[bytes, bytes], now_s: float) -> str | None:
    """The server's key, when its token is in order."""
    match = _VAPID.fullmatch(headers.get(b"authorization", b"").strip())
    if match is None:
        return None
    pairs = (part.strip().partition(b"=") for part in match[1].split(b","))
    fields = {name.decode("latin-1"): value.decode("latin-1").strip('"') for name, _, value in pairs}
    key = public_key_of(fields.get("k", "").rstrip("="))
    host = headers.get(b"host", b"").decode("latin-1")
    if key is None:
        return None
    try:
        options = {"verify_exp": False, "verify_iat": False, "verify_aud": False, "require": ["aud", "exp"]}
        claims = jwt.decode(fields.get("t", ""), key, ["ES256"], options=options)  # type: ignore[arg-type]
        ends_at_s = float(claims["exp"])
    except (jwt.InvalidTokenError, TypeError, ValueError):
        return None
    if claims["aud"] not in (f"https://{host}", f"http://{host}"):
        return None
    if not now_s - CLOCK_SLACK_S < ends_at_s <= now_s + LIFE_S_MAX + CLOCK_SLACK_S:
        return None
    if not str(claims.get("sub", "")).startswith(("mailto:", "https:")):
        return None
    return fields["k"].rstrip("=")


def _intake(name: str, plaintext: bytes, magic_recipients: bool) -> Intake:
    id: str | None = None
    try:
        document = orjson.loads(plaintext)
        given = document.get("notification_id") if isinstance(document, dict) else None
        id = given if isinstance(given, str) else None
    except orjson.JSONDecodeError:
        pass  # a payload may be anything
    magic = magic_token(name, MAGIC) if magic_recipients else None
    return Intake((Correlation(id, None),), None, magic, "" if magic is None else id or name)


def _refusal(status: int, number: int, message: str = "") -> Answer:
    if status in _BY_FRONT_SERVER:
        return gateway_page(status)
    word = REASONS.get(status, "Gone" if status == 410 else "Error")
    headers = JSON
    if status == 429:
        headers += b"Retry-After: 1\r\n"
    elif status in (301, 307, 308):
        headers += b"Location: https://elsewhere.example/push/any/moved\r\n"
    return Answer(
        status, headers, orjson.dumps({"code": status, "errno": number, "error": word, "message": message or word.lower()})
    )
