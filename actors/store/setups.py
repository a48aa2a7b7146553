"""A whole set-up in the store: what :mod:`dispatcher.bundle` compares and changes, read and written in one piece."""

from __future__ import annotations

from actors.store.definitions import Change
from dispatcher.bundle import POLICY_KEY, Contents, Key

# A published version that is not retired is in force, or one newer than it is.
_TEMPLATE_NAMES = """SELECT DISTINCT name, channel FROM notification_templates
WHERE organization_id = %s AND deleted_at IS NULL AND published_at IS NOT NULL"""


async def definitions_of(change: Change) -> Contents:
    """Everything but the templates."""
    return {POLICY_KEY: {}} | {
        Key(stored.definition.kind.value, stored.definition.name): stored.definition.body for stored in await change.read_all()
    }


async def template_names(change: Change) -> set[tuple[str, str]]:
    """The names and channels of all published templates."""
    cursor = await change.connection.execute(_TEMPLATE_NAMES, (change.organization_id,))
    return {(name, channel) for name, channel in await cursor.fetchall()}
