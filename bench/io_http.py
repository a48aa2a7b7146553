"""What one outbound POST costs in client CPU: our pool, our transport under httpx, httpx's own, and the bare floor.

The server is a process of its own on a plain epoll loop; every client keeps as many requests under way as it has
connections. Rounds are interleaved, so that a busy machine hurts all alike. The *floor* is a socket, a parser and
Trio's wait, without pool, deadlines, limits or errors: what remains above it is what this project's features cost.

    python bench/io_http.py [--exchanges 4000] [--rounds 7] [--connections 16] [--only pool]
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import httpx
import trio
import trustme
from httptools import HttpResponseParser

from actors.io.http import Deadlines, HttpPool, PoolLimits, TrioTransport, open_http_pool
from actors.io.http_dial import dial
from actors.io.tls import RECORD_BYTES_MAX, TlsChannel, client_context
from dispatcher.http_message import HttpRequest, Origin

BODY = b'{"personalizations": [' + b"x" * 676 + b"]}"
HEADERS = (
    (b"authorization", b"Bearer SG." + b"k" * 60),
    (b"content-type", b"application/json"),
    (b"idempotency-key", b"0192d3a4-7c1e-7f00-8000-0123456789ab"),
)
RESPONSE = (
    b"HTTP/1.1 202 Accepted\r\nServer: nginx\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT\r\nContent-Length: 0\r\n"
    b"Connection: keep-alive\r\nX-Message-Id: 14c5d75ce93.dfd.64b469\r\nAccess-Control-Allow-Origin: https://example.test\r\n"
    b"Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n\r\n"
)
PATH = b"/v3/mail/send"

Post = Callable[[], Awaitable[None]]


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        self.sock = sock
        self.received = b""
        self.shaken = context is None
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = None if context is None else context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def serve(self) -> bool:
        """Answer what arrived. False when the client has gone."""
        try:
            data = self.sock.recv(65_536)
        except OSError:
            return False
        if not data:
            return False
        if self.session is None:
            if self.is_request(data):
                self.sock.send(RESPONSE)
            return True
        self.incoming.write(data)
        try:
            if not self.shaken:
                self.session.do_handshake()
                self.shaken = True
            while True:
                plain = self.session.read(RECORD_BYTES_MAX)
                if not plain:
                    return False
                if self.is_request(plain):
                    self.session.write(RESPONSE)
        except ssl.SSLWantReadError:
            pass
        if self.outgoing.pending:
            self.sock.send(self.outgoing.read())
        return True

    def is_request(self, data: bytes) -> bool:
        self.received += data
        if not self.received.endswith(BODY):
            return False
        self.received = b""
        return True


def serve(certificate: str | None) -> None:
    """Print the port, then serve until standard input closes."""
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    print(listener.getsockname()[1], flush=True)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    poll.register(0, select.EPOLLIN)
    peers: dict[int, Peer] = {}
    while True:
        for fd, _ in poll.poll():
            if fd == 0:
                return
            if fd == listener.fileno():
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peers[sock.fileno()] = Peer(sock, context)
                poll.register(sock, select.EPOLLIN)
            elif not peers[fd].serve():
                poll.unregister(fd)
                peers.pop(fd).sock.close()


@asynccontextmanager
async def server(certificate: str | None) -> AsyncIterator[int]:
    command = [sys.executable, __file__, "--serve", *([] if certificate is None else ["--certificate", certificate])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


class Floor:
    """A connection with nothing around it."""

    def __init__(self, sock: socket.socket, tls: TlsChannel | None) -> None:
        self.sock, self.tls = sock, tls
        self.answers = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.parser = HttpResponseParser(self)
        head = b"".join(b"%b: %b\r\n" % header for header in HEADERS)
        self.head = b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\n%bcontent-length: %d\r\n\r\n" % (PATH, head, len(BODY))

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_message_complete(self) -> None:
        self.answers += 1

    async def post(self) -> None:
        before = self.answers
        self.headers = []
        wire = self.head + BODY
        self.sock.send(wire if self.tls is None else self.tls.encrypt(wire))
        while self.answers == before:
            await trio.lowlevel.wait_readable(self.sock.fileno())
            data = self.sock.recv(65_536)
            if self.tls is None:
                self.parser.feed_data(data)
                continue
            self.tls.receive(data)
            while self.answers == before and (plain := self.tls.decrypt(RECORD_BYTES_MAX)):
                self.parser.feed_data(plain)
        assert self.parser.get_status_code() == 202

    async def post_in_a_scope(self) -> None:
        with trio.CancelScope(deadline=trio.current_time() + 20):
            await self.post()


class TrioSocketFloor(Floor):
    """The same through ``trio.socket``, which tries to receive before it waits."""

    def __init__(self, sock: socket.socket, tls: TlsChannel | None) -> None:
        super().__init__(sock, tls)
        self.trio_sock = trio.socket.from_stdlib_socket(sock)

    async def post(self) -> None:
        before = self.answers
        self.headers = []
        wire = self.head + BODY
        await self.trio_sock.send(wire if self.tls is None else self.tls.encrypt(wire))
        while self.answers == before:
            data = await self.trio_sock.recv(65_536)
            if self.tls is None:
                self.parser.feed_data(data)
                continue
            self.tls.receive(data)
            while self.answers == before and (plain := self.tls.decrypt(RECORD_BYTES_MAX)):
                self.parser.feed_data(plain)
        assert self.parser.get_status_code() == 202


class SslStreamFloor(Floor):
    """The same through ``trio.SSLStream``."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(sock, None)
        plain = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self.stream = trio.SSLStream(plain, context, server_hostname="127.0.0.1")

    async def post(self) -> None:
        before = self.answers
        self.headers = []
        await self.stream.send_all(self.head + BODY)
        while self.answers == before:
            self.parser.feed_data(await self.stream.receive_some(65_536))
        assert self.parser.get_status_code() == 202


async def post_httpx(client: httpx.AsyncClient, url: str, headers: list[tuple[bytes, bytes]]) -> None:
    response = await client.post(url, content=BODY, headers=headers)
    assert response.status_code == 202


async def post_pool(pool: HttpPool, origin: Origin, deadlines: Deadlines) -> None:
    response = await pool.exchange(HttpRequest(origin, b"POST", PATH, HEADERS, BODY), deadlines)
    assert response.status == 202


async def round_cpu_us(posts: list[Post], exchanges: int) -> float:
    """CPU of this process per exchange, all ``posts`` running side by side."""
    each = exchanges // len(posts)

    async def caller(post: Post) -> None:
        for _ in range(each):
            await post()

    before_s = time.process_time()
    async with trio.open_nursery() as nursery:
        for post in posts:
            nursery.start_soon(caller, post)
    return (time.process_time() - before_s) / (each * len(posts)) * 1e6


async def measure(title: str, port: int, context: ssl.SSLContext, args: argparse.Namespace) -> None:
    origin = Origin("https" if title == "TLS" else "http", "127.0.0.1", port)
    url = f"{origin}{PATH.decode()}"
    deadlines = Deadlines()
    connections: int = args.connections
    headers = list(HEADERS)
    async with AsyncExitStack() as stack:
        limits = PoolLimits(connections_per_origin_max=connections)
        pool = await stack.enter_async_context(open_http_pool(limits=limits, tls_context=context))
        ours = await stack.enter_async_context(httpx.AsyncClient(transport=TrioTransport(pool)))
        theirs = await stack.enter_async_context(
            httpx.AsyncClient(
                verify=context,
                limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
                trust_env=False,
            )
        )
        floors = [Floor(*await dial(origin, context, trio.current_time() + 5)) for _ in range(connections)]
        slower = [TrioSocketFloor(*await dial(origin, context, trio.current_time() + 5)) for _ in range(connections)]
        streams: list[SslStreamFloor] = []
        if title == "TLS":
            plain = origin._replace(scheme="http")
            dialled = [await dial(plain, context, trio.current_time() + 5) for _ in range(connections)]
            streams = [SslStreamFloor(sock, context) for sock, _ in dialled]
        for floor in (*floors, *slower, *streams):
            stack.callback(floor.sock.close)
        ways: dict[str, list[Post]] = {
            "floor: socket + parser": [floor.post for floor in floors],
            "floor on trio.socket": [floor.post for floor in slower],
            "floor on trio.SSLStream": [floor.post for floor in streams],
            "floor + a cancel scope": [floor.post_in_a_scope for floor in floors],
            "HttpPool.exchange": [partial(post_pool, pool, origin, deadlines)] * connections,
            "httpx over TrioTransport": [partial(post_httpx, ours, url, headers)] * connections,
            "httpx.AsyncClient": [partial(post_httpx, theirs, url, headers)] * connections,
        }
        ways = {name: posts for name, posts in ways.items() if posts and args.only in name}
        results: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(args.rounds + 1):
            for name, posts in ways.items():
                share = args.exchanges if "httpx" not in name else args.exchanges // 4
                spent_us = await round_cpu_us(posts, share)
                if number:  # the first round connects and warms up
                    results[name].append(spent_us)
        assert pool.statistics().in_use == 0
    for name, spent in results.items():
        print(f"{title:6} {name:28} {statistics.median(spent):8.1f} {min(spent):8.1f} {max(spent):8.1f}", flush=True)


async def main(args: argparse.Namespace) -> None:
    print(f"client CPU per POST of {len(BODY)} B, {args.connections} connections, {args.rounds} rounds, µs")
    print(f"{'':6} {'':28} {'median':>8} {'min':>8} {'max':>8}")
    authority = trustme.CA()
    with tempfile.TemporaryDirectory() as folder:
        certificate = os.path.join(folder, "server.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        context = ssl.create_default_context()
        authority.configure_trust(context)
        context = client_context(context)
        async with server(None) as port:
            await measure("plain", port, context, args)
        async with server(certificate) as port:
            await measure("TLS", port, context, args)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exchanges", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--only", default="", help="ways whose name contains this")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--certificate", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.certificate)
    else:
        trio.run(main, arguments)
