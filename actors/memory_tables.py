"""The tables of the store in memory: what is on disk and outlives every process; :mod:`actors.memory_store` writes them.

Columns that only the surface reads are left out. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from attrs import define, evolve, field, frozen

from actors.ports import Admission
from dispatcher.caps import CapName
from dispatcher.contacts import Contact, ContactStatus, address_of
from dispatcher.feedback.confirmation import Confirmation
from dispatcher.feedback.feedback import FeedbackKind
from dispatcher.ids import is_uuid
from dispatcher.model import Channel, DeadLetterReason, NotificationId, OrganizationId, Status
from dispatcher.people import User

_CHANNELS = frozenset(channel.value for channel in Channel)


@define
class Row:
    """One row of the notifications table."""

    id: NotificationId
    organization_id: OrganizationId
    channel: Channel
    recipient: str = field(repr=False)
    payload: Mapping[str, Any] = field(repr=False)
    attempts_max: int
    created_at_s: float
    updated_at_s: float
    expires_at_s: float | None
    idempotency_key: str | None
    request_hash: bytes
    status: Status = Status.QUEUED
    attempts: int = 0
    unknowns: int = 0
    rescues: int = 0
    unknown_since_s: float | None = None  # when the first unresolved attempt passed the gate
    unknown_last_s: float | None = None  # when the last one was given up
    claimed_by: str | None = None
    next_retry_at_s: float | None = None
    provider: str | None = None
    provider_config_id: str | None = None
    provider_message_id: str | None = None
    reason: str | None = None
    ignores_suppression: bool = False
    user_id: str | None = None
    locale: str | None = None
    topic: str | None = None
    correlation_id: str | None = None
    event_id: str | None = None
    bulk: bool = False
    decisions: Sequence[Mapping[str, Any]] | None = None
    plan: Mapping[str, Any] | None = field(default=None, repr=False)
    send_at_s: float | None = None  # of a scheduled one, from its release on

    def due_in_s(self, now_s: float) -> float:
        """How long until it may be tried."""
        return 0.0 if self.next_retry_at_s is None else max(0.0, self.next_retry_at_s - now_s)


@frozen
class TimelineRow:
    """One ended attempt that was not simply delivered."""

    notification_id: NotificationId
    attempt: int
    outcome: str
    code: str
    at_s: float
    next_retry_at_s: float | None = None
    provider_config_id: str | None = None


@frozen
class DeadLetter:
    """Why a notification will not be tried again."""

    reason: DeadLetterReason
    code: str


@define
class ShardRow:
    """Who owns a shard, until when, and how often that has changed."""

    owner: str | None = None
    epoch: int = 0
    lease_until_s: float = float("-inf")


@define
class ContactRow:
    """One contact, with what only people read of it."""

    id: str
    recipient: str = field(repr=False)
    contact: Contact = Contact()
    provider: str | None = None


@define
class ReportRow:
    """One report. ``message_id`` stays only as long as its notification is not known."""

    organization_id: OrganizationId
    config_id: str
    provider: str
    channel: Channel
    kind: FeedbackKind
    code: str
    at_s: float
    received_at_s: float
    notification_id: NotificationId | None
    message_id: str | None


@define
class EventRow:
    """One event that was taken in."""

    type: str
    request_hash: bytes
    correlation_id: str | None
    received_at_s: float
    answer: bytes


@frozen
class DigestItemRow:
    """One event of a digest."""

    correlation_id: str | None
    data: Mapping[str, Any] = field(repr=False)
    at_s: float


@define
class DigestRow:
    """Events that wait to be told of together, by their ids."""

    id: str
    due_at_s: float
    items: dict[str, DigestItemRow] = field(factory=dict)


DigestName = tuple[OrganizationId, str, str, Channel, str]
"""What identifies a digest: its organization, rule, user, channel and key."""
ContactName = tuple[OrganizationId, Channel, bytes]
"""What identifies a contact: see ``dispatcher.contacts.address_of``."""


@define
class MemoryDatabase:
    """The tables. ``unix_s`` is the server's clock."""

    unix_s: Callable[[], float]
    rows: dict[NotificationId, Row] = field(factory=dict, init=False)
    keys: dict[tuple[OrganizationId, str], NotificationId] = field(factory=dict, init=False)
    batch_answers: dict[tuple[OrganizationId, str], tuple[bytes, bytes]] = field(factory=dict, init=False)
    timeline: list[TimelineRow] = field(factory=list, init=False)
    dead_letters: dict[NotificationId, DeadLetter] = field(factory=dict, init=False)
    leases: dict[str, float] = field(factory=dict, init=False)  # by incarnation, until when
    beats: dict[str, float] = field(factory=dict, init=False)  # by incarnation, until when it is a member
    shards: dict[int, ShardRow] = field(factory=dict, init=False)

    events: dict[tuple[OrganizationId, str], EventRow] = field(factory=dict, init=False)
    digests: dict[DigestName, DigestRow] = field(factory=dict, init=False)
    cap_times: dict[CapName, tuple[float, ...]] = field(factory=dict, init=False)
    contacts: dict[ContactName, ContactRow] = field(factory=dict, init=False)
    reports: dict[str, ReportRow] = field(factory=dict, init=False)
    confirmations: dict[NotificationId, Confirmation] = field(factory=dict, init=False)
    users: dict[tuple[OrganizationId, str], User] = field(factory=dict, init=False)

    def contact(self, organization_id: OrganizationId, channel: Channel, recipient: str) -> ContactRow | None:
        """The contact of an address, if anything was ever heard of it."""
        return self.contacts.get((organization_id, channel, address_of(channel, recipient)))

    def make_contact(self, organization_id: OrganizationId, channel: Channel, recipient: str) -> ContactRow:
        """The contact of an address, made if need be."""
        name = organization_id, channel, address_of(channel, recipient)
        if name not in self.contacts:
            self.contacts[name] = ContactRow(f"00000000-0000-7000-8000-{len(self.contacts):012x}", recipient)
        return self.contacts[name]

    def suppressed_as(self, organization_id: OrganizationId, channel: Channel, recipient: str) -> ContactStatus | None:
        """Why an address may not be used; None when it may."""
        found = self.contact(organization_id, channel, recipient)
        return None if found is None or found.contact.status is ContactStatus.ACTIVE else found.contact.status

    def drop_dead_token(self, organization_id: OrganizationId, channel: Channel, recipient: str) -> None:
        """A push token that nobody has any more leaves its user."""
        if channel is not Channel.PUSH or self.suppressed_as(organization_id, channel, recipient) is not ContactStatus.INVALID:
            return
        for (organization, user_id), user in self.users.items():
            points = tuple(point for point in user.points if (point.channel, point.recipient) != (channel, recipient))
            if organization == organization_id and points != user.points:
                self.users[organization, user_id] = evolve(user, points=points)

    def holds_lease(self, incarnation: str | None, at_s: float) -> bool:
        """Whether the incarnation's lease lasts beyond this instant."""
        return incarnation is not None and self.leases.get(incarnation, float("-inf")) > at_s


def row_of(admission: Admission) -> Row:
    """The row an admission becomes."""
    given = admission.row
    return Row(
        id=admission.id,
        organization_id=admission.organization_id,
        channel=Channel(given["channel"]),
        recipient=given["recipient"],
        payload=given["payload"],
        attempts_max=given["attempts_max"],
        created_at_s=given["created_at"],
        updated_at_s=given["created_at"],
        expires_at_s=given["expires_at"],
        idempotency_key=admission.idempotency_key,
        request_hash=admission.request_hash,
        ignores_suppression=bool(given.get("ignores_suppression")),
        user_id=given.get("user_id"),
        locale=given.get("locale"),
        status=Status(given.get("status") or Status.QUEUED),
        next_retry_at_s=given.get("send_at"),
        topic=given.get("topic"),
        correlation_id=given.get("correlation_id"),
        event_id=given.get("event_id"),
        bulk=bool(given.get("bulk")),
        decisions=given.get("decisions"),
        plan=given.get("plan"),
    )


def is_storable(admission: Admission) -> bool:
    """Whether Postgres would take the row: a channel it knows, an id that is one, small numbers, and no NUL in any text."""
    row = admission.row
    return (
        is_uuid(row["id"])
        and row["channel"] in _CHANNELS
        and -(2**15) <= row["attempts_max"] < 2**15
        and b"\\u0000" not in orjson.dumps(dict(row))
    )
