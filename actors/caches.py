"""Hot caches of organizations that are accepted for here and dispatched elsewhere, or not at all at this moment.

A living actor brings a cache of its own. Without one, every request would read templates and provider configurations anew; so
their caches are kept here, those used last, until the organization changes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from actors.cache import HotCache
from dispatcher.model import OrganizationId

CACHES_MAX = 1_000
"""Caches kept at once; past it the one that was used longest ago goes."""


class Caches:
    """One cache per organization, made by ``make`` when it is first asked for."""

    def __init__(self, make: Callable[[], HotCache[Any]]) -> None:
        self._make = make
        self._caches: OrderedDict[OrganizationId, HotCache[Any]] = OrderedDict()

    def of(self, organization_id: OrganizationId) -> HotCache[Any]:
        """The organization's cache."""
        cache = self._caches.get(organization_id)
        if cache is None:
            cache = self._caches[organization_id] = self._make()
            if len(self._caches) > CACHES_MAX:
                self._caches.popitem(last=False)[1].drop()
        else:
            self._caches.move_to_end(organization_id)
        return cache

    def drop(self, organization_id: OrganizationId) -> None:
        """Forget what is known of one organization, and what is being loaded of it."""
        cache = self._caches.pop(organization_id, None)
        if cache is not None:
            cache.drop()

    def drop_all(self) -> None:
        """Forget everything."""
        for cache in self._caches.values():
            cache.drop()
        self._caches.clear()
