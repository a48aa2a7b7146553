"""The queue port on Redis: names, arguments and replies of the scripts, nothing else.

Only ids, counters and announcements (which carry ids and states) ever go in here: no recipient, no payload, no secret.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence

from actors.io.redis import Command, Encodable, Redis, Reply, Script, ScriptCall
from actors.limit_scripts import ASK_QUOTA, KEEP_CHANNEL, TAKE_CHANNEL
from actors.ports import KEPT_S, PARKED_LOOK_AGAIN_S, Arrival, Settlement
from actors.redis_scripts import CLAIM, ENQUEUE, RESTORE, RETIRE, SETTLE, UNPARK
from dispatcher.audience import LANES
from dispatcher.channel_memory import Kept
from dispatcher.errors import ArrivalsRefused, Overloaded, QueueRefused, QueueUnavailable
from dispatcher.keys import Keys, shard_of
from dispatcher.messages import Claimed, Unparked
from dispatcher.model import Lane, NotificationId, OrganizationId
from dispatcher.quota import QuotaAnswer, QuotaAsk

logger = logging.getLogger(__name__)

SENTINEL = "notifications:sentinel"
"""A key that is only ever missing after Redis lost its memory."""
ENQUEUE_IDS_MAX = 500
"""Ids added in one go: Redis does nothing else meanwhile, some 3 ms with their announcements."""


class RedisQueue:
    """The dispatch queues of all organizations, over one auto-pipelining connection.

    ``lease_s`` is how long a claimed id may stay unsettled before it is handed out again.
    """

    def __init__(self, redis: Redis, *, lease_s: float, shards: int) -> None:
        self._redis = redis
        self._lease_ms = int(lease_s * 1000)
        self._shards = shards
        self._keys = Keys()

    async def enqueue(self, arrivals: Sequence[Arrival]) -> None:
        """Add ids at the tail, mark the organizations active, wake their listeners, announce.

        Much is added in pieces, so that a batch of thousands stops neither the server nor this process for all others.
        """
        refused: dict[OrganizationId, str] = {}
        group: list[Arrival] = []
        rows = 0
        for piece in (piece for arrival in arrivals for piece in _pieces(arrival)):
            if group and rows + len(piece.ids) > ENQUEUE_IDS_MAX:
                refused.update(await self._enqueue(group))
                group, rows = [], 0
            group.append(piece)
            rows += len(piece.ids)
        refused.update(await self._enqueue(group))
        if refused:
            raise ArrivalsRefused(list(refused), next(iter(refused.values())))

    async def _enqueue(self, arrivals: Sequence[Arrival]) -> Mapping[OrganizationId, str]:
        """Add a few; returns whose arrivals were refused, and why. Raises QueueUnavailable."""
        calls: list[ScriptCall] = []
        for organization_id, ids, announcements, bulk in arrivals:
            shard = shard_of(organization_id, self._shards)
            queue = self._keys.queue_bulk(organization_id) if bulk else self._keys.queue(organization_id)
            calls.append(
                (
                    ENQUEUE,
                    (queue, self._keys.active(shard), self._keys.events(organization_id)),
                    (organization_id, self._keys.topic(organization_id), self._keys.wake(shard), len(ids), *ids, *announcements),
                )
            )
        replies = await self._call(calls)
        _raise_first([reply for reply in replies if isinstance(reply, QueueUnavailable)])
        return {
            arrival.organization_id: type(reply).__name__
            for arrival, reply in zip(arrivals, replies, strict=True)
            if isinstance(reply, Exception)
        }

    async def claim(self, organization_id: OrganizationId, n: int, look: Sequence[Lane] = ()) -> Claimed:
        """Move up to ``n`` ids to in-flight under a lease, after putting back those whose lease or delay ran out."""
        names = self._keys
        keys = [names.queue(organization_id), names.queue_bulk(organization_id), names.inflight(organization_id)]
        keys.extend((names.delayed(organization_id), names.turns(organization_id)))
        keys.extend(self._keys.parked(organization_id, lane) for lane in look)
        ids, backlog, due_ms, parked = await self._run(CLAIM, keys, (n, self._lease_ms))
        return Claimed(
            [NotificationId(id.decode()) for id in ids],
            int(backlog),
            None if due_ms < 0 else float(due_ms) / 1000.0,
            tuple(lane for lane, exists in zip(look, parked, strict=True) if exists),
        )

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Take ids out of in-flight. Repeating a settlement does no harm."""
        replies = await self._call([self._settle_call(settlement) for settlement in settlements])
        _raise_first([reply for reply in replies if isinstance(reply, QueueUnavailable)])
        for settlement, reply in zip(settlements, replies, strict=True):
            if isinstance(reply, Exception):
                logger.error("organization %s: Redis refused a settlement: %s", settlement.organization_id, type(reply).__name__)

    def _settle_call(self, s: Settlement) -> ScriptCall:
        org = s.organization_id
        keys = self._keys
        names = [
            keys.queue(org),
            keys.inflight(org),
            keys.delayed(org),
            keys.events(org),
            self._active(org),
            keys.queue_bulk(org),
        ]
        names.extend(keys.parked(org, lane) for lane, _ in s.parked)
        args: list[Encodable] = [org, self._keys.topic(org), self._keys.wake(shard_of(org, self._shards))]
        args.extend((len(s.done), len(s.delayed), len(s.requeued), len(s.parked), "0.5" if s.bulk else 0))
        args.extend(s.done)
        for id, delay_s in s.delayed:
            args.append(int(delay_s * 1000))
            args.append(id)
        args.extend(s.requeued)
        args.extend(id for _, id in s.parked)
        args.extend(s.announcements)
        return SETTLE, names, args

    async def unpark(self, organization_id: OrganizationId, lane: Lane, n: int) -> Unparked:
        """Move up to ``n`` parked ids, oldest first, to the head of the queue."""
        keys = self._keys
        names = (keys.queue(organization_id), keys.parked(organization_id, lane), keys.queue_bulk(organization_id))
        moved, left = await self._run(UNPARK, (*names, keys.turns(organization_id)), (n, lane))
        return Unparked(lane, int(moved), int(left))

    async def active(self, limit: int, shards: Collection[int] | None = None) -> list[OrganizationId]:
        """Organizations that need attention by now, longest overdue first; only those of these shards, unless it is None."""
        if shards is not None and not shards:
            return []
        ((seconds, micros),) = await self._ask(("TIME",))
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        asked = list(range(self._shards) if shards is None else shards)
        replies = await self._ask(
            *(("ZRANGE", self._keys.active(shard), "-inf", now_ms, "BYSCORE", "LIMIT", 0, limit, "WITHSCORES") for shard in asked)
        )
        scored = []
        strangers: list[Command] = []
        for shard, reply in zip(asked, replies, strict=True):
            for name, score in zip(reply[::2], reply[1::2], strict=True):
                organization_id = OrganizationId(name.decode())
                if (its := shard_of(organization_id, self._shards)) == shard:
                    scored.append((float(score), organization_id))
                else:  # left from another number of shards: whoever owns its own one is to find it there
                    strangers.append(("ZADD", self._keys.active(its), "LT", score, name))
                    strangers.append(("ZREM", self._keys.active(shard), name))
        if strangers:
            await self._ask(*strangers)
        return [organization_id for _, organization_id in sorted(scored)[:limit]]

    async def retire(self, organization_id: OrganizationId) -> bool:
        """Drop the organization from the active ones, or schedule it for its next due id. False when its queue is not empty."""
        look_again_ms = int(PARKED_LOOK_AGAIN_S * 1000)
        return bool(await self._run(RETIRE, self._reconciled(organization_id), (organization_id, look_again_ms)))

    async def restore(
        self, organization_id: OrganizationId, ids: Sequence[NotificationId], bulk: Sequence[NotificationId] = ()
    ) -> int:
        """Put back ids that the store says are queued and the queue may have lost. Returns how many were missing."""
        wake = self._keys.wake(shard_of(organization_id, self._shards))
        args: list[Encodable] = [organization_id, wake, int(PARKED_LOOK_AGAIN_S * 1000), len(ids), *sorted(ids), *sorted(bulk)]
        return int(await self._run(RESTORE, self._reconciled(organization_id), args))

    async def take_channels(self, organization_id: OrganizationId, names: Collection[str]) -> Mapping[str, Kept]:
        """What is kept of limits under these names; all in one batch."""
        replies = await self._call([(TAKE_CHANNEL, (self._keys.provider(organization_id, n),), (KEPT_S,)) for n in names])
        _raise_first(replies)
        kept = {}
        for name, (life, age_ms, flat) in zip(names, replies, strict=True):
            texts = [text.decode("utf-8", "replace") for text in flat]
            kept[name] = Kept(int(life), float(age_ms) / 1000.0, dict(zip(texts[::2], texts[1::2], strict=True)))
        return kept

    async def keep_channels(self, organization_id: OrganizationId, records: Mapping[str, tuple[int, Mapping[str, str]]]) -> None:
        """Keep limits under these names; all in one batch."""
        calls: list[ScriptCall] = []
        for name, (life, fields) in records.items():
            flat = [text for pair in fields.items() for text in pair]
            calls.append((KEEP_CHANNEL, (self._keys.provider(organization_id, name),), (KEPT_S, life, *flat)))
        _raise_first(await self._call(calls))

    async def ask_quota(self, organization_id: OrganizationId, name: str, ask: QuotaAsk) -> QuotaAnswer:
        """Lease units of the quota under this name, or give some back."""
        policy = ask.policy
        granted, used, window, ends_in_ms = await self._run(
            ASK_QUOTA,
            (self._keys.rate(organization_id, name),),
            (policy.account, ask.n, policy.quota, int(policy.window_s * 1000), ask.window, ask.used),
        )
        return QuotaAnswer(int(granted), int(used), int(window), float(ends_in_ms) / 1000.0)

    async def survived(self) -> bool:
        """Whether the queue still is the one it was at the last call; False once after it lost its memory."""
        (known,) = await self._ask(("EXISTS", SENTINEL))
        if known:  # as a rule; and a server whose memory is full would refuse to write even nothing
            return True
        (reply,) = await self._ask(("SET", SENTINEL, "1", "NX"))
        return reply is None

    def _active(self, organization_id: OrganizationId) -> str:
        return self._keys.active(shard_of(organization_id, self._shards))

    def _reconciled(self, organization_id: OrganizationId) -> list[str]:
        return [
            self._keys.queue(organization_id),
            self._keys.inflight(organization_id),
            self._keys.delayed(organization_id),
            self._active(organization_id),
            self._keys.queue_bulk(organization_id),
            *(self._keys.parked(organization_id, lane) for lane in LANES),
        ]

    async def _ask(self, *commands: Command) -> list[Reply]:
        try:
            replies = await self._redis.execute_many(commands)
        except Overloaded as error:
            raise QueueUnavailable(f"Redis does not keep up: {error}") from error
        _raise_first(replies)
        return replies

    async def _run(self, script: Script, keys: Sequence[str], args: Sequence[Encodable]) -> Reply:
        replies = await self._call([(script, keys, args)])
        _raise_first(replies)
        return replies[0]

    async def _call(self, calls: Sequence[ScriptCall]) -> list[Reply]:
        try:
            return await self._redis.run_many(calls)
        except Overloaded as error:
            raise QueueUnavailable(f"Redis does not keep up: {error}") from error


def _pieces(arrival: Arrival) -> Iterator[Arrival]:
    """The arrival in parts of at most ENQUEUE_IDS_MAX ids and announcements each."""
    for at in range(0, max(len(arrival.ids), len(arrival.announcements), 1), ENQUEUE_IDS_MAX):
        part = slice(at, at + ENQUEUE_IDS_MAX)
        yield Arrival(arrival.organization_id, arrival.ids[part], arrival.announcements[part], arrival.bulk)


def _raise_first(replies: Sequence[Reply]) -> None:
    """An error reply means that the queue can not be used now, whatever it is: a driver's error is nobody else's business."""
    for reply in replies:
        if isinstance(reply, Exception):
            if isinstance(reply, QueueUnavailable):
                raise reply
            raise QueueRefused(f"Redis refused a queue command: {type(reply).__name__}") from reply
