"""Contacts as their organization sees them: whom may we not send to, since when and why; and changing that by hand.

What is read here is the organization's own data, addresses included; it goes into an answer and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
from attrs import field, frozen

from actors.feedback_ports import ContactChange
from actors.store.contact_statements import CHANGE, COMPONENTS, ENSURE, LOCK
from actors.store.feedback import contact_document, contact_of, translated
from actors.store.page import Page, PageRequest, page_of
from dispatcher.contacts import Contact, ContactStatus, address_of
from dispatcher.feedback.feedback import FeedbackKind
from dispatcher.model import Channel, OrganizationId

if TYPE_CHECKING:
    from actors.io.postgres import Pool

BY_HAND = "manual"
"""The code of what a person has decided."""
_COLUMNS = f"id, channel, recipient, provider, changed_by, changed_at, note, {COMPONENTS}"


@frozen
class StoredContact:
    """One contact. ``provider`` reported last; ``changed_by`` is the API key of the last change by hand, None after a report."""

    id: str
    channel: Channel
    recipient: str = field(repr=False)
    provider: str | None
    changed_by: str | None
    changed_at: datetime
    note: str | None = field(repr=False)
    contact: Contact


@frozen
class Wanted:
    """What somebody wants a contact to be."""

    channel: Channel
    recipient: str = field(repr=False)
    status: ContactStatus
    note: str | None = field(default=None, repr=False)


async def read_page(
    pool: Pool, organization_id: OrganizationId, status: ContactStatus | None, channel: Channel | None, request: PageRequest
) -> Page[StoredContact]:
    """Contacts of which anything was ever heard; of one status or channel, if given. The order means nothing, but stays."""
    condition = "organization_id = %s"
    parameters: list[object] = [organization_id]
    for column, value in (("status", status), ("channel", channel)):
        if value is not None:
            condition += f" AND {column} = %s"
            parameters.append(value)
    if request.after is not None:
        condition += " AND id < %s"
        parameters.append(request.after)
    rows = await pool.fetch(
        f"SELECT {_COLUMNS} FROM contacts WHERE {condition} ORDER BY id DESC LIMIT %s", (*parameters, request.size + 1)
    )
    return page_of([_stored(row) for row in rows], [row[0] for row in rows], request.size)


async def read(pool: Pool, organization_id: OrganizationId, id: str) -> StoredContact | None:
    """One contact by its id."""
    rows = await pool.fetch(f"SELECT {_COLUMNS} FROM contacts WHERE organization_id = %s AND id = %s", (organization_id, id))
    return _stored(rows[0]) if rows else None


async def find(pool: Pool, organization_id: OrganizationId, channel: Channel, recipient: str) -> StoredContact | None:
    """One contact by its address; None when nothing was ever heard of it, which makes it an active one."""
    rows = await pool.fetch(
        f"SELECT {_COLUMNS} FROM contacts WHERE organization_id = %s AND channel = %s AND address = %s",
        (organization_id, channel.value, address_of(channel, recipient)),
    )
    return _stored(rows[0]) if rows else None


async def change(
    pool: Pool, organization_id: OrganizationId, wanted: Sequence[Wanted], key_id: str | None
) -> tuple[Sequence[StoredContact], Sequence[ContactChange]]:
    """Make contacts what somebody wants them to be, in one transaction; what they are now, and which have another status.

    Active means that nothing counts that happened so far; anything else is added to what is known, of which the worst wins.
    """
    by_address = {(each.channel, address_of(each.channel, each.recipient)): each for each in wanted}
    columns = ([organization_id] * len(by_address), [channel.value for channel, _ in by_address])
    with translated("contacts"):
        async with pool.connection() as connection, connection.transaction():
            await connection.execute(ENSURE, (*columns, [each.recipient for each in by_address.values()]))
            cursor = await connection.execute(LOCK, (*columns, [digest for _, digest in by_address]))
            locked = await cursor.fetchall()
            ((now_unix_s,),) = await (await connection.execute("SELECT extract(epoch FROM now())::float8")).fetchall()
            updates: list[dict[str, Any]] = []
            changes: list[ContactChange] = []
            for _, name, digest, id, *components in locked:
                channel = Channel(name)
                each, known = by_address[channel, bytes(digest)], contact_of(components)
                contact = _decided(known, each.status, now_unix_s)
                updates.append(contact_document(id, contact, changed_by=key_id, note=each.note))
                if contact.status is not known.status:
                    changes.append(ContactChange(organization_id, id, channel, contact.status, contact.standing[1]))
            await connection.execute(CHANGE, (orjson.dumps(updates).decode(),))
            cursor = await connection.execute(
                f"SELECT {_COLUMNS} FROM contacts WHERE id = ANY(%s::uuid[]) ORDER BY id", ([row["id"] for row in updates],)
            )
            return [_stored(row) for row in await cursor.fetchall()], changes


def _decided(contact: Contact, status: ContactStatus, now_unix_s: float) -> Contact:
    if status is ContactStatus.ACTIVE:
        return contact.reset(now_unix_s)
    return contact.after(_KINDS[status], BY_HAND, now_unix_s)


_KINDS: Mapping[ContactStatus, FeedbackKind] = {
    status: FeedbackKind(status.value) for status in ContactStatus if status is not ContactStatus.ACTIVE
}


def _stored(row: tuple[Any, ...]) -> StoredContact:
    id, channel, recipient, provider, changed_by, changed_at, note, *components = row
    return StoredContact(id, Channel(channel), recipient, provider, changed_by, changed_at, note, contact_of(components))
