"""Telling the queue and the listeners what was done with many dead letters at once, after it is on record.

All of it is a hint. What Redis does not hear of, the janitor's look at queued rows finds; so an outage here is no failure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from actors import announcements
from actors.ports import Arrival, Queue, Settlement
from dispatcher.errors import QueueUnavailable
from dispatcher.model import NotificationId, OrganizationId

logger = logging.getLogger(__name__)

SCRIPT_IDS_MAX = 1_000
"""Ids handed to one script, so that Redis never stands still for a large requeue."""

_T = TypeVar("_T")


class LetterNews:
    """``wake`` hears of organizations that have work; ``unix_s`` is the wall clock, for announcements."""

    def __init__(self, queue: Queue, wake: Callable[[OrganizationId], None], unix_s: Callable[[], float]) -> None:
        self._queue = queue
        self._wake = wake
        self._unix_s = unix_s

    async def requeued(self, organization_id: OrganizationId, due: Sequence[tuple[NotificationId, float]]) -> None:
        """These notifications are queued again, each due in so many seconds.

        Listeners hear of all of them in one event: one for each would push everything else out of the stream.
        """
        now = [id for id, due_in_s in due if due_in_s <= 0]
        later = [(id, due_in_s) for id, due_in_s in due if due_in_s > 0]
        news = announcements.letters_requeued(len(due), max((due_in_s for _, due_in_s in later), default=0.0), self._unix_s())
        try:
            if now:
                await self._queue.enqueue([Arrival(organization_id, part, ()) for part in _parts(now)])
            settlements = [Settlement(organization_id, delayed=part) for part in _parts(later)]
            await self._queue.settle([*settlements, Settlement(organization_id, announcements=[news])])
        except QueueUnavailable as error:
            logger.warning("requeued notifications wait for the janitor: %s", error)
        self._wake(organization_id)

    async def discarded(self, organization_id: OrganizationId, count: int) -> None:
        """So many dead letters were dropped."""
        news = announcements.letters_discarded(count, self._unix_s())
        try:
            await self._queue.settle([Settlement(organization_id, announcements=[news])])
        except QueueUnavailable as error:
            logger.warning("listeners did not hear of discarded dead letters: %s", error)


def _parts(items: list[_T]) -> Iterator[list[_T]]:
    for start in range(0, len(items), SCRIPT_IDS_MAX):
        yield items[start : start + SCRIPT_IDS_MAX]
