"""Catalogues: what is one, what a recipient gets out of several, and how a translation falls behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dispatcher.catalogues import catalogue_faults, categories_of, parse_catalogue, set_faults, stale, state
from dispatcher.problems import Problem
from dispatcher.translations import Catalogue, messages_for, parts_of

ENGLISH = {
    "greeting": {"text": "Hello {name}"},
    "tickets": {"plural": {"one": "{count} ticket", "other": "{count} tickets"}},
    "bye": {"text": "Goodbye"},
}


def catalogue(locale: str, messages: Mapping[str, Any]) -> Catalogue:
    found = parse_catalogue(locale, {"messages": messages})
    assert isinstance(found, Catalogue)
    return found


def faults_of(locale: str, body: Mapping[str, Any]) -> list[tuple[str | None, str]]:
    found = parse_catalogue(locale, body)
    assert isinstance(found, Problem)
    assert found.status == 422
    return [(each.pointer, each.code) for each in (found.errors or (found,))]


def test_a_catalogue_is_its_messages_by_key() -> None:
    found = catalogue("en", ENGLISH)

    assert (found.locale, list(found.messages)) == ("en", ["greeting", "tickets", "bye"])
    assert found.messages["greeting"].forms == {"other": (("Hello ", "name"),)}
    assert found.messages["tickets"].placeholders == {"count"}


def test_every_fault_of_a_catalogue_is_named_at_once() -> None:
    body = {
        "locale": "en",
        "messages": {
            "": {"text": "x"},
            "a": {"text": "one { brace"},
            "b": {"text": "x", "plural": {"other": "x"}},
            "c": {},
            "d": {"plural": {"one": "x", "few": "y"}},
            "e": {"text": "", "note": "two  spaces", "fuzzy": 1, "source": {"one": "x"}, "more": 1},
            "f": "text",
            "g": {"text": "a\x07"},
            "h/i": {"text": "\u202eturned"},
            "j": {"plural": ["x"]},
            "k": {"text": "ok", "source": ""},
            "l": {"text": "ok", "note": "\u202eturned"},
        },
    }

    assert faults_of("en", body) == [
        ("", "field_unknown"),
        ("/messages", "name_invalid"),
        ("/messages/a/text", "placeholder_invalid"),
        ("/messages/b", "field_invalid"),
        ("/messages/c", "field_missing"),
        ("/messages/d/plural", "plural_unknown"),
        ("/messages/d/plural/other", "field_missing"),
        ("/messages/e", "field_unknown"),
        ("/messages/e/source", "field_invalid"),
        ("/messages/e/note", "field_invalid"),
        ("/messages/e/fuzzy", "field_invalid"),
        ("/messages/e/text", "field_invalid"),
        ("/messages/f", "field_invalid"),
        ("/messages/g/text", "field_invalid"),
        ("/messages/h~1i/text", "field_invalid"),
        ("/messages/j/plural", "field_invalid"),
        ("/messages/k/source", "field_invalid"),
        ("/messages/l/note", "field_invalid"),
    ]


@pytest.mark.parametrize("name", ["", "pt_BR", "EN", "not a tag", "x"])
def test_a_catalogue_is_called_by_a_normal_tag(name: str) -> None:
    assert faults_of(name, {"messages": {}}) == [("", "name_invalid")]


@pytest.mark.parametrize(("body", "pointer"), [({}, "/messages"), ({"messages": []}, "/messages")])
def test_a_catalogue_has_messages(body: dict[str, Any], pointer: str) -> None:
    assert [where for where, _ in faults_of("en", body)] == [pointer]


def test_no_fault_repeats_what_a_message_says() -> None:
    found = parse_catalogue("en", {"messages": {"a": {"text": "hush {"}, "b": {"text": "hush", "note": 5}}})

    assert isinstance(found, Problem)
    assert "hush" not in repr(found)
    assert "hush" not in repr(catalogue("en", {"a": {"text": "hush"}}))


@pytest.mark.parametrize(
    ("locale", "categories"),
    [
        ("en", ("one", "other")),
        ("ja", ("other",)),
        ("pl", ("one", "few", "many", "other")),
        ("ar", ("zero", "one", "two", "few", "many", "other")),
        ("pt-BR", ("one", "many", "other")),
    ],
)
def test_plural_categories_are_those_of_cldr(locale: str, categories: tuple[str, ...]) -> None:
    assert categories_of(locale) == categories
    catalogue(locale, {"a": {"plural": dict.fromkeys(categories, "x")}})


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("plain", (("plain", None),)),
        ("{a}", (("", "a"),)),
        ("{a}{b_1} {{c}} ", (("", "a"), ("", "b_1"), (" {c} ", None))),
        ("a } b", None),
        ("{}", None),
        ("{a.b}", None),
        ("{a!r}", None),
        ("{{a}", None),
        ("{ä}", None),
    ],
)
def test_placeholders_are_names_in_braces_and_nothing_more(text: str, parts: object) -> None:
    assert parts_of(text) == parts


def test_a_message_is_looked_for_along_the_chain_of_locales() -> None:
    catalogues = {
        "en": catalogue("en", ENGLISH),
        "pt": catalogue("pt", {"greeting": {"text": "Olá {name}"}, "bye": {"text": "Adeus"}}),
        "pt-BR": catalogue("pt-BR", {"bye": {"text": "Tchau"}}),
        "de": catalogue("de", {"bye": {"text": "Tschüss"}}),
    }
    messages = messages_for(catalogues, "pt-BR", "en")

    def found_in(key: str, *given: str) -> object:
        found = messages.find(key, frozenset(given))
        return found[0].locale if isinstance(found, tuple) else found

    assert messages.locale == "pt-BR"
    assert [found_in("bye"), found_in("greeting", "name"), found_in("tickets", "count")] == ["pt-BR", "pt", "en"]
    assert (found_in("greeting"), found_in("none")) == ("name", None)
    assert messages_for(catalogues, "fr", "en").locale == "en"
    assert messages_for({}, "fr", "en").find("bye") is None


def test_a_translation_that_needs_more_than_it_is_given_gives_way_to_the_default() -> None:
    """A changed translation must not stop a mail whose template was checked against the one before."""
    catalogues = {"en": catalogue("en", ENGLISH), "pt": catalogue("pt", {"greeting": {"text": "Olá {name} {surname}"}})}
    found = messages_for(catalogues, "pt", "en").find("greeting", frozenset({"name"}))

    assert isinstance(found, tuple)
    assert found[0].locale == "en"


def test_a_translation_of_words_that_have_changed_is_stale() -> None:
    german = {
        "greeting": {"text": "Hallo {name}", "source": "Hello {name}"},
        "bye": {"text": "Tschüss", "source": "Bye"},
        "tickets": {"plural": {"one": "x", "other": "y"}, "source": {"one": "{count} ticket", "other": "{count} tickets"}},
    }
    catalogues = {"en": catalogue("en", ENGLISH), "de": catalogue("de", german), "fr": catalogue("fr", {"bye": {"text": "x"}})}

    assert stale(catalogues, "en") == {"de": ("bye",)}

    changed = ENGLISH | {"tickets": {"plural": {"one": "a ticket", "other": "{count} tickets"}}}
    assert stale(catalogues | {"en": catalogue("en", changed)}, "en") == {"de": ("bye", "tickets")}


def test_a_translation_marked_as_doubtful_is_stale_until_the_mark_goes() -> None:
    doubtful = {"bye": {"text": "Tschüss", "source": "Goodbye", "fuzzy": True}}
    catalogues = {"en": catalogue("en", ENGLISH), "de": catalogue("de", doubtful)}

    assert stale(catalogues, "en") == {"de": ("bye",)}
    assert stale(catalogues | {"de": catalogue("de", {"bye": doubtful["bye"] | {"fuzzy": False}})}, "en") == {}


def test_how_a_translation_stands_is_told_by_key() -> None:
    german = {"greeting": {"text": "Hallo {nane}"}, "tickets": {"text": "Karten"}, "more": {"text": "mehr"}}
    catalogues = {"en": catalogue("en", ENGLISH), "de": catalogue("de", german)}

    assert state(catalogues, "en", "de") == {"stale": [], "missing": ["bye"], "unused": ["more"], "differing": ["greeting"]}
    assert state(catalogues, "en", "en") == {"stale": [], "missing": [], "unused": [], "differing": []}


def test_catalogues_set_together_have_the_same_placeholders() -> None:
    catalogues = {
        "en": catalogue("en", ENGLISH),
        "de": catalogue("de", {"greeting": {"text": "Hallo"}, "tickets": {"plural": {"one": "eine Karte", "other": "Karten"}}}),
        "fr": catalogue("fr", {"bye": {"text": "Au revoir {name}"}}),
    }

    assert [(each.pointer, each.code) for each in set_faults(catalogues, "en")] == [
        ("/de/messages/greeting", "placeholders_differ"),
        ("/fr/messages/bye", "placeholders_differ"),
    ]
    assert set_faults({"de": catalogues["de"]}, "en") == ()


def test_a_template_that_uses_what_no_catalogue_has_can_not_be_published() -> None:
    catalogues = {"en": catalogue("en", ENGLISH), "pt": catalogue("pt", {"bye": {"text": "Adeus {name}"}})}
    used = [
        ("bye", frozenset[str]()),
        ("tickets", frozenset({"n"})),
        ("none", frozenset[str]()),
        ("greeting", frozenset({"name"})),
    ]

    assert [(each.code, each.detail) for each in catalogue_faults(used, catalogues, "en")] == [
        ("template_message_argument_missing", "Key 'bye' is used without 'name', which its message in pt needs."),
        ("template_message_missing", "Key 'none' is not in the catalogue of en."),
        ("template_message_argument_missing", "Key 'tickets' is used without 'count', which its message in en needs."),
    ]
    assert catalogue_faults([], {}, "en") == ()
