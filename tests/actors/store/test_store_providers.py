"""Provider configurations: order, revisions, and credentials that stay sealed."""

from __future__ import annotations

from collections.abc import Callable

from actors.io.postgres import Pool
from actors.store import providers
from actors.store.page import PageRequest
from actors.store.providers import StoredProvider
from dispatcher.model import Channel, OrganizationId

ACME, GLOBEX = OrganizationId("acme"), OrganizationId("globex")
SEALED = b"\x00\x01sealed\xff"
Ids = Callable[[], str]


async def add(pool: Pool, id: str, organization_id: OrganizationId = ACME, priority: int = 0) -> StoredProvider:
    return await providers.add(
        pool, id, organization_id, "sendgrid", Channel.EMAIL, SEALED, {"from_email": "a@b.example"}, priority
    )


async def test_what_is_stored_is_read_back(pool: Pool, new_id: Ids) -> None:
    added = await add(pool, new_id())

    assert await providers.read(pool, ACME, added.id) == added
    assert (added.provider, added.channel, added.sealed, added.revision) == ("sendgrid", Channel.EMAIL, SEALED, 1)
    assert added.settings == {"from_email": "a@b.example"}
    assert await providers.read(pool, GLOBEX, added.id) is None


async def test_no_repr_shows_what_is_sealed(pool: Pool, new_id: Ids) -> None:
    assert "sealed" not in repr(await add(pool, new_id()))


async def test_they_are_used_by_priority_and_then_by_age(pool: Pool, new_id: Ids) -> None:
    last, second, first = await add(pool, new_id(), priority=9), await add(pool, new_id()), await add(pool, new_id(), priority=-1)
    third = await add(pool, new_id())
    await add(pool, new_id(), GLOBEX)

    assert [each.id for each in await providers.read_all(pool, ACME)] == [first.id, second.id, third.id, last.id]


async def test_every_replacement_is_a_new_revision(pool: Pool, new_id: Ids) -> None:
    id = (await add(pool, new_id())).id

    kept = await providers.replace(pool, ACME, id, None, {"a": 1}, 3)
    resealed = await providers.replace(pool, ACME, id, b"other", {"a": 2}, 3)

    assert kept is not None
    assert resealed is not None
    assert (kept.sealed, kept.settings, kept.priority, kept.revision) == (SEALED, {"a": 1}, 3, 2)
    assert (resealed.sealed, resealed.revision) == (b"other", 3)
    assert resealed.updated_at > resealed.created_at
    assert await providers.replace(pool, GLOBEX, id, None, {}, 0) is None


async def test_removal_is_for_good_and_by_its_owner(pool: Pool, new_id: Ids) -> None:
    id = (await add(pool, new_id())).id

    assert not await providers.remove(pool, GLOBEX, id)
    assert await providers.remove(pool, ACME, id)
    assert not await providers.remove(pool, ACME, id)
    assert await providers.read_all(pool, ACME) == []


async def test_pages_are_newest_first(pool: Pool, new_id: Ids) -> None:
    ids = [(await add(pool, new_id(), priority=number)).id for number in range(3)]

    first = await providers.read_page(pool, ACME, PageRequest(size=2))
    second = await providers.read_page(pool, ACME, PageRequest(first.next, 2))

    assert [each.id for each in [*first.items, *second.items]] == ids[::-1]


def test_every_row_has_a_sealing_context_of_its_own() -> None:
    contexts = {providers.sealing_context(organization, id) for organization in (ACME, GLOBEX) for id in ("1", "2")}

    assert len(contexts) == 4
