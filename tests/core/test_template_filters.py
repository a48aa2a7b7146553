from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from dispatcher.template_filters import FILTERS
from dispatcher.template_formats import FORMATS
from dispatcher.template_limits import Missing, TemplateError
from dispatcher.template_lists import LIST_FILTERS
from renderings import Rendering

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
TEXT_FILTERS = sorted(
    {"capitalize", "center", "e", "escape", "format", "indent", "lower", "replace", "safe", "string", "striptags"}
    | {"title", "tojson", "trim", "truncate", "upper", "urlencode"}
)
ARGUMENTS: dict[str, tuple[Any, ...]] = {"replace": ("a", "b")}


def apply(name: str, value: Any, *arguments: Any, escapes: bool = False, **keywords: Any) -> Any:
    return FILTERS[name](Rendering(autoescape=escapes), value, *arguments, **keywords)


def code(name: str, value: Any, *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(TemplateError) as refused:
        apply(name, value, *arguments, **keywords)
    return refused.value.code


@pytest.mark.parametrize(
    ("name", "value", "arguments", "result"),
    [
        ("upper", "straße", (), "STRASSE"),
        ("lower", "ABC", (), "abc"),
        ("title", "ann lee", (), "Ann Lee"),
        ("capitalize", "ann LEE", (), "Ann lee"),
        ("upper", 5, (), "5"),
        ("string", 2.5, (), "2.5"),
        ("trim", "  a ", (), "a"),
        ("trim", "--a-", ("-",), "a"),
        ("striptags", "<p>Fish &amp;\n <b>chips</b></p>", (), "Fish & chips"),
        ("striptags", "1 < 2", (), "1 < 2"),
        ("replace", "aaa", ("a", "b"), "bbb"),
        ("replace", "aaa", ("a", "b", 2), "bba"),
        ("replace", "ab", ("", "-"), "-a-b-"),
        ("truncate", "one two three", (9,), "one..."),
        ("truncate", "one two three", (9, True), "one tw..."),
        ("truncate", "one two three", (9, True, "…"), "one two …"),
        ("truncate", "short", (), "short"),
        ("center", "a", (5,), "  a  "),
        ("indent", "a\n\nb", (2,), "a\n\n  b"),
        ("indent", "a\n\nb", (2, True, True), "  a\n  \n  b"),
        ("format", "%.2f %s", (2.5, "€"), "2.50 €"),
        ("urlencode", "a b/ü&", (), "a%20b/%C3%BC%26"),
        ("abs", -3, (), 3),
        ("round", 2.567, (2,), 2.57),
        ("round", 2.5, (0, "ceil"), 3.0),
        ("round", 2.31, (1, "ceil"), 2.4),
        ("round", 2.39, (1, "floor"), 2.3),
        ("round", -2.5, (0, "floor"), -3.0),
        ("round", 7.0, (0, "ceil"), 7.0),
        ("int", "42", (), 42),
        ("int", "12.7", (), 12),
        ("int", 3.9, (), 3),
        ("int", "many", (), 0),
        ("int", "many", (7,), 7),
        ("int", inf, (), 0),
        ("float", "2.5", (), 2.5),
        ("float", "many", (), 0.0),
        ("default", None, ("x",), "x"),
        ("default", Missing(name="a"), (), ""),
        ("default", "", ("x",), ""),
        ("default", "", ("x", True), "x"),
        ("d", "a", ("x",), "a"),
        ("length", "abc", (), 3),
        ("count", {"a": 1}, (), 1),
        ("length", range(4), (), 4),
        ("map", ["a", "b"], ("upper",), ["A", "B"]),
        ("map", ["a", "b"], ("replace", "a", "c"), ["c", "b"]),
    ],
)
def test_a_filter_does_what_its_name_says(name: str, value: Any, arguments: tuple[Any, ...], result: Any) -> None:
    found = apply(name, value, *arguments)

    assert found == result
    assert type(found) is type(result)


def test_an_attribute_is_taken_of_every_element() -> None:
    assert apply("map", [{"a": 1}, {"a": 2}], attribute="a") == [1, 2]
    assert apply("map", [{"a": 1}, {}], attribute="a", default=0) == [1, 0]


@pytest.mark.parametrize("name", ["nonsense", "attr", 7, None])
def test_only_filters_of_the_table_can_be_mapped(name: object) -> None:
    assert code("map", [1], name) == "template_value_wrong"


def test_what_is_escaped_for_html_is_marked_so_and_a_plain_text_is_not() -> None:
    assert apply("escape", "<b>", escapes=True) == Markup("&lt;b&gt;")
    assert isinstance(apply("escape", "<b>", escapes=True), Markup)
    assert type(apply("escape", "<b>")) is str
    assert isinstance(apply("safe", "<b>", escapes=True), Markup)
    assert type(apply("safe", "<b>")) is str


@given(TEXTS)
def test_no_filter_but_safe_makes_a_text_safe(value: str) -> None:
    for name in set(TEXT_FILTERS) - {"safe", "format"}:
        found = apply(name, value, *ARGUMENTS.get(name, ()), escapes=True)
        assert not isinstance(found, Markup) or "<" not in found


@pytest.mark.parametrize("name", sorted(set(TEXT_FILTERS) - {"striptags", "tojson", "urlencode", "format"}))
def test_a_safe_text_stays_safe(name: str) -> None:
    assert isinstance(apply(name, Markup("<b> x </b>"), *ARGUMENTS.get(name, ()), escapes=True), Markup)


def test_what_is_put_into_a_safe_text_is_escaped() -> None:
    assert apply("replace", Markup("<b>x"), "x", "<i>") == "<b>&lt;i&gt;"
    assert apply("replace", "<b>x", "x", Markup("<i>")) == "&lt;b&gt;<i>"
    assert apply("truncate", Markup("<b>xxxxxxxx"), 7, True, "<i>") == "<b>x&lt;i&gt;"
    assert apply("format", Markup("<b>%s"), "<i>") == "<b>&lt;i&gt;"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
        max_leaves=15,
    )
)
def test_json_says_the_same_and_can_stand_in_html(value: Any) -> None:
    found = apply("tojson", value, escapes=True)

    assert json.loads(found) == value
    assert isinstance(found, Markup)
    assert not set(found) & set("<>&'")


def test_json_of_something_deep_or_endlessly_repeated_is_refused() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    wide: Any = "x"
    for _ in range(30):
        wide = {"a": wide, "b": wide}

    assert code("tojson", deep) == "template_value_too_large"
    assert code("tojson", wide) == "template_steps_exceeded"
    assert code("tojson", [Missing(name="x")]) == "template_variable_missing"


@pytest.mark.parametrize(
    ("name", "value", "arguments", "expected"),
    [
        ("center", "a", (10**9,), "template_value_wrong"),
        ("indent", "a", (10**9,), "template_value_wrong"),
        ("indent", "a\n" * 9000, (100,), "template_value_too_large"),
        ("truncate", "a", (10**9,), "template_value_wrong"),
        ("truncate", "abcdef", (1,), "template_value_wrong"),
        ("replace", "a" * 1000, ("a", "b" * 1000), "template_value_too_large"),
        ("replace", "a", ("a", "b", -1), "template_value_wrong"),
        ("urlencode", "a" * 10_000, (), "template_value_too_large"),
        ("format", "%999999999s", ("a",), "template_value_wrong"),
        ("format", "{0.__class__}", ("a", "b"), "TypeError"),
        ("round", 5, (-(10**9),), "template_value_wrong"),
        ("round", 5, (10**9,), "template_value_wrong"),
        ("round", 5, (0, "up"), "template_value_wrong"),
        ("round", "5", (), "template_value_wrong"),
        ("abs", "5", (), "template_value_wrong"),
        ("int", [], (), "template_value_wrong"),
        ("int", "9" * 100, (), "template_value_too_large"),
        ("int", Missing(name="x"), (), "template_variable_missing"),
        ("length", 5, (), "template_value_wrong"),
        ("length", Missing(name="x"), (), "template_variable_missing"),
        ("upper", [], (), "template_value_wrong"),
        ("upper", None, (), "template_value_wrong"),
        ("upper", Missing(name="x"), (), "template_variable_missing"),
    ],
)
def test_what_would_grow_without_bound_or_has_the_wrong_kind_is_refused(
    name: str, value: Any, arguments: tuple[Any, ...], expected: str
) -> None:
    if expected == "TypeError":
        with pytest.raises(TypeError):
            apply(name, value, *arguments)
    else:
        assert code(name, value, *arguments) == expected


@pytest.mark.parametrize("name", TEXT_FILTERS)
def test_a_long_text_is_never_free(name: str) -> None:
    rendering = Rendering()
    FILTERS[name](rendering, "ab " * 2000, *ARGUMENTS.get(name, ()))

    assert rendering.spent >= 6000 / 64


def test_looking_for_tags_costs_more_than_changing_case() -> None:
    stripping, changing = Rendering(), Rendering()
    FILTERS["striptags"](stripping, "ab " * 2000)
    FILTERS["upper"](changing, "ab " * 2000)

    assert stripping.spent > 5 * changing.spent


def test_these_are_all_and_none_of_them_reaches_for_attributes() -> None:
    others = {"abs", "count", "d", "default", "float", "int", "length", "map", "round"}

    assert set(FILTERS) == set(TEXT_FILTERS) | set(LIST_FILTERS) | set(FORMATS) | others
    assert not set(FILTERS) & {"attr", "pprint", "random", "urlize", "wordwrap", "xmlattr"}
