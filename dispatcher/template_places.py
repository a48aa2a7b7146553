"""Where in a template's own text a value is printed: among words, or where anything added to it would break something.

The text between the prints is read once, when the template is compiled, in the order in which it stands there; of a branch that
leaves a tag open, what stands after it is read as if it had been taken. Invariant: a place inside a tag, a script, a style or an
address is never one among words.
"""

from __future__ import annotations

import re
from typing import Final

WORDS: Final = 0
"""Among words: a value of the other direction is isolated."""
NEVER: Final = 1
"""In a tag, a script, an address, or alone: nothing may be added."""
CONTINUED: Final = 2
"""The value is a part of something from left to right, such as ``ORD-17``: nothing is added among words from right to left."""

_VALUE: Final = "\ufffc"
"""Stands for a value that was printed."""
_RAW: Final = frozenset({"script", "style", "title", "textarea"})
_ENDS: Final = {end: re.compile(end, re.IGNORECASE) for end in ("-->", *(f"</{name}" for name in _RAW))}
_TOKEN_MAX: Final = 256
_TAG_START = re.compile(r"</?([A-Za-z][A-Za-z0-9]*)|<[!?]|</?$")
_BOUNDARY = re.compile(r"[\s<>\"'()\[\]{}]")
_ADDRESS_BEFORE = re.compile(rf"://|www\.|(?:mailto|tel|sms):|@$|[?&][\w.-]+=$|{_VALUE}[/?&#=@]", re.IGNORECASE)
_ADDRESS_AFTER = re.compile(r"[/?&=@](?:\S|$)|://")
_PART_BEFORE = re.compile(r"[A-Za-z0-9][-._/#+~:]?$")
_PART_AFTER = re.compile(r"[-._]?[A-Za-z0-9]")


class Places:
    """One reading of a template, from front to back."""

    def __init__(self, html: bool, alone: bool = False) -> None:
        self._html = html
        self._alone = alone  # there is nothing but this one value
        self._token = ""
        self._inside: str | None = None  # a tag "<", a comment "-->", or the end of what is raw, such as "</style"
        self._quote = ""
        self._name = ""

    def feed(self, data: str) -> None:
        """Read text of the template."""
        position = 0
        while position < len(data):
            position = self._read(data, position) if self._html else self._words(data, position, len(data))

    def place(self, following: str) -> int:
        """What the place of a value is, ``following`` being the text behind it, and go on behind the value."""
        token, self._token = self._token, _shortened(self._token + _VALUE)
        if self._inside is not None or self._alone:
            return NEVER
        if self._html:
            following = following.partition("<")[0]
        if _ADDRESS_BEFORE.search(token) or _ADDRESS_AFTER.match(following):
            return NEVER
        return CONTINUED if _PART_BEFORE.search(token) or _PART_AFTER.match(following) else WORDS

    def _words(self, data: str, start: int, end: int) -> int:
        """Remember what stands behind the last boundary: what a value that follows would be a part of."""
        behind = max((match.end() for match in _BOUNDARY.finditer(data, start, end)), default=None)
        token = self._token + data[start:end] if behind is None else data[behind:end]
        self._token = _shortened(token)
        return end

    def _read(self, data: str, start: int) -> int:
        if self._inside is None:
            opening = data.find("<", start)
            if opening < 0:
                return self._words(data, start, len(data))
            self._words(data, start, opening)
            match = _TAG_START.match(data, opening)
            if match is None:
                self._token = ""
                return opening + 1
            self._inside = "-->" if data.startswith("<!--", opening) else "<"
            self._name = (match[1] or "").lower() if not match[0].startswith("</") else ""
            return match.end()
        if self._inside == "<":
            return self._read_tag(data, start)
        ending = _ENDS[self._inside].search(data, start)
        if ending is None:
            return len(data)
        if self._inside == "-->":
            self._inside, self._token = None, ""
        else:
            self._inside, self._name = "<", ""
        return ending.end()

    def _read_tag(self, data: str, start: int) -> int:
        for position in range(start, len(data)):
            character = data[position]
            if self._quote:
                if character == self._quote:
                    self._quote = ""
            elif character in "\"'":
                self._quote = character
            elif character == ">":
                self._inside, self._token = (f"</{self._name}" if self._name in _RAW else None), ""
                return position + 1
        return len(data)


def _shortened(token: str) -> str:
    """What a token begins with says whether it is an address; nothing else is of interest that far from its end."""
    return token if len(token) <= _TOKEN_MAX else token[: _TOKEN_MAX // 2] + token[-_TOKEN_MAX // 2 :]
