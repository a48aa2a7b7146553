"""The ways one lane may go: its configurations by priority, which of them are in use now, and who gets how much.

Only the best priority is used, and shared by weight. The next one is used while nothing of the better one is *up*: wholly while
all of it is down, and for what is beyond their room while it is returning, so that what comes back gets its traffic back step by
step. A route that is up and merely busy is waited for: a rate or a concurrency says how fast, never through whom. Nothing goes
past a priority with a route that does not allow it (``failover``).

Shares count attempts that have begun, not those that were planned: a claim may hold ids of other lanes. A route is owed at most
``OWED_MAX`` attempts, so that none catches up at once on what it missed while it could not be used.

Invariant: routes are in use only up to the first priority that has a route which is up or does not let go, and of those that are
in use none is down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from attrs import define, field

from dispatcher.channel_state import ChannelState, Standing

OWED_MAX = 32
"""So many attempts at most does a route get beyond its share, because others had some of it before."""
RoomOf = Callable[[ChannelState], int]


@define
class Route:
    """One configuration as one lane uses it. ``turns`` are the attempts it has begun, each divided by its weight."""

    state: ChannelState
    turns: float = 0.0
    moved: bool = field(default=False, init=False)
    """It was told that others send what this one would."""

    @property
    def config_id(self) -> str:
        """Its configuration."""
        return self.state.policy.config_id


class Moved(NamedTuple):
    """Traffic has moved away from ``config_id``, to ``to`` first of all; or, with ``to`` empty, back to it."""

    config_id: str
    to: str = ""


class LaneRoutes:
    """The routes of one lane, best first. Only the organization's core may call it; times are monotonic seconds."""

    def __init__(self, states: Sequence[ChannelState]) -> None:
        self.routes = [Route(state) for state in sorted(states, key=_priority)]
        self._levels = [list(level) for _, level in groupby(self.routes, lambda route: _priority(route.state))]
        self.only = self.routes[0].state if len(self.routes) == 1 else None
        """The one there is to choose from; None when there are several."""

    def inherit(self, before: LaneRoutes | None, now_s: float) -> None:
        """Go on where the routes of an earlier revision were: what has begun, and what was told.

        What comes out of the memory of another life as not being up, was told by that life.
        """
        known = {} if before is None else {route.config_id: route for route in before.routes}
        for route in self.routes:
            if (earlier := known.get(route.config_id)) is not None:
                route.turns, route.moved = earlier.turns, earlier.moved
            else:
                route.moved = route.state.standing(now_s) is not Standing.UP

    def room(self, now_s: float, room_of: RoomOf) -> int:
        """How many attempts may begin now, all routes together."""
        if self.only is not None:
            return room_of(self.only)
        return sum(room_of(route.state) for level in self._in_use(now_s) for route in level)

    def opens_in_s(self, now_s: float) -> float | None:
        """When a closed lane is worth another look; None when only an ending attempt can open it."""
        if self.only is not None:
            return self.only.opens_in_s(now_s)
        looks = [route.state.opens_in_s(now_s) for level in self._reached(now_s) for route in level]
        return min((look for look in looks if look is not None), default=None)

    def reached(self, now_s: float) -> list[ChannelState]:
        """The configurations that may be used now, or are waited for."""
        if self.only is not None:
            return [self.only]
        return [route.state for level in self._reached(now_s) for route in level]

    def share(self, n: int, now_s: float, room_of: RoomOf) -> list[tuple[str, int]]:
        """Through whom ``n`` attempts would go: configurations with how many each, ``n`` in all. For an open lane only."""
        if self.only is not None:
            return [(self.only.policy.config_id, n)]
        shares: dict[str, int] = {}
        left = n
        for level in self._in_use(now_s):
            for id, count in _dealt(level, left, room_of):
                shares[id] = count
                left -= count
        if left:  # more than there is room for: whoever has none then sends them back
            id = next(iter(shares), self.routes[0].config_id)
            shares[id] = shares.get(id, 0) + left
        return list(shares.items())

    def began(self, config_id: str) -> None:
        """An attempt has begun through one of several routes."""
        begun = weights = 0.0
        for route in self.routes:
            weight = route.state.policy.weight
            if route.config_id == config_id:
                route.turns += 1.0 / weight
            begun += route.turns * weight
            weights += weight
        for route in self.routes:
            route.turns = max(route.turns, begun / weights - OWED_MAX / route.state.policy.weight)

    def news(self, now_s: float) -> Iterator[Moved]:
        """What a person should hear about traffic that has moved since the last look."""
        if self.only is not None:
            return
        in_use = [route for level in self._in_use(now_s) for route in level]
        carrying = next((route for route in in_use if route.state.standing(now_s) is Standing.UP), in_use[0] if in_use else None)
        for route in self.routes:
            standing = route.state.standing(now_s)
            if standing is Standing.UP:
                if route.moved:
                    route.moved = False
                    yield Moved(route.config_id)
            elif standing is Standing.DOWN and not route.moved and carrying is not None and _takes_over(carrying, route):
                route.moved = True
                yield Moved(route.config_id, carrying.config_id)

    def _reached(self, now_s: float) -> Iterator[list[Route]]:
        """The priorities that are used or waited for, each with all of its routes."""
        for level in self._levels:
            yield level
            for route in level:
                if not route.state.policy.failover or route.state.standing(now_s) is Standing.UP:
                    return

    def _in_use(self, now_s: float) -> Iterator[list[Route]]:
        for level in self._reached(now_s):
            yield [route for route in level if route.state.standing(now_s) is not Standing.DOWN]


def _dealt(level: Sequence[Route], n: int, room_of: RoomOf) -> Iterator[tuple[str, int]]:
    """Deal up to ``n`` attempts out, each to whoever has room and would with half of it have had the fewest for its weight."""
    hands = [[route.turns, 1.0 / route.state.policy.weight, room_of(route.state), 0] for route in level]
    able = [hand for hand in hands if hand[2] > 0]
    if len(able) == 1:
        able[0][3] = min(n, able[0][2])
    else:
        for _ in range(n):
            if not able:
                break
            hand = min(able, key=_turns)
            hand[0] += hand[1]
            hand[3] += 1
            if hand[3] >= hand[2]:
                able.remove(hand)
    for route, hand in zip(level, hands, strict=True):
        if hand[3]:
            yield route.config_id, int(hand[3])


def _turns(hand: Sequence[float]) -> float:
    return hand[0] + hand[1] / 2


def _priority(state: ChannelState) -> int:
    return state.policy.priority


def _takes_over(carrying: Route, route: Route) -> bool:
    """Whether one that sends does so in the place of the other, which is down: a standby that is down is missed by nobody."""
    return _priority(carrying.state) >= _priority(route.state)
