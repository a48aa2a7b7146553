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
from dispatcher.channel_state import ChannelState
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
    Gated,
    Keep,
    LeaseQuota,
    LoadProviders,
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
from dispatcher.model import Delivery, Lane, NotificationId, Status
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.recent import RecentIds
from dispatcher.retry_budget import SHARED_WAIT_MAX_S, RetryBudget, RetryBudgets
from dispatcher.routes import Routes
from dispatcher.unknowns import await_provider, judge, provider_gone
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
AWAITED_S = 2.0
"""How soon, at least, a notification asks again for the one configuration that it has to wait for, when nothing says when."""
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
    breakers: dict[str, str]
    """By configuration."""


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
    routes: Routes = field(init=False)
    in_flight: set[NotificationId] = field(factory=set, init=False)
    _policies_known: bool = field(default=False, init=False)
    _loading: bool = field(default=False, init=False)
    _draining: bool = field(default=False, init=False)
    _hinted: bool = field(default=False, init=False)
    _claiming_n: int = field(default=0, init=False)
    _gating_n: int = field(default=0, init=False)
    _parked: dict[Lane, int] = field(factory=dict, init=False)  # lanes that have parked ids, as far as we know
    _parked_meanwhile: set[Lane] = field(factory=set, init=False)  # of those, the ones parked into while an Unpark is asked
    _unparking: set[Lane] = field(factory=set, init=False)  # an Unpark is under way
    _unparked: set[Lane] = field(factory=set, init=False)  # ids came back and were not claimed yet: no more before they are
    _leaving: dict[NotificationId, float | Lane] = field(factory=dict, init=False)  # by id: due again in s, or parked for
    _left_out: Collection[Lane] = field(default=(), init=False)  # lanes that the claim under way has no room for
    _looks_at_s: float = field(default=0.0, init=False)  # when a claim looks for parked ids next
    _turned_up: set[NotificationId] = field(factory=set, init=False)  # claimed while still in flight: looked at when settled
    _budgets: dict[tuple[str, str, str], tuple[RetryBudget, RetryBudget]] = field(factory=dict, init=False)  # ours, shared

    def __attrs_post_init__(self) -> None:
        self.routes = Routes(self.breaker)

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
                self.routes.leased(event, commands)
            case DrainBegan():
                self._draining = True
                commands.extend(Withdraw(config_id) for config_id in self.routes.states)
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
        waiting = self._claiming_n or self._hinted or self._unparking or self._loading or self.routes.are_leasing
        return not (self.in_flight or waiting)

    def give_back(self, now_s: float) -> list[ReturnQuota]:
        """Take all unspent quota out of the channels, because this life ends or rests."""
        return self.routes.give_back(now_s)

    def statistics(self) -> OrganizationStatistics:
        """A snapshot, cheap enough for every scrape."""
        breakers = {config_id: state.breaker_state for config_id, state in self.routes.states.items()}
        return OrganizationStatistics(len(self.in_flight), self._claiming_n > 0, self._hinted, breakers)

    def must_claim(self, now: Now) -> bool:
        """Whether a hint has to lead to a claim now: nothing is held, and what is known of channels keeps nobody waiting."""
        if self._draining or self.in_flight:
            return False
        return not self._policies_known or any(ways.room(now.s, _free(now)) > 0 for ways in self.routes.lanes.values())

    # --- what each event does -----------------------------------------------------------------------------------------

    def _providers_loaded(self, event: ProvidersLoaded, now: Now, commands: list[Command]) -> None:
        self._loading = False
        self._policies_known = True
        self.routes.load(event, now.s, commands)
        for lane in self.routes.lanes:
            self._parked.setdefault(lane, 1)  # not known until asked: an earlier life or another process may have parked some
        self._looks_at_s = now.s + PARKED_LOOK_S
        self._hinted = True

    def _claimed(self, event: Claimed, now: Now, commands: list[Command]) -> None:
        self._claiming_n = 0
        self._unparked.clear()
        for lane in event.parked:
            self._parked.setdefault(lane, 1)
        self._take(event.ids, now, commands, self._left_out)
        self._hinted = self._hinted or event.backlog > 0
        if event.due_in_s is not None and event.backlog == 0:
            commands.append(WakeIn(event.due_in_s))

    def _take(self, ids: Iterable[NotificationId], now: Now, commands: list[Command], left_out: Collection[Lane] = ()) -> None:
        """Begin to work on claimed ids: all that are not held or finished already go to the gate.

        ``left_out`` are lanes that the claim had no room for.
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
            closed = frozenset(lane for lane in self.routes.gated if lane in left_out or self._is_closed(lane, now))
            commands += self.routes.gates(fresh, closed, now.s, self._rooms(now))

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
                if isinstance(whither, str):
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
        self._unparking.discard(event.lane)
        if event.left:
            self._parked[event.lane] = event.left
        elif event.lane not in self._parked_meanwhile:  # else the answer may be older than what was parked since
            self._parked.pop(event.lane, None)
        self._parked_meanwhile.discard(event.lane)
        if event.moved:
            self._unparked.add(event.lane)
            self._hinted = True

    def _gated(self, event: Gated, now: Now, commands: list[Command]) -> None:
        answered = event.deliveries, event.parked, event.deferred, event.dropped, event.elsewhere
        self._gating_n -= sum(map(len, answered))
        if event.elsewhere:
            self._settled(event.elsewhere, event.elsewhere, now, commands)
        starting: dict[str, list[Delivery]] = {}
        for delivery in event.deliveries:
            state = self.routes.of(delivery)
            if delivery.expires_at_s is not None and delivery.expires_at_s <= now.unix_s:
                self._record(expire(delivery), commands)
            elif delivery.unknown_for_s is not None and (verdict := self._in_doubt(delivery, state, now, commands)) is not None:
                self._record(verdict, commands)
            elif self._draining or state is None or not state.begin(delivery.id, now.s):
                self._record(conclude(delivery, INTERRUPTED, None, self.retry, now.unix_s, 0.0), commands)
            else:
                starting.setdefault(state.policy.config_id, []).append(delivery)
                if (fork := self.routes.fork_of(delivery)) is not None:
                    fork.began(state.policy.config_id)
        commands.extend(Send(id, sent, self.routes.states[id].deadline_s) for id, sent in starting.items())
        if event.parked or event.deferred or event.dropped:
            self._leaving.update((id, channel) for channel, id in event.parked)
            self._leaving.update(event.deferred)
            commands.append(Settle(event.parked, event.deferred, event.dropped))

    def _in_doubt(self, delivery: Delivery, state: ChannelState | None, now: Now, commands: list[Command]) -> Verdict | None:
        """What becomes of a delivery that may have been sent already; None when it goes on, through its own configuration."""
        if state is not None:
            if (verdict := judge(delivery, state.policy, now.unix_s)) is not None:
                return verdict
            if self._draining or state.room(now.s) > 0 or self.routes.fork_of(delivery) is None:
                return None
            self._ask_quotas((state,), now, commands)  # nothing else may go through it now, and so nobody else asks
            wait_s = (state.opens_in_s(now.s) or AWAITED_S) * (1.0 + 0.5 * self.random01())
            return await_provider(delivery, state.policy, wait_s, now.unix_s)
        if delivery.config_id is None or self._draining:
            return None
        if delivery.config_id in self.routes.gone:
            return provider_gone(delivery)
        self.routes.seek(delivery.config_id)
        if not self._loading:
            self._loading = True
            commands.append(LoadProviders())
        return await_provider(delivery, None, AWAITED_S * (1.0 + 0.5 * self.random01()), now.unix_s)

    def _concluded(self, event: Concluded, now: Now, commands: list[Command]) -> None:
        delivery, outcome = event.delivery, event.outcome
        channel, config_id = delivery.channel, event.via.config_id
        state = self.routes.states.get(config_id)
        if state is not None:
            code = state.conclude(delivery.id, outcome, event.duration_s, now.s, self.random01, self.retry, event.speaks_for_call)
            if state.worth_keeping:
                state.worth_keeping = False
                commands.append(Keep(config_id))
            if code is not None:
                commands.append(Alarm(code, channel, config_id))
            if outcome.kind in _STOPS and not state.room(now.s):
                commands.append(Withdraw(config_id))
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
        budgets = self._budgets.get((via.config_id, via.provider, via.origin))
        if budgets is None:
            budgets = self.budgets.new(now.s), self.budgets.of_provider(via.provider, now.s, via.origin)
            self._budgets[via.config_id, via.provider, via.origin] = budgets
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
        if self.routes.forks:
            commands += self.routes.news(now.s)
        if not (may_claim or self._parked):
            return
        budget = self._look_at_lanes(now, commands)
        if not self.routes.states:
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

    def _look_at_lanes(self, now: Now, commands: list[Command]) -> int:
        """How many ids of any mix of lanes may be claimed now; ``_left_out`` are the ones that are not in the mix.

        Calls parked ids of open lanes back, and has closed ones looked at again as soon as they may be open.
        """
        rooms: dict[Lane, int] = {}
        look_again_in_s: float | None = None
        room_of = self._rooms(now)
        for lane, ways in self.routes.lanes.items():
            waited_for = lane in self._parked
            wanted = self._hinted or waited_for
            if wanted:
                self._ask_quotas(ways.reached(now.s), now, commands)
            room = ways.room(now.s, room_of) - self._claiming_n - self._gating_n
            if room > 0:
                rooms[lane] = room
                if waited_for and lane not in self._unparking and lane not in self._unparked:
                    self._unparking.add(lane)
                    commands.append(Unpark(lane, min(room, self.in_flight_max)))
            elif wanted and (opens_in_s := ways.opens_in_s(now.s)) is not None:
                look_again_in_s = opens_in_s if look_again_in_s is None else min(look_again_in_s, opens_in_s)
        if look_again_in_s is not None:
            commands.append(WakeIn(look_again_in_s))
        if self._claiming_n:
            return 0
        mixed = mix(rooms, self.in_flight_max - len(self.in_flight), self._unparking | self._unparked)
        self._left_out = self.routes.lanes.keys() - mixed.keys()
        return min(mixed.values(), default=0)

    def _ask_quotas(self, states: Iterable[ChannelState], now: Now, commands: list[Command]) -> None:
        """Have quotas leased ahead of need, and the end of one told."""
        for state in states:
            if state.quota is None:
                continue
            if (ask := state.quota.ask(now.s)) is not None:
                commands.append(LeaseQuota(state.policy, ask))
            if state.quota.tell_used_up(now.s):
                policy = state.policy
                commands += (Keep(policy.config_id), Alarm("quota_used_up", policy.channel, policy.config_id))

    def _look_for_parked(self, now: Now) -> tuple[Lane, ...]:
        """Lanes a claim should look at for parked ids: now and then those that have none as far as we know.

        Another process may have parked some and be gone.
        """
        if now.s < self._looks_at_s:
            return ()
        self._looks_at_s = now.s + PARKED_LOOK_S
        return tuple(lane for lane in self.routes.lanes if lane not in self._parked)

    def _rooms(self, now: Now) -> Callable[[ChannelState], int]:
        """How many attempts of a configuration may begin, so that a slow one leaves the others some of what may be held."""
        if len(self.routes.states) < 2:
            return _free(now)
        share = self.in_flight_max - self.in_flight_max // SPARED
        return lambda state: min(state.room(now.s), share - state.under_way)

    def _is_closed(self, lane: Lane, now: Now) -> bool:
        ways = self.routes.lanes.get(lane)
        return ways is None or ways.room(now.s, self._rooms(now)) <= 0


def _free(now: Now) -> Callable[[ChannelState], int]:
    """How many attempts of a configuration may begin, whoever else there is."""
    return lambda state: state.room(now.s)
