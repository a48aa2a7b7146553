"""Which language of a template somebody gets, and why."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.decisions import Code
from dispatcher.locales import chain
from dispatcher.model import Channel, OrganizationId, Template
from dispatcher.template_sets import TemplateSet, choose_locale
from dispatcher.templates import CompiledTemplate

SMS = Template("t1", OrganizationId("acme"), "purchase", Channel.SMS, "en", 1, None, "Hello", None, {})
TAGS = st.sampled_from(["en", "en-GB", "pt", "pt-BR", "pt-PT", "de", "zh-Hant", "zh-Hant-TW", "zh", "ar"])


def set_of(*locales: str) -> TemplateSet:
    return TemplateSet({locale: CompiledTemplate.of(evolve(SMS, locale=locale)) for locale in locales}, locales[0])


@pytest.mark.parametrize(
    ("requested", "locale", "code"),
    [
        ("pt-BR", "pt-BR", Code.LOCALE_REQUESTED),
        ("pt-PT", "pt", Code.LOCALE_SHORTENED),
        ("pt-PT-x-home", "pt", Code.LOCALE_SHORTENED),
        ("de", "en", Code.LOCALE_ORGANIZATION),
        (None, "en", Code.LOCALE_ORGANIZATION),
        ("en-US", "en", Code.LOCALE_SHORTENED),
    ],
)
def test_the_code_says_which_step_of_the_chain_found_it(requested: str | None, locale: str, code: Code) -> None:
    chosen = set_of("pt", "pt-BR", "en").choose(requested, "en-GB")

    assert (chosen.locale, chosen.code, chosen.template.locale) == (locale, code, locale)


def test_what_nobody_asked_for_is_the_templates_own_first() -> None:
    chosen = set_of("fr", "es").choose("de", "en")

    assert (chosen.locale, chosen.code) == ("fr", Code.LOCALE_TEMPLATE)


def test_a_language_is_not_the_beginning_of_another() -> None:
    assert set_of("sv", "fi").choose("fil", "fi").code is Code.LOCALE_ORGANIZATION
    assert set_of("fi").choose("fil", "sv").code is Code.LOCALE_TEMPLATE


@given(st.sets(TAGS, min_size=1), st.none() | TAGS, TAGS, st.data())
def test_it_is_always_the_first_of_the_chain_that_is_there(
    there: set[str], requested: str | None, default: str, data: st.DataObject
) -> None:
    first = data.draw(st.sampled_from(sorted(there)))
    locale, code = choose_locale(there, requested, default, first)
    tried = chain(requested, default, first)

    assert locale in there
    assert not any(earlier in there for earlier in tried[: tried.index(locale)])
    assert (code is Code.LOCALE_REQUESTED) is (locale == requested)
    if code is Code.LOCALE_TEMPLATE:
        assert locale == first


def test_the_answer_is_the_same_when_asked_again() -> None:
    found = set_of("pt", "en")

    assert found.choose("pt-BR", "en") == found.choose("pt-BR", "en")
    assert found.choose("pt-BR", "en") != found.choose("de", "en")
