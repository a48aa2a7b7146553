"""All provider configurations of one organization: their limits, and which of them each notification goes through.

``states`` holds one :class:`~dispatcher.channel_state.ChannelState` for each configuration, ``lanes`` the ways of each lane.
A way is chosen before the gate, and the gate puts it on record with the intent to send: a process that dies leaves behind
through whom. Where a lane has several ways the ids are divided, and each part goes to the gate with its own.

Invariant: what may have been sent already is not planned anew: the gate keeps it with the configuration of its unresolved
attempt (unless that is ``unbound``), and what the gate answers is what counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from dispatcher.audience import AUDIENCES, audience_of, lane, lanes_of
from dispatcher.breaker import BreakerPolicy
from dispatcher.channel_memory import Remembered
from dispatcher.channel_state import ChannelState, quota_policy
from dispatcher.lane_routes import LaneRoutes, RoomOf
from dispatcher.messages import Alarm, Command, Gate, ProvidersLoaded, QuotaLeased, ReturnQuota
from dispatcher.model import Channel, Delivery, Lane, NotificationId
from dispatcher.quota import QuotaAsk


@define
class Routes:
    """The configurations of one organization. Only its core may call it; times are monotonic seconds."""

    breaker: BreakerPolicy
    states: dict[str, ChannelState] = field(factory=dict, init=False)
    """The limits of each configuration, by its id."""
    lanes: dict[Lane, LaneRoutes] = field(factory=dict, init=False)
    """The ways of every lane that has any."""
    gated: tuple[Lane, ...] = field(default=tuple(Channel), init=False)
    """The lanes that the gate tells apart, with and without ways: whole channels where no configuration asks for more."""
    gone: frozenset[str] = field(default=frozenset(), init=False)
    """Configurations that were looked for, and do not exist any more or can not be used."""
    _unbound: frozenset[str] = field(default=frozenset(), init=False)
    forks: tuple[tuple[Lane, LaneRoutes], ...] = field(default=(), init=False)
    """The lanes that have several ways."""
    _sought: set[str] = field(factory=set, init=False)

    def load(self, event: ProvidersLoaded, now_s: float, commands: list[Command]) -> None:
        """Take configurations over. What has not changed goes on as it is."""
        policies = {policy.config_id: policy for policy in event.policies}
        before = dict(self.states)
        self.states.clear()
        for id, known in before.items():
            if id not in policies or not known.covers(policies[id]):
                _return_quota(known, now_s, commands)
        for id, policy in policies.items():
            state = before.get(id)
            if state is None or not state.covers(policy):
                # An earlier revision has just been at work here; else an earlier life may be remembered.
                remembered = event.remembered.get(id) if state is None else Remembered(0.0, True, state.saved(now_s))
                state = ChannelState.resumed(policy, self.breaker, remembered, now_s)
            self.states[id] = state
        self.gone = frozenset(self._sought - policies.keys())
        self._sought.clear()
        self._unbound = frozenset(id for id, policy in policies.items() if policy.failover_on_unknown)
        self._lay_out(now_s)

    def _lay_out(self, now_s: float) -> None:
        before, self.lanes, gated = self.lanes, {}, []
        for channel in Channel:
            mine = [state for state in self.states.values() if state.policy.channel is channel]
            parted = any(state.policy.audience for state in mine)
            gated += [lane(channel, audience) for audience in AUDIENCES.get(channel, ())] if parted else [channel.value]
            for name in lanes_of(channel):  # also those that ids may be parked for since the channel was parted, or was not
                audience = name.partition(":")[2]
                fitting = [s for s in mine if not s.policy.audience or not audience or s.policy.audience == audience]
                if fitting:
                    self.lanes[name] = LaneRoutes(fitting)
                    self.lanes[name].inherit(before.get(name), now_s)
        self.gated = tuple(gated)
        self.forks = tuple((name, self.lanes[name]) for name in gated if name in self.lanes and not self.lanes[name].only)

    # --- before the gate ------------------------------------------------------------------------------------------------

    def gates(self, ids: Sequence[NotificationId], closed: frozenset[Lane], now_s: float, room_of: RoomOf) -> list[Gate]:
        """Send ids to the gate, each part of them with its ways. No lane that is not in ``closed`` is without one."""
        through = {name: self.lanes[name].routes[0].config_id for name in self.gated if name not in closed}
        shares = {name: ways.share(len(ids), now_s, room_of) for name, ways in self.forks if name not in closed}
        if not shares:
            return [Gate(ids, closed, through, self._unbound)]
        changes: dict[int, dict[Lane, str]] = {0: {}}
        for name, share in shares.items():
            at = 0
            for config_id, n in share:
                changes.setdefault(at, {})[name] = config_id
                at += n
        gates = []
        starts = sorted(changes)
        for at, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            through = {**through, **changes[at]}
            gates.append(Gate(ids[at:end], closed, through, self._unbound))
        return gates

    # --- behind the gate ------------------------------------------------------------------------------------------------

    def of(self, delivery: Delivery) -> ChannelState | None:
        """Through whom a delivery goes; None when that configuration is not here."""
        if delivery.config_id is not None:
            return self.states.get(delivery.config_id)
        ways = self.lanes.get(delivery.channel)
        return None if ways is None else ways.routes[0].state

    def fork_of(self, delivery: Delivery) -> LaneRoutes | None:
        """The ways of a delivery's lane, if there are several."""
        if not self.forks:
            return None
        name = lane(delivery.channel, audience_of(delivery.channel, delivery.recipient))
        ways = self.lanes.get(name if name in self.gated else delivery.channel)
        return None if ways is None or ways.only is not None else ways

    def seek(self, config_id: str) -> None:
        """Have the next load say whether there still is such a configuration."""
        self._sought.add(config_id)

    # --- at any time ----------------------------------------------------------------------------------------------------

    def news(self, now_s: float) -> list[Alarm]:
        """Traffic that has moved since the last look. Each move is told once, in however many lanes it happened."""
        alarms: list[Alarm] = []
        for _, ways in self.forks:
            for config_id, to in ways.news(now_s):
                channel = self.states[config_id].policy.channel
                alarm = Alarm("failed_over" if to else "failed_back", channel, config_id, to)
                if alarm not in alarms:
                    alarms.append(alarm)
        return alarms

    def leased(self, event: QuotaLeased, commands: list[Command]) -> None:
        """Take an answer of a quota's counter in."""
        state = self.states.get(event.policy.config_id)
        if state is not None and state.quota is not None and state.covers(event.policy):
            state.quota.answered(event.answer)
        elif event.answer is not None and event.answer.granted:
            # Its configuration has changed meanwhile: nobody will spend this.
            unspent = QuotaAsk(quota_policy(event.policy), -event.answer.granted, event.answer.window, 0)
            commands.append(ReturnQuota(event.policy.config_id, unspent))

    def give_back(self, now_s: float) -> list[ReturnQuota]:
        """Take all unspent quota out."""
        returns: list[Command] = []
        for state in self.states.values():
            _return_quota(state, now_s, returns)
        return [command for command in returns if isinstance(command, ReturnQuota)]

    @property
    def are_leasing(self) -> bool:
        """Whether an answer of a quota's counter is awaited."""
        return any(state.quota is not None and state.quota.is_asking for state in self.states.values())


def _return_quota(state: ChannelState, now_s: float, returns: list[Command]) -> None:
    if state.quota is not None and (ask := state.quota.give_back(now_s)) is not None:
        returns.append(ReturnQuota(state.policy.config_id, ask))
