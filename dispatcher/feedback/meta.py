"""Reports of Meta's WhatsApp Cloud API: statuses of messages, incoming messages, and what people prefer.

The signature is over the raw bytes, with the secret of the app. No time of the call is signed, and what was not taken in comes
again for seven days, so that the same event id is taken in once is the whole defence against repetitions. One app reports about
all its numbers to one address: what is about another number than the configuration's is passed over.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from dispatcher.feedback.feedback import Feedback, FeedbackKind, WebhookReply, WebhookRequest
from dispatcher.feedback.phones import failed_as, notification_id_in, number_of, opting, query_fields, refused
from dispatcher.problems import Problem
from dispatcher.providers.meta_errors import ERRORS, STOPPED_MARKETING

SIGNATURE: Final = "x-hub-signature-256"
MARKETING: Final = "marketing"
"""The topic of those who have asked for no more marketing: it says nothing about other messages."""

STOPPED: Final = ERRORS.rows[STOPPED_MARKETING].code

_CHALLENGE = re.compile(r"[A-Za-z0-9._-]{1,256}")
_MESSAGE_ID = re.compile(r"[\x21-\x7e]{1,180}")
_REPORTED: Mapping[str, FeedbackKind] = MappingProxyType(
    {
        "sent": FeedbackKind.SENT,
        "delivered": FeedbackKind.DELIVERED,
        "read": FeedbackKind.READ,
        "played": FeedbackKind.READ,
    }
)
_PREFERENCES: Mapping[str, tuple[FeedbackKind, str]] = MappingProxyType(
    {
        "stop": (FeedbackKind.UNSUBSCRIBED, "marketing_stopped"),
        "resume": (FeedbackKind.RESUBSCRIBED, "marketing_resumed"),
    }
)


class MetaFeedback:
    """See ``feedback.FeedbackSource``. Holds nothing."""

    def read(
        self,
        request: WebhookRequest,
        settings: Mapping[str, Any],
        credentials: Mapping[str, Any],
        now_unix_s: float,
        fetched: Mapping[str, bytes],
    ) -> Sequence[Feedback] | WebhookReply | Problem:
        """A GET asks whether we are who we say; a POST carries any number of reports."""
        if request.method == "GET":
            return _challenge(request, credentials)
        secret = credentials.get("app_secret")
        if secret is None:
            return refused(403, "webhook_secret_missing", "Without the credential app_secret no report can be checked.")
        given = request.headers.get(SIGNATURE)
        if given is None:
            return refused(401, "webhook_signature_missing", "Meta signs every report; this one has no signature.")
        ours = "sha256=" + hmac.new(secret.encode(), request.body, sha256).hexdigest()
        if not hmac.compare_digest(ours.encode(), given.encode("utf-8", "replace")):
            return refused(401, "webhook_signature_wrong", "The signature does not fit: another app secret, or another body.")
        return list(_reports(request.body, settings, now_unix_s))


META_FEEDBACK: Final = MetaFeedback()


def _challenge(request: WebhookRequest, credentials: Mapping[str, Any]) -> WebhookReply | Problem:
    fields = query_fields(urlsplit(request.url).query)
    wanted, given = credentials.get("verify_token"), fields.get("hub.verify_token")
    if wanted is None:
        return refused(403, "webhook_secret_missing", "Without the credential verify_token nobody can be answered.")
    fits = given is not None and hmac.compare_digest(wanted.encode(), given.encode("utf-8", "replace"))
    challenge = fields.get("hub.challenge", "")
    if not fits or fields.get("hub.mode") != "subscribe" or _CHALLENGE.fullmatch(challenge) is None:
        return refused(403, "webhook_challenge_wrong", "The verify token is not ours, or this is no challenge.")
    return WebhookReply(200, "webhook_verified", challenge.encode())


def _reports(body: bytes, settings: Mapping[str, Any], now_unix_s: float) -> Iterator[Feedback]:
    for field, value in _changes(body, settings):
        if field == "messages":
            for status in _objects(value.get("statuses")):
                yield from _status(status, now_unix_s)
            for message in _objects(value.get("messages")):
                yield from _incoming(message, now_unix_s)
        elif field == "user_preferences":
            for preference in _objects(value.get("user_preferences")):
                yield from _preference(preference, now_unix_s)


def _changes(body: bytes, settings: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The changes that are about our number."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return
    if not isinstance(document, dict) or document.get("object") != "whatsapp_business_account":
        return
    account = settings.get("business_account_id")
    for entry in _objects(document.get("entry")):
        if account is not None and entry.get("id") != account:
            continue
        for change in _objects(entry.get("changes")):
            field, value = change.get("field"), change.get("value")
            if isinstance(field, str) and isinstance(value, dict):
                metadata = value.get("metadata")
                if isinstance(metadata, dict) and metadata.get("phone_number_id") == settings.get("phone_number_id"):
                    yield field, value


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def _status(status: Mapping[str, Any], now_unix_s: float) -> Iterator[Feedback]:
    id, state = status.get("id"), status.get("status")
    if not isinstance(id, str) or _MESSAGE_ID.fullmatch(id) is None or not isinstance(state, str):
        return
    kind, code = _REPORTED.get(state), state
    if state == "failed":
        kind, code = _failure(status.get("errors"))
    if kind is None:
        return
    at_unix_s, to = _instant(status.get("timestamp"), now_unix_s), number_of(status.get("recipient_id"))
    ours = status.get("biz_opaque_callback_data")
    notification_id = notification_id_in(ours) if isinstance(ours, str) else None
    yield Feedback(f"{id}:{state}", kind, code, at_unix_s, notification_id, id, to)
    if code == STOPPED and to is not None:
        yield Feedback(f"{id}:{state}:stopped", FeedbackKind.UNSUBSCRIBED, code, at_unix_s, recipient=to, topic=MARKETING)


def _failure(errors: object) -> tuple[FeedbackKind, str]:
    number = next((error.get("code") for error in _objects(errors)), None)
    row = ERRORS.row(number) if type(number) is int else ERRORS.other
    return failed_as(row, counts=False), "failed" if row is ERRORS.other else row.code


def _incoming(message: Mapping[str, Any], now_unix_s: float) -> Iterator[Feedback]:
    """A message of somebody to us, or a tap on a button below one of ours."""
    id, sender = message.get("id"), number_of(message.get("from"))
    text, button = message.get("text"), message.get("button")
    said = text.get("body") if isinstance(text, dict) else button.get("text") if isinstance(button, dict) else None
    meant = opting(said)
    if meant is None or sender is None or not isinstance(id, str) or _MESSAGE_ID.fullmatch(id) is None:
        return
    kind, code = meant
    yield Feedback(f"{id}:received", kind, code, _instant(message.get("timestamp"), now_unix_s), recipient=sender)


def _preference(preference: Mapping[str, Any], now_unix_s: float) -> Iterator[Feedback]:
    """Somebody has stopped a business's marketing in the app itself, or lets it go on."""
    number, value = number_of(preference.get("wa_id")), preference.get("value")
    meant = _PREFERENCES.get(value) if isinstance(value, str) else None
    if meant is None or number is None or preference.get("category") != "marketing_messages":
        return
    kind, code = meant
    at_unix_s = _instant(preference.get("timestamp"), now_unix_s)
    # Nothing but whom and when tells one such change from another; the number itself must not stand in the id.
    name = sha256(f"{number} {at_unix_s} {value}".encode()).hexdigest()[:32]
    yield Feedback(f"preference:{name}", kind, code, at_unix_s, recipient=number, topic=MARKETING)


def _instant(value: object, now_unix_s: float) -> float:
    """A time in Unix seconds, which is a text in some places and a number in others; ours when it is neither."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return float(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else now_unix_s
