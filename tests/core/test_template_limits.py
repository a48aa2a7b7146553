from __future__ import annotations

import re
from pathlib import Path

import pytest

from dispatcher.problems import Problem
from dispatcher.template_filters import FILTERS
from dispatcher.template_limits import MEANINGS, Budget, Limits, Missing, MissingVariable, TemplateError


def test_an_error_tells_code_place_and_name() -> None:
    error = TemplateError("template_filter_unknown", "upcase", line=3, part="subject")

    assert (error.code, error.name, error.line, error.part) == ("template_filter_unknown", "upcase", 3, "subject")
    assert str(error) == "template_filter_unknown part subject line 3 (upcase)"
    assert str(TemplateError("template_syntax")) == "template_syntax"


def test_where_it_happened_is_told_once() -> None:
    error = TemplateError("template_syntax").at(line=3)

    assert error.at(line=9, part="subject") is error
    assert (error.line, error.part) == (3, "subject")


def test_an_error_is_a_problem_document() -> None:
    error = TemplateError("template_filter_unknown", "upcase", line=3, part="subject")

    assert error.problem("/subject") == Problem(
        422,
        "template_filter_unknown",
        "The template can not be used",
        "It uses a filter that does not exist. Name: upcase. Part subject. Line 3.",
        "/subject",
    )
    assert TemplateError("template_syntax").problem().detail == "It is not a valid template."


@pytest.mark.parametrize("code", sorted(MEANINGS))
def test_every_code_has_a_sentence(code: str) -> None:
    assert TemplateError(code).problem().detail == MEANINGS[code]
    assert MEANINGS[code].endswith(".")


def test_a_missing_variable_is_an_error_with_its_name() -> None:
    error = MissingVariable("user.name", line=2)

    assert isinstance(error, TemplateError)
    assert (error.code, error.name, error.line) == ("template_variable_missing", "user.name", 2)


@pytest.mark.parametrize(
    "use", [str, len, iter, bool, lambda missing: missing + 1, lambda missing: missing == 1, lambda missing: missing.fail()]
)
def test_a_missing_value_names_itself_whatever_is_done_with_it(use: object) -> None:
    assert callable(use)
    with pytest.raises(MissingVariable, match=r"user\.name"):
        use(Missing(name="user.name"))


def test_the_neighbour_that_a_loop_does_not_have_is_called_by_the_loop() -> None:
    with pytest.raises(MissingVariable, match="loop"):
        str(Missing("there is no previous item"))


def test_a_budget_ends() -> None:
    budget = Budget(10, 1000)
    budget.charge(10)

    with pytest.raises(TemplateError, match="template_steps_exceeded"):
        budget.charge(1)


def test_long_values_are_refused_before_they_are_made_and_others_cost_by_length() -> None:
    budget = Budget(100, 1000)
    budget.allow(640)

    assert budget.steps_left == 89

    with pytest.raises(TemplateError, match="template_value_too_large"):
        budget.allow(1001)
    with pytest.raises(TemplateError, match="template_value_too_large"):
        budget.fit(1001)

    assert budget.steps_left == 89


def test_every_code_and_limit_is_written_down() -> None:
    page = (Path(__file__).parents[2] / "docs" / "templates.md").read_text()
    limits = Limits()

    assert [code for code in MEANINGS if f"`{code}`" not in page] == []
    assert [name for name in FILTERS if not re.search(rf"\b{name}\b", page)] == []
    assert (limits.source_bytes_max, limits.expanded_bytes_max, limits.output_bytes_max) == (128 << 10, 512 << 10, 512 << 10)
    assert f"{limits.steps_max:,}" in page
    assert f"{limits.nodes_max} nodes" in page
    assert f"{limits.depth_max} levels" in page
