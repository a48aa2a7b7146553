"""The queue port in memory: what Redis would do, step for step, on a clock of the caller's.

For tests and for simulations that need thousands of crashes a second; the same conformance suite holds it and Redis to one
behaviour. Every operation is one atomic step between two moments at which an :data:`Interrupt` is awaited, so that a test can let
a server be away (raise before), lose an answer (raise after), be slow, or be cancelled. The store port is in
:mod:`actors.memory_store`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from copy import deepcopy
from enum import Enum
from math import ceil

import trio
from attrs import define, field

from actors.memory_limits import MemoryLimits
from actors.ports import PARKED_LOOK_AGAIN_S, Arrival, Settlement
from dispatcher.audience import LANES
from dispatcher.channel_memory import Kept
from dispatcher.keys import shard_of
from dispatcher.messages import Claimed, Unparked
from dispatcher.model import Lane, NotificationId, OrganizationId
from dispatcher.quota import QuotaAnswer, QuotaAsk

ANNOUNCEMENTS_MAX = 1000
"""Announcements kept per organization, as the stream in Redis keeps them."""
TIME_CHARS = 13
"""The millisecond in front of an id."""
BULK_EVERY = 10
"""While both queues have ids, every so-many-th is one of bulk."""
DUE_MAX = 1000
"""Ids put back in one claim because their lease or their delay ran out."""


class Moment(Enum):
    """When an operation is interrupted."""

    BEFORE = "before"
    """It has not acted yet: what is raised here means that nothing happened."""
    AFTER = "after"
    """It has acted: what is raised here means that the answer was lost."""


Interrupt = Callable[[str, Moment], Awaitable[None]]
"""Awaited with the name of the operation, twice for each. It may raise what the port allows, or wait."""


async def checkpoint(_operation: str, moment: Moment) -> None:
    """The default: every operation lets other tasks run once and can be cancelled before it acts."""
    if moment is Moment.BEFORE:
        await trio.lowlevel.checkpoint()


def _nobody(_organization_id: OrganizationId) -> None:
    """Nobody listens for wake-ups."""


@define
class _Lists:
    """The keys of one organization. The right end of a queue is its head; the sets are scored by milliseconds, half a one more
    for an id of the bulk lane, which is parked with 1 where others are with 0."""

    queue: deque[NotificationId] = field(factory=deque)
    bulk: deque[NotificationId] = field(factory=deque)
    inflight: dict[NotificationId, float] = field(factory=dict)
    delayed: dict[NotificationId, float] = field(factory=dict)
    parked: dict[Lane, dict[NotificationId, float]] = field(factory=lambda: {lane: {} for lane in LANES})
    turns: dict[str, int] = field(factory=dict)
    announced: deque[bytes] = field(factory=lambda: deque(maxlen=ANNOUNCEMENTS_MAX))

    def lane(self, score: float) -> deque[NotificationId]:
        """The queue that an id of this score belongs to."""
        return self.bulk if score % 1 else self.queue

    def bulk_share(self, name: str, n: int) -> int:
        """How many of ``n`` ids are for bulk while both lanes wait."""
        before = self.turns.get(name, 0)
        self.turns[name] = before + n
        return (before + n) // BULK_EVERY - before // BULK_EVERY


class MemoryQueue:
    """The dispatch queues of all organizations; several processes of a test may share one.

    ``unix_s`` is the server's clock, ``on_wake`` hears what Redis would publish as wake-ups.
    """

    def __init__(
        self,
        unix_s: Callable[[], float],
        *,
        lease_s: float,
        shards: int = 16,
        interrupt: Interrupt = checkpoint,
        on_wake: Callable[[OrganizationId], None] = _nobody,
    ) -> None:
        self._unix_s = unix_s
        self._lease_ms = int(lease_s * 1000)
        self._shards = shards
        self.interrupt = interrupt
        self.on_wake = on_wake
        self._lists: dict[OrganizationId, _Lists] = {}
        self._active: dict[int, dict[OrganizationId, float]] = {}  # by shard
        self._sentinel = False
        self.limits = MemoryLimits()

    # --- for tests ------------------------------------------------------------------------------------------------------

    def lose_memory(self) -> None:
        """Forget everything, as a server does that is started again without a file."""
        self._lists.clear()
        self._active.clear()
        self._sentinel = False
        self.limits = MemoryLimits()

    def lose_active(self) -> None:
        """Forget only which organizations need attention."""
        self._active.clear()

    def divide(self, shards: int) -> None:
        """Go on with another number of shards, as after a stop of all processes."""
        self._shards = shards

    def snapshot(self) -> object:
        """All keys as they are now, as a server writes them to disk now and then."""
        return deepcopy((self._lists, self._active, self._sentinel, self.limits))

    def resurrect(self, snapshot: object) -> None:
        """Go back to an earlier :meth:`snapshot`, as a server does that fails over and had not passed on its last writes."""
        assert isinstance(snapshot, tuple)
        lists, active, self._sentinel, self.limits = deepcopy(snapshot)
        self._lists.clear()
        self._lists.update(lists)
        self._active.clear()
        self._active.update(active)

    def announced(self, organization_id: OrganizationId) -> list[bytes]:
        """The latest announcements, oldest first."""
        return list(self._of(organization_id).announced)

    def holds(self, organization_id: OrganizationId) -> dict[str, list[NotificationId]]:
        """Every id by where it stands, in the order in which it would leave."""
        lists = self._of(organization_id)
        return {
            "queue": list(reversed(lists.queue)),
            **({"bulk": list(reversed(lists.bulk))} if lists.bulk else {}),
            "inflight": _by_score(lists.inflight),
            "delayed": _by_score(lists.delayed),
            **{f"parked:{lane}": _by_score(ids) for lane, ids in lists.parked.items() if ids},
        }

    # --- the port -------------------------------------------------------------------------------------------------------

    async def enqueue(self, arrivals: Sequence[Arrival]) -> None:
        """Add ids at the tail, mark the organizations active, wake their listeners, announce."""
        await self.interrupt("enqueue", Moment.BEFORE)
        for organization_id, ids, announcements, bulk in arrivals:
            lists = self._of(organization_id)
            queue = lists.bulk if bulk else lists.queue
            was_empty = not queue
            queue.extendleft(ids)
            self._attend(organization_id, self._now_ms())
            if was_empty:
                self.on_wake(organization_id)
            lists.announced.extend(announcements)
        await self.interrupt("enqueue", Moment.AFTER)

    async def claim(self, organization_id: OrganizationId, n: int, look: Sequence[Lane] = ()) -> Claimed:
        """Move up to ``n`` ids to in-flight under a lease, after putting back those whose lease or delay ran out."""
        await self.interrupt("claim", Moment.BEFORE)
        lists, now_ms = self._of(organization_id), self._now_ms()
        for waiting in (lists.inflight, lists.delayed):
            due = [id for id in _by_score(waiting) if waiting[id] <= now_ms][:DUE_MAX]
            for id in reversed(due):
                lists.lane(waiting.pop(id)).append(id)
        share = lists.bulk_share("claim", n) if lists.bulk and lists.queue else 0
        from_bulk = min(len(lists.bulk), max(share, n - len(lists.queue)))
        ids = [lists.queue.pop() for _ in range(min(n - from_bulk, len(lists.queue)))]
        lists.inflight.update((id, now_ms + self._lease_ms) for id in ids)
        ids_bulk = [lists.bulk.pop() for _ in range(from_bulk)]
        lists.inflight.update((id, now_ms + self._lease_ms + 0.5) for id in ids_bulk)
        first_ms = min(lists.delayed.values(), default=None)
        due_in_s = None if first_ms is None else max(0, ceil(first_ms - now_ms)) / 1000.0
        left = len(lists.queue) + len(lists.bulk)
        claimed = Claimed(ids + ids_bulk, left, due_in_s, tuple(lane for lane in look if lists.parked[lane]))
        await self.interrupt("claim", Moment.AFTER)
        return claimed

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Take ids out of in-flight. Repeating a settlement does no harm."""
        await self.interrupt("settle", Moment.BEFORE)
        for settlement in settlements:
            self._settle(settlement)
        await self.interrupt("settle", Moment.AFTER)

    async def unpark(self, organization_id: OrganizationId, lane: Lane, n: int) -> Unparked:
        """Move up to ``n`` parked ids, oldest first, to the head of the queue."""
        await self.interrupt("unpark", Moment.BEFORE)
        lists = self._of(organization_id)
        parked = lists.parked[lane]
        bulk = sorted(id for id, score in parked.items() if score)
        waiting = sorted(parked.keys() - set(bulk))
        share = lists.bulk_share(lane, n) if bulk and waiting else 0
        bulk = bulk[: max(share, n - len(waiting))]
        waiting = waiting[: n - len(bulk)]
        for id in (*waiting, *bulk):
            del parked[id]
        lists.queue.extend(reversed(waiting))
        lists.bulk.extend(reversed(bulk))
        unparked = Unparked(lane, len(waiting) + len(bulk), len(parked))
        await self.interrupt("unpark", Moment.AFTER)
        return unparked

    async def active(self, limit: int, shards: Collection[int] | None = None) -> list[OrganizationId]:
        """Organizations that need attention by now, longest overdue first; only those of these shards, unless it is None."""
        await self.interrupt("active", Moment.BEFORE)
        now_ms = self._now_ms()
        found = [
            (at_ms, organization_id, shard)
            for shard in (range(self._shards) if shards is None else shards)
            for organization_id, at_ms in self._active.get(shard, {}).items()
            if at_ms <= now_ms
        ]
        due = sorted(found)
        for at_ms, organization_id, shard in found:
            if shard_of(organization_id, self._shards) != shard:  # left from another number of shards
                due.remove((at_ms, organization_id, shard))
                self._attend(organization_id, at_ms)
                del self._active[shard][organization_id]
        await self.interrupt("active", Moment.AFTER)
        return [organization_id for _, organization_id, _ in due[:limit]]

    async def retire(self, organization_id: OrganizationId) -> bool:
        """Drop the organization from the active ones, or schedule it for its next due id. False when its queue is not empty."""
        await self.interrupt("retire", Moment.BEFORE)
        retired = self._retire(organization_id)
        await self.interrupt("retire", Moment.AFTER)
        return retired

    async def restore(
        self, organization_id: OrganizationId, ids: Sequence[NotificationId], bulk: Sequence[NotificationId] = ()
    ) -> int:
        """Put back ids that the store says are queued and the queue may have lost. Returns how many were missing."""
        await self.interrupt("restore", Moment.BEFORE)
        lists = self._of(organization_id)
        missing = 0
        for queue, told in ((lists.queue, ids), (lists.bulk, bulk)):
            head_ms = queue[-1][:TIME_CHARS] if queue else None
            lost = [
                id
                for id in sorted(told, reverse=True)
                if not (
                    (head_ms is not None and head_ms <= id[:TIME_CHARS])
                    or id in lists.inflight
                    or id in lists.delayed
                    or any(id in parked for parked in lists.parked.values())
                )
            ]
            queue.extend(lost)
            missing += len(lost)
        due_ms = self._due_ms(lists)
        sooner = due_ms is not None and self._attend(organization_id, due_ms)
        if missing or (sooner and due_ms is not None and due_ms <= self._now_ms()):
            self.on_wake(organization_id)
        await self.interrupt("restore", Moment.AFTER)
        return missing

    async def take_channels(self, organization_id: OrganizationId, names: Collection[str]) -> Mapping[str, Kept]:
        """What is kept of limits under these names."""
        await self.interrupt("take_channels", Moment.BEFORE)
        kept = {name: self.limits.take(organization_id, name, self._now_ms()) for name in names}
        await self.interrupt("take_channels", Moment.AFTER)
        return kept

    async def keep_channels(self, organization_id: OrganizationId, records: Mapping[str, tuple[int, Mapping[str, str]]]) -> None:
        """Keep limits under these names."""
        await self.interrupt("keep_channels", Moment.BEFORE)
        for name, (life, fields) in records.items():
            self.limits.keep(organization_id, name, life, fields, self._now_ms())
        await self.interrupt("keep_channels", Moment.AFTER)

    async def ask_quota(self, organization_id: OrganizationId, name: str, ask: QuotaAsk) -> QuotaAnswer:
        """Lease units of the quota under this name, or give some back."""
        await self.interrupt("ask_quota", Moment.BEFORE)
        answer = self.limits.ask(organization_id, name, ask, self._now_ms())
        await self.interrupt("ask_quota", Moment.AFTER)
        return answer

    async def survived(self) -> bool:
        """Whether the queue still is the one it was at the last call; False once after it lost its memory."""
        await self.interrupt("survived", Moment.BEFORE)
        survived, self._sentinel = self._sentinel, True
        await self.interrupt("survived", Moment.AFTER)
        return survived

    # --- steps ----------------------------------------------------------------------------------------------------------

    def _settle(self, settlement: Settlement) -> None:
        organization_id = settlement.organization_id
        lists, now_ms = self._of(organization_id), self._now_ms()
        for id in settlement.done:
            lists.inflight.pop(id, None)
        for id, delay_s in settlement.delayed:
            due_ms = now_ms + int(delay_s * 1000)
            lists.delayed[id] = due_ms + lists.inflight.pop(id, 0.5 if settlement.bulk else 0) % 1
            self._attend(organization_id, due_ms)
        for id in reversed(settlement.requeued):
            if (until_ms := lists.inflight.pop(id, None)) is not None:
                lists.lane(until_ms).append(id)
        for lane, id in settlement.parked:
            if (until_ms := lists.inflight.pop(id, None)) is not None:
                lists.parked[lane][id] = 1 if until_ms % 1 else 0
        if settlement.requeued:
            self._attend(organization_id, now_ms)
            self.on_wake(organization_id)
        lists.announced.extend(settlement.announcements)

    def _retire(self, organization_id: OrganizationId) -> bool:
        lists = self._of(organization_id)
        if lists.queue or lists.bulk:
            return False
        due_ms = self._due_ms(lists)
        if due_ms is not None:
            self._active_with(organization_id)[organization_id] = due_ms
        else:
            self._active_with(organization_id).pop(organization_id, None)
        return True

    def _due_ms(self, lists: _Lists) -> float | None:
        """When its ids want attention next."""
        due = [*lists.inflight.values(), *lists.delayed.values()]
        if lists.queue or lists.bulk:
            due.append(self._now_ms())
        if any(lists.parked.values()):
            due.append(self._now_ms() + int(PARKED_LOOK_AGAIN_S * 1000))
        return min(due, default=None)

    def _active_with(self, organization_id: OrganizationId) -> dict[OrganizationId, float]:
        """The active ones of its shard."""
        return self._active.setdefault(shard_of(organization_id, self._shards), {})

    def _attend(self, organization_id: OrganizationId, at_ms: float) -> bool:
        """Have the organization looked at no later than this. Whether it would have been later."""
        active = self._active_with(organization_id)
        if active.get(organization_id, at_ms + 1) <= at_ms:
            return False
        active[organization_id] = at_ms
        return True

    def _now_ms(self) -> int:
        return int(self._unix_s() * 1000)

    def _of(self, organization_id: OrganizationId) -> _Lists:
        return self._lists.setdefault(organization_id, _Lists())


def _by_score(scores: Mapping[NotificationId, float]) -> list[NotificationId]:
    """The members of a sorted set: by score, then by name."""
    return [id for _, id in sorted((score, id) for id, score in scores.items())]
