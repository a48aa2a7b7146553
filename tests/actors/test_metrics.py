"""Metrics count what they are told and show it the way Prometheus wants it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from actors.delivery_metrics import CODES_MAX, DeliveryMetrics
from actors.histogram import Histogram
from actors.metrics import Metrics, MetricsCollector
from dispatcher.feedback.feedback import FeedbackKind
from dispatcher.messages import ProviderPolicy, Verdict
from dispatcher.model import Channel, DeadLetterReason, Delivery, NotificationId, OrganizationId, Status
from dispatcher.outcome import Outcome, OutcomeClass


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


# --- by provider and organization ------------------------------------------------------------------------------


def verdict(kind: OutcomeClass, organization: str = "acme", code: str = "x", dead: DeadLetterReason | None = None) -> Verdict:
    id = NotificationId("0192d3a4-7c1e-7f00-8000-000000000001")
    delivery = Delivery(id, OrganizationId(organization), Channel.SMS, "+15550001111", {"text": "Hi"}, 1, 8, 100.0)
    via = ProviderPolicy("c", 1, "twilio_sms", Channel.SMS, None, 1, 8)
    return Verdict(delivery, Outcome(kind, code), via, Status.FAILED if dead else Status.QUEUED, dead=dead)


def test_attempts_are_counted_by_provider_and_organization() -> None:
    metrics = Metrics()
    metrics.deliveries.concluded(verdict(OutcomeClass.DELIVERED), 103.0)
    metrics.deliveries.concluded(verdict(OutcomeClass.HARD, code="twilio_21211", dead=DeadLetterReason.HARD), 103.0)
    metrics.deliveries.concluded(verdict(OutcomeClass.INTERRUPTED), 103.0)

    text = shown(metrics)

    assert 'dispatcher_provider_outcomes_total{channel="sms",outcome="delivered",provider="twilio_sms"} 1.0' in text
    assert 'dispatcher_provider_errors_total{code="twilio_21211",provider="twilio_sms"} 1.0' in text
    assert 'dispatcher_organization_messages_total{channel="sms",organization="acme",state="sent"} 1.0' in text
    assert 'dispatcher_organization_messages_total{channel="sms",organization="acme",state="failed"} 1.0' in text
    assert 'dispatcher_to_provider_seconds_sum{channel="sms",provider="twilio_sms"} 3.0' in text
    assert "interrupted" not in text
    assert "+1555" not in text


def test_feedback_gives_rates_and_the_time_to_confirmation() -> None:
    metrics = Metrics()
    acme = OrganizationId("acme")
    metrics.deliveries.reported(acme, "sendgrid", "email", FeedbackKind.DELIVERED, "delivered")
    metrics.deliveries.confirmed("sendgrid", "email", 2.5)
    metrics.deliveries.reported(acme, "sendgrid", "email", FeedbackKind.BOUNCED, "address_unknown")
    metrics.deliveries.reported(acme, "sendgrid", "email", FeedbackKind.COMPLAINED, "spam_report")

    text = shown(metrics)

    assert 'dispatcher_feedback_total{channel="email",kind="bounced",provider="sendgrid"} 1.0' in text
    assert 'dispatcher_organization_messages_total{channel="email",organization="acme",state="complained"} 1.0' in text
    assert 'dispatcher_provider_errors_total{code="address_unknown",provider="sendgrid"} 1.0' in text
    assert 'dispatcher_to_confirmation_seconds_sum{channel="email",provider="sendgrid"} 2.5' in text


def test_labels_are_bounded_and_no_counter_falls() -> None:
    metrics = DeliveryMetrics(organizations_max=2)
    for name in ("acme", "globex", "initech", "umbrella", "acme"):
        metrics.concluded(verdict(OutcomeClass.DELIVERED, name), 101.0)
    for number in range(CODES_MAX + 7):
        metrics.concluded(verdict(OutcomeClass.SOFT, code=f"http_{number}"), 101.0)

    assert metrics.organizations == {("acme", "sms", "sent"): 2, ("globex", "sms", "sent"): 1, ("other", "sms", "sent"): 2}
    assert len(metrics.codes) == CODES_MAX + 1
    assert metrics.codes["twilio_sms", "other"] == 7


def test_no_organization_is_named_where_that_is_not_wanted() -> None:
    metrics = DeliveryMetrics(organizations_max=0)
    metrics.concluded(verdict(OutcomeClass.DELIVERED), 101.0)

    assert not metrics.organizations
