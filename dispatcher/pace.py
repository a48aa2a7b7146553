"""The pace a provider has taught us: after it said *too many*, a channel returns more slowly and finds its limit again by
itself.

A refusal multiplies the rate at which calls were accepted just before by ``DECREASE``; each quiet second then adds
``GROWTH_PER_S`` of that accepted rate, until the pace has grown past need: past the configured rate, or to ``NEED`` times
what was refused, where it no longer limits anything and is forgotten. Refusals of calls that began before the last decrease
are its own echo and change nothing. Invariant: everything follows from the calls and their times, no randomness; a learned
pace is never above the ceiling; and while none is learned only a counter is kept.
"""

from __future__ import annotations

from math import inf, isfinite

from attrs import define, field, frozen

from dispatcher.bucket import Bucket

DECREASE = 0.7
"""What a refusal leaves of the accepted rate: far enough below it that the calls which are late find room."""
GROWTH_PER_S = 0.02
"""Share of the accepted rate that each quiet second adds: a quarter of a minute from a decrease back to where it happened."""
NEED = 2.0
"""A pace that reached this multiple of what was refused, unrefused, limits nothing any more."""
GROWTH_MIN_PER_S = 0.1
"""It adds at least so many calls a second, so that one stray refusal of the first call is soon forgotten."""
RATE_MIN_PER_S = 1.0
"""No pace is learned below this: slower limits are kept by the pauses that their answers ask for."""
RATE_MAX_PER_S = 1_000_000.0
"""No rate above this can be configured, so none is believed either."""
BURST_S = 0.1
"""So much of a second's worth may go at once: enough to claim in batches, too little to overrun a limit."""
SLICE_S = 1.0
"""The accepted rate is that of the present slice and the one before; also how often the pace grows."""


@frozen
class SavedPace:
    """A learned pace, for another life of its channel. ``refused_at_per_s`` is the accepted rate at the last decrease."""

    rate_per_s: float
    refused_at_per_s: float


@define
class Pace:
    """The pace of one channel; written by its owner only. All times are seconds of the caller's monotonic clock."""

    ceiling_per_s: float | None
    """The configured rate; None without one."""
    _bucket: Bucket | None = field(default=None, init=False)  # None while no pace is learned
    _refused_at_per_s: float = field(default=0.0, init=False)
    _learned_at_s: float = field(default=-inf, init=False)
    _grows_at_s: float = field(default=inf, init=False)
    _slice_began_s: float = field(default=-inf, init=False)
    _accepted: int = field(default=0, init=False)  # in the present slice
    _accepted_before: int = field(default=0, init=False)  # in the slice before it, if that one ended where this one began

    @property
    def rate_per_s(self) -> float | None:
        """The learned rate, None while there is none."""
        return None if self._bucket is None else self._bucket.rate_per_s

    def accepted(self, now_s: float) -> None:
        """The provider took a message."""
        if now_s - self._slice_began_s >= SLICE_S:
            self._turn(now_s)
        self._accepted += 1

    def refused(self, began_s: float, now_s: float, resumes_s: float) -> bool:
        """The provider refused a call for its rate; the channel rests until ``resumes_s``. False when that was known already."""
        if began_s <= self._learned_at_s:
            if self._bucket is not None:
                self._bucket = Bucket(self._bucket.rate_per_s, self._bucket.burst, 1.0, max(resumes_s, self._bucket.at_s))
                self._grows_at_s = max(self._grows_at_s, resumes_s + SLICE_S)
            return False
        limits = [self._measured_per_s(now_s)]
        if self._bucket is not None:
            limits.append(self._bucket.rate_per_s)
        if self.ceiling_per_s is not None:
            limits.append(self.ceiling_per_s)
        rate_per_s = max(min(limits), RATE_MIN_PER_S / DECREASE)
        self._learn(rate_per_s * DECREASE, rate_per_s, now_s, resumes_s)
        return True

    def available(self, now_s: float) -> int | None:
        """How many calls may begin now; None when no pace is learned."""
        if now_s >= self._grows_at_s:
            self._grow(now_s)
        bucket = self._bucket
        return None if bucket is None else bucket.available(now_s)

    def reaches_s(self) -> float:
        """When the next call may begin; in the past when one may now, or no pace is learned."""
        return -inf if self._bucket is None else self._bucket.reaches_s(1)

    def take(self, now_s: float) -> None:
        """Count one call that begins. Only after ``available`` granted it."""
        if self._bucket is not None:
            self._bucket.take(1, now_s)

    def put_back(self) -> None:
        """A call that was counted was never made."""
        if self._bucket is not None:
            self._bucket.put_back(1)

    def saved(self) -> SavedPace | None:
        """What another life of the channel should know; None when nothing is learned."""
        return None if self._bucket is None else SavedPace(self._bucket.rate_per_s, self._refused_at_per_s)

    def resume(self, saved: SavedPace, now_s: float) -> None:
        """Go on at the pace of an earlier life, with one call. One that is no rate is ignored."""
        rates = (saved.rate_per_s, saved.refused_at_per_s)
        if all(isfinite(rate) and 0 < rate <= RATE_MAX_PER_S for rate in rates):
            self._learn(max(saved.rate_per_s, RATE_MIN_PER_S), saved.refused_at_per_s, now_s, now_s)

    def _learn(self, rate_per_s: float, refused_at_per_s: float, now_s: float, resumes_s: float) -> None:
        if self.ceiling_per_s is not None and rate_per_s >= self.ceiling_per_s:
            self._forget()  # what is configured is slower than what was learned
            return
        self._refused_at_per_s = refused_at_per_s
        self._learned_at_s = now_s
        self._grows_at_s = resumes_s + SLICE_S
        self._bucket = Bucket(rate_per_s, _burst(rate_per_s), 1.0, resumes_s)  # the one that asks again

    def _grow(self, now_s: float) -> None:
        """Take the quiet seconds since the last step into account, all of them at once."""
        bucket = self._bucket
        assert bucket is not None
        steps = int((now_s - self._grows_at_s) / SLICE_S) + 1
        self._grows_at_s += steps * SLICE_S
        growth_per_s = max(GROWTH_PER_S * self._refused_at_per_s, GROWTH_MIN_PER_S)
        rate_per_s = bucket.rate_per_s + steps * SLICE_S * growth_per_s
        if rate_per_s >= NEED * self._refused_at_per_s or (self.ceiling_per_s is not None and rate_per_s >= self.ceiling_per_s):
            self._forget()
            return
        level = bucket.level + max(0.0, now_s - bucket.at_s) * bucket.rate_per_s
        self._bucket = Bucket(rate_per_s, _burst(rate_per_s), level, max(now_s, bucket.at_s))

    def _forget(self) -> None:
        self._bucket = None
        self._grows_at_s = inf

    def _turn(self, now_s: float) -> None:
        """Begin a new slice."""
        adjacent = now_s - self._slice_began_s < 2 * SLICE_S
        self._accepted_before = self._accepted if adjacent else 0
        self._slice_began_s = self._slice_began_s + SLICE_S if adjacent else now_s
        self._accepted = 0

    def _measured_per_s(self, now_s: float) -> float:
        """The rate at which calls were accepted lately: over at least one slice, so that a first burst is not taken for it."""
        if now_s - self._slice_began_s >= SLICE_S:
            self._turn(now_s)
        if not self._accepted_before:
            return self._accepted / SLICE_S
        return (self._accepted_before + self._accepted) / (SLICE_S + now_s - self._slice_began_s)


def _burst(rate_per_s: float) -> int:
    return max(1, int(rate_per_s * BURST_S))
