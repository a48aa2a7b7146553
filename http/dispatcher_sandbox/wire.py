"""The two kinds of byte stream a connection can be: plain, and TLS through memory buffers.

Both work on a non-blocking stdlib socket and wait through Trio. Receiving always is a checkpoint, so one busy client can not keep
the others from their turn; sending is one only when the peer does not keep up.
"""

from __future__ import annotations

import socket
import ssl
from typing import Protocol

import trio

RECEIVE_BYTES = 64 * 1024
_TLS_RECORD_BYTES = 16 * 1024


class Wire(Protocol):
    """A connected byte stream."""

    async def receive(self) -> bytes:
        """What arrived, at least one byte; empty when the peer has finished."""
        ...

    async def send(self, data: bytes) -> None:
        """Hand all of ``data`` to the peer's buffers."""
        ...


class PlainWire:
    """A TCP connection."""

    __slots__ = ("_socket",)

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    async def receive(self) -> bytes:
        """Wait for bytes."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue

    async def send(self, data: bytes) -> None:
        """Send at once what fits, wait for the rest."""
        sent = self._try_send(data)
        while sent < len(data):
            await trio.lowlevel.wait_writable(self._socket)
            sent += self._try_send(memoryview(data)[sent:])

    def _try_send(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0


class TlsWire:
    """The server's side of TLS over a TCP connection. ``receive`` performs the handshake."""

    __slots__ = ("_incoming", "_outgoing", "_plain", "_ready", "_tls")

    def __init__(self, connected: socket.socket, context: ssl.SSLContext) -> None:
        self._plain = PlainWire(connected)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._ready = False

    async def shake_hands(self) -> None:
        """Finish the handshake, for a server that speaks first. Raises OSError when the client leaves."""
        while not self._ready:
            try:
                self._tls.do_handshake()
                self._ready = True
            except ssl.SSLWantReadError:
                await self._flush()
                arrived = await self._plain.receive()
                if not arrived:
                    raise ConnectionResetError from None
                self._incoming.write(arrived)
        await self._flush()

    async def receive(self) -> bytes:
        """Wait for decrypted bytes."""
        while True:
            try:
                if not self._ready:
                    self._tls.do_handshake()
                    self._ready = True
                    await self._flush()
                return self._tls.read(_TLS_RECORD_BYTES)
            except ssl.SSLWantReadError:
                await self._flush()
            arrived = await self._plain.receive()
            if not arrived:
                return b""
            self._incoming.write(arrived)

    async def send(self, data: bytes) -> None:
        """Encrypt and send."""
        self._tls.write(data)
        await self._flush()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._plain.send(self._outgoing.read())
