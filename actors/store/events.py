"""Events as their organization sees them afterwards: that they were taken in, when, with which answer. Their data is not kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from attrs import frozen

from dispatcher.model import OrganizationId
from dispatcher.retention import changed_since

if TYPE_CHECKING:
    from actors.io.postgres import Pool


@frozen
class StoredEvent:
    """One event. ``answer`` is JSON, as it was first given."""

    id: str
    type: str
    correlation_id: str | None
    received_at: datetime
    answer: str


async def read(pool: Pool, organization_id: OrganizationId, id: str) -> StoredEvent | None:
    """One event; None when it was never taken in, or is forgotten by now."""
    if "\0" in id:
        return None
    rows = await pool.fetch(
        "SELECT id, type, correlation_id, received_at, answer FROM events WHERE organization_id = %s AND id = %s",
        (organization_id, id),
    )
    return StoredEvent(*rows[0]) if rows else None


async def decisions_of(
    pool: Pool, organization_id: OrganizationId, notification_id: str
) -> tuple[Sequence[Mapping[str, Any]] | None, str | None, str | None, str | None]:
    """How a notification came about, as it was kept (None: it was handed in with nothing to decide), and its event, topic and
    correlation id."""
    asked = "SELECT decisions, event_id, topic, correlation_id FROM {table} WHERE organization_id = %s AND id = %s"
    rows = await pool.fetch(asked.format(table="notifications"), (organization_id, notification_id))
    if not rows:  # it may have moved
        moved = f"{asked.format(table='notification_history')} AND updated_at >= %s"
        rows = await pool.fetch(moved, (organization_id, notification_id, changed_since(notification_id)))
    decisions, event_id, topic, correlation_id = rows[0] if rows else (None, None, None, None)
    return decisions, event_id, topic, correlation_id
