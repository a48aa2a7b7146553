"""Inserting on one connection: events, digests they join, notifications, what caps count, answers. All of it or nothing.

Invariant: whoever inserts takes its locks in this order, and each kind in the order of its keys, so that two of them can never
wait for each other in a circle: events, digests, notifications by their idempotency keys, caps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from actors.ports import Admission, BatchAnswer, EventAdmission, Existing, Inserted
from actors.store import cap_rows, event_rows
from actors.store.statements import EXISTING, INSERT, INSERT_PLANNED, KEEP_ANSWERS, NOT_INSERTED
from dispatcher.contacts import ContactStatus
from dispatcher.errors import KeyTaken
from dispatcher.model import Channel, NotificationId

if TYPE_CHECKING:
    from actors.io.postgres import TrioConnection

INSERT_ROWS_MAX = 1000
"""Rows of one statement: more are written down in several, so that this process has a moment for others in between."""


async def insert(
    connection: TrioConnection[Any],
    admissions: Sequence[Admission],
    batch_answers: Sequence[BatchAnswer],
    events: Sequence[EventAdmission],
) -> Inserted:
    """Insert all in one transaction. Rows whose key is taken, whose contact is suppressed or whose cap is reached stay out."""
    if not (batch_answers or events) and len(admissions) <= INSERT_ROWS_MAX and not any(a.caps for a in admissions):
        return (await _insert(connection, sorted(admissions, key=_key)))[0]
    async with connection.transaction():
        return await insert_within(connection, admissions, batch_answers, events)


async def insert_within(
    connection: TrioConnection[Any],
    admissions: Sequence[Admission],
    batch_answers: Sequence[BatchAnswer] = (),
    events: Sequence[EventAdmission] = (),
) -> Inserted:
    """The same inside a transaction of the caller's, who takes no lock afterwards that another takes before."""
    inserted = Inserted()
    if events:
        events, inserted.events = await event_rows.insert(connection, events)
        admissions = [*admissions, *(admission for event in events for admission in event.admissions)]
    # In the order of the keys, for whoever inserts the same ones at this moment; of equal keys the first handed in comes first.
    admissions = sorted(admissions, key=_key)
    there: set[NotificationId] = set()
    for at in range(0, len(admissions), INSERT_ROWS_MAX):
        more, ids = await _insert(connection, admissions[at : at + INSERT_ROWS_MAX])
        inserted.add(more)
        there |= ids
    if there and any(admission.caps for admission in admissions):
        inserted.capped = await cap_rows.count([a for a in admissions if a.caps and a.id in there], connection)
    await _keep_answers(connection, inserted, batch_answers)
    await event_rows.correct(connection, events, inserted)
    return inserted


async def _keep_answers(connection: TrioConnection[Any], inserted: Inserted, batch_answers: Sequence[BatchAnswer]) -> None:
    if not batch_answers:
        return
    answers = [
        {
            "organization_id": kept.organization_id,
            "idempotency_key": kept.idempotency_key,
            "request_hash": kept.request_hash.hex(),
            "answer": kept.answer(inserted).decode(),
        }
        for kept in sorted(batch_answers, key=_key)
    ]
    cursor = await connection.execute(KEEP_ANSWERS, (orjson.dumps(answers).decode(),))
    if cursor.rowcount < len(answers):
        raise KeyTaken("the key of a batch has an answer already")


async def _insert(connection: TrioConnection[Any], admissions: Sequence[Admission]) -> tuple[Inserted, set[NotificationId]]:
    """Insert rows; and which were, where caps count any of them."""
    statement = INSERT_PLANNED if any(admission.is_planned for admission in admissions) else INSERT
    cursor = await connection.execute(statement, (orjson.dumps([admission.row for admission in admissions]).decode(),))
    there: set[NotificationId] = set()
    if any(admission.caps for admission in admissions):
        there = {NotificationId(id) for (id,) in await cursor.fetchall()}
    if cursor.rowcount == len(admissions):
        return Inserted(), there
    keyed = [a for a in admissions if a.idempotency_key is not None]
    found = await connection.execute(EXISTING, ([a.organization_id for a in keyed], [a.idempotency_key for a in keyed]))
    existing = {
        (organization_id, key): Existing(id, bytes(request_hash), created_at, Channel(channel))
        for organization_id, key, id, request_hash, created_at, channel in await found.fetchall()
    }
    inserted = Inserted(existing)
    ids = [a.id for a in admissions]
    columns = [[a.row[name] for a in admissions] for name in ("organization_id", "channel", "recipient")]
    for id, status in await (await connection.execute(NOT_INSERTED, (ids, *columns))).fetchall():
        inserted.suppressed[id] = ContactStatus(status)
    return inserted, there


def _key(keyed: Admission | BatchAnswer) -> tuple[str, str]:
    return keyed.organization_id, keyed.idempotency_key or ""
