"""Keys that do not fit are refused at start, by name; and credentials move to a new key while everything runs."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import orjson
import pytest

from actors.hot import Loaders
from actors.io.postgres import Pool
from actors.store import encryption, providers
from actors.store.encryption import Rotation
from dispatcher import vault
from dispatcher.errors import ConfigError
from dispatcher.model import Channel, OrganizationId
from dispatcher.vault import EncryptionKeys

ACME = OrganizationId("acme")
ONE, TWO, THREE = (bytes([number]) * 32 for number in range(3))
NewId = Callable[[], str]


def keys(**named: bytes) -> EncryptionKeys:
    return EncryptionKeys.of(named)


async def add(pool: Pool, id: str, sealing: EncryptionKeys, organization_id: OrganizationId = ACME) -> None:
    credentials = orjson.dumps({"api_key": f"SG.{id}"})
    sealed = vault.seal(sealing, credentials, providers.sealing_context(organization_id, id), secrets.token_bytes)
    settings = {"from_email": "tickets@hall.example"}
    await providers.add(pool, id, organization_id, "sendgrid", Channel.EMAIL, sealed, settings, 0)


async def check(pool: Pool, given: EncryptionKeys) -> None:
    await encryption.check(pool, given, secrets.token_bytes)


async def rotate(pool: Pool, given: EncryptionKeys) -> tuple[Rotation, list[Rotation]]:
    steps: list[Rotation] = []
    return await encryption.rotate(pool, given, secrets.token_bytes, steps.append), steps


async def usable(pool: Pool, given: EncryptionKeys) -> int:
    """How many configurations these keys open."""
    return len(await Loaders(pool, given, ()).providers(ACME))


# --- at start -----------------------------------------------------------------------------------------------


async def test_the_keys_of_the_first_start_fit_every_later_one(pool: Pool, new_id: NewId) -> None:
    await check(pool, keys(k1=ONE))
    await add(pool, new_id(), keys(k1=ONE))
    await check(pool, keys(k1=ONE))
    await check(pool, keys(k2=TWO, k1=ONE))
    await check(pool, keys(k1=ONE, k2=TWO))


async def test_other_bytes_under_a_known_name_are_refused_even_before_anything_is_sealed(pool: Pool) -> None:
    await check(pool, keys(k1=ONE))

    with pytest.raises(ConfigError, match="^DISPATCHER_ENCRYPTION_KEYS: the key 'k1' is not the one") as refused:
        await check(pool, keys(k1=TWO))
    with pytest.raises(ConfigError, match="'k1'"):
        await check(pool, keys(k2=TWO, k1=TWO))

    assert "\n" not in str(refused.value)


async def test_keys_without_the_one_that_sealed_are_refused(pool: Pool, new_id: NewId) -> None:
    await check(pool, keys(k1=ONE))
    await add(pool, new_id(), keys(k1=ONE))

    with pytest.raises(ConfigError, match="sealed with 'k1', which is not among the keys: add it after the first"):
        await check(pool, keys(k2=TWO))
    await check(pool, keys(k2=TWO, k1=ONE))


async def test_what_a_process_with_the_old_key_sealed_after_a_rotation_is_noticed(pool: Pool, new_id: NewId) -> None:
    await rotate(pool, keys(k2=TWO, k1=ONE))
    await add(pool, new_id(), keys(k1=ONE))

    with pytest.raises(ConfigError, match="'k1'"):
        await check(pool, keys(k2=TWO))


async def test_a_key_that_seals_nothing_any_more_may_be_left_out(pool: Pool) -> None:
    await check(pool, keys(k1=ONE))
    await check(pool, keys(k2=TWO))


async def test_one_damaged_row_stops_no_start(pool: Pool, new_id: NewId) -> None:
    await add(pool, new_id(), keys(k1=ONE))
    await add(pool, new_id(), keys(k1=ONE))
    await pool.execute(
        "UPDATE delivery_provider_configs SET credentials = 'x' "
        "WHERE id = (SELECT min(id::text)::uuid FROM delivery_provider_configs)"
    )
    await check(pool, keys(k1=ONE))

    assert await usable(pool, keys(k1=ONE)) == 1


# --- rotation -----------------------------------------------------------------------------------------------


async def test_after_a_rotation_the_old_key_is_not_needed(pool: Pool, new_id: NewId) -> None:
    await check(pool, keys(k1=ONE))
    for _ in range(5):
        await add(pool, new_id(), keys(k1=ONE))
    await add(pool, new_id(), keys(k2=TWO))
    done, steps = await rotate(pool, keys(k2=TWO, k1=ONE))
    await check(pool, keys(k2=TWO))

    assert done == steps[-1] == Rotation(moved=5, total=5)
    assert await usable(pool, keys(k2=TWO)) == 6
    assert await usable(pool, keys(k1=ONE)) == 0


async def test_a_rotation_can_be_repeated(pool: Pool, new_id: NewId) -> None:
    await add(pool, new_id(), keys(k1=ONE))
    await rotate(pool, keys(k2=TWO, k1=ONE))

    assert await rotate(pool, keys(k2=TWO, k1=ONE)) == (Rotation(0, 0), [])


async def test_a_rotation_that_lacks_a_key_names_the_configuration_and_loses_nothing(pool: Pool, new_id: NewId) -> None:
    ids = [new_id() for _ in range(3)]
    for id, sealing in zip(ids, (keys(k1=ONE), keys(k3=THREE), keys(k1=ONE)), strict=True):
        await add(pool, id, sealing)

    with pytest.raises(ConfigError, match=f"{ids[1]} of organization acme: .*'k3'"):
        await rotate(pool, keys(k2=TWO, k1=ONE))

    assert await usable(pool, keys(k2=TWO, k1=ONE, k3=THREE)) == 3
    done, _ = await rotate(pool, keys(k2=TWO, k1=ONE, k3=THREE))
    assert done.moved == 2
    assert await usable(pool, keys(k2=TWO)) == 3


async def test_a_configuration_replaced_meanwhile_keeps_its_new_credentials(pool: Pool, new_id: NewId) -> None:
    id = new_id()
    await add(pool, id, keys(k1=ONE))
    newer = vault.seal(keys(k2=TWO), b'{"api_key":"SG.newer"}', providers.sealing_context(ACME, id), secrets.token_bytes)

    replaced = False

    class Replacing:
        """The pool, with somebody who comes between the reading and the writing."""

        fetch = staticmethod(pool.fetch)

        @staticmethod
        async def execute(sql: str, params: tuple[object, ...] = ()) -> int:
            nonlocal replaced
            if not replaced:
                replaced = True
                await providers.replace(pool, ACME, id, newer, {"from_email": "tickets@hall.example"}, 0)
            return await pool.execute(sql, params)

    await encryption.rotate(Replacing(), keys(k2=TWO, k1=ONE), secrets.token_bytes, lambda _: None)  # type: ignore[arg-type]
    stored = await providers.read(pool, ACME, id)

    assert stored is not None
    assert stored.sealed == newer


async def test_credentials_moved_to_another_organization_do_not_open_there(pool: Pool, new_id: NewId) -> None:
    id = new_id()
    await add(pool, id, keys(k1=ONE))
    await pool.execute("UPDATE delivery_provider_configs SET organization_id = 'globex'")

    assert await Loaders(pool, keys(k1=ONE), ()).providers(OrganizationId("globex")) == []


async def test_what_is_opened_says_where_its_connections_lead(pool: Pool, new_id: NewId) -> None:
    """Whoever shares budgets between organizations tells gateways apart by that."""
    await add(pool, new_id(), keys(k1=ONE))
    ((policy, bound),) = await Loaders(pool, keys(k1=ONE), ()).providers(ACME)

    assert policy.origin == str(bound.origin) != ""
