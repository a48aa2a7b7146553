from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dispatcher_sandbox.rate import Rate, RateLimit


def test_a_window_grants_its_limit_and_tells_when_it_refills() -> None:
    limit = RateLimit()

    assert limit.take(b"a", 2, 1, 100.2) == Rate(True, 2, 1, 101)
    assert limit.take(b"a", 2, 1, 100.3) == Rate(True, 2, 0, 101)
    assert limit.take(b"a", 2, 1, 100.9) == Rate(False, 2, 0, 101)
    assert limit.take(b"a", 2, 1, 101.0) == Rate(True, 2, 1, 102)


def test_accounts_do_not_share_a_window() -> None:
    limit = RateLimit()
    limit.take(b"a", 1, 1, 5)

    assert not limit.take(b"a", 1, 1, 5).granted
    assert limit.take(b"b", 1, 1, 5).granted


def test_a_wide_window_holds_a_slow_rate() -> None:
    limit = RateLimit()

    assert limit.take(b"a", 0.1, 60, 125.0) == Rate(True, 6, 5, 180)


@given(st.lists(st.floats(0, 20), min_size=1, max_size=200), st.integers(1, 5))
def test_no_window_ever_grants_more_than_its_limit_while_the_clock_goes_forward(times: list[float], per_s: int) -> None:
    limit = RateLimit()
    granted: dict[int, int] = {}
    for now_s in sorted(times):
        if limit.take(b"a", per_s, 1, now_s).granted:
            granted[int(now_s)] = granted.get(int(now_s), 0) + 1

    assert max(granted.values()) <= per_s


def test_a_clock_that_goes_back_begins_a_window_anew() -> None:
    limit = RateLimit()
    limit.take(b"a", 1, 1, 50)

    assert limit.take(b"a", 1, 1, 40).granted
