"""The server: Hypercorn's protocol engine on connections of our own (:mod:`dispatcher_http.connection`).

Shutdown: stop taking connections; listeners are closed with 1001 and idle connections at once; requests under way get
``grace_s``; then everything is closed.
"""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from dispatcher.config import SurfaceConfig
from dispatcher.errors import ConfigError
from dispatcher_http.app import App
from dispatcher_http.connection import Connection
from dispatcher_http.logs import ServerLog

KEEP_ALIVE_S = 75.0
"""Longer than the minute after which load balancers usually let go, so that they do it and not we."""
PING_S = 20.0
"""Hypercorn's ``websocket_ping_interval``: keeps paths open, and shows the kernel, and us, peers that vanished."""
PEER_GONE_MS = 30_000
"""Linux: unacknowledged bytes older than this end a connection (TCP_USER_TIMEOUT)."""
BACKLOG = 1024
MESSAGE_BYTES_MAX = 4096
"""Of what a listener sends; it is ignored anyway."""


class _Flight:
    """The application, counting the requests and websockets it is at."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._count = 0
        self._none = trio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._count += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._count -= 1
            if not self._count:
                self._none.set()

    async def landed(self) -> None:
        """Wait until nothing is under way."""
        while self._count:
            self._none = trio.Event()
            await self._none.wait()


def hypercorn_config() -> Config:
    """Hypercorn's settings, apart from where to listen."""
    config = Config()
    config.logger_class = ServerLog
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.keep_alive_max_requests = 1_000_000
    config.websocket_ping_interval = PING_S
    config.websocket_max_message_size = MESSAGE_BYTES_MAX
    return config


async def serve(
    app: App,
    surface: SurfaceConfig,
    stop: trio.Event,
    *,
    grace_s: float,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``stop`` is set, then shut down within ``grace_s`` and a little. Starts with the port it listens on.

    Raises ConfigError when it cannot listen where it is told to.
    """
    listeners = await _listeners(surface)
    context = WorkerContext(None)
    flight = _Flight(app)
    live: set[Connection] = set()
    handler = partial(Connection, live, ASGIWrapper(flight), hypercorn_config(), context, ConnectionState({}))
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as taking:
            taking.start_soon(partial(trio.serve_listeners, handler, listeners, handler_nursery=connections))
            task_status.started(listeners[0].socket.getsockname()[1])
            await stop.wait()
            taking.cancel_scope.cancel()
        app.stopping.set()
        await context.terminated.set()
        with trio.move_on_after(grace_s):
            await flight.landed()
        connections.cancel_scope.cancel()
        # A write is shielded from the cancellation; it ends with its socket.
        for connection in list(live):
            await trio.aclose_forcefully(connection.stream)


async def _listeners(surface: SurfaceConfig) -> list[trio.SocketListener]:
    try:
        listeners = await trio.open_tcp_listeners(surface.port, host=surface.host, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {surface.host} port {surface.port} ({error.strerror}): "
            "change DISPATCHER_HOST or DISPATCHER_PORT, or stop what is using them"
        ) from error
    for listener in listeners:
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_GONE_MS)
    return listeners
