"""Rules as documents: what each field becomes, and that every fault is named, at once and by its place."""

from __future__ import annotations

from datetime import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.model import Channel
from dispatcher.problems import Problem
from dispatcher.rule_documents import is_event_type, parse_rule
from dispatcher.rules import LaneName, Mode, Rule

LEAST: dict[str, Any] = {
    "event": "ticketing.purchase.completed",
    "recipients": [{"user": "data.buyer_id"}],
    "send": [{"channel": "email", "template": "purchase"}],
}
MOST: dict[str, Any] = {
    "event": "ticketing.*",
    "when": "data.total.amount > 0",
    "topic": "purchases",
    "lane": "bulk",
    "recipients": [
        {"user": "data.buyer_id"},
        {"user_ids": ["ops-1", "ops-2"]},
        {"contact": {"email": "data.email", "sms": "data.phone"}, "locale": "data.language", "time_zone": "data.zone"},
    ],
    "send": [
        {"channel": "email", "template": "purchase", "variables": {"total": "data.total"}, "attachments": "data.files"},
        {"channel": "sms", "template": "purchase"},
    ],
    "mode": "first",
    "at": {"date": "data.starts_at", "offset_s": -86400},
    "window": {"start": "09:00", "end": "18:00", "days": ["mon", "fri"]},
    "expires_in_s": 3600,
    "enabled": False,
}


def rule(body: dict[str, Any], name: str = "purchase") -> Rule:
    found = parse_rule(name, body)
    assert isinstance(found, Rule), found
    return found


def faults(body: Any, name: str = "purchase") -> set[tuple[str | None, str]]:
    found = parse_rule(name, body)
    assert isinstance(found, Problem)
    return {(fault.pointer, fault.code) for fault in (found.errors or (found,))}


def test_a_rule_needs_an_event_somebody_and_something() -> None:
    found = rule(LEAST)

    assert (found.name, found.event_type, found.lane, found.mode) == (
        "purchase",
        LEAST["event"],
        LaneName.TRANSACTIONAL,
        Mode.ALL,
    )
    assert (found.when, found.topic, found.delay_s, found.at, found.window, found.digest) == (None, None, 0.0, None, None, None)
    assert (found.expires_in_s, found.enabled) == (None, True)
    assert found.recipients[0].user is not None
    assert found.recipients[0].user.value({"data": {"buyer_id": "u1"}}) == "u1"
    assert [(send.channel, send.template) for send in found.sends] == [(Channel.EMAIL, "purchase")]
    assert faults({}) == {(f"/{name}", "field_missing") for name in LEAST}


def test_every_field_becomes_what_it_says() -> None:
    found = rule(MOST)

    assert (found.event_type, found.topic, found.lane, found.mode) == ("ticketing.*", "purchases", LaneName.BULK, Mode.FIRST)
    assert found.when is not None
    assert found.when.holds({"data": {"total": {"amount": 1}}})
    assert found.recipients[1].user_ids == ("ops-1", "ops-2")
    contact = found.recipients[2]
    assert {channel: expression.source for channel, expression in contact.contact.items()} == {
        Channel.EMAIL: "data.email",
        Channel.SMS: "data.phone",
    }
    assert contact.locale is not None
    assert contact.time_zone is not None
    assert (contact.locale.source, contact.time_zone.source) == ("data.language", "data.zone")
    email, sms = found.sends
    assert email.variables["total"].source == "data.total"
    assert email.attachments is not None
    assert (sms.channel, sms.attachments) == (Channel.SMS, None)
    assert found.at is not None
    assert (found.at.date.source, found.at.offset_s) == ("data.starts_at", -86400.0)
    assert found.window is not None
    assert (found.window.start, found.window.end, found.window.days) == (time(9), time(18), frozenset({0, 4}))
    assert (found.expires_in_s, found.enabled) == (3600.0, False)


def test_a_digest_has_a_window_and_perhaps_a_key() -> None:
    found = rule({**LEAST, "digest": {"window_s": 3600, "key": "data.project"}}).digest

    assert found is not None
    assert found.key is not None
    assert (found.window_s, found.key.source) == (3600.0, "data.project")
    assert rule({**LEAST, "delay_s": 1.5, "digest": None, "at": None}).delay_s == 1.5


def test_bounds_of_seconds_are_told_as_a_person_writes_them() -> None:
    found = parse_rule("purchase", {**LEAST, "at": {"date": "data.starts_at", "offset_s": 1e12}})

    assert isinstance(found, Problem)
    assert found.detail == "This must be a number of seconds from -31622400 to 31622400."


def test_the_document_comes_back_as_it_was() -> None:
    assert dict(rule(MOST).source) == MOST
    assert rule(dict(rule(MOST).source)) == rule(MOST)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"event": "a b"}, {("/event", "field_invalid")}),
        ({"event": "*"}, {("/event", "field_invalid")}),
        ({"event": "a.*.b"}, {("/event", "field_invalid")}),
        ({"event": "a..b"}, {("/event", "field_invalid")}),
        ({"event": "a.*.*"}, {("/event", "field_invalid")}),
        ({"event": 3}, {("/event", "field_invalid")}),
        ({"when": "data.a +"}, {("/when", "expression_syntax")}),
        ({"when": "user.name"}, {("/when", "expression_name_unknown")}),
        ({"when": True}, {("/when", "field_invalid")}),
        ({"when": "data" + " " * 3000}, {("/when", "field_invalid")}),
        ({"topic": "Big News"}, {("/topic", "field_invalid")}),
        ({"lane": "slow"}, {("/lane", "field_invalid")}),
        ({"lane": ["bulk"]}, {("/lane", "field_invalid")}),
        ({"mode": "any"}, {("/mode", "field_invalid")}),
        ({"enabled": "yes"}, {("/enabled", "field_invalid")}),
        ({"delay_s": -1}, {("/delay_s", "field_invalid")}),
        ({"delay_s": True}, {("/delay_s", "field_invalid")}),
        ({"delay_s": float("nan")}, {("/delay_s", "field_invalid")}),
        ({"delay_s": 1e300}, {("/delay_s", "field_invalid")}),
        ({"expires_in_s": 0}, {("/expires_in_s", "field_invalid")}),
        ({"at": "data.date"}, {("/at", "field_invalid")}),
        ({"at": {}}, {("/at/date", "field_missing")}),
        ({"at": {"date": "data.", "offset": 3}}, {("/at/date", "expression_syntax"), ("/at/offset", "field_unknown")}),
        ({"window": {"start": "9:00", "end": "24:00"}}, {("/window/start", "field_invalid"), ("/window/end", "field_invalid")}),
        ({"digest": {"key": "data"}}, {("/digest/window_s", "field_missing")}),
        ({"digest": {"window_s": 1}}, {("/digest/window_s", "field_invalid")}),
        ({"sends": []}, {("/sends", "field_unknown")}),
        ({"recipients": []}, {("/recipients", "field_invalid")}),
        ({"recipients": ["u1"]}, {("/recipients/0", "field_invalid")}),
        ({"recipients": [{}]}, {("/recipients/0", "recipient_missing")}),
        ({"recipients": [{"user": "data.a", "user_ids": ["x"]}]}, {("/recipients/0", "recipient_missing")}),
        ({"recipients": [{"user_ids": ["x", "", "x"]}]},
         {("/recipients/0/user_ids/1", "field_invalid"), ("/recipients/0/user_ids/2", "field_invalid")}),
        ({"recipients": [{"user": "data.a", "locale": "data.b"}]}, {("/recipients/0", "field_invalid")}),
        ({"recipients": [{"contact": {}}]}, {("/recipients/0/contact", "field_invalid")}),
        ({"recipients": [{"contact": {"push": "data.token"}}]}, {("/recipients/0/contact/push", "field_invalid")}),
        ({"recipients": [{"contact": {"fax": "data.fax"}}]}, {("/recipients/0/contact/fax", "field_unknown")}),
        ({"recipients": [{"contact": {"email": "data|x"}}]}, {("/recipients/0/contact/email", "expression_filter_unknown")}),
        ({"send": [{"channel": "fax", "template": "x"}]}, {("/send/0/channel", "field_invalid")}),
        ({"send": [{"channel": ["email"], "template": "x"}]}, {("/send/0/channel", "field_invalid")}),
        ({"send": [{"channel": "sms"}]}, {("/send/0/template", "field_missing")}),
        ({"send": [{"channel": "sms", "template": name} for name in "ab"]}, {("/send/1/channel", "field_invalid")}),
        ({"send": [{"channel": "sms", "template": "a", "attachments": "data.f"}]}, {("/send/0/attachments", "field_invalid")}),
        ({"send": [{"channel": "sms", "template": "a", "variables": {"a": "b", "c": None}}]},
         {("/send/0/variables/a", "expression_name_unknown"), ("/send/0/variables/c", "field_missing")}),
        ({"send": [{"channel": "sms", "template": "a", "variables": {"a-b": "data"}}]}, {("/send/0/variables", "field_invalid")}),
        ({"send": [{"channel": "email", "template": "a", "subject": "x"}]}, {("/send/0/subject", "field_unknown")}),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else str(value),
)  # fmt: skip
def test_a_field_that_can_not_be_is_named_by_its_place(change: dict[str, Any], expected: set[tuple[str, str]]) -> None:
    assert faults({**LEAST, **change}) == expected


def test_all_faults_are_named_at_once() -> None:
    body = {
        "event": "",
        "when": "data +",
        "recipients": [{"user": "x"}],
        "send": [{"channel": "fax", "template": "a"}],
        "delay_s": 5,
        "at": {"date": "data.a"},
        "window": {},
        "digest": {"window_s": 60},
        "more": 1,
    }

    assert {pointer for pointer, _ in faults(body)} == {
        *("/event", "/when", "/recipients/0/user", "/send/0/channel", "/delay_s", "/window/start", "/window/end"),
        *("/digest", "/more"),
    }


CONTACT = {"contact": {"sms": "data.phone"}}
SMS = {"channel": "sms", "template": "a"}


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"delay_s": 1, "at": {"date": "data.a"}}, {"/delay_s"}),
        ({"digest": {"window_s": 60}, "at": {"date": "data.a"}}, {"/digest"}),
        ({"digest": {"window_s": 60}, "delay_s": 1}, {"/digest"}),
        ({"digest": {"window_s": 60}, "recipients": [CONTACT], "send": [SMS]}, {"/digest"}),
        ({"digest": {"window_s": 60}, "send": [{**LEAST["send"][0], "attachments": "data.a"}]}, {"/digest"}),
        ({"recipients": [CONTACT, {"user": "data.a"}]}, {"/recipients/0/contact/sms"}),
        ({"recipients": [CONTACT], "send": [SMS, *LEAST["send"]]}, {"/send/1/channel"}),
    ],
    ids=str,
)
def test_fields_that_contradict_each_other_are_refused(change: dict[str, Any], pointers: set[str]) -> None:
    assert faults({**LEAST, **change}) == {(pointer, "rule_contradictory") for pointer in pointers}


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a" * 65, "ä"])
def test_the_name_of_a_rule_can_stand_in_an_address_and_a_file(name: str) -> None:
    assert faults(LEAST, name) == {("", "name_invalid")}


def test_a_fault_never_repeats_what_was_written() -> None:
    found = parse_rule("purchase", {**LEAST, "when": "'somebody@example.com' +", "topic": "Somebody", "lane": "some body"})

    assert isinstance(found, Problem)
    assert len(found.errors) == 3
    assert "body" not in str(found.document())


def test_an_event_type_is_names_with_dots() -> None:
    assert is_event_type("a.b-c.D_1")
    assert not any(map(is_event_type, ["", "a.", ".a", "a b", "a.*", "a" * 256, None, "é"]))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["data.a", "email", "sms"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(sorted({*MOST, "delay_s", "digest"})), ANYTHING))
def test_any_document_is_read_or_refused_with_pointers(body: dict[str, Any]) -> None:
    found = parse_rule("purchase", {**LEAST, **body})

    if isinstance(found, Problem):
        assert all(fault.pointer is not None for fault in (found, *found.errors))
    else:
        assert dict(found.source) == {**LEAST, **body}
