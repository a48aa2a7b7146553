"""Whether there is room for further notifications, from what is seen of the servers behind them.

Two things may be short. *Memory of Redis*, where everything accepted has to stand in a queue: claims and settlements free it and
still pass when it is full, arrivals take it and do not. *Postgres*, when what was handed in waits too long for its insert: the
server is slow, or its connections are used up. Producers are told at once and early, while there is still room for what is under
way, instead of finding out by a timeout.

Invariant: each shortage begins above one threshold and ends below a lower one, so that a reading that wavers does not turn
producers away and back. While Postgres is short and nothing waits for it, one request now and then is let in: how long its insert
takes is what ends the shortage.
"""

from __future__ import annotations

from enum import StrEnum
from math import ceil

from attrs import define, evolve, field, frozen

from dispatcher.problems import Problem

MEMORY_HIGH_RATIO = 0.8
"""Of ``maxmemory``. What is above it is for what was accepted before: retries, announcements, ids that come back."""
MEMORY_LOW_RATIO = 0.7
WAIT_LOW_SHARE = 0.25
"""Share of the longest wait that an insert must stay below for Postgres to be well again."""
PROBE_EVERY_S = 0.5
"""While Postgres is short and idle, so often one request is let in."""
RETRY_AFTER_MAX_S = 10.0


class Shortage(StrEnum):
    """What may be short."""

    REDIS_MEMORY = "redis_memory"
    POSTGRES = "postgres"


_PROBLEMS = {
    Shortage.REDIS_MEMORY: Problem(
        429,
        "redis_memory_low",
        "Not enough memory in the queue",
        "The memory of Redis is nearly used up, so nothing is accepted until some of it is free. Send it again later.",
    ),
    Shortage.POSTGRES: Problem(
        429,
        "database_slow",
        "The database does not keep up",
        "What was handed in before waits too long for the database, so nothing is added to it. Send it again later.",
    ),
}
BACKLOG_FULL = Problem(
    429,
    "backlog_full",
    "Too much waits already",
    "As many notifications as may do so wait for their insert. Send it again later.",
    retry_after_s=1,
)


@frozen
class Reading:
    """What is seen at one moment. Times are in seconds."""

    memory_ratio: float | None
    """Used memory of Redis as a share of its limit; None without a limit, or while it is not known."""
    waiting_s: float
    """How long the oldest of what waits for Postgres has waited by now."""
    latest_wait_s: float
    """How long the insert took that ended last, if that was lately; else 0."""


@define
class Headroom:
    """Remembers what is short. ``wait_max_s`` is how long inserts may wait before Postgres counts as short."""

    wait_max_s: float
    short: set[Shortage] = field(factory=set, init=False)
    _memory_ratio: float | None = field(default=None, init=False)
    _wait_s: float = field(default=0.0, init=False)
    _probed_s: float | None = field(default=None, init=False)

    def see(self, reading: Reading) -> frozenset[Shortage]:
        """Take a reading in; returns what became short, or is no longer."""
        before = frozenset(self.short)
        memory = reading.memory_ratio
        if memory is None or memory < MEMORY_LOW_RATIO:
            self.short.discard(Shortage.REDIS_MEMORY)
        elif memory >= MEMORY_HIGH_RATIO:
            self.short.add(Shortage.REDIS_MEMORY)
        # An insert that is over says how it is to wait now only if it was quick: a slow one may be the last slow one.
        self._wait_s = max(reading.waiting_s, reading.latest_wait_s)
        if reading.waiting_s >= self.wait_max_s:
            self.short.add(Shortage.POSTGRES)
        elif self._wait_s < self.wait_max_s * WAIT_LOW_SHARE:
            self.short.discard(Shortage.POSTGRES)
            self._probed_s = None
        return before ^ self.short

    def refusal(self, now_s: float, *, idle: bool, random01: float) -> Problem | None:
        """Why a request is to be turned away, or None. ``idle``: nothing waits for Postgres. ``random01`` spreads the repeats."""
        if not self.short:
            return None
        if Shortage.REDIS_MEMORY in self.short:
            return _later(Shortage.REDIS_MEMORY, RETRY_AFTER_MAX_S / 2, random01)
        if idle and (self._probed_s is None or now_s - self._probed_s >= PROBE_EVERY_S):
            self._probed_s = now_s
            return None
        return _later(Shortage.POSTGRES, min(max(self._wait_s, 1.0), RETRY_AFTER_MAX_S / 2), random01)


def _later(shortage: Shortage, wait_s: float, random01: float) -> Problem:
    """Twice the wait at most: whoever is turned away at one moment is not to come back at one moment."""
    return evolve(_PROBLEMS[shortage], retry_after_s=ceil(wait_s * (1.0 + random01)))
