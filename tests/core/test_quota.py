"""A channel's stock of leased units, and the quota over whole histories of processes that share one counter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.memory_limits import MemoryLimits
from dispatcher.model import Channel, OrganizationId
from dispatcher.quota import BLOCK_MAX, Quota, QuotaAnswer, QuotaPolicy, block_of

POLICY = QuotaPolicy("c-1", 100, 3600.0)
ACME = OrganizationId("acme")


def leased(n: int = 2, *, used: int | None = None, ends_in_s: float = 3600.0) -> Quota:
    quota = Quota(POLICY)
    assert quota.ask(0.0) is not None
    quota.answered(QuotaAnswer(n, n if used is None else used, 7, ends_in_s))
    return quota


@pytest.mark.parametrize(("quota", "block"), [(1, 1), (49, 1), (1000, 20), (50_000, 1000), (10**9, BLOCK_MAX)])
def test_a_block_is_a_small_part_of_the_quota(quota: int, block: int) -> None:
    assert block_of(quota) == block


def test_nothing_may_begin_before_units_were_leased_and_one_lease_is_asked_for_at_a_time() -> None:
    quota = Quota(POLICY)
    ask = quota.ask(0.0)

    assert quota.available(0.0) == 0
    assert ask is not None
    assert (ask.n, ask.window, ask.used) == (2, 0, 0)
    assert quota.is_asking
    assert quota.ask(0.0) is None
    quota.answered(QuotaAnswer(2, 2, 7, 3600.0))
    assert quota.available(0.0) == 2
    assert not quota.is_asking


def test_more_is_asked_for_before_the_stock_is_spent_with_what_was_last_heard() -> None:
    quota = leased()
    enough = quota.ask(1.0)
    quota.take("a")
    ask = quota.ask(1.0)

    assert enough is None
    assert ask is not None
    assert (ask.window, ask.used) == (7, 2)


def test_units_end_with_their_window_counted_from_when_they_were_asked_for() -> None:
    quota = Quota(POLICY)
    quota.ask(100.0)
    quota.answered(QuotaAnswer(2, 2, 7, 50.0))  # however late the answer came

    assert quota.available(149.9) == 2
    assert quota.available(150.0) == 0
    ask = quota.ask(150.0)
    assert ask is not None
    assert (ask.window, ask.used) == (0, 0)
    quota.answered(QuotaAnswer(1, 1, 8, 3600.0))
    assert quota.available(150.0) == 1


def test_when_the_counter_has_nothing_left_it_is_asked_again_in_the_next_window_only() -> None:
    quota = leased(0, used=100, ends_in_s=600.0)

    assert quota.ask(1.0) is None
    assert quota.opens_in_s(1.0) == 599.0
    assert quota.ask(600.0) is not None


def test_that_it_is_used_up_is_told_once_a_window() -> None:
    quota = leased(0, used=100, ends_in_s=600.0)
    told = [quota.tell_used_up(at_s) for at_s in (1.0, 2.0, 599.0, 601.0)]
    again = Quota(POLICY, quota.alarmed_window)
    again.ask(3.0)
    again.answered(QuotaAnswer(0, 100, 7, 597.0))

    assert told == [True, False, False, False]
    assert not again.tell_used_up(4.0)  # another life of the channel knows


def test_no_answer_grants_nothing_and_it_may_ask_again() -> None:
    quota = Quota(POLICY)
    quota.ask(0.0)
    quota.answered(None)

    assert quota.available(0.0) == 0
    assert quota.ask(1.0) is not None


def test_a_call_that_was_never_made_gives_its_unit_back_within_its_window() -> None:
    quota = leased()
    quota.take("a")
    quota.take("b")
    quota.ended("a", made=False)
    quota.ended("b", made=True)

    assert quota.available(1.0) == 1


def test_a_unit_of_an_earlier_window_does_not_come_back_into_this_one() -> None:
    quota = leased(ends_in_s=10.0)
    quota.take("a")
    quota.ask(20.0)
    quota.answered(QuotaAnswer(1, 1, 8, 3600.0))
    quota.ended("a", made=False)

    assert quota.available(20.0) == 1


def test_giving_back_empties_the_stock_once() -> None:
    quota = leased()
    quota.take("a")
    back = quota.give_back(1.0)

    assert back is not None
    assert (back.n, back.window) == (-1, 7)
    assert quota.available(1.0) == 0
    assert quota.give_back(1.0) is None
    assert leased(ends_in_s=1.0).give_back(2.0) is None  # its window has ended


class Sender:
    """One process: it leases when it wants to send, and its answers and returns may be lost on the way."""

    def __init__(self, limits: MemoryLimits, policy: QuotaPolicy) -> None:
        self.limits = limits
        self.quota = Quota(policy)

    def sends(self, now_s: float, *, answer_lost: bool) -> bool:
        ask = self.quota.ask(now_s)
        if ask is not None:
            answer = self.limits.ask(ACME, Channel.EMAIL, ask, int(now_s * 1000))
            self.quota.answered(None if answer_lost else answer)
        if not self.quota.available(now_s):
            return False
        self.quota.take("id")
        self.quota.ended("id", made=True)
        return True

    def leaves(self, now_s: float, *, lost: bool) -> None:
        back = self.quota.give_back(now_s)
        if back is not None and not lost:
            self.limits.ask(ACME, Channel.EMAIL, back, int(now_s * 1000))


steps = st.lists(
    st.tuples(st.sampled_from(["send"] * 6 + ["leave", "crash", "wait"]), st.integers(0, 1), st.booleans(), st.floats(0, 2000)),
    max_size=120,
)


@given(steps, st.integers(1, 200))
def test_whoever_sends_crashes_or_loses_answers_no_window_holds_more_than_the_quota(
    history: list[tuple[str, int, bool, float]], quota: int
) -> None:
    """Windows of the counter's: from its first lease to its end."""
    policy = QuotaPolicy("c-1", quota, 3600.0)
    limits, now_s = MemoryLimits(), 1_000_000.0
    senders = [Sender(limits, policy) for _ in range(2)]
    sent: dict[int, int] = {}
    for what, who, lost, passed_s in history:
        sender = senders[who]
        if what == "wait":
            now_s += passed_s
        elif what == "leave":
            sender.leaves(now_s, lost=lost)
        elif what == "crash":
            senders[who] = Sender(limits, policy)
        else:
            for _ in range(40):
                if sender.sends(now_s, answer_lost=lost):
                    window = limits.counters[ACME, Channel.EMAIL].ends_ms
                    sent[window] = sent.get(window, 0) + 1
    assert all(n <= quota for n in sent.values())


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 300))
def test_while_its_sender_lives_a_counter_that_is_lost_lets_no_more_through(losses: list[bool], quota: int) -> None:
    limits = MemoryLimits()
    sender = Sender(limits, QuotaPolicy("c-1", quota, 3600.0))
    sent = 0
    for lost in losses:
        sent += sum(sender.sends(1_000_000.0, answer_lost=False) for _ in range(20))
        if lost:
            limits.counters.clear()
    assert sent <= quota
