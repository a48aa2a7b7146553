"""Who is calling: an ``Authorization`` value becomes a :class:`Principal`, or a refusal.

Keys are looked up by their SHA-256 and kept for ``key_cache_s``, so the hot path pays a digest and a dict look-up, and a
revoked key stops working everywhere within that time. Look-ups are few at a time: a flood of wrong keys must not take the
database's connections away from those with good ones.

There is no oracle about organizations: a path that names another organization than the key's own is answered as one that
names none at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from attrs import frozen

from actors.store.api_keys import ApiKey, Scope, digest, is_key
from dispatcher.model import OrganizationId
from dispatcher.problems import Refused
from dispatcher_http.problems import ORGANIZATION_NOT_FOUND, UNAUTHENTICATED, scope_missing

KEYS_CACHED_MAX = 10_000
LOOKUPS_MAX = 2

BEARER_SUBPROTOCOL = "bearer"
"""A browser cannot set headers on a websocket: it offers this subprotocol and then the key as a second one."""


@frozen
class Principal:
    """Whoever holds a key: what it may do, and for which organization."""

    key_id: str
    organization_id: OrganizationId
    scopes: frozenset[str]

    def require(self, organization_id: str, scope: Scope) -> None:
        """Raise Refused unless this may do ``scope`` for the organization in the path."""
        if organization_id != self.organization_id:
            raise Refused(ORGANIZATION_NOT_FOUND)
        if scope not in self.scopes:
            raise Refused(scope_missing(scope))


def key_in(authorization: bytes | None) -> bytes:
    """The key in an ``Authorization`` value. Raises Refused when there is none, or what is there cannot be a key."""
    if authorization is not None:
        scheme, _, key = authorization.partition(b" ")
        key = key.strip()
        if scheme.lower() == b"bearer" and is_key(key):
            return key
    raise Refused(UNAUTHENTICATED)


def key_in_subprotocols(subprotocols: list[str]) -> bytes | None:
    """The key offered as ``bearer, <key>``; None when no key is offered so."""
    if len(subprotocols) != 2 or subprotocols[0] != BEARER_SUBPROTOCOL:
        return None
    return b"Bearer " + subprotocols[1].encode("latin-1", "replace")


class Authenticator:
    """Knows keys by their digest. ``find`` asks the store; ``clock`` is monotonic seconds."""

    def __init__(self, find: Callable[[bytes], Awaitable[ApiKey | None]], cache_s: float, clock: Callable[[], float]) -> None:
        self._find = find
        self._cache_s = cache_s
        self._clock = clock
        # Oldest first, so that what is dropped at the limit is what expires next. Unknown keys are not kept: whoever
        # guesses never guesses the same one twice.
        self._principals: dict[bytes, tuple[Principal, float]] = {}
        self._lookups = trio.CapacityLimiter(LOOKUPS_MAX)

    async def principal(self, authorization: bytes | None) -> Principal:
        """Who sent this ``Authorization`` value. A checkpoint only when the key is not known yet.

        Raises Refused, or StoreUnavailable when the key has to be looked up and cannot be.
        """
        key_digest = digest(key_in(authorization))
        known = self._known(key_digest)
        if known is not None:
            return known
        async with self._lookups:
            # Of many requests with one new key, the first to get here asks for all of them.
            known = self._known(key_digest)
            if known is not None:
                return known
            asked_at_s = self._clock()
            key = await self._find(key_digest)
        if key is None:
            raise Refused(UNAUTHENTICATED)
        principal = Principal(key.id, key.organization_id, key.scopes)
        self._principals.pop(key_digest, None)
        while len(self._principals) >= KEYS_CACHED_MAX:
            del self._principals[next(iter(self._principals))]
        # Counted from before the question: a key revoked while it was being answered must not live longer than promised.
        self._principals[key_digest] = (principal, asked_at_s + self._cache_s)
        return principal

    def _known(self, key_digest: bytes) -> Principal | None:
        entry = self._principals.get(key_digest)
        return entry[0] if entry is not None and self._clock() < entry[1] else None
