"""An organization's policy: what holds for all that it sends, unless a person or a rule says otherwise."""

from __future__ import annotations

from attrs import frozen

from dispatcher.model import Channel
from dispatcher.people import QuietHours

KEPT_DAYS = (1, 7, 30, 90, 180, 365, 730, 3650)
"""How long history may be kept, in days: a closed set, because each is a family of partitions."""
KEPT_DAYS_DEFAULT = 365


@frozen
class Cap:
    """A person gets at most ``count_max`` notifications in any ``window_s`` seconds; of one topic or channel, if it is named."""

    name: str
    count_max: int
    window_s: float
    topic: str | None = None
    channel: Channel | None = None


@frozen
class Policy:
    """``time_zone`` (IANA) and ``quiet_hours`` are for people who have none of their own; ``kept_days`` is one of KEPT_DAYS."""

    time_zone: str = "UTC"
    quiet_hours: QuietHours | None = None
    caps: tuple[Cap, ...] = ()
    kept_days: int = KEPT_DAYS_DEFAULT
