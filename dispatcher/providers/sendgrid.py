"""Email through SendGrid's v3 ``mail/send``.

One request carries one notification: a request with many is refused whole for one bad address. SendGrid knows no idempotency
keys. The ``idempotency-key`` header is sent nevertheless, always the notification's id: SendGrid ignores it, while a gateway in
front of it, or the sandbox, may honour it. The ids in ``custom_args`` come back with every delivery event, and the email activity
of the account can be searched for them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

import orjson

from dispatcher.http_message import Headers, HttpRequest, HttpResponse, Origin
from dispatcher.model import Channel, Delivery, ProviderConfig
from dispatcher.origins import BaseUrl
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.problems import Problem
from dispatcher.providers.hints import hint_s
from dispatcher.providers.inquiry import UNKNOWN_SETTINGS, Answer, CannotTell, Found, NotFound, unknown_problems
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

HOSTS: Final = (Origin("https", "api.sendgrid.com", 443), Origin("https", "api.eu.sendgrid.com", 443))
"""SendGrid's own hosts; the first is the default."""
SEND_PATH: Final = "/v3/mail/send"
ACTIVITY_PATH: Final = "/v3/messages"
"""Email activity: an add-on to an account, and a permission of the key. 403 without them."""
INQUIRY_LAG_S: Final = 300.0
"""How long a mail may be missing from the activity. SendGrid promises no bound; its users see it there within a minute or two."""

STATUSES: Mapping[int, tuple[OutcomeClass, str]] = MappingProxyType(
    {
        200: (OutcomeClass.DELIVERED, "validated"),  # sandbox mode: checked, and deliberately not sent
        202: (OutcomeClass.DELIVERED, "accepted"),
        400: (OutcomeClass.HARD, "http_400"),
        401: (OutcomeClass.MISCONFIGURED, "key_refused"),
        403: (OutcomeClass.MISCONFIGURED, "forbidden"),  # sender not verified, or blocked after too many bad requests
        404: (OutcomeClass.MISCONFIGURED, "http_404"),
        405: (OutcomeClass.MISCONFIGURED, "http_405"),
        406: (OutcomeClass.MISCONFIGURED, "http_406"),
        408: (OutcomeClass.SOFT, "http_408"),
        409: (OutcomeClass.SOFT, "in_progress"),  # a gateway that still works on the first call with this key
        413: (OutcomeClass.HARD, "too_large"),
        415: (OutcomeClass.MISCONFIGURED, "http_415"),
        425: (OutcomeClass.SOFT, "http_425"),
        429: (OutcomeClass.RATE_LIMITED, "http_429"),
        # Not from the service but from a gateway before it, which may have handed the mail on and missed the answer.
        502: (OutcomeClass.UNKNOWN, "http_502"),
        504: (OutcomeClass.UNKNOWN, "http_504"),
    }
)
"""What each status means. One that is not listed goes by its hundred, see ``HUNDREDS``."""

HUNDREDS: Mapping[int, OutcomeClass] = MappingProxyType(
    {
        2: OutcomeClass.DELIVERED,
        3: OutcomeClass.MISCONFIGURED,  # redirects are not followed: the base URL leads somewhere else
        4: OutcomeClass.HARD,
        5: OutcomeClass.SOFT,
    }
)

REFUSED_FIELDS: tuple[tuple[str, OutcomeClass, str], ...] = (
    ("personalizations.0.to", OutcomeClass.HARD, "recipient_refused"),
    ("from", OutcomeClass.MISCONFIGURED, "sender_refused"),  # the sender is a setting: every other message would fail as well
    ("reply_to", OutcomeClass.MISCONFIGURED, "reply_to_refused"),
    ("subject", OutcomeClass.HARD, "subject_refused"),
    ("content", OutcomeClass.HARD, "content_refused"),
    ("categories", OutcomeClass.MISCONFIGURED, "categories_refused"),
)
"""What a 400 means, by the beginning of the name of the first field it complains about."""

CREDITS_EXCEEDED_RETRY_S: Final = 3600.0
"""A used-up plan answers 401 until its daily or monthly reset, whose time it does not tell."""

_ERROR_BODY_BYTES_MAX = 64 * 1024
_MESSAGE_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_API_KEY = re.compile(r"[\x21-\x7e]{1,512}")
_ADDRESS = re.compile(r"[^\s@\x00-\x1f\x7f<>,;]{1,64}@[^\s@\x00-\x1f\x7f<>,;]{1,255}")
_NAME = re.compile(r"[^\x00-\x1f\x7f;,\u2028\u2029]{1,255}")
_LINE_BREAK = re.compile(r"[\r\n\x00\x0b\x0c\x85\u2028\u2029]")
_SETTINGS = COMMON_SETTINGS | UNKNOWN_SETTINGS | {"from_email", "from_name", "reply_to", "categories", "sandbox_mode"}


class BoundSendGrid:
    """SendGrid with one configuration. Everything that does not change from mail to mail is rendered here, once."""

    __slots__ = ("_activity", "_after_recipient", "_before_id", "_headers", "_target", "limits", "origin")

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
        self._before_id = (
            b'{"personalizations":[{"custom_args":{"organization_id":'
            + orjson.dumps(config.organization_id)
            + b',"notification_id":"'
        )
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
        self._after_recipient = b"}]}]," + orjson.dumps(constant)[1:-1] + b',"subject":'

    def __repr__(self) -> str:
        return f"<BoundSendGrid {self.origin}>"

    def request(self, delivery: Delivery, moment: Moment) -> HttpRequest:
        """One mail to one recipient. Raises Unsendable for a payload or recipient that SendGrid can not take."""
        subject = delivery.payload.get("subject")
        if not isinstance(subject, str) or not subject:
            raise Unsendable("subject_missing")
        if _LINE_BREAK.search(subject):
            raise Unsendable("subject_has_line_break")
        if _ADDRESS.fullmatch(delivery.recipient) is None:
            raise Unsendable("recipient_invalid")
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
                    _content(delivery.payload),
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
        kind, code = STATUSES.get(status) or (HUNDREDS.get(status // 100, OutcomeClass.UNKNOWN), f"http_{status}")
        if kind is OutcomeClass.DELIVERED:
            return Outcome(kind, code, _message_id(response))
        if status == 400:
            kind, code = _refused(response.body)
        elif status == 401 and b"credits exceeded" in response.body[:_ERROR_BODY_BYTES_MAX].lower():
            return Outcome(OutcomeClass.RATE_LIMITED, "credits_exceeded", None, CREDITS_EXCEEDED_RETRY_S)
        return Outcome(kind, code, None, hint_s(response, now_unix_s))

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
    if not isinstance(settings.get("sandbox_mode", False), bool):
        problems.append(invalid("/settings/sandbox_mode", "must be true or false"))
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
    "sendgrid", frozenset({Channel.EMAIL}), settings_problems, credentials_problems, bind, inquiry_lag_s=INQUIRY_LAG_S
)


def _content(payload: Mapping[str, Any]) -> bytes:
    """The rest of the body. Plain text must stand before HTML, and a part must not be empty."""
    text, html = payload.get("text") or None, payload.get("html") or None
    if (text is not None and not isinstance(text, str)) or (html is not None and not isinstance(html, str)):
        raise Unsendable("content_invalid")
    if text is None and html is None:
        raise Unsendable("content_missing")
    if html is None:
        return b',"content":[{"type":"text/plain","value":' + orjson.dumps(text) + b"}]}"
    if text is None:
        return b',"content":[{"type":"text/html","value":' + orjson.dumps(html) + b"}]}"
    plain_text, html_text = orjson.dumps(text), orjson.dumps(html)
    return b',"content":[{"type":"text/plain","value":' + plain_text + b'},{"type":"text/html","value":' + html_text + b"}]}"


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


def _refused(body: bytes) -> tuple[OutcomeClass, str]:
    """What a 400 means. Its text is read for the name of the field only: SendGrid repeats addresses in its messages."""
    field = None
    if len(body) <= _ERROR_BODY_BYTES_MAX:
        with suppress(orjson.JSONDecodeError, LookupError, TypeError):
            field = orjson.loads(body)["errors"][0]["field"]
    if isinstance(field, str):
        for prefix, kind, code in REFUSED_FIELDS:
            if field == prefix or field.startswith(prefix + "."):
                return kind, code
    return STATUSES[400]
