"""Caches of organizations that have no actor here: kept while they are used, and dropped when the organization changes."""

from __future__ import annotations

from random import Random

from actors.cache import HotCache
from actors.caches import CACHES_MAX, Caches
from dispatcher.model import OrganizationId

ACME, OTHER = OrganizationId("acme"), OrganizationId("other")


def caches() -> Caches:
    return Caches(lambda: HotCache(ttl_min_s=300.0, ttl_max_s=900.0, random=Random(1)))


async def one() -> int:
    return 1


async def two() -> int:
    return 2


async def test_an_organization_has_one_cache_of_its_own() -> None:
    known = caches()
    await known.of(ACME).get("template", one)

    assert known.of(ACME).peek("template") == 1
    assert known.of(OTHER).peek("template") is None


async def test_a_change_drops_what_is_known_of_that_organization_only() -> None:
    known = caches()
    held = known.of(ACME)
    await held.get("template", one)
    await known.of(OTHER).get("template", two)
    known.drop(ACME)
    known.drop(OrganizationId("never seen"))

    assert held.peek("template") is None  # whoever still uses it loads anew
    assert known.of(ACME).peek("template") is None
    assert known.of(OTHER).peek("template") == 2


async def test_when_changes_were_missed_everything_goes() -> None:
    known = caches()
    held = [known.of(name) for name in (ACME, OTHER)]
    for cache in held:
        await cache.get("template", one)
    known.drop_all()

    assert [cache.peek("template") for cache in held] == [None, None]
    assert known.of(ACME) is not held[0]


async def test_there_are_only_so_many_and_those_used_last_stay() -> None:
    known = caches()
    await known.of(ACME).get("template", one)
    await known.of(OTHER).get("template", one)
    for number in range(CACHES_MAX - 1):
        known.of(ACME)
        known.of(OrganizationId(f"org-{number}"))

    assert known.of(ACME).peek("template") == 1
    assert known.of(OTHER).peek("template") is None
