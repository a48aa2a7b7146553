"""Attempts that nobody holds although their process lives: rows that a late gate left behind.

Postgres may carry out a gate after this process has given up on it and repeated it. When the row was queued again meanwhile, it
then is ``sending`` under our own living lease, while no actor knows of it, and nobody rescues from who lives.

Invariant: what some actor holds is never taken: whoever holds an id is asked after the rows were read, and a row that was gated
again since then is left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf

import trio

from actors.metrics import Metrics
from actors.ports import Queue, Store
from actors.rescued import put_back
from dispatcher.model import NotificationId, OrganizationId

logger = logging.getLogger(__name__)

ROWS_MAX = 10_000
"""Rows of one look, more than one process holds by default: while Postgres was away all that it holds is old."""


class Strays:
    """Looks once in ``lease_s`` for rows that are older than that. ``holds`` says whether this process holds an id."""

    def __init__(
        self,
        store: Store,
        queue: Queue,
        metrics: Metrics,
        *,
        holds: Callable[[OrganizationId, NotificationId], bool],
        lease_s: float,
        unix_s: Callable[[], float],
    ) -> None:
        self._store = store
        self._queue = queue
        self._metrics = metrics
        self._holds = holds
        self._lease_s = lease_s
        self._unix_s = unix_s
        self._next_s = -inf

    async def look(self) -> None:
        """Take strays back as unknown, if it is time to look. Raises StoreUnavailable or QueueUnavailable."""
        if trio.current_time() < self._next_s:
            return
        self._next_s = trio.current_time() + self._lease_s
        old = await self._store.sending(self._lease_s, ROWS_MAX)
        strays = [id for organization_id, id in old if not self._holds(organization_id, id)]
        if strays:
            rescued = await self._store.reclaim(strays, self._lease_s)
            logger.warning("%d attempts were on record that nobody here was making; they are taken back", len(rescued))
            await put_back(rescued, self._queue, self._metrics, self._unix_s())
