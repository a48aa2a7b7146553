"""The retry policy: what follows from one ended attempt."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.backoff import BASE_FACTORS, RetryPolicy
from dispatcher.messages import ProviderPolicy, Verdict
from dispatcher.model import Channel, DeadLetterReason, Delivery, NotificationId, OrganizationId, Status
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.verdicts import conclude, expire

RETRY = RetryPolicy(base_s=2.0, cap_s=100.0, hint_cap_s=50.0)
VIA = ProviderPolicy("c", 1, "sendgrid", Channel.EMAIL, None, 1, 8)
NOW_S = 1_700_000_000.0
DELIVERY = Delivery(NotificationId("n"), OrganizationId("acme"), Channel.EMAIL, "person@example.org", {}, 1, 3, NOW_S - 5)
LAST = evolve(DELIVERY, attempt=3)

outcomes = st.builds(
    Outcome,
    st.sampled_from(OutcomeClass),
    st.just("code"),
    retry_after_s=st.none() | st.floats(-10, 1e6),
)
deliveries = st.builds(
    evolve,
    st.just(DELIVERY),
    attempt=st.integers(1, 5),
    attempts_max=st.integers(1, 5),
    expires_at_s=st.none() | st.floats(NOW_S - 10, NOW_S + 1000),
)


def verdict(delivery: Delivery, kind: OutcomeClass, *, retry_after_s: float | None = None, random01: float = 0.5) -> Verdict:
    return conclude(delivery, Outcome(kind, "code", retry_after_s=retry_after_s), VIA, RETRY, NOW_S, random01)


def test_a_delivery_is_the_end() -> None:
    for delivery in (DELIVERY, LAST, evolve(DELIVERY, expires_at_s=NOW_S - 1)):
        concluded = verdict(delivery, OutcomeClass.DELIVERED)
        assert concluded == Verdict(delivery, concluded.outcome, VIA, Status.DELIVERED)


def test_a_soft_failure_is_tried_again_after_a_jittered_wait_that_doubles() -> None:
    waits = [verdict(evolve(DELIVERY, attempt=n), OutcomeClass.SOFT, random01=0.5).retry_in_s for n in (1, 2)]

    assert waits == [1.0, 2.0]


def test_a_soft_failure_of_the_last_attempt_exhausts_the_notification() -> None:
    concluded = verdict(LAST, OutcomeClass.SOFT)

    assert (concluded.status, concluded.dead, concluded.possible_double) == (Status.FAILED, DeadLetterReason.EXHAUSTED, False)


@pytest.mark.parametrize("delivery", [DELIVERY, LAST, evolve(DELIVERY, expires_at_s=NOW_S + 0.5)])
def test_an_unknown_end_is_marked_as_a_possible_double_whatever_follows(delivery: Delivery) -> None:
    assert verdict(delivery, OutcomeClass.UNKNOWN).possible_double


@pytest.mark.parametrize("kind", [OutcomeClass.RATE_LIMITED, OutcomeClass.MISCONFIGURED, OutcomeClass.INTERRUPTED])
def test_what_is_not_the_messages_fault_costs_no_attempt_not_even_the_last(kind: OutcomeClass) -> None:
    concluded = verdict(LAST, kind)

    assert (concluded.status, concluded.refund, concluded.dead) == (Status.QUEUED, True, None)


def test_an_attempt_that_only_asked_in_vain_is_made_again_later_and_in_the_end_left_to_a_person() -> None:
    """It has sent nothing, so it is no possible double itself; but the earlier one that it asked about is."""
    again, last = verdict(DELIVERY, OutcomeClass.UNRESOLVED, random01=0.5), verdict(LAST, OutcomeClass.UNRESOLVED)

    assert (again.status, again.refund, again.possible_double, again.retry_in_s) == (Status.QUEUED, False, False, 30.0)
    assert (last.status, last.dead) == (Status.FAILED, DeadLetterReason.UNKNOWN)


@pytest.mark.parametrize("kind", [OutcomeClass.SOFT, OutcomeClass.UNKNOWN])
def test_a_budget_lengthens_the_wait_of_a_failure_up_to_the_cap(kind: OutcomeClass) -> None:
    outcome = Outcome(kind, "code")
    waits = [conclude(DELIVERY, outcome, VIA, RETRY, NOW_S, 0.5, covered_in_s).retry_in_s for covered_in_s in (0.5, 60.0, 1e9)]

    assert waits == [1.0, 60.0, RETRY.cap_s]


@pytest.mark.parametrize("kind", [OutcomeClass.SOFT, OutcomeClass.UNKNOWN])
def test_a_budget_never_ends_what_its_backoff_would_not(kind: OutcomeClass) -> None:
    limited = evolve(DELIVERY, expires_at_s=NOW_S + 900.0)
    put_off, at_once, short, over = [
        conclude(one, Outcome(kind, "code"), VIA, RETRY, NOW_S, 0.5, covered_in_s)
        for one, covered_in_s in (
            (limited, 1012.0),
            (limited, 0.0),
            (evolve(DELIVERY, expires_at_s=NOW_S + 1.5), 1012.0),
            (evolve(DELIVERY, expires_at_s=NOW_S - 1.0), 1012.0),
        )
    ]

    assert [verdict.retry_in_s for verdict in (put_off, at_once, short)] == [min(RETRY.cap_s, 450.0), 1.0, 1.0]
    assert over.dead is DeadLetterReason.EXPIRED


@pytest.mark.parametrize("kind", [OutcomeClass.RATE_LIMITED, OutcomeClass.MISCONFIGURED, OutcomeClass.INTERRUPTED])
def test_a_budget_never_delays_what_costs_no_attempt(kind: OutcomeClass) -> None:
    outcome = Outcome(kind, "code")

    assert conclude(DELIVERY, outcome, VIA, RETRY, NOW_S, 0.5, 60.0) == conclude(DELIVERY, outcome, VIA, RETRY, NOW_S, 0.5)


def test_an_interruption_goes_back_to_the_head_at_once() -> None:
    assert verdict(DELIVERY, OutcomeClass.INTERRUPTED, random01=0.999).retry_in_s == 0.0


@pytest.mark.parametrize(
    ("kind", "reason"), [(OutcomeClass.HARD, DeadLetterReason.HARD), (OutcomeClass.SUPPRESS, DeadLetterReason.SUPPRESSED)]
)
def test_a_refusal_for_good_is_a_dead_letter_at_the_first_attempt(kind: OutcomeClass, reason: DeadLetterReason) -> None:
    concluded = verdict(DELIVERY, kind)

    assert (concluded.status, concluded.dead, concluded.refund) == (Status.FAILED, reason, False)


def test_a_hint_lengthens_the_wait_up_to_its_cap_and_never_shortens_it() -> None:
    plain = verdict(DELIVERY, OutcomeClass.RATE_LIMITED).retry_in_s
    shorter = verdict(DELIVERY, OutcomeClass.RATE_LIMITED, retry_after_s=0.01).retry_in_s
    longer = verdict(DELIVERY, OutcomeClass.RATE_LIMITED, retry_after_s=30.0).retry_in_s
    endless = verdict(DELIVERY, OutcomeClass.RATE_LIMITED, retry_after_s=1e9).retry_in_s
    assert plain is not None
    assert shorter is not None
    assert longer is not None

    assert shorter >= plain
    assert longer >= 30.0
    assert endless == 50.0


def test_a_wait_that_would_outlast_the_notification_ends_it_now() -> None:
    in_time = evolve(DELIVERY, expires_at_s=NOW_S + 1.5)
    too_late = evolve(DELIVERY, expires_at_s=NOW_S + 1.0)

    assert verdict(in_time, OutcomeClass.SOFT).status is Status.QUEUED
    assert verdict(too_late, OutcomeClass.SOFT).dead is DeadLetterReason.EXPIRED


def test_an_attempt_that_never_began_because_its_time_had_passed_is_expired_and_says_so() -> None:
    late = evolve(DELIVERY, expires_at_s=NOW_S)

    assert verdict(late, OutcomeClass.INTERRUPTED) == expire(late)


def test_an_expired_delivery_fails_without_any_provider() -> None:
    concluded = expire(DELIVERY)

    assert (concluded.status, concluded.dead, concluded.via) == (Status.FAILED, DeadLetterReason.EXPIRED, None)
    assert concluded.outcome.code == "expired"


@given(deliveries, outcomes, st.floats(0, 1, exclude_max=True))
def test_every_end_leads_to_exactly_one_of_delivered_again_and_dead(
    delivery: Delivery, outcome: Outcome, random01: float
) -> None:
    concluded = conclude(delivery, outcome, VIA, RETRY, NOW_S, random01)

    assert (concluded.status is Status.QUEUED) == (concluded.retry_in_s is not None)
    assert (concluded.status is Status.FAILED) == (concluded.dead is not None)
    assert (concluded.status is Status.DELIVERED) == (outcome.kind is OutcomeClass.DELIVERED)
    assert concluded.possible_double == (outcome.kind is OutcomeClass.UNKNOWN)
    if concluded.retry_in_s is not None:
        assert 0.0 <= concluded.retry_in_s <= max(RETRY.cap_s, RETRY.hint_cap_s)
        assert delivery.expires_at_s is None or NOW_S + concluded.retry_in_s < delivery.expires_at_s
        assert outcome.kind in BASE_FACTORS
        assert concluded.refund or delivery.attempt < delivery.attempts_max
