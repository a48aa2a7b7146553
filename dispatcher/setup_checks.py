"""What the parts of a set-up say about each other: who names a topic or a template, and whether it is there.

Each definition is valid in itself before it gets here. These functions read documents, not records, so that a pointer leads to
the very place; what another version of the program stored may have any shape and is passed over. Invariant: nothing here is
refused; who calls decides whether a name that leads nowhere is a fault or a warning.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from dispatcher.bundle import POLICY_KEY, TEMPLATE, Contents, Key
from dispatcher.definitions import Kind
from dispatcher.problems import Problem

_TITLE = "Something is named that is not there"

TemplateName = tuple[str, str]
"""A template's name and channel."""


def topics_named(kind: str, body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Topics that a rule or a policy names, each with the pointer to where."""
    if kind == Kind.RULE and isinstance(body.get("topic"), str):
        yield "/topic", body["topic"]
    if kind == Kind.POLICY:
        for index, cap in enumerate(_list(body.get("caps"))):
            if isinstance(cap, dict) and isinstance(cap.get("topic"), str):
                yield f"/caps/{index}/topic", cap["topic"]


def templates_named(kind: str, body: Mapping[str, Any]) -> Iterator[tuple[str, TemplateName]]:
    """Templates that a rule sends, each with the pointer to where."""
    if kind == Kind.RULE:
        for index, send in enumerate(_list(body.get("send"))):
            if isinstance(send, dict) and isinstance(send.get("template"), str) and isinstance(send.get("channel"), str):
                yield f"/send/{index}/template", (send["template"], send["channel"])


def unknown_names(
    kind: str, body: Mapping[str, Any], topics: Collection[str], templates: Collection[TemplateName]
) -> Iterator[Problem]:
    """Every name in a document that leads nowhere, with pointers into it."""
    for pointer, topic in topics_named(kind, body):
        if topic not in topics:
            yield Problem(422, "topic_unknown", _TITLE, f"There is no topic '{topic}'.", pointer)
    for pointer, (name, channel) in templates_named(kind, body):
        if (name, channel) not in templates:
            detail = f"There is no published template '{name}' for {channel}."
            yield Problem(422, "template_unknown", _TITLE, detail, pointer)


def namers_of_topic(contents: Contents, topic: str) -> list[Key]:
    """What names this topic: rules, and the policy."""
    return [key for key in sorted(contents) if any(named == topic for _, named in topics_named(key.kind, contents[key]))]


def topics_of(contents: Contents) -> set[str]:
    """The names of all topics."""
    return {key.name for key in contents if key.kind == Kind.TOPIC}


def template_names_of(contents: Contents) -> set[TemplateName]:
    """The names and channels of all templates."""
    return {(key.name, key.channel) for key in contents if key.kind == TEMPLATE}


def spoken(key: Key) -> str:
    """What a person calls it."""
    if key == POLICY_KEY:
        return "the policy"
    return f"the {key.kind} '{key.name}'" + (f" ({key.channel}, {key.locale})" if key.kind == TEMPLATE else "")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
