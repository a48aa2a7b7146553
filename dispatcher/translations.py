"""What a template's keys mean: the messages of one catalogue, and the catalogues that apply to one recipient, best first.

Invariant: what is found for a key is that of the first catalogue of the chain that has it, the organization's default being the
last. These records are made by :mod:`dispatcher.catalogues`, which checks them, and are shared by all renderings.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from attrs import field, frozen

from dispatcher.locales import chain

Parts = tuple[tuple[str, str | None], ...]
"""A form taken apart: literal text, and the name of the placeholder behind it; None behind the last."""


@frozen
class Message:
    """One message in one locale. ``forms`` by plural category (CLDR); a message without a plural has ``other`` alone."""

    forms: Mapping[str, Parts] = field(repr=False)
    is_plural: bool = False

    @property
    def placeholders(self) -> frozenset[str]:
        """The names that its forms use, all together."""
        return frozenset(name for parts in self.forms.values() for _, name in parts if name is not None)


@frozen
class Catalogue:
    """The messages of one locale, a normal tag. ``source`` is the document it was made of."""

    locale: str
    messages: Mapping[str, Message] = field(repr=False)
    source: Mapping[str, object] = field(default=MappingProxyType({}), repr=False)


@frozen
class Messages:
    """The catalogues of one recipient, best first. ``locale`` is that of the best."""

    locale: str
    catalogues: tuple[Catalogue, ...] = field(repr=False)

    def find(self, key: str) -> tuple[str, Message] | None:
        """The message of the first catalogue that has the key, with that catalogue's locale."""
        for catalogue in self.catalogues:
            message = catalogue.messages.get(key)
            if message is not None:
                return catalogue.locale, message
        return None


def messages_for(catalogues: Mapping[str, Catalogue], locale: str | None, default_locale: str) -> Messages:
    """What applies to a recipient of that locale: of the requested one, what is left of it, then the organization's default.

    ``catalogues`` are an organization's by locale. Without any that applies, every key is missing.
    """
    found = tuple(catalogues[tag] for tag in chain(locale, default_locale) if tag in catalogues)
    return Messages(found[0].locale if found else default_locale, found)
