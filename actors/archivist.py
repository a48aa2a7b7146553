"""The archivist: moves what is final into history, drops history whose time is over, and adds the counts up.

Every process runs one, jittered; two at once do no harm. A round adds counts up, which costs one question when there are none.
Now and then it is followed by a walk over what is old enough to go, from the oldest on, page by page. What has to stay
(scheduled, dead letters) is passed over, and a walk takes no more than a share of the time, however much of that there is.

Invariant: nothing here is needed by anything else. What it does not do now, it or another finds later; so a server that is away,
or a row that can not be moved, ends no more than a round.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from random import Random
from typing import TypeVar

import trio

from actors.archive import FIRST_ID, Archive
from actors.metrics import Metrics
from dispatcher.errors import StoreRefused, StoreUnavailable
from dispatcher.retention import DAY_S

logger = logging.getLogger(__name__)

ROWS_MAX = 1_000
"""Rows of one look, and so of one move: some 30 ms of Postgres."""
DELTAS_MAX = 20_000
"""Changes of counts that are added up at once."""
SHARE = 0.1
"""The part of the time that a walk may keep Postgres busy."""
REST_MAX_S = 3600.0
"""Between two walks; less where little time passes until rows may go."""
RESTS = 24
"""So many walks happen in the time that rows stay among the pending ones."""

T = TypeVar("T")


class Archivist:
    """A round every ``round_s`` or so. ``after_s`` is how long rows stay where they are; ``unix_s`` the wall clock."""

    def __init__(
        self,
        archive: Archive,
        metrics: Metrics,
        *,
        round_s: float,
        after_s: float,
        random: Random,
        unix_s: Callable[[], float],
    ) -> None:
        self._archive = archive
        self._metrics = metrics
        self._round_s = round_s
        self._rest_s = min(REST_MAX_S, after_s / RESTS)
        self._random = random
        self._unix_s = unix_s
        self._gauges: Mapping[str, float] = {"history_partitions": 0, "history_bytes": 0, "history_oldest_s": 0.0}
        self._walk_at_s = 0.0

    async def run(self) -> None:
        """Work until cancelled. Processes that start together do not walk together."""
        self._walk_at_s = trio.current_time() + self._rest_s * self._random.random()
        while True:
            try:
                await self.add_up()
                if trio.current_time() >= self._walk_at_s:
                    await self.walk()
                    self._walk_at_s = trio.current_time() + self._rest_s * (0.5 + self._random.random())
            except (StoreUnavailable, StoreRefused) as error:
                logger.warning("the archivist could not finish a round: %s", error)
            await trio.sleep(self._round_s * (0.5 + self._random.random()))

    async def walk(self) -> None:
        """All that may be done about history now. Raises StoreUnavailable when it could not be finished."""
        await self.move()
        await self.confirm()
        await self.drop()
        while await self._paced(partial(self._archive.forget, ROWS_MAX)) >= ROWS_MAX:
            pass

    async def add_up(self) -> None:
        """Add what was counted to the counts."""
        while await self._paced(partial(self._archive.fold, DELTAS_MAX)) >= DELTAS_MAX:
            pass

    async def move(self) -> None:
        """Move what may go, from the oldest on."""
        after = FIRST_ID
        while True:
            due, next_ = await self._paced(partial(self._archive.look, after, ROWS_MAX))
            if due:
                await self._paced(partial(self._archive.prepare, set(due.values())))
                try:
                    moved = await self._paced(partial(self._archive.move, due))
                except StoreRefused as error:  # one of them can not be moved: the others of other pages can
                    self._metrics.events["history_refused"] += 1
                    logger.error("%d notifications could not be moved into history: %s", len(due), error)
                else:
                    self._metrics.events["history_moved"] += moved.kept
                    self._metrics.events["history_let_go"] += moved.let_go
            if next_ is None:
                return
            after = next_

    async def confirm(self) -> None:
        """Write down what was confirmed of notifications that had moved."""
        after = FIRST_ID
        while True:
            written, next_ = await self._paced(partial(self._archive.confirm, after, ROWS_MAX))
            self._metrics.events["history_confirmed"] += written
            if next_ is None:
                return
            after = next_

    async def drop(self) -> None:
        """Drop the partitions that are over. One that somebody reads for long is dropped at a later walk."""
        now_unix_s, kept = self._unix_s(), []
        for partition in await self._archive.partitions():
            if partition.span.over_at_unix_s > now_unix_s:
                kept.append(partition)
            elif await self._archive.drop(partition.span):
                self._metrics.events["history_dropped"] += 1
                logger.info("the history in %s is over: dropped", partition.span.name)
            else:
                kept.append(partition)
                self._metrics.events["history_busy"] += 1
                logger.warning("the history in %s is over, but in use: it is dropped later", partition.span.name)
        oldest_day = min((partition.span.first_day for partition in kept), default=None)
        self._gauges = {
            "history_partitions": len(kept),
            "history_bytes": sum(partition.size_bytes for partition in kept),
            "history_oldest_s": 0.0 if oldest_day is None else now_unix_s - oldest_day * DAY_S,
        }

    def gauges(self) -> Mapping[str, float]:
        """The history as it was after the last walk."""
        return self._gauges

    async def _paced(self, step: Callable[[], Awaitable[T]]) -> T:
        """Take a step, and then a pause, so that steps take no more than their share of the time."""
        began_s = trio.current_time()
        result = await step()
        await trio.sleep((trio.current_time() - began_s) * (1 / SHARE - 1))
        return result
