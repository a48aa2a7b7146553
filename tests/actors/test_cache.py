"""An organization's hot cache: one load per entry, jittered lives, nothing stale after a change."""

from __future__ import annotations

from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.cache import ENTRIES_MAX, CacheStatistics, HotCache


class Source:
    """Loads a counter's next value, in ``load_s``."""

    def __init__(self, load_s: float = 1.0) -> None:
        self.load_s = load_s
        self.loads = 0
        self.failing = False

    async def __call__(self) -> int:
        self.loads += 1
        value = self.loads
        await trio.sleep(self.load_s)
        if self.failing:
            raise ValueError("a load that failed")
        return value


def cache(ttl_min_s: float = 300.0, ttl_max_s: float = 900.0) -> HotCache[int]:
    return HotCache(ttl_min_s=ttl_min_s, ttl_max_s=ttl_max_s, random=Random(1))


async def test_an_entry_is_loaded_once_while_it_lives(autojump_clock: MockClock) -> None:
    hot, source = cache(), Source()
    values = [await hot.get("key", source) for _ in range(3)]

    assert values == [1, 1, 1]
    assert hot.statistics() == CacheStatistics(entries=1, hits=2, misses=1)


async def test_an_entry_lives_between_its_bounds_and_each_as_long_as_it_likes(autojump_clock: MockClock) -> None:
    hot, source = cache(), Source(load_s=0.0)
    for key in range(50):
        await hot.get(key, source)
    await trio.sleep(299.0)
    young = sum(hot.peek(key) is not None for key in range(50))
    await trio.sleep(300.0)
    grown = sum(hot.peek(key) is not None for key in range(50))
    await trio.sleep(302.0)
    old = sum(hot.peek(key) is not None for key in range(50))

    assert young == 50
    assert 0 < grown < 50
    assert old == 0


async def test_callers_who_miss_together_wait_for_one_load(autojump_clock: MockClock) -> None:
    hot, source = cache(), Source()
    values: list[int] = []

    async def ask() -> None:
        values.append(await hot.get("key", source))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)

    assert values == [1] * 5
    assert source.loads == 1


async def test_a_failed_load_fails_all_who_waited_and_is_not_remembered(autojump_clock: MockClock) -> None:
    hot, source = cache(), Source()
    source.failing = True
    failures = 0

    async def ask() -> None:
        nonlocal failures
        try:
            await hot.get("key", source)
        except ValueError:
            failures += 1

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    source.failing = False

    assert failures == 3
    assert await hot.get("key", source) == 2


async def test_when_the_loader_is_cancelled_another_caller_loads(autojump_clock: MockClock) -> None:
    hot, source = cache(), Source()
    values: list[int] = []

    async def impatient() -> None:
        with trio.move_on_after(0.5):
            await hot.get("key", source)

    async def patient() -> None:
        values.append(await hot.get("key", source))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(impatient)
        await wait_all_tasks_blocked()
        nursery.start_soon(patient)

    assert values == [2]


async def test_a_change_drops_everything(autojump_clock: MockClock) -> None:
    hot, source = cache(), Source()
    await hot.get("key", source)
    hot.drop()

    assert hot.peek("key") is None
    assert await hot.get("key", source) == 2


async def test_a_load_that_began_before_a_change_is_not_kept(autojump_clock: MockClock) -> None:
    hot, source = cache(), Source()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hot.get, "key", source)
        await wait_all_tasks_blocked()
        hot.drop()
        after = await hot.get("key", source)
        await trio.sleep(5.0)

    assert after == 2
    assert hot.peek("key") == 2


async def test_a_cache_that_is_full_starts_anew(autojump_clock: MockClock) -> None:
    hot, source = cache(), Source(load_s=0.0)
    for key in range(ENTRIES_MAX + 1):
        await hot.get(key, source)

    assert hot.statistics().entries == 1
    assert hot.peek(ENTRIES_MAX) is not None


@pytest.mark.parametrize("key", ["name", ("name", "email", None)])
async def test_any_hashable_is_a_key(autojump_clock: MockClock, key: object) -> None:
    hot, source = cache(), Source()

    assert hot.peek(key) is None
    assert await hot.get(key, source) == hot.peek(key) == 1
