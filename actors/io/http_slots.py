"""The pool's policy: who may use which connection, who waits, what is closed. Synchronous; it decides, others carry out.

Every connection, and every attempt to open one, takes one *place*: at most ``connections_per_origin_max`` per origin and
``connections_max`` altogether. A place is taken by ``reuse``, ``open`` or a hand-over, and given back by ``release`` or
``discard``, exactly once.

Invariants:
- an origin with callers waiting has no idle connection, and is at its limit, or the pool is at its own;
- while anybody waits for the pool's limit, no connection anywhere is idle (it would have been closed to make room);
- the longest waiting caller that can be served is served first; within an origin that is strict order of arrival.
The connection idle for the shortest time is used first, so that surplus ones fall idle long enough to expire.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import Generic, Protocol, TypeVar

from attrs import define, frozen

from dispatcher.http_message import Origin


class Idle(Protocol):
    """What the policy needs of a connection."""

    idle_since_s: float


C = TypeVar("C", bound=Idle)


@define(eq=False)
class Site(Generic[C]):
    """One origin's part of the pool."""

    origin: Origin
    idle: list[C]
    """The longest idle first."""
    waiters: OrderedDict[int, Waiter[C]]
    """By ticket, hence in order of arrival."""
    places: int = 0


@define(eq=False)
class Waiter(Generic[C]):
    """A caller in the queue. Exactly one of ``wake``, ``refuse`` and :meth:`Slots.forget` ends its waiting."""

    site: Site[C]
    ticket: int
    wake: Callable[[C | None], None]
    """It has a place: with this connection, or to open one."""
    refuse: Callable[[], None]
    """It has none and never will: the pool is closed."""


@frozen
class Opening(Generic[C]):
    """A new place was taken; ``surplus`` is an idle connection of another origin to close for it."""

    surplus: C | None


@frozen
class Handover(Generic[C]):
    """A place went straight on: close ``surplus``, then wake ``waiter`` with ``connection``."""

    waiter: Waiter[C]
    connection: C | None
    surplus: C | None


class Slots(Generic[C]):
    """The books of one pool."""

    __slots__ = ("_per_origin_max", "_places", "_queued", "_tickets", "_total_max", "_waiting", "_waiting_max", "sites")

    def __init__(self, per_origin_max: int, total_max: int, waiting_max: int) -> None:
        self.sites: dict[Origin, Site[C]] = {}
        """Every origin with a place taken or a caller waiting."""
        self._queued: dict[Origin, Site[C]] = {}
        """Those of them with a caller waiting."""
        self._per_origin_max = per_origin_max
        self._total_max = total_max
        self._waiting_max = waiting_max
        self._places = 0
        self._waiting = 0
        self._tickets = 0

    def reuse(self, origin: Origin) -> C | None:
        """Take the place of the connection to ``origin`` that was used last, if one is idle."""
        site = self.sites.get(origin)
        return site.idle.pop() if site is not None and site.idle else None

    def take(self, origin: Origin) -> tuple[Site[C], Opening[C] | None]:
        """Take a place for a new connection; None in its stead says: wait. To be asked when ``reuse`` had nothing."""
        site = self.sites.get(origin)
        if site is None:
            site = self.sites[origin] = Site(origin, [], OrderedDict())
        if site.places >= self._per_origin_max:
            return site, None
        surplus = None
        if self._places >= self._total_max:
            donor = min((other for other in self.sites.values() if other.idle), key=_longest_idle_s, default=None)
            if donor is None:
                self._tidy(site)
                return site, None
            surplus = donor.idle.pop(0)
            self._vacate(donor)
        self._occupy(site)
        return site, Opening(surplus)

    def wait(self, site: Site[C], wake: Callable[[C | None], None], refuse: Callable[[], None]) -> Waiter[C] | None:
        """Join the queue. None when it is full."""
        if self._waiting >= self._waiting_max:
            return None
        self._tickets += 1
        waiter = Waiter(site, self._tickets, wake, refuse)
        site.waiters[waiter.ticket] = waiter
        self.sites[site.origin] = self._queued[site.origin] = site
        self._waiting += 1
        return waiter

    def forget(self, waiter: Waiter[C]) -> None:
        """Leave the queue without having been woken."""
        site = waiter.site
        del site.waiters[waiter.ticket]
        self._waiting -= 1
        if not site.waiters:
            del self._queued[site.origin]
            self._tidy(site)

    def release(self, site: Site[C], connection: C, now_s: float) -> Handover[C] | None:
        """Give back the place of a connection that can be used again."""
        if self._queued:
            waiter = self._next(site)
            if waiter is not None:
                if waiter.site is site:
                    return Handover(waiter, connection, None)
                self._vacate(site)
                self._occupy(waiter.site)
                return Handover(waiter, None, connection)
        connection.idle_since_s = now_s
        site.idle.append(connection)
        return None

    def discard(self, site: Site[C]) -> Handover[C] | None:
        """Give back the place of a connection that is closed, or was never opened."""
        self._vacate(site)
        waiter = self._next(None) if self._queued else None
        if waiter is None:
            return None
        self._occupy(waiter.site)
        return Handover(waiter, None, None)

    def expire(self, now_s: float, idle_s: float) -> list[C]:
        """Take out the connections idle for ``idle_s`` or longer; the caller closes them."""
        expired: list[C] = []
        for site in list(self.sites.values()):
            while site.idle and site.idle[0].idle_since_s + idle_s <= now_s:
                expired.append(site.idle.pop(0))
                self._vacate(site)
        return expired

    def close(self) -> tuple[list[C], list[Waiter[C]]]:
        """Take out every idle connection and every waiter; the caller closes and refuses them."""
        waiters = [waiter for site in self._queued.values() for waiter in site.waiters.values()]
        for waiter in waiters:
            self.forget(waiter)
        return self.expire(inf, 0.0), waiters

    def longest_idle_s(self) -> float:
        """Since when the longest idle connection has been idle; infinity when there is none."""
        return min((_longest_idle_s(site) for site in self.sites.values() if site.idle), default=inf)

    @property
    def places(self) -> int:
        return self._places

    @property
    def idle(self) -> int:
        return sum(len(site.idle) for site in self.sites.values())

    @property
    def waiting(self) -> int:
        return self._waiting

    def _next(self, releasing: Site[C] | None) -> Waiter[C] | None:
        """Take the longest waiting caller that the place just freed can serve out of the queue."""
        served: Site[C] | None = None
        first = 0
        for site in self._queued.values():
            if site is releasing or site.places < self._per_origin_max:
                ticket = next(iter(site.waiters))
                if served is None or ticket < first:
                    served, first = site, ticket
        if served is None:
            return None
        waiter = served.waiters.pop(first)
        self._waiting -= 1
        if not served.waiters:
            del self._queued[served.origin]
        return waiter

    def _occupy(self, site: Site[C]) -> None:
        site.places += 1
        self._places += 1
        self.sites[site.origin] = site

    def _vacate(self, site: Site[C]) -> None:
        site.places -= 1
        self._places -= 1
        self._tidy(site)

    def _tidy(self, site: Site[C]) -> None:
        if not site.places and not site.waiters:
            self.sites.pop(site.origin, None)


def _longest_idle_s(site: Site[C]) -> float:
    return site.idle[0].idle_since_s
