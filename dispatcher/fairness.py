"""Whose call is next: what the organizations of a process have used of its callers, and who may take one now.

A call costs what it takes of a caller: time. Each organization has an account of the time its calls took, over all its channels,
and the one that has used least is next; among equals, the one that has waited longest. An account never falls behind the
process's own reckoning (so nobody saves up turns by being quiet) and never runs more than ``DEBT_MAX_S`` ahead of it (so nobody
pays for ever). How long a call takes is known only at its end: it is charged what its channel's calls took lately, and corrected
when it ends.

A call at a provider that does not answer keeps its caller until the deadline, whoever else waits. So the last callers are not for
everybody: an organization with calls under way leaves some of them free, one with many leaves more. While more than an eighth of
the callers is free, nobody leaves anything.

Invariant: whoever waits is served. An organization without calls under way may take any caller, calls end within their deadline,
and the reckoning moves on with every call that begins, past every account that stands still.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Protocol

from attrs import define, field

CALL_GUESS_S = 0.1
"""What the first call of a channel is expected to take."""
CALL_WEIGHT = 0.125
"""How much the latest call counts in what the next one is expected to take."""
CALL_MIN_S = 0.005
"""What a call costs at least: a provider that answers at once is not worth a thousand turns of another's."""
DEBT_MAX_S = 5.0
"""How far an account may run ahead: about how long, while callers are scarce, an organization may stand behind all others."""
FEW = 4
"""An organization with fewer calls under way may take callers that one with more has to leave."""


class Party(Protocol):
    """What waits for a caller: a channel, on its organization's account."""

    call_s: float
    """What its next call is expected to take. Written by :class:`Turns` only, at first CALL_GUESS_S."""

    @property
    def share(self) -> Share:
        """The account of its organization."""


@define(eq=False)
class Share:
    """One organization's account. Only :class:`Turns` writes it."""

    under_way: int = field(default=0, init=False)
    used_s: float = field(default=0.0, init=False)
    waiting: deque[Party] = field(factory=deque, init=False)
    leaves: int = field(default=0, init=False)  # while it is held back: until more callers than these are free


class Turns:
    """The line for ``calls_max`` callers. It counts no callers: ``free`` is how many there are for the call in question."""

    def __init__(self, calls_max: int) -> None:
        self._leave_few = calls_max // 16
        self._leave_many = calls_max // 8
        self._advance = 1.0 / calls_max
        self._reckoning_s = 0.0
        self._number = 0
        self._line: list[tuple[float, int, Share]] = []  # a heap: by account, then by age
        self._held: dict[Share, int] = {}  # those that were in front and may take no caller now, with their number
        self.waiting = 0

    def wait(self, party: Party) -> None:
        """Put a party in line, which is not in it. Parties of one organization take its turns in turns."""
        share = party.share
        share.waiting.append(party)
        self.waiting += 1
        if len(share.waiting) == 1:
            self._stand(share)

    def may_begin(self, share: Share, free: int) -> bool:
        """Whether this organization may take one of ``free`` callers."""
        return free > self._leave_many or free > self._leaves(share)

    def next(self, free: int) -> Party | None:
        """Take the party out of the line that one of ``free`` callers goes to; None when they are not for anybody in it."""
        if self._held and free > self._leave_few:
            self._readmit(free)
        line = self._line
        while line:
            used_s, number, share = heappop(line)
            if share.used_s > used_s:  # corrected since it stands here
                heappush(line, (share.used_s, number, share))
                continue
            if free <= self._leave_many and free <= (leaves := self._leaves(share)):
                share.leaves = leaves
                self._held[share] = number
                continue
            party = share.waiting.popleft()
            self.waiting -= 1
            if used_s > self._reckoning_s:
                self._reckoning_s = used_s
            if share.waiting:
                self._stand(share)
            return party
        return None

    def begin(self, party: Party) -> float:
        """A call of the party begins. Returns what it is charged, for :meth:`end`."""
        share, charged_s = party.share, party.call_s
        share.under_way += 1
        if charged_s < CALL_MIN_S:
            charged_s = CALL_MIN_S
        self._reckoning_s += charged_s * self._advance
        self._charge(share, charged_s)
        return charged_s

    def end(self, party: Party, charged_s: float, took_s: float) -> None:
        """It has ended, after ``took_s``."""
        share = party.share
        share.under_way -= 1
        party.call_s += (took_s - party.call_s) * CALL_WEIGHT
        if took_s < CALL_MIN_S:
            took_s = CALL_MIN_S
        self._charge(share, took_s - charged_s)
        number = self._held.pop(share, None) if self._held else None
        if number is not None:
            heappush(self._line, (share.used_s, number, share))

    def _charge(self, share: Share, amount_s: float) -> None:
        most_s = self._reckoning_s + DEBT_MAX_S
        share.used_s += amount_s
        if share.used_s > most_s:
            share.used_s = most_s

    def _stand(self, share: Share) -> None:
        if share.used_s < self._reckoning_s:
            share.used_s = self._reckoning_s
        self._number += 1
        heappush(self._line, (share.used_s, self._number, share))

    def _leaves(self, share: Share) -> int:
        """How many callers it has to leave free."""
        if share.under_way == 0:
            return 0
        return self._leave_few if share.under_way < FEW else self._leave_many

    def _readmit(self, free: int) -> None:
        """Put those back in line who may take a caller again, at their old place. At most as many as have calls under way."""
        for share in [share for share in self._held if free > share.leaves]:
            heappush(self._line, (share.used_s, self._held.pop(share), share))
