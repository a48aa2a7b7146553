"""Whether a notification may be sent again of which nobody knows if it was sent: the channel's policy, as one function.

Judged after the gate, so that one rule holds for every way in which an attempt can end without a word: an answer that never
came, a process that died, an actor that failed. Invariant: with ``HOLD`` nothing is sent again unless a person has decided so
since, and a key that the provider may have forgotten is never relied on. What may have been sent through one configuration goes
through no other one: it waits for its own, or for a person when that is gone.
"""

from __future__ import annotations

from dispatcher.messages import ProviderPolicy, Verdict
from dispatcher.model import DeadLetterReason, Delivery, Status
from dispatcher.outcome import OnUnknown, Outcome, OutcomeClass
from dispatcher.verdicts import expire

RETENTION_SHARE = 0.95
"""How much of a key's retention is relied on: the rest is for the way to the provider and for clocks that disagree."""

WAIT_MIN_S = 0.05
"""The shortest wait that is asked for. One that the gate takes for over already, as it counts in whole milliseconds, would be
judged anew at once, for the same wait, again and again."""

HELD = Outcome(OutcomeClass.INTERRUPTED, "unknown_held")
KEY_RETENTION_PASSED = Outcome(OutcomeClass.INTERRUPTED, "key_retention_passed")
INQUIRY_NOT_DUE = Outcome(OutcomeClass.INTERRUPTED, "inquiry_not_due")
PROVIDER_AWAITED = Outcome(OutcomeClass.INTERRUPTED, "provider_awaited")
PROVIDER_GONE = Outcome(OutcomeClass.INTERRUPTED, "provider_gone")


def judge(delivery: Delivery, via: ProviderPolicy, now_unix_s: float) -> Verdict | None:
    """Decide about a delivery before its call: None lets it go on, a verdict ends this attempt, which is given back.

    ============ ======================================= =====================================================
    policy       what is known                           what follows
    ============ ======================================= =====================================================
    any          nothing is unresolved                   sent
    resend       its key is honoured still               sent, under the same key
    resend       its key may be forgotten by now         failed: unknown (``key_retention_passed``)
    resend       the provider honours no keys            as ``resend_once``
    resend_once  one attempt with an unknown effect      sent
    resend_once  several of them                         failed: unknown (``unknown_held``)
    hold                                                 failed: unknown (``unknown_held``)
    ask          too early for the provider's records    queued again for the rest of the lag
    ask          old enough                              goes on: whoever makes the call asks first
    ============ ======================================= =====================================================

    "Unresolved" ends when a person requeues what was given up for it (``unknown``, ``poison``), and for no other reason; what is
    counted in ``unknowns`` stays, so that a decision by hand is good for one attempt with an unknown effect, not for several.
    """
    age_s = delivery.unknown_for_s
    if age_s is None:
        return None
    match via.on_unknown:
        case OnUnknown.ASK:
            last_s = age_s if delivery.unknown_last_s is None else delivery.unknown_last_s
            wait_s = via.inquiry_lag_s - last_s
            return None if wait_s <= 0 else _later(delivery, via, wait_s, now_unix_s)
        case OnUnknown.RESEND if via.key_retention_s is not None:
            return None if age_s < via.key_retention_s * RETENTION_SHARE else _held(delivery, via, KEY_RETENTION_PASSED)
        case OnUnknown.RESEND | OnUnknown.RESEND_ONCE if delivery.unknowns <= 1:
            return None
        case _:
            return _held(delivery, via, HELD)


def await_provider(delivery: Delivery, via: ProviderPolicy | None, wait_s: float, now_unix_s: float) -> Verdict:
    """What becomes of a delivery whose own configuration can not take it now, while another one could: it waits."""
    if delivery.expires_at_s is not None and now_unix_s + wait_s >= delivery.expires_at_s:
        return expire(delivery)
    return Verdict(delivery, PROVIDER_AWAITED, via, Status.QUEUED, refund=True, retry_in_s=max(wait_s, WAIT_MIN_S))


def provider_gone(delivery: Delivery) -> Verdict:
    """What becomes of a delivery whose own configuration does not exist any more: a person decides."""
    return Verdict(delivery, PROVIDER_GONE, None, Status.FAILED, refund=True, dead=DeadLetterReason.UNKNOWN)


def key_holds_for_s(delivery: Delivery, via: ProviderPolicy) -> float | None:
    """How long after the gate a call may still begin that relies on the provider's memory of its key; None when none does.

    What waits in line for longer goes back, and is judged anew.
    """
    if delivery.unknown_for_s is None or via.on_unknown is not OnUnknown.RESEND or via.key_retention_s is None:
        return None
    return via.key_retention_s * RETENTION_SHARE - delivery.unknown_for_s


def _held(delivery: Delivery, via: ProviderPolicy, why: Outcome) -> Verdict:
    return Verdict(delivery, why, via, Status.FAILED, refund=True, dead=DeadLetterReason.UNKNOWN)


def _later(delivery: Delivery, via: ProviderPolicy, wait_s: float, now_unix_s: float) -> Verdict:
    if delivery.expires_at_s is not None and now_unix_s + wait_s >= delivery.expires_at_s:
        return expire(delivery)
    return Verdict(delivery, INQUIRY_NOT_DUE, via, Status.QUEUED, refund=True, retry_in_s=max(wait_s, WAIT_MIN_S))
