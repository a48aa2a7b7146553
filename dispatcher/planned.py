"""What planning needs to know, and what it makes: notifications to be inserted, events for digests, who gets nothing, and why.

Invariant: what is planned is complete, down to its words; carrying a plan out decides nothing any more. A chain of decisions
belongs to each of them, and ends early exactly for what is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from attrs import field, frozen

from dispatcher.caps import CapUse
from dispatcher.contacts import ContactStatus
from dispatcher.decisions import Code, Decision
from dispatcher.model import Channel, Lane, OrganizationId
from dispatcher.people import User
from dispatcher.problems import Problem
from dispatcher.rules import LaneName, Relative, Window
from dispatcher.setup import Setup
from dispatcher.template_sets import TemplateSet
from dispatcher.topics import Topic
from dispatcher.unsubscribe import Links

CapTimes = Mapping[tuple[str, str], tuple[float, ...]]
"""By user and cap: the times that count."""
_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


@frozen
class World:
    """What is known at one moment, as far as deciding needs it: an organization's set-up, people, templates and providers.

    ``statuses`` are those of addresses that are no user's. ``lanes`` are those somebody serves, and whether the account that does
    has a limit. ``now_unix_s`` is the only clock.
    """

    organization_id: OrganizationId
    setup: Setup
    users: Mapping[str, User] = field(repr=False)
    templates: Mapping[tuple[str, Channel], TemplateSet] = field(repr=False)
    statuses: Mapping[tuple[Channel, str], ContactStatus] = field(repr=False)
    lanes: Mapping[Lane, bool]
    now_unix_s: float
    item_bytes_max: int
    links: Links | None = field(default=None, repr=False)


@frozen
class Target:
    """Somebody: a user, or whoever has these addresses, in this locale and time zone if they are known."""

    user_id: str | None = field(default=None, repr=False)
    addresses: Mapping[Channel, str] = field(default=_NOTHING, repr=False)
    locale: str | None = None
    time_zone: str | None = None


@frozen
class Timing:
    """When something is to be sent, before anybody's window and quiet hours are asked. At most one of the first three is given.

    ``date`` is the date of ``relative``, as the event has it. ``expires_in_s`` counts from that moment, ``expires_at_s`` is one.
    """

    delay_s: float = 0.0
    send_at_s: float | None = None
    relative: Relative | None = None
    date: Any = None
    window: Window | None = None
    expires_in_s: float | None = None
    expires_at_s: float | None = None


@frozen
class Wish:
    """One message that somebody is to get by one channel, before it is known whether they may and can.

    Exactly one of ``template`` and ``content`` is given. ``locale`` is for who has none. ``is_considerate`` respects quiet hours
    and caps. With ``every_point`` all of a user's push tokens are used, else the first that can be. ``digest_s`` gathers for so
    long instead of sending.
    """

    origin: Decision
    target: Target
    channel: Channel
    template: str | None = None
    content: Mapping[str, Any] | None = field(default=None, repr=False)
    variables: Mapping[str, Any] = field(default=_NOTHING, repr=False)
    extras: Mapping[str, Any] = field(default=_NOTHING, repr=False)
    """What a mail has beside its words."""
    topic: Topic | None = None
    lane: LaneName = LaneName.TRANSACTIONAL
    timing: Timing = Timing()
    locale: str | None = None
    is_considerate: bool = True
    ignores_suppression: bool = False
    every_point: bool = False
    digest_s: float | None = None
    once: str = ""
    """What tells the message from others that caps count."""
    pointer: str = "/data"
    """Where the variables stand in what was handed in."""
    refusal: Mapping[str, Any] = field(default=_NOTHING)
    """Why its variables could not be had: details of ``TEMPLATE_FAILED``."""


@frozen
class Way:
    """One address that is used, with the links of the chain that are about it. ``point_id`` is of a user's contact point."""

    recipient: str = field(repr=False)
    point_id: str | None
    contact: Decision
    provider: Decision
    is_limited: bool = False


@frozen
class Planned:
    """One notification to insert. ``send_at_s`` None is now. ``again`` is what to ask when a scheduled one is due.

    ``key`` tells it from others of its event, deterministically.
    """

    chain: tuple[Decision, ...]
    channel: Channel
    recipient: str = field(repr=False)
    user_id: str | None = field(repr=False)
    payload: Mapping[str, Any] = field(repr=False)
    template_id: str | None
    locale: str | None
    topic: str | None
    lane: LaneName
    send_at_s: float | None
    expires_at_s: float | None
    caps: tuple[CapUse, ...]
    again: Mapping[str, Any] | None
    ignores_suppression: bool = False
    rule: str | None = None
    key: bytes = field(default=b"", repr=False)


@frozen
class Gathered:
    """The event is told of later, with others."""

    chain: tuple[Decision, ...]
    channel: Channel
    user_id: str = field(repr=False)
    due_at_s: float
    rule: str = ""
    key: str = field(default="", repr=False)


@frozen
class Skipped:
    """Somebody gets nothing, and the last link of the chain says why. Without a channel, by none."""

    chain: tuple[Decision, ...]
    channel: Channel | None = None
    user_id: str | None = field(default=None, repr=False)
    rule: str | None = None
    problem: Problem | None = None
    """Of what can not be rendered: what its producer is told."""

    @property
    def code(self) -> Code:
        """Why."""
        return self.chain[-1].code


Fate = Planned | Gathered | Skipped


@frozen
class Plan:
    """All that comes of one event. ``rules`` are those that match it; without any, ``reason`` says why.

    ``problem`` refuses the event with everything in it. ``cap_times`` stand for what is planned, for the next plan.
    ``size_bytes`` is what all of it holds, about.
    """

    fates: Sequence[Fate]
    rules: Sequence[str]
    reason: Code | None = None
    problem: Problem | None = None
    cap_times: CapTimes = field(default=_NOTHING, repr=False)
    size_bytes: int = 0

    @property
    def planned(self) -> list[Planned]:
        """The notifications to insert."""
        return [fate for fate in self.fates if isinstance(fate, Planned)]

    @property
    def gathered(self) -> list[Gathered]:
        """The digests to join."""
        return [fate for fate in self.fates if isinstance(fate, Gathered)]

    @property
    def skipped(self) -> list[Skipped]:
        """Who gets nothing."""
        return [fate for fate in self.fates if isinstance(fate, Skipped)]
