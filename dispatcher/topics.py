"""Topics: what people can have preferences about. One is a definition of the kind ``topic``.

A topic is written as ``{"title": "Offers", "critical": false, "default": ["email", "push"]}``, every field of which may be left
out. Invariant: :func:`parse_topic` names every fault of a document at once, and none by its value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from dispatcher.acceptance import together
from dispatcher.model import Channel
from dispatcher.problems import Problem

TITLE_CHARS_MAX = 200
NAME_RULE = "must be 1 to 64 of a-z, 0-9, dot, hyphen and underscore, beginning with a letter or digit"
"""What the name of a topic must be."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_FIELDS = frozenset({"title", "critical", "default"})
_CHANNELS = frozenset(channel.value for channel in Channel)


@frozen
class Topic:
    """One topic. Without a preference it is sent by the channels of ``default``.

    A ``critical`` one is sent whatever the person prefers, whatever the hour and the caps; only a contact that can not or may not
    be used stops it.
    """

    name: str
    title: str = ""
    critical: bool = False
    default: frozenset[Channel] = frozenset(Channel)


def is_topic_name(value: Any) -> bool:
    """Whether a topic can be called so."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def parse_topic(name: str, body: Mapping[str, Any]) -> Topic | Problem:
    """The topic that a document describes; or every fault of it, with pointers into it."""
    faults: list[Problem] = []

    def fault(pointer: str, detail: str, code: str = "field_invalid") -> None:
        faults.append(Problem(422, code, "The topic can not be used", detail, pointer))

    if not is_topic_name(name):
        fault("", f"its name {NAME_RULE}", "name_invalid")
    if not body.keys() <= _FIELDS:
        fault("", f"has an unknown field; known are {', '.join(sorted(_FIELDS))}", "field_unknown")
    title, critical, default = body.get("title", ""), body.get("critical", False), body.get("default")
    if not (isinstance(title, str) and len(title) <= TITLE_CHARS_MAX and (not title or title.isprintable())):
        fault("/title", f"must be a text of at most {TITLE_CHARS_MAX} characters on one line")
    if not isinstance(critical, bool):
        fault("/critical", "must be true or false")
    channels = _channels(default)
    if channels is None:
        fault("/default", f"must be a list of channels, each once: {', '.join(Channel)}")
    if faults or channels is None:
        return together(faults)
    return Topic(name, title, critical, channels)


def _channels(value: Any) -> frozenset[Channel] | None:
    if value is None:
        return frozenset(Channel)
    if not isinstance(value, list) or not all(isinstance(name, str) and name in _CHANNELS for name in value):
        return None
    channels = frozenset(Channel(name) for name in value)
    return channels if len(channels) == len(value) else None
