"""How much of an account's quota one channel may still use: a stock of leased units, spent locally and renewed ahead of need.

The counter of the window is Redis' and shared by all processes; the window begins with the first lease and ends by Redis'
clock. A channel leases blocks, spends them without asking anybody, and gives back what is left when it falls asleep, drains
or changes. Units die with their window, and are counted from when the lease was *asked for*, so that they are never spent
after its end.

Invariant: in one window all processes together spend at most ``quota``. What costs units without a call: a process that dies
takes its stock along, at most one and a half blocks, so at most three hundredths of the quota. A Redis that lost its memory
is told by the next lease what this channel has last heard, so a window goes on while its channel lives; with nobody alive who
knew, it begins anew.
"""

from __future__ import annotations

from math import inf

from attrs import define, field, frozen

BLOCKS_PER_QUOTA = 50
"""A block is this part of the quota …"""
BLOCK_MAX = 1000
"""… and at most this many: a few leases a second at the highest rates."""


@frozen
class QuotaPolicy:
    """What an account may send. ``account`` names it (the configuration's id); ``window_s`` is the length of its window."""

    account: str
    quota: int
    window_s: float


@frozen
class QuotaAsk:
    """A request to the counter: ``n`` units more, or with a negative ``n`` so many back.

    ``window`` is the window last heard of (its end in milliseconds of the server's clock; 0: none), ``used`` what was used in it
    then. The counter takes over what it does not know, and gives back only to the window that units were leased in.
    """

    policy: QuotaPolicy
    n: int
    window: int
    used: int


@frozen
class QuotaAnswer:
    """What the counter granted. ``used`` counts all units out by now, ``ends_in_s`` is how long ``window`` still lasts."""

    granted: int
    used: int
    window: int
    ends_in_s: float


def block_of(quota: int) -> int:
    """How many units are leased at once."""
    return max(1, min(quota // BLOCKS_PER_QUOTA, BLOCK_MAX))


@define
class Quota:
    """The stock of one channel; written by its owner only. Times are seconds of the caller's monotonic clock."""

    policy: QuotaPolicy
    alarmed_window: int = 0
    """The window whose end of quota was already told; kept over lives."""
    _stock: int = field(default=0, init=False)
    _window: int = field(default=0, init=False)
    _used: int = field(default=0, init=False)
    _ends_s: float = field(default=-inf, init=False)
    _used_up: bool = field(default=False, init=False)  # the counter had nothing left in this window
    _asked_s: float | None = field(default=None, init=False)  # when the lease under way was asked for
    _spent: set[str] = field(factory=set, init=False)  # ids under way that were paid for in this window

    @property
    def is_asking(self) -> bool:
        """Whether a lease is under way."""
        return self._asked_s is not None

    def available(self, now_s: float) -> int:
        """How many calls may begin now."""
        return self._stock if now_s < self._ends_s else 0

    def take(self, id: str) -> None:
        """Pay for one call. Only while ``available``."""
        self._stock -= 1
        self._spent.add(id)

    def ended(self, id: str, *, made: bool) -> None:
        """The call of this id has ended; was it never ``made``, its unit comes back, if its window still is the present one."""
        if id in self._spent:
            self._spent.remove(id)
            if not made:
                self._stock += 1

    def ask(self, now_s: float) -> QuotaAsk | None:
        """The lease that should be asked for now, if any. Call it only while there is work; the answer goes to ``answered``."""
        if self._asked_s is not None:
            return None
        in_window = now_s < self._ends_s
        block = block_of(self.policy.quota)
        if in_window and (self._used_up or self._stock > block // 2):
            return None
        self._asked_s = now_s
        return QuotaAsk(self.policy, block, self._window if in_window else 0, self._used if in_window else 0)

    def answered(self, answer: QuotaAnswer | None) -> None:
        """Take an answer in; None when none came, and then nothing is known to be granted."""
        asked_s, self._asked_s = self._asked_s, None
        if answer is None or asked_s is None:
            return
        if answer.window != self._window:
            self._stock = 0
            self._spent.clear()
            self._window = answer.window
        self._stock += answer.granted
        self._used = answer.used
        self._used_up = answer.granted == 0
        self._ends_s = asked_s + answer.ends_in_s

    def give_back(self, now_s: float) -> QuotaAsk | None:
        """Take everything unspent out of the stock, to be returned to the counter. None when there is nothing."""
        n = self.available(now_s)
        self._stock = 0
        if not n:
            return None
        self._used -= n
        self._used_up = False
        return QuotaAsk(self.policy, -n, self._window, 0)

    def opens_in_s(self, now_s: float) -> float | None:
        """When a channel without units is worth another look; None when the answer under way will tell, or a hint has to ask."""
        return self._ends_s - now_s if self._used_up and not self._stock and now_s < self._ends_s else None

    def tell_used_up(self, now_s: float) -> bool:
        """Whether a person should hear now that the quota is used up: once a window."""
        if self.opens_in_s(now_s) is None or self.alarmed_window == self._window:
            return False
        self.alarmed_window = self._window
        return True
