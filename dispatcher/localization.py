"""How a rendering speaks to one recipient: the locale its numbers and dates are written for, the time zone, the messages.

A :class:`Localization` is three references, so that one can be made for every recipient. Babel's data of a locale are read when
something is first formatted for it. Invariant: every well-formed tag has data here, if need be those of a locale it descends from
or of English; a tag that CLDR does not know is never an error.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from attrs import field, frozen
from babel import Locale, UnknownLocaleError
from babel.core import get_global

from dispatcher.locales import chain

if TYPE_CHECKING:
    from dispatcher.translations import Messages

ROOT: Final = "en"
"""Formats what no data exist for."""
RTL_SCRIPTS: Final = frozenset({"Adlm", "Arab", "Aran", "Hebr", "Mand", "Mend", "Nkoo", "Rohg", "Samr", "Syrc", "Thaa", "Yezi"})
"""Scripts that are written from right to left."""


@frozen
class Localization:
    """For whom is rendered. ``locale`` is a normal tag, ``time_zone`` a name of the tz database."""

    locale: str
    time_zone: str = "UTC"
    messages: Messages | None = field(default=None, repr=False)

    def within(self, words: str) -> Localization:
        """The same recipient in a text whose words are of the locale ``words``."""
        locale = formatting_locale(self.locale, words)
        return self if locale == self.locale else Localization(locale, self.time_zone, self.messages)


NEUTRAL: Final = Localization(ROOT)
"""Nobody in particular: English, UTC, no messages."""


@lru_cache(maxsize=4096)
def formatting_locale(requested: str, words: str) -> str:
    """Which of two locales numbers and dates are written for, in a text whose words are of the second.

    The recipient's own where the words are in its language and script and say no more about the region (``pt-BR`` for words in
    ``pt``); else that of the words: a French date does not belong into a German sentence.
    """
    if words.startswith(f"{requested}-"):
        return words
    same = requested.split("-", maxsplit=1)[0] == words.split("-", maxsplit=1)[0] and script_of(requested) == script_of(words)
    return requested if same else words


@lru_cache(maxsize=4096)
def is_rtl(tag: str) -> bool:
    """Whether the locale is written from right to left."""
    return script_of(tag) in RTL_SCRIPTS


@lru_cache(maxsize=4096)
def script_of(tag: str) -> str:
    """The script a locale is written in: the one it names, or the likely one (CLDR); ``Latn`` when nothing is known."""
    likely = get_global("likely_subtags")
    for candidate in chain(tag, ROOT):
        for subtag in candidate.split("-")[1:]:
            if len(subtag) == 4 and subtag.isalpha():
                return subtag
        found = likely.get(candidate.replace("-", "_"))
        if found is not None:
            return str(found.split("_")[1])
    return "Latn"


@lru_cache(maxsize=1024)
def babel_locale(tag: str) -> Locale:
    """Babel's data for a tag, or for the first of its chain that CLDR has. Reads files (some milliseconds) the first time."""
    for candidate in chain(tag, ROOT):
        try:
            return Locale.parse(candidate, sep="-")
        except (UnknownLocaleError, ValueError):
            continue
    raise AssertionError("CLDR has English")
