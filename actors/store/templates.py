"""Templates: every stored version of every name, channel and locale.

A version never changes: to edit is to add the next one, and the newest published one is in force unless it is retired. A version
that is not published yet is a draft; once a newer one is published nobody will publish it any more. Retiring a version retires
those before it too, so that nothing older comes back into force by itself; of drafts it is the drafts before it. Retired versions
stay readable by id, for the notifications that were rendered from them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson
from attrs import frozen

from actors.store.definitions import Change
from actors.store.page import Page, PageRequest, page_of
from dispatcher.errors import StoreUnavailable
from dispatcher.model import Channel, OrganizationId, Template
from dispatcher.template_documents import NewTemplate

if TYPE_CHECKING:
    from actors.io.postgres import Pool

__all__ = [
    "NewTemplate",
    "State",
    "StoredTemplate",
    "add",
    "all_in_force",
    "in_force",
    "insert",
    "newest_drafts",
    "publish",
    "read",
    "read_in_force",
    "read_page",
    "retire",
]

_COLUMNS = (
    "id, organization_id, name, channel, locale, version, subject, body_template, html_template, variables, "
    "coalesce(parts, '{}'), schema"
)
_RETURNED = f"{_COLUMNS}, created_at, published_at, deleted_at"
_NEWER = """SELECT FROM notification_templates AS newer
    WHERE (newer.organization_id, newer.name, newer.channel, newer.locale) = (t.organization_id, t.name, t.channel, t.locale)
      AND newer.version > t.version"""

# The newest published version of each name, channel and locale, unless it is retired: then so are all before it.
_IN_FORCE = f"""organization_id = %s AND deleted_at IS NULL AND published_at IS NOT NULL
AND NOT EXISTS ({_NEWER} AND newer.published_at IS NOT NULL)"""
# The newest draft of each, unless something newer is published.
_DRAFT = f"""organization_id = %s AND deleted_at IS NULL AND published_at IS NULL
AND NOT EXISTS ({_NEWER} AND (newer.published_at IS NOT NULL OR newer.deleted_at IS NULL))"""

_FIRST = """SELECT first.id FROM notification_templates AS first WHERE first.version = 1
AND (first.organization_id, first.name, first.channel, first.locale) = (t.organization_id, t.name, t.channel, t.locale)"""

_TRIES_MAX = 16

Fetch = Callable[[str, Sequence[Any]], Awaitable[Sequence[tuple[Any, ...]]]]


class State(StrEnum):
    """Which versions are listed: those in force, or the drafts that may be published."""

    PUBLISHED = "published"
    DRAFT = "draft"


@frozen
class StoredTemplate:
    """A version and its dates. ``retired_at`` None means in force, or shadowed by a newer one; a draft is not published."""

    template: Template
    created_at: datetime
    published_at: datetime | None
    retired_at: datetime | None


async def add(pool: Pool, id: str, organization_id: OrganizationId, new: NewTemplate) -> StoredTemplate:
    """Store the next version. Writers of the same name at the same moment each get a version of their own."""
    return await _insert(pool.fetch, id, organization_id, new)


async def insert(change: Change, id: str, new: NewTemplate) -> StoredTemplate:
    """Store the next version as part of a change of the set-up."""
    return await _insert(_fetch_of(change), id, change.organization_id, new)


async def _insert(fetch: Fetch, id: str, organization_id: OrganizationId, new: NewTemplate) -> StoredTemplate:
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
        orjson.dumps(new.parts).decode(),
        None if new.schema is None else orjson.dumps(new.schema).decode(),
        new.draft,
        organization_id,
        new.name,
        new.channel,
        new.locale,
    )
    # Two writers may both read the same highest version; the constraint lets one of them in and the other tries again.
    # A lock taken inside the statement would not help: its snapshot is older than the lock.
    for _ in range(_TRIES_MAX):
        rows = await fetch(
            "INSERT INTO notification_templates (id, organization_id, name, channel, locale, version, subject, body_template, "
            "html_template, variables, parts, schema, published_at) "
            "SELECT %s, %s, %s, %s, %s, coalesce(max(version), 0) + 1, %s, %s, %s, %s::jsonb, %s::jsonb, %s::jsonb, "
            "CASE WHEN %s THEN NULL ELSE now() END FROM notification_templates "
            "WHERE organization_id = %s AND name = %s AND channel = %s AND locale = %s "
            "ON CONFLICT (organization_id, name, channel, locale, version) DO NOTHING "
            f"RETURNING {_RETURNED}",
            parameters,
        )
        if rows:
            return _stored(rows[0])
    raise StoreUnavailable("too many writers of one template at once")


async def read(pool: Pool, organization_id: OrganizationId, id: str) -> StoredTemplate | None:
    """One version, retired or not."""
    rows = await pool.fetch(
        f"SELECT {_RETURNED} FROM notification_templates WHERE organization_id = %s AND id = %s",
        (organization_id, id),
    )
    return _stored(rows[0]) if rows else None


async def read_page(
    pool: Pool, organization_id: OrganizationId, name: str | None, request: PageRequest, state: State = State.PUBLISHED
) -> Page[StoredTemplate]:
    """The versions in force, or the drafts, newest first; of one name, if given."""
    condition = _DRAFT if state is State.DRAFT else _IN_FORCE
    parameters: list[object] = [organization_id]
    if name is not None:
        condition += " AND name = %s"
        parameters.append(name)
    if request.after is not None:
        condition += " AND id < %s"
        parameters.append(request.after)
    rows = await pool.fetch(
        f"SELECT {_RETURNED} FROM notification_templates AS t WHERE {condition} ORDER BY id DESC LIMIT %s",
        (*parameters, request.size + 1),
    )
    stored = [_stored(row) for row in rows]
    return page_of(stored, [each.template.id for each in stored], request.size)


async def read_in_force(pool: Pool, organization_id: OrganizationId, name: str, channel: Channel) -> list[Template]:
    """The version in force of each locale of one template, the locale that was stored first in front."""
    return await _named(pool.fetch, _IN_FORCE, organization_id, name, channel)


async def in_force(change: Change, name: str, channel: Channel) -> list[Template]:
    """The same as part of a change of the set-up."""
    return await _named(_fetch_of(change), _IN_FORCE, change.organization_id, name, channel)


async def newest_drafts(change: Change, name: str, channel: Channel | None) -> list[Template]:
    """The drafts of one name that may be published: the newest of each channel and locale."""
    return await _named(_fetch_of(change), _DRAFT, change.organization_id, name, channel)


async def all_in_force(change: Change) -> list[Template]:
    """Every version in force of the organization."""
    rows = await _fetch_of(change)(
        f"SELECT {_RETURNED} FROM notification_templates AS t WHERE {_IN_FORCE} ORDER BY name, channel, locale",
        (change.organization_id,),
    )
    return [_stored(row).template for row in rows]


async def publish(change: Change, ids: Sequence[str]) -> list[StoredTemplate]:
    """Bring these drafts into force."""
    rows = await _fetch_of(change)(
        "UPDATE notification_templates SET published_at = now() WHERE organization_id = %s AND id = ANY(%s::uuid[]) "
        f"AND published_at IS NULL AND deleted_at IS NULL RETURNING {_RETURNED}",
        (change.organization_id, list(ids)),
    )
    return sorted(map(_stored, rows), key=lambda stored: (stored.template.channel, stored.template.locale))


async def retire(pool: Pool, organization_id: OrganizationId, id: str) -> bool:
    """Retire this version and those before it, drafts if it is one. False when there is no such version in force."""
    return bool(
        await pool.execute(
            "UPDATE notification_templates AS older SET deleted_at = now() FROM notification_templates AS t "
            "WHERE t.organization_id = %s AND t.id = %s AND t.deleted_at IS NULL AND older.deleted_at IS NULL "
            "AND (older.organization_id, older.name, older.channel, older.locale) "
            "= (t.organization_id, t.name, t.channel, t.locale) AND older.version <= t.version "
            "AND (older.published_at IS NULL) = (t.published_at IS NULL)",
            (organization_id, id),
        )
    )


async def _named(
    fetch: Fetch, condition: str, organization_id: OrganizationId, name: str, channel: Channel | None
) -> list[Template]:
    rows = await fetch(
        f"SELECT {_RETURNED} FROM notification_templates AS t "
        f"WHERE {condition} AND name = %s AND channel = coalesce(%s, channel) ORDER BY ({_FIRST}), id",
        (organization_id, name, channel),
    )
    return [_stored(row).template for row in rows]


def _fetch_of(change: Change) -> Fetch:
    async def fetch(statement: str, parameters: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        cursor = await change.connection.execute(statement, parameters)
        return await cursor.fetchall()

    return fetch


def _stored(row: tuple[Any, ...]) -> StoredTemplate:
    id, organization_id, name, channel, *rest, created_at, published_at, retired_at = row
    return StoredTemplate(Template(id, organization_id, name, Channel(channel), *rest), created_at, published_at, retired_at)
