"""API keys: who may call, for which organization, and what for.

A key is 256 random bits, so a plain SHA-256 of it is as good as a slow hash and costs a microsecond. Only that digest
is stored; the key itself exists once, on the screen of whoever created it.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from attrs import frozen

from dispatcher.model import OrganizationId

if TYPE_CHECKING:
    from actors.io.postgres import Pool

ENTROPY_BYTES = 32
KEY_PREFIX = "ndk_"
"""Lets scanners of leaked secrets recognise a key."""

_KEY = re.compile(rb"ndk_[A-Za-z0-9_-]{43}")
_COLUMNS = "id, organization_id, name, scopes, created_at, revoked_at"


class Scope(StrEnum):
    """What a key may be allowed to do: a closed set."""

    NOTIFICATIONS_READ = "notifications:read"
    NOTIFICATIONS_WRITE = "notifications:write"
    TEMPLATES_READ = "templates:read"
    TEMPLATES_WRITE = "templates:write"
    PROVIDERS_READ = "providers:read"
    PROVIDERS_WRITE = "providers:write"
    DEAD_LETTERS_READ = "dead_letters:read"
    DEAD_LETTERS_WRITE = "dead_letters:write"
    STREAM_READ = "stream:read"
    CONTACTS_READ = "contacts:read"
    CONTACTS_WRITE = "contacts:write"
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    EVENTS_READ = "events:read"
    EVENTS_WRITE = "events:write"
    SETUP_READ = "setup:read"
    SETUP_WRITE = "setup:write"


@frozen
class ApiKey:
    """What is known of a key: everything but the key."""

    id: str
    organization_id: OrganizationId
    name: str
    scopes: frozenset[str]
    created_at: datetime
    revoked_at: datetime | None


def compose(entropy: bytes) -> str:
    """The key made of :data:`ENTROPY_BYTES` random bytes. Letters, digits, ``-`` and ``_`` only, so it fits any header."""
    return KEY_PREFIX + urlsafe_b64encode(entropy).decode().rstrip("=")


def is_key(key: bytes) -> bool:
    """Whether this could be a key at all: what is not needs no look-up."""
    return _KEY.fullmatch(key) is not None


def digest(key: bytes) -> bytes:
    """What is stored of a key, and what it is looked up by."""
    return sha256(key).digest()


async def create(pool: Pool, id: str, organization_id: OrganizationId, name: str, key: str, scopes: Iterable[Scope]) -> None:
    """Store a new key's digest. The organization must exist."""
    await pool.execute(
        "INSERT INTO api_keys (id, organization_id, name, key_hash, scopes) VALUES (%s, %s, %s, %s, %s)",
        (id, organization_id, name, digest(key.encode()), [str(scope) for scope in scopes]),
    )


async def find(pool: Pool, key_digest: bytes) -> ApiKey | None:
    """The key with this digest, unless it was revoked."""
    rows = await pool.fetch(f"SELECT {_COLUMNS} FROM api_keys WHERE key_hash = %s AND revoked_at IS NULL", (key_digest,))
    return _key(rows[0]) if rows else None


async def read_all(pool: Pool, organization_id: OrganizationId) -> list[ApiKey]:
    """Every key of an organization, revoked ones too, oldest first."""
    rows = await pool.fetch(f"SELECT {_COLUMNS} FROM api_keys WHERE organization_id = %s ORDER BY id", (organization_id,))
    return [_key(row) for row in rows]


async def revoke(pool: Pool, organization_id: OrganizationId, id: str) -> bool:
    """Revoke a key; processes that have it cached follow within their cache time. False when there was none to revoke."""
    return bool(
        await pool.execute(
            "UPDATE api_keys SET revoked_at = now() WHERE organization_id = %s AND id = %s AND revoked_at IS NULL",
            (organization_id, id),
        )
    )


def _key(row: tuple[Any, ...]) -> ApiKey:
    id, organization_id, name, scopes, created_at, revoked_at = row
    return ApiKey(id, organization_id, name, frozenset(scopes), created_at, revoked_at)
