"""A token bucket: how fast one channel of one organization may send.

The bucket holds at most ``burst`` tokens and gains ``rate_per_s``. Its state is two numbers, the level and the instant at
which it was true; nothing is written until tokens are taken, so asking costs nothing. Invariant: in any window the tokens taken
are at most ``burst + rate_per_s * window``, and a clock that goes back never mints one. A bucket that follows another (after a
restart, or a take-over by another process) must be started from the persisted level, or empty: starting full would give away
a free burst each time.
"""

from __future__ import annotations

from math import inf, nextafter
from typing import Final, NamedTuple

from attrs import define


class Granted(NamedTuple):
    """The tokens were taken."""


class WaitUntil(NamedTuple):
    """Nothing was taken. The same request is granted at ``at_s`` if nobody takes tokens before."""

    at_s: float


GRANTED: Final = Granted()


@define
class Bucket:
    """One bucket; written by its owner only. All times are seconds of the caller's monotonic clock.

    ``level`` tokens were in the bucket at ``at_s``. ``at_s`` may lie ahead of now: until then nothing flows in.
    """

    rate_per_s: float
    burst: int
    level: float
    at_s: float

    def __attrs_post_init__(self) -> None:
        if not 0 < self.rate_per_s < inf or self.burst < 1:
            raise ValueError("rate_per_s must be finite and above 0, burst at least 1")
        self.level = min(max(self.level, 0.0), self.burst)

    def take(self, n: int, now_s: float) -> Granted | WaitUntil:
        """Take ``n`` tokens, at least 1 and at most ``burst``, or say when they will be there. Never waits."""
        elapsed_s = now_s - self.at_s
        level = self.level
        if elapsed_s > 0:
            level = min(level + elapsed_s * self.rate_per_s, self.burst)
        if not 1 <= n <= self.burst:
            raise ValueError(f"n must be between 1 and the burst of {self.burst}")
        if level >= n:
            self.level = level - n
            if elapsed_s > 0:
                self.at_s = now_s
            return GRANTED
        return WaitUntil(self.reaches_s(n))

    def available(self, now_s: float) -> int:
        """The largest number that ``take`` would grant now."""
        return int(self._level(now_s))

    def level_at(self, now_s: float) -> float:
        """The tokens in the bucket now, with what has become of a part of one."""
        return self._level(now_s)

    def put_back(self, n: int) -> None:
        """Return ``n`` tokens that were taken for calls which were never made."""
        self.level = min(self.level + n, self.burst)

    def hold_until(self, at_s: float) -> None:
        """Empty the bucket and let nothing flow in before ``at_s``: the provider asked us to stop until then."""
        self.level = 0.0
        self.at_s = max(self.at_s, at_s)

    def reaches_s(self, n: int) -> float:
        """When the bucket holds ``n`` tokens, at most ``burst``, if nobody takes any. The instant may have passed already."""
        at_s = self.at_s + (n - self.level) / self.rate_per_s
        step_s = nextafter(at_s, inf) - at_s
        # Rounding may leave the level a hair below n, and whoever wakes then would be sent away again. Doubling the step makes
        # the correction end even where one ulp of time is far less than one ulp of the level.
        while self._level(at_s) < n:
            at_s += step_s
            step_s *= 2
        return at_s

    def _level(self, now_s: float) -> float:
        elapsed_s = now_s - self.at_s
        return min(self.level + elapsed_s * self.rate_per_s, self.burst) if elapsed_s > 0 else self.level
