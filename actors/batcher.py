"""Group commit: many small requests, one statement.

Callers hand rows in without waiting; a few workers take whole batches out. A batch leaves at once when nothing left within
the last ``tick_s``; under load it leaves when ``rows_max`` are together or the tick is over, whichever is first. So a lone
request pays no delay and a busy moment fills its statements. With ``busy_rows`` a tick is waited for only after a batch of at
least so many rows: while little comes, waiting would save little and cost everybody time. The buffer is bounded by
``pending_max``: past it, :class:`~dispatcher.errors.Overloaded`.

Where several workers flush, one of them never takes a request that fills a batch by itself: so whoever hands in thousands of
rows at once, and again and again, does not stand in front of somebody with one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio
from attrs import frozen

from dispatcher.errors import Overloaded

T = TypeVar("T")


@frozen
class BatcherStatistics:
    """``pending`` rows wait now; ``rows_total`` left in ``batches_total`` batches so far."""

    pending: int
    flushing: int
    rows_total: int
    batches_total: int


class Batcher(Generic[T]):
    """Collects requests and hands them to ``flush`` in batches, ``workers`` at a time; with one worker, in order.

    ``weigh`` says how many rows a request stands for (default: one). A batch holds at least one request, however heavy.

    ``flush`` must not raise for reasons of its own data: what it raises ends :meth:`run`, and what it was given stands first
    in line again for the next one. After :meth:`close`, run() returns once everything handed in has been flushed.
    """

    def __init__(
        self,
        name: str,
        flush: Callable[[list[T]], Awaitable[None]],
        *,
        rows_max: int,
        tick_s: float,
        pending_max: int,
        busy_rows: int = 0,
        weigh: Callable[[T], int] | None = None,
        workers: int = 1,
    ) -> None:
        self.name = name
        self._flush = flush
        self._rows_max = rows_max
        self._tick_s = tick_s
        self._busy_rows = busy_rows
        self._pending_max = pending_max
        self._weigh = weigh
        self._workers = workers
        self._pending: deque[T] = deque()
        self._heavy: deque[T] = deque()  # with several workers: those that fill a batch each
        self._rows = 0  # what the pending requests weigh
        self._heavy_rows = 0  # and the heavy ones among them
        self._heavy_flushing = 0
        self._wake = trio.Event()  # something for a sleeping collector: a first row, a full batch, or the end
        self._collecting = trio.Lock()  # one worker fills its batch while the others flush theirs
        self._left_at_s = -1.0
        self._left_rows = 0
        self._closed = False
        self._flushing = 0
        self._rows_total = 0
        self._batches_total = 0

    def put(self, request: T) -> None:
        """Hand one request in. Never waits. Raises Overloaded when ``pending_max`` rows wait already."""
        if self._rows >= self._pending_max:
            raise Overloaded(self.name, retry_after_s=1.0)
        rows = 1 if self._weigh is None else self._weigh(request)
        self._rows += rows
        if self._workers > 1 and rows >= self._rows_max:
            self._heavy.append(request)
            self._heavy_rows += rows
            self._wake.set()
            return
        self._pending.append(request)
        together = self._rows - self._heavy_rows
        if together == rows or together - rows < self._rows_max <= together:
            self._wake.set()

    def close(self) -> None:
        """Take no tick into account any more and end :meth:`run` when all is flushed."""
        self._closed = True
        self._wake.set()

    def statistics(self) -> BatcherStatistics:
        """A snapshot."""
        return BatcherStatistics(self._rows, self._flushing, self._rows_total, self._batches_total)

    async def run(self) -> None:
        """Flush until closed and empty."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._workers):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        while True:
            async with self._collecting:
                while not (self._pending or self._may_take_heavy()):
                    if self._closed and not self._heavy:
                        return
                    self._wake = trio.Event()
                    await self._wake.wait()
                tick_ends_s = self._left_at_s + (self._tick_s if self._left_rows >= self._busy_rows else 0.0)
                if not self._is_full() and trio.current_time() < tick_ends_s and not self._closed:
                    self._wake = trio.Event()
                    with trio.move_on_at(tick_ends_s):
                        await self._wake.wait()
                heavy = self._may_take_heavy()
                batch, rows = self._take_heavy() if heavy else self._take()
                self._left_at_s, self._left_rows = trio.current_time(), rows
            self._rows_total += rows
            self._batches_total += 1
            self._flushing += rows
            self._heavy_flushing += heavy
            try:
                await self._flush(batch)
            except BaseException:  # whoever runs us again finds it at the head of the line
                (self._heavy if heavy else self._pending).extendleft(reversed(batch))
                self._rows += rows
                self._heavy_rows += rows if heavy else 0
                raise
            finally:
                self._flushing -= rows
                self._heavy_flushing -= heavy
            if self._heavy:
                self._wake.set()

    def _may_take_heavy(self) -> bool:
        return bool(self._heavy) and self._heavy_flushing < self._workers - 1

    def _is_full(self) -> bool:
        return self._may_take_heavy() or self._rows - self._heavy_rows >= self._rows_max

    def _take_heavy(self) -> tuple[list[T], int]:
        """Take one heavy request out, which is a batch."""
        assert self._weigh is not None
        request = self._heavy.popleft()
        rows = self._weigh(request)
        self._rows -= rows
        self._heavy_rows -= rows
        return [request], rows

    def _take(self) -> tuple[list[T], int]:
        """Take the next batch out: whole requests up to ``rows_max`` rows, at least one."""
        pending, weigh = self._pending, self._weigh
        if weigh is None:
            rows = min(len(pending), self._rows_max)
            batch = [pending.popleft() for _ in range(rows)]
        else:
            batch = [pending.popleft()]
            rows = weigh(batch[0])
            while pending and rows + (weight := weigh(pending[0])) <= self._rows_max:
                batch.append(pending.popleft())
                rows += weight
        self._rows -= rows
        return batch, rows
