"""The pool: carries out what :mod:`actors.io.http_slots` decides, and owns the tasks and awaits of outbound HTTP.

``HttpPool.exchange`` is the dispatcher's hot path. On a kept-alive connection it awaits exactly once, for the response.
An idle connection is looked at before it is used; a request is repeated on another connection only if the kernel took no
byte of it. Everything else that goes wrong is the caller's to judge: NotSent or MaybeSent.

Invariant: a place taken is given back exactly once, whatever is raised and wherever a cancellation lands, and a
connection whose exchange did not end well is closed.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from actors.io.http_connection import HttpConnection
from actors.io.http_dial import dial
from actors.io.http_slots import Handover, Site, Slots
from actors.io.http_terms import Deadlines, NotSent, PoolLimits, PoolStatistics
from actors.io.http_watch import Watch
from actors.io.http_wire import encode_request, host_of
from actors.io.tls import client_context
from dispatcher.http_message import HttpRequest, HttpResponse, Origin


@asynccontextmanager
async def open_http_pool(
    *, limits: PoolLimits | None = None, tls_context: ssl.SSLContext | None = None
) -> AsyncIterator[HttpPool]:
    """A pool for as long as the block runs. Exchanges still under way at its end fail with code ``pool_closed``.

    ``tls_context`` defaults to the system's trusted authorities; a given one must verify, and gets ALPN set.
    Raises ConfigError for a context that does not verify. What the block raises comes out as it is, not in a group.
    """
    pool = HttpPool(PoolLimits() if limits is None else limits, client_context(tls_context))
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


class HttpPool:
    """Kept-alive connections to any number of origins. Made by :func:`open_http_pool`."""

    def __init__(self, limits: PoolLimits, tls_context: ssl.SSLContext) -> None:
        self.watch = Watch()
        self._limits = limits
        self._tls_context = tls_context
        self._slots: Slots[HttpConnection] = Slots(limits.connections_per_origin_max, limits.connections_max, limits.waiting_max)
        self._connections: set[HttpConnection] = set()
        """Every open connection, idle or in use."""
        self._dialling: set[trio.CancelScope] = set()
        self._closed = False
        self._opened_total = 0
        self._stale_total = 0
        self._expired_total = 0

    async def exchange(self, request: HttpRequest, deadlines: Deadlines, *, host: bytes | None = None) -> HttpResponse:
        """Send one request, return its whole response. ``host`` overrides the ``Host`` header.

        A checkpoint when it returns. Raises NotSent or MaybeSent. An exchange that is cancelled under way closes its
        connection; one whose caller was cancelled before sends nothing.
        """
        origin = request.origin
        wire = encode_request(request, host_of(origin) if host is None else host)
        head_only = request.method == b"HEAD"
        await trio.lowlevel.checkpoint_if_cancelled()
        now_s = trio.current_time()
        ends_s = now_s + deadlines.total_s
        while True:
            connection = self._slots.reuse(origin)
            if connection is None:
                connection = await self._obtain(origin, deadlines, ends_s)
                now_s = trio.current_time()
                if now_s >= ends_s:  # this process stood still meanwhile; whoever let it start a call meant then, not now
                    self._drop(connection)
                    raise NotSent("connect", "timeout_connect")
            elif not connection.is_alive():
                self._stale_total += 1
                self._drop(connection)
                continue
            try:
                response = await connection.exchange(wire, head_only, deadlines, now_s, ends_s)
            except NotSent as problem:
                self._drop(connection)
                if problem.code != "reset" or not connection.reused:
                    raise
                self._stale_total += 1
            except BaseException:
                self._drop(connection)
                raise
            else:
                if connection.reusable:  # never so once the pool is closed: that interrupts every connection
                    handover = self._slots.release(connection.site, connection, trio.current_time())
                    if handover is None:
                        self.watch.by(connection.idle_since_s + self._limits.idle_s)
                    else:
                        self._carry_out(handover)
                else:
                    self._drop(connection)
                return response

    def statistics(self) -> PoolStatistics:
        """The pool at this moment."""
        slots = self._slots
        idle = slots.idle
        return PoolStatistics(
            connections=slots.places,
            idle=idle,
            in_use=slots.places - idle,
            waiting=slots.waiting,
            origins=len(slots.sites),
            opened_total=self._opened_total,
            stale_total=self._stale_total,
            expired_total=self._expired_total,
        )

    def close(self) -> None:
        """Close what is idle and make everything under way fail. Never waits; further exchanges are refused."""
        self._closed = True
        idle, waiters = self._slots.close()
        for connection in idle:
            self._expire(connection)
        for waiter in waiters:
            waiter.refuse()
        for connection in self._connections:
            connection.interrupt("pool_closed")
        for scope in self._dialling:
            scope.cancel()
        self.watch.stop()

    def look(self, now_s: float) -> float:
        """What the watch does when it wakes: interrupt what is overdue, close what was idle for too long."""
        for connection in self._slots.expire(now_s, self._limits.idle_s):
            self._expire(connection)
        earliest_s = self._slots.longest_idle_s() + self._limits.idle_s
        for connection in self._connections:
            if connection.deadline_s <= now_s:
                connection.interrupt()
            elif connection.deadline_s < earliest_s:
                earliest_s = connection.deadline_s
        return earliest_s

    async def _obtain(self, origin: Origin, deadlines: Deadlines, ends_s: float) -> HttpConnection:
        """A connection, fresh or handed over, after waiting for a place if need be. The caller gives its place back."""
        if self._closed:
            raise NotSent("pool", "pool_closed")
        site, opening = self._slots.take(origin)
        if opening is None:
            connection = await self._wait(site, min(trio.current_time() + deadlines.pool_s, ends_s))
            if connection is not None:
                if connection.is_alive() and not self._closed:
                    return connection
                self._stale_total += 1
                self._connections.discard(connection)
                connection.close()  # its place is ours to fill
        elif opening.surplus is not None:
            self._expire(opening.surplus)
        try:
            return await self._open(site, min(trio.current_time() + deadlines.connect_s, ends_s))
        except BaseException:
            self._carry_out(self._slots.discard(site))
            raise

    async def _wait(self, site: Site[HttpConnection], deadline_s: float) -> HttpConnection | None:
        """A place, possibly with a connection in it. Once woken the task has it: no cancellation comes in between."""
        task = trio.lowlevel.current_task()
        granted: list[HttpConnection | None] = []

        def wake(connection: HttpConnection | None) -> None:
            granted.append(connection)
            trio.lowlevel.reschedule(task)

        waiter = self._slots.wait(site, wake, refuse=lambda: trio.lowlevel.reschedule(task))
        if waiter is None:
            raise NotSent("pool", "pool_full")

        def abort(_: object) -> trio.lowlevel.Abort:
            self._slots.forget(waiter)
            return trio.lowlevel.Abort.SUCCEEDED

        with trio.CancelScope(deadline=deadline_s):
            await trio.lowlevel.wait_task_rescheduled(abort)
            if not granted:
                raise NotSent("pool", "pool_closed")
            return granted[0]
        raise NotSent("pool", "timeout_pool")

    async def _open(self, site: Site[HttpConnection], deadline_s: float) -> HttpConnection:
        with trio.CancelScope() as scope:
            self._dialling.add(scope)
            try:
                sock, tls = await dial(site.origin, self._tls_context, deadline_s)
            finally:
                self._dialling.discard(scope)
            if not self._closed:
                connection = HttpConnection(sock, tls, site, self.watch, self._limits)
                self._connections.add(connection)
                self._opened_total += 1
                return connection
            sock.close()
        raise NotSent("connect", "pool_closed")

    def _drop(self, connection: HttpConnection) -> None:
        self._connections.discard(connection)
        connection.close()
        self._carry_out(self._slots.discard(connection.site))

    def _expire(self, connection: HttpConnection) -> None:
        self._connections.discard(connection)
        self._expired_total += 1
        connection.retire()

    def _carry_out(self, handover: Handover[HttpConnection] | None) -> None:
        if handover is not None:
            if handover.surplus is not None:
                self._expire(handover.surplus)
            handover.waiter.wake(handover.connection)
