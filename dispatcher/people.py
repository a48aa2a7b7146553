"""The people who get notifications, as far as deciding about one needs to know them.

A user has contact points, preferences by topic and channel, a locale, a time zone and perhaps quiet hours. Invariant: these
records are what was stored and was valid then; nothing here reads a clock or knows of a store.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time
from types import MappingProxyType
from typing import Final

from attrs import field, frozen

from dispatcher.contacts import ContactStatus
from dispatcher.model import Channel

ANY: Final = "*"
"""Stands for every topic, or every channel, in a preference."""


@frozen
class ContactPoint:
    """One way to reach a user. ``status`` is what is known of the contact; tokens may have ``app``, ``platform`` and an end."""

    id: str
    channel: Channel
    recipient: str = field(repr=False)
    status: ContactStatus = ContactStatus.ACTIVE
    app: str | None = None
    platform: str | None = None
    expires_at_s: float | None = None


@frozen
class QuietHours:
    """A span of the day, on a wall clock, in which nobody is to be disturbed. It may pass midnight. ``days`` as Monday = 0,
    those on which the span begins."""

    start: time
    end: time
    days: frozenset[int] = frozenset(range(7))


@frozen
class User:
    """One person of an organization. ``points`` stand in the order in which they are tried, the newest first."""

    id: str
    locale: str | None = None
    time_zone: str | None = None
    quiet_hours: QuietHours | None = None
    points: tuple[ContactPoint, ...] = field(default=(), repr=False)
    preferences: Mapping[tuple[str, str], bool] = field(default=MappingProxyType({}))
    """By (topic, channel), either of which may be ``ANY``."""
    cap_times_s: Mapping[str, tuple[float, ...]] = field(default=MappingProxyType({}))
    """By the name of a cap: when what it counts was sent or will be, ascending, in Unix seconds."""
