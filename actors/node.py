"""The node: everything one process runs, as one tree of tasks.

Children in the order they start; a drain stops them in reverse, each with nothing above it left to disturb it::

    lease          may we send at all
    heartbeat      did we stand still
    readiness      do the servers answer
    headroom       is anything short
    shards         for whom may we claim
    ledger         gate, record, settle
    acceptor       inserts
    ingest         reports of providers
    callers        calls at providers
    organizations  one actor each, and the sweep
    herald         wake-ups and announcements
    janitor        what crashes left behind
    archivist      what is final, and its history
    clock          what waits for its time

Store and queue are :class:`~actors.node_ports.Ports`, so that a simulation runs this very tree over ports in memory;
:mod:`actors.opening` connects the real ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

import trio

from actors import announcements
from actors.archivist import Archivist
from actors.cache import HotCache
from actors.caches import Caches
from actors.callers import Callers
from actors.delivery_metrics import DeliveryMetrics
from actors.desks import Desks
from actors.feedback import Ingest
from actors.fetching import Fetcher
from actors.gauges import gauges_of
from actors.headroom import HeadroomWatch
from actors.heartbeat import Heartbeat
from actors.herald import Herald
from actors.io.http import Deadlines
from actors.io.postgres import Pool
from actors.io.redis import Redis
from actors.janitor import Janitor
from actors.lease import RENEWALS, Lease
from actors.ledger import Ledger
from actors.letter_news import LetterNews
from actors.metrics import Metrics
from actors.node_ports import Ports
from actors.organization import OrganizationActor, Surroundings
from actors.organizations import Organizations
from actors.permits import Permits
from actors.ports import Arrival
from actors.readiness import Readiness
from actors.shards import MARGIN, Shards
from actors.strays import Strays
from actors.supervision import RestartBudget, supervise
from actors.transports import Transports
from actors.watchdog import SILENT_S, watched
from actors.webhook_configs import WebhookConfigs
from dispatcher.config import Config
from dispatcher.errors import QueueUnavailable, StoreUnavailable
from dispatcher.headroom import Headroom
from dispatcher.messages import ProviderPolicy
from dispatcher.model import NotificationId, OrganizationId
from dispatcher.organization import Organization
from dispatcher.providers.registry import Bound
from dispatcher.recent import RecentIds
from dispatcher.retry_budget import RetryBudgets

logger = logging.getLogger(__name__)

RECENT_IDS_MAX = 5_000
"""Delivered ids one organization remembers, per generation."""
FLUSH_S = 5.0
"""How long a drain tries to write down what is known, once no more calls are waited for."""
RELEASE_S = 2.0
"""How long it tries to give the lease up."""
BUDGET = RestartBudget()


class Node:
    """One running process, as the surface and the command line see it. Made by :func:`open_node`."""

    def __init__(
        self,
        config: Config,
        *,
        ports: Ports,
        pool: Pool,
        redis: Redis,
        transports: Transports,
        make_herald: Callable[[Node], Herald],
        incarnation: str,
        random: Random,
        random_bytes: Callable[[int], bytes],
        unix_s: Callable[[], float],
    ) -> None:
        d = config.dispatch
        self._config = config
        self._random = random
        self._unix_s = unix_s
        self.incarnation = incarnation
        self.pool = pool
        self.redis = redis
        self.transports = transports
        self.metrics = Metrics(deliveries=DeliveryMetrics(d.metrics_organizations_max))
        self.permits = Permits(d.in_flight_max)
        self.callers = Callers(d.calls_max)
        self._ports = ports
        self.store = ports.store
        self.queue = ports.queue
        self.lease = Lease(self.store, self.metrics, lease_s=d.lease_s, call_s=d.request_deadline_s + 1.0, random=random)
        self.shards = Shards(
            self.store,
            self.metrics,
            me=incarnation,
            shards=d.shards,
            lease_s=d.owner_lease_s,
            lease_max_s=d.lease_s,
            random=random,
            tell_others=lambda: self.herald.shards_moved(),  # noqa: PLW0108 (made further down)
        )
        self.ledger = Ledger(
            self.store,
            self.queue,
            self.metrics,
            tick_s=d.ledger_tick_s,
            rows_max=d.ledger_rows_max,
            pending_max=4 * d.in_flight_max,
            unix_s=unix_s,
            random=random,
        )
        self._retry_budgets = RetryBudgets(d.retry_ratio, d.retry_floor_per_s)
        self.surroundings = Surroundings(
            queue=self.queue,
            ledger=self.ledger,
            callers=self.callers,
            transports=transports,
            deadlines=Deadlines(
                pool_s=d.request_deadline_s,
                connect_s=d.connect_deadline_s,
                write_s=d.request_deadline_s,
                read_s=d.request_deadline_s,
                total_s=d.request_deadline_s,
            ),
            lease=self.lease,
            permits=self.permits,
            metrics=self.metrics,
            random=random,
            unix_s=unix_s,
            random_bytes=random_bytes,
            refresh_s=lambda: random.uniform(d.cache_ttl_min_s, d.cache_ttl_max_s),
            idle_s=d.idle_s,
            owns=self.shards.owns,
        )
        self.organizations = Organizations(
            self._make_organization,
            store=self.store,
            queue=self.queue,
            ledger=self.ledger,
            metrics=self.metrics,
            budget=BUDGET,
            alive_max=d.organizations_alive_max,
            sweep_s=d.sweep_s,
            random=random,
            unix_s=unix_s,
            ownership=self.shards,
        )
        self._spare_caches = Caches(self._make_cache)
        self.desks = Desks(
            config,
            ports,
            self.metrics,
            cache_of=self._cache_of,
            providers=lambda organization_id: self._providers(organization_id, self._cache_of(organization_id)),
            wake=self.organizations.wake,
            unix_s=unix_s,
            random=random,
        )
        self.acceptor, self.event_desk, self.clock = self.desks.acceptor, self.desks.event_desk, self.desks.clock
        self.ingest = Ingest(
            ports.feedback,
            self.queue,
            WebhookConfigs(ports.load_webhook, ttl_min_s=d.cache_ttl_min_s, ttl_max_s=d.cache_ttl_max_s, random=random),
            Fetcher(transports),
            self.metrics,
            unix_s=unix_s,
        )
        self.headroom = HeadroomWatch(
            Headroom(d.accept_wait_max_s),
            redis,
            pool,
            self.metrics,
            waits=self.acceptor.admitting.waits,
            is_idle=lambda: self.acceptor.admitting.is_idle,
            random=random,
        )
        self.readiness = Readiness(pool, redis)
        self._doubt_lease_s = d.lease_s / RENEWALS
        doubt_s = min(self._doubt_lease_s, d.owner_lease_s * MARGIN)
        self.heartbeat = Heartbeat(self.metrics, doubt_s=doubt_s, on_stall=self._stood_still, unix_s=unix_s)
        self.letter_news = LetterNews(self.queue, self.organizations.wake, unix_s)
        self.herald = make_herald(self)
        self._ledger_runs = False
        self._ledger_ended = trio.Event()
        strays = Strays(self.store, self.queue, self.metrics, holds=self.organizations.holds, lease_s=d.lease_s, unix_s=unix_s)
        self.janitor = Janitor(
            self.store,
            self.queue,
            self.metrics,
            sweep_s=d.sweep_s,
            random=random,
            unix_s=unix_s,
            strays=strays,
            reports=self.ingest.sweep,
            people=ports.tidy_people,
        )
        self.archivist = None
        if ports.archive is not None:
            self.archivist = Archivist(
                ports.archive, self.metrics, round_s=d.sweep_s, after_s=d.history_after_s, random=random, unix_s=unix_s
            )

    def _stood_still(self, late_s: float) -> None:
        self.shards.doubt()
        if late_s >= self._doubt_lease_s:
            self.lease.doubt(late_s)

    # --- for the herald -----------------------------------------------------------------------------------------------------

    def drop_cached(self, organization_id: OrganizationId) -> None:
        """The organization changed: what is cached of it goes."""
        self._spare_caches.drop(organization_id)
        self.ingest.configs.drop(organization_id)
        self.organizations.changed(organization_id)

    def drop_all_cached(self) -> None:
        """Any organization may have changed."""
        self._spare_caches.drop_all()
        self.ingest.configs.drop_all()
        self.organizations.all_changed()

    # --- for the surface ----------------------------------------------------------------------------------------------------

    async def changed(self, organization_id: OrganizationId) -> None:
        """Templates or provider configurations of an organization changed: drop what any process has cached of them."""
        await self.herald.changed(organization_id)

    async def requeued(self, organization_id: OrganizationId, ids: Sequence[NotificationId]) -> None:
        """These notifications are queued again, by hand. A hint: what it loses, the janitor finds."""
        now_unix_s = self._unix_s()
        try:
            await self.queue.enqueue([Arrival(organization_id, ids, [announcements.requeued(id, now_unix_s) for id in ids])])
        except QueueUnavailable as error:
            logger.warning("requeued notifications wait for the janitor: %s", error)
        self.organizations.wake(organization_id)

    async def ready(self) -> Mapping[str, bool]:
        """Whether each server answers, within a second."""
        return await self.readiness.ready()

    def gauges(self) -> Mapping[str, float]:
        """Present values, for a scrape."""
        return gauges_of(self)

    # --- running --------------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run every child until cancelled, or until :meth:`drain` has ended them."""
        await self.lease.register()
        await self.shards.take()
        async with trio.open_nursery() as nursery:
            self._below = nursery
            # Not supervised: a batch that a failed ledger lost is on nobody's mind any more, so the process must end and be
            # rescued.
            nursery.start_soon(self._run_ledger)
            for name, child in (
                ("lease", self.lease.run),
                ("heartbeat", self.heartbeat.run),
                ("readiness", self.readiness.run),
                ("headroom", self.headroom.run),
                ("acceptor", self.acceptor.run),
                ("ingest", self.ingest.run),
                ("shards", self._run_shards),
            ):
                nursery.start_soon(self._supervised, name, child)
            async with trio.open_nursery() as above:
                self._above = above
                # These two hold what is under way for every organization, so they are not started again either.
                above.start_soon(self.callers.run)
                above.start_soon(self.organizations.run)
                for name, child in (("herald", self.herald.run), ("janitor", self._run_janitor), ("clock", self.clock.run)):
                    above.start_soon(self._supervised, name, child)
                if self.archivist is not None:
                    above.start_soon(self._supervised, "archivist", self.archivist.run)
                task_status.started()

    async def drain(self, drain_s: float) -> bool:
        """Stop claiming, let calls end, flush, give the lease up; at most ``drain_s`` for the calls.

        True when nothing was left.
        """
        with trio.move_on_after(drain_s) as patience:
            self.acceptor.close()
            self.ingest.close()
            self.shards.leave()
            await self.organizations.drain()
        self._above.cancel_scope.cancel()
        with trio.move_on_after(FLUSH_S) as flushing:
            if self._ledger_runs:
                await self.ledger.barrier()
                self.ledger.close()
                await self._ledger_ended.wait()  # what nobody holds any more is settled and announced as well
        try:
            with trio.move_on_after(RELEASE_S):
                await self.store.release_lease()
                await self.herald.shards_moved()
        except StoreUnavailable as error:
            logger.warning("the lease could not be given up and will run out by itself: %s", error)
        self._below.cancel_scope.cancel()
        return not (patience.cancelled_caught or flushing.cancelled_caught)

    async def leave(self) -> bool:
        """Drain whatever else is being cancelled, within a bound of its own. True when nothing was left."""
        drain_s = self._config.dispatch.drain_s
        with trio.CancelScope(deadline=trio.current_time() + drain_s + FLUSH_S + 2 * RELEASE_S, shield=True):
            return await self.drain(drain_s)
        return False

    async def _run_ledger(self) -> None:
        self._ledger_runs = True
        try:
            await self.ledger.run()
        finally:
            self._ledger_runs = False
            self._ledger_ended.set()

    async def _run_shards(self) -> None:
        d = self._config.dispatch
        run, silent_s = partial(self.shards.run, self.organizations), SILENT_S + d.owner_lease_s + d.lease_s
        await watched("the owner of shards", run, lambda: self.shards.stepped_s, silent_s=silent_s)

    async def _run_janitor(self) -> None:
        silent_s = SILENT_S + 2 * self._config.dispatch.sweep_s
        await watched("the janitor", self.janitor.run, lambda: self.janitor.stepped_s, silent_s=silent_s)

    async def _supervised(self, name: str, child: Callable[[], Any]) -> None:
        await supervise(name, child, BUDGET, self._random)

    # --- what the children are given
    # ----------------------------------------------------------------------------------------------

    def _make_organization(self, organization_id: OrganizationId) -> OrganizationActor:
        d = self._config.dispatch
        core = Organization(
            in_flight_max=d.organization_in_flight_max,
            retry=d.retry_policy,
            breaker=self._config.breaker,
            recent=RecentIds(d.cache_ttl_min_s, RECENT_IDS_MAX),
            random01=self._random.random,
            budgets=self._retry_budgets,
        )
        cache = self._make_cache()
        return OrganizationActor(organization_id, core, cache, lambda: self._providers(organization_id, cache), self.surroundings)

    async def _providers(self, organization_id: OrganizationId, cache: HotCache[Any]) -> Sequence[tuple[ProviderPolicy, Bound]]:
        found: Sequence[tuple[ProviderPolicy, Bound]]
        found = await cache.get("providers", lambda: self._ports.load_providers(organization_id))
        return found

    def _make_cache(self) -> HotCache[Any]:
        d = self._config.dispatch
        return HotCache(ttl_min_s=d.cache_ttl_min_s, ttl_max_s=d.cache_ttl_max_s, random=self._random)

    def _cache_of(self, organization_id: OrganizationId) -> HotCache[Any]:
        actor = self.organizations.get(organization_id)
        return self._spare_caches.of(organization_id) if actor is None else actor.cache
