"""Organizations."""

from __future__ import annotations

import pytest

from actors.io.postgres import Pool
from actors.store import organizations
from dispatcher.model import OrganizationId


async def test_an_id_is_given_once(pool: Pool) -> None:
    new = OrganizationId("initech")

    assert await organizations.create(pool, new, "Initech", "en-US")
    assert not await organizations.create(pool, new, "Somebody else", "fr")

    stored = await organizations.read(pool, new)
    assert stored is not None
    assert (stored.id, stored.name, stored.default_locale) == (new, "Initech", "en-US")


async def test_all_are_read_by_id(pool: Pool) -> None:
    assert [each.id for each in await organizations.read_all(pool)] == ["acme", "globex"]
    assert await organizations.read(pool, OrganizationId("nowhere")) is None


@pytest.mark.parametrize("id", ["a", "0", "acme", "a-b_c", "9" * 64])
def test_ids_that_fit_urls_keys_and_topics(id: str) -> None:
    assert organizations.is_organization_id(id)


@pytest.mark.parametrize("id", ["", "A", "-a", "_a", "a b", "a/b", "a:b", "a{b}", "é", "9" * 65, "a\n", "٣"])
def test_ids_that_do_not(id: str) -> None:
    assert not organizations.is_organization_id(id)
