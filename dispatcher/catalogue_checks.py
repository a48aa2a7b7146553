"""Whether templates find their words: before they come into force, and before catalogues or layouts change under them.

Invariant: a template in force finds every message it uses in the catalogue of the organization's default locale, with all that
the message needs, unless the default locale itself was changed; so what it prints of a translation may be missing, but never all.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping
from typing import Final

from attrs import evolve

from dispatcher.catalogues import catalogue_faults, parse_catalogue
from dispatcher.definitions import Definition, Kind
from dispatcher.layouts import Library
from dispatcher.model import Template
from dispatcher.problems import Problem
from dispatcher.template_checks import needs_library
from dispatcher.template_limits import TemplateError
from dispatcher.template_parts import part_sources
from dispatcher.templates import CompiledTemplate
from dispatcher.translations import Catalogue

LISTED_MAX: Final = 20
"""How many templates a refusal names."""

_MESSAGE: Final = re.compile(r"\|\s*t\b")


def catalogues_of(definitions: Iterable[Definition]) -> dict[str, Catalogue]:
    """An organization's catalogues by locale, without those that can not be used."""
    found = {each.name: parse_catalogue(each.name, each.body) for each in definitions if each.kind is Kind.CATALOGUE}
    return {locale: made for locale, made in found.items() if isinstance(made, Catalogue)}


def word_faults(template: CompiledTemplate, catalogues: Mapping[str, Catalogue], default_locale: str) -> list[Problem]:
    """What a template would miss in the catalogues, with pointers to its parts."""
    return [
        evolve(problem, pointer=f"/{part}")
        for part, keys in template.keys_of_parts().items()
        for problem in catalogue_faults(keys, catalogues, default_locale)
    ]


def may_use_words(template: Template) -> bool:
    """Whether a template can take words from catalogues, itself or by what it includes. Cheap, and rather yes than no."""
    return needs_library(template) or any(_MESSAGE.search(part.source) for part in part_sources(template))


def words_lost(
    templates: Iterable[Template],
    library: Library,
    before: Mapping[str, Catalogue] | None,
    after: Mapping[str, Catalogue],
    default_locale: str,
) -> Generator[None, None, list[Problem]]:
    """What templates in force would miss, each named; what they missed ``before`` already is left out.

    Only the default locale counts: where a translation has gone, its words stand in. Compiles, so it stops at each for breath.
    """
    found: list[Problem] = []
    own_before, own_after = (_only(default_locale, each) for each in (before, after))
    for template in templates:
        if len(found) >= LISTED_MAX or not may_use_words(template):
            continue
        yield
        try:
            compiled = CompiledTemplate.of(template, library=library)
        except TemplateError:
            continue  # which is for others to tell
        was = [] if before is None else word_faults(compiled, own_before, default_locale)
        lost = [problem for problem in word_faults(compiled, own_after, default_locale) if problem not in was]
        if lost:
            what = f"The template '{template.name}' ({template.channel}, {template.locale})"
            found.append(evolve(lost[0], detail=f"{what} would be broken. {lost[0].detail}", pointer=""))
    return found


def _only(locale: str, catalogues: Mapping[str, Catalogue] | None) -> dict[str, Catalogue]:
    return {locale: catalogues[locale]} if catalogues and locale in catalogues else {}
