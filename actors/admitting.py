"""From admissions to rows: one insert for all requests of the moment, then their ids to the pusher.

Whoever accepts something hands its rows in here and waits until they are on disk. Requests share a transaction as they come; if
Postgres refuses one of them, it is found by halves and sinks no other. Invariant: an id is pushed only after its row is committed
or may be (``StoreInDoubt``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from random import Random

import trio

from actors import announcements
from actors.acceptor_answers import AcceptRequest, existing_of
from actors.batcher import Batcher, BatcherStatistics
from actors.headroom import Waits
from actors.metrics import Metrics
from actors.ports import Admission, Arrival, Inserted, Queue, Store
from actors.pusher import Pusher
from actors.schedule_ports import Scheduled
from actors.supervision import describe
from dispatcher.errors import DispatcherError, KeyTaken, Overloaded, StoreInDoubt, StoreRefused, StoreUnavailable
from dispatcher.headroom import BACKLOG_FULL
from dispatcher.model import Channel, NotificationId, OrganizationId, Status
from dispatcher.problems import Refused

logger = logging.getLogger(__name__)


class Admitting:
    """The line in front of Postgres, for everything that is accepted in this process."""

    def __init__(
        self,
        store: Store,
        queue: Queue,
        metrics: Metrics,
        *,
        rows_max: int,
        pending_max: int,
        tick_s: float,
        wake: Callable[[OrganizationId], None],
        random: Random,
    ) -> None:
        self.store = store
        self._metrics = metrics
        self.pusher = Pusher(queue, metrics, wake=wake, random=random)
        self.waits = Waits()
        self.on_scheduled: Callable[[Sequence[Scheduled], Sequence[float]], None] = _nobody
        """Told what was accepted for later, and when digests are due. Set by whoever puts the tree together."""
        self._inserts: Batcher[AcceptRequest] = Batcher(
            "accepting", self._flush, rows_max=rows_max, tick_s=tick_s, pending_max=pending_max, weigh=_weight, workers=2
        )

    async def run(self) -> None:
        """Insert until :meth:`close`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pusher.run)
            await self._inserts.run()
            self.pusher.close()

    def close(self) -> None:
        """No further requests will come."""
        self._inserts.close()

    def statistics(self) -> BatcherStatistics:
        """The line in front of Postgres."""
        return self._inserts.statistics()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for its insert."""
        line = self._inserts.statistics()
        return not (line.pending or line.flushing)

    async def insert(self, request: AcceptRequest) -> AcceptRequest:
        """Wait until it is on disk, and say what became of it. Raises Refused when too much waits, and what went wrong."""
        try:
            self._inserts.put(request)
        except Overloaded:
            self._metrics.events["turned_away_backlog_full"] += 1
            raise Refused(BACKLOG_FULL) from None
        await request.done.wait()
        if request.error is not None:
            raise request.error
        return request

    async def _flush(self, batch: list[AcceptRequest]) -> None:
        try:
            with self.waits.insert(batch[0].handed_in_s):
                await self._insert_all(batch)
        except Exception as error:
            if not isinstance(error, DispatcherError):
                logger.error("accepting a batch of %d requests failed: %s", len(batch), describe(error))
                error = StoreUnavailable("accepting failed unexpectedly; the log says where")
            for request in batch:
                if not request.done.is_set():
                    request.error = error
                    request.done.set()
        self._push([request for request in batch if not request.taken])

    async def _insert_all(self, batch: Sequence[AcceptRequest]) -> None:
        """Insert the rows of all these requests in one transaction; if Postgres refuses one of them, find it by halves."""
        try:
            existing = await self.store.insert(
                [admission for request in batch for admission in request.admissions],
                [request.batch_answer for request in batch if request.batch_answer is not None],
                [event for request in batch for event in request.events],
            )
        except StoreRefused as refusal:
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._insert_all(batch[:middle])
                await self._insert_all(batch[middle:])
            elif isinstance(refusal, KeyTaken):
                batch[0].taken = True
                batch[0].done.set()
            else:
                await self._insert_by_halves(batch[0])
            return
        for request in batch:
            request.existing = existing
            request.done.set()

    async def _insert_by_halves(self, request: AcceptRequest) -> None:
        existing = Inserted()
        parts = [request.admissions] if request.admissions else []
        while parts:
            part = parts.pop()
            try:
                existing.add(await self.store.insert(part, ()))
            except StoreRefused:
                if len(part) == 1:
                    request.refused.add(part[0].id)
                else:
                    parts.extend((part[len(part) // 2 :], part[: len(part) // 2]))
        events = [request.events]
        while events:
            some = events.pop()
            try:
                existing.add(await self.store.insert((), (), some))
            except StoreRefused:
                if len(some) == 1:
                    request.refused_events.add(some[0].id)
                else:
                    events.extend((some[len(some) // 2 :], some[: len(some) // 2]))
        if request.batch_answer is not None:
            answer = request.batch_answer.answer(existing)
            try:
                await self.store.insert((), [request.batch_answer._replace(answer=lambda _: answer)])
            except KeyTaken:
                request.taken = True
        request.existing = existing
        request.done.set()

    def _tell_clock(self, requests: Sequence[AcceptRequest]) -> None:
        """What waits is pushed by nobody: the clock hears when it is due. Of what is in doubt it hears nothing, and finds it."""
        waiting = [
            Scheduled(request.organization_id, admission.id, Channel(admission.row["channel"]), admission.row["send_at"])
            for request in requests
            if request.error is None
            for admission in _admissions(request)
            if admission.is_planned
            and _waits(admission)
            and admission.id not in request.refused
            and admission.id not in request.existing.suppressed
            and admission.id not in request.existing.capped
            and existing_of(admission, request.existing) is None
        ]
        joined = [entry.due_at_s for r in requests if r.error is None for event in r.events for entry in event.digests]
        if waiting or joined:
            self.on_scheduled(waiting, joined)

    def _push(self, requests: Sequence[AcceptRequest]) -> None:
        """Tell Redis and the organizations' actors, without waiting for either."""
        arrivals: dict[tuple[OrganizationId, bool], tuple[list[NotificationId], list[bytes]]] = {}
        for request in requests:
            if request.error is not None:
                # Perhaps they are on disk and only the answer was lost. If not, the gate knows nothing of them and drops them.
                if isinstance(request.error, StoreInDoubt):
                    for admission in _admissions(request):
                        if not _waits(admission):
                            lane = (request.organization_id, _is_bulk(admission))
                            arrivals.setdefault(lane, ([], []))[0].append(admission.id)
                continue
            for admission in _admissions(request):
                if admission.id in request.refused or admission.id in request.existing.suppressed:
                    continue
                if existing_of(admission, request.existing) is not None:
                    continue
                bulk = False
                if admission.is_planned:
                    if admission.id in request.existing.capped or _waits(admission):
                        continue
                    bulk = _is_bulk(admission)
                ids, notices = arrivals.setdefault((request.organization_id, bulk), ([], []))
                ids.append(admission.id)
                row = admission.row
                notices.append(announcements.created(admission.id, Channel(row["channel"]), row["created_at"]))
        self._tell_clock(requests)
        if arrivals:
            self.pusher.put([Arrival(name, ids, notices, bulk) for (name, bulk), (ids, notices) in arrivals.items()])


def _nobody(_waiting: Sequence[Scheduled], _digests_due_s: Sequence[float]) -> None:
    """Without a clock it waits for somebody else's."""


def _admissions(request: AcceptRequest) -> Iterable[Admission]:
    """All that may have been inserted for a request."""
    yield from request.admissions
    for event in request.events:
        if event.id not in request.refused_events and (event.organization_id, event.id) not in request.existing.events:
            yield from event.admissions


def _waits(admission: Admission) -> bool:
    return admission.is_planned and admission.row.get("status") == Status.SCHEDULED


def _is_bulk(admission: Admission) -> bool:
    return admission.is_planned and bool(admission.row.get("bulk"))


def _weight(request: AcceptRequest) -> int:
    if request.events:
        return len(request.admissions) + sum(1 + len(event.admissions) for event in request.events)
    return max(1, len(request.admissions))
