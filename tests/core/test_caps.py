from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.caps import TIMES_MAX, CapUse, caps_for, counted, trimmed, within
from dispatcher.model import Channel
from dispatcher.policy import Cap, Policy
from dispatcher.topics import Topic


def cap(count_max: int, window_s: float = 60) -> Cap:
    return Cap("c", count_max, window_s)


def most_in_any_span(times: list[int], window_s: int) -> int:
    """By looking at every span that begins at a whole second; times are whole seconds."""
    begins = range(min(times) - window_s, max(times) + 1)
    return max(sum(begin <= time < begin + window_s for time in times) for begin in begins)


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(0, 40), st.integers(1, 4), st.integers(1, 15))
def test_one_more_is_within_a_cap_exactly_when_no_span_then_holds_too_many(
    wanted: list[int], at_s: int, count_max: int, window_s: int
) -> None:
    times: tuple[float, ...] = ()
    for time in wanted:  # in any order: what is planned comes before what is sent at once
        if within(times, time, cap(count_max, window_s)):
            times = counted(times, time, cap(count_max, window_s))
    assert most_in_any_span([*map(int, times), 1000], window_s) <= count_max

    allowed = within(times, at_s, cap(count_max, window_s))

    assert allowed == (most_in_any_span([*map(int, times), at_s], window_s) <= count_max)


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(0, 40), st.integers(0, 40), st.integers(1, 15))
def test_what_is_trimmed_makes_no_difference_to_anything_that_is_still_to_come(
    wanted: list[int], now_s: int, later_s: int, window_s: int
) -> None:
    times = tuple(sorted(map(float, wanted)))
    at_s = now_s + later_s

    assert within(times, at_s, cap(3, window_s)) == within(trimmed(times, now_s, window_s), at_s, cap(3, window_s))


def test_times_stay_in_order_and_are_bounded() -> None:
    chance = random.Random(1)
    times: tuple[float, ...] = ()
    for _ in range(50):
        times = counted(times, chance.random(), cap(100))

    assert list(times) == sorted(times)
    assert not within(tuple(float(n) for n in range(TIMES_MAX)), 1e9, cap(5))


def test_a_cap_counts_what_is_of_its_topic_and_channel() -> None:
    every, news, sms = Cap("every", 9, 60), Cap("news", 1, 60, topic="news"), Cap("sms", 1, 60, channel=Channel.SMS)
    policy = Policy(caps=(every, news, sms))

    assert caps_for(policy, Topic("news"), Channel.SMS) == (every, news, sms)
    assert caps_for(policy, Topic("other"), Channel.EMAIL) == (every,)
    assert caps_for(policy, None, Channel.SMS) == (every, sms)
    assert caps_for(policy, Topic("news", critical=True), Channel.SMS) == ()


def test_using_a_cap_says_what_it_allows() -> None:
    assert CapUse.of("u", Cap("news", 2, 60), 5.0) == CapUse("u", "news", 5.0, 2, 60)
