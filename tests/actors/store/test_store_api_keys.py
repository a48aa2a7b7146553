"""API keys: found by digest, gone when revoked, never stored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.io.postgres import Pool
from actors.store import api_keys
from actors.store.api_keys import Scope
from dispatcher.model import OrganizationId

ACME = OrganizationId("acme")
KEY = api_keys.compose(b"k" * 32)


@given(st.binary(min_size=32, max_size=32))
def test_every_composed_key_is_recognised_and_fits_any_header(entropy: bytes) -> None:
    key = api_keys.compose(entropy)

    assert api_keys.is_key(key.encode())
    assert key.startswith("ndk_")
    assert all(character.isalnum() or character in "-_" for character in key)


@pytest.mark.parametrize("key", ["", "ndk_", KEY[:-1], KEY + "A", KEY.upper(), " " + KEY, KEY + "\n", KEY[:-1] + "é"])
def test_what_is_not_composed_is_no_key(key: str) -> None:
    assert not api_keys.is_key(key.encode())


async def test_a_key_is_found_by_its_digest_with_its_scopes(pool: Pool, new_id: Callable[[], str]) -> None:
    id = new_id()
    await api_keys.create(pool, id, ACME, "producer", KEY, [Scope.NOTIFICATIONS_WRITE, Scope.STREAM_READ])

    found = await api_keys.find(pool, api_keys.digest(KEY.encode()))

    assert found is not None
    assert (found.id, found.organization_id, found.name, found.revoked_at) == (id, ACME, "producer", None)
    assert found.scopes == {"notifications:write", "stream:read"}
    assert await api_keys.find(pool, api_keys.digest(b"another")) is None


async def test_the_key_itself_is_stored_nowhere(pool: Pool, new_id: Callable[[], str]) -> None:
    await api_keys.create(pool, new_id(), ACME, "producer", KEY, [])

    (row,) = await pool.fetch("SELECT api_keys::text FROM api_keys")
    assert KEY not in row[0]


async def test_a_revoked_key_is_not_found_any_more_but_listed(pool: Pool, new_id: Callable[[], str]) -> None:
    first, second = new_id(), new_id()
    await api_keys.create(pool, first, ACME, "old", KEY, [])
    await api_keys.create(pool, second, ACME, "new", api_keys.compose(b"n" * 32), [])

    assert not await api_keys.revoke(pool, OrganizationId("globex"), first)
    assert await api_keys.revoke(pool, ACME, first)
    assert not await api_keys.revoke(pool, ACME, first)

    assert await api_keys.find(pool, api_keys.digest(KEY.encode())) is None
    listed = await api_keys.read_all(pool, ACME)
    assert [(key.id, key.revoked_at is not None) for key in listed] == [(first, True), (second, False)]
    assert await api_keys.read_all(pool, OrganizationId("globex")) == []
