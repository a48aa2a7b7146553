"""Tokens that somebody else hands out, one kept for each bound configuration that needs one.

A token is fetched when the first call needs it, by one flight for all who need it then; that flight is nobody's: whoever waits
for it may be cancelled, and it goes on. A while before a token ends, the next call that uses it starts a flight in the
background and goes on with the old one, so a configuration in use never waits and one at rest costs nothing, not even a timer.
What failed is not tried again before a jittered pause that grows. Invariant: ends and pauses are measured on the process's own
monotonic clock from the moment an answer came, and no token stands in a log, an error or a repr.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from math import inf

import trio
from attrs import define, field, frozen

from actors.callers import Callers
from actors.io.http import Deadlines, MaybeSent, NotSent
from actors.supervision import describe
from actors.transports import Transports
from dispatcher.backoff import full_jitter_s
from dispatcher.organization import INTERRUPTED
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.provider import Moment
from dispatcher.providers.tokens import Authorizing, Token

logger = logging.getLogger(__name__)

AHEAD_S = 300.0
"""A token is renewed from 5 to 7.5 minutes before its end: drawn anew each time, so that what began together does not stay so."""
SPARE_S = 30.0
"""A token with less than this left is not sent any more: the call may take a while, and clocks differ."""
SHARE_USED_MIN = 0.5
"""But no token is renewed before half of its life is over, however short that is."""
RETRY_BASE_S = 1.0
RETRY_CAP_S = 60.0

NOT_FETCHED = Outcome(OutcomeClass.SOFT, "token_not_fetched")
"""A fault of ours, or the process is ending: nothing was sent to the recipient."""


async def fetch_token(
    bound: Authorizing,
    *,
    transports: Transports,
    deadlines: Deadlines,
    unix_s: Callable[[], float],
    random_bytes: Callable[[int], bytes],
) -> Token | Outcome:
    """Fetch a token once: it, or what its lack means for a notification. Raises nothing but Cancelled.

    No failure here is unknown: whatever became of this request, nothing was sent to a recipient.
    """
    try:
        response = await transports.exchange(bound.token_request(Moment(unix_s(), random_bytes)), deadlines)
        return bound.token_of(response, unix_s())
    except (NotSent, MaybeSent) as error:
        return Outcome(OutcomeClass.SOFT, f"token_{error.code}")
    except Exception as error:  # a fault of ours: nobody else's calls may end with it
        logger.error("fetching a token failed: %s", describe(error))
        return NOT_FETCHED


@frozen
class _Kept:
    """A token that may be sent until ``good_until_s`` and should be renewed from ``renew_at_s`` on, by Trio's clock."""

    token: Token
    renew_at_s: float
    good_until_s: float


@define
class _Flight:
    """One fetching under way. ``end`` is there once ``landed`` is set."""

    landed: trio.Event = field(factory=trio.Event)
    end: Token | Outcome = NOT_FETCHED


class TokenKeeper:
    """Keeps the token of one bound configuration. Owned by its channel's actor; flights run among the callers' tasks."""

    def __init__(
        self,
        bound: Authorizing,
        *,
        transports: Transports,
        deadlines: Deadlines,
        callers: Callers,
        unix_s: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._bound = bound
        self._transports = transports
        self._deadlines = deadlines
        self._callers = callers
        self._unix_s = unix_s
        self._random_bytes = random_bytes
        self._kept: _Kept | None = None
        self._flight: _Flight | None = None
        self._failures = 0
        self._failed: Outcome = NOT_FETCHED  # how the last flight ended, if it failed
        self._not_before_s = -inf  # the next flight after a failure

    def __repr__(self) -> str:
        return f"<TokenKeeper, {'a' if self._kept else 'no'} token>"

    async def authorized(
        self, call: Callable[[str], Awaitable[Outcome]], may_begin: Callable[[], bool], wait_s: float
    ) -> Outcome:
        """Make one call with a token, and once more with a fresh one if it was not accepted.

        ``may_begin`` is asked before a call that does not begin at once: time has passed. ``wait_s`` is how long to wait for a
        token.
        """
        token = self._at_hand()
        for tries_left in (1, 0):
            if token is None:
                got = await self._fetched(wait_s)
                if isinstance(got, Outcome):
                    return got
                if not may_begin():
                    return INTERRUPTED
                token = got
            outcome = await call(token.text)
            if not tries_left or not self._bound.is_stale(outcome):
                break
            self._drop(token)
            token = None
        return outcome

    def _at_hand(self) -> Token | None:
        """The token if it may be sent now. One that ends soon has its successor fetched meanwhile."""
        kept = self._kept
        if kept is None:
            return None
        now_s = trio.current_time()
        if now_s >= kept.good_until_s:
            self._kept = None
            return None
        if now_s >= kept.renew_at_s and now_s >= self._not_before_s and self._flight is None:
            self._take_off()
        return kept.token

    async def _fetched(self, wait_s: float) -> Token | Outcome:
        """A token, waited for if need be. Who comes in the pause after a failure is told of that failure."""
        token = self._at_hand()
        if token is not None:
            return token
        flight = self._flight
        if flight is None:
            if trio.current_time() < self._not_before_s:
                return self._failed
            flight = self._take_off()
        with trio.move_on_after(wait_s):
            await flight.landed.wait()
            return flight.end
        return Outcome(OutcomeClass.SOFT, "token_timeout")

    def _drop(self, token: Token) -> None:
        """Forget a token that was not accepted, unless a newer one is here already."""
        if self._kept is not None and self._kept.token is token:
            self._kept = None

    def _take_off(self) -> _Flight:
        flight = _Flight()
        if self._callers.beside(lambda: self._fly(flight)):
            self._flight = flight
        else:  # the process is ending
            flight.landed.set()
        return flight

    async def _fly(self, flight: _Flight) -> None:
        try:
            flight.end = await fetch_token(
                self._bound,
                transports=self._transports,
                deadlines=self._deadlines,
                unix_s=self._unix_s,
                random_bytes=self._random_bytes,
            )
            self._note(flight.end)
        finally:
            self._flight = None
            flight.landed.set()

    def _note(self, end: Token | Outcome) -> None:
        now_s = trio.current_time()
        if isinstance(end, Token):
            left_s = end.expires_at_unix_s - self._unix_s()
            ahead_s = AHEAD_S * (1 + self._random01() / 2)
            self._kept = _Kept(end, now_s + max(left_s - ahead_s, left_s * SHARE_USED_MIN), now_s + max(0.0, left_s - SPARE_S))
            self._failures, self._not_before_s = 0, -inf
            return
        self._failures += 1
        self._failed = end
        pause_s = full_jitter_s(self._failures, RETRY_BASE_S, RETRY_CAP_S, 0.5 + self._random01() / 2)
        self._not_before_s = now_s + max(pause_s, min(end.retry_after_s or 0.0, RETRY_CAP_S))
        if self._kept is not None:
            logger.warning("a token could not be renewed (%s); the one at hand is used while it is good", end.code)

    def _random01(self) -> float:
        return self._random_bytes(1)[0] / 256
