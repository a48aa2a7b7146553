"""Everything that takes something in, or lets out what has waited, put together: it shares one line in front of Postgres.

acceptor   notifications
event_desk events
due_desk   what is due, for the clock
clock      when it is
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from actors.acceptor import Acceptor
from actors.cache import HotCache
from actors.clock import Clock
from actors.direct import DirectDesk
from actors.due import DueDesk
from actors.events import EventDesk
from actors.knowledge import Knowledge
from actors.metrics import Metrics
from actors.planned_rows import Rows
from dispatcher.acceptance import AcceptLimits
from dispatcher.audience import lane
from dispatcher.config import Config
from dispatcher.messages import ProviderPolicy
from dispatcher.model import Lane, OrganizationId
from dispatcher.providers.registry import Bound
from dispatcher.unsubscribe import Links

if TYPE_CHECKING:
    from actors.node_ports import Ports

ACCEPT_TICK_S = 0.002
"""How long inserts are gathered under load. A lone request does not wait for it."""
Providers = Callable[[OrganizationId], Awaitable[Sequence[tuple[ProviderPolicy, Bound]]]]


class Desks:
    """Of one process. ``providers`` are an organization's usable configurations, best first; ``wake`` starts an organization."""

    def __init__(
        self,
        config: Config,
        ports: Ports,
        metrics: Metrics,
        *,
        cache_of: Callable[[OrganizationId], HotCache[Any]],
        providers: Providers,
        wake: Callable[[OrganizationId], None],
        unix_s: Callable[[], float],
        random: Random,
    ) -> None:
        d = config.dispatch
        limits = AcceptLimits(config.surface.batch_items_max, config.surface.item_bytes_max)
        rows = Rows(d.attempts_max, random)
        self._providers = providers
        knowledge = Knowledge(
            ports.store,
            ports.people,
            cache_of=cache_of,
            load_setup=ports.load_setup,
            load_template_set=ports.load_template_set,
            load_lane_limits=self._load_lane_limits,
            item_bytes_max=limits.item_bytes_max,
            links=Links.of(config.surface.public_url, config.encryption_keys),
        )
        self.acceptor = Acceptor(
            ports.store,
            ports.queue,
            metrics,
            limits=limits,
            attempts_max=d.attempts_max,
            rows_max=d.accept_rows_max,
            pending_max=d.accept_pending_max,
            tick_s=ACCEPT_TICK_S,
            cache_of=cache_of,
            load_template=ports.load_template,
            load_setup=ports.load_setup,
            load_lanes=self._load_lanes,
            stored_answer=ports.stored_answer,
            direct=DirectDesk(knowledge, rows, metrics),
            wake=wake,
            unix_s=unix_s,
            random=random,
        )
        admitting = self.acceptor.admitting
        self.event_desk = EventDesk(
            ports.store, admitting, knowledge, metrics, limits=limits, rows=rows, unix_s=unix_s, random=random
        )
        self.due_desk = DueDesk(knowledge, metrics, rows, unix_s)
        self.clock = Clock(
            ports.schedule,
            ports.queue,
            admitting.pusher,
            metrics,
            ask=self.due_desk.ask,
            tell=self.due_desk.tell,
            random=random,
            unix_s=unix_s,
        )
        admitting.on_scheduled = self.clock.scheduled

    async def _load_lanes(self, organization_id: OrganizationId) -> frozenset[Lane]:
        return frozenset(lane(policy.channel, policy.audience) for policy, _ in await self._providers(organization_id))

    async def _load_lane_limits(self, organization_id: OrganizationId) -> Mapping[Lane, bool]:
        """The lanes that somebody serves, and whether the account that is asked first has a limit."""
        limits: dict[Lane, bool] = {}
        for policy, _ in await self._providers(organization_id):
            limits.setdefault(lane(policy.channel, policy.audience), policy.rate_per_s is not None or policy.quota is not None)
        return limits
