"""What a mail may have beside its words: headers of its own, and attachments.

In a payload they are ``headers``, texts by name, and ``attachments``, a list of ``{"filename", "content_type", "content"}`` whose
content is base64. Invariant: a header that passes the check is one line of ASCII, and none of those that say who sends what to
whom, or how the mail is put together; so nothing handed in can redirect a mail or break it in two.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

HEADERS_MAX: Final = 15
"""As many as SES takes, the strictest of the providers."""
ATTACHMENTS_MAX: Final = 20
FILENAME_CHARS_MAX: Final = 255

_ALLOWED = re.compile(
    r"(?:X-[A-Za-z0-9-]{1,60}|List-[A-Za-z0-9-]{1,60}|In-Reply-To|References|Auto-Submitted|Precedence|Feedback-ID|Importance"
    r"|Priority|Entity-ID)",
    re.IGNORECASE,
)
_RESERVED = re.compile(r"X-(?:SG-|SMTPAPI|SES-|Notification-Id|Organization-Id)", re.IGNORECASE)
"""What providers read for themselves, or what we correlate by."""
_VALUE = re.compile(r"[\x20-\x7e]{1,870}")
_FILENAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029/\\\"<>|:*?\ud800-\udfff]{1,255}")
_CONTENT_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_FIELDS = frozenset({"filename", "content_type", "content"})


@frozen
class Attachment:
    """One file. ``content`` is base64, without line breaks."""

    filename: str = field(repr=False)
    content_type: str
    content: str = field(repr=False)


@frozen
class Extras:
    """What one mail has beside its words."""

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    attachments: tuple[Attachment, ...] = ()


NO_EXTRAS: Final = Extras()


def extras_of(payload: Mapping[str, Any]) -> Extras | None:
    """The extras of a payload; None for such as would have been refused when it was handed in."""
    if "headers" not in payload and "attachments" not in payload:
        return NO_EXTRAS
    if extras_faults(payload):
        return None
    attachments = payload.get("attachments") or ()
    return Extras(tuple((payload.get("headers") or {}).items()), tuple(Attachment(**each) for each in attachments))


def extras_faults(payload: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """What is wrong with the extras of a payload, each as a pointer and a sentence."""
    faults: list[tuple[str, str]] = []
    if "headers" in payload:
        faults += _header_faults(payload["headers"])
    if "attachments" in payload:
        faults += attachment_faults(payload["attachments"], "/attachments")
    return faults


def attachment_faults(given: object, pointer: str) -> list[tuple[str, str]]:
    """What is wrong with a list of attachments that stands at ``pointer``."""
    if not isinstance(given, list) or not 1 <= len(given) <= ATTACHMENTS_MAX:
        return [(pointer, f"must be a list of 1 to {ATTACHMENTS_MAX} attachments")]
    faults: list[tuple[str, str]] = []
    for index, one in enumerate(given):
        at = f"{pointer}/{index}"
        if not isinstance(one, dict) or one.keys() != _FIELDS:
            faults.append((at, "must be an object of filename, content_type and content"))
            continue
        if not _matches(_FILENAME, one["filename"]) or one["filename"].strip(" .") == "":
            faults.append(
                (f"{at}/filename", f"must be a file's name without a path, of at most {FILENAME_CHARS_MAX} visible characters")
            )
        if not _matches(_CONTENT_TYPE, one["content_type"]) or one["content_type"].startswith(("multipart/", "message/")):
            faults.append((f"{at}/content_type", "must be a media type without parameters, such as application/pdf"))
        if not _is_base64(one["content"]):
            faults.append((f"{at}/content", "must be base64 that is not empty, without line breaks"))
    return faults


def _header_faults(given: object) -> list[tuple[str, str]]:
    if not isinstance(given, dict) or not 1 <= len(given) <= HEADERS_MAX:
        return [("/headers", f"must be an object of 1 to {HEADERS_MAX} headers")]
    faults: list[tuple[str, str]] = []
    if len({name.lower() for name in given}) < len(given):
        faults.append(("/headers", "names a header twice"))
    for name, value in given.items():
        if _ALLOWED.fullmatch(name) is None or _RESERVED.match(name) is not None:
            faults.append(
                (
                    "/headers",
                    "may have X-…, List-…, In-Reply-To, References, Auto-Submitted and the like, nothing else",
                )
            )
        elif not _matches(_VALUE, value):
            faults.append((f"/headers/{name}", "must be one line of at most 870 visible ASCII characters"))
    return faults


def _is_base64(value: object) -> bool:
    if not isinstance(value, str) or not value:
        return False
    try:
        binascii.a2b_base64(value, strict_mode=True)
    except ValueError:  # binascii.Error is one, and so is what is not ASCII
        return False
    return True


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
