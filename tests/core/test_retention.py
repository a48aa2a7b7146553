"""Parts of the history: every day belongs to one of each class, and nothing goes before its time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.ids import uuid7
from dispatcher.policy import KEPT_DAYS
from dispatcher.retention import DAY_S, MARGIN_S, SKEW_S, STEP_DAYS, Span, changed_since, made_at_unix_s, span_named, span_of

DAYS = st.integers(0, 40_000)


def test_every_length_that_may_be_chosen_has_its_partitions() -> None:
    assert tuple(STEP_DAYS) == KEPT_DAYS


@given(st.sampled_from(KEPT_DAYS), DAYS)
def test_a_day_is_in_its_span_and_in_no_other(kept_days: int, day: int) -> None:
    span = span_of(kept_days, day)

    assert span.first_day <= day < span.end_day
    assert span_of(kept_days, span.end_day) == Span(kept_days, span.end_day)
    assert {span_of(kept_days, each) for each in range(span.first_day, span.end_day)} == {span}


@given(st.sampled_from(KEPT_DAYS), DAYS)
def test_a_span_goes_when_all_of_it_is_old_enough_and_not_much_later(kept_days: int, day: int) -> None:
    end_of_the_latest = (day + 1 + kept_days) * DAY_S

    over_at_s = span_of(kept_days, day).over_at_unix_s

    assert over_at_s >= end_of_the_latest + MARGIN_S
    assert over_at_s < end_of_the_latest + STEP_DAYS[kept_days] * DAY_S + MARGIN_S


@given(st.sampled_from(KEPT_DAYS), DAYS)
def test_a_partition_is_known_by_its_name(kept_days: int, day: int) -> None:
    span = span_of(kept_days, day)

    assert span_named(span.name) == span
    assert span_named(span.parent) is None
    assert span_named(f"{span.parent}_20261399") is None
    assert len(span.name) < 64


def test_no_class_has_many_partitions_at_a_time() -> None:
    assert max(kept_days // step + 3 for kept_days, step in STEP_DAYS.items()) <= 43


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1))
def test_an_id_tells_since_when_there_can_have_been_changes(ms: int, bits: int) -> None:
    assert made_at_unix_s(uuid7(ms, bits)) in (ms / 1000, 250_000_000_000.0)
    assert abs(changed_since(uuid7(ms, bits)).timestamp() - (made_at_unix_s(uuid7(ms, bits)) - SKEW_S)) < 0.001
    assert made_at_unix_s(str(ms)) == 0.0
