from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import pytest
import trio

from actors.io.http_connection import HttpConnection
from actors.io.http_dial import dial
from actors.io.http_slots import Site
from actors.io.http_terms import Deadlines, ExchangeFailed, MaybeSent, NotSent, PoolLimits
from actors.io.http_watch import Watch
from actors.io.http_wire import encode_request
from actors.io.tls import client_context
from dispatcher.http_message import HttpResponse
from house import Tls
from http_peer import OK, OK_AND_CLOSE, HesitantSocket, Peer, Script, Server, peers

ENDLESS = Deadlines(inf, inf, inf, inf, inf)
LARGE = b"x" * (16 << 20)
"""More than the kernel takes at once."""


@asynccontextmanager
async def connected(server: Server, tls: Tls | None = None) -> AsyncIterator[HttpConnection]:
    """A connection of its own, without a pool."""
    context = client_context(None if tls is None else tls.client_context())
    sock, channel = await dial(server.origin, context, inf)
    connection = HttpConnection(sock, channel, Site(server.origin, [], OrderedDict()), Watch(), PoolLimits())
    try:
        yield connection
    finally:
        connection.close()


async def post(connection: HttpConnection, server: Server, body: bytes = b"hello", *, head_only: bool = False) -> HttpResponse:
    return await connection.exchange(encode_request(server.post(body), b"h"), head_only, ENDLESS, 0.0, inf)


async def hear(connection: HttpConnection) -> None:
    """Wait until something has arrived."""
    await trio.lowlevel.wait_readable(connection._fd)


async def answering(peer: Peer) -> None:
    await peer.answer_all()


@pytest.fixture(params=["plain", "tls"])
def maybe_tls(request: pytest.FixtureRequest, tls: Tls) -> Tls | None:
    return tls if request.param == "tls" else None


@asynccontextmanager
async def pair(script: Script, maybe_tls: Tls | None) -> AsyncIterator[tuple[Server, HttpConnection]]:
    context = None if maybe_tls is None else maybe_tls.server_context()
    async with peers(script, tls=context) as server, connected(server, maybe_tls) as connection:
        yield server, connection


async def test_exchanges_follow_one_another(maybe_tls: Tls | None) -> None:
    async with pair(answering, maybe_tls) as (server, connection):
        reused = []
        for _ in range(3):
            reused.append(connection.reused)
            response = await post(connection, server)
            assert response == (200, ((b"content-length", b"2"),), b"ok")
            assert connection.reusable
            assert connection.is_alive()
            assert connection.deadline_s == inf
        assert reused == [False, True, True]


async def test_a_response_in_pieces_is_awaited(maybe_tls: Tls | None) -> None:
    async def dribble(peer: Peer) -> None:
        await peer.request()
        for at in range(len(OK)):
            await peer.send(OK[at : at + 1])
            await trio.testing.wait_all_tasks_blocked()

    async with pair(dribble, maybe_tls) as (server, connection):
        assert (await post(connection, server)).body == b"ok"


async def test_a_large_response_comes_whole(maybe_tls: Tls | None) -> None:
    body = bytes(range(256)) * 4096

    async def script(peer: Peer) -> None:
        await peer.answer_all(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async with pair(script, maybe_tls) as (server, connection):
        assert (await post(connection, server)).body == body
        assert connection.reusable


async def test_a_large_request_leaves_whole(maybe_tls: Tls | None) -> None:
    async def script(peer: Peer) -> None:
        received = await peer.request()
        assert received is not None
        assert received.body == LARGE
        await peer.send(OK)
        await peer.answer_all()

    async with pair(script, maybe_tls) as (server, connection):
        assert (await post(connection, server, LARGE)).status == 200
        assert connection.reusable
        assert (await post(connection, server)).status == 200


@pytest.mark.parametrize("refusal", [OK, OK_AND_CLOSE])
async def test_an_answer_before_the_request_has_left_is_the_answer_and_the_connections_end(
    maybe_tls: Tls | None, refusal: bytes
) -> None:
    async def script(peer: Peer) -> None:
        await peer.stream.receive_some(1000)
        await peer.send(refusal)
        await peer.gone()

    async with pair(script, maybe_tls) as (server, connection):
        assert (await post(connection, server, LARGE)).status == 200
        assert not connection.reusable
        connection.close()


async def test_an_answer_followed_by_a_reset_while_the_request_leaves_is_still_the_answer() -> None:
    async def script(peer: Peer) -> None:
        await peer.sock.recv(1000)
        await peer.send(OK)
        peer.sock.close()  # with unread bytes left, which makes it a reset

    async with pair(script, None) as (server, connection):
        assert (await post(connection, server, LARGE)).status == 200
        assert not connection.reusable


async def test_a_reset_while_the_request_leaves_is_maybe_sent() -> None:
    async def script(peer: Peer) -> None:
        await peer.sock.recv(1000)
        peer.reset()

    async with pair(script, None) as (server, connection):
        with pytest.raises(MaybeSent) as caught:
            await post(connection, server, LARGE)
        assert (caught.value.code, caught.value.status) == ("reset", None)


async def test_a_close_without_an_answer_is_maybe_sent(maybe_tls: Tls | None) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()

    async with pair(script, maybe_tls) as (server, connection):
        with pytest.raises(MaybeSent) as caught:
            await post(connection, server)
        assert (caught.value.phase, caught.value.code) == ("read", "closed")


async def test_a_reset_without_an_answer_is_maybe_sent(maybe_tls: Tls | None) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    async with pair(script, maybe_tls) as (server, connection):
        with pytest.raises(MaybeSent) as caught:
            await post(connection, server)
        assert (caught.value.phase, caught.value.code) == ("read", "reset")


async def test_a_hesitant_kernel_is_asked_again(maybe_tls: Tls | None) -> None:
    async with pair(answering, maybe_tls) as (server, connection):
        connection._sock = HesitantSocket(fileno=connection._sock.detach())
        for _ in range(3):
            assert (await post(connection, server)).body == b"ok"
            assert connection.reusable


async def test_a_write_of_which_the_kernel_took_nothing_is_not_sent(maybe_tls: Tls | None) -> None:
    async def script(peer: Peer) -> None:
        peer.reset()

    async with pair(script, maybe_tls) as (server, connection):
        await hear(connection)
        with pytest.raises(NotSent) as caught:
            await post(connection, server)
        assert (caught.value.phase, caught.value.code) == ("write", "reset")


@pytest.mark.parametrize("ending", ["finish", "reset", "unasked"])
async def test_an_idle_connection_shows_that_it_cannot_be_used_again(maybe_tls: Tls | None, ending: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer()
        await answered.wait()
        if ending == "unasked":
            await peer.send(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
        elif ending == "finish":
            await peer.finish()
        else:
            peer.reset()
            return
        await peer.gone()

    answered = trio.Event()
    async with pair(script, maybe_tls) as (server, connection):
        await post(connection, server)
        assert connection.is_alive()
        answered.set()
        await hear(connection)
        assert not connection.is_alive()
        connection.close()


async def test_what_comes_behind_the_answer_is_its_end(maybe_tls: Tls | None) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(OK + OK)
        await peer.gone()

    async with pair(script, maybe_tls) as (server, connection):
        assert (await post(connection, server)).body == b"ok"
        assert not connection.reusable
        connection.close()


async def test_the_answer_to_a_head_has_no_body_and_leaves_the_connection_usable(maybe_tls: Tls | None) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        await peer.answer_all()

    async with pair(script, maybe_tls) as (server, connection):
        assert (await post(connection, server, head_only=True)).body == b""
        assert connection.reusable
        assert (await post(connection, server)).body == b"ok"


class TestClosingAlert:
    """Over TLS a body delimited by the close needs the peer's word that it is the end."""

    HEAD = b"HTTP/1.1 200 OK\r\n\r\nok"

    async def test_ends_the_body(self, tls: Tls) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(self.HEAD)
            await peer.stream.aclose()

        async with pair(script, tls) as (server, connection):
            assert (await post(connection, server)).body == b"ok"
            assert not connection.reusable

    async def test_is_not_replaced_by_a_close(self, tls: Tls) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(self.HEAD)

        async with pair(script, tls) as (server, connection):
            with pytest.raises(MaybeSent) as caught:
                await post(connection, server)
            assert (caught.value.phase, caught.value.code, caught.value.status) == ("read", "truncated", 200)

    async def test_is_sent_by_a_connection_retired_and_not_by_one_closed(self, tls: Tls) -> None:
        endings: list[bytes] = []

        async def script(peer: Peer) -> None:
            await peer.answer()
            try:
                endings.append(bytes(await peer.stream.receive_some(10)))
            except trio.BrokenResourceError:
                endings.append(b"broken")
            done.set()

        async with peers(script, tls=tls.server_context()) as server:
            for way in ("retire", "close"):
                done = trio.Event()
                async with connected(server, tls) as connection:
                    await post(connection, server)
                    getattr(connection, way)()
                    await done.wait()

        assert endings == [b"", b"broken"]


async def test_bytes_forged_inside_tls_are_maybe_sent(tls: Tls) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.sock.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        await peer.gone()

    async with pair(script, tls) as (server, connection):
        with pytest.raises(MaybeSent) as caught:
            await post(connection, server)
        assert (caught.value.phase, caught.value.code) == ("read", "tls_failed")
        connection.close()


class TestInterruption:
    """The pool's watch calls ``interrupt``; the exchange then ends by itself."""

    @pytest.mark.parametrize(("body", "phase"), [(b"hello", "read"), (LARGE, "write")], ids=["reading", "writing"])
    async def test_ends_the_wait_under_way(self, maybe_tls: Tls | None, body: bytes, phase: str) -> None:
        async def silent(peer: Peer) -> None:
            await peer.stream.receive_some(1000)
            await trio.testing.wait_all_tasks_blocked()
            connection.interrupt()
            await left.wait()

        left = trio.Event()
        async with pair(silent, maybe_tls) as (server, connection):
            with pytest.raises(MaybeSent) as caught:
                await post(connection, server, body)
            left.set()
        assert (caught.value.phase, caught.value.code) == (phase, f"timeout_{phase}")

    async def test_of_a_request_that_left_late_is_maybe_sent(self) -> None:
        async def silent(peer: Peer) -> None:
            await peer.request()
            connection.interrupt()

        async with pair(silent, None) as (server, connection):
            connection._sock = HesitantSocket(fileno=connection._sock.detach())
            with pytest.raises(MaybeSent) as caught:
                await post(connection, server)
        assert caught.value.code == "timeout_read"

    async def test_gives_its_reason(self) -> None:
        async def silent(peer: Peer) -> None:
            await peer.request()
            connection.interrupt("pool_closed")

        async with pair(silent, None) as (server, connection):
            with pytest.raises(ExchangeFailed) as caught:
                await post(connection, server)
        assert caught.value.code == "pool_closed"

    async def test_between_two_waits_is_not_overlooked(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK[:-1])
            await peer.gone()

        async with pair(script, None) as (server, connection):
            feed = connection._reader.feed

            def feed_and_interrupt(data: bytes) -> bool:
                connection.interrupt()
                return feed(data)

            connection._reader = _Reader(connection._reader, feed_and_interrupt)  # type: ignore[assignment]
            with pytest.raises(MaybeSent) as caught:
                await post(connection, server)
            assert (caught.value.code, caught.value.status) == ("timeout_read", 200)
            connection.close()

    async def test_that_comes_with_the_answer_leaves_it_the_answer_but_ends_the_connection(self) -> None:
        async with pair(answering, None) as (server, connection):
            feed = connection._reader.feed

            def feed_and_interrupt(data: bytes) -> bool:
                connection.interrupt()
                return feed(data)

            connection._reader = _Reader(connection._reader, feed_and_interrupt)  # type: ignore[assignment]
            assert (await post(connection, server)).body == b"ok"
            assert not connection.reusable


class _Reader:
    """A reader with another ``feed``."""

    def __init__(self, reader: object, feed: object) -> None:
        self._reader = reader
        self.feed = feed

    def __getattr__(self, name: str) -> object:
        return getattr(self._reader, name)
