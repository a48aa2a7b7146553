"""How many notifications a second reach the providers, and how long it takes after a fault until it is as many again."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from statistics import median

import httpx
import trio

SAMPLE_S = 0.25
WINDOW_S = 1.0
BASELINE_S = 30.0
GOOD = 0.9
"""Share of the usual throughput that counts as recovered."""


class Pulse:
    """Samples ``(time, accepted so far)`` of all sandboxes together; times are Trio's."""

    def __init__(self, sandboxes: Sequence[str]) -> None:
        self._sandboxes = sandboxes
        self.samples: list[tuple[float, int]] = []

    async def run(self) -> None:
        """Sample until cancelled."""
        async with httpx.AsyncClient(timeout=5) as client:
            while True:
                with suppress(httpx.HTTPError):  # a machine so busy that there is nothing to measure now
                    accepted = 0
                    for url in self._sandboxes:
                        summary = (await client.get(f"{url}/_sandbox/ledger/summary")).json()
                        accepted += summary["messages"]
                    self.samples.append((trio.current_time(), accepted))
                await trio.sleep(SAMPLE_S)


def rates(samples: Sequence[tuple[float, int]]) -> list[tuple[float, float]]:
    """``(start, per second)`` of every window that begins with a sample."""
    times = [at for at, _ in samples]
    found = []
    for i, (start, count) in enumerate(samples):
        j = bisect_left(times, start + WINDOW_S, i + 1)
        if j < len(samples):
            found.append((start, (samples[j][1] - count) / (times[j] - start)))
    return found


def recovery_s(windows: Sequence[tuple[float, float]], at: float) -> float | None:
    """How long after ``at`` the first window began that is as good as the half minute before. None: never."""
    starts = [start for start, _ in windows]
    now = bisect_left(starts, at)
    before = [rate for start, rate in windows[bisect_left(starts, at - BASELINE_S) : now] if start + WINDOW_S <= at]
    if not before or (usual := median(before)) <= 0:
        return None
    return next((start - at for start, rate in windows[now:] if rate >= GOOD * usual), None)
