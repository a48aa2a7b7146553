"""The way in to the simulated push service of Apple: HTTP/2 over TLS, and the connection's manners.

Apple allows one stream until it has accepted a first notification, and in some years only one again after each refusal. It says
GOAWAY when a connection has served enough. All three are settings of the behaviour.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from dispatcher_sandbox.apns.simulator import Apns
from dispatcher_sandbox.behaviour import Outage
from dispatcher_sandbox.exchange import Reply
from dispatcher_sandbox.h2_server import H2Server, Manners
from dispatcher_sandbox.messages import Answer, Request

if TYPE_CHECKING:
    from dispatcher_sandbox.doors import Behind

ID = b"apns-id: "


def serve_apns(behind: Behind) -> Callable[[socket.socket], Awaitable[None]]:
    """Serve it, see ``doors.Door.open``."""
    exchange, simulator = behind.exchange, Apns()

    def handle(request: Request, now_s: float) -> Reply:
        reply = exchange.handle_as(simulator, request, now_s)
        if reply.answer is None:
            return reply
        given = request.headers.get(b"apns-id")
        status, headers, body = reply.answer
        if given is not None and len(given) == 36:
            headers = b"".join(line for line in headers.splitlines(keepends=True) if not line.startswith(ID))
            headers += ID + given + b"\r\n"
        return reply._replace(answer=Answer(status, headers, body))

    def manners() -> Manners:
        behaviour = exchange.behaviour
        return Manners(
            behaviour.streams_max,
            behaviour.streams_until_accepted,
            behaviour.streams_after_refusal,
            behaviour.goaway_after,
            behaviour.outage is Outage.CLOSE,
        )

    return H2Server(handle, manners, behind.authority.server_context("h2"), behind.clock).serve
