"""The byte stream of one SMTP connection: a socket, and TLS over it from the beginning or from STARTTLS on.

Sends and receives are direct, as for HTTP: wait only when the kernel has nothing, or takes nothing. Every failure is raised as
what the exchange's :class:`~actors.io.smtp_terms.Progress` says it is. Invariant: a byte of a message's end counts as handed over
before anything else can happen.
"""

from __future__ import annotations

import select
import socket
import ssl
from contextlib import suppress

import trio

from actors.io.http_dial import shake_hands
from actors.io.smtp_terms import Progress
from actors.io.smtp_wire import RECEIVE_BYTES_MAX
from actors.io.tls import RECORD_BYTES_MAX, TlsChannel

_QUIT = b"QUIT\r\n"


class SmtpLink:
    """An open stream. Its owner closes it after anything was raised."""

    __slots__ = ("_poll", "_sock", "tls")

    def __init__(self, sock: socket.socket, tls: TlsChannel | None) -> None:
        self._sock = sock
        self.tls = tls
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        self._poll = poll.poll

    @property
    def own_address(self) -> str:
        """Our end of the connection as an address literal, to introduce ourselves by."""
        host = self._sock.getsockname()[0]
        return f"[IPv6:{host.partition('%')[0]}]" if ":" in host else f"[{host}]"

    def is_quiet(self) -> bool:
        """Whether the server has said nothing unasked: neither a word nor its farewell."""
        return not self._poll(0) and (self.tls is None or self.tls.is_quiet())

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Go over to TLS. Raises NotSent."""
        self.tls = await shake_hands(self._sock, context, host)

    async def send(self, data: bytes, progress: Progress, end: bytes = b"") -> None:
        """Send ``data`` and then ``end``, a message's end: from its first byte on the exchange counts as handed over."""
        progress.enter("write")
        try:
            if self.tls is not None:
                data, end = self.tls.encrypt(data) if data else b"", self.tls.encrypt(end) if end else b""
            rest = memoryview(data + end)
            end_length = len(end)
            while rest:
                try:
                    rest = rest[self._sock.send(rest) :]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._sock)
                if end_length and len(rest) < end_length:
                    progress.handed = True
        except ssl.SSLError as error:
            raise progress.failure("tls_failed") from error
        except OSError as error:
            raise progress.failure("reset") from error

    async def receive(self, progress: Progress) -> bytes:
        """What the server says next, at least a byte."""
        try:
            while True:
                if self.tls is not None:
                    data = self.tls.decrypt(RECORD_BYTES_MAX)
                    if data is not None:
                        break
                await trio.lowlevel.wait_readable(self._sock)
                try:
                    data = self._sock.recv(RECEIVE_BYTES_MAX)
                except BlockingIOError:
                    continue
                if self.tls is None:
                    break
                self.tls.receive(data)
        except ssl.SSLEOFError as error:
            raise progress.failure("closed") from error
        except ssl.SSLError as error:
            raise progress.failure("tls_failed") from error
        except OSError as error:
            raise progress.failure("reset") from error
        if not data:
            raise progress.failure("closed")
        return data

    def close(self) -> None:
        """Close at once. Never waits."""
        self._sock.close()

    def retire(self) -> None:
        """Say goodbye, as far as that goes without waiting, and close."""
        with suppress(OSError, ssl.SSLError):
            self._sock.send(_QUIT if self.tls is None else self.tls.encrypt(_QUIT) + self.tls.farewell())
        self._sock.close()
