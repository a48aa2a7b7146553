"""What one channel of one organization may do now: rate, breaker, pauses and concurrency, folded into one number.

``room`` is how many attempts may begin. Zero means *closed*, and ``opens_in_s`` then says when to look again, or None when an
ending call will tell. Rate limits, pauses and an open breaker all work by closing: what waits behind them costs no attempt.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from dispatcher.backoff import RetryPolicy
from dispatcher.breaker import Breaker, BreakerPolicy, Permit, State, verdict_of
from dispatcher.bucket import Bucket
from dispatcher.messages import ProviderPolicy
from dispatcher.outcome import Outcome, OutcomeClass

MISCONFIGURED_PAUSE_S = 60.0
"""How long a refused credential rests before one attempt asks again. A changed configuration ends the pause at once."""
RATE_LIMITED_PAUSE_S = 1.0
"""The pause after a 429 that named no time of its own."""
PREFETCH = 2
"""Attempts handed to a channel per call it may have in flight: one being made, one ready for when it ends."""
TURN_MIN_S = 0.005
"""A closed channel is looked at again no sooner than this."""


@define
class ChannelState:
    """The limits of one provider configuration. Only the organization's core may call it; times are monotonic seconds."""

    policy: ProviderPolicy
    _breaker_policy: BreakerPolicy
    _breaker: Breaker
    _bucket: Bucket | None
    _permits: dict[str, Permit] = field(factory=dict, init=False)  # by notification, while its attempt is under way
    _paused_until_s: float = field(default=0.0, init=False)
    _asking: bool = field(default=False, init=False)  # after a refused credential: one attempt at a time until one succeeds

    @classmethod
    def start(cls, policy: ProviderPolicy, breaker: BreakerPolicy, now_s: float) -> ChannelState:
        """A channel of which nothing is known. Its bucket holds one token: enough not to wait, too little for a free burst."""
        bucket = None if policy.rate_per_s is None else Bucket(policy.rate_per_s, policy.burst, 1.0, now_s)
        return cls(policy, breaker, Breaker(breaker, now_s), bucket)

    def covers(self, policy: ProviderPolicy) -> bool:
        """Whether this state was made for exactly that revision of that configuration."""
        return self.policy == policy

    def room(self, now_s: float) -> int:
        """How many attempts may begin now."""
        if now_s < self._paused_until_s:
            return 0
        room = self.policy.concurrency_max * PREFETCH - len(self._permits)
        if self._asking:
            room = min(room, 1 - len(self._permits))
        if self._bucket is not None:
            room = min(room, self._bucket.available(now_s))
        permits = self._breaker.permits(now_s)
        return max(0, room if permits is None else min(room, permits))

    def opens_in_s(self, now_s: float) -> float | None:
        """When a closed channel is worth another look; None when only an ending attempt can open it."""
        looks: list[float] = []
        if now_s < self._paused_until_s:
            looks.append(self._paused_until_s - now_s)
        reopens_at_s = self._breaker.reopens_at_s
        if reopens_at_s is not None:
            looks.append(reopens_at_s - now_s)
        if self._bucket is not None and self._bucket.available(now_s) < 1:
            looks.append(self._bucket.reaches_s(1) - now_s)
        return max(TURN_MIN_S, *looks) if looks else None

    def begin(self, id: str, now_s: float) -> bool:
        """Take what one attempt needs: a token and the breaker's leave. False, and nothing taken, when the channel is closed."""
        if self.room(now_s) <= 0:
            return False
        permit = self._breaker.acquire(now_s)
        if permit is None:
            return False
        if self._bucket is not None:
            self._bucket.take(1, now_s)
        self._permits[id] = permit
        return True

    def conclude(
        self, id: str, outcome: Outcome, duration_s: float, now_s: float, random01: Callable[[], float], retry: RetryPolicy
    ) -> str | None:
        """Give back what the attempt held and learn from how it ended. Returns an alarm code if a person should know."""
        permit = self._permits.pop(id, None)
        if permit is None:  # begun under an earlier revision of the configuration: it says nothing about this one
            return None
        kind = outcome.kind
        if kind is OutcomeClass.DELIVERED:
            self._asking = False
        elif kind is OutcomeClass.INTERRUPTED:
            self._breaker.release(permit)
            if self._bucket is not None:
                self._bucket.put_back(1)
            return None
        was = self._breaker.state
        verdict = verdict_of(self._breaker_policy, kind, duration_s)
        self._breaker.record(permit, verdict, now_s, 0.0 if kind is OutcomeClass.DELIVERED else random01())
        if kind is OutcomeClass.RATE_LIMITED:
            pause_s = min(outcome.retry_after_s or RATE_LIMITED_PAUSE_S, retry.hint_cap_s)
            self._paused_until_s = max(self._paused_until_s, now_s + pause_s)
            if self._bucket is not None:
                self._bucket.hold_until(now_s + pause_s)
        elif kind is OutcomeClass.MISCONFIGURED:
            first = not self._asking or self._paused_until_s <= now_s
            self._paused_until_s = max(self._paused_until_s, now_s + MISCONFIGURED_PAUSE_S)
            self._asking = True
            return "misconfigured" if first else None
        if self._breaker.state is State.OPEN and was is not State.OPEN:
            return "breaker_opened"
        if self._breaker.state is State.CLOSED and was is State.HALF_OPEN:
            return "breaker_closed"
        return None

    @property
    def breaker_state(self) -> str:
        """``closed``, ``open`` or ``half_open``, for metrics and announcements."""
        return self._breaker.state.value

    @property
    def under_way(self) -> int:
        """Attempts begun and not concluded."""
        return len(self._permits)
