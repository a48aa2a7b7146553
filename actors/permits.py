"""Leave to hold ids in flight, shared by all organizations of a process: no permit, no claim.

Permits bound the memory that claimed notifications take. Whoever waits is served in order, with no more than a fair part of what
is there. As with the callers, the last eighth is not for everybody: an organization that holds permits leaves it to those that
hold none, who take a few each. So neither long queues nor ids that do not come back (calls at providers that do not answer) keep
an organization waiting that has nothing under way.

Invariant: whoever waits is served, because what an organization holds comes back, and then it may take any permit.
"""

from __future__ import annotations

import trio
from attrs import define, field, frozen

FEW = 8
"""What one organization takes at most of the last eighth, and what it is worth to claim when many wait."""


@frozen
class PermitStatistics:
    """``held`` of ``total`` are out; ``waiting`` organizations stand in line."""

    total: int
    held: int
    waiting: int


@define(eq=False)
class Purse:
    """What one organization holds of the permits. Only :class:`Permits` writes it."""

    held: int = field(default=0, init=False)


@define(eq=False)
class _Wish:
    """Somebody in line. ``number`` is their place; ``granted`` is more than 0 once they are served. ``task`` has to be woken."""

    n: int
    number: int
    granted: int = 0
    task: trio.lowlevel.Task | None = None


class Permits:
    """A pool of permits, taken in varying amounts."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._kept = total // 8
        self._number = 0
        # Everybody in line, oldest first but for those who came from one into the other.
        self._with_some: dict[Purse, _Wish] = {}
        self._with_none: dict[Purse, _Wish] = {}

    async def acquire(self, purse: Purse, n: int) -> int:
        """Wait until this organization may have a permit, then take up to ``n`` (at least 1). Returns how many.

        Nobody may wait for the same purse twice. What was taken is in the purse even when the caller is cancelled meanwhile.
        """
        assert purse not in self._with_none, "one claim at a time"
        assert purse not in self._with_some, "one claim at a time"
        await trio.lowlevel.checkpoint_if_cancelled()
        self._number += 1
        wish = _Wish(n, self._number)
        (self._with_some if purse.held else self._with_none)[purse] = wish
        self._serve()
        if wish.granted:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return wish.granted

        def leave(_: object) -> trio.lowlevel.Abort:
            self._with_none.pop(purse, None)
            self._with_some.pop(purse, None)
            return trio.lowlevel.Abort.SUCCEEDED

        wish.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(leave)
        return wish.granted

    def release(self, purse: Purse, n: int) -> None:
        """Give ``n`` permits back. Never waits."""
        assert n <= purse.held, "more permits came back than went out"
        purse.held -= n
        self._free += n
        if n and (self._with_some or self._with_none):
            if not purse.held and (wish := self._with_some.pop(purse, None)) is not None:
                self._with_none[purse] = wish
            self._serve()

    def statistics(self) -> PermitStatistics:
        """A snapshot."""
        return PermitStatistics(self._total, self._total - self._free, len(self._with_some) + len(self._with_none))

    def _serve(self) -> None:
        """Give out what there is, in order of arrival among those who may have it."""
        with_some, with_none = self._with_some, self._with_none
        while self._free and (with_some or with_none):
            beyond = self._free - self._kept
            share = max(FEW, beyond // (len(with_some) + len(with_none)))
            first = next(iter(with_none.items())) if with_none else None
            other = next(iter(with_some.items())) if with_some and beyond > 0 else None
            if other is not None and (first is None or other[1].number < first[1].number):
                purse, wish = other
                granted = min(wish.n, share, beyond)
                del with_some[purse]
            elif first is not None:
                purse, wish = first
                granted = min(wish.n, share, self._free)
                del with_none[purse]
            else:
                return
            wish.granted = granted
            purse.held += granted
            self._free -= granted
            if wish.task is not None:
                trio.lowlevel.reschedule(wish.task)
