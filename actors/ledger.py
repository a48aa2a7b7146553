"""The ledger: every Postgres write of the dispatch path, and the settling in Redis that follows, batched across organizations.

Three stages, each a group commit with one worker, so each keeps its order:

``gate``    ids claimed by any organization → one UPDATE that records the intent to send → deliveries handed back
``record``  verdicts of any organization → one or two UPDATEs → handed on to settle
``settle``  what is recorded, parked or dropped → one pipelined write to Redis, with the announcements → room handed back

A stage that finds its server away tries again, with jitter, until it is back: what was claimed or sent is never forgotten
while the process lives. What arrives meanwhile is bounded by what organizations may hold in flight, because nobody gets room
back.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import trio
from attrs import evolve, frozen

from actors import announcements
from actors.batcher import Batcher, BatcherStatistics
from actors.metrics import Metrics
from actors.ports import Queue, Settlement, Store
from dispatcher.backoff import full_jitter_s
from dispatcher.errors import QueueUnavailable, StoreRefused, StoreTimedOut, StoreUnavailable
from dispatcher.messages import Event, Gated, Settled, Verdict
from dispatcher.model import DeadLetterReason, Lane, NotificationId, OrganizationId, Status
from dispatcher.outcome import Outcome, OutcomeClass

logger = logging.getLogger(__name__)

R = TypeVar("R")
T = TypeVar("T")
Tell = Callable[[Event], None]

BUSY_ROWS = 32
"""Batches of fewer rows are not worth gathering for: a round trip costs each row some microseconds, waiting up to a tick."""
RETRY_BASE_S = 0.05
RETRY_CAP_S = 2.0
TIMEOUTS_MAX = 2
"""A batch that Postgres was given so often in a row, without an answer in time, is given to it in halves."""
ROWS_MIN = 50
"""Smaller ones are not halved any more: what then takes too long is not their size."""
ANY_NUMBER = 1 << 30
NOWHERE: Mapping[Lane, str] = MappingProxyType({})


class _GateRequest(NamedTuple):
    organization_id: OrganizationId
    ids: Sequence[NotificationId]
    closed: frozenset[Lane]
    through: Mapping[Lane, str]
    unbound: frozenset[str]
    tell: Tell


class _RecordRequest(NamedTuple):
    verdict: Verdict
    tell: Tell


class _Barrier(NamedTuple):
    """Stands in a stage's line; set when everything before it has been flushed."""

    passed: trio.Event


class _SettleRequest(NamedTuple):
    settlement: Settlement
    lost: list[NotificationId]
    tell: Tell


@frozen
class LedgerStatistics:
    """The three stages."""

    gate: BatcherStatistics
    record: BatcherStatistics
    settle: BatcherStatistics


class Ledger:
    """Takes requests without waiting; answers by telling the organization that asked.

    ``unix_s`` is the wall clock, for announcements. Requests are bounded by the callers: each holds at most its in-flight limit.
    """

    def __init__(
        self,
        store: Store,
        queue: Queue,
        metrics: Metrics,
        *,
        tick_s: float,
        rows_max: int,
        pending_max: int,
        unix_s: Callable[[], float],
        random: Random,
    ) -> None:
        self._store = store
        self._queue = queue
        self._metrics = metrics
        self._unix_s = unix_s
        self._random = random
        self._part_max = ANY_NUMBER  # rows that Postgres is given at once; fewer while it is slow
        self._gates: Batcher[_GateRequest | _Barrier] = Batcher(
            "the gate",
            self._flush_gates,
            rows_max=rows_max,
            tick_s=tick_s / 4,
            pending_max=pending_max,
            busy_rows=BUSY_ROWS,
            weigh=_gate_weight,
        )
        self._records: Batcher[_RecordRequest | _Barrier] = Batcher(
            "the record", self._flush_records, rows_max=rows_max, tick_s=tick_s, pending_max=pending_max, busy_rows=BUSY_ROWS
        )
        self._settles: Batcher[_SettleRequest] = Batcher(
            "settling", self._flush_settles, rows_max=rows_max, tick_s=0.0, pending_max=pending_max
        )

    # --- for organizations ----------------------------------------------------------------------------------------------

    def gate(
        self,
        organization_id: OrganizationId,
        ids: Sequence[NotificationId],
        closed: frozenset[Lane],
        tell: Tell,
        through: Mapping[Lane, str] = NOWHERE,
        unbound: frozenset[str] = frozenset(),
    ) -> None:
        """Record the intent to send these ids, and through whom; ``tell`` hears Gated."""
        self._gates.put(_GateRequest(organization_id, ids, closed, through, unbound, tell))

    def record(self, verdict: Verdict, tell: Tell) -> None:
        """Write a verdict down and settle it; ``tell`` hears Settled."""
        self._records.put(_RecordRequest(verdict, tell))

    def settle(self, settlement: Settlement, tell: Tell) -> None:
        """Settle ids that need no record; ``tell`` hears Settled."""
        self._settles.put(_SettleRequest(settlement, [], tell))

    async def barrier(self) -> None:
        """Wait until everything handed to the gate and the record so far is in Postgres."""
        for stage in (self._gates, self._records):
            passed = trio.Event()
            stage.put(_Barrier(passed))
            await passed.wait()

    # --- for the node ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run the stages until :meth:`close`; each ends when it is empty and the one before it has ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._gates.run)
            nursery.start_soon(self._settles.run)
            await self._records.run()
            self._settles.close()

    def close(self) -> None:
        """No further requests will come: flush what is here, then let :meth:`run` return."""
        self._gates.close()
        self._records.close()

    def statistics(self) -> LedgerStatistics:
        """A snapshot of the three stages."""
        return LedgerStatistics(self._gates.statistics(), self._records.statistics(), self._settles.statistics())

    # --- the stages -----------------------------------------------------------------------------------------------------

    async def _flush_gates(self, batch: list[_GateRequest | _Barrier]) -> None:
        requests = [r for r in batch if isinstance(r, _GateRequest)]
        if requests:
            parts = [part for round_ in _rounds(requests) for part in await self._gate(round_)]
            self._announce_suppressed(parts)
            answers = _joined(parts)
            asked: dict[OrganizationId, tuple[list[NotificationId], Tell]] = {}
            for request in requests:
                asked.setdefault(request.organization_id, ([], request.tell))[0].extend(request.ids)
            for organization_id, (theirs, tell) in asked.items():
                tell(_complete(answers.get(organization_id), theirs))
        _release(batch)

    async def _gate(self, requests: Sequence[_GateRequest]) -> list[Mapping[OrganizationId, Gated]]:
        """Gate requests that do not contradict each other, as a rule in one statement."""
        ids = [id for request in requests for id in request.ids]
        closed = {(r.organization_id, lane) for r in requests for lane in r.closed}
        ways = {(r.organization_id, lane): config_id for r in requests for lane, config_id in r.through.items()}
        unbound = frozenset().union(*(r.unbound for r in requests))
        parts, _ = await self._by_halves(ids, lambda part, again: self._store.gate(part, closed, ways, unbound, again=again))
        return parts

    def _announce_suppressed(self, parts: Sequence[Mapping[OrganizationId, Gated]]) -> None:
        """Tell of what was given up at the gate, which needs no verdict of anybody's."""
        now_unix_s = self._unix_s()
        for organization_id, gated in ((name, gated) for part in parts for name, gated in part.items() if gated.suppressed):
            notices = [announcements.suppressed(id, channel, code, now_unix_s) for id, channel, code in gated.suppressed]
            for _, channel, _ in gated.suppressed:
                self._metrics.dead_letters[channel.value, DeadLetterReason.SUPPRESSED.value] += 1
            self._settles.put(_SettleRequest(Settlement(organization_id, announcements=notices), [], _nobody_waits))

    async def _flush_records(self, batch: list[_RecordRequest | _Barrier]) -> None:
        requests = [r for r in batch if isinstance(r, _RecordRequest)]
        if requests:
            verdicts = [request.verdict for request in requests]
            parts, refused = await self._by_halves(verdicts, lambda part, again: self._store.record(part, again=again))
            if refused:  # the outcome counts, whatever odd text came with it
                plain = [evolve(v, outcome=Outcome(v.outcome.kind, "not_recordable")) for v in refused]
                parts.append(await self._insist(lambda again: self._store.record(plain, again=again)))
            self._settle_recorded(requests, set().union(*parts))
        _release(batch)

    def _settle_recorded(self, requests: Sequence[_RecordRequest], ours: set[NotificationId]) -> None:
        now_unix_s = self._unix_s()
        settlements: dict[OrganizationId, _SettleRequest] = {}
        for verdict, tell in requests:
            delivery = verdict.delivery
            settle = settlements.get(delivery.organization_id)
            if settle is None:
                settle = settlements[delivery.organization_id] = _SettleRequest(Settlement(delivery.organization_id), [], tell)
            settlement = settle.settlement
            if delivery.id not in ours:  # rescued meanwhile by another incarnation: it is theirs now, in Redis too
                settle.lost.append(delivery.id)
                self._metrics.events["stale_record"] += 1
                continue
            if verdict.retry_in_s is None:
                settlement.done.append(delivery.id)
            elif verdict.retry_in_s > 0.0:
                settlement.delayed.append((delivery.id, verdict.retry_in_s))
            else:
                settlement.requeued.append(delivery.id)
            announcement = announcements.concluded(verdict, now_unix_s)
            if announcement is not None:
                settlement.announcements.append(announcement)
            self._count(verdict, now_unix_s)
        for settle in settlements.values():
            self._settles.put(settle)

    async def _flush_settles(self, batch: list[_SettleRequest]) -> None:
        told = [(request, request.settlement.ids()) for request in batch]
        settlements = [request.settlement for request, ids in told if ids or request.settlement.announcements]
        if settlements:
            await self._insist(lambda _: self._queue.settle(settlements))
        for request, ids in told:
            request.tell(Settled([*ids, *request.lost], request.lost))

    async def _by_halves(self, rows: Sequence[R], call: Callable[[Sequence[R], bool], Awaitable[T]]) -> tuple[list[T], list[R]]:
        """Insist on one call for all rows; if Postgres refuses one of them it is found by halves, so that it stops no other.

        A batch that is too large for a Postgres that has become slow is halved as well, and so are those that follow; each
        that is answered in time lets the next one be a quarter larger.

        Returns the answers, as a rule one, and the refused rows.
        """
        answers: list[T] = []
        refused: list[R] = []
        parts = [rows]
        while parts:
            part = parts.pop()
            if len(part) > self._part_max:
                parts.extend((part[len(part) // 2 :], part[: len(part) // 2]))
                continue
            after_refusal = len(part) < len(rows)  # a first call may have done some of it

            async def call_part(again: bool, part: Sequence[R] = part, after_refusal: bool = after_refusal) -> T:
                return await call(part, again or after_refusal)

            try:
                answers.append(await self._insist(call_part, give_up=len(part) > ROWS_MIN))
            except StoreTimedOut:
                self._part_max = len(part) // 2
                parts.append(part)
            except StoreRefused as error:
                if len(part) > 1:
                    parts.extend((part[len(part) // 2 :], part[: len(part) // 2]))
                else:
                    logger.error("a row of the ledger: %s", error)
                    self._metrics.events["row_refused"] += 1
                    refused.extend(part)
        self._part_max = min(ANY_NUMBER, self._part_max + self._part_max // 4)
        return answers, refused

    async def _insist(self, call: Callable[[bool], Awaitable[T]], *, give_up: bool = False) -> T:
        """Make the call until it succeeds; from the second try on with ``again`` true. Waits grow, jittered, to RETRY_CAP_S.

        With ``give_up``, raises StoreTimedOut when it was not answered in time TIMEOUTS_MAX times in a row.
        """
        tries = timeouts = 0
        while True:
            try:
                return await call(tries > 0)
            except (StoreUnavailable, QueueUnavailable) as error:
                if tries == 0:
                    logger.warning("ledger waits for a server: %s", error)
                self._metrics.events["ledger_retry"] += 1
                timeouts = timeouts + 1 if isinstance(error, StoreTimedOut) else 0
                if give_up and timeouts >= TIMEOUTS_MAX:
                    raise
            tries += 1
            await trio.sleep(full_jitter_s(tries, RETRY_BASE_S, RETRY_CAP_S, self._random.random()))

    def _count(self, verdict: Verdict, now_unix_s: float) -> None:
        metrics, channel, kind = self._metrics, verdict.delivery.channel.value, verdict.outcome.kind
        metrics.attempts[channel, kind.value] += 1
        if verdict.status is Status.DELIVERED:
            metrics.observe_delivery(channel, now_unix_s - verdict.delivery.created_at_s)
        elif kind is not OutcomeClass.INTERRUPTED:
            metrics.codes[channel, verdict.outcome.code] += 1
        metrics.deliveries.concluded(verdict, now_unix_s)
        if verdict.dead is not None:
            metrics.dead_letters[channel, verdict.dead.value] += 1


def _joined(answers: Sequence[Mapping[OrganizationId, Gated]]) -> Mapping[OrganizationId, Gated]:
    """One answer out of several that speak of different ids."""
    if len(answers) == 1:
        return answers[0]
    joined: dict[OrganizationId, Gated] = {}
    for answer in answers:
        for name, more in answer.items():
            have = joined.get(name, Gated(()))
            joined[name] = Gated(
                [*have.deliveries, *more.deliveries],
                [*have.parked, *more.parked],
                [*have.deferred, *more.deferred],
                [*have.dropped, *more.dropped],
                [*have.elsewhere, *more.elsewhere],
            )
    return joined


def _rounds(requests: Sequence[_GateRequest]) -> Sequence[Sequence[_GateRequest]]:
    """The requests in as few parts as they can be gated in: those of one organization may go different ways."""
    rounds: list[list[_GateRequest]] = []
    saying: list[dict[OrganizationId, _GateRequest]] = []
    for request in requests:
        for round_, said in zip(rounds, saying, strict=True):
            other = said.setdefault(request.organization_id, request)
            if (other.closed, other.through) == (request.closed, request.through):
                round_.append(request)
                break
        else:
            rounds.append([request])
            saying.append({request.organization_id: request})
    return rounds


def _nobody_waits(_event: Event) -> None:
    """What is announced only holds no room of anybody's."""


def _gate_weight(request: _GateRequest | _Barrier) -> int:
    return len(request.ids) if isinstance(request, _GateRequest) else 1


def _release(batch: Sequence[object]) -> None:
    for request in batch:
        if isinstance(request, _Barrier):
            request.passed.set()


def _complete(answer: Gated | None, asked: Sequence[NotificationId]) -> Gated:
    """The answer with what the store no longer knows among the dropped, so that every id asked about is answered."""
    answer = answer or Gated(())
    known = sum(map(len, (answer.deliveries, answer.parked, answer.deferred, answer.dropped, answer.elsewhere)))
    if known == len(asked):
        return answer
    answered = {d.id for d in answer.deliveries} | {id for _, id in answer.parked} | {id for id, _ in answer.deferred}
    answered.update(answer.dropped, answer.elsewhere)
    gone = [id for id in asked if id not in answered]
    return Gated(answer.deliveries, answer.parked, answer.deferred, [*answer.dropped, *gone], answer.elsewhere)
