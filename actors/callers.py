"""The callers: the tasks that make calls, shared by all channels of a process.

A channel with attempts to make stands in line; a caller takes one attempt from the channel in front, sends the channel to the
end of the line if it has more, and makes the call. So every call goes to the channel that has waited longest for one (a long
queue never delays a short one by more than a round), a caller that finishes finds its next work without a task switch, and no
task is ever parked for want of a connection. At most ``calls_max`` calls are under way. Callers start with the work and rest when
nobody is in line: waking one is cheaper than starting one.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import trio
from attrs import frozen

from dispatcher.model import Delivery


class Line(Protocol):
    """What stands in line: a channel with its waiting attempts."""

    in_line: bool
    """Written by :class:`Callers` only."""

    @property
    def has_work(self) -> bool:
        """Whether an attempt waits and may be made now."""

    def take(self) -> Delivery:
        """The next attempt, which is under way from now on. Only while ``has_work``."""

    async def attempt(self, delivery: Delivery) -> None:
        """Make it, and tell how it ended."""


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
        self._line: deque[Line] = deque()
        self._calling = 0
        self._idle: list[trio.lowlevel.Task] = []  # callers that wait for work, the one that waits shortest last
        self._nursery: trio.Nursery | None = None

    def join(self, channel: Line) -> None:
        """Put a channel that has work at the end of the line, unless it stands there already. Never waits."""
        if channel.in_line or not channel.has_work:
            return
        channel.in_line = True
        self._line.append(channel)
        if self._idle:
            self._calling += 1
            trio.lowlevel.reschedule(self._idle.pop())
        elif self._calling < self._calls_max and self._nursery is not None:
            self._calling += 1
            self._nursery.start_soon(self._call)

    async def run(self) -> None:
        """Host the callers until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for _ in range(min(len(self._line), self._calls_max)):
                    self._calling += 1
                    nursery.start_soon(self._call)
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def statistics(self) -> CallersStatistics:
        """A snapshot."""
        return CallersStatistics(self._calling, self._calls_max, len(self._line))

    async def _call(self) -> None:
        """Serve the line, rest while nobody stands in it. Whoever starts or wakes a caller counts it as calling."""
        line = self._line
        while True:
            try:
                while line:
                    channel = line.popleft()
                    channel.in_line = False
                    if channel.has_work:
                        delivery = channel.take()
                        self.join(channel)
                        await channel.attempt(delivery)
                        self.join(channel)
            finally:
                self._calling -= 1
            await self._rest()

    async def _rest(self) -> None:
        """Wait until somebody joins the line."""
        task = trio.lowlevel.current_task()
        self._idle.append(task)

        def leave(_: object) -> trio.lowlevel.Abort:
            self._idle.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)
