"""Metrics count what they are told and show it the way Prometheus wants it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from actors.metrics import Histogram, Metrics, MetricsCollector


def shown(metrics: Metrics) -> str:
    registry = CollectorRegistry()
    registry.register(MetricsCollector(metrics, lambda: {"in_flight": 3.0}))
    return generate_latest(registry).decode()


def test_counts_are_shown_with_their_labels() -> None:
    metrics = Metrics()
    metrics.attempts["email", "delivered"] += 2
    metrics.accepted["duplicate"] += 1
    metrics.dead_letters["email", "hard"] += 4

    text = shown(metrics)

    assert 'dispatcher_attempts_total{channel="email",outcome="delivered"} 2.0' in text
    assert 'dispatcher_accepted_total{verdict="duplicate"} 1.0' in text
    assert 'dispatcher_dead_letters_total{channel="email",reason="hard"} 4.0' in text
    assert "dispatcher_in_flight 3.0" in text


def test_latencies_fall_into_cumulative_buckets() -> None:
    metrics = Metrics()
    for latency_s in (0.001, 0.02, 7200.0):
        metrics.observe_delivery("email", latency_s)
    metrics.observe_call("sendgrid", 0.2)

    text = shown(metrics)

    assert 'dispatcher_delivery_latency_seconds_bucket{channel="email",le="0.005"} 1.0' in text
    assert 'dispatcher_delivery_latency_seconds_bucket{channel="email",le="3600.0"} 2.0' in text
    assert 'dispatcher_delivery_latency_seconds_count{channel="email"} 3.0' in text
    assert 'dispatcher_provider_call_seconds_count{provider="sendgrid"} 1.0' in text


def test_an_observation_at_a_bound_belongs_to_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)

    assert histogram.buckets() == ([("1.0", 1), ("2.0", 3), ("+Inf", 4)], 7.0)
