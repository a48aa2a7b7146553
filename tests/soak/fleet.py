"""Dispatcher processes that are kept running, as a service manager would, whatever ends them.

Each has a number. One that ended is started again after a pause; nobody looks into it, and nobody mends anything by hand.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random

import psycopg
import trio

from soak.processes import START_S, Child, NotStarted, child

PAUSE_S = 0.3
"""Before a process that ended is started again; up to twice as long."""


class Slot:
    """The place of one dispatcher process. ``url`` is None while nobody serves there."""

    def __init__(self, number: int, log: Path) -> None:
        self.number = number
        self.log = log
        self.url: str | None = None
        self.child: Child | None = None
        self.incarnation: str | None = None
        """The name under which it claims, where that could be found out."""
        self.awaited = False
        """Somebody ended it on purpose."""
        self.busy = False
        """Somebody is doing something to it that takes a while."""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to whoever runs there."""
        if self.child is not None:
            self.child.signal(number)


class Fleet:
    """Run by :meth:`run`, until cancelled."""

    def __init__(self, count: int, settings: Mapping[str, str], folder: Path, random: Random) -> None:
        self.slots = [Slot(number, folder / f"dispatcher-{number}.log") for number in range(count)]
        self.starts = 0
        self.not_started: Counter[str] = Counter()
        """Starts that came to nothing, by the last words: a server was away."""
        self.ended_alone: Counter[str] = Counter()
        """Processes that ended although nobody had asked them to."""
        self._settings = settings
        self._random = random
        self._starting = trio.Lock()  # one after the other, so that each new name belongs to the process just started
        self._known: set[str] = set()

    @property
    def serving(self) -> list[Slot]:
        """Where a request would be answered, or at least heard."""
        return [slot for slot in self.slots if slot.url is not None]

    @property
    def idle(self) -> list[Slot]:
        """Those that serve, and to which nobody is doing anything."""
        return [slot for slot in self.serving if not slot.busy]

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for slot in self.slots:
                nursery.start_soon(self._keep, slot)

    async def all_serving(self) -> None:
        """Wait until everybody is up. Raises TooSlowError when that does not happen."""
        with trio.fail_after(START_S * len(self.slots)):
            while len(self.serving) < len(self.slots):  # noqa: ASYNC110 - processes raise no event
                await trio.sleep(0.05)

    async def _keep(self, slot: Slot) -> None:
        while True:
            try:
                await self._life(slot)
            except NotStarted as failure:
                self.not_started[str(failure)[:160]] += 1
            await trio.sleep(PAUSE_S * (1 + self._random.random()))

    async def _life(self, slot: Slot) -> None:
        async with child(["-m", "dispatcher_http", "serve"], slot.log, self._settings) as slot.child:
            try:
                async with self._starting:
                    self.starts += 1
                    slot.awaited = False
                    url = await slot.child.serving()
                    slot.incarnation = await trio.to_thread.run_sync(self._new_name)
                slot.url = url
                status = await slot.child.ended()
                if not slot.awaited:
                    self.ended_alone[f"status {status}: {slot.child.last_words()[:160]}"] += 1
            finally:
                slot.url = slot.incarnation = slot.child = None

    def _new_name(self) -> str | None:
        try:
            with psycopg.connect(self._settings["DISPATCHER_POSTGRES_URL"], connect_timeout=2) as connection:
                names = {row[0] for row in connection.execute("SELECT id::text FROM incarnations").fetchall()}
        except psycopg.Error:
            return None
        new, self._known = names - self._known, names | self._known
        return new.pop() if len(new) == 1 else None
