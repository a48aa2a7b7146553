"""What taking in reports needs of the durable state. Held to one conformance suite by a real and an in-memory version.

Everything here may be repeated, in any order: what a report says is merged into what is known, and the same report twice says
nothing new. Implementations raise :class:`~dispatcher.errors.StoreUnavailable` and :class:`~dispatcher.errors.StoreRefused`.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple, Protocol

from attrs import frozen

from dispatcher.contacts import ContactStatus
from dispatcher.feedback.feedback import Feedback, FeedbackKind
from dispatcher.ids import RANDOM_BITS, uuid7
from dispatcher.model import Channel, NotificationId, OrganizationId

JOIN_WINDOW_S = 3600.0
"""How long a report waits for the notification it is about. After that it is counted as unmatched."""
KEPT_S = 30 * 86_400.0
"""How long reports are kept: repetitions are known by them, timelines show them. No provider repeats for longer than 7 days."""
_LATEST_MS = (1 << 48) - 1


@frozen
class Report:
    """One report, and whose configuration it came to."""

    organization_id: OrganizationId
    config_id: str
    provider: str
    channel: Channel
    feedback: Feedback

    @property
    def key(self) -> str:
        """What its repetitions have in common: a UUIDv7 of when it happened, by the provider, and of its id there."""
        at_s = self.feedback.at_unix_s if self.feedback.key_unix_s is None else self.feedback.key_unix_s
        at_ms = min(max(int(at_s * 1000), 0), _LATEST_MS)
        name = f"{self.config_id} {self.feedback.event_id}".encode("utf-8", "surrogatepass")
        digest = int.from_bytes(blake2b(name, digest_size=10).digest())
        return uuid7(at_ms, digest >> (80 - RANDOM_BITS))

    @property
    def message_id(self) -> str | None:
        """What its notification may still be found by, once that is on record: None if by nothing, and it need not wait.

        SendGrid's is the id of a whole request. An account that others use as well reports all of theirs to us.
        """
        feedback = self.feedback
        return feedback.provider_message_id if feedback.topic is None and self.provider != "sendgrid" else None


class ContactChange(NamedTuple):
    """A contact that has another status now."""

    organization_id: OrganizationId
    id: str
    channel: Channel
    status: ContactStatus
    code: str | None


class Confirmed(NamedTuple):
    """A notification of which more is known now than before.

    ``after_s`` is how long it took from being taken on by ``provider`` to being delivered, by two clocks; None for another state.
    """

    organization_id: OrganizationId
    id: NotificationId
    channel: Channel
    state: FeedbackKind
    code: str
    at_unix_s: float
    provider: str
    after_s: float | None


class Taken(NamedTuple):
    """What taking in some reports has changed. ``fresh`` had not been taken in before, ``known`` had; ``parked`` wait for their
    notification.
    """

    fresh: Sequence[Report]
    known: int
    parked: int
    confirmed: Sequence[Confirmed]
    contacts: Sequence[ContactChange]

    @property
    def new(self) -> int:
        """How many had not been taken in before; of parked ones, how many have found their notification."""
        return len(self.fresh)


class FeedbackStore(Protocol):
    """Reports, what they confirm, and contacts."""

    async def take(self, reports: Sequence[Report]) -> Taken:
        """Take reports in; they are durable when this returns."""

    async def join(self, limit: int) -> tuple[Taken, int]:
        """Look again for the notifications of parked reports; and how many were given up as unmatched."""

    async def prune(self, limit: int) -> int:
        """Delete the oldest reports past ``KEPT_S``, at most ``limit``; how many there were."""
