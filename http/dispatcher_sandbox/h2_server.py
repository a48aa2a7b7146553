"""A server of HTTP/2 over TLS around a handler: sockets and tasks, no decisions but the connection's manners.

One task a connection reads; what can be answered at once is answered with what came in one receive, what is to be late waits in a
task of its own. Nothing may be longer than the limits say, and a connection on which nothing moves for ``IDLE_S`` is closed.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import trio
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from dispatcher_sandbox.exchange import Reply
from dispatcher_sandbox.messages import Answer, Request
from dispatcher_sandbox.server import ACCEPT_BURST, SILENCE_S, accept
from dispatcher_sandbox.wire import TlsWire

BODY_BYTES_MAX = 64 * 1024
"""Of one request; a larger one has its stream reset."""
CONNECTIONS_MAX = 1024
IDLE_S = 600.0
_NO_LIMIT = 1 << 31


class Manners(NamedTuple):
    """How a connection behaves: how many streams it allows, before the first accepted request, after a refused one; after how
    many requests it goes away. ``closes`` makes it close instead of leaving a request unanswered.
    """

    streams_max: int
    streams_until_accepted: int | None
    streams_after_refusal: int | None
    goaway_after: int | None
    closes: bool


class H2Server:
    """Serves one listening socket."""

    def __init__(
        self,
        handler: Callable[[Request, float], Reply],
        manners: Callable[[], Manners],
        tls: ssl.SSLContext,
        clock: Callable[[], float],
    ) -> None:
        self.handler = handler
        self.manners = manners
        self.clock = clock
        self._tls = tls

    async def serve(self, listener: socket.socket) -> None:
        """Accept and answer until cancelled. The listener stays the caller's to close."""
        room = trio.Semaphore(CONNECTIONS_MAX)
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(listener)
                for _ in range(ACCEPT_BURST):
                    await room.acquire()
                    connected = await accept(listener)
                    if connected is None:
                        room.release()
                        break
                    nursery.start_soon(self._attend, connected, room)

    async def _attend(self, connected: socket.socket, room: trio.Semaphore) -> None:
        try:
            async with trio.open_nursery() as nursery:
                await _Connection(self, TlsWire(connected, self._tls), nursery).converse()
                nursery.cancel_scope.cancel()
        except* (OSError, ssl.SSLError, ProtocolError, trio.TooSlowError):
            pass  # the client is gone, silent, or does not speak HTTP/2
        finally:
            connected.close()
            room.release()


class _Connection:
    """One client."""

    def __init__(self, server: H2Server, wire: TlsWire, nursery: trio.Nursery) -> None:
        self._server = server
        self._wire = wire
        self._nursery = nursery
        self._sending = trio.Lock()
        self._h2 = H2Connection(H2Configuration(client_side=False, validate_outbound_headers=False))
        self._requests: dict[int, tuple[Request, list[bytes]]] = {}
        self._blocked: dict[int, bytes] = {}
        """Bodies of answers that wait for the client's windows."""
        self._served = 0
        self._last: int | None = None
        """After GOAWAY: the last stream that is still answered."""
        self._open = 0
        manners = server.manners()
        self._allowed = manners.streams_max if manners.streams_until_accepted is None else manners.streams_until_accepted

    async def converse(self) -> None:
        """Serve until either side closes."""
        h2 = self._h2
        # Enforced where a stream begins, because the client may not have heard of a change yet.
        h2.local_settings = Settings(client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: self._allowed})
        h2.local_settings.acknowledge()
        h2.initiate_connection()
        h2.increment_flow_control_window(1 << 24)
        data = await self._wire.receive()
        while data:
            if not self._take_in(data):
                return
            await self._flush()
            if self._last is not None and not self._open:
                return
            with trio.fail_after(IDLE_S):
                data = await self._wire.receive()

    def _take_in(self, data: bytes) -> bool:
        """Understand what came. False when the connection is to be closed without a word."""
        h2, requests = self._h2, self._requests
        for event in h2.receive_data(data):
            if isinstance(event, RequestReceived):
                self._begin(event.stream_id, event.headers)
            elif isinstance(event, DataReceived):
                h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if event.stream_id in requests:
                    parts = requests[event.stream_id][1]
                    parts.append(event.data)
                    if sum(map(len, parts)) > BODY_BYTES_MAX:
                        self._reset(event.stream_id, ErrorCodes.ENHANCE_YOUR_CALM)
            elif isinstance(event, StreamEnded) and event.stream_id in requests:
                if not self._whole(event.stream_id):
                    return False
            elif isinstance(event, StreamReset) and event.stream_id in requests:
                self._end(event.stream_id)
            elif isinstance(event, WindowUpdated):
                self._pump()
            elif isinstance(event, ConnectionTerminated):
                return False
        return True

    def _begin(self, number: int, headers: list[tuple[bytes, bytes]]) -> None:
        if self._last is not None:
            return  # beyond what GOAWAY has named: never looked at
        fields = {bytes(name): bytes(value) for name, value in headers}
        if self._open >= self._allowed:
            self._h2.reset_stream(number, ErrorCodes.REFUSED_STREAM)
            return
        self._open += 1
        self._requests[number] = (Request(fields.pop(b":method"), fields.pop(b":path"), fields, b""), [])
        self._served += 1
        after = self._server.manners().goaway_after
        if after is not None and self._served >= after:
            self._last = number
            self._h2.close_connection(last_stream_id=number)
            self._h2.state_machine.state = ConnectionState.SERVER_OPEN  # the library would answer nothing more

    def _whole(self, number: int) -> bool:
        request, parts = self._requests[number]
        request.body = b"".join(parts)
        answer, delay_s, silent = self._server.handler(request, self._server.clock())
        manners = self._server.manners()
        if answer is None and not silent and manners.closes:
            return False
        if silent:
            delay_s = SILENCE_S
        if delay_s:
            self._nursery.start_soon(self._answer_late, number, answer, delay_s)
        else:
            self._answer(number, answer)
        return True

    async def _answer_late(self, number: int, answer: Answer | None, delay_s: float) -> None:
        await trio.sleep(delay_s)
        if number in self._requests:
            self._answer(number, answer)
            await self._flush()

    def _answer(self, number: int, answer: Answer | None) -> None:
        if answer is None:
            self._reset(number, ErrorCodes.INTERNAL_ERROR)
            return
        status, lines, body = answer
        headers = [(b":status", b"%d" % status)]
        for line in lines.splitlines():
            name, _, value = line.partition(b": ")
            headers.append((name.lower(), value))
        self._h2.send_headers(number, headers, end_stream=not body)
        if body:
            self._blocked[number] = body
            self._pump()
        else:
            self._end(number)
        self._adapt(accepted=status < 300)

    def _pump(self) -> None:
        for number, body in list(self._blocked.items()):
            room = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
            if room > 0:
                self._h2.send_data(number, body[:room], end_stream=len(body) <= room)
                self._blocked[number] = body[room:]
            if not self._blocked[number]:
                self._end(number)

    def _reset(self, number: int, code: ErrorCodes) -> None:
        with suppress(ProtocolError):  # the client has ended it meanwhile
            self._h2.reset_stream(number, code)
        self._end(number)

    def _end(self, number: int) -> None:
        if self._requests.pop(number, None) is not None:
            self._open -= 1
        self._blocked.pop(number, None)

    def _adapt(self, *, accepted: bool) -> None:
        """Allow more or fewer streams after an answer."""
        manners = self._server.manners()
        allowed = self._allowed
        if accepted:
            allowed = manners.streams_max
        elif manners.streams_after_refusal is not None:
            allowed = manners.streams_after_refusal
        if allowed != self._allowed and self._last is None:
            self._allowed = allowed
            self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: allowed})

    async def _flush(self) -> None:
        async with self._sending:
            data = self._h2.data_to_send()
            if data:
                with trio.fail_after(IDLE_S):
                    await self._wire.send(data)
