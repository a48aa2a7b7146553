"""Definitions at rest: one document a kind and name, tags that tell changes apart, and changes that stand in line."""

from __future__ import annotations

import trio

from actors.io.postgres import Pool
from actors.store import definitions as store
from dispatcher.definitions import Definition, Kind
from dispatcher.model import OrganizationId

ACME, GLOBEX = OrganizationId("acme"), OrganizationId("globex")


async def test_what_is_stored_is_read_back_by_its_own_organization_only(pool: Pool) -> None:
    body = {"title": "Ünïcode ✓", "critical": True, "n": [1, 2.5, None]}
    stored = await store.put(pool, ACME, Kind.TOPIC, "orders", body)

    assert stored is not None
    assert stored.definition == Definition(Kind.TOPIC, "orders", body, 1)
    assert await store.read(pool, ACME, Kind.TOPIC, "orders") == stored
    assert await store.read(pool, ACME, Kind.RULE, "orders") is None
    assert await store.read(pool, GLOBEX, Kind.TOPIC, "orders") is None
    assert await store.read_all(pool, ACME) == [stored.definition]


async def test_storing_what_is_there_already_changes_nothing_and_anything_else_is_the_next_revision(pool: Pool) -> None:
    first = await store.put(pool, ACME, Kind.TOPIC, "orders", {"title": "Orders"})
    again = await store.put(pool, ACME, Kind.TOPIC, "orders", {"title": "Orders"})
    other = await store.put(pool, ACME, Kind.TOPIC, "orders", {"title": "Purchases"})

    assert first is not None
    assert other is not None
    assert again == first
    assert (other.definition.revision, other.created_at) == (2, first.created_at)
    assert other.updated_at > first.updated_at


async def test_a_document_is_stored_only_over_what_was_expected(pool: Pool) -> None:
    first = await store.put(pool, ACME, Kind.TOPIC, "orders", {"title": "1"}, store.NOTHING)
    assert first is not None

    assert await store.put(pool, ACME, Kind.TOPIC, "orders", {"title": "2"}, store.NOTHING) is None
    assert await store.put(pool, ACME, Kind.TOPIC, "else", {"title": "2"}, store.ANYTHING) is None
    second = await store.put(pool, ACME, Kind.TOPIC, "orders", {"title": "2"}, first.tag)
    assert second is not None
    assert await store.put(pool, ACME, Kind.TOPIC, "orders", {"title": "3"}, first.tag) is None
    assert await store.put(pool, ACME, Kind.TOPIC, "orders", {"title": "3"}, store.ANYTHING) is not None


async def test_the_tag_of_what_was_deleted_and_made_anew_is_another(pool: Pool) -> None:
    first = await store.put(pool, ACME, Kind.TOPIC, "orders", {"title": "1"})
    assert first is not None
    assert await store.delete(pool, ACME, Kind.TOPIC, "orders")
    assert not await store.delete(pool, ACME, Kind.TOPIC, "orders")
    await store.put(pool, ACME, Kind.TOPIC, "orders", {"title": "2"})

    assert await store.put(pool, ACME, Kind.TOPIC, "orders", {"title": "3"}, first.tag) is None


async def test_pages_follow_the_names(pool: Pool) -> None:
    for name in ("b", "Z", "a-b", "a", "ab"):
        await store.put(pool, ACME, Kind.RULE, name, {})
    await store.put(pool, ACME, Kind.TOPIC, "aa", {})

    seen: list[str] = []
    page = await store.page(pool, ACME, Kind.RULE, None, 2)
    while page.next is not None:
        seen += [each.definition.name for each in page.items]
        page = await store.page(pool, ACME, Kind.RULE, page.next, 2)
    seen += [each.definition.name for each in page.items]

    assert seen == sorted(["b", "Z", "a-b", "a", "ab"])


async def test_a_change_that_fails_leaves_nothing_behind(pool: Pool) -> None:
    try:
        async with store.changing(pool, ACME) as change:
            await change.put(Kind.TOPIC, "orders", {})
            raise LookupError
    except LookupError:
        pass

    assert await store.read_all(pool, ACME) == []


async def test_changes_of_one_organization_stand_in_line_and_those_of_another_do_not(pool: Pool) -> None:
    seen: list[str] = []
    entered = trio.Event()

    async def second() -> None:
        entered.set()
        async with store.changing(pool, ACME) as change:
            seen.extend(f"acme has {each.definition.name}" for each in await change.read_all())

    async with trio.open_nursery() as nursery:
        async with store.changing(pool, ACME) as change:
            nursery.start_soon(second)
            await entered.wait()
            async with store.changing(pool, GLOBEX) as other:
                await other.put(Kind.TOPIC, "orders", {})
            seen.append("globex is done")
            await change.put(Kind.TOPIC, "orders", {})

    assert seen == ["globex is done", "acme has orders"]
