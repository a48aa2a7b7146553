"""Single settings: how a text becomes a number, a word, an address, and what to say when it does not.

``config`` lists the settings; here is what a kind of setting is. A kind turns the text of an environment variable into a value or
raises :class:`Fault` with what is wanted. Invariant: no message repeats the text it refused, because it may hold a password.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any, TypeVar
from urllib.parse import urlsplit

from attrs import field, frozen

T = TypeVar("T")

METADATA_KEY = "setting"
"""Where a field of a configuration record keeps its :class:`Setting`."""


class Fault(Exception):
    """A text that is not a value of this setting. The message says what would be."""


@frozen
class Setting:
    """What is known of one field beside its type. ``shown_default`` replaces the default in the table of settings."""

    meaning: str
    parse: Callable[[str], Any]
    shown_default: str | None = None


def setting(default: T, meaning: str, parse: Callable[[str], T], shown_default: str | None = None, *, secret: bool = False) -> T:
    """A field of a configuration record. The value of a ``secret`` one does not stand in the record's repr."""
    return field(default=default, repr=not secret, metadata={METADATA_KEY: Setting(meaning, parse, shown_default)})


def count(default: int, meaning: str, *, at_least: int = 1, at_most: int = 1_000_000_000) -> int:
    """A whole number."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 20 and at_least <= int(text) <= at_most):
            raise Fault(f"must be a whole number from {at_least} to {at_most}")
        return int(text)

    return setting(default, meaning, parse)


def number(default: float, meaning: str, *, above: float = 0.0, at_most: float = 1e9) -> float:
    """A number greater than ``above``; most are seconds."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = above
        if not (isfinite(value) and above < value <= at_most):
            raise Fault(f"must be a number above {above:g} and at most {at_most:g}")
        return value

    return setting(default, meaning, parse, f"{default:g}")


def word(default: str, meaning: str, *, among: Iterable[str] = (), shown_default: str | None = None) -> str:
    """A text, or one of a few words."""
    choices = tuple(among)

    def parse(text: str) -> str:
        if choices and text.lower() not in choices:
            raise Fault(f"must be one of {', '.join(choices)}")
        return text.lower() if choices else text

    return setting(default, meaning, parse, shown_default)


def server_url(meaning: str, *, schemes: Iterable[str], shown_default: str) -> str | None:
    """The URL of a server, by default none. Never shown: it may hold a password."""
    allowed = tuple(schemes)
    absent: str | None = None

    def parse(text: str) -> str | None:
        wanted = Fault(f"must be a URL that starts with {' or '.join(f'{scheme}://' for scheme in allowed)}")
        try:
            parts = urlsplit(text)
        except ValueError:
            raise wanted from None
        if parts.scheme not in allowed or not text.startswith(f"{parts.scheme}://"):
            raise wanted
        if not (parts.netloc or parts.path.strip("/") or parts.query):
            raise Fault("names no host")
        if parts.fragment or any(character.isspace() for character in text):
            raise Fault("must not contain # or blanks: write them in a password as %23 and %20")
        return text

    return setting(absent, meaning, parse, shown_default, secret=True)
