"""The janitor: mends what crashes and lost memories leave behind. Every process runs one, jittered; two at once do no harm.

* Attempts of an incarnation whose lease lapsed are taken back (as *unknown*: they may have reached the provider) and queued
  again, spread over time.
* Attempts that nobody in this living process makes are taken back likewise (:mod:`actors.strays`).
* What outlived its ``expires_at`` while nobody could claim it is given up.
* Queued rows that Redis has lost are put back: all of them when Redis lost its memory, otherwise those that have waited past
  a grace.
* Reports of providers that came before what they are about are looked at again, and old ones deleted.
* People who are being erased are gone on with, and push tokens that have expired are removed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from random import Random

import trio

from actors import announcements
from actors.metrics import Metrics
from actors.ports import Arrival, Page, Queue, Settlement, Store
from actors.rescued import put_back
from actors.strays import Strays
from dispatcher.errors import ArrivalsRefused, QueueRefused, QueueUnavailable, StoreUnavailable
from dispatcher.model import DeadLetterReason, NotificationId, OrganizationId

logger = logging.getLogger(__name__)

ROWS_MAX = 2_000
"""Rows of one look. What is left waits for the next."""
GRACE_S = 30.0
"""How long a queued row may be unchanged before it is looked for in Redis: longer than any accept takes to push it."""


class Janitor:
    """Mends every ``sweep_s`` or so. ``unix_s`` is the wall clock, for announcements; ``now_s`` tells that it gets on."""

    def __init__(
        self,
        store: Store,
        queue: Queue,
        metrics: Metrics,
        *,
        sweep_s: float,
        random: Random,
        unix_s: Callable[[], float],
        strays: Strays | None = None,
        reports: Callable[[], Awaitable[None]] | None = None,
        people: Callable[[], Awaitable[None]] | None = None,
        now_s: Callable[[], float] = trio.current_time,
    ) -> None:
        self._store = store
        self._queue = queue
        self._metrics = metrics
        self._sweep_s = sweep_s
        self._random = random
        self._unix_s = unix_s
        self._strays = strays
        self._reports = reports
        self._people = people
        self._now_s = now_s
        self._after: tuple[float, NotificationId] | None = None  # where the walk over old queued rows goes on
        self.stepped_s = 0.0
        """When it last got on with its round."""
        self._must_reseed = False  # Redis lost its memory, and not all of it was put back yet

    async def run(self) -> None:
        """Mend until cancelled. A server that is away is waited for: the next round finds what this one missed."""
        while True:
            self.stepped_s = self._now_s()
            try:
                await self.mend()
            except (StoreUnavailable, QueueUnavailable) as error:
                logger.warning("the janitor could not finish a round: %s", error)
            await trio.sleep(self._sweep_s * (0.5 + self._random.random()))

    async def mend(self) -> None:
        """One round. Raises StoreUnavailable or QueueUnavailable when it could not finish."""
        await self.rescue()
        await self.expire()
        self._must_reseed = not await self._queue.survived() or self._must_reseed
        if self._must_reseed:
            await self.reseed()
            self._must_reseed = False
        await self.restore()
        if self._strays is not None:
            await self._strays.look()
        if self._reports is not None:
            await self._reports()
        if self._people is not None:
            await self._people()

    async def rescue(self) -> None:
        """Take back the attempts of lapsed incarnations and queue them again."""
        while rescued := await self._store.rescue(ROWS_MAX):
            self.stepped_s = self._now_s()
            logger.warning("rescued %d attempts of processes that are gone", len(rescued))
            try:
                await put_back(rescued, self._queue, self._metrics, self._unix_s())
            except ArrivalsRefused as error:
                logger.error("%s", error)
            if len(rescued) < ROWS_MAX:
                return

    async def expire(self) -> None:
        """Give up what has outlived its ``expires_at`` while nobody could claim it, and announce that."""
        while expired := await self._store.expire(ROWS_MAX):
            self.stepped_s = self._now_s()
            now_unix_s = self._unix_s()
            notices: dict[OrganizationId, Settlement] = {}
            for organization_id, id, channel in expired:
                settlement = notices.setdefault(organization_id, Settlement(organization_id))
                settlement.announcements.append(announcements.expired(id, channel, now_unix_s))
                self._metrics.dead_letters[channel.value, DeadLetterReason.EXPIRED.value] += 1
            await self._queue.settle(list(notices.values()))
            if len(expired) < ROWS_MAX:
                return

    async def reseed(self) -> None:
        """Redis lost its memory, or is new: put every queued row back, what is not due yet as well."""
        reseeded = 0
        after: tuple[float, NotificationId] | None = None
        while True:
            self.stepped_s = self._now_s()
            page = await self._store.queued(after, 0.0, ROWS_MAX)
            await self._put_back(page)
            reseeded += len(page.rows)
            after = page.after
            if after is None:
                break
        if reseeded:
            logger.warning("Redis knew nothing of %d queued notifications; they are queued again", reseeded)

    async def restore(self) -> None:
        """Look at the next old queued rows and put back those that Redis does not know.

        When it knows none of a whole page, more is lost than a look a round could mend: then all queued rows are put back.
        """
        page = await self._store.queued(self._after, GRACE_S, ROWS_MAX)
        self._after = page.after
        missing = 0
        by_organization: dict[OrganizationId, tuple[list[NotificationId], list[NotificationId]]] = {}
        for organization_id, id, _ in page.rows:
            by_organization.setdefault(organization_id, ([], []))[id in page.bulk].append(id)
        for organization_id, (ids, bulk) in by_organization.items():
            self.stepped_s = self._now_s()
            try:
                restored = await self._queue.restore(organization_id, ids, bulk)
            except QueueRefused as error:  # its keys are damaged: that is nobody else's misfortune
                logger.error("organization %s: %s", organization_id, error)
                continue
            missing += restored
            if restored:
                self._metrics.events["restored"] += restored
                logger.warning("organization %s: %d queued notifications were unknown to Redis", organization_id, restored)
        if page.after is not None and missing == len(page.rows):
            self._after = None
            await self.reseed()

    async def _enqueue(self, arrivals: Sequence[Arrival]) -> None:
        """What Redis refuses of one organization stops no other: the walk over old rows comes back to it."""
        try:
            await self._queue.enqueue(arrivals)
        except ArrivalsRefused as error:
            logger.error("%s", error)

    async def _put_back(self, page: Page) -> None:
        ready: dict[tuple[OrganizationId, bool], list[NotificationId]] = {}
        waiting: dict[tuple[OrganizationId, bool], Settlement] = {}
        for organization_id, id, due_in_s in page.rows:
            lane = (organization_id, id in page.bulk)
            if due_in_s > 0:
                settlement = waiting.setdefault(lane, Settlement(organization_id, bulk=lane[1]))
                settlement.delayed.append((id, due_in_s))
            else:
                ready.setdefault(lane, []).append(id)
        if waiting:
            await self._queue.settle(list(waiting.values()))
        if ready:
            await self._enqueue([Arrival(organization_id, ids, (), bulk) for (organization_id, bulk), ids in ready.items()])
        self._metrics.events["reseeded"] += len(page.rows)
