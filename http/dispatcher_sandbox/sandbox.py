"""A running sandbox, in this process: ``async with open_sandbox() as sandbox: ... sandbox.url``."""

from __future__ import annotations

import resource
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import attrs
import trio

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.certificates import authority
from dispatcher_sandbox.control import PREFIX, Control
from dispatcher_sandbox.doors import DOORS, Behind
from dispatcher_sandbox.exchange import Exchange, Reply
from dispatcher_sandbox.fates import Fate
from dispatcher_sandbox.ledger import Ledger
from dispatcher_sandbox.messages import Request
from dispatcher_sandbox.postman import Postman
from dispatcher_sandbox.reader import Limits
from dispatcher_sandbox.server import BACKLOG, Server, ServerStatistics
from dispatcher_sandbox.simulators import SIMULATORS


class Sandbox:
    """What ``open_sandbox`` yields. ``url`` is its origin, without a trailing slash; ``ledger`` is for reading.

    ``urls`` are those of all ways in by name, ``http`` and the names of ``doors.DOORS``. ``ca_pem`` is the authority of those
    that always have TLS.
    """

    def __init__(
        self,
        urls: Mapping[str, str],
        exchange: Exchange,
        statistics: Callable[[], ServerStatistics],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self.urls = urls
        self.url = urls["http"]
        self.ca_pem = authority().ca_pem
        self.ledger: Ledger = exchange.ledger
        self.statistics = statistics
        self._exchange = exchange

    @property
    def behaviour(self) -> Behaviour:
        """The settings in force; assigning others takes effect with the next request."""
        return self._exchange.behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        self._exchange.behaviour = behaviour

    def change(self, **settings: Any) -> None:
        """Set some settings and keep the others. Raises ValueError, or TypeError for a name that does not exist."""
        self._exchange.behaviour = attrs.evolve(self._exchange.behaviour, **settings)

    def hook(self, provider: str, url: str, account: str | None = None, **secrets: str) -> Mapping[str, str]:
        """Let a provider report there, for one account or for all others; what the receiver must know, such as a public key.

        A hook that is set again replaces the one before. Raises KeyError for a provider that reports nothing, ValueError.
        """
        return self._exchange.reporting.hook(provider, url, account, secrets, self._clock())

    def unhook(self, provider: str) -> None:
        """Let a provider report nothing more."""
        self._exchange.reporting.unhook(provider)

    def report(self, notification_id: str, fate: Fate) -> bool:
        """Let something more happen to a message; False when it is not remembered or nothing is told of such things."""
        return self._exchange.reporting.again(notification_id, fate, self._exchange.behaviour, self._clock())

    @property
    def reports_pending(self) -> int:
        """Events that have not left yet."""
        return self._exchange.reporting.pending


def listen(host: str, port: int) -> socket.socket:
    """A listening socket at an address, port 0 for a free one. Raises OSError when the address can not be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    listener.setblocking(False)
    return listener


def _url(scheme: str, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


@asynccontextmanager
async def open_sandbox(
    host: str = "127.0.0.1",
    port: int = 0,
    behaviour: Behaviour | None = None,
    tls: ssl.SSLContext | None = None,
    seed: int = 0,
    *,
    ports: Mapping[str, int] | None = None,
    limits: Limits | None = None,
    ledger: Ledger | None = None,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Sandbox]:
    """Serve until the block ends; then every connection is closed, answered or not.

    ``port`` and ``tls``, a server's context, are for the providers over HTTP/1.1. The other ways in have ``ports`` of their own,
    by name, free ones where none is given, and TLS as they need it. ``clock`` gives Unix seconds; delays wait on Trio's clock.
    Raises OSError when an address can not be had.
    """
    exchange = Exchange(SIMULATORS, ledger or Ledger(), behaviour or Behaviour(), seed)

    def statistics() -> dict[str, Any]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            **attrs.asdict(server.statistics()),
            "requests": exchange.ledger.requests,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "memory_kib_max": usage.ru_maxrss,
        }

    urls: dict[str, str] = {}
    control = Control(exchange, statistics, urls, authority().ca_pem, clock)
    postman = Postman(exchange.reporting, lambda: exchange.behaviour, clock)

    def handle(request: Request, now_s: float) -> Reply:
        if request.target.startswith(PREFIX):
            return Reply(control.answer(request))
        return exchange.handle(request, now_s)

    server = Server(handle, limits or Limits(), tls, clock)
    behind = Behind(exchange, authority(), clock)
    with ExitStack() as stack:
        listener = stack.enter_context(listen(host, port))
        urls["http"] = _url("http" if tls is None else "https", listener)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, listener)
            nursery.start_soon(postman.run)
            for door in DOORS:
                at_door = stack.enter_context(listen(host, (ports or {}).get(door.name, 0)))
                urls[door.name] = _url(door.scheme, at_door)
                nursery.start_soon(door.open(behind), at_door)
            yield Sandbox(urls, exchange, server.statistics, clock)
            nursery.cancel_scope.cancel()
