from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.decisions import Code
from dispatcher.people import QuietHours
from dispatcher.rules import Window
from dispatcher.spans import Span, document_of, read_span
from dispatcher.windows import SEARCH_DAYS, first_moment, is_inside
from dispatcher.zones import is_zone, zone_named

STEP_S = 900
"""Clocks have changed at quarters of an hour only since 2012, and the spans drawn here begin and end at some."""
DAY_S = 86_400
ZONES = sorted(name for name in available_timezones() if is_zone(name))
ODD = ["Australia/Lord_Howe", "Pacific/Apia", "Antarctica/Troll", "Africa/Casablanca", "America/Sao_Paulo", "Asia/Kathmandu"]


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def span(text: str, days: str = "0123456") -> Window:
    start, end = text.split("-")
    return Window(time.fromisoformat(start), time.fromisoformat(end), frozenset(map(int, days)))


def hush(text: str, days: str = "0123456") -> QuietHours:
    window = span(text, days)
    return QuietHours(window.start, window.end, window.days)


@cache
def changes_of(zone: str) -> list[int]:
    """Instants, to a quarter of an hour, at which the zone's clocks changed from the end of 2011 to 2026."""
    place = ZoneInfo(zone)

    def offset(at_s: int) -> timedelta | None:
        return datetime.fromtimestamp(at_s, place).utcoffset()

    found, step = [], 10 * DAY_S
    for before in range(int(at("2011-12-20")), int(at("2026-12-01")), step):
        low, high = before, before + step
        if offset(low) != offset(high):
            while high - low > STEP_S:
                middle = (low + high) // 2 // STEP_S * STEP_S
                low, high = (middle, high) if offset(middle) == offset(low) else (low, middle)
            found.append(high)
    return found


class Walk:
    """What the wall clock shows at each step from three days before an instant on; the rules of spans, said by that alone."""

    def __init__(self, at_s: float, zone: str) -> None:
        place = ZoneInfo(zone)
        first = int(at_s) // STEP_S * STEP_S - 3 * DAY_S
        self.steps = range(first, first + (SEARCH_DAYS + 5) * DAY_S, STEP_S)
        self.walls = [datetime.fromtimestamp(step, place).replace(tzinfo=None) for step in self.steps]

    def recurrences(self, span: Span) -> Iterator[tuple[int, int]]:
        """Spans from the first step that shows the start, or a later time, to after the last that shows less than the end."""
        day = self.walls[0].date() + timedelta(days=1)
        while day < self.walls[-1].date() - timedelta(days=2):
            if day.weekday() in span.days:
                start = datetime.combine(day, span.start)
                end = datetime.combine(day + timedelta(days=span.end <= span.start), span.end)
                begins = next(step for step, wall in zip(self.steps, self.walls, strict=True) if wall >= start)
                ends = max(step for step, wall in zip(self.steps, self.walls, strict=True) if wall < end) + STEP_S
                yield begins, ends
            day += timedelta(days=1)

    def expected(self, at_s: float, window: Window | None, quiet: QuietHours | None) -> float | None:
        open_spans = list(self.recurrences(window)) if window else []
        quiet_spans = list(self.recurrences(quiet)) if quiet else []
        for candidate in [at_s, *(step for step in self.steps if step > at_s)]:
            is_open = window is None or any(begin <= candidate < end for begin, end in open_spans)
            if is_open and not any(begin <= candidate < end for begin, end in quiet_spans):
                return candidate
        return None


def drawn_span(chance: random.Random) -> Window:
    start = chance.randrange(0, 96)
    length = chance.choice((1, 2, 4, 12, 36, 60))
    days = frozenset(chance.sample(range(7), chance.choice((1, 2, 5, 7, 7, 7))))
    end = (start + length) % 96
    return Window(time(start // 4, start % 4 * 15), time(end // 4, end % 4 * 15), days)


def check(zone: str, at_s: float, window: Window | None, quiet: QuietHours | None) -> None:
    """One question against the walk: not before, inside, the first, and the same when asked again."""
    found, code = first_moment(at_s, zone, window, quiet)
    expected = Walk(at_s, zone).expected(at_s, window, quiet)
    if expected is None:  # quiet hours leave nothing of the window: the person is heard
        expected = Walk(at_s, zone).expected(at_s, None, quiet)
    assert found == expected, (zone, at_s, window, quiet)
    assert found >= at_s
    assert (code is Code.TIME_NOW) == (found == at_s)
    assert quiet is None or not is_inside(found, zone, quiet)
    assert first_moment(found, zone, window, quiet) == (found, Code.TIME_NOW)


@pytest.mark.parametrize("part", range(4))
def test_in_every_zone_around_every_kind_of_change_it_is_the_first_moment_inside_and_outside(part: int) -> None:
    chance = random.Random(part)
    for zone in ZONES[part::4]:
        changes = changes_of(zone) or [int(at("2025-03-30T01:00:00"))]
        at_s = chance.choice(changes) + chance.randrange(-30 * 4, 6 * 4) * STEP_S + chance.choice((0, 0, 0.25, 433.5))
        quiet = drawn_span(chance)
        check(
            zone,
            at_s,
            drawn_span(chance) if chance.random() < 0.8 else None,
            QuietHours(quiet.start, quiet.end, quiet.days) if chance.random() < 0.7 else None,
        )


@given(st.sampled_from(ODD), st.randoms(use_true_random=False), st.integers(-40 * 4, 8 * 4))
def test_so_it_is_where_clocks_change_by_half_an_hour_by_two_hours_four_times_a_year_or_by_a_day(
    zone: str, chance: random.Random, steps: int
) -> None:
    changes = changes_of(zone) or [int(at("2025-03-30T01:00:00"))]
    quiet = drawn_span(chance)
    check(zone, chance.choice(changes) + steps * STEP_S, drawn_span(chance), QuietHours(quiet.start, quiet.end, quiet.days))


def test_a_start_that_the_clocks_jump_over_is_the_instant_after_the_jump() -> None:
    found, code = first_moment(at("2026-03-29T01:50:00", "Europe/Berlin"), "Europe/Berlin", span("02:30-04:00"), None)

    assert (found, code) == (at("2026-03-29T03:00:00", "Europe/Berlin"), Code.TIME_WINDOW)


def test_of_a_start_that_comes_twice_the_first_counts_and_of_an_end_the_last() -> None:
    berlin, twice = "Europe/Berlin", span("02:15-02:45")
    first, last = at("2026-10-25T02:15:00", berlin), at("2026-10-25T02:45:00", berlin, fold=1)

    assert first_moment(first - 60, berlin, twice, None) == (first, Code.TIME_WINDOW)
    assert is_inside(at("2026-10-25T02:50:00", berlin), berlin, twice), "the span has no hole"
    assert first_moment(last - 1, berlin, twice, None) == (last - 1, Code.TIME_NOW)
    assert first_moment(last, berlin, twice, None)[0] == at("2026-10-26T02:15:00", berlin)


def test_a_span_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    night = span("22:00-02:00", days="4")  # Friday

    assert is_inside(at("2026-11-28T01:59:00"), "UTC", night)
    assert not is_inside(at("2026-11-27T01:59:00"), "UTC", night)


def test_what_waits_for_a_day_that_the_zone_left_out_waits_for_the_next_week() -> None:
    friday = span("09:00-17:00", days="4")
    found, _ = first_moment(at("2011-12-23T17:00:00", "Pacific/Apia"), "Pacific/Apia", friday, None)

    assert datetime.fromtimestamp(found, ZoneInfo("Pacific/Apia")) == datetime(2012, 1, 6, 9, tzinfo=ZoneInfo("Pacific/Apia"))


def test_the_code_names_what_set_the_moment() -> None:
    evening = at("2026-11-22T23:00:00")

    assert first_moment(evening, "UTC", None, hush("22:00-07:00")) == (at("2026-11-23T07:00:00"), Code.TIME_QUIET_HOURS)
    assert first_moment(evening, "UTC", span("09:00-17:00"), hush("22:00-07:00")) == (at("2026-11-23T09:00:00"), Code.TIME_WINDOW)
    assert first_moment(evening, "UTC", span("06:00-17:00"), hush("22:00-07:00"))[1] is Code.TIME_QUIET_HOURS
    assert first_moment(evening, "UTC", None, None) == (evening, Code.TIME_NOW)


def test_quiet_hours_that_leave_nothing_of_a_window_are_kept_and_the_window_is_not() -> None:
    assert first_moment(at("2026-11-22T20:00:00"), "UTC", span("21:00-22:00"), hush("19:00-08:00")) == (
        at("2026-11-23T08:00:00"),
        Code.TIME_QUIET_HOURS,
    )


def test_quiet_hours_without_an_end_do_not_silence_for_ever() -> None:
    always = QuietHours(time(0), time(0))

    assert first_moment(1e9, "UTC", None, always) == (1e9, Code.TIME_NOW)
    assert first_moment(at("2026-11-22T20:00:00"), "UTC", span("09:00-10:00"), always)[0] == at("2026-11-23T09:00:00")


def test_an_unknown_zone_is_read_as_utc() -> None:
    assert first_moment(at("2026-11-22T08:00:00"), "Mars/Olympus", span("09:00-10:00"), None)[0] == at("2026-11-22T09:00:00")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Mars/Olympus",
        "../etc/passwd",
        "/etc/localtime",
        "America",
        "localtime",
        "utc\x00",
        "A" * 300,
        "posix/UTC",
        "zone.tab",
    ],
)
def test_what_is_no_zone_is_none_whatever_the_text(name: str) -> None:
    assert zone_named(name) is None


def test_a_span_is_written_and_read_back() -> None:
    written = {"start": "22:00", "end": "07:00", "days": ["mon", "sun"]}
    read = read_span(written, "", [])

    assert read is not None
    assert document_of(Window(*read)) == written
    assert datetime.combine(date(2026, 1, 1), read.start, UTC).hour == 22
