"""All that is kept of a person, for that person: read a page at a time, from what is under way and from history alike.

What is read here goes into the answer to whoever asked, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from actors.store import preferences, users
from actors.store.contact_statements import COMPONENTS
from actors.store.feedback import contact_of
from actors.store.page import Page, PageRequest, page_of
from actors.store.preferences import StoredPreference
from actors.store.users import StoredUser
from dispatcher.contacts import Contact
from dispatcher.model import Channel, OrganizationId

if TYPE_CHECKING:
    from actors.io.postgres import Pool

DIGEST_ITEMS_MAX = 1_000

_NAMES = (
    "id", "status", "channel", "recipient", "payload", "template_id", "locale", "topic", "correlation_id", "event_id",
    "idempotency_key", "attempts", "provider", "reason", "created_at", "updated_at", "next_retry_at", "expires_at", "decisions",
)  # fmt: skip
_COLUMNS = ", ".join(_NAMES)
_OF_USER = (
    "organization_id = %(organization_id)s AND user_id = %(user_id)s AND id < %(after)s::uuid ORDER BY id DESC LIMIT %(limit)s"
)
_NOTIFICATIONS = f"""
(SELECT {_COLUMNS}, NULL::jsonb AS steps, NULL::jsonb AS reports, NULL::jsonb AS confirmation FROM notifications WHERE {_OF_USER})
UNION ALL
(SELECT {_COLUMNS}, steps, reports, confirmation FROM notification_history WHERE {_OF_USER})
ORDER BY id DESC LIMIT %(limit)s
"""
_STEPS = """
SELECT notification_id, json_build_object('at', at, 'attempt', attempt, 'outcome', outcome, 'code', code, 'provider', provider)
FROM attempts WHERE notification_id = ANY(%s::uuid[]) ORDER BY at, attempt
"""
_REPORTS = """
SELECT notification_id, json_build_object('at', at, 'kind', kind, 'code', code)
FROM feedback WHERE notification_id = ANY(%s::uuid[]) ORDER BY at, key
"""
_CONTACTS = f"""
SELECT c.channel, u.recipient, {COMPONENTS}
FROM (SELECT DISTINCT channel, recipient FROM unnest(%s::text[], %s::text[]) AS u(channel, recipient)) AS u
JOIN contacts c ON c.organization_id = %s AND c.channel = u.channel AND c.address = contact_address(u.channel, u.recipient)
ORDER BY 1, 2
"""
_TIMES = "SELECT cap, times FROM cap_times WHERE organization_id = %s AND user_id = %s ORDER BY cap"
_WAITING = """
SELECT d.rule, d.channel, d.due_at, i.event_id, i.data, i.at
FROM digests d JOIN digest_items i ON i.digest_id = d.id
WHERE d.organization_id = %s AND d.user_id = %s ORDER BY d.due_at, i.at LIMIT %s
"""
_LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"


@frozen
class Person:
    """What is kept of somebody beside notifications. ``waiting`` are events that they will be told of together."""

    user: StoredUser | None = field(repr=False)
    preferences: Sequence[StoredPreference] = field(repr=False)
    cap_times: Mapping[str, Sequence[datetime]] = field(repr=False)
    waiting: Sequence[Mapping[str, Any]] = field(repr=False)


@frozen
class Known:
    """What is known of one address."""

    channel: Channel
    recipient: str = field(repr=False)
    contact: Contact


async def read_person(pool: Pool, organization_id: OrganizationId, user_id: str) -> Person:
    """Everything but notifications."""
    whom = (organization_id, user_id)
    waiting = await pool.fetch(_WAITING, (*whom, DIGEST_ITEMS_MAX))
    names = ("rule", "channel", "due_at", "event_id", "data", "at")
    return Person(
        await users.read(pool, *whom),
        await preferences.read(pool, *whom) or (),
        dict(await pool.fetch(_TIMES, whom)),
        [dict(zip(names, row, strict=True)) for row in waiting],
    )


async def read_notifications(
    pool: Pool, organization_id: OrganizationId, user_id: str, request: PageRequest
) -> Page[Mapping[str, Any]]:
    """Their notifications with content and attempts, newest first."""
    rows = await pool.fetch(
        _NOTIFICATIONS,
        {"organization_id": organization_id, "user_id": user_id, "after": request.after or _LAST_ID, "limit": request.size + 1},
    )
    found: dict[str, dict[str, Any]] = {
        row[0]: dict(zip((*_NAMES, "steps", "reports", "confirmation"), row, strict=True)) for row in rows
    }
    rows_found: list[Mapping[str, Any]] = list(found.values())
    page = page_of(rows_found, list(found), request.size)
    ids = [row["id"] for row in page.items]
    for name, statement in (("steps", _STEPS), ("reports", _REPORTS)):
        for id, entry in await pool.fetch(statement, (ids,)):
            if found[id][name] is None:
                found[id][name] = []
            found[id][name].append(entry)
    return page


async def read_contacts(pool: Pool, organization_id: OrganizationId, addresses: Sequence[tuple[str, str]]) -> Sequence[Known]:
    """What is known of these addresses, given as (channel, recipient); those of which nothing was heard are left out."""
    columns = [channel for channel, _ in addresses], [recipient for _, recipient in addresses]
    rows = await pool.fetch(_CONTACTS, (*columns, organization_id))
    return [Known(Channel(channel), recipient, contact_of(components)) for channel, recipient, *components in rows]
