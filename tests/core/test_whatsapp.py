from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.acceptance import AcceptLimits, Item, parse_item
from dispatcher.problems import Problem
from dispatcher.whatsapp import TemplateMessage, language_code, template_faults, template_of

LIMITS = AcceptLimits(items_max=10, item_bytes_max=100_000)
TEMPLATE: dict[str, Any] = {"name": "order_update", "language": "en_US", "parameters": ["Ann", "B7"]}


def handed_in(content: Any) -> Item | Problem:
    row = {"channel": "whatsapp", "recipient": "+15551234567", "content": content}
    return parse_item(orjson.loads(orjson.dumps(row)), LIMITS)


def pointers(content: Any) -> list[str | None]:
    found = handed_in(content)
    if isinstance(found, Item):
        return []
    return [fault.pointer for fault in found.errors] or [found.pointer]


@pytest.mark.parametrize(
    "content",
    [
        {"text": "Doors at 7"},
        {"template": TEMPLATE},
        {"template": {"name": "hello", "language": "pt-BR"}},
        {"template": {"name": "hello", "language": "zh_Hant_TW", "parameters": []}},
        {"template": {**TEMPLATE, "parameters": ["x" * 1024, "👩‍🚀    ok"]}},
    ],
)
def test_a_message_is_a_text_or_a_template(content: dict[str, Any]) -> None:
    item = handed_in(content)

    assert isinstance(item, Item)
    assert item.content == content


@pytest.mark.parametrize(
    ("content", "at"),
    [
        ({}, ["/content/text"]),
        ({"text": ""}, ["/content/text"]),
        ({"text": "x", "template": TEMPLATE}, ["/content"]),
        ({"template": "order_update"}, ["/content/template"]),
        ({"template": None}, ["/content/template"]),
        ({"template": {}}, ["/content/template/name", "/content/template/language"]),
        ({"template": {**TEMPLATE, "colour": 1}}, ["/content/template"]),
        ({"template": {**TEMPLATE, "name": "Order Update"}}, ["/content/template/name"]),
        ({"template": {**TEMPLATE, "name": "x" * 513}}, ["/content/template/name"]),
        ({"template": {**TEMPLATE, "language": "english!"}}, ["/content/template/language"]),
        ({"template": {**TEMPLATE, "parameters": "Ann"}}, ["/content/template/parameters"]),
        ({"template": {**TEMPLATE, "parameters": ["x"] * 101}}, ["/content/template/parameters"]),
        (
            {"template": {**TEMPLATE, "parameters": ["ok", "", 7, "a\nb", "a\tb", "a     b", "x" * 1025]}},
            [f"/content/template/parameters/{index}" for index in range(1, 7)],
        ),
    ],
)
def test_every_fault_of_a_template_has_a_pointer(content: dict[str, Any], at: list[str]) -> None:
    assert pointers(content) == at


def test_no_other_channel_has_templates_of_whatsapp() -> None:
    row = {"channel": "sms", "recipient": "+15551234567", "content": {"template": TEMPLATE}}

    assert isinstance(parse_item(row, LIMITS), Problem)


@given(
    st.none()
    | st.text()
    | st.dictionaries(
        st.sampled_from(["name", "language", "parameters", "x"]), st.none() | st.text() | st.lists(st.text() | st.integers())
    )
)
def test_a_template_without_faults_can_be_read_and_no_other(value: Any) -> None:
    faults, template = template_faults(value), template_of(value)

    assert (template is None) == bool(faults)
    assert all(pointer == "" or pointer.startswith("/") for pointer, _ in faults)


@pytest.mark.parametrize(
    ("given", "spelt"),
    [("en", "en"), ("EN", "en"), ("pt-br", "pt_BR"), ("en_US", "en_US"), ("zh-hant-tw", "zh_Hant_TW"), ("es_419", "es_419")],
)
def test_languages_are_spelt_as_whatsapp_does(given: str, spelt: str) -> None:
    assert language_code(given) == spelt


def test_a_template_shows_nothing_of_its_parameters() -> None:
    assert "Ann" not in repr(TemplateMessage("order_update", "en", ("Ann",)))
