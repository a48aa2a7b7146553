"""Templates as parts of a set-up: the same fields as when one is handed in, without those that tell it from the others.

Invariant: a body made of a template, and a template made of that body, are handed in, stored and compared alike: what a template
does not have is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dispatcher.bundle import KEY_FIELDS, TEMPLATE, Key
from dispatcher.model import Channel, Template
from dispatcher.template_documents import NewTemplate, template_document

_PARTS = ("title", "data", "whatsapp", "layout")


def key_of(template: Template) -> Key:
    """What tells a template from the others."""
    return Key(TEMPLATE, template.name, template.channel.value, template.locale)


def body_of(template: Template) -> dict[str, Any]:
    """The rest of it."""
    document = template_document(template)
    return {name: value for name, value in document.items() if name not in KEY_FIELDS and value not in (None, {})}


def new_of(key: Key, body: Mapping[str, Any]) -> NewTemplate:
    """The template that :func:`body_of` made this body of, as it is handed in."""
    return NewTemplate(
        key.name,
        Channel(key.channel),
        key.locale,
        body.get("subject"),
        body.get("body_template") or "",
        body.get("html_template"),
        body.get("variables", {}),
        {name: body[name] for name in _PARTS if name in body},
        body.get("schema"),
    )
