"""Ticketing: a purchase is confirmed, seats are confirmed, and the day before the show people are reminded of it.

Events: ``ticketing.purchase.completed`` and ``ticketing.seats.confirmed``. A buyer without an account is written to at the
address that the purchase names.
"""

from __future__ import annotations

from typing import Final

from dispatcher.presets.preset import COUNT, MOMENT, MONEY, TEXT, Document, Example, Preset, items, mail, push, shape

_SHOW: Document = shape({"name": TEXT, "venue": TEXT, "starts_at": MOMENT, "time_zone": TEXT})
_BUYER: Document = shape({}, id=TEXT, name=TEXT, email=TEXT, locale=TEXT)
_PURCHASE: Document = shape(
    {"order_id": TEXT, "show": _SHOW, "tickets": items(shape({"type": TEXT, "quantity": COUNT})), "total": MONEY}, buyer=_BUYER
)
_SEATS: Document = shape(
    {"order_id": TEXT, "show": _SHOW, "seats": items(shape({"section": TEXT, "row": TEXT, "seat": TEXT}))}, buyer=_BUYER
)
_REMINDER: Document = shape({"order_id": TEXT, "show": _SHOW}, buyer=_BUYER)

_RULES: dict[str, Document] = {
    "ticketing-purchase": {
        "event": "ticketing.purchase.completed",
        "when": "data.buyer.id is defined",
        "topic": "ticketing-orders",
        "recipients": [{"user": "data.buyer.id"}],
        "send": [
            {"channel": "email", "template": "ticketing-purchase"},
            {"channel": "push", "template": "ticketing-purchase"},
        ],
    },
    "ticketing-purchase-guest": {
        "event": "ticketing.purchase.completed",
        "when": "data.buyer.id is undefined and data.buyer.email is string",
        "topic": "ticketing-orders",
        "recipients": [
            {"contact": {"email": "data.buyer.email"}, "locale": "data.buyer.locale", "time_zone": "data.show.time_zone"}
        ],
        "send": [{"channel": "email", "template": "ticketing-purchase"}],
    },
    "ticketing-reminder": {
        "event": "ticketing.purchase.completed",
        "when": "data.buyer.id is defined",
        "topic": "ticketing-reminders",
        "recipients": [{"user": "data.buyer.id"}],
        "send": [
            {"channel": "push", "template": "ticketing-reminder"},
            {"channel": "email", "template": "ticketing-reminder"},
        ],
        "mode": "first",
        "at": {"date": "data.show.starts_at", "offset_s": -86_400},
        "window": {"start": "09:00", "end": "21:00"},
        "expires_in_s": 72_000,
    },
    "ticketing-seats": {
        "event": "ticketing.seats.confirmed",
        "when": "data.buyer.id is defined",
        "topic": "ticketing-orders",
        "recipients": [{"user": "data.buyer.id"}],
        "send": [
            {"channel": "email", "template": "ticketing-seats"},
            {"channel": "push", "template": "ticketing-seats"},
        ],
    },
}
_TOPICS: dict[str, Document] = {
    "ticketing-orders": {"title": "Orders and seats", "default": ["email", "push"]},
    "ticketing-reminders": {"title": "Reminders before a show", "default": ["email", "push"]},
}

_WHEN = "{{ show.starts_at|date('full', zone=show.time_zone) }}, {{ show.starts_at|time('short', zone=show.time_zone) }}"
_DAY = "{{ show.starts_at|datetime('short', zone=show.time_zone) }}"
_TICKETS = "{% for ticket in tickets %}{{ ticket.quantity }} × {{ ticket.type }}\n{% endfor %}"
_TOTAL = "{{ total.amount|money(total.currency) }}"
_EACH = "{% if not loop.last %}\n{% endif %}{% endfor %}"
_COUNTED = "{{ seats|length }}"
_DATA = {"order_id": "{{ order_id }}"}

_TEMPLATES: list[Document] = [
    mail(
        "ticketing-purchase",
        "en",
        _PURCHASE,
        "Your tickets for {{ show.name }}",
        "Hello{% if buyer.name is defined %} {{ buyer.name }}{% endif %},",
        "thank you for your purchase. You are going to see {{ show.name }} at {{ show.venue }}.\n" + _WHEN,
        f"{_TICKETS}Total: {_TOTAL}",
        "Your order number is {{ order_id }}.",
    ),
    mail(
        "ticketing-purchase",
        "pt-BR",
        _PURCHASE,
        "Seus ingressos para {{ show.name }}",
        "Olá{% if buyer.name is defined %}, {{ buyer.name }}{% endif %}!",
        "Obrigado pela sua compra. Você vai assistir a {{ show.name }} em {{ show.venue }}.\n" + _WHEN,
        f"{_TICKETS}Total: {_TOTAL}",
        "O número do seu pedido é {{ order_id }}.",
    ),
    push("ticketing-purchase", "en", _PURCHASE, "Your tickets are here", "{{ show.name }}, " + _DAY, _DATA),
    push("ticketing-purchase", "pt-BR", _PURCHASE, "Seus ingressos chegaram", "{{ show.name }}, " + _DAY, _DATA),
    mail(
        "ticketing-seats",
        "en",
        _SEATS,
        "Your {{ seats|length|plural('seats', one='seat') }} for {{ show.name }}",
        "Hello{% if buyer.name is defined %} {{ buyer.name }}{% endif %},",
        "{{ seats|length|plural('these seats are', one='this seat is') }} yours for {{ show.name }} at {{ show.venue }}.\n"
        + _WHEN,
        "{% for seat in seats %}Section {{ seat.section }}, row {{ seat.row }}, seat {{ seat.seat }}" + _EACH,
        "Your order number is {{ order_id }}.",
    ),
    mail(
        "ticketing-seats",
        "pt-BR",
        _SEATS,
        "{{ seats|length|plural('Seus lugares', one='Seu lugar') }} para {{ show.name }}",
        "Olá{% if buyer.name is defined %}, {{ buyer.name }}{% endif %}!",
        "{{ seats|length|plural('Estes lugares são seus', one='Este lugar é seu') }}: {{ show.name }}, {{ show.venue }}.\n"
        + _WHEN,
        "{% for seat in seats %}Setor {{ seat.section }}, fileira {{ seat.row }}, assento {{ seat.seat }}" + _EACH,
        "O número do seu pedido é {{ order_id }}.",
    ),
    push(
        "ticketing-seats",
        "en",
        _SEATS,
        "Seats confirmed",
        f"{{{{ show.name }}}}: {_COUNTED} {{{{ seats|length|plural('seats', one='seat') }}}}, {_DAY}",
        _DATA,
    ),
    push(
        "ticketing-seats",
        "pt-BR",
        _SEATS,
        "Lugares confirmados",
        f"{{{{ show.name }}}}: {_COUNTED} {{{{ seats|length|plural('lugares', one='lugar') }}}}, {_DAY}",
        _DATA,
    ),
    mail(
        "ticketing-reminder",
        "en",
        _REMINDER,
        "Coming up: {{ show.name }}",
        "Hello{% if buyer.name is defined %} {{ buyer.name }}{% endif %},",
        "{{ show.name }} begins soon at {{ show.venue }}.\n" + _WHEN,
        "Please have your tickets ready. Your order number is {{ order_id }}.",
    ),
    mail(
        "ticketing-reminder",
        "pt-BR",
        _REMINDER,
        "Está chegando: {{ show.name }}",
        "Olá{% if buyer.name is defined %}, {{ buyer.name }}{% endif %}!",
        "{{ show.name }} começa em breve, em {{ show.venue }}.\n" + _WHEN,
        "Tenha seus ingressos à mão. O número do seu pedido é {{ order_id }}.",
    ),
    push("ticketing-reminder", "en", _REMINDER, "Coming up: {{ show.name }}", "{{ show.venue }}, " + _DAY, _DATA),
    push("ticketing-reminder", "pt-BR", _REMINDER, "Está chegando: {{ show.name }}", "{{ show.venue }}, " + _DAY, _DATA),
]

_EXAMPLE_SHOW = {
    "name": "Ópera do Malandro",
    "venue": "Teatro Municipal",
    "starts_at": "2030-03-01T20:00:00-03:00",
    "time_zone": "America/Sao_Paulo",
}
_EXAMPLES = (
    Example(
        {
            "type": "ticketing.purchase.completed",
            "data": {
                "order_id": "A-1001",
                "buyer": {"id": "user-1", "name": "Ana"},
                "show": _EXAMPLE_SHOW,
                "tickets": [{"type": "Balcony", "quantity": 2}],
                "total": {"amount": "240.00", "currency": "BRL"},
            },
        },
        frozenset(
            {
                ("ticketing-purchase", "user-1", "email"),
                ("ticketing-purchase", "user-1", "push"),
                ("ticketing-reminder", "user-1", "push"),
            }
        ),
    ),
    Example(
        {
            "type": "ticketing.purchase.completed",
            "data": {
                "order_id": "A-1002",
                "buyer": {"email": "guest@example.com", "name": "Ben", "locale": "pt-BR"},
                "show": _EXAMPLE_SHOW,
                "tickets": [{"type": "Stalls", "quantity": 1}, {"type": "Stalls, reduced", "quantity": 2}],
                "total": {"amount": 310.5, "currency": "BRL"},
            },
        },
        frozenset({("ticketing-purchase-guest", "guest@example.com", "email")}),
    ),
    Example(
        {
            "type": "ticketing.seats.confirmed",
            "data": {
                "order_id": "A-1001",
                "buyer": {"id": "user-1"},
                "show": _EXAMPLE_SHOW,
                "seats": [{"section": "B", "row": "4", "seat": "11"}, {"section": "B", "row": "4", "seat": "12"}],
            },
        },
        frozenset({("ticketing-seats", "user-1", "email"), ("ticketing-seats", "user-1", "push")}),
    ),
)

TICKETING: Final = Preset(
    "ticketing",
    "Ticketing",
    "Confirms purchases and seats by email and push, and reminds of a show the day before.",
    _RULES,
    _TOPICS,
    _TEMPLATES,
    _EXAMPLES,
)
