"""SMTP servers that follow a script, line by line: what a test needs at the far end of a mail session.

async with mail_peers(script) as server:
    await pool.exchange(mail(server), Deadlines())
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from dispatcher.http_message import Origin
from dispatcher.smtp_message import Login, SmtpRequest
from http_peer import Peer, Server, peers

MESSAGE = b"Subject: canary\r\n\r\nGood day\r\n"


class MailPeer:
    """The server's end of one session. ``commands`` are the lines it was given, without their ends."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.number = peer.number
        self.commands: list[bytes] = []
        self.pieces: list[bytes] = []
        """What arrived at once."""
        self._buffer = b""

    async def say(self, *lines: bytes) -> None:
        """Reply, with as many lines as there are."""
        await self.peer.send(b"".join(line + b"\r\n" for line in lines))

    async def line(self) -> bytes:
        """The next line."""
        while b"\r\n" not in self._buffer:
            data = await self.peer.stream.receive_some(65_536)
            if not data:
                raise trio.BrokenResourceError("the client closed")
            self.pieces.append(bytes(data))
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    async def hear(self, beginning: bytes, *replies: bytes) -> bytes:
        """Take a command that must begin so, and reply."""
        line = await self.line()
        if line == b"QUIT":
            raise trio.BrokenResourceError("the client left")
        assert line.startswith(beginning), (line, beginning)
        self.commands.append(line)
        if replies:
            await self.say(*replies)
        return line

    async def greet(self, *abilities: bytes) -> None:
        """Open the session, offering these."""
        await self.say(b"220 test")
        lines = [b"test", *abilities]
        last = len(lines) - 1
        await self.hear(b"EHLO [", *(b"250%b%b" % (b" " if i == last else b"-", line) for i, line in enumerate(lines)))

    async def message(self) -> bytes:
        """A message as it is meant, up to its end."""
        lines: list[bytes] = []
        while (line := await self.line()) != b".":
            lines.append(line.removeprefix(b".") + b"\r\n")
        return b"".join(lines)

    async def take(self, reply: bytes = b"250 2.0.0 Ok: queued as 1", recipients: int = 1) -> bytes:
        """One transaction that goes well; returns its message."""
        await self.hear(b"MAIL FROM:", b"250 2.1.0 Ok")
        for _ in range(recipients):
            await self.hear(b"RCPT TO:", b"250 2.1.5 Ok")
        await self.hear(b"DATA", b"354 go on")
        message = await self.message()
        await self.say(reply)
        return message


MailScript = Callable[[MailPeer], Awaitable[None]]


@asynccontextmanager
async def mail_peers(
    script: MailScript, *, scheme: str = "smtp+plain", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """Listen on a free loopback port. With ``tls`` every connection begins with a handshake."""

    async def run(peer: Peer) -> None:
        await script(MailPeer(peer))

    async with peers(run, tls=tls) as server:
        server.origin = Origin(scheme, server.origin.host, server.origin.port)
        yield server


def mail(server: Server, *recipients: str, login: Login | None = None, message: bytes | None = MESSAGE) -> SmtpRequest:
    """A transaction with this server."""
    return SmtpRequest(server.origin, login, "sender@example.org", recipients or ("reader@example.org",), message)
