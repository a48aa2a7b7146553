"""Recurring spans of the day: as they are written, and as minutes of an ordinary week.

Invariant: a span that was read has at least one day and whole minutes. One whose start and end are the same lasts a whole day.
"""

from __future__ import annotations

import re
from datetime import time
from functools import lru_cache
from typing import Any, Final, NamedTuple

from dispatcher.people import QuietHours
from dispatcher.problems import Problem
from dispatcher.rules import Window

Span = Window | QuietHours

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""Names of the days on which a span begins, Monday = 0."""
_WALL = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_FIELDS: Final = frozenset({"start", "end", "days"})
_DAY_MINUTES: Final = 24 * 60
_WEEK_MINUTES: Final = 7 * _DAY_MINUTES
_WHOLE_WEEK: Final = (1 << _WEEK_MINUTES) - 1


class Written(NamedTuple):
    """The fields of a span, fit for ``Window(*written)`` and ``QuietHours(*written)``."""

    start: time
    end: time
    days: frozenset[int]


def read_span(value: Any, pointer: str, faults: list[Problem]) -> Written | None:
    """The span of ``{"start": "22:00", "end": "07:00", "days": ["mon", …]}``, on every day without ``days``.

    None with every fault of it added to ``faults``, below ``pointer``.
    """
    if not isinstance(value, dict):
        faults.append(_fault(pointer, 'must be an object with "start", "end" and perhaps "days"'))
        return None
    found = len(faults)
    if not value.keys() <= _FIELDS:
        faults.append(_fault(pointer, f"has an unknown field; known are {', '.join(sorted(_FIELDS))}", "field_unknown"))
    faults.extend(
        _fault(f"{pointer}/{name}", "must be a time of the day from 00:00 to 23:59")
        for name in ("start", "end")
        if not (isinstance(value.get(name), str) and _WALL.fullmatch(value[name]))
    )
    days = value.get("days", list(DAYS))
    if not isinstance(days, list) or not days:
        faults.append(_fault(f"{pointer}/days", f"must be a list of some of {', '.join(DAYS)}"))
    else:
        faults.extend(
            _fault(f"{pointer}/days/{index}", f"must be one of {', '.join(DAYS)}, and each once")
            for index, day in enumerate(days)
            if day not in DAYS or day in days[:index]
        )
    if len(faults) > found:
        return None
    return Written(time.fromisoformat(value["start"]), time.fromisoformat(value["end"]), frozenset(map(DAYS.index, days)))


def document_of(span: Span) -> dict[str, Any]:
    """The span as it is written."""
    return {
        "start": span.start.strftime("%H:%M"),
        "end": span.end.strftime("%H:%M"),
        "days": [DAYS[day] for day in sorted(span.days)],
    }


@lru_cache(maxsize=4096)
def always(span: Span) -> bool:
    """Whether a span recurs without a gap in an ordinary week, so that quiet hours like it would never end."""
    return _minutes(span) == _WHOLE_WEEK


@lru_cache(maxsize=4096)
def leaves_nothing(window: Window, quiet: QuietHours) -> bool:
    """Whether quiet hours cover a window entirely in an ordinary week."""
    return not _minutes(window) & ~_minutes(quiet)


def _minutes(span: Span) -> int:
    """The minutes of a week that a span covers, as bits."""
    start = span.start.hour * 60 + span.start.minute
    length = (span.end.hour * 60 + span.end.minute - start) % _DAY_MINUTES or _DAY_MINUTES
    whole = 0
    for day in span.days:
        part = ((1 << length) - 1) << (day * _DAY_MINUTES + start)
        whole |= (part & _WHOLE_WEEK) | (part >> _WEEK_MINUTES)  # Sunday's may reach into Monday
    return whole


def _fault(pointer: str, detail: str, code: str = "field_invalid") -> Problem:
    return Problem(422, code, "The definition can not be stored", detail, pointer)
