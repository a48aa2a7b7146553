"""The shell around an exchange: sockets and tasks, no decisions.

One task accepts, one task per connection reads and answers in order, one task looks once a second for connections on which
nothing has moved for ``idle_s`` and cancels them. That sweep is the deadline of every wait on a peer; a delay we chose ourselves
does not count. Cancelling ``serve`` closes every socket.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable

import trio
from attrs import frozen

from dispatcher_sandbox.exchange import Reply
from dispatcher_sandbox.messages import DateLine, Request, encode
from dispatcher_sandbox.reader import Limits, RequestReader
from dispatcher_sandbox.wire import PlainWire, TlsWire, Wire

BACKLOG = 1024
ACCEPT_BURST = 64
"""Connections accepted before the others get a turn."""
LINGER_S = 2.0
"""How long a refused client may go on sending before it is cut off, so that it gets to read the refusal."""
SILENCE_S = 600.0
"""How long an unanswered request may keep its connection."""
_SWEEP_S = 1.0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Handler = Callable[[Request, float], Reply]
"""Decides about a request at a Unix time."""


@frozen
class ServerStatistics:
    """A server in numbers."""

    connections: int
    """Open now."""
    connections_total: int
    """Accepted ever."""
    under_way: int
    """Requests that were read and whose answers are held back at this moment."""


class _Connection:
    """One accepted connection. ``moved`` is the sweep's count at the last sign of life; its own task writes it."""

    __slots__ = ("awaits_peer", "moved", "scope")

    def __init__(self, moved: int) -> None:
        self.scope = trio.CancelScope()
        self.moved = moved
        self.awaits_peer = True


class Server:
    """Serves one listening socket."""

    def __init__(self, handler: Handler, limits: Limits, tls: ssl.SSLContext | None, clock: Callable[[], float]) -> None:
        self._handler = handler
        self._limits = limits
        self._tls = tls
        self._clock = clock
        self._connections: set[_Connection] = set()
        self._connections_total = 0
        self._under_way = 0
        self._sweeps = 0
        self._date = DateLine()

    def statistics(self) -> ServerStatistics:
        """A snapshot of the numbers."""
        return ServerStatistics(len(self._connections), self._connections_total, self._under_way)

    async def serve(self, listener: socket.socket) -> None:
        """Accept and answer until cancelled. The listener stays the caller's to close."""
        room = trio.Semaphore(self._limits.connections_max)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sweep)
            while True:
                await trio.lowlevel.wait_readable(listener)
                for _ in range(ACCEPT_BURST):
                    await room.acquire()
                    connected = await accept(listener)
                    if connected is None:
                        room.release()
                        break
                    nursery.start_soon(self._attend, connected, room)

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(_SWEEP_S)
            self._sweeps += 1
            oldest = self._sweeps - self._limits.idle_s / _SWEEP_S
            for connection in self._connections:
                if connection.awaits_peer and connection.moved < oldest:
                    connection.scope.cancel()

    async def _attend(self, connected: socket.socket, room: trio.Semaphore) -> None:
        connection = _Connection(self._sweeps)
        self._connections.add(connection)
        self._connections_total += 1
        try:
            with connection.scope:
                wire = PlainWire(connected) if self._tls is None else TlsWire(connected, self._tls)
                await self._converse(connection, wire, connected)
        except (OSError, ssl.SSLError):
            pass  # the client is gone, or never spoke TLS: nothing to tell it
        finally:
            connected.close()
            self._connections.discard(connection)
            room.release()

    async def _converse(self, connection: _Connection, wire: Wire, connected: socket.socket) -> None:
        reader = RequestReader(self._limits)
        while True:
            data = await wire.receive()
            if not data:
                return
            connection.moved = self._sweeps
            requests = reader.feed(data)
            if requests and not await self._answer(requests, connection, wire):
                return
            if reader.refusal is not None:
                await wire.send(encode(reader.refusal, self._date.at(self._clock()), keep_alive=False))
                await _linger(wire, connected)
                return
            if reader.wants_continue:
                await wire.send(_CONTINUE)

    async def _answer(self, requests: list[Request], connection: _Connection, wire: Wire) -> bool:
        """Answer pipelined requests in order; False when the connection ends with them."""
        now_s = self._clock()
        begun: float | None = None
        out: list[bytes] = []
        for request in requests:
            answer, delay_s, silent = self._handler(request, now_s)
            if delay_s or answer is None:
                if out:
                    await wire.send(b"".join(out))
                    out = []
                connection.awaits_peer = False
                if begun is None:  # requests that came together wait together
                    begun = trio.current_time()
                self._under_way += 1
                try:
                    await trio.sleep_until(begun + delay_s)
                    if silent:
                        await _say_nothing(wire)
                finally:
                    self._under_way -= 1
                connection.awaits_peer = True
                connection.moved = self._sweeps
                if answer is None:
                    return False
            keep_alive = request.keep_alive
            out.append(encode(answer, self._date.at(now_s), keep_alive=keep_alive, head_only=request.method == b"HEAD"))
            if not keep_alive:
                await wire.send(b"".join(out))
                return False
        if out:
            await wire.send(out[0] if len(out) == 1 else b"".join(out))
            connection.moved = self._sweeps
        return True


async def accept(listener: socket.socket) -> socket.socket | None:
    """The next connection, if one is waiting. Short of file descriptors it takes a breath instead of spinning."""
    try:
        connected, _ = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return None
    except OSError as error:
        if error.errno not in _OUT_OF_FILES:
            raise
        await trio.sleep(0.1)
        return None
    connected.setblocking(False)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


async def _linger(wire: Wire, connected: socket.socket) -> None:
    """Take and discard what a refused client still sends: closing at once would reset the connection under our answer."""
    connected.shutdown(socket.SHUT_WR)
    with trio.move_on_after(LINGER_S):
        while await wire.receive():
            pass


async def _say_nothing(wire: Wire) -> None:
    """Keep the connection, unanswered, until the client gives up."""
    with trio.move_on_after(SILENCE_S):
        while await wire.receive():
            pass
