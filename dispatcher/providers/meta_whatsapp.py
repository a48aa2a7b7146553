"""WhatsApp messages through Meta's Cloud API, without anybody in between.

One request carries one message: a text, within 24 hours after the recipient's last message, or a template at any time. Meta knows
no idempotency keys; the ``idempotency-key`` header is sent nevertheless, for a gateway that may honour it. Our ids travel in
``biz_opaque_callback_data``, which comes back with every status of the message.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Final

import orjson

from dispatcher.feedback.meta import META_FEEDBACK
from dispatcher.http_message import Headers, HttpRequest, HttpResponse, Origin
from dispatcher.model import Channel, Delivery, ProviderConfig
from dispatcher.origins import BaseUrl
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.problems import Problem
from dispatcher.providers.hints import hint_s
from dispatcher.providers.inquiry import UNKNOWN_SETTINGS, unknown_problems
from dispatcher.providers.meta_errors import ERRORS, NO_SUCH_NUMBER
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
from dispatcher.providers.statuses import EXPLANATIONS, by_status, status_row
from dispatcher.whatsapp import language_code, template_of

HOST: Final = Origin("https", "graph.facebook.com", 443)
API_VERSION_DEFAULT: Final = "v23.0"
TEXT_CHARS_MAX: Final = 4096

_BODY_BYTES_MAX = 64 * 1024
_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")
_ID = re.compile(r"[0-9]{1,32}")
_VERSION = re.compile(r"v[1-9][0-9]\.[0-9]")
_SECRET = re.compile(r"[\x21-\x7e]{1,1024}")
_MESSAGE_ID = re.compile(r"[\x21-\x7e]{1,255}")
_SETTINGS = COMMON_SETTINGS | UNKNOWN_SETTINGS | {"phone_number_id", "business_account_id", "api_version", "preview_url"}
_CREDENTIALS = frozenset({"access_token", "app_secret", "verify_token"})


class BoundMetaWhatsApp:
    """The Cloud API with one configuration. Everything that does not change from message to message is rendered here, once."""

    __slots__ = ("_before_id", "_before_text", "_headers", "_id", "_path", "_probe", "limits", "origin")

    def __init__(self, config: ProviderConfig) -> None:
        settings = config.settings
        base = base_url_of(settings, BaseUrl(HOST, ""))
        self.origin = base.origin
        self.limits: Limits = limits_of(settings)
        self._id = settings["phone_number_id"]
        node = f"/{settings.get('api_version') or API_VERSION_DEFAULT}/{self._id}"
        self._path = base.target(f"{node}/messages")
        self._probe = base.target(f"{node}?fields=id,display_phone_number,verified_name,quality_rating,status")
        self._headers: Headers = (
            (b"authorization", b"Bearer " + config.credentials["access_token"].encode("ascii")),
            (b"content-type", b"application/json"),
            (b"accept", b"application/json"),
            (b"user-agent", b"notification-dispatcher"),
        )
        self._before_id = (
            b'{"messaging_product":"whatsapp","recipient_type":"individual","biz_opaque_callback_data":"organization_id='
            + config.organization_id.encode("ascii")
            + b"&notification_id="
        )
        preview = b"true" if settings.get("preview_url") else b"false"
        self._before_text = b'"type":"text","text":{"preview_url":' + preview + b',"body":'

    def __repr__(self) -> str:
        return f"<BoundMetaWhatsApp {self.origin}>"

    def request(self, delivery: Delivery, moment: Moment) -> HttpRequest:
        """One message to one number. Raises Unsendable for a payload or recipient that Meta can not take."""
        if _PHONE.fullmatch(delivery.recipient) is None:
            raise Unsendable("recipient_invalid")
        id = delivery.id.encode("ascii")
        try:
            content = self._content(delivery.payload)
        except orjson.JSONEncodeError:
            raise Unsendable("payload_not_unicode") from None
        to = delivery.recipient.encode("ascii")
        body = b"".join((self._before_id, id, b'","to":"', to, b'",', content, b"}"))
        return HttpRequest(self.origin, b"POST", self._path, (*self._headers, (b"idempotency-key", id)), body)

    def _content(self, payload: Mapping[str, Any]) -> bytes:
        if "template" not in payload:
            text = payload.get("text")
            if not isinstance(text, str) or not text:
                raise Unsendable("text_missing")
            if len(text) > TEXT_CHARS_MAX:
                raise Unsendable("text_too_long")
            return self._before_text + orjson.dumps(text) + b"}"
        template = template_of(payload["template"])
        if template is None:
            raise Unsendable("template_invalid")
        written: dict[str, Any] = {"name": template.name, "language": {"code": language_code(template.language)}}
        if template.parameters:
            parameters = [{"type": "text", "text": text} for text in template.parameters]
            written["components"] = [{"type": "body", "parameters": parameters}]
        return b'"type":"template","template":' + orjson.dumps(written)

    def classify(self, response: HttpResponse, now_unix_s: float) -> Outcome:
        """What Meta's answer means: by its code, if it has one that we know, then by its status, then by the code's range."""
        document = _document(response)
        code = _code(document)
        status = response.status
        if code is not None and (code in ERRORS.rows or (status < 500 and status != 429)):
            row = ERRORS.row(code)
            if row is not ERRORS.other:
                return row.outcome(hint_s(response, now_unix_s))
        if 200 <= status < 300:
            return (
                ERRORS.other.outcome() if code is not None else Outcome(OutcomeClass.DELIVERED, "accepted", _message_id(document))
            )
        return by_status(response, now_unix_s)

    def probe(self, moment: Moment) -> HttpRequest:
        """Asks for the number that messages are sent from."""
        headers = tuple(header for header in self._headers if header[0] != b"content-type")
        return HttpRequest(self.origin, b"GET", self._probe, headers)

    def probed(self, response: HttpResponse, now_unix_s: float) -> Probed:
        """A number that the token can see and that is connected is a good one."""
        document = _document(response)
        code = _code(document)
        if response.status != 200 or code is not None:
            row = status_row(response.status) if code is None else ERRORS.row(code)
            if row is ERRORS.other:
                row = status_row(response.status)
            return Probed(False, row.code, row.words)
        if document.get("id") != self._id:
            return Probed(False, "answer_not_understood", "What answered is not Meta's API. Check base_url.")
        if document.get("status", "CONNECTED") != "CONNECTED":
            return Probed(False, "number_not_connected", "Meta knows the number, but it is not connected. Register it.")
        return Probed(True, "number_connected", "Meta knows the number and the token, and the number can send.")


def settings_problems(settings: Mapping[str, Any], origins_extra: Collection[str] = ()) -> list[Problem]:
    """What is wrong with the settings of a configuration."""
    problems = unknown_fields(settings, _SETTINGS, "/settings")
    problems += common_problems(settings, {str(HOST), *origins_extra})
    problems += unknown_problems(settings, askable=False)
    if settings.get("phone_number_id") is None:
        problems.append(missing("/settings/phone_number_id", "the id of the number that messages are sent from"))
    for name in ("phone_number_id", "business_account_id"):
        if settings.get(name) is not None and not _matches(_ID, settings[name]):
            problems.append(invalid(f"/settings/{name}", "must be Meta's id of it, a text of at most 32 digits"))
    if settings.get("api_version") is not None and not _matches(_VERSION, settings["api_version"]):
        problems.append(invalid("/settings/api_version", f"must be a version of the Graph API, such as {API_VERSION_DEFAULT}"))
    if not isinstance(settings.get("preview_url"), bool | None):
        problems.append(invalid("/settings/preview_url", "must be true or false"))
    return problems


def credentials_problems(credentials: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the credentials of a configuration. All but the access token are for what Meta reports."""
    problems = unknown_fields(credentials, _CREDENTIALS, "/credentials")
    if credentials.get("access_token") is None:
        problems.append(missing("/credentials/access_token", "a system user's token that may send messages"))
    for name in sorted(_CREDENTIALS):
        if credentials.get(name) is not None and not _matches(_SECRET, credentials[name]):
            problems.append(invalid(f"/credentials/{name}", "must be 1 to 1024 printable ASCII characters without blanks"))
    return problems


def bind(config: ProviderConfig, origins_extra: Collection[str] = ()) -> BoundMetaWhatsApp:
    """The Cloud API with one stored configuration. Raises Unbindable when it does not pass the checks it once passed."""
    problems = settings_problems(config.settings, origins_extra) + credentials_problems(config.credentials)
    if problems:
        raise Unbindable(problems[0])
    return BoundMetaWhatsApp(config)


META_WHATSAPP: Final = Provider(
    "meta_whatsapp",
    frozenset({Channel.WHATSAPP}),
    settings_problems,
    credentials_problems,
    bind,
    explanations={**EXPLANATIONS, **ERRORS.explanations},
    feedback=META_FEEDBACK,
)


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _document(response: HttpResponse) -> Mapping[str, Any]:
    """The answer as an object; empty when it is none."""
    if len(response.body) <= _BODY_BYTES_MAX:
        with suppress(orjson.JSONDecodeError):
            document = orjson.loads(response.body)
            if isinstance(document, dict):
                return document
    return {}


def _code(document: Mapping[str, Any]) -> int | None:
    error = document.get("error")
    if not isinstance(error, dict):
        return None
    code = error.get("code")
    if code == 100 and error.get("error_subcode") == NO_SUCH_NUMBER:
        return NO_SUCH_NUMBER
    return code if type(code) is int else None


def _message_id(document: Mapping[str, Any]) -> str | None:
    with suppress(LookupError, TypeError):
        name = document["messages"][0]["id"]
        if _matches(_MESSAGE_ID, name):
            return str(name)
    return None
