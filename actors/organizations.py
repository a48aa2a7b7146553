"""The registry of living organization actors: starts them on demand, watches over them, lets idle ones go.

At most one actor per organization lives in a process. An organization whose actor keeps failing is put under quarantine: it
rests, with an alarm, until its configuration changes or the pause ends, and nobody else notices. A wake-up for an
organization that may not start now is dropped; the sweep asks again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random

import trio

from actors import announcements
from actors.janitor import count_rescued
from actors.ledger import Ledger
from actors.metrics import Metrics
from actors.organization import OrganizationActor
from actors.ports import Arrival, Queue, Store
from actors.supervision import BudgetSpent, RestartBudget, supervise
from dispatcher.errors import QueueUnavailable
from dispatcher.messages import DrainBegan, Woken
from dispatcher.model import OrganizationId

logger = logging.getLogger(__name__)

RELOADS_PER_S = 500.0
"""When all configurations must be read again, so many a second: Postgres has other work as well."""
QUARANTINE_S = 300.0
"""How long an organization rests whose actor has used up its restarts."""


class Organizations:
    """All living organization actors. ``make`` builds one, not yet running."""

    def __init__(
        self,
        make: Callable[[OrganizationId], OrganizationActor],
        *,
        store: Store,
        queue: Queue,
        ledger: Ledger,
        metrics: Metrics,
        budget: RestartBudget,
        alive_max: int,
        sweep_s: float,
        random: Random,
        unix_s: Callable[[], float],
    ) -> None:
        self._make = make
        self._store = store
        self._queue = queue
        self._ledger = ledger
        self._metrics = metrics
        self._budget = budget
        self._alive_max = alive_max
        self._sweep_s = sweep_s
        self._random = random
        self._unix_s = unix_s
        self._alive: dict[OrganizationId, OrganizationActor] = {}
        self._quarantined: dict[OrganizationId, float] = {}
        self._unmended: set[OrganizationId] = set()  # what a crashed actor held was not taken back yet
        self._nursery: trio.Nursery | None = None
        self._draining = False

    def get(self, organization_id: OrganizationId) -> OrganizationActor | None:
        """The organization's actor, started if need be. None while it may not run: draining, quarantined, or too many alive."""
        actor = self._alive.get(organization_id)
        if actor is not None:
            return actor
        if self._nursery is None or self._draining or len(self._alive) >= self._alive_max:
            return None
        if trio.current_time() < self._quarantined.get(organization_id, -1.0):
            return None
        self._quarantined.pop(organization_id, None)
        actor = self._alive[organization_id] = self._make(organization_id)
        self._nursery.start_soon(self._live, actor, name=f"organization {organization_id}")
        return actor

    def wake(self, organization_id: OrganizationId) -> None:
        """There may be work for this organization."""
        alive = self._alive.get(organization_id)
        if alive is not None:
            alive.tell(Woken())
        else:
            self.get(organization_id)

    def changed(self, organization_id: OrganizationId) -> None:
        """Its templates or provider configurations changed: caches go, and a quarantine ends."""
        if self._quarantined.pop(organization_id, None) is not None:
            self.get(organization_id)
        actor = self._alive.get(organization_id)
        if actor is not None:
            actor.reload()

    def all_changed(self) -> None:
        """Changes may have been missed: every cache goes, and configurations are read again over the next moments."""
        spread_s = len(self._alive) / RELOADS_PER_S
        for actor in self._alive.values():
            actor.reload(spread_s * self._random.random())

    def alive(self) -> list[OrganizationActor]:
        """The living actors."""
        return list(self._alive.values())

    @property
    def quarantined(self) -> int:
        """How many organizations are under quarantine."""
        now_s = trio.current_time()
        return sum(1 for until_s in self._quarantined.values() if until_s > now_s)

    async def run(self) -> None:
        """Host the actors, and sweep for organizations whose wake-up was lost, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await self._sweep()
            finally:
                self._nursery = None

    async def drain(self) -> None:
        """Start no more actors and wait until every living one holds nothing."""
        self._draining = True
        async with trio.open_nursery() as nursery:
            for actor in self.alive():
                nursery.start_soon(actor.drain)

    async def _sweep(self) -> None:
        while True:
            try:
                for organization_id in await self._queue.active(self._alive_max):
                    self.wake(organization_id)
            except QueueUnavailable as error:
                logger.warning("the sweep for work could not ask Redis: %s", error)
            await trio.sleep(self._sweep_s * (0.5 + self._random.random()))

    async def _live(self, actor: OrganizationActor) -> None:
        """Run one organization's actor, and the ones that replace it after a crash, until one falls asleep."""
        organization_id = actor.organization_id
        awake = True

        def asleep() -> bool:
            nonlocal awake
            awake = False
            del self._alive[organization_id]  # from here on a wake-up starts another one, which is not ours to remove
            return True

        async def child() -> None:
            if organization_id in self._unmended:
                await self._mend(organization_id)
            try:
                await self._alive[organization_id].run(asleep)
            except Exception:
                self._unmended.add(organization_id)
                raise

        try:
            await supervise(f"organization {organization_id}", child, self._budget, self._random)
        except BudgetSpent as error:
            self._quarantined[organization_id] = trio.current_time() + QUARANTINE_S
            self._metrics.events["organization_quarantined"] += 1
            logger.error("organization %s is under quarantine for %g s: %s", organization_id, QUARANTINE_S, error)
        finally:
            if awake:
                del self._alive[organization_id]

    async def _mend(self, organization_id: OrganizationId) -> None:
        """After a crash: take back what the actor held, once nothing of it is on its way to Postgres, and make a new actor."""
        self._metrics.events["actor_restart"] += 1
        await self._ledger.barrier()
        rescued = await self._store.disown(organization_id)
        count_rescued(self._metrics, rescued)
        ids = [row.id for row in rescued if not row.dead]
        if rescued:
            now_unix_s = self._unix_s()
            notices = [announcements.rescued(row.id, row.channel, dead=row.dead, at_unix_s=now_unix_s) for row in rescued]
            await self._queue.enqueue([Arrival(organization_id, ids, notices)])
        self._unmended.discard(organization_id)
        actor = self._alive[organization_id] = self._make(organization_id)
        if self._draining:
            actor.tell(DrainBegan())
