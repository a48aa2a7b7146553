"""Apple's push service as a simulator: ``POST /3/device/{token}``, its checks in Apple's order, and its reasons.

The notification's id is ``apns-id``. Device tokens are hexadecimal, so a token that fails on purpose spells its trick in
hexadecimal, see :func:`device_token`; a token of zeros belongs to no device.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import orjson

from dispatcher_sandbox.apns.tokens import ProviderTokens
from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.ledger import Correlation, Sent
from dispatcher_sandbox.magic import Magic, Trick
from dispatcher_sandbox.magic_token import COMMON, PREFIX, magic_token
from dispatcher_sandbox.messages import JSON, Answer, Request
from dispatcher_sandbox.rate import Rate
from dispatcher_sandbox.simulator import Intake, Search

PAYLOAD_BYTES_MAX = 4096
VOIP_BYTES_MAX = 5120
GONE_SINCE_MS = 1_600_000_000_000
"""When the tokens that are gone were last found to be."""
PUSH_TYPES = frozenset(
    {"alert", "background", "location", "voip", "complication", "fileprovider", "mdm", "liveactivity", "pushtotalk"}
    | {"widgets", "controls"}
)
_PATH = re.compile(r"/3/device/([0-9a-fA-F]{64,200})")
_TOPIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,254}")
_NUMBER = re.compile(r"[0-9]{1,10}")

_MALFORMED = (
    "BadDeviceToken", "DeviceTokenNotForTopic", "BadCollapseId", "BadExpirationDate", "BadMessageId", "BadPriority", "BadTopic",
    "MissingTopic", "TopicDisallowed", "InvalidPushType", "MissingDeviceToken", "PayloadEmpty",
)  # fmt: skip
_STATUSES: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(_MALFORMED, 400),
        **dict.fromkeys(("ExpiredProviderToken", "InvalidProviderToken", "MissingProviderToken"), 403),
        "BadPath": 404,
        "MethodNotAllowed": 405,
        "Unregistered": 410,
        "ExpiredToken": 410,
        "PayloadTooLarge": 413,
        "TooManyRequests": 429,
        "TooManyProviderTokenUpdates": 429,
        "InternalServerError": 500,
        "ServiceUnavailable": 503,
        "Shutdown": 503,
    }
)
_BY_STATUS: Mapping[int, str] = MappingProxyType(
    {
        400: "BadDeviceToken",
        403: "InvalidProviderToken",
        404: "BadPath",
        405: "MethodNotAllowed",
        410: "Unregistered",
        413: "PayloadTooLarge",
        429: "TooManyRequests",
        500: "InternalServerError",
        503: "ServiceUnavailable",
    }
)

MAGIC: Mapping[str, Magic] = MappingProxyType(
    {
        **COMMON,
        "bad": Magic(Trick.REFUSE, status=400, reason="BadDeviceToken", explanation="400: no such device"),
        "topic": Magic(Trick.REFUSE, status=400, reason="DeviceTokenNotForTopic", explanation="400: a device of another app"),
        "unregistered": Magic(Trick.REFUSE, status=410, reason="Unregistered", explanation="410: the app is gone"),
        "expired": Magic(Trick.REFUSE, status=410, reason="ExpiredToken", explanation="410: the token has expired"),
        "soft": Magic(Trick.REFUSE, 2, 503, "Shutdown", explanation="503 Shutdown the first 2 times, then accepted"),
        "stale": Magic(Trick.REFUSE, 1, 403, "ExpiredProviderToken", explanation="403: the provider token is too old, once"),
        "updates": Magic(Trick.REFUSE, 1, 429, "TooManyProviderTokenUpdates", explanation="429 for the key, once"),
        "forbidden": Magic(Trick.REFUSE, status=403, reason="InvalidProviderToken", explanation="403: the key is revoked"),
        "disallowed": Magic(Trick.REFUSE, status=400, reason="TopicDisallowed", explanation="400: not this key's topic"),
    }
)
"""Device tokens that spell these names fail on purpose."""
_NO_DEVICE = Magic(Trick.REFUSE, status=400, reason="BadDeviceToken")


def device_token(name: str) -> str:
    """The device token that spells a trick: ``sandbox-`` and the name, as hexadecimal, filled up with zeros."""
    return (PREFIX + name).encode().hex().ljust(64, "0")


class Apns:
    """The simulator. Remembers provider tokens only."""

    name = "apns"
    prefix = b"/3/"
    ceiling_per_s = 100_000
    """Apple tells no figure."""

    def __init__(self) -> None:
        self._tokens = ProviderTokens()

    def account(self, request: Request) -> bytes:
        """The provider token."""
        return request.headers.get(b"authorization", b"")

    def read(self, request: Request, behaviour: Behaviour, now_s: float) -> Intake | Search | Answer:
        """Check a request in Apple's order."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.items()}
        message_id = headers.get("apns-id")
        if message_id is not None and not _is_uuid(message_id):
            return _refusal("BadMessageId")
        if request.method != b"POST":
            return _refusal("MethodNotAllowed")
        reason = _header_fault(headers, behaviour)
        if reason is not None:
            return _refusal(reason)
        target = request.target.decode("latin-1")
        if not target.startswith("/3/device"):
            return _refusal("BadPath")
        if target in ("/3/device", "/3/device/"):
            return _refusal("MissingDeviceToken")
        match = _PATH.fullmatch(target)
        if match is None or len(match[1]) % 2:
            return _refusal("BadDeviceToken")
        reason = self._tokens.refusal(request.headers.get(b"authorization", b""), behaviour.apns_keys, now_s)
        if reason is None:
            reason = _payload_fault(request.body, headers.get("apns-push-type", "alert"))
        if reason is not None:
            return _refusal(reason)
        device = match[1].lower()
        magic = _magic(device) if behaviour.magic_recipients else None
        correlation = Correlation(None if message_id is None else message_id.lower(), None)
        name = "" if magic is None else correlation.notification_id or device
        return Intake((correlation,), None, magic, name)

    def accepted(self, id_bits: int) -> tuple[str, Answer]:
        """200 without a body. A request with an ``apns-id`` of its own gets that one back, by its way in."""
        message_id = str(uuid.UUID(int=id_bits, version=4))
        return message_id, self.replayed(message_id)

    def replayed(self, message_id: str) -> Answer:
        """The 200 again."""
        return Answer(200, b"apns-id: %b\r\n" % message_id.encode())

    def validated(self) -> Answer:
        """Apple validates nothing without sending it."""
        return Answer(200)

    def listing(self, sent: Sequence[Sent]) -> Answer:
        """Apple can not be asked what it sent."""
        return _refusal("BadPath")

    def refused(self, status: int, reason: str) -> Answer:
        """A refusal that was decided, not found."""
        if reason in _STATUSES:
            return _refusal(reason)
        return _refusal(_BY_STATUS[status]) if status in _BY_STATUS else Answer(status)

    def rate_headers(self, rate: Rate) -> bytes:
        """None: Apple tells no limits."""
        return b""


def _header_fault(headers: Mapping[str, str], behaviour: Behaviour) -> str | None:
    topic, push_type, priority = headers.get("apns-topic"), headers.get("apns-push-type", "alert"), headers.get("apns-priority")
    if not topic:
        return "MissingTopic"
    if _TOPIC.fullmatch(topic) is None:
        return "BadTopic"
    if behaviour.apns_topics and topic not in behaviour.apns_topics:
        return "TopicDisallowed"
    if len(headers.get("apns-collapse-id", "").encode("latin-1")) > 64:
        return "BadCollapseId"
    if priority not in (None, "10", "5", "1") or (push_type == "background" and priority == "10"):
        return "BadPriority"
    if "apns-expiration" in headers and _NUMBER.fullmatch(headers["apns-expiration"]) is None:
        return "BadExpirationDate"
    return None if push_type in PUSH_TYPES else "InvalidPushType"


def _payload_fault(body: bytes, push_type: str) -> str | None:
    if not body:
        return "PayloadEmpty"
    if len(body) > (VOIP_BYTES_MAX if push_type == "voip" else PAYLOAD_BYTES_MAX):
        return "PayloadTooLarge"
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "PayloadEmpty"
    return None if isinstance(document, dict) and isinstance(document.get("aps"), dict) else "PayloadEmpty"


def _magic(device: str) -> Magic | None:
    if not device.strip("0"):
        return _NO_DEVICE
    text = bytes.fromhex(device).rstrip(b"\0")
    return magic_token(text.decode("ascii"), MAGIC) if text.isascii() else None


def _refusal(reason: str) -> Answer:
    document: dict[str, Any] = {"reason": reason}
    if reason in ("Unregistered", "ExpiredToken"):
        document["timestamp"] = GONE_SINCE_MS
    return Answer(_STATUSES[reason], JSON, orjson.dumps(document))


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
