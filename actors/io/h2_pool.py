"""The HTTP/2 pool: which connection a request goes out on, who waits, when another connection is opened.

A connection serves one origin and one ``authorization``: services that speak HTTP/2 to senders judge a connection by the account
it carries, so what one account does wrong must not narrow the streams of another. Callers wait in the order in which they came
for a stream, at most their pool deadline, and move on to a connection without being woken in between.

Invariant: while anybody waits, no connection of that account has room, and another is being opened unless it were one too many.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import trio
from attrs import define, field

from actors.io.h2_connection import H2Link
from actors.io.h2_stream import H2Stream
from actors.io.h2_terms import H2Limits, H2Statistics
from actors.io.h2_wire import fields_of
from actors.io.http_dial import dial
from actors.io.http_terms import Deadlines, NotSent
from actors.io.http_watch import Watch
from actors.io.tls import client_context
from dispatcher.http_message import HttpRequest, HttpResponse, Origin

ACCOUNT_HEADER = b"authorization"
PAUSE_S = 1.0
"""After a failed attempt to open a further connection."""


@asynccontextmanager
async def open_h2_pool(*, limits: H2Limits | None = None, tls_context: ssl.SSLContext | None = None) -> AsyncIterator[H2Pool]:
    """A pool for as long as the block runs. Exchanges still under way at its end fail with code ``pool_closed``.

    ``tls_context`` defaults to the system's trusted authorities; a given one must verify, is this pool's alone, and gets ALPN
    set. Raises ConfigError for a context that does not verify. What the block raises comes out as it is, not in a group.
    """
    try:
        async with trio.open_nursery() as nursery:
            pool = H2Pool(H2Limits() if limits is None else limits, client_context(tls_context, "h2"), nursery)
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
    """What leads to one origin for one account."""

    origin: Origin
    account: bytes = field(repr=False)
    links: list[H2Link] = field(factory=list, init=False)
    """The one opened first comes first, and is used first: so surplus ones fall idle and expire."""
    waiting: dict[H2Stream, None] = field(factory=dict, init=False)
    dialling: bool = field(default=False, init=False)
    dial_after_s: float = field(default=-inf, init=False)


class H2Pool:
    """Connections to any number of origins and accounts. Made by :func:`open_h2_pool`."""

    def __init__(self, limits: H2Limits, tls_context: ssl.SSLContext, nursery: trio.Nursery) -> None:
        self.watch = Watch()
        self._limits = limits
        self._tls_context = tls_context
        self._nursery = nursery
        self._sites: dict[tuple[Origin, bytes], _Site] = {}
        self._site_of: dict[H2Link, _Site] = {}
        self._short: dict[_Site, None] = {}
        """Those that would open a connection if the pool had one left."""
        self._scopes: set[trio.CancelScope] = set()
        """Of the connections that are being opened."""
        self._places = 0
        self._waiting = 0
        self._closed = False
        self._opened_total = self._stale_total = self._expired_total = self._refused_total = 0

    async def exchange(self, request: HttpRequest, deadlines: Deadlines) -> HttpResponse:
        """Send one request, return its whole response. A checkpoint. Raises NotSent or MaybeSent.

        An exchange that is cancelled under way resets its stream; one whose caller was cancelled before sends nothing.
        """
        fields = fields_of(request)
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise NotSent("pool", "pool_closed")
        now_s = trio.current_time()
        account = next((value for name, value in request.headers if name == ACCOUNT_HEADER), b"")
        site = self._site(request.origin, account)
        stream = H2Stream(site.origin, account, fields, request.body, deadlines, now_s, self._limits.body_bytes_max, self._forget)
        link = None if site.waiting else _roomy(site)
        if link is not None:
            link.begin(stream)
        elif self._waiting >= self._limits.waiting_max:
            raise NotSent("pool", "pool_full")
        else:
            self._enqueue(site, stream)
            self._dial(site, now_s)
        self.watch.by(stream.deadline_s)
        return await stream.wait()

    def statistics(self) -> H2Statistics:
        """The pool at this moment."""
        links = list(self._site_of)
        idle = sum(not link.streams for link in links)
        return H2Statistics(
            connections=self._places,
            idle=idle,
            in_use=self._places - idle,
            waiting=self._waiting,
            origins=len({site.origin for site in self._sites.values()}),
            opened_total=self._opened_total,
            stale_total=self._stale_total,
            expired_total=self._expired_total,
            streams=sum(link.streams for link in links),
            refused_total=self._refused_total + sum(link.refused_total for link in links),
        )

    def close(self) -> None:
        """Make everything under way fail, close every connection. Never waits; further exchanges are refused."""
        self._closed = True
        for scope in self._scopes:
            scope.cancel()
        for site in list(self._sites.values()):
            self._fail_waiting(site, NotSent("pool", "pool_closed"))
        for link in list(self._site_of):
            if link.streams:
                link.end("read", "pool_closed")
            else:
                link.retire()
        self.watch.stop()

    def look(self, now_s: float) -> float:
        """What the watch does when it wakes: fail what is overdue, close what was idle for too long or is too old."""
        earliest_s = inf
        for site in list(self._sites.values()):
            for stream in list(site.waiting):
                if stream.deadline_s <= now_s:
                    self._forget(stream)
                    stream.overdue()
                else:
                    earliest_s = min(earliest_s, stream.deadline_s)
            if site.waiting:
                self._serve(site, now_s)  # it may have been too early for another connection
        for link in list(self._site_of):
            if not link.going and link.opened_s + self._limits.age_max_s <= now_s:
                link.going = True
            if not link.streams and (link.going or link.idle_since_s + self._limits.idle_s <= now_s):
                self._expire(link)
                continue
            until_s = link.opened_s + self._limits.age_max_s if not link.going else inf
            if not link.streams:
                until_s = min(until_s, link.idle_since_s + self._limits.idle_s)
            earliest_s = min(earliest_s, until_s, link.look(now_s))
        return earliest_s

    # --- what connections tell ------------------------------------------------------------------------------------------------

    def has_room(self, link: H2Link) -> None:
        """A connection may take another stream, or has nothing left to do."""
        site = self._site_of.get(link)
        if site is None:
            return
        if link.is_new:
            link.is_new = site.dialling = False
        if site.waiting:
            self._serve(site, trio.current_time())
        if link.streams or link.ended:
            return
        if link.going or self._short:
            self._expire(link)
        else:
            self.watch.by(trio.current_time() + self._limits.idle_s)

    def has_ended(self, link: H2Link, unsent: list[H2Stream]) -> None:
        """A connection is gone; what it was handed too late goes elsewhere."""
        site = self._site_of.pop(link, None)
        self._refused_total += link.refused_total
        if site is None:
            return
        site.links.remove(link)
        self._places -= 1
        self._stale_total += link.was_idle
        if link.is_new:
            self._not_opened(site, NotSent("connect", link.code))
            return
        if unsent:
            site.waiting = dict.fromkeys([*unsent, *site.waiting])
            self._waiting += len(unsent)
        if not link.answered:  # whatever is wrong there, it must not be asked again and again
            site.dial_after_s = trio.current_time() + PAUSE_S
        self._settle(site)

    # --- the queue and what serves it -----------------------------------------------------------------------------------------

    def _site(self, origin: Origin, account: bytes) -> _Site:
        site = self._sites.get((origin, account))
        if site is None:
            site = self._sites[origin, account] = _Site(origin, account)
        return site

    def _enqueue(self, site: _Site, stream: H2Stream) -> None:
        site.waiting[stream] = None
        self._waiting += 1

    def _forget(self, stream: H2Stream) -> None:
        """The caller no longer waits."""
        if stream.link is not None:
            stream.link.cancel(stream)
        else:
            site = self._site(stream.origin, stream.account)
            del site.waiting[stream]
            self._waiting -= 1
            self._tidy(site)

    def _serve(self, site: _Site, now_s: float) -> None:
        """Give streams to those who wait, and open a connection if that is not enough."""
        while site.waiting and (link := _roomy(site)) is not None:
            stream = next(iter(site.waiting))
            del site.waiting[stream]
            self._waiting -= 1
            link.begin(stream)
        self._dial(site, now_s)

    def _dial(self, site: _Site, now_s: float) -> None:
        """Open one more connection for those who wait, if there may be one."""
        usable = sum(not link.going for link in site.links)
        if not site.waiting or site.dialling or self._closed or usable >= self._limits.connections_per_account_max:
            return
        if now_s < site.dial_after_s:
            self.watch.by(site.dial_after_s)
            return
        if self._places >= self._limits.connections_max:
            idle = min((link for link in self._site_of if not link.streams), key=lambda link: link.idle_since_s, default=None)
            self._short[site] = None
            if idle is not None:
                self._expire(idle)  # which serves whoever is short
            return
        self._short.pop(site, None)
        site.dialling = True
        self._places += 1
        self._nursery.start_soon(self._open, site)

    async def _open(self, site: _Site) -> None:
        """Open a connection and live its life."""
        deadline_s = trio.current_time() + max((stream.deadlines.connect_s for stream in site.waiting), default=0.0)
        failure = NotSent("connect", "pool_closed")
        link: H2Link | None = None
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                link = await self._connect(site.origin, deadline_s)
            except NotSent as problem:
                failure = problem
            finally:
                self._scopes.discard(scope)
        if link is None:
            self._places -= 1
            self._not_opened(site, failure)
            return
        self._opened_total += 1
        site.links.append(link)
        self._site_of[link] = site
        self.watch.by(min(deadline_s, link.opened_s + self._limits.age_max_s))
        await link.run()

    async def _connect(self, origin: Origin, deadline_s: float) -> H2Link:
        sock, tls = await dial(origin, self._tls_context, deadline_s)
        assert tls is not None
        if tls.protocol == "h2":
            return H2Link(sock, tls, self, self.watch, self._limits, deadline_s)
        sock.close()
        raise NotSent("tls", "tls_alpn")

    def _not_opened(self, site: _Site, failure: NotSent) -> None:
        """No connection: who waits learns why, unless there is another one to wait for."""
        site.dialling = False
        if any(not link.going for link in site.links):
            site.dial_after_s = trio.current_time() + PAUSE_S
        else:
            self._fail_waiting(site, failure)
        self._settle(site)

    def _fail_waiting(self, site: _Site, failure: NotSent) -> None:
        waiting = list(site.waiting)
        site.waiting.clear()
        self._waiting -= len(waiting)
        for stream in waiting:
            stream.fail(NotSent(failure.phase, failure.code))

    def _settle(self, site: _Site) -> None:
        """Something of the pool has become free."""
        if site.waiting:
            self._serve(site, trio.current_time())
        self._tidy(site)
        for other in list(self._short):
            self._dial(other, trio.current_time())

    def _expire(self, link: H2Link) -> None:
        self._expired_total += 1
        link.retire()

    def _tidy(self, site: _Site) -> None:
        if not site.waiting:
            self._short.pop(site, None)
            if not site.links and not site.dialling:
                self._sites.pop((site.origin, site.account), None)


def _roomy(site: _Site) -> H2Link | None:
    for link in site.links:
        if link.room > 0:
            return link
    return None
