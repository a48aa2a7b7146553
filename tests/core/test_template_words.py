"""Words of catalogues in templates: which are taken, in which form, and what stands in them."""

from __future__ import annotations

from typing import Any

import pytest
from markupsafe import Markup

from dispatcher.catalogues import catalogue_faults, parse_catalogue
from dispatcher.layouts import Layout
from dispatcher.localization import NEUTRAL, Localization
from dispatcher.model import Channel, OrganizationId, Template
from dispatcher.template_limits import Budget, MissingVariable, TemplateError
from dispatcher.template_sandbox import compile_source
from dispatcher.templates import DEFAULT_LIMITS, CompiledTemplate
from dispatcher.translations import Catalogue, messages_for

DOCUMENTS: dict[str, dict[str, Any]] = {
    "en": {
        "greeting": {"text": "Hello {name}"},
        "tickets": {"plural": {"one": "{count} ticket for {name}", "other": "{count} tickets for {name}"}},
        "braces": {"text": "a {{b}} <i>&</i>"},
        "total": {"text": "Total: {total}"},
    },
    "pl": {"tickets": {"plural": {"one": "{count} bilet", "few": "{count} bilety", "many": "{count} biletów", "other": "…"}}},
    "pt": {"greeting": {"text": "Olá {name}"}, "total": {"text": "Total: {total}"}},
    "he": {"greeting": {"text": "שלום {name}"}, "total": {"text": "סך הכול: {total}"}},
}


def catalogues() -> dict[str, Catalogue]:
    found = {locale: parse_catalogue(locale, {"messages": messages}) for locale, messages in DOCUMENTS.items()}
    return {locale: each for locale, each in found.items() if isinstance(each, Catalogue)}


def said(source: str, locale: str, escapes: bool = False, **variables: Any) -> str:
    compiled = compile_source(source, escapes=escapes, limits=DEFAULT_LIMITS)
    localization = Localization(locale, "UTC", messages_for(catalogues(), locale, "en"))
    return compiled.run(variables, Budget(50_000, 100_000), 100_000, localization)


def template(locale: str, body: str, html: str | None = None) -> CompiledTemplate:
    channel = Channel.EMAIL if html else Channel.SMS
    return CompiledTemplate.of(
        Template("id", OrganizationId("acme"), "name", channel, locale, 1, "Subject" if html else None, body, html, {})
    )


@pytest.mark.parametrize(
    ("locale", "written"), [("en", "Hello Ana."), ("pt-BR", "Olá Ana."), ("fr", "Hello Ana."), ("en-GB", "Hello Ana.")]
)
def test_a_key_becomes_the_words_of_the_recipient_s_locale(locale: str, written: str) -> None:
    assert said("{{ 'greeting'|t(name=user.name) }}.", locale, user={"name": "Ana"}) == written


@pytest.mark.parametrize(
    ("locale", "count", "written"),
    [
        ("en", 1, "1 ticket for Ana"),
        ("en", 0, "0 tickets for Ana"),
        ("en", 1234, "1,234 tickets for Ana"),
        ("en", "1.0", "1 ticket for Ana"),
        ("pl", 1, "1 bilet"),
        ("pl", 3, "3 bilety"),
        ("pl", 5, "5 biletów"),
        ("pl", 1.5, "…"),
        ("pt", 1, "1 ticket for Ana"),
    ],
)
def test_the_count_chooses_the_plural_by_the_rule_of_the_words_locale(locale: str, count: Any, written: str) -> None:
    assert said("{{ 'tickets'|t(count=n, name='Ana') }} ", locale, n=count) == f"{written} "


def test_words_are_text_and_never_markup() -> None:
    assert said("{{ 'braces'|t }} ", "en") == "a {b} <i>&</i> "
    assert said("<p>{{ 'braces'|t }}</p>", "en", True) == "<p>a {b} &lt;i&gt;&amp;&lt;/i&gt;</p>"
    assert said("<p>{{ 'greeting'|t(name=x) }}</p>", "en", True, x="<b>") == "<p>Hello &lt;b&gt;</p>"
    assert said("<p>{{ 'greeting'|t(name=x|safe) }}</p>", "en", True, x="<b>") == "<p>Hello <b></p>"
    assert said("{{ 'greeting'|t(name=x)|upper }} ", "en", x="<b>") == "HELLO <B> "
    assert isinstance(said("x", "en"), str)
    assert not isinstance(said("<p>{{ 'braces'|t }}</p>", "en", True), Markup)


def test_a_placeholder_in_a_value_is_no_placeholder() -> None:
    assert said("{{ 'greeting'|t(name='{name}') }}!", "en") == "Hello {name}!"


def test_values_are_isolated_within_the_words_and_the_words_are_not() -> None:
    assert said("{{ 'greeting'|t(name='Ana') }} !", "he") == "שלום \u2068Ana\u2069 !"
    assert said("<p>{{ 'greeting'|t(name='Ana') }}</p>", "he", True) == "<p>שלום <bdi>Ana</bdi></p>"
    assert said("<p>{{ 'greeting'|t(name='דנה') }}</p>", "en", True) == "<p>Hello <bdi>דנה</bdi></p>"
    assert said('<p title=\'{{ "greeting"|t(name="Ana") }}\'>x</p>', "he", True) == "<p title='שלום Ana'>x</p>"
    assert said("{{ 'total'|t(total=9|money('ILS')) }} !", "he") == "סך הכול: \u2068\u200f9.00\u00a0\u200f₪\u2069 !".replace(
        "\u00a0", " "
    )


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("{{ key|t }}", "template_message_key"),
        ("{{ ('a' ~ b)|t }}", "template_message_key"),
        ("{{ 5|t }}", "template_message_key"),
        ("{{ 'greeting'|t('Ana') }}", "template_message_key"),
        ("{{ 'greeting'|t(**x) }}", "template_construct_forbidden"),
    ],
)
def test_which_messages_a_template_uses_stands_in_it(source: str, code: str) -> None:
    with pytest.raises(TemplateError) as raised:
        compile_source("\n" + source, escapes=False, limits=DEFAULT_LIMITS)

    assert (raised.value.code, raised.value.line) == (code, 2)


def test_no_key_comes_from_the_variables() -> None:
    for source in ("{{ ['greeting']|map('t')|first }}", "{{ ['greeting']|map(f)|first }}", "{{ ['greeting']|map('@t')|first }}"):
        with pytest.raises(TemplateError):
            said(source, "en", f="t")


@pytest.mark.parametrize(
    ("source", "code", "name"),
    [
        ("{{ 'none'|t }}", "template_message_missing", "none"),
        ("{{ 'greeting'|t }}", "template_message_argument_missing", "greeting.name"),
        ("{{ 'tickets'|t(name='x') }}", "template_message_argument_missing", "tickets.count"),
        ("{{ 'greeting'|t(name=user.name) }}", "template_variable_missing", "user.name"),
        ("{{ 'greeting'|t(name=none) }}", "template_variable_missing", "name"),
        ("{{ 'tickets'|t(name='x', count='many') }}", "template_number_invalid", None),
        ("{{ 'greeting'|t(name=[1]) }}", "template_value_wrong", None),
    ],
)
def test_words_that_can_not_be_put_together_name_what_is_missing(source: str, code: str, name: str | None) -> None:
    with pytest.raises(TemplateError) as raised:
        said(source, "pt-BR", user={})

    assert (raised.value.code, raised.value.name, raised.value.line) == (code, name, 1)
    assert isinstance(raised.value, MissingVariable) is (code == "template_variable_missing")


def test_without_catalogues_every_key_is_missing() -> None:
    with pytest.raises(TemplateError, match="template_message_missing"):
        template("en", "{{ 'greeting'|t(name='Ana') }}").render_payload({}, NEUTRAL)


def test_a_template_knows_its_keys_so_that_publishing_can_check_them() -> None:
    found = template(
        "en",
        "{{ 'greeting'|t(name=x) }}{% if x %}{{ 'greeting'|t }}{% endif %}",
        "<p>{{ 'tickets'|t(count=1, name=x) ~ 'greeting' }}</p>",
    )

    assert found.keys == {
        ("greeting", frozenset({"name"})),
        ("greeting", frozenset()),
        ("tickets", frozenset({"count", "name"})),
    }
    assert [each.detail for each in catalogue_faults(found.keys, catalogues(), "en")] == [
        "Key 'greeting' is used without 'name', which its message in en needs.",
        "Key 'greeting' is used without 'name', which its message in he needs.",
        "Key 'greeting' is used without 'name', which its message in pt needs.",
    ]


def test_numbers_are_written_for_the_locale_of_the_words() -> None:
    """The words of a template are its own, or the catalogue's where it takes them from there."""
    own = template("en", "Total: {{ total|number }}")
    borrowed = template("en", "{{ 'total'|t(total=total|number) }}")

    def written(found: CompiledTemplate, locale: str) -> str:
        localization = Localization(locale, "UTC", messages_for(catalogues(), locale, "en"))
        return str(found.render_payload({"total": 1234.5}, localization)["text"])

    assert [written(own, locale) for locale in ("pt-BR", "fr", "en-ZA")] == ["Total: 1,234.5", "Total: 1,234.5", "Total: 1 234,5"]
    assert [written(borrowed, locale) for locale in ("pt-BR", "fr")] == ["Total: 1.234,5", "Total: 1,234.5"]
    assert template("pt", "{{ total|number }}").render_payload({"total": 1234.5})["text"] == "1.234,5"


def test_words_are_paid_for() -> None:
    compiled = compile_source("{{ 'greeting'|t(name=x) }}", escapes=False, limits=DEFAULT_LIMITS)
    localization = Localization("en", "UTC", messages_for(catalogues(), "en", "en"))

    with pytest.raises(TemplateError, match="template_value_too_large"):
        compiled.run({"x": "x" * 2_000}, Budget(1_000, 1_000), 5_000, localization)
    with pytest.raises(TemplateError, match="template_steps_exceeded"):
        compiled.run({"x": "x"}, Budget(6, 1_000), 5_000, localization)


def test_subjects_and_push_texts_are_isolated_and_what_programs_read_is_not() -> None:
    mail = Template("id", OrganizationId("acme"), "n", Channel.EMAIL, "en", 1, "For {{ name }}!", "Hi {{ name }}!", None, {})
    parts = {"title": "שלום {{ name }}!", "data": {"order": "a {{ name }} b", "name": "{{ name }}"}}
    push = Template("id", OrganizationId("acme"), "n", Channel.PUSH, "he", 1, None, "שלום {{ name }}!", None, {}, parts=parts)

    assert CompiledTemplate.of(mail).render_payload({"name": "דנה"}) == {
        "subject": "For \u2068דנה\u2069!",
        "text": "Hi \u2068דנה\u2069!",
    }
    assert CompiledTemplate.of(push).render_payload({"name": "Ana"}) == {
        "title": "שלום \u2068Ana\u2069!",
        "text": "שלום \u2068Ana\u2069!",
        "data": {"order": "a Ana b", "name": "Ana"},
    }


def test_a_layout_that_is_all_content_adds_nothing_and_takes_nothing_away() -> None:
    found = CompiledTemplate.of(
        Template(
            "id", OrganizationId("acme"), "n", Channel.SMS, "en", 1, None, "Hi {{ name }}!", None, {}, parts={"layout": "base"}
        ),
        library={"base": Layout("base", "{{ content }}", None, True)},
    )

    assert found.render_payload({"name": "דנה"})["text"] == "Hi \u2068דנה\u2069!"
