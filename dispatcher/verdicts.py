"""What becomes of a notification when an attempt ends: the retry policy, as one function.

The whole policy is the table in :func:`conclude`'s docstring; everything else about retries (timers, sets, rows) only carries
it out. The delays are full jitter (uniform between zero and a capped exponential), and a provider's hint may only lengthen them.
"""

from __future__ import annotations

from typing import assert_never

from dispatcher.backoff import RetryPolicy, retry_delay_s
from dispatcher.messages import ProviderPolicy, Verdict
from dispatcher.model import DeadLetterReason, Delivery, Status
from dispatcher.outcome import Outcome, OutcomeClass, RateScope


def conclude(
    delivery: Delivery,
    outcome: Outcome,
    via: ProviderPolicy | None,
    policy: RetryPolicy,
    now_unix_s: float,
    random01: float,
    covered_in_s: float = 0.0,
) -> Verdict:
    """Decide what follows from one ended attempt.

    ============== ============================================ ==========================================
    outcome        while attempts are left                      when they are used up
    ============== ============================================ ==========================================
    delivered      delivered                                    delivered
    soft           queued, after a backoff                      failed: exhausted
    unknown        queued, after a backoff, a possible double   failed: exhausted, a possible double
    unresolved     queued, after a long backoff                 failed: unknown
    rate_limited   queued, after the hint; costs no attempt     (cannot be used up)
    (a recipient)  queued, after hint or backoff                failed: exhausted
    misconfigured  queued, after a pause; costs no attempt      (cannot be used up)
    interrupted    queued at the head; costs no attempt         (cannot be used up)
    hard           failed: hard                                 failed: hard
    suppress       failed: suppressed                           failed: suppressed
    ============== ============================================ ==========================================

    Attempts are used up at the delivery's ``attempts_max`` or the outcome's, whichever is less. A wait that would outlast
    ``expires_at`` ends it now (failed: expired), whatever the row above says. ``random01`` lies in [0, 1). ``covered_in_s`` is
    when the budgets for retries have room for this one: no soft or unknown retry comes earlier, unless that is longer than the
    longest backoff, or than half of the time that is left: a budget puts off and ends nothing.
    """

    kind = outcome.kind
    if kind is OutcomeClass.DELIVERED:
        return Verdict(delivery, outcome, via, Status.DELIVERED)

    def again(delay_s: float, *, refund: bool = False, possible_double: bool = False) -> Verdict:
        if delivery.expires_at_s is not None and now_unix_s + delay_s >= delivery.expires_at_s:
            return dead(DeadLetterReason.EXPIRED, possible_double=possible_double)
        return Verdict(delivery, outcome, via, Status.QUEUED, refund=refund, possible_double=possible_double, retry_in_s=delay_s)

    def dead(reason: DeadLetterReason, *, possible_double: bool = False) -> Verdict:
        return Verdict(delivery, outcome, via, Status.FAILED, possible_double=possible_double, dead=reason)

    attempts_max = delivery.attempts_max if outcome.attempts_max is None else min(delivery.attempts_max, outcome.attempts_max)
    match kind:
        case OutcomeClass.RATE_LIMITED if outcome.scope is RateScope.RECIPIENT:
            if delivery.attempt >= attempts_max:
                return dead(DeadLetterReason.EXHAUSTED)
            delay_s = retry_delay_s(policy, OutcomeClass.SOFT, delivery.attempt, random01, outcome.retry_after_s)
            return again(max(delay_s, outcome.wait_s))
        case OutcomeClass.SOFT | OutcomeClass.UNKNOWN:
            possible_double = kind is OutcomeClass.UNKNOWN
            if delivery.attempt >= attempts_max:
                return dead(DeadLetterReason.EXHAUSTED, possible_double=possible_double)
            delay_s = retry_delay_s(policy, kind, delivery.attempt, random01, outcome.retry_after_s)
            covered_in_s = min(covered_in_s, policy.cap_s)
            if delivery.expires_at_s is not None:
                covered_in_s = min(covered_in_s, (delivery.expires_at_s - now_unix_s) / 2)
            return again(max(delay_s, covered_in_s, outcome.wait_s), possible_double=possible_double)
        case OutcomeClass.UNRESOLVED:
            if delivery.attempt >= delivery.attempts_max:
                return dead(DeadLetterReason.UNKNOWN)
            return again(retry_delay_s(policy, kind, delivery.attempt, random01, outcome.retry_after_s))
        case OutcomeClass.INTERRUPTED if delivery.expires_at_s is not None and delivery.expires_at_s <= now_unix_s:
            return expire(delivery)
        case OutcomeClass.RATE_LIMITED | OutcomeClass.MISCONFIGURED | OutcomeClass.INTERRUPTED:
            return again(retry_delay_s(policy, kind, delivery.attempt, random01, outcome.retry_after_s), refund=True)
        case OutcomeClass.HARD:
            return dead(DeadLetterReason.HARD)
        case OutcomeClass.SUPPRESS:
            return dead(DeadLetterReason.SUPPRESSED)
        case _ as unreachable:
            assert_never(unreachable)


def expire(delivery: Delivery) -> Verdict:
    """The verdict on a delivery whose ``expires_at`` passed before its call could start."""
    outcome = Outcome(OutcomeClass.HARD, "expired")
    return Verdict(delivery, outcome, None, Status.FAILED, dead=DeadLetterReason.EXPIRED)
