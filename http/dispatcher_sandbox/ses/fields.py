"""The rules of SendEmail and SendBulkEmail, as the service's model and guide give them. Unknown fields are let pass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from dispatcher_sandbox.ses.extras import check_attachments, check_headers
from dispatcher_sandbox.ses.refusals import Refused, bad_request
from dispatcher_sandbox.ses.rendering import Missing, filled, is_simple, recipients_of, values_of

RECIPIENTS_MAX = 50
ENTRIES_MAX = 50
TAGS_MAX = 50
TEMPLATE_DATA_MAX = 262_144
INLINE_BYTES_MAX = 1024 * 1024

_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")
_SET = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ADDRESS = re.compile(r"[!-~]{1,64}@[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?")
_NAMED = re.compile(r"(?P<name>[ -~]*?) ?<(?P<address>[!-~]+)>")


def document_of(body: bytes) -> dict[str, Any]:
    """A request's JSON object. Raises Refused."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise Refused(400, "SerializationException", "Unexpected token")
    return document


def check_mail(mail: Mapping[str, Any]) -> None:
    """One mail with its content. Raises Refused."""
    _check_common(mail)
    content = _object(mail, "Content")
    kinds = [kind for kind in ("Simple", "Raw", "Template") if content.get(kind) is not None]
    if kinds != ["Simple"]:
        raise bad_request("This sandbox takes Simple content, and nothing else beside it.")
    simple = _object(content, "Simple")
    subject, body = _object(simple, "Subject"), _object(simple, "Body")
    _text(subject, "Data")
    parts = [kind for kind in ("Text", "Html") if body.get(kind) is not None]
    if not parts:
        raise bad_request("Body must have Text or Html.")
    for kind in parts:
        _text(_object(body, kind), "Data")
    check_headers(simple, "Headers")
    check_attachments(simple)
    _check_destination(_object(mail, "Destination"))
    _check_tags(mail, "EmailTags")


def check_bulk(bulk: Mapping[str, Any], size: int) -> list[str]:
    """Several mails with one template; the fault of each entry, empty for those without. Raises Refused for all of them."""
    _check_common(bulk)
    template = _object(_object(bulk, "DefaultContent"), "Template")
    ways = [way for way in ("TemplateName", "TemplateArn", "TemplateContent") if template.get(way) is not None]
    if len(ways) != 1:
        raise bad_request("Exactly one of TemplateName, TemplateArn and TemplateContent must be given.")
    if ways != ["TemplateContent"]:
        raise Refused(404, "NotFoundException", "The template does not exist.")
    content = _object(template, "TemplateContent")
    texts = [text for part in ("Subject", "Text", "Html") if (text := content.get(part)) is not None]
    if not all(isinstance(text, str) for text in texts):
        raise _serialization()
    if not content.get("Subject") or len(texts) < 2:
        raise bad_request("A template must have a subject, and Text or Html.")
    if not all(map(is_simple, texts)):
        raise bad_request("Template contains unsupported operations.")
    if size > INLINE_BYTES_MAX:
        raise bad_request("The request is larger than 1 MB.")
    _check_data(template.get("TemplateData"))
    _check_tags(bulk, "DefaultEmailTags")
    entries = bulk.get("BulkEmailEntries")
    if not isinstance(entries, list):
        raise _null("BulkEmailEntries") if entries is None else _serialization()
    if not 1 <= len(entries) <= ENTRIES_MAX:
        raise bad_request(f"BulkEmailEntries must have 1 to {ENTRIES_MAX} entries.")
    return [_entry_fault(entry, template, texts) for entry in entries]


def sender_of(document: Mapping[str, Any]) -> str:
    """The sender's address without its name."""
    sender: str = document["FromEmailAddress"]
    named = _NAMED.fullmatch(sender)
    return named["address"] if named else sender


def tags_of(given: object) -> dict[str, str]:
    """Tags by name."""
    return {tag["Name"]: tag["Value"] for tag in given} if isinstance(given, list) else {}


def _entry_fault(entry: object, template: Mapping[str, Any], texts: list[str]) -> str:
    if not isinstance(entry, dict):
        raise _serialization()
    replacement = (entry.get("ReplacementEmailContent") or {}).get("ReplacementTemplate") or {}
    _check_data(replacement.get("ReplacementTemplateData"))
    _check_tags(entry, "ReplacementTags")
    check_headers(entry, "ReplacementHeaders")
    destination = _object(entry, "Destination")
    try:
        _check_destination(destination)
    except Refused:
        return "address"
    values = values_of(entry, template)
    try:
        for text in texts:
            filled(text, values)
    except Missing:
        return "rendering"
    return ""


def _check_common(document: Mapping[str, Any]) -> None:
    _text(document, "FromEmailAddress")
    if not _is_address(sender_of(document)):
        raise bad_request("FromEmailAddress is not a valid address.")
    for address in _list(document, "ReplyToAddresses"):
        if not _is_address(address):
            raise bad_request("ReplyToAddresses holds what is not a valid address.")
    name = document.get("ConfigurationSetName")
    if name is not None and not (isinstance(name, str) and _SET.fullmatch(name)):
        raise bad_request("ConfigurationSetName is not valid.")


def _check_destination(destination: Mapping[str, Any]) -> None:
    for kind in ("ToAddresses", "CcAddresses", "BccAddresses"):
        _list(destination, kind)
    recipients = recipients_of(destination)
    if not 1 <= len(recipients) <= RECIPIENTS_MAX:
        raise bad_request(f"There must be 1 to {RECIPIENTS_MAX} recipients.")
    if not all(map(_is_address, recipients)):
        raise bad_request("Illegal address")


def _check_tags(document: Mapping[str, Any], field: str) -> None:
    names = []
    for tag in _list(document, field):
        if not isinstance(tag, dict):
            raise _serialization()
        for part in ("Name", "Value"):
            _text(tag, part)
            if not _TAG.fullmatch(tag[part]):
                raise bad_request(f"{field} may hold only ASCII letters, digits, '_' and '-', at most 256 of them.")
        names.append(tag["Name"])
    if len(names) > TAGS_MAX or len(set(names)) != len(names):
        raise bad_request(f"{field} holds a name twice, or more than {TAGS_MAX} tags.")


def _check_data(data: object) -> None:
    if data is None:
        return
    if not isinstance(data, str):
        raise _serialization()
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError:
        values = None
    if len(data) > TEMPLATE_DATA_MAX or not isinstance(values, dict):
        raise bad_request("The template data is invalid")


def _is_address(text: object) -> bool:
    return isinstance(text, str) and _ADDRESS.fullmatch(text) is not None and not set(text[:-1]) & set('<>()[]\\,;:" ')


def _object(document: Mapping[str, Any], field: str) -> dict[str, Any]:
    value = document.get(field)
    if value is None:
        raise _null(field)
    if not isinstance(value, dict):
        raise _serialization()
    return value


def _text(document: Mapping[str, Any], field: str) -> None:
    value = document.get(field)
    if value is None:
        raise _null(field)
    if not isinstance(value, str):
        raise _serialization()


def _list(document: Mapping[str, Any], field: str) -> list[Any]:
    value = document.get(field)
    if value is not None and not isinstance(value, list):
        raise _serialization()
    return value or []


def _null(field: str) -> Refused:
    return bad_request(f"1 validation error detected: Value at '{field}' failed to satisfy constraint: Member must not be null")


def _serialization() -> Refused:
    return Refused(400, "SerializationException", "A field has another type.")
