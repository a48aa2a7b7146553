"""A dispatcher in memory: the real actors on Trio's virtual clock, with queue and store in memory and an obedient provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, cast

import trio
from attrs import evolve

from actors.cache import HotCache
from actors.callers import Callers
from actors.io.http import Deadlines, HttpPool
from actors.lease import Lease
from actors.ledger import Ledger
from actors.memory import MemoryQueue, Moment
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase, Row
from actors.metrics import Metrics
from actors.organization import OrganizationActor, Surroundings
from actors.organizations import EVERYTHING, Organizations
from actors.permits import Permits
from actors.ports import Admission, Arrival
from actors.shards import Ownership
from actors.supervision import RestartBudget
from actors.transports import Transports
from dispatcher.backoff import RetryPolicy
from dispatcher.breaker import BreakerPolicy
from dispatcher.http_message import HttpRequest, HttpResponse, Origin
from dispatcher.ids import uuid7
from dispatcher.messages import Command, Event, ProviderPolicy
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId
from dispatcher.organization import Now, Organization
from dispatcher.outcome import OnUnknown, Outcome, OutcomeClass
from dispatcher.providers.provider import Limits
from dispatcher.recent import RecentIds

EPOCH_S = 1_700_000_000.0
LEASE_S = 60.0
CALL_S = 21.0
IDLE_S = 30.0
SWEEP_S = 10.0
IN_FLIGHT_MAX = 16
ACME = OrganizationId("acme")
OTHER = OrganizationId("other")
ORIGIN = Origin("http", "provider.test", 80)
MAIL = ProviderPolicy("c-mail", 1, "mailer", Channel.EMAIL, None, 1, 4, OnUnknown.RESEND, key_retention_s=86_400.0)
BUDGET = RestartBudget(restarts_max=2, period_s=1000.0, pause_s=1.0)
KINDS = {202: OutcomeClass.DELIVERED, 503: OutcomeClass.SOFT, 400: OutcomeClass.HARD, 429: OutcomeClass.RATE_LIMITED}


def unix_s() -> float:
    return EPOCH_S + trio.current_time()


def order_of(id: NotificationId) -> int:
    """The number a notification was made with."""
    return int(id[-12:], 16)


class Provider:
    """Answers calls; ``conduct`` decides how, and may wait. ``called`` notes when each notification was tried."""

    def __init__(self) -> None:
        self.called: list[tuple[NotificationId, float]] = []
        self.at_once = 0
        self.at_once_max = 0
        self.conduct: Callable[[NotificationId], Awaitable[int]] = self.accept

    async def accept(self, _: NotificationId) -> int:
        await trio.sleep(0.1)
        return 202

    async def exchange(self, request: HttpRequest, _: Deadlines) -> HttpResponse:
        id = NotificationId(request.target.decode()[1:])
        self.called.append((id, trio.current_time()))
        self.at_once += 1
        self.at_once_max = max(self.at_once, self.at_once_max)
        try:
            return HttpResponse(await self.conduct(id), [], b"")
        finally:
            self.at_once -= 1

    def calls_of(self, id: NotificationId) -> int:
        return sum(called == id for called, _ in self.called)


class Bound:
    """A provider's two functions, as small as they can be."""

    origin = ORIGIN
    limits = Limits(None, 1, 4)

    def request(self, delivery: Delivery, moment: object) -> HttpRequest:
        return HttpRequest(ORIGIN, b"POST", f"/{delivery.id}".encode(), [])

    def classify(self, response: HttpResponse, now_unix_s: float) -> Outcome:
        kind = KINDS[response.status]
        return Outcome(kind, "accepted" if kind is OutcomeClass.DELIVERED else f"http_{response.status}")


class FaultyCore(Organization):
    """Raises on events that the test does not like."""

    dislikes: Callable[[Event], bool] | None = None

    def handle(self, event: Event, now: Now) -> list[Command]:
        if self.dislikes is not None and self.dislikes(event):
            raise ValueError("person@example.org")
        return super().handle(event, now)


class ActorWorld:
    """Everything one process has. Its parts may be replaced before it runs."""

    ownership: Ownership = EVERYTHING

    def __init__(
        self,
        *,
        permits: int = 64,
        alive_max: int = 100,
        queue: MemoryQueue | None = None,
        database: MemoryDatabase | None = None,
        incarnation: str = "incarnation-1",
    ) -> None:
        self.random = Random(1)
        self.metrics = Metrics()
        self.database = database or MemoryDatabase(unix_s)
        self.store = MemoryStore(self.database, incarnation)
        self.queue = queue or MemoryQueue(unix_s, lease_s=LEASE_S)
        self.permits = Permits(permits)
        self.callers = Callers(8)
        self.provider = Provider()
        self.policies: list[ProviderPolicy] = [MAIL]
        self.loads = 0
        self.dislikes: Callable[[OrganizationId, Event], bool] | None = None
        self.lease = Lease(self.store, self.metrics, lease_s=LEASE_S, call_s=CALL_S, random=self.random)
        self.ledger = Ledger(
            self.store,
            self.queue,
            self.metrics,
            tick_s=0.01,
            rows_max=100,
            pending_max=1000,
            unix_s=unix_s,
            random=self.random,
        )
        self.organizations = Organizations(
            self.make,
            store=self.store,
            queue=self.queue,
            ledger=self.ledger,
            metrics=self.metrics,
            budget=BUDGET,
            alive_max=alive_max,
            sweep_s=SWEEP_S,
            random=self.random,
            unix_s=unix_s,
            ownership=self.ownership,
        )
        self.made: list[OrganizationActor] = []
        self._numbers = 0 if database is None else 1000 * len(database.rows)

    def make(self, organization_id: OrganizationId) -> OrganizationActor:
        core = FaultyCore(
            IN_FLIGHT_MAX,
            RetryPolicy(base_s=2.0, cap_s=20.0),
            BreakerPolicy(calls_min=4, open_base_s=10.0, slow_call_s=10.0, probe_deadline_s=10.0),
            RecentIds(300.0, 100),
            self.random.random,
        )
        core.dislikes = lambda event: self.dislikes is not None and self.dislikes(organization_id, event)
        cache: HotCache[Any] = HotCache(ttl_min_s=300.0, ttl_max_s=900.0, random=self.random)
        surroundings = Surroundings(
            queue=self.queue,
            ledger=self.ledger,
            callers=self.callers,
            transports=Transports(cast("HttpPool", self.provider)),
            deadlines=Deadlines(),
            lease=self.lease,
            permits=self.permits,
            metrics=self.metrics,
            random=self.random,
            unix_s=unix_s,
            random_bytes=self.random.randbytes,
            idle_s=IDLE_S,
            refresh_s=lambda: 600.0,
            owns=self.ownership.owns,
        )
        actor = OrganizationActor(organization_id, core, cache, self.load, surroundings)
        self.made.append(actor)
        return actor

    async def load(self) -> Sequence[tuple[ProviderPolicy, Bound]]:
        await trio.lowlevel.checkpoint()
        self.loads += 1
        return [(policy, Bound()) for policy in self.policies]

    def configure(self, **changes: Any) -> None:
        """A new revision of the only configuration."""
        self.policies = [evolve(self.policies[0], revision=self.policies[0].revision + 1, **changes)]

    async def store_rows(
        self,
        n: int,
        organization_id: OrganizationId = ACME,
        channel: Channel = Channel.EMAIL,
        expires_in_s: float | None = None,
    ) -> list[NotificationId]:
        """Notifications that are on disk and nowhere else."""
        admissions = []
        for _ in range(n):
            self._numbers += 1
            id = NotificationId(uuid7(int(unix_s() * 1000), self._numbers))
            row = {
                "id": id,
                "organization_id": organization_id,
                "channel": channel.value,
                "attempts_max": 8,
                "created_at": unix_s(),
                "expires_at": None if expires_in_s is None else unix_s() + expires_in_s,
                "recipient": "person@example.org",
                "payload": {"text": "canary"},
            }
            admissions.append(Admission(organization_id, id, None, b"", row))
        await MemoryStore(self.database, "acceptor").insert(admissions, ())
        return [admission.id for admission in admissions]

    async def accept(
        self, n: int, organization_id: OrganizationId = ACME, *, channel: Channel = Channel.EMAIL, wake: bool = True
    ) -> list[NotificationId]:
        """Notifications that are on disk and in the queue; as a rule somebody is told."""
        ids = await self.store_rows(n, organization_id, channel)
        await self.queue.enqueue([Arrival(organization_id, ids, ())])
        if wake:
            self.organizations.wake(organization_id)
        return ids

    def row(self, id: NotificationId) -> Row:
        return self.database.rows[id]

    def statuses(self, ids: Sequence[NotificationId]) -> set[str]:
        return {self.row(id).status.value for id in ids}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[trio.Nursery]:
        """The process runs; the yielded nursery hosts its organizations only. At the end everything is cancelled at once."""
        await self.lease.register()
        async with trio.open_nursery() as below:
            for part in (self.lease.run, self.ledger.run, self.callers.run):
                below.start_soon(part)
            async with trio.open_nursery() as above:
                above.start_soon(self.organizations.run)
                await trio.testing.wait_all_tasks_blocked()
                yield above
                above.cancel_scope.cancel()
            below.cancel_scope.cancel()


class Operations:
    """An interrupt that counts operations, and for each name may have something done at one moment of it."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.on: dict[tuple[str, Moment], Callable[[], Awaitable[None]]] = {}

    async def __call__(self, operation: str, moment: Moment) -> None:
        if moment is Moment.BEFORE:
            self.counts[operation] = self.counts.get(operation, 0) + 1
            await trio.lowlevel.checkpoint()
        action = self.on.get((operation, moment))
        if action is not None:
            await action()

    def count(self, operation: str) -> int:
        return self.counts.get(operation, 0)
