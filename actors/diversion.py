"""Another way for a notification whose recipient may not be used: the first of its fallbacks that can stand in.

What is asked here may have changed when the row is inserted: the insert asks again, and then refuses instead of diverting.
"""

from __future__ import annotations

from collections.abc import Mapping

from actors.ports import Diverted
from dispatcher.acceptance import Item
from dispatcher.contacts import IGNORABLE, ContactStatus
from dispatcher.model import Channel
from dispatcher.problems import Problem

Statuses = Mapping[tuple[Channel, str], ContactStatus]
"""Recipients that are suppressed, and why."""


def ways_of(item: Item | Problem) -> tuple[Item, ...]:
    """An item and its fallbacks, if it has any."""
    return (item, *item.fallbacks) if isinstance(item, Item) and item.fallbacks else ()


def chosen_way(item: Item, statuses: Statuses) -> tuple[Item, Diverted | None]:
    """The item or what stands in for it; the item itself when nothing can."""
    reason = _obstacle(item, statuses)
    if reason is not None:
        for way in item.fallbacks:
            if _obstacle(way, statuses) is None:
                return way, Diverted(item.channel, reason)
    return item, None


def _obstacle(item: Item, statuses: Statuses) -> ContactStatus | None:
    status = statuses.get((item.channel, item.recipient))
    return None if item.ignores_suppression and status in IGNORABLE else status
