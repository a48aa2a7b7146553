"""What becomes of a notification of which nobody knows whether it was sent, by the policy of its channel."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from actors.ports import DUE_SLACK_S
from dispatcher.messages import ProviderPolicy, Verdict
from dispatcher.model import Channel, DeadLetterReason, Delivery, NotificationId, OrganizationId, Status
from dispatcher.outcome import OnUnknown, OutcomeClass
from dispatcher.unknowns import RETENTION_SHARE, WAIT_MIN_S, judge

NOW_S = 1_700_000_000.0
DAY_S = 86_400.0
FRESH = Delivery(NotificationId("n"), OrganizationId("acme"), Channel.EMAIL, "person", {}, 2, 8, NOW_S - 5)
ONCE = evolve(FRESH, unknowns=1, unknown_for_s=10.0, unknown_last_s=10.0)
TWICE = evolve(FRESH, unknowns=2, unknown_for_s=20.0, unknown_last_s=10.0)
DECIDED = evolve(FRESH, unknowns=2)
"""A person has requeued it since: what happened before is counted and no longer unresolved."""


def via(on_unknown: OnUnknown, key_retention_s: float | None = None, inquiry_lag_s: float = 0.0) -> ProviderPolicy:
    return ProviderPolicy("c", 1, "mailer", Channel.EMAIL, None, 1, 8, on_unknown, key_retention_s, inquiry_lag_s)


def judged(delivery: Delivery, policy: ProviderPolicy) -> str:
    verdict = judge(delivery, policy, NOW_S)
    return "sent" if verdict is None else verdict.outcome.code


RESEND, ONCE_MORE = via(OnUnknown.RESEND, DAY_S), via(OnUnknown.RESEND_ONCE)
HOLD, ASK = via(OnUnknown.HOLD, DAY_S), via(OnUnknown.ASK, inquiry_lag_s=300.0)


@pytest.mark.parametrize(
    ("delivery", "policy", "expected"),
    [
        (ONCE, RESEND, "sent"),
        (TWICE, RESEND, "sent"),
        (evolve(ONCE, unknown_for_s=DAY_S * RETENTION_SHARE - 1), RESEND, "sent"),
        (evolve(ONCE, unknown_for_s=DAY_S * RETENTION_SHARE), RESEND, "key_retention_passed"),
        (evolve(TWICE, unknown_for_s=DAY_S, unknown_last_s=1.0), RESEND, "key_retention_passed"),
        (ONCE, via(OnUnknown.RESEND), "sent"),
        (TWICE, via(OnUnknown.RESEND), "unknown_held"),
        (ONCE, ONCE_MORE, "sent"),
        (evolve(ONCE, unknown_for_s=10 * DAY_S), ONCE_MORE, "sent"),
        (TWICE, ONCE_MORE, "unknown_held"),
        (ONCE, HOLD, "unknown_held"),
        (TWICE, HOLD, "unknown_held"),
        (ONCE, ASK, "inquiry_not_due"),
        (evolve(ONCE, unknown_last_s=300.0), ASK, "sent"),
        (evolve(TWICE, unknown_for_s=400.0, unknown_last_s=299.0), ASK, "inquiry_not_due"),
        (evolve(TWICE, unknown_for_s=400.0, unknown_last_s=301.0), ASK, "sent"),
    ],
)
def test_every_row_of_the_policy(delivery: Delivery, policy: ProviderPolicy, expected: str) -> None:
    assert judged(delivery, policy) == expected


@pytest.mark.parametrize("on_unknown", OnUnknown)
@pytest.mark.parametrize("delivery", [FRESH, DECIDED])
def test_what_is_not_unresolved_is_sent_whatever_the_policy(delivery: Delivery, on_unknown: OnUnknown) -> None:
    assert judged(delivery, via(on_unknown, None, 300.0)) == "sent"


def test_what_is_held_is_a_dead_letter_for_a_person_and_cost_no_attempt() -> None:
    verdict = judge(ONCE, HOLD, NOW_S)

    assert verdict is not None
    assert (verdict.status, verdict.dead, verdict.refund, verdict.possible_double) == (
        Status.FAILED,
        DeadLetterReason.UNKNOWN,
        True,
        False,
    )
    assert verdict.outcome.kind is OutcomeClass.INTERRUPTED
    assert verdict.via == HOLD


def test_records_that_lag_are_waited_for_at_no_cost() -> None:
    verdict = judge(evolve(ONCE, unknown_last_s=100.0), ASK, NOW_S)

    assert verdict is not None
    assert (verdict.status, verdict.refund, verdict.retry_in_s) == (Status.QUEUED, True, 200.0)


def test_a_wait_for_records_that_would_outlast_the_notification_ends_it_now() -> None:
    in_time, too_late = (judge(evolve(ONCE, expires_at_s=NOW_S + end_s), ASK, NOW_S) for end_s in (290.1, 290.0))

    assert in_time is not None
    assert too_late is not None
    assert (in_time.status, too_late.dead) == (Status.QUEUED, DeadLetterReason.EXPIRED)


@given(
    st.builds(
        evolve,
        st.just(ONCE),
        unknowns=st.integers(1, 9),
        unknown_for_s=st.floats(0, 1e7),
        unknown_last_s=st.floats(0, 1e7),
    ),
    st.sampled_from(OnUnknown),
    st.none() | st.floats(1, 1e6),
    st.floats(0, 1e6),
)
def test_a_key_is_never_relied_on_past_its_retention_and_nothing_is_sent_against_hold(
    delivery: Delivery, on_unknown: OnUnknown, key_retention_s: float | None, inquiry_lag_s: float
) -> None:
    verdict: Verdict | None = judge(delivery, via(on_unknown, key_retention_s, inquiry_lag_s), NOW_S)
    assert delivery.unknown_for_s is not None
    assert delivery.unknown_last_s is not None

    if verdict is None:
        assert on_unknown is not OnUnknown.HOLD
        if on_unknown is OnUnknown.RESEND and key_retention_s is not None:
            assert delivery.unknown_for_s < key_retention_s
        elif on_unknown is OnUnknown.ASK:
            assert delivery.unknown_last_s >= inquiry_lag_s
        else:
            assert delivery.unknowns == 1
    else:
        assert verdict.refund
        assert (verdict.status is Status.QUEUED) == (on_unknown is OnUnknown.ASK)


def test_no_wait_is_so_short_that_the_gate_takes_it_for_over() -> None:
    """Else it would be judged anew at once, for the same wait, again and again."""
    verdict = judge(evolve(ONCE, unknown_last_s=299.9997), ASK, NOW_S)

    assert verdict is not None
    assert verdict.retry_in_s == WAIT_MIN_S
    assert WAIT_MIN_S > 2 * DUE_SLACK_S
