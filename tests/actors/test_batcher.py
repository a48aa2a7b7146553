"""Group commit: what leaves when, in which order, and what happens to it when a flush fails."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.batcher import Batcher, BatcherStatistics
from dispatcher.errors import Overloaded

TICK_S = 1.0


class Flushes:
    """Takes batches, each in ``flush_s``; notes when each came."""

    def __init__(self, flush_s: float = 0.0) -> None:
        self.flush_s = flush_s
        self.batches: list[tuple[float, list[int]]] = []
        self.failing = False
        self.at_once = 0
        self.at_once_max = 0

    async def __call__(self, batch: list[int]) -> None:
        self.batches.append((trio.current_time(), batch))
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            await trio.sleep(self.flush_s)
            if self.failing:
                raise ValueError("a fault of the flush")
        finally:
            self.at_once -= 1


def batcher(flushes: Flushes, *, rows_max: int = 4, pending_max: int = 100, workers: int = 1, busy_rows: int = 0) -> Batcher[int]:
    return Batcher(
        "rows", flushes, rows_max=rows_max, tick_s=TICK_S, pending_max=pending_max, workers=workers, busy_rows=busy_rows
    )


async def test_a_lone_request_leaves_at_once(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    flushes = Flushes()
    rows = batcher(flushes)
    nursery.start_soon(rows.run)
    await trio.sleep(10.0)
    rows.put(1)
    await wait_all_tasks_blocked()

    assert flushes.batches == [(10.0, [1])]


async def test_what_comes_within_a_tick_of_a_batch_leaves_together_at_its_end(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    flushes = Flushes()
    rows = batcher(flushes)
    nursery.start_soon(rows.run)
    await trio.sleep(10.0)
    for number in range(4):
        rows.put(number)
        await trio.sleep(0.3)
    await trio.sleep(5.0)

    assert flushes.batches == [(10.0, [0]), (11.0, [1, 2, 3])]


async def test_where_little_comes_nobody_waits_for_the_tick(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    flushes = Flushes()
    rows = batcher(flushes, busy_rows=3)
    nursery.start_soon(rows.run)
    await trio.sleep(10.0)
    for number in range(3):
        rows.put(number)
        await trio.sleep(0.25)
    for number in range(3, 6):
        rows.put(number)
    await trio.sleep(0.25)
    rows.put(6)
    await trio.sleep(5.0)

    assert flushes.batches == [(10.0, [0]), (10.25, [1]), (10.5, [2]), (10.75, [3, 4, 5]), (11.75, [6])]


async def test_a_full_batch_does_not_wait_for_the_tick(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    flushes = Flushes()
    rows = batcher(flushes)
    nursery.start_soon(rows.run)
    await trio.sleep(10.0)
    rows.put(0)
    await trio.sleep(0.1)
    rows.put(1)
    await trio.sleep(0.2)
    for number in range(2, 6):
        rows.put(number)
    await trio.sleep(0.1)
    at_once = flushes.batches[1]
    await trio.sleep(2.0)

    assert at_once[0] == pytest.approx(10.3)
    assert flushes.batches[2][0] == pytest.approx(11.3)
    assert [batch for _, batch in flushes.batches] == [[0], [1, 2, 3, 4], [5]]


async def test_what_gathers_during_a_flush_leaves_when_it_ends(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    flushes = Flushes(flush_s=3.0)
    rows = batcher(flushes)
    nursery.start_soon(rows.run)
    await trio.sleep(10.0)
    rows.put(0)
    await trio.sleep(0.5)
    rows.put(1)
    await trio.sleep(10.0)

    assert flushes.batches == [(10.0, [0]), (13.0, [1])]


async def test_one_worker_keeps_the_order_and_never_flushes_twice_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    flushes = Flushes(flush_s=0.7)
    rows = batcher(flushes)
    nursery.start_soon(rows.run)
    for number in range(50):
        rows.put(number)
        await trio.sleep(0.1)
    await trio.sleep(20.0)

    assert [row for _, batch in flushes.batches for row in batch] == list(range(50))
    assert flushes.at_once_max == 1
    assert all(len(batch) <= 4 for _, batch in flushes.batches)


async def test_several_workers_flush_at_once_and_lose_nothing(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    flushes = Flushes(flush_s=5.0)
    rows = batcher(flushes, workers=3)
    nursery.start_soon(rows.run)
    for number in range(30):
        rows.put(number)
    await trio.sleep(100.0)

    assert sorted(row for _, batch in flushes.batches for row in batch) == list(range(30))
    assert flushes.at_once_max == 3


async def test_a_heavy_request_leaves_alone_and_light_ones_share(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    flushes = Flushes()
    rows = Batcher("rows", flushes, rows_max=10, tick_s=TICK_S, pending_max=1000, weigh=lambda weight: weight)
    for weight in (50, 3, 3, 3, 3, 10, 1):
        rows.put(weight)
    nursery.start_soon(rows.run)
    await trio.sleep(10.0)

    assert [batch for _, batch in flushes.batches] == [[50], [3, 3, 3], [3], [10], [1]]


async def test_one_of_several_workers_is_kept_for_light_requests(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    flushes = Flushes(flush_s=10.0)
    rows = Batcher("rows", flushes, rows_max=10, tick_s=TICK_S, pending_max=1000, weigh=lambda weight: weight, workers=2)
    for weight in (50, 51, 52):
        rows.put(weight)
    nursery.start_soon(rows.run)
    await trio.sleep(2.0)
    rows.put(1)
    await trio.sleep(100.0)

    assert flushes.batches == [(0.0, [50]), (2.0, [1]), (10.0, [51]), (20.0, [52])]


async def test_closing_leaves_neither_heavy_nor_light_requests_behind(autojump_clock: MockClock) -> None:
    flushes = Flushes(flush_s=10.0)
    rows = Batcher("rows", flushes, rows_max=10, tick_s=TICK_S, pending_max=1000, weigh=lambda weight: weight, workers=2)
    for weight in (50, 51, 1, 52):
        rows.put(weight)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rows.run)
        await trio.sleep(5.0)
        rows.close()

    assert sorted(weight for _, batch in flushes.batches for weight in batch) == [1, 50, 51, 52]
    assert rows.statistics().pending == 0


async def test_a_heavy_request_whose_flush_failed_is_flushed_by_the_next_run(autojump_clock: MockClock) -> None:
    flushes = Flushes(flush_s=1.0)
    flushes.failing = True
    rows = Batcher("rows", flushes, rows_max=10, tick_s=TICK_S, pending_max=1000, weigh=lambda weight: weight, workers=2)
    rows.put(50)
    with pytest.raises(ExceptionGroup):
        await rows.run()
    flushes.failing = False
    rows.close()
    await rows.run()

    assert [batch for _, batch in flushes.batches] == [[50], [50]]
    assert rows.statistics().pending == 0


async def test_a_full_buffer_refuses_until_rows_have_left(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    flushes = Flushes()
    rows = batcher(flushes, rows_max=2, pending_max=3)
    for number in range(3):
        rows.put(number)
    with pytest.raises(Overloaded, match="rows is full"):
        rows.put(3)
    nursery.start_soon(rows.run)
    await trio.sleep(10.0)
    rows.put(4)
    await trio.sleep(10.0)

    assert [row for _, batch in flushes.batches for row in batch] == [0, 1, 2, 4]


async def test_closing_flushes_what_is_left_without_waiting_and_ends_the_run(autojump_clock: MockClock) -> None:
    flushes = Flushes(flush_s=0.25)
    rows = batcher(flushes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rows.run)
        rows.put(0)
        await trio.sleep(0.5)
        rows.put(1)
        rows.close()

    assert [batch for _, batch in flushes.batches] == [[0], [1]]
    assert trio.current_time() == pytest.approx(0.75)


async def test_an_idle_batcher_ends_when_closed(autojump_clock: MockClock) -> None:
    rows = batcher(Flushes(), workers=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rows.run)
        await wait_all_tasks_blocked()
        rows.close()


async def test_what_a_failed_flush_was_given_is_first_in_line_for_the_next_run(autojump_clock: MockClock) -> None:
    flushes = Flushes()
    rows = batcher(flushes)
    for number in range(6):
        rows.put(number)
    flushes.failing = True
    with pytest.raises(ExceptionGroup):
        await rows.run()
    flushes.failing = False
    rows.close()
    await rows.run()

    assert [batch for _, batch in flushes.batches] == [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5]]


async def test_a_cancelled_flush_loses_nothing(autojump_clock: MockClock) -> None:
    flushes = Flushes(flush_s=5.0)
    rows = batcher(flushes)
    rows.put(0)
    with trio.move_on_after(1.0):
        await rows.run()
    waiting = rows.statistics().pending
    rows.close()
    await rows.run()

    assert waiting == 1
    assert [batch for _, batch in flushes.batches] == [[0], [0]]


async def test_statistics_count_what_waits_what_is_flushed_and_what_has_left(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    rows = batcher(Flushes(flush_s=5.0), rows_max=2)
    for number in range(3):
        rows.put(number)
    before = rows.statistics()
    nursery.start_soon(rows.run)
    await wait_all_tasks_blocked()
    during = rows.statistics()
    await trio.sleep(30.0)

    assert before == BatcherStatistics(pending=3, flushing=0, rows_total=0, batches_total=0)
    assert during == BatcherStatistics(pending=1, flushing=2, rows_total=2, batches_total=1)
    assert rows.statistics() == BatcherStatistics(pending=0, flushing=0, rows_total=3, batches_total=2)
