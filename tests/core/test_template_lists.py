from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from dispatcher.template_limits import Missing, MissingVariable, TemplateError
from dispatcher.template_lists import LIST_FILTERS
from renderings import Rendering

SEATS = [{"row": "B", "at": {"x": 2}}, {"row": "a", "at": {"x": 1}}, {"row": "b", "at": {"x": 3}}]
NUMBERS = st.lists(st.integers(-100, 100), max_size=30)
WRITTEN = Rendering(constants=frozenset({"nothing"}))


def apply(name: str, value: Any, *arguments: Any, **keywords: Any) -> Any:
    return LIST_FILTERS[name](Rendering(), value, *arguments, **keywords)


def code(name: str, value: Any, *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(TemplateError) as refused:
        apply(name, value, *arguments, **keywords)
    return refused.value.code


@given(NUMBERS)
def test_numbers_are_sorted_summed_and_reversed_as_python_does(numbers: list[int]) -> None:
    assert apply("sort", numbers) == sorted(numbers)
    assert apply("sort", numbers, True) == sorted(numbers, reverse=True)
    assert apply("sum", numbers) == sum(numbers)
    assert apply("reverse", numbers) == numbers[::-1]
    assert apply("unique", numbers) == list(dict.fromkeys(numbers))
    assert apply("list", numbers) == numbers
    if numbers:
        assert (apply("min", numbers), apply("max", numbers)) == (min(numbers), max(numbers))
        assert (apply("first", numbers), apply("last", numbers)) == (numbers[0], numbers[-1])


def test_elements_are_joined_also_by_attribute() -> None:
    assert apply("join", ["a", 1], ", ") == "a, 1"
    assert apply("join", SEATS, "|", attribute="at.x") == "2|1|3"
    assert apply("join", SEATS, "|", "row") == "B|a|b"
    assert apply("join", [Markup("<b>"), "<i>"], "") == "<b>&lt;i&gt;"
    assert apply("join", {"a": 1, "b": 2}, "") == "ab"


def test_what_is_ordered_by_an_attribute_ignores_case_unless_told() -> None:
    def rows(**keywords: Any) -> list[str]:
        return [seat["row"] for seat in apply("sort", SEATS, attribute="row", **keywords)]

    assert rows() == ["a", "B", "b"]
    assert rows(case_sensitive=True) == ["B", "a", "b"]
    assert rows(reverse=True) == ["B", "b", "a"]
    assert [seat["row"] for seat in apply("unique", SEATS, attribute="row")] == ["B", "a"]
    assert apply("max", SEATS, attribute="at.x") == SEATS[2]


def test_groups_are_ordered_by_their_key_which_keeps_its_spelling() -> None:
    assert apply("groupby", SEATS, "row") == [("a", [SEATS[1]]), ("B", [SEATS[0], SEATS[2]])]
    assert [key for key, _ in apply("groupby", SEATS, "row", case_sensitive=True)] == ["B", "a", "b"]


@pytest.mark.parametrize(
    ("name", "arguments", "kept"),
    [
        ("select", (), [1, 2, 3]),
        ("select", ("odd",), [1, 3]),
        ("reject", ("gt", 1), [0, 1]),
        ("reject", (), [0]),
    ],
)
def test_elements_are_chosen_by_a_test_or_by_truth(name: str, arguments: tuple[Any, ...], kept: list[int]) -> None:
    assert apply(name, [0, 1, 2, 3], *arguments) == kept


def test_elements_are_chosen_by_an_attribute() -> None:
    assert apply("selectattr", SEATS, "at.x", "gt", 1) == [SEATS[0], SEATS[2]]
    assert apply("rejectattr", SEATS, "row", "eq", "B") == SEATS[1:]
    assert apply("selectattr", SEATS, "row") == SEATS
    assert apply("selectattr", SEATS, "nothing", "defined") == []


@pytest.mark.parametrize("test", ["__class__", "nonsense", 7, None])
def test_an_unknown_choice_is_refused(test: object) -> None:
    assert code("select", [1], test) == "template_value_wrong"


def test_lists_are_cut_into_rows() -> None:
    assert apply("batch", [1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    assert apply("batch", [1, 2, 3], 2, "-") == [[1, 2], [3, "-"]]
    assert apply("batch", [], 2, "-") == []
    assert code("batch", [1], 0) == code("batch", [1], 10**9, "-") == "template_value_wrong"


def test_mappings_are_taken_apart() -> None:
    assert apply("items", {"a": 1}) == [("a", 1)]
    assert apply("keys", {"a": 1}) == ["a"]
    assert apply("values", {"a": 1}) == [1]
    assert code("items", [1]) == "template_value_wrong"
    assert code("items", Missing(name="x")) == "template_variable_missing"


def test_a_text_is_reversed_as_a_text() -> None:
    assert apply("reverse", "abc") == "cba"
    assert apply("first", "abc") == "a"


@pytest.mark.parametrize("name", ["first", "last", "min", "max"])
def test_an_empty_list_has_no_element_to_give(name: str) -> None:
    with pytest.raises(MissingVariable, match=name):
        apply(name, []).fail()


@pytest.mark.parametrize(
    ("name", "value", "keywords", "expected"),
    [
        ("sort", [[1], [2]], {}, "template_value_wrong"),
        ("sort", [{}, {}], {}, "template_value_wrong"),
        ("sum", ["a"], {}, "template_value_wrong"),
        ("sum", [2**62, 2**62], {}, "template_value_too_large"),
        ("sum", [], {"start": "a"}, "template_value_wrong"),
        ("join", [["a"]], {}, "template_value_wrong"),
        ("list", 5, {}, "template_value_wrong"),
        ("unique", [[1]], {}, "template_value_wrong"),
        ("sort", SEATS, {"attribute": "nothing"}, "template_variable_missing"),
        ("first", Missing(name="x"), {}, "template_variable_missing"),
    ],
)
def test_what_can_not_be_ordered_or_gathered_is_refused(name: str, value: Any, keywords: dict[str, Any], expected: str) -> None:
    assert code(name, value, **keywords) == expected


def test_texts_and_numbers_have_no_common_order() -> None:
    with pytest.raises(TypeError):
        apply("sort", [1, "a"])


@pytest.mark.parametrize("name", sorted(LIST_FILTERS))
def test_a_long_list_is_never_free(name: str) -> None:
    arguments = {"batch": (3,), "groupby": (0,), "rejectattr": (0,), "selectattr": (0,)}.get(name, ())
    value: Any = [(1,)] * 9000 if name in ("groupby", "rejectattr", "selectattr") else [1] * 9000
    if name in ("items", "keys", "values"):
        value = dict.fromkeys(range(9000))
    rendering = Rendering()
    LIST_FILTERS[name](rendering, value, *arguments)

    assert rendering.spent > 9000 / 5


def test_sorting_costs_for_every_comparison() -> None:
    numbers, texts, plain = Rendering(), Rendering(), Rendering()
    LIST_FILTERS["list"](plain, [1] * 4000)
    LIST_FILTERS["sort"](numbers, [1] * 4000)
    LIST_FILTERS["sort"](texts, ["x"] * 4000)

    assert numbers.spent > 5 * plain.spent
    assert texts.spent > 4000 * 12


@pytest.mark.parametrize("name", sorted(LIST_FILTERS))
def test_a_list_that_is_too_long_is_refused(name: str) -> None:
    arguments = {"batch": (3,), "groupby": (0,), "rejectattr": (0,), "selectattr": (0,)}.get(name, ())
    value: Any = dict.fromkeys(range(100_001)) if name in ("items", "keys", "values") else [0] * 100_001

    assert code(name, value, *arguments) == "template_value_too_large"
