"""Texts and WhatsApp messages through Twilio's Messages resource: one wire form, two providers.

One request carries one message. Twilio knows no idempotency keys: an answer that is lost leaves it open whether the message went
out. The ``idempotency-key`` header is sent nevertheless, always the notification's id, for a gateway in front of Twilio that may
honour it. Our ids travel in the query of the status callback, which is Twilio's only field that comes back.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Final, TypeGuard
from urllib.parse import quote_plus, urlencode

import orjson

from dispatcher.feedback.twilio import TWILIO_FEEDBACK
from dispatcher.http_message import Headers, HttpRequest, HttpResponse
from dispatcher.model import Channel, Delivery, ProviderConfig
from dispatcher.origins import BaseUrl
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.problems import Problem
from dispatcher.providers.hints import hint_s
from dispatcher.providers.probing import Probed
from dispatcher.providers.provider import Limits, Moment, Provider, Unbindable, Unsendable, base_url_of, limits_of
from dispatcher.providers.statuses import EXPLANATIONS, by_status, status_row
from dispatcher.providers.twilio_errors import ERRORS
from dispatcher.providers.twilio_settings import HOST, VALIDITY_S_MAX, credentials_problems, settings_problems
from dispatcher.whatsapp import language_code, template_of

BODY_CHARS_MAX: Final = 1600
CALLBACK_FRAGMENT: Final = "#rc=5&rp=5xx,ct,rt"
"""Twilio repeats a callback once, after a failed connect, unless told otherwise; this asks for five times, after any failure that
is not ours to mend. It is not part of what Twilio signs."""

_FAILED = frozenset({"failed", "undelivered", "canceled"})
_BODY_BYTES_MAX = 64 * 1024
_SID = re.compile(r"[A-Z]{2}[0-9a-f]{32}")
_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")


class BoundTwilio:
    """Twilio with one configuration. Everything that does not change from message to message is encoded here, once."""

    __slots__ = (
        "_account_sid",
        "_channel",
        "_content_sids",
        "_headers",
        "_path",
        "_probe",
        "_tail",
        "_validity_s",
        "limits",
        "origin",
    )

    def __init__(self, config: ProviderConfig) -> None:
        settings, credentials = config.settings, config.credentials
        base = base_url_of(settings, BaseUrl(HOST, ""))
        self.origin = base.origin
        self.limits: Limits = limits_of(settings)
        self._channel = config.channel
        account = f"/2010-04-01/Accounts/{credentials['account_sid']}"
        self._path = base.target(f"{account}/Messages.json")
        has_key = credentials.get("api_key_sid") is not None
        # A standard API key may not look at the account itself, but at what belongs to it.
        self._probe = base.target(f"{account}/IncomingPhoneNumbers.json?PageSize=1" if has_key else f"{account}.json")
        user = credentials["api_key_sid" if has_key else "account_sid"]
        secret = credentials["api_key_secret" if has_key else "auth_token"]
        self._headers: Headers = (
            (b"authorization", b"Basic " + b64encode(f"{user}:{secret}".encode("ascii"))),
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"accept", b"application/json"),
            (b"user-agent", b"notification-dispatcher"),
        )
        self._content_sids = {
            (name, language_code(language)): sid
            for name, by_language in (settings.get("content_sids") or {}).items()
            for language, sid in by_language.items()
        }
        self._validity_s: int | None = settings.get("validity_period_s")
        self._tail = _constant(settings, config)

    def __repr__(self) -> str:
        return f"<BoundTwilio {self._channel} {self.origin}>"

    def request(self, delivery: Delivery, moment: Moment) -> HttpRequest:
        """One message to one number. Raises Unsendable for a payload or recipient that Twilio can not take."""
        whatsapp = self._channel is Channel.WHATSAPP
        if _PHONE.fullmatch(delivery.recipient) is None:
            raise Unsendable("recipient_invalid")
        fields = ["To=whatsapp%3A%2B" if whatsapp else "To=%2B", delivery.recipient[1:]]
        if whatsapp and "template" in delivery.payload:
            template = template_of(delivery.payload["template"])
            if template is None:
                raise Unsendable("template_invalid")
            sid = self._content_sids.get((template.name, language_code(template.language)))
            if sid is None:
                raise Unsendable("template_without_content_sid")
            fields += ["&ContentSid=", sid]
            if template.parameters:
                variables = {str(number): text for number, text in enumerate(template.parameters, 1)}
                fields += ["&ContentVariables=", _encoded(json.dumps(variables, ensure_ascii=False))]
        else:
            fields += ["&Body=", _encoded(_text(delivery.payload))]
        validity_s = self._validity(delivery, moment.unix_s)
        if validity_s is not None:
            fields.append(f"&ValidityPeriod={validity_s}")
        id = delivery.id
        body = "".join((*fields, self._tail.replace("{id}", id))).encode("ascii")
        return HttpRequest(self.origin, b"POST", self._path, (*self._headers, (b"idempotency-key", id.encode("ascii"))), body)

    def _validity(self, delivery: Delivery, now_unix_s: float) -> int | None:
        """What expires here must not go on waiting in Twilio's queue."""
        if self._channel is not Channel.SMS or delivery.expires_at_s is None:
            return self._validity_s
        left_s = min(max(1, int(delivery.expires_at_s - now_unix_s)), VALIDITY_S_MAX)
        return left_s if self._validity_s is None else min(left_s, self._validity_s)

    def classify(self, response: HttpResponse, now_unix_s: float) -> Outcome:
        """What Twilio's answer means: by its code, if it has one that we know, then by its status, then by the code's range."""
        document = _document(response)
        status = response.status
        if 200 <= status < 300:
            code = document.get("error_code")
            state = document.get("status")
            if isinstance(state, str) and state in _FAILED:
                return (ERRORS.row(code) if _is_code(code) else ERRORS.other).outcome()
            sid = document.get("sid")
            known = isinstance(sid, str) and _SID.fullmatch(sid) is not None
            return Outcome(OutcomeClass.DELIVERED, "accepted", sid if known else None)
        code = document.get("code")
        if _is_code(code) and (code in ERRORS.rows or (400 <= status < 500 and status != 429)):
            row = ERRORS.row(code)
            if row is not ERRORS.other:
                return row.outcome(hint_s(response, now_unix_s))
        return by_status(response, now_unix_s)

    def probe(self, moment: Moment) -> HttpRequest:
        """Asks for the account, or with an API key for one of its numbers."""
        headers = tuple(header for header in self._headers if header[0] != b"content-type")
        return HttpRequest(self.origin, b"GET", self._probe, headers)

    def probed(self, response: HttpResponse, now_unix_s: float) -> Probed:
        """An account that answers and is active is a good one."""
        document = _document(response)
        if response.status == 200:
            state = document.get("status", "active")
            if state == "active":
                return Probed(True, "account_active", "Twilio knows account and credentials, and the account is active.")
            if state in ("suspended", "closed"):
                return Probed(False, f"account_{state}", f"The account is {state}. Twilio's console shows the reason.")
            return Probed(False, "answer_not_understood", "What answered is not Twilio's API. Check base_url.")
        code = document.get("code")
        row = ERRORS.rows[code] if _is_code(code) and code in ERRORS.rows else status_row(response.status)
        return Probed(False, row.code, row.words)


def _provider(name: str, channel: Channel) -> Provider:
    def problems_of(settings: Mapping[str, Any], origins_extra: Collection[str] = ()) -> list[Problem]:
        return settings_problems(settings, origins_extra, channel)

    def bind(config: ProviderConfig, origins_extra: Collection[str] = ()) -> BoundTwilio:
        """Twilio with one stored configuration. Raises Unbindable when it does not pass the checks it once passed."""
        problems = problems_of(config.settings, origins_extra) + credentials_problems(config.credentials)
        if problems:
            raise Unbindable(problems[0])
        return BoundTwilio(config)

    explanations = {**EXPLANATIONS, **ERRORS.explanations}
    return Provider(
        name,
        frozenset({channel}),
        problems_of,
        credentials_problems,
        bind,
        explanations=explanations,
        feedback=TWILIO_FEEDBACK,
    )


TWILIO_SMS: Final = _provider("twilio_sms", Channel.SMS)
TWILIO_WHATSAPP: Final = _provider("twilio_whatsapp", Channel.WHATSAPP)


def _is_code(value: object) -> TypeGuard[int]:
    return type(value) is int


def _constant(settings: Mapping[str, Any], config: ProviderConfig) -> str:
    """The encoded fields that every message has, ``{id}`` standing for the notification's."""
    fields: list[tuple[str, str]] = []
    if settings.get("from_number") is not None:
        fields.append(("From", ("whatsapp:" if config.channel is Channel.WHATSAPP else "") + settings["from_number"]))
    if settings.get("messaging_service_sid") is not None:
        fields.append(("MessagingServiceSid", settings["messaging_service_sid"]))
    if settings.get("smart_encoded") is not None:
        fields.append(("SmartEncoded", "true" if settings["smart_encoded"] else "false"))
    tail = "&" + urlencode(fields)
    url = settings.get("status_callback_url")
    if url is None:
        return tail
    joint = "&" if "?" in url else "?"
    own = quote_plus(f"{url}{joint}organization_id={config.organization_id}&notification_id=")
    return f"{tail}&StatusCallback={own}{{id}}{quote_plus(CALLBACK_FRAGMENT)}"


def _text(payload: Mapping[str, Any]) -> str:
    text = payload.get("text")
    if not isinstance(text, str) or not text:
        raise Unsendable("text_missing")
    if len(text) > BODY_CHARS_MAX:
        raise Unsendable("text_too_long")
    return text


def _encoded(text: str) -> str:
    try:
        return quote_plus(text)
    except UnicodeEncodeError:
        raise Unsendable("payload_not_unicode") from None


def _document(response: HttpResponse) -> Mapping[str, Any]:
    """The answer as an object; empty when it is none."""
    if len(response.body) <= _BODY_BYTES_MAX:
        with suppress(orjson.JSONDecodeError):
            document = orjson.loads(response.body)
            if isinstance(document, dict):
                return document
    return {}
