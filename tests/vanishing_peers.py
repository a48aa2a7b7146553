"""A TCP line to a server whose client can vanish without a word: no FIN, no reset, only a proxy that still takes bytes for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio


class Line:
    """Passes bytes on between whoever connects to ``port`` and the server."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.ended = trio.Event()
        """Set when the server has closed a connection."""
        self._target = target
        self._client_is_gone = False

    def lose_the_client(self) -> None:
        """From now on what the server says is taken and goes nowhere, and nothing comes back."""
        self._client_is_gone = True

    async def serve(self, near: trio.SocketStream) -> None:
        async with near, await trio.open_tcp_stream("127.0.0.1", self._target) as far, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, near, far)
            await self._pump(far, near)
            nursery.cancel_scope.cancel()
        self.ended.set()

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in source:
                if not self._client_is_gone:
                    await sink.send_all(data)


@asynccontextmanager
async def line_to(port: int) -> AsyncIterator[Line]:
    """A line to a port of this machine."""
    line = Line(port)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    line.port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, line.serve, [listener], handler_nursery=nursery))
        yield line
        nursery.cancel_scope.cancel()
