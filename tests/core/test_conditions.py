"""Expressions of rules: what they can say, what they can not reach, and that no event makes one fail."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dispatcher import conditions
from dispatcher.condition_values import FILTERS, TESTS
from dispatcher.conditions import LENGTH_MAX, MEANINGS, ExpressionError, compile_expression

EVENT: dict[str, Any] = {
    "data": {
        "total": {"amount": 5, "currency": "BRL"},
        "items": [{"kind": "seat", "n": 2, "user": "u1"}, {"kind": "meal", "user": None}, "odd"],
        "name": "Zoé",
        "paid": True,
        "nothing": None,
        "big": 2**63,
    },
    "event": {"id": "e1", "type": "ticketing.purchase.completed", "user_id": None},
}


def value(source: str, variables: dict[str, Any] = EVENT) -> Any:
    return compile_expression(source).value(variables)


def refused(source: str) -> ExpressionError:
    with pytest.raises(ExpressionError) as error:
        compile_expression(source)
    return error.value


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("data.total.amount > 4 and data.total.currency == 'BRL'", True),
        ("data['total']['amount'] + 1", 6),
        ("data.total", {"amount": 5, "currency": "BRL"}),
        ("data.total.amount in (1, 5)", True),
        ("'o' in data.name", True),
        ("'total' in data", True),
        ("data.total.currency not in ['USD']", True),
        ("data.name ~ '/' ~ data.total.amount ~ '/' ~ data.paid ~ data.nothing", "Zoé/5/true"),
        ("data['items']|map(attribute='user')", ["u1", None, None]),
        ("data['items']|map(attribute='user', default='x')", ["u1", "x", "x"]),
        ("data['items']|selectattr('n', 'gt', 1)|map(attribute='kind')|first", "seat"),
        ("data['items']|rejectattr('user')|length", 2),
        ("data['items']|sum(attribute='n')", 2),
        ("data['items'][0].kind", "seat"),
        ("data['items'][-1]", "odd"),
        ("data['items'][:1]", [{"kind": "seat", "n": 2, "user": "u1"}]),
        ("data.name[:2]|upper", "ZO"),
        ("{'total': data.total.amount, 'list': (1, 2)}", {"total": 5, "list": [1, 2]}),
        ("data.name if data.paid else 'nobody'", "Zoé"),
        ("data.name if not data.paid", None),
        ("data.missing|default('-')", "-"),
        ("data.missing or event.id", "e1"),
        ("event.type", "ticketing.purchase.completed"),
        ("7 // 2 + 7 % 4 - -1", 7),
        ("data.total.amount is divisibleby 5 and 3 is odd and data.name is string", True),
    ],
)
def test_what_expressions_can_say(source: str, result: Any) -> None:
    found = value(source)

    assert found == result
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    "source",
    [
        "data.missing > 0",
        "data.missing <= 0",
        "data.missing.deeper[3].still == 1",
        "data.nothing < data.nothing",
        "data.name > 3",
        "data.total > data.total",
        "data.paid >= true",
        "data.paid == 1",
        "data.total.amount == '5'",
        "data.missing in ['x']",
        "'x' in data.missing",
        "3 in data.total.amount",
        "3 in data.name",
        "data.missing is defined",
        "data.nothing is defined",
        "data.name is gt 3",
        "data.name is divisibleby 3",
        "3 is divisibleby 0",
    ],
)
def test_a_condition_about_what_is_missing_or_of_another_kind_is_false(source: str) -> None:
    assert compile_expression(source).holds(EVENT) is False
    assert compile_expression(f"not ({source})").holds(EVENT) is True


@pytest.mark.parametrize(
    "source",
    [
        *("data.missing", "data.missing.x", "data.nothing[0]", "data.name.x", "data['items'][9]", "data['items'].x"),
        *("data[data.total]", "data.name + 1", "data.missing + 1", "data.name * 2", "1 / 0", "1.5 % 0", "-data.name"),
        *("data.total ~ 'x'", "data.missing|upper", "data.name|sum", "[1, 'a']|sort", "data.missing|length"),
        *("data.total|map(attribute='x')", "'%s' % data.name", "9000000000000000000 * 9000000000000000000"),
        *("'nan'|float", "'1e400'|float"),
    ],
)
def test_what_can_not_be_done_gives_null(source: str) -> None:
    assert value(source) is None


def test_equality_is_that_of_json() -> None:
    assert value("data.missing == data.nothing")
    assert value("1 == 1.0 and [1, {'a': none}] == [1, {'a': null}]".replace("null", "none"))
    assert value("data.total != data.name and true != 1 and data.missing != 5")


@pytest.mark.parametrize(
    ("source", "code", "detail", "position"),
    [
        ("", "expression_syntax", "", 1),
        ("data +", "expression_syntax", "", 7),
        ("(data", "expression_syntax", "", 6),
        ("data.a $ 3", "expression_syntax", "", 8),
        ("data.a = 3", "expression_syntax", "", 8),
        ("data }} x {{ data", "expression_syntax", "", 6),
        ("data %} {% for a in b", "expression_syntax", "", 7),
        ("'\\ud800'", "expression_syntax", "", None),
        ("'\\x00'", "expression_syntax", "", None),
        ("date.a == 3", "expression_name_unknown", "date", 1),
        ("data.a == x", "expression_name_unknown", "x", 11),
        ("loop.index", "expression_name_unknown", "loop", 1),
        ("self", "expression_name_unknown", "self", 1),
        ("data.a ** 2", "expression_forbidden", "**", 8),
        ("1 < data.a < 3", "expression_forbidden", "chained comparison", None),
        ("{data.a: 1}", "expression_forbidden", "{", 1),
        ("data.a|nope", "expression_filter_unknown", "nope", 8),
        ("data.a is nope", "expression_test_unknown", "nope", 11),
        ("data.a|selectattr('x', 'nope')", "expression_test_unknown", "nope", 25),
        ("data.a|selectattr('x', data.b)", "expression_test_unknown", "selectattr", 8),
        ("data.a|selectattr('x', 'gt')", "expression_arguments_wrong", "selectattr", 8),
        ("data.a|lower(3)", "expression_arguments_wrong", "lower", 8),
        ("data.a|map('upper')", "expression_arguments_wrong", "map", 8),
        ("data.a is gt", "expression_arguments_wrong", "gt", 11),
        ("1e300", "expression_too_complex", "", None),
        ("(" * 500 + "1" + ")" * 500, "expression_too_complex", "", None),
        ("not " * 60 + "data", "expression_too_complex", "", None),
        ("[" + "data," * 390 + "]", "expression_too_complex", "", None),
        ("9" * (LENGTH_MAX - 1), "expression_too_complex", "", None),
        ("data" + " " * LENGTH_MAX, "expression_too_long", "", None),
    ],
)
def test_a_fault_is_told_with_its_place(source: str, code: str, detail: str, position: int | None) -> None:
    error = refused(source)

    assert (error.code, error.detail, error.position) == (code, detail, position)
    assert error.problem("/when").pointer == "/when"
    assert set(MEANINGS) >= {error.code}


@pytest.mark.parametrize(
    "source",
    [
        "data.__class__",
        "data['__class__']",
        "''.__class__.__mro__[1].__subclasses__()",
        "data|attr('__class__')",
        "'{0.__class__}'.format(data)",
        "'{}'|format(data)",
        "data.get('x')",
        "data.keys()",
        "range(9)",
        "cycler(1)",
        "lipsum()",
        "namespace(a=1)",
        "dict(a=1)",
        "joiner()",
        "config",
        "request.application",
        "self.__init__",
        "event|map('attr', '__class__')",
        "data|select('callable')",
        "data|xmlattr",
        "data|pprint",
        "data|tojson",
        "data|safe",
        "data|groupby('x')",
        "data|batch(2)",
        "data|list",
        "data|random",
        "data is callable",
        "data is sameas data",
        "data|first(*data)",
        "data|map(**data)",
        "data|default(**data)",
        "[x for x in data]",
        "lambda: data",
        "data if data else exit()",
    ],
)
def test_known_tricks_are_refused_when_compiled(source: str) -> None:
    assert refused(source).code in MEANINGS


@pytest.mark.parametrize("name", ["__class__", "__dict__", "keys", "format"])
def test_a_computed_name_is_a_key_of_the_data_and_nothing_else(name: str) -> None:
    half = len(name) // 2
    source = f"data['{name[:half]}' ~ '{name[half:]}']"

    assert value(source, {"data": {}}) is None
    assert value(source, {"data": {name: 1}}) == 1
    assert value(source, {"data": "text"}) is None


def test_nothing_but_the_event_can_be_read() -> None:
    assert value("data", {"data": 1, "secret": 2}) == 1
    assert value("event", {"data": 1}) is None
    assert refused("secret").code == "expression_name_unknown"


def test_work_is_bounded_by_the_budget() -> None:
    long = {"data": {"list": list(range(40_000)), "text": "x" * 60_000}}

    for source, code in [
        ("data.list|sort|sum", "expression_steps_exceeded"),
        ("data.text ~ data.text", "expression_value_too_large"),
        ("data.list + data.list", "expression_value_too_large"),
        ("data.text|replace('x', 'yyyyyyyy')", "expression_value_too_large"),
        (" + ".join(["data.list|sum"] * 9), "expression_steps_exceeded"),
    ]:
        with pytest.raises(ExpressionError) as error:
            value(source, long)
        assert error.value.code == code, source


def test_what_nests_too_deeply_to_compare_is_an_error_and_not_the_end() -> None:
    deep: Any = 1
    for _ in range(900):
        deep = [deep]

    with pytest.raises(ExpressionError, match="expression_value_too_large"):
        value("data.a == data.b", {"data": {"a": deep, "b": json.loads(json.dumps(deep))}})


def test_an_error_has_nothing_of_a_value_in_its_traceback() -> None:
    secret = "somebody@example.com"
    with pytest.raises(ExpressionError) as error:
        value("data ~ data", {"data": secret * 3000})

    assert "somebody" not in "".join(traceback.format_exception(error.value))


def test_two_expressions_are_the_same_when_they_are_written_the_same() -> None:
    assert compile_expression("data.a") == compile_expression("data.a") != compile_expression("data.b")
    assert compile_expression(" data.a ").source == " data.a "
    assert hash(compile_expression("data.a")) is not None


NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
KEYS = st.sampled_from(["a", "b", "__class__", "0", ""])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
_NAMED = ["data", "event", "data.a", "data.b.a", "data[0]", "data.a[-1]"]
_WRITTEN = ["1", "0", "2.5", "true", "none", "''", "'a'", "'b'", "9000000000000000000", "[]", "{}", "'1e400'"]
_ATOMS = st.sampled_from([*_NAMED, *_WRITTEN])


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from(["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", ">=", "in", "not in", "and", "or"])
    names = st.sampled_from(sorted(FILTERS))
    options = st.sampled_from(["", "('a')", "(1)", "('a', 'b')", "(attribute='a')", "('a', 'gt', 1)"])
    return st.one_of(
        st.tuples(inner, binary, inner).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(st.sampled_from(["not", "-", "+"]), inner).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]})[{parts[1]}]"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]})[{parts[1]}:]"),
        st.tuples(inner, names, options).map(lambda parts: f"({parts[0]})|{parts[1]}{parts[2]}"),
        st.tuples(inner, st.sampled_from(sorted(TESTS)), options).map(lambda parts: f"({parts[0]} is {parts[1]}{parts[2]})"),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} if {parts[1]} else {parts[2]})"),
        st.tuples(inner, inner).map(lambda parts: f"[{parts[0]}, {parts[1]}]"),
        inner.map(lambda part: f"{{'k': {part}}}"),
    )


EXPRESSIONS = st.recursive(_ATOMS, _grown, max_leaves=7)


@settings(max_examples=200)
@given(EXPRESSIONS, JSON, JSON)
@example("(data)|sort", [1, "a", None], None)
@example("(data)|join('a')", [[1]], None)
def test_any_expression_of_any_event_ends_with_json_or_an_error_of_its_own(source: str, data: Any, event: Any) -> None:
    variables = {"data": data, "event": event}
    with ending() as codes:
        compiled = compile_expression(source)
        found = compiled.value(variables)
        assert compiled.holds(variables) is bool(found)
        json.dumps(found, allow_nan=False)
    assert codes <= set(MEANINGS)


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=[]), max_size=60) | st.text("data.()[]{}|'\" +-*/%~<>=!,:_0a\\\n", max_size=40))
def test_any_text_compiles_or_is_refused(source: str) -> None:
    with ending() as codes:
        compile_expression(source).value({"data": {}})
    assert codes <= set(MEANINGS)


@contextmanager
def ending() -> Iterator[set[str]]:
    """With the code of the error that ended it, if one did; no other error may."""
    codes: set[str] = set()
    try:
        yield codes
    except ExpressionError as error:
        codes.add(error.code)


def test_the_page_about_rules_names_every_filter_test_and_error() -> None:
    page = (Path(conditions.__file__).parent.parent / "docs" / "rules.md").read_text()
    named = set(re.findall(r"`([a-z_]+)[`(]", page))

    assert set(FILTERS) - named <= {"d"}  # short for default
    assert set(TESTS) <= named
    assert set(MEANINGS) <= named
