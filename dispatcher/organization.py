"""The heart of one organization: events in, commands out. It never waits, never asks the time, never touches a socket.

It decides how many ids to claim, which channels are closed to the gate, what is sent, and what becomes of each attempt. Its
invariant: *every id it has claimed is in* ``in_flight`` *until it is told* ``Settled`` *for it*, so claimed-but-forgotten cannot
exist and an id that turns up twice in the queue is never worked on twice at once. What it gives back to the queue (to be retried,
handed over, parked) it counts as a hint only when it *is* back: a claim made any earlier would miss it.

How many to claim is the smallest of three: the room under ``in_flight_max``, what every open channel may start now (tokens,
breaker permits), and nothing while a claim is under way. Channels that may start nothing are *closed*: their ids are parked by
the gate without costing an attempt, so that they never stand in front of another channel's. One that may start next to nothing is
closed to the claims of the others, for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, assert_never

from attrs import define, field

from dispatcher.backoff import RetryPolicy
from dispatcher.breaker import BreakerPolicy
from dispatcher.channel_memory import Remembered
from dispatcher.channel_state import ChannelState, quota_policy
from dispatcher.claim_mix import mix
from dispatcher.messages import (
    Alarm,
    Claim,
    Claimed,
    ClaimFailed,
    Command,
    Concluded,
    DrainBegan,
    DrainEnded,
    Event,
    Gate,
    Gated,
    Keep,
    LeaseQuota,
    LoadProviders,
    ProviderPolicy,
    ProvidersLoaded,
    QuotaLeased,
    Record,
    ReturnQuota,
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
from dispatcher.quota import QuotaAsk
from dispatcher.recent import RecentIds
from dispatcher.retry_budget import SHARED_WAIT_MAX_S, RetryBudget, RetryBudgets
from dispatcher.unknowns import judge
from dispatcher.verdicts import conclude, expire

_STOPS = frozenset({OutcomeClass.SOFT, OutcomeClass.UNKNOWN, OutcomeClass.RATE_LIMITED, OutcomeClass.MISCONFIGURED})
"""Outcomes after which attempts that were handed out but have not begun may have to come back."""
_FAILED = frozenset({OutcomeClass.SOFT, OutcomeClass.UNKNOWN})
"""Outcomes whose retries the budgets bound."""
_REFUNDED = frozenset({OutcomeClass.RATE_LIMITED, OutcomeClass.MISCONFIGURED, OutcomeClass.INTERRUPTED})
"""Outcomes after which the same attempt is made again: it has not counted yet."""
SPARED = 4
"""Where there are several channels, this part of what may be held is out of reach for each single one."""
PARKED_LOOK_S = 10.0
"""How often the claims of a busy organization look for ids that a process which is gone has parked."""
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
    _left_out: Collection[Channel] = field(default=(), init=False)  # channels that the claim under way has no room for
    _looks_at_s: float = field(default=0.0, init=False)  # when a claim looks for parked ids next
    _turned_up: set[NotificationId] = field(factory=set, init=False)  # claimed while still in flight: looked at when settled
    _budgets: dict[tuple[Channel, str, str], tuple[RetryBudget, RetryBudget]] = field(factory=dict, init=False)  # ours, shared

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
            case ProvidersLoaded():
                self._providers_loaded(event, now, commands)
            case Unparked():
                self._came_back(event)
            case QuotaLeased():
                self._quota_leased(event, commands)
            case DrainBegan():
                self._draining = True
                commands.extend(Withdraw(channel) for channel in self.channels)
            case DrainEnded():
                self._draining = False
                self._hinted = True
            case _ as unreachable:
                assert_never(unreachable)
        self._advance(now, commands)
        return commands

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held, under way or hinted at: the actor may be put to sleep without losing anything."""
        leasing = any(state.quota is not None and state.quota.is_asking for state in self.channels.values())
        return not (self.in_flight or self._claiming_n or self._hinted or self._unparking or self._loading or leasing)

    def give_back(self, now_s: float) -> list[ReturnQuota]:
        """Take all unspent quota out of the channels, because this life ends or rests."""
        returns: list[Command] = []
        for state in self.channels.values():
            self._return_quota(state, now_s, returns)
        return [command for command in returns if isinstance(command, ReturnQuota)]

    def statistics(self) -> OrganizationStatistics:
        """A snapshot, cheap enough for every scrape."""
        breakers = {channel: state.breaker_state for channel, state in self.channels.items()}
        return OrganizationStatistics(len(self.in_flight), self._claiming_n > 0, self._hinted, breakers)

    def must_claim(self, now: Now) -> bool:
        """Whether a hint has to lead to a claim now: nothing is held, and what is known of channels keeps nobody waiting."""
        if self._draining or self.in_flight:
            return False
        return not self._policies_known or any(state.room(now.s) > 0 for state in self.channels.values())

    # --- what each event does -----------------------------------------------------------------------------------------

    def _providers_loaded(self, event: ProvidersLoaded, now: Now, commands: list[Command]) -> None:
        self._loading = False
        self._policies_known = True
        best: dict[Channel, ProviderPolicy] = {}
        for policy in event.policies:
            best.setdefault(policy.channel, policy)
        for channel, known in list(self.channels.items()):
            if channel not in best or not known.covers(best[channel]):
                self._return_quota(known, now.s, commands)
            if channel not in best:
                del self.channels[channel]
        for channel, policy in best.items():
            state = self.channels.get(channel)
            if state is None or not state.covers(policy):
                # An earlier revision has just been at work here; else an earlier life may be remembered.
                remembered = event.remembered.get(channel) if state is None else Remembered(0.0, True, state.saved(now.s))
                self.channels[channel] = ChannelState.resumed(policy, self.breaker, remembered, now.s)
            self._parked.setdefault(channel, 1)  # not known until asked: an earlier life or another process may have parked some
        self._looks_at_s = now.s + PARKED_LOOK_S
        self._hinted = True

    def _return_quota(self, state: ChannelState, now_s: float, returns: list[Command]) -> None:
        if state.quota is not None and (ask := state.quota.give_back(now_s)) is not None:
            returns.append(ReturnQuota(state.policy.channel, ask))

    def _quota_leased(self, event: QuotaLeased, commands: list[Command]) -> None:
        state = self.channels.get(event.policy.channel)
        if state is not None and state.quota is not None and state.covers(event.policy):
            state.quota.answered(event.answer)
        elif event.answer is not None and event.answer.granted:
            # Its configuration has changed meanwhile: nobody will spend this.
            unspent = QuotaAsk(quota_policy(event.policy), -event.answer.granted, event.answer.window, 0)
            commands.append(ReturnQuota(event.policy.channel, unspent))

    def _claimed(self, event: Claimed, now: Now, commands: list[Command]) -> None:
        self._claiming_n = 0
        self._unparked.clear()
        for channel in event.parked:
            self._parked.setdefault(channel, 1)
        self._take(event.ids, now, commands, self._left_out)
        self._hinted = self._hinted or event.backlog > 0
        if event.due_in_s is not None and event.backlog == 0:
            commands.append(WakeIn(event.due_in_s))

    def _take(self, ids: Iterable[NotificationId], now: Now, commands: list[Command], left_out: Collection[Channel] = ()) -> None:
        """Begin to work on claimed ids: all that are not held or finished already go to the gate.

        ``left_out`` are channels that the claim had no room for.
        """
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
            closed = frozenset(channel for channel in Channel if channel in left_out or self._is_closed(channel, now))
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
        answered = event.deliveries, event.parked, event.deferred, event.dropped, event.elsewhere
        self._gating_n -= sum(map(len, answered))
        if event.elsewhere:
            self._settled(event.elsewhere, event.elsewhere, now, commands)
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
        commands.extend(Send(channel, sent, self.channels[channel].deadline_s) for channel, sent in starting.items())
        if event.parked or event.deferred or event.dropped:
            self._leaving.update((id, channel) for channel, id in event.parked)
            self._leaving.update(event.deferred)
            commands.append(Settle(event.parked, event.deferred, event.dropped))

    def _concluded(self, event: Concluded, now: Now, commands: list[Command]) -> None:
        delivery, outcome = event.delivery, event.outcome
        channel = delivery.channel
        state = self.channels.get(channel)
        if state is not None:
            code = state.conclude(delivery.id, outcome, event.duration_s, now.s, self.random01, self.retry, event.speaks_for_call)
            if state.worth_keeping:
                state.worth_keeping = False
                commands.append(Keep(channel))
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
        budgets = self._budgets.get((via.channel, via.provider, via.origin))
        if budgets is None:
            budgets = self.budgets.new(now.s), self.budgets.of_provider(via.provider, now.s, via.origin)
            self._budgets[via.channel, via.provider, via.origin] = budgets
        ours, the_providers = budgets
        if delivery.attempt == 1:
            ours.earn()
            the_providers.earn()
        if kind not in _FAILED or delivery.attempt >= delivery.attempts_max:
            return 0.0
        cap_s = self.retry.cap_s
        return max(ours.reserve(now.s, cap_s), the_providers.reserve(now.s, min(cap_s, SHARED_WAIT_MAX_S)))

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
            commands.append(Claim(n, self._look_for_parked(now)))

    def _look_at_channels(self, now: Now, commands: list[Command]) -> int:
        """How many ids of any mix of channels may be claimed now; ``_left_out`` are the ones that are not in the mix.

        Calls parked ids of open channels back, and has closed ones looked at again as soon as they may be open.
        """
        rooms: dict[Channel, int] = {}
        look_again_in_s: float | None = None
        for channel, state in self.channels.items():
            waited_for = channel in self._parked
            wanted = self._hinted or waited_for
            if wanted and state.quota is not None and (ask := state.quota.ask(now.s)) is not None:
                commands.append(LeaseQuota(state.policy, ask))
            room = self._room(state, now) - self._claiming_n - self._gating_n
            if room > 0:
                rooms[channel] = room
                if waited_for and channel not in self._unparking and channel not in self._unparked:
                    self._unparking.add(channel)
                    commands.append(Unpark(channel, min(room, self.in_flight_max)))
            elif wanted and (opens_in_s := state.opens_in_s(now.s)) is not None:
                look_again_in_s = opens_in_s if look_again_in_s is None else min(look_again_in_s, opens_in_s)
                if state.quota is not None and state.quota.tell_used_up(now.s):
                    commands += (Keep(channel), Alarm("quota_used_up", channel))
        if look_again_in_s is not None:
            commands.append(WakeIn(look_again_in_s))
        if self._claiming_n:
            return 0
        mixed = mix(rooms, self.in_flight_max - len(self.in_flight), self._unparking | self._unparked)
        self._left_out = self.channels.keys() - mixed.keys()
        return min(mixed.values(), default=0)

    def _look_for_parked(self, now: Now) -> tuple[Channel, ...]:
        """Channels a claim should look at for parked ids: now and then those that have none as far as we know.

        Another process may have parked some and be gone.
        """
        if now.s < self._looks_at_s:
            return ()
        self._looks_at_s = now.s + PARKED_LOOK_S
        return tuple(channel for channel in self.channels if channel not in self._parked)

    def _room(self, state: ChannelState, now: Now) -> int:
        """How many attempts of a channel may begin, so that one with slow calls leaves the others some of what may be held."""
        room = state.room(now.s)
        if len(self.channels) > 1:
            room = min(room, self.in_flight_max - self.in_flight_max // SPARED - state.under_way)
        return room

    def _is_closed(self, channel: Channel, now: Now) -> bool:
        state = self.channels.get(channel)
        return state is None or self._room(state, now) <= 0
