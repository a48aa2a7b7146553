"""Leave to hold ids in flight, shared by all organizations of a process: no permit, no claim.

Permits bound the memory that claimed notifications take. Whoever waits is served in order and takes what is there, up to what
it asked for, so one organization with a long queue never makes another wait for more than one round.
"""

from __future__ import annotations

import trio
from attrs import frozen


@frozen
class PermitStatistics:
    """``held`` of ``total`` are out; ``waiting`` organizations stand in line."""

    total: int
    held: int
    waiting: int


class Permits:
    """A pool of permits, taken in varying amounts, first come first served."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._line = trio.StrictFIFOLock()
        self._freed = trio.Event()

    async def acquire(self, n: int) -> int:
        """Wait until a permit is free, then take up to ``n`` (at least 1). Returns how many."""
        async with self._line:
            while self._free <= 0:
                self._freed = trio.Event()
                await self._freed.wait()
            granted = min(n, self._free)
            self._free -= granted
            return granted

    def release(self, n: int) -> None:
        """Give ``n`` permits back. Never waits."""
        self._free += n
        assert self._free <= self._total, "more permits came back than went out"
        if n > 0:
            self._freed.set()

    def statistics(self) -> PermitStatistics:
        """A snapshot."""
        return PermitStatistics(self._total, self._total - self._free, self._line.statistics().tasks_waiting)
