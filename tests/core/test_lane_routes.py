"""Several ways of one lane: which are in use, who gets how much, and what is told when that changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.backoff import RetryPolicy
from dispatcher.breaker import BreakerPolicy
from dispatcher.channel_state import LONG_PAUSE_S, MISCONFIGURED_PAUSE_S, ChannelState, Standing
from dispatcher.lane_routes import OWED_MAX, LaneRoutes, Moved
from dispatcher.messages import ProviderPolicy
from dispatcher.model import Channel
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.quota import QuotaAnswer

BREAKER = BreakerPolicy(calls_min=2, failures_in_a_row=4, open_base_s=10.0, open_cap_s=100.0, probes=2, ramp_calls_max=4)
RETRY = RetryPolicy(hint_cap_s=3600.0)
A = ProviderPolicy("a", 1, "mailer", Channel.EMAIL, None, 1, 500)
B = evolve(A, config_id="b")
STANDBY = evolve(A, config_id="standby", priority=1)


class Lane:
    """A lane and its clock."""

    def __init__(self, *policies: ProviderPolicy) -> None:
        self.states = {policy.config_id: ChannelState.start(policy, BREAKER, 0.0) for policy in policies}
        self.ways = LaneRoutes(list(self.states.values()))
        self.now_s = 0.0
        self._number = 0

    def room_of(self, state: ChannelState) -> int:
        return state.room(self.now_s)

    @property
    def room(self) -> int:
        return self.ways.room(self.now_s, self.room_of)

    def share(self, n: int) -> dict[str, int]:
        shares = self.ways.share(n, self.now_s, self.room_of)
        assert sum(count for _, count in shares) == n
        return dict(shares)

    def send(self, n: int, outcome: OutcomeClass = OutcomeClass.DELIVERED) -> Counter[str]:
        """Plan, begin and end so many attempts; through whom they went."""
        went: Counter[str] = Counter()
        for config_id, count in self.share(n).items():
            for _ in range(count):
                if self.begin(config_id, outcome):
                    went[config_id] += 1
        return went

    def begin(self, config_id: str, *outcomes: OutcomeClass) -> bool:
        self._number += 1
        id = f"n{self._number}"
        if not self.states[config_id].begin(id, self.now_s):
            return False
        self.ways.began(config_id)
        for outcome in outcomes:
            self.end(config_id, id, outcome)
        return True

    def end(self, config_id: str, id: str, outcome: OutcomeClass, retry_after_s: float | None = None) -> None:
        ended = Outcome(outcome, "code", retry_after_s=retry_after_s)
        self.states[config_id].conclude(id, ended, 0.1, self.now_s, lambda: 0.99, RETRY)

    def standing(self, config_id: str) -> Standing:
        return self.states[config_id].standing(self.now_s)

    def news(self) -> list[Moved]:
        return list(self.ways.news(self.now_s))

    def break_down(self, config_id: str) -> None:
        while self.standing(config_id) is not Standing.DOWN:
            assert self.begin(config_id, OutcomeClass.SOFT)


def used_up(lane: Lane, config_id: str) -> None:
    quota = lane.states[config_id].quota
    assert quota is not None
    quota.ask(lane.now_s)
    quota.answered(QuotaAnswer(0, 10, 99_000, 50.0))


def refused(lane: Lane, config_id: str) -> None:
    lane.begin(config_id, OutcomeClass.MISCONFIGURED)


def rate_limited(lane: Lane, config_id: str) -> None:
    lane.states[config_id].begin("limited", lane.now_s)
    lane.end(config_id, "limited", OutcomeClass.RATE_LIMITED, retry_after_s=LONG_PAUSE_S + 20.0)


# --- who is used ----------------------------------------------------------------------------------------------------------


def test_while_the_better_one_is_up_the_other_sends_nothing() -> None:
    lane = Lane(A, STANDBY)

    assert lane.send(100) == {"a": 100}
    assert lane.room == lane.states["a"].room(0.0)


def test_the_lowest_priority_number_is_the_best_in_whatever_order_they_come() -> None:
    assert Lane(STANDBY, A).send(10) == {"a": 10}


@pytest.mark.parametrize("cause", [Lane.break_down, refused, used_up, rate_limited])
def test_whatever_takes_the_better_one_down_moves_everything_to_the_next(cause) -> None:  # type: ignore[no-untyped-def]
    lane = Lane(evolve(A, quota=10) if cause is used_up else A, STANDBY)
    cause(lane, "a")

    assert lane.standing("a") is Standing.DOWN
    assert lane.send(50) == {"standby": 50}


def test_a_better_one_that_is_merely_busy_is_waited_for() -> None:
    lane = Lane(evolve(A, concurrency_max=1), STANDBY)
    for _ in range(lane.room):
        assert lane.begin("a")

    assert lane.standing("a") is Standing.UP
    assert lane.room == 0


def test_a_short_pause_of_the_better_one_is_waited_for() -> None:
    lane = Lane(A, STANDBY)
    lane.states["a"].begin("limited", 0.0)
    lane.end("a", "limited", OutcomeClass.RATE_LIMITED, retry_after_s=LONG_PAUSE_S - 1.0)

    assert lane.standing("a") is Standing.UP
    assert lane.room == 0
    assert lane.ways.opens_in_s(0.0) == pytest.approx(LONG_PAUSE_S - 1.0)


def test_a_long_pause_is_not_waited_for_in_its_last_seconds_either() -> None:
    lane = Lane(A, STANDBY)
    rate_limited(lane, "a")
    lane.now_s = LONG_PAUSE_S + 19.0

    assert lane.send(5) == {"standby": 5}


def test_who_does_not_let_go_is_waited_for_whatever_has_happened_to_it() -> None:
    lane = Lane(evolve(A, failover=False), STANDBY)
    lane.break_down("a")

    assert lane.room == 0
    assert lane.ways.opens_in_s(lane.now_s) is not None
    assert lane.news() == []


def test_when_everybody_is_down_the_lane_opens_with_the_first_that_comes_back() -> None:
    lane = Lane(A, STANDBY)
    lane.break_down("a")
    lane.now_s = 5.0
    lane.break_down("standby")

    assert lane.room == 0
    opens_in_s = lane.ways.opens_in_s(lane.now_s)
    assert opens_in_s is not None
    lane.now_s += opens_in_s
    assert lane.standing("a") is Standing.RETURNING
    assert lane.send(2) == {"a": 2}


# --- the way back ---------------------------------------------------------------------------------------------------------


def test_what_comes_back_gets_its_traffic_back_step_by_step_and_nobody_waits_meanwhile() -> None:
    lane = Lane(A, STANDBY)
    lane.break_down("a")
    lane.now_s += 10.0
    parts = [lane.send(10) for _ in range(8)]

    assert all(part.total() == 10 for part in parts)
    assert [part["a"] for part in parts] == [2, 1, 2, 4, 10, 10, 10, 10]


def test_a_probe_that_fails_costs_no_more_than_the_probes() -> None:
    lane = Lane(A, STANDBY)
    lane.break_down("a")
    lane.now_s += 10.0

    assert lane.share(10) == {"a": 2, "standby": 8}
    assert lane.begin("a", OutcomeClass.SOFT)
    assert lane.share(10) == {"standby": 10}


def test_a_refused_credential_asks_with_one_attempt_and_the_others_go_on_elsewhere() -> None:
    lane = Lane(A, STANDBY)
    refused(lane, "a")
    lane.now_s += MISCONFIGURED_PAUSE_S

    assert lane.share(10) == {"a": 1, "standby": 9}
    lane.send(10)
    assert lane.send(10) == {"a": 10}


# --- weights --------------------------------------------------------------------------------------------------------------


def test_equals_share_by_weight() -> None:
    lane = Lane(evolve(A, weight=300), B)

    assert lane.send(400) == {"a": 300, "b": 100}


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=4), st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_shares_follow_the_weights_however_many_go_at_once(weights: Sequence[int], batches: Sequence[int]) -> None:
    lane = Lane(*(evolve(A, config_id=f"c{n}", weight=weight) for n, weight in enumerate(weights)))
    total: Counter[str] = Counter()
    for n in batches:
        total += lane.send(n)

    for n, weight in enumerate(weights):
        assert total[f"c{n}"] == pytest.approx(sum(batches) * weight / sum(weights), abs=len(weights))


@given(st.lists(st.booleans(), min_size=20, max_size=200))
def test_what_is_planned_and_not_begun_counts_for_nobody(mine: Sequence[bool]) -> None:
    """A claim holds ids of other lanes too: only what has begun here is part of a share."""
    lane = Lane(A, B)
    total: Counter[str] = Counter()
    for is_mine in mine:
        ((config_id, _),) = lane.share(1).items()
        if is_mine:
            lane.begin(config_id, OutcomeClass.DELIVERED)
            total[config_id] += 1

    assert abs(total["a"] - total["b"]) <= 1


def test_of_equals_the_one_that_is_up_takes_the_part_of_the_one_that_is_down() -> None:
    lane = Lane(A, evolve(B, weight=1000))
    lane.break_down("b")

    assert lane.send(100) == {"a": 100}


def test_of_equals_the_one_with_room_goes_on_while_the_other_is_busy() -> None:
    lane = Lane(evolve(A, concurrency_max=1), B)
    for _ in range(2):
        lane.begin("a")

    assert lane.send(100) == {"b": 100}


def test_who_was_down_for_long_does_not_catch_up_at_once() -> None:
    lane = Lane(A, B)
    lane.break_down("b")
    for _ in range(50):
        lane.send(100)
    lane.now_s += 10.0
    for _ in range(8):
        lane.send(10)  # probes and the ramp

    assert lane.standing("b") is Standing.UP
    assert lane.send(100)["b"] <= 50 + OWED_MAX


# --- what is told ---------------------------------------------------------------------------------------------------------


def test_a_move_is_told_once_and_the_way_back_when_it_is_whole() -> None:
    lane = Lane(A, STANDBY)
    assert lane.news() == []
    lane.break_down("a")
    assert lane.news() == [Moved("a", "standby")]
    assert lane.news() == []
    lane.now_s += 10.0
    lane.send(10)
    assert lane.news() == []  # probes are no return yet
    for _ in range(4):
        lane.send(10)
    assert lane.news() == [Moved("a")]


def test_a_standby_that_is_down_is_missed_by_nobody() -> None:
    lane = Lane(A, STANDBY)
    lane.break_down("standby")

    assert lane.news() == []


def test_nothing_has_moved_while_nobody_can_take_over() -> None:
    lane = Lane(A, STANDBY)
    lane.break_down("standby")
    lane.break_down("a")
    assert lane.news() == []
    lane.now_s += 10.0
    lane.states["a"].begin("probe", lane.now_s)
    lane.end("a", "probe", OutcomeClass.SOFT)

    assert lane.news() == [Moved("a", "standby")]


def test_a_new_revision_goes_on_where_the_one_before_was() -> None:
    lane = Lane(A, STANDBY)
    lane.break_down("a")
    lane.news()
    renewed = LaneRoutes(list(lane.states.values()))
    renewed.inherit(lane.ways, lane.now_s)

    assert list(renewed.news(lane.now_s)) == []
