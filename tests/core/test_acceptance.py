"""What is handed in is checked item by item, and no refusal ever repeats a value."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.acceptance import (
    SEND_AT_MAX_S,
    STEP_ITEMS,
    AcceptLimits,
    HandedIn,
    Item,
    expired,
    parse,
    parse_in_steps,
    parse_item,
    together,
    too_far,
    too_large,
    waits,
)
from dispatcher.model import Channel
from dispatcher.problems import Problem, Refused
from dispatcher.subscriptions import normal_subscription
from push_accounts import browser

LIMITS = AcceptLimits(items_max=10, item_bytes_max=2_000)
NOW = 1_800_000_000.0
GOOD: dict[str, Any] = {
    "channel": "email",
    "recipient": "reader@example.org",
    "template": "purchase",
    "variables": {"name": "Ada"},
}
CONTENT = {"subject": "Hello", "text": "Good day"}


def checked(**changes: Any) -> Item | Problem:
    """The good item with changes; None takes a field away."""
    row = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    return parse_item(row, LIMITS)


def refused(**changes: Any) -> Problem:
    problem = checked(**changes)
    assert isinstance(problem, Problem)
    return problem


def envelope(document: Any) -> HandedIn:
    return parse(orjson.dumps(document), LIMITS)


@pytest.mark.parametrize("recipient", ["740f4707bebcf74f9b7c25d48e3358945f6aa01da5ddb387462c7eaf61bb78ad", "a:APA91b", browser()])
def test_a_push_goes_to_a_token_or_to_a_subscription(recipient: str) -> None:
    item = checked(channel="push", recipient=recipient)

    assert isinstance(item, Item)
    assert item.recipient == normal_subscription(recipient)


def test_a_good_item_becomes_an_item() -> None:
    item = checked(user_id="u1", locale="pt_br", idempotency_key="k-1", expires_at="2030-01-01T00:00:00Z")

    assert isinstance(item, Item)
    assert (item.channel, item.recipient, item.template, item.locale) == (
        Channel.EMAIL,
        "reader@example.org",
        "purchase",
        "pt-BR",
    )
    assert item.variables == {"name": "Ada"}
    assert item.expires_at_s == 1_893_456_000.0
    assert item.idempotency_key == "k-1"


def test_content_goes_as_it_is() -> None:
    item = checked(template=None, variables=None, content=CONTENT)

    assert isinstance(item, Item)
    assert item.content == CONTENT


def test_the_order_of_fields_does_not_change_what_an_item_is() -> None:
    turned = parse_item(dict(reversed(GOOD.items())), LIMITS)
    same, other = checked(), checked(variables={"name": "Eve"})

    assert isinstance(turned, Item)
    assert isinstance(same, Item)
    assert isinstance(other, Item)
    assert turned.request_hash == same.request_hash != other.request_hash


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"channel": "pigeon"}, "/channel"),
        ({"channel": 7}, "/channel"),
        ({"channel": None}, "/channel"),
        ({"recipient": None}, "/recipient"),
        ({"recipient": "nobody"}, "/recipient"),
        ({"recipient": "a@b@c"}, "/recipient"),
        ({"recipient": "Ada <ada@example.org>"}, "/recipient"),
        ({"recipient": "ada@example.org\nBcc: x@example.org"}, "/recipient"),
        ({"recipient": "a@" + "b" * 320}, "/recipient"),
        ({"channel": "sms", "recipient": "0151 2345"}, "/recipient"),
        ({"channel": "whatsapp", "recipient": "+0123456789"}, "/recipient"),
        ({"channel": "push", "recipient": ""}, "/recipient"),
        ({"channel": "push", "recipient": "{}"}, "/recipient"),
        ({"channel": "push", "recipient": browser("http://")}, "/recipient"),
        ({"channel": "push", "recipient": browser(auth="AAAA")}, "/recipient"),
        ({"user_id": ""}, "/user_id"),
        ({"user_id": "a\u0000b"}, "/user_id"),
        ({"template": 3}, "/template"),
        ({"template": None}, ""),
        ({"content": CONTENT}, ""),
        ({"locale": "not a tag"}, "/locale"),
        ({"variables": []}, "/variables"),
        ({"template": None, "content": CONTENT}, "/content"),
        ({"template": None, "variables": None, "content": "text"}, "/content"),
        ({"template": None, "variables": None, "content": {"text": "x"}}, "/content/subject"),
        ({"template": None, "variables": None, "content": {"subject": "x"}}, "/content"),
        ({"template": None, "variables": None, "content": {"subject": "a\nb", "text": "x"}}, "/content/subject"),
        ({"template": None, "variables": None, "content": {"subject": "a", "text": "x\u0000"}}, "/content/text"),
        ({"template": None, "variables": None, "content": {"subject": "a", "text": "x", "cc": "y"}}, "/content"),
        ({"channel": "sms", "recipient": "+15551234567", "template": None, "variables": None, "content": {}}, "/content/text"),
        ({"idempotency_key": "two words"}, "/idempotency_key"),
        ({"idempotency_key": "k" * 256}, "/idempotency_key"),
        ({"expires_at": "tomorrow"}, "/expires_at"),
        ({"expires_at": "2030-01-01T00:00:00"}, "/expires_at"),
        ({"expires_at": 12}, "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-10:00"}, "/expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+10:00"}, "/expires_at"),
        ({"bcc": "x@example.org"}, ""),
    ],
)
def test_a_fault_is_refused_with_a_pointer_to_it(changes: dict[str, Any], pointer: str) -> None:
    problem = refused(**changes)

    assert (problem.status, problem.pointer) == (422, pointer)


def test_all_faults_of_an_item_are_reported_at_once() -> None:
    problem = refused(channel="pigeon", locale="??", idempotency_key="")

    assert [fault.pointer for fault in problem.errors] == ["/channel", "/locale", "/idempotency_key"]
    assert problem.pointer == "/channel"


@pytest.mark.parametrize(("expires_at", "code"), [("2001-01-01T00:00:00Z", "already_expired"), ("2040-01-01T00:00:00Z", None)])
def test_what_has_outlived_itself_is_told_apart(expires_at: str, code: str | None) -> None:
    item = checked(expires_at=expires_at)

    assert isinstance(item, Item)
    problem = expired(item, NOW)
    assert (None if problem is None else problem.code) == code


def test_one_fault_stands_alone() -> None:
    assert together([too_large(3, LIMITS)]) == too_large(3, LIMITS)


def test_an_item_has_a_largest_size() -> None:
    problem = refused(variables={"name": "x" * 2_000})

    assert (problem.status, problem.code) == (413, "item_too_large")


@pytest.mark.parametrize("row", [None, 1, "text", [], True])
def test_an_item_is_an_object(row: Any) -> None:
    problem = parse_item(row, LIMITS)

    assert isinstance(problem, Problem)
    assert problem.code == "item_invalid"


def test_one_object_is_one_notification() -> None:
    handed = envelope(GOOD)

    assert (handed.is_batch, len(handed.items)) == (False, 1)


def test_one_bad_item_sinks_no_other() -> None:
    handed = envelope({"items": [GOOD, {**GOOD, "recipient": "nobody"}, GOOD]})

    assert handed.is_batch
    assert [isinstance(item, Item) for item in handed.items] == [True, False, True]


def test_a_batch_is_told_from_another_by_its_bytes() -> None:
    assert envelope({"items": [GOOD]}).request_hash != envelope({"items": [GOOD, GOOD]}).request_hash


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "json_invalid"),
        (b"{", 400, "json_invalid"),
        (b"\xff\xfe", 400, "json_invalid"),
        (b"[]", 422, "body_invalid"),
        (b"null", 422, "body_invalid"),
        (b'{"items": []}', 422, "field_invalid"),
        (b'{"items": {}}', 422, "field_invalid"),
        (b'{"items": [{}], "more": 1}', 422, "field_unknown"),
        (b'{"items": [' + b",".join([b"{}"] * 11) + b"]}", 413, "batch_too_large"),
        (b"[" * 100_000, 400, "json_invalid"),
    ],
)
def test_a_bad_envelope_refuses_the_request(body: bytes, status: int, code: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(body, LIMITS)

    assert (caught.value.problem.status, caught.value.problem.code) == (status, code)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELD = st.sampled_from(
    ["channel", "recipient", "user_id", "template", "locale", "variables", "content", "idempotency_key", "expires_at", "x"]
)


@given(st.dictionaries(FIELD, JSON | st.sampled_from(["email", "sms", "push"]), max_size=8))
def test_whatever_comes_gets_an_item_or_a_problem(row: dict[str, Any]) -> None:
    try:
        body = orjson.dumps({"items": [row]})
    except TypeError:  # half of a surrogate pair is no JSON
        return

    (verdict,) = parse(body, LIMITS).items

    assert isinstance(verdict, Item | Problem)


@given(st.sampled_from(sorted(GOOD)), st.text("zqxj", min_size=12, max_size=12))
def test_a_refusal_repeats_no_value(field: str, canary: str) -> None:
    problem = checked(**{field: canary, "locale": f"{canary}!", "expires_at": canary})

    assert isinstance(problem, Problem)
    assert canary not in orjson.dumps(problem.document()).decode()
    assert canary not in repr(problem)


def test_an_item_shows_nothing_of_its_person() -> None:
    item = checked(variables={"name": "Ada Lovelace"})

    assert "reader@example.org" not in repr(item)
    assert "Lovelace" not in repr(item)


def test_a_long_batch_is_read_with_pauses_and_to_the_same_end() -> None:
    limits = AcceptLimits(items_max=10_000, item_bytes_max=2_000)
    body = orjson.dumps({"items": [GOOD | {"idempotency_key": f"k-{number}"} for number in range(3 * STEP_ITEMS + 1)]})
    steps = parse_in_steps(body, limits)
    for _ in range(4):
        next(steps)
    with pytest.raises(StopIteration) as end:
        next(steps)
    handed = end.value.value

    assert handed == parse(body, limits)
    assert [item.idempotency_key for item in handed.items] == [f"k-{number}" for number in range(3 * STEP_ITEMS + 1)]


def test_a_notification_may_be_for_later_and_belong_to_something() -> None:
    item = checked(
        send_at="2027-01-31T12:00:00+02:00",
        correlation_id="order-1",
        fallback=[{**GOOD, "channel": "sms", "recipient": "+15551234567"}],
    )

    assert isinstance(item, Item)
    assert (item.send_at_s, item.correlation_id) == (1_801_389_600.0, "order-1")
    assert [(way.send_at_s, way.correlation_id) for way in item.fallbacks] == [(1_801_389_600.0, "order-1")]
    assert waits(item, 1_801_389_599.0)
    assert not waits(item, 1_801_389_600.0), "a time that has passed is now"
    assert not waits(evolve(item, send_at_s=None), NOW)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("send_at", "tomorrow"),
        ("send_at", "2027-01-31T12:00:00"),
        ("send_at", 1_800_000_000),
        ("correlation_id", ""),
        ("correlation_id", "order 1"),
        ("correlation_id", "x" * 256),
        ("correlation_id", 7),
    ],
)
def test_a_time_to_be_sent_and_what_it_belongs_to_are_checked(field: str, value: Any) -> None:
    assert refused(**{field: value}).pointer == f"/{field}"


def test_what_is_for_later_is_sent_before_it_expires_and_within_a_year() -> None:
    early = refused(send_at="2027-01-31T12:00:00Z", expires_at="2027-01-31T12:00:00Z")
    far = checked(send_at="2030-01-31T12:00:00Z")

    assert early.pointer == "/expires_at"
    assert isinstance(far, Item)
    problem = too_far(far, NOW)
    assert problem is not None
    assert (problem.pointer, problem.code) == ("/send_at", "send_at_too_far")
    assert too_far(evolve(far, send_at_s=NOW + SEND_AT_MAX_S), NOW) is None
