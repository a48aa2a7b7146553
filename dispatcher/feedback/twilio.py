"""Twilio's status callbacks and incoming messages, for texts and WhatsApp alike.

Twilio signs the URL and every field of a form, or the URL and through its query the hash of another body. It signs no time, so
there is no window outside of which a repetition is refused. What is told again under the same event id counts as told once, at
the time of its first coming; that is the whole defence. So a report is given an instant that its repetitions share: that of the
notification's id, the day, or for what somebody wrote to us one that is never forgotten.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha1, sha256
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import orjson

from dispatcher.feedback.feedback import KEPT_FOR_EVER_UNIX_S, Feedback, FeedbackKind, WebhookRequest
from dispatcher.feedback.phones import failed_as, notification_id_in, number_of, opting, query_fields, refused
from dispatcher.model import NotificationId
from dispatcher.problems import Problem
from dispatcher.providers.twilio_errors import BLOCKED_BY_RECIPIENT, ERRORS, OPTED_OUT, SOFT_BOUNCES

SIGNATURE: Final = "x-twilio-signature"
SIGNATURE_SETTINGS: Final = "x-twilio-webhooks-signature-settings"
"""There when an account signs with a key of its own: ``key=…,algorithm=HMAC_SHA256``."""
FORM: Final = "application/x-www-form-urlencoded"
FIELDS_MAX: Final = 500
DAY_S: Final = 86_400.0

_HASHES = MappingProxyType({"HMAC_SHA1": sha1, "HMAC_SHA256": sha256})
_PORTS = {"http": 80, "https": 443}
_SID = re.compile(r"[A-Z]{2}[0-9a-f]{32}")
_REPORTED: Mapping[str, FeedbackKind] = MappingProxyType(
    {"sent": FeedbackKind.SENT, "delivered": FeedbackKind.DELIVERED, "read": FeedbackKind.READ}
)
_FAILED = frozenset({"failed", "undelivered", "canceled"})
_OPT_OUT_TYPES: Mapping[str, tuple[FeedbackKind, str]] = MappingProxyType(
    {"STOP": (FeedbackKind.UNSUBSCRIBED, "stop_received"), "START": (FeedbackKind.RESUBSCRIBED, "start_received")}
)


class TwilioFeedback:
    """See ``feedback.FeedbackSource``. Holds nothing."""

    def read(
        self,
        request: WebhookRequest,
        settings: Mapping[str, Any],
        credentials: Mapping[str, Any],
        now_unix_s: float,
        fetched: Mapping[str, bytes],
    ) -> Sequence[Feedback] | Problem:
        """One callback tells of one message."""
        fields = _fields(request)
        if isinstance(fields, Problem):
            return fields
        problem = _unsigned(request, fields, settings, credentials)
        if problem is not None:
            return problem
        told = dict(fields if _is_form(request) else _flat(request.body))
        account = told.get("AccountSid")
        if account is not None and account != credentials.get("account_sid"):
            return refused(403, "webhook_of_another_account", "The report is about another Twilio account.")
        if "MessageStatus" in told:
            return _status(told, notification_id_in(urlsplit(request.url).query), round(now_unix_s, 3))
        return _incoming(told, round(now_unix_s, 3))


TWILIO_FEEDBACK: Final = TwilioFeedback()


def signature(secret: str, url: str, fields: Sequence[tuple[str, str]], algorithm: str = "HMAC_SHA1") -> bytes:
    """What Twilio writes into its header: over the URL and, in order of their names, all fields; equal ones once."""
    written = url + "".join(name + value for name, value in sorted(set(fields)))
    return b64encode(hmac.new(secret.encode(), written.encode("utf-8", "replace"), _HASHES[algorithm]).digest())


def _unsigned(
    request: WebhookRequest, fields: Sequence[tuple[str, str]], settings: Mapping[str, Any], credentials: Mapping[str, Any]
) -> Problem | None:
    """Why a request is not from Twilio, as far as anybody can tell."""
    given = request.headers.get(SIGNATURE)
    if given is None:
        return refused(401, "webhook_signature_missing", "Twilio signs every report; this one has no signature.")
    chosen = dict(part.strip().partition("=")[::2] for part in request.headers.get(SIGNATURE_SETTINGS, "").split(","))
    algorithm = (chosen.get("algorithm") or "HMAC_SHA1").upper()
    # A header says which of two secrets to try, and nothing else: neither of them is weaker for it.
    secret = credentials.get("webhook_key" if chosen.get("key") else "auth_token")
    if algorithm not in _HASHES:
        return refused(401, "webhook_signature_unknown", "The report is signed in a way that is not known here.")
    if secret is None:
        name = "webhook_key" if chosen.get("key") else "auth_token"
        return refused(403, "webhook_secret_missing", f"Without the credential {name} no report can be checked.")
    if not _is_form(request) and request.body:
        # Fields of a body that is no form are not signed themselves: a hash in the signed URL stands for them.
        claimed = query_fields(urlsplit(request.url).query).get("bodySHA256", "")
        if not _same(sha256(request.body).hexdigest().encode(), claimed):
            return refused(401, "webhook_signature_wrong", "The body is not the one that was signed.")
    urls = _spellings(request.url) + _spellings(_as_given(request.url, settings.get("status_callback_url")))
    if not any(_same(signature(secret, url, fields, algorithm), given) for url in dict.fromkeys(urls)):
        return refused(401, "webhook_signature_wrong", "The signature does not fit: another auth token, or another URL.")
    return None


def _as_given(seen: str, url: object) -> str:
    """The URL that Twilio was given: behind a proxy it looks different from here, but for its query."""
    if not isinstance(url, str):
        return seen
    query = seen.partition("#")[0].partition("?")[2]
    return url.partition("?")[0] + ("?" + query if query else "")


def _spellings(url: str) -> list[str]:
    """A URL with and without its default port: which of them Twilio has signed can not be told. A fragment it never signs."""
    try:
        plain = url.partition("#")[0]
        parts = urlsplit(plain)
        port = parts.port
    except ValueError:
        return []
    bare = parts.netloc if port is None else parts.netloc.rpartition(":")[0]
    with_port = f"{bare}:{port or _PORTS.get(parts.scheme, 80)}"
    return [plain, *(parts._replace(netloc=netloc).geturl() for netloc in (bare, with_port))]


def _same(ours: bytes, given: str) -> bool:
    return hmac.compare_digest(ours, given.encode("utf-8", "replace"))


def _is_form(request: WebhookRequest) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM


def _fields(request: WebhookRequest) -> Sequence[tuple[str, str]] | Problem:
    """What is signed of a body, in the order it came in."""
    if not _is_form(request):
        return ()
    try:
        return parse_qsl(request.body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError:
        return refused(401, "webhook_signature_wrong", "The body is no form.")


def _flat(body: bytes) -> Mapping[str, str]:
    """The texts of a JSON object."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return {name: value for name, value in document.items() if isinstance(value, str)} if isinstance(document, dict) else {}


def _status(told: Mapping[str, str], notification_id: NotificationId | None, now_unix_s: float) -> Sequence[Feedback]:
    sid, state = told.get("MessageSid", ""), told["MessageStatus"]
    kind, code = _REPORTED.get(state), state
    if _SID.fullmatch(sid) is None or (kind is None and state not in _FAILED):
        return ()
    if kind is None:
        kind, code = _failure(told.get("ErrorCode", ""), state)
    key_unix_s = now_unix_s // DAY_S * DAY_S if notification_id is None else _made_unix_s(notification_id)
    about = (now_unix_s, notification_id, sid, number_of(told.get("To")))
    found = [Feedback(f"{sid}:{state}", kind, code, *about, key_unix_s=key_unix_s)]
    if kind is FeedbackKind.UNSUBSCRIBED:  # which says nothing of the message: it has not arrived
        found.append(Feedback(f"{sid}:{state}:message", FeedbackKind.REFUSED, code, *about, key_unix_s=key_unix_s))
    return found


def _made_unix_s(id: NotificationId) -> float:
    """When a notification was accepted, which its id begins with, in milliseconds."""
    return int(id[:8] + id[9:13], 16) / 1000


def _failure(error_code: str, state: str) -> tuple[FeedbackKind, str]:
    number = int(error_code) if error_code.isascii() and error_code.isdecimal() and len(error_code) <= 6 else 0
    row = ERRORS.row(number)
    if row is ERRORS.other:
        return FeedbackKind.REFUSED, state
    if number == OPTED_OUT or number in BLOCKED_BY_RECIPIENT:
        return FeedbackKind.UNSUBSCRIBED, row.code
    return failed_as(row, number in SOFT_BOUNCES), row.code


def _incoming(told: Mapping[str, str], now_unix_s: float) -> Sequence[Feedback]:
    """A message of somebody to us. With Twilio's own handling of opting out switched on, it says itself what it made of it."""
    sid, sender = told.get("MessageSid", ""), number_of(told.get("From"))
    meant = _OPT_OUT_TYPES.get(told.get("OptOutType", "")) or opting(told.get("Body"))
    if meant is None or sender is None or _SID.fullmatch(sid) is None:
        return ()
    kind, code = meant
    return [Feedback(f"{sid}:received", kind, code, now_unix_s, recipient=sender, key_unix_s=KEPT_FOR_EVER_UNIX_S)]
