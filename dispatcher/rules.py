"""Rules: which events become which notifications, for whom, by which channels, and when.

A rule is written as JSON, checked when it is stored with every fault named at once, and compiled to these records. Expressions in
it are those of :mod:`dispatcher.conditions`: they see the event and nothing else, and can not loop. Invariant: a :class:`Rule`
names channels, templates and topics; whether they exist is asked when it is used, because they change on their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from attrs import field, frozen

from dispatcher.conditions import Expression
from dispatcher.model import Channel


class LaneName(StrEnum):
    """In which of an organization's two queues a notification waits. Bulk lets the other go first."""

    TRANSACTIONAL = "transactional"
    BULK = "bulk"


class Mode(StrEnum):
    """Whether a person gets a notification by every channel of the rule, or by the first that can be used."""

    ALL = "all"
    FIRST = "first"


@frozen
class Recipients:
    """Who gets it: exactly one of these. ``user`` gives a user id or a list of them, ``user_ids`` are fixed ones.

    ``contact`` reaches somebody who is no user: addresses by channel, and perhaps ``locale`` and ``time_zone``, as expressions.
    """

    user: Expression | None = None
    user_ids: tuple[str, ...] = ()
    contact: Mapping[Channel, Expression] = field(default=MappingProxyType({}))
    locale: Expression | None = None
    time_zone: Expression | None = None


@frozen
class Send:
    """One channel of a rule. ``variables`` give a template's variables beside the event's own data, by expression.

    ``attachments`` gives a list of files of the event, for email.
    """

    channel: Channel
    template: str
    variables: Mapping[str, Expression] = field(default=MappingProxyType({}))
    attachments: Expression | None = None


@frozen
class Relative:
    """A time relative to a date in the event, in seconds, negative for before.

    A date without an offset is read on the recipient's clock.
    """

    date: Expression
    offset_s: float


@frozen
class Window:
    """When it may be sent, on the recipient's clock: from ``start`` until before ``end`` on these days (Monday = 0)."""

    start: time
    end: time
    days: frozenset[int] = frozenset(range(7))


@frozen
class Digest:
    """Events of ``window_s`` seconds are told together. ``key`` keeps apart what should not be."""

    window_s: float
    key: Expression | None = None


@frozen
class Rule:
    """One rule. ``when`` None matches every event of the type; ``event_type`` may end in ``.*``.

    At most one of ``delay_s`` and ``at`` is given. ``expires_in_s`` counts from when it is to be sent.
    """

    name: str
    event_type: str
    recipients: tuple[Recipients, ...]
    sends: tuple[Send, ...]
    when: Expression | None = None
    topic: str | None = None
    lane: LaneName = LaneName.TRANSACTIONAL
    mode: Mode = Mode.ALL
    delay_s: float = 0.0
    at: Relative | None = None
    window: Window | None = None
    digest: Digest | None = None
    expires_in_s: float | None = None
    enabled: bool = True
    source: Mapping[str, Any] = field(default=MappingProxyType({}), repr=False)
    """The document it was made of."""
