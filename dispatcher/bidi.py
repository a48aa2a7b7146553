"""Values among words that may run the other way: what keeps each from moving what stands beside it.

A value comes from anywhere. Its own direction controls are made to end within it, whatever the locale; and where it has letters
of the other direction than the words around it, or digits and signs among words from right to left, it is isolated (UAX 9): by
U+2068 and U+2069 in plain text, by ``<bdi>`` in HTML. A web or mail address is never touched, because what stands beside one
becomes part of it. Invariant: nothing is added to a value without direction controls whose letters are all of the direction of
the words; so ASCII among words from left to right comes out as it went in.
"""

from __future__ import annotations

import re
from typing import Final

FIRST_STRONG_ISOLATE: Final = "\u2068"
POP_ISOLATE: Final = "\u2069"

_POP_EMBEDDING: Final = "\u202c"
_CLOSERS: Final = dict.fromkeys("\u202a\u202b\u202d\u202e", _POP_EMBEDDING) | dict.fromkeys("\u2066\u2067\u2068", POP_ISOLATE)
_CONTROL = re.compile("[\u202a-\u202e\u2066-\u2069]")
_PARAGRAPH_END = re.compile("(\r\n|[\n\r\x1c-\x1e\x85\u2029])")
_RTL: Final = "\u0590-\u08ff\u200f\ufb1d-\ufdff\ufe70-\ufeff\U00010800-\U00010fff\U0001e800-\U0001efff"
"""The blocks whose letters run from right to left (Unicode's DerivedBidiClass, R and AL)."""
_RUNS_FROM_RIGHT = re.compile(f"[{_RTL}]")
_RUNS_FROM_LEFT = re.compile(f"(?![{_RTL}])[^\\W\\d_]")
_DIGIT = re.compile(r"\d")
_ADDRESS = re.compile(r"://|\w@\w|\bwww\.|\b(?:mailto|tel|sms):", re.IGNORECASE)


def balanced(text: str) -> str:
    """The text with every direction control of it ended within its paragraph, and none ending what it did not begin."""
    if text.isascii() or _CONTROL.search(text) is None:
        return text
    return "".join(_balanced_paragraph(piece) for piece in _PARAGRAPH_END.split(text))


def needs_isolation(text: str, rtl: bool) -> bool:
    """Whether a value would move among words of this direction, or move them. An address never does that is worth breaking it."""
    if rtl:
        moves = _RUNS_FROM_LEFT.search(text) is not None or (_DIGIT.search(text) is not None and not text.isdigit())
    else:
        moves = not text.isascii() and _RUNS_FROM_RIGHT.search(text) is not None
    if not moves:
        return False
    tokens = text.split()
    return not any(_ADDRESS.search(token) for token in (tokens[0], tokens[-1]))


def in_plain_text(text: str, rtl: bool) -> str:
    """A value as it is printed among words of this direction. Isolates end with a paragraph, so each has its own."""
    safe = balanced(text)
    if safe.isascii() and not rtl:
        return safe
    return "".join(
        f"{FIRST_STRONG_ISOLATE}{piece}{POP_ISOLATE}" if needs_isolation(piece, rtl) else piece
        for piece in _PARAGRAPH_END.split(safe)
    )


def _balanced_paragraph(text: str) -> str:
    kept: list[str] = []
    open_: list[str] = []
    for character in text:
        if character in _CLOSERS:
            open_.append(_CLOSERS[character])
        elif character == _POP_EMBEDDING:
            if not open_ or open_[-1] != _POP_EMBEDDING:
                continue
            open_.pop()
        elif character == POP_ISOLATE:
            if POP_ISOLATE not in open_:
                continue
            while open_.pop() != POP_ISOLATE:
                pass  # an embedding that is left open within ends with the isolate
        kept.append(character)
    return "".join((*kept, *reversed(open_)))
