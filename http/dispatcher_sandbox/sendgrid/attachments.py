"""The rules of a mail about attachments: base64 content and a filename; type, disposition and content id are optional."""

from __future__ import annotations

import binascii
from typing import Any

from dispatcher_sandbox.sendgrid.faults import Fault, at, is_a, is_text
from dispatcher_sandbox.sendgrid.fields import has_line_break

_EMPTY_CONTENT = "The attachment content must be a string at least one character in length."


def check_attachments(attachments: object, faults: list[Fault]) -> None:
    """All of them."""
    if type(attachments) is not list:
        is_a(list, attachments, "attachments", faults)
        return
    for index, attachment in enumerate(attachments):
        if is_a(dict, attachment, f"attachments.{index}", faults):
            _check(attachment, f"attachments.{index}", faults)


def _check(attachment: dict[str, Any], field: str, faults: list[Fault]) -> None:
    content = attachment.get("content", "")
    if is_text(content, f"{field}.content", _EMPTY_CONTENT, faults) and not _is_base64(content):
        faults.append(at(f"{field}.content", "The attachment content must be base64 encoded."))
    filename = attachment.get("filename", "")
    if is_text(filename, f"{field}.filename", "filename is required.", faults) and has_line_break(filename):
        faults.append(at(f"{field}.filename", "The filename of your attachment cannot contain CRLF characters."))
    if "type" in attachment:
        kind = attachment["type"]
        message = "The attachment type must be a string at least one character in length."
        if is_text(kind, f"{field}.type", message, faults) and (";" in kind or has_line_break(kind)):
            faults.append(at(f"{field}.type", "The type cannot contain ';', or CRLF characters."))
    if "disposition" in attachment:
        disposition = attachment["disposition"]
        if is_a(str, disposition, f"{field}.disposition", faults) and disposition not in ("inline", "attachment"):
            faults.append(at(f"{field}.disposition", "The disposition can be either inline or attachment."))
    if "content_id" in attachment:
        content_id = attachment["content_id"]
        if is_a(str, content_id, f"{field}.content_id", faults) and has_line_break(content_id):
            faults.append(at(f"{field}.content_id", "The content ID of your attachment cannot contain CRLF characters."))


def _is_base64(text: str) -> bool:
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error is one, and so is what is not ASCII
        return False
    return True
