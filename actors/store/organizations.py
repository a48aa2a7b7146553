"""Organizations: the tenants everything else belongs to."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

from attrs import frozen

from dispatcher.model import OrganizationId

if TYPE_CHECKING:
    from actors.io.postgres import Pool

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)


@frozen
class Organization:
    """One tenant. ``default_locale`` ends every locale chain."""

    id: OrganizationId
    name: str
    default_locale: str
    created_at: datetime


def is_organization_id(text: str) -> bool:
    """Whether ``text`` may stand in URLs, keys and topics as an organization's id."""
    return _ID.fullmatch(text) is not None


async def create(pool: Pool, id: OrganizationId, name: str, default_locale: str) -> bool:
    """Create an organization. False when the id is taken: an existing organization is never changed."""
    return bool(
        await pool.execute(
            "INSERT INTO organizations (id, name, default_locale) VALUES (%s, %s, %s) ON CONFLICT (id) DO NOTHING",
            (id, name, default_locale),
        )
    )


async def read(pool: Pool, id: OrganizationId) -> Organization | None:
    """One organization."""
    rows = await pool.fetch("SELECT id, name, default_locale, created_at FROM organizations WHERE id = %s", (id,))
    return Organization(*rows[0]) if rows else None


async def read_all(pool: Pool) -> list[Organization]:
    """Every organization, by id."""
    rows = await pool.fetch("SELECT id, name, default_locale, created_at FROM organizations ORDER BY id")
    return [Organization(*row) for row in rows]
