"""A circuit breaker: stops calling a provider that fails, asks now and then whether it is back, and returns gently.

::

                 FAILED_TOO_OFTEN                COOLED
    ┌────────┐ ──────────────────▶ ┌──────┐ ───────────────▶ ┌───────────┐
    │ CLOSED │                     │ OPEN │                  │ HALF_OPEN │
    └────────┘                     └──────┘ ◀─────────────── └───────────┘
        ▲                                     PROBE_FAILED         │
        └──────────────────────────────────────────────────────────┘
                               PROBES_PASSED

*Closed*: every call is permitted and outcomes are counted in a sliding window; enough calls with enough failures among them,
or enough failures in a row, trip the breaker. *Open*: nothing is permitted until a jittered time has passed, which doubles with
each trip that follows another. *Half open*: a few real calls are permitted; all must succeed, one failure reopens. Then it is
closed again, but ramping: 1, 2, 4 … calls at once, doubled as they succeed, so that everybody who waited does not arrive in one
instant. Only the end of the ramp makes the next trip a first one again.

Each state has a generation, and a permit remembers the one it was given in. Invariant: a permit of an earlier generation
changes nothing, so calls begun before the trip, however late they end, neither fail the probes nor pass for them; and each
permit of the present generation is given back exactly once, by ``record`` or by ``release``, also when its call is cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, unique
from types import MappingProxyType
from typing import NewType

from attrs import frozen

from dispatcher.outcome import OutcomeClass
from dispatcher.settings import count, number


@unique
class State(Enum):
    """What the breaker does with a call."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@unique
class Event(Enum):
    """What can happen to a breaker."""

    FAILED_TOO_OFTEN = "failed_too_often"
    COOLED = "cooled"
    PROBE_FAILED = "probe_failed"
    PROBES_PASSED = "probes_passed"


TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.CLOSED, Event.FAILED_TOO_OFTEN): State.OPEN,
        (State.OPEN, Event.COOLED): State.HALF_OPEN,
        (State.HALF_OPEN, Event.PROBE_FAILED): State.OPEN,
        (State.HALF_OPEN, Event.PROBES_PASSED): State.CLOSED,
    }
)
"""Every legal step. A pair that is absent cannot happen."""


def step(state: State, event: Event) -> State:
    """The state that follows. Raises ValueError for a pair that has no entry in ``TRANSITIONS``."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ValueError(f"{event.value} cannot happen to a breaker that is {state.value}") from None


@unique
class Verdict(Enum):
    """What one call says about the provider's health."""

    SUCCESS = "success"
    FAILURE = "failure"
    SLOW = "slow"
    """It succeeded, but took longer than ``slow_call_s``."""
    NEUTRAL = "neutral"
    """It says nothing: a message refused for its own fault, a rate limit, a wrong credential."""


VERDICTS: Mapping[OutcomeClass, Verdict] = MappingProxyType(
    {
        OutcomeClass.DELIVERED: Verdict.SUCCESS,
        OutcomeClass.SOFT: Verdict.FAILURE,
        OutcomeClass.UNKNOWN: Verdict.FAILURE,
        OutcomeClass.RATE_LIMITED: Verdict.NEUTRAL,  # lowers the rate; opening would punish a provider that is well
        OutcomeClass.HARD: Verdict.NEUTRAL,  # one bad customer list must not stop everybody else's mail
        OutcomeClass.SUPPRESS: Verdict.NEUTRAL,
        OutcomeClass.MISCONFIGURED: Verdict.NEUTRAL,  # pauses the configuration, which is not the breaker's business
        OutcomeClass.UNRESOLVED: Verdict.NEUTRAL,  # its records are another service than its sending
        OutcomeClass.INTERRUPTED: Verdict.NEUTRAL,
    }
)
"""The verdict of each class of outcome. A success becomes ``SLOW`` by its duration, see ``verdict_of``."""


@frozen
class BreakerPolicy:
    """When a breaker opens, for how long, and how it returns. Its fields are settings, see ``config``."""

    window_s: float = number(30.0, "over which outcomes are counted", at_most=3600)
    calls_min: int = count(10, "calls in the window before it may open", at_most=100_000)
    failure_ratio: float = number(0.5, "share of failed calls that opens it", at_most=1)
    failures_in_a_row: int = count(20, "failed calls, with no other between them, that open it at once", at_most=100_000)
    slow_ratio: float = number(0.9, "share of failed or slow calls that opens it", at_most=1)
    slow_call_s: float = number(15.0, "from which on a successful call counts as slow", at_most=3600)
    open_base_s: float = number(
        5.0, "how long it first stays open; doubled by each trip in a row, half of it jitter", at_most=3600
    )
    open_cap_s: float = number(300.0, "how long it stays open at most", at_most=86_400)
    probes: int = count(3, "calls that must succeed to close it", at_most=1000)
    probe_deadline_s: float = number(20.0, "for each of those calls, if less than DISPATCHER_REQUEST_DEADLINE_S", at_most=3600)
    ramp_calls_max: int = count(64, "calls at once at which the gentle return ends", at_most=100_000)


def verdict_of(policy: BreakerPolicy, outcome_class: OutcomeClass, duration_s: float) -> Verdict:
    """What an attempt that ended in ``outcome_class`` after ``duration_s`` says about the provider's health."""
    verdict = VERDICTS[outcome_class]
    return Verdict.SLOW if verdict is Verdict.SUCCESS and duration_s > policy.slow_call_s else verdict


Permit = NewType("Permit", int)
"""Leave to make one call: the generation in which it was given."""


@frozen
class BreakerStatistics:
    """A breaker as it stands. ``calls``, ``failures`` and ``slow`` count the present window; ``trips`` those in a row."""

    state: State
    ramping: bool
    in_flight: int
    calls: int
    failures: int
    slow: int
    trips: int
    reopens_at_s: float | None


@frozen
class SavedBreaker:
    """What another life of a breaker should know of it. ``reopens_in_s`` counts from when it was saved.

    Half open is saved as open whose time has passed: its probes are nobody's any more, and the next life has its own.
    """

    state: State = State.CLOSED
    trips: int = 0
    reopens_in_s: float = 0.0
    ramp: int | None = None


_SLICES = 10
"""The window moves on in this many steps; an outcome leaves it at most one step late."""
_TRIPS_MAX = 32
"""Trips in a row past this no longer lengthen the open time; any cap is reached long before."""


class Breaker:
    """One breaker; written by its owner only. All times are seconds of the caller's monotonic clock."""

    __slots__ = (
        "_calls", "_failed_in_a_row", "_failures", "_generation", "_in_flight", "_passed", "_policy", "_ramp", "_reopens_at_s",
        "_slice", "_slice_ends_s", "_slice_s", "_slices", "_slow", "_state", "_trips",
    )  # fmt: skip

    def __init__(self, policy: BreakerPolicy, now_s: float) -> None:
        self._policy = policy
        self._state = State.CLOSED
        self._generation = 1
        self._in_flight = 0  # permits of this generation that were not given back
        self._passed = 0  # successes that count towards the end of the probing, or of this step of the ramp
        self._ramp: int | None = None  # calls permitted at once while ramping, None when unlimited
        self._trips = 0
        self._reopens_at_s = now_s
        self._slice_s = policy.window_s / _SLICES
        self._forget(now_s)

    @classmethod
    def resumed(cls, policy: BreakerPolicy, saved: SavedBreaker, now_s: float) -> Breaker:
        """A breaker that goes on where another left off. What it can not have been is brought within the policy's bounds."""
        breaker = cls(policy, now_s)
        breaker._trips = min(max(saved.trips, 0), _TRIPS_MAX)
        if saved.state is not State.CLOSED:
            breaker._enter(Event.FAILED_TOO_OFTEN, now_s)
            breaker._reopens_at_s = now_s + min(max(saved.reopens_in_s, 0.0), policy.open_cap_s)
        elif saved.ramp is not None:
            breaker._ramp = min(max(saved.ramp, 1), policy.ramp_calls_max)
        return breaker

    def saved(self, now_s: float) -> SavedBreaker:
        """What another life of this breaker should know."""
        if self._state is State.CLOSED:
            return SavedBreaker(State.CLOSED, self._trips, 0.0, self._ramp)
        reopens_in_s = max(0.0, self._reopens_at_s - now_s) if self._state is State.OPEN else 0.0
        return SavedBreaker(State.OPEN, self._trips, reopens_in_s)

    @property
    def state(self) -> State:
        """The present state. An open breaker whose time has passed says so until it is next asked for a permit."""
        return self._state

    @property
    def reopens_at_s(self) -> float | None:
        """When an open breaker will permit its first probe; None when it is not open."""
        return self._reopens_at_s if self._state is State.OPEN else None

    @property
    def ramping(self) -> bool:
        """Whether it is closed and still on its gentle return."""
        return self._ramp is not None

    def permits(self, now_s: float) -> int | None:
        """How many more calls may begin now; None means any number."""
        if self._state is State.OPEN:
            if now_s < self._reopens_at_s:
                return 0
            self._enter(Event.COOLED, now_s)
        if self._state is State.HALF_OPEN:
            return self._policy.probes - self._passed - self._in_flight
        return None if self._ramp is None else max(0, self._ramp - self._in_flight)

    def acquire(self, now_s: float) -> Permit | None:
        """Leave to begin one call, or None. It must come back exactly once, through ``record`` or ``release``."""
        if (self._state is not State.CLOSED or self._ramp is not None) and self.permits(now_s) == 0:
            return None
        self._in_flight += 1
        return Permit(self._generation)

    def release(self, permit: Permit) -> None:
        """Give back the permit of a call that never concluded: cancelled, or not even begun."""
        if permit == self._generation:
            self._in_flight -= 1

    def record(self, permit: Permit, verdict: Verdict, now_s: float, random01: float) -> None:
        """Give back the permit of a call that ended. ``random01`` in [0, 1) is the jitter, should this be what trips it."""
        if permit != self._generation:
            return
        self._in_flight -= 1
        if verdict is Verdict.NEUTRAL:
            return
        if self._state is State.HALF_OPEN:
            self._judge_probe(verdict, now_s, random01)
            return
        if now_s >= self._slice_ends_s:
            self._advance(now_s)
        self._calls += 1
        self._slice[0] += 1
        if verdict is Verdict.SUCCESS:
            self._failed_in_a_row = 0
            if self._ramp is not None:
                self._climb(now_s)
            return
        if verdict is Verdict.FAILURE:
            self._failed_in_a_row += 1
            self._failures += 1
            self._slice[1] += 1
        else:
            self._failed_in_a_row = 0
            self._slow += 1
            self._slice[2] += 1
        self._passed = 0
        self._trip_if_due(now_s, random01)

    def statistics(self) -> BreakerStatistics:
        """The breaker as it stands."""
        return BreakerStatistics(
            state=self._state,
            ramping=self._ramp is not None,
            in_flight=self._in_flight,
            calls=self._calls,
            failures=self._failures,
            slow=self._slow,
            trips=self._trips,
            reopens_at_s=self.reopens_at_s,
        )

    def _judge_probe(self, verdict: Verdict, now_s: float, random01: float) -> None:
        if verdict is not Verdict.SUCCESS:
            self._open(Event.PROBE_FAILED, now_s, random01)
            return
        self._passed += 1
        if self._passed == self._policy.probes:
            self._enter(Event.PROBES_PASSED, now_s)
            self._ramp = 1

    def _climb(self, now_s: float) -> None:
        """Count one success of the ramp: as many in a row as were permitted at once double the number."""
        assert self._ramp is not None
        self._passed += 1
        if self._passed < self._ramp:
            return
        self._passed = 0
        self._ramp *= 2
        if self._ramp > self._policy.ramp_calls_max:
            self._ramp = None
            self._trips = 0

    def _trip_if_due(self, now_s: float, random01: float) -> None:
        policy = self._policy
        # Where many calls succeeded a moment ago, the share of failures rises slowly; a row of them says enough.
        if self._failed_in_a_row >= policy.failures_in_a_row:
            self._open(Event.FAILED_TOO_OFTEN, now_s, random01)
            return
        # While ramping few calls are made, so few must be enough: with one at a time, each waiting for its deadline, the window
        # would never fill.
        calls_min = policy.calls_min if self._ramp is None else min(policy.calls_min, self._ramp)
        if self._calls < calls_min:
            return
        if self._failures >= policy.failure_ratio * self._calls or self._failures + self._slow >= policy.slow_ratio * self._calls:
            self._open(Event.FAILED_TOO_OFTEN, now_s, random01)

    def _open(self, event: Event, now_s: float, random01: float) -> None:
        self._enter(event, now_s)
        span_s = min(self._policy.open_base_s * (1 << self._trips), self._policy.open_cap_s)
        self._trips = min(self._trips + 1, _TRIPS_MAX)
        self._reopens_at_s = now_s + span_s * (0.5 + 0.5 * random01)

    def _enter(self, event: Event, now_s: float) -> None:
        """Move along the table into a new generation, which knows nothing of the one before but the number of trips."""
        self._state = step(self._state, event)
        self._generation += 1
        self._in_flight = 0
        self._passed = 0
        self._ramp = None
        self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        """Begin an empty window. Its slices hold calls, failures and slow calls; the totals run along."""
        self._calls: int = 0
        self._failures: int = 0
        self._slow: int = 0
        self._failed_in_a_row = 0
        self._slice: list[int] = [0, 0, 0]
        self._slices: list[list[int]] = [self._slice]
        self._slice_ends_s: float = now_s + self._slice_s

    def _advance(self, now_s: float) -> None:
        """Move the window on to ``now_s`` and drop the slices that left it."""
        passed = int((now_s - self._slice_ends_s) / self._slice_s) + 1
        self._slice_ends_s += passed * self._slice_s
        self._slices.extend([0, 0, 0] for _ in range(min(passed, _SLICES)))
        self._slice = self._slices[-1]
        for calls, failures, slow in self._slices[:-_SLICES]:
            self._calls -= calls
            self._failures -= failures
            self._slow -= slow
        del self._slices[:-_SLICES]
