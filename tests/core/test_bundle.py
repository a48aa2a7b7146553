"""A set-up as one document: the same whatever order and numbers it came in, and every difference of two of them named."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.bundle import (
    POLICY_KEY,
    Bundle,
    Change,
    Contents,
    Key,
    Verb,
    changes,
    digest,
    document_of,
    merged,
    read_bundle,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.0, -0.0, 1.0, 0.5, 1e300]) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
BODIES = st.dictionaries(st.sampled_from(["a", "b/c", "~"]), JSON, max_size=3)
NAMES = st.sampled_from(["x", "y", "z/~ z"])
KINDS = st.sampled_from(["rule", "topic", "layout", "catalogue"])
KEYS = st.tuples(KINDS, NAMES).map(lambda told: Key(*told)) | st.tuples(
    st.just("template"), NAMES, st.sampled_from(["email", "sms"]), st.sampled_from(["en", "pt"])
).map(lambda told: Key(*told))
CONTENTS = st.builds(lambda found, policy: found | {POLICY_KEY: policy}, st.dictionaries(KEYS, BODIES, max_size=5), BODIES)


def bundle(document: dict[str, Any]) -> Bundle:
    read, faults = read_bundle(document)
    assert faults == []
    return read


@settings(max_examples=40)
@given(CONTENTS)
def test_a_document_read_back_is_the_set_up_it_was_made_of(contents: Contents) -> None:
    document = orjson.loads(orjson.dumps(document_of(contents)))

    read = bundle(document)

    assert digest(read.contents) == digest(contents)
    assert {change.verb for change in changes(contents, read)} == {Verb.UNCHANGED}


@settings(max_examples=40)
@given(CONTENTS, CONTENTS)
def test_two_set_ups_differ_where_and_only_where_their_digests_do(before: Contents, after: Contents) -> None:
    found = changes(before, bundle({**document_of(after), "prune": True}))

    assert (digest(before) == digest(after)) == all(change.verb is Verb.UNCHANGED for change in found)
    assert all(bool(change.fields) == (change.verb is Verb.UPDATED) for change in found)


@settings(max_examples=40)
@given(CONTENTS, CONTENTS)
def test_what_is_merged_is_the_new_set_up_if_pruned_and_has_both_if_not(before: Contents, after: Contents) -> None:
    document = document_of(after)

    assert digest(merged(before, bundle({**document, "prune": True}))) == digest(after)
    assert merged(before, bundle(document)).keys() == before.keys() | after.keys()


def test_a_document_with_some_sections_speaks_of_nothing_else() -> None:
    before: Contents = {Key("rule", "a"): {}, Key("topic", "a"): {}, POLICY_KEY: {"time_zone": "UTC"}}
    partial = bundle({"topics": {"b": {}}, "prune": True})

    assert changes(before, partial) == [Change(Verb.DELETED, Key("topic", "a")), Change(Verb.CREATED, Key("topic", "b"))]
    assert merged(before, partial) == {Key("rule", "a"): {}, POLICY_KEY: {"time_zone": "UTC"}, Key("topic", "b"): {}}


def test_a_policy_is_never_pruned() -> None:
    before: Contents = {POLICY_KEY: {"time_zone": "UTC"}}

    assert merged(before, bundle({"policy": {}, "prune": True})) == {POLICY_KEY: {}}
    assert merged(before, bundle({"rules": {}, "prune": True})) == before


def test_an_update_names_the_fields_that_differ() -> None:
    before: Contents = {POLICY_KEY: {}, Key("rule", "a"): {"when": "1", "send": [{"t": "x"}, {"t": "y"}], "gone": 1, "n": 1}}
    after = {"when": "2", "send": [{"t": "x"}, {"t": "z"}], "new/er": 1, "n": True}

    (change,) = changes(before, bundle({"rules": {"a": after}}))

    assert change.document() == {
        "kind": "rule",
        "name": "a",
        "fields": [
            {"pointer": "/gone", "change": "removed"},
            {"pointer": "/n", "change": "changed"},
            {"pointer": "/new~1er", "change": "added"},
            {"pointer": "/send/1/t", "change": "changed"},
            {"pointer": "/when", "change": "changed"},
        ],
    }


def test_every_fault_of_the_shape_is_named() -> None:
    same = {"name": "a", "channel": "sms", "locale": "en"}
    document = {
        "rules": [],
        "topics": {"a/b": 1},
        "policy": None,
        "templates": [same, 1, {"name": 1, "channel": "sms"}, same],
        "prune": 1,
        "else": 1,
    }

    _, faults = read_bundle(document)

    assert sorted((fault.pointer, fault.code) for fault in faults) == [
        ("", "field_unknown"),
        ("/policy", "field_invalid"),
        ("/prune", "field_invalid"),
        ("/rules", "field_invalid"),
        ("/templates/1", "field_invalid"),
        ("/templates/2/locale", "field_missing"),
        ("/templates/2/name", "field_invalid"),
        ("/templates/3", "template_twice"),
        ("/topics/a~1b", "field_invalid"),
    ]
