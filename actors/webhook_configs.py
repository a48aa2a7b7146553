"""Whose webhook an address is: provider configurations, opened once and kept until they change.

Nobody has shown a key when this is asked. So what does not exist is told from what does by one look-up, few of which run at once,
and nothing is kept of those that found nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any

import trio
from attrs import field, frozen

from dispatcher.feedback.feedback import FeedbackSource
from dispatcher.model import Channel, OrganizationId

KEPT_MAX = 10_000
LOOKUPS_MAX = 2


@frozen
class WebhookConfig:
    """One configuration whose provider reports, with its credentials opened."""

    provider: str
    channel: Channel
    source: FeedbackSource
    settings: Mapping[str, Any] = field(repr=False)
    credentials: Mapping[str, Any] = field(repr=False)


Load = Callable[[OrganizationId, str], Awaitable[WebhookConfig | None]]
_Name = tuple[OrganizationId, str]


class WebhookConfigs:
    """Kept for a jittered while, as everything that is cached of an organization."""

    def __init__(self, load: Load, *, ttl_min_s: float, ttl_max_s: float, random: Random) -> None:
        self._load = load
        self._ttl_min_s = ttl_min_s
        self._ttl_max_s = ttl_max_s
        self._random = random
        self._kept: OrderedDict[_Name, tuple[float, WebhookConfig]] = OrderedDict()
        self._lookups = trio.CapacityLimiter(LOOKUPS_MAX)
        self._generation = 0

    async def find(self, organization_id: OrganizationId, id: str) -> WebhookConfig | None:
        """The configuration; None when there is no such one, or its provider reports nothing. Raises StoreUnavailable."""
        name = organization_id, id
        kept = self._peek(name)
        if kept is not None:
            return kept
        async with self._lookups:
            kept = self._peek(name)
            if kept is not None:
                return kept
            generation = self._generation
            config = await self._load(organization_id, id)
        if config is not None and generation == self._generation:
            self._kept[name] = (trio.current_time() + self._random.uniform(self._ttl_min_s, self._ttl_max_s), config)
            while len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        return config

    def drop(self, organization_id: OrganizationId) -> None:
        """The organization changed."""
        self._generation += 1
        for name in [name for name in self._kept if name[0] == organization_id]:
            del self._kept[name]

    def drop_all(self) -> None:
        """Any may have changed."""
        self._generation += 1
        self._kept.clear()

    def _peek(self, name: _Name) -> WebhookConfig | None:
        entry = self._kept.get(name)
        return entry[1] if entry is not None and entry[0] > trio.current_time() else None
