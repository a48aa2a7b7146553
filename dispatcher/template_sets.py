"""The published versions of one template in all its languages, and which of them somebody gets.

What is asked for is looked up first and shortened from the right (RFC 4647, section 3.4), then the organization's default, then
the locale the template was first stored in. Invariant: a set is never empty, so there is always one to choose, and the code says
which step of the chain found it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Generic, TypeVar

from attrs import define, field, frozen

from dispatcher.decisions import Code
from dispatcher.locales import chain
from dispatcher.templates import CompiledTemplate

T = TypeVar("T")


@frozen
class Chosen(Generic[T]):
    """The template somebody gets, the locale it is in, and how it was found."""

    template: T
    code: Code
    locale: str


@define
class TemplateSet:
    """One template by locale. ``first_locale`` is the one that was stored first; it is in ``by_locale``."""

    by_locale: Mapping[str, CompiledTemplate] = field(repr=False)
    first_locale: str
    _chosen: dict[tuple[str | None, str], Chosen[CompiledTemplate]] = field(init=False, factory=dict, repr=False, eq=False)

    def choose(self, requested: str | None, organization_default: str) -> Chosen[CompiledTemplate]:
        """The template for whoever asks for this locale. Both are normal tags."""
        found = self._chosen.get((requested, organization_default))
        if found is None:
            locale, code = choose_locale(self.by_locale, requested, organization_default, self.first_locale)
            found = Chosen(self.by_locale[locale], code, locale)
            if len(self._chosen) < _REMEMBERED_MAX:
                self._chosen[requested, organization_default] = found
        return found


_REMEMBERED_MAX = 256
"""Wanted locales a set remembers the answer for; a template has a few languages, and so have the people who get it."""


def choose_locale(there: Container[str], requested: str | None, organization_default: str, first: str) -> tuple[str, Code]:
    """The locale of the chain that is there, and which step of the chain it is. ``first`` is there."""
    for locale in chain(requested, organization_default, first):
        if locale in there:
            if locale == requested:
                return locale, Code.LOCALE_REQUESTED
            if requested is not None and requested.startswith(locale + "-"):
                return locale, Code.LOCALE_SHORTENED
            if locale == organization_default or organization_default.startswith(locale + "-"):
                return locale, Code.LOCALE_ORGANIZATION
            return locale, Code.LOCALE_TEMPLATE
    return first, Code.LOCALE_TEMPLATE
