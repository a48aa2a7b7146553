"""Topics of Redis (pub/sub) over a connection of their own that mends itself.

Pub/sub forgets whoever is not there: what is published while the connection is away is lost. So after every reconnect all topics
are subscribed again and, once the server has confirmed them, ``receive`` yields :class:`Reconnected`: whoever keeps a view up to
date by messages reads the truth again then. A PING at every half deadline notices a half-open connection while no message comes.

Overflow: messages wait in a buffer of ``buffer_max``. When it is full, newer ones are dropped and counted, and one Reconnected is
put behind the buffered ones: to the reader a gap is a gap, whatever made it. The socket is always read on, because a server
disconnects subscribers that do not keep up.
"""

from __future__ import annotations

import random as _random
import ssl
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Literal

import trio
from attrs import frozen
from redis import exceptions

from actors.io.redis_link import Link, LinkStatistics
from actors.io.redis_pipeline import RETRY_AFTER_S, Pipeline, Traffic
from actors.io.redis_protocol import NOTHING, pack
from actors.io.redis_url import Endpoint, parse_endpoint
from actors.io.redis_wire import Wire
from dispatcher.errors import Overloaded

_PING = pack(("PING",))


@frozen
class Message:
    """What somebody published."""

    topic: str
    payload: bytes


@frozen
class Reconnected:
    """Messages may have been missed before this point."""

    reason: Literal["connection", "overflow"]


@frozen
class SubscriberStatistics:
    """``buffered`` messages wait for ``receive``; ``dropped_total`` did not fit."""

    link: LinkStatistics
    topics: int
    buffered: int
    buffer_max: int
    dropped_total: int


class _Subscription(Pipeline):
    """A connection whose server also speaks unasked: messages go to the subscriber, everything else answers a call."""

    def __init__(
        self,
        wire: Wire,
        address: str,
        *,
        deadline_s: float,
        pending_max: int,
        traffic: Traffic,
        topics: Sequence[str],
        on_message: Callable[[bytes, bytes], None],
        on_restored: Callable[[], None],
    ) -> None:
        super().__init__(wire, address, deadline_s=deadline_s, pending_max=pending_max, traffic=traffic)
        self._on_message = on_message
        self._on_restored = on_restored
        self._ping_every_s = deadline_s / 2
        # First in line, before anybody can unsubscribe from one of them.
        self._restoring = self.submit(pack(("SUBSCRIBE", *topics)), len(topics), None) if topics else None

    def deliver(self) -> None:
        """Hand out messages, and confirmations to the calls they belong to."""
        calls = self._calls
        next_reply = self._wire.next_reply
        while (reply := next_reply()) is not NOTHING:
            if isinstance(reply, list) and reply[0] == b"message":
                self._on_message(reply[1], reply[2])
                continue
            if not calls:
                raise exceptions.InvalidResponse("a reply that nobody asked for")
            call = calls[0]
            call.replies.append(reply)
            # One error answers a command for several topics; otherwise each topic is confirmed on its own.
            if len(call.replies) < call.count and not isinstance(reply, Exception):
                continue
            calls.popleft()
            self.pending -= call.count
            call.finish(call.replies)
            if call is self._restoring:
                if isinstance(reply, Exception):
                    raise reply.__cause__ or reply
                self._on_restored()

    def _duties(self) -> Sequence[Callable[[], Awaitable[None]]]:
        return (*super()._duties(), self._ping)

    async def _ping(self) -> None:
        while True:
            await trio.sleep(self._ping_every_s)
            self.submit(_PING, 1, None)


class Subscriber:
    """Made by :func:`open_subscriber`."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        connect_deadline_s: float,
        command_deadline_s: float,
        random: _random.Random,
        buffer_max: int,
        topics_max: int,
    ) -> None:
        self._address = endpoint.address
        self._deadline_s = command_deadline_s
        self._link = Link(
            endpoint,
            self._make_subscription,
            connect_deadline_s=connect_deadline_s,
            command_deadline_s=command_deadline_s,
            waiting_max=topics_max,
            random=random,
        )
        self._buffer_max = buffer_max
        self._topics_max = topics_max
        self._holders: Counter[str] = Counter()
        """How many have subscribed to each topic. Written by ``_hold`` and ``_release`` only."""
        self._confirmed: set[str] = set()
        """Topics to which somebody's subscription is complete: those to restore, and in which a gap matters."""
        self._names: dict[bytes, str] = {}
        """The same topics as the server spells them."""
        self._buffer: deque[Message | Reconnected] = deque()
        self._readers = trio.lowlevel.ParkingLot()
        self._dropped = 0

    async def subscribe(self, *topics: str) -> None:
        """Subscribe, and wait until the server has confirmed it: what is published from then on arrives.

        Subscriptions are counted: each is undone by one ``unsubscribe``. A call that raises (QueueUnavailable, Overloaded,
        Cancelled, the error reply of the server) leaves none behind.
        """
        if not topics:
            await trio.lowlevel.checkpoint()
            return
        distinct = list(dict.fromkeys(topics))
        if len(self._holders.keys() | topics) > self._topics_max:
            raise Overloaded("the set of Redis topics", RETRY_AFTER_S)
        self._hold(distinct)
        try:
            pipeline = self._link.pipeline
            if pipeline is None or pipeline.lost is not None:
                pipeline = await self._link.connected()
            replies = await pipeline.call(pack(("SUBSCRIBE", *distinct)), len(distinct))
            if isinstance(replies[-1], Exception):
                raise replies[-1]
            self._confirmed.update(distinct)
        except BaseException:
            self._release(distinct)
            raise

    async def unsubscribe(self, *topics: str) -> None:
        """Undo one ``subscribe`` of each topic. Takes effect at once, even if the caller is cancelled; never fails.

        Messages that are in the buffer already may still be received.
        """
        self._release(topics)
        await trio.lowlevel.checkpoint()

    async def receive(self) -> Message | Reconnected:
        """The next message or gap. Waits through outages.

        While the buffer holds something this does not yield to other tasks; the buffer's bound bounds that.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._buffer:
            await self._readers.park()
        return self._buffer.popleft()

    def statistics(self) -> SubscriberStatistics:
        """The state of the connection, the topics and the buffer."""
        return SubscriberStatistics(
            link=self._link.statistics(),
            topics=len(self._holders),
            buffered=len(self._buffer),
            buffer_max=self._buffer_max,
            dropped_total=self._dropped,
        )

    def kept(self) -> AbstractAsyncContextManager[None]:
        """Keep the connection while the body runs."""
        return self._link.kept()

    def _make_subscription(self, wire: Wire, traffic: Traffic) -> _Subscription:
        return _Subscription(
            wire,
            self._address,
            deadline_s=self._deadline_s,
            # Room to subscribe to everything again and, behind it, to everything once more.
            pending_max=2 * self._topics_max,
            traffic=traffic,
            topics=list(self._confirmed),
            on_message=self._on_message,
            on_restored=partial(self._put_gap, "connection"),
        )

    def _hold(self, topics: Iterable[str]) -> None:
        self._holders.update(topics)
        self._names.update((topic.encode(), topic) for topic in topics)

    def _release(self, topics: Iterable[str]) -> None:
        gone = []
        for topic in dict.fromkeys(topics):
            if self._holders[topic] > 1:
                self._holders[topic] -= 1
            elif self._holders.pop(topic, None) is not None:
                self._confirmed.discard(topic)
                del self._names[topic.encode()]
                gone.append(topic)
        if gone and self._link.pipeline is not None:
            self._link.pipeline.submit(pack(("UNSUBSCRIBE", *gone)), len(gone), None)

    def _on_message(self, topic: bytes, payload: bytes) -> None:
        name = self._names.get(topic)
        if name is None:  # unsubscribed while it was under way
            return
        if len(self._buffer) < self._buffer_max:
            self._put(Message(name, payload))
        else:
            self._dropped += 1
            self._put_gap("overflow")

    def _put_gap(self, reason: Literal["connection", "overflow"]) -> None:
        # Two gaps in a row are one. So the buffer holds at most one entry more than buffer_max.
        if not self._buffer or not isinstance(self._buffer[-1], Reconnected):
            self._put(Reconnected(reason))

    def _put(self, entry: Message | Reconnected) -> None:
        self._buffer.append(entry)
        self._readers.unpark()


@asynccontextmanager
async def open_subscriber(
    url: str,
    *,
    connect_deadline_s: float,
    command_deadline_s: float,
    random: _random.Random,
    buffer_max: int = 10_000,
    topics_max: int = 100_000,
    tls_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Subscriber]:
    """A subscriber whose connection is kept in the background. Returns at once, also when the server is away.

    Raises ConfigError for a URL that cannot be used.
    """
    subscriber = Subscriber(
        parse_endpoint(url, tls_context),
        connect_deadline_s=connect_deadline_s,
        command_deadline_s=command_deadline_s,
        random=random,
        buffer_max=buffer_max,
        topics_max=topics_max,
    )
    async with subscriber.kept():
        yield subscriber
