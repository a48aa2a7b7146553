"""Histograms and counts as plain numbers, and the Prometheus families that are made of them when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

LATENCY_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)


class Histogram:
    """Counts of observations up to each bound; the last bucket has none."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BOUNDS_S) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative buckets as Prometheus wants them, and the sum."""
        total = 0
        rows: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            rows.append((bound, total))
        return rows, self._sum


def count_family(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, int]) -> CounterMetricFamily:
    """Counts by the values of their labels."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def histogram_family(name: str, text: str, labels: tuple[str, ...], histograms: Mapping[Any, Histogram]) -> HistogramMetricFamily:
    """Histograms by the values of their labels."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, histogram in histograms.items():
        buckets, total = histogram.buckets()
        family.add_metric(key, buckets=buckets, sum_value=total)
    return family
