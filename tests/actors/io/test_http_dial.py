from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.io import http_dial
from actors.io.http_dial import dial
from actors.io.http_terms import NotSent
from actors.io.tls import client_context
from dispatcher.http_message import Origin
from house import Tls
from http_peer import HesitantSocket, Peer, Server, peers

SILENT_S = 1000.0


class Resolver(trio.abc.HostnameResolver):
    """Answers every name with these addresses; None never answers."""

    def __init__(self, addresses: list[tuple[str, int]] | None) -> None:
        self.addresses = addresses

    async def getaddrinfo(self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
        if self.addresses is None:
            await trio.sleep_forever()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in self.addresses or ()]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses connections for as long as the block runs."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that neither takes nor refuses connections: its queue is full."""
    with socket.socket() as listener, socket.socket() as filler:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filler.connect(listener.getsockname())
        yield listener.getsockname()[1]


async def until_gone(peer: Peer) -> None:
    await peer.gone()


async def failure(origin: Origin, context: ssl.SSLContext | None = None, within_s: float = inf) -> NotSent:
    with pytest.raises(NotSent) as caught:
        await dial(origin, client_context(context), trio.current_time() + within_s)
    return caught.value


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_it_connects_to_an_address_of_either_family(host: str) -> None:
    async with peers(until_gone, host=host) as server:
        sock, tls = await dial(server.origin, client_context(), inf)
        with sock:
            assert sock.getpeername()[:2] == (host, server.origin.port)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert not sock.getblocking()
            assert tls is None


async def test_it_resolves_names() -> None:
    async with peers(until_gone) as server:
        sock, _ = await dial(server.origin._replace(host="localhost"), client_context(), inf)
        sock.close()


async def test_it_tries_every_address_until_one_answers() -> None:
    async with peers(until_gone) as server:
        with closed_port() as closed:
            trio.socket.set_custom_hostname_resolver(
                Resolver([("127.0.0.1", closed), ("127.0.0.1", closed), ("127.0.0.1", server.origin.port)])
            )
            sock, _ = await dial(Origin("http", "three.test", 80), client_context(), inf)
        with sock:
            assert sock.getpeername()[1] == server.origin.port


async def test_a_silent_address_leaves_time_for_the_next(autojump_clock: MockClock) -> None:
    async with peers(until_gone) as server:
        with silent_port() as silent:
            trio.socket.set_custom_hostname_resolver(Resolver([("127.0.0.1", silent), ("127.0.0.1", server.origin.port)]))
            start_s = trio.current_time()
            sock, _ = await dial(Origin("http", "two.test", 80), client_context(), start_s + SILENT_S)
            sock.close()

    assert trio.current_time() - start_s == SILENT_S / 2


async def test_a_refusal_is_not_sent() -> None:
    with closed_port() as port:
        problem = await failure(Origin("http", "127.0.0.1", port))

    assert (problem.phase, problem.code) == ("connect", "refused")
    assert isinstance(problem.__cause__, ConnectionRefusedError)


async def test_a_name_without_address_is_not_sent() -> None:
    class NoName(Resolver):
        async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    trio.socket.set_custom_hostname_resolver(NoName([]))
    problem = await failure(Origin("http", "name.invalid", 80))

    assert (problem.phase, problem.code) == ("resolve", "name_unresolved")
    assert isinstance(problem.__cause__, socket.gaierror)


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..test", "\ud800.test"])
async def test_what_cannot_be_a_name_is_not_sent(host: str) -> None:
    problem = await failure(Origin("http", host, 80))

    assert (problem.phase, problem.code) == ("resolve", "name_unresolved")


async def test_a_name_that_resolves_to_nothing_is_not_sent() -> None:
    trio.socket.set_custom_hostname_resolver(Resolver([]))

    problem = await failure(Origin("http", "none.test", 80))

    assert (problem.phase, problem.code) == ("connect", "connect_failed")


async def test_an_impossible_port_is_not_sent() -> None:
    trio.socket.set_custom_hostname_resolver(Resolver([("127.0.0.1", 70_000)]))

    problem = await failure(Origin("http", "far.test", 70_000))

    assert (problem.phase, problem.code) == ("connect", "connect_failed")


class TestDeadline:
    async def test_in_resolving(self, autojump_clock: MockClock) -> None:
        trio.socket.set_custom_hostname_resolver(Resolver(None))

        problem = await failure(Origin("http", "slow.test", 80), within_s=3)

        assert (problem.phase, problem.code) == ("resolve", "timeout_resolve")

    async def test_in_connecting(self, autojump_clock: MockClock) -> None:
        with silent_port() as port:
            problem = await failure(Origin("http", "127.0.0.1", port), within_s=3)

        assert (problem.phase, problem.code) == ("connect", "timeout_connect")

    async def test_in_the_handshake(self, autojump_clock: MockClock) -> None:
        async with peers(until_gone) as server:
            problem = await failure(server.origin._replace(scheme="https"), within_s=3)

        assert (problem.phase, problem.code) == ("tls", "timeout_tls")


class TestCancellation:
    """Nothing stays open, wherever it lands."""

    async def test_in_resolving(self, autojump_clock: MockClock) -> None:
        trio.socket.set_custom_hostname_resolver(Resolver(None))
        with trio.move_on_after(1) as scope:
            await dial(Origin("http", "slow.test", 80), client_context(), inf)

        assert scope.cancelled_caught

    async def test_in_connecting(self, autojump_clock: MockClock) -> None:
        with silent_port() as port, trio.move_on_after(1) as scope:
            await dial(Origin("http", "127.0.0.1", port), client_context(), inf)

        assert scope.cancelled_caught

    async def test_in_the_handshake(self, autojump_clock: MockClock) -> None:
        left = trio.Event()

        async def silent(peer: Peer) -> None:
            await peer.gone()
            left.set()

        async with peers(silent) as server:
            with trio.move_on_after(1) as scope:
                await dial(server.origin._replace(scheme="https"), client_context(), inf)
            assert scope.cancelled_caught
            await left.wait()


class TestTls:
    async def test_a_trusted_peer_is_connected_to(self, tls: Tls) -> None:
        async with peers(until_gone, tls=tls.server_context()) as server:
            sock, channel = await dial(server.origin, client_context(tls.client_context()), inf)
            sock.close()
            assert channel is not None

    async def test_a_hesitant_kernel_is_asked_again(self, tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http_dial, "socket", SimpleNamespace(**{**vars(socket), "socket": HesitantSocket}))
        async with peers(until_gone, tls=tls.server_context()) as server:
            sock, channel = await dial(server.origin, client_context(tls.client_context()), inf)
            sock.close()
            assert channel is not None

    async def test_the_name_asked_for_is_sent(self, tls: Tls) -> None:
        asked: list[str | None] = []
        context = tls.server_context()
        context.sni_callback = lambda _, name, __: asked.append(name)

        async with peers(until_gone, tls=context) as server:
            origin = server.origin._replace(host="localhost")
            sock, _ = await dial(origin, client_context(tls.client_context()), inf)
            sock.close()

        assert asked == ["localhost"]

    async def test_an_unknown_authority_is_refused(self, tls: Tls) -> None:
        async with refusing(tls) as server:
            problem = await failure(server.origin)

        assert (problem.phase, problem.code) == ("tls", "tls_verify")
        assert isinstance(problem.__cause__, ssl.SSLCertVerificationError)

    async def test_a_certificate_for_another_name_is_refused(self, tls: Tls) -> None:
        trio.socket.set_custom_hostname_resolver(Resolver([]))
        async with refusing(tls) as server:
            trio.socket.set_custom_hostname_resolver(Resolver([("127.0.0.1", server.origin.port)]))
            problem = await failure(server.origin._replace(host="other.test"), tls.client_context())

        assert (problem.phase, problem.code) == ("tls", "tls_verify")

    async def test_what_is_not_tls_is_refused(self) -> None:
        async def plain(peer: Peer) -> None:
            await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await peer.gone()

        async with peers(plain) as server:
            problem = await failure(server.origin._replace(scheme="https"))

        assert (problem.phase, problem.code) == ("tls", "tls_failed")

    async def test_a_close_in_the_handshake_is_not_sent(self) -> None:
        async def closing(peer: Peer) -> None:
            await peer.sock.recv(1000)
            await peer.finish()
            await peer.gone()

        async with peers(closing) as server:
            problem = await failure(server.origin._replace(scheme="https"))

        assert (problem.phase, problem.code) == ("tls", "closed")

    async def test_a_reset_in_the_handshake_is_not_sent(self) -> None:
        async def resetting(peer: Peer) -> None:
            await peer.sock.recv(1000)
            peer.reset()

        async with peers(resetting) as server:
            problem = await failure(server.origin._replace(scheme="https"))

        assert (problem.phase, problem.code) == ("tls", "reset")

    async def test_a_host_that_cannot_be_a_server_name_is_not_sent(self) -> None:
        async with peers(until_gone) as server:
            trio.socket.set_custom_hostname_resolver(Resolver([("127.0.0.1", server.origin.port)]))
            problem = await failure(server.origin._replace(scheme="https", host=""))

        assert (problem.phase, problem.code) == ("tls", "tls_failed")


@asynccontextmanager
async def refusing(tls: Tls) -> AsyncIterator[Server]:
    """A server whose clients break off the handshake."""

    async def shake_in_vain(peer: Peer) -> None:
        with suppress(trio.BrokenResourceError):
            await peer.shake_hands(tls.server_context())
            await peer.stream.receive_some(1)

    async with peers(shake_in_vain) as server:
        yield Server(server.origin._replace(scheme="https"))
