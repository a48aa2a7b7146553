"""When to try again: full jitter under a cap, with a base for each class of outcome.

``delay = uniform(0, min(cap, base * 2^(attempt - 1)))``: the cap comes before the jitter, so that a long row of failures keeps
spreading instead of gathering at the cap. A provider's own hint (``Retry-After``) may only lengthen the delay, up to a cap of
its own; a little jitter goes on top of it, because everybody who was refused in one second got the same hint.
Invariant: ``0 <= delay <= max(cap_s, hint_cap_s)``, and a hint within its cap is respected.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from types import MappingProxyType

from attrs import frozen

from dispatcher.model import NotificationId
from dispatcher.outcome import OutcomeClass

BASE_FACTORS: Mapping[OutcomeClass, float] = MappingProxyType(
    {
        OutcomeClass.SOFT: 1.0,
        OutcomeClass.UNKNOWN: 1.0,
        OutcomeClass.UNRESOLVED: 30.0,  # records appear in their own time, and the right to read them may be waiting for a person
        OutcomeClass.RATE_LIMITED: 0.5,  # throttled, not broken: a slot may be free in a moment
        OutcomeClass.MISCONFIGURED: 30.0,  # waits for a person, so polling fast only annoys the provider
        OutcomeClass.INTERRUPTED: 0.0,  # nothing happened; whoever takes over may begin at once
    }
)
"""What multiplies ``base_s`` for each class that leads to another attempt. A class without an entry is final."""

RESCUE_FIRST_S = 5.0
"""What is rescued for the first time comes back within this: long enough that few of those who were lost with one process are at
work together again."""
RESCUE_LATER_S = 60.0
"""What is rescued again comes back within this: one of them may be what kills processes, and the others should be through by
then."""

_DOUBLINGS_MAX = 62
"""Past this the exponential left every sensible cap behind; it keeps the power of two inside a machine word."""


@frozen
class RetryPolicy:
    """How long to wait between attempts of one notification.

    ``base_s`` is the span of the first retry, ``cap_s`` the longest span, ``hint_cap_s`` the longest provider hint believed.
    """

    base_s: float = 2.0
    cap_s: float = 3600.0
    hint_cap_s: float = 3600.0


def full_jitter_s(attempt: int, base_s: float, cap_s: float, random01: float) -> float:
    """The delay after failed attempt number ``attempt``, counted from 1. ``random01`` is uniform in [0, 1)."""
    if attempt < 1:
        raise ValueError("attempts count from 1")
    return min(cap_s, base_s * (1 << min(attempt - 1, _DOUBLINGS_MAX))) * random01


def retry_delay_s(
    policy: RetryPolicy, outcome_class: OutcomeClass, attempt: int, random01: float, retry_after_s: float | None = None
) -> float:
    """The delay before the next attempt after one that ended in ``outcome_class``.

    Raises ValueError for a final class. A hint that is negative or not a number is ignored.
    """
    factor = BASE_FACTORS.get(outcome_class)
    if factor is None:
        raise ValueError(f"{outcome_class} is final: there is no next attempt")
    base_s = policy.base_s * factor
    delay_s = full_jitter_s(attempt, base_s, policy.cap_s, random01)
    if retry_after_s is None or not retry_after_s > 0:
        return delay_s
    return max(delay_s, min(retry_after_s + base_s * random01, policy.hint_cap_s))


def rescue_delay_s(id: NotificationId, rescues: int, left_s: float | None, *, survived: bool) -> float:
    """How long what is rescued waits before it is sent again, when it was rescued ``rescues`` times before.

    Spread evenly over :data:`RESCUE_FIRST_S` the first time and over :data:`RESCUE_LATER_S` afterwards. Where the process
    ``survived``, and only an actor failed, the first wait is none and later ones are spread over the shorter time: an
    organization that keeps failing must be seen to within the minute of its restart budget. Never over more than half of the
    ``left_s`` that it has until it expires. Drawn from id and number, so that whoever asks gets the same answer;
    Postgres draws it in the same way.
    """
    again_s, first_s = (RESCUE_FIRST_S, 0.0) if survived else (RESCUE_LATER_S, RESCUE_FIRST_S)
    span_s = again_s if rescues else first_s
    if left_s is not None:
        span_s = min(span_s, max(0.0, left_s) / 2)
    return span_s * (int(sha256(f"{id} {rescues}".encode()).hexdigest()[:8], 16) / 2**32)
