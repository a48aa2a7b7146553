"""A channel actor: makes the calls of one provider configuration.

Attempts wait in a deque, bounded by what the organization may hold in flight; up to ``concurrency_max`` workers empty it. A worker
starts with the first attempt that finds none free and leaves when nothing waits, so an idle channel has no task at all. Every attempt that
is handed in is concluded exactly once, by an answer, an error, or a withdrawal; only cancellation (a shutdown past its patience) ends
one without a word, and then the lease's end does what is right: it is rescued as *unknown*.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence

import trio

from actors.io.http import Deadlines, HttpPool, MaybeSent, NotSent
from actors.lease import Lease
from actors.metrics import Metrics
from dispatcher.messages import Concluded, ProviderPolicy
from dispatcher.model import Delivery
from dispatcher.organization import INTERRUPTED
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.registry import Bound, Unsendable

logger = logging.getLogger(__name__)


class ChannelActor:
    """Sends for one provider configuration. ``tell`` hears one Concluded per attempt; workers run in ``nursery``."""

    def __init__(
        self,
        policy: ProviderPolicy,
        bound: Bound,
        *,
        pool: HttpPool,
        deadlines: Deadlines,
        lease: Lease,
        nursery: trio.Nursery,
        tell: Callable[[Concluded], None],
        unix_s: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self.policy = policy
        self._bound = bound
        self._pool = pool
        self._deadlines = deadlines
        self._lease = lease
        self._nursery = nursery
        self._tell = tell
        self._unix_s = unix_s
        self._metrics = metrics
        self._waiting: deque[Delivery] = deque()
        self._workers = 0

    def send(self, deliveries: Sequence[Delivery]) -> None:
        """Take attempts in. Never waits."""
        self._waiting.extend(deliveries)
        for _ in range(min(len(deliveries), self.policy.concurrency_max - self._workers)):
            self._workers += 1
            self._nursery.start_soon(self._work)

    def withdraw(self) -> None:
        """Conclude as interrupted everything that has not started."""
        while self._waiting:
            self._tell(Concluded(self._waiting.popleft(), INTERRUPTED, self.policy, 0.0))

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._attempt(self._waiting.popleft())
        finally:
            self._workers -= 1

    async def _attempt(self, delivery: Delivery) -> None:
        """Make one call and tell how it ended."""
        began_s = trio.current_time()
        if began_s >= self._lease.start_until_s:
            outcome = INTERRUPTED
        else:
            outcome = await self._call(delivery)
        duration_s = trio.current_time() - began_s
        self._metrics.observe_call(self.policy.provider, duration_s)
        self._tell(Concluded(delivery, outcome, self.policy, duration_s))

    async def _call(self, delivery: Delivery) -> Outcome:
        try:
            request = self._bound.request(delivery)
        except Unsendable as error:
            return Outcome(OutcomeClass.HARD, error.code)
        except Exception as error:  # a fault of ours in building it: this message can not be sent, the others can
            logger.error("building a %s request failed: %s", self.policy.provider, type(error).__name__)
            return Outcome(OutcomeClass.HARD, "request_not_built")
        try:
            response = await self._pool.exchange(request, self._deadlines)
        except NotSent as error:
            return Outcome(OutcomeClass.SOFT, error.code)
        except MaybeSent as error:
            return Outcome(OutcomeClass.UNKNOWN, error.code)
        try:
            return self._bound.classify(response, self._unix_s())
        except Exception as error:  # the provider has it and we cannot read what it said
            logger.error("reading a %s answer failed: %s", self.policy.provider, type(error).__name__)
            return Outcome(OutcomeClass.UNKNOWN, "answer_not_understood")
