"""Taking in what providers report: checked with the configuration it came to, durable before it is acknowledged.

Reports of all organizations that come in one moment are one statement. What they change is announced afterwards, as a hint: an
announcement that is lost changes nothing. A call that is not acknowledged is repeated by the provider, which does no harm.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence

import trio
from attrs import define, field

from actors import announcements
from actors.batcher import Batcher, BatcherStatistics
from actors.feedback_ports import ContactChange, FeedbackStore, Report, Taken
from actors.fetching import Fetcher, NotFetched
from actors.metrics import Metrics
from actors.ports import Queue, Settlement
from actors.supervision import describe
from actors.webhook_configs import WebhookConfig, WebhookConfigs
from dispatcher.errors import DispatcherError, QueueUnavailable, StoreRefused, StoreUnavailable
from dispatcher.feedback.feedback import Feedback, Fetch, WebhookReply, WebhookRequest
from dispatcher.ids import is_uuid
from dispatcher.model import OrganizationId
from dispatcher.problems import Problem, Refused

logger = logging.getLogger(__name__)

TICK_S = 0.005
"""How long reports are gathered under load. A lone call does not wait for it."""
ROWS_MAX = 1_000
PENDING_MAX = 20_000
FETCHES_PER_CALL_MAX = 3
SWEEP_ROWS = 1_000
PRUNE_ROWS = 10_000
UNKNOWN = Problem(404, "webhook_not_found", "Webhook not found", "There is no webhook at this address.")
_FETCH_FAILED = Problem(
    503,
    "not_fetched",
    "Something could not be fetched",
    "What is needed to check this could not be had. Try again.",
    retry_after_s=5,
)
TAKEN_IN = WebhookReply(200, "taken_in")


@define(eq=False)
class _Request:
    """The reports of one call. ``done`` is set when they are durable, or ``error`` is known."""

    reports: Sequence[Report]
    done: trio.Event = field(factory=trio.Event)
    error: DispatcherError | None = None


class Ingest:
    """Takes in the reports of all organizations. ``unix_s`` is the wall clock."""

    def __init__(
        self,
        store: FeedbackStore,
        queue: Queue,
        configs: WebhookConfigs,
        fetcher: Fetcher,
        metrics: Metrics,
        *,
        unix_s: Callable[[], float],
        rows_max: int = ROWS_MAX,
        pending_max: int = PENDING_MAX,
    ) -> None:
        self._store = store
        self._queue = queue
        self.configs = configs
        self._fetcher = fetcher
        self._metrics = metrics
        self._unix_s = unix_s
        self._line: Batcher[_Request] = Batcher(
            "taking reports in", self._flush, rows_max=rows_max, tick_s=TICK_S, pending_max=pending_max, weigh=_weight, workers=2
        )

    async def run(self) -> None:
        """Write down until :meth:`close`."""
        await self._line.run()

    def close(self) -> None:
        """No further reports will come."""
        self._line.close()

    def statistics(self) -> BatcherStatistics:
        """The line in front of Postgres."""
        return self._line.statistics()

    async def take_in(self, organization_id: OrganizationId, config_id: str, request: WebhookRequest) -> WebhookReply:
        """One call of a provider. What it reports is durable when this returns.

        Raises Refused when it is not authentic or there is no such address, StoreUnavailable, Overloaded.
        """
        config = await self.configs.find(organization_id, config_id) if is_uuid(config_id) else None
        if config is None:
            raise Refused(UNKNOWN)
        reading = await self._read(config, request)
        if isinstance(reading, WebhookReply):
            return reading
        reports = [Report(organization_id, config_id, config.provider, config.channel, each) for each in reading]
        if reports:
            handed_in = _Request(reports)
            self._line.put(handed_in)
            await handed_in.done.wait()
            if handed_in.error is not None:
                raise handed_in.error
        return TAKEN_IN

    async def contacts_changed(self, changes: Sequence[ContactChange]) -> None:
        """Announce what was decided by hand."""
        await self._announce(Taken((), 0, 0, (), changes))

    async def sweep(self) -> None:
        """Look again for what parked reports are about, and forget what is old. Raises StoreUnavailable."""
        try:
            taken, given_up = await self._store.join(SWEEP_ROWS)
        except StoreRefused as error:  # whoever sweeps has more to mend than this
            logger.error("parked reports: %s", error)
        else:
            self._metrics.events["feedback_unmatched"] += given_up
            await self._announce(taken)
        while await self._store.prune(PRUNE_ROWS) == PRUNE_ROWS:
            pass

    async def _read(self, config: WebhookConfig, request: WebhookRequest) -> Sequence[Feedback] | WebhookReply:
        fetched: dict[str, bytes] = {}
        for _ in range(FETCHES_PER_CALL_MAX):
            reading = config.source.read(request, config.settings, config.credentials, self._unix_s(), fetched)
            if isinstance(reading, Problem):
                self._metrics.events["webhook_refused"] += 1
                raise Refused(reading)
            if not isinstance(reading, Fetch):
                return reading
            try:
                if not reading.again:
                    await self._fetcher.visit(reading.url)
                    return TAKEN_IN
                fetched[reading.url] = await self._fetcher.get(reading.url)
            except NotFetched as error:
                logger.warning("a report of %s had to wait: %s", config.provider, error)
                break
        raise Refused(_FETCH_FAILED)

    async def _flush(self, batch: list[_Request]) -> None:
        try:
            taken = await self._store.take([report for request in batch for report in request.reports])
        except StoreRefused as error:
            await self._flush_by_halves(batch, error)
            return
        except StoreUnavailable as error:
            _end(batch, error)
            return
        except Exception as error:
            logger.error("taking reports in failed unexpectedly: %s", describe(error))
            _end(batch, StoreUnavailable("taking reports in failed unexpectedly; the log says where"))
            return
        _end(batch, None)
        self._count(taken)
        await self._announce(taken)

    async def _flush_by_halves(self, batch: list[_Request], error: StoreRefused) -> None:
        """Postgres refuses one of them: what can not be stored is counted and let go, so that it stops nothing else."""
        if len(batch) > 1:
            await self._flush(batch[: len(batch) // 2])
            await self._flush(batch[len(batch) // 2 :])
        elif len(batch[0].reports) > 1:
            reports = batch[0].reports
            for half in (reports[: len(reports) // 2], reports[len(reports) // 2 :]):
                part = _Request(half)
                await self._flush([part])
                batch[0].error = batch[0].error or part.error
            batch[0].done.set()
        else:
            logger.error("a report: %s", error)
            self._metrics.events["feedback_refused"] += 1
            _end(batch, None)

    def _count(self, taken: Taken) -> None:
        for report in taken.fresh:
            feedback = report.feedback
            self._metrics.deliveries.reported(
                report.organization_id, report.provider, report.channel.value, feedback.kind, feedback.code
            )
        for confirmed in taken.confirmed:
            if confirmed.after_s is not None:
                self._metrics.deliveries.confirmed(confirmed.provider, confirmed.channel.value, confirmed.after_s)
        self._metrics.events["feedback_repeated"] += taken.known
        self._metrics.events["feedback_parked"] += taken.parked

    async def _announce(self, taken: Taken) -> None:
        settlements: dict[OrganizationId, Settlement] = {}
        for confirmed in taken.confirmed:
            settlement = settlements.setdefault(confirmed.organization_id, Settlement(confirmed.organization_id))
            settlement.announcements.append(announcements.confirmed(confirmed, self._unix_s()))
        for change in taken.contacts:
            settlement = settlements.setdefault(change.organization_id, Settlement(change.organization_id))
            settlement.announcements.append(announcements.contact_changed(change, self._unix_s()))
        for (channel, status), count in Counter((c.channel.value, c.status.value) for c in taken.contacts).items():
            self._metrics.contacts[channel, status] += count
        if settlements:
            try:
                await self._queue.settle(list(settlements.values()))
            except QueueUnavailable as error:
                logger.warning("what was reported could not be announced: %s", error)


def _end(batch: Sequence[_Request], error: DispatcherError | None) -> None:
    for request in batch:
        request.error = error
        request.done.set()


def _weight(request: _Request) -> int:
    return len(request.reports)
