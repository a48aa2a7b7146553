"""Integrations: whoever owns one is alerted when it fails and told when it works again; warnings are gathered for an hour.

Events: ``integrations.alert.raised`` with a severity (``warning``, ``error`` or ``critical``), ``integrations.alert.resolved``.
Alerts are critical: they come at any hour, whatever anybody prefers.
"""

from __future__ import annotations

from typing import Final

from dispatcher.presets.preset import COUNT, MOMENT, TEXT, Document, Example, Preset, items, mail, shape, sms

_INTEGRATION: Document = shape({"id": TEXT, "name": TEXT})
_ALERT: Document = shape(
    {"integration": _INTEGRATION, "severity": TEXT, "summary": TEXT}, owner_ids={}, raised_at=MOMENT, details=TEXT, url=TEXT
)
_RESOLVED: Document = shape(
    {"integration": _INTEGRATION, "summary": TEXT}, owner_ids={}, resolved_at=MOMENT, details=TEXT, url=TEXT
)
_WARNINGS: Document = shape(
    {"integration": _INTEGRATION, "items": items(shape({"summary": TEXT})), "count": COUNT},
    **{name: {} for name in ("owner_ids", "severity", "summary", "raised_at", "details", "url")},
)

_RULES: dict[str, Document] = {
    "integrations-alert": {
        "event": "integrations.alert.raised",
        "when": "data.severity in ['error', 'critical']",
        "topic": "integrations-alerts",
        "recipients": [{"user": "data.owner_ids"}],
        "send": [{"channel": "email", "template": "integrations-alert"}, {"channel": "sms", "template": "integrations-alert"}],
        "expires_in_s": 86_400,
    },
    "integrations-resolved": {
        "event": "integrations.alert.resolved",
        "topic": "integrations-alerts",
        "recipients": [{"user": "data.owner_ids"}],
        "send": [{"channel": "email", "template": "integrations-resolved"}],
    },
    "integrations-warnings": {
        "event": "integrations.alert.raised",
        "when": "data.severity == 'warning'",
        "topic": "integrations-warnings",
        "recipients": [{"user": "data.owner_ids"}],
        "send": [{"channel": "email", "template": "integrations-warnings"}],
        "digest": {"window_s": 3_600, "key": "data.integration.id"},
    },
}
_TOPICS: dict[str, Document] = {
    "integrations-alerts": {"title": "Alerts of integrations", "critical": True, "default": ["email", "sms"]},
    "integrations-warnings": {"title": "Warnings of integrations", "default": ["email"]},
}

_MORE = "{% if details is defined %}\n{{ details }}{% endif %}{% if url is defined %}\n{{ url }}{% endif %}"
_LISTED = "{% for item in items %}- {{ item.summary }}{% if not loop.last %}\n{% endif %}{% endfor %}"

_TEMPLATES: list[Document] = [
    mail(
        "integrations-alert",
        "en",
        _ALERT,
        "[{{ severity|upper }}] {{ integration.name }}: {{ summary|truncate(120) }}",
        "{{ integration.name }} needs attention.",
        "{{ summary }}{% if raised_at is defined %}\nSince {{ raised_at|datetime('short') }}{% endif %}" + _MORE,
    ),
    mail(
        "integrations-alert",
        "pt-BR",
        _ALERT,
        "[{{ severity|upper }}] {{ integration.name }}: {{ summary|truncate(120) }}",
        "{{ integration.name }} precisa de atenção.",
        "{{ summary }}{% if raised_at is defined %}\nDesde {{ raised_at|datetime('short') }}{% endif %}" + _MORE,
    ),
    sms("integrations-alert", "en", _ALERT, "{{ severity|upper }} {{ integration.name }}: {{ summary|truncate(100) }}"),
    sms("integrations-alert", "pt-BR", _ALERT, "{{ severity|upper }} {{ integration.name }}: {{ summary|truncate(100) }}"),
    mail(
        "integrations-resolved",
        "en",
        _RESOLVED,
        "Resolved: {{ integration.name }}: {{ summary|truncate(120) }}",
        "{{ integration.name }} works again.",
        "{{ summary }}{% if resolved_at is defined %}\nResolved {{ resolved_at|datetime('short') }}{% endif %}" + _MORE,
    ),
    mail(
        "integrations-resolved",
        "pt-BR",
        _RESOLVED,
        "Resolvido: {{ integration.name }}: {{ summary|truncate(120) }}",
        "{{ integration.name }} voltou a funcionar.",
        "{{ summary }}{% if resolved_at is defined %}\nResolvido em {{ resolved_at|datetime('short') }}{% endif %}" + _MORE,
    ),
    mail(
        "integrations-warnings",
        "en",
        _WARNINGS,
        "{{ integration.name }}: {{ count }} {{ count|plural('warnings', one='warning') }}",
        "{{ integration.name }} has reported in the last hour:",
        _LISTED,
    ),
    mail(
        "integrations-warnings",
        "pt-BR",
        _WARNINGS,
        "{{ integration.name }}: {{ count }} {{ count|plural('avisos', one='aviso') }}",
        "{{ integration.name }} informou na última hora:",
        _LISTED,
    ),
]


def _raised(severity: str) -> Document:
    return {
        "type": "integrations.alert.raised",
        "data": {
            "integration": {"id": "erp", "name": "ERP export"},
            "severity": severity,
            "summary": "Orders could not be exported for 15 minutes",
            "raised_at": "2030-03-01T09:15:00Z",
            "owner_ids": ["user-1", "user-2"],
            "url": "https://example.com/integrations/erp",
        },
    }


_EXAMPLES = (
    Example(
        _raised("critical"),
        frozenset({("integrations-alert", user, channel) for user in ("user-1", "user-2") for channel in ("email", "sms")}),
    ),
    Example(_raised("warning"), frozenset({("integrations-warnings", user, "email") for user in ("user-1", "user-2")})),
    Example(
        {
            "type": "integrations.alert.resolved",
            "data": {
                "integration": {"id": "erp", "name": "ERP export"},
                "summary": "Orders are exported again",
                "owner_ids": "user-1",
                "resolved_at": "2030-03-01T10:00:00Z",
            },
        },
        frozenset({("integrations-resolved", "user-1", "email")}),
    ),
)

INTEGRATIONS: Final = Preset(
    "integrations",
    "Integrations",
    "Alerts the owners of an integration by email and SMS at any hour, and gathers warnings for an hour.",
    _RULES,
    _TOPICS,
    _TEMPLATES,
    _EXAMPLES,
)
