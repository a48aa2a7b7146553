"""The callers: the tasks that make calls, shared by all channels of a process.

A channel with attempts to make stands in line; a caller takes one attempt from the channel in front (or several that share a
call), sends the channel back into the line if it has more, and makes the call.

Who is in front is decided in :mod:`dispatcher.fairness`: the organization that has used the callers least, and the last free ones
are kept for those that use few. So a long queue never delays a short one by more than a round, nor does a provider that does not
answer; a caller that finishes finds its next work without a task switch, and no task is ever parked for want of a connection. At
most ``calls_max`` calls are under way. Callers start with the work and rest when nobody in line may have one: waking one is
cheaper than starting one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias, cast
from weakref import WeakValueDictionary

import trio
from attrs import frozen

from dispatcher.fairness import Party, Share, Turns
from dispatcher.model import Delivery, OrganizationId
from dispatcher.providers.batching import Part

Work: TypeAlias = Delivery | Sequence[Part]
"""What a caller does in one go: an attempt that goes alone, or several that share a call."""


class Line(Party, Protocol):
    """What stands in line: a channel with its waiting attempts, on the account of its organization."""

    in_line: bool
    """Written by :class:`Callers` only."""

    @property
    def has_work(self) -> bool:
        """Whether an attempt waits and may be made now."""

    def take(self) -> Work:
        """What is next, which is under way from now on. Only while ``has_work``."""

    async def attempt(self, work: Work) -> float:
        """Do it, tell how each attempt ended, return how many seconds it took."""


@frozen
class CallersStatistics:
    """``calling`` calls are under way; ``in_line`` channels wait for a caller."""

    calling: int
    calls_max: int
    in_line: int


class Callers:
    """Makes calls for channels, in turns."""

    def __init__(self, calls_max: int) -> None:
        self._calls_max = calls_max
        self._turns = Turns(calls_max)
        self._shares: WeakValueDictionary[OrganizationId, Share] = WeakValueDictionary()
        self._calling = 0
        self._idle: list[trio.lowlevel.Task] = []  # callers that wait for work, the one that waits shortest last
        self._nursery: trio.Nursery | None = None

    def share_of(self, organization_id: OrganizationId) -> Share:
        """The account of all channels of an organization. It lasts as long as anybody has it, calls under way included."""
        share = self._shares.get(organization_id)
        if share is None:
            share = self._shares[organization_id] = Share()
        return share

    def join(self, channel: Line) -> None:
        """Put a channel that has work in line, unless it stands there already. Never waits."""
        if self._line_up(channel):
            self._call_for(channel.share)

    def beside(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Start something that calls need and that none of them owns. It must end by itself and raise nothing but Cancelled.

        False when no callers run: then it is not started.
        """
        if self._nursery is None:
            return False
        self._nursery.start_soon(work)
        return True

    async def run(self) -> None:
        """Host the callers until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for _ in range(min(self._turns.waiting, self._calls_max)):
                    self._calling += 1
                    nursery.start_soon(self._call)
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def statistics(self) -> CallersStatistics:
        """A snapshot."""
        return CallersStatistics(self._calling, self._calls_max, self._turns.waiting)

    def _line_up(self, channel: Line) -> bool:
        if channel.in_line or not channel.has_work:
            return False
        channel.in_line = True
        self._turns.wait(channel)
        return True

    def _call_for(self, share: Share) -> None:
        """Have one more caller look at the line, if there is one that this organization may take."""
        if not self._turns.may_begin(share, self._calls_max - self._calling):
            return
        if self._idle:
            self._calling += 1
            trio.lowlevel.reschedule(self._idle.pop())
        elif self._nursery is not None:
            self._calling += 1
            self._nursery.start_soon(self._call)

    async def _call(self) -> None:
        """Serve the line, rest while it has nobody for us. Whoever starts or wakes a caller counts it as calling."""
        turns = self._turns
        while True:
            try:
                while (party := turns.next(self._calls_max - self._calling + 1)) is not None:
                    channel = cast("Line", party)  # nothing else ever joins
                    channel.in_line = False
                    if channel.has_work:
                        await self._attempt(channel)
            finally:
                self._calling -= 1
            await self._rest()

    async def _attempt(self, channel: Line) -> None:
        work = channel.take()
        charged_s = self._turns.begin(channel)
        took_s = charged_s
        self.join(channel)
        try:
            took_s = await channel.attempt(work)
        finally:
            self._turns.end(channel, charged_s, took_s)
        others_wait = self._turns.waiting > 0
        self._line_up(channel)  # for this caller, who looks at the line next
        if others_wait and channel.share.waiting:  # one call less under way: it may have a caller that it had to leave before
            self._call_for(channel.share)

    async def _rest(self) -> None:
        """Wait until somebody joins the line."""
        task = trio.lowlevel.current_task()
        self._idle.append(task)

        def leave(_: object) -> trio.lowlevel.Abort:
            self._idle.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)
