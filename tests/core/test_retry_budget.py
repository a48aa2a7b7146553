"""Budgets for retries: a share of first attempts and a floor, whatever fails."""

from __future__ import annotations

import heapq
from random import Random

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.backoff import RetryPolicy
from dispatcher.breaker import BreakerPolicy
from dispatcher.messages import Claimed, Concluded, Gated, ProviderPolicy, ProvidersLoaded, Record, Settled, Unparked, Woken
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, Status
from dispatcher.organization import Now, Organization
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.recent import RecentIds
from dispatcher.retry_budget import MEMORY_S, SHARED_WAIT_MAX_S, RetryBudget, RetryBudgets

MAIL = ProviderPolicy("m", 1, "mailer", Channel.EMAIL, None, 1, 1_000)
SOFT = Outcome(OutcomeClass.SOFT, "http_503")
RATIO, FLOOR_PER_S = 0.2, 2.0
CAP_S = 3600.0
NEVER_OPENS = BreakerPolicy(calls_min=100_000, failures_in_a_row=100_000)


def budget(now_s: float = 0.0) -> RetryBudget:
    return RetryBudget(RATIO, FLOOR_PER_S, now_s)


def test_a_new_budget_holds_what_a_quiet_one_comes_to_rest_at() -> None:
    new, quiet = budget(), budget()
    for _ in range(10):
        quiet.reserve(0.0, CAP_S)

    assert [new.reserve(0.0, CAP_S) for _ in range(20)] == [0.0] * 20
    assert new.reserve(0.0, CAP_S) == 0.5
    assert [round(quiet.reserve(1e6, CAP_S), 6) for _ in range(21)] == [0.0] * 20 + [0.5]


def test_past_the_credit_each_retry_is_covered_one_floor_interval_after_the_last() -> None:
    spent = budget()
    for _ in range(20):
        spent.reserve(0.0, CAP_S)

    assert [spent.reserve(0.0, CAP_S) for _ in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert spent.reserve(1.0, CAP_S) == pytest.approx(1.5)


def test_first_attempts_earn_their_share() -> None:
    earned = budget()
    for _ in range(20):
        earned.reserve(0.0, CAP_S)
    for _ in range(50):
        earned.earn()

    assert [round(earned.reserve(0.0, CAP_S), 6) for _ in range(11)] == [0.0] * 10 + [0.5]


def test_credits_fade() -> None:
    """What was earned long ago does not pay for now: in the end only the floor's own credit is left."""
    faded = budget()
    for _ in range(10_000):
        faded.earn()
    faded.reserve(0.0, CAP_S)
    waits = [round(faded.reserve(100 * MEMORY_S, CAP_S), 6) for _ in range(22)]

    assert waits == [0.0] * 20 + [0.5, 1.0]


def test_a_wait_counts_on_first_attempts_going_on_as_they_lately_did() -> None:
    busy = budget()
    for second in range(100):
        for _ in range(40):
            busy.earn()
        if second == 99:
            while busy.reserve(float(second), CAP_S) == 0.0:
                pass
    first, second_ = busy.reserve(99.0, CAP_S), busy.reserve(99.0, CAP_S)

    assert second_ - first == pytest.approx(1 / (FLOOR_PER_S + 40 * RATIO), rel=0.02)


def test_debts_end_at_the_longest_wait() -> None:
    deep = budget()
    waits = [deep.reserve(0.0, 5.0) for _ in range(100)]

    assert max(waits) == 5.0
    assert waits[-1] == 5.0
    assert deep.reserve(10.0, 5.0) == 0.0  # nobody who was not charged is waited for


def test_a_clock_that_stands_still_or_goes_back_does_no_harm() -> None:
    still = budget(100.0)
    still.reserve(100.0, CAP_S)
    still.earn()

    assert still.reserve(99.0, CAP_S) == 0.0


def test_a_provider_has_one_budget_in_a_process_and_everybody_else_their_own() -> None:
    budgets = RetryBudgets(RATIO, FLOOR_PER_S)

    assert budgets.of_provider("mailer", 0.0) is budgets.of_provider("mailer", 5.0)
    assert budgets.of_provider("mailer", 0.0) is not budgets.of_provider("texter", 0.0)
    assert budgets.of_provider("mailer", 0.0, "http://a") is budgets.of_provider("mailer", 5.0, "http://a")
    assert budgets.of_provider("mailer", 0.0, "http://a") is not budgets.of_provider("mailer", 0.0, "http://b")
    assert budgets.new(0.0) is not budgets.new(0.0)


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=60),
    st.integers(0, 30),
    st.floats(0.01, 1.0),
    st.floats(0.1, 20.0),
)
def test_whatever_fails_when_no_more_retries_are_due_than_the_share_and_the_floor_allow(
    failures: list[int], firsts_per_s: int, ratio: float, floor_per_s: float
) -> None:
    """At every instant, however unevenly retries are asked for."""
    bounded = RetryBudget(ratio, floor_per_s, 0.0)
    due: list[float] = []
    for second, retries in enumerate(failures):
        for _ in range(firsts_per_s):
            bounded.earn()
        due.extend(second + bounded.reserve(second, 1e9) for _ in range(retries))
    for at_s in due:
        allowed = ratio * firsts_per_s * (at_s + 1) + floor_per_s * (at_s + MEMORY_S)

        assert sum(other_s <= at_s for other_s in due) <= allowed + 1e-3


def test_after_first_attempts_have_fallen_off_new_retries_wait_behind_the_promised_ones() -> None:
    stopped = budget()
    promised: list[float] = []
    for second in range(30):
        for _ in range(50):
            stopped.earn()
            promised.append(second + stopped.reserve(second, CAP_S))

    assert max(promised) < 31 + stopped.reserve(31, CAP_S) < 100 + stopped.reserve(100, CAP_S)


class Fleet:
    """Organizations whose notifications arrive at a steady rate, on a clock of its own: every call ends as ``fails`` says."""

    def __init__(self, organizations: int, fails: float, budgets: RetryBudgets, attempts_max: int = 8, origin: str = "") -> None:
        self.random = Random(5)
        self.fails = fails
        self.attempts_max = attempts_max
        self.mail = evolve(MAIL, concurrency_max=10_000, origin=origin)
        self.calls: list[float] = []
        self.firsts = 0
        self.waits: list[float] = []
        self.cores = [
            Organization(10_000, RetryPolicy(base_s=2.0, cap_s=CAP_S), NEVER_OPENS, RecentIds(300, 1), lambda: 0.0, budgets)
            for _ in range(organizations)
        ]
        for core in self.cores:
            for event in (Woken(), ProvidersLoaded([self.mail]), Unparked(Channel.EMAIL, 0, 0)):
                core.handle(event, Now(0.0, 0.0))

    def run(self, per_s: float, seconds: float) -> None:
        """Each organization gets ``per_s`` new notifications a second. Retries come back when they are due."""
        cores = len(self.cores)
        pending = [(n / (per_s * cores), n, n % cores, 1) for n in range(int(per_s * seconds) * cores)]
        while pending and pending[0][0] < seconds:
            at_s, number, which, attempt = heapq.heappop(pending)
            retry_in_s = self.attempt(self.cores[which], number, attempt, at_s)
            if retry_in_s is not None:
                heapq.heappush(pending, (at_s + retry_in_s, number, which, attempt + 1))

    def attempt(self, core: Organization, number: int, attempt: int, at_s: float) -> float | None:
        now = Now(at_s, at_s)
        id = NotificationId(f"n{number}")
        delivery = Delivery(id, OrganizationId("o"), Channel.EMAIL, "person", {}, attempt, self.attempts_max, 0.0)
        core.handle(Claimed([id], 0, None), now)
        core.handle(Gated([delivery]), now)
        self.calls.append(at_s)
        self.firsts += attempt == 1
        outcome = SOFT if self.random.random() < self.fails else Outcome(OutcomeClass.DELIVERED, "accepted")
        (verdict,) = (
            command.verdict
            for command in core.handle(Concluded(delivery, outcome, self.mail, 0.1), now)
            if isinstance(command, Record)
        )
        core.handle(Settled([id]), now)
        if verdict.status is not Status.QUEUED:
            return None
        assert verdict.retry_in_s is not None
        self.waits.append(verdict.retry_in_s)
        return verdict.retry_in_s


def test_when_everything_fails_calls_are_no_more_than_first_attempts_their_share_and_the_floor() -> None:
    """With no jitter at all, so that only the budget stands between a failure and its repetition."""
    seconds = 60.0
    fleet = Fleet(3, 1.0, RetryBudgets(RATIO, FLOOR_PER_S))
    fleet.run(20.0, seconds)
    floor = FLOOR_PER_S * (seconds + MEMORY_S)

    assert fleet.firsts == 3 * 20 * 60
    assert len(fleet.calls) <= fleet.firsts * (1 + RATIO) + floor  # one provider, although three organizations
    assert len(fleet.calls) >= fleet.firsts * (1 + RATIO / 2)  # and what is allowed is used


def test_past_the_longest_shared_wait_each_channel_is_bounded_by_itself() -> None:
    """Of an outage that outlasts it, one floor for each channel is what the organizations' retries may come to."""
    seconds = 4 * SHARED_WAIT_MAX_S
    fleet = Fleet(3, 1.0, RetryBudgets(RATIO, FLOOR_PER_S))
    fleet.run(20.0, seconds)

    assert fleet.firsts == 3 * 20 * seconds
    assert len(fleet.calls) <= fleet.firsts * (1 + RATIO) + 3 * FLOOR_PER_S * (seconds + MEMORY_S)


def test_what_others_owe_puts_a_stranger_off_for_a_minute_at_most() -> None:
    budgets = RetryBudgets()
    others = Fleet(200, 1.0, budgets, origin="https://mail.example")
    for number in range(200 * 64):
        others.attempt(others.cores[number % 200], number, 1, 1.0)
    stranger = Fleet(1, 1.0, budgets, origin="https://mail.example")
    elsewhere = Fleet(1, 1.0, budgets, origin="https://gateway.example")
    waits = [fleet.attempt(fleet.cores[0], 1, 1, 1.0) for fleet in (stranger, elsewhere)]

    assert waits == [pytest.approx(SHARED_WAIT_MAX_S, abs=0.2), 0.0]


def test_without_a_budget_the_same_failure_would_multiply_the_calls() -> None:
    fleet = Fleet(3, 1.0, RetryBudgets(1e9, 1e9))
    fleet.run(2.0, 60.0)

    assert len(fleet.calls) > 7 * fleet.firsts


def test_one_organization_that_fails_alone_is_bounded_by_itself() -> None:
    budgets = RetryBudgets(RATIO, FLOOR_PER_S)
    for _ in range(100_000):
        budgets.of_provider("mailer", 0.0).earn()  # others earn plenty
    fleet = Fleet(1, 1.0, budgets)
    fleet.run(5.0, 60.0)

    assert len(fleet.calls) <= fleet.firsts * (1 + RATIO) + FLOOR_PER_S * (60.0 + MEMORY_S)


def test_a_healthy_run_is_never_delayed_by_the_budget() -> None:
    """A share of failures below the ratio: with no jitter every retry may go at once."""
    fleet = Fleet(3, 0.1, RetryBudgets(RATIO, FLOOR_PER_S))
    fleet.run(50.0, 60.0)

    assert len(fleet.waits) > 500
    assert set(fleet.waits) == {0.0}


@pytest.mark.parametrize("kind", [OutcomeClass.RATE_LIMITED, OutcomeClass.MISCONFIGURED, OutcomeClass.INTERRUPTED])
def test_what_costs_no_attempt_costs_no_credit_and_earns_none(kind: OutcomeClass) -> None:
    budgets = RetryBudgets(RATIO, FLOOR_PER_S)
    fleet = Fleet(1, 1.0, budgets)
    core, now = fleet.cores[0], Now(1.0, 1.0)
    for number in range(100):
        id = NotificationId(f"n{number}")
        delivery = Delivery(id, OrganizationId("o"), Channel.EMAIL, "person", {}, 1, 8, 0.0)
        core.handle(Claimed([id], 0, None), now)
        core.handle(Gated([delivery]), now)
        core.handle(Concluded(delivery, Outcome(kind, "code"), MAIL, 0.1), now)
    provider = budgets.of_provider("mailer", 1.0)

    assert [provider.reserve(1.0, CAP_S) for _ in range(21)] == [0.0] * 20 + [0.5]


def test_the_longest_wait_for_a_budget_is_the_longest_backoff() -> None:
    fleet = Fleet(1, 1.0, RetryBudgets(0.001, 0.001))
    fleet.run(10.0, 10.0)

    assert max(fleet.waits) == CAP_S
