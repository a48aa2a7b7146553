"""How the demo's story begins: with events of neighbouring systems, from which shipped rules and templates make notifications.

Ana, who reads Portuguese, buys tickets for two shows. One begins in a minute and its reminder is due in seconds; the other is
given back, so its refund is told and its reminder canceled. At the end the box office gets its report as a file.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

PRESETS = ("ticketing", "payments", "reporting")
CANCELED = "order-1002"
"""The correlation id of what is given back."""
REMINDER_RULE = "ticketing-reminder"
REMINDER_BEFORE_S = 60.0
REMINDER_DUE_S = 3.0
_ZONE = "America/Sao_Paulo"

PEOPLE: Mapping[str, Mapping[str, Any]] = {
    "users/ana": {"locale": "pt-BR", "time_zone": _ZONE, "contact_points": {"email": ["ana@example.org"]}},
    "users/ana/push_tokens": {"token": f"device-of-ana:APA91b{'x' * 24}", "app": "tickets", "platform": "android"},
    "users/box-office": {"time_zone": "Europe/Lisbon", "contact_points": {"email": ["box-office@example.org"]}},
}
"""What is told of them, by where."""
REMINDER: Mapping[str, Any] = {
    "event": "ticketing.purchase.completed",
    "when": "data.buyer.id is defined",
    "topic": "ticketing-reminders",
    "recipients": [{"user": "data.buyer.id"}],
    "send": [{"channel": "push", "template": "ticketing-reminder"}, {"channel": "email", "template": "ticketing-reminder"}],
    "mode": "first",
    "at": {"date": "data.show.starts_at", "offset_s": -REMINDER_BEFORE_S},
}
"""The shipped rule reminds a day before, in the daytime; no audience waits for that."""


def events(now: datetime) -> list[dict[str, Any]]:
    """What the neighbours hand in: two purchases, a refund, a report. ``now`` has a zone."""
    soon = now + timedelta(seconds=REMINDER_BEFORE_S + REMINDER_DUE_S)
    report = {
        "title": "Bilheteria",
        "period": {"from": (now - timedelta(days=7)).date().isoformat(), "to": now.date().isoformat()},
        "filename": "sales.csv",
        "content_type": "text/csv",
        "content": b64encode(b"show,sold\nThe Nocturnes,412\n").decode(),
    }
    return [
        _purchase("order-1001", "The Nocturnes", soon),
        _purchase(CANCELED, "Noite de Fado", now + timedelta(days=10)),
        {
            "id": "refund-1002",
            "type": "payments.refund.issued",
            "correlation_id": "refund-1002",
            "data": {
                "payment_id": "p-1002",
                "order_id": CANCELED,
                "customer": {"id": "ana", "name": "Ana"},
                "refund": {"amount": "1240.50", "currency": "BRL"},
            },
        },
        {
            "id": "report-47",
            "type": "reporting.report.ready",
            "data": {"subscriber_ids": ["box-office"], "report": report},
        },
    ]


def _purchase(order: str, show: str, starts_at: datetime) -> dict[str, Any]:
    return {
        "id": order,
        "type": "ticketing.purchase.completed",
        "correlation_id": order,
        "data": {
            "order_id": order,
            "buyer": {"id": "ana", "name": "Ana"},
            "show": {
                "name": show,
                "venue": "Teatro Municipal",
                "starts_at": starts_at.astimezone(UTC).isoformat(timespec="seconds"),
                "time_zone": _ZONE,
            },
            "tickets": [{"type": "Plateia", "quantity": 2}],
            "total": {"amount": "1240.50", "currency": "BRL"},
        },
    }
