"""Email through SendGrid's v3 ``mail/send``.

One request carries one notification, or as many as ``batch_max`` says, see :mod:`~dispatcher.providers.sendgrid_batch`. SendGrid
knows no idempotency keys. The ``idempotency-key`` header is sent nevertheless with a single one, always the notification's id:
SendGrid ignores it, while a gateway in front of it, or the sandbox, may honour it. A batch has none, because the next one never
carries the same set. The ids in ``custom_args`` come back with every delivery event, and the email activity of the account can be
searched for them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote

import orjson

from dispatcher.feedback.sendgrid import KEY_SETTING, SENDGRID_FEEDBACK, public_key_of
from dispatcher.http_message import Headers, HttpRequest, HttpResponse, Origin
from dispatcher.model import Channel, Delivery, ProviderConfig
from dispatcher.origins import BaseUrl
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.problems import Problem
from dispatcher.providers import sendgrid_batch
from dispatcher.providers.batching import Part
from dispatcher.providers.hints import hint_s
from dispatcher.providers.inquiry import UNKNOWN_SETTINGS, Answer, CannotTell, Found, NotFound, unknown_problems
from dispatcher.providers.probing import Probed
from dispatcher.providers.provider import (
    COMMON_SETTINGS,
    Limits,
    Moment,
    Provider,
    Unbindable,
    Unsendable,
    base_url_of,
    common_problems,
    invalid,
    limits_of,
    missing,
    unknown_fields,
)
from dispatcher.providers.sendgrid_content import checked_extras, content_of, extras_written
from dispatcher.providers.sendgrid_errors import (
    CREDITS_EXCEEDED,
    ERROR_BODY_BYTES_MAX,
    EXPLANATIONS,
    STATUSES,
    row_of_refusal,
)

HOSTS: Final = (Origin("https", "api.sendgrid.com", 443), Origin("https", "api.eu.sendgrid.com", 443))
"""SendGrid's own hosts; the first is the default."""
SEND_PATH: Final = "/v3/mail/send"
ACTIVITY_PATH: Final = "/v3/messages"
"""Email activity: an add-on to an account, and a permission of the key. 403 without them."""
INQUIRY_LAG_S: Final = 300.0
"""How long a mail may be missing from the activity. SendGrid promises no bound; its users see it there within a minute or two."""

_MESSAGE_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_API_KEY = re.compile(r"[\x21-\x7e]{1,512}")
_ADDRESS = re.compile(r"[^\s@\x00-\x1f\x7f<>,;]{1,64}@[^\s@\x00-\x1f\x7f<>,;]{1,255}")
_NAME = re.compile(r"[^\x00-\x1f\x7f;,\u2028\u2029]{1,255}")
_LINE_BREAK = re.compile(r"[\r\n\x00\x0b\x0c\x85\u2028\u2029]")
_SETTINGS = (
    COMMON_SETTINGS
    | UNKNOWN_SETTINGS
    | {"from_email", "from_name", "reply_to", "categories", "sandbox_mode", "batch_max"}
    | {KEY_SETTING}
)
_PROBE_WORDS = (
    "SendGrid accepts the key, the region and the settings; the trial mail was checked and not sent. "
    "Whether the sender is verified shows with the first real mail."
)
_PROBE_SENT_WORDS = (
    "Whatever answers at base_url took the trial mail, which was addressed to from_email, without checking it only: "
    "SendGrid's sandbox mode is not honoured there."
)


class BoundSendGrid:
    """SendGrid with one configuration. Everything that does not change from mail to mail is rendered here, once."""

    __slots__ = (
        "_activity", "_after_recipient", "_before_id", "_constant", "_headers", "_personalization", "_sender", "_target",
        "batch_max", "limits", "origin",
    )  # fmt: skip

    def __init__(self, config: ProviderConfig) -> None:
        settings = config.settings
        base = base_url_of(settings, BaseUrl(HOSTS[0], ""))
        self.origin = base.origin
        self.limits: Limits = limits_of(settings)
        self._target = base.target(SEND_PATH)
        self._activity = base.target(ACTIVITY_PATH) + b"?limit=1&query="
        self._headers: Headers = (
            (b"authorization", b"Bearer " + config.credentials["api_key"].encode("ascii")),
            (b"content-type", b"application/json"),
            (b"accept", b"application/json"),
            (b"user-agent", b"notification-dispatcher"),
        )
        self.batch_max: int = settings.get("batch_max") or 1
        self._personalization = (
            b'{"custom_args":{"organization_id":' + orjson.dumps(config.organization_id) + b',"notification_id":"'
        )
        self._before_id = b'{"personalizations":[' + self._personalization
        self._sender: str = settings["from_email"]
        sender = {"email": settings["from_email"]}
        if settings.get("from_name"):
            sender["name"] = settings["from_name"]
        constant: dict[str, Any] = {"from": sender}
        if settings.get("reply_to"):
            constant["reply_to"] = {"email": settings["reply_to"]}
        if settings.get("categories"):
            constant["categories"] = settings["categories"]
        if settings.get("sandbox_mode"):
            constant["mail_settings"] = {"sandbox_mode": {"enable": True}}
        self._constant = orjson.dumps(constant)[1:-1]
        self._after_recipient = b"}]}]," + self._constant + b',"subject":'

    def __repr__(self) -> str:
        return f"<BoundSendGrid {self.origin}>"

    def request(self, delivery: Delivery, moment: Moment) -> HttpRequest:
        """One mail to one recipient. Raises Unsendable for a payload or recipient that SendGrid can not take."""
        subject, extras = _subject(delivery), checked_extras(delivery.payload)
        notification_id = delivery.id.encode("ascii")
        try:
            body = b"".join(
                (
                    self._before_id,
                    notification_id,
                    b'"},"to":[{"email":',
                    orjson.dumps(delivery.recipient),
                    self._after_recipient,
                    orjson.dumps(subject),
                    extras_written(extras),
                    content_of(delivery.payload),
                )
            )
        except orjson.JSONEncodeError:
            raise Unsendable("payload_not_unicode") from None
        return HttpRequest(self.origin, b"POST", self._target, (*self._headers, (b"idempotency-key", notification_id)), body)

    def classify(self, response: HttpResponse, now_unix_s: float) -> Outcome:
        """What SendGrid's answer means, by the tables above."""
        status = response.status
        if status == 202:
            return Outcome(OutcomeClass.DELIVERED, "accepted", _message_id(response))
        row = STATUSES.row(status)
        if row.kind is OutcomeClass.DELIVERED:
            return Outcome(row.kind, row.code, _message_id(response))
        if status == 400:
            row = row_of_refusal(response.body)
        elif status == 401 and b"credits exceeded" in response.body[:ERROR_BODY_BYTES_MAX].lower():
            return CREDITS_EXCEEDED.outcome()
        return row.outcome(hint_s(response, now_unix_s))

    def part(self, delivery: Delivery, moment: Moment) -> Part | None:
        """The part of one mail. None when it is too long to stand among others, or has attachments: those are one request's.

        Raises Unsendable like ``request``.
        """
        subject, extras = _subject(delivery), checked_extras(delivery.payload)
        if extras.attachments:
            return None
        try:
            personalization = b"".join(
                (
                    self._personalization,
                    delivery.id.encode("ascii"),
                    b'"},"to":[{"email":',
                    orjson.dumps(delivery.recipient),
                    b'}],"subject":',
                    orjson.dumps(subject),
                    extras_written(extras),
                )
            )
            return sendgrid_batch.part_of(delivery, personalization)
        except orjson.JSONEncodeError:
            raise Unsendable("payload_not_unicode") from None

    def batch_request(self, parts: Sequence[Part], moment: Moment) -> HttpRequest:
        """One request for mails with equal keys."""
        body = sendgrid_batch.body_of(parts, self._constant, moment.random_bytes)
        return HttpRequest(self.origin, b"POST", self._target, self._headers, body)

    def classify_batch(self, response: HttpResponse, parts: Sequence[Part], now_unix_s: float) -> Sequence[Outcome | None]:
        """What the answer means for each: the same for all, unless it names those that were refused."""
        if len(parts) > 1:
            if response.status == 400:
                return sendgrid_batch.refusals(response.body, parts, hint_s(response, now_unix_s))
            if response.status == 413:
                return [None] * len(parts)
        return [self.classify(response, now_unix_s)] * len(parts)

    def probe(self, moment: Moment) -> HttpRequest:
        """A mail to the sender's own address that SendGrid is asked to check and not to send."""
        mail = {
            "personalizations": [{"to": [{"email": self._sender}]}],
            "from": {"email": self._sender},
            "subject": "Trial",
            "content": [{"type": "text/plain", "value": "Checked, not sent."}],
            "mail_settings": {"sandbox_mode": {"enable": True}},
        }
        return HttpRequest(self.origin, b"POST", self._target, self._headers, orjson.dumps(mail))

    def probed(self, response: HttpResponse, now_unix_s: float) -> Probed:
        """Whether the trial mail would have been sent; if not, why."""
        if response.status == 200:
            return Probed(True, "validated", _PROBE_WORDS)
        outcome = self.classify(response, now_unix_s)
        if outcome.kind is OutcomeClass.DELIVERED:
            return Probed(True, outcome.code, _PROBE_SENT_WORDS)
        return Probed(False, outcome.code, EXPLANATIONS.get(outcome.code) or STATUSES.row(response.status).words)

    def inquiry(self, delivery: Delivery) -> HttpRequest:
        """Asks the account's email activity for a mail with this notification's id among its custom arguments."""
        query = quote(f"(unique_args['notification_id']=\"{delivery.id}\")", safe="").encode("ascii")
        headers = tuple(header for header in self._headers if header[0] != b"content-type")
        return HttpRequest(self.origin, b"GET", self._activity + query, headers)

    def found(self, response: HttpResponse, now_unix_s: float) -> Answer:
        """A mail in the activity was taken on, whatever became of it since: to send another would be a double."""
        if response.status != 200:
            return CannotTell(f"inquiry_http_{response.status}", hint_s(response, now_unix_s))
        messages = None
        with suppress(orjson.JSONDecodeError, LookupError, TypeError):
            messages = orjson.loads(response.body)["messages"]
        if messages == []:
            return NotFound()
        if not isinstance(messages, list) or not isinstance(messages[0], dict):
            return CannotTell("inquiry_not_understood")
        name = messages[0].get("msg_id")
        is_name = isinstance(name, str) and _MESSAGE_ID.fullmatch(name.encode()) is not None
        return Found(name if is_name else None)


def settings_problems(settings: Mapping[str, Any], origins_extra: Collection[str] = ()) -> list[Problem]:
    """What is wrong with the settings of a configuration."""
    problems = unknown_fields(settings, _SETTINGS, "/settings")
    problems += common_problems(settings, {*map(str, HOSTS), *origins_extra})
    problems += unknown_problems(settings, askable=True)
    if settings.get("from_email") is None:
        problems.append(missing("/settings/from_email", "the address mails are sent from"))
    for name in ("from_email", "reply_to"):
        if settings.get(name) is not None and not _matches(_ADDRESS, settings[name]):
            problems.append(invalid(f"/settings/{name}", "must be one email address without a name"))
    if settings.get("from_name") is not None and not _matches(_NAME, settings["from_name"]):
        problems.append(invalid("/settings/from_name", "must be 1 to 255 characters without comma, semicolon and line break"))
    categories = settings.get("categories")
    if categories is not None and not _are_categories(categories):
        problems.append(invalid("/settings/categories", "must be at most 10 different texts of 1 to 255 characters"))
    batch_max = settings.get("batch_max")
    if batch_max is not None and not sendgrid_batch.is_batch_max(batch_max):
        problems.append(invalid("/settings/batch_max", f"must be a whole number from 1 to {sendgrid_batch.BATCH_MAX}"))
    elif batch_max not in (None, 1) and settings.get("key_retention_s") is not None:
        problems.append(
            invalid("/settings/batch_max", "must be 1 with key_retention_s: a call for several has no key of any one of them")
        )
    if not isinstance(settings.get("sandbox_mode", False), bool):
        problems.append(invalid("/settings/sandbox_mode", "must be true or false"))
    public_key = settings.get(KEY_SETTING)
    if public_key is not None and (not isinstance(public_key, str) or public_key_of(public_key) is None):
        problems.append(invalid(f"/settings/{KEY_SETTING}", "must be the event webhook's verification key as SendGrid shows it"))
    return problems


def credentials_problems(credentials: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the credentials of a configuration."""
    problems = unknown_fields(credentials, {"api_key"}, "/credentials")
    if credentials.get("api_key") is None:
        problems.append(missing("/credentials/api_key", "a SendGrid API key with the permission to send mail"))
    elif not _matches(_API_KEY, credentials["api_key"]):
        problems.append(invalid("/credentials/api_key", "must be 1 to 512 printable ASCII characters without blanks"))
    return problems


def bind(config: ProviderConfig, origins_extra: Collection[str] = ()) -> BoundSendGrid:
    """SendGrid with one stored configuration. Raises Unbindable when it does not pass the checks it once passed."""
    problems = settings_problems(config.settings, origins_extra) + credentials_problems(config.credentials)
    if problems:
        raise Unbindable(problems[0])
    return BoundSendGrid(config)


SENDGRID: Final = Provider(
    "sendgrid",
    frozenset({Channel.EMAIL}),
    settings_problems,
    credentials_problems,
    bind,
    inquiry_lag_s=INQUIRY_LAG_S,
    explanations=EXPLANATIONS,
    feedback=SENDGRID_FEEDBACK,
)


def _subject(delivery: Delivery) -> str:
    """The subject of a mail that can be sent, as far as subject and recipient decide that. Raises Unsendable."""
    subject = delivery.payload.get("subject")
    if not isinstance(subject, str) or not subject:
        raise Unsendable("subject_missing")
    if _LINE_BREAK.search(subject):
        raise Unsendable("subject_has_line_break")
    if _ADDRESS.fullmatch(delivery.recipient) is None:
        raise Unsendable("recipient_invalid")
    return subject


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _are_categories(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 10
        and all(isinstance(category, str) and 1 <= len(category) <= 255 for category in value)
        and len(set(value)) == len(value)
    )


def _message_id(response: HttpResponse) -> str | None:
    for name, value in response.headers:
        if name == b"x-message-id":
            return value.decode("ascii") if _MESSAGE_ID.fullmatch(value) else None
    return None
