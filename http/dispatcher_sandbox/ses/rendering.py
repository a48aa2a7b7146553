"""What recipients get to read: the mails of a request, with an inline template filled in.

SES takes plain substitutions only in a template that comes with a request, escapes nothing, and puts in a value as it is, even
where the value looks like a substitution.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

_VARIABLE = re.compile(r"\{\{([A-Za-z][A-Za-z0-9]*)\}\}")
_PARTS = ("Subject", "Text", "Html")


class Mail(NamedTuple):
    """One mail as it is read. Empty where it has no such part."""

    recipients: tuple[str, ...]
    subject: str
    text: str
    html: str


class Missing(Exception):
    """A value that a template needs is not there."""


def is_simple(text: str) -> bool:
    """Whether a template has nothing but substitutions."""
    return "{{" not in _VARIABLE.sub("", text) and "{{{" not in text and "}}}" not in text


def filled(text: str, values: Mapping[str, Any]) -> str:
    """A template's part with its values. Raises Missing."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise Missing(found[1])
        return str(values[found[1]])

    return _VARIABLE.sub(value, text)


def values_of(entry: Mapping[str, Any], template: Mapping[str, Any]) -> dict[str, Any]:
    """An entry's values before those of the template."""
    replacement = (entry.get("ReplacementEmailContent") or {}).get("ReplacementTemplate") or {}
    texts = (template.get("TemplateData"), replacement.get("ReplacementTemplateData"))
    return {name: value for text in texts if text for name, value in orjson.loads(text).items()}


def mails_of(body: bytes) -> list[Mail]:
    """The mails of an accepted request, in order."""
    return list(_mails(orjson.loads(body)))


def _mails(document: Mapping[str, Any]) -> Iterator[Mail]:
    if "Content" in document:
        simple = document["Content"]["Simple"]
        parts = simple["Body"]
        texts = [(parts.get(name) or {}).get("Data", "") for name in ("Text", "Html")]
        yield Mail(recipients_of(document["Destination"]), simple["Subject"]["Data"], *texts)
        return
    template = document["DefaultContent"]["Template"]
    content = template["TemplateContent"]
    for entry in document["BulkEmailEntries"]:
        values = values_of(entry, template)
        yield Mail(recipients_of(entry["Destination"]), *(filled(content.get(name) or "", values) for name in _PARTS))


def recipients_of(destination: Mapping[str, Any]) -> tuple[str, ...]:
    """Everybody a mail goes to."""
    return tuple(address for kind in ("To", "Cc", "Bcc") for address in destination.get(f"{kind}Addresses") or ())
