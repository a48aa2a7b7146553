"""A bounded memory of ids seen lately, for dropping repeats without asking the database.

Two generations of a set: when the young one is full or old enough it becomes the old one, and the old one is forgotten.
An id is remembered for at least one and at most two periods. Forgetting early costs a query, never a double:
the gate in Postgres is what decides.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field


@define
class RecentIds:
    """Ids added within the last ``ttl_s`` to ``2 * ttl_s`` seconds, at most ``2 * generation_max`` of them."""

    ttl_s: float
    generation_max: int
    _young: set[str] = field(factory=set, init=False, repr=False)
    _old: set[str] = field(factory=set, init=False, repr=False)
    _turned_at_s: float | None = field(default=None, init=False, repr=False)

    def add(self, ids: Iterable[str], now_s: float) -> None:
        """Remember these ids."""
        self.turn(now_s)
        self._young.update(ids)

    def discard(self, ids: Iterable[str]) -> None:
        """Forget these ids at once."""
        self._young.difference_update(ids)
        self._old.difference_update(ids)

    def __contains__(self, id: str) -> bool:
        return id in self._young or id in self._old

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def turn(self, now_s: float) -> None:
        """Forget what is too old. Whoever asks without adding must call this first."""
        if self._turned_at_s is None:
            self._turned_at_s = now_s
        elapsed_s = now_s - self._turned_at_s
        if elapsed_s >= self.ttl_s or len(self._young) >= self.generation_max:
            self._old = self._young if elapsed_s < 2 * self.ttl_s else set()
            self._young = set()
            self._turned_at_s = now_s
