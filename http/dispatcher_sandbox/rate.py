"""The rate limit of an account: requests counted in fixed windows of the clock, as the X-RateLimit headers describe it.

A window begins at every multiple of its length since the Unix epoch; when a new one begins all counts are forgotten, so what is
held is bounded by the accounts seen within one window. A clock that goes back only begins a window anew.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Rate(NamedTuple):
    """Where an account stands after a request. ``reset_s`` is the Unix second, rounded up, at which the window refills."""

    granted: bool
    limit: int
    remaining: int
    reset_s: int


class RateLimit:
    """Counts of the current window. The clock is the caller's."""

    def __init__(self) -> None:
        self._window = -1
        self._used: dict[bytes, int] = {}

    def take(self, account: bytes, limit_per_s: float, window_s: float, now_s: float) -> Rate:
        """Count one request of ``account``. Never waits."""
        window = math.floor(now_s / window_s)
        if window != self._window:
            self._window = window
            self._used = {}
        limit = int(limit_per_s * window_s + 1e-9)
        used = self._used.get(account, 0)
        reset_s = math.ceil((window + 1) * window_s)
        if used >= limit:
            return Rate(False, limit, 0, reset_s)
        self._used[account] = used + 1
        return Rate(True, limit, limit - used - 1, reset_s)
