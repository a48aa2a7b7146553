from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.locales import TAG_LENGTH_MAX, chain, normalize

TAGS = st.from_regex(
    r"[a-zA-Z]{2,3}(-[a-zA-Z]{4})?(-([a-zA-Z]{2}|[0-9]{3}))?(-[a-zA-Z0-9]{5,8})?(-u-[a-z0-9]{2,8})?(-x-[a-z0-9]{1,8})?",
    fullmatch=True,
).filter(lambda tag: len(tag) <= TAG_LENGTH_MAX)
NORMAL = TAGS.map(normalize).map(str)


@pytest.mark.parametrize(
    ("tag", "normal"),
    [
        ("de", "de"),
        ("EN-us", "en-US"),
        ("en_US", "en-US"),
        ("ZH-hANT-tw", "zh-Hant-TW"),
        ("sr-latn", "sr-Latn"),
        ("es-419", "es-419"),
        ("zh-cmn-Hans-CN", "zh-cmn-Hans-CN"),
        ("sl-ROZAJ-biske-1994", "sl-rozaj-biske-1994"),
        ("de-CH-1901", "de-CH-1901"),
        ("en-US-u-islamcal", "en-US-u-islamcal"),
        ("de-DE-U-CO-PHONEBK-X-Private", "de-DE-u-co-phonebk-x-private"),
        ("gsw", "gsw"),
        ("zh-YUE", "zh-yue"),
    ],
)
def test_a_well_formed_tag_has_one_usual_spelling(tag: str, normal: str) -> None:
    assert normalize(tag) == normal


@pytest.mark.parametrize(
    "tag",
    [
        "",
        "e",
        "en-",
        "-en",
        "en--US",
        "en US",
        "en-US\n",
        "en-USSRUSSRU",
        "inglese-de-x",
        "en-u",
        "x-private",
        "i-klingon",
        "de-1901-1901",
        "en-a-bbb-a-ccc",
        "ｅｎ",
        "en-\u212a\u212a",
        "en-" + "-".join(["abcde"] * 20),
        "../../etc",
    ],
)
def test_anything_else_is_none(tag: str) -> None:
    assert normalize(tag) is None


@given(TAGS)
def test_normalising_twice_changes_nothing(tag: str) -> None:
    normal = normalize(tag)

    assert normal is not None
    assert normal.lower() == tag.lower()
    assert normalize(normal) == normal


@given(st.text(max_size=80))
def test_no_text_breaks_it(text: str) -> None:
    assert normalize(text) is None or normalize(text).lower() == text.lower().replace("_", "-")  # type: ignore[union-attr]


def test_subtags_are_left_out_from_the_right_before_the_defaults_are_tried() -> None:
    assert chain("zh-Hant-TW", "de-AT", "en") == ("zh-Hant-TW", "zh-Hant", "zh", "de-AT", "de", "en")


def test_a_single_letter_never_stands_last() -> None:
    assert chain("zh-Hant-CN-x-private1-private2", "en") == (
        "zh-Hant-CN-x-private1-private2",
        "zh-Hant-CN-x-private1",
        "zh-Hant-CN",
        "zh-Hant",
        "zh",
        "en",
    )


def test_without_a_wish_the_defaults_are_tried() -> None:
    assert chain(None, "de-AT") == ("de-AT", "de")


def test_a_language_alone_that_is_one_letter_too_short_to_leave_out_stays() -> None:
    assert chain("de", "de", "de") == ("de",)


@given(st.none() | NORMAL, NORMAL, st.none() | NORMAL)
def test_a_chain_begins_with_the_wish_ends_in_a_default_and_names_nothing_twice(
    requested: str | None, organization_default: str, template_default: str | None
) -> None:
    tags = chain(requested, organization_default, template_default)

    assert tags[0] == (requested or organization_default)
    assert {organization_default, template_default or organization_default} <= set(tags)
    assert len(set(tags)) == len(tags)
    assert all(normalize(tag) == tag for tag in tags)
