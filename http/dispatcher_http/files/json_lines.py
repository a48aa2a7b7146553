"""On which line of a JSON text something stands, so that a fault can be shown where an editor can go."""

from __future__ import annotations

import re
from json import JSONDecodeError, JSONDecoder

_BLANK = re.compile(r"[ \t\r\n]*")
_DECODER = JSONDecoder()


def line_of(text: str, pointer: str) -> int:
    """The line, from 1, of what a pointer leads to; of the last thing on the way that is there, if it leads nowhere."""
    at = _blank(text, 0)
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    try:
        for step in steps:
            below = _member(text, at, step)
            if below is None:
                break
            at = below
    except (JSONDecodeError, IndexError):  # it is no JSON from here on
        pass
    return text.count("\n", 0, at) + 1


def _member(text: str, at: int, step: str) -> int | None:
    """Where the member of an object or a list begins; for an object that is its name."""
    opening = text[at]
    if opening not in "{[":
        return None
    at, index = _blank(text, at + 1), 0
    while text[at] not in "}]":
        name: object = str(index)
        begin = at
        if opening == "{":
            name, at = _DECODER.raw_decode(text, at)
            at = _blank(text, _blank(text, at) + 1)
        if name == step:
            return begin if _is_leaf(text, at) else at
        at = _blank(text, _DECODER.raw_decode(text, at)[1])
        if text[at] == ",":
            at = _blank(text, at + 1)
        index += 1
    return None


def _is_leaf(text: str, at: int) -> bool:
    return text[at] not in "{["


def _blank(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return at if match is None else match.end()
