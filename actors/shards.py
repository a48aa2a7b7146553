"""Which organizations this process dispatches: those of the shards it owns, as Postgres and its clock decide.

About once a second one statement renews what this process owns, takes what is free and should be its own (see
:mod:`dispatcher.shares`), and tells who the other members are. What should be another's is handed over: its organizations claim
nothing more and settle what they hold, then the shard is released and the others are told, so that it is without an owner for
milliseconds. Who says nothing is succeeded when its lease ends.

Ownership governs claims only: whoever does not own an organization now, by its own clock, claims nothing for it, and lets
nothing begin that was claimed before. Whether an attempt's call may start is up to the lease of attempts, as everywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from random import Random
from typing import Protocol

import trio

from actors.metrics import Metrics
from actors.ports import Holding, Store
from dispatcher.errors import StoreUnavailable
from dispatcher.keys import shard_of
from dispatcher.model import OrganizationId
from dispatcher.shares import share

logger = logging.getLogger(__name__)

BEATS = 5
"""Renewals tried within one lease, so that several in a row may fail without losing it."""
MARGIN = 0.2
"""Part of a lease, at its end, in which it is not used any more: for clocks that run at different rates."""
SLOWNESS = 2.0
"""How much longer than configured a lease is asked for, in durations of the last statement.

A database that takes seconds to answer must not leave everything without an owner.
"""


class Ownership(Protocol):
    """What a registry of organizations asks."""

    @property
    def owned(self) -> Collection[int] | None:
        """The shards to look for work in; None for all of them."""

    def owns(self, organization_id: OrganizationId) -> bool:
        """Whether this process may claim for the organization now."""

    def shard(self, organization_id: OrganizationId) -> int:
        """The organization's shard."""


class Everything:
    """The ownership of a process that is alone."""

    owned = None

    def owns(self, organization_id: OrganizationId) -> bool:
        """Always."""
        return True

    def shard(self, organization_id: OrganizationId) -> int:
        """All are in one."""
        return 0


class Dispatching(Protocol):
    """Who dispatches for the shards. Only ``hand_over`` waits."""

    def gained(self) -> None:
        """There are more shards now: look for work."""

    def resumed(self) -> None:
        """What is owned may be claimed for again, after a pause in which nobody else owned it."""

    def dismiss(self, shards: Collection[int]) -> None:
        """Somebody else owns these, or did meanwhile: what lives there ends as soon as it holds nothing."""

    async def hand_over(self, shard: int) -> None:
        """The same for a shard that is still ours; returns when nothing is held any more, or was waited for long enough."""


class Shards:
    """Owns shards for one incarnation, ``me``. ``tell_others`` hints at all processes to look at once; it may be lost.

    ``lease_s`` is how long a silent owner keeps what it has, ``lease_max_s`` the most that slowness may make of it.
    """

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        *,
        me: str,
        shards: int,
        lease_s: float,
        lease_max_s: float,
        random: Random,
        tell_others: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._me = me
        self._shards = shards
        self._lease_s = lease_s
        self._lease_max_s = max(lease_s, lease_max_s)
        self._random = random
        self._tell_others = tell_others
        self._epochs: dict[int, int] = {}  # of all that we own, as last heard
        self._until_s = -1.0  # when we stop using them
        self._doubts = 0  # how often what we knew was doubted: an answer from before the last time is not believed
        self._members: frozenset[str] = frozenset()
        self._wanted = frozenset(range(shards))  # nobody known yet: whatever is free
        self._handing: set[int] = set()  # being handed over
        self._handed: set[int] = set()  # nothing is held there any more: to be released
        self._mine: frozenset[int] = frozenset()  # owned, and not being handed over
        self._leaving = False
        self._took_s = 0.0  # how long the last statement took
        self._silent = False  # Postgres did not answer the last one
        self._look = trio.Event()
        self.stepped_s = 0.0
        """When it last began a round."""

    # --- for everybody --------------------------------------------------------------------------------------------------

    @property
    def owned(self) -> Collection[int]:
        """The shards this process may claim for now."""
        return self._mine if trio.current_time() < self._until_s else ()

    def owns(self, organization_id: OrganizationId) -> bool:
        """Whether this process may claim for the organization now."""
        return trio.current_time() < self._until_s and self.shard(organization_id) in self._mine

    def shard(self, organization_id: OrganizationId) -> int:
        """The organization's shard."""
        return shard_of(organization_id, self._shards)

    def look(self) -> None:
        """Somebody has handed something over, or joined: ask Postgres at once."""
        self._look.set()

    def doubt(self) -> None:
        """This process stood still for longer than any clock of its own may know: own nothing until Postgres is asked again."""
        self._doubts += 1
        self._until_s = -1.0
        self._look.set()

    def leave(self) -> None:
        """Take part no longer: own nothing from here on, and hand everything over as soon as it is not used any more."""
        self._leaving = True
        self._wanted = self._mine = frozenset()
        self._look.set()

    # --- running --------------------------------------------------------------------------------------------------------

    async def take(self) -> None:
        """The first statement: whatever is free is ours when this returns. Raises StoreUnavailable."""
        await self._hold(None)

    async def run(self, dispatching: Dispatching) -> None:
        """Own, take and hand over until cancelled."""
        async with trio.open_nursery() as nursery:
            self._handing &= self._handed  # the others were begun by an earlier run, and ended with it
            nursery.start_soon(self._tell_others)
            while True:
                self.stepped_s = trio.current_time()
                for shard in sorted(self._epochs.keys() - self._wanted - self._handing):
                    self._handing.add(shard)
                    nursery.start_soon(self._hand_over, shard, dispatching)
                self._mine -= self._handing
                with trio.move_on_after(self._lease_s / BEATS * (0.75 + 0.5 * self._random.random())):
                    await self._look.wait()
                self._look = trio.Event()
                try:
                    if self._handed:
                        await self._release()
                        nursery.start_soon(self._tell_others)
                    await self._hold(dispatching)
                    self._silent = False
                except StoreUnavailable as error:
                    if not self._silent:
                        logger.warning("the ownership of shards could not be renewed: %s", error)
                    self._silent = True

    async def _hand_over(self, shard: int, dispatching: Dispatching) -> None:
        epoch = self._epochs[shard]
        await dispatching.hand_over(shard)
        if self._epochs.get(shard) == epoch:  # else it was lost, and perhaps taken again, which is another story
            self._handed.add(shard)
            self._look.set()

    async def _release(self) -> None:
        released = frozenset(self._handed)
        await self._store.release_shards(released)
        for shard in released:
            self._epochs.pop(shard, None)
        self._handed -= released
        self._handing -= released

    async def _hold(self, dispatching: Dispatching | None) -> None:
        asked_s, doubts = trio.current_time(), self._doubts
        lease_s = min(self._lease_s + SLOWNESS * self._took_s, self._lease_max_s)
        try:
            holding = await self._store.hold_shards(self._epochs.keys() | self._wanted, lease_s, stays=not self._leaving)
        finally:
            self._took_s = trio.current_time() - asked_s
        if self._doubts != doubts:
            return  # nothing of it is heard: the next one, asked at once, tells what became of everything since the one before
        lapsed = bool(self._epochs) and trio.current_time() >= self._until_s
        self._until_s = asked_s + lease_s * (1.0 - MARGIN)
        before, self._epochs = self._epochs, dict(holding.epochs)
        others = {shard for shard, epoch in before.items() if self._epochs.get(shard) != epoch}
        self._handing -= others
        self._handed -= others
        self._share(holding)
        if dispatching is None:
            return
        if others:
            if not self._leaving:  # else they went with the lease
                logger.warning("%d shards have, or had meanwhile, another owner", len(others))
            dispatching.dismiss(others)
        if lapsed:
            self._metrics.events["shards_lapsed"] += 1
            dispatching.resumed()
        if self._mine - before.keys():
            dispatching.gained()

    def _share(self, holding: Holding) -> None:
        """What should be ours, among those who are there now."""
        if not self._leaving and holding.members != self._members:
            self._members = holding.members
            self._wanted = share(self._me, holding.members | {self._me}, self._shards)
            self._look.set()  # some of it may be free
        self._mine = frozenset() if self._leaving else frozenset(self._epochs) - self._handing
