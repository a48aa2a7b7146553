"""An organization's hot cache: its provider configurations and published templates, kept 5 to 15 minutes.

Each entry gets its own jittered lifetime, so that what was loaded in one moment does not run out in one. Callers who miss the
same entry wait for one load. A change anywhere drops everything at once, and a load that began before the change is not kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from random import Random
from typing import Any, Generic, TypeVar

import trio
from attrs import define, frozen

V = TypeVar("V")

ENTRIES_MAX = 2_000
"""Entries one organization may keep; past it the whole cache starts anew, which costs loads, never an answer."""


@define
class _Load:
    """A load under way: ``done`` is set when ``value`` or ``error`` is."""

    done: trio.Event
    value: Any = None
    error: Exception | None = None
    abandoned: bool = False


@frozen
class CacheStatistics:
    """A snapshot."""

    entries: int
    hits: int
    misses: int


class HotCache(Generic[V]):
    """Loads on a miss, one load per key at a time.

    Owned by one organization's actor; used by whoever serves that organization.
    """

    def __init__(self, *, ttl_min_s: float, ttl_max_s: float, random: Random) -> None:
        self._ttl_min_s = ttl_min_s
        self._ttl_max_s = ttl_max_s
        self._random = random
        self._entries: dict[Hashable, tuple[float, V]] = {}
        self._loads: dict[Hashable, _Load] = {}
        self._generation = 0
        self._hits = 0
        self._misses = 0

    def peek(self, key: Hashable) -> V | None:
        """The entry if it is here and alive. Never waits."""
        entry = self._entries.get(key)
        if entry is None or entry[0] <= trio.current_time():
            return None
        self._hits += 1
        return entry[1]

    async def get(self, key: Hashable, load: Callable[[], Awaitable[V]]) -> V:
        """The entry, loaded if need be. Raises what ``load`` raises; a failed load is not remembered."""
        while True:
            value = self.peek(key)
            if value is not None:
                return value
            under_way = self._loads.get(key)
            if under_way is None:
                return await self._load(key, load)
            await under_way.done.wait()
            if under_way.abandoned:  # whoever was loading was cancelled: somebody else must
                continue
            if under_way.error is not None:
                raise under_way.error
            return under_way.value  # type: ignore[no-any-return]

    def drop(self) -> None:
        """Forget everything, also what is being loaded right now."""
        self._generation += 1
        self._entries.clear()
        self._loads.clear()

    def statistics(self) -> CacheStatistics:
        """A snapshot."""
        return CacheStatistics(len(self._entries), self._hits, self._misses)

    async def _load(self, key: Hashable, load: Callable[[], Awaitable[V]]) -> V:
        self._misses += 1
        generation = self._generation
        mine = self._loads[key] = _Load(trio.Event())
        try:
            value = mine.value = await load()
        except Exception as error:
            mine.error = error
            raise
        except BaseException:
            mine.abandoned = True
            raise
        finally:
            mine.done.set()
            if self._loads.get(key) is mine:
                del self._loads[key]
        if generation == self._generation:
            if len(self._entries) >= ENTRIES_MAX:
                self._entries.clear()
            ttl_s = self._ttl_min_s + (self._ttl_max_s - self._ttl_min_s) * self._random.random()
            self._entries[key] = (trio.current_time() + ttl_s, value)
        return value
