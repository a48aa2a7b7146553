"""Which events leave when, and to whom: hooks, fates, delays, duplicates. Pure: no socket, no clock, its own random numbers.

Bounded: past ``pending_max`` waiting events new ones are lost, and counted. The numbers are kept in the ledger.
"""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from attrs import define, field

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.callbacks import Callback, Event, Hook, Message, Reporter
from dispatcher_sandbox.fates import Fate, fate_of
from dispatcher_sandbox.ledger import Ledger
from dispatcher_sandbox.messages import Request
from dispatcher_sandbox.simulator import Simulator

PENDING_MAX = 200_000
MESSAGES_MAX = 20_000
"""Messages remembered, so that more can be reported about them later on demand."""
RETRY_BASE_S = 0.2
RETRY_CAP_S = 10.0


@define(eq=False)
class Parcel:
    """Some events on their way to one hook; without events, the opening. ``attempt`` counts from 1."""

    reporter: Reporter
    hook: Hook
    events: tuple[Event, ...] = field(repr=False)
    id_bits: int
    attempt: int = 1

    def callback(self, now_s: float) -> Callback | None:
        """The request to make."""
        if not self.events:
            return self.reporter.opening(self.hook, now_s, self.id_bits)
        return self.reporter.callback(self.hook, self.events, now_s, self.id_bits)


class _Waiting(NamedTuple):
    due_s: float
    order: int
    what: tuple[Reporter, Hook, Event] | Parcel


class Reporting:
    """The reports of one sandbox. ``wake`` is called when something new waits."""

    def __init__(self, simulators: Iterable[Simulator], ledger: Ledger, seed: int, pending_max: int = PENDING_MAX) -> None:
        self._reporters = {simulator.name: simulator for simulator in simulators if isinstance(simulator, Reporter)}
        self._in_requests = frozenset(name for name, reporter in self._reporters.items() if reporter.hooks_in_requests)
        self._hooks: dict[str, dict[str | None, Hook]] = {}
        self._ledger = ledger
        self._random = random.Random(f"reports {seed}")
        self._pending_max = pending_max
        self._heap: list[_Waiting] = []
        self._order = 0
        self._messages: OrderedDict[str, tuple[Reporter, Message]] = OrderedDict()
        self.wake: Callable[[], None] = _nobody_waits

    @property
    def providers(self) -> tuple[str, ...]:
        """Those that can report."""
        return tuple(self._reporters)

    @property
    def pending(self) -> int:
        """Events and repetitions that wait."""
        return len(self._heap)

    def hook(self, provider: str, url: str, account: str | None, secrets: Mapping[str, str], now_s: float) -> Mapping[str, str]:
        """Set where a provider reports to; what the receiver must know. Raises KeyError, ValueError."""
        reporter = self._reporters[provider]
        if not url.startswith(("http://", "https://")):
            raise ValueError("url must be an http or https URL")
        hook = Hook(provider, url, account, reporter.keep(secrets))
        self._hooks.setdefault(provider, {})[account] = hook
        if reporter.opening(hook, now_s, 0) is not None:
            self._put(now_s, Parcel(reporter, hook, (), self._random.getrandbits(128)))
        return reporter.shown(hook)

    def unhook(self, provider: str) -> None:
        """Report nothing more of a provider; what is waiting still leaves."""
        self._hooks.pop(provider, None)

    def hooks(self) -> list[Hook]:
        """Those that are set."""
        return [hook for hooks in self._hooks.values() for hook in hooks.values()]

    def accepted(
        self,
        name: str,
        request: Request,
        message_id: str,
        behaviour: Behaviour,
        now_s: float,
        indexes: Collection[int] | None = None,
    ) -> None:
        """Take note of a request that took effect, and of what will be reported about it.

        ``indexes`` are the places of those of its messages that were accepted; None is all.
        """
        hooks = self._hooks.get(name)
        if hooks is None and name not in self._in_requests:
            return
        reporter = self._reporters[name]
        for message in reporter.messages(request, message_id, now_s):
            if indexes is not None and message.index not in indexes:
                continue
            hook = message.hook
            if hook is None and hooks is not None:
                hook = hooks.get(message.account) or hooks.get(None)
            if hook is None:
                continue
            magic = message.magic
            random01 = self._random.random()
            fate = fate_of(behaviour.fate_mix, random01) if magic is None else magic.fate or Fate.DELIVERED
            self._remember(reporter, message)
            late_s = 0.0 if magic is None else magic.late_s
            self._report(reporter, hook, message, fate, behaviour, now_s, late_s)

    def again(self, notification_id: str, fate: Fate, behaviour: Behaviour, now_s: float) -> bool:
        """Report more about the latest message of a notification; False when it is not remembered or has no hook any more."""
        found = self._messages.get(notification_id)
        if found is None:
            return False
        reporter, message = found
        hooks = self._hooks.get(reporter.name, {})
        hook = message.hook or hooks.get(message.account) or hooks.get(None)
        return hook is not None and self._report(reporter, hook, message, fate, behaviour, now_s, 0.0)

    def due(self, behaviour: Behaviour, now_s: float) -> list[Parcel]:
        """What is to leave now, events of one hook together."""
        parcels: list[Parcel] = []
        batches: dict[tuple[str, str, str | None], list[tuple[Reporter, Hook, Event]]] = defaultdict(list)
        while self._heap and self._heap[0].due_s <= now_s:
            what = heapq.heappop(self._heap).what
            if isinstance(what, Parcel):
                parcels.append(what)
            else:
                batches[what[1].provider, what[1].url, what[1].account].append(what)
        for batch in batches.values():
            if behaviour.webhook_shuffle:
                self._random.shuffle(batch)
            reporter, hook, _ = batch[0]
            size = min(reporter.events_max, behaviour.webhook_events_max)
            events = [event for _, _, event in batch]
            parcels.extend(
                Parcel(reporter, hook, tuple(events[start : start + size]), self._random.getrandbits(128))
                for start in range(0, len(events), size)
            )
        if behaviour.webhook_shuffle:
            self._random.shuffle(parcels)
        return parcels

    def next_due_s(self) -> float | None:
        """When something is to leave next."""
        return self._heap[0].due_s if self._heap else None

    def answered(self, parcel: Parcel, acknowledged: bool, behaviour: Behaviour, now_s: float) -> None:
        """Take note of what became of a call; what was not acknowledged is repeated, later each time, and given up in the end."""
        counts = self._ledger.webhooks
        counts["sent"] += 1
        if acknowledged:
            counts["acknowledged"] += 1
        elif parcel.attempt >= behaviour.webhook_attempts_max:
            counts["failed"] += 1
        else:
            counts["retried"] += 1
            wait_s = min(RETRY_BASE_S * 2 ** (parcel.attempt - 1), RETRY_CAP_S) * (0.5 + self._random.random() / 2)
            parcel.attempt += 1
            self._put(now_s + wait_s, parcel)

    def _report(
        self, reporter: Reporter, hook: Hook, message: Message, fate: Fate, behaviour: Behaviour, now_s: float, late_s: float
    ) -> bool:
        ledger = self._ledger
        ledger.fate(message.correlation.notification_id, fate)
        events = reporter.events(message, fate, now_s, self._random.getrandbits(128))
        for event in events:
            delay_s = behaviour.webhook_delay_s
            if behaviour.webhook_shuffle:
                delay_s *= self._random.random()
            if behaviour.webhook_late_share and self._random.random() < behaviour.webhook_late_share:
                delay_s += behaviour.webhook_late_s
            self._put(now_s + delay_s + late_s, (reporter, hook, event))
            ledger.webhooks["events"] += 1
            if behaviour.webhook_duplicate_share and self._random.random() < behaviour.webhook_duplicate_share:
                self._put(now_s + delay_s + late_s + behaviour.webhook_delay_s * self._random.random(), (reporter, hook, event))
                ledger.webhooks["duplicates"] += 1
        return bool(events)

    def _remember(self, reporter: Reporter, message: Message) -> None:
        if message.correlation.notification_id is not None:
            self._messages[message.correlation.notification_id] = reporter, message
            if len(self._messages) > MESSAGES_MAX:
                self._messages.popitem(last=False)

    def _put(self, due_s: float, what: tuple[Reporter, Hook, Event] | Parcel) -> None:
        if len(self._heap) >= self._pending_max:
            self._ledger.webhooks["lost"] += 1
            return
        self._order += 1
        heapq.heappush(self._heap, _Waiting(due_s, self._order, what))
        self.wake()


def _nobody_waits() -> None:
    pass
