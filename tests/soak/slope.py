"""Whether something grows: a line through samples, how sure one may be of its slope, and a verdict. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from math import inf, sqrt

from attrs import frozen

START_UP_S = 60.0
START_UP_SHARE = 0.25
"""The longer of the two is cut off: caches fill, pools grow to what they need, the allocator finds its size."""
SAMPLES_MIN = 8


class Verdict(StrEnum):
    """What the slope means."""

    FLAT = "flat"
    RISING = "RISING"
    UNDECIDED = "undecided"


@frozen
class Slope:
    """Per hour. ``error`` is two standard errors, widened for samples that resemble their neighbours."""

    per_hour: float
    error: float
    first: float
    last: float
    samples: int

    def verdict(self, limit_per_hour: float) -> Verdict:
        """Flat when it is surely at most the limit, rising when it is surely more."""
        if self.per_hour - self.error > limit_per_hour:
            return Verdict.RISING
        return Verdict.FLAT if self.per_hour + self.error <= limit_per_hour else Verdict.UNDECIDED


def after_start_up(samples: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """What is left when the beginning is cut off; ``samples`` are ``(second, value)`` in order."""
    if not samples:
        return samples
    begin, end = samples[0][0], samples[-1][0]
    cut = begin + max(START_UP_S, START_UP_SHARE * (end - begin))
    return [sample for sample in samples if sample[0] >= cut]


def fit(samples: Sequence[tuple[float, float]]) -> Slope:
    """Least squares. Too few samples make a slope of nothing, and infinitely unsure."""
    n = len(samples)
    if n < SAMPLES_MIN:
        values = [value for _, value in samples] or [0.0]
        return Slope(0.0, inf, values[0], values[-1], n)
    x_mean = sum(x for x, _ in samples) / n
    y_mean = sum(y for _, y in samples) / n
    spread = sum((x - x_mean) ** 2 for x, _ in samples)
    slope = sum((x - x_mean) * (y - y_mean) for x, y in samples) / spread
    rest = [y - y_mean - slope * (x - x_mean) for x, y in samples]
    squares = sum(r * r for r in rest)
    resemblance = sum(a * b for a, b in pairwise(rest)) / squares if squares > 1e-12 else 0.0
    resemblance = min(max(resemblance, 0.0), 0.95)
    error = 2 * sqrt(squares / (n - 2) / spread * (1 + resemblance) / (1 - resemblance))
    return Slope(slope * 3600, error * 3600, samples[0][1], samples[-1][1], n)
