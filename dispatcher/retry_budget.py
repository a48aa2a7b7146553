"""How much retrying is allowed at all: a share of the first attempts, and a small floor.

Backoff spreads the retries of one notification; it does not bound those of all. When a provider fails for everybody, every first
attempt becomes several, and a provider that was merely slow is pushed under. So each retry after a failure takes a credit.
First attempts earn credits, ``ratio`` each; a floor of so many a second comes on top, or a quiet organization could never retry.
Credits fade: what was earned stays for ``MEMORY_S`` on average, so that a good morning does not pay for a bad afternoon.

Nobody waits in memory for a credit and nothing is dropped: a reservation always succeeds and says *when* it is covered, which
becomes the time of the retry on disk. It counts on first attempts going on as they lately did. Invariant: while they do, retries
that are due by any time are at most ``ratio`` times the first attempts so far, plus ``floor_per_s`` times the seconds so far,
plus what a new budget holds, ``floor_per_s * MEMORY_S``. When they fall off, what was promised still comes due, and new retries
wait until it is paid for. Only what would have to wait for longer than ``at_most_s`` is due uncovered.

What an organization's own channel owes may put its retries off for as long as any backoff. What everybody owes to one provider
together may put off a stranger's, so that wait ends at ``SHARED_WAIT_MAX_S``: beyond such a debt only the channels' own budgets
bound the retries, which is the same share of first attempts, but one floor for each channel.
"""

from __future__ import annotations

from math import exp

from attrs import define, field

RATIO = 0.2
"""Retries per first attempt. A provider that fails a fifth of all calls is at its limit without any retries."""
FLOOR_PER_S = 10.0
"""Retries a second that are always allowed, of one provider and of one organization's channel."""
MEMORY_S = 10.0
"""How long a credit lasts on average."""
SHARED_WAIT_MAX_S = 60.0
"""For no longer is a retry put off by what others owe."""


class RetryBudget:
    """Credits for retries. Times are monotonic seconds. One float addition for each first attempt; the rest at each retry."""

    __slots__ = ("_at_s", "_balance", "_earned", "_floor_per_s", "_lately_per_s", "_ratio")

    def __init__(self, ratio: float, floor_per_s: float, now_s: float) -> None:
        self._ratio = ratio
        self._floor_per_s = floor_per_s
        self._balance = floor_per_s * MEMORY_S  # what a quiet budget comes to rest at
        self._earned = 0.0  # since ``_at_s``; taken as earned evenly over that time
        self._lately_per_s = 0.0  # what first attempts earned, averaged over MEMORY_S
        self._at_s = now_s

    def earn(self) -> None:
        """Count one first attempt."""
        self._earned += self._ratio

    def reserve(self, now_s: float, at_most_s: float) -> float:
        """Take the credit for one retry; returns in how many seconds it is covered, 0 to ``at_most_s``.

        A retry that would have to wait for longer is not charged: debts end somewhere.
        """
        self._fold(now_s)
        wait_s = (1.0 - self._balance) / (self._floor_per_s + self._lately_per_s)
        if wait_s > at_most_s:
            return at_most_s
        self._balance -= 1.0
        return max(0.0, wait_s)

    def _fold(self, now_s: float) -> None:
        """Bring the balance to this moment: a debt is paid off at the present rate, a credit fades to what that rate can hold."""
        passed_s = now_s - self._at_s
        if passed_s <= 0:
            self._balance += self._earned
        else:
            earned_per_s = self._earned / passed_s
            rate_per_s = self._floor_per_s + earned_per_s
            self._lately_per_s = earned_per_s + (self._lately_per_s - earned_per_s) * exp(-passed_s / MEMORY_S)
            if self._balance < 0:
                debt_s = -self._balance / rate_per_s
                self._balance += rate_per_s * min(debt_s, passed_s)
                passed_s = max(0.0, passed_s - debt_s)
            held = rate_per_s * MEMORY_S
            self._balance = held + (self._balance - held) * exp(-passed_s / MEMORY_S)
            self._at_s = now_s
        self._earned = 0.0


@define
class RetryBudgets:
    """The budgets of one process: one for each provider at one address, shared by all organizations, and new ones for whoever
    needs its own.
    """

    ratio: float = RATIO
    floor_per_s: float = FLOOR_PER_S
    _by_provider: dict[tuple[str, str], RetryBudget] = field(factory=dict, init=False)

    def new(self, now_s: float) -> RetryBudget:
        """A budget of one's own, as full as a quiet one."""
        return RetryBudget(self.ratio, self.floor_per_s, now_s)

    def of_provider(self, provider: str, now_s: float, origin: str = "") -> RetryBudget:
        """The budget of everybody who sends through this provider at this origin: a gateway of one's own is nobody else's.

        Origins are as many as the deployment allows, see ``DISPATCHER_PROVIDER_URLS_EXTRA``.
        """
        budget = self._by_provider.get((provider, origin))
        if budget is None:
            budget = self._by_provider[provider, origin] = self.new(now_s)
        return budget
