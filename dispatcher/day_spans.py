"""Spans of the day as people write them: ``{"start": "22:00", "end": "07:00", "days": ["fri", "sat"]}``.

A span is on somebody's wall clock and may pass midnight; without ``days`` it is of every day. What it means, and in which zone,
is up to who reads it. Invariant: what :func:`span_document` writes down, :func:`parse_span` reads as the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import time
from typing import Any, NamedTuple

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""By their names; Monday is 0."""
EVERY_DAY = frozenset(range(7))

_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_FIELDS = ("start", "end", "days")


class Span(NamedTuple):
    """From ``start`` until before ``end``; it begins on ``days``."""

    start: time
    end: time
    days: frozenset[int]


def parse_span(value: Any) -> Span | list[tuple[str, str]]:
    """Read a span; or every fault as (pointer into it, what it must be)."""
    if not isinstance(value, Mapping):
        return [("", "must be an object with start and end, and perhaps days")]
    faults = [("", f"has an unknown field; known are {', '.join(_FIELDS)}")] if not value.keys() <= set(_FIELDS) else []
    clocks = {name: _clock(value.get(name)) for name in ("start", "end")}
    faults += [(f"/{name}", "must be a time of day such as 22:00") for name, clock in clocks.items() if clock is None]
    start, end = clocks.values()
    if start is not None and start == end:
        faults.append(("/end", "must be another time than start"))
    given = value.get("days")
    days = EVERY_DAY if given is None else _days(given)
    if days is None:
        faults.append(("/days", f"must be a list of at least one of {', '.join(DAYS)}, each once"))
    if faults or start is None or end is None or days is None:
        return faults
    return Span(start, end, days)


def span_document(start: time, end: time, days: Iterable[int]) -> dict[str, Any]:
    """How a span is written down."""
    return {"start": f"{start:%H:%M}", "end": f"{end:%H:%M}", "days": [DAYS[day] for day in sorted(days)]}


def _clock(value: Any) -> time | None:
    match = _CLOCK.fullmatch(value) if isinstance(value, str) else None
    return None if match is None else time(int(match[1]), int(match[2]))


def _days(value: Any) -> frozenset[int] | None:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and name in DAYS for name in value):
        return None
    days = frozenset(DAYS.index(name) for name in value)
    return days if len(days) == len(value) else None
