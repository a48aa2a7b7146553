"""What a template's keys mean: the messages of one catalogue, and the catalogues that apply to one recipient, best first.

Invariant: what is found for a key is that of the first catalogue of the chain that can be put into words with what is given, the
organization's default being the last. These records are made by :mod:`dispatcher.catalogues`, which checks them, and are shared
by all renderings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import Any, Final

from attrs import Factory, field, frozen

from dispatcher.locales import chain
from dispatcher.localization import babel_locale

OTHER: Final = "other"
"""The plural category (CLDR) that every locale has, and the one of a message without a plural."""
COUNT: Final = "count"
"""The argument that chooses the plural, and is printed as a number."""

Parts = tuple[tuple[str, str | None], ...]
"""A form taken apart: literal text, and the name of the placeholder behind it; None behind the last."""

_TOKEN = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<name>[A-Za-z_][A-Za-z0-9_]{0,63})\}|(?P<text>[^{}]+)", re.ASCII)


def parts_of(text: str) -> Parts | None:
    """A text taken apart at its ``{name}`` placeholders; ``{{`` and ``}}`` stand for braces. None for any other brace."""
    if "{" not in text and "}" not in text:
        return ((text, None),)
    parts: list[tuple[str, str | None]] = []
    literal: list[str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        position = match.end()
        if match["name"] is None:
            literal.append(match["text"] or match["brace"][0])
        else:
            parts.append(("".join(literal), match["name"]))
            literal.clear()
    return (*parts, ("".join(literal), None)) if literal or not parts else tuple(parts)


def _placeholders(message: Message) -> frozenset[str]:
    return frozenset(name for parts in message.forms.values() for _, name in parts if name is not None)


@frozen
class Message:
    """One message in one locale. ``forms`` by plural category (CLDR); a message without a plural has ``other`` alone."""

    forms: Mapping[str, Parts] = field(repr=False)
    is_plural: bool = False
    placeholders: frozenset[str] = field(default=Factory(_placeholders, takes_self=True), init=False)
    """The names that its forms use, all together."""


@frozen
class Catalogue:
    """The messages of one locale, a normal tag. ``source`` is the document it was made of."""

    locale: str
    messages: Mapping[str, Message] = field(repr=False)
    source: Mapping[str, Any] = field(default=MappingProxyType({}), repr=False)

    def form(self, message: Message, count: Any) -> Parts:
        """The form of a message for a number, or the only one there is."""
        if not message.is_plural:
            return message.forms[OTHER]
        return message.forms.get(babel_locale(self.locale).plural_form(count)) or message.forms[OTHER]


@frozen
class Messages:
    """The catalogues of one recipient, best first. ``locale`` is that of the best."""

    locale: str
    catalogues: tuple[Catalogue, ...] = field(repr=False)

    def find(self, key: str, given: Set[str] = frozenset()) -> tuple[Catalogue, Message] | str | None:
        """The message of the first catalogue that has it and needs no more than what is ``given``.

        Otherwise the name of an argument that every catalogue misses, or None when no catalogue has the key.
        """
        missing: str | None = None
        for catalogue in self.catalogues:
            message = catalogue.messages.get(key)
            if message is None:
                continue
            lacking = sorted(message.placeholders - given)
            if message.is_plural and COUNT not in given:
                lacking = [COUNT]
            if not lacking:
                return catalogue, message
            missing = lacking[0]
        return missing


def messages_for(catalogues: Mapping[str, Catalogue], locale: str | None, default_locale: str) -> Messages:
    """What applies to a recipient of that locale: of the requested one, what is left of it, then the organization's default.

    ``catalogues`` are an organization's by locale. Without any that applies, every key is missing.
    """
    found = tuple(catalogues[tag] for tag in chain(locale, default_locale) if tag in catalogues)
    return Messages(found[0].locale if found else default_locale, found)
