"""Peers that speak HTTP/2 over TLS and follow a script: the far end of a connection of many streams.

    async with h2_peers(script, tls) as server:
        await pool.exchange(server.post(b"…"), …)

``script(peer)`` runs once per accepted connection; when it returns, the connection is closed. The protocol is the server side of
the ``h2`` library, so what our client believes of it is not what judges it.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RequestReceived, SettingsAcknowledged, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from dispatcher.http_message import HttpRequest, Origin
from house import Tls


def goaway(last: int) -> bytes:
    """The frame."""
    return b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + struct.pack(">II", last, 0)


class H2Received(NamedTuple):
    """A request as it arrived."""

    number: int
    headers: dict[bytes, bytes]
    body: bytes


class H2Peer:
    """The far end of one connection. ``count`` counts a server's connections from 1; ``events`` are all that came."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream], count: int, settings: dict[SettingCodes, int]) -> None:
        self.stream = stream
        self.count = count
        self.events: list[Event] = []
        self.received_sizes: list[int] = []
        self.h2 = H2Connection(H2Configuration(client_side=False))
        self.h2.local_settings = Settings(client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: 1000, **settings})
        self._heads: dict[int, dict[bytes, bytes]] = {}
        self._bodies: dict[int, bytearray] = {}
        self._ready: deque[H2Received] = deque()
        self.acknowledges = True
        """Whether it opens its windows again as data comes."""

    async def begin(self) -> None:
        self.h2.initiate_connection()
        await self.flush()

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    async def more(self) -> bool:
        """Take in what comes next. False when the client has closed."""
        try:
            data = await self.stream.receive_some(65_536)
        except trio.BrokenResourceError:
            return False
        if not data:
            return False
        self.received_sizes.append(len(data))
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, RequestReceived):
                self._heads[event.stream_id] = {bytes(name): bytes(value) for name, value in event.headers}
                self._bodies[event.stream_id] = bytearray()
            elif isinstance(event, DataReceived):
                self._bodies[event.stream_id] += event.data
                if self.acknowledges:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                number = event.stream_id
                self._ready.append(H2Received(number, self._heads.pop(number), bytes(self._bodies.pop(number))))
        await self.flush()
        return True

    async def request(self) -> H2Received:
        """The next whole request."""
        while not self._ready:
            if not await self.more():
                raise trio.BrokenResourceError("the client has closed")
        return self._ready.popleft()

    async def requests(self, count: int) -> list[H2Received]:
        return [await self.request() for _ in range(count)]

    async def request_within(self, seconds: float) -> H2Received | None:
        """The next whole request, if one comes in that time."""
        with trio.move_on_after(seconds):
            return await self.request()
        return None

    async def answer_in_pieces(self, number: int, body: bytes) -> None:
        """An answer as large as its windows allow at a time, until it is whole or reset."""
        self.h2.send_headers(number, [(b":status", b"200")])
        with suppress(ProtocolError):
            while body:
                room = min(self.h2.local_flow_control_window(number), 16_384)
                if room:
                    self.h2.send_data(number, body[:room], end_stream=len(body) <= room)
                    body = body[room:]
                    await self.flush()
                else:
                    await self.more()

    async def until_reset(self) -> StreamReset:
        """Wait until the client has reset a stream."""
        while True:
            for event in self.events:
                if isinstance(event, StreamReset):
                    return event
            if not await self.more():
                raise trio.BrokenResourceError("the client has closed")

    async def answer(self, number: int, status: int = 200, body: bytes = b"", *headers: tuple[bytes, bytes]) -> None:
        with suppress(ProtocolError):  # the client has reset it
            self.h2.send_headers(number, [(b":status", b"%d" % status), *headers], end_stream=not body)
            while body and self.h2.local_flow_control_window(number) < len(body):
                await self.more()
            if body:
                self.h2.send_data(number, body, end_stream=True)
        await self.flush()

    async def answer_all(self) -> None:
        """Answer every request until the client closes."""
        with suppress(trio.BrokenResourceError):
            while True:
                received = await self.request()
                await self.answer(received.number, 200, received.body)

    async def allow(self, streams: int) -> None:
        """Change how many streams the client may have."""
        self.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: streams})
        await self.flush()

    async def refuse(self, number: int, code: ErrorCodes = ErrorCodes.REFUSED_STREAM) -> None:
        self.h2.reset_stream(number, code)
        await self.flush()

    async def go_away(self, last: int) -> None:
        """Say GOAWAY and keep answering: the library would be closed by its own, so the frame is sent beside it."""
        await self.stream.send_all(goaway(last))

    async def settled(self) -> None:
        """Wait until the client has acknowledged our settings: closing earlier would reset what it has not read yet."""
        while not any(isinstance(event, SettingsAcknowledged) for event in self.events):
            await self.more()

    async def gone(self) -> None:
        """Wait until the client has closed."""
        while await self.more():
            pass


Script = Callable[[H2Peer], Awaitable[None]]


class H2Server:
    """Where the peers listen, and how many connections came."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.accepted = 0
        self.open = 0
        self._empty = trio.Event()

    async def empty(self) -> None:
        """Wait until every connection that was open is closed."""
        if self.open:
            await self._empty.wait()

    def closed(self) -> None:
        """One of them is."""
        self.open -= 1
        if not self.open:
            self._empty.set()
            self._empty = trio.Event()

    def post(self, body: bytes = b"hello", *headers: tuple[bytes, bytes]) -> HttpRequest:
        return HttpRequest(self.origin, b"POST", b"/", ((b"content-type", b"text/plain"), *headers), body)


async def answering(peer: H2Peer) -> None:
    await peer.answer_all()


@asynccontextmanager
async def h2_peers(
    script: Script, tls: Tls, settings: dict[SettingCodes, int] | None = None, alpn: str = "h2"
) -> AsyncIterator[H2Server]:
    """Listen on a free loopback port."""
    context = tls.server_context()
    context.set_alpn_protocols([alpn])
    with trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        server = H2Server(Origin("h2", "127.0.0.1", listener.getsockname()[1]))

        async def run(sock: trio.socket.SocketType, count: int) -> None:
            stream = trio.SSLStream(trio.SocketStream(sock), context, server_side=True)
            server.open += 1
            try:
                await stream.do_handshake()
                peer = H2Peer(stream, count, settings or {})
                await peer.begin()
                await script(peer)
            except trio.BrokenResourceError:
                pass  # the client broke off: that is what some tests are about
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                    await trio.aclose_forcefully(stream)
                server.closed()

        async def accept() -> None:
            while True:
                sock, _ = await listener.accept()
                server.accepted += 1
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                nursery.start_soon(run, sock, server.accepted)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            yield server
            nursery.cancel_scope.cancel()
