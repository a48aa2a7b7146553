"""Around a real Postgres: somebody who watches it, a server that can be stopped, a line that goes bad, a front that adds TLS."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import trio
from trio.testing import wait_all_tasks_blocked

from actors.embedded.postgres import running_postgres
from house import Tls

_LOOKS_MAX = 500_000
"""More than a statement needs to get where it is looked for; each look is a round trip."""


class Observer:
    """A session of its own that sees what others do, and can hold them up with advisory locks. Blocks the caller."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def one(self, sql: str, *params: object) -> Any:
        row = self.connection.execute(sql, params).fetchone()
        return None if row is None else row[0]

    async def until(self, sql: str, *params: object) -> None:
        """Look until the statement says true; other tasks run in between."""
        for _ in range(_LOOKS_MAX):
            if self.one(sql, *params):
                return
            await trio.lowlevel.checkpoint()
        raise AssertionError(f"never true: {sql}")

    def hold(self, key: int) -> None:
        self.connection.execute("SELECT pg_advisory_lock(%s)", (key,))

    def let_go(self, key: int) -> None:
        self.connection.execute("SELECT pg_advisory_unlock(%s)", (key,))

    async def until_blocked(self, key: int) -> None:
        """Until somebody's statement waits for the lock."""
        await self.until("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted)", key)

    async def until_gone(self, pid: int) -> None:
        """Until a session has ended."""
        await self.until("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)", pid)

    def terminate(self, pid: int) -> None:
        self.connection.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))


class StoppableServer:
    """A Postgres of the test's own, which can be stopped and started again on the same files. User ``ada`` needs her password."""

    def __init__(self, folder: Path, **settings: str) -> None:
        folder.mkdir(mode=0o755)
        hba = folder / "hba.conf"
        hba.write_text("local all ada scram-sha-256\nlocal all all trust\n")
        hba.chmod(0o644)
        self._folder = folder / "server"
        self._settings = {"hba_file": str(hba), **settings}
        self._running: AbstractContextManager[str] | None = None
        self.url = ""

    def start(self) -> None:
        self._running = running_postgres(self._folder, durable=False, settings=self._settings)
        self.url = self._running.__enter__()

    def kill(self) -> None:
        """End it without a farewell, sessions and all."""
        pid = int((self._folder / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)  # its sessions end when they find that they are orphans
        self.stop()

    def stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.__exit__(None, None, None)


def _socket_of(url: str) -> str:
    params = psycopg.conninfo.conninfo_to_dict(url)
    return f"{params['host']}/.s.PGSQL.{params.get('port') or 5432}"


class BadLine:
    """A TCP line to a server, and what can go wrong with it. ``ended`` and ``refused`` count connections."""

    def __init__(self, url: str, port: int) -> None:
        self.url = psycopg.conninfo.make_conninfo(url, host="127.0.0.1", port=port, sslmode="disable")
        self.ended = 0
        self.refused = 0
        self._server = _socket_of(url)
        self._silent = False
        self._refuses = False
        self._free = trio.Event()
        self._free.set()
        self._held: set[trio.SocketStream] = set()
        self._losing: set[trio.SocketStream] = set()
        self.lost = 0
        self._clients: set[trio.SocketStream] = set()

    def go_silent(self) -> None:
        """From now on nothing gets through in either direction; nobody hears of it."""
        self._silent = True

    def refuse(self) -> None:
        """From now on new connections are closed at once."""
        self._refuses = True

    def accept(self) -> None:
        """Take new connections again."""
        self._refuses = False

    def lose_answers(self) -> None:
        """The clients of now are cut off as soon as the server has answered something, instead of hearing it: ``lost`` counts."""
        self._losing |= self._clients

    def hold_back(self) -> None:
        """What the clients of now say waits for ``release``. New ones get through."""
        self._free = trio.Event()
        self._held = set(self._clients)

    def release(self) -> None:
        self._free.set()

    async def serve(self, near: trio.SocketStream) -> None:
        if self._refuses:
            await near.aclose()
            self.refused += 1
            return
        self._clients.add(near)
        async with near, await trio.open_unix_socket(self._server) as far, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, near, far)
            await self._pump(far, near)
            nursery.cancel_scope.cancel()
        self._clients.discard(near)
        self._losing.discard(near)
        self.ended += 1

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in source:
                if source in self._held:
                    await self._free.wait()
                if sink in self._losing:
                    self.lost += 1
                    return
                if self._silent:
                    await trio.sleep_forever()
                await sink.send_all(data)
            await sink.send_eof()


@asynccontextmanager
async def bad_line(url: str) -> AsyncIterator[BadLine]:
    """A :class:`BadLine` to the server at ``url`` (a socket's); clients connect to ``line.url``."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    line = BadLine(url, listener.socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, line.serve, [listener])
        yield line
        nursery.cancel_scope.cancel()


_TLS_REQUEST = struct.pack("!ii", 8, 80877103)


@asynccontextmanager
async def tls_front(url: str, tls: Tls) -> AsyncIterator[int]:
    """What adds TLS to the server at ``url`` (a socket's), since the embedded one is built without. Yields its port on loopback.

    It answers libpq's request for TLS as the protocol says, does the handshake, and passes the rest on as it is.
    """

    async def serve(near: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            if await near.receive_some(len(_TLS_REQUEST)) != _TLS_REQUEST:
                return
            await near.send_all(b"S")
            inside = trio.SSLStream(near, tls.server_context(), server_side=True, https_compatible=True)
            async with await trio.open_unix_socket(_socket_of(url)) as far, trio.open_nursery() as pumps:
                pumps.start_soon(pump, inside, far)
                await pump(far, inside)
                pumps.cancel_scope.cancel()

    async def pump(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some():
                await sink.send_all(data)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def overtake(
    line: BadLine, observer: Observer, key: int, scope: trio.CancelScope, answer_overdue: Callable[[], None]
) -> None:
    """Cancel the scope of a statement on a line that is held back, so that the server hears of the cancellation first.

    Calls ``answer_overdue`` when the statement waits for the lock in spite of it, and its client for an answer.
    """
    await wait_all_tasks_blocked()
    scope.cancel()
    while line.ended == 0:  # the cancel request has a connection of its own
        await trio.lowlevel.checkpoint()
    line.release()
    await observer.until_blocked(key)
    await wait_all_tasks_blocked()
    answer_overdue()
