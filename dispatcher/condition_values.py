"""What an expression of a rule may do with a value. Nothing here can fail because of what an event holds.

The functions are those of templates (``template_values``) with one difference: what can not be done gives null, not an error. A
member that is not there, a sum with a text, a division by nothing are null; of null, and of things of different kinds, nothing is
smaller or greater. So a condition says yes or no to every event. Equality is that of JSON: true is not 1, and what is missing
equals null. Invariant: every function gives JSON, pays for its work from the budget, and raises nothing but what ends the whole
expression: too many steps, or a value too large to hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from operator import add, floordiv, ge, gt, le, lt, mod, mul, sub, truediv
from types import MappingProxyType
from typing import Any, Final

from dispatcher.template_filters import FILTERS as OF_TEMPLATES
from dispatcher.template_limits import Missing, TemplateError
from dispatcher.template_values import INTEGER_END, Rendering, along, elements, member

DEPTH_MAX: Final = 64
"""How deeply two values may nest that are compared."""

_ENDS_ALL: Final = frozenset({"template_steps_exceeded", "template_value_too_large"})
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = MappingProxyType({"lt": lt, "lteq": le, "gt": gt, "gteq": ge})
_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {"+": add, "-": sub, "*": mul, "/": truediv, "//": floordiv, "%": mod}
)


def or_null(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which gives null where it would fail or would give what JSON does not have."""

    def total(rendering: Rendering, *arguments: Any, **keywords: Any) -> Any:
        try:
            found = function(rendering, *arguments, **keywords)
        except TemplateError as error:
            if error.code in _ENDS_ALL:
                raise
            return None
        except (RecursionError, MemoryError):
            raise TemplateError("template_value_too_large") from None
        except Exception:  # a list where a text is needed, text among numbers to sort: what the functions leave to Python
            return None
        return as_json(found)

    total.__wrapped__ = function  # type: ignore[attr-defined]  # for inspect.signature
    return total


def as_json(value: Any) -> Any:
    """The value itself, or null for what is missing or is no number."""
    if isinstance(value, Missing) or (isinstance(value, float) and not isfinite(value)):
        return None
    if isinstance(value, int) and not -INTEGER_END < value < 2 * INTEGER_END:  # beyond what JSON readers agree on
        return None
    return list(value) if isinstance(value, tuple | range) else value


def is_number(value: Any) -> bool:
    """Whether it is a number of JSON: true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def equal(rendering: Rendering, left: Any, right: Any, depth: int = DEPTH_MAX) -> bool:
    """Whether two values are the same JSON."""
    if depth == 0:
        raise TemplateError("template_value_too_large")
    rendering.budget.charge(1)
    if isinstance(left, str) and isinstance(right, str):
        rendering.budget.charge(min(len(left), len(right)) >> 6)
        return left == right
    if isinstance(left, dict) and isinstance(right, dict):
        return len(left) == len(right) and all(
            key in right and equal(rendering, value, right[key], depth - 1) for key, value in left.items()
        )
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(
            equal(rendering, one, other, depth - 1) for one, other in zip(left, right, strict=True)
        )
    if is_number(left) and is_number(right):
        return bool(left == right)
    return left is right


def contains(rendering: Rendering, container: Any, part: Any) -> bool:
    """Whether a text has a part, a list an element, a mapping a key. Nothing else has anything."""
    if isinstance(container, str):
        rendering.budget.charge(1 + (len(container) >> 4))
        return isinstance(part, str) and part in container
    if isinstance(container, dict):
        return isinstance(part, str) and part in container
    return isinstance(container, list) and any(equal(rendering, element, part) for element in elements(rendering, container))


def compared(rendering: Rendering, left: Any, operator: str, right: Any) -> bool:
    """``left operator right``, where operator is one of eq, ne, lt, lteq, gt, gteq, in, notin."""
    match operator:
        case "eq" | "ne":
            return equal(rendering, left, right) is (operator == "eq")
        case "in" | "notin":
            return contains(rendering, right, left) is (operator == "in")
    if isinstance(left, str) and isinstance(right, str):
        rendering.budget.charge(1 + (min(len(left), len(right)) >> 6))
        return _ORDERS[operator](left, right)
    return is_number(left) and is_number(right) and _ORDERS[operator](left, right)


def operated(rendering: Rendering, operator: str, left: Any, right: Any) -> Any:
    """Numbers by ``+ - * / // %``; two texts or two lists by ``+``. Everything else gives null, as does what grows too large."""
    if operator == "+" and isinstance(left, str | list) and type(left) is type(right):
        rendering.budget.allow(len(left) + len(right))
        return add(left, right)
    if not (is_number(left) and is_number(right)):
        return None
    try:
        return as_json(_ARITHMETIC[operator](left, right))
    except ArithmeticError:
        return None


def signed(operator: str, value: Any) -> Any:
    """A number with a sign before it."""
    if not is_number(value):
        return None
    return as_json(-value) if operator == "-" else value


def text(rendering: Rendering, value: Any) -> str:
    """A text, a number, true or false as text. What is null is empty."""
    found = value if isinstance(value, str) else _WORDS[value] if value is None or isinstance(value, bool) else None
    if found is None:
        if not is_number(value):
            raise TemplateError("template_value_wrong")
        found = str(value)
    rendering.budget.charge(1 + (len(found) >> 6))
    return found


_WORDS: Final = {None: "", True: "true", False: "false"}


def _concatenated(rendering: Rendering, parts: list[Any]) -> str:
    texts = [text(rendering, part) for part in parts]
    rendering.budget.allow(sum(map(len, texts)))
    return "".join(texts)


def _path(_rendering: Rendering, value: Any, _name: str, keys: tuple[str | int, ...]) -> Any:
    for key in keys:
        value = member(value, key, "")
    return value


def _slice(rendering: Rendering, value: Any, start: Any, stop: Any, step: Any) -> Any:
    if not isinstance(value, str | list):
        return None
    rendering.budget.allow(len(value))
    return value[start:stop:step]


INTERNAL: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "@compare": compared,
        "@concat": or_null(_concatenated),
        "@item": or_null(lambda _rendering, value, key, _name: member(value, key, "")),
        "@path": or_null(_path),
        "@slice": or_null(_slice),
    }
)
"""What the rewriting of ``template_language`` puts in place of operators."""


# Lists


def _length(_rendering: Rendering, value: Any) -> Any:
    return len(value) if isinstance(value, str | list | dict) else None


def _default(_rendering: Rendering, value: Any, fallback: Any = "", boolean: Any = False) -> Any:
    return fallback if value is None or (boolean and not value) else value


def _map(rendering: Rendering, value: Any, *, attribute: Any, default: Any = None) -> Any:
    found = [as_json(along(rendering, element, attribute)) for element in _list(rendering, value)]
    return [default if element is None else element for element in found]


def _selected(wanted: bool) -> Callable[..., Any]:
    """Elements by what lies at a path in each: whether it is true, or how it compares."""

    def filter_(rendering: Rendering, value: Any, attribute: Any, test: Any = "truth", *operands: Any) -> Any:
        check = TESTS.get(test) if isinstance(test, str) and test != "truth" else (lambda _rendering, found: bool(found))
        if check is None:
            return None
        return [
            element
            for element in _list(rendering, value)
            if check(rendering, as_json(along(rendering, element, attribute)), *operands) is wanted
        ]

    return filter_


def _list(rendering: Rendering, value: Any) -> Any:
    if not isinstance(value, list):
        raise TemplateError("template_value_wrong")
    return elements(rendering, value)


def _total(rendering: Rendering, value: Any, attribute: Any = None) -> Any:
    """The sum of what is a number among the elements."""
    total: Any = 0
    for element in _list(rendering, value):
        found = element if attribute is None else along(rendering, element, attribute)
        if is_number(found):
            total += found
    return total


def _keys(rendering: Rendering, value: Any) -> Any:
    return list(elements(rendering, value)) if isinstance(value, dict) else None


def _values(rendering: Rendering, value: Any) -> Any:
    return [value[key] for key in elements(rendering, value)] if isinstance(value, dict) else None


_TAKEN: Final = ("abs", "first", "float", "int", "join", "last", "lower", "max", "min", "replace", "round", "sort", "trim",
                 "unique", "upper")  # fmt: skip
"""Filters that are those of templates, but for what they do when they can not."""

FILTERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        **{name: or_null(OF_TEMPLATES[name]) for name in _TAKEN},
        "count": or_null(_length),
        "d": or_null(_default),
        "default": or_null(_default),
        "keys": or_null(_keys),
        "length": or_null(_length),
        "map": or_null(_map),
        "rejectattr": or_null(_selected(False)),
        "selectattr": or_null(_selected(True)),
        "string": or_null(text),
        "sum": or_null(_total),
        "values": or_null(_values),
    }
)
"""Every filter by its name. The first argument is the rendering it works for."""


def _is(*kinds: type, but: tuple[type, ...] = ()) -> Callable[..., bool]:
    return lambda _rendering, value: isinstance(value, kinds) and not isinstance(value, but)


def _compares(operator: str) -> Callable[..., bool]:
    return lambda rendering, value, other: compared(rendering, value, operator, other)


TESTS: Mapping[str, Callable[..., bool]] = MappingProxyType(
    {
        "boolean": _is(bool),
        "defined": lambda _rendering, value: value is not None,
        "divisibleby": lambda rendering, value, divisor: operated(rendering, "%", value, divisor) == 0,
        "eq": _compares("eq"),
        "even": lambda rendering, value: operated(rendering, "%", value, 2) == 0,
        "false": lambda _rendering, value: value is False,
        "float": _is(float),
        "ge": _compares("gteq"),
        "gt": _compares("gt"),
        "in": _compares("in"),
        "integer": _is(int, but=(bool,)),
        "le": _compares("lteq"),
        "lt": _compares("lt"),
        "mapping": _is(dict),
        "ne": _compares("ne"),
        "none": lambda _rendering, value: value is None,
        "number": _is(int, float, but=(bool,)),
        "odd": lambda rendering, value: operated(rendering, "%", value, 2) == 1,
        "sequence": _is(list, str),
        "string": _is(str),
        "true": lambda _rendering, value: value is True,
        "undefined": lambda _rendering, value: value is None,
    }
)
"""Every test by its name. What is missing is null, so ``defined`` says whether there is something."""
