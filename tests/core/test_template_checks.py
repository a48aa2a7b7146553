"""What must hold before templates and layouts come into force."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from dispatcher.model import Channel, OrganizationId, Template
from dispatcher.template_checks import dependents_broken, incomplete, needs_library, template_faults, worsened
from dispatcher.template_includes import Layout

SMS = Template("t1", OrganizationId("acme"), "purchase", Channel.SMS, "en", 1, None, "Hello {{ name }}", None, {})
MAIL = evolve(SMS, channel=Channel.EMAIL, subject="Hi {{ name }}", html_template="<p>{{ name }}</p>")
PUSH = evolve(SMS, channel=Channel.PUSH, parts={"title": "x", "data": {"a": "x"}})
WHATSAPP = evolve(SMS, channel=Channel.WHATSAPP, body_template="", parts={"whatsapp": {"name": "a", "language": "en"}})
CLOSED = {
    "type": "object",
    "properties": {"name": {"type": "object", "properties": {"first": True}, "additionalProperties": False}},
}
LAYOUTS = {
    "footer": Layout("footer", "-- {{ company }}", None),
    "base": Layout("base", '{{ content }}{% include "footer" %}', None, True, frozenset({"footer"})),
}


def told(template: Template, **layouts: Layout) -> list[tuple[str | None, str]]:
    return [(fault.pointer, fault.code) for fault in template_faults(template, layouts)]


@pytest.mark.parametrize(
    ("template", "faults"),
    [
        (SMS, []),
        (MAIL, []),
        (PUSH, []),
        (WHATSAPP, []),
        (
            evolve(MAIL, subject="{{", body_template="{{ a|b }}", html_template="{{ a ** b }}"),
            [
                ("/subject", "template_syntax"),
                ("/body_template", "template_filter_unknown"),
                ("/html_template", "template_construct_forbidden"),
            ],
        ),
        (evolve(PUSH, parts={"data": {"a": "{{"}}), [("/data/a", "template_syntax")]),
        (evolve(SMS, parts={"title": "{{"}), [("/title", "template_part_forbidden")]),
        (
            evolve(WHATSAPP, parts={"whatsapp": {"name": "A B", "language": "x", "parameters": ["{{"]}}),
            [
                ("/whatsapp/name", "field_invalid"),
                ("/whatsapp/language", "field_invalid"),
                ("/whatsapp/parameters/0", "template_syntax"),
            ],
        ),
        (evolve(SMS, parts={"layout": "base"}), [("/layout", "template_layout_unknown")]),
        (evolve(SMS, body_template='{% include "x" %}'), [("/body_template", "template_include_unknown")]),
        (evolve(SMS, variables={"order": {}}), [("/body_template", "template_variable_undeclared")]),
        (evolve(SMS, body_template="{{ order }}", schema=CLOSED), [("/body_template", "template_variable_undeclared")]),
        (evolve(SMS, body_template="{{ name.last }}", schema=CLOSED), [("/body_template", "template_variable_undeclared")]),
        (evolve(SMS, body_template="{{ name.first }}", schema=CLOSED), []),
        (evolve(SMS, body_template="{% set name = [1] %}{{ name.last }}", schema=CLOSED), []),
        (evolve(SMS, schema={"type": "object", "x": 1, "y": 1}), [(f"/schema/{x}", "template_schema_invalid") for x in "xy"]),
    ],
)  # fmt: skip
def test_every_fault_of_a_template_is_told_at_its_place(template: Template, faults: list[tuple[str, str]]) -> None:
    assert told(template) == faults


def test_what_a_layout_uses_has_to_be_declared_as_well() -> None:
    template = evolve(SMS, parts={"layout": "base"}, variables={"name": {}})

    assert told(template, **LAYOUTS) == [("/body_template", "template_variable_undeclared")]
    assert told(evolve(template, variables={"name": {}, "company": {}}), **LAYOUTS) == []


def test_without_a_library_a_template_is_checked_by_itself() -> None:
    template = evolve(SMS, body_template='{% include "x" %}{{ a ** b }}', parts={"layout": "base"})

    assert [fault.code for fault in template_faults(template, None)] == ["template_construct_forbidden"]


@pytest.mark.parametrize(
    ("templates", "missing"),
    [
        ([MAIL], []),
        ([MAIL, evolve(MAIL, locale="pt")], []),
        ([MAIL, evolve(MAIL, locale="pt", html_template=None)], [("/html_template", "pt")]),
        ([PUSH, evolve(PUSH, locale="pt", parts={"data": {"b": "x"}})], [("/data/b", "en"), ("/data/a", "pt"), ("/title", "pt")]),
        (
            [WHATSAPP, evolve(SMS, channel=Channel.WHATSAPP, locale="pt")],
            [("/body_template", "en"), ("/whatsapp", "pt")],
        ),
    ],
)
def test_every_locale_has_to_have_every_part(templates: list[Template], missing: list[tuple[str, str]]) -> None:
    faults = [fault for _, fault in incomplete(templates)]

    assert [(fault.pointer, fault.code) for fault in faults] == [(pointer, "template_part_incomplete") for pointer, _ in missing]
    assert all(f"'{locale}'" in fault.detail for fault, (_, locale) in zip(faults, missing, strict=True))


PLAIN = evolve(MAIL, html_template=None)


@pytest.mark.parametrize(
    ("new", "in_force", "pointers"),
    [
        (MAIL, [], []),
        (MAIL, [PLAIN], []),
        (MAIL, [evolve(MAIL, locale="pt")], []),
        (PLAIN, [evolve(MAIL, locale="pt")], ["/html_template"]),
        (MAIL, [evolve(PLAIN, locale="pt")], ["/html_template"]),
        (MAIL, [PLAIN, evolve(PLAIN, locale="pt")], ["/html_template"]),
        (PLAIN, [MAIL, evolve(MAIL, locale="pt"), evolve(MAIL, locale="de")], ["/html_template"] * 2),
        # What was incomplete before may be mended, or left as it is.
        (PLAIN, [PLAIN, evolve(MAIL, locale="pt")], []),
        (MAIL, [MAIL, evolve(PLAIN, locale="pt")], []),
        (MAIL, [PLAIN, evolve(MAIL, locale="pt")], []),
    ],
)
def test_one_locale_alone_can_not_leave_the_others(new: Template, in_force: list[Template], pointers: list[str]) -> None:
    assert [fault.pointer for fault in worsened(new, in_force)] == pointers


def test_a_change_of_a_layout_that_breaks_nothing_is_fine() -> None:
    uses = evolve(SMS, parts={"layout": "base"})

    assert dependents_broken(LAYOUTS, [SMS, MAIL, uses]) is None
    assert dependents_broken({}, [SMS, MAIL]) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"footer": None}, ["The layout 'base'", "The template 'uses'", "The template 'includes'"]),
        ({"base": None}, ["The template 'uses'"]),
        ({"base": Layout("base", "no place for it", None)}, ["The template 'uses'"]),
        (
            {"footer": Layout("footer", '{% include "base" %}', None, includes=frozenset({"base"}))},
            ["The layout 'base'", "The layout 'footer'", "The template 'uses'", "The template 'includes'"],
        ),
        ({"footer": Layout("footer", "{{ undeclared }}", None)}, ["The template 'uses'", "The template 'includes'"]),
        ({"own": Layout("own", '{% include "own" %}', None, includes=frozenset({"own"}))}, ["The layout 'own'"]),
    ],
)
def test_what_a_change_of_a_layout_would_break_is_named(changes: dict[str, Layout | None], named: list[str]) -> None:
    after: dict[str, Any] = {name: layout for name, layout in (LAYOUTS | changes).items() if layout is not None}
    declared = evolve(SMS, variables={"name": {}, "company": {}})
    uses = evolve(declared, name="uses", parts={"layout": "base"})
    includes = evolve(declared, name="includes", body_template='{% include "footer" %}')

    problem = dependents_broken(after, [SMS, uses, includes])

    assert problem is not None
    assert (problem.status, problem.code) == (409, "layout_in_use")
    assert [fault.detail.partition(" would")[0].partition(" (")[0] for fault in problem.errors] == named


def test_only_what_can_use_the_library_is_compiled() -> None:
    assert not needs_library(MAIL)
    assert needs_library(evolve(MAIL, html_template='{% include "a" %}'))
    assert needs_library(evolve(PUSH, parts={"data": {"a": '{%-include "a"%}'}}))
    assert needs_library(evolve(MAIL, parts={"layout": "a"}))
