"""Many callers on one wire: what is asked in one scheduler tick leaves in one send; replies are matched first in, first out.

::

    call() ──> unsent ──writer──> wire ──reader──> head of the queue of calls ──> its caller

Invariants: a call whose caller went away keeps its place in the queue until its replies have come, so that nobody ever gets
another's. The head is the oldest call and all share one deadline, so one watcher of the head keeps everybody's deadline: when it
passes with the reply outstanding, the connection is dropped, because a peer that is silent for so long is gone. Nothing is ever
sent a second time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import trio
from attrs import define, field
from outcome import Error, Value
from redis import exceptions

from actors.io.redis_protocol import NOTHING, Reply, unavailable
from actors.io.redis_wire import Wire
from dispatcher.errors import Overloaded

UNSENT_BYTES_MAX = 64 * 1024 * 1024
RETRY_AFTER_S = 1.0


@define(eq=False)
class Call:
    """``count`` commands of one caller that went out together."""

    count: int
    submitted_s: float
    task: trio.lowlevel.Task | None
    """Who waits. None once it went away; written by the caller's cancellation."""
    replies: list[Reply] = field(factory=list)
    """Of the commands answered so far, when there are several. Written by the reader."""

    def abandon(self, _: object) -> trio.lowlevel.Abort:
        """The caller is cancelled: what was asked stays asked, and its replies will be dropped."""
        self.task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def finish(self, reply: Reply) -> None:
        """Hand the reply to whoever waits."""
        if self.task is not None:
            trio.lowlevel.reschedule(self.task, Value(reply))


@define
class Traffic:
    """What went over all connections of one client so far."""

    commands: int = 0
    sends: int = 0


class Pipeline:
    """One connection in use. ``serve`` runs it; ``call`` may be called by any task meanwhile and after."""

    def __init__(self, wire: Wire, address: str, *, deadline_s: float, pending_max: int, traffic: Traffic) -> None:
        self.pending = 0
        """Commands without a reply yet. Grows in ``submit``, shrinks in the reader."""
        self.lost: Exception | None = None
        """Why the connection is of no use any more. Written by ``lose`` and at the end of ``serve``."""
        self._wire = wire
        self._address = address
        self._deadline_s = deadline_s
        self._pending_max = pending_max
        self._traffic = traffic
        self._calls: deque[Call] = deque()
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._idle_writer: trio.lowlevel.Task | None = None
        self._scope = trio.CancelScope()

    async def call(self, data: bytes, count: int) -> Reply:
        """Send ``count`` packed commands; the reply of a single one, or the list of their replies.

        Cancelled on entry it sends nothing; later, the commands may have been executed. Raises Overloaded when too much is
        pending, QueueUnavailable when the connection is lost or the deadline passes.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        # A call that finds nothing pending is taken whatever its size: its memory is its caller's already.
        if self.pending and (self.pending + count > self._pending_max or self._unsent_bytes > UNSENT_BYTES_MAX):
            await trio.lowlevel.checkpoint()  # so that a caller who tries again and again lets the others run
            raise Overloaded("the queue of Redis commands", RETRY_AFTER_S)
        if self.lost is not None:
            await trio.lowlevel.checkpoint()
            raise unavailable(self._address, self.lost)
        call = self.submit(data, count, trio.lowlevel.current_task())
        return await trio.lowlevel.wait_task_rescheduled(call.abandon)

    def submit(self, data: bytes, count: int, task: trio.lowlevel.Task | None) -> Call:
        """Put packed commands in line. ``task`` is woken with the reply; without one the reply is dropped."""
        call = Call(count, trio.current_time(), task)
        self._calls.append(call)
        self.pending += count
        self._traffic.commands += count
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        if self._idle_writer is not None:
            trio.lowlevel.reschedule(self._idle_writer)
            self._idle_writer = None
        return call

    async def serve(self) -> Exception:
        """Carry calls until the connection is lost; returns why. What is outstanding then fails, as it does on cancellation."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for duty in self._duties():
                        nursery.start_soon(self._until_lost, duty)
        finally:
            reason = self.lost or exceptions.ConnectionError("closed")
            self._fail_all(reason)
        return reason

    def lose(self, reason: Exception) -> None:
        """Give the connection up. The first reason counts."""
        if self.lost is None:
            self.lost = reason
        self._scope.cancel()

    def _duties(self) -> Sequence[Callable[[], Awaitable[None]]]:
        return (self._write, self._read, self._watch)

    async def _until_lost(self, duty: Callable[[], Awaitable[None]]) -> None:
        try:
            await duty()
        except exceptions.RedisError as error:
            self.lose(error)

    def _fail_all(self, reason: Exception) -> None:
        self.lost = reason
        self._wire.close()
        for call in self._calls:
            if call.task is not None:
                trio.lowlevel.reschedule(call.task, Error(unavailable(self._address, reason)))
        self._calls.clear()
        self._unsent.clear()
        self.pending = 0

    async def _write(self) -> None:
        writer = trio.lowlevel.current_task()
        unsent = self._unsent

        def abort(_: object) -> trio.lowlevel.Abort:
            self._idle_writer = None
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            if not unsent:
                self._idle_writer = writer
                await trio.lowlevel.wait_task_rescheduled(abort)
            data = unsent[0] if len(unsent) == 1 else b"".join(unsent)
            unsent.clear()
            self._unsent_bytes = 0
            self._traffic.sends += 1
            await self._wire.send(data)

    async def _read(self) -> None:
        wire = self._wire
        while True:
            await wire.receive()
            self.deliver()
            if wire.replies.unfit:
                raise wire.replies.unfit[0]

    def deliver(self) -> None:
        """Hand out the replies that have arrived."""
        calls = self._calls
        next_reply = self._wire.next_reply
        while (reply := next_reply()) is not NOTHING:
            if not calls:
                raise exceptions.InvalidResponse("a reply that nobody asked for")
            call = calls[0]
            if call.count > 1:
                replies = call.replies
                replies.append(reply)
                while len(replies) < call.count:
                    reply = next_reply()
                    if reply is NOTHING:
                        return
                    replies.append(reply)
                reply = replies
            calls.popleft()
            self.pending -= call.count
            call.finish(reply)

    async def _watch(self) -> None:
        while True:
            due_s = self._head_due_s()
            if trio.current_time() < due_s:
                await trio.sleep_until(due_s)
                continue
            # The reply may have come while this process did not run: what the reader is woken for counts first. Twice, because
            # a stopped process comes back from its wait with nothing: the first turn asks the socket, in the second it runs.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            if self._head_due_s() <= trio.current_time():
                raise exceptions.TimeoutError(f"no reply within {self._deadline_s:g} s")

    def _head_due_s(self) -> float:
        # Without calls this is when a call made now would be due: the watcher looks again before any later one is.
        return (self._calls[0].submitted_s if self._calls else trio.current_time()) + self._deadline_s
