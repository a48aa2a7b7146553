"""Whether the servers answer, within a second for whoever asks.

A statement that is given up is also taken back at the server, which a silent one holds up for seconds more; that is waited for
here and not by who asked. One question to each server is under way at a time, whoever and however many ask.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio

from actors.io.postgres import Pool
from actors.io.redis import Redis
from dispatcher.errors import QueueUnavailable, StoreUnavailable

ANSWER_S = 1.0


class Readiness:
    """Asks Postgres and Redis. Useful while :meth:`run` runs; before, nothing is ready."""

    def __init__(self, pool: Pool, redis: Redis) -> None:
        self._asks: Mapping[str, Callable[[], Awaitable[object]]] = {
            "postgres": lambda: pool.fetch("SELECT 1", deadline_s=ANSWER_S),
            "redis": lambda: redis.execute("PING"),
        }
        self._under_way: dict[str, trio.Event] = {}
        self._answered: dict[str, bool] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Host the questions until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def ready(self) -> Mapping[str, bool]:
        """Each server's name, and whether it answers."""
        await trio.lowlevel.checkpoint()
        answers = dict.fromkeys(self._asks, False)
        if self._nursery is None:
            return answers
        asked = {name: self._ask(name, self._nursery) for name in self._asks}
        with trio.move_on_after(ANSWER_S):
            for event in asked.values():
                await event.wait()
        return {name: event.is_set() and self._answered[name] for name, event in asked.items()}

    def _ask(self, name: str, nursery: trio.Nursery) -> trio.Event:
        event = self._under_way.get(name)
        if event is None:
            event = self._under_way[name] = trio.Event()
            nursery.start_soon(self._hear, name, event)
        return event

    async def _hear(self, name: str, event: trio.Event) -> None:
        self._answered[name] = False
        try:
            await self._asks[name]()
            self._answered[name] = True
        except (StoreUnavailable, QueueUnavailable):
            pass
        finally:
            del self._under_way[name]
            event.set()
