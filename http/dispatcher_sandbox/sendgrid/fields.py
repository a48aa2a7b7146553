"""The rules of a mail about single fields: subject, headers, custom arguments, content, categories, times, template ids."""

from __future__ import annotations

import re
from typing import Any

import orjson

from dispatcher_sandbox.sendgrid.faults import Fault, Unreadable, at, is_a, is_text

CUSTOM_ARGS_BYTES_MAX = 10_000
CATEGORIES_MAX = 10
CATEGORY_LENGTH_MAX = 255
SUBSTITUTIONS_MAX = 10_000

RESERVED_HEADERS = frozenset(
    {
        "x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding",
        "to", "from", "subject", "reply-to", "cc", "bcc",
    }
)  # fmt: skip

_TEMPLATE_ID = re.compile(r"d-[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[!-9;-~]+")


def has_line_break(text: str) -> bool:
    """Whether a text could break out of the mail header it is put into."""
    return "\r" in text or "\n" in text


def check_subject(subject: object, field: str, faults: list[Fault]) -> None:
    """A subject that is there must be a string of at least one character."""
    is_text(subject, field, "The subject of your email must be a string at least one character in length.", faults)


def check_headers(headers: object, field: str, faults: list[Fault]) -> None:
    """Extra mail headers."""
    if type(headers) is not dict:
        is_a(dict, headers, field, faults)
        return
    seen: set[str] = set()
    for name, value in headers.items():
        folded = name.lower()
        if type(value) is not str:
            faults.append(at(field, "The header values must be strings."))
        if _HEADER_NAME.fullmatch(name) is None:
            faults.append(at(field, "Header names may hold neither spaces nor characters outside ASCII."))
        elif folded in RESERVED_HEADERS:
            faults.append(at(field, f"The header '{name}' is reserved and may not be set."))
        elif folded in seen:
            faults.append(at(field, "The headers may not contain a name twice."))
        seen.add(folded)


def check_arguments(root: object, own: object, field: str, faults: list[Fault]) -> None:
    """Custom arguments: those of a personalization merged over those of the whole mail, or the latter alone.

    A wrong ``root`` is noted where the root is checked by itself. Raises Unreadable for a value that is not a string.
    """
    if type(own) is not dict:
        is_a(dict, own, field, faults)
        return
    merged = {**root, **own} if type(root) is dict else own
    characters = 0
    for name, value in merged.items():
        if type(value) is not str:
            raise Unreadable
        characters += len(name) + len(value) + 6
    # A character takes at most six bytes of JSON: only what comes near the limit has to be measured.
    if characters > CUSTOM_ARGS_BYTES_MAX // 6 and len(orjson.dumps(merged)) > CUSTOM_ARGS_BYTES_MAX:
        message = f"The combined size of custom arguments may not exceed {CUSTOM_ARGS_BYTES_MAX} bytes per personalization."
        faults.append(at(field, message))


def check_substitutions(substitutions: object, field: str, mail: dict[str, Any], faults: list[Fault]) -> None:
    """Substitutions of legacy templates. Raises Unreadable for a value that is not a string."""
    if type(substitutions) is not dict:
        is_a(dict, substitutions, field, faults)
        return
    if any(type(value) is not str for value in substitutions.values()):
        raise Unreadable
    if len(substitutions) > SUBSTITUTIONS_MAX:
        faults.append(at(field, f"You are limited to {SUBSTITUTIONS_MAX} substitutions."))
    template_id = mail.get("template_id")
    if type(template_id) is str and template_id.startswith("d-"):
        faults.append(at(field, "Substitutions may not be used with dynamic templating"))


def check_send_at(send_at: object, field: str, faults: list[Fault]) -> None:
    """A Unix timestamp; how far ahead it may lie is checked where the time is known."""
    is_a(int, send_at, field, faults)


def check_content(mail: dict[str, Any], faults: list[Fault]) -> None:
    """The parts of a mail; without a template there must be one."""
    parts = mail.get("content")
    if type(parts) is not list:
        if "content" in mail:
            is_a(list, parts, "content", faults)
        elif "template_id" not in mail:
            faults.append(at("content", "Unless a valid template_id is provided, the content parameter is required."))
        return
    if not parts:
        faults.append(at("content", "There must be at least one defined content block."))
    rank_before = 0
    for index, part in enumerate(parts):
        if type(part) is not dict:
            is_a(dict, part, f"content.{index}", faults)
            continue
        kind, value = part.get("type"), part.get("value")
        if type(value) is not str or not value:
            message = "The content value must be a string at least one character in length."
            is_text(part.get("value", ""), f"content.{index}.value", message, faults)
        if type(kind) is not str or not kind:
            message = "The content type must be a string at least one character in length."
            is_text(part.get("type", ""), f"content.{index}.type", message, faults)
            continue
        if ";" in kind or has_line_break(kind):
            faults.append(at(f"content.{index}.type", "The content type may contain neither ';' nor CRLF."))
        rank = 0 if kind == "text/plain" else 1 if kind == "text/html" else 2
        if rank < rank_before:
            faults.append(at("content", "text/plain needs to be first, followed by text/html, followed by any other content."))
        rank_before = max(rank, rank_before)


def check_categories(categories: object, faults: list[Fault]) -> None:
    """At most ten distinct short ASCII names."""
    if type(categories) is not list:
        is_a(list, categories, "categories", faults)
        return
    if not all(is_a(str, name, f"categories.{index}", faults) for index, name in enumerate(categories)):
        return
    if len(categories) > CATEGORIES_MAX:
        message = f"There is a limit of {CATEGORIES_MAX} categories for each email. You provided {len(categories)} categories."
        faults.append(at("categories", message))
    if len(set(categories)) != len(categories):
        faults.append(at("categories", "The categories must be a unique list."))
    for name in categories:
        if len(name) > CATEGORY_LENGTH_MAX:
            faults.append(at("categories", f"A category may not be longer than {CATEGORY_LENGTH_MAX} characters."))
        if not name.isascii():
            faults.append(at("categories", "Categories can not contain non-ASCII characters."))


def check_template_id(template_id: object, faults: list[Fault]) -> None:
    """A legacy template's GUID, or ``d-`` and 32 hexadecimal digits."""
    if type(template_id) is not str:
        is_a(str, template_id, "template_id", faults)
    elif _TEMPLATE_ID.fullmatch(template_id) is None:
        faults.append(at("template_id", f"The template_id must be a valid GUID, you provided '{template_id}'."))
