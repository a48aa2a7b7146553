"""Servers that follow a script, byte for byte: what a test needs at the far end of a connection.

    async with peers(script) as server:
        await pool.exchange(HttpRequest(server.origin, …), …)

``script(peer)`` runs once per accepted connection; when it returns, the connection is closed.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio

from dispatcher.http_message import HttpRequest, Origin

FIN_WAIT1 = 4
"""Linux's name for: our end of stream is not yet acknowledged by the other kernel."""

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
OK_AND_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"


class HesitantSocket(socket.socket):
    """Every other send takes one byte less than it could or nothing, every other receive finds nothing after all: both are
    things a kernel may do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._calls = 0

    def send(self, data: Any, flags: int = 0, /) -> int:
        self._hesitate()
        return super().send(memoryview(data)[: max(1, len(data) - 1)], flags)

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        self._hesitate()
        return super().recv(size, flags)

    def _hesitate(self) -> None:
        self._calls += 1
        if self._calls % 2:
            raise BlockingIOError


class Received(NamedTuple):
    """A request as it arrived."""

    line: bytes
    headers: dict[bytes, bytes]
    body: bytes


class Peer:
    """The far end of one connection. ``number`` counts a server's connections from 1."""

    def __init__(self, sock: trio.socket.SocketType, number: int) -> None:
        self.sock = sock
        self.number = number
        self.stream: trio.abc.Stream = trio.SocketStream(sock)
        self._buffer = bytearray()

    async def shake_hands(self, context: ssl.SSLContext) -> None:
        """Speak TLS from here on."""
        stream = trio.SSLStream(self.stream, context, server_side=True)
        await stream.do_handshake()
        self.stream = stream

    async def request(self) -> Received | None:
        """The next request, whole; None when the client has closed."""
        while b"\r\n\r\n" not in self._buffer:
            if not await self._more():
                return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        line, *lines = bytes(head).split(b"\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        if headers.get(b"transfer-encoding") == b"chunked":
            body = b""
            while size := int(await self._line(), 16):
                body += (await self._take(size + 2))[:-2]
            await self._line()
        else:
            body = await self._take(int(headers.get(b"content-length", b"0")))
        return Received(line, headers, body)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self, data: bytes = OK) -> Received:
        """Take one request and answer it."""
        received = await self.request()
        assert received is not None
        await self.send(data)
        return received

    async def answer_all(self, data: bytes = OK) -> None:
        """Answer every request until the client closes."""
        while await self.request() is not None:
            await self.send(data)

    async def finish(self) -> None:
        """End the stream, and wait until the client's kernel knows."""
        self.sock.shutdown(socket.SHUT_WR)
        while self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == FIN_WAIT1:
            await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        """Close with a reset, as a crashed machine's successor would."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    async def gone(self) -> None:
        """Wait until the client has closed."""
        try:
            while await self.sock.recv(65_536):
                pass
        except ConnectionError:
            pass

    async def _more(self) -> bool:
        try:
            data = await self.stream.receive_some(65_536)
        except trio.BrokenResourceError:
            return False
        self._buffer += data
        return bool(data)

    async def _must_have_more(self) -> None:
        if not await self._more():
            raise trio.BrokenResourceError("the client closed inside a request")

    async def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._must_have_more()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            await self._must_have_more()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return bytes(line)


Script = Callable[[Peer], Awaitable[None]]


class Server:
    """Where the peers listen, and how many connections came."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.accepted = 0
        self.open = 0

    def get(self, target: bytes = b"/") -> HttpRequest:
        return HttpRequest(self.origin, b"GET", target, ())

    def post(self, body: bytes = b"hello") -> HttpRequest:
        return HttpRequest(self.origin, b"POST", b"/", ((b"content-type", b"text/plain"),), body)


@asynccontextmanager
async def peers(script: Script, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    """Listen on a free loopback port. With ``tls`` every connection begins with a handshake."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with trio.socket.socket(family, socket.SOCK_STREAM) as listener:
        await listener.bind((host, 0))
        listener.listen(128)
        server = Server(Origin("http" if tls is None else "https", host, listener.getsockname()[1]))

        async def run(peer: Peer) -> None:
            server.open += 1
            try:
                if tls is not None:
                    await peer.shake_hands(tls)
                await script(peer)
            except trio.BrokenResourceError:
                pass  # the client broke off: that is what some tests are about
            finally:
                server.open -= 1
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                    await trio.aclose_forcefully(peer.stream)

        async def accept() -> None:
            while True:
                sock, _ = await listener.accept()
                server.accepted += 1
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                nursery.start_soon(run, Peer(sock, server.accepted))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            yield server
            nursery.cancel_scope.cancel()
