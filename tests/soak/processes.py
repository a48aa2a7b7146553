"""Child processes that a soak starts, speaks to by signals, and never leaves behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

ROOT = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join(str(ROOT / name) for name in ("", "http", "tests"))
START_S = 60.0
END_S = 20.0


class NotStarted(Exception):
    """The process ended, or said nothing, before it served."""


class Child:
    """One process. ``log`` is the file that has what it wrote to standard error."""

    def __init__(self, process: trio.Process, log: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.log = log

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it is gone."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def serving(self) -> str:
        """Its URL, once it says that it serves. Raises NotStarted."""
        said = b""
        assert self.process.stdout is not None
        with trio.move_on_after(START_S):
            async for data in self.process.stdout:
                said += data
                if found := re.search(rb"^Serving on (\S+)\n", said, re.MULTILINE):
                    return found[1].decode()
        raise NotStarted(self.last_words())

    async def ended(self) -> int:
        """Its exit status, once it has ended."""
        return await self.process.wait()

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


@asynccontextmanager
async def child(arguments: Sequence[str], log: Path, settings: Mapping[str, str] | None = None) -> AsyncIterator[Child]:
    """``python`` with these arguments and, of our environment, only what it needs. Killed at the end of the block."""
    inherited = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
    with log.open("ab") as errors:
        process = await trio.lowlevel.open_process(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd="/",
            env={**inherited, "PYTHONPATH": PYTHONPATH, **(settings or {})},
            start_new_session=True,  # Ctrl-C at the terminal is for the soak, which ends its children itself
        )
    try:
        yield Child(process, log)
    finally:
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + END_S):
            await process.wait()
        if process.stdout is not None:
            with trio.CancelScope(shield=True):
                await process.stdout.aclose()
