"""What the store in memory does for one insert: what Postgres would, in one atomic step."""

from __future__ import annotations

from collections.abc import Sequence

from actors.memory_tables import DigestItemRow, DigestRow, EventRow, MemoryDatabase, Row, is_storable, row_of
from actors.ports import Admission, BatchAnswer, EventAdmission, Existing, Inserted, KnownEvent
from dispatcher.caps import count_all
from dispatcher.contacts import IGNORABLE, ContactStatus
from dispatcher.errors import KeyTaken, StoreRefused
from dispatcher.model import NotificationId, OrganizationId


def insert(
    database: MemoryDatabase,
    admissions: Sequence[Admission],
    batch_answers: Sequence[BatchAnswer],
    events: Sequence[EventAdmission] = (),
) -> Inserted:
    """Insert all, or raise and insert nothing."""
    new = [event for event in events if (event.organization_id, event.id) not in database.events]
    admissions = [*admissions, *(admission for event in new for admission in event.admissions)]
    if not all(is_storable(admission) for admission in admissions):
        raise StoreRefused(f"a batch of {len(admissions)} notifications can not be stored")
    if any((kept.organization_id, kept.idempotency_key) in database.batch_answers for kept in batch_answers):
        raise KeyTaken("the key of a batch has an answer already")
    added: dict[NotificationId, Row] = {}
    suppressed: dict[NotificationId, ContactStatus] = {}
    keys: dict[tuple[OrganizationId, str], NotificationId] = {}
    for admission in admissions:
        key = None if admission.idempotency_key is None else (admission.organization_id, admission.idempotency_key)
        if admission.id in database.rows or admission.id in added or key in database.keys or key in keys:
            continue
        row = row_of(admission)
        status = database.suppressed_as(row.organization_id, row.channel, row.recipient)
        if status is not None and not (row.ignores_suppression and status in IGNORABLE):
            suppressed[admission.id] = status
            continue
        added[admission.id] = row
        if key is not None:
            keys[key] = admission.id
    existing = Inserted()
    existing.suppressed = suppressed
    if len(added) < len(admissions):
        for organization_id, _, name, *_ in admissions:
            if name is not None:
                id = database.keys.get((organization_id, name)) or keys.get((organization_id, name))
                if id is not None:
                    row = added.get(id) or database.rows[id]
                    existing[organization_id, name] = Existing(id, row.request_hash, row.created_at_s, row.channel)
    known = {(e.organization_id, e.id): database.events.get((e.organization_id, e.id)) for e in events}
    existing.capped = _count_caps(database, [a for a in admissions if a.caps and a.id in added])
    for id in existing.capped:
        del added[id]
    keys = {key: id for key, id in keys.items() if id in added}
    existing.events = {name: KnownEvent(row.request_hash, row.answer) for name, row in known.items() if row is not None}
    answers = {(a.organization_id, a.idempotency_key): (a.request_hash, a.answer(existing)) for a in batch_answers}
    database.rows.update(added)
    database.keys.update(keys)
    for answered, answer in answers.items():
        database.batch_answers[answered] = answer
    for event in new:
        given = event.type, event.request_hash, event.correlation_id, event.received_at_s
        database.events[event.organization_id, event.id] = EventRow(*given, event.answer(existing))
        for entry in event.digests:
            digest_name = event.organization_id, entry.rule, entry.user_id, entry.channel, entry.key
            digest = database.digests.setdefault(digest_name, DigestRow(entry.id, entry.due_at_s))
            digest.items.setdefault(event.id, DigestItemRow(event.correlation_id, event.data, event.received_at_s))
    return existing


def _count_caps(database: MemoryDatabase, admissions: Sequence[Admission]) -> set[NotificationId]:
    wanted = [(a.organization_id, a.id, a.caps) for a in admissions]
    counted, over = count_all(database.cap_times, wanted, database.unix_s())
    database.cap_times.update(counted)
    return {NotificationId(id) for id in over}
