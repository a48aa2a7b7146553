"""Versions of templates: each write a version of its own, the newest in force, nothing older ever back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from attrs import evolve

from actors.io.postgres import Pool
from actors.store import templates
from actors.store.page import PageRequest
from actors.store.templates import NewTemplate
from dispatcher.errors import StoreUnavailable
from dispatcher.model import Channel, OrganizationId

ACME, GLOBEX = OrganizationId("acme"), OrganizationId("globex")
NEW = NewTemplate(
    "purchase", Channel.EMAIL, "en", "Subject", "Text", "<p>Html</p>", {"a": {"required": True, "default": [1, None]}}
)
Ids = Callable[[], str]


async def in_force(pool: Pool, organization_id: OrganizationId = ACME, name: str | None = None) -> list[tuple[str, str, int]]:
    page = await templates.read_page(pool, organization_id, name, PageRequest())
    return [(each.template.name, each.template.locale, each.template.version) for each in page.items]


async def test_what_is_stored_is_read_back(pool: Pool, new_id: Ids) -> None:
    added = await templates.add(pool, new_id(), ACME, NEW)

    stored = await templates.read(pool, ACME, added.template.id)

    assert stored == added
    template = added.template
    assert (template.name, template.channel, template.locale, template.version) == ("purchase", Channel.EMAIL, "en", 1)
    assert (template.subject, template.body_template, template.html_template) == ("Subject", "Text", "<p>Html</p>")
    assert template.variables == NEW.variables
    assert await templates.read(pool, GLOBEX, template.id) is None


async def test_versions_count_per_organization_name_channel_and_locale(pool: Pool, new_id: Ids) -> None:
    changes: list[dict[str, Any]] = [{}, {}, {"locale": "de"}, {"name": "refund"}, {"channel": Channel.SMS}]
    added = [await templates.add(pool, new_id(), ACME, evolve(NEW, **change)) for change in changes]
    foreign = await templates.add(pool, new_id(), GLOBEX, NEW)

    assert [each.template.version for each in [*added, foreign]] == [1, 2, 1, 1, 1, 1]


async def test_writers_at_the_same_moment_get_a_version_each(pool: Pool, new_id: Ids) -> None:
    versions: list[int] = []

    async def write() -> None:
        versions.append((await templates.add(pool, new_id(), ACME, NEW)).template.version)

    async with trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(write)

    assert sorted(versions) == list(range(1, 13))


async def test_a_crowd_that_never_lets_one_in_is_told_to_come_again(
    pool: Pool, new_id: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def beaten(*_: object, **__: object) -> list[tuple[Any, ...]]:
        await trio.lowlevel.checkpoint()
        return []

    monkeypatch.setattr(Pool, "fetch", beaten)

    with pytest.raises(StoreUnavailable):
        await templates.add(pool, new_id(), ACME, NEW)


async def test_the_newest_version_is_in_force(pool: Pool, new_id: Ids) -> None:
    for new in (NEW, NEW, evolve(NEW, locale="de"), evolve(NEW, name="refund")):
        await templates.add(pool, new_id(), ACME, new)
    await templates.add(pool, new_id(), GLOBEX, NEW)

    assert await in_force(pool) == [("refund", "en", 1), ("purchase", "de", 1), ("purchase", "en", 2)]
    assert await in_force(pool, name="purchase") == [("purchase", "de", 1), ("purchase", "en", 2)]
    assert await in_force(pool, GLOBEX) == [("purchase", "en", 1)]


async def test_retiring_the_newest_brings_nothing_older_back(pool: Pool, new_id: Ids) -> None:
    first, second = [(await templates.add(pool, new_id(), ACME, NEW)).template.id for _ in range(2)]
    await templates.add(pool, new_id(), ACME, evolve(NEW, locale="de"))

    assert not await templates.retire(pool, GLOBEX, second)
    assert await templates.retire(pool, ACME, second)
    assert not await templates.retire(pool, ACME, second)
    assert not await templates.retire(pool, ACME, first)

    assert await in_force(pool) == [("purchase", "de", 1)]
    retired = await templates.read(pool, ACME, first)
    assert retired is not None
    assert retired.retired_at is not None


async def test_retiring_an_older_version_leaves_the_newest_in_force(pool: Pool, new_id: Ids) -> None:
    first, _ = [(await templates.add(pool, new_id(), ACME, NEW)).template.id for _ in range(2)]

    assert await templates.retire(pool, ACME, first)

    assert await in_force(pool) == [("purchase", "en", 2)]


async def test_after_retirement_versions_count_on(pool: Pool, new_id: Ids) -> None:
    first = (await templates.add(pool, new_id(), ACME, NEW)).template.id
    await templates.retire(pool, ACME, first)

    assert (await templates.add(pool, new_id(), ACME, NEW)).template.version == 2
    assert await in_force(pool) == [("purchase", "en", 2)]


async def test_pages_follow_each_other(pool: Pool, new_id: Ids) -> None:
    ids = [(await templates.add(pool, new_id(), ACME, evolve(NEW, name=f"t{number}"))).template.id for number in range(3)]

    first = await templates.read_page(pool, ACME, None, PageRequest(size=2))
    second = await templates.read_page(pool, ACME, None, PageRequest(first.next, 2))

    assert [each.template.id for each in [*first.items, *second.items]] == ids[::-1]
    assert second.next is None
