"""The line that the dot draws, byte by byte: what the kernel took decides, and nothing else."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, cast

import pytest
import trio

from actors.io.http import Deadlines, MaybeSent, NotSent
from actors.io.smtp import open_smtp_pool
from actors.io.smtp_link import SmtpLink
from actors.io.smtp_terms import Progress
from actors.io.smtp_wire import END
from actors.io.tls import TlsChannel
from dispatcher.smtp_message import Stage
from house import Tls
from http_peer import HesitantSocket
from smtp_peer import MESSAGE, MailPeer, mail, mail_peers

DATA = b"Subject: x\r\n\r\nx\r\n"


class Shortening:
    """A socket whose kernel takes so many bytes in all, and then finds the connection reset."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._own, self._other = socket.socketpair()

    def fileno(self) -> int:
        return self._own.fileno()

    def send(self, data: memoryview) -> int:
        if not self.room:
            raise ConnectionResetError
        taken = min(self.room, len(data))
        self.room -= taken
        return taken

    def close(self) -> None:
        self._own.close()
        self._other.close()


class Sealing:
    """TLS as far as lengths go: five bytes more for each record."""

    def encrypt(self, plaintext: bytes) -> bytes:
        return b"-----" + plaintext


@pytest.mark.parametrize(("tls", "before"), [(None, len(DATA)), (Sealing(), len(DATA) + 5)])
@pytest.mark.parametrize(("more", "kind"), [(-1, NotSent), (0, NotSent), (1, MaybeSent), (2, MaybeSent)])
async def test_a_message_may_have_been_taken_on_from_the_first_byte_of_its_end(
    tls: Sealing | None, before: int, more: int, kind: type[Exception]
) -> None:
    sock = Shortening(before + more)
    link = SmtpLink(cast("socket.socket", sock), cast("TlsChannel | None", tls))
    try:
        with trio.CancelScope() as scope, pytest.raises((NotSent, MaybeSent)) as caught:
            await link.send(DATA, Progress(scope, Deadlines()), END)
    finally:
        link.close()

    assert type(caught.value) is kind
    assert caught.value.code == "reset"


@pytest.mark.parametrize("scheme", ["smtp+plain", "smtps"])
async def test_a_kernel_that_hesitates_loses_nothing(scheme: str, tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[bytes] = []

    async def script(peer: MailPeer) -> None:
        await peer.greet(b"PIPELINING")
        while True:
            messages.append(await peer.take())

    large = MESSAGE + (b"." + b"x" * 900 + b"\r\n") * 500
    server_tls = tls.server_context() if scheme == "smtps" else None
    async with mail_peers(script, scheme=scheme, tls=server_tls) as server:
        hesitate: Callable[..., Any] = HesitantSocket
        async with open_smtp_pool(tls_context=tls.client_context()) as pool:
            with monkeypatch.context() as patch:
                patch.setattr(socket, "socket", hesitate)
                response = await pool.exchange(mail(server, message=large), Deadlines())

    assert response.stage is Stage.MESSAGE
    assert messages == [large]
