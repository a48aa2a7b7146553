"""Counts and histograms of the hot path, plain integers while it runs, Prometheus families when somebody asks.

prometheus_client's own counters take a lock and a label look-up for every step; here a batch adds to a dict, and the
collector reads it at scrape time. Label values here come from closed sets only: channel, outcome, dead-letter reason, part.
What is counted by provider and organization is in :mod:`actors.delivery_metrics`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import TypeVar

from attrs import define, field
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from actors.delivery_metrics import DeliveryMetrics
from actors.histogram import Histogram, count_family, histogram_family

T = TypeVar("T")


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
    taken_in: Counter[str] = field(factory=Counter)  # event desk, by verdict: accepted, unmatched, duplicate, refused
    planned: Counter[str] = field(factory=Counter)  # event desk, acceptor: planned, or the code why not
    attempts: Counter[tuple[str, str]] = field(factory=Counter)  # ledger, by (channel, outcome)
    codes: Counter[tuple[str, str]] = field(factory=Counter)  # ledger, by (channel, provider code) of failed attempts
    dead_letters: Counter[tuple[str, str]] = field(factory=Counter)  # ledger, by (channel, reason)
    alarms: Counter[tuple[str, str]] = field(factory=Counter)  # organizations, by (code, channel)
    contacts: Counter[tuple[str, str]] = field(factory=Counter)  # feedback, by (channel, new status)
    events: Counter[str] = field(factory=Counter)  # anybody: stale_record, rescued, restored, actor_restart …
    delivery_latency: dict[str, Histogram] = field(factory=dict)  # ledger, by channel: accepted until delivered
    call_duration: dict[str, Histogram] = field(factory=dict)  # channel actors, by provider

    deliveries: DeliveryMetrics = field(factory=DeliveryMetrics)  # ledger, feedback
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
        yield count_family("dispatcher_accepted", "Items handed in, by verdict.", ("verdict",), _single(m.accepted))
        yield count_family("dispatcher_events_taken_in", "Events handed in, by verdict.", ("verdict",), _single(m.taken_in))
        yield count_family("dispatcher_planned", "What events came to, by code.", ("code",), _single(m.planned))
        yield count_family("dispatcher_attempts", "Attempts at providers, by outcome.", ("channel", "outcome"), m.attempts)
        yield count_family("dispatcher_provider_codes", "Codes of attempts that did not deliver.", ("channel", "code"), m.codes)
        yield count_family("dispatcher_dead_letters", "Notifications that failed.", ("channel", "reason"), m.dead_letters)
        yield count_family("dispatcher_alarms", "What a person should know.", ("code", "channel"), m.alarms)
        yield count_family("dispatcher_contact_changes", "Contacts by new status.", ("channel", "status"), m.contacts)
        yield count_family("dispatcher_events", "Rare events inside the process.", ("event",), _single(m.events))
        latencies, calls = _single(m.delivery_latency), _single(m.call_duration)
        yield histogram_family("dispatcher_delivery_latency_seconds", "From accepted to delivered.", ("channel",), latencies)
        yield histogram_family("dispatcher_provider_call_seconds", "Duration of calls at providers.", ("provider",), calls)
        yield from m.deliveries.families()
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(f"dispatcher_{name}", f"Present value of {name.replace('_', ' ')}.", value=value)


def _single(values: Mapping[str, T]) -> dict[tuple[str, ...], T]:
    return {(key,): value for key, value in values.items()}
