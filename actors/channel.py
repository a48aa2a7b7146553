"""A channel actor: makes the calls of one provider configuration.

Attempts wait in a deque, bounded by what the organization may hold in flight; the callers of the process take them from it,
at most ``concurrency_max`` calls at once, so an idle channel has no task at all. Of a provider that takes several in one call
a caller takes what waits and fits together, see :mod:`actors.batches`. Every attempt that is handed in is concluded
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

from actors.batches import Batches
from actors.callers import Callers, Work
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
from dispatcher.providers.batching import Batching, Part
from dispatcher.providers.inquiry import Askable, CannotTell, Found
from dispatcher.providers.registry import Bound, Moment, Request, Response, Unsendable
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
        self._under_way = 0  # calls
        self._abandoned = False
        self._withdrawals = 0
        self._batches: Batches | None = None
        if policy.batch_max > 1 and isinstance(bound, Batching) and self._tokens is None:
            self._batches = Batches(bound, policy.batch_max, self._moment, policy.provider)
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
        self._withdrawals += 1
        if self._batches is not None:
            self._batches.forget()
        self._hurried.clear()
        self._relied_until_s.clear()
        while self._waiting:
            self._tell(Concluded(self._waiting.popleft(), INTERRUPTED, self.policy, 0.0))

    def abandon(self) -> list[Delivery]:
        """Begin nothing more, and return what has not started: its organization's actor has ended.

        No caller has taken any of that, and none will; whoever mends takes it back.
        """
        self._abandoned = True
        self._withdrawals += 1
        if self._batches is not None:
            self._batches.forget()
        waiting = list(self._waiting)
        self._waiting.clear()
        self._hurried.clear()
        self._relied_until_s.clear()
        return waiting

    @property
    def has_work(self) -> bool:
        """Whether an attempt waits and may be made now."""
        return self._under_way < self.policy.concurrency_max and bool(self._waiting)

    def take(self) -> Work:
        """What is next, which is under way from now on. For the callers, who ask ``has_work`` first."""
        self._under_way += 1
        delivery = self._waiting.popleft()
        return delivery if self._batches is None else self._batches.gather(delivery, self._waiting)

    async def attempt(self, work: Work) -> float:
        """Make one call, tell how it ended, return how many seconds it took. Raises nothing but Cancelled.

        Attempts that go together may take several calls.
        """
        if not isinstance(work, Delivery):
            return await self._attempt_together(work)
        delivery = work
        began_s = trio.current_time()
        deadlines = self._hurried.pop(delivery.id, self._deadlines) if self._hurried else self._deadlines
        try:
            outcome = None if self.may_begin(delivery, began_s) else INTERRUPTED
            if outcome is None and self._asks and delivery.unknown_for_s is not None:
                outcome = await self._ask(delivery, deadlines)
                if outcome is None and (self._abandoned or not self._lease.covers(delivery)):  # asking may have taken a while
                    outcome = INTERRUPTED
            if outcome is None and self._tokens is not None:
                outcome = await self._tokens.authorized(
                    lambda token: self.call(delivery, deadlines, token),
                    lambda: self.may_begin(delivery, trio.current_time()),
                    deadlines.total_s,
                )
            elif outcome is None:
                outcome = await self.call(delivery, deadlines)
        finally:
            self._under_way -= 1
        duration_s = trio.current_time() - began_s
        self.conclude(delivery, outcome, duration_s)
        return duration_s

    async def _attempt_together(self, parts: Sequence[Part]) -> float:
        assert self._batches is not None
        began_s = trio.current_time()
        deadlines = self._deadlines
        if self._hurried:
            hurried = (self._hurried.pop(part.delivery.id, deadlines) for part in parts)
            deadlines = min(hurried, key=lambda each: each.total_s)
        try:
            await self._batches.send(parts, self, deadlines, self._withdrawals)
        finally:
            self._under_way -= 1
        return trio.current_time() - began_s

    # --- for attempts that go together as well ----------------------------------------------------------------------------

    def may_begin(self, delivery: Delivery, now_s: float) -> bool:
        """Whether the call of an attempt may begin now: it is ours, in time, and relies on nothing that may be forgotten."""
        relied_until_s = self._relied_until_s.pop(delivery.id, inf) if self._relied_until_s else inf
        if delivery.expires_at_s is not None and delivery.expires_at_s <= self._unix_s():
            return False  # it has waited in line for too long: its end is decided where it is concluded
        if now_s >= relied_until_s:
            return False  # by now the provider may have forgotten its key: the gate looks at it again
        return not self._abandoned and self._lease.covers(delivery)

    def withdrawn_since(self, mark: int) -> bool:
        """Whether what has not begun was asked back since ``mark``, or there is nobody left to make calls for."""
        return self._withdrawals != mark

    def conclude(self, delivery: Delivery, outcome: Outcome, duration_s: float, *, speaks_for_call: bool = True) -> None:
        """Tell how an attempt ended."""
        if speaks_for_call:
            self._metrics.observe_call(self.policy.provider, duration_s)
        self._tell(Concluded(delivery, outcome, self.policy, duration_s, speaks_for_call))

    def _moment(self, token: str | None = None) -> Moment:
        return Moment(self._unix_s(), self._random_bytes, token)

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

    async def call(self, delivery: Delivery, deadlines: Deadlines, token: str | None = None) -> Outcome:
        """Send one notification in a call of its own."""
        try:
            request = self._bound.request(delivery, self._moment(token))
        except Unsendable as error:
            return Outcome(OutcomeClass.HARD, error.code)
        except Exception as error:  # a fault of ours in building it: this message can not be sent, the others can
            logger.error("building a %s request failed: %s", self.policy.provider, type(error).__name__)
            return Outcome(OutcomeClass.HARD, "request_not_built")
        response = await self.exchange(request, deadlines)
        if isinstance(response, Outcome):
            return response
        try:
            return self._bound.classify(response, self._unix_s())
        except Exception as error:  # the provider has it and we cannot read what it said
            logger.error("reading a %s answer failed: %s", self.policy.provider, type(error).__name__)
            return Outcome(OutcomeClass.UNKNOWN, "answer_not_understood")

    async def exchange(self, request: Request, deadlines: Deadlines) -> Response | Outcome:
        """Carry a request: the answer, or what it means that there is none."""
        try:
            return await self._transports.exchange(request, deadlines)
        except NotSent as error:
            # A request that can not be written down as HTTP never will be; everything else may work the next time.
            return Outcome(OutcomeClass.HARD if error.phase == "protocol" else OutcomeClass.SOFT, error.code)
        except MaybeSent as error:
            if error.status is None:
                return Outcome(OutcomeClass.UNKNOWN, error.code)
            return HttpResponse(error.status, (), b"")  # it has answered, only the rest of the answer is lost
        except Exception as error:  # a fault of ours: nobody else's calls may end with it
            logger.error("a call to %s failed: %s", self.policy.provider, describe(error))
            return Outcome(OutcomeClass.UNKNOWN, "call_failed")
