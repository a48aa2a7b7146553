"""The template form of a WhatsApp message, which is the same whoever carries it: the name of a template that WhatsApp knows, the
language of one of its versions, and the texts that fill it in.

Outside the 24 hours after a recipient's last message WhatsApp takes nothing else. Invariant: what has no faults here can be put
into the form of every WhatsApp provider; a fault names a field and never its value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import field, frozen

NAME_CHARS_MAX: Final = 512
PARAMETERS_MAX: Final = 100
PARAMETER_CHARS_MAX: Final = 1024
"""As many as a whole body may have, once filled in."""
FIELDS: Final = frozenset({"name", "language", "parameters"})

_NAME = re.compile(rf"[a-z0-9_]{{1,{NAME_CHARS_MAX}}}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[_-][A-Za-z0-9]{2,8}){0,2}")
_NOT_IN_A_LINE = re.compile(r"[\r\n\t\x00]| {5}")


@frozen
class TemplateMessage:
    """A message made of a template. ``language`` is spelt as it was handed in."""

    name: str
    language: str
    parameters: Sequence[str] = field(repr=False)


Fault = tuple[str, str]
"""A pointer below the template, and what is wrong there."""


def template_faults(value: object) -> list[Fault]:
    """All that is wrong with a template as it was handed in."""
    if not isinstance(value, Mapping):
        return [("", "must be an object")]
    faults: list[Fault] = []
    if not value.keys() <= FIELDS:
        faults.append(("", f"has an unknown field; known are {', '.join(sorted(FIELDS))}"))
    if not is_name(value.get("name")):
        faults.append(("/name", f"must be 1 to {NAME_CHARS_MAX} of a-z, 0-9 and _"))
    if not is_language(value.get("language")):
        faults.append(("/language", "must be a language of the template, such as en or pt_BR"))
    parameters = value.get("parameters", [])
    if not isinstance(parameters, list) or len(parameters) > PARAMETERS_MAX:
        faults.append(("/parameters", f"must be a list of at most {PARAMETERS_MAX} texts"))
    else:
        faults.extend(
            (
                f"/parameters/{index}",
                f"must be a text of 1 to {PARAMETER_CHARS_MAX} characters in one line, at most 4 blanks in a row",
            )
            for index, text in enumerate(parameters)
            if not _is_parameter(text)
        )
    return faults


def template_of(value: object) -> TemplateMessage | None:
    """The template of a stored payload, None when it has faults."""
    if not isinstance(value, Mapping) or template_faults(value):
        return None
    return TemplateMessage(value["name"], value["language"], tuple(value.get("parameters", ())))


def is_name(value: object) -> bool:
    """Whether a template may be called so."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def is_language(value: object) -> bool:
    """Whether this names a language, with ``_`` or ``-`` in it."""
    return isinstance(value, str) and _LANGUAGE.fullmatch(value) is not None


def language_code(language: str) -> str:
    """A language as WhatsApp spells it: ``pt-br`` becomes ``pt_BR``."""
    first, *rest = language.replace("-", "_").split("_")
    return "_".join((first.lower(), *(part.upper() if len(part) <= 3 else part.title() for part in rest)))


def _is_parameter(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= PARAMETER_CHARS_MAX and _NOT_IN_A_LINE.search(value) is None
