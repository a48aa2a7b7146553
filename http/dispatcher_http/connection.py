"""One connection of Hypercorn's, with the three promises and the two economies that its own makes on Trio does not.

Promises: every write has a deadline, so that a websocket that stops reading cannot hold its task, or the shutdown, for
ever; every ping has one too, so that a websocket whose peer vanished behind a proxy, which goes on taking bytes for it, is
noticed; and what breaks in one connection breaks that connection only, where Hypercorn's ends the server.
Economies: the head of an answer leaves together with its body, in one write; and the wait for the next request is one
task with a movable deadline, not a new task per request. ``bench/accept_route.py`` shows what they save.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, TaskGroup

from dispatcher_http.logs import failed

WRITE_DEADLINE_S = 10.0
"""How long a peer may take no bytes before its connection is dropped."""

PONG_DEADLINE_S = 30.0
"""How long after a ping is due a websocket's peer may go without a sign of life; as long as the kernel is given."""

_HEAD = b"HTTP/1.1 "
_UPGRADED = b"HTTP/1.1 101 "
_INFORMATIONAL = b"1"[0]


class IdleClock:
    """Closes a connection nobody has used for a while. Stands in for Hypercorn's single task: ``restart`` and ``stop``."""

    def __init__(self, keep_alive_s: float, stopping: Callable[[], Awaitable[None]]) -> None:
        self._keep_alive_s = keep_alive_s
        self._stopping = stopping
        self._scope: trio.CancelScope | None = None
        self._is_over = False

    async def restart(self, task_group: TaskGroup, action: Callable[[], Awaitable[None]]) -> None:
        """The connection is idle from now on; ``action`` closes it."""
        if self._scope is None:
            self._scope = trio.CancelScope()
            task_group.spawn(self._watch, self._scope, action)
        self._scope.deadline = trio.current_time() + self._keep_alive_s

    async def stop(self) -> None:
        """The connection is in use."""
        if self._scope is not None:
            self._scope.deadline = inf

    def end(self) -> None:
        """The connection is over: there will be nothing to close."""
        self._is_over = True
        if self._scope is not None:
            self._scope.cancel()

    async def _watch(self, scope: trio.CancelScope, action: Callable[[], Awaitable[None]]) -> None:
        with scope:
            await self._stopping()
        # A request may have come in at the very last moment, or be under way while the server stops; Hypercorn closes the
        # connection after its answer in the second case, and in the first one the next restart watches anew.
        self._scope = None
        is_in_use = scope.deadline == inf
        if not (self._is_over or is_in_use):
            await action()


class Connection(TCPServer):
    """One connection. ``live`` holds all there are."""

    def __init__(
        self, live: set[Connection], app: ASGIWrapper, config: Config, context: WorkerContext, state: ConnectionState, stream: Any
    ) -> None:
        super().__init__(app, config, context, state, stream)
        self._idle_clock = IdleClock(config.keep_alive_timeout, context.terminated.wait)
        self.idle_task = self._idle_clock  # type: ignore[assignment]
        self._live = live
        self._head = b""
        self._reading = trio.CancelScope()  # its deadline is the ping's
        self._is_pinged = False

    async def run(self) -> None:
        """Serve until either side closes. Raises nothing but Cancelled."""
        self._live.add(self)
        try:
            await super().run()
        except* Exception as errors:
            failed("a connection", errors)
        finally:
            self._live.discard(self)

    async def protocol_send(self, event: Event) -> None:
        """Carry out what the protocol engine wants done to the socket."""
        if isinstance(event, RawData):
            # The end of an answer comes as empty data: whatever was held back leaves with it at the latest.
            data = event.data
            if data.startswith(_UPGRADED):
                self._is_pinged = True
                self._heard()
            if self._head:
                data = self._head + data
                self._head = b""
            elif data.startswith(_HEAD) and data[len(_HEAD)] != _INFORMATIONAL:
                self._head = data
                return
            if data and not await self._write(data):
                await trio.aclose_forcefully(self.stream)
                await self.protocol.handle(Closed())
        else:
            # The task that asks for this may be cancelled by what it has just sent: Quart ends a request's tasks with it.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + WRITE_DEADLINE_S):
                await super().protocol_send(event)

    async def _read_data(self) -> None:
        with self._reading:
            while True:
                try:
                    data = await self.stream.receive_some(MAX_RECV)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    break
                self._heard()
                await self.protocol.handle(RawData(bytes(data)))
                if not data:
                    break
        await self.protocol.handle(Closed())
        # The peer has left or cannot be understood. Hypercorn would keep the socket until the last timer of this connection
        # ran out; nobody can be answered on it any more.
        self._idle_clock.end()
        await self._close()

    def _heard(self) -> None:
        """The peer gave a sign of life: a websocket's has until the pong after the next ping for another one."""
        if self._is_pinged:
            interval_s = self.config.websocket_ping_interval or inf
            self._reading.deadline = trio.current_time() + interval_s + PONG_DEADLINE_S

    async def _write(self, data: bytes) -> bool:
        """Write all of it, or say that this connection is done for. A cancelled task does not tear a message."""
        async with self.send_lock:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + WRITE_DEADLINE_S):
                try:
                    await self.stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return False
                return True
        return False

    async def _idle_timeout(self) -> None:
        with trio.CancelScope(shield=True):
            await self._initiate_server_close()
