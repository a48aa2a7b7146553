"""One connection to one server, ready for commands: socket, TLS, reply parser, and the greeting that makes it ours.

The greeting authenticates, asks for the server's readiness and role, and selects the database: a replica, or a server that still
loads its data, counts as not connected, because writes to it would only fail later. The socket is used through Trio's readiness
calls directly: what streams put on top of it costs more than all the parsing.
Invariant: a wire that an error or a cancellation interrupted is never used again. Failures are redis-py's classes.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

import trio
from redis import exceptions

from actors.io.redis_protocol import NOTHING, Encodable, Replies, Reply, pack
from actors.io.redis_url import Endpoint
from actors.io.tls import RECORD_BYTES_MAX, TlsChannel
from dispatcher.errors import QueueUnavailable

_CHUNK_BYTES = 65_536
_REPLY_BYTES_MAX = 256 * 1024 * 1024
"""A reply of which more than this arrived and that still is not complete ends the connection."""

_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


class Wire:
    """Bytes out, replies in. At most one task sends and at most one receives."""

    def __init__(self, sock: socket.socket, address: str, tls: TlsChannel | None) -> None:
        self._socket = sock
        self._tls = tls
        self._tls_ended = False
        self._chunk = bytearray(_CHUNK_BYTES)
        self._chunk_view = memoryview(self._chunk)
        self.replies = Replies(address)

    async def receive(self) -> None:
        """Wait for bytes and hand them to ``replies``. Raises redis-py's errors when the connection is over."""
        if self._tls_ended:
            raise _closed()
        try:
            received = await self._receive_chunk()
            if self._tls is None:
                self.replies.feed(self._chunk, 0, received)
                return
            self._tls.receive(bytes(self._chunk_view[:received]))
            while plaintext := self._tls.decrypt(RECORD_BYTES_MAX):
                self.replies.feed(plaintext, 0, len(plaintext))
            # Replies that came together with the end of the session still count.
            self._tls_ended = plaintext is not None
        except OSError as error:
            raise _failed(error) from error

    async def _receive_chunk(self) -> int:
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                received = self._socket.recv_into(self._chunk)
            except BlockingIOError:
                continue
            if not received:
                raise _closed()
            return received

    async def send(self, data: bytes) -> None:
        """Send all. A checkpoint only if the socket's buffer is full. Raises redis-py's errors when the connection is over."""
        try:
            await self._send_all(data if self._tls is None else self._tls.encrypt(data))
        except OSError as error:
            raise _failed(error) from error

    async def _send_all(self, data: bytes) -> None:
        sent = self._send_some(data)
        if sent < len(data):
            rest = memoryview(data)[sent:]
            while rest:
                await trio.lowlevel.wait_writable(self._socket)
                rest = rest[self._send_some(rest) :]

    def _send_some(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def shake_hands(self) -> None:
        """Agree on TLS, if there is any. The certificate is checked in here."""
        if self._tls is None:
            return
        try:
            done, data = self._tls.handshake(b"")
            while True:
                await self._send_all(data)
                if done:
                    return
                received = await self._receive_chunk()
                done, data = self._tls.handshake(bytes(self._chunk_view[:received]))
        except OSError as error:
            raise _failed(error) from error

    async def ask(self, commands: list[tuple[Encodable, ...]]) -> list[Reply]:
        """Send commands and wait for their replies; for the greeting, before others share the wire."""
        await self.send(b"".join(map(pack, commands)))
        replies: list[Reply] = []
        while len(replies) < len(commands):
            reply = self.next_reply()
            if reply is NOTHING:
                await self.receive()
            else:
                replies.append(reply)
        return replies

    def next_reply(self) -> Reply:
        """The next reply, or NOTHING. Raises InvalidResponse for what is none."""
        try:
            reply = self.replies.next()
        except exceptions.RedisError:
            raise
        except Exception as error:
            raise exceptions.InvalidResponse("an error reply that redis-py cannot read") from error
        if reply is NOTHING and self.replies.buffered_bytes() > _REPLY_BYTES_MAX:
            raise exceptions.InvalidResponse(f"a reply of more than {_REPLY_BYTES_MAX} bytes")
        return reply

    def close(self) -> None:
        """Close the socket at once. Never waits; may be called again."""
        if self._socket.fileno() != -1:
            if self._tls is not None:
                with suppress(OSError):  # a courtesy; if it does not go out at once, it does not
                    self._socket.send(self._tls.farewell())
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


async def dial(endpoint: Endpoint, deadline_s: float) -> Wire:
    """Connect and greet within ``deadline_s``. Raises redis-py's errors."""
    try:
        with trio.fail_after(deadline_s):
            sock = await _connect(endpoint)
            try:
                _keep_alive(sock)
                wire = Wire(sock, endpoint.address, _tls_channel(endpoint))
                await wire.shake_hands()
                await _greet(wire, endpoint)
            except BaseException:
                sock.close()
                raise
            return wire
    except trio.TooSlowError:
        raise exceptions.TimeoutError(f"no connection within {deadline_s:g} s") from None


async def _connect(endpoint: Endpoint) -> socket.socket:
    try:
        if endpoint.path:
            stream = await trio.open_unix_socket(endpoint.path)
        else:
            stream = await trio.open_tcp_stream(endpoint.host, endpoint.port)
    except (OSError, UnicodeError) as error:
        raise _failed(error) from error
    # From here on without Trio's socket object: only its readiness calls.
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    return sock


def _tls_channel(endpoint: Endpoint) -> TlsChannel | None:
    if endpoint.tls_context is None:
        return None
    try:
        return TlsChannel(endpoint.tls_context, endpoint.host)
    except ValueError as error:  # a name that no certificate can have
        raise _failed(error) from error


def _keep_alive(sock: socket.socket) -> None:
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _greet(wire: Wire, endpoint: Endpoint) -> None:
    if endpoint.password is not None:
        credentials = (endpoint.password,) if endpoint.username is None else (endpoint.username, endpoint.password)
        (reply,) = await wire.ask([("AUTH", *credentials)])
        if isinstance(reply, QueueUnavailable):
            raise _cause(reply)
        if isinstance(reply, Exception):
            # Not the reply's own text: a server that does not know the command quotes its arguments.
            raise exceptions.AuthenticationError("the server does not take a user and password")
    pong, _, role = await wire.ask([("PING",), ("CLIENT", "SETNAME", endpoint.client_name), ("ROLE",)])
    if isinstance(pong, QueueUnavailable):
        raise _cause(pong)
    # An access list may forbid ROLE; then the first write tells.
    if isinstance(role, list) and role[0] != b"master":
        raise exceptions.ReadOnlyError("the server is not a master")
    if endpoint.database:
        (selected,) = await wire.ask([("SELECT", endpoint.database)])
        if isinstance(selected, Exception):
            raise selected


def _cause(error: QueueUnavailable) -> BaseException:
    return error.__cause__ or error


def _closed() -> exceptions.ConnectionError:
    return exceptions.ConnectionError("Connection closed by server.")


def _failed(error: Exception) -> exceptions.ConnectionError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return exceptions.ConnectionError(f"the certificate of the server is not accepted: {error.verify_message}")
    reason = error.strerror if isinstance(error, OSError) else None
    return exceptions.ConnectionError(f"the connection failed: {reason or str(error) or type(error).__name__}")
