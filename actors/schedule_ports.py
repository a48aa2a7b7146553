"""What waits for its time, as the clock and the surface need it of the durable state. Held to one suite on both stores.

A notification that waits is ``scheduled``; no statement of the dispatching looks at such a row, and Redis does not know it. Every
method is a batch, may be repeated when its answer was lost, and changes a row only where its present state is checked in the same
statement: so two clocks do each other no harm, and a row is either canceled or sent, never both. Implementations raise
:class:`~dispatcher.errors.StoreUnavailable` and :class:`~dispatcher.errors.StoreRefused`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from attrs import Factory, field, frozen

from actors.ports import Admission, Inserted
from dispatcher.decisions import Decision
from dispatcher.model import Channel, NotificationId, OrganizationId, Status

EXPIRED = "expired"
"""The reason of what was canceled because its ``expires_at`` had passed before it was released."""
CANCELED = "canceled"
"""The reason of what was canceled by hand."""


@frozen
class Scheduled:
    """A notification that was accepted for later: at ``at_s``, Unix seconds."""

    organization_id: OrganizationId
    id: NotificationId
    channel: Channel
    at_s: float


@frozen
class Due:
    """A scheduled notification whose time has come and whose permission is to be asked again: it has a ``plan``.

    ``due_at_s`` is the time that has come. Times are Unix seconds.
    """

    organization_id: OrganizationId
    id: NotificationId
    channel: Channel
    recipient: str = field(repr=False)
    user_id: str | None = field(repr=False)
    topic: str | None
    plan: Mapping[str, Any] = field(repr=False)
    due_at_s: float
    expires_at_s: float | None = None
    ignores_suppression: bool = False
    event_id: str | None = None


@frozen
class Ruling:
    """What becomes of one that was due. ``status`` is ``queued`` (send it), ``scheduled`` (at ``at_s``) or ``canceled``.

    ``decisions`` are added to its chain; of what is canceled, the last one's code becomes the reason.
    """

    due: Due
    status: Status
    decisions: tuple[Decision, ...] = ()
    at_s: float | None = None


def reason_of(ruling: Ruling) -> str | None:
    """Why something is canceled: the code of the last decision about it."""
    if ruling.status is not Status.CANCELED:
        return None
    return ruling.decisions[-1].code.value if ruling.decisions else CANCELED


class Moved(NamedTuple):
    """A scheduled notification that has another status now, or the same at another time (``at_s``, Unix seconds)."""

    organization_id: OrganizationId
    id: NotificationId
    channel: Channel
    status: Status
    reason: str | None = None
    at_s: float | None = None
    bulk: bool = False


ITEMS_MAX = 1_000
"""Events of one digest that are told of one by one; of those before them it is told how many they are."""
ITEMS_BYTES_MAX = 256 * 1024
"""Bytes of their data, as JSON. The last is told of however large it is."""


@frozen
class DigestItem:
    """One event that waits to be told of."""

    event_id: str
    correlation_id: str | None
    data: Mapping[str, Any] = field(repr=False)
    at_s: float


@frozen
class Digest:
    """Events to be told of together. ``items`` are in the order in which they came in: the last ``ITEMS_MAX``, fewer where these
    have more than ``ITEMS_BYTES_MAX``. ``count`` is of all; ``mark`` tells whether any of them has come or gone since.
    """

    id: str
    organization_id: OrganizationId
    rule: str
    user_id: str
    channel: Channel
    key: str
    due_at_s: float
    items: tuple[DigestItem, ...] = field(repr=False)
    count: int = field(default=Factory(lambda self: len(self.items), takes_self=True))
    mark: str = ""


@frozen
class Telling:
    """A digest as it was read, and the notification that tells of it: None tells of nothing, and the digest goes all the same."""

    digest: Digest
    admission: Admission | None


class Told(NamedTuple):
    """What became of digests. ``done`` are gone; of their notifications, ``inserted`` says which were left out."""

    done: frozenset[str]
    inserted: Inserted


class Cancelation(NamedTuple):
    """What a cancel of one met. ``status`` is how it stands now, ``now`` whether this very call canceled it."""

    id: NotificationId
    channel: Channel
    status: Status
    now: bool


class Cancelations(NamedTuple):
    """What a cancel of many did: those it canceled, and how many digest items it took away.

    ``more`` says that there may be others; whoever wants them canceled as well calls again.
    """

    canceled: Sequence[tuple[NotificationId, Channel]]
    items: int
    more: bool


class ScheduleStore(Protocol):
    """What waits for its time."""

    async def next_in_s(self) -> float | None:
        """How long until the first scheduled notification or digest is due, by the store's clock; None without any."""

    async def release(self, limit: int) -> Sequence[Moved]:
        """Queue what is due and has nothing to be asked again, the longest overdue first.

        What has outlived its ``expires_at`` is canceled instead, whether or not it has a plan.
        """

    async def due(self, limit: int) -> Sequence[Due]:
        """What is due and has a plan, the longest overdue first. Changes nothing."""

    async def rule(self, rulings: Sequence[Ruling]) -> Sequence[Moved]:
        """Carry out rulings on rows that still wait as they did when they were read; returns those."""

    async def digests(self, limit: int) -> Sequence[Digest]:
        """Digests that are due, the longest overdue first. Changes nothing."""

    async def tell(self, tellings: Sequence[Telling]) -> Told:
        """For each digest that still has exactly the items it was read with: insert its notification and delete it, in one
        transaction. The others are left for the next look.

        Raises StoreRefused, and does nothing, when one of the notifications can not be stored.
        """

    async def put_off(self, digests: Sequence[str], by_s: float) -> None:
        """Make digests due so many seconds from now."""

    async def cancel(self, organization_id: OrganizationId, id: NotificationId) -> Cancelation | None:
        """Cancel one that is scheduled or queued; None when there is no such one. What is canceled already stays so."""

    async def cancel_correlated(self, organization_id: OrganizationId, correlation_id: str, limit: int) -> Cancelations:
        """Cancel up to ``limit`` that are scheduled or queued under a correlation id, and take its items out of digests."""

    async def standing(self, organization_id: OrganizationId, correlation_id: str, limit: int) -> Mapping[Status, int]:
        """How many notifications of a correlation id have each status, counting up to ``limit`` of them."""
