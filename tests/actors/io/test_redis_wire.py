"""Connecting, greeting, sending and receiving, against a real server and against peers that misbehave."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from attrs import evolve
from redis import exceptions

from actors.io.redis_protocol import pack
from actors.io.redis_url import Endpoint, parse_endpoint
from actors.io.redis_wire import Wire, dial
from actors.io.tls import TlsChannel
from house import Tls
from redis_peers import own_valkey, scripted_peer, tls_front


def socket_path(url: str) -> Path:
    return Path(parse_endpoint(url).path)


async def ask(endpoint: Endpoint, *commands: tuple[str | bytes | int, ...]) -> Any:
    wire = await dial(endpoint, 5)
    try:
        return await wire.ask(list(commands))
    finally:
        wire.close()


async def test_a_unix_socket_is_reached_and_the_connection_has_our_name(redis_url: str) -> None:
    assert await ask(parse_endpoint(redis_url), ("CLIENT", "GETNAME")) == [b"dispatcher"]


async def test_a_port_is_reached(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with own_valkey(tmp_path, port=str(port)):
        assert await ask(parse_endpoint(f"redis://localhost:{port}"), ("PING",)) == [b"PONG"]


async def test_the_database_is_the_one_of_the_url(redis_url: str) -> None:
    path = socket_path(redis_url)
    await ask(parse_endpoint(f"unix://{path}?db=3"), ("SET", "here", "3"))

    assert await ask(parse_endpoint(f"unix://{path}?db=0"), ("EXISTS", "here")) == [0]
    assert await ask(parse_endpoint(f"unix://{path}"), ("MOVE", "here", 1)) == [0]
    assert await ask(parse_endpoint(f"unix://{path}?db=3"), ("MOVE", "here", 0)) == [1]


async def test_a_database_the_server_does_not_have_is_its_error(redis_url: str) -> None:
    with pytest.raises(exceptions.ResponseError, match="DB index"):
        await ask(parse_endpoint(f"unix://{socket_path(redis_url)}?db=9999"), ("PING",))


async def test_a_password_alone_and_a_user_with_password_are_accepted(tmp_path: Path) -> None:
    with own_valkey(tmp_path, requirepass="s3cret") as server:
        await ask(
            parse_endpoint(f"unix://:s3cret@{server.path}"), ("ACL", "SETUSER", "worker", "on", ">hidden", "~*", "&*", "+@all")
        )

        assert await ask(parse_endpoint(f"unix://worker:hidden@{server.path}"), ("ACL", "WHOAMI")) == [b"worker"]


@pytest.mark.parametrize("credentials", ["", ":wrong@", "worker:s3cret@"])
async def test_wrong_credentials_are_an_authentication_error(tmp_path: Path, credentials: str) -> None:
    with own_valkey(tmp_path, requirepass="s3cret") as server:
        with pytest.raises(exceptions.AuthenticationError):
            await ask(parse_endpoint(f"unix://{credentials}{server.path}"), ("PING",))


async def test_a_user_who_may_not_ask_for_the_role_is_let_in(tmp_path: Path) -> None:
    with own_valkey(tmp_path) as server:
        await ask(parse_endpoint(server.url), ("ACL", "SETUSER", "worker", "on", ">hidden", "~*", "+get"))

        assert await ask(parse_endpoint(f"unix://worker:hidden@{server.path}"), ("GET", "k")) == [None]


async def test_a_replica_counts_as_not_connected(tmp_path: Path) -> None:
    with own_valkey(tmp_path, replicaof="127.0.0.1 1") as server:
        with pytest.raises(exceptions.ReadOnlyError):
            await ask(parse_endpoint(server.url), ("PING",))


async def test_tls_reaches_the_server(redis_url: str, tls: Tls) -> None:
    large = b"x" * 1_000_000
    async with tls_front(socket_path(redis_url), tls.server_context()) as port:
        for url in (f"rediss://localhost:{port}", f"rediss://127.0.0.1:{port}"):
            assert await ask(parse_endpoint(url, tls.client_context()), ("ECHO", large)) == [large]


async def test_tls_refuses_an_authority_it_does_not_know(redis_url: str, tls: Tls) -> None:
    async with tls_front(socket_path(redis_url), tls.server_context()) as port:
        with pytest.raises(exceptions.ConnectionError, match="certificate of the server is not accepted"):
            await ask(parse_endpoint(f"rediss://localhost:{port}"), ("PING",))


async def test_tls_refuses_a_certificate_for_another_name(redis_url: str, tls: Tls) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.authority.issue_cert("elsewhere.test").configure_cert(context)
    async with tls_front(socket_path(redis_url), context) as port:
        with pytest.raises(exceptions.ConnectionError, match="certificate of the server is not accepted"):
            await ask(parse_endpoint(f"rediss://localhost:{port}", tls.client_context()), ("PING",))


async def test_replies_that_come_with_the_end_of_a_tls_session_count(tls: Tls) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    wire = Wire(ours, "here", TlsChannel(tls.client_context(), "localhost"))
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = tls.server_context().wrap_bio(received, to_send, server_side=True)
    with trio.socket.from_stdlib_socket(theirs) as peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.shake_hands)
            while not handshaken(session):
                if to_send.pending:
                    await peer.send(to_send.read())
                received.write(await peer.recv(65_536))
        session.write(b"+OK\r\n")
        with suppress(ssl.SSLWantReadError):
            session.unwrap()
        await peer.send(to_send.read())

        await wire.receive()

        assert wire.next_reply() == b"OK"
        with pytest.raises(exceptions.ConnectionError, match="closed by server"):
            await wire.receive()
        wire.close()


def handshaken(session: ssl.SSLObject) -> bool:
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


async def test_a_name_that_no_certificate_can_have_is_a_connection_error(tmp_path: Path, tls: Tls) -> None:
    async with scripted_peer(tmp_path) as peer:
        endpoint = evolve(parse_endpoint("rediss://.", tls.client_context()), path=str(peer.path))
        with pytest.raises(exceptions.ConnectionError):
            await dial(endpoint, 5)


async def test_a_server_that_does_not_exist_is_a_connection_error(tmp_path: Path) -> None:
    with pytest.raises(exceptions.ConnectionError, match="No such file"):
        await dial(parse_endpoint(f"unix://{tmp_path}/nobody.sock"), 5)


async def test_a_port_nobody_listens_on_is_a_connection_error_that_says_so() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(exceptions.ConnectionError, match=r"the connection failed: .*(refused|failed)"):
            await dial(parse_endpoint(f"redis://127.0.0.1:{free.getsockname()[1]}"), 5)


@pytest.mark.parametrize(
    ("ping", "role", "error"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", b"*1\r\n$6\r\nmaster\r\n", exceptions.BusyLoadingError),
        (b"-NOAUTH Authentication required.\r\n", b"-NOAUTH Authentication required.\r\n", exceptions.AuthenticationError),
        (b"+PONG\r\n", b"*1\r\n$5\r\nslave\r\n", exceptions.ReadOnlyError),
        (b"+PONG\r\n", b"*2\r\n$8\r\nsentinel\r\n*0\r\n", exceptions.ReadOnlyError),
        (b"HTTP/1.1 400 Bad Request\r\n", b"", exceptions.InvalidResponse),
        (b"-MOVED\r\n", b"", exceptions.InvalidResponse),
    ],
)
async def test_a_server_that_is_not_ready_is_refused_and_the_socket_closed(
    tmp_path: Path, ping: bytes, role: bytes, error: type[Exception]
) -> None:
    async with scripted_peer(tmp_path) as peer, trio.open_nursery() as nursery:

        async def serve() -> None:
            conversation = await peer.accept()
            await conversation.greet(ping=ping, role=role)
            await conversation.closed_by_client()

        nursery.start_soon(serve)
        with pytest.raises(error):
            await dial(parse_endpoint(peer.url), 5)


async def test_a_server_that_does_not_know_auth_gives_no_credentials_away(tmp_path: Path) -> None:
    async with scripted_peer(tmp_path) as peer, trio.open_nursery() as nursery:

        async def serve() -> None:
            conversation = await peer.accept()
            assert await conversation.command() == [b"AUTH", b"someone", b"s3cret"]
            await conversation.say(b"-ERR unknown command 'AUTH', with args beginning with: 'someone' 's3cret'\r\n")
            await conversation.closed_by_client()

        nursery.start_soon(serve)
        with pytest.raises(exceptions.AuthenticationError) as refusal:
            await dial(parse_endpoint(f"unix://someone:s3cret@{peer.path}"), 5)

    assert "s3cret" not in str(refusal.value)
    assert refusal.value.__cause__ is None


async def test_a_peer_that_is_silent_ends_the_attempt_at_its_deadline(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with scripted_peer(tmp_path) as peer, trio.open_nursery() as nursery:

        async def serve() -> None:
            await (await peer.accept()).closed_by_client()

        nursery.start_soon(serve)
        started_s = trio.current_time()
        with pytest.raises(exceptions.TimeoutError, match="no connection within 5 s"):
            await dial(parse_endpoint(peer.url), 5)

        assert trio.current_time() - started_s == pytest.approx(5)


async def test_an_attempt_that_is_cancelled_closes_its_socket(tmp_path: Path) -> None:
    async with scripted_peer(tmp_path) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(dial, parse_endpoint(peer.url), 5)
        conversation = await peer.accept()
        await conversation.command()

        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await conversation.closed_by_client()


async def test_more_than_the_socket_takes_is_sent_as_the_peer_reads(tmp_path: Path) -> None:
    large = b"x" * 10_000_000
    async with scripted_peer(tmp_path) as peer:
        wires, conversations = [], []

        async def connect() -> None:
            wires.append(await dial(parse_endpoint(peer.url), 5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect)
            conversations.append(await peer.welcome())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wires[0].send, pack(("ECHO", large)))

            assert await conversations[0].command() == [b"ECHO", large]
        wires[0].close()


async def test_a_reply_that_does_not_end_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.io.redis_wire._REPLY_BYTES_MAX", 100_000)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    wire = Wire(ours, "here", None)
    with theirs:
        theirs.sendall(b"$1000000\r\n" + b"x" * 100_001)
        await wire.receive()
        await wire.receive()
        with pytest.raises(exceptions.InvalidResponse, match="more than"):
            wire.next_reply()
    wire.close()


async def test_a_connection_that_breaks_is_a_connection_error(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    wire = Wire(ours, "here", None)
    theirs.close()

    with pytest.raises(exceptions.ConnectionError, match="closed by server"):
        await wire.receive()
    with pytest.raises(exceptions.ConnectionError, match="Broken pipe"):
        await wire.send(b"*1\r\n$4\r\nPING\r\n")
    wire.close()
    wire.close()
