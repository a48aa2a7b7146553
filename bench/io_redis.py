"""What one Redis command costs in client CPU: our client plain and over TLS, redis-py, and the bare floor.

Three loads: one task with one command at a time (lone), 20 tasks with one command each at a time, batches of 500. Rounds are
interleaved, so that a busy machine hurts all alike. The *floor* is a socket, hiredis and Trio's wait: no sharing, deadline, bound
or reconnect; what remains above it is what this project's features cost. TLS is ended by a process of its own in front of the
server; ``trio.SSLStream`` stands for a client that would use it instead of ``ssl.MemoryBIO``.

    python bench/io_redis.py [--commands 4000] [--rounds 7] [--only lone]
"""

from __future__ import annotations

import argparse
import random
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import hiredis
import redis
import trio
import trustme

from actors.embedded.valkey import running_valkey
from actors.io.redis import Redis, open_redis, parse_endpoint

TASKS = 20
BATCH = 500
COMMAND = ("LPUSH", "notifications:queue:0192d3a4-7c1e-7f00-8000-0123456789ab", "0192d3a4-7c1e-7f00-8000-0123456789ac")
TRIM = ("LTRIM", COMMAND[1], "0", "0")

Round = Callable[[int], Awaitable[None]]


class Floor:
    """A connection with nothing around it, for one task."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = hiredis.Reader()

    async def batch(self, count: int) -> None:
        data = b"".join([hiredis.pack_command(COMMAND) for _ in range(count)])  # type: ignore[arg-type]
        assert self._sock.send(data) == len(data)
        while count:
            await trio.lowlevel.wait_readable(self._sock)
            self._reader.feed(self._sock.recv(65_536))
            while self._reader.gets() is not False:
                count -= 1


class StreamFloor:
    """The same over ``trio.SSLStream``."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream
        self._reader = hiredis.Reader()

    async def batch(self, count: int) -> None:
        await self._stream.send_all(b"".join([hiredis.pack_command(COMMAND) for _ in range(count)]))  # type: ignore[arg-type]
        while count:
            self._reader.feed(bytes(await self._stream.receive_some(65_536)))
            while self._reader.gets() is not False:
                count -= 1


async def lone(one: Callable[[], Awaitable[object]], commands: int) -> None:
    for _ in range(commands):
        await one()


async def side_by_side(one: Callable[[], Awaitable[object]], commands: int) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(TASKS):
            nursery.start_soon(lone, one, commands // TASKS)


async def batches(many: Callable[[int], Awaitable[object]], commands: int) -> None:
    for _ in range(commands // BATCH):
        await many(BATCH)


def blocking_batch(client: redis.Redis, count: int) -> None:
    pipeline = client.pipeline(transaction=False)
    for _ in range(count):
        pipeline.lpush(*COMMAND[1:])
    pipeline.execute()


async def many_of(client: Redis, count: int) -> None:
    await client.execute_many([COMMAND] * count)


@contextmanager
def tls_front(path: str, certificate: str) -> Iterator[int]:
    command = [sys.executable, __file__, "--front", path, "--certificate", certificate]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


async def front(path: str, certificate: str) -> None:
    """End TLS and pass everything on to the socket at ``path``, until standard input closes."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def serve(outside: trio.SSLStream[trio.SocketStream]) -> None:
        async with await trio.open_unix_socket(path) as inside, trio.open_nursery() as both:

            async def pass_on(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
                async for chunk in source:
                    await sink.send_all(chunk)
                both.cancel_scope.cancel()

            both.start_soon(pass_on, outside, inside)
            both.start_soon(pass_on, inside, outside)

    async with trio.open_nursery() as nursery:
        serving = partial(trio.serve_ssl_over_tcp, serve, 0, context, host="127.0.0.1", https_compatible=True)
        listeners = await nursery.start(serving)
        print(listeners[0].transport_listener.socket.getsockname()[1], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


async def measure(path: str, port: int, authority: trustme.CA, args: argparse.Namespace) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    settings = {"connect_deadline_s": 5, "command_deadline_s": 5, "random": random.Random(1)}
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(open_redis(f"unix://{path}", **settings))  # type: ignore[arg-type]
        tls = await stack.enter_async_context(open_redis(f"rediss://localhost:{port}", tls_context=context, **settings))  # type: ignore[arg-type]
        peer = stack.enter_context(redis.Redis(unix_socket_path=path, max_connections=TASKS + 1))
        sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.connect(path)
        sock.setblocking(False)
        floor = Floor(sock)
        stream = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=context, https_compatible=True)
        stack.push_async_callback(trio.aclose_forcefully, stream)
        ssl_stream = StreamFloor(stream)
        in_thread = trio.to_thread.run_sync

        async def in_thread_batch(count: int) -> None:
            await in_thread(blocking_batch, peer, count)

        ways: dict[str, Round] = {
            "lone: floor": partial(lone, partial(floor.batch, 1)),
            "lone: ours": partial(lone, partial(plain.execute, *COMMAND)),
            "lone: ours, TLS": partial(lone, partial(tls.execute, *COMMAND)),
            "lone: floor on trio.SSLStream": partial(lone, partial(ssl_stream.batch, 1)),
            "lone: redis-py in a thread": partial(lone, partial(in_thread, partial(peer.execute_command, *COMMAND))),
            f"{TASKS} tasks: ours": partial(side_by_side, partial(plain.execute, *COMMAND)),
            f"{TASKS} tasks: ours, TLS": partial(side_by_side, partial(tls.execute, *COMMAND)),
            f"{TASKS} tasks: redis-py in threads": partial(
                side_by_side, partial(in_thread, partial(peer.execute_command, *COMMAND))
            ),
            f"batch of {BATCH}: floor": partial(batches, floor.batch),
            f"batch of {BATCH}: ours": partial(batches, partial(many_of, plain)),
            f"batch of {BATCH}: ours, TLS": partial(batches, partial(many_of, tls)),
            f"batch of {BATCH}: floor on trio.SSLStream": partial(batches, ssl_stream.batch),
            f"batch of {BATCH}: redis-py in a thread": partial(batches, in_thread_batch),
        }
        ways = {name: way for name, way in ways.items() if args.only in name}
        spent_us: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(args.rounds + 1):
            for name, way in ways.items():
                count = args.commands * 5 if "batch" in name else args.commands
                before_s = time.process_time()
                await way(count)
                cpu_s = time.process_time() - before_s
                await plain.execute(*TRIM)
                if number:  # the first round connects and warms up
                    spent_us[name].append(cpu_s / count * 1e6)
    for name, spent in spent_us.items():
        print(f"{name:42} {statistics.median(spent):8.2f} {min(spent):8.2f} {max(spent):8.2f}")


def main(args: argparse.Namespace) -> None:
    authority = trustme.CA()
    with tempfile.TemporaryDirectory() as folder:
        certificate = Path(folder) / "server.pem"
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        with running_valkey(Path(folder), brief=True) as url:
            path = parse_endpoint(url).path
            with tls_front(path, str(certificate)) as port:
                print(f"client CPU per command, {args.rounds} rounds, µs")
                print(f"{'':42} {'median':>8} {'min':>8} {'max':>8}")
                trio.run(measure, path, port, authority, args)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="ways whose name contains this")
    parser.add_argument("--front", help=argparse.SUPPRESS)
    parser.add_argument("--certificate", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.front:
        trio.run(front, arguments.front, arguments.certificate)
    else:
        main(arguments)
