"""Reporting: a scheduled report is sent to whoever asked for it, as an attachment or as a link, in the bulk lane.

Event: ``reporting.report.ready``. A report with a ``content`` (base64) is attached; one with a ``url`` is linked.
"""

from __future__ import annotations

from typing import Final

from dispatcher.presets.preset import MOMENT, TEXT, Document, Example, Preset, mail, shape

_PERIOD: Document = shape({"from": MOMENT, "to": MOMENT})
_FIELDS: dict[str, Document] = {"title": TEXT, "period": _PERIOD}
_ATTACHED: Document = shape(
    {"report": shape({**_FIELDS, "filename": TEXT}, content_type=TEXT, content=TEXT, url=TEXT)}, subscriber_ids={}
)
_LINKED: Document = shape({"report": shape({**_FIELDS, "url": TEXT}, filename=TEXT)}, subscriber_ids={})

_FILES = (
    "[{'filename': data.report.filename, 'content_type': data.report.content_type|default('application/octet-stream'),"
    " 'content': data.report.content}]"
)
_COMMON: Document = {
    "event": "reporting.report.ready",
    "topic": "reporting-reports",
    "lane": "bulk",
    "recipients": [{"user": "data.subscriber_ids"}],
    "expires_in_s": 259_200,
}
_RULES: dict[str, Document] = {
    "reporting-attached": {
        **_COMMON,
        "when": "data.report.content is string",
        "send": [{"channel": "email", "template": "reporting-attached", "attachments": _FILES}],
    },
    "reporting-linked": {
        **_COMMON,
        "when": "data.report.content is undefined",
        "send": [{"channel": "email", "template": "reporting-linked"}],
    },
}
_TOPICS: dict[str, Document] = {"reporting-reports": {"title": "Scheduled reports", "default": ["email"]}}

_FROM_TO = "{{ report.period.from|date('medium') }} – {{ report.period.to|date('medium') }}"

_TEMPLATES: list[Document] = [
    mail(
        "reporting-attached",
        "en",
        _ATTACHED,
        f"{{{{ report.title }}}}, {_FROM_TO}",
        f"Your report “{{{{ report.title }}}}” for {_FROM_TO} is attached to this mail.",
        "File: {{ report.filename }}",
    ),
    mail(
        "reporting-attached",
        "pt-BR",
        _ATTACHED,
        f"{{{{ report.title }}}}, {_FROM_TO}",
        f"Seu relatório “{{{{ report.title }}}}” de {_FROM_TO} está anexado a este e-mail.",
        "Arquivo: {{ report.filename }}",
    ),
    mail(
        "reporting-linked",
        "en",
        _LINKED,
        f"{{{{ report.title }}}}, {_FROM_TO}",
        f"Your report “{{{{ report.title }}}}” for {_FROM_TO} is ready.",
        "{{ report.url }}",
    ),
    mail(
        "reporting-linked",
        "pt-BR",
        _LINKED,
        f"{{{{ report.title }}}}, {_FROM_TO}",
        f"Seu relatório “{{{{ report.title }}}}” de {_FROM_TO} está pronto.",
        "{{ report.url }}",
    ),
]

_EXAMPLE_REPORT = {"title": "Sales by week", "period": {"from": "2030-02-22", "to": "2030-02-28"}}
_EXAMPLES = (
    Example(
        {
            "type": "reporting.report.ready",
            "data": {
                "subscriber_ids": ["user-1", "user-2"],
                "report": {
                    **_EXAMPLE_REPORT,
                    "filename": "sales-2030-02.csv",
                    "content_type": "text/csv",
                    "content": "d2VlayxzYWxlcwo5LDEyMDAK",
                },
            },
        },
        frozenset({("reporting-attached", "user-1", "email"), ("reporting-attached", "user-2", "email")}),
    ),
    Example(
        {
            "type": "reporting.report.ready",
            "data": {
                "subscriber_ids": ["user-1"],
                "report": {**_EXAMPLE_REPORT, "url": "https://example.com/reports/9"},
            },
        },
        frozenset({("reporting-linked", "user-1", "email")}),
    ),
)

REPORTING: Final = Preset(
    "reporting",
    "Reporting",
    "Sends scheduled reports to their subscribers, attached or linked, in the lane that lets everything else go first.",
    _RULES,
    _TOPICS,
    _TEMPLATES,
    _EXAMPLES,
)
