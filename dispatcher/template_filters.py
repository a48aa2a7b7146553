"""The filters that templates have: a table of small functions, those for texts and numbers written here.

They are Jinja's own by name and meaning, written anew so that each pays for its work (see ``template_values``). What is not in
the tables does not exist: ``attr``, ``pprint``, ``xmlattr``, ``random`` and their like are left out on purpose. Invariant: a
filter gives the same result for the same values, always.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from html import unescape
from json import dumps
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup, escape

from dispatcher.template_formats import FORMATS
from dispatcher.template_limits import Missing, TemplateError
from dispatcher.template_lists import LIST_FILTERS
from dispatcher.template_values import (
    Rendering,
    along,
    elements,
    formatted,
    joined,
    number,
    present,
    text,
    whole,
    wrong,
)

JSON_DEPTH_MAX: Final = 32
WIDTH_MAX: Final = 10_000

_TAG = re.compile(r"<[^<>]*>")
_HTML_IN_JSON = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", ord("'"): "\\u0027"}
_ABSENT: Final = object()


# Texts


def _changed(change: Callable[[str], str]) -> Callable[[Rendering, Any], str]:
    """A filter that makes a text of about the same length out of a text."""

    def filter_(rendering: Rendering, value: Any) -> str:
        return change(text(rendering, value))

    return filter_


def _trim(rendering: Rendering, value: Any, characters: Any = None) -> str:
    return text(rendering, value).strip(None if characters is None else text(rendering, characters))


def _escape(rendering: Rendering, value: Any) -> str:
    return _markup(rendering, escape(text(rendering, value)))


def _safe(rendering: Rendering, value: Any) -> str:
    return _markup(rendering, text(rendering, value))  # the template's author vouches for the value


def _markup(rendering: Rendering, safe: str) -> str:
    """Mark as safe where that means something. In a plain text it would make what stands beside it be escaped."""
    return Markup(safe) if rendering.autoescape else str(safe)  # noqa: S704 - whoever calls says that it is safe


def _striptags(rendering: Rendering, value: Any) -> str:
    found = text(rendering, value)
    rendering.budget.charge(len(found) >> 3)
    return " ".join(unescape(_TAG.sub("", str(found))).split())


def _replace(rendering: Rendering, value: Any, old: Any, new: Any, count: Any = None) -> str:
    found, old, new = text(rendering, value), text(rendering, old), text(rendering, new)
    if isinstance(found, Markup) or isinstance(new, Markup):
        found, old, new = escape(found), escape(old), escape(new)
    times = found.count(old) if count is None else min(found.count(old), whole(count, 0, WIDTH_MAX))
    rendering.budget.allow(len(found) + times * len(new))
    return found.replace(old, new, times)


def _truncate(rendering: Rendering, value: Any, length: Any = 255, killwords: Any = False, end: Any = "...") -> str:
    found, end = text(rendering, value), text(rendering, end)
    if len(found) <= whole(length, len(end), 1_000_000):
        return found
    kept = found[: length - len(end)]
    return joined(rendering, (kept if killwords else kept.rsplit(" ", 1)[0], end))


def _center(rendering: Rendering, value: Any, width: Any = 80) -> str:
    rendering.budget.allow(whole(width, 0, WIDTH_MAX))
    return text(rendering, value).center(width)


def _indent(rendering: Rendering, value: Any, width: Any = 4, first: Any = False, blank: Any = False) -> str:
    found, margin = text(rendering, value), " " * whole(width, 0, 100)
    rendering.budget.allow(len(found) + (found.count("\n") + 1) * len(margin))
    lines = [
        margin + line if (line or blank) and (position or first) else line for position, line in enumerate(found.split("\n"))
    ]
    return found[:0] + type(found)("\n").join(lines)


def _format(rendering: Rendering, value: Any, *values: Any) -> str:
    return formatted(rendering, text(rendering, value), values)


def _urlencode(rendering: Rendering, value: Any) -> str:
    found = text(rendering, value)
    rendering.budget.allow(12 * len(found))
    return quote(found, safe="/")


def _tojson(rendering: Rendering, value: Any) -> str:
    _weigh(rendering, value, JSON_DEPTH_MAX)
    found = dumps(value, ensure_ascii=False, allow_nan=False).translate(_HTML_IN_JSON)
    return _markup(rendering, found)


def _weigh(rendering: Rendering, value: Any, depth: int) -> None:
    """Pay for a nested value as often as it will be written, which may be far more often than it is stored."""
    if depth == 0:
        raise TemplateError("template_value_too_large")
    if isinstance(value, dict):
        rendering.budget.charge(len(value))
        for key, inner in value.items():
            text(rendering, key)
            _weigh(rendering, inner, depth - 1)
    elif isinstance(value, list | tuple):
        rendering.budget.charge(len(value))
        for inner in value:
            _weigh(rendering, inner, depth - 1)
    elif value is not None:
        text(rendering, value)


# Numbers


def _round(_rendering: Rendering, value: Any, precision: Any = 0, method: Any = "common") -> float:
    if method not in ("common", "ceil", "floor"):
        raise wrong()
    places = whole(precision, 0, 15)
    if method == "common":
        return round(float(number(value)), places)
    scaled = float(number(value)) * 10**places
    rest = scaled % 1
    return float((scaled - rest + (1 if rest and method == "ceil" else 0)) / 10**places)


def _to_int(value: Any) -> int:
    """Also of a text that holds a fraction, which is cut off."""
    try:
        return int(value)
    except ValueError:
        return int(float(value))


def _converted(kind: Callable[[Any], Any], fallback: Any) -> Callable[..., Any]:
    """A filter that makes a number out of a number or a text, or gives its default."""

    def filter_(rendering: Rendering, value: Any, default: Any = fallback) -> Any:
        try:
            return number(kind(present(value)[:400] if isinstance(value, str) else number(value)))
        except (ValueError, OverflowError):
            return default

    return filter_


# Anything


def _default(_rendering: Rendering, value: Any, fallback: Any = "", boolean: Any = False) -> Any:
    """Also for null: to whoever reads the text it is as missing as a name that is not there."""
    return fallback if isinstance(value, Missing) or value is None or (boolean and not value) else value


def _length(_rendering: Rendering, value: Any) -> int:
    if not isinstance(present(value), str | list | tuple | dict | range):
        raise wrong()
    return len(value)


# Each element of a list


def _map(
    rendering: Rendering, value: Any, name: Any = None, *arguments: Any, attribute: Any = None, default: Any = _ABSENT
) -> Any:
    """The same attribute of every element, or what a filter makes of every element."""
    if attribute is None:
        apply = FILTERS.get(name) if isinstance(name, str) else None
        if apply is None:
            raise wrong()
        return [apply(rendering, element, *arguments) for element in elements(rendering, value)]
    found = [along(rendering, element, attribute) for element in elements(rendering, value)]
    return found if default is _ABSENT else [_default(rendering, element, default) for element in found]


FILTERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        **LIST_FILTERS,
        **FORMATS,
        "abs": lambda _rendering, value: abs(number(value)),
        "capitalize": _changed(lambda found: found.capitalize()),
        "center": _center,
        "count": _length,
        "d": _default,
        "default": _default,
        "e": _escape,
        "escape": _escape,
        "float": _converted(float, 0.0),
        "format": _format,
        "indent": _indent,
        "int": _converted(_to_int, 0),
        "length": _length,
        "lower": _changed(lambda found: found.lower()),
        "map": _map,
        "replace": _replace,
        "round": _round,
        "safe": _safe,
        "string": text,
        "striptags": _striptags,
        "title": _changed(lambda found: found.title()),
        "tojson": _tojson,
        "trim": _trim,
        "truncate": _truncate,
        "upper": _changed(lambda found: found.upper()),
        "urlencode": _urlencode,
    }
)
"""Every filter by its name. The first argument is the rendering it works for."""
