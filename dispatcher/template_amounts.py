"""The filters that write numbers for a recipient: plain, percent, money, compact, with a unit, and the word for a number.

Babel writes them, by the data of CLDR for the rendering's locale; digits are 0 to 9 in every locale. A number is a JSON number or
a text such as ``"1234.50"``, which keeps every digit of it. Invariant: what is no number, no currency or no unit is a
:class:`TemplateError` of its own, the same in every locale.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import copy
from decimal import Decimal
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from babel.core import get_global
from babel.numbers import (
    NumberPattern,
    format_compact_currency,
    format_compact_decimal,
    format_currency,
    format_decimal,
    format_percent,
)
from babel.units import UnknownUnitError, format_unit, get_unit_name

from dispatcher.localization import ROOT, babel_locale
from dispatcher.template_limits import TemplateError
from dispatcher.template_values import Rendering, number, present, text, whole

DIGITS_MAX: Final = 8
"""Digits behind the point, and how far ``scale`` shifts it. With 18 before it that fits Python's decimal precision of 28."""
MONEY_STYLES: Final = frozenset({"standard", "accounting", "name", "compact"})
COMPACT_STYLES: Final = frozenset({"short", "long"})
UNIT_STYLES: Final = frozenset({"short", "long", "narrow"})
WRITTEN_MAX: Final = 4096
"""Numbers, and moments, that are kept as they were written. Everybody's ticket has the same date and one of a few prices, and to
write one takes Babel 25 µs, as long as the rest of a mail."""

_NUMBER = re.compile(r"[+-]?\d{1,18}(?:\.\d{1,18})?", re.ASCII)
_END: Final = Decimal(10) ** 18


def amount(value: Any) -> Decimal:
    """A number, exactly. Raises TemplateError for what is none, or is 10**18 or more."""
    if isinstance(value, str):
        if _NUMBER.fullmatch(value) is None:
            raise TemplateError("template_number_invalid")
        return Decimal(value)
    if isinstance(present(value), bool) or not isinstance(value, int | float):
        raise TemplateError("template_number_invalid")
    found = Decimal(str(number(value)))
    if not found.is_finite():
        raise TemplateError("template_number_invalid")
    if not -_END < found < _END:
        raise TemplateError("template_value_too_large")
    return found


def counted(value: Any) -> int | Decimal:
    """A number as plural rules look at it, and as it is written: without zeros behind the point."""
    found = amount(value)
    whole_ = found.to_integral_value()
    return int(whole_) if found == whole_ else found.normalize()


def currency_code(value: Any) -> str:
    """The code of a currency (ISO 4217), whatever its case. Raises TemplateError for what is none."""
    code = value.upper() if isinstance(present(value), str) and len(value) == 3 else ""
    if code not in get_global("all_currencies"):
        raise TemplateError("template_currency_unknown")
    return code


def is_unit(name: Any) -> bool:
    """Whether there is a unit of this name, such as ``kilometer`` or ``digital-gigabyte``."""
    try:
        return isinstance(name, str) and bool(get_unit_name(name, locale=babel_locale(ROOT)))
    except (UnknownUnitError, ValueError):
        return False


def spaced(rendering: Rendering, found: str) -> str:
    """With plain spaces for the ones that do not break, except in HTML: one of them makes an SMS of 160 characters one of 70."""
    return found if rendering.autoescape else found.replace("\u00a0", " ").replace("\u202f", " ")


def written(rendering: Rendering, value: Any) -> str:
    """A number as the locale writes it."""
    rendering.budget.charge(12)
    return spaced(rendering, _written("decimal", str(amount(value)), rendering.localization.locale))


def _number(rendering: Rendering, value: Any, digits: Any = None) -> str:
    if digits is None:
        return written(rendering, value)
    rendering.budget.charge(12)
    return _applied(rendering, "decimal", digits, amount(value))


def _percent(rendering: Rendering, value: Any, digits: Any = None) -> str:
    rendering.budget.charge(12)
    if digits is None:
        return _written("percent", str(amount(value)), rendering.localization.locale)
    return _applied(rendering, "percent", digits, amount(value))


def _money(rendering: Rendering, value: Any, currency: Any, scale: Any = 0, digits: Any = None, style: Any = "standard") -> str:
    rendering.budget.charge(24)
    locale, code = rendering.localization.locale, currency_code(currency)
    found = amount(value).scaleb(-whole(scale, 0, DIGITS_MAX))
    if digits is not None:
        if style not in ("standard", "accounting"):
            raise TemplateError("template_argument_wrong", "digits")
        return _applied(rendering, style, digits, found, code)
    if style not in MONEY_STYLES:
        raise TemplateError("template_style_unknown")
    return _written(style, str(found), locale, code)


@lru_cache(maxsize=WRITTEN_MAX)
def _written(style: str, digits: str, tag: str, currency: str = "") -> str:
    """A number as the locale writes it. It comes as a text: of numbers that are equal, -0 and 0 are not written alike."""
    value, locale = Decimal(digits), babel_locale(tag)
    if style == "decimal":
        return format_decimal(value, locale=locale)
    if style == "percent":
        return format_percent(value, locale=locale)
    if style == "compact":
        return format_compact_currency(value, currency, locale=locale, fraction_digits=1)
    return format_currency(value, currency, locale=locale, format_type=style)  # type: ignore[arg-type]


def _compact(rendering: Rendering, value: Any, style: Any = "short", digits: Any = 1) -> str:
    rendering.budget.charge(30)
    if style not in COMPACT_STYLES:
        raise TemplateError("template_style_unknown")
    locale = babel_locale(rendering.localization.locale)
    return format_compact_decimal(amount(value), format_type=style, locale=locale, fraction_digits=whole(digits, 0, DIGITS_MAX))


def _unit(rendering: Rendering, value: Any, unit: Any, style: Any = "long") -> str:
    rendering.budget.charge(20)
    if style not in UNIT_STYLES:
        raise TemplateError("template_style_unknown")
    found = amount(value)
    for locale in (rendering.localization.locale, ROOT):  # a few units have names in few languages
        try:
            return format_unit(found, text(rendering, unit), style, locale=babel_locale(locale))
        except UnknownUnitError:
            continue
    raise TemplateError("template_unit_unknown")


def _plural(
    rendering: Rendering,
    value: Any,
    other: Any,
    zero: Any = None,
    one: Any = None,
    two: Any = None,
    few: Any = None,
    many: Any = None,
) -> str:
    """The word that goes with a number: that of its plural category in the locale, or the one for all others."""
    rendering.budget.charge(6)
    words = {"zero": zero, "one": one, "two": two, "few": few, "many": many}
    chosen = words.get(babel_locale(rendering.localization.locale).plural_form(counted(value)))
    return text(rendering, other if chosen is None else chosen)


def _applied(rendering: Rendering, kind: str, digits: Any, value: Decimal, currency: str | None = None) -> str:
    pattern = _fixed(rendering.localization.locale, kind, whole(digits, 0, DIGITS_MAX))
    return str(pattern.apply(value, babel_locale(rendering.localization.locale), currency=currency, currency_digits=False))


@lru_cache(maxsize=1024)
def _fixed(tag: str, kind: str, digits: int) -> NumberPattern:
    """The locale's pattern with so many digits behind the point."""
    locale = babel_locale(tag)
    patterns: Mapping[str, Mapping[Any, NumberPattern]] = {
        "decimal": locale.decimal_formats,
        "percent": locale.percent_formats,
    }
    pattern = copy(patterns[kind][None] if kind in patterns else locale.currency_formats[kind])
    pattern.frac_prec = (digits, digits)
    return pattern


AMOUNT_FILTERS: Mapping[str, Callable[..., str]] = MappingProxyType(
    {
        "compact": _compact,
        "currency": _money,
        "money": _money,
        "number": _number,
        "percent": _percent,
        "plural": _plural,
        "unit": _unit,
    }
)
"""Every filter that writes numbers, by its name."""
