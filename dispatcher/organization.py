"""The heart of one organization: events in, commands out. It never waits, never asks the time, never touches a socket.

It decides how many ids to claim, which channels are closed to the gate, what is sent, and what becomes of each attempt. Its
invariant: *every id it has claimed is in* ``in_flight`` *until it is told* ``Settled`` *for it*, so claimed-but-forgotten cannot
exist and an id that turns up twice in the queue is never worked on twice at once. What it gives back to the queue (to be retried,
handed over, parked) it counts as a hint only when it *is* back: a claim made any earlier would miss it.

How many to claim is the smallest of three: the room under ``in_flight_max``, what every open channel may start now (tokens,
breaker permits), and nothing while a claim is under way. Channels that may start nothing are *closed*: their ids are parked by
the gate without costing an attempt, so that they never stand in front of another channel's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
    Verdict,
    WakeIn,
    Withdraw,
    Woken,
)
from dispatcher.model import Channel, Delivery, NotificationId, Status
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.recent import RecentIds
from dispatcher.retry_budget import RetryBudget, RetryBudgets
from dispatcher.unknowns import judge
from dispatcher.verdicts import conclude, expire

_STOPS = frozenset({OutcomeClass.SOFT, OutcomeClass.UNKNOWN, OutcomeClass.RATE_LIMITED, OutcomeClass.MISCONFIGURED})
"""Outcomes after which attempts that were handed out but have not begun may have to come back."""
_FAILED = frozenset({OutcomeClass.SOFT, OutcomeClass.UNKNOWN})
"""Outcomes whose retries the budgets bound."""
_REFUNDED = frozenset({OutcomeClass.RATE_LIMITED, OutcomeClass.MISCONFIGURED, OutcomeClass.INTERRUPTED})
"""Outcomes after which the same attempt is made again: it has not counted yet."""
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
    ``budgets`` is shared with the other organizations of the process.
    """

    in_flight_max: int
    retry: RetryPolicy
    breaker: BreakerPolicy
    recent: RecentIds
    random01: Callable[[], float]
    budgets: RetryBudgets = field(factory=RetryBudgets)
    channels: dict[Channel, ChannelState] = field(factory=dict, init=False)
    in_flight: set[NotificationId] = field(factory=set, init=False)
    _policies_known: bool = field(default=False, init=False)
    _loading: bool = field(default=False, init=False)
    _draining: bool = field(default=False, init=False)
    _hinted: bool = field(default=False, init=False)
    _claiming_n: int = field(default=0, init=False)
    _gating_n: int = field(default=0, init=False)
    _parked: dict[Channel, int] = field(factory=dict, init=False)  # channels that have parked ids, as far as we know
    _parked_meanwhile: set[Channel] = field(factory=set, init=False)  # of those, the ones parked into while an Unpark is asked
    _unparking: set[Channel] = field(factory=set, init=False)  # an Unpark is under way
    _unparked: set[Channel] = field(factory=set, init=False)  # ids came back and were not claimed yet: no more before they are
    _leaving: dict[NotificationId, float | Channel] = field(factory=dict, init=False)  # by id: due again in s, or parked for
    _turned_up: set[NotificationId] = field(factory=set, init=False)  # claimed while still in flight: looked at when settled
    _budgets: dict[tuple[Channel, str], tuple[RetryBudget, RetryBudget]] = field(factory=dict, init=False)  # ours, the provider's

    def handle(self, event: Event, now: Now) -> list[Command]:
        """Take one event in; return what to do about it, in order."""
        commands: list[Command] = []
        match event:
            case Concluded():
                self._concluded(event, now, commands)
            case Settled(ids, lost):
                self._settled(ids, lost, now, commands)
            case Claimed():
                self._claimed(event, now, commands)
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
            case Unparked():
                self._came_back(event)
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
            self._parked.setdefault(channel, 1)  # not known until asked: an earlier life or another process may have parked some
        self._hinted = True

    def _claimed(self, event: Claimed, now: Now, commands: list[Command]) -> None:
        self._claiming_n = 0
        self._unparked.clear()
        self._take(event.ids, now, commands)
        self._hinted = self._hinted or event.backlog > 0
        if event.due_in_s is not None and event.backlog == 0:
            commands.append(WakeIn(event.due_in_s))

    def _take(self, ids: Iterable[NotificationId], now: Now, commands: list[Command]) -> None:
        """Begin to work on claimed ids: all that are not held or finished already go to the gate."""
        fresh: list[NotificationId] = []
        repeats: list[NotificationId] = []
        self.recent.turn(now.s)
        for id in ids:
            if id in self.in_flight:
                self._turned_up.add(id)
                continue
            self.in_flight.add(id)
            (repeats if id in self.recent else fresh).append(id)
        if repeats:
            commands.append(Settle(parked=(), deferred=(), dropped=repeats))
        if fresh:
            self._gating_n += len(fresh)
            closed = frozenset(channel for channel in Channel if self._is_closed(channel, now))
            commands.append(Gate(fresh, closed))

    def _settled(self, ids: Sequence[NotificationId], lost: Sequence[NotificationId], now: Now, commands: list[Command]) -> None:
        self.in_flight.difference_update(ids)
        if lost:
            self.recent.discard(lost)  # whoever took them over decides what they are: they may come back to us
        if self._leaving:
            due_in_s: float | None = None
            for id in ids:
                whither = self._leaving.pop(id, None)
                if whither is None:
                    continue
                if isinstance(whither, Channel):
                    self._parked[whither] = self._parked.get(whither, 0) + 1
                    if whither in self._unparking:
                        self._parked_meanwhile.add(whither)
                elif whither <= 0.0:
                    self._hinted = True
                else:
                    due_in_s = whither if due_in_s is None else min(due_in_s, whither)
            if due_in_s is not None:
                commands.append(WakeIn(due_in_s))
        if self._turned_up and (again := [id for id in ids if id in self._turned_up]):
            self._turned_up.difference_update(again)
            self._take(again, now, commands)

    def _came_back(self, event: Unparked) -> None:
        self._unparking.discard(event.channel)
        if event.left:
            self._parked[event.channel] = event.left
        elif event.channel not in self._parked_meanwhile:  # else the answer may be older than what was parked since
            self._parked.pop(event.channel, None)
        self._parked_meanwhile.discard(event.channel)
        if event.moved:
            self._unparked.add(event.channel)
            self._hinted = True

    def _gated(self, event: Gated, now: Now, commands: list[Command]) -> None:
        self._gating_n -= len(event.deliveries) + len(event.parked) + len(event.deferred) + len(event.dropped)
        starting: dict[Channel, list[Delivery]] = {}
        for delivery in event.deliveries:
            state = self.channels.get(delivery.channel)
            if delivery.expires_at_s is not None and delivery.expires_at_s <= now.unix_s:
                self._record(expire(delivery), commands)
            elif (
                delivery.unknown_for_s is not None
                and state is not None
                and (verdict := judge(delivery, state.policy, now.unix_s)) is not None
            ):
                self._record(verdict, commands)
            elif self._draining or state is None or not state.begin(delivery.id, now.s):
                self._record(conclude(delivery, INTERRUPTED, None, self.retry, now.unix_s, 0.0), commands)
            else:
                starting.setdefault(delivery.channel, []).append(delivery)
        commands.extend(Send(channel, deliveries) for channel, deliveries in starting.items())
        if event.parked or event.deferred or event.dropped:
            self._leaving.update((id, channel) for channel, id in event.parked)
            self._leaving.update(event.deferred)
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
        covered_in_s = self._charge(event, now)
        verdict = conclude(delivery, outcome, event.via, self.retry, now.unix_s, random01, covered_in_s)
        if verdict.status is Status.DELIVERED:
            self.recent.add((delivery.id,), now.s)
        self._record(verdict, commands)

    def _charge(self, event: Concluded, now: Now) -> float:
        """Count a first attempt; for one that is to be repeated, when the budgets have room for that."""
        delivery, via = event.delivery, event.via
        kind = event.outcome.kind
        if kind in _REFUNDED:
            return 0.0
        budgets = self._budgets.get((via.channel, via.provider))
        if budgets is None:
            budgets = self.budgets.new(now.s), self.budgets.of_provider(via.provider, now.s)
            self._budgets[via.channel, via.provider] = budgets
        ours, the_providers = budgets
        if delivery.attempt == 1:
            ours.earn()
            the_providers.earn()
        if kind not in _FAILED or delivery.attempt >= delivery.attempts_max:
            return 0.0
        return max(ours.reserve(now.s, self.retry.cap_s), the_providers.reserve(now.s, self.retry.cap_s))

    def _record(self, verdict: Verdict, commands: list[Command]) -> None:
        if verdict.retry_in_s is not None:
            self._leaving[verdict.delivery.id] = verdict.retry_in_s
        commands.append(Record(verdict))

    # --- what follows from the state, whatever the event was ------------------------------------------------------------

    def _advance(self, now: Now, commands: list[Command]) -> None:
        """Ask for providers, parked ids or new ids, as far as there is room for them."""
        if self._draining:
            return
        if not self._policies_known:
            if self._hinted and not self._loading:
                self._loading = True
                commands.append(LoadProviders())
            return
        may_claim = self._hinted and not self._claiming_n
        if not (may_claim or self._parked):
            return
        budget = self._look_at_channels(now, commands)
        if not self.channels:
            self._hinted = False  # nothing can be sent until a provider is configured, and that will wake us
        if not may_claim or budget <= 0:
            return
        held = len(self.in_flight)
        n = min(self.in_flight_max - held, budget)
        # Wait until a fair share is free, so that one claim serves many ids; a trickle through a small budget is not held up.
        if n > 0 and (held == 0 or n >= min(budget, self.in_flight_max // 4)):
            self._hinted = False
            self._claiming_n = n
            commands.append(Claim(n))

    def _look_at_channels(self, now: Now, commands: list[Command]) -> int:
        """How many ids of any mix of open channels may be claimed now.

        Calls parked ids of open channels back, and has closed ones looked at again as soon as they may be open.
        """
        budget: int | None = None
        look_again_in_s: float | None = None
        for channel, state in self.channels.items():
            room = state.room(now.s) - self._claiming_n - self._gating_n
            waited_for = channel in self._parked
            if room > 0:
                budget = room if budget is None else min(budget, room)
                if waited_for and channel not in self._unparking and channel not in self._unparked:
                    self._unparking.add(channel)
                    commands.append(Unpark(channel, min(room, self.in_flight_max)))
            elif (self._hinted or waited_for) and (opens_in_s := state.opens_in_s(now.s)) is not None:
                look_again_in_s = opens_in_s if look_again_in_s is None else min(look_again_in_s, opens_in_s)
        if look_again_in_s is not None:
            commands.append(WakeIn(look_again_in_s))
        return 0 if budget is None else budget

    def _is_closed(self, channel: Channel, now: Now) -> bool:
        state = self.channels.get(channel)
        return state is None or state.room(now.s) <= 0
