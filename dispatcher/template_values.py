"""What a template may do with a value: convert it, look into it, compute with it, compare it.

Values are what JSON has, and text that is already escaped (``Markup``). Nothing here ever looks up a Python attribute: a name
after a dot is a key of a mapping, or missing. Invariant: every function pays for its work from the budget in proportion to the
size of what it touches, before it makes anything larger than what it was given; so no value, however long, repeated or nested,
is free.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from operator import ge, gt, le, lt
from types import MappingProxyType
from typing import Any, Protocol

from markupsafe import Markup, escape

from dispatcher.localization import Localization
from dispatcher.template_limits import Budget, Missing, TemplateError

INTEGER_END = 2**63
"""No whole number reaches this, so that arithmetic stays cheap and prints short."""

_DIRECTIVE = re.compile(r"%(?:%|[-+ 0#]{0,3}\d{0,2}(?:\.\d{1,2})?[sdifeEgGxX])")
_DIRECTIVE_LENGTH_MAX = 512  # a double has up to 309 digits before the point, and a precision adds up to 99
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = MappingProxyType({"lt": lt, "lteq": le, "gt": gt, "gteq": ge})


class Rendering(Protocol):
    """What a function sees of the rendering it works for.

    ``constants`` are the texts that stand in the template's source: only these may be repeated in an error.
    """

    budget: Budget
    autoescape: bool
    constants: frozenset[str]
    localization: Localization
    rtl: bool


def wrong() -> TemplateError:
    """The error for a value of the wrong kind."""
    return TemplateError("template_value_wrong")


def present(value: Any) -> Any:
    """The value, unless it is missing: then the error that names it."""
    if isinstance(value, Missing):
        value.fail()
    return value


def text(rendering: Rendering, value: Any) -> str:
    """A scalar as text. ``Markup`` stays what it is."""
    found = value if isinstance(value, str) else str(number(value))
    rendering.budget.charge(1 + (len(found) >> 6))
    return found


def number(value: Any) -> int | float:
    """A number that is small enough to go on with."""
    if isinstance(value, int):
        if not -INTEGER_END < value < INTEGER_END:
            raise TemplateError("template_value_too_large")
        return value
    if isinstance(present(value), float):
        return value  # type: ignore[no-any-return]
    raise wrong()


def whole(value: Any, at_least: int, at_most: int) -> int:
    """A whole number within bounds: a width, a count, a precision."""
    if isinstance(value, int) and at_least <= value <= at_most:
        return value
    raise wrong()


def elements(rendering: Rendering, value: Any) -> Sequence[Any]:
    """The elements of a list, the keys of a mapping, the characters of a text."""
    if not isinstance(present(value), list | tuple | range | dict | str):
        raise wrong()
    rendering.budget.allow(len(value))
    rendering.budget.charge(len(value) >> 2)
    return value if isinstance(value, list | tuple) else list(value)


def member(value: Any, key: Any, name: str) -> Any:
    """One step of a path. What is not there is called ``name``; what a missing value should have had is missing as that value."""
    if isinstance(value, dict):
        if isinstance(key, str | int | float) and key in value:
            return value[key]
    elif isinstance(value, list | tuple | str):
        if isinstance(key, int) and -len(value) <= key < len(value):
            return value[key]
    elif isinstance(value, Missing):
        return value
    return Missing(name=name)


def along(rendering: Rendering, value: Any, path: Any) -> Any:
    """The value at a path such as ``price.amount``, the way filters take it in ``attribute=``."""
    if isinstance(path, int):
        return member(value, path, "attribute")
    if not isinstance(path, str) or len(path) > 200:
        raise wrong()
    keys = path.split(".")
    rendering.budget.charge(len(keys))
    name = path if path in rendering.constants else "attribute"
    for key in keys:
        value = member(value, int(key) if key.isdecimal() and not isinstance(value, dict) else key, name)
    return value


def joined(rendering: Rendering, parts: Sequence[Any], separator: str = "") -> str:
    """Scalars as one text. As soon as one is ``Markup`` all others are escaped: nothing becomes safe by being joined."""
    texts = [text(rendering, part) for part in parts]
    rendering.budget.allow(sum(map(len, texts)) + len(separator) * len(texts))
    if isinstance(separator, Markup) or any(isinstance(part, Markup) for part in texts):
        return escape(separator).join(texts)
    return separator.join(texts)


def formatted(rendering: Rendering, pattern: str, values: Sequence[Any]) -> str:
    """``%`` formatting with plain directives only: no ``*`` for a width, no names, no ``%r``."""
    directives = _DIRECTIVE.findall(pattern)
    if pattern.count("%") != sum(directive.count("%") for directive in directives):
        raise wrong()
    scalars = tuple(value if isinstance(value, str) else number(value) for value in values)
    size = sum(len(value) for value in scalars if isinstance(value, str))
    rendering.budget.fit(len(pattern) + len(directives) * _DIRECTIVE_LENGTH_MAX + size)
    rendering.budget.charge(1 + len(directives) + (len(pattern) + size >> 6))
    return pattern % scalars


def computed(rendering: Rendering, operator: str, left: Any, right: Any) -> Any:
    """``left operator right`` for numbers; also ``+`` of two texts or two lists, and ``%`` of a text, which formats."""
    if isinstance(left, str):
        if operator == "%":
            return formatted(rendering, left, right if isinstance(right, tuple) else (right,))
        if operator == "+" and isinstance(present(right), str):
            rendering.budget.allow(len(left) + len(right))
            return left + right
        present(right)
        raise wrong()
    if isinstance(left, list) and isinstance(right, list) and operator == "+":
        rendering.budget.allow(len(left) + len(right))
        rendering.budget.charge(len(left) + len(right) >> 2)
        return left + right
    left, right = number(left), number(right)
    try:
        return number(_ARITHMETIC[operator](left, right))
    except ArithmeticError:
        raise wrong() from None


_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {
        "+": lambda left, right: left + right,
        "-": lambda left, right: left - right,
        "*": lambda left, right: left * right,
        "/": lambda left, right: left / right,
        "//": lambda left, right: left // right,
        "%": lambda left, right: left % right,
    }
)


def compared(rendering: Rendering, left: Any, operator: str, right: Any) -> bool:
    """``left operator right``, where operator is one of eq, ne, lt, lteq, gt, gteq, in, notin."""
    left, right = present(left), present(right)
    if operator in ("eq", "ne"):
        return equal(rendering, left, right) is (operator == "eq")
    if operator in ("in", "notin"):
        return contains(rendering, right, left) is (operator == "in")
    if isinstance(left, str) and isinstance(right, str):
        rendering.budget.charge(1 + (min(len(left), len(right)) >> 6))
        return _ORDERS[operator](left, right)
    return _ORDERS[operator](number(left), number(right))


def equal(rendering: Rendering, left: Any, right: Any) -> bool:
    """Whether two values are the same JSON. Walks nested values itself, so that each step is paid for."""
    if isinstance(left, str) and isinstance(right, str):
        rendering.budget.charge(1 + (min(len(left), len(right)) >> 6))
        return left == right
    rendering.budget.charge(1)
    if isinstance(left, dict) and isinstance(right, dict):
        return len(left) == len(right) and all(
            key in right and equal(rendering, value, right[key]) for key, value in left.items()
        )
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(equal(rendering, one, other) for one, other in zip(left, right, strict=True))
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right
    return left is right


def contains(rendering: Rendering, container: Any, part: Any) -> bool:
    """Whether a text has a part, a list an element, a mapping a key."""
    if isinstance(container, str):
        rendering.budget.charge(1 + (len(container) >> 4))
        return text(rendering, part) in container
    if isinstance(container, dict):
        return isinstance(part, str | int | float) and part in container
    return any(equal(rendering, element, part) for element in elements(rendering, container))
