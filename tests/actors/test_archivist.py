"""The archivist: it does all there is to do, takes its time over it, and what goes wrong ends a round and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from random import Random

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock

from actors.archive import FIRST_ID, Found, Late, Moved, Partition
from actors.archivist import DELTAS_MAX, REST_MAX_S, SHARE, Archivist
from actors.metrics import Metrics
from dispatcher.errors import StoreRefused, StoreUnavailable
from dispatcher.model import NotificationId
from dispatcher.retention import DAY_S, Span, span_of

TODAY = 20_000
DAY = 86_400.0
ROUND_S = 15.0


@define
class Papers:
    """An archive in memory: ids of what may go, in pages of two. Every step takes ``step_s``."""

    due: list[str] = field(factory=list)
    step_s: float = 0.0
    refused: str | None = None
    busy: bool = False
    fault: Exception | None = None
    deltas: int = 0
    made: set[Span] = field(factory=set)
    moved: list[str] = field(factory=list)
    calls: Counter[str] = field(factory=Counter)
    working_s: float = 0.0

    async def look(self, after: NotificationId, limit: int) -> Found:
        await self._step("look")
        page = [id for id in sorted(self.due) if id > after][:2]
        span = span_of(365, TODAY - 7)
        return Found({NotificationId(id): span for id in page}, NotificationId(page[-1]) if len(page) == 2 else None)

    async def prepare(self, spans: Collection[Span]) -> None:
        await self._step("prepare")
        self.made.update(spans)

    async def move(self, due: Mapping[NotificationId, Span]) -> Moved:
        await self._step("move")
        assert set(due.values()) <= self.made
        if self.refused in due:
            raise StoreRefused("Postgres refused what is final: DataError")
        self.moved.extend(due)
        return Moved(len(due))

    async def confirm(self, after: NotificationId, limit: int) -> Late:
        await self._step("confirm")
        return Late(1, NotificationId("a")) if after == FIRST_ID else Late(2, None)

    async def partitions(self) -> Sequence[Partition]:
        await self._step("partitions")
        return [Partition(span, 1, 8192) for span in sorted(self.made)]

    async def drop(self, span: Span) -> bool:
        await self._step("drop")
        if not self.busy:
            self.made.discard(span)
        return not self.busy

    async def fold(self, limit: int) -> int:
        await self._step("fold")
        folded, self.deltas = min(self.deltas, limit), max(0, self.deltas - limit)
        return folded

    async def forget(self, limit: int) -> int:
        await self._step("forget")
        return 0

    async def _step(self, name: str) -> None:
        self.calls[name] += 1
        await trio.sleep(self.step_s)
        self.working_s += self.step_s
        if self.fault is not None:
            raise self.fault


def archivist(papers: Papers, metrics: Metrics | None = None) -> Archivist:
    return Archivist(
        papers,
        metrics or Metrics(),
        round_s=ROUND_S,
        after_s=7 * DAY,
        random=Random(1),
        unix_s=lambda: TODAY * DAY + trio.current_time(),
    )


async def test_a_walk_moves_every_page_and_writes_down_late_confirmations(autojump_clock: MockClock) -> None:
    papers, metrics = Papers(list("abcde")), Metrics()
    await archivist(papers, metrics).walk()

    assert papers.moved == list("abcde")
    assert metrics.events == Counter(history_moved=5, history_confirmed=3, history_let_go=0)
    assert papers.calls["forget"] == 1


async def test_a_page_that_is_refused_keeps_no_other_from_going(autojump_clock: MockClock) -> None:
    papers, metrics = Papers(list("abcde"), refused="c"), Metrics()
    await archivist(papers, metrics).walk()

    assert papers.moved == ["a", "b", "e"]
    assert metrics.events["history_refused"] == 1


async def test_partitions_go_when_they_are_over_and_those_in_use_a_walk_later(autojump_clock: MockClock) -> None:
    over, alive = span_of(7, TODAY - 10), span_of(7, TODAY - 7)
    papers, metrics = Papers(made={over, alive}, busy=True), Metrics()
    clerk = archivist(papers, metrics)
    await clerk.walk()
    assert (papers.made, papers.calls["drop"], metrics.events["history_busy"]) == ({over, alive}, 1, 1)
    assert clerk.gauges() == {"history_partitions": 2, "history_bytes": 2 * 8192, "history_oldest_s": pytest.approx(10 * DAY_S)}

    papers.busy = False
    await clerk.walk()

    assert (papers.made, metrics.events["history_dropped"]) == ({alive}, 1)
    assert clerk.gauges()["history_partitions"] == 1


async def test_without_work_a_round_is_one_question_and_walks_are_rare(autojump_clock: MockClock) -> None:
    papers = Papers()
    with trio.move_on_after(DAY):
        await archivist(papers).run()

    rounds = DAY / ROUND_S
    assert 0.9 * rounds < papers.calls["fold"] < 1.1 * rounds
    assert 16 <= papers.calls["look"] == papers.calls["partitions"] <= 48


async def test_however_much_there_is_to_do_it_takes_a_share_of_the_time(autojump_clock: MockClock) -> None:
    papers = Papers([f"{number:05}" for number in range(1, 2_001)], step_s=0.03, deltas=3 * DELTAS_MAX)
    clerk, began_s = archivist(papers), trio.current_time()
    await clerk.add_up()
    await clerk.move()

    assert len(papers.moved) == 2_000
    assert papers.deltas == 0
    assert papers.working_s == pytest.approx(SHARE * (trio.current_time() - began_s))


@pytest.mark.parametrize("fault", [StoreUnavailable("away"), StoreRefused("refused")])
async def test_a_fault_ends_a_round_and_the_next_one_goes_on(autojump_clock: MockClock, fault: Exception) -> None:
    papers = Papers(list("abc"), fault=fault, deltas=5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(archivist(papers).run)
        await trio.sleep(2 * REST_MAX_S)
        assert papers.calls["fold"] > 1
        papers.fault = None
        await trio.sleep(2 * REST_MAX_S)
        nursery.cancel_scope.cancel()

    assert papers.deltas == 0
    assert papers.moved[:3] == list("abc")
