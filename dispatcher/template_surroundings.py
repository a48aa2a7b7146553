"""What the templates of an organization are surrounded by: its layouts, its catalogues of words, its default locale.

Invariant: a template that has no faults within its surroundings renders in them whenever its variables are as it declares them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from dispatcher.catalogue_checks import catalogues_of, word_faults
from dispatcher.definitions import Definition
from dispatcher.layouts import library_of
from dispatcher.localization import Localization
from dispatcher.model import Template
from dispatcher.problems import Problem
from dispatcher.template_checks import template_faults
from dispatcher.template_includes import Library
from dispatcher.templates import CompiledTemplate
from dispatcher.translations import Catalogue, messages_for


@frozen
class Surroundings:
    """An organization's layouts by name, its catalogues by locale, and the locale that ends every chain."""

    library: Library = field(repr=False)
    catalogues: Mapping[str, Catalogue] = field(repr=False)
    default_locale: str

    @classmethod
    def of(cls, definitions: Iterable[Definition], default_locale: str) -> Surroundings:
        """Those among an organization's definitions. What this program can not read is left out."""
        found = list(definitions)
        return cls(library_of(found), catalogues_of(found), default_locale)

    def compiled(self, template: Template) -> CompiledTemplate:
        """A template with what it includes. Raises TemplateError."""
        return CompiledTemplate.of(template, library=self.library)

    def localization(self, locale: str, time_zone: str) -> Localization:
        """For a recipient of this locale and zone."""
        messages = messages_for(self.catalogues, locale, self.default_locale) if self.catalogues else None
        return Localization(locale, time_zone, messages)

    def faults(self, template: Template) -> list[Problem]:
        """Everything that is wrong with a template here, with pointers into it as it is handed in."""
        faults = template_faults(template, self.library)
        if not faults:
            faults.extend(word_faults(self.compiled(template), self.catalogues, self.default_locale))
        return faults
