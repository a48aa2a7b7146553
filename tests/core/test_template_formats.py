"""Numbers, money, dates and lists as a recipient writes them, and what is refused when a template is compiled."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from babel import Locale, localedata
from babel.dates import format_datetime
from babel.numbers import format_currency, get_currency_precision, list_currencies
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.localization import Localization
from dispatcher.template_formats import CHECKS, FORMATS
from dispatcher.template_limits import Budget, MissingVariable, TemplateError
from dispatcher.template_moments import skeleton_pattern
from dispatcher.template_sandbox import compile_source
from dispatcher.templates import DEFAULT_LIMITS
from renderings import Rendering

NAIVE = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001 - they get their zone in the test
NBSP = "\u00a0"
NNBSP = "\u202f"
TAGS = ["en", "pt-BR", "de", "fr-CA", "ja", "ar-EG", "he", "fa", "hi", "pl", "zh-Hant-TW", "sw"]


def run(source: str, locale: str = "en", zone: str = "UTC", escapes: bool = False, **variables: Any) -> str:
    compiled = compile_source(source, escapes=escapes, limits=DEFAULT_LIMITS)
    return compiled.run(variables, Budget(50_000, 100_000), 100_000, Localization(locale, zone))


def refused(source: str, **variables: Any) -> str:
    with pytest.raises(TemplateError) as raised:
        run(source, **variables)
    return raised.value.code


def not_compiled(source: str) -> tuple[str, str | None, int | None]:
    with pytest.raises(TemplateError) as raised:
        compile_source(source, escapes=False, limits=DEFAULT_LIMITS)
    return raised.value.code, raised.value.name, raised.value.line


@pytest.mark.parametrize(
    ("expression", "value", "locale", "written"),
    [
        ("number", 1234567.891, "en", "1,234,567.891"),
        ("number", 1234567.891, "pt-BR", "1.234.567,891"),
        ("number", 1234567, "hi", "12,34,567"),
        ("number", "1234.50", "de", "1.234,5"),
        ("number(digits=2)", "1234.5", "de-CH", "1’234.50"),
        ("number", "123456789012345678.5", "en", "123,456,789,012,345,678.5"),
        ("percent", 0.256, "en", "26%"),
        ("percent(digits=1)", "0.256", "de", "25,6 %"),
        ("money('BRL')", "1234.5", "pt-BR", "R$ 1.234,50"),
        ("money('BRL')", 1234.5, "en", "R$1,234.50"),
        ("money('usd')", -3, "en", "-$3.00"),
        ("money('JPY')", 1234.6, "ja", "\uffe51,235"),
        ("money('EUR', scale=2)", 199900, "de", "1.999,00 €"),
        ("money('EUR', digits=0)", 1999.5, "de", "2.000 €"),
        ("money('EUR', style='name')", 2, "en", "2.00 euros"),
        ("money('EUR', style='compact')", 2_500_000, "en", "€2.5M"),
        ("money('EUR', style='accounting')", -2, "en", "(€2.00)"),
        ("currency('EUR')", 2, "en", "€2.00"),
        ("compact", 1234567, "en", "1.2M"),
        ("compact(style='long', digits=0)", 1234567, "pt", "1 milhão"),
        ("unit('kilometer')", 5, "en", "5 kilometers"),
        ("unit('kilometer', style='short')", 5, "pt", "5 km"),
        ("plural(one='ticket', other='tickets')", 1, "en", "ticket"),
        ("plural(one='ticket', other='tickets')", 0, "en", "tickets"),
        ("plural(one='bilet', few='bilety', many='biletów', other='biletu')", 3, "pl", "bilety"),
        ("plural(one='bilet', few='bilety', many='biletów', other='biletu')", "1.5", "pl", "biletu"),
        ("duration", 7200, "en", "2 hours"),
        ("duration(style='short')", 90, "de", "2 Min."),
        ("listed", ["a", "b", "c"], "en", "a, b, and c"),
        ("listed", ["a", "b", "c"], "pt-BR", "a, b e c"),
        ("listed('or')", ["a", 2], "de", "a oder 2"),
        ("listed", [], "de", ""),
        ("listed", ["{0}"], "de", "{0}"),
    ],
)
def test_numbers_and_lists_are_written_as_the_locale_does(expression: str, value: Any, locale: str, written: str) -> None:
    assert run("<{{ x | " + expression + " }}>", locale, x=value) == f"<{written}>"


@pytest.mark.parametrize(
    ("expression", "value", "locale", "zone", "written"),
    [
        ("date", "2026-12-24T23:30:00Z", "en", "UTC", "Dec 24, 2026"),
        ("date", "2026-12-24T23:30:00Z", "en", "Asia/Tokyo", "Dec 25, 2026"),
        ("date", "2026-12-24", "en", "Asia/Tokyo", "Dec 24, 2026"),
        ("date('short')", "2026-12-24", "pt-BR", "UTC", "24/12/2026"),
        ("date('full')", "2026-12-24", "pt-BR", "UTC", "quinta-feira, 24 de dezembro de 2026"),
        ("date('yMMMd')", "2026-12-24", "ja", "UTC", "2026年12月24日"),
        ("time('short')", "2026-12-24T23:30:00Z", "en", "America/Sao_Paulo", "8:30 PM"),
        ("time('short')", "2026-12-24T23:30:00Z", "pt-BR", "America/Sao_Paulo", "20:30"),
        ("time('short', zone='Asia/Tokyo')", "2026-12-24T23:30:00Z", "pt-BR", "America/Sao_Paulo", "08:30"),
        ("time('jm')", "2026-12-24T23:30:00Z", "en", "UTC", "11:30 PM"),
        ("time('jm')", "2026-12-24T23:30:00Z", "de", "UTC", "23:30"),
        ("datetime('short')", "2026-12-24 23:30:00.5+01:00", "de", "UTC", "24.12.26, 22:30"),
        ("datetime('MMMdHm')", "2026-12-24T23:30:00Z", "en", "UTC", "Dec 24, 23:30"),
        ("datetime('short')", "2026-12-24T23:30", "de", "Asia/Tokyo", "24.12.26, 23:30"),
        ("datetime('full')", "2026-07-01T10:00", "en", "Europe/Berlin", None),
        ("datetime('short')", 0, "de", "UTC", "01.01.70, 00:00"),
        ("relative('2026-12-24T20:30:00Z')", "2026-12-24T23:30:00Z", "en", "UTC", "in 3 hours"),
        ("relative('2026-12-24T23:30:00Z')", "2026-12-22T23:30:00Z", "pt-BR", "UTC", "há 2 dias"),
        ("relative('2026-12-24T23:30:00Z', zone='Asia/Tokyo')", "2026-12-27", "en", "UTC", "in 2 days"),
    ],
)
def test_dates_are_written_as_the_locale_does_on_the_recipient_s_clock(
    expression: str, value: Any, locale: str, zone: str, written: str | None
) -> None:
    found = run("<{{ x | " + expression + " }}>", locale, zone, x=value)

    if written is None:
        assert "Central European Summer Time" in found
    else:
        assert found == f"<{written}>"


def test_spaces_that_do_not_break_are_kept_in_html_only() -> None:
    """One of them makes an SMS of 160 characters one of 70."""
    source = "{{ x | money('EUR') }} {{ y | time('short') }}"
    written = run(source, "fr", x="1234.5", y="2026-12-24T10:00:00Z")

    assert written == "1 234,50 € 10:00"
    assert run(source, "fr", escapes=True, x="1234.5", y="2026-12-24T10:00:00Z") == f"1{NNBSP}234,50{NBSP}€ 10:00"
    assert run("{{ y | time('short') }}", "en", y="2026-12-24T10:00:00Z").isascii()


@pytest.mark.parametrize(
    ("expression", "value", "code"),
    [
        ("number", "1e5", "template_number_invalid"),
        ("number", "12 000", "template_number_invalid"),
        ("number", True, "template_number_invalid"),
        ("number", [1], "template_number_invalid"),
        ("number", float("nan"), "template_number_invalid"),
        ("number", float("inf"), "template_number_invalid"),
        ("number", 1e300, "template_value_too_large"),
        ("number", 2**70, "template_value_too_large"),
        ("number", "1" * 19, "template_number_invalid"),
        ("money(c)", 1, "template_currency_unknown"),
        ("date", "24.12.2026", "template_date_invalid"),
        ("date", "2026-02-30", "template_date_invalid"),
        ("date", "2026-W01-1", "template_date_invalid"),
        ("date", "2026-01-01T25:00:00Z", "template_date_invalid"),
        ("date", "0001-01-01", "template_date_invalid"),
        ("date", 10**15, "template_date_invalid"),
        ("date", 10**400, "template_date_invalid"),
        ("date", True, "template_date_invalid"),
        ("date", {}, "template_date_invalid"),
        ("date(zone=c)", "2026-01-01", "template_zone_unknown"),
        ("date(zone='UTC'|upper|lower)", "2026-01-01", "template_zone_unknown"),
        ("time", "2026-01-01", "template_date_invalid"),
        ("datetime", "2026-01-01", "template_date_invalid"),
        ("relative(c)", "2026-01-01", "template_date_invalid"),
        ("duration", -1, "template_value_too_large"),
        ("duration", 10**17, "template_value_too_large"),
        ("unit(c)", 1, "template_unit_unknown"),
        ("listed", "abc" * 500, "template_value_too_large"),
        ("listed", [[1]], "template_value_wrong"),
        ("money('EUR', scale=c)", 1, "template_value_wrong"),
        ("money('EUR', digits=0, style='name')", 1, "template_argument_wrong"),
    ],
)
def test_a_value_that_can_not_be_written_is_an_error_of_its_own(expression: str, value: Any, code: str) -> None:
    assert refused("{{ x | " + expression + " }}", x=value, c="XXQ") == code


def test_an_error_tells_the_line_and_never_the_value() -> None:
    with pytest.raises(TemplateError) as raised:
        run("\n{{ x | money(c) }}", x="12", c="hush")

    assert (raised.value.line, raised.value.name) == (2, None)


def test_a_value_that_is_missing_is_named() -> None:
    for expression in ("number", "money('EUR')", "date", "relative('2026-01-01')", "listed", "plural(other='x')"):
        with pytest.raises(MissingVariable) as raised:
            run("{{ order.total | " + expression + " }}", order={})
        assert raised.value.name == "order.total"


@pytest.mark.parametrize(
    ("expression", "code", "name"),
    [
        ("money('XXQ')", "template_currency_unknown", "XXQ"),
        ("money(5)", "template_currency_unknown", None),
        ("money", "template_argument_wrong", "money"),
        ("money('EUR', 0, none, 'standard', 1)", "template_argument_wrong", "money"),
        ("money('EUR', colour='red')", "template_argument_wrong", "money"),
        ("money('EUR', style='loud')", "template_style_unknown", "loud"),
        ("money('EUR', style=x)", "template_style_unknown", "money"),
        ("money('EUR', scale=9)", "template_argument_wrong", "digits"),
        ("number(digits=-1)", None, None),
        ("number(digits='2')", "template_argument_wrong", "digits"),
        ("date('huge')", "template_style_unknown", "huge"),
        ("date('jm')", "template_style_unknown", "jm"),
        ("time('yMd')", "template_style_unknown", "yMd"),
        ("date('yMd' ~ x)", "template_style_unknown", "date"),
        ("datetime('short', 'Mars/Olympus')", "template_zone_unknown", "Mars/Olympus"),
        ("datetime(zone='localtime')", "template_zone_unknown", "localtime"),
        ("unit('parsnip')", "template_unit_unknown", "parsnip"),
        ("listed('nor')", "template_style_unknown", "nor"),
        ("plural(one='x')", "template_argument_wrong", "plural"),
        ("plural(singular='x', other='y')", "template_argument_wrong", "plural"),
        ("map('money', 'XXQ')", "template_currency_unknown", "XXQ"),
        ("map('date', x)", "template_style_unknown", "date"),
    ],
)
def test_what_is_wrong_whatever_the_variables_does_not_compile(expression: str, code: str | None, name: str | None) -> None:
    source = "\n\n{{ x | " + expression + " }}"
    if code is None:
        compile_source(source, escapes=False, limits=DEFAULT_LIMITS)
    else:
        assert not_compiled(source) == (code, name, 3)


def test_every_format_has_checks_of_its_arguments() -> None:
    assert CHECKS.keys() == FORMATS.keys()


def test_a_style_that_comes_with_the_variables_is_refused() -> None:
    """Looking a skeleton up is dearer than using it, so the template's author says which there are."""
    assert refused("{{ [x]|map(f, s)|first }}", x="2026-01-01", f="date", s="yMd") == "template_style_unknown"
    assert run("{{ [x]|map(f, 'yMd')|first }}", x="2026-01-01", f="date") == "1/1/2026"


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_writing_something_is_paid_for(name: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "money": (1, "EUR"),
        "currency": (1, "EUR"),
        "unit": (1, "meter"),
        "plural": (1, "x"),
        "relative": ("2026-01-01", "2026-01-01"),
        "listed": (["a"],),
    }
    rendering = Rendering()
    FORMATS[name](rendering, *arguments.get(name, ("2026-01-01T10:00:00Z" if "date" in name or name == "time" else 1,)))

    assert rendering.spent >= 6


@given(st.sampled_from(TAGS), st.decimals(-(10**15), 10**15, places=2), st.sampled_from(sorted(list_currencies())))
def test_money_is_what_babel_writes(tag: str, value: Decimal, currency: str) -> None:
    written = FORMATS["money"](Rendering(True, localization=Localization(tag)), str(value), currency)

    assert written == format_currency(value, currency, locale=Locale.parse(tag, sep="-"))


@given(st.sampled_from(TAGS), st.integers(0, 10**14), st.sampled_from(sorted(list_currencies())))
def test_money_in_small_units_is_the_same_money(tag: str, value: int, currency: str) -> None:
    rendering = Rendering(localization=Localization(tag))
    places = get_currency_precision(currency)
    shifted = Decimal(value).scaleb(-places)

    assert FORMATS["money"](rendering, value, currency, scale=places) == FORMATS["money"](rendering, f"{shifted:f}", currency)


@given(st.sampled_from(TAGS), NAIVE, st.sampled_from(["UTC", "Asia/Kolkata"]))
def test_dates_are_what_babel_writes(tag: str, value: datetime, zone: str) -> None:
    moment = value.replace(tzinfo=UTC)
    written = FORMATS["datetime"](Rendering(True, localization=Localization(tag, zone)), moment.isoformat(), "long")

    assert written == format_datetime(moment, "long", tzinfo=_zone(zone), locale=Locale.parse(tag, sep="-"))


def _zone(name: str) -> Any:
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)


def test_whatever_the_locale_and_the_value_the_end_is_a_text() -> None:
    """No locale makes an error of what another can write."""
    values: dict[str, tuple[Any, ...]] = {
        "money": ("-1234567.891", "EUR"),
        "number": ("-0.5",),
        "percent": ("0.5",),
        "compact": (1234567,),
        "unit": (3, "gigabyte"),
        "date": ("2026-12-24", "full"),
        "time": ("2026-12-24T10:00:00Z", "full"),
        "datetime": ("2026-12-24T10:00:00Z", "full", "America/New_York"),
        "relative": ("2026-12-24", "2026-12-20"),
        "listed": (["a", "b", "c"],),
    }
    for tag in TAGS:
        for name, arguments in values.items():
            assert FORMATS[name](Rendering(localization=Localization(tag)), *arguments).strip()


def test_the_usual_skeletons_have_a_pattern_in_every_language() -> None:
    languages = [name for name in localedata.locale_identifiers() if "_" not in name][::9]
    missing = {
        (language, skeleton)
        for language in languages
        for skeleton in ("yMMMd", "MMMd", "yMMMEd", "jm", "yMMMdjm", "Hm")
        if skeleton_pattern(language, skeleton) is None
    }

    assert missing == set()


def test_what_is_equal_and_not_written_alike_is_not_confused_whichever_is_written_first() -> None:
    for _ in range(2):
        assert run("{{ a|money('EUR') }} {{ b|money('EUR') }}", a=0.0, b=-0.0) == "€0.00 -€0.00"
        assert run("{{ a|number }} {{ b|number }}", a="-0", b=0) == "-0 0"
        twice = [run("{{ at|datetime('full') }}", zone="Europe/Lisbon", at=f"2026-10-25T0{hour}:30:00Z") for hour in (0, 1)]
        assert twice[0] != twice[1]


def test_a_moment_is_written_for_each_zone_and_locale_anew() -> None:
    source = "{{ at|time('short') }}"
    asked = [("en", "UTC"), ("en", "Asia/Tokyo"), ("de", "UTC"), ("en", "UTC")]
    written = [run(source, locale, zone, at="2026-03-01T10:00:00Z").replace(NNBSP, " ") for locale, zone in asked]
    assert written == ["10:00 AM", "7:00 PM", "10:00", "10:00 AM"]
