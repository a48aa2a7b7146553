"""The keys at rest: proof at start that they fit this database, and moving credentials from old keys to the new one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import frozen

from actors.store.providers import sealing_context
from dispatcher.errors import ConfigError
from dispatcher.model import OrganizationId
from dispatcher.vault import KEYS_VARIABLE, EncryptionKeys, key_id_of, label_of, open_sealed, rewrap, seal_directly

if TYPE_CHECKING:
    from actors.io.postgres import Pool

_PROOF = b"these keys fit this database"
_CONTEXT = b"encryption-check"
_PAGE_ROWS = 200

RandomBytes = Callable[[int], bytes]


async def check(pool: Pool, keys: EncryptionKeys, random_bytes: RandomBytes) -> None:
    """Refuse keys that do not open what is stored; remember a sealing key that is new here.

    Raises ConfigError, which names the key by its id: when a known id comes with other bytes, or credentials are sealed with a
    key that is not there.
    """
    missing = set()
    for (credentials,) in await pool.fetch("SELECT credentials FROM delivery_provider_configs"):
        with suppress(ConfigError):  # a damaged one is the trouble of its organization, not of all
            key_id = key_id_of(bytes(credentials))
            if key_id not in keys.ids:
                missing.add(key_id)
    if missing:
        raise ConfigError(
            f"{KEYS_VARIABLE}: credentials in this database are sealed with {', '.join(map(repr, sorted(missing)))}, "
            "which is not among the keys: add it after the first, then run `dispatcher credentials rotate`"
        )
    for key_id, sealed in await pool.fetch("SELECT key_id, sealed FROM encryption_check"):
        if key_id not in keys.ids:
            continue
        try:
            opened = open_sealed(keys, bytes(sealed), _CONTEXT)
        except ConfigError:
            opened = b""
        if opened != _PROOF:
            raise ConfigError(
                f"{KEYS_VARIABLE}: the key {key_id!r} is not the one this database was set up with: "
                "give the original key under this id, and a new key under a new id"
            )
    sealed = seal_directly(keys, _PROOF, _CONTEXT, random_bytes)
    await pool.execute(
        "INSERT INTO encryption_check (key_id, sealed) VALUES (%s, %s) ON CONFLICT DO NOTHING", (keys.sealing_id, sealed)
    )


async def check_none_needed(pool: Pool) -> None:
    """Refuse to go on without keys when credentials are stored: nothing could be sent. Raises ConfigError."""
    if await pool.fetch("SELECT 1 FROM delivery_provider_configs LIMIT 1"):
        raise ConfigError(f"{KEYS_VARIABLE}: credentials are stored in this database, so the keys that open them must be set")


@frozen
class Rotation:
    """How far a rotation is: ``moved`` of ``total`` configurations that were sealed with another key, or in no envelope."""

    moved: int
    total: int


async def rotate(pool: Pool, keys: EncryptionKeys, random_bytes: RandomBytes, progress: Callable[[Rotation], None]) -> Rotation:
    """Put every credential in an envelope under the first key. Safe to repeat and to run beside a working dispatcher.

    Raises ConfigError when a credential can not be opened with the keys there are; what was moved before stays moved.
    """
    rows = await pool.fetch("SELECT id, organization_id, credentials FROM delivery_provider_configs ORDER BY id")
    waiting = [(id, organization_id, bytes(sealed)) for id, organization_id, sealed in rows if not _is_sealed_with(sealed, keys)]
    moved = 0
    for id, organization_id, sealed in waiting:
        context = sealing_context(OrganizationId(organization_id), id)
        try:
            anew = rewrap(keys, sealed, context, random_bytes)
        except ConfigError as error:
            raise ConfigError(f"provider configuration {id} of organization {organization_id}: {error}") from None
        # A configuration that is replaced at this moment is sealed with the first key already.
        await pool.execute(
            "UPDATE delivery_provider_configs SET credentials = %s WHERE id = %s AND credentials = %s", (anew, id, sealed)
        )
        moved += 1
        if moved % _PAGE_ROWS == 0 or moved == len(waiting):
            progress(Rotation(moved, len(waiting)))
    await check(pool, keys, random_bytes)
    await pool.execute("DELETE FROM encryption_check WHERE key_id <> %s", (keys.sealing_id,))
    return Rotation(moved, len(waiting))


def _is_sealed_with(sealed: bytes, keys: EncryptionKeys) -> bool:
    """Whether this is an envelope of the first key. A damaged value was sealed with none."""
    try:
        return key_id_of(bytes(sealed)) == keys.sealing_id and label_of(bytes(sealed)) is not None
    except ConfigError:
        return False
