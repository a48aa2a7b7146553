"""Templates: every stored version of every name, channel and locale.

A version never changes: to edit is to add the next one, and the newest that is not retired is in force. Retiring a
version retires those before it too, so that nothing older comes back into force by itself. Retired versions stay
readable by id, for the notifications that were rendered from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
from attrs import frozen

from actors.store.page import Page, PageRequest, page_of
from dispatcher.errors import StoreUnavailable
from dispatcher.model import Channel, OrganizationId, Template

if TYPE_CHECKING:
    from actors.io.postgres import Pool

_COLUMNS = "id, organization_id, name, channel, locale, version, subject, body_template, html_template, variables"

# The newest version of each name, channel and locale, unless it is retired: then so are all before it.
_IN_FORCE = """organization_id = %s AND deleted_at IS NULL AND NOT EXISTS (
    SELECT FROM notification_templates AS newer
    WHERE (newer.organization_id, newer.name, newer.channel, newer.locale) = (t.organization_id, t.name, t.channel, t.locale)
      AND newer.version > t.version)"""

_TRIES_MAX = 16


@frozen
class NewTemplate:
    """What somebody hands in to be stored as the next version."""

    name: str
    channel: Channel
    locale: str
    subject: str | None
    body_template: str
    html_template: str | None
    variables: Mapping[str, Mapping[str, Any]]


@frozen
class StoredTemplate:
    """A version and its dates. ``retired_at`` None means in force, or shadowed by a newer one."""

    template: Template
    created_at: datetime
    retired_at: datetime | None


async def add(pool: Pool, id: str, organization_id: OrganizationId, new: NewTemplate) -> StoredTemplate:
    """Store the next version. Writers of the same name at the same moment each get a version of their own."""
    parameters = (
        id,
        organization_id,
        new.name,
        new.channel,
        new.locale,
        new.subject,
        new.body_template,
        new.html_template,
        orjson.dumps(new.variables).decode(),
        organization_id,
        new.name,
        new.channel,
        new.locale,
    )
    # Two writers may both read the same highest version; the constraint lets one of them in and the other tries again.
    # A lock taken inside the statement would not help: its snapshot is older than the lock.
    for _ in range(_TRIES_MAX):
        rows = await pool.fetch(
            f"INSERT INTO notification_templates ({_COLUMNS}) "
            "SELECT %s, %s, %s, %s, %s, coalesce(max(version), 0) + 1, %s, %s, %s, %s::jsonb FROM notification_templates "
            "WHERE organization_id = %s AND name = %s AND channel = %s AND locale = %s "
            "ON CONFLICT (organization_id, name, channel, locale, version) DO NOTHING "
            f"RETURNING {_COLUMNS}, created_at, deleted_at",
            parameters,
        )
        if rows:
            return _stored(rows[0])
    raise StoreUnavailable("too many writers of one template at once")


async def read(pool: Pool, organization_id: OrganizationId, id: str) -> StoredTemplate | None:
    """One version, retired or not."""
    rows = await pool.fetch(
        f"SELECT {_COLUMNS}, created_at, deleted_at FROM notification_templates WHERE organization_id = %s AND id = %s",
        (organization_id, id),
    )
    return _stored(rows[0]) if rows else None


async def read_page(pool: Pool, organization_id: OrganizationId, name: str | None, request: PageRequest) -> Page[StoredTemplate]:
    """The versions in force, newest first; of one name, if given."""
    condition = _IN_FORCE
    parameters: list[object] = [organization_id]
    if name is not None:
        condition += " AND name = %s"
        parameters.append(name)
    if request.after is not None:
        condition += " AND id < %s"
        parameters.append(request.after)
    rows = await pool.fetch(
        f"SELECT {_COLUMNS}, created_at, deleted_at FROM notification_templates AS t WHERE {condition} ORDER BY id DESC LIMIT %s",
        (*parameters, request.size + 1),
    )
    stored = [_stored(row) for row in rows]
    return page_of(stored, [each.template.id for each in stored], request.size)


async def read_in_force(pool: Pool, organization_id: OrganizationId, name: str, channel: Channel) -> list[Template]:
    """The version in force of each locale of one template, the locale that was stored first in front."""
    rows = await pool.fetch(
        f"SELECT {_COLUMNS}, created_at, deleted_at FROM notification_templates AS t "
        f"WHERE {_IN_FORCE} AND name = %s AND channel = %s ORDER BY id",
        (organization_id, name, channel),
    )
    return [_stored(row).template for row in rows]


async def retire(pool: Pool, organization_id: OrganizationId, id: str) -> bool:
    """Retire this version and those before it. False when there is no such version in force."""
    return bool(
        await pool.execute(
            "UPDATE notification_templates AS older SET deleted_at = now() FROM notification_templates AS t "
            "WHERE t.organization_id = %s AND t.id = %s AND t.deleted_at IS NULL AND older.deleted_at IS NULL "
            "AND (older.organization_id, older.name, older.channel, older.locale) "
            "= (t.organization_id, t.name, t.channel, t.locale) AND older.version <= t.version",
            (organization_id, id),
        )
    )


def _stored(row: tuple[Any, ...]) -> StoredTemplate:
    id, organization_id, name, channel, *rest, created_at, retired_at = row
    return StoredTemplate(Template(id, organization_id, name, Channel(channel), *rest), created_at, retired_at)
