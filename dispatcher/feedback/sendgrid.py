"""What SendGrid's event webhook tells: JSON arrays of events, signed with ECDSA over the timestamp and the raw bytes.

The account's settings page shows the public key; it stands in ``event_webhook_public_key`` of the configuration's settings. The
timestamp is the moment of the delivery, so a repetition has a new one and what is older than the replay window is refused.
Events of mails that others sent through the same account come too: they have no ids of ours, and still tell of an address.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from math import isfinite
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from dispatcher.feedback.feedback import REPLAY_WINDOW_S, Feedback, FeedbackKind, Reading, WebhookRequest
from dispatcher.ids import is_uuid
from dispatcher.model import NotificationId
from dispatcher.problems import Problem

SIGNATURE: Final = "x-twilio-email-event-webhook-signature"
TIMESTAMP: Final = "x-twilio-email-event-webhook-timestamp"
KEY_SETTING: Final = "event_webhook_public_key"


class Meaning(NamedTuple):
    """What an event is to us."""

    kind: FeedbackKind
    code: str


EVENTS: Mapping[str, Meaning | None] = MappingProxyType(
    {
        "processed": None,  # that it was taken is what the answer to the send has said
        "deferred": Meaning(FeedbackKind.DEFERRED, "deferred"),
        "delivered": Meaning(FeedbackKind.DELIVERED, "delivered"),
        "open": Meaning(FeedbackKind.READ, "opened"),
        "click": Meaning(FeedbackKind.READ, "clicked"),
        "spamreport": Meaning(FeedbackKind.COMPLAINED, "spam_report"),
        "unsubscribe": Meaning(FeedbackKind.UNSUBSCRIBED, "unsubscribed"),
        "group_unsubscribe": Meaning(FeedbackKind.UNSUBSCRIBED, "group_unsubscribed"),
        "group_resubscribe": Meaning(FeedbackKind.RESUBSCRIBED, "group_resubscribed"),
        # Events of the account, not of a message.
        "account_status_change": None,
    }
)
"""Events that always mean the same. ``bounce`` and ``dropped`` have tables of their own."""

BOUNCES: Mapping[str, Meaning] = MappingProxyType(
    {
        "bounce": Meaning(FeedbackKind.BOUNCED, "bounced"),
        "blocked": Meaning(FeedbackKind.REFUSED, "blocked"),  # reputation, policy, DNS: the address is as good as before
    }
)
"""A bounce by its ``type``."""
BOUNCE_DEFAULT: Final = Meaning(FeedbackKind.REFUSED, "bounce_unclear")
"""A type we do not know suppresses nobody."""

CLASSIFICATIONS: Mapping[tuple[str, str], Meaning] = MappingProxyType(
    {
        ("blocked", "mailbox unavailable"): Meaning(FeedbackKind.SOFT_BOUNCED, "mailbox_unavailable"),
        ("blocked", "content"): Meaning(FeedbackKind.REFUSED, "content_blocked"),
        ("blocked", "reputation"): Meaning(FeedbackKind.REFUSED, "reputation_blocked"),
        ("blocked", "frequency or volume too high"): Meaning(FeedbackKind.REFUSED, "volume_blocked"),
        ("blocked", "technical"): Meaning(FeedbackKind.SOFT_BOUNCED, "technical_failure"),
        ("bounce", "invalid address"): Meaning(FeedbackKind.BOUNCED, "address_invalid"),
    }
)
"""More exactly, by type and ``bounce_classification`` in small letters, where the event has one."""
MAILBOX_FULL: Final = Meaning(FeedbackKind.SOFT_BOUNCED, "mailbox_full")
"""A bounce of either type whose enhanced status says so: 4.2.2 and 5.2.2."""

DROPS: tuple[tuple[str, Meaning], ...] = (
    ("bounced address", Meaning(FeedbackKind.BOUNCED, "dropped_bounced")),
    ("unsubscribed address", Meaning(FeedbackKind.UNSUBSCRIBED, "dropped_unsubscribed")),
    ("spam reporting address", Meaning(FeedbackKind.COMPLAINED, "dropped_spam_report")),
    ("invalid smtpapi header", Meaning(FeedbackKind.REFUSED, "dropped_header")),
    ("invalid", Meaning(FeedbackKind.INVALID, "dropped_invalid")),
    ("spam content", Meaning(FeedbackKind.REFUSED, "dropped_content")),
    ("recipient list over package quota", Meaning(FeedbackKind.REFUSED, "dropped_quota")),
)
"""A drop by the beginning of its ``reason``, in small letters; the first that fits."""
DROP_DEFAULT: Final = Meaning(FeedbackKind.REFUSED, "dropped")

UNIX_S_END: Final = 1e10
"""Seconds have ten digits. A year beyond 9999, which milliseconds would be, could be stored and never be shown."""

_EVENT_ID = re.compile(r"[!-~]{1,100}")
_MAILBOX_FULL = re.compile(r"[45]\.2\.2")


class SendGridFeedback:
    """Holds nothing; keys are remembered in the form they are used in."""

    def read(
        self,
        request: WebhookRequest,
        settings: Mapping[str, Any],
        credentials: Mapping[str, Any],
        now_unix_s: float,
        fetched: Mapping[str, bytes],
    ) -> Reading | Problem:
        """The events of one call. Never raises."""
        public_key = settings.get(KEY_SETTING)
        if not isinstance(public_key, str):
            return _refused("webhook_not_set_up", f"The configuration has no {KEY_SETTING}, so nothing can be checked.")
        key = public_key_of(public_key)
        if key is None or not _is_signed(request, key):
            return _refused("signature_invalid", "The signature does not fit the body and the key of this configuration.")
        if not _is_recent(request.headers.get(TIMESTAMP, ""), now_unix_s):
            return _refused("signature_too_old", "The signed time is too far from now: a replay, or a clock that is wrong.")
        try:
            events = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            return _refused("body_invalid", "What is signed is not JSON.")
        if not isinstance(events, list):
            events = [events]
        return [report for event in events if isinstance(event, dict) and (report := _feedback(event)) is not None]


@lru_cache(maxsize=4096)
def public_key_of(text: str) -> ec.EllipticCurvePublicKey | None:
    """The key as SendGrid shows it, base64 of its DER form; None when it is no key of the curve P-256."""
    with suppress(ValueError, TypeError):
        key = load_der_public_key(base64.b64decode(text, validate=True))
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
            return key
    return None


def _is_signed(request: WebhookRequest, key: ec.EllipticCurvePublicKey) -> bool:
    timestamp = request.headers.get(TIMESTAMP, "").encode("latin-1", "replace")
    try:
        signature = base64.b64decode(request.headers.get(SIGNATURE, ""), validate=True)
        key.verify(signature, timestamp + request.body, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _is_recent(timestamp: str, now_unix_s: float) -> bool:
    is_time = timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12
    return is_time and abs(int(timestamp) - now_unix_s) <= REPLAY_WINDOW_S


def _feedback(event: Mapping[str, Any]) -> Feedback | None:
    """One event; None for one that means nothing to us, or is not what it should be."""
    meaning = meaning_of(event)
    event_id, at_unix_s = event.get("sg_event_id"), event.get("timestamp")
    if meaning is None or not isinstance(event_id, str) or _EVENT_ID.fullmatch(event_id) is None:
        return None
    if not isinstance(at_unix_s, int | float) or isinstance(at_unix_s, bool) or not isfinite(at_unix_s):
        return None
    if not 0 <= at_unix_s < UNIX_S_END:
        return None
    notification_id, message_id, recipient = event.get("notification_id"), event.get("sg_message_id"), event.get("email")
    is_ours = isinstance(notification_id, str) and is_uuid(notification_id)
    is_grouped = meaning.code.startswith("group_")
    return Feedback(
        event_id,
        meaning.kind,
        meaning.code,
        float(at_unix_s),
        NotificationId(str(notification_id)) if is_ours else None,
        _request_id(message_id),
        recipient if isinstance(recipient, str) and 0 < len(recipient) <= 320 and "\0" not in recipient else None,
        str(event.get("asm_group_id"))[:64] if is_grouped else None,
    )


def meaning_of(event: Mapping[str, Any]) -> Meaning | None:
    """What an event means, by the tables above."""
    name = event.get("event")
    if name == "bounce":
        return _bounce(event)
    if name == "dropped":
        reason = _lower(event.get("reason"))
        return next((meaning for beginning, meaning in DROPS if reason.startswith(beginning)), DROP_DEFAULT)
    return EVENTS.get(name) if isinstance(name, str) else None


def _bounce(event: Mapping[str, Any]) -> Meaning:
    if _MAILBOX_FULL.match(_lower(event.get("status"))) is not None:
        return MAILBOX_FULL
    kind = _lower(event.get("type")) or "bounce"
    exact = CLASSIFICATIONS.get((kind, _lower(event.get("bounce_classification"))))
    return exact or BOUNCES.get(kind, BOUNCE_DEFAULT)


def _request_id(message_id: object) -> str | None:
    """Our id of the request: what stands before the first dot. That of an asynchronous bounce may be missing."""
    if not isinstance(message_id, str) or not message_id.isascii() or not message_id.isprintable():
        return None
    return message_id.partition(".")[0][:128] or None


def _lower(value: object) -> str:
    return value.strip().lower() if isinstance(value, str) else ""


def _refused(code: str, detail: str) -> Problem:
    return Problem(403, code, "The report can not be trusted", detail)


SENDGRID_FEEDBACK: Final = SendGridFeedback()
