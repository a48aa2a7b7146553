"""The tables of the store in memory: what is on disk and outlives every process; :mod:`actors.memory_store` writes them.

Columns that only the surface reads are left out. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field, frozen

from actors.ports import Admission
from dispatcher.model import Channel, DeadLetterReason, NotificationId, OrganizationId, Status


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

    def due_in_s(self, now_s: float) -> float:
        """How long until it may be tried."""
        return 0.0 if self.next_retry_at_s is None else max(0.0, self.next_retry_at_s - now_s)


def row_of(admission: Admission) -> Row:
    """A notification as it is inserted."""
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
    )


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

    def holds_lease(self, incarnation: str | None, at_s: float) -> bool:
        """Whether the incarnation's lease lasts beyond this instant."""
        return incarnation is not None and self.leases.get(incarnation, float("-inf")) > at_s
