"""When on somebody's wall clock something may be sent: send windows and quiet hours, through every change of the clocks.

A span (``Window`` or ``QuietHours``) recurs on its days, from ``start`` until before ``end``; it may pass midnight, and with both
the same it lasts until that time of the next day. On one day it is a span of real time without a hole in it:

* it begins at the first instant at which the wall clock shows ``start`` or later, so a start that the clocks jump over is the
  instant after the jump, and of a start that comes twice the first counts;
* it ends at the last instant before which the clock shows less than ``end``, so an end that is jumped over is the instant after
  the jump, and of an end that comes twice the second counts;
* so on a day that a zone leaves out nothing begins and nothing ends: what would have, does so when the next day begins.

Invariant: the same question has the same answer, at or after the instant asked about, and asking again about the answer changes
nothing. No search looks further than ``SEARCH_DAYS``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Final

from dispatcher.decisions import Code
from dispatcher.people import QuietHours
from dispatcher.rules import Window
from dispatcher.spans import Span, always, leaves_nothing
from dispatcher.zones import zone_named

SEARCH_DAYS: Final = 15
"""A week has every day; two have one that a zone left out, as Samoa did on 30 December 2011, and a weekly window waits for."""
_MOVES_MAX: Final = 4 * SEARCH_DAYS
"""Each move goes past the begin or the end of a span, of which there are two a day and kind."""


def first_moment(at_unix_s: float, zone: str, window: Window | None, quiet: QuietHours | None) -> tuple[float, Code]:
    """The first instant from ``at_unix_s`` on that lies in the window and outside the quiet hours, in Unix seconds, and why then.

    The code is of what set the moment: TIME_NOW when it is ``at_unix_s`` itself, else TIME_WINDOW or TIME_QUIET_HOURS. Quiet
    hours may leave nothing of a rule's window. Then the person is heard and the rule is not: it is the first instant outside the
    quiet hours. Quiet hours that never end are passed over; they are refused when they are stored. An unknown zone is read as
    UTC. Years 1970 to 9998.
    """
    if window is None and quiet is None:
        return at_unix_s, Code.TIME_NOW
    place: tzinfo = zone_named(zone) or UTC
    if quiet is not None and always(quiet):
        quiet = None
    if window is not None and (quiet is None or not leaves_nothing(window, quiet)):
        found = _search(at_unix_s, place, window, quiet)
        if found is not None:
            return found
    return _search(at_unix_s, place, None, quiet) or _search(at_unix_s, place, window, None) or (at_unix_s, Code.TIME_NOW)


def is_inside(at_unix_s: float, zone: str, span: Span) -> bool:
    """Whether that instant lies in one of the recurrences of the span."""
    return _end_of_current(at_unix_s, zone_named(zone) or UTC, span) is not None


def _search(at_s: float, place: tzinfo, window: Window | None, quiet: QuietHours | None) -> tuple[float, Code] | None:
    """Goes on from span to span until nothing is in the way; None when that is not within SEARCH_DAYS."""
    moment_s, code = at_s, Code.TIME_NOW
    for _ in range(_MOVES_MAX):
        quiet_until_s = None if quiet is None else _end_of_current(moment_s, place, quiet)
        if quiet_until_s is not None:
            moment_s, code = quiet_until_s, Code.TIME_QUIET_HOURS
        elif window is not None and _end_of_current(moment_s, place, window) is None:
            opens_s = _next_start(moment_s, place, window)
            if opens_s is None:
                return None
            moment_s, code = opens_s, Code.TIME_WINDOW
        else:
            return moment_s, code
        if moment_s - at_s > SEARCH_DAYS * 86_400:
            return None
    return None


def _end_of_current(at_s: float, place: tzinfo, span: Span) -> float | None:
    """The end of the span that this instant lies in, the latest if there are several."""
    today = datetime.fromtimestamp(at_s, place).date()
    # A span lasts a day at most on the wall clock, and the clock itself goes back by a day at most.
    ends = [end for begin, end in _recurrences(today - timedelta(days=2), 4, place, span) if begin <= at_s < end]
    return max(ends, default=None)


def _next_start(at_s: float, place: tzinfo, span: Span) -> float | None:
    today = datetime.fromtimestamp(at_s, place).date()
    for begin, _ in _recurrences(today - timedelta(days=1), SEARCH_DAYS + 2, place, span):
        if begin > at_s:
            return begin
    return None


def _recurrences(first: date, days: int, place: tzinfo, span: Span) -> Iterator[tuple[float, float]]:
    """Those of so many days, as (begin, end) in Unix seconds, without those of which a jump of the clocks leaves nothing."""
    for offset in range(days):
        day = first + timedelta(days=offset)
        if day.weekday() in span.days:
            begin, end = _recurrence(day, span.start, span.end, place)
            if begin < end:
                yield begin, end


@lru_cache(maxsize=16_384)
def _recurrence(day: date, start: time, end: time, place: tzinfo) -> tuple[float, float]:
    """Kept, because an event for many people asks about the same few days and zones for each of them."""
    until = day if start < end else day + timedelta(days=1)
    return _instant(day, start, place, fold=0), _instant(until, end, place, fold=1)


def _instant(day: date, wall: time, place: tzinfo, *, fold: int) -> float:
    """The instant at which a wall clock shows this; when it never does, the one at which it has passed it."""
    shown = datetime.combine(day, wall.replace(fold=fold, tzinfo=place))
    at_s = shown.timestamp()
    if datetime.fromtimestamp(at_s, place).replace(tzinfo=None) == shown.replace(tzinfo=None):
        return at_s
    # Jumped over. With fold=1 a time of a gap is reckoned from after the jump and lands before it, with fold=0 the other way.
    before = int(shown.replace(fold=1).timestamp())
    after = int(shown.replace(fold=0).timestamp()) + 1
    offset_before = datetime.fromtimestamp(before, place).utcoffset()
    while after - before > 1:
        middle = (before + after) // 2
        if datetime.fromtimestamp(middle, place).utcoffset() == offset_before:
            before = middle
        else:
            after = middle
    return float(after)
