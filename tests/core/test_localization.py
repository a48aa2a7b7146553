"""The locale that formats, and the data there are for it."""

from __future__ import annotations

import pytest
from babel import localedata
from babel.core import Locale
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.locales import normalize
from dispatcher.localization import NEUTRAL, Localization, babel_locale, formatting_locale, is_rtl


@pytest.mark.parametrize(
    ("requested", "words", "formats"),
    [
        ("pt-BR", "pt", "pt-BR"),
        ("pt-BR", "pt-PT", "pt-BR"),
        ("en", "en-GB", "en-GB"),
        ("pt-BR", "en", "en"),
        ("zh-Hant-TW", "zh-Hans", "zh-Hans"),
        ("zh-TW", "zh-Hant", "zh-TW"),
        ("sr-Latn", "sr", "sr"),
        ("de", "de", "de"),
        ("fr", "ar", "ar"),
    ],
)
def test_numbers_are_written_as_the_recipient_does_where_the_words_are_in_their_language(
    requested: str, words: str, formats: str
) -> None:
    assert formatting_locale(requested, words) == formats
    assert Localization(requested, "Asia/Tokyo").within(words) == Localization(formats, "Asia/Tokyo")


def test_nobody_in_particular_speaks_as_the_template_does() -> None:
    assert [NEUTRAL.within(words).locale for words in ("en", "en-GB", "pt")] == ["en", "en-GB", "pt"]


def test_locales_are_written_in_the_direction_babel_says() -> None:
    names = [name for name in localedata.locale_identifiers() if "_" not in name]
    languages = {*names[::4], *(name for name in names if is_rtl(name)), "dv", "ks", "pa", "sd", "uz", "az", "nqo", "syr"} & {
        *names
    }
    wrong = [name for name in languages if is_rtl(name) != (Locale.parse(name).text_direction == "rtl")]

    assert wrong == []


@pytest.mark.parametrize("tag", ["tlh", "tlh-Latn-US", "xx-YY", "qaa", "zz-Zzzz", "i18n-x-one"])
def test_a_locale_that_cldr_does_not_know_is_no_error(tag: str) -> None:
    assert str(babel_locale(tag))
    assert is_rtl(tag) is False


@given(st.from_regex(r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?(-x-[a-z]{1,4})?", fullmatch=True))
def test_every_tag_has_data(tag: str) -> None:
    normal = normalize(tag)

    assert normal is None or babel_locale(normal).decimal_formats
