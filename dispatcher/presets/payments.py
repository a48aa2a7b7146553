"""Payments: a customer hears of a refund, whoever looks after the account of a chargeback.

Events: ``payments.refund.issued`` and ``payments.chargeback.opened``. A chargeback has a date until which it can be disputed, so
its topic is critical: nobody's preferences keep it back.
"""

from __future__ import annotations

from typing import Final

from dispatcher.presets.preset import MOMENT, MONEY, TEXT, Document, Example, Preset, mail, push, shape

_REFUND: Document = shape(
    {"payment_id": TEXT, "refund": MONEY}, customer=shape({}, id=TEXT, name=TEXT), order_id=TEXT, reason=TEXT, expected_on=MOMENT
)
_CHARGEBACK: Document = shape(
    {"payment_id": TEXT, "disputed": MONEY, "respond_by": MOMENT}, owner_ids={}, reason=TEXT, order_id=TEXT, url=TEXT
)

_RULES: dict[str, Document] = {
    "payments-refund": {
        "event": "payments.refund.issued",
        "topic": "payments-refunds",
        "recipients": [{"user": "data.customer.id"}],
        "send": [{"channel": "email", "template": "payments-refund"}, {"channel": "push", "template": "payments-refund"}],
    },
    "payments-chargeback": {
        "event": "payments.chargeback.opened",
        "topic": "payments-chargebacks",
        "recipients": [{"user": "data.owner_ids"}],
        "send": [
            {"channel": "email", "template": "payments-chargeback"},
            {"channel": "push", "template": "payments-chargeback"},
        ],
    },
}
_TOPICS: dict[str, Document] = {
    "payments-refunds": {"title": "Refunds", "default": ["email", "push"]},
    "payments-chargebacks": {"title": "Chargebacks", "critical": True},
}

_REFUNDED = "{{ refund.amount|money(refund.currency) }}"
_DISPUTED = "{{ disputed.amount|money(disputed.currency) }}"
_UNTIL = "{{ respond_by|date('long') }}"
_DATA = {"payment_id": "{{ payment_id }}"}

_TEMPLATES: list[Document] = [
    mail(
        "payments-refund",
        "en",
        _REFUND,
        f"We have refunded {_REFUNDED}",
        "Hello{% if customer.name is defined %} {{ customer.name }}{% endif %},",
        f"we have refunded {_REFUNDED}"
        "{% if order_id is defined %} of your order {{ order_id }}{% endif %}."
        "{% if reason is defined %} Reason: {{ reason }}.{% endif %}",
        "{% if expected_on is defined %}The money should be in your account by {{ expected_on|date('long') }}."
        "{% else %}It may take some days until the money is in your account.{% endif %}",
    ),
    mail(
        "payments-refund",
        "pt-BR",
        _REFUND,
        f"Reembolsamos {_REFUNDED}",
        "Olá{% if customer.name is defined %}, {{ customer.name }}{% endif %}!",
        f"Reembolsamos {_REFUNDED}"
        "{% if order_id is defined %} do seu pedido {{ order_id }}{% endif %}."
        "{% if reason is defined %} Motivo: {{ reason }}.{% endif %}",
        "{% if expected_on is defined %}O valor deve estar na sua conta até {{ expected_on|date('long') }}."
        "{% else %}Pode levar alguns dias até o valor aparecer na sua conta.{% endif %}",
    ),
    push("payments-refund", "en", _REFUND, "Refund issued", f"{_REFUNDED} is on its way to you.", _DATA),
    push("payments-refund", "pt-BR", _REFUND, "Reembolso emitido", f"{_REFUNDED} está a caminho.", _DATA),
    mail(
        "payments-chargeback",
        "en",
        _CHARGEBACK,
        f"Chargeback of {_DISPUTED}: respond by {_UNTIL}",
        f"A customer has disputed a payment of {_DISPUTED}.",
        "Payment: {{ payment_id }}{% if order_id is defined %}\nOrder: {{ order_id }}{% endif %}"
        "{% if reason is defined %}\nReason given: {{ reason }}{% endif %}",
        f"You can respond until {_UNTIL}.{{% if url is defined %}} {{{{ url }}}}{{% endif %}}",
    ),
    mail(
        "payments-chargeback",
        "pt-BR",
        _CHARGEBACK,
        f"Chargeback de {_DISPUTED}: responda até {_UNTIL}",
        f"Um cliente contestou um pagamento de {_DISPUTED}.",
        "Pagamento: {{ payment_id }}{% if order_id is defined %}\nPedido: {{ order_id }}{% endif %}"
        "{% if reason is defined %}\nMotivo informado: {{ reason }}{% endif %}",
        f"Você pode responder até {_UNTIL}.{{% if url is defined %}} {{{{ url }}}}{{% endif %}}",
    ),
    push("payments-chargeback", "en", _CHARGEBACK, f"Chargeback of {_DISPUTED}", f"Respond by {_UNTIL}.", _DATA),
    push("payments-chargeback", "pt-BR", _CHARGEBACK, f"Chargeback de {_DISPUTED}", f"Responda até {_UNTIL}.", _DATA),
]

_EXAMPLES = (
    Example(
        {
            "type": "payments.refund.issued",
            "data": {
                "payment_id": "p-77",
                "order_id": "A-1001",
                "customer": {"id": "user-1", "name": "Ana"},
                "refund": {"amount": "120.00", "currency": "BRL"},
                "expected_on": "2030-03-08",
            },
        },
        frozenset({("payments-refund", "user-1", "email"), ("payments-refund", "user-1", "push")}),
    ),
    Example(
        {
            "type": "payments.chargeback.opened",
            "data": {
                "payment_id": "p-78",
                "owner_ids": ["user-1", "user-2"],
                "disputed": {"amount": 89.9, "currency": "USD"},
                "reason": "not recognized",
                "respond_by": "2030-03-20",
                "url": "https://example.com/disputes/78",
            },
        },
        frozenset({("payments-chargeback", user, channel) for user in ("user-1", "user-2") for channel in ("email", "push")}),
    ),
)

PAYMENTS: Final = Preset(
    "payments",
    "Payments",
    "Tells customers of refunds, and whoever is responsible of chargebacks with the date until which they can be disputed.",
    _RULES,
    _TOPICS,
    _TEMPLATES,
    _EXAMPLES,
)
