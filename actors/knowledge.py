"""What deciding needs to know, read in as few steps as it takes: the set-up and templates from the cache, people in one query.

Invariant: a world is of one organization and one moment; whatever decides with it sees nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from actors.cache import HotCache
from actors.people_ports import People
from actors.ports import Store
from dispatcher.model import Channel, Lane, OrganizationId
from dispatcher.people import User
from dispatcher.planned import World
from dispatcher.planning import Needs
from dispatcher.setup import Setup
from dispatcher.template_sets import TemplateSet
from dispatcher.unsubscribe import Links

LoadSetup = Callable[[OrganizationId], Awaitable[Setup]]
LoadTemplateSet = Callable[[OrganizationId, str, Channel], Awaitable[TemplateSet | None]]
LoadLaneLimits = Callable[[OrganizationId], Awaitable[Mapping[Lane, bool]]]


class Knowledge:
    """Of all organizations. The loaders fill ``cache_of`` an organization; ``load_lane_limits`` says of the lanes that somebody
    serves whether the account that does has a limit. ``links`` None makes no unsubscribe links."""

    def __init__(
        self,
        store: Store,
        people: People,
        *,
        cache_of: Callable[[OrganizationId], HotCache[Any]],
        load_setup: LoadSetup,
        load_template_set: LoadTemplateSet,
        load_lane_limits: LoadLaneLimits,
        item_bytes_max: int,
        links: Links | None = None,
    ) -> None:
        self._store = store
        self._people = people
        self._cache_of = cache_of
        self._load_setup = load_setup
        self._load_template_set = load_template_set
        self._load_lane_limits = load_lane_limits
        self._item_bytes_max = item_bytes_max
        self._links = links

    async def setup(self, organization_id: OrganizationId) -> Setup:
        """What the organization has set up."""
        cache = self._cache_of(organization_id)
        found: Setup | None = cache.peek("setup")
        if found is None:
            found = await cache.get("setup", lambda: self._load_setup(organization_id))
        return found

    async def users(self, organization_id: OrganizationId, user_ids: Collection[str]) -> Mapping[str, User]:
        """Those of these users that there are."""
        return await self._people.read(organization_id, user_ids) if user_ids else {}

    async def world(self, organization_id: OrganizationId, setup: Setup, needs: Needs, now_unix_s: float) -> World:
        """Everything that these needs are about. Asks nobody about nothing."""
        users = await self.users(organization_id, needs.user_ids)
        statuses = await self._store.suppressed(organization_id, list(needs.addresses)) if needs.addresses else {}
        templates = {}
        cache = self._cache_of(organization_id)
        for name, channel in needs.templates:
            found = await self._template_set(cache, organization_id, name, channel)
            if found is not None:
                templates[name, channel] = found
        lanes = cache.peek("lane_limits")
        if lanes is None:
            lanes = await cache.get("lane_limits", lambda: self._load_lane_limits(organization_id))
        return World(organization_id, setup, users, templates, statuses, lanes, now_unix_s, self._item_bytes_max, self._links)

    async def _template_set(
        self, cache: HotCache[Any], organization_id: OrganizationId, name: str, channel: Channel
    ) -> TemplateSet | None:
        key = ("template_set", name, channel)
        found = cache.peek(key)
        if found is None:

            async def load() -> object:
                loaded = await self._load_template_set(organization_id, name, channel)
                return _NO_TEMPLATE if loaded is None else loaded

            found = await cache.get(key, load)
        return None if found is _NO_TEMPLATE else found


_NO_TEMPLATE = object()
