"""What the actors need of the world, small enough to be held to one conformance suite by a real and an in-memory version.

``Queue`` is the index that may be lost (Redis), ``Store`` the truth (Postgres). Every method is a batch. Implementations raise
:class:`~dispatcher.errors.QueueUnavailable` and :class:`~dispatcher.errors.StoreUnavailable`, and nothing of a driver's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from attrs import field, frozen

from dispatcher.caps import CapUse
from dispatcher.channel_memory import Kept
from dispatcher.contacts import ContactStatus
from dispatcher.messages import Claimed, Gated, Unparked, Verdict
from dispatcher.model import Channel, Lane, NotificationId, OrganizationId
from dispatcher.quota import QuotaAnswer, QuotaAsk

PARKED_LOOK_AGAIN_S = 30.0
"""How long a sleeping organization with parked ids may wait before it is looked at again."""
KEPT_S = 86_400
"""How long the limits of a channel are kept after the last reading or writing: as long as the longest window of a quota."""
RESCUES_MAX = 5
"""An attempt that died this often together with its process is poison: it goes to the dead letters instead of a sixth process."""
DUE_SLACK_S = 0.01
"""How far ahead of its time a row counts as due at the gate: the queue counts in whole milliseconds, and may be early."""
NO_WAYS: Mapping[tuple[OrganizationId, Lane], str] = MappingProxyType({})
"""A gate that is told no configuration for anything."""


class Arrival(NamedTuple):
    """Ids to put into one organization's queue, or into its bulk one, with their announcements."""

    organization_id: OrganizationId
    ids: Sequence[NotificationId]
    announcements: Sequence[bytes]
    bulk: bool = False


@frozen
class Settlement:
    """What becomes, in the queue, of ids that one organization holds in flight. Each id stands in exactly one list.

    ``done`` leave for good, ``delayed`` wait so many seconds, ``requeued`` go back to the head, ``parked`` wait for their
    lane. What was claimed from the bulk queue goes back there; with ``bulk`` also what is delayed without having been claimed.
    """

    organization_id: OrganizationId
    done: list[NotificationId] = field(factory=list)
    delayed: list[tuple[NotificationId, float]] = field(factory=list)
    requeued: list[NotificationId] = field(factory=list)
    parked: list[tuple[Lane, NotificationId]] = field(factory=list)
    announcements: list[bytes] = field(factory=list)
    bulk: bool = False

    def ids(self) -> list[NotificationId]:
        """Every id this settlement speaks of."""
        return [*self.done, *(id for id, _ in self.delayed), *self.requeued, *(id for _, id in self.parked)]


class Queue(Protocol):
    """The dispatch queues of all organizations."""

    async def enqueue(self, arrivals: Sequence[Arrival]) -> None:
        """Add ids at the tail, mark the organizations active, wake their listeners, announce."""

    async def claim(self, organization_id: OrganizationId, n: int, look: Sequence[Lane] = ()) -> Claimed:
        """Move up to ``n`` ids to in-flight under a lease, after putting back those whose lease or delay ran out.

        While both queues have ids, every tenth of those claimed is of the bulk one. The answer says which lanes of ``look`` have
        parked ids.
        """

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Take ids out of in-flight. Repeating a settlement does no harm.

        One that is refused (the keys of its organization are damaged) stops no other and is not reported: its leases run out.
        """

    async def unpark(self, organization_id: OrganizationId, lane: Lane, n: int) -> Unparked:
        """Move up to ``n`` parked ids, oldest first, to the head of the queue; of both lanes as in a claim."""

    async def active(self, limit: int, shards: Collection[int] | None = None) -> list[OrganizationId]:
        """Organizations that need attention by now, longest overdue first; only those of these shards, unless it is None."""

    async def retire(self, organization_id: OrganizationId) -> bool:
        """Drop the organization from the active ones, or schedule it for its next due id. False when a queue has ids."""

    async def restore(
        self, organization_id: OrganizationId, ids: Sequence[NotificationId], bulk: Sequence[NotificationId] = ()
    ) -> int:
        """Put back ids that the store says are queued and the queue may have lost; those of ``bulk`` into the bulk queue.

        Returns how many were missing.
        """

    async def take_channels(self, organization_id: OrganizationId, names: Collection[str]) -> Mapping[str, Kept]:
        """What is kept of limits under these names (``dispatcher.channel_memory.record_names``).

        From now on nobody who read before may write, until the record ages out.
        """

    async def keep_channels(self, organization_id: OrganizationId, records: Mapping[str, tuple[int, Mapping[str, str]]]) -> None:
        """Keep limits under these names, each as (life, fields), for ``KEPT_S``. A life that is not the latest writes nothing."""

    async def ask_quota(self, organization_id: OrganizationId, name: str, ask: QuotaAsk) -> QuotaAnswer:
        """Lease units of the quota under this name, or give some back, on a counter that ends with its window."""

    async def survived(self) -> bool:
        """Whether the queue still is the one it was at the last call; False once after it lost its memory."""


class Diverted(NamedTuple):
    """A notification takes another way than it was to: the channel it was for, and why that could not be used."""

    channel: Channel
    reason: ContactStatus


class Admission(NamedTuple):
    """One notification to insert: ``row`` holds the columns of the notifications table by name, among them, if it is
    to be sent although its contact has bounced or opted out, ``ignores_suppression``.

    Only where ``is_planned`` may it have ``status`` (``scheduled``) with ``send_at`` (Unix seconds), ``topic``,
    ``correlation_id``, ``event_id``, ``bulk``, ``decisions`` and ``plan``; those are written by a dearer statement.
    """

    organization_id: OrganizationId
    id: NotificationId
    idempotency_key: str | None
    request_hash: bytes
    row: Mapping[str, Any]
    diverted: Diverted | None = None
    is_planned: bool = False
    caps: tuple[CapUse, ...] = ()
    """What it uses of frequency caps; only where ``is_planned``."""


class Existing(NamedTuple):
    """What an idempotency key already stands for."""

    id: NotificationId
    request_hash: bytes
    created_at_unix_s: float
    channel: Channel


class KnownEvent(NamedTuple):
    """An event that was taken in before. ``answer`` is JSON, as it was given then."""

    request_hash: bytes
    answer: bytes


class Inserted(dict[tuple[OrganizationId, str], Existing]):
    """What keys of rows that were left out stand for already; ``suppressed``, rows left out because of their contacts; and
    ``events``, by organization and id, those that were there already, with nothing of them inserted; and ``capped``, rows left
    out because somebody has had, or will have, as much as a frequency cap allows.
    """

    def __init__(self, existing: Mapping[tuple[OrganizationId, str], Existing] | None = None) -> None:
        super().__init__(existing or {})
        self.suppressed: dict[NotificationId, ContactStatus] = {}
        self.events: dict[tuple[OrganizationId, str], KnownEvent] = {}
        self.capped: set[NotificationId] = set()

    def add(self, more: Inserted) -> None:
        """Take in the answer about further rows."""
        self.update(more)
        self.suppressed.update(more.suppressed)
        self.events.update(more.events)
        self.capped |= more.capped


class BatchAnswer(NamedTuple):
    """The answer to a whole batch under one key, kept to be replayed.

    ``answer`` makes its JSON, inside the transaction, from what the keys of left-out rows already stand for.
    """

    organization_id: OrganizationId
    idempotency_key: str
    request_hash: bytes
    answer: Callable[[Inserted], bytes]


class DigestEntry(NamedTuple):
    """An event is to be told of together with others of the same rule, person, channel and key.

    The first of them makes the digest, under ``id`` and due at ``due_at_s`` (Unix seconds).
    """

    id: str
    rule: str
    user_id: str
    channel: Channel
    key: str
    due_at_s: float


class EventAdmission(NamedTuple):
    """One event to take in with everything that comes of it: all of it or nothing. ``received_at_s`` is in Unix seconds.

    ``data`` is kept only where there are ``digests``. ``answer`` makes the JSON to be replayed, inside the transaction, from what
    was left out of ``admissions``.
    """

    organization_id: OrganizationId
    id: str
    type: str
    request_hash: bytes
    correlation_id: str | None
    received_at_s: float
    admissions: Sequence[Admission]
    digests: Sequence[DigestEntry]
    data: Mapping[str, Any]
    answer: Callable[[Inserted], bytes]


class Rescued(NamedTuple):
    """One attempt that died with its process, taken back. ``dead`` when it has died too often (poison).

    Else it is queued, in the bulk queue if it is ``bulk``, and due in ``due_in_s``.
    """

    organization_id: OrganizationId
    id: NotificationId
    channel: Channel
    dead: bool
    due_in_s: float = 0.0
    bulk: bool = False


class Expired(NamedTuple):
    """One queued notification whose time has passed; it has failed, with a dead letter."""

    organization_id: OrganizationId
    id: NotificationId
    channel: Channel


class Page(NamedTuple):
    """Part of a walk over queued rows: ``rows`` as (organization, id, due in s), and where to go on (None: at the end).

    ``bulk`` are those of the rows that are of the bulk lane.
    """

    rows: Sequence[tuple[OrganizationId, NotificationId, float]]
    after: tuple[float, NotificationId] | None
    bulk: frozenset[NotificationId] = frozenset()


class Holding(NamedTuple):
    """Which shards this incarnation owns now, by their epoch, and all members (itself included) among which they are shared."""

    epochs: Mapping[int, int]
    members: frozenset[str]


class Store(Protocol):
    """The durable state of notifications."""

    @property
    def term(self) -> int:
        """How often this incarnation has registered. What passed the gate in an earlier term may be somebody else's by now."""

    async def insert(
        self, admissions: Sequence[Admission], batch_answers: Sequence[BatchAnswer], events: Sequence[EventAdmission] = ()
    ) -> Inserted:
        """Insert all in one transaction. Rows whose key is taken are left out, and then the answer says what each key stands
        for now; so are rows whose contact is suppressed or that are over a cap. Of an event that was there already nothing is
        inserted.

        Raises StoreRefused, and inserts nothing, when a row can not be stored; KeyTaken when a batch's key has an answer already.
        """

    async def suppressed(
        self, organization_id: OrganizationId, whom: Sequence[tuple[Channel, str]]
    ) -> Mapping[tuple[Channel, str], ContactStatus]:
        """Which of these recipients may not be used, and why."""

    async def known_events(self, organization_id: OrganizationId, ids: Sequence[str]) -> Mapping[str, KnownEvent]:
        """Which of these events were taken in before."""

    async def known(self, organization_id: OrganizationId, idempotency_keys: Sequence[str]) -> Mapping[str, Existing]:
        """What these keys of one organization stand for already. Keys that are new are left out."""

    async def gate(
        self,
        ids: Sequence[NotificationId],
        closed: Collection[tuple[OrganizationId, Lane]],
        through: Mapping[tuple[OrganizationId, Lane], str] = NO_WAYS,
        unbound: Collection[str] = (),
        *,
        again: bool,
    ) -> Mapping[OrganizationId, Gated]:
        """Record the intent to send, and with it the configuration, by its id, that ``through`` names for the lane of each.

        What has an unresolved attempt keeps the configuration of that attempt, unless it is ``unbound``. A row of an audience
        that neither ``closed`` nor ``through`` names is of its channel's lane. Where ``through`` names nothing, what stood there
        stays.

        ``again`` repeats a call whose answer was lost, for ids nobody else in this process holds.
        """

    async def record(self, verdicts: Sequence[Verdict], *, again: bool) -> set[NotificationId]:
        """Write verdicts; returns the ids that were still ours. ``again`` repeats a call whose answer was lost."""

    async def register(self, lease_s: float) -> None:
        """Make this incarnation known; nothing passes the gate before."""

    async def renew_lease(self, lease_s: float) -> bool:
        """Prolong this incarnation's lease. False when it had lapsed: others may have taken over what we hold."""

    async def release_lease(self) -> None:
        """Give the lease up: what is still ``sending`` under it may be rescued at once."""

    async def expire(self, limit: int) -> Sequence[Expired]:
        """Give up queued notifications whose ``expires_at`` has passed, whether or not anybody could send them."""

    async def rescue(self, limit: int) -> Sequence[Rescued]:
        """Take back attempts of incarnations whose lease lapsed.

        They become due spread over time: one of them may have killed its process, and should not meet all others again.
        """

    async def hand_back(
        self, organization_id: OrganizationId, not_begun: Mapping[NotificationId, int]
    ) -> Sequence[NotificationId]:
        """Undo attempts, given as ids with their numbers, that passed the gate and certainly never began: as if never tried.

        Only who knows that nobody will begin them may call this. Returns those that are queued as before now, also when it is
        repeated. What is an attempt of another number, or another incarnation's, stays as it is.
        """

    async def disown(self, organization_id: OrganizationId) -> Sequence[Rescued]:
        """Take back the attempts one organization's actor held when it crashed inside this incarnation.

        Those that are taken back for the first time are due at once, the others spread over time.
        """

    async def sending(self, older_than_s: float, limit: int) -> Sequence[tuple[OrganizationId, NotificationId]]:
        """What has been ``sending`` under this incarnation for longer than this, longest first."""

    async def reclaim(self, ids: Sequence[NotificationId], older_than_s: float) -> Sequence[Rescued]:
        """Take back attempts of this incarnation that nobody in it holds, those that are still older than this."""

    async def queued(self, after: tuple[float, NotificationId] | None, older_than_s: float, limit: int) -> Page:
        """Walk the queued rows whose last change is older than this, oldest first; with 0, those that are not due yet as well."""

    async def hold_shards(self, shards: Collection[int], lease_s: float, *, stays: bool) -> Holding:
        """Of these shards, renew what this incarnation owns and take what is free, for ``lease_s`` from now on.

        Asking makes it a member; with ``stays`` False it no longer is one, although it may keep what it owns. Without a live
        lease of its own (see ``register``) it gets nothing.
        """

    async def release_shards(self, shards: Collection[int]) -> None:
        """Give up those of these shards that this incarnation owns. Releasing its lease gives up all of them."""
