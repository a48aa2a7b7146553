from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.backoff import (
    BASE_FACTORS,
    RESCUE_FIRST_S,
    RESCUE_LATER_S,
    RetryPolicy,
    full_jitter_s,
    rescue_delay_s,
    retry_delay_s,
)
from dispatcher.model import NotificationId
from dispatcher.outcome import OutcomeClass

ATTEMPTS = st.integers(1, 10_000)
SECONDS = st.floats(0.001, 100_000)
RANDOM = st.floats(0, 1, exclude_max=True)
AGAIN = st.sampled_from(sorted(BASE_FACTORS))
ID = NotificationId("018bcfe5-6800-7000-8000-000000000000")
FINAL = sorted(set(OutcomeClass) - set(BASE_FACTORS))


@given(ATTEMPTS, SECONDS, SECONDS, RANDOM)
def test_a_delay_lies_between_zero_and_the_cap(attempt: int, base_s: float, cap_s: float, random01: float) -> None:
    assert 0 <= full_jitter_s(attempt, base_s, cap_s, random01) <= cap_s


@given(ATTEMPTS, SECONDS, SECONDS, RANDOM)
def test_the_cap_comes_before_the_jitter(attempt: int, base_s: float, cap_s: float, random01: float) -> None:
    """Otherwise many attempts would gather at the cap: here a capped span is still spread over its whole length."""
    delay_s = full_jitter_s(attempt, base_s, cap_s, random01)

    assert delay_s == min(cap_s, base_s * 2.0 ** min(attempt - 1, 62)) * random01


@given(ATTEMPTS, SECONDS, SECONDS, RANDOM)
def test_the_span_never_shrinks_from_one_attempt_to_the_next(attempt: int, base_s: float, cap_s: float, random01: float) -> None:
    assert full_jitter_s(attempt, base_s, cap_s, random01) <= full_jitter_s(attempt + 1, base_s, cap_s, random01)


def test_the_first_retries_double_their_span() -> None:
    assert [full_jitter_s(attempt, 2.0, 60.0, 0.5) for attempt in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("attempt", [0, -1])
def test_attempts_count_from_one(attempt: int) -> None:
    with pytest.raises(ValueError, match="count from 1"):
        full_jitter_s(attempt, 1.0, 1.0, 0.5)


@given(AGAIN, ATTEMPTS, RANDOM, st.none() | st.floats(allow_nan=True, allow_infinity=True))
def test_no_hint_leads_out_of_the_bounds(kind: OutcomeClass, attempt: int, random01: float, hint_s: float | None) -> None:
    policy = RetryPolicy(base_s=2.0, cap_s=600.0, hint_cap_s=900.0)

    assert 0 <= retry_delay_s(policy, kind, attempt, random01, hint_s) <= 900.0


@given(AGAIN, ATTEMPTS, RANDOM, st.floats(0, 10_000))
def test_a_hint_only_lengthens_and_is_respected_up_to_its_cap(
    kind: OutcomeClass, attempt: int, random01: float, hint_s: float
) -> None:
    policy = RetryPolicy(base_s=2.0, cap_s=600.0, hint_cap_s=900.0)
    hinted_s = retry_delay_s(policy, kind, attempt, random01, hint_s)

    assert hinted_s >= retry_delay_s(policy, kind, attempt, random01)
    assert hinted_s >= min(hint_s, policy.hint_cap_s)


def test_those_who_got_the_same_hint_do_not_come_back_in_the_same_instant() -> None:
    policy = RetryPolicy(base_s=2.0)
    delays_s = {retry_delay_s(policy, OutcomeClass.RATE_LIMITED, 1, random01, 30.0) for random01 in (0.0, 0.3, 0.6)}

    assert delays_s == {30.0, 30.3, 30.6}


@pytest.mark.parametrize("hint_s", [nan, -inf, -1.0, 0.0])
def test_a_hint_that_says_nothing_is_ignored(hint_s: float) -> None:
    policy = RetryPolicy()

    assert retry_delay_s(policy, OutcomeClass.SOFT, 3, 0.7, hint_s) == retry_delay_s(policy, OutcomeClass.SOFT, 3, 0.7)


def test_an_endless_hint_stops_at_its_cap() -> None:
    assert retry_delay_s(RetryPolicy(hint_cap_s=50.0), OutcomeClass.SOFT, 1, 0.5, inf) == 50.0


def test_a_wrong_configuration_waits_longer_than_a_passing_fault() -> None:
    policy = RetryPolicy()
    delays_s = {kind: retry_delay_s(policy, kind, 1, 0.5) for kind in BASE_FACTORS}

    assert delays_s[OutcomeClass.MISCONFIGURED] > delays_s[OutcomeClass.SOFT] == delays_s[OutcomeClass.UNKNOWN]
    assert delays_s[OutcomeClass.INTERRUPTED] == 0


def test_a_throttled_attempt_waits_for_less_than_a_failed_one_and_an_unanswered_question_for_longer() -> None:
    policy = RetryPolicy()
    delays_s = {kind: retry_delay_s(policy, kind, 1, 0.5) for kind in BASE_FACTORS}

    assert 0 < delays_s[OutcomeClass.RATE_LIMITED] < delays_s[OutcomeClass.SOFT] < delays_s[OutcomeClass.UNRESOLVED]


@pytest.mark.parametrize("kind", FINAL)
def test_a_final_outcome_has_no_next_attempt(kind: OutcomeClass) -> None:
    with pytest.raises(ValueError, match="is final"):
        retry_delay_s(RetryPolicy(), kind, 1, 0.5)


def test_which_outcomes_are_final() -> None:
    assert set(FINAL) == {OutcomeClass.DELIVERED, OutcomeClass.HARD, OutcomeClass.SUPPRESS}


@given(st.integers(0, 6), st.none() | st.floats(-100, 10_000), st.booleans())
def test_what_is_rescued_waits_no_longer_than_its_span_and_half_of_its_time(
    rescues: int, left_s: float | None, survived: bool
) -> None:
    delay_s = rescue_delay_s(ID, rescues, left_s, survived=survived)

    assert 0.0 <= delay_s <= (RESCUE_LATER_S if rescues else RESCUE_FIRST_S)
    assert left_s is None or delay_s <= max(0.0, left_s) / 2
    assert delay_s == rescue_delay_s(ID, rescues, left_s, survived=survived)


def test_what_is_rescued_for_the_first_time_from_a_process_that_lives_does_not_wait() -> None:
    assert rescue_delay_s(ID, 0, None, survived=True) == 0.0
    assert 0.0 < rescue_delay_s(ID, 1, None, survived=True) < rescue_delay_s(ID, 1, None, survived=False)


def test_two_that_are_rescued_again_do_not_wait_for_as_long_as_each_other_twice() -> None:
    delays_s = [rescue_delay_s(ID, rescues, None, survived=False) for rescues in range(1, 6)]

    assert len(set(delays_s)) == 5
