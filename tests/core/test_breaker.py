from __future__ import annotations

from itertools import product

import pytest
from attrs import evolve
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispatcher.breaker import (
    TRANSITIONS,
    VERDICTS,
    Breaker,
    BreakerPolicy,
    Event,
    Permit,
    State,
    Verdict,
    step,
    verdict_of,
)
from dispatcher.outcome import OutcomeClass

POLICY = BreakerPolicy(
    window_s=10.0,
    calls_min=4,
    failure_ratio=0.5,
    failures_in_a_row=6,
    slow_ratio=0.75,
    open_base_s=8.0,
    open_cap_s=20.0,
    probes=2,
    ramp_calls_max=4,
)

# The whole product, written out a second time: None stands for "can not happen".
EVERY_STEP = {
    (State.CLOSED, Event.FAILED_TOO_OFTEN): State.OPEN,
    (State.CLOSED, Event.COOLED): None,
    (State.CLOSED, Event.PROBE_FAILED): None,
    (State.CLOSED, Event.PROBES_PASSED): None,
    (State.OPEN, Event.FAILED_TOO_OFTEN): None,
    (State.OPEN, Event.COOLED): State.HALF_OPEN,
    (State.OPEN, Event.PROBE_FAILED): None,
    (State.OPEN, Event.PROBES_PASSED): None,
    (State.HALF_OPEN, Event.FAILED_TOO_OFTEN): None,
    (State.HALF_OPEN, Event.COOLED): None,
    (State.HALF_OPEN, Event.PROBE_FAILED): State.OPEN,
    (State.HALF_OPEN, Event.PROBES_PASSED): State.CLOSED,
}


def call(breaker: Breaker, verdict: Verdict, now_s: float, random01: float = 0.0) -> None:
    permit = breaker.acquire(now_s)
    assert permit is not None
    breaker.record(permit, verdict, now_s, random01)


def state(breaker: Breaker) -> State:
    return breaker.state


def tripped(policy: BreakerPolicy = POLICY, now_s: float = 0.0, random01: float = 0.0) -> Breaker:
    breaker = Breaker(policy, now_s)
    for _ in range(policy.calls_min):
        call(breaker, Verdict.FAILURE, now_s, random01)
    return breaker


def half_open(now_s: float = 100.0) -> Breaker:
    breaker = tripped()
    assert breaker.permits(now_s) == POLICY.probes
    return breaker


def ramping(now_s: float = 100.0) -> Breaker:
    breaker = half_open(now_s)
    for _ in range(POLICY.probes):
        call(breaker, Verdict.SUCCESS, now_s)
    return breaker


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_pair_of_state_and_event_is_decided(state: State, event: Event) -> None:
    expected = EVERY_STEP[state, event]
    if expected is None:
        assert (state, event) not in TRANSITIONS
        with pytest.raises(ValueError, match=f"{event.value} cannot happen to a breaker that is {state.value}"):
            step(state, event)
    else:
        assert step(state, event) is expected


@pytest.mark.parametrize("kind", list(OutcomeClass))
def test_every_class_of_outcome_has_a_verdict(kind: OutcomeClass) -> None:
    failures = {OutcomeClass.SOFT, OutcomeClass.UNKNOWN}
    expected = Verdict.FAILURE if kind in failures else Verdict.SUCCESS if kind is OutcomeClass.DELIVERED else Verdict.NEUTRAL

    assert verdict_of(POLICY, kind, 0.1) is VERDICTS[kind] is expected


def test_only_a_success_can_be_slow() -> None:
    assert verdict_of(POLICY, OutcomeClass.DELIVERED, POLICY.slow_call_s) is Verdict.SUCCESS
    assert verdict_of(POLICY, OutcomeClass.DELIVERED, POLICY.slow_call_s + 0.001) is Verdict.SLOW
    assert verdict_of(POLICY, OutcomeClass.HARD, 1000.0) is Verdict.NEUTRAL
    assert verdict_of(POLICY, OutcomeClass.SOFT, 1000.0) is Verdict.FAILURE


def test_a_new_breaker_is_closed_and_permits_any_number() -> None:
    breaker = Breaker(POLICY, 0.0)

    assert state(breaker) is State.CLOSED
    assert breaker.permits(0.0) is None
    assert breaker.reopens_at_s is None


def test_too_few_calls_prove_nothing() -> None:
    breaker = Breaker(POLICY, 0.0)
    for _ in range(POLICY.calls_min - 1):
        call(breaker, Verdict.FAILURE, 0.0)

    assert state(breaker) is State.CLOSED


def test_half_of_the_calls_failing_opens_it() -> None:
    breaker = Breaker(POLICY, 0.0)
    for verdict in (Verdict.SUCCESS, Verdict.FAILURE, Verdict.SUCCESS):
        call(breaker, verdict, 0.0)
    assert state(breaker) is State.CLOSED
    call(breaker, Verdict.FAILURE, 0.0)

    assert state(breaker) is State.OPEN


def test_slow_calls_open_it_at_a_share_of_their_own() -> None:
    breaker = Breaker(POLICY, 0.0)
    for verdict in (Verdict.SUCCESS, Verdict.SLOW, Verdict.SLOW, Verdict.SUCCESS, Verdict.SLOW, Verdict.SLOW, Verdict.SLOW):
        call(breaker, verdict, 0.0)
    assert state(breaker) is State.CLOSED
    call(breaker, Verdict.SLOW, 0.0)

    assert state(breaker) is State.OPEN


def test_neutral_outcomes_are_not_counted() -> None:
    breaker = Breaker(POLICY, 0.0)
    for _ in range(50):
        call(breaker, Verdict.NEUTRAL, 0.0)

    assert breaker.statistics().calls == 0


def test_failures_leave_the_window() -> None:
    breaker = Breaker(POLICY, 0.0)
    for second in range(40):
        call(breaker, Verdict.FAILURE if second % 4 == 0 else Verdict.SUCCESS, float(second))
    assert breaker.statistics().calls == 10
    for _ in range(3):
        call(breaker, Verdict.FAILURE, 60.0)

    assert state(breaker) is State.CLOSED
    assert breaker.statistics().calls == 3


def test_failures_and_slow_calls_leave_the_window_one_by_one() -> None:
    breaker = Breaker(evolve(POLICY, calls_min=1000), 0.0)
    for second, verdict in enumerate((Verdict.FAILURE, Verdict.SLOW, Verdict.FAILURE, Verdict.SLOW)):
        call(breaker, verdict, float(second))
    seen = []
    for second in range(9, 15):
        call(breaker, Verdict.SUCCESS, float(second))
        seen.append((breaker.statistics().failures, breaker.statistics().slow))

    assert seen == [(2, 2), (1, 2), (1, 1), (0, 1), (0, 0), (0, 0)]


def test_an_open_breaker_refuses_until_its_time() -> None:
    breaker = tripped()

    assert breaker.reopens_at_s == 4.0
    assert breaker.permits(3.999) == 0
    assert breaker.acquire(3.999) is None
    assert state(breaker) is State.OPEN
    assert breaker.permits(4.0) == POLICY.probes
    assert state(breaker) is State.HALF_OPEN
    assert breaker.reopens_at_s is None


@pytest.mark.parametrize(("random01", "open_s"), [(0.0, 4.0), (0.5, 6.0), (1.0, 8.0)])
def test_the_upper_half_of_the_open_time_is_jitter(random01: float, open_s: float) -> None:
    assert tripped(random01=random01).reopens_at_s == open_s


def test_the_open_time_doubles_with_each_trip_up_to_the_cap() -> None:
    breaker = tripped(random01=1.0)
    spans_s = [8.0]
    for _ in range(40):
        now_s = breaker.reopens_at_s
        assert now_s is not None
        call(breaker, Verdict.FAILURE, now_s, 1.0)
        assert breaker.reopens_at_s is not None
        spans_s.append(breaker.reopens_at_s - now_s)

    assert spans_s[:4] == [8.0, 16.0, 20.0, 20.0]
    assert set(spans_s[4:]) == {20.0}


def test_half_open_permits_so_many_probes_and_no_more() -> None:
    breaker = half_open()

    assert [breaker.acquire(100.0) is not None for _ in range(4)] == [True, True, False, False]


def test_a_probe_that_passed_leaves_no_room_for_another_in_its_place() -> None:
    breaker = half_open()
    call(breaker, Verdict.SUCCESS, 100.0)

    assert breaker.permits(100.0) == POLICY.probes - 1


def test_one_failed_probe_opens_it_again() -> None:
    breaker = half_open()
    call(breaker, Verdict.SUCCESS, 100.0)
    call(breaker, Verdict.FAILURE, 100.0)

    assert state(breaker) is State.OPEN


def test_a_slow_probe_fails() -> None:
    breaker = half_open()
    call(breaker, Verdict.SLOW, 100.0)

    assert state(breaker) is State.OPEN


def test_a_cancelled_probe_gives_its_permit_back() -> None:
    breaker = half_open()
    for _ in range(20):
        permits = [breaker.acquire(100.0) for _ in range(POLICY.probes)]
        assert breaker.permits(100.0) == 0
        for permit in permits:
            assert permit is not None
            breaker.release(permit)

    assert breaker.permits(100.0) == POLICY.probes


def test_a_probe_that_proves_nothing_gives_its_permit_back() -> None:
    breaker = half_open()
    for _ in range(20):
        call(breaker, Verdict.NEUTRAL, 100.0)

    assert breaker.permits(100.0) == POLICY.probes


def test_calls_begun_before_the_trip_do_not_disturb_the_probing() -> None:
    breaker = Breaker(POLICY, 0.0)
    late = [permit for _ in range(20) if (permit := breaker.acquire(0.0)) is not None]
    for _ in range(POLICY.calls_min):
        breaker.record(late.pop(), Verdict.FAILURE, 0.0, 0.0)
    assert breaker.permits(100.0) == POLICY.probes
    for verdict in (*Verdict, *Verdict):
        breaker.record(late.pop(), verdict, 100.0, 0.0)
    breaker.release(late.pop())

    assert state(breaker) is State.HALF_OPEN
    assert breaker.permits(100.0) == POLICY.probes


def test_calls_begun_before_the_trip_do_not_count_in_the_ramp_either() -> None:
    breaker = Breaker(POLICY, 0.0)
    late = breaker.acquire(0.0)
    assert late is not None
    for _ in range(POLICY.calls_min):
        call(breaker, Verdict.FAILURE, 0.0)
    for _ in range(POLICY.probes):
        call(breaker, Verdict.SUCCESS, 100.0)
    breaker.record(late, Verdict.SUCCESS, 100.0, 0.0)

    assert breaker.permits(100.0) == 1


def test_it_closes_gently() -> None:
    """1, 2, 4 at once; as many successes as were permitted double the number; after the last step there is no bound."""
    breaker = ramping()
    bounds = []
    while breaker.statistics().ramping:
        bound = breaker.permits(100.0)
        assert bound is not None
        bounds.append(bound)
        permits = [breaker.acquire(100.0) for _ in range(bound)]
        assert breaker.acquire(100.0) is None
        for permit in permits:
            assert permit is not None
            breaker.record(permit, Verdict.SUCCESS, 100.0, 0.0)

    assert bounds == [1, 2, 4]
    assert breaker.permits(100.0) is None


def test_a_failure_in_the_ramp_starts_its_step_again() -> None:
    breaker = ramping()
    for verdict in (Verdict.SUCCESS, Verdict.SUCCESS, Verdict.SUCCESS):
        call(breaker, verdict, 100.0)
    assert breaker.permits(100.0) == 4
    for verdict in (*[Verdict.SUCCESS] * 3, Verdict.FAILURE, *[Verdict.SUCCESS] * 3):
        call(breaker, verdict, 100.0)

    assert breaker.permits(100.0) == 4


def test_in_the_ramp_few_calls_are_enough_to_trip_it() -> None:
    breaker = ramping()
    call(breaker, Verdict.FAILURE, 100.0)

    assert state(breaker) is State.OPEN


def test_a_trip_in_the_ramp_still_counts_as_one_in_a_row() -> None:
    breaker = ramping()
    call(breaker, Verdict.FAILURE, 100.0, 1.0)

    assert breaker.reopens_at_s == 116.0


def test_the_end_of_the_ramp_makes_the_next_trip_a_first_one() -> None:
    breaker = ramping()
    for _ in range(7):
        call(breaker, Verdict.SUCCESS, 100.0)
    assert breaker.statistics().trips == 0
    for _ in range(20):
        if breaker.state is State.CLOSED:
            call(breaker, Verdict.FAILURE, 200.0, 1.0)

    assert breaker.reopens_at_s == 208.0


def test_a_row_of_failures_opens_it_however_many_succeeded_before() -> None:
    breaker = Breaker(POLICY, 0.0)
    for _ in range(1_000):
        call(breaker, Verdict.SUCCESS, 0.0)
    for _ in range(POLICY.failures_in_a_row - 1):
        call(breaker, Verdict.FAILURE, 0.0)
    assert state(breaker) is State.CLOSED
    call(breaker, Verdict.FAILURE, 0.0)

    assert state(breaker) is State.OPEN


@pytest.mark.parametrize("between", [Verdict.SUCCESS, Verdict.SLOW])
def test_any_other_end_begins_the_row_anew(between: Verdict) -> None:
    breaker = Breaker(POLICY, 0.0)
    for _ in range(1_000):
        call(breaker, Verdict.SUCCESS, 0.0)
    for verdict in [Verdict.FAILURE] * 5 + [between] + [Verdict.FAILURE] * 5:
        call(breaker, verdict, 0.0)

    assert state(breaker) is State.CLOSED


def test_statistics_tell_the_window() -> None:
    breaker = Breaker(POLICY, 0.0)
    for verdict in (Verdict.SUCCESS, Verdict.FAILURE, Verdict.SLOW):
        call(breaker, verdict, 0.0)
    breaker.acquire(0.0)
    statistics = breaker.statistics()

    assert (statistics.calls, statistics.failures, statistics.slow, statistics.in_flight) == (3, 1, 1, 1)
    assert (statistics.state, statistics.ramping, statistics.trips) == (State.CLOSED, False, 0)


class BreakerAgainstModel(RuleBasedStateMachine):
    """A naive model keeps every outcome of a generation and counts them anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(POLICY, 0.0)
        self.held: list[tuple[int, Permit]] = []
        self.trips = 0
        self.enter(State.CLOSED)
        self.generation = 0
        self.reopens = 0.0

    def enter(self, state: State) -> None:
        self.state = state
        self.entered = self.now
        self.generation = getattr(self, "generation", 0) + 1
        self.outcomes: list[tuple[int, Verdict]] = []
        self.streak = 0
        self.bound: int | None = None

    def slice(self) -> int:
        return int((self.now - self.entered) / 1.0)  # the window is ten slices of a second

    def in_flight(self) -> int:
        return sum(generation == self.generation for generation, _ in self.held)

    def may_begin(self) -> int | None:
        if self.state is State.OPEN and self.now >= self.reopens:
            self.enter(State.HALF_OPEN)
        match self.state:
            case State.OPEN:
                return 0
            case State.HALF_OPEN:
                return POLICY.probes - self.streak - self.in_flight()
            case State.CLOSED:
                return None if self.bound is None else max(0, self.bound - self.in_flight())

    def opens(self) -> None:
        self.enter(State.OPEN)
        self.reopens = self.now + min(8.0 * 2**self.trips, 20.0)
        self.trips += 1

    @rule(eighths=st.integers(0, 100))
    def time_moves(self, eighths: int) -> None:
        self.now += eighths / 8

    @rule()
    def acquire(self) -> None:
        may = self.may_begin()
        permit = self.breaker.acquire(self.now)

        assert (permit is None) == (may == 0)

        if permit is not None:
            self.held.append((self.generation, permit))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        _, permit = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.breaker.release(permit)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), verdict=st.sampled_from(Verdict))
    def record(self, data: st.DataObject, verdict: Verdict) -> None:
        generation, permit = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.breaker.record(permit, verdict, self.now, 1.0)
        if generation != self.generation or verdict is Verdict.NEUTRAL:
            return
        if self.state is State.HALF_OPEN:
            self.streak += 1
            if verdict is not Verdict.SUCCESS:
                self.opens()
            elif self.streak == POLICY.probes:
                self.enter(State.CLOSED)
                self.bound = 1
            return
        self.outcomes.append((self.slice(), verdict))
        if verdict is Verdict.SUCCESS:
            self.streak += 1
            if self.bound is not None and self.streak >= self.bound:
                self.streak, self.bound = 0, self.bound * 2
                if self.bound > POLICY.ramp_calls_max:
                    self.bound, self.trips = None, 0
            return
        self.streak = 0
        recent = [kind for at, kind in self.outcomes if at > self.slice() - 10]
        row = [kind for _, kind in self.outcomes[-6:]]
        if row == [Verdict.FAILURE] * 6:
            self.opens()
            return
        failed, slow = recent.count(Verdict.FAILURE), recent.count(Verdict.SLOW)
        enough = POLICY.calls_min if self.bound is None else min(POLICY.calls_min, self.bound)
        if len(recent) >= enough and (failed >= 0.5 * len(recent) or failed + slow >= 0.75 * len(recent)):
            self.opens()

    @invariant()
    def agrees(self) -> None:
        assert self.breaker.permits(self.now) == self.may_begin()
        assert self.breaker.state is self.state
        assert self.breaker.statistics().trips == self.trips


TestBreakerAgainstModel = BreakerAgainstModel.TestCase
