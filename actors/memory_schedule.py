"""What waits for its time, in memory: what Postgres would do, on the tables of :mod:`actors.memory_tables`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import orjson

from actors.memory import Interrupt, Moment, checkpoint
from actors.memory_insert import insert
from actors.memory_tables import MemoryDatabase, Row
from actors.ports import Inserted
from actors.schedule_ports import (
    CANCELED,
    EXPIRED,
    ITEMS_BYTES_MAX,
    ITEMS_MAX,
    Cancelation,
    Cancelations,
    Digest,
    DigestItem,
    Due,
    Moved,
    Ruling,
    Telling,
    Told,
    reason_of,
)
from dispatcher.model import NotificationId, OrganizationId, Status

_CANCELABLE = frozenset({Status.SCHEDULED, Status.QUEUED})


class MemorySchedule:
    """What waits for its time."""

    def __init__(self, database: MemoryDatabase, *, interrupt: Interrupt = checkpoint) -> None:
        self.database = database
        self.interrupt = interrupt

    async def next_in_s(self) -> float | None:
        """How long until the first scheduled notification or digest is due, by the server's clock; None without any."""
        await self.interrupt("next_in_s", Moment.BEFORE)
        times = [row.next_retry_at_s for row in self._waiting() if row.next_retry_at_s is not None]
        times += [digest.due_at_s for digest in self.database.digests.values()]
        due_in_s = min(times) - self.database.unix_s() if times else None
        await self.interrupt("next_in_s", Moment.AFTER)
        return due_in_s

    async def release(self, limit: int) -> Sequence[Moved]:
        """Queue what is due and has nothing to be asked again; cancel what has outlived its ``expires_at``."""
        await self.interrupt("release", Moment.BEFORE)
        now_s = self.database.unix_s()
        moved: list[Moved] = []
        for row in self._overdue(now_s):
            is_late = row.expires_at_s is not None and row.expires_at_s <= now_s
            if (row.plan is None or is_late) and len(moved) < limit:
                row.status, row.updated_at_s = Status.CANCELED if is_late else Status.QUEUED, now_s
                row.reason, row.send_at_s = EXPIRED if is_late else None, row.next_retry_at_s
                moved.append(_moved(row))
        await self.interrupt("release", Moment.AFTER)
        return moved

    async def due(self, limit: int) -> Sequence[Due]:
        """What is due and has a plan, the longest overdue first."""
        await self.interrupt("due", Moment.BEFORE)
        rows = [row for row in self._overdue(self.database.unix_s()) if row.plan is not None]
        await self.interrupt("due", Moment.AFTER)
        return [
            Due(
                row.organization_id,
                row.id,
                row.channel,
                row.recipient,
                row.user_id,
                row.topic,
                row.plan or {},
                row.next_retry_at_s or 0.0,
                row.expires_at_s,
                row.ignores_suppression,
                row.event_id,
            )
            for row in rows[:limit]
        ]

    async def rule(self, rulings: Sequence[Ruling]) -> Sequence[Moved]:
        """Carry out rulings on rows that still wait as they did when they were read; returns those."""
        await self.interrupt("rule", Moment.BEFORE)
        moved = []
        for ruling in rulings:
            row = self.database.rows.get(ruling.due.id)
            if row is None or row.status is not Status.SCHEDULED or row.next_retry_at_s != ruling.due.due_at_s:
                continue
            row.status, row.reason, row.updated_at_s = ruling.status, reason_of(ruling), self.database.unix_s()
            row.send_at_s = row.next_retry_at_s if ruling.status is Status.QUEUED else None
            row.next_retry_at_s = row.next_retry_at_s if ruling.at_s is None else ruling.at_s
            if ruling.decisions:
                row.decisions = [*(row.decisions or ()), *(decision.document() for decision in ruling.decisions)]
            moved.append(_moved(row))
        await self.interrupt("rule", Moment.AFTER)
        return moved

    async def digests(self, limit: int) -> Sequence[Digest]:
        """Digests that are due, the longest overdue first, as they are at one moment each."""
        await self.interrupt("digests", Moment.BEFORE)
        now_s = self.database.unix_s()
        overdue = sorted((row.due_at_s, row.id, name) for name, row in self.database.digests.items() if row.due_at_s <= now_s)
        found = []
        for due_at_s, id, (organization_id, rule, user_id, channel, key) in overdue[:limit]:
            closed = organization_id, rule, user_id, channel, f"\x01{id}"
            self.database.digests[closed] = self.database.digests.pop((organization_id, rule, user_id, channel, key))
            key = closed[-1]
            rows = self.database.digests[organization_id, rule, user_id, channel, key].items
            items = [DigestItem(event_id, row.correlation_id, row.data, row.at_s) for event_id, row in rows.items()]
            items.sort(key=lambda item: (item.at_s, item.event_id))
            told = tuple(_last(items))
            found.append(Digest(id, organization_id, rule, user_id, channel, key, due_at_s, told, len(items), _mark(rows)))
        await self.interrupt("digests", Moment.AFTER)
        return found

    async def tell(self, tellings: Sequence[Telling]) -> Told:
        """Insert notifications of digests and delete these, in one transaction; those that have changed since stay."""
        await self.interrupt("tell", Moment.BEFORE)
        told = self._tell(tellings)
        await self.interrupt("tell", Moment.AFTER)
        return told

    async def put_off(self, digests: Sequence[str], by_s: float) -> None:
        """Make digests due so many seconds from now."""
        await self.interrupt("put_off", Moment.BEFORE)
        for row in self.database.digests.values():
            if row.id in digests:
                row.due_at_s = self.database.unix_s() + by_s
        await self.interrupt("put_off", Moment.AFTER)

    async def cancel(self, organization_id: OrganizationId, id: NotificationId) -> Cancelation | None:
        """Cancel one that is scheduled or queued; None when there is no such one."""
        await self.interrupt("cancel", Moment.BEFORE)
        row = self.database.rows.get(id)
        canceled = None
        if row is not None and row.organization_id == organization_id:
            now = row.status in _CANCELABLE
            if now:
                self._cancel([row])
            canceled = Cancelation(row.id, row.channel, row.status, now)
        await self.interrupt("cancel", Moment.AFTER)
        return canceled

    async def cancel_correlated(self, organization_id: OrganizationId, correlation_id: str, limit: int) -> Cancelations:
        """Cancel up to ``limit`` of a correlation id, and take its items out of digests."""
        await self.interrupt("cancel_correlated", Moment.BEFORE)
        items = 0
        for name, digest in list(self.database.digests.items()):
            theirs = [event for event, item in digest.items.items() if item.correlation_id == correlation_id]
            if name[0] == organization_id and theirs:
                for event in theirs:
                    del digest.items[event]
                items += len(theirs)
                if not digest.items:
                    del self.database.digests[name]
        rows = [row for row in self._correlated(organization_id, correlation_id) if row.status in _CANCELABLE][:limit]
        self._cancel(rows)
        await self.interrupt("cancel_correlated", Moment.AFTER)
        return Cancelations([(row.id, row.channel) for row in rows], items, len(rows) >= limit)

    async def standing(self, organization_id: OrganizationId, correlation_id: str, limit: int) -> Mapping[Status, int]:
        """How many notifications of a correlation id have each status, counting up to ``limit`` of them."""
        await self.interrupt("standing", Moment.BEFORE)
        counts: dict[Status, int] = {}
        for row in self._correlated(organization_id, correlation_id)[:limit]:
            counts[row.status] = counts.get(row.status, 0) + 1
        await self.interrupt("standing", Moment.AFTER)
        return counts

    def _tell(self, tellings: Sequence[Telling]) -> Told:
        same = []
        for telling in tellings:
            digest = telling.digest
            name = digest.organization_id, digest.rule, digest.user_id, digest.channel, digest.key
            row = self.database.digests.get(name)
            if row is not None and row.id == digest.id and _mark(row.items) == digest.mark:
                same.append((name, telling))
        inserted: Inserted = insert(self.database, [t.admission for _, t in same if t.admission is not None], ())
        for name, _ in same:
            del self.database.digests[name]
        return Told(frozenset(telling.digest.id for _, telling in same), inserted)

    def _cancel(self, rows: Iterable[Row]) -> None:
        for row in rows:
            row.status, row.reason, row.updated_at_s = Status.CANCELED, CANCELED, self.database.unix_s()

    def _waiting(self) -> list[Row]:
        return [row for row in self.database.rows.values() if row.status is Status.SCHEDULED]

    def _overdue(self, now_s: float) -> list[Row]:
        overdue = [row for row in self._waiting() if row.next_retry_at_s is not None and row.next_retry_at_s <= now_s]
        return sorted(overdue, key=lambda row: (row.next_retry_at_s or 0.0, row.id))

    def _correlated(self, organization_id: OrganizationId, correlation_id: str) -> list[Row]:
        rows = self.database.rows.values()
        found = [row for row in rows if row.organization_id == organization_id and row.correlation_id == correlation_id]
        return sorted(found, key=lambda row: row.id)


def _mark(events: Iterable[str]) -> str:
    return " ".join(sorted(events))


def _last(items: Sequence[DigestItem]) -> Sequence[DigestItem]:
    """As many of the last as are told of one by one."""
    fits, bytes_left = 0, ITEMS_BYTES_MAX
    for item in reversed(items[-ITEMS_MAX:]):
        bytes_left -= len(orjson.dumps(item.data))
        if fits and bytes_left < 0:
            break
        fits += 1
    return items[len(items) - fits :]


def _moved(row: Row) -> Moved:
    when = row.next_retry_at_s if row.status is Status.SCHEDULED else None
    return Moved(row.organization_id, row.id, row.channel, row.status, row.reason, when, row.bulk)
