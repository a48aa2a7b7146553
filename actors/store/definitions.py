"""Definitions: what an organization has set up apart from templates and providers, one JSON document a row.

Every change of an organization's set-up is made inside :func:`changing`, one transaction under the organization's lock, so that
what was checked against the rest still fits it when it is stored. A document's *tag* tells it from any other that stood, or will
stand, under its name: the revision and a digest of the body. Invariant: storing what is there already changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
from attrs import field, frozen

from dispatcher.definitions import Definition, Kind
from dispatcher.model import OrganizationId

if TYPE_CHECKING:
    from actors.io.postgres import Pool, TrioConnection

_COLUMNS = "kind, name, body, revision, created_at, updated_at, left(md5(body::text), 8)"
_READ_ALL = f'SELECT {_COLUMNS} FROM definitions WHERE organization_id = %s ORDER BY kind, name COLLATE "C"'
_READ = f"SELECT {_COLUMNS} FROM definitions WHERE organization_id = %s AND kind = %s AND name = %s"
_PUT = f"""
INSERT INTO definitions AS d (organization_id, kind, name, body) VALUES (%s, %s, %s, %s::jsonb)
ON CONFLICT (organization_id, kind, name) DO UPDATE SET
    body = excluded.body,
    revision = d.revision + (d.body IS DISTINCT FROM excluded.body)::integer,
    updated_at = CASE WHEN d.body IS DISTINCT FROM excluded.body THEN now() ELSE d.updated_at END
RETURNING {_COLUMNS}"""
_COUNT = "SELECT count(*) FROM definitions WHERE organization_id = %s AND kind = %s"
_DELETE = "DELETE FROM definitions WHERE organization_id = %s AND kind = %s AND name = %s"
# The space of advisory locks is the database's, so the first half of the number says what the lock is for.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('definitions'), hashtext(%s))"

ANYTHING = "*"
"""As ``expected``: whatever stands there, but something must."""
NOTHING = "0"
"""As ``expected``: nothing may stand there yet. No tag is so short."""


@frozen
class Stored:
    """A definition as it stands, with its dates. ``tag`` changes with every change."""

    definition: Definition
    created_at: datetime
    updated_at: datetime
    tag: str


@frozen
class NamePage:
    """Definitions by name. ``next`` is the cursor of the following page, a name; None on the last one."""

    items: Sequence[Stored]
    next: str | None


async def read_all(pool: Pool, organization_id: OrganizationId) -> list[Definition]:
    """Every definition of an organization, by kind and name."""
    return [_stored(row).definition for row in await pool.fetch(_READ_ALL, (organization_id,))]


async def read(pool: Pool, organization_id: OrganizationId, kind: Kind, name: str) -> Stored | None:
    """One definition."""
    rows = await pool.fetch(_READ, (organization_id, kind, name))
    return _stored(rows[0]) if rows else None


async def page(pool: Pool, organization_id: OrganizationId, kind: Kind, after: str | None, size: int) -> NamePage:
    """Definitions of one kind by name, from after the name ``after`` on; ``size`` of them at most."""
    rows = await pool.fetch(
        f'SELECT {_COLUMNS} FROM definitions WHERE organization_id = %s AND kind = %s AND name COLLATE "C" > %s '
        'ORDER BY name COLLATE "C" LIMIT %s',
        (organization_id, kind, after or "", size + 1),
    )
    items = [_stored(row) for row in rows[:size]]
    return NamePage(items, items[-1].definition.name if len(rows) > size else None)


async def put(
    pool: Pool, organization_id: OrganizationId, kind: Kind, name: str, body: Mapping[str, Any], expected: str | None = None
) -> Stored | None:
    """Store a document, in place of the one before.

    ``expected`` is the tag that must stand there, ANYTHING or NOTHING. None, with nothing stored, when it is not so.
    """
    async with changing(pool, organization_id) as change:
        if expected is not None and not is_expected(expected, await change.read(kind, name)):
            return None
        return await change.put(kind, name, body)


async def delete(pool: Pool, organization_id: OrganizationId, kind: Kind, name: str) -> bool:
    """Remove a document. False when there was none."""
    async with changing(pool, organization_id) as change:
        return await change.delete(kind, name)


@frozen
class Change:
    """One change of an organization's set-up under way: nobody else changes it until it ends. Made by :func:`changing`."""

    connection: TrioConnection[tuple[Any, ...]] = field(repr=False)
    organization_id: OrganizationId

    async def read_all(self) -> list[Stored]:
        """Every definition of the organization, by kind and name."""
        cursor = await self.connection.execute(_READ_ALL, (self.organization_id,))
        return [_stored(row) for row in await cursor.fetchall()]

    async def read(self, kind: Kind, name: str) -> Stored | None:
        """One definition."""
        cursor = await self.connection.execute(_READ, (self.organization_id, kind, name))
        row = await cursor.fetchone()
        return None if row is None else _stored(row)

    async def count(self, kind: Kind) -> int:
        """How many of a kind there are."""
        cursor = await self.connection.execute(_COUNT, (self.organization_id, kind))
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    async def put(self, kind: Kind, name: str, body: Mapping[str, Any]) -> Stored:
        """Store a document, in place of the one before."""
        cursor = await self.connection.execute(_PUT, (self.organization_id, kind, name, orjson.dumps(body).decode()))
        row = await cursor.fetchone()
        assert row is not None
        return _stored(row)

    async def delete(self, kind: Kind, name: str) -> bool:
        """Remove a document. False when there was none."""
        return (await self.connection.execute(_DELETE, (self.organization_id, kind, name))).rowcount > 0


@asynccontextmanager
async def changing(pool: Pool, organization_id: OrganizationId, deadline_s: float | None = None) -> AsyncIterator[Change]:
    """A transaction in which the organization's set-up is changed by nobody else. An exception undoes all of it.

    It must end within ``deadline_s``, or the pool's own deadline, waiting in line included.
    """
    async with pool.connection(deadline_s) as connection, connection.transaction():
        await connection.execute(_LOCK, (organization_id,))
        yield Change(connection, organization_id)


def is_expected(expected: str, stored: Stored | None) -> bool:
    """Whether what stands there is what somebody expected: a tag, ANYTHING or NOTHING."""
    if stored is None:
        return expected == NOTHING
    return expected in (ANYTHING, stored.tag)


def _stored(row: tuple[Any, ...]) -> Stored:
    kind, name, body, revision, created_at, updated_at, digest = row
    return Stored(Definition(Kind(kind), name, body, revision), created_at, updated_at, f"{revision}-{digest}")
