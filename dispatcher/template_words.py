"""Words that a template takes from a catalogue or puts together as a list, with the values that stand in them.

A text so made remembers which of its parts are values, so that each can be isolated where it is printed (``bidi``), as HTML or as
plain text. Anything else that is done with it takes it for the plain text that it is too. Invariant: the words of a catalogue are
text, never markup: in HTML they are escaped like any value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal

from babel.lists import format_list
from markupsafe import Markup, escape

from dispatcher.bidi import balanced, in_plain_text, needs_isolation
from dispatcher.localization import babel_locale
from dispatcher.template_amounts import counted, written
from dispatcher.template_limits import MissingVariable, TemplateError
from dispatcher.template_places import CONTINUED, NEVER
from dispatcher.template_values import Rendering, elements, joined, text
from dispatcher.translations import COUNT

LIST_STYLES: Final[Mapping[str, Literal["standard", "or", "unit"]]] = MappingProxyType(
    {"and": "standard", "or": "or", "unit": "unit"}
)
LIST_MAX: Final = 500

Piece = tuple[str, bool]
"""A text, and whether it is a value."""


class Words(str):
    """Words and the values in them, as one text."""

    __slots__ = ("pieces",)
    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> Words:
        """Put together."""
        words = cls("".join([piece for piece, _ in pieces]))
        words.pieces = tuple(pieces)
        return words


def translated(rendering: Rendering, key: str, /, **values: Any) -> str:
    """The message of a key, with its placeholders filled in. ``count`` chooses the plural and is written as a number."""
    rendering.budget.charge(4 + len(values))
    messages = rendering.localization.messages
    found = None if messages is None else messages.find(key, values.keys())
    if found is None:
        raise TemplateError("template_message_missing", key)
    if isinstance(found, str):
        raise TemplateError("template_message_argument_missing", f"{key}.{found}")
    catalogue, message = found
    count = counted(values[COUNT]) if message.is_plural else None
    pieces: list[Piece] = []
    for literal, name in catalogue.form(message, count):
        pieces.append((literal, False))
        if name is not None:
            if values[name] is None:
                raise MissingVariable(name)
            pieces.append((written(rendering, values[name]) if name == COUNT else text(rendering, values[name]), True))
    return _together(rendering, pieces)


def listed(rendering: Rendering, value: Any, style: Any = "and") -> str:
    """The elements of a list as the locale lists them: ``a, b and c``."""
    if style not in LIST_STYLES:
        raise TemplateError("template_style_unknown")
    found = elements(rendering, value)
    if len(found) > LIST_MAX:
        raise TemplateError("template_value_too_large")
    rendering.budget.charge(4 + 2 * len(found) + (len(found) ** 2 >> 4))  # each element is written into all before it
    # Babel puts marks together; what stands for what is put in their place afterwards.
    marks = [f"\0{position}\0" for position in range(len(found))]
    parts = format_list(marks, LIST_STYLES[style], babel_locale(rendering.localization.locale)).split("\0")
    return _together(
        rendering,
        [(text(rendering, found[int(part)]), True) if place % 2 else (part, False) for place, part in enumerate(parts)],
    )


def _together(rendering: Rendering, pieces: Sequence[Piece]) -> str:
    if rendering.autoescape and any(isinstance(piece, Markup) for piece, _ in pieces):
        return joined(rendering, [piece for piece, _ in pieces])
    rendering.budget.allow(sum(len(piece) for piece, _ in pieces))
    return Words.of([(str(piece), is_value) for piece, is_value in pieces])


def printed(rendering: Rendering, value: str, place: int) -> str:
    """A text as it is printed at a place (``template_places``), so that neither it nor what stands beside it is moved."""
    rendering.budget.charge(1 + (len(value) >> 5))
    rtl = rendering.rtl
    if isinstance(value, Markup):
        return Markup(balanced(value))  # noqa: S704 - it was safe before, and characters were only taken away or controls added
    if place == NEVER or (place == CONTINUED and rtl):
        return balanced(value)
    pieces = value.pieces if isinstance(value, Words) else ((value, True),)
    if not rendering.autoescape:
        return "".join([in_plain_text(piece, rtl) if is_value else piece for piece, is_value in pieces])
    return Markup("").join([_in_html(balanced(piece), rtl) if is_value else escape(piece) for piece, is_value in pieces])


def _in_html(value: str, rtl: bool) -> Markup:
    return Markup("<bdi>{}</bdi>").format(value) if needs_isolation(value, rtl) else escape(value)


WORD_FILTERS: Mapping[str, Callable[..., str]] = MappingProxyType({"listed": listed})
"""The filters that can be written by their names; ``t`` is written too, and becomes ``@t`` when its key is known to be a text."""
