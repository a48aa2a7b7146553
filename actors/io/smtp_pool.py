"""Kept-open SMTP sessions, shared by whoever has the same origin and the same login.

``SmtpPool.exchange`` carries one transaction out. A session that the server has ended meanwhile is found out before it is used or
by its first reply, and then another is opened: nothing had been begun on it. Everything else that goes wrong is the caller's to
judge: NotSent or MaybeSent, or the refusal that the answer is.

Invariant: a place taken is given back exactly once, whatever is raised and wherever a cancellation lands, and a connection whose
transaction did not end between two others is closed.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import trio
from attrs import define, field

from actors.io.http_dial import dial
from actors.io.http_terms import Deadlines, NotSent
from actors.io.http_watch import Watch
from actors.io.smtp_connection import SmtpConnection
from actors.io.smtp_link import SmtpLink
from actors.io.smtp_terms import Progress, SmtpPoolLimits, SmtpPoolStatistics
from actors.io.smtp_wire import check_request
from dispatcher.errors import ConfigError
from dispatcher.http_message import Origin
from dispatcher.smtp_message import Fault, Login, SmtpRequest, SmtpResponse, Stage

_Whom = tuple[Origin, Login | None]


def smtp_client_context(given: ssl.SSLContext | None = None) -> ssl.SSLContext:
    """The context to connect with: the system's trusted authorities, or ``given``. Raises ConfigError for one that trusts all."""
    context = ssl.create_default_context() if given is None else given
    if context.verify_mode != ssl.CERT_REQUIRED or not context.check_hostname:
        raise ConfigError("the TLS context for SMTP must verify the peer's certificate and host name")
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


@asynccontextmanager
async def open_smtp_pool(
    *, limits: SmtpPoolLimits | None = None, tls_context: ssl.SSLContext | None = None
) -> AsyncIterator[SmtpPool]:
    """A pool for as long as the block runs. Exchanges still under way at its end fail with code ``pool_closed``.

    ``tls_context`` defaults to the system's trusted authorities; it must not be one that HTTP uses, which has its ALPN set. What
    the block raises comes out as it is, not in a group.
    """
    pool = SmtpPool(limits or SmtpPoolLimits(), smtp_client_context(tls_context))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.watch.run, pool.look)
            try:
                yield pool
            finally:
                pool.close()
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        failure = group.exceptions[0]
    else:
        return
    raise failure


@define(eq=False)
class _Site:
    """The sessions of one login at one origin. ``users`` hold a place or wait for one."""

    places: trio.Semaphore
    idle: list[SmtpConnection] = field(factory=list)
    """The longest idle first."""
    users: int = 0


class SmtpPool:
    """Sessions with any number of servers. Made by :func:`open_smtp_pool`."""

    def __init__(self, limits: SmtpPoolLimits, tls_context: ssl.SSLContext) -> None:
        self.watch = Watch()
        self._limits = limits
        self._tls_context = tls_context
        self._sites: dict[_Whom, _Site] = {}
        self._scopes: set[trio.CancelScope] = set()
        """Of every exchange under way."""
        self._connections = 0
        self._waiting = 0
        self._opened_total = 0
        self._stale_total = 0
        self._closed = False

    async def exchange(self, request: SmtpRequest, deadlines: Deadlines) -> SmtpResponse:
        """Carry one transaction out, return how it ended. Raises NotSent or MaybeSent.

        One that is cancelled under way closes its connection: before the end of its message that undoes it.
        """
        check_request(request)
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope() as scope:
            progress = Progress(scope, deadlines)
            self._scopes.add(scope)
            try:
                return (await self._exchange(request, progress))._replace(message_id=request.message_id)
            finally:
                self._scopes.discard(scope)
        raise progress.failure("pool_closed" if self._closed else None)

    def statistics(self) -> SmtpPoolStatistics:
        """The pool at this moment."""
        idle = sum(len(site.idle) for site in self._sites.values())
        return SmtpPoolStatistics(
            self._connections, idle, self._connections - idle, self._waiting, self._opened_total, self._stale_total
        )

    def close(self) -> None:
        """Close what is idle and make everything under way fail. Never waits; further exchanges are refused."""
        self._closed = True
        self._expire(inf)
        for scope in self._scopes:
            scope.cancel()
        self.watch.stop()

    def look(self, now_s: float) -> float:
        """What the watch does when it wakes: close what was idle for too long."""
        self._expire(now_s - self._limits.idle_s)
        since_s = min((site.idle[0].idle_since_s for site in self._sites.values() if site.idle), default=inf)
        return since_s + self._limits.idle_s

    async def _exchange(self, request: SmtpRequest, progress: Progress) -> SmtpResponse:
        if self._closed:
            raise NotSent("pool", "pool_closed")
        whom = (request.origin, request.login)
        site = self._sites.get(whom)
        if site is None:
            site = self._sites[whom] = _Site(trio.Semaphore(self._limits.connections_per_login_max))
        site.users += 1
        try:
            progress.enter("pool")
            self._waiting += 1
            try:
                await site.places.acquire()
            finally:
                self._waiting -= 1
            try:
                return await self._at(site, request, progress)
            finally:
                site.places.release()
        finally:
            site.users -= 1
            self._tidy(whom, site)

    async def _at(self, site: _Site, request: SmtpRequest, progress: Progress) -> SmtpResponse:
        while True:
            connection = self._reuse(site)
            reused = connection is not None
            if connection is None:
                opened = await self._open(request, progress)
                if isinstance(opened, SmtpResponse):
                    return opened
                connection = opened
            try:
                response = await connection.transact(request, progress)
            except NotSent:
                self._drop(connection)
                if not reused:
                    raise
                self._stale_total += 1
                continue
            except BaseException:
                self._drop(connection)
                raise
            if connection.usable:
                self._keep(site, connection)
                return response
            self._drop(connection)
            ended = response.stage is Stage.MAIL and response.reply is not None and response.reply.code == 421
            if not (reused and ended):
                return response
            self._stale_total += 1

    def _reuse(self, site: _Site) -> SmtpConnection | None:
        while site.idle:
            connection = site.idle.pop()
            if connection.is_quiet():
                return connection
            self._stale_total += 1
            self._drop(connection)
        return None

    async def _open(self, request: SmtpRequest, progress: Progress) -> SmtpConnection | SmtpResponse:
        """A session, or why there is none."""
        if self._connections >= self._limits.connections_max and not self._make_room():
            raise NotSent("pool", "pool_full")
        origin, login = request.origin, request.login
        self._connections += 1
        connection: SmtpConnection | None = None
        try:
            try:
                sock, tls = await dial(origin, self._tls_context, progress.enter("connect"))
            except NotSent as error:
                if error.code != "tls_verify":
                    raise
                return SmtpResponse(Stage.TLS, None, fault=Fault.CERTIFICATE)
            opening = SmtpConnection(SmtpLink(sock, tls), trio.current_time())
            try:
                refusal = await opening.open(origin.scheme, origin.host, login, self._tls_context, progress)
                if refusal is not None:
                    return refusal
                connection = opening
                self._opened_total += 1
                return connection
            finally:
                if connection is None:
                    opening.retire()
        finally:
            if connection is None:
                self._connections -= 1

    def _keep(self, site: _Site, connection: SmtpConnection) -> None:
        now_s, limits = trio.current_time(), self._limits
        worn = connection.transactions >= limits.messages_max or now_s - connection.opened_s >= limits.age_s
        if self._closed or worn:
            self._connections -= 1
            connection.retire()
            return
        connection.idle_since_s = now_s
        site.idle.append(connection)
        self.watch.by(now_s + limits.idle_s)

    def _drop(self, connection: SmtpConnection) -> None:
        self._connections -= 1
        connection.close()

    def _make_room(self) -> bool:
        """Close the session idle for the longest time, if there is one."""
        sites = [site for site in self._sites.values() if site.idle]
        if not sites:
            return False
        self._connections -= 1
        min(sites, key=lambda site: site.idle[0].idle_since_s).idle.pop(0).retire()
        return True

    def _expire(self, until_s: float) -> None:
        for whom, site in list(self._sites.items()):
            while site.idle and site.idle[0].idle_since_s <= until_s:
                self._connections -= 1
                site.idle.pop(0).retire()
            self._tidy(whom, site)

    def _tidy(self, whom: _Whom, site: _Site) -> None:
        if not site.users and not site.idle and self._sites.get(whom) is site:
            del self._sites[whom]
