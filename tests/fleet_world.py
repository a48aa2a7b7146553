"""Several dispatchers in memory that share one queue, one store and one provider, and share out the organizations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import trio

from actor_world import ACME, LEASE_S, MAIL, ActorWorld, Operations, Provider, unix_s
from actors.memory import MemoryQueue, Moment
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase
from actors.metrics import Metrics
from actors.shards import Shards
from dispatcher.errors import StoreUnavailable
from dispatcher.model import OrganizationId

SHARDS = 16
OWNER_S = 5.0


class Member(ActorWorld):
    """One process of the fleet. ``operations`` interrupts its store."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.name = name
        store = MemoryStore(fleet.database, name)
        store.interrupt = self.operations = Operations()
        self.ownership = self.shards = Shards(
            store,
            Metrics(),
            me=name,
            shards=SHARDS,
            lease_s=OWNER_S,
            lease_max_s=LEASE_S,
            random=Random(name),
            tell_others=fleet.tell,
        )
        super().__init__(incarnation=name, database=fleet.database, queue=fleet.queue)
        self.provider = fleet.provider
        self.policies = fleet.policies

    def lose_shards(self) -> None:
        """From now on it can not renew its ownership, although everything else works."""
        self.operations.on["hold_shards", Moment.BEFORE] = _away

    def find_shards(self) -> None:
        """And now it can again."""
        self.operations.on.clear()

    @asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        """The process runs; at the end of the block it is killed."""
        await self.lease.register()
        await self.shards.take()
        async with self.running(), trio.open_nursery() as nursery:
            nursery.start_soon(self.shards.run, self.organizations)
            yield
            nursery.cancel_scope.cancel()

    async def leave(self) -> None:
        """What a drain does."""
        self.shards.leave()
        await self.organizations.drain()

    def dispatches(self, organization_id: OrganizationId = ACME) -> bool:
        """Whether an actor of the organization lives here that may begin something."""
        alive = self.organizations.alive() if self.shards.owns(organization_id) else []
        return any(actor.organization_id == organization_id and not actor.paused for actor in alive)


class Fleet:
    """What the processes share."""

    def __init__(self) -> None:
        self.database = MemoryDatabase(unix_s)
        self.queue = MemoryQueue(unix_s, lease_s=LEASE_S, shards=SHARDS, on_wake=self._wake)
        self.provider = Provider()
        self.policies = [MAIL]
        self.members: list[Member] = []
        self.hints = True

    def member(self, name: str) -> Member:
        """One more process, not yet running."""
        self.members.append(Member(self, name))
        return self.members[-1]

    async def tell(self) -> None:
        """Somebody has handed shards over, or joined."""
        await trio.lowlevel.checkpoint()
        if self.hints:
            for member in self.members:
                member.shards.look()

    def owned(self) -> list[int]:
        """How many shards each member owns."""
        return [len(member.shards.owned) for member in self.members]

    async def never_two_owners(self) -> None:
        """Look all the time, until cancelled, that nobody owns what another owns."""
        while True:
            owned = [shard for member in self.members for shard in member.shards.owned]
            assert len(owned) == len(set(owned))
            await trio.sleep(0.05)

    def _wake(self, organization_id: OrganizationId) -> None:
        for member in self.members:
            member.organizations.wake(organization_id)


async def _away() -> None:
    raise StoreUnavailable("away")
