from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.decisions import Code
from dispatcher.locales import TAG_LENGTH_MAX, chain, normalize
from dispatcher.template_sets import choose_locale

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


@given(st.none() | NORMAL, NORMAL, NORMAL)
@settings(max_examples=40)
def test_the_last_resort_is_the_template_s_own_locale(requested: str | None, organization_default: str, own: str) -> None:
    """And every step is asked for, or a default, or what is left of one; the same whenever it is asked."""
    tags = chain(requested, organization_default, own)
    starts = [each for each in (requested, organization_default, own) if each is not None]

    assert all(any(start == tag or start.startswith(f"{tag}-") for start in starts) for tag in tags)
    assert set(starts) <= set(tags)
    assert len(set(tags)) == len(tags)
    left = chain.__wrapped__(requested, organization_default, own)
    assert left == tags


@given(NORMAL, NORMAL)
@settings(max_examples=40)
def test_what_is_left_of_a_wish_is_tried_before_any_default_and_each_shorter_than_the_one_before(
    requested: str, organization_default: str
) -> None:
    tags = chain(requested, organization_default)
    mine = [tag for tag in tags if requested == tag or requested.startswith(f"{tag}-")]

    assert tags[: len(mine)] == tuple(mine)
    assert all(longer.startswith(f"{shorter}-") for longer, shorter in pairwise(mine))
    assert mine[-1] == requested.partition("-")[0]


@given(st.none() | NORMAL, NORMAL, NORMAL, st.lists(NORMAL, max_size=6))
@settings(max_examples=40)
def test_the_template_that_is_chosen_is_the_first_of_the_chain_that_is_there(
    requested: str | None, organization_default: str, own: str, others: list[str]
) -> None:
    there = {own, *others}
    locale, code = choose_locale(there, requested, organization_default, own)

    assert locale == next(tag for tag in chain(requested, organization_default, own) if tag in there)
    assert (code is Code.LOCALE_REQUESTED) == (locale == requested)
    if not there & set(chain(requested, organization_default)):
        assert code is Code.LOCALE_TEMPLATE
        assert own == locale or own.startswith(f"{locale}-")
