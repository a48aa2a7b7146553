"""Provider configurations: through whom an organization sends, best (lowest priority number) first.

Credentials are sealed before they get here and opened only by who is about to use them. Each is sealed to its own row,
so a ciphertext copied to another organization or row does not open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
from attrs import field, frozen

from actors.store.page import Page, PageRequest, page_of
from dispatcher.model import Channel, OrganizationId

if TYPE_CHECKING:
    from actors.io.postgres import Pool

_COLUMNS = "id, organization_id, provider, channel, credentials, settings, priority, revision, created_at, updated_at"


@frozen
class StoredProvider:
    """One configuration with its credentials still sealed. ``revision`` changes with every update."""

    id: str
    organization_id: OrganizationId
    provider: str
    channel: Channel
    sealed: bytes = field(repr=False)
    settings: Mapping[str, Any]
    priority: int
    revision: int
    created_at: datetime
    updated_at: datetime


def sealing_context(organization_id: OrganizationId, id: str) -> bytes:
    """What a configuration's credentials are bound to."""
    return f"provider:{organization_id}:{id}".encode()


async def add(
    pool: Pool,
    id: str,
    organization_id: OrganizationId,
    provider: str,
    channel: Channel,
    sealed: bytes,
    settings: Mapping[str, Any],
    priority: int,
) -> StoredProvider:
    """Store a new configuration."""
    rows = await pool.fetch(
        "INSERT INTO delivery_provider_configs (id, organization_id, provider, channel, credentials, settings, priority) "
        f"VALUES (%s, %s, %s, %s, %s, %s::jsonb, %s) RETURNING {_COLUMNS}",
        (id, organization_id, provider, channel, sealed, orjson.dumps(settings).decode(), priority),
    )
    return _stored(rows[0])


async def replace(
    pool: Pool, organization_id: OrganizationId, id: str, sealed: bytes | None, settings: Mapping[str, Any], priority: int
) -> StoredProvider | None:
    """Replace settings and priority, and the credentials unless ``sealed`` is None. None when there is no such configuration."""
    rows = await pool.fetch(
        "UPDATE delivery_provider_configs SET credentials = coalesce(%s::bytea, credentials), settings = %s::jsonb, "
        "priority = %s, revision = revision + 1, updated_at = now() "
        f"WHERE organization_id = %s AND id = %s RETURNING {_COLUMNS}",
        (sealed, orjson.dumps(settings).decode(), priority, organization_id, id),
    )
    return _stored(rows[0]) if rows else None


async def read(pool: Pool, organization_id: OrganizationId, id: str) -> StoredProvider | None:
    """One configuration."""
    rows = await pool.fetch(
        f"SELECT {_COLUMNS} FROM delivery_provider_configs WHERE organization_id = %s AND id = %s", (organization_id, id)
    )
    return _stored(rows[0]) if rows else None


async def read_all(pool: Pool, organization_id: OrganizationId) -> Sequence[StoredProvider]:
    """Every configuration of an organization, in the order in which they are to be used."""
    rows = await pool.fetch(
        f"SELECT {_COLUMNS} FROM delivery_provider_configs WHERE organization_id = %s ORDER BY priority, id", (organization_id,)
    )
    return [_stored(row) for row in rows]


async def read_page(pool: Pool, organization_id: OrganizationId, request: PageRequest) -> Page[StoredProvider]:
    """Configurations, newest first."""
    condition = "organization_id = %s"
    parameters: list[object] = [organization_id]
    if request.after is not None:
        condition += " AND id < %s"
        parameters.append(request.after)
    rows = await pool.fetch(
        f"SELECT {_COLUMNS} FROM delivery_provider_configs WHERE {condition} ORDER BY id DESC LIMIT %s",
        (*parameters, request.size + 1),
    )
    return page_of([_stored(row) for row in rows], [row[0] for row in rows], request.size)


async def remove(pool: Pool, organization_id: OrganizationId, id: str) -> bool:
    """Remove a configuration, credentials and all. False when there was none."""
    return bool(
        await pool.execute("DELETE FROM delivery_provider_configs WHERE organization_id = %s AND id = %s", (organization_id, id))
    )


def _stored(row: tuple[Any, ...]) -> StoredProvider:
    id, organization_id, provider, channel, sealed, *rest = row
    return StoredProvider(id, organization_id, provider, Channel(channel), bytes(sealed), *rest)
