"""The rules of a message's form: what must be there, what excludes what, how long things may be. The first fault is told.

The real description of the interface has the either-or rules in an extension only, so generated clients do not know them.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

import orjson

from dispatcher_sandbox.twilio.faults import Fault

BODY_CHARS_MAX = 1600
MEDIA_MAX = 10
VALIDITY_S_MAX = 36_000
CALLBACK_CHARS_MAX = 4000
FIELDS_MAX = 200

_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
_SHORT_OR_NAME = re.compile(r"[0-9]{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 ]{1,11}")
_SERVICE = re.compile(r"MG[0-9a-f]{32}")
_CONTENT = re.compile(r"HX[0-9a-f]{32}")
_WHATSAPP = "whatsapp:"
_ONCE = (
    "To", "From", "MessagingServiceSid", "Body", "ContentSid", "ContentVariables", "StatusCallback", "ValidityPeriod",
    "SmartEncoded",
)  # fmt: skip


class Form(NamedTuple):
    """A form without faults. ``to`` is the number alone."""

    fields: Mapping[str, str]
    to: str
    is_whatsapp: bool

    @property
    def callback(self) -> str | None:
        """Where the message's states are reported to."""
        return self.fields.get("StatusCallback")


def form_of(body: bytes) -> Form | Fault:
    """Read and check a body."""
    try:
        pairs = urllib.parse.parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError:
        return Fault(20001, "The body is not a form")
    media = sum(name == "MediaUrl" for name, _ in pairs)
    given = {name: value for name, value in pairs if name in _ONCE and value}
    if media > MEDIA_MAX:
        return Fault(21623, "Number of media files exceeds allowed limit")
    to = given.get("To")
    if to is None:
        return Fault(21604, "A 'To' phone number is required.")
    is_whatsapp = to.startswith(_WHATSAPP)
    number = to.removeprefix(_WHATSAPP)
    if _NUMBER.fullmatch(number) is None:
        return Fault(21211, f"The 'To' number {to} is not a valid phone number.")
    fault = _sender(given, is_whatsapp) or _content(given, media) or _rest(given)
    return fault or Form(given, number, is_whatsapp)


def _sender(given: Mapping[str, str], is_whatsapp: bool) -> Fault | None:
    sender, service = given.get("From"), given.get("MessagingServiceSid")
    if sender is None and service is None:
        return Fault(21603, "A 'From' phone number is required.")
    if service is not None and _SERVICE.fullmatch(service) is None:
        return Fault(21705, "The Messaging Service Sid is invalid")
    if sender is None:
        return None
    if sender.startswith(_WHATSAPP) != is_whatsapp:
        return Fault(21910, "Invalid From and To pair. From and To should be of the same channel")
    number = sender.removeprefix(_WHATSAPP)
    if _NUMBER.fullmatch(number) is None and (is_whatsapp or _SHORT_OR_NAME.fullmatch(number) is None):
        return Fault(21212, f"The 'From' number {sender} is not a valid phone number, shortcode, or alphanumeric sender ID.")
    return None


def _content(given: Mapping[str, str], media: int) -> Fault | None:
    body, content, variables = given.get("Body"), given.get("ContentSid"), given.get("ContentVariables")
    if body is None and content is None and not media:
        return Fault(21619, "A text message body or media urls must be specified.")
    if body is not None and len(body) > BODY_CHARS_MAX:
        return Fault(21617, f"The concatenated message body exceeds the {BODY_CHARS_MAX} character limit")
    if content is not None and _CONTENT.fullmatch(content) is None:
        return Fault(21655, "The ContentSid is Invalid")
    if variables is None:
        return None
    if content is None:
        return Fault(21654, "ContentSid Required")
    try:
        values = orjson.loads(variables)
    except orjson.JSONDecodeError:
        values = None
    if not isinstance(values, dict) or not all(isinstance(value, str) and value for value in values.values()):
        return Fault(21656, "The ContentVariables Parameter is invalid")
    return None


def _rest(given: Mapping[str, str]) -> Fault | None:
    callback = given.get("StatusCallback")
    if callback is not None and not _is_callback(callback):
        return Fault(21609, f"The 'StatusCallback' URL {callback} is not a valid URL.")
    validity = given.get("ValidityPeriod")
    if validity is not None and not (validity.isdecimal() and 1 <= int(validity) <= VALIDITY_S_MAX):
        return Fault(20001, f"ValidityPeriod must be between 1 and {VALIDITY_S_MAX}")
    if given.get("SmartEncoded", "true").lower() not in ("true", "false"):
        return Fault(20001, "SmartEncoded must be true or false")
    return None


def _is_callback(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return len(url) <= CALLBACK_CHARS_MAX and parts.scheme in ("http", "https") and bool(host) and "_" not in host
