"""Reading requests: every fault at once, each at its place, none with what was there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import MultiDict

from dispatcher.problems import Problem, Refused
from dispatcher_http import wire
from dispatcher_http.wire import Faults, Fields

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=8,
)
CANARY = "canary@example.org"


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


def read_everything(fields: Fields) -> None:
    fields.text("text", 10)
    fields.optional_text("optional_text", 10)
    fields.choice("choice", Colour)
    fields.integer("integer", 0, 10, 5)
    fields.boolean("boolean", True)
    fields.mapping("mapping", 3)
    fields.optional_mapping("optional_mapping", 3)
    fields.value("value")
    fields.finish()


def faults_of(value: dict[str, Any]) -> list[Problem]:
    faults = Faults()
    read_everything(Fields(value, faults))
    try:
        faults.refuse_if_any()
    except Refused as refused:
        problem = refused.problem
        return list(problem.errors) or [problem]
    return []


VALID = {"text": "a", "choice": "red", "mapping": {}}


def test_a_valid_body_has_no_faults_and_its_defaults() -> None:
    faults = Faults()
    fields = Fields(VALID | {"integer": 7}, faults)

    assert (fields.text("text", 10), fields.choice("choice", Colour), fields.mapping("mapping", 3)) == ("a", Colour.RED, {})
    assert (fields.integer("integer", 0, 10, 5), fields.integer("absent", 0, 10, 5)) == (7, 5)
    assert (fields.optional_text("absent", 10), fields.boolean("absent", True), fields.optional_mapping("absent", 1)) == (
        None,
        True,
        None,
    )
    fields.finish()
    faults.refuse_if_any()


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"text": None}, "/text", "field_missing"),
        ({"text": 1}, "/text", "field_invalid"),
        ({"text": ""}, "/text", "field_invalid"),
        ({"text": "a" * 11}, "/text", "field_invalid"),
        ({"text": "a\0b"}, "/text", "field_invalid"),
        ({"optional_text": []}, "/optional_text", "field_invalid"),
        ({"choice": None}, "/choice", "field_missing"),
        ({"choice": "green"}, "/choice", "field_invalid"),
        ({"choice": ["red"]}, "/choice", "field_invalid"),
        ({"integer": 11}, "/integer", "field_invalid"),
        ({"integer": True}, "/integer", "field_invalid"),
        ({"integer": 1.0}, "/integer", "field_invalid"),
        ({"boolean": 1}, "/boolean", "field_invalid"),
        ({"mapping": None}, "/mapping", "field_missing"),
        ({"mapping": []}, "/mapping", "field_invalid"),
        ({"mapping": dict.fromkeys("abcd")}, "/mapping", "field_invalid"),
        ({"mapping": {"a": {"b": ["x\0"]}}}, "/mapping", "field_invalid"),
        ({"mapping": {"a\0": 1}}, "/mapping", "field_invalid"),
        ({"value": "a\0"}, "/value", "field_invalid"),
        ({"txet": "a"}, "/txet", "field_unknown"),
        ({CANARY: "a"}, "", "field_unknown"),
    ],
)
def test_every_fault_has_its_place_and_code(change: dict[str, Any], pointer: str, code: str) -> None:
    assert [(fault.pointer, fault.code) for fault in faults_of(VALID | change)] == [(pointer, code)]


def test_all_faults_come_at_once_with_the_first_in_front() -> None:
    faults = Faults()
    read_everything(Fields({"integer": -1, "surplus": 1}, faults))

    with pytest.raises(Refused) as refused:
        faults.refuse_if_any()

    problem = refused.value.problem
    assert (problem.status, problem.pointer) == (422, "/text")
    assert [error["pointer"] for error in problem.document()["errors"]] == [
        "/text",
        "/choice",
        "/integer",
        "/mapping",
        "/surplus",
    ]


def test_faults_found_elsewhere_are_moved_under_their_place() -> None:
    faults = Faults()
    faults.extend([Problem(422, "odd", "Odd", "It is odd.", "/a")], "/settings")

    with pytest.raises(Refused) as refused:
        faults.refuse_if_any()

    assert (refused.value.problem.pointer, refused.value.problem.code) == ("/settings/a", "odd")


def test_the_number_of_faults_reported_is_bounded() -> None:
    assert len(faults_of({f"f{number}": 1 for number in range(500)})) == wire.FAULTS_MAX


@given(st.dictionaries(st.sampled_from([*VALID, "integer", "boolean", "optional_text", "value"]) | st.text(), JSON))
def test_no_json_object_can_do_more_than_be_refused(value: dict[str, Any]) -> None:
    faults_of(value)


@given(
    st.dictionaries(
        st.sampled_from([*VALID, "integer", "value"]), st.just(CANARY) | st.just([CANARY]) | st.just({CANARY: CANARY})
    )
)
def test_no_fault_repeats_what_it_found(value: dict[str, Any]) -> None:
    assert all(CANARY not in repr(fault) for fault in faults_of(value | {"text": CANARY * 2}))


@given(JSON)
def test_what_passes_can_be_stored_by_postgres(value: object) -> None:
    faults = Faults()
    Fields({"value": value}, faults).value("value")

    assert bool(faults) == ("\\u0000" in orjson.dumps(value).decode())


def test_nesting_is_bounded() -> None:
    nested: Any = 1
    for _ in range(wire.NESTING_MAX - 1):
        nested = [nested]
    assert faults_of(VALID | {"value": nested}) == []
    assert [fault.pointer for fault in faults_of(VALID | {"value": [nested]})] == ["/value"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'"\xed\xa0\x80"', b'{"a": "\\ud800"}', b"1e999", b"NaN", b"[" * 5000, b"\xef\xbb\xbf{}", b"9" * 400],
)
def test_what_is_not_json_is_refused_with_its_place(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        wire.object_of(body)

    assert (refused.value.problem.status, refused.value.problem.code) == (400, "json_invalid")
    assert "line 1" in refused.value.problem.detail
    # The parser's exception holds the document: nothing of it may travel along.
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("body", [b"[]", b'"a"', b"1", b"null", b"true", b"9" * 40])
def test_what_is_json_but_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refused, match="body_invalid"):
        wire.object_of(body)


def test_pointers_escape_their_two_special_characters() -> None:
    assert wire.pointer_to("/a", "b/c~d") == "/a/b~1c~0d"


def query(text: str) -> MultiDict[str, str]:
    pairs = [pair.split("=") for pair in text.split("&") if pair]
    return MultiDict([(name, value) for name, value in pairs])


UUID = "0192aaaa-bbbb-7ccc-8ddd-eeeeffff0000"


@pytest.mark.parametrize(
    ("text", "after", "size"),
    [("", None, 50), ("page_size=1", None, 1), (f"after={UUID}&page_size=250", UUID, 250), (f"after={UUID.upper()}", UUID, 50)],
)
def test_a_page_is_asked_for_by_cursor_and_size(text: str, after: str | None, size: int) -> None:
    request = wire.page_request(query(text))

    assert (request.after, request.size) == (after, size)


@pytest.mark.parametrize(
    "text",
    [
        "page_size=0",
        "page_size=251",
        "page_size=x",
        "page_size=-1",
        "page_size=1.0",
        "page_size=",
        "page_size=٣",
        "page_size=" + "9" * 5000,
        "page_size=1&page_size=2",
        "after=x",
        "after=",
        f"after={UUID}0",
        f"after={UUID}&after={UUID}",
        f"after=%7b{UUID}",
    ],
)
def test_a_bad_cursor_or_size_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refused:
        wire.page_request(query(text))

    assert (refused.value.problem.status, refused.value.problem.code) == (400, "query_invalid")


def test_a_misspelt_filter_is_refused_and_not_repeated() -> None:
    with pytest.raises(Refused) as refused:
        wire.refuse_unknown(query(f"stauts=failed&{CANARY}=1"), {"status"})

    assert CANARY not in refused.value.problem.detail
    assert "'status'" in refused.value.problem.detail
    wire.refuse_unknown(query("status=failed"), {"status", "channel"})


def test_a_filter_is_one_of_its_choices() -> None:
    assert wire.query_choice(query("colour=red"), "colour", Colour) is Colour.RED
    assert wire.query_choice(query(""), "colour", Colour) is None
    with pytest.raises(Refused, match="query_invalid"):
        wire.query_choice(query("colour=green"), "colour", Colour)


@given(st.datetimes(timezones=st.integers(-23, 23).map(lambda hours: timezone(timedelta(hours=hours)))))
def test_moments_are_in_utc_and_of_one_length(at: datetime) -> None:
    if not 1000 < at.year < 9999:
        return

    text = wire.moment(at)

    assert text is not None
    assert len(text) == len("2026-11-22T10:00:00.000000Z")
    assert datetime.fromisoformat(text) == at.astimezone(UTC)


def test_no_moment_is_none() -> None:
    assert wire.moment(None) is None
