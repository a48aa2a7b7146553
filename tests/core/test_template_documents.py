"""Templates as documents."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from dispatcher.problems import Problem
from dispatcher.template_documents import FIELDS, NewTemplate, parse_template, template_document
from dispatcher.template_includes import Layout

MAIL: dict[str, Any] = {
    "name": "purchase", "channel": "email", "locale": "pt_br", "subject": "{{ a }}", "body_template": "{{ a }}",
    "html_template": "<p>{{ a }}</p>", "variables": {"a": {"required": True}},
}  # fmt: skip
PUSH: dict[str, Any] = {
    "name": "purchase", "channel": "push", "locale": "en", "title": "x", "body_template": "x",
    "data": {"a.b-c": "{{ a }}", "e": ""}, "schema": {"type": "object", "properties": {"a": {"type": "string"}}},
}  # fmt: skip
WHATSAPP: dict[str, Any] = {
    "name": "purchase", "channel": "whatsapp", "locale": "en",
    "whatsapp": {"name": "order", "language": "en_US", "parameters": ["{{ a }}"]},
}  # fmt: skip
SMS: dict[str, Any] = {"name": "purchase", "channel": "sms", "locale": "en", "body_template": "x", "layout": "base"}
LAYOUTS = {"base": Layout("base", "{{ content }}", None, True)}


@pytest.mark.parametrize("document", [MAIL, PUSH, WHATSAPP, SMS, PUSH | {"draft": True}])
def test_a_document_gives_a_template_that_gives_the_document_again(document: dict[str, Any]) -> None:
    new = parse_template(document, LAYOUTS)
    assert isinstance(new, NewTemplate)

    shown = template_document(new.template())

    assert shown.keys() == set(FIELDS)
    assert parse_template(shown, LAYOUTS) == evolve(new, draft=False)
    given = {name: value for name, value in shown.items() if value is not None and value != {}}
    assert given | {"locale": document["locale"]} == {name: value for name, value in document.items() if name != "draft"}


@pytest.mark.parametrize(
    ("document", "pointers"),
    [
        (MAIL | {"data": {"a": 1}, "title": ""}, ["/title", "/data/a", "/data"]),
        (PUSH | {"variables": {"a": {}}}, ["/schema"]),
        (PUSH | {"schema": {"type": "array", "properties": 3}}, ["/schema/type", "/schema/properties"]),
        (PUSH | {"schema": {"type": "object", "x": "y" * 70_000}}, ["/schema", "/schema/x"]),
        (PUSH | {"schema": []}, ["/schema"]),
        (PUSH | {"schema": {"type": "object"}}, ["/data/a.b-c"]),
        (PUSH | {"data": {"a b": "x"}}, ["/data"]),
        (WHATSAPP | {"whatsapp": {"name": "order"}}, ["/whatsapp/language"]),
        (WHATSAPP | {"whatsapp": {"name": "A", "language": "en", "parameters": [1]}}, ["/whatsapp/parameters", "/whatsapp/name"]),
        (
            WHATSAPP | {"whatsapp": {"name": "A", "language": "", "parameters": ["{{"], "sender": "x"}},
            ["/whatsapp/language", "/whatsapp/sender", "/whatsapp/name", "/whatsapp/parameters/0"],
        ),
        (WHATSAPP | {"body_template": "x"}, ["/body_template"]),
        (SMS | {"layout": "nothing"}, ["/layout"]),
        (SMS | {"draft": "yes"}, ["/draft"]),
        (SMS | {"variables": {"a": 1}, "body_template": "{{ a }}{{"}, ["/variables/a", "/body_template"]),
        (SMS | {"variables": {"a": 1}, "body_template": "{{ a }}"}, ["/variables/a"]),
        ({}, ["/name", "/channel", "/locale", "/body_template", "/subject"]),
    ],
)
def test_every_fault_is_told_at_its_place(document: dict[str, Any], pointers: list[str]) -> None:
    problem = parse_template(document, LAYOUTS)

    assert isinstance(problem, Problem)
    assert [each.pointer for each in problem.errors or (problem,)] == pointers
