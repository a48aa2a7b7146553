"""A set-up: what definitions mean together, and that one bad one takes nothing with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import setup
from dispatcher.definitions import Definition, Kind
from dispatcher.policy import Policy
from dispatcher.problems import Problem
from dispatcher.rules import Rule
from dispatcher.setup import Setup
from dispatcher.topics import Topic

BAD = Problem(422, "field_invalid", "t", "d", "/title")
STEPS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(".".join)


def rule(name: str, event_type: str) -> Rule:
    return Rule(name, event_type, (), ())


def of(*rules: Rule) -> Setup:
    return Setup(rules={each.name: each for each in rules})


def names(setup: Setup, event_type: str) -> list[str]:
    return [each.name for each in setup.rules_for(event_type)]


def test_rules_are_found_by_their_type_or_its_beginning_in_the_order_of_their_names() -> None:
    found = of(rule("d", "order.paid"), rule("c", "order.*"), rule("b", "order.paid.*"), rule("a", "order.paid"), rule("e", "x"))

    assert names(found, "order.paid") == ["a", "c", "d"]
    assert names(found, "order.paid.late") == ["b", "c"]
    assert names(found, "order") == []
    assert names(found, "orders.paid") == []


@given(st.lists(st.tuples(STEPS, st.booleans()), max_size=12), STEPS)
def test_the_index_finds_what_looking_at_every_rule_would(patterns: list[tuple[str, bool]], event_type: str) -> None:
    rules = [rule(f"r{number:02}", type + ".*" * wild) for number, (type, wild) in enumerate(patterns)]
    expected = [
        each.name
        for each in rules
        if each.event_type == event_type or (each.event_type.endswith(".*") and event_type.startswith(each.event_type[:-1]))
    ]

    assert names(of(*reversed(rules)), event_type) == expected


def test_what_can_not_be_read_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def topic(name: str, body: Mapping[str, Any]) -> Topic | Problem:
        return Topic(name, body["title"]) if body else BAD

    monkeypatch.setattr(setup, "PARSERS", {**setup.PARSERS, Kind.TOPIC: topic})
    made = Setup.of("pt", [Definition(Kind.TOPIC, "a", {"title": "A"}), Definition(Kind.TOPIC, "b", {})])

    assert made.default_locale == "pt"
    assert made.topics == {"a": Topic("a", "A")}
    assert [(fault.kind, fault.name, fault.problem) for fault in made.faults] == [(Kind.TOPIC, "b", BAD)]


@pytest.mark.parametrize("body", [[], None, {"default": {}}, {"caps": [[]]}, {"send": 1, "recipients": {"a": 1}}])
@pytest.mark.parametrize("kind", list(Kind))
def test_no_stored_document_of_any_shape_takes_the_others_with_it(kind: Kind, body: Any) -> None:
    made = Setup.of("en", [Definition(kind, "x", body), Definition(Kind.TOPIC, "good", {})])

    assert list(made.topics) == ["good"]
    assert [(fault.kind, fault.name) for fault in made.faults] == [(kind, "x")]


def test_without_definitions_the_policy_is_the_default_one() -> None:
    assert Setup.of("en", []).policy == Policy()
