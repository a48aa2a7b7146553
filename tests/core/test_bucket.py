from __future__ import annotations

from fractions import Fraction
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dispatcher.bucket import GRANTED, Bucket, WaitUntil

RATES = st.floats(0.001, 100_000)
BURSTS = st.integers(1, 100_000)
MOMENTS = st.floats(0, 1e9)


@given(RATES, BURSTS, st.floats(0, 100_000), MOMENTS, st.floats(-1000, 1000), st.data())
def test_who_waits_as_long_as_told_is_granted(
    rate_per_s: float, burst: int, level: float, start_s: float, later_s: float, data: st.DataObject
) -> None:
    bucket = Bucket(rate_per_s, burst, level, start_s)
    n = data.draw(st.integers(1, burst))
    answer = bucket.take(n, start_s + later_s)
    if isinstance(answer, WaitUntil):
        assert bucket.take(n, answer.at_s) is GRANTED


@given(RATES, BURSTS, MOMENTS, st.data())
def test_nobody_waits_longer_than_it_takes(rate_per_s: float, burst: int, start_s: float, data: st.DataObject) -> None:
    bucket = Bucket(rate_per_s, burst, 0.0, start_s)
    n = data.draw(st.integers(1, burst))
    exact_s = Fraction(start_s) + n / Fraction(rate_per_s)

    assert abs(Fraction(bucket.reaches_s(n)) - exact_s) <= exact_s / 10**9


@given(RATES, BURSTS, st.floats(0, 100_000), MOMENTS, st.floats(-1000, 1000))
def test_what_is_available_is_exactly_what_is_granted(
    rate_per_s: float, burst: int, level: float, start_s: float, later_s: float
) -> None:
    now_s = start_s + later_s
    bucket = Bucket(rate_per_s, burst, level, start_s)
    available = bucket.available(now_s)
    if available < burst:
        assert isinstance(bucket.take(available + 1, now_s), WaitUntil)
    if available:
        assert bucket.take(available, now_s) is GRANTED
    assert bucket.available(now_s) == 0


@given(RATES, BURSTS, MOMENTS, st.lists(st.tuples(st.floats(-10, 10), st.integers(1, 50)), max_size=40))
def test_no_walk_of_the_clock_yields_more_than_burst_and_rate_allow(
    rate_per_s: float, burst: int, start_s: float, steps: list[tuple[float, int]]
) -> None:
    bucket = Bucket(rate_per_s, burst, burst, start_s)
    now_s = latest_s = start_s
    taken = 0
    for step_s, n in steps:
        now_s += step_s
        latest_s = max(latest_s, now_s)
        if bucket.take(min(n, burst), now_s) is GRANTED:
            taken += min(n, burst)

    allowed = burst + Fraction(rate_per_s) * (Fraction(latest_s) - Fraction(start_s))
    assert taken <= allowed * (1 + Fraction(1, 10**9))


def test_a_clock_that_goes_back_and_forth_mints_nothing() -> None:
    bucket = Bucket(10.0, 10, 0.0, 100.0)
    for _ in range(50):
        bucket.take(1, 50.0)
        bucket.take(1, 100.0)

    assert bucket.available(100.0) == 0


def test_a_refused_request_takes_nothing() -> None:
    bucket = Bucket(1.0, 10, 3.0, 0.0)
    before = (bucket.level, bucket.at_s)

    assert bucket.take(5, 1.0) == WaitUntil(2.0)
    assert (bucket.level, bucket.at_s) == before


def test_a_bucket_holds_no_more_than_its_burst() -> None:
    bucket = Bucket(1.0, 5, 99.0, 0.0)

    assert bucket.available(0.0) == bucket.available(1e6) == 5


def test_a_bucket_can_start_empty_but_never_below() -> None:
    assert Bucket(1.0, 5, -3.0, 0.0).take(1, 0.0) == WaitUntil(1.0)


def test_tokens_for_calls_that_were_never_made_go_back() -> None:
    bucket = Bucket(1.0, 5, 5.0, 0.0)
    bucket.take(4, 0.0)
    bucket.put_back(3)

    assert bucket.available(0.0) == 4

    bucket.put_back(100)

    assert bucket.available(0.0) == 5


def test_a_held_bucket_is_empty_and_nothing_flows_in_before_its_hour() -> None:
    bucket = Bucket(2.0, 10, 10.0, 0.0)
    bucket.hold_until(30.0)

    assert bucket.available(29.9) == 0
    assert bucket.take(1, 1.0) == WaitUntil(30.5)
    assert bucket.available(31.0) == 2


def test_a_shorter_hold_does_not_undo_a_longer_one() -> None:
    bucket = Bucket(1.0, 10, 10.0, 0.0)
    bucket.hold_until(30.0)
    bucket.hold_until(20.0)

    assert bucket.available(30.0) == 0


def test_the_next_token_is_announced() -> None:
    bucket = Bucket(4.0, 10, 0.0, 100.0)

    assert bucket.reaches_s(1) == 100.25
    assert bucket.reaches_s(10) == 102.5


@pytest.mark.parametrize(("rate_per_s", "burst"), [(0.0, 1), (-1.0, 1), (inf, 1), (nan, 1), (1.0, 0)])
def test_a_bucket_that_could_never_fill_or_never_empty_is_refused(rate_per_s: float, burst: int) -> None:
    with pytest.raises(ValueError, match="rate_per_s"):
        Bucket(rate_per_s, burst, 0.0, 0.0)


@pytest.mark.parametrize("n", [0, -1, 11])
def test_more_than_the_burst_or_less_than_one_can_not_be_asked_for(n: int) -> None:
    with pytest.raises(ValueError, match="between 1 and the burst of 10"):
        Bucket(1.0, 10, 10.0, 0.0).take(n, 0.0)


class BucketAgainstFractions(RuleBasedStateMachine):
    """Compares with exact arithmetic on a grid of eighths, where floats are exact as well."""

    @initialize(rate=st.integers(1, 64), burst=st.integers(1, 20), level=st.integers(0, 20))
    def start(self, rate: int, burst: int, level: int) -> None:
        self.rate, self.burst, self.now = Fraction(rate, 8), burst, Fraction(0)
        self.level, self.since = min(Fraction(level), Fraction(burst)), Fraction(0)
        self.bucket = Bucket(float(self.rate), burst, level, 0.0)

    def model(self) -> Fraction:
        return min(Fraction(self.burst), self.level + max(Fraction(0), self.now - self.since) * self.rate)

    @rule(eighths=st.integers(-16, 64))
    def time_moves(self, eighths: int) -> None:
        self.now += Fraction(eighths, 8)

    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        n = data.draw(st.integers(1, self.burst))
        level = self.model()
        granted = self.bucket.take(n, float(self.now)) is GRANTED

        assert granted == (level >= n)

        if granted:
            self.level, self.since = level - n, max(self.since, self.now)

    @rule(n=st.integers(1, 5))
    def put_back(self, n: int) -> None:
        self.level = min(self.level + n, Fraction(self.burst))
        self.bucket.put_back(n)

    @precondition(lambda self: self.now >= 0)
    @rule(eighths=st.integers(0, 80))
    def hold(self, eighths: int) -> None:
        until = self.now + Fraction(eighths, 8)
        self.level, self.since = Fraction(0), max(self.since, until)
        self.bucket.hold_until(float(until))

    @invariant()
    def agrees(self) -> None:
        assert self.bucket.available(float(self.now)) == int(self.model())


TestBucketAgainstFractions = BucketAgainstFractions.TestCase
