"""Catalogues as PO files: what is written is read again, and what others write is understood or refused by line."""

from __future__ import annotations

from gettext import c2py
from io import BytesIO
from typing import Any

import pytest
from babel import Locale, localedata
from babel.messages.pofile import read_po
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.bidi import balanced
from dispatcher.catalogues import categories_of, parse_catalogue, stale, state
from dispatcher.po_files import from_po, plural_forms_of, to_po
from dispatcher.problems import Problem
from dispatcher.translations import Catalogue, parts_of

LOCALES = ["de", "pt-BR", "ar", "he", "fa", "pl", "cs", "ja", "zh-Hant-TW", "tlh"]
ODD = ['"', "\\", "\\n", "\n", "\t", "{name}", "{{", "שלום", "مرحبا", "\u200f", "\u2068x\u2069", "#", "%s", "a-b", "  ", "msgid"]
CHARACTERS = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])
PIECES = st.lists(st.one_of(st.sampled_from(ODD), st.text(CHARACTERS, max_size=8)))
TEXTS = PIECES.map("".join).filter(lambda text: text.strip() and parts_of(text) is not None and balanced(text) == text)
NUMBERS = (*range(25), 100, 101, 111, 1_000_000)
LINES = ["|", "~", '"', 'msgctxt "a"', 'msgid "b"', 'msgstr "c"', "msgstr[1]", "#, fuzzy", "#| ", "#~"]
NOTES = st.lists(st.text("abc-.:~|", min_size=1, max_size=30), max_size=30).map(" ".join).filter(lambda note: note[:1] != "|")
KEYS = st.text("abcXYZ019._:/-", min_size=1, max_size=12).filter(lambda key: key[0].isalnum())


def catalogue(locale: str, messages: dict[str, Any]) -> Catalogue:
    found = parse_catalogue(locale, {"messages": messages})
    assert isinstance(found, Catalogue), found
    return found


def plurals(locale: str) -> st.SearchStrategy[dict[str, str]]:
    others = [category for category in categories_of(locale) if category != "other"]
    return st.fixed_dictionaries({"other": TEXTS}, optional=dict.fromkeys(others, TEXTS))


@st.composite
def set_ups(draw: st.DrawFn) -> tuple[Catalogue, Catalogue]:
    """A default catalogue, and a translation of some of it: up to date, stale, doubtful."""
    original: dict[str, Any] = {}
    translation: dict[str, Any] = {}
    locale = draw(st.sampled_from(LOCALES))
    for key in draw(st.lists(KEYS, unique=True, max_size=5)):
        is_plural = draw(st.booleans())
        forms = st.fixed_dictionaries({"other": TEXTS, "one": TEXTS})
        words = draw(forms) if is_plural else draw(TEXTS)
        original[key] = {"plural": words} if is_plural else {"text": words}
        if note := draw(NOTES):
            original[key]["note"] = note
        if draw(st.booleans()):
            source = draw(st.one_of(st.just(words), forms if is_plural else TEXTS))
            entry: dict[str, Any] = {"plural": draw(plurals(locale))} if is_plural else {"text": draw(TEXTS)}
            entry["source"] = source
            if source == words and draw(st.booleans()):
                entry["fuzzy"] = True
            if note := draw(NOTES):
                entry["note"] = note
            translation[key] = entry
    return catalogue("en", original), catalogue(locale, translation)


@given(set_ups())
@settings(max_examples=60)
def test_a_translation_that_is_written_and_read_is_the_same_one(set_up: tuple[Catalogue, Catalogue]) -> None:
    default, translation = set_up
    found = from_po(to_po(translation, default), translation.locale, "en")

    assert found == translation.source
    assert stale({"en": default, translation.locale: catalogue(translation.locale, found["messages"])}, "en") == stale(
        {"en": default, translation.locale: translation}, "en"
    )


@given(set_ups())
@settings(max_examples=30)
def test_the_default_catalogue_is_too(set_up: tuple[Catalogue, Catalogue]) -> None:
    default, _ = set_up

    assert from_po(to_po(default, default), "en", "en") == default.source
    assert from_po(to_po(default, None), "en", "en") == default.source


ENGLISH = catalogue(
    "en",
    {
        "greeting": {"text": "Hello {name}", "note": "Begins every mail"},
        "tickets": {"plural": {"one": "{count} ticket", "other": "{count} tickets"}},
    },
)


def test_a_file_is_what_translators_programs_know() -> None:
    german = {
        "greeting": {"text": "Hallo {name}", "source": "Hi {name}", "note": "informal"},
        "tickets": {"plural": {"one": "{count} Karte", "other": "{count} Karten"}},
    }
    written = to_po(catalogue("de", german), ENGLISH)

    assert written.decode() == (
        "#\n"
        'msgid ""\n'
        'msgstr ""\n'
        '"Language: de\\n"\n'
        '"MIME-Version: 1.0\\n"\n'
        '"Content-Type: text/plain; charset=utf-8\\n"\n'
        '"Content-Transfer-Encoding: 8bit\\n"\n'
        '"Plural-Forms: nplurals=2; plural=((((n == 1)) && ((0 == 0))) ? 0 : 1);\\n"\n'
        "\n"
        "# informal\n"
        "#. Begins every mail\n"
        "#, fuzzy, python-brace-format\n"
        '#| msgid "Hi {name}"\n'
        'msgctxt "greeting"\n'
        'msgid "Hello {name}"\n'
        'msgstr "Hallo {name}"\n'
        "\n"
        "#, python-brace-format\n"
        'msgctxt "tickets"\n'
        'msgid "{count} ticket"\n'
        'msgid_plural "{count} tickets"\n'
        'msgstr[0] "{count} Karte"\n'
        'msgstr[1] "{count} Karten"\n'
        "\n"
    )
    assert len(read_po(BytesIO(written))) == 2


def test_the_rule_of_every_language_is_one_that_gettext_reads() -> None:
    """And chooses the category that CLDR does, where numbers are whole."""
    names = [name for name in localedata.locale_identifiers() if "_" not in name]
    for language in {*names[::5], "fr", "es", "it", "pt", "ca", "pl", "cs", "ar", "cy", "ga", "lv", "sl"}:
        choose = c2py(plural_forms_of(language).partition("plural=")[2].rstrip(";"))
        rule, categories = Locale.parse(language).plural_form, categories_of(language)
        assert [categories[choose(number)] for number in NUMBERS] == [rule(number) for number in NUMBERS], language


def test_a_file_is_the_same_whenever_it_is_written() -> None:
    assert to_po(ENGLISH, ENGLISH) == to_po(ENGLISH, ENGLISH)
    assert b"20" not in to_po(ENGLISH, ENGLISH)


def test_what_is_not_translated_stands_in_the_file_and_is_no_message_when_read() -> None:
    written = to_po(catalogue("de", {}), ENGLISH)

    assert written.count(b"msgctxt") == 2
    assert from_po(written, "de", "en") == {"messages": {}}


HEADER = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n'


def po(*entries: str, header: str = "") -> bytes:
    return (HEADER + (f'"{header}\\n"\n' if header else "") + "\n" + "\n".join(entries)).encode()


@pytest.mark.parametrize(
    ("locale", "forms", "strings", "plural"),
    [
        (
            "pl",
            "nplurals=3; plural=(n==1 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2);",
            ["a", "b", "c"],
            {"one": "a", "few": "b", "many": "c", "other": "c"},
        ),
        ("fr", "nplurals=2; plural=(n > 1);", ["a", "b"], {"one": "a", "many": "b", "other": "b"}),
        ("de", "nplurals=2; plural=n == 1;", ["a", "b"], {"one": "b", "other": "a"}),
        ("ja", "nplurals=1; plural=0;", ["a"], {"other": "a"}),
        ("ar", "", ["z", "o", "t", "f", "m", "x"], {"zero": "z", "one": "o", "two": "t", "few": "f", "many": "x", "other": "m"}),
    ],
)
def test_forms_that_others_number_are_read_by_their_own_rule(
    locale: str, forms: str, strings: list[str], plural: dict[str, str]
) -> None:
    entry = 'msgctxt "k"\nmsgid "one"\nmsgid_plural "more"\n' + "\n".join(
        f'msgstr[{index}] "{string}"' for index, string in enumerate(strings)
    )
    found = from_po(po(entry, header=f"Plural-Forms: {forms}" if forms else ""), locale, "en")

    assert found == {"messages": {"k": {"plural": plural, "source": {"one": "one", "other": "more"}}}}


def test_what_others_write_is_understood() -> None:
    """Folded texts, previous words over several lines, comments of people, obsolete messages, Windows' line ends, a mark."""
    file = (
        "\ufeff# A header of somebody\n"
        + HEADER
        + '\n# by hand\n#. from the program\n#: app.py:5\n#, fuzzy\n#| msgid ""\n#| "Hi "\n#| "\\"you\\""\n'
        + 'msgctxt "a"\nmsgid ""\n"Hello "\n"you"\nmsgstr "Hallo "\n"du"\n'
        + '\n#~ msgctxt "b"\n#~ msgid "old"\n#~ msgstr "alt"\n'
        + '\n#, fuzzy\nmsgctxt "c"\nmsgid "x"\nmsgstr "y"\n'
    ).replace("\n", "\r\n")

    assert from_po(file.encode(), "de", "en") == {
        "messages": {
            "a": {"text": "Hallo du", "source": 'Hi "you"', "note": "by hand"},
            "c": {"text": "y", "source": "x", "fuzzy": True},
        }
    }


@pytest.mark.parametrize(
    ("data", "faults"),
    [
        (b"\xff\xfe", [("po_encoding", "/lines/1")]),
        (po("nonsense"), [("po_invalid", "/lines/5")]),
        (po('msgid "a"', 'msgid "b"', 'msgstr "c"'), [("po_invalid", "/lines/5")]),
        (po('msgctxt "a"', 'msgstr[x] "c"'), [("po_invalid", "/lines/6")]),
        (b'"floating"', [("po_invalid", "/lines/1")]),
        (po('msgid "a"\nmsgstr "b"'), [("po_key", "/lines/5")]),
        (po('msgctxt "k"\nmsgid ""\nmsgstr "b"'), [("po_key", "/lines/6")]),
        (po('msgctxt "k"\nmsgid "a"\nmsgstr "b"\n', 'msgctxt "k"\nmsgid "c"\nmsgstr "b"'), [("po_key", "/lines/10")]),
        (po('msgctxt "k"\nmsgid "a"\nmsgstr "b"\n', 'msgctxt "k"\nmsgid "a"\nmsgstr "c"'), [("po_key", "/lines/10")]),
        (po(header="Language: fr"), [("po_language", "/lines/1")]),
        (po('msgctxt "k"\nmsgid "a"\nmsgid_plural "b"\nmsgstr[0] "c"\nmsgstr[1] ""'), [("po_plural_forms", "/lines/6")]),
        (po(header="Plural-Forms: nplurals=2; plural=n+;"), [("po_plural_forms", "/lines/1")]),
        (po(header="Plural-Forms: nplurals=2; plural=1/0;"), [("po_plural_forms", "/lines/1")]),
        (po(header="Plural-Forms: nplurals=1; plural=n;"), [("po_plural_forms", "/lines/1")]),
        (po('msgctxt "k"\nmsgid "a"\nmsgstr "b {"'), [("placeholder_invalid", "/messages/k/text")]),
        (po('msgctxt "k/~"\nmsgid "a"\nmsgstr "b"'), [("name_invalid", "/messages")]),
    ],
)
def test_a_file_that_can_not_be_used_is_refused_by_line(data: bytes, faults: list[tuple[str, str]]) -> None:
    found = from_po(data, "de", "en")

    assert isinstance(found, Problem)
    assert [(each.code, each.pointer) for each in (found.errors or (found,))] == faults


def test_every_fault_of_a_file_is_named_at_once_and_tells_its_line() -> None:
    found = from_po(po('msgid "a"\nmsgstr "hush"\n', 'msgctxt "k"\nmsgid "a"\nmsgstr "hush {"'), "de", "en")

    assert isinstance(found, Problem)
    assert [each.detail.partition(":")[0] for each in found.errors] == ["Line 5", "Line 9"]
    assert "hush" not in repr(found)


def test_a_header_can_not_ask_for_more_than_a_language_has() -> None:
    entry = 'msgctxt "k"\nmsgid "a"\nmsgid_plural "b"\nmsgstr[0] "c"'
    for forms in ("nplurals=2000000000; plural=0;", "nplurals=-1; plural=0;", "nplurals=x; plural=0;"):
        assert isinstance(from_po(po(entry, header=f"Plural-Forms: {forms}"), "de", "en"), Problem)


@given(st.lists(st.sampled_from([*ODD, *LINES])))
@settings(max_examples=200)
def test_any_text_is_read_or_refused(pieces: list[str]) -> None:
    found = from_po("".join(pieces).encode(), "de", "en")

    assert isinstance(found, Problem) or set(found) == {"messages"}


def test_messages_that_the_default_has_no_more_are_kept() -> None:
    german = catalogue("de", {"old": {"text": "alt", "source": "old"}, "own": {"text": "eigen"}})
    found = from_po(to_po(german, ENGLISH), "de", "en")

    assert isinstance(found, dict)
    assert found["messages"] == {"old": {"text": "alt", "source": "old"}, "own": {"text": "eigen", "source": "eigen"}}
    assert state({"en": ENGLISH, "de": catalogue("de", found["messages"])}, "en", "de")["unused"] == ["old", "own"]
