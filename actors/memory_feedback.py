"""Reports in memory: what Postgres would do, on the tables of :mod:`actors.memory_tables`."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from actors.feedback_ports import JOIN_WINDOW_S, KEPT_S, Confirmed, ContactChange, Report, Taken
from actors.memory import Interrupt, Moment, checkpoint
from actors.memory_tables import ContactName, MemoryDatabase, ReportRow, Row
from dispatcher.contacts import CLEARING_KINDS, CONTACT_KINDS, ContactStatus, address_of
from dispatcher.feedback.confirmation import confirmation_of, furthest
from dispatcher.feedback.feedback import Feedback, FeedbackKind
from dispatcher.ids import uuid7
from dispatcher.model import NotificationId, Status


class MemoryFeedback:
    """Reports, what they confirm, and contacts."""

    def __init__(self, database: MemoryDatabase, *, interrupt: Interrupt = checkpoint) -> None:
        self.database = database
        self.interrupt = interrupt

    async def take(self, reports: Sequence[Report]) -> Taken:
        """Take reports in; they are durable when this returns."""
        await self.interrupt("take", Moment.BEFORE)
        step = _Step(self.database)
        fresh: list[Report] = []
        parked = 0
        now_s = self.database.unix_s()
        for report in reports:
            row = step.notification_of(report)
            first = self.database.reports.get(report.key)
            if first is not None and report.feedback.key_unix_s is not None:
                report = evolve(report, feedback=evolve(report.feedback, at_unix_s=first.at_s))
            feedback = report.feedback
            message_id = report.message_id if row is None else None
            parked += message_id is not None
            if first is None:
                fresh.append(report)
                self.database.reports[report.key] = ReportRow(
                    report.organization_id,
                    report.config_id,
                    report.provider,
                    report.channel,
                    feedback.kind,
                    feedback.code,
                    feedback.at_unix_s,
                    now_s,
                    None if row is None else row.id,
                    message_id,
                )
            step.apply(report, row)
        await self.interrupt("take", Moment.AFTER)
        return Taken(fresh, len(reports) - len(fresh), parked, step.confirmed(), step.changes())

    async def join(self, limit: int) -> tuple[Taken, int]:
        """Look again for the notifications of parked reports; and how many were given up as unmatched."""
        await self.interrupt("join", Moment.BEFORE)
        step = _Step(self.database)
        fresh: list[Report] = []
        parked = given_up = 0
        late_s = self.database.unix_s() - JOIN_WINDOW_S
        waiting = sorted((r.received_at_s, key) for key, r in self.database.reports.items() if r.message_id is not None)
        for _, key in waiting[:limit]:
            known = self.database.reports[key]
            feedback = Feedback("", known.kind, known.code, known.at_s, provider_message_id=known.message_id)
            report = Report(known.organization_id, known.config_id, known.provider, known.channel, feedback)
            row = step.notification_of(report)
            if row is not None:
                fresh.append(report)
                known.notification_id, known.message_id = row.id, None
                step.apply(report, row)
            elif known.received_at_s < late_s:
                given_up += 1
                known.message_id = None
            else:
                parked += 1
        await self.interrupt("join", Moment.AFTER)
        return Taken(fresh, 0, parked, step.confirmed(), step.changes()), given_up

    async def prune(self, limit: int) -> int:
        """Delete the oldest reports past ``KEPT_S``, at most ``limit``; how many there were."""
        await self.interrupt("prune", Moment.BEFORE)
        oldest = uuid7(int((self.database.unix_s() - KEPT_S) * 1000), 0)
        old = sorted(key for key in self.database.reports if key < oldest)[:limit]
        for key in old:
            del self.database.reports[key]
        await self.interrupt("prune", Moment.AFTER)
        return len(old)


class _Step:
    """One batch of reports on its way into the tables, and what it changes there."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database
        self._confirmed: dict[NotificationId, Confirmed] = {}
        self._before: dict[ContactName, ContactStatus] = {}

    def notification_of(self, report: Report) -> Row | None:
        """What a report is about: by our id that came back, otherwise by the provider's own."""
        feedback, rows = report.feedback, self._database.rows
        if feedback.notification_id is not None:
            row = rows.get(feedback.notification_id)
            return row if row is not None and row.organization_id == report.organization_id else None
        if feedback.provider_message_id is None:
            return None
        for row in rows.values():
            is_it = row.provider_message_id == feedback.provider_message_id and row.provider != "sendgrid"
            if is_it and (row.organization_id, row.provider_config_id) == (report.organization_id, report.config_id):
                return row
        return None

    def apply(self, report: Report, row: Row | None) -> None:
        """Merge a report into what is known."""
        database, feedback = self._database, report.feedback
        if row is not None:
            known = database.confirmations.get(row.id)
            now = furthest(known, confirmation_of(feedback))
            if now is not None and now != known:
                database.confirmations[row.id] = now
                is_timed = now.state is FeedbackKind.DELIVERED and row.status is Status.DELIVERED
                after_s = max(0.0, now.at_unix_s - row.updated_at_s) if is_timed else None
                self._confirmed[row.id] = Confirmed(
                    row.organization_id, row.id, row.channel, now.state, now.code, now.at_unix_s, report.provider, after_s
                )
        channel = report.channel if row is None else row.channel
        recipient = feedback.recipient if row is None else row.recipient
        if recipient is None or feedback.topic is not None:
            return
        found = database.contact(report.organization_id, channel, recipient)
        clears = feedback.kind in CLEARING_KINDS and found is not None and bool(found.contact.soft_bounces)
        if feedback.kind not in CONTACT_KINDS and not clears:
            return
        contact = database.make_contact(report.organization_id, channel, recipient)
        self._before.setdefault((report.organization_id, channel, address_of(channel, recipient)), contact.contact.status)
        after = contact.contact.after(feedback.kind, feedback.code, feedback.at_unix_s)
        if after != contact.contact:
            contact.contact, contact.provider = after, report.provider
            database.drop_dead_token(report.organization_id, channel, recipient)

    def confirmed(self) -> Sequence[Confirmed]:
        """Notifications of which more is known."""
        return list(self._confirmed.values())

    def changes(self) -> Sequence[ContactChange]:
        """Contacts that have another status."""
        changes = []
        for name, before in self._before.items():
            row = self._database.contacts[name]
            status, code, _ = row.contact.standing
            if status is not before:
                changes.append(ContactChange(name[0], row.id, name[1], status, code))
        return changes
