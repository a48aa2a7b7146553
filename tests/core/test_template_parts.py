"""The parts of a template on each channel, and the payloads they make."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from attrs import evolve

from dispatcher.acceptance import CONTENT_FIELDS, AcceptLimits, Item, parse_item
from dispatcher.model import Channel, OrganizationId, Template
from dispatcher.template_includes import Layout
from dispatcher.template_limits import Limits
from dispatcher.template_parts import part_names
from dispatcher.templates import CompiledTemplate, TemplateError, VariablesRefused, payload_size

TEXT = Template("t1", OrganizationId("acme"), "purchase", Channel.SMS, "en", 3, None, "Hello {{ name }}", None, {})
MAIL = evolve(TEXT, channel=Channel.EMAIL, subject="Hi {{ name }}", html_template="<p>{{ name }}</p>")
PUSH = evolve(TEXT, channel=Channel.PUSH, parts={"title": "Hi {{ name }}", "data": {"order": "{{ order }}", "kind": "purchase"}})
PROVIDERS = {"name": "order_update", "language": "pt_BR", "parameters": ["{{ name }}", "Order {{ order }}"]}
WHATSAPP = evolve(TEXT, channel=Channel.WHATSAPP, body_template="", parts={"whatsapp": PROVIDERS})
VARIABLES = {"name": "Ann", "order": 7}
RECIPIENTS = {
    Channel.EMAIL: "a@example.org",
    Channel.PUSH: "token",
    Channel.SMS: "+15551234567",
    Channel.WHATSAPP: "+15551234567",
}


@pytest.mark.parametrize(
    ("template", "payload"),
    [
        (TEXT, {"text": "Hello Ann"}),
        (MAIL, {"subject": "Hi Ann", "text": "Hello Ann", "html": "<p>Ann</p>"}),
        (PUSH, {"title": "Hi Ann", "text": "Hello Ann", "data": {"order": "7", "kind": "purchase"}}),
        (evolve(PUSH, parts={}), {"text": "Hello Ann"}),
        (WHATSAPP, {"template": {"name": "order_update", "language": "pt_BR", "parameters": ["Ann", "Order 7"]}}),
        (
            evolve(WHATSAPP, parts={"whatsapp": {**PROVIDERS, "parameters": []}}),
            {"template": {"name": "order_update", "language": "pt_BR", "parameters": []}},
        ),
        (evolve(TEXT, channel=Channel.WHATSAPP), {"text": "Hello Ann"}),
    ],
)
def test_a_payload_is_what_a_producer_could_have_handed_in(template: Template, payload: dict[str, Any]) -> None:
    rendered = CompiledTemplate.of(template).render_payload(VARIABLES)

    assert rendered == payload
    assert rendered.keys() <= CONTENT_FIELDS[template.channel]
    item = {"channel": template.channel.value, "recipient": RECIPIENTS[template.channel], "content": rendered}
    assert isinstance(parse_item(orjson.loads(orjson.dumps(item)), AcceptLimits(1, 100_000)), Item)


def test_a_payload_is_made_anew_each_time() -> None:
    compiled = CompiledTemplate.of(WHATSAPP)

    assert compiled.render_payload(VARIABLES) == compiled.render_payload(VARIABLES)
    assert CompiledTemplate.of(PUSH).render_payload(VARIABLES)["data"].keys() == {"order", "kind"}


@pytest.mark.parametrize(
    ("template", "code", "part"),
    [
        (evolve(TEXT, parts={"title": "x"}), "template_part_forbidden", "title"),
        (evolve(TEXT, parts={"whatsapp": PROVIDERS}), "template_part_forbidden", "whatsapp"),
        (evolve(MAIL, parts={"data": {}}), "template_part_forbidden", "data"),
        (evolve(PUSH, subject="x"), "template_part_forbidden", "subject"),
        (evolve(WHATSAPP, body_template="x"), "template_part_forbidden", "body_template"),
        (evolve(PUSH, parts={"data": {"a b": "x"}}), "template_data_invalid", "data"),
        (evolve(PUSH, parts={"data": {f"a{n}": "x" for n in range(51)}}), "template_data_invalid", "data"),
        (evolve(PUSH, parts={"data": {"a": "{{"}}), "template_syntax", "data/a"),
        (evolve(PUSH, parts={"title": "{{ a ** b }}"}), "template_construct_forbidden", "title"),
        (
            evolve(WHATSAPP, parts={"whatsapp": {**PROVIDERS, "parameters": ["a", "{{"]}}),
            "template_syntax",
            "whatsapp/parameters/1",
        ),
        (evolve(TEXT, parts={"layout": "base"}), "template_layout_unknown", "layout"),
        (evolve(TEXT, schema={"type": "strng"}), "template_schema_invalid", "schema"),
    ],
)
def test_a_template_with_the_wrong_parts_tells_which(template: Template, code: str, part: str) -> None:
    with pytest.raises(TemplateError) as refused:
        CompiledTemplate.of(template)

    assert (refused.value.code, refused.value.part) == (code, part)


@pytest.mark.parametrize(
    ("template", "name", "code", "part"),
    [
        (PUSH, "a\nb", "template_part_line_break", "title"),
        (evolve(PUSH, parts={"title": "{{ name }}"}), " ", "template_empty", "title"),
        (WHATSAPP, "a\nb", "template_parameter_invalid", "whatsapp/parameters/0"),
        (WHATSAPP, "", "template_parameter_invalid", "whatsapp/parameters/0"),
        (WHATSAPP, "a" * 1025, "template_parameter_invalid", "whatsapp/parameters/0"),
        (MAIL, "a\nb", "template_subject_line_break", "subject"),
    ],
)
def test_no_variable_makes_what_a_provider_would_refuse(template: Template, name: str, code: str, part: str) -> None:
    with pytest.raises(TemplateError) as refused:
        CompiledTemplate.of(template).render_payload({"name": name, "order": 7})

    assert (refused.value.code, refused.value.part) == (code, part)


def test_limits_are_of_all_parts_together() -> None:
    template = evolve(PUSH, body_template="abc", parts={"title": "de", "data": {"a": "fgh", "b": "i"}})

    assert CompiledTemplate.of(template, Limits(output_bytes_max=9)).render_payload({})["data"] == {"a": "fgh", "b": "i"}
    with pytest.raises(TemplateError, match="template_output_too_large"):
        CompiledTemplate.of(template, Limits(output_bytes_max=8)).render_payload({})


def test_a_layout_goes_around_the_parts_it_has_sources_for() -> None:
    layouts = {
        "both": Layout("both", "[{{ content }}]", "<{{ content }}>", True),
        "html": Layout("html", None, "<{{ content }}>", True),
        "part": Layout("part", "x", None),
    }

    def rendered(template: Template, layout: str) -> dict[str, Any]:
        return CompiledTemplate.of(evolve(template, parts={"layout": layout}), library=layouts).render_payload(VARIABLES)

    assert rendered(MAIL, "both") == {"subject": "Hi Ann", "text": "[Hello Ann]", "html": "<<p>Ann</p>>"}
    assert rendered(MAIL, "html") == {"subject": "Hi Ann", "text": "Hello Ann", "html": "<<p>Ann</p>>"}
    with pytest.raises(TemplateError, match="template_layout_unknown"):
        rendered(TEXT, "html")
    with pytest.raises(TemplateError, match="template_layout_content"):
        rendered(TEXT, "part")


def test_a_schema_is_asked_before_anything_is_rendered_and_gives_defaults() -> None:
    schema = {
        "type": "object",
        "required": ["name", "order"],
        "properties": {"name": {"type": "string"}, "order": {"type": "integer"}, "greeting": {"default": "Hello"}},
    }
    compiled = CompiledTemplate.of(evolve(TEXT, body_template="{{ greeting }} {{ name }}", schema=schema))

    assert compiled.render_payload(VARIABLES) == {"text": "Hello Ann"}
    with pytest.raises(VariablesRefused) as refused:
        compiled.render_payload({"order": "7"})
    assert (refused.value.code, refused.value.name) == ("template_variable_missing", "name")
    problem = refused.value.problem("/variables")
    assert [(each.pointer, each.code) for each in problem.errors] == [
        ("/variables/name", "template_variable_missing"),
        ("/variables/order", "template_variable_invalid"),
    ]
    assert "7" not in str(problem)


def test_all_required_variables_that_are_missing_are_named_at_once() -> None:
    declared = evolve(TEXT, variables={"name": {"required": True}, "order": {"required": True}})

    with pytest.raises(VariablesRefused) as refused:
        CompiledTemplate.of(declared).render_payload({})

    assert [each.pointer for each in refused.value.problem("/v").errors] == ["/v/name", "/v/order"]


def test_locales_have_to_agree_on_parts_and_data_but_not_on_how_many_parameters() -> None:
    assert part_names(PUSH) == {"title", "body_template", "data/order", "data/kind"}
    assert (
        part_names(WHATSAPP) == part_names(evolve(WHATSAPP, parts={"whatsapp": {**PROVIDERS, "parameters": []}})) == {"whatsapp"}
    )
    assert part_names(MAIL) == {"subject", "body_template", "html_template"}


def test_the_size_of_a_payload_counts_all_its_texts() -> None:
    assert payload_size({"text": "abc"}) == 3
    assert payload_size({"title": "a", "text": "b", "data": {"x": "cd"}}) == 4
    assert payload_size({"template": {"name": "a", "language": "en", "parameters": ["b", "cd"]}}) == 6
