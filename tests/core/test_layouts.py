"""Layouts as they are handed in."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.definitions import Definition, Kind
from dispatcher.layouts import Layout, library_of, parse_layout
from dispatcher.problems import Problem


def test_one_with_a_place_for_the_content_wraps_and_one_without_is_included() -> None:
    base = parse_layout("base", {"text": "{{ content }}\n-- {{ a }}", "html": "<p>{{ content }}</p>", "description": "All mails"})
    footer = parse_layout("footer", {"html": '<hr>{% include "address" %}'})

    assert isinstance(base, Layout)
    assert isinstance(footer, Layout)
    assert (base.wraps, base.includes) == (True, frozenset())
    assert (footer.wraps, footer.includes, footer.text) == (False, frozenset({"address"}), None)


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, [""]),
        ({"text": "x", "colour": 1}, ["/colour"]),
        ({"text": 1, "html": "{{"}, ["/text", "/html"]),
        ({"text": "{{ ''.__class__ }}", "html": "{% macro a() %}{% endmacro %}"}, ["/text", "/html"]),
        ({"text": "{{ content }}", "html": "<p>"}, [""]),
        ({"text": "{{ content }}{{ content }}"}, ["/text"]),
        ({"text": "{% include name %}"}, ["/text"]),
        ({"text": "x" * 200_000}, ["/text"]),
    ],
)
def test_all_faults_are_told_at_once(body: dict[str, Any], pointers: list[str]) -> None:
    problem = parse_layout("base", body)

    assert isinstance(problem, Problem)
    assert [each.pointer for each in problem.errors or (problem,)] == pointers


def test_a_name_is_one_that_can_be_written() -> None:
    assert isinstance(parse_layout("a" * 65, {"text": "x"}), Problem)
    assert isinstance(parse_layout("a\nb", {"text": "x"}), Problem)


def test_a_library_has_the_layouts_that_can_be_read() -> None:
    definitions = [
        Definition(Kind.LAYOUT, "footer", {"text": "x"}),
        Definition(Kind.LAYOUT, "broken", {"text": "{{"}),
        Definition(Kind.TOPIC, "news", {}),
    ]

    assert library_of(definitions).keys() == {"footer"}
