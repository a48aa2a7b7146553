"""httpx's own transport and ours are held to the same behaviour, over real sockets and scripted peers.

What follows the suite is what only ours promises.
"""

from __future__ import annotations

import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
import trustme
from trio.testing import MockClock

from actors.io.http import PoolLimits, TrioTransport, open_http_pool
from house import Tls
from http_peer import OK, OK_AND_CLOSE, Peer, Received, Script, Server, peers

Client = httpx.AsyncClient
OpenClient = Callable[..., AbstractAsyncContextManager[Client]]
LARGE = b"x" * (4 << 20)


@asynccontextmanager
async def httpx_client(context: ssl.SSLContext, connections_max: int = 10, **options: Any) -> AsyncIterator[Client]:
    limits = httpx.Limits(max_connections=connections_max, max_keepalive_connections=connections_max)
    transport = httpx.AsyncHTTPTransport(verify=context, limits=limits, trust_env=False)
    async with Client(transport=transport, trust_env=False, **options) as client:
        yield client


@asynccontextmanager
async def our_client(context: ssl.SSLContext, connections_max: int = 10, **options: Any) -> AsyncIterator[Client]:
    async with open_http_pool(limits=PoolLimits(connections_max=connections_max), tls_context=context) as pool:
        async with Client(transport=TrioTransport(pool), trust_env=False, **options) as client:
            yield client
        assert pool.statistics().in_use == pool.statistics().waiting == 0


@pytest.fixture(params=[httpx_client, our_client], ids=["httpx", "ours"])
def open_client(request: pytest.FixtureRequest, tls: Tls) -> OpenClient:
    def open_client(**options: Any) -> AbstractAsyncContextManager[Client]:
        client: AbstractAsyncContextManager[Client] = request.param(tls.client_context(), **options)
        return client

    return open_client


class NoNames(trio.abc.HostnameResolver):
    """Knows nobody."""

    async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError


def url(server: Server, target: str = "/") -> str:
    return f"{server.origin}{target}"


async def answering(peer: Peer) -> None:
    await peer.answer_all()


def answer(data: bytes) -> Script:
    """Answer one request, then leave the connection open until the client closes."""

    async def script(peer: Peer) -> None:
        await peer.answer(data)
        await peer.gone()

    return script


async def silent(peer: Peer) -> None:
    await peer.gone()


class TestResponse:
    @pytest.mark.parametrize(
        ("wire", "status", "body"),
        [
            (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello"),
            (b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n", 202, b""),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", 200, b"hello"),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nt: u\r\n\r\n", 200, b"hello"),
            (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
            (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", 304, b""),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok", 201, b"ok"),
            (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno", 500, b"no"),
            (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, b"ok"),
        ],
    )
    async def test_is_framed_as_the_peer_says(self, open_client: OpenClient, wire: bytes, status: int, body: bytes) -> None:
        async with peers(answer(wire)) as server, open_client() as client:
            response = await client.get(url(server))
        assert (response.status_code, response.content) == (status, body)

    async def test_may_be_delimited_by_the_close(self, open_client: OpenClient) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(b"HTTP/1.1 200 OK\r\n\r\nhel")
            await peer.send(b"lo")

        async with peers(script) as server, open_client() as client:
            assert (await client.get(url(server))).content == b"hello"

    async def test_may_arrive_byte_by_byte(self, open_client: OpenClient) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            for byte in b"HTTP/1.1 200 OK\r\nx-a: b\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n":
                await peer.send(bytes([byte]))
                await trio.lowlevel.checkpoint()
            await peer.gone()

        async with peers(script) as server, open_client() as client:
            response = await client.get(url(server))
        assert (response.headers["x-a"], response.content) == ("b", b"ok")

    async def test_keeps_repeated_headers(self, open_client: OpenClient) -> None:
        wire = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-A: b\r\ncontent-length: 0\r\n\r\n"
        async with peers(answer(wire)) as server, open_client() as client:
            response = await client.get(url(server))
        assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
        assert response.headers["x-a"] == "b"

    async def test_to_a_head_has_no_body(self, open_client: OpenClient) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
            await peer.answer_all()

        async with peers(script) as server, open_client() as client:
            response = await client.head(url(server))
            assert (response.content, response.headers["content-length"]) == (b"", "5")
            assert (await client.get(url(server))).content == b"ok"
            assert server.accepted == 1

    async def test_content_coding_is_httpxs_to_remove(self, open_client: OpenClient) -> None:
        packed = gzip.compress(b"hello")
        wire = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(packed), packed)
        async with peers(answer(wire)) as server, open_client() as client:
            assert (await client.get(url(server))).text == "hello"

    async def test_can_be_streamed(self, open_client: OpenClient) -> None:
        async with peers(answering) as server, open_client() as client:
            async with client.stream("GET", url(server)) as response:
                assert b"".join([part async for part in response.aiter_bytes()]) == b"ok"

    async def test_may_come_before_the_request_has_left(self, open_client: OpenClient) -> None:
        async def script(peer: Peer) -> None:
            await peer.stream.receive_some(1000)
            await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await peer.gone()

        async with peers(script) as server, open_client() as client:
            assert (await client.post(url(server), content=LARGE)).status_code == 413


class TestRequest:
    async def test_arrives_as_it_was_given(self, open_client: OpenClient) -> None:
        received: list[Received] = []

        async def script(peer: Peer) -> None:
            received.append(await peer.answer())
            await peer.gone()

        async with peers(script) as server, open_client() as client:
            await client.post(url(server, "/a/b?c=d%20e"), content=b"hello", headers={"X-A": "b", "Content-Type": "text/plain"})
        (request,) = received
        assert request.line == b"POST /a/b?c=d%20e HTTP/1.1"
        assert request.body == b"hello"
        assert request.headers[b"host"] == b"127.0.0.1:%d" % server.origin.port
        assert request.headers[b"content-length"] == b"5"
        assert (request.headers[b"x-a"], request.headers[b"content-type"]) == (b"b", b"text/plain")

    async def test_may_name_another_host(self, open_client: OpenClient) -> None:
        received: list[Received] = []

        async def script(peer: Peer) -> None:
            received.append(await peer.answer())
            await peer.gone()

        async with peers(script) as server, open_client() as client:
            await client.get(url(server), headers={"Host": "other.test"})
        assert received[0].headers[b"host"] == b"other.test"

    async def test_body_may_be_a_stream(self, open_client: OpenClient) -> None:
        received: list[Received] = []

        async def script(peer: Peer) -> None:
            received.append(await peer.answer())
            await peer.gone()

        async def parts() -> AsyncIterator[bytes]:
            yield b"hel"
            yield b"lo"

        async with peers(script) as server, open_client() as client:
            await client.post(url(server), content=parts())
        assert received[0].body == b"hello"

    async def test_may_be_large(self, open_client: OpenClient) -> None:
        async def script(peer: Peer) -> None:
            received = await peer.request()
            assert received is not None
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n%d" % len(received.body))
            await peer.gone()

        async with peers(script) as server, open_client() as client:
            assert (await client.post(url(server), content=LARGE)).text == str(len(LARGE))

    async def test_reaches_an_ipv6_address(self, open_client: OpenClient) -> None:
        received: list[Received] = []

        async def script(peer: Peer) -> None:
            received.append(await peer.answer())
            await peer.gone()

        async with peers(script, host="::1") as server, open_client() as client:
            assert (await client.get(url(server))).status_code == 200
        assert received[0].headers[b"host"] == b"[::1]:%d" % server.origin.port

    async def test_reaches_a_name(self, open_client: OpenClient) -> None:
        async with peers(answering) as server, open_client() as client:
            assert (await client.get(f"http://localhost:{server.origin.port}/")).status_code == 200


class TestConnection:
    async def test_is_kept_alive(self, open_client: OpenClient) -> None:
        async with peers(answering) as server, open_client() as client:
            for _ in range(3):
                await client.get(url(server))
            assert server.accepted == 1

    async def test_is_kept_alive_over_tls(self, open_client: OpenClient, tls: Tls) -> None:
        async with peers(answering, tls=tls.server_context()) as server, open_client() as client:
            for _ in range(3):
                await client.get(url(server))
            assert server.accepted == 1

    @pytest.mark.parametrize(
        "wire",
        [
            OK_AND_CLOSE,
            b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        ],
        ids=["close", "1.0"],
    )
    async def test_is_not_used_again(self, open_client: OpenClient, wire: bytes) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(wire if peer.number == 1 else OK)
            await peer.gone()

        async with peers(script) as server, open_client() as client:
            for _ in range(2):
                assert (await client.get(url(server))).content == b"ok"
            assert server.accepted == 2

    async def test_closed_while_idle_is_replaced(self, open_client: OpenClient) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer()
            await peer.finish()
            closed.set()
            await peer.gone()

        closed = trio.Event()
        async with peers(script) as server, open_client() as client:
            assert (await client.post(url(server), content=b"1")).status_code == 200
            await closed.wait()
            assert (await client.post(url(server), content=b"2")).status_code == 200
            assert server.accepted == 2

    async def test_is_one_of_as_many_as_allowed(self, open_client: OpenClient) -> None:
        async with peers(answering) as server, open_client(connections_max=2) as client:
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(client.get, url(server))
            assert server.accepted == 2


class TestError:
    async def test_a_refused_connection(self, open_client: OpenClient) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            async with open_client() as client:
                with pytest.raises(httpx.ConnectError) as caught:
                    await client.get(f"http://127.0.0.1:{closed.getsockname()[1]}/")
                assert caught.value.request.method == "GET"

    async def test_an_unknown_name(self, open_client: OpenClient) -> None:
        trio.socket.set_custom_hostname_resolver(NoNames())
        async with open_client() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("http://name.invalid/")

    async def test_a_peer_that_closes_without_answering(self, open_client: OpenClient) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()

        async with peers(script) as server, open_client() as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(url(server))

    async def test_a_peer_that_resets(self, open_client: OpenClient) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            peer.reset()

        async with peers(script) as server, open_client() as client:
            with pytest.raises(httpx.ReadError):
                await client.get(url(server))

    @pytest.mark.parametrize(
        "wire",
        [
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-le",
        ],
        ids=["length", "chunked", "head"],
    )
    async def test_a_truncated_response(self, open_client: OpenClient, wire: bytes) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(wire)

        async with peers(script) as server, open_client() as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(url(server))

    @pytest.mark.parametrize(
        "wire",
        [
            b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: banana\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok",
        ],
    )
    async def test_what_is_not_http(self, open_client: OpenClient, wire: bytes) -> None:
        async with peers(answer(wire)) as server, open_client() as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(url(server))

    async def test_a_request_that_cannot_be_written(self, open_client: OpenClient) -> None:
        async with peers(answering) as server, open_client() as client:
            with pytest.raises(httpx.LocalProtocolError):
                await client.get(url(server), headers={"x-a": "b\r\nx-c: d"})

    async def test_another_scheme(self, open_client: OpenClient) -> None:
        async with open_client() as client:
            with pytest.raises(httpx.UnsupportedProtocol):
                await client.get("ftp://example.test/")

    async def test_a_silent_peer(self, open_client: OpenClient, autojump_clock: MockClock) -> None:
        async with peers(silent) as server, open_client(timeout=httpx.Timeout(None, read=3)) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(url(server))

    async def test_a_silent_handshake(self, open_client: OpenClient, autojump_clock: MockClock) -> None:
        async with peers(silent) as server, open_client(timeout=httpx.Timeout(None, connect=3)) as client:
            with pytest.raises(httpx.ConnectTimeout):
                await client.get(url(server).replace("http:", "https:"))

    async def test_no_place_in_the_pool(self, open_client: OpenClient, autojump_clock: MockClock) -> None:
        async with peers(silent) as server, open_client(connections_max=1, timeout=None) as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.get, url(server))
                await trio.sleep(1)
                with pytest.raises(httpx.PoolTimeout):
                    await client.get(url(server), timeout=httpx.Timeout(None, pool=3))
                nursery.cancel_scope.cancel()


class TestTls:
    async def test_the_peer_must_be_known_to_a_trusted_authority(self, open_client: OpenClient) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        async with peers(silent, tls=context) as server, open_client() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(url(server))

    async def test_the_peer_must_have_the_name_asked_for(self, open_client: OpenClient, tls: Tls) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.authority.issue_cert("other.test").configure_cert(context)
        async with peers(silent, tls=context) as server, open_client() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(url(server))

    async def test_what_is_not_tls_is_refused(self, open_client: OpenClient) -> None:
        async def plain(peer: Peer) -> None:
            await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await peer.gone()

        async with peers(plain) as server, open_client() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(url(server).replace("http:", "https:"))

    async def test_http_1_1_is_agreed_on(self, open_client: OpenClient, tls: Tls) -> None:
        agreed: list[str | None] = []

        async def script(peer: Peer) -> None:
            assert isinstance(peer.stream, trio.SSLStream)
            agreed.append(peer.stream.selected_alpn_protocol())
            await peer.answer_all()

        context = tls.server_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        async with peers(script, tls=context) as server, open_client() as client:
            assert (await client.get(url(server))).http_version == "HTTP/1.1"
        assert agreed == ["http/1.1"]

    async def test_a_large_exchange_crosses_records(self, open_client: OpenClient, tls: Tls) -> None:
        async def script(peer: Peer) -> None:
            received = await peer.request()
            assert received is not None
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % 100_000 + received.body[:100_000])
            await peer.gone()

        async with peers(script, tls=tls.server_context()) as server, open_client() as client:
            assert (await client.post(url(server), content=LARGE)).content == LARGE[:100_000]


class TestOnlyOurs:
    """Where httpx's own transport promises less."""

    async def test_a_cancelled_request_gives_its_place_back(self, tls: Tls, autojump_clock: MockClock) -> None:
        async def script(peer: Peer) -> None:
            if peer.number % 2:
                await peer.gone()
            else:
                await peer.answer_all(OK_AND_CLOSE)

        async with peers(script) as server, our_client(tls.client_context(), connections_max=1, timeout=None) as client:
            for _ in range(5):
                with trio.move_on_after(1) as scope:
                    await client.get(url(server))
                assert scope.cancelled_caught
                assert (await client.get(url(server))).status_code == 200

    @pytest.mark.parametrize(
        "leftover", [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nnot yours", b"trailing garbage"], ids=["pipelined", "garbage"]
    )
    async def test_what_came_behind_an_answer_is_nobodys_answer(self, tls: Tls, leftover: bytes) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(OK + leftover if peer.number == 1 else OK)
            await peer.gone()

        async with peers(script) as server, our_client(tls.client_context()) as client:
            for _ in range(2):
                assert (await client.get(url(server))).content == b"ok"
            assert server.accepted == 2

    async def test_a_deaf_peer_leaves_nothing_half_done(self, tls: Tls, autojump_clock: MockClock) -> None:
        async def deaf(peer: Peer) -> None:
            await left.wait()

        left = trio.Event()
        async with peers(deaf) as server, our_client(tls.client_context(), timeout=httpx.Timeout(None, write=3)) as client:
            with pytest.raises(httpx.WriteTimeout):
                await client.post(url(server), content=LARGE * 4)
            left.set()

    async def test_the_read_timeout_is_for_the_whole_response(self, tls: Tls, autojump_clock: MockClock) -> None:
        async def dribble(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                await peer.send(b"x")
                await trio.sleep(1)

        async with peers(dribble) as server, our_client(tls.client_context(), timeout=httpx.Timeout(None, read=3)) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(url(server))

    async def test_the_whole_request_may_have_a_deadline(self, tls: Tls, autojump_clock: MockClock) -> None:
        async with peers(silent) as server, open_http_pool() as pool:
            async with Client(transport=TrioTransport(pool, total_s=3), timeout=None) as client:
                with pytest.raises(httpx.ReadTimeout):
                    await client.get(url(server))

    async def test_bodies_are_limited_both_ways(self, tls: Tls) -> None:
        wire = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n" + b"x" * 11
        async with peers(answer(wire)) as server, open_http_pool(limits=PoolLimits(body_bytes_max=10)) as pool:
            async with Client(transport=TrioTransport(pool, request_body_bytes_max=10)) as client:
                with pytest.raises(httpx.LocalProtocolError):
                    await client.post(url(server), content=b"x" * 11)
                with pytest.raises(httpx.RemoteProtocolError):
                    await client.post(url(server), content=b"x" * 10)

    async def test_closing_the_client_leaves_the_pool_open(self) -> None:
        async with peers(answering) as server, open_http_pool() as pool:
            for _ in range(2):
                async with Client(transport=TrioTransport(pool)) as client:
                    await client.get(url(server))
            assert server.accepted == 1

    async def test_a_close_without_tlss_closing_alert_does_not_end_a_body(self, tls: Tls) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(b"HTTP/1.1 200 OK\r\n\r\nhello")

        async with peers(script, tls=tls.server_context()) as server, our_client(tls.client_context()) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(url(server))
