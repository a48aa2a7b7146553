"""The heart of one organization: events in, commands out. It never waits, never asks the time, never touches a socket.

It decides how many ids to claim, which channels are closed to the gate, what is sent, and what becomes of each attempt. Its invariant:
*every id it has claimed is in* ``in_flight`` *until it is told* ``Settled`` *for it*, so claimed-but-forgotten cannot exist and an id that
turns up twice in the queue is never worked on twice at once.

How many to claim is the smallest of three: the room under ``in_flight_max``, what every open channel may start now (tokens, breaker
permits), and nothing while a claim is under way. Channels that may start nothing are *closed*: their ids are parked by the gate without
costing an attempt, so that they never stand in front of another channel's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, assert_never

from attrs import define, field

from dispatcher.backoff import RetryPolicy
from dispatcher.breaker import BreakerPolicy
from dispatcher.channel_state import ChannelState
from dispatcher.messages import (
    Alarm,
    Claim,
    Claimed,
    ClaimFailed,
    Command,
    Concluded,
    DrainBegan,
    Event,
    Gate,
    Gated,
    LoadProviders,
    ProviderPolicy,
    ProvidersLoaded,
    Record,
    Send,
    Settle,
    Settled,
    Unpark,
    Unparked,
    WakeIn,
    Withdraw,
    Woken,
)
from dispatcher.model import Channel, Delivery, NotificationId, Status
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.recent import RecentIds
from dispatcher.verdicts import conclude, expire

_STOPS = frozenset(
    {OutcomeClass.SOFT, OutcomeClass.UNKNOWN, OutcomeClass.RATE_LIMITED, OutcomeClass.MISCONFIGURED}
)
"""Outcomes after which attempts that were handed out but have not begun may have to come back."""
INTERRUPTED = Outcome(OutcomeClass.INTERRUPTED, "interrupted")


class Now(NamedTuple):
    """One instant on both clocks: ``s`` is monotonic and for durations, ``unix_s`` is for dates that others wrote down."""

    s: float
    unix_s: float


@define
class OrganizationStatistics:
    """A snapshot for metrics and passivation."""

    in_flight: int
    claiming: bool
    hinted: bool
    breakers: dict[Channel, str]


@define
class Organization:
    """The decisions of one organization. Only its actor may call it, one event at a time.

    ``in_flight_max`` bounds the ids held at once. ``random01`` returns floats in [0, 1); it is the only source of randomness.
    """

    in_flight_max: int
    retry: RetryPolicy
    breaker: BreakerPolicy
    recent: RecentIds
    random01: Callable[[], float]
    channels: dict[Channel, ChannelState] = field(factory=dict, init=False)
    in_flight: set[NotificationId] = field(factory=set, init=False)
    _policies_known: bool = field(default=False, init=False)
    _loading: bool = field(default=False, init=False)
    _draining: bool = field(default=False, init=False)
    _hinted: bool = field(default=False, init=False)
    _claiming_n: int = field(default=0, init=False)
    _gating_n: int = field(default=0, init=False)
    _parked: dict[Channel, int] = field(factory=dict, init=False)
    _unparking: set[Channel] = field(factory=set, init=False)

    def handle(self, event: Event, now: Now) -> list[Command]:
        """Take one event in; return what to do about it, in order."""
        commands: list[Command] = []
        match event:
            case Concluded():
                self._concluded(event, now, commands)
            case Settled(ids):
                self.in_flight.difference_update(ids)
            case Claimed(ids, backlog, due_in_s):
                self._claimed(ids, backlog, due_in_s, now, commands)
            case Gated():
                self._gated(event, now, commands)
            case Woken():
                self._hinted = True
            case ClaimFailed(retry_in_s):
                self._claiming_n = 0
                commands.append(WakeIn(retry_in_s))
                return commands
            case ProvidersLoaded(policies):
                self._providers_loaded(policies, now)
            case Unparked(channel, moved, left):
                self._unparking.discard(channel)
                self._parked[channel] = left
                self._hinted = self._hinted or moved > 0
            case DrainBegan():
                self._draining = True
                commands.extend(Withdraw(channel) for channel in self.channels)
            case _ as unreachable:
                assert_never(unreachable)
        self._advance(now, commands)
        return commands

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held, under way or hinted at: the actor may be put to sleep without losing anything."""
        return not (self.in_flight or self._claiming_n or self._hinted or self._unparking or self._loading)

    def statistics(self) -> OrganizationStatistics:
        """A snapshot, cheap enough for every scrape."""
        breakers = {channel: state.breaker_state for channel, state in self.channels.items()}
        return OrganizationStatistics(len(self.in_flight), self._claiming_n > 0, self._hinted, breakers)

    # --- what each event does -----------------------------------------------------------------------------------------

    def _providers_loaded(self, policies: Iterable[ProviderPolicy], now: Now) -> None:
        self._loading = False
        self._policies_known = True
        best: dict[Channel, ProviderPolicy] = {}
        for policy in policies:
            best.setdefault(policy.channel, policy)
        for channel in self.channels.keys() - best.keys():
            del self.channels[channel]
        for channel, policy in best.items():
            known = self.channels.get(channel)
            if known is None or not known.covers(policy):
                self.channels[channel] = ChannelState.start(policy, self.breaker, now.s)
                self._parked.setdefault(channel, 1)  # unknown until asked: an earlier life may have parked some
        self._hinted = True

    def _claimed(
        self, ids: Iterable[NotificationId], backlog: int, due_in_s: float | None, now: Now, commands: list[Command]
    ) -> None:
        self._claiming_n = 0
        fresh: list[NotificationId] = []
        repeats: list[NotificationId] = []
        for id in ids:
            if id in self.recent:
                repeats.append(id)
            elif id not in self.in_flight:
                fresh.append(id)
                self.in_flight.add(id)
        if repeats:
            commands.append(Settle(parked=(), deferred=(), dropped=repeats))
        if fresh:
            self._gating_n += len(fresh)
            closed = frozenset(channel for channel in Channel if self._is_closed(channel, now))
            commands.append(Gate(fresh, closed))
        self._hinted = self._hinted or backlog > 0
        if due_in_s is not None and backlog == 0:
            commands.append(WakeIn(due_in_s))

    def _gated(self, event: Gated, now: Now, commands: list[Command]) -> None:
        self._gating_n -= len(event.deliveries) + len(event.parked) + len(event.deferred) + len(event.dropped)
        starting: dict[Channel, list[Delivery]] = {}
        for delivery in event.deliveries:
            state = self.channels.get(delivery.channel)
            if delivery.expires_at_s is not None and delivery.expires_at_s <= now.unix_s:
                commands.append(Record(expire(delivery)))
            elif self._draining or state is None or not state.begin(delivery.id, now.s):
                commands.append(Record(conclude(delivery, INTERRUPTED, None, self.retry, now.unix_s, 0.0)))
            else:
                starting.setdefault(delivery.channel, []).append(delivery)
        commands.extend(Send(channel, deliveries) for channel, deliveries in starting.items())
        if event.parked or event.deferred or event.dropped:
            for channel, _ in event.parked:
                self._parked[channel] = self._parked.get(channel, 0) + 1
            commands.append(Settle(event.parked, event.deferred, event.dropped))

    def _concluded(self, event: Concluded, now: Now, commands: list[Command]) -> None:
        delivery, outcome = event.delivery, event.outcome
        channel = delivery.channel
        state = self.channels.get(channel)
        if state is not None:
            code = state.conclude(delivery.id, outcome, event.duration_s, now.s, self.random01, self.retry)
            if code is not None:
                commands.append(Alarm(code, channel))
            if outcome.kind in _STOPS and not state.room(now.s):
                commands.append(Withdraw(channel))
        random01 = 0.0 if outcome.kind is OutcomeClass.DELIVERED else self.random01()
        verdict = conclude(delivery, outcome, event.via, self.retry, now.unix_s, random01)
        if verdict.status is Status.DELIVERED:
            self.recent.add((delivery.id,), now.s)
        elif verdict.retry_in_s == 0.0:
            self._hinted = True
        commands.append(Record(verdict))

    # --- what follows from the state, whatever the event was ------------------------------------------------------------

    def _advance(self, now: Now, commands: list[Command]) -> None:
        """Ask for providers, parked ids or new ids, as far as there is room for them."""
        if self._draining or not self._hinted:
            return
        if not self._policies_known:
            if not self._loading:
                self._loading = True
                commands.append(LoadProviders())
            return
        for channel, parked in self._parked.items():
            state = self.channels.get(channel)
            if parked and state is not None and channel not in self._unparking and (room := state.room(now.s)) > 0:
                self._unparking.add(channel)
                commands.append(Unpark(channel, min(room, self.in_flight_max)))
        if self._claiming_n:
            return
        budget, look_again_in_s = self._budget(now)
        if look_again_in_s is not None:
            commands.append(WakeIn(look_again_in_s))
        if not self.channels:
            self._hinted = False  # nothing can be sent until a provider is configured, and that will wake us
        if budget <= 0:
            return
        held = len(self.in_flight)
        n = min(self.in_flight_max - held, budget)
        # Wait until a fair share is free, so that one claim serves many ids; a trickle through a small budget is not held up.
        if n > 0 and (held == 0 or n >= min(budget, self.in_flight_max // 4)):
            self._hinted = False
            self._claiming_n = n
            commands.append(Claim(n))

    def _budget(self, now: Now) -> tuple[int, float | None]:
        """How many ids of any mix of open channels may be claimed now, and when a closed channel is worth another look."""
        budget: int | None = None
        look_again_in_s: float | None = None
        for state in self.channels.values():
            room = state.room(now.s) - self._claiming_n - self._gating_n
            if room > 0:
                budget = room if budget is None else min(budget, room)
            elif (opens_in_s := state.opens_in_s(now.s)) is not None:
                look_again_in_s = opens_in_s if look_again_in_s is None else min(look_again_in_s, opens_in_s)
        return (0 if budget is None else budget), look_again_in_s

    def _is_closed(self, channel: Channel, now: Now) -> bool:
        state = self.channels.get(channel)
        return state is None or state.room(now.s) <= 0
