"""A request as its recipients read it: one letter for each personalization, with its substitutions made.

Substitutions are those of the legacy templates: wherever a tag stands in subject or content, its value takes its place, as it is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson


class Letter(NamedTuple):
    """What one personalization's recipients get. ``content`` is by its type."""

    to: tuple[str, ...]
    notification_id: str | None
    subject: str
    content: dict[str, str]


def letters_of(body: bytes) -> list[Letter]:
    """The letters of an accepted mail."""
    mail = orjson.loads(body)
    return [_letter(mail, block) for block in mail["personalizations"]]


def _letter(mail: dict[str, Any], block: dict[str, Any]) -> Letter:
    arguments = {**(mail.get("custom_args") or {}), **(block.get("custom_args") or {})}
    values: dict[str, str] = block.get("substitutions") or {}

    def put_in(text: str) -> str:
        for tag, value in values.items():
            text = text.replace(tag, value)
        return text

    return Letter(
        tuple(person["email"] for person in block["to"]),
        arguments.get("notification_id"),
        put_in(block.get("subject") or mail.get("subject") or ""),
        {part["type"]: put_in(part["value"]) for part in mail.get("content") or ()},
    )
