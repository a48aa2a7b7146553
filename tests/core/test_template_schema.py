"""Schemas of variables: which are taken, and what they say of variables that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from dispatcher.template_schema import (
    BRANCHES_MAX,
    BROKEN,
    CHOICES_MAX,
    DEPTH_MAX,
    INVALID,
    MISSING,
    NODES_MAX,
    Schema,
    SchemaInvalid,
    problems,
)

PURCHASE: dict[str, Any] = {
    "type": "object",
    "required": ["order", "seats"],
    "properties": {
        "order": {
            "type": "object",
            "required": ["number"],
            "properties": {"number": {"type": "string", "pattern": "^[A-Z]-[0-9]+$"}, "total": {"$ref": "#/$defs/money"}},
            "additionalProperties": False,
        },
        "seats": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "properties": {"row": {"type": "string", "maxLength": 2}}, "required": ["row"]},
        },
        "tone": {"enum": ["kind", "brief"], "default": "kind"},
    },
    "additionalProperties": False,
    "$defs": {"money": {"type": "number", "minimum": 0}},
}


def of(**properties: Any) -> Schema:
    return Schema.of({"type": "object", "properties": properties})


def refused(document: dict[str, Any]) -> list[str]:
    with pytest.raises(SchemaInvalid) as error:
        Schema.of(document)
    assert {code for _, code, _ in error.value.faults} == {BROKEN}
    return [pointer for pointer, _, _ in error.value.faults]


def test_what_fits_has_no_faults() -> None:
    assert Schema.of(PURCHASE).faults({"order": {"number": "A-1", "total": 3}, "seats": [{"row": "B"}]}) == ()


def test_all_faults_are_told_at_once_the_missing_first_and_never_a_value() -> None:
    faults = Schema.of(PURCHASE).faults(
        {
            "order": {"number": "secret", "total": -7, "x": 1},
            "tone": "secret",
            "nmae": 1,
            "seats": [{}, {"row": "secret"}, "secret"],
        }
    )

    assert [(pointer, code) for pointer, code, _ in faults] == [
        ("/seats/0/row", MISSING),
        ("/order/number", INVALID),
        ("/order/total", INVALID),
        ("/order/x", INVALID),
        ("/seats/1/row", INVALID),
        ("/seats/2", INVALID),
        ("/tone", INVALID),
        ("/nmae", INVALID),
    ]
    assert "secret" not in repr(faults)
    assert "-7" not in repr(faults)


def test_a_missing_variable_is_named() -> None:
    assert Schema.of(PURCHASE).faults({})[:2] == (
        ("/order", MISSING, "This variable is required."),
        ("/seats", MISSING, "This variable is required."),
    )
    (problem, _) = problems(Schema.of(PURCHASE).faults({}), "/variables")
    assert (problem.code, problem.pointer) == (MISSING, "/variables/order")


def test_a_key_that_may_be_an_address_is_not_repeated() -> None:
    faults = Schema.of(PURCHASE).faults({"order": {"number": "A-1"}, "seats": [{"row": "A"}], "ann@example.org": 1})

    assert [pointer for pointer, _, _ in faults] == [""]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": ["integer", "null"]}, "x"),
        ({"const": 1}, 2),
        ({"enum": [1, 2]}, 3),
        ({"multipleOf": 2}, 3),
        ({"maximum": 2}, 3),
        ({"exclusiveMaximum": 2}, 2),
        ({"minimum": 2}, 1),
        ({"exclusiveMinimum": 2}, 2),
        ({"maxLength": 2}, "xxx"),
        ({"minLength": 2}, "x"),
        ({"pattern": "^a+$"}, "b"),
        ({"maxItems": 1}, [1, 2]),
        ({"minItems": 1}, []),
        ({"uniqueItems": True}, [1, 1]),
        ({"contains": {"type": "string"}}, [1]),
        ({"contains": {"type": "string"}, "maxContains": 1}, ["a", "b"]),
        ({"maxProperties": 1}, {"a": 1, "b": 2}),
        ({"minProperties": 1}, {}),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}),
        ({"propertyNames": {"maxLength": 1}}, {"ab": 1}),
        ({"patternProperties": {"^a": {"type": "string"}}}, {"ab": 1}),
        ({"patternProperties": {"^a": {"type": "string"}}, "additionalProperties": False}, {"ab": 1}),
        ({"patternProperties": {"^a": True}, "additionalProperties": {"type": "string"}}, {"b": 1}),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, []),
        ({"oneOf": [{"type": "integer"}, {"minimum": 1}]}, 3),
        ({"allOf": [{"type": "integer"}, {"minimum": 5}]}, 3),
        ({"not": {"type": "integer"}}, 3),
        ({"if": {"type": "integer"}, "then": {"minimum": 5}}, 3),
        ({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, ["a", "b"]),
    ],
)
def test_every_keyword_tells_its_fault(schema: dict[str, Any], value: Any) -> None:
    faults = of(a=schema).faults({"a": value})

    assert len(faults) == 1
    assert faults[0][0].startswith("/a")
    assert faults[0][1] == INVALID


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "bb"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
SCHEMAS = st.recursive(
    st.sampled_from(
        [
            True,
            False,
            {"type": "integer"},
            {"type": "string"},
            {"minimum": 0},
            {"maxLength": 1},
            {"required": ["a"]},
            {"minItems": 2},
        ]
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            "patternProperties": st.dictionaries(st.just("^[ac]$"), inner, max_size=1),
            "additionalProperties": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "contains": inner,
        },
    ),
    max_leaves=8,
)


@given(SCHEMAS, JSON)
def test_faults_are_told_exactly_when_the_dialect_says_so(schema: Any, value: Any) -> None:
    is_valid = Draft202012Validator({"properties": {"a": schema}}).is_valid({"a": value})

    assert bool(of(a=schema).faults({"a": value})) is not is_valid


def test_defaults_and_names_are_those_of_the_properties() -> None:
    schema = Schema.of(PURCHASE)

    assert schema.names == {"order", "seats", "tone"}
    assert schema.defaults == {"tone": "kind"}


@pytest.mark.parametrize(
    ("path", "undeclared"),
    [
        (("order",), None),
        (("order", "number"), None),
        (("order", "nmuber"), "order.nmuber"),
        (("ordre", "number"), "ordre"),
        (("seats", 0, "row"), None),
        (("seats", 0, "column"), None),
        (("order", "number", "x"), None),
    ],
)
def test_what_a_closed_schema_does_not_name_is_undeclared(path: tuple[str | int, ...], undeclared: str | None) -> None:
    assert Schema.of(PURCHASE).undeclared(path) == undeclared


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({}, "/type"),
        ({"type": "array"}, "/type"),
        ({"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema"),
        ({"type": "object", "requird": ["a"]}, "/requird"),
        ({"type": "object", "properties": {"a": {"$ref": "https://example.org/a"}}}, "/properties/a/$ref"),
        ({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}, "/properties/a/$ref"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, "/properties/a/$ref"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}}, "/properties/a/$ref"),
        ({"type": "object", "properties": {"a": {"$dynamicRef": "#a"}}}, "/properties/a/$dynamicRef"),
        ({"type": "object", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}, "/$defs/a/items/$ref"),
        ({"type": "object", "$defs": {"a": {"type": "strng"}}}, "/$defs/a/type"),
        ({"type": "object", "properties": {"a": {"unevaluatedProperties": False}}}, "/properties/a/unevaluatedProperties"),
        ({"type": "object", "patternProperties": {"a": True}}, "/patternProperties"),
        ({"type": "object", "properties": {"a": {"pattern": "(?=x)x"}}}, "/properties/a/pattern"),
        ({"type": "object", "properties": {"a": {"pattern": "(x)\\1"}}}, "/properties/a/pattern"),
        ({"type": "object", "properties": {"a": {"pattern": "(x{1000}){1000}"}}}, "/properties/a/pattern"),
        ({"type": "object", "properties": {"a": {"patternProperties": {"(": True}}}}, "/properties/a/patternProperties"),
        ({"type": "object", "properties": {"a": {"minimum": "1"}}}, "/properties/a/minimum"),
        ({"type": "object", "properties": {"a": 3}}, "/properties/a"),
        ({"type": "object", "properties": []}, "/properties"),
        ({"type": "object", "properties": {"a": {"type": "string", "default": 1}}}, "/properties/a/default"),
        ({"type": "object", "properties": {"a": {"enum": list(range(CHOICES_MAX + 1))}}}, "/properties/a/enum"),
        ({"type": "object", "properties": {"a": {"anyOf": [True] * (BRANCHES_MAX + 1)}}}, "/properties/a/anyOf"),
    ],
)
def test_a_schema_that_can_not_be_used_is_refused_with_the_place(document: dict[str, Any], pointer: str) -> None:
    assert refused(document) == [pointer]


def test_all_faults_of_a_schema_are_told_at_once() -> None:
    assert len(refused({"type": "array", "properties": {"a": {"x": 1, "pattern": "("}, "b": 3}})) == 4


def test_what_the_dialect_says_is_told_beside_what_we_say_and_each_place_once() -> None:
    properties = {"a": {"type": "strin", "minLength": -1}, "b": {"pattern": "("}, "c": 3}

    assert refused({"type": "object", "requird": ["a"], "properties": properties}) == [
        "/requird",
        "/properties/b/pattern",
        "/properties/c",
        "/properties/a/type",
        "/properties/a/minLength",
    ]


def test_a_schema_is_bounded_in_size_and_depth_with_what_it_refers_to() -> None:
    deep: Any = True
    for _ in range(DEPTH_MAX):
        deep = {"items": deep}
    assert refused({"type": "object", "properties": {"a": {"items": deep}}})
    many = {"type": "object", "properties": {f"a{number}": True for number in range(NODES_MAX)}}
    assert refused(many)
    doubling = {
        f"d{n}": {"properties": {"x": {"$ref": f"#/$defs/d{n + 1}"}, "y": {"$ref": f"#/$defs/d{n + 1}"}}} for n in range(12)
    }
    assert refused({"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {**doubling, "d12": True}})


def test_formats_are_annotations() -> None:
    assert of(a={"type": "string", "format": "date"}).faults({"a": "x"}) == ()


def test_a_hundred_thousand_faults_are_told_as_a_hundred() -> None:
    alternatives = [{"type": "string", "minLength": number} for number in range(1, 60)]

    assert len(of(a={"items": {"anyOf": alternatives}}).faults({"a": list(range(100_000))})) == 100


def test_what_is_behind_a_reference_is_closed_as_well() -> None:
    closed = {"type": "object", "properties": {"number": True}, "additionalProperties": False}
    schema = Schema.of({"type": "object", "properties": {"order": {"$ref": "#/$defs/order"}}, "$defs": {"order": closed}})

    assert schema.undeclared(("order", "total")) == "order.total"
    assert schema.faults({"order": {"total": 1}})[0][0] == "/order/total"
