from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.template_limits import Missing, MissingVariable, TemplateError
from dispatcher.template_tests import TESTS
from renderings import Rendering

KINDS: dict[str, list[Any]] = {
    "boolean": [True, False],
    "false": [False],
    "float": [1.5],
    "integer": [1],
    "iterable": ["a", [1], (1,), {"a": 1}, range(2)],
    "mapping": [{"a": 1}],
    "none": [None],
    "number": [True, False, 1, 1.5],
    "sequence": ["a", [1], (1,), range(2)],
    "string": ["a"],
    "true": [True],
}
VALUES: list[Any] = [True, False, 1, 1.5, "a", [1], (1,), {"a": 1}, range(2), None]
COMPARING = {"eq", "equalto", "ne", "lt", "le", "gt", "ge", "in"}
ARITHMETIC = {"even", "odd", "divisibleby"}


def is_(name: str, *arguments: Any) -> bool:
    return TESTS[name](Rendering(), *arguments)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_kind_is_told_from_all_others(name: str) -> None:
    found = [value for value in VALUES if is_(name, value)]

    assert [(type(value), value) for value in found] == [(type(value), value) for value in KINDS[name]]


@pytest.mark.parametrize("name", sorted(set(TESTS) - {"defined", "undefined"}))
def test_asking_a_missing_value_anything_names_it(name: str) -> None:
    operands = (1,) if name in COMPARING | {"divisibleby"} else ()
    with pytest.raises(MissingVariable, match="user"):
        is_(name, Missing(name="user"), *operands)


def test_anything_may_be_asked_whether_it_is_there() -> None:
    assert is_("defined", None)
    assert not is_("defined", Missing(name="user"))
    assert is_("undefined", Missing(name="user"))
    assert not is_("undefined", 0)


@given(st.integers(-1000, 1000), st.integers(-1000, 1000).filter(bool))
def test_division_is_tested(value: int, divisor: int) -> None:
    assert is_("divisibleby", value, divisor) == (value % divisor == 0)
    assert is_("even", value) == (value % 2 == 0)
    assert is_("odd", value) == (value % 2 == 1)


@pytest.mark.parametrize("name", sorted(ARITHMETIC))
@pytest.mark.parametrize("value", ["%999999999d", "a", None, [1]])
def test_a_text_is_never_divided_because_python_would_format_it(name: str, value: object) -> None:
    with pytest.raises(TemplateError, match="template_value_wrong"):
        is_(name, value, *((3,) if name == "divisibleby" else ()))


def test_nothing_is_divisible_by_nothing() -> None:
    with pytest.raises(TemplateError, match="template_value_wrong"):
        is_("divisibleby", 4, 0)


def test_values_are_compared() -> None:
    results = {name: is_(name, 1, 2) for name in COMPARING - {"in"}}

    assert results == {"eq": False, "equalto": False, "ne": True, "lt": True, "le": True, "gt": False, "ge": False}
    assert is_("in", 1, [1, 2])


def test_these_are_all() -> None:
    assert set(TESTS) == set(KINDS) | COMPARING | ARITHMETIC | {"defined", "undefined"}
