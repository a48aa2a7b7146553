"""The submission server's sockets: lines are cut, TLS is begun, messages are collected, delays are waited for."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from dispatcher_sandbox.smtp.session import SIZE_MAX, Session, Step, Then
from dispatcher_sandbox.smtp.simulator import Smtp
from dispatcher_sandbox.wire import PlainWire, TlsWire, Wire

if TYPE_CHECKING:
    from dispatcher_sandbox.doors import Behind

CONNECTIONS_MAX = 4096
IDLE_S = 300.0
"""As RFC 5321 has it for a server's patience."""
SILENCE_S = 600.0
LINE_BYTES_MAX = 4_096


class _Closed(Exception):
    """The client has gone."""


class _Lines:
    """Cuts what arrives into lines. A line ends in CR LF; any other break stays in it."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._buffer = bytearray()

    @property
    def is_empty(self) -> bool:
        return not self._buffer

    async def line(self) -> bytes:
        """The next line, without its end; cut when it is longer than any should be."""
        at = 0
        while (end := self._buffer.find(b"\r\n", at)) < 0 and len(self._buffer) <= LINE_BYTES_MAX:
            at = max(0, len(self._buffer) - 1)
            await self._more()
        size = end if end >= 0 else len(self._buffer)
        line = bytes(self._buffer[:size])
        del self._buffer[: size + 2]
        return line

    async def message(self) -> tuple[bytes, bool]:
        """A message up to its end, without its stuffing, and whether it was larger than it may be."""
        buffer = self._buffer
        if buffer.startswith(b".\r\n"):
            del buffer[:3]
            return b"", False
        at, too_large = 0, False
        while (end := buffer.find(b"\r\n.\r\n", at)) < 0:
            if len(buffer) > SIZE_MAX + 65_536:
                too_large = True
                del buffer[:-4]
            at = max(0, len(buffer) - 4)
            await self._more()
            if at == 0 and buffer.startswith(b".\r\n"):
                del buffer[:3]
                return b"", too_large
        message = bytes(buffer[: end + 2])
        del buffer[: end + 5]
        unstuffed = message.removeprefix(b".").replace(b"\r\n.", b"\r\n")
        return unstuffed, too_large or len(unstuffed) > SIZE_MAX

    async def _more(self) -> None:
        with trio.move_on_after(IDLE_S):
            data = await self.wire.receive()
            if data:
                self._buffer += data
                return
        raise _Closed


def serve_starttls(behind: Behind) -> Callable[[socket.socket], Awaitable[None]]:
    """The port that begins in the clear."""
    return _Server(behind, tls_first=False).serve


def serve_tls(behind: Behind) -> Callable[[socket.socket], Awaitable[None]]:
    """The port that speaks TLS from its first byte."""
    return _Server(behind, tls_first=True).serve


class _Server:
    def __init__(self, behind: Behind, *, tls_first: bool) -> None:
        self._behind = behind
        self._tls_first = tls_first
        self._context: ssl.SSLContext = behind.authority.server_context()
        self._simulator = Smtp()

    async def serve(self, listener: socket.socket) -> None:
        """Accept and answer until cancelled."""
        room = trio.Semaphore(CONNECTIONS_MAX)
        async with trio.open_nursery() as nursery:
            while True:
                await room.acquire()
                await trio.lowlevel.wait_readable(listener)
                try:
                    connected, _ = listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    room.release()
                    continue
                nursery.start_soon(self._attend, connected, room)

    async def _attend(self, connected: socket.socket, room: trio.Semaphore) -> None:
        try:
            with connected:
                connected.setblocking(False)
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with suppress(_Closed, OSError, ssl.SSLError):  # the client is gone, or never spoke TLS: nothing to tell it
                    await self._converse(connected)
        finally:
            room.release()

    async def _converse(self, connected: socket.socket) -> None:
        lines = _Lines(TlsWire(connected, self._context) if self._tls_first else PlainWire(connected))
        if isinstance(lines.wire, TlsWire):
            await lines.wire.shake_hands()
        session = Session(self._behind.exchange, self._simulator, secure=self._tls_first)
        step = session.greeting()
        while await self._take(step, lines):
            if step.then is Then.STARTTLS:
                if not lines.is_empty:
                    return  # said in the clear, meant to be taken for something said under TLS
                lines = _Lines(TlsWire(connected, self._context))
                session.begin_tls()
            elif step.then is Then.MESSAGE:
                step = await self._message(session, lines)
                continue
            step = session.line(await lines.line())

    async def _take(self, step: Step, lines: _Lines) -> bool:
        if step.reply:
            await lines.wire.send(step.reply + b"\r\n")
        if step.then is Then.SILENT:
            with trio.move_on_after(SILENCE_S):
                while await lines.wire.receive():
                    pass
        return step.then not in (Then.CLOSE, Then.SILENT)

    async def _message(self, session: Session, lines: _Lines) -> Step:
        message, too_large = await lines.message()
        answer, delay_s, silent = session.message(message, self._behind.clock(), too_large=too_large)
        if delay_s:
            await trio.sleep(delay_s)
        if answer is None:
            return Step(b"", Then.SILENT if silent else Then.CLOSE)
        return Step(b"%d %b" % (answer.status, answer.body), Then.CLOSE if answer.status == 421 else Then.GO_ON)
