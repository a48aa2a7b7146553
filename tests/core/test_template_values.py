from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from dispatcher.template_limits import Budget, Missing, MissingVariable, TemplateError
from dispatcher.template_values import (
    INTEGER_END,
    along,
    compared,
    computed,
    contains,
    elements,
    equal,
    formatted,
    joined,
    member,
    number,
    present,
    text,
    whole,
)
from renderings import Rendering

MISSING = Missing(name="user.name")
INTEGERS = st.integers(-(10**6), 10**6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


def code(function: Any, *arguments: Any) -> str:
    with pytest.raises(TemplateError) as refused:
        function(*arguments)
    return refused.value.code


@pytest.mark.parametrize(("value", "shown"), [("a", "a"), (3, "3"), (2.5, "2.5"), (True, "True")])
def test_scalars_have_a_text(value: object, shown: str) -> None:
    assert text(Rendering(), value) == shown


def test_what_is_marked_as_safe_stays_so() -> None:
    assert isinstance(text(Rendering(), Markup("<b>")), Markup)


@pytest.mark.parametrize("value", [None, [], {}, (), object()])
def test_nothing_else_has_a_text(value: object) -> None:
    assert code(text, Rendering(), value) == "template_value_wrong"


@pytest.mark.parametrize("value", [INTEGER_END, -INTEGER_END, 10**100])
def test_whole_numbers_stay_within_a_machine_word(value: int) -> None:
    assert code(number, value) == "template_value_too_large"
    assert number(INTEGER_END - 1) == INTEGER_END - 1


@pytest.mark.parametrize("function", [present, number])
def test_a_missing_value_is_named(function: Any) -> None:
    with pytest.raises(MissingVariable, match=r"user\.name"):
        function(MISSING)


def test_counts_are_whole_and_within_their_bounds() -> None:
    assert whole(3, 0, 5) == 3
    assert [code(whole, value, 0, 5) for value in (-1, 6, 2.0, "3", None)] == ["template_value_wrong"] * 5


@pytest.mark.parametrize(
    ("value", "found"),
    [([1, 2], [1, 2]), ((1,), (1,)), ({"a": 1, "b": 2}, ["a", "b"]), ("äb", ["ä", "b"]), (range(3), [0, 1, 2])],
)
def test_what_has_elements(value: Any, found: Any) -> None:
    assert elements(Rendering(), value) == found


@pytest.mark.parametrize("value", [None, 3, {1, 2}, iter([])])
def test_what_has_none(value: object) -> None:
    assert code(elements, Rendering(), value) == "template_value_wrong"


@pytest.mark.parametrize(
    ("value", "key", "found"),
    [
        ({"a": 1}, "a", 1),
        ({"a": None}, "a", None),
        ({1: "x"}, 1, "x"),
        ([1, 2], 0, 1),
        ([1, 2], -1, 2),
        ((1, 2), 1, 2),
        ("ab", 1, "b"),
    ],
)
def test_a_step_of_a_path_leads_into_mappings_and_lists(value: Any, key: Any, found: Any) -> None:
    assert member(value, key, "x") == found


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ({"a": 1}, "b"),
        ({"a": 1}, "keys"),
        ({"a": 1}, "__class__"),
        ({"a": 1}, ["a"]),
        ([1], 1),
        ([1], -2),
        ([1], "append"),
        ("a", "upper"),
        (3, "real"),
        (None, "x"),
        (object(), "__class__"),
    ],
)
def test_a_step_never_leads_to_an_attribute_of_python(value: Any, key: Any) -> None:
    found = member(value, key, "x.y")

    assert isinstance(found, Missing)
    with pytest.raises(MissingVariable, match=r"x\.y"):
        found.fail()


def test_what_a_missing_value_should_have_had_is_missing_under_its_name() -> None:
    assert member(MISSING, "first", "user.name.first") is MISSING


def test_a_path_is_followed_through_mappings_and_lists() -> None:
    value = {"a": [{"b": "x"}], "0": "key"}

    assert along(Rendering(), value, "a.0.b") == "x"
    assert along(Rendering(), value, "0") == "key"
    assert along(Rendering(), [5, 6], 1) == 6


def test_a_path_is_named_only_if_it_stands_in_the_template() -> None:
    written = Rendering(constants=frozenset({"a.b"}))
    for path, name in (("a.b", r"\(a\.b\)"), ("hush", r"\(attribute\)")):
        with pytest.raises(MissingVariable, match=name):
            present(along(written, {}, path))


@pytest.mark.parametrize("path", [None, 1.5, ["a"], "a." * 200])
def test_what_is_no_path_is_refused(path: object) -> None:
    assert code(along, Rendering(), {}, path) == "template_value_wrong"


def test_scalars_are_joined() -> None:
    assert joined(Rendering(), ["a", 1, 2.5]) == "a12.5"
    assert joined(Rendering(), ["a", "b"], ", ") == "a, b"
    assert code(joined, Rendering(), ["a", ["b"]]) == "template_value_wrong"


@pytest.mark.parametrize(
    ("parts", "separator", "result"),
    [
        ([Markup("<b>"), "<i>"], "&", "<b>&amp;&lt;i&gt;"),
        (["<i>", "<u>"], Markup("<br>"), "&lt;i&gt;<br>&lt;u&gt;"),
        (["<i>"], "<br>", "<i>"),
    ],
)
def test_joining_makes_nothing_safe(parts: list[str], separator: str, result: str) -> None:
    found = joined(Rendering(), parts, separator)

    assert found == result
    assert isinstance(found, Markup) == (result != "<i>")


@pytest.mark.parametrize(("parts", "separator"), [(["x" * 1000] * 101, ""), (["x"] * 1000, "-" * 101)])
def test_joined_text_is_bounded_before_it_is_made(parts: list[str], separator: str) -> None:
    assert code(joined, Rendering(), parts, separator) == "template_value_too_large"


@pytest.mark.parametrize(
    ("pattern", "values", "result"),
    [
        ("%.2f %s", (2.5, "€"), "2.50 €"),
        ("%05d|%-4s|%+d", (42, "a", 3), "00042|a   |+3"),
        ("100%%", (), "100%"),
        ("%x %X %e %g", (255, 255, 1.5, 0.5), "ff FF 1.500000e+00 0.5"),
    ],
)
def test_plain_directives_format(pattern: str, values: tuple[Any, ...], result: str) -> None:
    assert formatted(Rendering(), pattern, values) == result


@pytest.mark.parametrize(
    "pattern", ["%*d", "%(a)s", "%r", "%a", "%1000s", "%.100f", "%", "%%%", "%l", "%c", "%10000000d", "% %s", "{0.__class__}%"]
)
def test_no_other_directive_exists(pattern: str) -> None:
    assert code(formatted, Rendering(), pattern, ("x",)) == "template_value_wrong"


def test_formatted_text_is_bounded_before_it_is_made() -> None:
    assert code(formatted, Rendering(), "%s" * 100, ("x" * 1000,) * 100) == "template_value_too_large"
    assert code(formatted, Rendering(), "%99.99f" * 300, (1e300,) * 300) == "template_value_too_large"
    assert len(formatted(Rendering(), "%99.99f" * 100, (1e300,) * 100)) < 100_000
    assert code(formatted, Rendering(), "%s", ([],)) == "template_value_wrong"
    assert formatted(Rendering(), Markup("<b>%s"), ("<i>",)) == "<b>&lt;i&gt;"


@given(INTEGERS, INTEGERS)
def test_numbers_are_computed_as_python_does(left: int, right: int) -> None:
    rendering = Rendering()

    assert computed(rendering, "+", left, right) == left + right
    assert computed(rendering, "-", left, right) == left - right
    assert computed(rendering, "*", left, right) == left * right
    if right:
        assert computed(rendering, "/", left, right) == left / right
        assert computed(rendering, "//", left, right) == left // right
        assert computed(rendering, "%", left, right) == left % right


def test_texts_and_lists_can_be_added() -> None:
    assert computed(Rendering(), "+", "a", "b") == "ab"
    assert computed(Rendering(), "+", [1], [2]) == [1, 2]
    assert computed(Rendering(), "%", "%.1f", 2) == "2.0"
    assert computed(Rendering(), "%", "%s-%s", ("a", "b")) == "a-b"


@pytest.mark.parametrize(
    ("left", "operator", "right", "expected"),
    [
        ("a", "*", 10**9, "template_value_wrong"),
        (10**9, "*", "a", "template_value_wrong"),
        ([1], "*", 10**9, "template_value_wrong"),
        ("a", "+", 1, "template_value_wrong"),
        (None, "+", 1, "template_value_wrong"),
        (1, "/", 0, "template_value_wrong"),
        (1, "//", 0, "template_value_wrong"),
        (1.0, "%", 0.0, "template_value_wrong"),
        (2**40, "*", 2**40, "template_value_too_large"),
        ("a" * 60_000, "+", "a" * 60_000, "template_value_too_large"),
        ([1] * 60_000, "+", [1] * 60_000, "template_value_too_large"),
        ("a", "+", MISSING, "template_variable_missing"),
        (MISSING, "*", 2, "template_variable_missing"),
        ("%s", "%", MISSING, "template_variable_missing"),
    ],
)
def test_what_can_not_be_computed_is_refused(left: Any, operator: str, right: Any, expected: str) -> None:
    assert code(computed, Rendering(), operator, left, right) == expected


@given(JSON, JSON)
def test_two_values_are_equal_when_their_json_is(left: Any, right: Any) -> None:
    assert equal(Rendering(), left, right) == (left == right)


@given(JSON)
def test_a_value_is_equal_to_itself(value: Any) -> None:
    assert compared(Rendering(), value, "eq", value)
    assert not compared(Rendering(), value, "ne", value)


@given(INTEGERS | st.floats(allow_nan=False), INTEGERS | st.floats(allow_nan=False))
def test_numbers_are_ordered_as_python_does(left: float, right: float) -> None:
    orders = {"lt": left < right, "lteq": left <= right, "gt": left > right, "gteq": left >= right}

    assert {operator: compared(Rendering(), left, operator, right) for operator in orders} == orders


def test_texts_are_ordered_and_searched() -> None:
    assert compared(Rendering(), "a", "lt", "b")
    assert compared(Rendering(), "b", "in", "abc")
    assert compared(Rendering(), "z", "notin", "abc")
    assert compared(Rendering(), 2, "in", "123")


def test_membership_is_by_element_or_key() -> None:
    assert contains(Rendering(), [1, [2], {"a": 1}], [2])
    assert contains(Rendering(), {"a": 1}, "a")
    assert not contains(Rendering(), {"a": 1}, ["a"])
    assert not contains(Rendering(), [1, 2], "1")


@pytest.mark.parametrize(
    ("left", "operator", "right", "expected"),
    [
        ("a", "lt", 1, "template_value_wrong"),
        ([1], "lt", [2], "template_value_wrong"),
        (None, "gt", 1, "template_value_wrong"),
        (1, "in", 5, "template_value_wrong"),
        (MISSING, "eq", 1, "template_variable_missing"),
        (1, "in", MISSING, "template_variable_missing"),
    ],
)
def test_what_can_not_be_compared_is_refused(left: Any, operator: str, right: Any, expected: str) -> None:
    assert code(compared, Rendering(), left, operator, right) == expected


def test_a_value_that_contains_itself_many_times_over_is_not_walked_for_free() -> None:
    one: list[Any] = [1, 2]
    other: list[Any] = [1, 2]
    for _ in range(60):
        one, other = [one, one], [other, other]

    # Few steps, because some Pythons allocate a page at each of them at some depth of the stack.
    assert code(equal, Rendering(budget=Budget(50_000, 100_000)), one, other) == "template_steps_exceeded"


@pytest.mark.parametrize(
    "work",
    [
        lambda rendering, size: text(rendering, "x" * size),
        lambda rendering, size: elements(rendering, [1] * size),
        lambda rendering, size: joined(rendering, ["x"] * size),
        lambda rendering, size: formatted(rendering, "%s", ["x" * size]),
        lambda rendering, size: computed(rendering, "+", "x" * size, "y"),
        lambda rendering, size: computed(rendering, "+", [1] * size, [1]),
        lambda rendering, size: compared(rendering, "x" * size, "eq", "x" * size),
        lambda rendering, size: compared(rendering, "x" * size, "lt", "x" * size),
        lambda rendering, size: equal(rendering, [1] * size, [1] * size),
        lambda rendering, size: contains(rendering, "x" * size, "y"),
        lambda rendering, size: contains(rendering, [1] * size, 2),
    ],
)
def test_work_costs_in_proportion_to_what_is_touched(work: Any) -> None:
    small, large = Rendering(), Rendering()
    work(small, 900)
    work(large, 90_000)

    assert large.spent > 50 * small.spent > 0
