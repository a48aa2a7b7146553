"""Several attempts in one call, at a provider that takes several: who rides together, and what becomes of each.

A batch is what waits at that moment, never what a timer has gathered. One call carries it; when the provider refuses the whole
because of some, those are concluded and the others go again at once without them, or in halves when it does not say which. All
calls of a batch together take no longer than one attempt may. Invariant: every attempt of a batch is concluded exactly once,
unless the caller is cancelled; what a refused call has done nothing with, and what there is no time left for, is *interrupted*,
and goes alone the next time.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Protocol

import trio
from attrs import evolve

from actors.io.http import Deadlines
from actors.supervision import describe
from dispatcher.model import Delivery, NotificationId
from dispatcher.organization import INTERRUPTED
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.batching import Batching, Part
from dispatcher.providers.provider import Moment, Request, Response, Unsendable

logger = logging.getLogger(__name__)

CALLS_MAX = 32
"""Calls that one batch may take: enough to find one bad attempt among thousands, or some tens that are named one at a time."""
STRETCH = 32
"""Attempts concluded before everybody else gets a turn."""
ALONE_MAX = 4096
"""Attempts remembered to go alone. Beyond it all are forgotten: then they ride together again."""


class Sender(Protocol):
    """What a batch needs of its channel."""

    def may_begin(self, delivery: Delivery, now_s: float) -> bool:
        """Whether a call for this attempt may begin now."""

    def withdrawn_since(self, mark: int) -> bool:
        """Whether what has not begun was asked back since the batch began."""

    async def call(self, delivery: Delivery, deadlines: Deadlines) -> Outcome:
        """One attempt in a call of its own."""

    async def exchange(self, request: Request, deadlines: Deadlines) -> Response | Outcome:
        """One call, whatever it carries: its answer, or how it failed."""

    def conclude(self, delivery: Delivery, outcome: Outcome, duration_s: float, *, speaks_for_call: bool = True) -> None:
        """Tell how one attempt ended."""


class Batches:
    """The batches of one channel."""

    def __init__(self, bound: Batching, batch_max: int, moment: Callable[[], Moment], provider: str) -> None:
        self._bound = bound
        self._batch_max = batch_max
        self._moment = moment
        self._provider = provider
        self._parts: dict[NotificationId, Part | None] = {}  # of attempts that were looked at and still wait
        self._alone: set[NotificationId] = set()

    def forget(self) -> None:
        """Nothing waits any more."""
        self._parts.clear()

    def gather(self, first: Delivery, waiting: deque[Delivery]) -> Delivery | Sequence[Part]:
        """What goes in one call with the first: it alone, or it and others that are taken out of those that wait.

        The others keep their order. So that this costs little when few may ride together, it passes over as many as it may take.
        """
        if not waiting:
            self._parts.clear()
            self._alone.discard(first.id)
            return first
        part = self._part(first)
        if part is None:
            return first
        parts = [part]
        passed: list[Delivery] = []
        while waiting and len(parts) < self._batch_max and len(passed) < self._batch_max:
            delivery = waiting.popleft()
            other = self._part(delivery)
            if other is not None and other.key == part.key:
                parts.append(other)
            else:
                self._parts[delivery.id] = other
                passed.append(delivery)
        waiting.extendleft(reversed(passed))
        return parts if len(parts) > 1 else first

    def _part(self, delivery: Delivery) -> Part | None:
        """The part of an attempt; None when it goes alone. Whatever is wrong with it shows again when it does."""
        id = delivery.id
        if id in self._parts:
            return self._parts.pop(id)
        if delivery.unknown_for_s is not None:  # its key, or the question about it, is its own
            return None
        if id in self._alone:
            self._alone.discard(id)
            return None
        try:
            return self._bound.part(delivery, self._moment())
        except Unsendable:
            return None
        except Exception as error:
            logger.error("building a part of a %s request failed: %s", self._provider, type(error).__name__)
            return None

    async def send(self, parts: Sequence[Part], sender: Sender, deadlines: Deadlines, mark: int) -> None:
        """Make the calls of one batch. Raises nothing but Cancelled."""
        began_s = trio.current_time()
        batches = [list(parts)]  # the one that is next stands last
        calls = 0
        while batches:
            batch = batches.pop()
            now_s = trio.current_time()
            if calls:
                if sender.withdrawn_since(mark):
                    self._interrupt(batch, sender)
                    continue
                left_s = began_s + deadlines.total_s - now_s
                if calls >= CALLS_MAX or left_s < deadlines.total_s / 2:
                    self._remember(batch)
                    self._interrupt(batch, sender)
                    continue
                within = evolve(deadlines, total_s=left_s)
            else:
                within = deadlines
            beginning: list[Part] = []
            ended: list[Part] = []
            for part in batch:
                (beginning if sender.may_begin(part.delivery, now_s) else ended).append(part)
            self._interrupt(ended, sender)
            if not beginning:
                continue
            calls += 1
            outcomes = await self._call(beginning, sender, within)
            left = await _conclude(beginning, outcomes, sender, trio.current_time() - now_s)
            if left and len(left) == len(beginning):
                half = len(left) // 2
                batches += [left[half:], left[:half]]
            elif left:
                batches.append(left)

    async def _call(self, batch: Sequence[Part], sender: Sender, deadlines: Deadlines) -> Sequence[Outcome | None]:
        """One call. None for parts that nothing was done with; never for a single one."""
        if len(batch) == 1:
            return [await sender.call(batch[0].delivery, deadlines)]
        try:
            request = self._bound.batch_request(batch, self._moment())
        except Exception as error:  # one of them may be why
            logger.error("building a %s request for several failed: %s", self._provider, type(error).__name__)
            return [None] * len(batch)
        response = await sender.exchange(request, deadlines)
        if isinstance(response, Outcome):
            # What can not be written down as HTTP was not sent, and one of them may be why.
            return [None if response.kind is OutcomeClass.HARD else response] * len(batch)
        try:
            outcomes = self._bound.classify_batch(response, batch, self._moment().unix_s)
            if len(outcomes) == len(batch):
                return outcomes
            logger.error("reading a %s answer failed: %d outcomes for %d", self._provider, len(outcomes), len(batch))
        except Exception as error:  # the provider has them and we cannot read what it said
            logger.error("reading a %s answer failed: %s", self._provider, describe(error))
        return [Outcome(OutcomeClass.UNKNOWN, "answer_not_understood")] * len(batch)

    def _interrupt(self, batch: Sequence[Part], sender: Sender) -> None:
        for part in batch:
            sender.conclude(part.delivery, INTERRUPTED, 0.0, speaks_for_call=False)

    def _remember(self, batch: Sequence[Part]) -> None:
        if len(self._alone) + len(batch) > ALONE_MAX:
            self._alone.clear()
        self._alone.update(part.delivery.id for part in batch)


async def _conclude(batch: Sequence[Part], outcomes: Sequence[Outcome | None], sender: Sender, duration_s: float) -> list[Part]:
    """Tell what is decided; return the parts that are not. What most of them came to speaks for the call."""
    kinds = Counter(outcome.kind for outcome in outcomes if outcome is not None)
    spokesman = kinds.most_common(1)[0][0] if kinds else None
    left = []
    for number, (part, outcome) in enumerate(zip(batch, outcomes, strict=True)):
        if number and number % STRETCH == 0:  # others get a turn; what is known is told even if this caller is cancelled
            await trio.lowlevel.cancel_shielded_checkpoint()
        if outcome is None:
            left.append(part)
            continue
        speaks = outcome.kind is spokesman
        if speaks:
            spokesman = None
        sender.conclude(part.delivery, outcome, duration_s, speaks_for_call=speaks)
    return left
