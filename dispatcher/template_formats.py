"""The filters that write for a recipient, all together, and what can be known of their arguments before anything is rendered.

What stands in a template's source as an argument is checked when it is compiled: a currency, a zone, a style, a unit, and how
many arguments there are and what they are called. So a template that is wrong about one of these can not be stored. Invariant:
whatever passes here fails later only because of a value that came with the variables.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial, wraps
from inspect import Signature, signature
from types import MappingProxyType
from typing import Any, Final

from dispatcher.template_amounts import (
    AMOUNT_FILTERS,
    COMPACT_STYLES,
    DIGITS_MAX,
    MONEY_STYLES,
    UNIT_STYLES,
    currency_code,
    is_unit,
    spaced,
)
from dispatcher.template_limits import TemplateError
from dispatcher.template_moments import MOMENT_FILTERS, Asked, is_style
from dispatcher.template_values import Rendering
from dispatcher.template_words import LIST_STYLES, WORD_FILTERS
from dispatcher.zones import is_zone

UNKNOWN: Final = object()
"""Stands for an argument that is computed when the template is rendered."""


def _spaced(filter_: Callable[..., str]) -> Callable[..., str]:
    @wraps(filter_)
    def with_spaces(rendering: Rendering, value: Any, *arguments: Any, **keywords: Any) -> str:
        return spaced(rendering, filter_(rendering, value, *arguments, **keywords))

    return with_spaces


FORMATS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {name: _spaced(filter_) for name, filter_ in {**AMOUNT_FILTERS, **MOMENT_FILTERS}.items()} | dict(WORD_FILTERS)
)
"""Every filter that writes for a recipient, by its name."""


def _refused(code: str, allowed: Callable[[Any], bool], value: Any) -> None:
    if not allowed(value):
        raise TemplateError(code, value if isinstance(value, str) and len(value) <= 64 else None)


def _one_of(styles: Collection[str]) -> Callable[[Any], None]:
    return partial(_refused, "template_style_unknown", lambda value: isinstance(value, str) and value in styles)


def _style_of(asked: Asked) -> Callable[[Any], None]:
    return partial(_refused, "template_style_unknown", lambda value: is_style(value, asked))


def _currency(value: Any) -> None:
    try:
        currency_code(value)
    except TemplateError as error:
        raise TemplateError(error.code, value if isinstance(value, str) and len(value) <= 64 else None) from None


def _digits(value: Any) -> None:
    if value is not None and not (isinstance(value, int) and 0 <= value <= DIGITS_MAX):
        raise TemplateError("template_argument_wrong", "digits")


_zone = partial(_refused, "template_zone_unknown", lambda value: value is None or is_zone(value))
_unit = partial(_refused, "template_unit_unknown", is_unit)

_MONEY: Final = {"currency": _currency, "scale": _digits, "digits": _digits, "style": _one_of(MONEY_STYLES)}
CHECKS: Mapping[str, Mapping[str, Callable[[Any], None]]] = MappingProxyType(
    {
        "compact": {"style": _one_of(COMPACT_STYLES), "digits": _digits},
        "currency": _MONEY,
        "date": {"style": _style_of("date"), "zone": _zone},
        "datetime": {"style": _style_of("datetime"), "zone": _zone},
        "duration": {"style": _one_of(UNIT_STYLES)},
        "listed": {"style": _one_of(LIST_STYLES)},
        "money": _MONEY,
        "number": {"digits": _digits},
        "percent": {"digits": _digits},
        "plural": {},
        "relative": {"style": _one_of(UNIT_STYLES), "zone": _zone},
        "time": {"style": _style_of("time"), "zone": _zone},
        "unit": {"unit": _unit, "style": _one_of(UNIT_STYLES)},
    }
)
"""For each filter, what a constant argument has to be. A style is always one."""

_SIGNATURES: Mapping[str, Signature] = MappingProxyType({name: signature(filter_) for name, filter_ in FORMATS.items()})


def check_arguments(name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    """Check a use of a filter of ``FORMATS``; what is computed later is ``UNKNOWN``. Raises TemplateError."""
    try:
        bound = _SIGNATURES[name].bind(None, None, *arguments, **keywords).arguments
    except TypeError:
        raise TemplateError("template_argument_wrong", name) from None
    if bound.get("style") is UNKNOWN:
        raise TemplateError("template_style_unknown", name)
    for parameter, check in CHECKS[name].items():
        if parameter in bound and bound[parameter] is not UNKNOWN:
            check(bound[parameter])
