"""Counts and histograms of the hot path, plain integers while it runs, Prometheus families when somebody asks.

prometheus_client's own counters take a lock and a label look-up for every step; here a batch adds to a dict, and the
collector reads it at scrape time. Label values come from closed sets only: channel, outcome, dead-letter reason, part. Never
an organization.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import Any

from attrs import define, field
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

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


class Peak:
    """The largest of the values observed within the last ``window_s``, or up to twice as long ago."""

    __slots__ = ("_before", "_largest", "_since_s", "_window_s")

    def __init__(self, window_s: float = 60.0) -> None:
        self._window_s = window_s
        self._since_s = -inf
        self._largest = 0.0
        self._before = 0.0

    def observe(self, value: float, now_s: float) -> None:
        """Take a value in."""
        if now_s - self._since_s >= self._window_s:
            self._turn(now_s)
        if value > self._largest:
            self._largest = value

    def read(self, now_s: float) -> float:
        """The largest value."""
        if now_s - self._since_s >= self._window_s:
            self._turn(now_s)
        return max(self._largest, self._before)

    def _turn(self, now_s: float) -> None:
        self._before = self._largest if now_s - self._since_s < 2 * self._window_s else 0.0
        self._largest = 0.0
        self._since_s = now_s


@define
class Metrics:
    """What one process has done since it started. Written by the actors named beside each field."""

    accepted: Counter[str] = field(factory=Counter)  # acceptor, by verdict: accepted, duplicate, conflict
    attempts: Counter[tuple[str, str]] = field(factory=Counter)  # ledger, by (channel, outcome)
    codes: Counter[tuple[str, str]] = field(factory=Counter)  # ledger, by (channel, provider code) of failed attempts
    dead_letters: Counter[tuple[str, str]] = field(factory=Counter)  # ledger, by (channel, reason)
    alarms: Counter[tuple[str, str]] = field(factory=Counter)  # organizations, by (code, channel)
    events: Counter[str] = field(factory=Counter)  # anybody: stale_record, rescued, restored, actor_restart …
    delivery_latency: dict[str, Histogram] = field(factory=dict)  # ledger, by channel: accepted until delivered
    call_duration: dict[str, Histogram] = field(factory=dict)  # channel actors, by provider

    loop_late: Peak = field(factory=Peak)  # heartbeat: how late the loop was, in s
    queue_age: Peak = field(factory=Peak)  # organizations: how long what was claimed had waited since it was accepted, in s

    def observe_delivery(self, channel: str, latency_s: float) -> None:
        """Count one delivery, by the time since it was accepted."""
        histogram = self.delivery_latency.get(channel)
        if histogram is None:
            histogram = self.delivery_latency[channel] = Histogram()
        histogram.observe(latency_s)

    def observe_call(self, provider: str, duration_s: float) -> None:
        """Count one call at a provider."""
        histogram = self.call_duration.get(provider)
        if histogram is None:
            histogram = self.call_duration[provider] = Histogram()
        histogram.observe(duration_s)


class MetricsCollector(Collector):
    """Turns :class:`Metrics`, and gauges read at scrape time, into Prometheus families."""

    def __init__(self, metrics: Metrics, gauges: Callable[[], Mapping[str, float]]) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """Called by a registry at each scrape."""
        m = self._metrics
        yield _counter("dispatcher_accepted", "Items handed in, by verdict.", ("verdict",), _single(m.accepted))
        yield _counter("dispatcher_attempts", "Attempts at providers, by outcome.", ("channel", "outcome"), m.attempts)
        yield _counter("dispatcher_provider_codes", "Codes of attempts that did not deliver.", ("channel", "code"), m.codes)
        yield _counter("dispatcher_dead_letters", "Notifications that failed for good.", ("channel", "reason"), m.dead_letters)
        yield _counter("dispatcher_alarms", "What a person should know.", ("code", "channel"), m.alarms)
        yield _counter("dispatcher_events", "Rare events inside the process.", ("event",), _single(m.events))
        yield _histogram("dispatcher_delivery_latency_seconds", "From accepted to delivered.", "channel", m.delivery_latency)
        yield _histogram("dispatcher_provider_call_seconds", "Duration of calls at providers.", "provider", m.call_duration)
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(f"dispatcher_{name}", f"Present value of {name.replace('_', ' ')}.", value=value)


def _single(values: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    return {(key,): value for key, value in values.items()}


def _counter(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, text: str, label: str, histograms: Mapping[str, Histogram]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=(label,))
    for key, histogram in histograms.items():
        buckets, total = histogram.buckets()
        family.add_metric((key,), buckets=buckets, sum_value=total)
    return family
