"""The pusher: tells Redis of what was accepted, so that no producer ever waits for it.

What is on disk is handed in here without waiting and leaves in one pipelined call for all organizations of the moment. While
Redis is away, or says nothing, arrivals are kept and pushed as soon as it answers: the janitor, which would find them as well,
looks only at what has waited for half a minute. Arrivals that Redis refuses (the keys of one organization are damaged, its memory
is full) are kept apart and stand in nobody's way.

An announcement is pushed once: a repeat may come after the notification has been delivered. What is kept is bounded by
:data:`KEPT_MAX` ids; more is left to the janitor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from random import Random

import trio

from actors.metrics import Metrics
from actors.ports import Arrival, Queue
from dispatcher.backoff import full_jitter_s
from dispatcher.errors import ArrivalsRefused, QueueUnavailable
from dispatcher.model import NotificationId, OrganizationId

logger = logging.getLogger(__name__)

KEPT_MAX = 100_000
"""Ids kept while they can not be pushed; some 10 MB."""
RETRY_BASE_S = 0.05
RETRY_CAP_S = 2.0

_Lane = tuple[OrganizationId, bool]
"""An organization, and whether it is its bulk queue."""


class Pusher:
    """Pushes arrivals. ``wake`` hears of organizations whose ids have arrived."""

    def __init__(
        self,
        queue: Queue,
        metrics: Metrics,
        *,
        wake: Callable[[OrganizationId], None],
        random: Random,
        kept_max: int = KEPT_MAX,
    ) -> None:
        self._queue = queue
        self._metrics = metrics
        self._wake = wake
        self._random = random
        self._kept_max = kept_max
        self._fresh: list[Arrival] = []
        self._kept: dict[_Lane, list[NotificationId]] = {}
        self._kept_n = 0
        self._fresh_n = 0
        self._failures = 0
        self._away = False  # the last call said that Redis is away: fresh arrivals need not ask again
        self._again_at_s = 0.0
        self._news = trio.Event()
        self._closed = False

    @property
    def pending(self) -> int:
        """Ids that Redis does not know yet."""
        return self._fresh_n + self._kept_n

    def put(self, arrivals: Iterable[Arrival]) -> None:
        """Hand arrivals in. Never waits, never refuses: what is too much is left to the janitor."""
        for arrival in arrivals:
            if self._fresh_n + len(arrival.ids) > self._kept_max:
                self._leave_to_janitor(len(arrival.ids))
                continue
            self._fresh.append(arrival)
            self._fresh_n += len(arrival.ids)
        self._news.set()

    def close(self) -> None:
        """Nothing more will come: push what is here, once, and let :meth:`run` return."""
        self._closed = True
        self._news.set()

    async def run(self) -> None:
        """Push until closed."""
        while not self._closed:
            await self._until_due()
            await self._push()
        await self._push()

    async def _until_due(self) -> None:
        while not self._closed:
            waits = bool(self._fresh or self._kept)
            if (self._fresh and not self._away) or (waits and trio.current_time() >= self._again_at_s):
                return
            self._news = trio.Event()
            with trio.move_on_at(self._again_at_s if waits else inf):
                await self._news.wait()

    async def _push(self) -> None:
        fresh, self._fresh = self._fresh, []
        self._fresh_n = 0
        try_kept = self._closed or trio.current_time() >= self._again_at_s
        arrivals = _joined(fresh, self._kept if try_kept else {})
        if not arrivals:
            return
        refused: frozenset[OrganizationId] = frozenset()
        try:
            await self._queue.enqueue(arrivals)
        except ArrivalsRefused as error:
            logger.warning("accepted notifications wait to be queued: %s", error)
            refused = frozenset(error.organizations)
        except QueueUnavailable as error:
            if not self._away:
                logger.warning("accepted notifications wait for Redis: %s", error)
            self._away = True
            self._keep(fresh)
            self._wait_longer()
            return
        except BaseException:
            self._fresh = fresh + self._fresh
            self._fresh_n += sum(len(arrival.ids) for arrival in fresh)
            raise
        self._away = False
        if try_kept:
            for lane in [lane for lane in self._kept if lane[0] not in refused]:
                late = self._kept.pop(lane)
                self._kept_n -= len(late)
                self._metrics.events["enqueued_late"] += len(late)
        self._keep(arrival for arrival in fresh if arrival.organization_id in refused)
        if refused:
            self._wait_longer()
        elif not self._kept:
            self._failures = 0
        for arrival in arrivals:
            if arrival.organization_id not in refused:
                self._wake(arrival.organization_id)

    def _keep(self, arrivals: Iterable[Arrival]) -> None:
        for arrival in arrivals:
            room = max(0, self._kept_max - self._kept_n)
            kept = arrival.ids[:room]
            self._metrics.events["enqueue_missed"] += len(kept)
            if kept:
                self._kept.setdefault((arrival.organization_id, arrival.bulk), []).extend(kept)
                self._kept_n += len(kept)
            if len(kept) < len(arrival.ids):
                self._leave_to_janitor(len(arrival.ids) - len(kept))

    def _leave_to_janitor(self, n: int) -> None:
        self._metrics.events["enqueue_missed"] += n
        self._metrics.events["left_to_janitor"] += n

    def _wait_longer(self) -> None:
        self._failures += 1
        pause_s = full_jitter_s(self._failures, RETRY_BASE_S, RETRY_CAP_S, self._random.random())
        self._again_at_s = trio.current_time() + pause_s


def _joined(fresh: Sequence[Arrival], kept: Mapping[_Lane, Sequence[NotificationId]]) -> list[Arrival]:
    """One arrival for each queue: what was kept first, without its announcements."""
    if len(fresh) == 1 and not kept:
        return list(fresh)
    joined: dict[_Lane, tuple[list[NotificationId], list[bytes]]] = {lane: (list(ids), []) for lane, ids in kept.items()}
    for organization_id, ids, announcements, bulk in fresh:
        all_ids, all_announcements = joined.setdefault((organization_id, bulk), ([], []))
        all_ids.extend(ids)
        all_announcements.extend(announcements)
    return [Arrival(name, ids, announcements, bulk) for (name, bulk), (ids, announcements) in joined.items()]
