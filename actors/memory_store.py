"""The store port in memory: what Postgres would do, statement for statement, on a clock of the caller's.

A :class:`MemoryStore` is one incarnation's access to a :class:`~actors.memory_tables.MemoryDatabase`, which outlives it. Like the
queue in :mod:`actors.memory`, every operation is one atomic step between two moments at which a test may interrupt it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from actors.memory import Interrupt, Moment, checkpoint
from actors.memory_insert import insert
from actors.memory_shards import free_shards, hold_shards
from actors.memory_tables import DeadLetter, MemoryDatabase, Row, TimelineRow
from actors.ports import (
    DUE_SLACK_S,
    NO_WAYS,
    RESCUES_MAX,
    Admission,
    BatchAnswer,
    EventAdmission,
    Existing,
    Expired,
    Holding,
    Inserted,
    KnownEvent,
    Page,
    Rescued,
)
from dispatcher.audience import audience_of
from dispatcher.audience import lane as name_lane
from dispatcher.backoff import rescue_delay_s
from dispatcher.contacts import IGNORABLE, ContactStatus, suppressed_as
from dispatcher.errors import StoreRefused
from dispatcher.feedback.feedback import FeedbackKind
from dispatcher.ids import is_uuid
from dispatcher.messages import Gated, Verdict
from dispatcher.model import Channel, DeadLetterReason, Delivery, Lane, NotificationId, OrganizationId, Status
from dispatcher.outcome import FOUND_AT_PROVIDER, OutcomeClass

RESCUE_SLACK_S = 1.0
"""How long after its end a lease still protects what was claimed under it."""
DEFERRED_S = 1.0
"""When a queued row is looked at again that could have passed the gate and did not."""


class MemoryStore:
    """The durable state of notifications, written by one process incarnation."""

    def __init__(self, database: MemoryDatabase, incarnation: str, *, interrupt: Interrupt = checkpoint) -> None:
        self.database = database
        self.incarnation = incarnation
        self.interrupt = interrupt
        self.term = 0

    async def insert(
        self, admissions: Sequence[Admission], batch_answers: Sequence[BatchAnswer], events: Sequence[EventAdmission] = ()
    ) -> Inserted:
        """Insert all in one transaction. Rows whose key is taken or whose contact is suppressed are left out, and named."""
        await self.interrupt("insert", Moment.BEFORE)
        existing = insert(self.database, admissions, batch_answers, events)
        await self.interrupt("insert", Moment.AFTER)
        return existing

    async def suppressed(
        self, organization_id: OrganizationId, whom: Sequence[tuple[Channel, str]]
    ) -> Mapping[tuple[Channel, str], ContactStatus]:
        """Which of these recipients may not be used, and why."""
        await self.interrupt("suppressed", Moment.BEFORE)
        statuses = {(channel, whose): self.database.suppressed_as(organization_id, channel, whose) for channel, whose in whom}
        await self.interrupt("suppressed", Moment.AFTER)
        return {name: status for name, status in statuses.items() if status is not None}

    async def known_events(self, organization_id: OrganizationId, ids: Sequence[str]) -> Mapping[str, KnownEvent]:
        """Which of these events were taken in before."""
        await self.interrupt("known_events", Moment.BEFORE)
        found = {id: self.database.events.get((organization_id, id)) for id in ids}
        await self.interrupt("known_events", Moment.AFTER)
        return {id: KnownEvent(row.request_hash, row.answer) for id, row in found.items() if row is not None}

    async def known(self, organization_id: OrganizationId, idempotency_keys: Sequence[str]) -> Mapping[str, Existing]:
        """What these keys of one organization stand for already. Keys that are new are left out."""
        await self.interrupt("known", Moment.BEFORE)
        ids = {key: self.database.keys.get((organization_id, key)) for key in idempotency_keys}
        rows = {key: self.database.rows[id] for key, id in ids.items() if id is not None}
        known = {key: Existing(row.id, row.request_hash, row.created_at_s, row.channel) for key, row in rows.items()}
        await self.interrupt("known", Moment.AFTER)
        return known

    async def gate(
        self,
        ids: Sequence[NotificationId],
        closed: Collection[tuple[OrganizationId, Lane]],
        through: Mapping[tuple[OrganizationId, Lane], str] = NO_WAYS,
        unbound: Collection[str] = (),
        *,
        again: bool,
    ) -> Mapping[OrganizationId, Gated]:
        """Record the intent to send.

        ``again`` repeats a call whose answer was lost, for ids nobody else in this process holds.
        """
        term = self.term  # the lease may lapse and be taken anew before the answer is here
        await self.interrupt("gate", Moment.BEFORE)
        answer = self._gate(ids, closed, through, unbound, term, again=again)
        await self.interrupt("gate", Moment.AFTER)
        return answer

    async def record(self, verdicts: Sequence[Verdict], *, again: bool) -> set[NotificationId]:
        """Write verdicts; returns the ids that were still ours. ``again`` repeats a call whose answer was lost."""
        await self.interrupt("record", Moment.BEFORE)
        ours = self._record(verdicts, again=again)
        await self.interrupt("record", Moment.AFTER)
        return ours

    async def register(self, lease_s: float) -> None:
        """Make this incarnation known; nothing passes the gate before."""
        self.term += 1
        await self.interrupt("register", Moment.BEFORE)
        self.database.leases[self.incarnation] = self._now_s() + lease_s
        await self.interrupt("register", Moment.AFTER)

    async def renew_lease(self, lease_s: float) -> bool:
        """Prolong this incarnation's lease. False when it had lapsed: others may have taken over what we hold."""
        await self.interrupt("renew_lease", Moment.BEFORE)
        now_s = self._now_s()
        held = self.database.holds_lease(self.incarnation, now_s)
        if held:
            self.database.leases[self.incarnation] = now_s + lease_s
        await self.interrupt("renew_lease", Moment.AFTER)
        return held

    async def release_lease(self) -> None:
        """Give the lease up: what is still ``sending`` under it may be rescued at once."""
        await self.interrupt("release_lease", Moment.BEFORE)
        self.database.leases.pop(self.incarnation, None)
        free_shards(self.database, self.incarnation, self.database.shards)
        await self.interrupt("release_lease", Moment.AFTER)

    async def expire(self, limit: int) -> Sequence[Expired]:
        """Give up queued notifications whose ``expires_at`` has passed, whether or not anybody could send them."""
        await self.interrupt("expire", Moment.BEFORE)
        now_s = self._now_s()
        late = [
            row
            for row in self.database.rows.values()
            if row.status is Status.QUEUED and row.expires_at_s is not None and row.expires_at_s < now_s
        ]
        expired = []
        for row in sorted(late, key=_id)[:limit]:
            row.status, row.next_retry_at_s, row.reason, row.updated_at_s = Status.FAILED, None, "expired", now_s
            self.database.dead_letters.setdefault(row.id, DeadLetter(DeadLetterReason.EXPIRED, "expired"))
            expired.append(Expired(row.organization_id, row.id, row.channel))
        await self.interrupt("expire", Moment.AFTER)
        return expired

    async def rescue(self, limit: int) -> Sequence[Rescued]:
        """Take back attempts of incarnations whose lease lapsed."""
        await self.interrupt("rescue", Moment.BEFORE)
        alive_at_s = self._now_s() - RESCUE_SLACK_S
        lost = (row for row in self._sending() if not self.database.holds_lease(row.claimed_by, alive_at_s))
        rescued = self._take_back(sorted(lost, key=_id)[:limit])
        self._prune()
        await self.interrupt("rescue", Moment.AFTER)
        return rescued

    async def hand_back(
        self, organization_id: OrganizationId, not_begun: Mapping[NotificationId, int]
    ) -> Sequence[NotificationId]:
        """Undo attempts that passed the gate and certainly never began."""
        await self.interrupt("hand_back", Moment.BEFORE)
        now_s = self._now_s()
        back = []
        for id, attempt in not_begun.items():
            row = self.database.rows.get(id)
            if row is None:
                continue
            is_ours = row.claimed_by == self.incarnation and row.organization_id == organization_id
            if row.status is Status.SENDING and is_ours and row.attempts == attempt:
                row.status, row.attempts, row.claimed_by, row.updated_at_s = Status.QUEUED, attempt - 1, None, now_s
                back.append(id)
            elif row.status is Status.QUEUED and row.attempts == attempt - 1:
                back.append(id)
        await self.interrupt("hand_back", Moment.AFTER)
        return back

    async def disown(self, organization_id: OrganizationId) -> Sequence[Rescued]:
        """Take back the attempts one organization's actor held when it crashed inside this incarnation."""
        await self.interrupt("disown", Moment.BEFORE)
        held = (r for r in self._sending() if r.claimed_by == self.incarnation and r.organization_id == organization_id)
        rescued = self._take_back(sorted(held, key=_id))
        await self.interrupt("disown", Moment.AFTER)
        return rescued

    async def sending(self, older_than_s: float, limit: int) -> Sequence[tuple[OrganizationId, NotificationId]]:
        """What has been ``sending`` under this incarnation for longer than this, longest first."""
        await self.interrupt("sending", Moment.BEFORE)
        before_s = self._now_s() - older_than_s
        old = sorted((r.updated_at_s, r.organization_id, r.id) for r in self._ours() if r.updated_at_s < before_s)
        await self.interrupt("sending", Moment.AFTER)
        return [(organization_id, id) for _, organization_id, id in old[:limit]]

    async def reclaim(self, ids: Sequence[NotificationId], older_than_s: float) -> Sequence[Rescued]:
        """Take back attempts of this incarnation that nobody in it holds, those that are still older than this."""
        await self.interrupt("disown", Moment.BEFORE)
        before_s, strays = self._now_s() - older_than_s, set(ids)
        old = (row for row in self._ours() if row.id in strays and row.updated_at_s < before_s)
        rescued = self._take_back(sorted(old, key=_id))
        await self.interrupt("disown", Moment.AFTER)
        return rescued

    async def queued(self, after: tuple[float, NotificationId] | None, older_than_s: float, limit: int) -> Page:
        """Walk the queued rows whose last change is older than this, oldest first; with 0, those that are not due yet as well."""
        await self.interrupt("queued", Moment.BEFORE)
        now_s = self._now_s()
        before_s = now_s - older_than_s
        found = sorted(
            (row.updated_at_s, row.id)
            for row in self.database.rows.values()
            if row.status is Status.QUEUED
            and (after is None or (row.updated_at_s, row.id) > after)
            and (older_than_s <= 0 or max(row.updated_at_s, row.next_retry_at_s or 0.0) < before_s)
        )[:limit]
        rows = [self.database.rows[id] for _, id in found]
        await self.interrupt("queued", Moment.AFTER)
        return Page(
            [(row.organization_id, row.id, row.due_in_s(now_s)) for row in rows],
            found[-1] if len(found) == limit else None,
            frozenset(row.id for row in rows if row.bulk),
        )

    async def hold_shards(self, shards: Collection[int], lease_s: float, *, stays: bool) -> Holding:
        """Of these shards, renew what this incarnation owns and take what is free, for ``lease_s`` from now on."""
        await self.interrupt("hold_shards", Moment.BEFORE)
        holding = hold_shards(self.database, self.incarnation, shards, lease_s, stays=stays)
        await self.interrupt("hold_shards", Moment.AFTER)
        return holding

    async def release_shards(self, shards: Collection[int]) -> None:
        """Give up those of these shards that this incarnation owns."""
        await self.interrupt("release_shards", Moment.BEFORE)
        free_shards(self.database, self.incarnation, shards)
        await self.interrupt("release_shards", Moment.AFTER)

    # --- statements -----------------------------------------------------------------------------------------------------

    def _gate(
        self,
        ids: Sequence[NotificationId],
        closed: Collection[tuple[OrganizationId, Lane]],
        through: Mapping[tuple[OrganizationId, Lane], str],
        unbound: Collection[str],
        term: int,
        *,
        again: bool,
    ) -> Mapping[OrganizationId, Gated]:
        if not all(map(is_uuid, ids)):
            raise StoreRefused("ids at the gate are none")
        now_s = self._now_s()
        may_send = self.database.holds_lease(self.incarnation, now_s)
        lists: dict[OrganizationId, tuple[list[Any], list[Any], list[Any], list[Any], list[Any], list[Any]]] = {}
        for id in sorted(set(ids)):
            row = self.database.rows.get(id)
            if row is None:
                continue
            theirs = lists.setdefault(row.organization_id, ([], [], [], [], [], []))
            deliveries, parked, deferred, dropped, elsewhere, given_up = theirs
            lane = row.channel.value
            part = name_lane(row.channel, audience_of(row.channel, row.recipient))
            if (row.organization_id, part) in closed or (row.organization_id, part) in through:
                lane = part
            is_closed = (row.organization_id, lane) in closed
            if again and row.status is Status.SENDING and row.claimed_by == self.incarnation:
                row.status, row.attempts, row.claimed_by = Status.QUEUED, row.attempts - 1, None
            is_free = row.status is Status.QUEUED
            due_in_s = row.due_in_s(now_s)
            if is_free and may_send and not is_closed and due_in_s <= DUE_SLACK_S:
                suppressed = self._give_up(row, now_s)
                if suppressed is not None:
                    dropped.append(id)
                    given_up.append((id, row.channel, suppressed))
                    continue
                way = through.get((row.organization_id, lane))
                if row.provider_config_id is None or row.unknown_since_s is None or row.provider_config_id in unbound:
                    row.provider_config_id = way or row.provider_config_id
                deliveries.append(self._claim(row, now_s, term))
            elif row.status is Status.SENDING:
                elsewhere.append(id)
            elif row.status is not Status.QUEUED:
                dropped.append(id)
            elif due_in_s > DUE_SLACK_S:
                deferred.append((id, due_in_s))
            elif is_closed:
                parked.append((lane, id))
            else:
                deferred.append((id, DEFERRED_S))
        return {organization_id: Gated(*six) for organization_id, six in lists.items()}

    def _give_up(self, row: Row, now_s: float) -> str | None:
        """Fail a row whose contact may not be used, and say with which code; None for one that may."""
        suppressed = self.database.suppressed_as(row.organization_id, row.channel, row.recipient)
        if suppressed is None or (row.ignores_suppression and suppressed in IGNORABLE):
            return None
        code = f"contact_{suppressed.value}"
        row.status, row.next_retry_at_s, row.reason, row.updated_at_s = Status.FAILED, None, code, now_s
        self.database.dead_letters.setdefault(row.id, DeadLetter(DeadLetterReason.SUPPRESSED, code))
        return code

    def _claim(self, row: Row, now_s: float, term: int) -> Delivery:
        row.attempts += 1
        row.status, row.claimed_by, row.updated_at_s = Status.SENDING, self.incarnation, now_s
        return Delivery(
            row.id,
            row.organization_id,
            row.channel,
            row.recipient,
            row.payload,
            row.attempts,
            row.attempts_max,
            row.created_at_s if row.send_at_s is None else row.send_at_s,
            row.expires_at_s,
            term,
            row.unknowns,
            None if row.unknown_since_s is None else now_s - row.unknown_since_s,
            None if row.unknown_last_s is None else now_s - row.unknown_last_s,
            row.provider_config_id,
        )

    def _record(self, verdicts: Sequence[Verdict], *, again: bool) -> set[NotificationId]:
        if any("\x00" in text for v in verdicts for text in (v.outcome.code, v.outcome.provider_message_id or "")):
            raise StoreRefused("verdicts can not be stored")
        ours = set()
        for verdict in verdicts:
            row = self.database.rows.get(verdict.delivery.id)
            if row is None:
                continue
            if self._may_record(row, verdict):
                self._conclude(row, verdict)
                ours.add(row.id)
            elif again and _stands_in(row, verdict):
                ours.add(row.id)
        return ours

    def _may_record(self, row: Row, verdict: Verdict) -> bool:
        """Whether the attempt is still this incarnation's to conclude."""
        is_ours = row.claimed_by == self.incarnation and row.attempts == verdict.delivery.attempt
        return is_ours and row.status is Status.SENDING

    def _conclude(self, row: Row, verdict: Verdict) -> None:
        now_s, via, outcome = self._now_s(), verdict.via, verdict.outcome
        attempt = row.attempts
        if verdict.possible_double:
            _mark_unknown(row, now_s)
        row.status, row.claimed_by, row.updated_at_s = verdict.status, None, now_s
        row.next_retry_at_s = None if verdict.retry_in_s is None else now_s + verdict.retry_in_s
        if verdict.status is Status.DELIVERED:
            row.reason, row.provider_message_id = None, outcome.provider_message_id
            row.provider, row.provider_config_id = (None, None) if via is None else (via.provider, via.config_id)
            if outcome.code == FOUND_AT_PROVIDER:
                self.database.timeline.append(TimelineRow(row.id, attempt, outcome.kind.value, outcome.code, now_s))
            return
        row.attempts -= verdict.refund
        row.reason = outcome.code
        if via is not None:
            row.provider, row.provider_config_id = via.provider, via.config_id
        if outcome.kind is not OutcomeClass.INTERRUPTED:  # what never began is no attempt
            entry = TimelineRow(row.id, attempt, outcome.kind.value, outcome.code, now_s, row.next_retry_at_s)
            self.database.timeline.append(entry)
        if outcome.kind is OutcomeClass.SUPPRESS:
            gone = self.database.make_contact(row.organization_id, row.channel, row.recipient)
            kind, at_s = FeedbackKind(suppressed_as(outcome.code).value), outcome.since_unix_s
            gone.contact = gone.contact.after(kind, outcome.code, now_s if at_s is None else at_s)
            self.database.drop_dead_token(row.organization_id, row.channel, row.recipient)
        if verdict.dead is not None:
            self.database.dead_letters.setdefault(row.id, DeadLetter(verdict.dead, outcome.code))

    def _take_back(self, rows: Iterable[Row]) -> list[Rescued]:
        now_s = self._now_s()
        taken = []
        for row in rows:
            is_poison = row.rescues >= RESCUES_MAX
            _mark_unknown(row, now_s)
            row.status = Status.FAILED if is_poison else Status.QUEUED
            left_s = None if row.expires_at_s is None else row.expires_at_s - now_s
            due_in_s = (
                0.0 if is_poison else rescue_delay_s(row.id, row.rescues, left_s, survived=row.claimed_by == self.incarnation)
            )
            row.claimed_by, row.updated_at_s, row.reason = None, now_s, "process_lost"
            row.next_retry_at_s = None if is_poison else now_s + due_in_s
            row.rescues += 1
            row.attempts_max += 1
            ended = TimelineRow(row.id, row.attempts, "unknown", "process_lost", now_s, row.next_retry_at_s)
            self.database.timeline.append(ended)
            if is_poison:
                self.database.dead_letters.setdefault(row.id, DeadLetter(DeadLetterReason.POISON, "process_lost"))
            taken.append(Rescued(row.organization_id, row.id, row.channel, is_poison, due_in_s, row.bulk))
        return taken

    def _prune(self) -> None:
        before_s = self._now_s() - 3600.0
        needed = {row.claimed_by for row in self._sending()}
        for incarnation, until_s in list(self.database.leases.items()):
            if until_s < before_s and incarnation not in needed:
                del self.database.leases[incarnation]

    def _sending(self) -> Iterable[Row]:
        return (row for row in self.database.rows.values() if row.status is Status.SENDING)

    def _ours(self) -> Iterable[Row]:
        return (row for row in self._sending() if row.claimed_by == self.incarnation)

    def _now_s(self) -> float:
        return self.database.unix_s()


def _mark_unknown(row: Row, now_s: float) -> None:
    """Before its status changes: until then ``updated_at_s`` is when the attempt passed the gate."""
    row.unknowns += 1
    row.unknown_last_s = now_s
    if row.unknown_since_s is None:
        row.unknown_since_s = row.updated_at_s


def _id(row: Row) -> NotificationId:
    return row.id


def _stands_in(row: Row, verdict: Verdict) -> bool:
    """Whether the row already says what the verdict would write: an earlier try of ours did it."""
    reason = None if verdict.status is Status.DELIVERED else verdict.outcome.code
    attempts = verdict.delivery.attempt - verdict.refund
    return (row.status, row.attempts, row.reason) == (verdict.status, attempts, reason)
