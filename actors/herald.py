"""The herald: brings announcements from Redis to the listeners of this process, and hands on wake-ups.

One subscriber connection serves everybody: it follows an organization's topic while somebody listens to it. Each listener has
a bounded buffer; who does not empty it is told so (:class:`~dispatcher.errors.Overloaded`) and loses nobody else's time. The
stream behind the topic lets a listener resume: every event carries its ``position``, and after a gap (a lost connection, a
full buffer on the way) what was missed is read from there; when even the stream no longer has it, a ``stream.gap`` event says
that something is missing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import trio
from attrs import define, field, frozen

from actors.io.redis import Message, Redis, Subscriber
from dispatcher.errors import Overloaded, QueueUnavailable
from dispatcher.keys import SHARDS_TOPIC, Keys
from dispatcher.model import OrganizationId
from dispatcher.problems import Problem, Refused

logger = logging.getLogger(__name__)

CHANGED_TOPIC = "notifications:changed"
"""Organizations whose templates or provider configurations changed: every process drops what it had cached of them."""
REPLAY_MAX = 2_000
"""Events read from the stream at most, for one listener or after one gap: more than the stream keeps."""
CATCH_UP_S = 30.0
"""How long listeners are kept waiting for Redis to be read after a gap."""
CATCH_UP_PAUSE_S = 0.1
_POSITION = re.compile(r"[0-9]{1,15}(-[0-9]{1,10})?", re.ASCII)
_GAP = b'{"type":"stream.gap","detail":"events before this point were lost; read the notifications to catch up"}'

Position = tuple[int, int]
_START: Position = (0, 0)


@define(eq=False)
class _Listener:
    """One open listener. ``seen`` is the position it has heard up to, ``behind`` is set when its buffer overflowed.

    While the stream is being read for it, live events are ``held``, so that none is missed and none comes twice. A gap in them
    makes the reading ``torn``: it has to be done once more.
    """

    send: trio.MemorySendChannel[bytes]
    held_max: int
    seen: Position
    behind: bool = False
    torn: bool = False
    held: list[tuple[Position, bytes]] | None = None

    def hear(self, position: Position, event: bytes) -> None:
        if self.behind:
            return
        if self.held is None:
            if position > self.seen:
                self.seen = position
                self.offer(_frame(position, event))
        elif len(self.held) < self.held_max:
            self.held.append((position, event))
        else:
            self.cut()

    def stop_holding(self) -> None:
        held, self.held = self.held or [], None
        for position, event in held:
            self.hear(position, event)

    def offer(self, frame: bytes) -> None:
        if self.behind:
            return
        try:
            self.send.send_nowait(frame)
        except (trio.WouldBlock, trio.BrokenResourceError):
            self.cut()

    def cut(self) -> None:
        """It hears what is in its buffer, and then that it must come back."""
        self.behind = True
        self.held = None
        self.send.close()


@define
class _Topic:
    listeners: set[_Listener] = field(factory=set)


@frozen
class HeraldStatistics:
    """``listeners`` follow ``topics`` organizations; ``buffered`` announcements wait to be handed on."""

    topics: int
    listeners: int
    buffered: int


class Herald:
    """Follows topics for listeners.

    ``on_wake`` and ``on_changed`` hear of organizations, ``on_missed`` that some may have been missed, ``on_shards`` that shards
    may be free.
    """

    def __init__(
        self,
        redis: Redis,
        subscriber: Subscriber,
        *,
        shards: int,
        listeners_max: int,
        buffer_max: int,
        on_wake: Callable[[OrganizationId], None],
        on_changed: Callable[[OrganizationId], None],
        on_missed: Callable[[], None],
        on_shards: Callable[[], None] = lambda: None,
    ) -> None:
        self._redis = redis
        self._subscriber = subscriber
        self._keys = Keys()
        self._wakes = {self._keys.wake(shard) for shard in range(shards)}
        self._listeners_max = listeners_max
        self._buffer_max = buffer_max
        self._on_wake = on_wake
        self._on_changed = on_changed
        self._on_missed = on_missed
        self._on_shards = on_shards
        self._topics: dict[str, _Topic] = {}
        self._listeners = 0

    async def run(self) -> None:
        """Receive until cancelled. Raises QueueUnavailable when the first subscription is not possible."""
        await self._subscriber.subscribe(CHANGED_TOPIC, SHARDS_TOPIC, *self._wakes)
        self._on_shards()  # what was said before we listened
        while True:
            message = await self._subscriber.receive()
            if isinstance(message, Message):
                self._heard(message)
            else:
                self._on_missed()
                self._on_shards()
                await self._catch_up()

    async def changed(self, organization_id: OrganizationId) -> None:
        """Tell every process, this one included, that the organization's caches are out of date."""
        self._on_changed(organization_id)
        try:
            await self._redis.execute("PUBLISH", CHANGED_TOPIC, organization_id)
        except QueueUnavailable as error:  # the others notice when their entries run out, 15 minutes later at most
            logger.warning("other processes could not be told of a change: %s", error)

    async def shards_moved(self) -> None:
        """Tell every process that shards may be free. A hint: who misses it asks a second later anyway."""
        with suppress(QueueUnavailable, Overloaded):
            await self._redis.execute("PUBLISH", SHARDS_TOPIC, "")

    @asynccontextmanager
    async def listen(self, organization_id: OrganizationId, since: str | None) -> AsyncIterator[AsyncIterator[bytes]]:
        """Listen to one organization: JSON texts, each with its ``position``; from after ``since``, or from now.

        Raises Refused for a position that is none, Overloaded when too many listen already or, from the iterator, when the reader
        fell behind; QueueUnavailable when Redis is away.
        """
        after = _parse(since)
        if self._listeners >= self._listeners_max:
            raise Overloaded("the set of listeners", retry_after_s=5.0)
        name = self._keys.topic(organization_id)
        send, receive = trio.open_memory_channel[bytes](self._buffer_max)
        self._listeners += 1
        try:
            await self._subscriber.subscribe(name)
            topic = self._topics.setdefault(name, _Topic())
            listener = _Listener(send, self._buffer_max, _START)
            topic.listeners.add(listener)
            try:
                replay = await self._missed(organization_id, after, listener)
                async with aclosing(self._frames(organization_id, replay, receive, listener)) as frames:
                    yield frames
            finally:
                topic.listeners.discard(listener)
                if not topic.listeners:
                    self._topics.pop(name, None)
                await self._subscriber.unsubscribe(name)
        finally:
            self._listeners -= 1

    def statistics(self) -> HeraldStatistics:
        """A snapshot."""
        return HeraldStatistics(len(self._topics), self._listeners, self._subscriber.statistics().buffered)

    async def _frames(
        self,
        organization_id: OrganizationId,
        replay: list[bytes],
        receive: trio.MemoryReceiveChannel[bytes],
        listener: _Listener,
    ) -> AsyncGenerator[bytes, None]:
        for frame in replay:
            yield frame
        while listener.torn and not listener.behind:
            listener.torn = False
            for frame in await self._missed(organization_id, listener.seen, listener):
                yield frame
        listener.stop_holding()
        async for frame in receive:
            yield frame
        raise Overloaded("the listener's buffer", retry_after_s=1.0)

    def _heard(self, message: Message) -> None:
        if message.topic in self._wakes:
            self._on_wake(OrganizationId(message.payload.decode()))
        elif message.topic == CHANGED_TOPIC:
            self._on_changed(OrganizationId(message.payload.decode()))
        elif message.topic == SHARDS_TOPIC:
            self._on_shards()
        elif (topic := self._topics.get(message.topic)) is not None:
            text, _, event = message.payload.partition(b" ")
            position = _position(text)
            for listener in list(topic.listeners):
                listener.hear(position, event)

    async def _catch_up(self) -> None:
        """After a gap: bring every listener what it missed. Who can not be helped in time must come back."""
        give_up_at_s = trio.current_time() + CATCH_UP_S
        for name, topic in list(self._topics.items()):
            organization_id = self._keys.topic_organization(name)
            for listener in list(topic.listeners):
                if listener.held is not None:
                    listener.torn = True
                    continue
                try:
                    for frame in await self._missed_at_last(organization_id, listener, give_up_at_s):
                        listener.offer(frame)
                    listener.stop_holding()
                except BaseException as error:
                    listener.cut()
                    if not isinstance(error, QueueUnavailable):
                        raise

    async def _missed_at_last(self, organization_id: OrganizationId, listener: _Listener, give_up_at_s: float) -> list[bytes]:
        """Commands have a connection of their own, which may come back later than the subscription did."""
        while True:
            try:
                return await self._missed(organization_id, listener.seen, listener)
            except QueueUnavailable:
                if trio.current_time() > give_up_at_s:
                    raise
            await trio.sleep(CATCH_UP_PAUSE_S)

    async def _missed(self, organization_id: OrganizationId, after: Position | None, listener: _Listener) -> list[bytes]:
        """What the stream has after a position, as frames, behind a gap notice if it no longer reaches back that far.

        With None it only finds out where the stream stands. Live events are held from here until the caller has passed the
        frames on.
        """
        stream = self._keys.events(organization_id)
        listener.held = []
        if after is None:
            newest = await self._ask(("XREVRANGE", stream, "+", "-", "COUNT", 1))
            listener.seen = _position(newest[0][0][0]) if newest[0] else _START
            return []
        first = b"%d-%d" % after
        known, entries = await self._ask(
            ("XRANGE", stream, first, first, "COUNT", 1), ("XRANGE", stream, b"(" + first, "+", "COUNT", REPLAY_MAX)
        )
        frames = [_GAP] if not known and after > _START else []
        listener.seen = after
        for text, fields in entries:
            listener.seen = _position(text)
            frames.append(_frame(listener.seen, fields[1]))
        return frames

    async def _ask(self, *commands: tuple[str | bytes | int, ...]) -> list[Any]:
        replies = await self._redis.execute_many(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise QueueUnavailable(f"Redis refused to read a stream: {type(reply).__name__}") from reply
        return replies


def _position(text: bytes) -> Position:
    milliseconds, _, number = text.partition(b"-")
    return int(milliseconds), int(number)


def _frame(position: Position, event: bytes) -> bytes:
    return b'{"position":"%d-%d",%b' % (*position, event[1:])


def _parse(since: str | None) -> Position | None:
    if since is None:
        return None
    if not _POSITION.fullmatch(since):
        raise Refused(
            Problem(
                400,
                "position_invalid",
                "Nothing to resume from",
                'since must be the "position" of an event you received, or 0 for everything that is still kept.',
            )
        )
    milliseconds, _, number = since.partition("-")
    return int(milliseconds), int(number or 0)
