"""Events as they are handed in: all faults of one at once, and no event sinks another."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from dispatcher.acceptance import AcceptLimits
from dispatcher.event_documents import HandedInEvents, parse_event, parse_events_in_steps, variables_of
from dispatcher.events import Event
from dispatcher.problems import Problem, Refused

LIMITS = AcceptLimits(items_max=600, item_bytes_max=2_000)


def document(**changes: Any) -> dict[str, Any]:
    return {"id": "evt-1", "type": "shop.order.paid", "data": {"total": 5}, **changes}


def parsed(**changes: Any) -> Event:
    event = parse_event(document(**changes), LIMITS)
    assert isinstance(event, Event)
    return event


def faults(**changes: Any) -> list[tuple[str | None, str]]:
    problem = parse_event(document(**changes), LIMITS)
    assert isinstance(problem, Problem)
    return [(each.pointer, each.code) for each in problem.errors or (problem,)]


def handed_in(body: bytes) -> HandedInEvents:
    steps = parse_events_in_steps(body, LIMITS)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: HandedInEvents = end.value
            return found


def test_an_event_is_read_whole() -> None:
    event = parsed(user_id="ana", occurred_at="2026-01-01T00:00:00Z", correlation_id="c-1", locale="pt_br")

    assert (event.id, event.type, event.data) == ("evt-1", "shop.order.paid", {"total": 5})
    assert (event.user_id, event.occurred_at_s, event.correlation_id, event.locale) == ("ana", 1_767_225_600.0, "c-1", "pt-BR")
    assert variables_of(event)["event"] == {
        "id": "evt-1",
        "type": "shop.order.paid",
        "occurred_at": 1_767_225_600.0,
        "user_id": "ana",
        "correlation_id": "c-1",
        "locale": "pt-BR",
    }


def test_the_order_of_fields_makes_no_other_event_and_every_change_does() -> None:
    one = parsed(user_id="ana")

    assert parse_event(dict(reversed(document(user_id="ana").items())), LIMITS) == one
    assert parsed(user_id="ben").request_hash != one.request_hash
    assert parsed(user_id="ana", data={"total": 6}).request_hash != one.request_hash


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"id": ""}, "/id"),
        ({"id": "a b"}, "/id"),
        ({"id": "é"}, "/id"),
        ({"id": "x" * 256}, "/id"),
        ({"id": 7}, "/id"),
        ({"type": "shop..paid"}, "/type"),
        ({"type": "shop.*"}, "/type"),
        ({"type": None}, "/type"),
        ({"data": []}, "/data"),
        ({"user_id": "a\nb"}, "/user_id"),
        ({"occurred_at": "2026-01-01T00:00:00"}, "/occurred_at"),
        ({"correlation_id": "two words"}, "/correlation_id"),
        ({"locale": "not a locale"}, "/locale"),
        ({"extra": 1}, ""),
    ],
)
def test_each_fault_is_named_by_its_pointer(changes: dict[str, Any], pointer: str) -> None:
    assert [found for found, _ in faults(**changes)] == [pointer]


def test_all_faults_of_an_event_are_named_at_once() -> None:
    found = faults(id="", type="", data=1, user_id=1, occurred_at=1, correlation_id=1, locale=1, extra=1)

    assert [pointer for pointer, _ in found] == [
        "/id", "/type", "/data", "/user_id", "/correlation_id", "/locale", "/occurred_at", "",
    ]  # fmt: skip


def test_one_bad_event_sinks_no_other() -> None:
    handed = handed_in(orjson.dumps({"items": [document(), 5, document(id=""), document(id="evt-2")]}))

    assert [isinstance(item, Event) for item in handed.items] == [True, False, False, True]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "json_invalid"),
        (b"[]", "body_invalid"),
        (b'{"items": []}', "field_invalid"),
        (b'{"items": [1], "other": 1}', "field_unknown"),
        (orjson.dumps({"items": [1] * 601}), "batch_too_large"),
    ],
)
def test_a_fault_of_the_envelope_refuses_the_request(body: bytes, code: str) -> None:
    with pytest.raises(Refused) as caught:
        handed_in(body)

    assert caught.value.problem.code == code


def test_what_is_too_large_or_nests_too_deeply_is_refused() -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]

    assert faults(data={"text": "x" * 2_000}) == [("", "item_too_large")]
    assert faults(data={"deep": deep}) == [("", "item_invalid")]


def test_a_long_batch_is_read_with_pauses() -> None:
    steps = parse_events_in_steps(orjson.dumps({"items": [document(id=f"e-{n}") for n in range(600)]}), LIMITS)

    assert sum(1 for _ in steps) == 3
