"""The filters that write dates and times for a recipient: absolute, relative to another moment, and spans.

Babel writes them, by the data of CLDR for the rendering's locale and in the Gregorian calendar. A moment is a text of RFC 3339,
a date alone, a date and time without an offset (which is on the clock of the zone it is shown in), or a whole number of Unix
seconds. No clock is read: what is relative is relative to a value. Invariant: what is no date or no zone is a
:class:`TemplateError` of its own, the same in every locale, and a date without a time never gets one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar
from zoneinfo import ZoneInfo

from babel.dates import format_date, format_datetime, format_time, format_timedelta, match_skeleton

from dispatcher.localization import ROOT, babel_locale
from dispatcher.template_amounts import UNIT_STYLES, WRITTEN_MAX, amount
from dispatcher.template_limits import TemplateError
from dispatcher.template_values import Rendering, present
from dispatcher.zones import zone_named

STYLES: Final = frozenset({"short", "medium", "long", "full"})
Asked = Literal["date", "time", "datetime"]
Day = TypeVar("Day", bound=date)

_DATE_FIELDS: Final = "GyYuUrQqMLwWdDEec"
_TIME_FIELDS: Final = "abBhHkKjmsSvVzZOxX"
_SKELETONS: Mapping[str, re.Pattern[str]] = {
    "date": re.compile(f"[{_DATE_FIELDS}]{{1,24}}"),
    "time": re.compile(f"[{_TIME_FIELDS}]{{1,24}}"),
    "datetime": re.compile(f"[{_DATE_FIELDS}{_TIME_FIELDS}]{{1,32}}"),
}
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d(?P<time>[Tt ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?P<offset>[Zz]|[+-]\d\d:\d\d)?)?", re.ASCII)
_YEARS: Final = range(2, 9999)
"""A day more or less, as zones differ, is still a date."""
_SECONDS_MAX: Final = 10**10


def zone_of(rendering: Rendering, name: Any) -> ZoneInfo:
    """The zone of a filter's argument, or the recipient's. Raises TemplateError for what is none."""
    wanted = rendering.localization.time_zone if name is None else present(name)
    found = zone_named(wanted) if isinstance(wanted, str) else None
    if found is None:
        raise TemplateError("template_zone_unknown")
    return found


def moment(value: Any, zone: ZoneInfo) -> datetime | date:
    """A moment on the clock of a zone, or a date. Raises TemplateError for what is neither."""
    try:
        if isinstance(present(value), int) and not isinstance(value, bool) and abs(value) < 60 * _SECONDS_MAX:
            return _within_years(datetime.fromtimestamp(value, UTC).astimezone(zone))
        match = _MOMENT.fullmatch(value) if isinstance(value, str) else None
        if match is not None:
            if match["time"] is None:
                return _within_years(date.fromisoformat(value))
            found = datetime.fromisoformat(value.upper())
            return _within_years(found.replace(tzinfo=zone) if match["offset"] is None else found.astimezone(zone))
    except (ValueError, OverflowError, OSError):
        pass
    raise TemplateError("template_date_invalid")


def _within_years(found: Day) -> Day:
    if found.year not in _YEARS:
        raise ValueError
    return found


def is_style(style: Any, asked: Asked) -> bool:
    """Whether it is one of the four styles, or a skeleton of the fields asked for that CLDR has a pattern for."""
    if not isinstance(style, str):
        return False
    return style in STYLES or (_SKELETONS[asked].fullmatch(style) is not None and skeleton_pattern(ROOT, style) is not None)


@lru_cache(maxsize=4096)
def skeleton_pattern(tag: str, skeleton: str) -> str | None:
    """The locale's pattern that comes closest to a skeleton: of the date and the time, put together. None when there is none."""
    locale = babel_locale(tag)
    known = locale.datetime_skeletons
    if skeleton in known:
        return str(known[skeleton].pattern)
    hour = "h" if "h" in locale.time_formats["short"].pattern else "H"
    patterns = []
    for fields in (_DATE_FIELDS, _TIME_FIELDS):
        part = "".join(field for field in skeleton if field in fields).replace("j", hour)
        if part:
            nearest = part if part in known else match_skeleton(part, known)
            if nearest is None:
                return None
            patterns.append(str(known[nearest].pattern))
    if len(patterns) == 1:
        return patterns[0]
    return str(locale.datetime_formats["medium"]).replace("{1}", patterns[0]).replace("{0}", patterns[1])


def _writes(asked: Asked) -> Callable[..., str]:
    def filter_(rendering: Rendering, value: Any, style: Any = "medium", zone: Any = None) -> str:
        rendering.budget.charge(40)
        clock, locale = zone_of(rendering, zone), rendering.localization.locale
        pattern: Any = style
        if style not in STYLES:
            # Only what stands in the template's source is looked up: a pattern costs more to find than to use.
            if style not in rendering.constants or not is_style(style, asked):
                raise TemplateError("template_style_unknown")
            pattern = skeleton_pattern(locale, style) or "medium"
        if not isinstance(present(value), str | int):
            raise TemplateError("template_date_invalid")
        return _written(asked, value, pattern, clock.key, locale)

    return filter_


@lru_cache(maxsize=WRITTEN_MAX, typed=True)
def _written(asked: Asked, value: str | int, pattern: Any, zone: str, tag: str) -> str:
    """A moment as the locale writes it."""
    clock, locale = ZoneInfo(zone), babel_locale(tag)
    found = moment(value, clock)
    if asked == "date":
        return format_date(found, pattern, locale=locale)
    if not isinstance(found, datetime):
        raise TemplateError("template_date_invalid")
    if asked == "time":
        return format_time(found, pattern, tzinfo=clock, locale=locale)
    return format_datetime(found, pattern, tzinfo=clock, locale=locale)


def _relative(rendering: Rendering, value: Any, now: Any, style: Any = "long", zone: Any = None) -> str:
    """How far from ``now``: in whole days where one of the two is a date without a time."""
    rendering.budget.charge(20)
    _check_length(style)
    clock = zone_of(rendering, zone)
    there, here = moment(value, clock), moment(now, clock)
    locale = babel_locale(rendering.localization.locale)
    if isinstance(there, datetime) and isinstance(here, datetime):
        return format_timedelta(there - here, add_direction=True, format=style, locale=locale)
    days = _day(there) - _day(here)
    return format_timedelta(days, granularity="day", add_direction=True, format=style, locale=locale)


def _duration(rendering: Rendering, value: Any, style: Any = "long") -> str:
    rendering.budget.charge(20)
    _check_length(style)
    seconds = amount(value)
    if not 0 <= seconds < _SECONDS_MAX:
        raise TemplateError("template_value_too_large")
    return format_timedelta(timedelta(seconds=float(seconds)), format=style, locale=babel_locale(rendering.localization.locale))


def _day(found: datetime | date) -> datetime:
    return datetime.combine(found, time.min)


def _check_length(style: Any) -> None:
    if style not in UNIT_STYLES:
        raise TemplateError("template_style_unknown")


MOMENT_FILTERS: Mapping[str, Callable[..., str]] = MappingProxyType(
    {
        "date": _writes("date"),
        "datetime": _writes("datetime"),
        "duration": _duration,
        "relative": _relative,
        "time": _writes("time"),
    }
)
"""Every filter that writes dates and times, by its name."""
