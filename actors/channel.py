"""A channel actor: makes the calls of one provider configuration.

Attempts wait in a deque, bounded by what the organization may hold in flight; the callers of the process take them from it,
at most ``concurrency_max`` at once, so an idle channel has no task at all. Every attempt that is handed in is concluded
exactly once, by an answer, an error, or a withdrawal; only cancellation (a shutdown past its patience) ends one without a
word, and then the lease's end does what is right: it is rescued as *unknown*.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from math import inf

import trio
from attrs import evolve

from actors.callers import Callers
from actors.io.http import Deadlines, MaybeSent, NotSent
from actors.lease import Lease
from actors.metrics import Metrics
from actors.supervision import describe
from actors.tokens import TokenKeeper
from actors.transports import Transports
from dispatcher.fairness import CALL_GUESS_S, Share
from dispatcher.http_message import HttpResponse
from dispatcher.messages import Concluded, ProviderPolicy
from dispatcher.model import Delivery, NotificationId
from dispatcher.organization import INTERRUPTED
from dispatcher.outcome import FOUND_AT_PROVIDER, OnUnknown, Outcome, OutcomeClass
from dispatcher.providers.inquiry import Askable, CannotTell, Found
from dispatcher.providers.registry import Bound, Moment, Unsendable
from dispatcher.providers.tokens import Authorizing
from dispatcher.unknowns import key_holds_for_s

logger = logging.getLogger(__name__)


class ChannelActor:
    """Sends for one provider configuration. ``tell`` hears one Concluded per attempt."""

    def __init__(
        self,
        policy: ProviderPolicy,
        bound: Bound,
        *,
        transports: Transports,
        deadlines: Deadlines,
        lease: Lease,
        callers: Callers,
        share: Share,
        tell: Callable[[Concluded], None],
        unix_s: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        metrics: Metrics,
    ) -> None:
        self.policy = policy
        self._bound = bound
        # Who can not be asked and should be, sends nothing that may be a double: its settings were changed behind our back.
        self._asks = policy.on_unknown is OnUnknown.ASK
        self._transports = transports
        self._deadlines = deadlines
        self._lease = lease
        self._callers = callers
        self._tell = tell
        self._unix_s = unix_s
        self._random_bytes = random_bytes
        self._metrics = metrics
        self._tokens: TokenKeeper | None = None
        if isinstance(bound, Authorizing):
            self._tokens = TokenKeeper(
                bound, transports=transports, deadlines=deadlines, callers=callers, unix_s=unix_s, random_bytes=random_bytes
            )
        self._waiting: deque[Delivery] = deque()
        self._hurried: dict[NotificationId, Deadlines] = {}  # of waiting attempts whose calls may take less time than others
        self._relied_until_s: dict[NotificationId, float] = {}  # of waiting attempts that rely on what the provider remembers
        self._under_way = 0
        self._abandoned = False
        self.share = share
        self.call_s = CALL_GUESS_S
        self.in_line = False

    def send(self, deliveries: Sequence[Delivery], deadline_s: float | None = None) -> None:
        """Take attempts in, for calls that may take ``deadline_s``, if that is less than usual. Never waits."""
        if deadline_s is not None and deadline_s < self._deadlines.total_s:
            hurried = evolve(self._deadlines, total_s=deadline_s)
            self._hurried.update((delivery.id, hurried) for delivery in deliveries)
        for delivery in deliveries:
            if delivery.unknown_for_s is not None and (holds_for_s := key_holds_for_s(delivery, self.policy)) is not None:
                self._relied_until_s[delivery.id] = trio.current_time() + holds_for_s
        self._waiting.extend(deliveries)
        self._callers.join(self)

    def withdraw(self) -> None:
        """Conclude as interrupted everything that has not started."""
        self._hurried.clear()
        self._relied_until_s.clear()
        while self._waiting:
            self._tell(Concluded(self._waiting.popleft(), INTERRUPTED, self.policy, 0.0))

    def abandon(self) -> list[Delivery]:
        """Begin nothing more, and return what has not started: its organization's actor has ended.

        No caller has taken any of that, and none will; whoever mends takes it back.
        """
        self._abandoned = True
        waiting = list(self._waiting)
        self._waiting.clear()
        self._hurried.clear()
        self._relied_until_s.clear()
        return waiting

    @property
    def has_work(self) -> bool:
        """Whether an attempt waits and may be made now."""
        return self._under_way < self.policy.concurrency_max and bool(self._waiting)

    def take(self) -> Delivery:
        """The next attempt, which is under way from now on. For the callers, who ask ``has_work`` first."""
        self._under_way += 1
        return self._waiting.popleft()

    async def attempt(self, delivery: Delivery) -> float:
        """Make one call, tell how it ended, return how many seconds it took. Raises nothing but Cancelled."""
        began_s = trio.current_time()
        deadlines = self._hurried.pop(delivery.id, self._deadlines) if self._hurried else self._deadlines
        try:
            outcome = None if self._lease.covers(delivery) else INTERRUPTED
            if delivery.expires_at_s is not None and delivery.expires_at_s <= self._unix_s():
                outcome = INTERRUPTED  # it has waited in line for too long: its end is decided where it is concluded
            if self._relied_until_s and began_s >= self._relied_until_s.pop(delivery.id, inf):
                outcome = INTERRUPTED  # by now the provider may have forgotten its key: the gate looks at it again
            if outcome is None and self._asks and delivery.unknown_for_s is not None:
                outcome = await self._ask(delivery, deadlines)
                if outcome is None and (self._abandoned or not self._lease.covers(delivery)):  # asking may have taken a while
                    outcome = INTERRUPTED
            if outcome is None and self._tokens is not None:
                outcome = await self._tokens.authorized(
                    lambda token: self._call(delivery, deadlines, token), lambda: self._may_begin(delivery), deadlines.total_s
                )
            elif outcome is None:
                outcome = await self._call(delivery, deadlines)
        finally:
            self._under_way -= 1
        duration_s = trio.current_time() - began_s
        self._metrics.observe_call(self.policy.provider, duration_s)
        self._tell(Concluded(delivery, outcome, self.policy, duration_s))
        return duration_s

    async def _ask(self, delivery: Delivery, deadlines: Deadlines) -> Outcome | None:
        """Ask the provider whether it has the notification from an earlier attempt. None when it has not: then it may be sent."""
        try:
            if not isinstance(self._bound, Askable):
                return Outcome(OutcomeClass.UNRESOLVED, "inquiry_impossible")
            response = await self._transports.exchange(self._bound.inquiry(delivery), deadlines)
            answer = self._bound.found(response, self._unix_s())
        except (NotSent, MaybeSent) as error:
            return Outcome(OutcomeClass.UNRESOLVED, f"inquiry_{error.code}")
        except Exception as error:  # a fault of ours: what we can not ask about we do not send
            logger.error("asking %s failed: %s", self.policy.provider, describe(error))
            return Outcome(OutcomeClass.UNRESOLVED, "inquiry_failed")
        match answer:
            case Found(message_id):
                return Outcome(OutcomeClass.DELIVERED, FOUND_AT_PROVIDER, message_id)
            case CannotTell(code, retry_after_s):
                return Outcome(OutcomeClass.UNRESOLVED, code, retry_after_s=retry_after_s)
        return None

    def _may_begin(self, delivery: Delivery) -> bool:
        """Whether an attempt that waited for something may still make its call."""
        expired = delivery.expires_at_s is not None and delivery.expires_at_s <= self._unix_s()
        return not expired and not self._abandoned and self._lease.covers(delivery)

    async def _call(self, delivery: Delivery, deadlines: Deadlines, token: str | None = None) -> Outcome:
        try:
            request = self._bound.request(delivery, Moment(self._unix_s(), self._random_bytes, token))
        except Unsendable as error:
            return Outcome(OutcomeClass.HARD, error.code)
        except Exception as error:  # a fault of ours in building it: this message can not be sent, the others can
            logger.error("building a %s request failed: %s", self.policy.provider, type(error).__name__)
            return Outcome(OutcomeClass.HARD, "request_not_built")
        try:
            response = await self._transports.exchange(request, deadlines)
        except NotSent as error:
            # A request that can not be written down as HTTP never will be; everything else may work the next time.
            return Outcome(OutcomeClass.HARD if error.phase == "protocol" else OutcomeClass.SOFT, error.code)
        except MaybeSent as error:
            if error.status is None:
                return Outcome(OutcomeClass.UNKNOWN, error.code)
            response = HttpResponse(error.status, (), b"")  # it has answered, only the rest of the answer is lost
        except Exception as error:  # a fault of ours: nobody else's calls may end with it
            logger.error("a call to %s failed: %s", self.policy.provider, describe(error))
            return Outcome(OutcomeClass.UNKNOWN, "call_failed")
        try:
            return self._bound.classify(response, self._unix_s())
        except Exception as error:  # the provider has it and we cannot read what it said
            logger.error("reading a %s answer failed: %s", self.policy.provider, type(error).__name__)
            return Outcome(OutcomeClass.UNKNOWN, "answer_not_understood")
