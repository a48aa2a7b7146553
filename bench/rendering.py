"""What does rendering cost: CPU per notification and channel, ``python -m bench rendering``.

The templates of the shipped presets, whose schemas are checked too, with the data of their own example events, in English (where
amounts and dates are formatted all the same), in Brazilian Portuguese, and with a template whose words come from a catalogue; a
plain template without any of that is for comparison. All in turns, one process, CPU time only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click
from attrs import define, field

from bench.rig import spread
from dispatcher.definitions import Definition, Kind
from dispatcher.localization import Localization
from dispatcher.presets import PRESETS
from dispatcher.problems import Problem
from dispatcher.setup import Setup
from dispatcher.template_documents import parse_template
from dispatcher.templates import CompiledTemplate

ZONE = "America/Sao_Paulo"
_PLAIN = {
    "name": "plain",
    "channel": "email",
    "locale": "en",
    "subject": "Your tickets for {{ event }}",
    "body_template": "Hello {{ name }}, thank you. {% for seat in seats %}{{ seat }}; {% endfor %}Paid: {{ total }}.",
    "html_template": "<p>Hello {{ name }}, thank you.</p><ul>{% for seat in seats %}<li>{{ seat }}</li>{% endfor %}</ul>",
}
_WORDS = {"name": "Ana", "event": "The Nocturnes", "seats": ["Row 4, seat 7", "Row 4, seat 8"], "total": "70.00 EUR"}
_WHATSAPP = {
    "name": "seats",
    "channel": "whatsapp",
    "locale": "en",
    "whatsapp": {"name": "seats_booked", "language": "en_US", "parameters": ["{{ name }}", "{{ seats|length }}", "{{ total }}"]},
}
_TRANSLATED = {
    "name": "words",
    "channel": "sms",
    "locale": "en",
    "body_template": "{{ 'thanks'|t(name=name, count=seats|length) }}",
}
_CATALOGUES = {
    "en": {"one": "Thank you {name}: {count} seat is yours.", "other": "Thank you {name}: {count} seats are yours."},
    "pt": {
        "one": "Obrigado, {name}: {count} lugar é seu.",
        "many": "Obrigado, {name}: {count} de lugares são seus.",
        "other": "Obrigado, {name}: {count} lugares são seus.",
    },
}


@define
class Subject:
    """One template with what it is rendered with; microseconds of CPU per rendering, one value a round."""

    name: str
    template: CompiledTemplate = field(repr=False)
    variables: Mapping[str, Any] = field(repr=False)
    localization: Localization = field(repr=False)
    costs_us: list[float] = field(factory=list)

    def run(self, count: int) -> float:
        """CPU µs of one rendering, over ``count`` of them."""
        began_s = time.process_time()
        for _ in range(count):
            self.template.render_payload(self.variables, self.localization)
        return (time.process_time() - began_s) * 1e6 / count


def compiled(document: Mapping[str, Any]) -> CompiledTemplate:
    """A template as it is handed in, ready to render."""
    parsed = parse_template(document)
    if isinstance(parsed, Problem):
        raise SystemExit(f"{document['name']}: {parsed.detail}")
    return CompiledTemplate.of(parsed.template())


def subjects() -> list[Subject]:
    """Everything that is measured."""
    catalogues = [
        Definition(Kind.CATALOGUE, locale, {"messages": {"thanks": {"plural": forms}}}) for locale, forms in _CATALOGUES.items()
    ]
    setup = Setup.of("en", catalogues)
    if setup.faults:
        raise SystemExit(f"a catalogue is wrong: {setup.faults[0].problem.detail}")
    found = [Subject("email, plain", compiled(_PLAIN), _WORDS, Localization("en"))]
    for preset, name, channel in (
        ("ticketing", "ticketing-purchase", "email"),
        ("ticketing", "ticketing-purchase", "push"),
        ("integrations", "integrations-alert", "sms"),
    ):
        rule = next(rule["event"] for rule in PRESETS[preset].rules.values() if rule["send"][0]["template"] == name)
        data = next(example.event["data"] for example in PRESETS[preset].examples if example.event["type"] == rule)
        for document in PRESETS[preset].templates:
            if (document["name"], document["channel"]) == (name, channel):
                locale = document["locale"]
                found.append(Subject(f"{channel}, {name}, {locale}", compiled(document), data, Localization(locale, ZONE)))
    found.append(Subject("whatsapp, provider's template", compiled(_WHATSAPP), _WORDS, Localization("en")))
    found.extend(
        Subject(f"sms, from a catalogue, {tag}", compiled(_TRANSLATED), _WORDS, setup.localization(tag))
        for tag in ("en", "pt-BR")
    )
    return found


def main(*, rounds: int, count: int) -> None:
    """Measure in turns and print the table."""
    everything = subjects()
    for subject in everything:
        subject.run(count // 10 + 1)  # Babel reads a locale's data when it first formats for it
    for _ in range(rounds):
        for subject in everything:
            subject.costs_us.append(subject.run(count))
    print(f"\nRendering: CPU µs per notification, median [least - most] of {rounds} rounds of {count:,}")
    for subject in everything:
        print(f"{subject.name:<42}{spread(subject.costs_us):>22}")


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--count", default=2_000, show_default=True, help="Renderings of one turn.")
def command(rounds: int, count: int) -> None:
    """Measure what rendering costs, by channel and language."""
    main(rounds=rounds, count=count)
