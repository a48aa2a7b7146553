"""Email through Amazon SES, version 2 of its API.

One notification is one ``SendEmail`` with its whole content. Where a configuration wants batches, several are one
``SendBulkEmail``, which knows templates only: the template's parts are one variable each, and every entry brings its finished
words as the values. SES knows no idempotency keys and can not be asked what it has sent, so a batch whose answer is lost leaves
a doubt about each of its entries: batches are for who asks for them. The ids in the tags come back with every event.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from email.utils import formataddr
from types import MappingProxyType
from typing import Any, Final

import idna
import orjson

from dispatcher.feedback.ses import SES_FEEDBACK
from dispatcher.http_message import Headers, HttpRequest, HttpResponse
from dispatcher.mail_extras import Extras, extras_of
from dispatcher.model import Channel, Delivery, ProviderConfig
from dispatcher.origins import BaseUrl
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.batching import Part
from dispatcher.providers.hints import hint_s
from dispatcher.providers.probing import Probed
from dispatcher.providers.provider import Limits, Moment, Provider, Unbindable, Unsendable, base_url_of, limits_of
from dispatcher.providers.ses_account import probed
from dispatcher.providers.ses_errors import ENTRIES, EXPLANATIONS, STATUSES, row_of
from dispatcher.providers.ses_settings import TAG, credentials_problems, hosts, settings_problems
from dispatcher.providers.sigv4 import Signer, host_header

SEND_PATH: Final = "/v2/email/outbound-emails"
BULK_PATH: Final = "/v2/email/outbound-bulk-emails"
ACCOUNT_PATH: Final = "/v2/email/account"
SERVICE: Final = "ses"
"""What signatures are made for, whatever the host is called."""

TEMPLATE_DATA_BYTES_MAX: Final = 262_144
"""The values of one entry. The model counts characters; bytes are never fewer."""
BULK_BYTES_MAX: Final = 1_000_000
"""A whole request with an inline template."""

TEMPLATES: Mapping[str, bytes] = MappingProxyType(
    {
        "text": b'{"Subject":"{{subject}}","Text":"{{text}}"}',
        "html": b'{"Subject":"{{subject}}","Html":"{{html}}"}',
        "both": b'{"Subject":"{{subject}}","Text":"{{text}}","Html":"{{html}}"}',
    }
)
"""The template of a batch, by the parts that its mails have. Two braces, although there is HTML in it: SES documents that it
escapes nothing, and takes nothing but plain substitutions in a template that comes with the request."""

_BODY_BYTES_MAX = 1024 * 1024
_MESSAGE_ID = re.compile(r"[\x21-\x7e]{1,128}")
_ADDRESS = re.compile(r"[^\s@\x00-\x1f\x7f<>()\[\]\\,;:\"]{1,64}@[^\s@\x00-\x1f\x7f<>()\[\]\\,;:\"]{1,255}")
_LINE_BREAK = re.compile(r"[\r\n\x00\x0b\x0c\x85\u2028\u2029]")
_AROUND_PARTS = 4096
"""More than what a bulk request has around its entries."""


class BoundSes:
    """SES with one configuration. Everything that does not change from mail to mail is rendered here, once."""

    __slots__ = (
        "_account", "_before_destination", "_before_entries", "_before_id", "_bulk", "_host", "_part_bytes_max", "_region",
        "_send", "_signer", "_tags", "batch_max", "limits", "origin",
    )  # fmt: skip

    def __init__(self, config: ProviderConfig) -> None:
        settings, credentials = config.settings, config.credentials
        self._region: str = settings["region"]
        base = base_url_of(settings, BaseUrl(hosts(self._region)[0], ""))
        self.origin = base.origin
        self.limits: Limits = limits_of(settings)
        self.batch_max: int = settings.get("batch_max") or 1
        self._part_bytes_max = (BULK_BYTES_MAX - _AROUND_PARTS) // self.batch_max
        self._host = host_header(base.origin)
        self._send, self._bulk, self._account = base.target(SEND_PATH), base.target(BULK_PATH), base.target(ACCOUNT_PATH)
        self._signer = Signer(
            credentials["access_key_id"],
            credentials["secret_access_key"],
            self._region,
            SERVICE,
            credentials.get("session_token"),
        )
        constant: dict[str, Any] = {"FromEmailAddress": _sender(settings)}
        if settings.get("reply_to"):
            constant["ReplyToAddresses"] = [settings["reply_to"]]
        if settings.get("configuration_set"):
            constant["ConfigurationSetName"] = settings["configuration_set"]
        rendered = orjson.dumps(constant)[:-1]
        tags = dict(settings.get("tags") or {})
        if TAG.fullmatch(config.organization_id):
            tags["organization_id"] = config.organization_id
        self._tags = b"".join(orjson.dumps({"Name": name, "Value": value}) + b"," for name, value in tags.items())
        self._before_id = rendered + b',"EmailTags":[' + self._tags + b'{"Name":"notification_id","Value":"'
        self._before_entries = {
            key: rendered
            + b',"DefaultContent":{"Template":{"TemplateContent":'
            + template
            + b',"TemplateData":"{}"}},"BulkEmailEntries":['
            for key, template in TEMPLATES.items()
        }

    def __repr__(self) -> str:
        return f"<BoundSes {self.origin}>"

    def request(self, delivery: Delivery, moment: Moment) -> HttpRequest:
        """One mail to one recipient. Raises Unsendable for a payload or recipient that SES can not take."""
        subject, text, html = _content(delivery.payload)
        recipient, extras = _recipient(delivery.recipient), _extras(delivery.payload)
        try:
            parts = [
                self._before_id,
                delivery.id.encode("ascii"),
                b'"}],"Destination":{"ToAddresses":[',
                orjson.dumps(recipient),
                b']},"Content":{"Simple":{"Subject":{"Charset":"UTF-8","Data":',
                orjson.dumps(subject),
                b'},"Body":{',
                b",".join(
                    b'"' + name + b'":{"Charset":"UTF-8","Data":' + orjson.dumps(words) + b"}"
                    for name, words in ((b"Text", text), (b"Html", html))
                    if words is not None
                ),
                b"}",
                *_extras_written(extras),
                b"}}}",
            ]
        except orjson.JSONEncodeError:
            raise Unsendable("payload_not_unicode") from None
        return self._post(self._send, b"".join(parts), moment)

    def classify(self, response: HttpResponse, now_unix_s: float) -> Outcome:
        """What the answer to one mail means. A success that names no message is none that SES gives."""
        if response.status != 200:
            return row_of(response).outcome(hint_s(response, now_unix_s))
        message_id = _message_id(_document(response))
        if message_id is None:
            return STATUSES.other.outcome()
        return Outcome(OutcomeClass.DELIVERED, "accepted", message_id)

    def part(self, delivery: Delivery, moment: Moment) -> Part | None:
        """One entry of a bulk request; None for a mail with attachments, which belong to a whole request, and for one so large
        that it would leave the others no room.
        """
        subject, text, html = _content(delivery.payload)
        recipient, extras = _recipient(delivery.recipient), _extras(delivery.payload)
        if extras.attachments:
            return None
        values = {"subject": subject, "text": text, "html": html}
        try:
            data = orjson.dumps({name: words for name, words in values.items() if words is not None})
        except orjson.JSONEncodeError:
            raise Unsendable("payload_not_unicode") from None
        content = b"".join(
            (
                b'{"Destination":{"ToAddresses":[',
                orjson.dumps(recipient),
                b']},"ReplacementTags":[',
                self._tags,
                b'{"Name":"notification_id","Value":"',
                delivery.id.encode("ascii"),
                b'"}],"ReplacementEmailContent":{"ReplacementTemplate":{"ReplacementTemplateData":',
                orjson.dumps(data.decode()),
                b"}}",
                b',"ReplacementHeaders":' + _headers_written(extras) if extras.headers else b"",
                b"}",
            )
        )
        if len(data) > TEMPLATE_DATA_BYTES_MAX or len(content) >= self._part_bytes_max:
            return None
        return Part(delivery, "text" if html is None else "html" if text is None else "both", content)

    def batch_request(self, parts: Sequence[Part], moment: Moment) -> HttpRequest:
        """One bulk request of entries that have the same template."""
        before = self._before_entries[str(parts[0].key)]
        return self._post(self._bulk, before + b",".join(part.content for part in parts) + b"]}", moment)

    def classify_batch(self, response: HttpResponse, parts: Sequence[Part], now_unix_s: float) -> Sequence[Outcome | None]:
        """What the answer means for each entry: a success of the whole says nothing about any of them."""
        if response.status != 200:
            whole = row_of(response).outcome(hint_s(response, now_unix_s))
            if whole.kind is OutcomeClass.HARD and len(parts) > 1:
                return [None] * len(parts)  # refused for the sake of some entry, and the name of it is not told
            return [whole] * len(parts)
        document = _document(response)
        results = document.get("BulkEmailEntryResults")
        if not isinstance(results, list) or len(results) != len(parts):
            return [STATUSES.other.outcome()] * len(parts)
        return [_entry(result) for result in results]

    def probe(self, moment: Moment) -> HttpRequest:
        """Asks for the account: whether it may send, how much, and to whom."""
        headers: Headers = ((b"accept", b"application/json"),)
        signed = self._signer.sign(b"GET", self._host, self._account, headers, b"", moment.unix_s)
        return HttpRequest(self.origin, b"GET", self._account, signed)

    def probed(self, response: HttpResponse, now_unix_s: float) -> Probed:
        """What the account says."""
        return probed(response, _document(response), self._region)

    def _post(self, target: bytes, body: bytes, moment: Moment) -> HttpRequest:
        headers = self._signer.sign(b"POST", self._host, target, _JSON, body, moment.unix_s)
        return HttpRequest(self.origin, b"POST", target, headers, body)


_JSON: Headers = ((b"content-type", b"application/json"),)


def bind(config: ProviderConfig, origins_extra: Collection[str] = ()) -> BoundSes:
    """SES with one stored configuration. Raises Unbindable when it does not pass the checks it once passed."""
    problems = settings_problems(config.settings, origins_extra) + credentials_problems(config.credentials)
    if problems:
        raise Unbindable(problems[0])
    return BoundSes(config)


SES: Final = Provider(
    "ses",
    frozenset({Channel.EMAIL}),
    settings_problems,
    credentials_problems,
    bind,
    explanations=EXPLANATIONS,
    feedback=SES_FEEDBACK,
)


def _sender(settings: Mapping[str, Any]) -> str:
    """The sender with its name, which is an encoded word where it is not ASCII."""
    name = settings.get("from_name")
    return formataddr((name, settings["from_email"]), "utf-8") if name else str(settings["from_email"])


def _content(payload: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    """Subject, plain text and HTML. Raises Unsendable."""
    subject, text, html = payload.get("subject"), payload.get("text") or None, payload.get("html") or None
    if not isinstance(subject, str) or not subject:
        raise Unsendable("subject_missing")
    if _LINE_BREAK.search(subject):
        raise Unsendable("subject_has_line_break")
    if (text is not None and not isinstance(text, str)) or (html is not None and not isinstance(html, str)):
        raise Unsendable("content_invalid")
    if text is None and html is None:
        raise Unsendable("content_missing")
    return subject, text, html


def _extras(payload: Mapping[str, Any]) -> Extras:
    """Headers and attachments. Raises Unsendable."""
    extras = extras_of(payload)
    if extras is None:
        raise Unsendable("extras_invalid")
    return extras


def _headers_written(extras: Extras) -> bytes:
    return orjson.dumps([{"Name": name, "Value": value} for name, value in extras.headers])


def _extras_written(extras: Extras) -> list[bytes]:
    """What stands behind the body of a simple mail."""
    written = []
    if extras.headers:
        written.append(b',"Headers":' + _headers_written(extras))
    if extras.attachments:
        files = [
            {
                "FileName": each.filename,
                "ContentType": each.content_type,
                "ContentDisposition": "ATTACHMENT",
                "ContentTransferEncoding": "BASE64",
                "RawContent": each.content,
            }
            for each in extras.attachments
        ]
        written.append(b',"Attachments":' + orjson.dumps(files))
    return written


def _recipient(address: str) -> str:
    """The address as SES takes it: ASCII, a domain of other characters in its ASCII form. Raises Unsendable."""
    if _ADDRESS.fullmatch(address) is None:
        raise Unsendable("recipient_invalid")
    if address.isascii():
        return address
    local, _, domain = address.rpartition("@")
    if not local.isascii():
        raise Unsendable("recipient_not_ascii")
    try:
        return f"{local}@{idna.encode(domain, uts46=True).decode('ascii')}"
    except (idna.IDNAError, UnicodeError):
        raise Unsendable("recipient_invalid") from None


def _document(response: HttpResponse) -> Mapping[str, Any]:
    """The answer's JSON object, an empty one for anything else."""
    if len(response.body) <= _BODY_BYTES_MAX:
        with suppress(orjson.JSONDecodeError):
            document = orjson.loads(response.body)
            if isinstance(document, dict):
                return document
    return {}


def _message_id(document: Mapping[str, Any]) -> str | None:
    given = document.get("MessageId")
    return given if isinstance(given, str) and _MESSAGE_ID.fullmatch(given) else None


def _entry(result: object) -> Outcome:
    """What became of one entry of a bulk request."""
    status = result.get("Status") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(status, str):
        return STATUSES.other.outcome()
    if status == "SUCCESS":
        return Outcome(OutcomeClass.DELIVERED, "accepted", _message_id(result))
    return ENTRIES.row(status).outcome()
