"""One HTTP/1.1 connection and one exchange at a time on it.

An exchange is: one direct send of the whole request, one wait, one receive. The wait is the caller's checkpoint; there is
no other on the usual way. Only when the kernel does not take all of the request at once does a second task write
the rest while this one reads, because a peer may answer (and refuse) before it has read everything.

Invariant: whoever holds the connection either gets a whole response from it or closes it. ``reusable`` is True only if
the request left completely, the response ended by its own framing and nothing followed it.
"""

from __future__ import annotations

import select
import socket
import ssl
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

import trio

from actors.io.http_terms import Deadlines, ExchangeFailed, MaybeSent, NotSent, Phase, PoolLimits
from actors.io.http_watch import Watch
from actors.io.http_wire import RECEIVE_BYTES_MAX, ResponseReader
from actors.io.tls import TlsChannel
from dispatcher.http_message import HttpResponse

if TYPE_CHECKING:
    from actors.io.http_slots import Site


class HttpConnection:
    """An open connection. Owned by one exchange, or idle in the pool; never shared."""

    __slots__ = (
        "_fd",
        "_interrupted_by",
        "_phase",
        "_poll",
        "_reader",
        "_sent",
        "_sock",
        "_tls",
        "_watch",
        "deadline_s",
        "idle_since_s",
        "reusable",
        "reused",
        "site",
    )

    def __init__(
        self, sock: socket.socket, tls: TlsChannel | None, site: Site[HttpConnection], watch: Watch, limits: PoolLimits
    ) -> None:
        self.site = site
        self.idle_since_s = inf
        """Written by the pool's policy."""
        self.deadline_s = inf
        """When the exchange under way is to be interrupted. Written here, read by the pool's watch."""
        self.reusable = False
        self.reused = False
        """Has carried an exchange before this one."""
        self._sock = sock
        self._fd = sock.fileno()
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        self._poll = poll.poll
        self._tls = tls
        self._watch = watch
        self._reader = ResponseReader(limits.header_bytes_max, limits.body_bytes_max)
        self._phase: Phase = "write"
        self._sent = False
        self._interrupted_by: str | None = None

    def is_alive(self) -> bool:
        """Whether an idle connection can be used again: the peer has neither closed it nor said anything unasked.

        Over TLS that gives up a connection for a mere key update, too: whether more stands behind one cannot be seen, and
        an answer must never begin with what was left of another.
        """
        return not self._poll(0)

    async def exchange(self, wire: bytes, head_only: bool, deadlines: Deadlines, now_s: float, ends_s: float) -> HttpResponse:
        """Send ``wire``, return its response. ``ends_s`` is the whole exchange's deadline on Trio's clock.

        After any exception the connection must be closed. NotSent means that the kernel took no byte of the request.
        """
        reader = self._reader
        reader.begin(head_only)
        self.reusable = self._sent = False
        try:
            data = wire if self._tls is None else self._tls.encrypt(wire)
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise NotSent("write", "reset") from error
        whole = sent == len(data)
        if whole:
            self._sent = True
            self._start_phase("read", now_s + deadlines.read_s, ends_s)
            await self._read()
        else:
            self._sent = sent > 0
            self._start_phase("write", now_s + deadlines.write_s, ends_s)
            whole = await self._read_while_writing(memoryview(data)[sent:], deadlines.read_s, ends_s)
        self.deadline_s = inf
        self.reused = True
        # An interruption may have come too late to stop the exchange: it must not meet the next one.
        if whole and reader.keep_alive and self._interrupted_by is None:
            self.reusable = self._tls is None or self._tls.is_quiet()
        response = reader.response
        assert response is not None
        return response

    def interrupt(self, code: str | None = None) -> None:
        """Make the exchange under way fail, by default as overdue. Never waits; its owner closes the connection."""
        self._interrupted_by = code or f"timeout_{self._phase}"
        trio.lowlevel.notify_closing(self._fd)

    def close(self) -> None:
        """Close at once. Never waits."""
        self._sock.close()

    def retire(self) -> None:
        """Close an idle connection the polite way. Never waits."""
        if self._tls is not None:
            with suppress(OSError):  # the peer then learns it from the close
                self._sock.send(self._tls.farewell())
        self._sock.close()

    def _start_phase(self, phase: Phase, phase_ends_s: float, ends_s: float) -> None:
        self._phase = phase
        if phase_ends_s < ends_s:
            ends_s = phase_ends_s
        self.deadline_s = ends_s
        self._watch.by(ends_s)

    async def _read(self) -> None:
        """Wait until the reader holds the whole response."""
        fd, receive, reader, tls = self._fd, self._sock.recv, self._reader, self._tls
        done = False
        while not done:
            if self._interrupted_by is not None:
                raise self._interruption()
            try:
                await trio.lowlevel.wait_readable(fd)
            except trio.ClosedResourceError:
                raise self._interruption() from None
            try:
                if tls is None:
                    data = receive(reader.appetite)
                    done = reader.feed(data) if data else reader.end(clean=True)
                else:
                    tls.receive(receive(RECEIVE_BYTES_MAX))
                    done = self._decrypt(tls, reader)
            except BlockingIOError:
                continue
            except ssl.SSLError as error:
                raise MaybeSent("read", "tls_failed", reader.status) from error
            except OSError as error:
                raise MaybeSent("read", "reset", reader.status) from error

    def _decrypt(self, tls: TlsChannel, reader: ResponseReader) -> bool:
        try:
            while (data := tls.decrypt(reader.appetite)) is not None:
                if not data:
                    return reader.end(clean=True)
                if reader.feed(data):
                    return True
        except ssl.SSLEOFError:
            return reader.end(clean=False)
        return False

    async def _read_while_writing(self, rest: memoryview, read_s: float, ends_s: float) -> bool:
        """The way of a request that the kernel did not take at once. Returns whether all of it left."""
        failure: ExchangeFailed | None = None
        refusal: OSError | None = None
        written = False

        async def write() -> None:
            nonlocal refusal, rest, written
            try:
                while rest:
                    await trio.lowlevel.wait_writable(self._fd)
                    try:
                        rest = rest[self._sock.send(rest) :]
                    except BlockingIOError:
                        continue
                    self._sent = True
                written = True
            except trio.ClosedResourceError:
                return  # interrupted: the reading side says so
            except OSError as error:
                refusal = error  # the peer takes no more; what it said before may still be there to read
            self._start_phase("read", trio.current_time() + read_s, ends_s)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            try:
                await self._read()
            except ExchangeFailed as problem:
                failure = problem
            nursery.cancel_scope.cancel()
        if failure is not None:
            if refusal is not None and failure.code == "closed":  # the read only found what the write had used up
                raise (MaybeSent if self._sent else NotSent)("write", "reset") from refusal
            raise failure
        return written

    def _interruption(self) -> ExchangeFailed:
        code = self._interrupted_by
        assert code is not None
        return MaybeSent(self._phase, code, self._reader.status) if self._sent else NotSent(self._phase, code)
