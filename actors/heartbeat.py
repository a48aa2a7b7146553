"""Measures how late this process turns its loop, and says so when it stood still.

Work that holds the loop, a stopped process, a paused machine: nothing here can run meanwhile, so all that can be done is to
notice afterwards and to doubt what was known before. Two clocks are read, because the monotonic one may stand still together with
the machine; whichever went further counts. (A wall clock that is set forward looks the same, and costs one question to Postgres.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from actors.metrics import Metrics

logger = logging.getLogger(__name__)

BEAT_S = 0.25
STALL_S = 1.0
"""Lateness that is worth a line in the log."""


class Heartbeat:
    """Beats. ``on_stall`` hears how long the process stood still when that was at least ``doubt_s``."""

    def __init__(
        self, metrics: Metrics, *, doubt_s: float, on_stall: Callable[[float], None], unix_s: Callable[[], float]
    ) -> None:
        self._metrics = metrics
        self._doubt_s = doubt_s
        self._on_stall = on_stall
        self._unix_s = unix_s

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            began_s, began_unix_s = trio.current_time(), self._unix_s()
            await trio.sleep(BEAT_S)
            now_s = trio.current_time()
            late_s = max(now_s - began_s, self._unix_s() - began_unix_s) - BEAT_S
            self._metrics.loop_late.observe(late_s, now_s)
            if late_s >= STALL_S:
                self._metrics.events["loop_stalled"] += 1
                logger.warning("this process stood still for %.1f s", late_s)
            if late_s >= self._doubt_s:
                self._on_stall(late_s)
