"""A whole set-up in the store: what :mod:`dispatcher.bundle` compares and changes, read and written in one piece.

Of a template there is the version in force, published; drafts are no part of a set-up. Invariant: what is applied was decided
about the very set-up that stood there, because it is read again under the organization's lock and compared before anything is
written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from actors.store import templates
from actors.store.definitions import Change, changing
from dispatcher.bundle import POLICY_KEY, TEMPLATE, Contents, Key, Verb, digest
from dispatcher.bundle import Change as Difference
from dispatcher.bundle_templates import body_of, key_of, new_of
from dispatcher.definitions import Kind
from dispatcher.model import OrganizationId

if TYPE_CHECKING:
    from actors.io.postgres import Pool

# A published version that is not retired is in force, or one newer than it is: retiring one retires those before it.
_TEMPLATE_NAMES = """SELECT DISTINCT name, channel FROM notification_templates
WHERE organization_id = %s AND deleted_at IS NULL AND published_at IS NOT NULL"""
# Drafts are no part of a set-up, so they stay.
_RETIRE_TEMPLATE = """UPDATE notification_templates SET deleted_at = now()
WHERE (organization_id, name, channel, locale) = (%s, %s, %s, %s) AND deleted_at IS NULL AND published_at IS NOT NULL"""


async def definitions_of(change: Change) -> Contents:
    """Everything but the templates."""
    return {POLICY_KEY: {}} | {
        Key(stored.definition.kind.value, stored.definition.name): stored.definition.body for stored in await change.read_all()
    }


async def template_names(change: Change) -> set[tuple[str, str]]:
    """The names and channels of all published templates."""
    cursor = await change.connection.execute(_TEMPLATE_NAMES, (change.organization_id,))
    return {(name, channel) for name, channel in await cursor.fetchall()}


async def read(pool: Pool, organization_id: OrganizationId, deadline_s: float | None = None) -> Contents:
    """Everything, as it stands at one moment."""
    async with changing(pool, organization_id, deadline_s) as change:
        return await _read(change)


async def apply(
    pool: Pool,
    organization_id: OrganizationId,
    seen: Contents,
    changes: Sequence[Difference],
    after: Contents,
    new_id: Callable[[], str],
    deadline_s: float | None = None,
) -> bool:
    """Make of what was ``seen`` what is to be ``after``. False, and nothing is done, when it has changed since it was seen."""
    async with changing(pool, organization_id, deadline_s) as change:
        if digest(await _read(change)) != digest(seen):
            return False
        for each in changes:
            key = each.key
            if each.verb in (Verb.CREATED, Verb.UPDATED):
                if key.kind == TEMPLATE:
                    await templates.insert(change, new_id(), new_of(key, after[key]))
                else:
                    await change.put(Kind(key.kind), key.name, after[key])
            elif each.verb is Verb.DELETED:
                if key.kind == TEMPLATE:
                    await change.connection.execute(_RETIRE_TEMPLATE, (organization_id, *key[1:]))
                else:
                    await change.delete(Kind(key.kind), key.name)
    return True


async def _read(change: Change) -> Contents:
    in_force = await templates.all_in_force(change)
    return {**await definitions_of(change), **{key_of(template): body_of(template) for template in in_force}}
