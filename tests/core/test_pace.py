"""The pace that refusals teach: rules one by one, then whole lives against providers that keep count."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.backoff import RetryPolicy
from dispatcher.breaker import BreakerPolicy
from dispatcher.bucket import Bucket
from dispatcher.channel_state import ChannelState
from dispatcher.messages import ProviderPolicy
from dispatcher.model import Channel
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.pace import DECREASE, GROWTH_MIN_PER_S, GROWTH_PER_S, NEED, RATE_MIN_PER_S, Pace, SavedPace

OK = Outcome(OutcomeClass.DELIVERED, "accepted")
REFUSED = Outcome(OutcomeClass.RATE_LIMITED, "http_429")
INTERRUPTED = Outcome(OutcomeClass.INTERRUPTED, "interrupted")


def accepting(per_s: int, seconds: int, ceiling_per_s: float | None = None) -> Pace:
    """A pace whose provider has accepted so many calls a second."""
    pace = Pace(ceiling_per_s)
    for number in range(per_s * seconds):
        pace.accepted(number / per_s)
    return pace


def test_while_nothing_was_refused_there_is_no_pace() -> None:
    pace = accepting(1000, 3)

    assert pace.available(3.0) is None
    assert pace.rate_per_s is None
    assert pace.saved() is None


def test_a_refusal_leaves_a_share_of_what_was_accepted_and_begins_with_one_call_after_the_pause() -> None:
    pace = accepting(100, 10)

    assert pace.refused(9.9, 10.0, 11.0)
    assert pace.rate_per_s == pytest.approx(100 * DECREASE, rel=0.02)
    assert pace.available(10.5) == 1
    pace.take(11.0)
    assert pace.available(11.0) == 0
    assert pace.reaches_s() == pytest.approx(11.0 + 1 / 70, rel=0.01)


def test_each_quiet_second_adds_a_share_until_it_is_no_limit_any_more() -> None:
    pace = accepting(100, 10)
    pace.refused(9.9, 10.0, 10.0)
    rates: list[float] = []
    while pace.available(10.0 + len(rates)) is not None:
        assert pace.rate_per_s is not None
        rates.append(pace.rate_per_s)
    grown = [later - earlier for earlier, later in pairwise(rates)]

    assert all(step == pytest.approx(100 * GROWTH_PER_S, rel=0.02) for step in grown)
    assert rates[-1] == pytest.approx(100 * NEED, rel=0.02)


def test_refusals_of_calls_that_began_before_are_the_echo_of_the_same_one() -> None:
    pace = accepting(100, 10)
    first = pace.refused(9.9, 10.0, 11.0)
    rate_per_s = pace.rate_per_s or 0.0

    assert first
    assert not pace.refused(9.95, 10.05, 11.05)
    assert pace.rate_per_s == rate_per_s
    assert pace.refused(11.5, 11.6, 12.6)
    assert pace.rate_per_s is not None
    assert pace.rate_per_s < rate_per_s


def test_it_is_never_above_what_is_configured_and_gone_once_it_has_grown_past_it() -> None:
    pace = accepting(100, 10, ceiling_per_s=50.0)
    pace.refused(9.9, 10.0, 10.0)

    assert pace.rate_per_s == pytest.approx(50 * DECREASE)
    assert pace.available(24.0) is not None
    assert (pace.rate_per_s or 0.0) < 50.0
    assert pace.available(26.0) is None


def test_one_stray_refusal_of_a_first_call_is_soon_forgotten() -> None:
    pace = Pace(None)
    pace.refused(0.0, 0.1, 1.1)

    assert pace.rate_per_s == RATE_MIN_PER_S
    assert pace.available(1.1 + RATE_MIN_PER_S * NEED / DECREASE / GROWTH_MIN_PER_S) is None


def test_another_life_goes_on_at_the_pace_and_not_above_what_it_may_be() -> None:
    pace = Pace(50.0)
    pace.resume(SavedPace(20.0, 30.0), 5.0)
    above = Pace(10.0)
    above.resume(SavedPace(20.0, 30.0), 5.0)

    assert (pace.rate_per_s, pace.available(5.0)) == (20.0, 1)
    assert above.available(5.0) is None


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), 0.0, -1.0, 1e30])
def test_a_remembered_pace_of_no_sense_is_ignored(rate: float) -> None:
    pace = Pace(None)
    pace.resume(SavedPace(rate, 10.0), 5.0)
    pace.resume(SavedPace(10.0, rate), 5.0)

    assert pace.rate_per_s is None


@given(st.lists(st.tuples(st.sampled_from(["accepted", "refused", "echo", "wait"]), st.floats(0, 30)), max_size=60))
def test_whatever_happens_a_pace_stays_between_its_floor_and_its_ceiling_and_opens_again(
    history: list[tuple[str, float]],
) -> None:
    pace, now_s = Pace(80.0), 0.0
    for what, passed_s in history:
        now_s += passed_s
        if what == "accepted":
            pace.accepted(now_s)
        elif what != "wait":
            pace.refused(now_s if what == "refused" else now_s - 25.0, now_s, now_s + 1.0)
        paced = pace.available(now_s)
        assert (paced is None) == (pace.rate_per_s is None)
        if pace.rate_per_s is not None:
            assert RATE_MIN_PER_S <= pace.rate_per_s < 80.0
    assert pace.available(now_s + 10_000.0) is None


class Life:
    """One channel with an endless backlog against a provider that keeps count, second by second, without a real one passing.

    Attempts that begin wait for one of the channel's calls; a call takes its latency, and the provider looks at its own bucket
    when half of it has passed. What has not begun is called back when the channel closes, as the organization does it.
    """

    def __init__(self, rate_per_s: float | None, limit_per_s: float, capacity: int, *, calls: int = 32, seed: int = 1) -> None:
        burst = max(1, int(rate_per_s or 1))
        policy = ProviderPolicy("c", 1, "mailer", Channel.EMAIL, rate_per_s, burst, calls)
        self.random = Random(seed)
        self.state = ChannelState.start(policy, BreakerPolicy(), 0.0)
        self.theirs = Bucket(limit_per_s, capacity, capacity, 0.0)
        self.calls = calls
        self.waiting: deque[str] = deque()
        self.under_way = 0
        self.events: list[tuple[float, int, str, str, float]] = []
        self.numbers = 0
        self.made: list[tuple[float, bool]] = []

    def at(self, when_s: float, what: str, id: str = "", began_s: float = 0.0) -> None:
        self.numbers += 1
        heappush(self.events, (when_s, self.numbers, what, id, began_s))

    def runs(self, seconds: float) -> None:
        self.at(0.0, "look")
        while self.events[0][0] < seconds:
            now_s, _, what, id, began_s = heappop(self.events)
            if what == "arrives":
                accepted = self.theirs.available(now_s) > 0
                if accepted:
                    self.theirs.take(1, now_s)
                self.made.append((now_s, accepted))
                self.at(2 * now_s - began_s, "accepted" if accepted else "refused", id, began_s)
                continue
            if what != "look":
                self.under_way -= 1
                self.conclude(id, OK if what == "accepted" else REFUSED, began_s, now_s)
            self.begin(now_s)

    def conclude(self, id: str, outcome: Outcome, began_s: float, now_s: float) -> None:
        self.state.conclude(id, outcome, now_s - began_s, now_s, lambda: 0.0, RetryPolicy())
        if outcome is REFUSED and self.state.room(now_s) == 0:
            while self.waiting:
                self.conclude(self.waiting.popleft(), INTERRUPTED, now_s, now_s)

    def begin(self, now_s: float) -> None:
        for _ in range(self.state.room(now_s)):
            self.numbers += 1
            assert self.state.begin(str(self.numbers), now_s)
            self.waiting.append(str(self.numbers))
        while self.waiting and self.under_way < self.calls:
            self.under_way += 1
            self.at(now_s + 0.5 * (0.02 + 0.06 * self.random.random()), "arrives", self.waiting.popleft(), now_s)
        if (look_s := self.state.opens_in_s(now_s)) is not None and not any(event[2] == "look" for event in self.events):
            self.at(now_s + look_s, "look")

    def accepted_per_s(self, from_s: float, to_s: float) -> float:
        return sum(accepted for at_s, accepted in self.made if from_s <= at_s < to_s) / (to_s - from_s)

    def refused_share(self, from_s: float = 0.0) -> float:
        made = [accepted for at_s, accepted in self.made if at_s >= from_s]
        return made.count(False) / len(made)


@pytest.mark.parametrize(("limit_per_s", "seconds"), [(5.0, 300.0), (40.0, 120.0), (100.0, 60.0)])
def test_with_its_limit_configured_a_provider_is_used_to_95_percent_and_refuses_less_than_1(
    limit_per_s: float, seconds: float
) -> None:
    life = Life(limit_per_s, limit_per_s, int(limit_per_s))
    life.runs(seconds)

    assert life.accepted_per_s(0.0, seconds) >= 0.95 * limit_per_s
    assert life.refused_share() < 0.01


@pytest.mark.parametrize("limit_per_s", [10.0, 60.0])
@pytest.mark.parametrize("capacity_s", [0.2, 1.0, 5.0])
def test_a_limit_nobody_told_us_is_found_and_little_is_refused(limit_per_s: float, capacity_s: float) -> None:
    """While it is looked for, at most three rounds of calls are refused; then at most 4 %, and 3/4 of the limit is used."""
    life = Life(None, limit_per_s, max(1, int(limit_per_s * capacity_s)))
    life.runs(180.0)

    assert sum(not accepted for at_s, accepted in life.made if at_s < 60.0) <= 3 * life.calls
    assert life.refused_share(60.0) <= 0.04
    assert life.accepted_per_s(60.0, 180.0) >= 0.75 * limit_per_s


def test_without_a_learned_pace_the_same_provider_refuses_many_times_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the numbers above are the pace's doing and not the pause's."""
    monkeypatch.setattr(Pace, "refused", lambda *_: False)
    life = Life(None, 10.0, 10)
    life.runs(60.0)

    assert life.refused_share() > 0.3


def test_a_limit_that_was_lifted_is_used_again_within_two_minutes() -> None:
    life = Life(None, 20.0, 20, calls=4)
    life.runs(60.0)
    limited = life.state.learned_per_s
    life.theirs = Bucket(10_000.0, 10_000, 10_000.0, 60.0)
    life.runs(200.0)

    assert limited is not None
    assert life.state.learned_per_s is None
    assert life.accepted_per_s(180.0, 200.0) > 60.0


def test_the_same_history_leads_to_the_same_calls() -> None:
    lives = [Life(None, 50.0, 50, seed=7) for _ in range(2)]
    for life in lives:
        life.runs(30.0)

    assert lives[0].made == lives[1].made
