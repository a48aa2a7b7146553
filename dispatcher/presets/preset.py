"""What a preset is: a set-up for one neighbouring domain, with events that show what comes of it.

A preset is installed as a set-up document (``dispatcher.bundle``) and from then on belongs to the organization, which may change
it like anything of its own. Invariant: a preset names nothing that it does not bring along, and all it brings begins with its
own words, so two presets never claim the same name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from dispatcher.bundle import KEY_FIELDS, TEMPLATE, Contents, Key, canonical, read_bundle

Document = dict[str, Any]


@frozen
class Example:
    """An event as a neighbouring system sends it, and what comes of it: rule, user or address, channel."""

    event: Mapping[str, Any]
    gives: frozenset[tuple[str, str, str]]

    def document(self) -> Document:
        """As it is shown."""
        given = [{"rule": rule, "recipient": who, "channel": channel} for rule, who, channel in sorted(self.gives)]
        return {"event": dict(self.event), "gives": given}


@frozen
class Preset:
    """One of them. ``rules`` and ``topics`` are documents by name; templates have the fields they are handed in with."""

    name: str
    title: str
    description: str
    rules: Mapping[str, Document] = field(repr=False)
    topics: Mapping[str, Document] = field(repr=False)
    templates: Sequence[Document] = field(repr=False)
    examples: Sequence[Example] = field(repr=False)

    def bundle(self) -> Document:
        """All of it as a set-up document."""
        return {"rules": dict(self.rules), "topics": dict(self.topics), "templates": list(self.templates)}

    def summary(self) -> Document:
        """What a list of presets says of it."""
        templates: dict[tuple[str, str], list[str]] = {}
        for template in self.templates:
            templates.setdefault((template["name"], template["channel"]), []).append(template["locale"])
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "events": sorted({rule["event"] for rule in self.rules.values()}),
            "rules": sorted(self.rules),
            "topics": sorted(self.topics),
            "templates": [
                {"name": name, "channel": channel, "locales": sorted(locales)} for (name, channel), locales in templates.items()
            ],
        }


def addition(preset: Preset, current: Contents, *, overwrite: bool) -> tuple[Document, list[Key]]:
    """The document that installs a preset into a set-up, and what the organization has there that it leaves as it is.

    What the organization has changed, or had under the same name before, is left alone unless it is to be overwritten.
    """
    document = preset.bundle()
    bundle, _ = read_bundle(document)
    changed = {key for key, body in bundle.contents.items() if key in current and not _same(key, current[key], body)}
    if overwrite or not changed:
        return document, []
    names = {key.name for key in changed if key.kind != TEMPLATE}
    return {
        "rules": {name: body for name, body in preset.rules.items() if name not in names},
        "topics": {name: body for name, body in preset.topics.items() if name not in names},
        "templates": [one for one in preset.templates if Key(TEMPLATE, *(one[name] for name in KEY_FIELDS)) not in changed],
    }, sorted(changed)


def _same(key: Key, current: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Whether it is what the preset brings. Of a template, fields that say nothing may be there or not."""
    if key.kind != TEMPLATE:
        return canonical(dict(current)) == canonical(dict(ours))
    return canonical(_telling(current)) == canonical(_telling(ours))


def _telling(body: Mapping[str, Any]) -> Document:
    return {name: value for name, value in body.items() if value not in (None, {}, [])}


# Templates


def mail(name: str, locale: str, schema: Document, subject: str, *paragraphs: str) -> Document:
    """An email whose text and HTML say the same."""
    html = "\n".join("<p>{}</p>".format(paragraph.strip().replace("\n", "<br>\n")) for paragraph in paragraphs)
    return {
        "name": name,
        "channel": "email",
        "locale": locale,
        "subject": subject,
        "body_template": "\n\n".join(paragraphs) + "\n",
        "html_template": f'<!doctype html>\n<html lang="{locale}">\n<body>\n{html}\n</body>\n</html>\n',
        "schema": schema,
    }


def push(name: str, locale: str, schema: Document, title: str, text: str, data: Mapping[str, str]) -> Document:
    """A push message. ``data`` is for the app, and is not shown."""
    found = {"name": name, "channel": "push", "locale": locale, "title": title, "body_template": text}
    return {**found, "data": dict(data), "schema": schema}


def sms(name: str, locale: str, schema: Document, text: str) -> Document:
    """A text message."""
    return {"name": name, "channel": "sms", "locale": locale, "body_template": text, "schema": schema}


# Schemas of what templates use of an event

TEXT: Document = {"type": "string", "minLength": 1}
MOMENT: Document = {"type": "string", "minLength": 10, "description": "RFC 3339, such as 2026-03-01T20:00:00-03:00"}
MONEY: Document = {
    "type": "object",
    "properties": {"amount": {"type": ["number", "string"]}, "currency": {"type": "string", "minLength": 3, "maxLength": 3}},
    "required": ["amount", "currency"],
}
COUNT: Document = {"type": "integer", "minimum": 0}


def shape(required: Mapping[str, Document], **optional: Document) -> Document:
    """A schema of an object with these members. It may have more, which the templates do not use."""
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def items(of: Document) -> Document:
    """A schema of a list with at least one of these."""
    return {"type": "array", "items": of, "minItems": 1}
