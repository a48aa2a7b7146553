"""Values that run the other way: they neither move what stands beside them nor break what they stand in."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.bidi import balanced, in_plain_text, needs_isolation
from dispatcher.localization import Localization
from dispatcher.sms_segments import Encoding, segments_of
from dispatcher.template_limits import Budget
from dispatcher.template_sandbox import compile_source
from dispatcher.templates import DEFAULT_LIMITS

FSI, PDI, RLO, LRE, RLI, PDF = "\u2068", "\u2069", "\u202e", "\u202a", "\u2067", "\u202c"
ARABIC, HEBREW, FARSI = "مريم", "דנה כהן", "نرگس"
OPENERS = {LRE: PDF, "\u202b": PDF, "\u202d": PDF, RLO: PDF, "\u2066": PDI, RLI: PDI, FSI: PDI}
TEXTS = st.text(
    st.one_of(st.sampled_from(sorted({*OPENERS, PDF, PDI, "a", "ש", "7", " ", "\n", "\u2029", "."})), st.characters())
)


def shown(source: str, locale: str, escapes: bool = False, **variables: Any) -> str:
    compiled = compile_source(source, escapes=escapes, limits=DEFAULT_LIMITS)
    return compiled.run(variables, Budget(50_000, 100_000), 100_000, Localization(locale))


def is_balanced(text: str) -> bool:
    for paragraph in text.replace("\u2029", "\n").replace("\r", "\n").replace("\x85", "\n").split("\n"):
        expected: list[str] = []
        for character in paragraph:
            if character in OPENERS:
                expected.append(OPENERS[character])
            elif character == PDF and (not expected or expected.pop() != PDF):
                return False
            elif character == PDI:
                while expected and expected[-1] == PDF:
                    expected.pop()
                if not expected or expected.pop() != PDI:
                    return False
        if expected:
            return False
    return True


@given(TEXTS.filter(lambda text: not set(text) & set("\x1c\x1d\x1e")))
def test_no_value_leaves_a_direction_open_or_ends_one_it_did_not_begin(text: str) -> None:
    assert is_balanced(balanced(text))
    assert balanced(balanced(text)) == balanced(text)
    assert [each for each in balanced(text) if each not in OPENERS and each not in (PDF, PDI)] == [
        each for each in text if each not in OPENERS and each not in (PDF, PDI)
    ]


@given(TEXTS.filter(lambda text: not set(text) & set("\x1c\x1d\x1e")), st.booleans())
def test_what_is_printed_is_balanced_too(text: str, rtl: bool) -> None:
    assert is_balanced(in_plain_text(text, rtl))


@given(st.text(st.characters(max_codepoint=0x24F, exclude_categories=["Cs"])))
def test_latin_among_words_from_the_left_comes_out_as_it_went_in(text: str) -> None:
    assert in_plain_text(text, rtl=False) == text


def test_the_letters_that_run_from_right_to_left_are_those_of_unicode() -> None:
    wrong = [
        hex(code)
        for code in range(0x2FFFF)
        if unicodedata.bidirectional(character := chr(code)) in ("L", "R", "AL")
        and unicodedata.category(character)[0] in "LN"
        and needs_isolation(character, rtl=False) is (unicodedata.bidirectional(character) == "L")
    ]

    assert wrong == []


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (f"{RLO}evil", f"{RLO}evil{PDF}"),
        (f"a{PDF}b{PDI}", "ab"),
        (f"{RLI}a\nb{PDI}", f"{RLI}a{PDI}\nb"),
        (f"{LRE}{FSI}a{PDF}{PDI}", f"{LRE}{FSI}a{PDI}{PDF}"),
    ],
)
@pytest.mark.parametrize("place", ["{} x", "<b>{} x</b>", "<a href='{}'>"])
def test_direction_controls_end_within_the_value_wherever_it_is_printed(value: str, printed: str, place: str) -> None:
    """Also where nothing may be added, and where the value was marked as safe."""
    for escapes, expression in ((False, "{{ v }}"), (True, "{{ v }}"), (True, "{{ v|safe }}")):
        assert shown(place.replace("{}", expression), "en", escapes, v=value) == place.replace("{}", printed)


@pytest.mark.parametrize("name", [ARABIC, HEBREW, FARSI, f"{HEBREW} 3", f"Dr. {ARABIC}!"])
def test_a_name_from_the_right_is_isolated_among_words_from_the_left(name: str) -> None:
    assert shown("Hello {{ v }}, welcome", "en", v=name) == f"Hello {FSI}{name}{PDI}, welcome"
    assert shown("<p>Hello {{ v }}!</p>", "en", True, v=name) == f"<p>Hello <bdi>{name}</bdi>!</p>"
    assert shown("Seat {{ v }}-7", "en", v=name) == f"Seat {FSI}{name}{PDI}-7"


@pytest.mark.parametrize("value", ["Maria", "C++", "+972 3 555 1234", "20 %", "1,234.50 USD", "-5", "@maria", "10:30"])
@pytest.mark.parametrize("locale", ["ar", "he", "fa"])
def test_names_phone_numbers_and_amounts_are_isolated_among_words_from_the_right(locale: str, value: str) -> None:
    assert shown("שלום {{ v }}!", locale, v=value) == f"שלום {FSI}{value}{PDI}!"
    assert shown("<p>שלום {{ v }}!</p>", locale, True, v=value) == f"<p>שלום <bdi>{value}</bdi>!</p>"


@pytest.mark.parametrize(
    ("value", "locale"), [(ARABIC, "ar"), (HEBREW, "he"), (FARSI, "fa"), (7, "ar"), ("1234", "he"), ("", "ar")]
)
def test_what_runs_the_same_way_is_left_as_it_is(value: Any, locale: str) -> None:
    assert shown("{{ v }} !", locale, v=value) == f"{value} !"


def test_a_negative_number_keeps_its_sign_in_front() -> None:
    assert shown("מאזן: {{ v }}", "he", v=-5) == f"מאזן: {FSI}-5{PDI}"
    assert shown("Balance: {{ v }}", "en", v=-5) == "Balance: -5"


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("הקישור: {{ v }}", "https://shop.example/o/17?a=b"),
        ("הקישור: {{ v }} .", "www.shop.example"),
        ("דואר: {{ v }}", "maria@shop.example"),
        ("פרטים https://shop.example/o/{{ v }}", "A-17"),
        ("פרטים https://shop.example/?order={{ v }}&x=1", "A-17"),
        ("פרטים {{ v }}/orders", "shop.example"),
        ("דואר: {{ v }}@shop.example", "maria"),
        ("מספר ORD-{{ v }}", "A-17"),
        ("{{ v }}", "A-17"),
    ],
)
def test_an_address_or_a_code_is_never_broken(source: str, value: str) -> None:
    for escapes in (False, True):
        assert shown(source, "he", escapes, v=value) == source.replace("{{ v }}", value)


@pytest.mark.parametrize(
    "source",
    [
        "<a href='{{ v }}' title=\"{{ v }}\">x</a>",
        "<p class={{ v }}>x</p>",
        "<a href=\"https://x.example/{{ v }}\" dir='rtl'>x</a>",
        "<style>.a { width: {{ v }} }</style>",
        "<script>let a = '<b> {{ v }}'</script>",
        "<title>{{ v }}</title><p>x</p>",
        "<!-- a > b {{ v }} --><p>x</p>",
        "<!DOCTYPE {{ v }}><p>x</p>",
        "<{{ v }}>",
        "<a title='> {{ v }}'>",
        "<a {% if v %}href='{{ v }}'{% else %}href='{{ v }}'{% endif %}>{% for x in [v] %}<b id='{{ x }}'></b>{% endfor %}</a>",
    ],
)
def test_nothing_is_added_inside_tags_and_what_is_not_text(source: str) -> None:
    for locale, value in (("he", "ab12"), ("en", HEBREW)):
        written = shown(source, locale, True, v=value)

        assert "bdi" not in written
        assert FSI not in written
        assert value in written


@pytest.mark.parametrize(
    "source",
    [
        "<a href='x'>{{ v }} y</a>",
        "<style>a</style>{{ v }} y",
        "<!-- x -->{{ v }} y",
        "<p>1 < 2 {{ v }} y",
        "<title>x</title>{{ v }} y",
        "<br/>{{ v }} y",
    ],
)
def test_behind_a_tag_there_are_words_again(source: str) -> None:
    assert shown(source, "en", True, v=HEBREW) == source.replace("{{ v }}", f"<bdi>{HEBREW}</bdi>")


def test_markup_of_a_value_stays_escaped_in_its_isolate() -> None:
    assert shown("<p>{{ v }} x</p>", "en", True, v=f"<b>{HEBREW}") == f"<p><bdi>&lt;b&gt;{HEBREW}</bdi> x</p>"
    assert shown("<p>{{ v|safe }} x</p>", "en", True, v=f"<b>{HEBREW}</b>") == f"<p><b>{HEBREW}</b> x</p>"


def test_an_sms_from_the_left_costs_what_it_cost() -> None:
    source = "Order {{ id }} of {{ total|money('EUR') }} at {{ at|time('short') }}"
    text = shown(source, "en", id="A-17", total=9, at="2026-01-01T10:00Z")

    assert segments_of(text).encoding is Encoding.GSM7
    assert text == "Order A-17 of €9.00 at 10:00 AM"


def test_the_elements_of_a_list_are_isolated_one_by_one() -> None:
    assert shown("{{ v|listed }} .", "he", v=["Bob", "דנה"]) == f"{FSI}Bob{PDI} ודנה ."
    assert shown("<p>{{ v|listed }}</p>", "en", True, v=["<b>", HEBREW]) == f"<p>&lt;b&gt; and <bdi>{HEBREW}</bdi></p>"


@pytest.mark.parametrize(
    ("locale", "direction"), [("en", "ltr"), ("ar-EG", "rtl"), ("he", "rtl"), ("fa", "rtl"), ("sd-Deva", "ltr")]
)
def test_a_template_can_say_its_direction_and_locale(locale: str, direction: str) -> None:
    written = shown('<html dir="{{ dir() }}" lang="{{ locale() }}">{{ dir }}', locale, True, dir=7)

    assert written == f'<html dir="{direction}" lang="{locale}">7'
