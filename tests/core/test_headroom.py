"""When producers are turned away, and when no longer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.headroom import (
    MEMORY_HIGH_RATIO,
    MEMORY_LOW_RATIO,
    PROBE_EVERY_S,
    RETRY_AFTER_MAX_S,
    WAIT_LOW_SHARE,
    Headroom,
    Reading,
    Shortage,
)

WAIT_MAX_S = 2.0
FINE = Reading(memory_ratio=None, waiting_s=0.0, latest_wait_s=0.0)


def memory(ratio: float | None) -> Reading:
    return Reading(memory_ratio=ratio, waiting_s=0.0, latest_wait_s=0.0)


def waits(waiting_s: float, latest_wait_s: float = 0.0) -> Reading:
    return Reading(memory_ratio=None, waiting_s=waiting_s, latest_wait_s=latest_wait_s)


def after(*readings: Reading) -> Headroom:
    headroom = Headroom(WAIT_MAX_S)
    for reading in readings:
        headroom.see(reading)
    return headroom


def refusal_code(headroom: Headroom, now_s: float = 0.0, *, idle: bool = False) -> str | None:
    problem = headroom.refusal(now_s, idle=idle, random01=0.5)
    return None if problem is None else problem.code


def test_with_room_for_everything_nobody_is_turned_away() -> None:
    assert refusal_code(after(FINE)) is None


@pytest.mark.parametrize(
    ("readings", "short"),
    [
        ([memory(0.79)], False),
        ([memory(0.80)], True),
        ([memory(0.81), memory(0.75)], True),
        ([memory(0.81), memory(0.69)], False),
        ([memory(0.69), memory(0.75)], False),
        ([memory(0.9), memory(None)], False),
        ([waits(1.9)], False),
        ([waits(2.0)], True),
        ([waits(2.0), waits(1.0)], True),
        ([waits(2.0), waits(0.0, latest_wait_s=4.0)], True),
        ([waits(2.0), waits(0.4, latest_wait_s=0.4)], False),
    ],
)
def test_a_shortage_begins_at_one_threshold_and_ends_below_a_lower_one(readings: list[Reading], short: bool) -> None:
    """A slow insert that is over begins none: perhaps it was this process that stood still."""
    assert bool(after(*readings).short) is short


def test_an_insert_that_was_slow_begins_no_shortage() -> None:
    assert not after(waits(0.0, latest_wait_s=9.0)).short


def test_what_changed_is_told_once() -> None:
    headroom = Headroom(WAIT_MAX_S)

    told = [headroom.see(reading) for reading in (memory(0.9), memory(0.9), memory(0.1), memory(0.1))]

    assert told == [{Shortage.REDIS_MEMORY}, frozenset(), {Shortage.REDIS_MEMORY}, frozenset()]


def test_the_refusal_says_what_is_short_and_when_to_come_back() -> None:
    low = after(memory(0.9)).refusal(0.0, idle=True, random01=0.0)
    slow = after(waits(3.0)).refusal(0.0, idle=False, random01=0.0)

    assert low is not None
    assert slow is not None
    assert (low.status, low.code, low.retry_after_s) == (429, "redis_memory_low", 5)
    assert (slow.status, slow.code, slow.retry_after_s) == (429, "database_slow", 3)


def test_those_turned_away_at_one_moment_do_not_come_back_at_one_moment() -> None:
    headroom = after(memory(0.9))

    waits_s = {headroom.refusal(0.0, idle=False, random01=luck / 10) for luck in range(10)}

    assert {problem.retry_after_s for problem in waits_s if problem is not None} == {5, 6, 7, 8, 9, 10}


def test_while_postgres_is_short_and_idle_one_request_now_and_then_finds_out() -> None:
    headroom = after(waits(3.0), waits(0.0, latest_wait_s=3.0))

    let_in = [refusal_code(headroom, now_s, idle=True) is None for now_s in (0.0, 0.1, PROBE_EVERY_S, PROBE_EVERY_S + 0.1)]

    assert let_in == [True, False, True, False]
    assert refusal_code(headroom, 10.0, idle=False) == "database_slow"


def test_what_takes_memory_is_not_let_in_to_find_out() -> None:
    assert refusal_code(after(memory(0.9)), 0.0, idle=True) == "redis_memory_low"


readings = st.builds(
    Reading,
    memory_ratio=st.none() | st.floats(0.0, 1.5),
    waiting_s=st.floats(0.0, 100.0),
    latest_wait_s=st.floats(0.0, 100.0),
)


@given(st.lists(readings, max_size=30), st.floats(0.0, 1.0, exclude_max=True), st.booleans())
def test_whatever_was_seen_the_thresholds_hold_and_waits_are_bounded(seen: list[Reading], luck: float, idle: bool) -> None:
    headroom = Headroom(WAIT_MAX_S)
    for reading in seen:
        headroom.see(reading)
        memory_short, postgres_short = (shortage in headroom.short for shortage in Shortage)
        ratio = reading.memory_ratio
        assert memory_short or ratio is None or ratio < MEMORY_HIGH_RATIO
        assert not memory_short or (ratio is not None and ratio >= MEMORY_LOW_RATIO)
        assert postgres_short or reading.waiting_s < WAIT_MAX_S
        assert not postgres_short or max(reading.waiting_s, reading.latest_wait_s) >= WAIT_MAX_S * WAIT_LOW_SHARE
        problem = headroom.refusal(0.0, idle=idle, random01=luck)
        if problem is not None:
            assert headroom.short
            assert problem.retry_after_s is not None
            assert 1 <= problem.retry_after_s <= RETRY_AFTER_MAX_S
