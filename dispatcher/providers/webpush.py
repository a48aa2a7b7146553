"""Web Push (RFC 8030, 8291, 8292): an encrypted message to the subscription of one browser.

Every browser's maker runs a service of its own and the subscription says which, so one configuration leads to many origins:
those of the known services, and those that whoever runs the dispatcher allows besides. We say who we are with a token that we
sign ourselves, one for each origin. Its ``Topic`` is the notification's id: a repetition replaces what still waits for the
browser instead of standing beside it.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Mapping
from typing import Any, Final

import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from dispatcher.audience import WEB
from dispatcher.http_message import HttpRequest, HttpResponse, Origin
from dispatcher.model import Channel, Delivery, ProviderConfig
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.problems import Problem
from dispatcher.providers.hints import retry_after_s
from dispatcher.providers.inquiry import unknown_problems
from dispatcher.providers.provider import (
    COMMON_SETTINGS,
    Limits,
    Moment,
    Provider,
    Unbindable,
    Unsendable,
    common_problems,
    invalid,
    limits_of,
    missing,
    unknown_fields,
)
from dispatcher.providers.webpush_encryption import PLAINTEXT_BYTES_MAX, NoPoint, encrypt, raw_public_key
from dispatcher.providers.webpush_errors import EXPLANATIONS, row_of
from dispatcher.subscriptions import parse_subscription

HOSTS: Final = frozenset({"fcm.googleapis.com", "jmt17.google.com", "updates.push.services.mozilla.com", "web.push.apple.com"})
DOMAINS: Final = (".push.services.mozilla.com", ".notify.windows.com")
"""Hosts of the known services, and what the names of further ones end in. All at the usual port of https."""
ORIGIN: Final = Origin("https", "web.push", 443)
"""What all push services together are called where an origin is wanted. Nobody connects to it."""
TTL_S_DEFAULT: Final = 2_419_200
"""Four weeks: what services keep a message for at least."""
TTL_S_MAX: Final = 2_592_000
"""Mozilla's takes thirty days, the others less; each shortens it by itself."""
TOKEN_GRID_S: Final = 6 * 3600
"""Tokens are made for stretches of this length, so that all requests of one have the same, and end a stretch after it: at most
12 hours ahead, where 24 are allowed."""
TOKENS_MAX: Final = 64
"""Origins whose tokens are kept; with one more all are made anew."""
URGENCIES: Final = ("very-low", "low", "normal", "high")

_SUBJECT = re.compile(r"mailto:[^\s@,;<>]{1,64}@[^\s@,;<>]{1,255}|https://[!-~]{1,512}")
_MESSAGE_ID = re.compile(rb"[!-~]{1,128}")
_SCALAR_BYTES = 32
_KNOWN_COMMON = COMMON_SETTINGS - {"base_url"}
_SETTINGS = _KNOWN_COMMON | {"on_unknown", "subject", "ttl_s", "urgency"}  # no key is sent, so there is no key_retention_s


class BoundWebPush:
    """Web Push with one VAPID key pair."""

    __slots__ = ("_headers", "_key", "_origins_extra", "_public_key", "_subject", "_tokens", "_ttl_s", "limits", "origin")

    def __init__(self, config: ProviderConfig, key: ec.EllipticCurvePrivateKey, origins_extra: Collection[str]) -> None:
        settings = config.settings
        self.origin = ORIGIN
        self.limits: Limits = limits_of(settings)
        self._key = key
        self._origins_extra = frozenset(origins_extra)
        self._public_key = urlsafe_b64encode(raw_public_key(key)).rstrip(b"=")
        self._subject: str = settings["subject"]
        self._ttl_s: int = TTL_S_DEFAULT if settings.get("ttl_s") is None else settings["ttl_s"]
        self._tokens: dict[Origin, tuple[int, bytes]] = {}
        self._headers = (
            (b"content-encoding", b"aes128gcm"),
            (b"content-type", b"application/octet-stream"),
            (b"urgency", (settings.get("urgency") or "normal").encode("ascii")),
            (b"user-agent", b"notification-dispatcher"),
        )

    def __repr__(self) -> str:
        return "<BoundWebPush>"

    def request(self, delivery: Delivery, moment: Moment) -> HttpRequest:
        """One message to one browser. Raises Unsendable for a payload or subscription that can not be served."""
        subscription = parse_subscription(delivery.recipient)
        if subscription is None:
            raise Unsendable("recipient_invalid")
        origin = subscription.origin
        if not (is_known_service(origin) or str(origin) in self._origins_extra):
            raise Unsendable("endpoint_not_allowed")
        try:
            body = encrypt(_plaintext(delivery), subscription.public_key, subscription.auth, moment.random_bytes)
        except NoPoint:
            raise Unsendable("subscription_key_invalid") from None
        ttl_s = self._ttl_s
        if delivery.expires_at_s is not None:
            ttl_s = min(ttl_s, max(0, int(delivery.expires_at_s - moment.unix_s)))
        headers = (
            (b"authorization", self._authorization(origin, moment.unix_s)),
            (b"ttl", b"%d" % ttl_s),
            (b"topic", delivery.id.replace("-", "").encode("ascii")),
            *self._headers,
        )
        return HttpRequest(origin, b"POST", subscription.target, headers, body)

    def classify(self, response: HttpResponse, now_unix_s: float) -> Outcome:
        """What a push service's answer means, by the tables."""
        if 200 <= response.status < 300:
            return Outcome(OutcomeClass.DELIVERED, "accepted", _message_id(response.header(b"location")))
        row = row_of(response.status, response.body)
        hint_s = retry_after_s(response.header(b"retry-after"), now_unix_s)
        return row.outcome() if hint_s is None else row._replace(retry_after_s=None).outcome(hint_s)

    def _authorization(self, origin: Origin, now_unix_s: float) -> bytes:
        """Who we are, for one service. The same for all requests of one stretch."""
        stretch = int(now_unix_s) // TOKEN_GRID_S
        made = self._tokens.get(origin)
        if made is not None and made[0] == stretch:
            return made[1]
        claims = {"aud": _audience(origin), "exp": (stretch + 2) * TOKEN_GRID_S, "sub": self._subject}
        token = jwt.encode(claims, self._key, "ES256").encode("ascii")
        value = b"vapid t=" + token + b", k=" + self._public_key
        if len(self._tokens) >= TOKENS_MAX:
            self._tokens.clear()
        self._tokens[origin] = stretch, value
        return value


def is_known_service(origin: Origin) -> bool:
    """Whether an origin is of a browser maker's push service."""
    is_usual = origin.scheme == "https" and origin.port == 443
    return is_usual and (origin.host in HOSTS or origin.host.endswith(DOMAINS))


def settings_problems(settings: Mapping[str, Any], origins_extra: Collection[str] = ()) -> list[Problem]:
    """What is wrong with the settings of a configuration."""
    problems = unknown_fields(settings, _SETTINGS, "/settings")
    problems += common_problems({name: settings[name] for name in _KNOWN_COMMON & settings.keys()}, origins_extra)
    problems += unknown_problems(settings, askable=False)
    subject, ttl_s = settings.get("subject"), settings.get("ttl_s")
    if subject is None:
        problems.append(missing("/settings/subject", "a mailto: or https: address at which push services find you"))
    elif not isinstance(subject, str) or _SUBJECT.fullmatch(subject) is None:
        problems.append(invalid("/settings/subject", "must be a mailto: or https: address"))
    if ttl_s is not None and not (isinstance(ttl_s, int) and not isinstance(ttl_s, bool) and 0 <= ttl_s <= TTL_S_MAX):
        problems.append(invalid("/settings/ttl_s", f"must be a whole number of seconds from 0 to {TTL_S_MAX}"))
    if settings.get("urgency") is not None and settings["urgency"] not in URGENCIES:
        problems.append(invalid("/settings/urgency", f"must be one of {', '.join(URGENCIES)}"))
    return problems


def credentials_problems(credentials: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the credentials of a configuration."""
    problems = unknown_fields(credentials, {"vapid_private_key"}, "/credentials")
    if credentials.get("vapid_private_key") is None:
        problems.append(missing("/credentials/vapid_private_key", "the private half of the key pair that pages subscribe with"))
    elif _key_of(credentials["vapid_private_key"]) is None:
        detail = "must be a private key of the curve P-256, as base64url of its 32 bytes or in PEM"
        problems.append(invalid("/credentials/vapid_private_key", detail))
    return problems


def bind(config: ProviderConfig, origins_extra: Collection[str] = ()) -> BoundWebPush:
    """Web Push with one stored configuration. Raises Unbindable when it does not pass the checks it once passed."""
    problems = settings_problems(config.settings, origins_extra) + credentials_problems(config.credentials)
    key = _key_of(config.credentials.get("vapid_private_key"))
    if problems or key is None:
        raise Unbindable(problems[0])
    return BoundWebPush(config, key, origins_extra)


WEBPUSH: Final = Provider(
    "webpush",
    frozenset({Channel.PUSH}),
    settings_problems,
    credentials_problems,
    bind,
    explanations=EXPLANATIONS,
    audience=WEB,
)


def _plaintext(delivery: Delivery) -> bytes:
    """What the page's service worker gets, as JSON."""
    title, text, data = (delivery.payload.get(name) for name in ("title", "text", "data"))
    if not isinstance(text, str) or not text:
        raise Unsendable("content_missing")
    if title is not None and not isinstance(title, str):
        raise Unsendable("content_invalid")
    document: dict[str, Any] = {"body": text, "notification_id": delivery.id}
    if title:
        document["title"] = title
    if data is not None:
        document["data"] = data
    try:
        plaintext = orjson.dumps(document)
    except orjson.JSONEncodeError:
        raise Unsendable("payload_not_unicode") from None
    if len(plaintext) > PLAINTEXT_BYTES_MAX:
        raise Unsendable("payload_too_large")
    return plaintext


def _audience(origin: Origin) -> str:
    """An origin as browsers write it: without the port that goes without saying."""
    usual = {"https": 443, "http": 80}[origin.scheme]
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return f"{origin.scheme}://{host}" + ("" if origin.port == usual else f":{origin.port}")


def _message_id(location: bytes | None) -> str | None:
    """The last part of the message's address, if it is short enough to be a name."""
    name = (location or b"").rpartition(b"/")[2]
    return name.decode("ascii") if _MESSAGE_ID.fullmatch(name) else None


def _key_of(value: object) -> ec.EllipticCurvePrivateKey | None:
    if not isinstance(value, str) or not value.isascii():
        return None
    plain = value.strip().rstrip("=")
    try:
        if "-----BEGIN" in plain:
            key = load_pem_private_key(value.encode(), None)
            return key if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1" else None
        scalar = urlsafe_b64decode(plain + "=" * (-len(plain) % 4))
        return ec.derive_private_key(int.from_bytes(scalar), ec.SECP256R1()) if len(scalar) == _SCALAR_BYTES else None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
