"""The registry of living organization actors: starts them on demand, watches over them, lets idle ones go.

At most one actor per organization lives in a process. An organization whose actor keeps failing is put under quarantine: it
rests, with an alarm, until its configuration changes or the pause ends, and nobody else notices. A wake-up for an
organization that may not start now is dropped; the sweep asks again. Only organizations this process owns are started.

The sweep also finds actors that have work and do not claim: they are ended as if they had crashed. And when many organizations
at once end in quarantine, the fault is not theirs: then the process ends, to be started afresh.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection
from random import Random

import trio

from actors import announcements
from actors.ledger import Ledger
from actors.metrics import Metrics
from actors.organization import OrganizationActor
from actors.ports import Queue, Settlement, Store
from actors.rescued import put_back
from actors.shards import Everything, Ownership
from actors.supervision import BudgetSpent, RestartBudget, Stalled, supervise
from actors.watchdog import SILENT_S, Watchdog, watched
from dispatcher.errors import QueueUnavailable
from dispatcher.messages import Woken
from dispatcher.model import NotificationId, OrganizationId

logger = logging.getLogger(__name__)

RELOADS_PER_S = 500.0
"""When all configurations must be read again, so many a second: Postgres has other work as well."""
QUARANTINE_S = 300.0
"""How long an organization rests whose actor has used up its restarts."""
QUARANTINES_MAX = 10
"""So many different organizations may go into quarantine within :data:`QUARANTINES_PERIOD_S`.

When it is one more, and at least as many as still live, the process is ill: what a few customers do must not end it, what
strikes everybody must.
"""
QUARANTINES_PERIOD_S = 60.0
HAND_OVER_S = 5.0
"""How long a hand-over waits for calls under way: no longer than a killed owner is waited for. They end here in any case."""
EVERYTHING = Everything()


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
        ownership: Ownership = EVERYTHING,
    ) -> None:
        self._ownership = ownership
        self._watchdog = Watchdog(sweep_s)
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
        self._quarantines: deque[tuple[float, OrganizationId]] = deque()  # the latest, to tell a fault of theirs from one of ours
        self._ill: BudgetSpent | None = None
        self._unmended: dict[OrganizationId, OrganizationActor] = {}  # crashed; what they held was not taken back yet
        self._nursery: trio.Nursery | None = None
        self._draining = False
        self._sweep_now = trio.Event()
        self._swept_s = 0.0

    def get(self, organization_id: OrganizationId) -> OrganizationActor | None:
        """The organization's actor, started if need be.

        None while it may not run here: somebody else's, draining, quarantined, or too many alive.
        """
        actor = self._alive.get(organization_id)
        if actor is not None:
            return actor
        if self._nursery is None or self._draining or len(self._alive) >= self._alive_max:
            return None
        if not self._ownership.owns(organization_id) and organization_id not in self._unmended:
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

    def holds(self, organization_id: OrganizationId, id: NotificationId) -> bool:
        """Whether an actor here holds this id, or one that has crashed may hold it and is not mended yet."""
        actor = self._alive.get(organization_id)
        return organization_id in self._unmended or (actor is not None and id in actor.core.in_flight)

    @property
    def quarantined(self) -> int:
        """How many organizations are under quarantine."""
        now_s = trio.current_time()
        return sum(1 for until_s in self._quarantined.values() if until_s > now_s)

    async def run(self) -> None:
        """Host the actors, and sweep for organizations whose wake-up was lost, until cancelled.

        Raises BudgetSpent when too many of them fail at once.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await supervise("the sweep", self._sweep_watched, self._budget, self._random)
            finally:
                self._nursery = None
        if self._ill is not None:
            raise self._ill

    async def drain(self) -> None:
        """Start no more actors and wait until every living one holds nothing."""
        self._draining = True
        async with trio.open_nursery() as nursery:
            for actor in self.alive():
                nursery.start_soon(actor.drain)

    # --- for the owner of shards ----------------------------------------------------------------------------------------

    def gained(self) -> None:
        """There are more organizations to look after: sweep at once."""
        self._sweep_now.set()

    def resumed(self) -> None:
        """Nobody else owned what is owned again: go on where the actors stopped."""
        if not self._draining:
            for actor in self._alive.values():
                if self._ownership.owns(actor.organization_id):
                    actor.resume()

    def dismiss(self, shards: Collection[int]) -> None:
        """End the actors of these shards, each as soon as it holds nothing. Should they be ours again, others follow them."""
        if self._nursery is not None:
            for actor in self._of(shards):
                self._nursery.start_soon(actor.end)

    async def hand_over(self, shard: int) -> None:
        """End the actors of a shard; wait until they hold nothing, at most :data:`HAND_OVER_S` for calls under way."""
        leaving = self._of((shard,))
        self.dismiss((shard,))
        with trio.move_on_after(HAND_OVER_S):
            for actor in leaving:
                await actor.drain()

    def _of(self, shards: Collection[int]) -> list[OrganizationActor]:
        return [actor for actor in self._alive.values() if self._ownership.shard(actor.organization_id) in shards]

    # --- inside ---------------------------------------------------------------------------------------------------------

    async def _sweep_watched(self) -> None:
        await watched("the sweep", self._sweep, lambda: self._swept_s, silent_s=SILENT_S + 2 * self._sweep_s)

    async def _sweep(self) -> None:
        while True:
            self._swept_s = trio.current_time()
            self._sweep_now = trio.Event()
            for organization_id in sorted(self._unmended):  # nobody else may take back what they hold: our lease lives
                self.wake(organization_id)
            try:
                owned = self._ownership.owned
                with_work = await self._queue.active(self._alive_max, owned) if owned is None or owned else []
                self._end_stalled(with_work)
                for organization_id in with_work:
                    self.wake(organization_id)
            except QueueUnavailable as error:
                self._watchdog.forget()
                logger.warning("the sweep for work could not ask Redis: %s", error)
            with trio.move_on_after(self._sweep_s * (0.5 + self._random.random())):
                await self._sweep_now.wait()

    def _end_stalled(self, with_work: Collection[OrganizationId]) -> None:
        living = [actor for organization_id in with_work if (actor := self._alive.get(organization_id)) is not None]
        for actor, stalled_s in self._watchdog.look(living):
            self._metrics.events["consumer_restarted"] += 1
            logger.error("organization %s has work and has not claimed for %.0f s", actor.organization_id, stalled_s)
            actor.fail(Stalled("an organization's actor stood still", stalled_s))

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
                if not self._ownership.owns(organization_id):
                    return
            try:
                await self._alive[organization_id].run(asleep)
            except Exception:
                self._unmended[organization_id] = self._alive[organization_id]
                raise

        try:
            await supervise(f"organization {organization_id}", child, self._budget, self._random)
        except BudgetSpent as error:
            logger.error("organization %s is under quarantine for %g s: %s", organization_id, QUARANTINE_S, error)
            self._quarantine(organization_id)
        finally:
            if awake:
                del self._alive[organization_id]
        if awake and self._ownership.owns(organization_id):
            self._sweep_now.set()  # it was dismissed, and the organization is ours again: what was woken meanwhile needs another

    def _quarantine(self, organization_id: OrganizationId) -> None:
        now_s = trio.current_time()
        self._quarantined[organization_id] = now_s + QUARANTINE_S
        self._metrics.events["organization_quarantined"] += 1
        notice = announcements.quarantined(QUARANTINE_S, self._unix_s())
        self._ledger.settle(Settlement(organization_id, announcements=[notice]), lambda _: None)
        self._quarantines.append((now_s, organization_id))
        while self._quarantines[0][0] <= now_s - QUARANTINES_PERIOD_S:
            self._quarantines.popleft()
        struck = {organization_id for _, organization_id in self._quarantines}
        if len(struck) > QUARANTINES_MAX and len(struck) >= len(self._alive.keys() - struck) and self._nursery is not None:
            self._ill = BudgetSpent(f"{len(struck)} organizations went into quarantine within {QUARANTINES_PERIOD_S:g} s")
            self._nursery.cancel_scope.cancel()

    async def _mend(self, organization_id: OrganizationId) -> None:
        """After a crash: take back what the actor held, once nothing of it is on its way to Postgres, and make a new actor."""
        self._metrics.events["actor_restart"] += 1
        await self._ledger.barrier()
        not_begun = self._unmended[organization_id].not_begun()
        handed_back = await self._store.hand_back(organization_id, not_begun) if not_begun else ()
        rescued = await self._store.disown(organization_id)
        if handed_back:
            await self._queue.settle([Settlement(organization_id, requeued=list(handed_back))])
        await put_back(rescued, self._queue, self._metrics, self._unix_s())
        del self._unmended[organization_id]
        actor = self._alive[organization_id] = self._make(organization_id)
        if self._draining:
            actor.pause()
