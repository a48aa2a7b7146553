"""What one channel of one organization may do now: rate, pace, quota, breaker, pauses and concurrency, folded into one number.

``room`` is how many attempts may begin. Zero means *closed*, and ``opens_in_s`` then says when to look again, or None when an
ending call, or the answer to a lease of quota, will tell. Rate limits, a used-up quota, pauses and an open breaker all work by
closing: what waits behind them costs no attempt. What a later life should know is ``saved`` and ``resumed``.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, unique

from attrs import define, evolve, field

from dispatcher.backoff import RetryPolicy
from dispatcher.breaker import Breaker, BreakerPolicy, Permit, State, Verdict, verdict_of
from dispatcher.bucket import Bucket
from dispatcher.channel_memory import Remembered, SavedChannel, level_now
from dispatcher.messages import ProviderPolicy
from dispatcher.outcome import FOUND_AT_PROVIDER, Outcome, OutcomeClass, RateScope
from dispatcher.pace import Pace
from dispatcher.quota import Quota, QuotaPolicy

MISCONFIGURED_PAUSE_S = 60.0
"""How long a refused credential rests before one attempt asks again. A changed configuration ends the pause at once."""
RATE_LIMITED_PAUSE_S = 1.0
"""The shortest pause after a 429, whatever time it names: a hint only ever lengthens it."""
PAUSE_KEPT_MAX_S = 7 * 86_400.0
"""No remembered pause is longer: that is as far as a provider's hint may be believed."""
LONG_PAUSE_S = 10.0
"""A pause for a rate limit that is longer than this sends traffic to other configurations; a shorter one is waited for."""
PREFETCH = 2
"""Attempts handed to a channel per call it may have in flight: one being made, one ready for when it ends."""
TURN_MIN_S = 0.005
"""A closed channel is looked at again no sooner than this."""


@unique
class Standing(Enum):
    """Whether others should send what one configuration would."""

    UP = "up"
    """No: it sends, or is merely busy."""
    RETURNING = "returning"
    """It sends as much as it has room for, to show that it is back. Others send the rest."""
    DOWN = "down"
    """Yes: nothing goes through it for a while."""


@define
class ChannelState:
    """The limits of one provider configuration. Only the organization's core may call it; times are monotonic seconds."""

    policy: ProviderPolicy
    _breaker_policy: BreakerPolicy
    _breaker: Breaker
    _bucket: Bucket | None
    _pace: Pace
    quota: Quota | None
    """The stock of the account's quota; None when it has none."""
    worth_keeping: bool = field(default=False, init=False)
    """Something has changed that another life should know. Taken back by whoever keeps it."""
    _permits: dict[str, Permit] = field(factory=dict, init=False)  # by notification, while its attempt is under way
    _paused_until_s: float = field(default=0.0, init=False)
    _long_pause: bool = field(default=False, init=False)  # the pause is one that others should send meanwhile
    _asking: bool = field(default=False, init=False)  # after a refused credential: one attempt at a time until one succeeds

    @classmethod
    def start(cls, policy: ProviderPolicy, breaker: BreakerPolicy, now_s: float) -> ChannelState:
        """A channel of which nothing is known. Its bucket holds one token: enough not to wait, too little for a free burst."""
        return cls.resumed(policy, breaker, None, now_s)

    @classmethod
    def resumed(cls, policy: ProviderPolicy, breaker: BreakerPolicy, remembered: Remembered | None, now_s: float) -> ChannelState:
        """A channel that goes on where an earlier life left off, as far as that was of the same configuration and is believed."""
        bucket = None
        if policy.rate_per_s is not None:
            level = level_now(remembered, policy.config_id, policy.rate_per_s, policy.burst)
            bucket = Bucket(policy.rate_per_s, policy.burst, level, now_s)
        quota = None
        if policy.quota is not None:
            quota = Quota(quota_policy(policy))
        state = cls(policy, breaker, Breaker(breaker, now_s), bucket, Pace(policy.rate_per_s), quota)
        saved = None if remembered is None else remembered.saved
        if remembered is not None and saved is not None and saved.config_id == policy.config_id:
            if quota is not None:
                quota.alarmed_window = saved.alarmed_window
            if saved.revision == policy.revision:
                state._resume(saved, max(0.0, remembered.age_s), now_s)
        return state

    def _resume(self, saved: SavedChannel, age_s: float, now_s: float) -> None:
        kept = saved.breaker
        reopens_in_s = max(0.0, kept.reopens_in_s - age_s)
        self._breaker = Breaker.resumed(self._breaker_policy, evolve(kept, reopens_in_s=reopens_in_s), now_s)
        self._asking = saved.asking
        if saved.pace is not None:
            self._pace.resume(saved.pace, now_s)
        paused_s = min(saved.paused_s - age_s, PAUSE_KEPT_MAX_S)
        if paused_s > 0:
            self._paused_until_s = now_s + paused_s
            self._long_pause = paused_s > LONG_PAUSE_S
            if self._bucket is not None:
                self._bucket.hold_until(self._paused_until_s)

    def saved(self, now_s: float) -> SavedChannel:
        """What a later life should know."""
        bucket = self._bucket
        return SavedChannel(
            config_id=self.policy.config_id,
            revision=self.policy.revision,
            level=None if bucket is None else bucket.level_at(now_s),
            held_s=0.0 if bucket is None else max(0.0, bucket.at_s - now_s),
            paused_s=max(0.0, self._paused_until_s - now_s),
            asking=self._asking,
            breaker=self._breaker.saved(now_s),
            pace=self._pace.saved(),
            alarmed_window=0 if self.quota is None else self.quota.alarmed_window,
        )

    def covers(self, policy: ProviderPolicy) -> bool:
        """Whether this state was made for exactly that revision of that configuration."""
        return self.policy == policy

    def standing(self, now_s: float) -> Standing:
        """Whether others should send what this configuration would."""
        if now_s < self._paused_until_s and (self._long_pause or self._asking):
            return Standing.DOWN
        if self.quota is not None and self.quota.opens_in_s(now_s) is not None:
            return Standing.DOWN
        reopens_at_s = self._breaker.reopens_at_s
        if reopens_at_s is not None and now_s < reopens_at_s:
            return Standing.DOWN
        proven = self._breaker.state is State.CLOSED and not self._breaker.ramping and not self._asking
        return Standing.UP if proven else Standing.RETURNING

    def room(self, now_s: float) -> int:
        """How many attempts may begin now."""
        if now_s < self._paused_until_s:
            return 0
        room = self.policy.concurrency_max * self.policy.batch_max * PREFETCH - len(self._permits)
        if self._asking:
            room = min(room, 1 - len(self._permits))
        if self._bucket is not None:
            room = min(room, self._bucket.available(now_s))
        paced = self._pace.available(now_s)
        if paced is not None:
            room = min(room, paced)
        if self.quota is not None:
            room = min(room, self.quota.available(now_s))
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
        paced_s = self._pace.reaches_s()
        if paced_s > now_s:
            looks.append(paced_s - now_s)
        if self.quota is not None and (quota_s := self.quota.opens_in_s(now_s)) is not None:
            looks.append(quota_s)
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
        self._pace.take(now_s)
        if self.quota is not None:
            self.quota.take(id)
        self._permits[id] = permit
        return True

    def conclude(
        self,
        id: str,
        outcome: Outcome,
        duration_s: float,
        now_s: float,
        random01: Callable[[], float],
        retry: RetryPolicy,
        speaks_for_call: bool = True,
    ) -> str | None:
        """Give back what the attempt held and learn from how it ended. Returns an alarm code if a person should know.

        What was found at the provider was not sent now: that says nothing of its sending. The inquiry was a call all the same,
        and keeps its token and its share of the quota. Nor does the breaker hear of one that does not speak for its call.
        """
        permit = self._permits.pop(id, None)
        if permit is None:  # begun under an earlier revision of the configuration: it says nothing about this one
            return None
        kind = outcome.kind
        if self.quota is not None:
            self.quota.ended(id, made=kind is not OutcomeClass.INTERRUPTED)
        sent = kind is OutcomeClass.DELIVERED and outcome.code != FOUND_AT_PROVIDER
        if sent:
            self._asking = False
            self._pace.accepted(now_s)
        elif kind is OutcomeClass.INTERRUPTED:
            self._breaker.release(permit)
            self._pace.put_back()
            if self._bucket is not None:
                self._bucket.put_back(1)
            return None
        was = self._breaker.state
        found = kind is OutcomeClass.DELIVERED and not sent
        verdict = Verdict.NEUTRAL if found or not speaks_for_call else verdict_of(self._breaker_policy, kind, duration_s)
        self._breaker.record(permit, verdict, now_s, 0.0 if kind is OutcomeClass.DELIVERED else random01())
        if kind is OutcomeClass.RATE_LIMITED and outcome.scope is RateScope.ACCOUNT:
            pause_s = min(max(outcome.retry_after_s or 0.0, RATE_LIMITED_PAUSE_S), retry.hint_cap_s)
            self._paused_until_s = max(self._paused_until_s, now_s + pause_s)
            self._long_pause = self._paused_until_s - now_s > LONG_PAUSE_S
            if self._bucket is not None:
                self._bucket.hold_until(now_s + pause_s)
            self._pace.refused(now_s - duration_s, now_s, self._paused_until_s)
            self.worth_keeping = True
        elif kind is OutcomeClass.MISCONFIGURED:
            first = not self._asking or self._paused_until_s <= now_s
            self._paused_until_s = max(self._paused_until_s, now_s + MISCONFIGURED_PAUSE_S)
            self._asking = True
            self.worth_keeping = True
            return "misconfigured" if first else None
        if self._breaker.state is was:
            return None
        self.worth_keeping = True
        if self._breaker.state is State.OPEN:
            return "breaker_opened"
        return "breaker_closed" if self._breaker.state is State.CLOSED else None

    @property
    def breaker_state(self) -> str:
        """``closed``, ``open`` or ``half_open``, for metrics and announcements."""
        return self._breaker.state.value

    @property
    def deadline_s(self) -> float | None:
        """How long the attempts that begin now may take: probes must not wait as long as others. None: as long as any."""
        return self._breaker_policy.probe_deadline_s if self._breaker.state is State.HALF_OPEN else None

    @property
    def learned_per_s(self) -> float | None:
        """The pace that refusals have taught, None while there is none."""
        return self._pace.rate_per_s

    @property
    def under_way(self) -> int:
        """Attempts begun and not concluded."""
        return len(self._permits)


def quota_policy(policy: ProviderPolicy) -> QuotaPolicy:
    """The quota of a configuration that has one."""
    assert policy.quota is not None
    return QuotaPolicy(policy.config_id, policy.quota, policy.quota_window_s)
