"""The demo's story: a concert is sold out, and everything that can happen to a ticket mail, a text or a push happens once.

Each group hands in notifications, the first one events, and says what must have become of them at the end. The template is a
ticketing purchase confirmation in two languages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from attrs import field, frozen

from dispatcher_sandbox.webpush import subscription

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
        "html_template": "<h1>Seus ingressos para {{ event }}</h1><p>Olá {{ name }},</p>"
        "<ul>{% for seat in seats %}<li>{{ seat }}</li>{% endfor %}</ul><p>Total: {{ total }}</p>",
        "variables": VARIABLES,
    },
)


@frozen
class Expected:
    """What must have become of a group. ``effects`` is how many messages providers took responsibility for."""

    accepted: int
    duplicates: int = 0
    rejected: int = 0
    delivered: int = 0
    failed: int = 0
    canceled: int = 0
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
    """The first choice for mail is down until its breaker has opened, and a little longer."""
    standby: bool = False
    """A second choice for mail is added, and the first is down until everything has gone through the second."""
    later: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    """Handed in as well, once contacts have become all of ``contacts``, and something has failed."""
    contacts: frozenset[str] = frozenset()
    from_events: bool = False
    """Nothing is handed in but events; rules make notifications of them, and some of these are canceled."""


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


def _texts() -> list[dict[str, Any]]:
    numbers = ["+15005550001", "+15005550009", *(f"+1555010{number:04}" for number in range(28))]
    return [{"channel": "sms", "recipient": number, "content": {"text": "Your seats are booked."}} for number in numbers]


def _whatsapp() -> list[dict[str, Any]]:
    def message(number: int) -> dict[str, Any]:
        template = {"name": "seats_booked", "language": "pt_BR", "parameters": [f"Reader {number}", "The Nocturnes"]}
        return {"channel": "whatsapp", "recipient": f"+5511900{number:06}", "content": {"template": template}}

    return [message(number) for number in range(20)]


def _pushes(sandbox_url: str) -> list[dict[str, Any]]:
    """Ten devices of each kind; nothing but the form of a token says whose it is."""
    tokens = [
        *(f"device{number:04}:APA91b{'x' * 24}" for number in range(10)),
        *(f"{number:064x}" for number in range(0xA000, 0xA00A)),
        *(orjson.dumps(subscription(sandbox_url, f"browser-{number}")).decode() for number in range(10)),
    ]
    content = {"title": "Tonight", "text": "Doors open at seven.", "data": {"event": "nocturnes"}}
    return [{"channel": "push", "recipient": token, "content": content} for token in tokens]


def groups(sandbox_url: str) -> list[Group]:
    """The story, in the order it is told. ``sandbox_url`` is where the browsers of its readers are registered."""
    twice = [dict(item, idempotency_key=f"order-{n}") for n, item in enumerate(_plain(40, 1000))]
    faulty = [*_plain(20, 2000)]
    faulty[7] = {**faulty[7], "variables": {"name": "Reader"}}
    faulty[13] = {**faulty[13], "recipient": "not an address"}
    mail = purchase("hard-bounce+8000@sandbox.test", 8000)
    text = {"channel": "sms", "recipient": "+15005550016", "content": {"text": "Doors open at seven."}}
    push = {"channel": "push", "recipient": "sandbox-unregistered-8000", "content": {"text": "Doors open at seven."}}
    return [
        Group(
            "events",
            "two purchases, a refund and a report are told as events; Ana reads Portuguese",
            (),
            Expected(9, delivered=8, canceled=1, effects=8),
            from_events=True,
        ),
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
            "6 refused twice with 503, then taken",
            _to("soft", 6, 4000),
            Expected(6, delivered=6, effects=6),
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
        Group(
            "failover",
            "120 while the first provider is down and a second stands by",
            _plain(120, 7000),
            Expected(120, delivered=120, effects=120),
            standby=True,
        ),
        Group("texts", "30 texts, two to bad numbers", _texts(), Expected(30, delivered=28, failed=2, effects=28)),
        Group("whatsapp", "20 WhatsApp messages of an approved template", _whatsapp(), Expected(20, delivered=20, effects=20)),
        Group(
            "push",
            "30 pushes: to phones of both kinds, and to browsers",
            _pushes(sandbox_url),
            Expected(30, delivered=30, effects=30),
        ),
        Group(
            "contacts",
            "a bounce, an opt-out and a dead device are reported; then the same three again",
            (mail, text, push),
            Expected(4, rejected=2, delivered=3, failed=1, effects=3),
            later=(mail, {**text, "fallback": [purchase("reader.9000@example.org", 9000)]}, push),
            contacts=frozenset({"bounced", "unsubscribed"}),
        ),
    ]
