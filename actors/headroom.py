"""Watches the head-room of the servers for the accept path: a few looks a second, never one a request.

Redis is asked for its memory every :data:`MEMORY_EVERY_S`, with one small command; how long inserts wait for Postgres is known
here without asking anybody. What is short is decided in :mod:`dispatcher.headroom`. A Redis that is away is no shortage: Postgres
keeps what is accepted meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from random import Random

import trio

from actors.io.postgres import Pool
from actors.io.redis import Redis
from actors.metrics import Metrics
from dispatcher.errors import DispatcherError
from dispatcher.headroom import Headroom, Reading, Shortage
from dispatcher.problems import Refused

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25
LATE_S = 1.0
"""A look that comes so late says nothing about Postgres: this process itself stood still."""
MEMORY_EVERY_S = 2.0
LATEST_S = 10.0
"""An insert that ended longer ago says nothing about now."""


class Waits:
    """How long inserts of the accept path wait for Postgres. Written by the acceptor."""

    def __init__(self) -> None:
        self._under_way: list[float] = []  # when the oldest request of each was handed in
        self.latest_s = 0.0
        """How long the insert took that ended last, however it ended."""
        self.latest_at_s = -inf

    @property
    def longest_s(self) -> float:
        """Of what waits now, the longest."""
        return trio.current_time() - min(self._under_way) if self._under_way else 0.0

    @contextmanager
    def insert(self, handed_in_s: float) -> Iterator[None]:
        """Around one insert, whose oldest request was handed in then."""
        self._under_way.append(handed_in_s)
        try:
            yield
        finally:
            self._under_way.remove(handed_in_s)
            self.latest_at_s = trio.current_time()
            self.latest_s = self.latest_at_s - handed_in_s


class HeadroomWatch:
    """One process's watch. ``waits`` are those of the accept path, ``is_idle`` tells whether nothing waits."""

    def __init__(
        self,
        headroom: Headroom,
        redis: Redis,
        pool: Pool,
        metrics: Metrics,
        *,
        waits: Waits,
        is_idle: Callable[[], bool],
        random: Random,
    ) -> None:
        self._headroom = headroom
        self._redis = redis
        self._pool = pool
        self._metrics = metrics
        self._waits = waits
        self._is_idle = is_idle
        self._random = random
        self._memory_ratio: float | None = None
        self._policy = "noeviction"
        self._mute = False  # Redis does not tell its memory, and that was logged
        self._line_moved_s = -1.0
        self._acquired = 0

    def admit(self) -> None:
        """Raises Refused, with 429, while something is short."""
        headroom = self._headroom
        if headroom.short:
            idle = self._is_idle() and not self._pool.statistics().waiting
            problem = headroom.refusal(trio.current_time(), idle=idle, random01=self._random.random())
            if problem is not None:
                self._metrics.events[f"turned_away_{problem.code}"] += 1
                raise Refused(problem)

    def gauges(self) -> Mapping[str, float]:
        """Present values, for a scrape."""
        found: dict[str, float] = {f"short_of_{shortage}": shortage in self._headroom.short for shortage in Shortage}
        found["redis_may_evict"] = self._policy != "noeviction"
        if self._memory_ratio is not None:
            found["redis_memory_ratio"] = self._memory_ratio
        return found

    async def run(self) -> None:
        """Watch until cancelled."""
        self._line_moved_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_memory)
            while True:
                due_s = trio.current_time() + LOOK_EVERY_S
                await trio.sleep_until(due_s)
                now_s = trio.current_time()
                self._look(now_s, late=now_s - due_s >= LATE_S)

    def _look(self, now_s: float, *, late: bool) -> None:
        pool = self._pool.statistics()
        if not pool.waiting or pool.acquired_total != self._acquired or late:
            self._line_moved_s = now_s
        self._acquired = pool.acquired_total
        if late:
            return
        waits = self._waits
        reading = Reading(
            memory_ratio=self._memory_ratio,
            waiting_s=max(waits.longest_s, now_s - self._line_moved_s),
            latest_wait_s=waits.latest_s if now_s - waits.latest_at_s < LATEST_S else 0.0,
        )
        for shortage in self._headroom.see(reading):
            if shortage in self._headroom.short:
                self._metrics.events[f"short_of_{shortage}"] += 1
                logger.warning("short of %s: nothing is accepted until there is room", shortage)
            else:
                logger.warning("no longer short of %s", shortage)

    async def _watch_memory(self) -> None:
        while True:
            await self._ask_memory()
            await trio.sleep(MEMORY_EVERY_S * (0.75 + 0.5 * self._random.random()))

    async def _ask_memory(self) -> None:
        try:
            reply = await self._redis.execute("INFO", "memory")
        except DispatcherError:
            self._memory_ratio = None
            return
        except Exception as error:  # an error reply: this user may not ask
            self._memory_ratio = None
            if not self._mute:
                self._mute = True
                logger.warning(
                    "Redis does not tell how much memory it has left (%s), so arrivals are not slowed down before it is full: "
                    "let our user run INFO",
                    type(error).__name__,
                )
            return
        assert isinstance(reply, bytes)
        self._memory_ratio, policy = memory_of(reply)
        if policy != self._policy:
            self._policy = policy
            if policy != "noeviction":
                self._metrics.events["redis_may_evict"] += 1
                logger.error(
                    "Redis may evict keys (maxmemory-policy %s): notifications would wait until they are missed. "
                    "set maxmemory-policy noeviction",
                    policy,
                )


def memory_of(info: bytes) -> tuple[float | None, str]:
    """Used memory as a share of the limit (None without one), and the eviction policy, from INFO's section on memory."""
    fields = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    limit = int(fields.get("maxmemory", 0))
    ratio = int(fields.get("used_memory", 0)) / limit if limit else None
    return ratio, fields.get("maxmemory_policy", "noeviction")
