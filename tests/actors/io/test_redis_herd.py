"""A server that comes back after a long absence is not overrun by those who waited for it. On a virtual clock."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import trio
import trio.testing

from actors.io.redis import open_redis

PROCESSES = 20
AWAY_S = 600.0


class Noted(Random):
    """Chance, and a note of when each was asked for: after every attempt that failed."""

    def __init__(self, seed: int, asked_s: list[float]) -> None:
        super().__init__(seed)
        self.asked_s = asked_s

    def random(self) -> float:
        self.asked_s.append(trio.current_time())
        return super().random()


async def test_after_ten_minutes_without_redis_processes_come_back_one_by_one(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """(scenario 14) Attempts spread over the longest pause, and a process makes few of them."""
    attempts_s: list[float] = []
    async with AsyncExitStack() as stack:
        for number in range(PROCESSES):
            chance = Noted(number, attempts_s)
            url = f"unix://{tmp_path}/nobody.sock"
            await stack.enter_async_context(open_redis(url, connect_deadline_s=5, command_deadline_s=5, random=chance))
        await trio.sleep(AWAY_S)

    late = [at_s for at_s in attempts_s if at_s > AWAY_S / 2]
    crowds = Counter(int(at_s / 0.1) for at_s in late)
    assert len(late) / PROCESSES < AWAY_S / 2  # fewer than one a second each
    assert max(crowds.values()) <= PROCESSES / 3  # never a third of them within a tenth of a second
