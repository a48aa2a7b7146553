"""This incarnation's lease: the promise that nobody else takes over what it is sending.

Postgres keeps the lease and its clock decides; the process only knows when it last asked. It stops *starting* calls one whole
request before the lease could run out by its own monotonic clock, so a call begun in time has ended before anybody may rescue
it.
"""

from __future__ import annotations

import logging
from random import Random

import trio

from actors.metrics import Metrics
from actors.ports import Store
from dispatcher.errors import StoreUnavailable
from dispatcher.model import Delivery

logger = logging.getLogger(__name__)

RENEWALS = 6
"""Renewals tried within one lease, so that several in a row may fail without losing it."""


class Lease:
    """Keeps the lease alive. ``lease_s`` its length, ``call_s`` the longest a started call may take."""

    def __init__(self, store: Store, metrics: Metrics, *, lease_s: float, call_s: float, random: Random) -> None:
        self._store = store
        self._metrics = metrics
        self._lease_s = lease_s
        self._call_s = call_s
        self._random = random
        self.start_until_s = -1.0
        """Calls may start before this instant of Trio's clock. Written here only."""
        self._doubted = trio.Event()

    @property
    def holds(self) -> bool:
        """Whether calls may start now."""
        return trio.current_time() < self.start_until_s

    def covers(self, delivery: Delivery) -> bool:
        """Whether the call of an attempt may start now: the lease has held without a gap since it passed the gate."""
        return trio.current_time() < self.start_until_s and delivery.term == self._store.term

    async def register(self) -> None:
        """Take the lease for the first time. Raises StoreUnavailable."""
        asked_s = trio.current_time()
        await self._store.register(self._lease_s)
        self.start_until_s = asked_s + self._lease_s - self._call_s

    def doubt(self, _stood_still_s: float) -> None:
        """This process stood still for longer than any clock of its own may know: nothing starts before the lease is renewed."""
        self.start_until_s = -1.0
        self._doubted.set()

    async def run(self) -> None:
        """Renew for ever, jittered; at once when it is in doubt.

        After a lapse it registers anew: what it held may be rescued, what it claims from now on is its own.
        """
        while True:
            with trio.move_on_after(self._lease_s / RENEWALS * (0.75 + 0.5 * self._random.random())):
                await self._doubted.wait()
            self._doubted = trio.Event()
            asked_s = trio.current_time()
            try:
                if not await self._store.renew_lease(self._lease_s):
                    logger.warning("the lease had lapsed and is taken anew; attempts under way may be rescued by others")
                    self._metrics.events["lease_lapsed"] += 1
                    await self._store.register(self._lease_s)
                if not self._doubted.is_set():  # else that answer is from before it stood still
                    self.start_until_s = asked_s + self._lease_s - self._call_s
            except StoreUnavailable as error:
                logger.warning("the lease could not be renewed: %s", error)
