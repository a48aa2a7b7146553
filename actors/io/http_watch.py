"""One alarm for many deadlines.

A cancel scope around every exchange would cost as much as all the rest of the pool (bench/io_http.py). A deadline
almost never fires, so exchanges only write theirs down, and one task sleeps until the earliest that could: when it wakes
it looks at all of them, acts on those that are due and sleeps until the earliest of the rest. Deadlines are exact; the
cost is one comparison per exchange, and one look over all connections about once per deadline length.

Invariant: while any deadline is pending, ``wakes_at_s`` is not later than the earliest of them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import trio


class Watch:
    """An alarm clock that is set by anybody and only ever set earlier."""

    __slots__ = ("_scope", "_stopped", "wakes_at_s")

    def __init__(self) -> None:
        self.wakes_at_s = inf
        self._scope = trio.CancelScope()
        self._stopped = False

    def by(self, deadline_s: float) -> None:
        """See to it that the watch wakes no later than this. Never waits."""
        if deadline_s < self.wakes_at_s:
            self.wakes_at_s = deadline_s
            self._scope.deadline = deadline_s

    def stop(self) -> None:
        """End ``run``. Never waits."""
        self._stopped = True
        self._scope.cancel()

    async def run(self, look: Callable[[float], float]) -> None:
        """Call ``look(now_s)`` whenever the alarm goes; it acts on what is due and returns the earliest of the rest."""
        while not self._stopped:
            with trio.CancelScope(deadline=self.wakes_at_s) as self._scope:
                await trio.sleep_forever()
            # An answer may have come while this process did not run, and whoever waits for it goes first. Twice, because a
            # stopped process comes back from its wait with nothing: the first turn asks the sockets, in the second readers run.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            if not self._stopped:
                self.wakes_at_s = look(trio.current_time())
