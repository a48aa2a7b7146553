"""The demo's story: a concert is sold out, and everything that can happen to a ticket mail happens once.

Each group hands in notifications and says what must have become of them at the end. The template is a ticketing purchase
confirmation in two languages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

TEMPLATE = "ticketing.purchase-confirmation"
VARIABLES = {
    "name": {"required": True, "description": "The buyer's name"},
    "event": {"required": True, "description": "What the tickets are for"},
    "seats": {"required": True, "description": "A list of seats"},
    "total": {"required": True, "description": "What was paid, with its currency"},
    "venue": {"default": "Town Hall"},
}
TEMPLATES: Sequence[Mapping[str, Any]] = (
    {
        "name": TEMPLATE,
        "channel": "email",
        "locale": "en",
        "subject": "Your tickets for {{ event }}",
        "body_template": "Hello {{ name }},\n\nthank you for your purchase: {{ seats | length }} seat(s) at {{ venue }}.\n"
        "{% for seat in seats %}- {{ seat }}\n{% endfor %}\nPaid: {{ total }}\n",
        "html_template": "<h1>Your tickets for {{ event }}</h1><p>Hello {{ name }},</p>"
        "<ul>{% for seat in seats %}<li>{{ seat }}</li>{% endfor %}</ul><p>Paid: {{ total }}</p>",
        "variables": VARIABLES,
    },
    {
        "name": TEMPLATE,
        "channel": "email",
        "locale": "pt",
        "subject": "Seus ingressos para {{ event }}",
        "body_template": "Olá {{ name }},\n\nobrigado pela compra: {{ seats | length }} lugar(es) em {{ venue }}.\n"
        "{% for seat in seats %}- {{ seat }}\n{% endfor %}\nTotal: {{ total }}\n",
        "html_template": None,
        "variables": VARIABLES,
    },
)


@frozen
class Expected:
    """What must have become of a group. ``effects`` is how many mails the provider took responsibility for."""

    accepted: int
    duplicates: int = 0
    rejected: int = 0
    delivered: int = 0
    failed: int = 0
    effects: int = 0


@frozen
class Group:
    """Items handed in together. ``batch`` is False for one request an item; ``repeats`` hands the same in again."""

    name: str
    story: str
    items: Sequence[Mapping[str, Any]] = field(repr=False)
    expected: Expected
    batch: bool = True
    repeats: int = 0
    outage: bool = False


def purchase(recipient: str, number: int, **fields: Any) -> dict[str, Any]:
    """One ticket mail to hand in."""
    return {
        "channel": "email",
        "recipient": recipient,
        "template": TEMPLATE,
        "locale": "pt-BR" if number % 3 == 0 else "en-GB",
        "variables": {
            "name": f"Reader {number}",
            "event": "The Nocturnes",
            "seats": [f"Row {number % 20 + 1}, seat {number % 30 + 1}"],
            "total": f"{35 + number % 5}.00 EUR",
        },
        **fields,
    }


def _to(local: str, count: int, start: int, **fields: Any) -> list[dict[str, Any]]:
    """Mails to ``count`` magic recipients of the sandbox."""
    return [purchase(f"{local}+{start + n}@sandbox.test", start + n, **fields) for n in range(count)]


def _plain(count: int, start: int) -> list[dict[str, Any]]:
    return [purchase(f"reader.{start + n}@example.org", start + n) for n in range(count)]


def groups() -> list[Group]:
    """The story, in the order it is told."""
    twice = [dict(item, idempotency_key=f"order-{n}") for n, item in enumerate(_plain(40, 1000))]
    faulty = [*_plain(20, 2000)]
    faulty[7] = {**faulty[7], "variables": {"name": "Reader"}}
    faulty[13] = {**faulty[13], "recipient": "not an address"}
    return [
        Group("single", "40 purchases, one request each", _plain(40, 0), Expected(40, delivered=40, effects=40), batch=False),
        Group("batch", "200 purchases in one request", _plain(200, 100), Expected(200, delivered=200, effects=200)),
        Group(
            "duplicates",
            "40 purchases handed in three times",
            twice,
            Expected(40, duplicates=80, delivered=40, effects=40),
            repeats=2,
        ),
        Group(
            "faulty items",
            "20 in one request, two of them wrong",
            faulty,
            Expected(18, rejected=2, delivered=18, effects=18),
        ),
        Group("hard bounces", "6 addresses that do not exist", _to("bounce", 6, 3000), Expected(6, failed=6)),
        Group(
            "soft failures",
            "12 refused twice with 503, then taken",
            _to("soft", 12, 4000),
            Expected(12, delivered=12, effects=12),
        ),
        Group(
            "lost answers",
            "6 taken by the provider, answer lost",
            _to("drop", 6, 5000),
            Expected(6, delivered=6, effects=6),
        ),
        Group(
            "outage",
            "60 while the provider is down",
            _plain(60, 6000),
            Expected(60, delivered=60, effects=60),
            outage=True,
        ),
    ]
