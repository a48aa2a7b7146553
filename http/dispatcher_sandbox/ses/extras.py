"""The rules of a mail's own headers and of its attachments, as the service's model and guide give them."""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from typing import Any

from dispatcher_sandbox.ses.refusals import Refused, bad_request

HEADERS_MAX = 15

_NAME = re.compile(r"[!-9;-@A-~]{1,126}")
_VALUE = re.compile(r"[ -~]{1,870}")


def check_headers(document: Mapping[str, Any], field: str) -> None:
    """A list of names and values. Raises Refused."""
    headers = document.get(field)
    if headers is None:
        return
    if not isinstance(headers, list) or not all(isinstance(each, dict) for each in headers):
        raise Refused(400, "SerializationException", "Unexpected token")
    if len(headers) > HEADERS_MAX:
        raise bad_request(f"{field} may have at most {HEADERS_MAX} headers.")
    for each in headers:
        if not _is(_NAME, each.get("Name")) or not _is(_VALUE, each.get("Value")):
            raise bad_request(f"{field} holds a name or a value that is not valid.")


def check_attachments(simple: Mapping[str, Any]) -> None:
    """Files, their content in base64. Raises Refused."""
    attachments = simple.get("Attachments")
    if attachments is None:
        return
    if not isinstance(attachments, list) or not all(isinstance(each, dict) for each in attachments):
        raise Refused(400, "SerializationException", "Unexpected token")
    for each in attachments:
        if not isinstance(each.get("FileName"), str) or not 1 <= len(each["FileName"]) <= 255:
            raise bad_request("An attachment must have a FileName.")
        if each.get("ContentDisposition", "ATTACHMENT") not in ("ATTACHMENT", "INLINE"):
            raise bad_request("ContentDisposition must be ATTACHMENT or INLINE.")
        try:
            content = binascii.a2b_base64(each.get("RawContent") or "", strict_mode=True)
        except (ValueError, TypeError):
            content = b""
        if not content:
            raise bad_request("RawContent must be base64 that is not empty.")


def _is(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
