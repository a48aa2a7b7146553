"""Long work in short stretches: while one task computes, no other task of the process runs."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import trio

T = TypeVar("T")


async def in_turns(steps: Generator[None, None, T]) -> T:
    """Run a generator to its end, with a checkpoint wherever it yields; return what it returns. It raises what it raises."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value
        await trio.lowlevel.checkpoint()


class Turns:
    """The turns of one long task: runs generators to their ends, with a checkpoint where one yields after ``turn_s`` seconds.

    For steps that mostly are shorter than a checkpoint is worth. Several generators share the turns of the task.
    """

    def __init__(self, turn_s: float) -> None:
        self._turn_s = turn_s
        self._pause_at_s = trio.current_time() + turn_s

    async def of(self, steps: Generator[None, None, T]) -> T:
        """Return what the generator returns. It raises what it raises."""
        while True:
            if trio.current_time() >= self._pause_at_s:
                await trio.lowlevel.checkpoint()
                self._pause_at_s = trio.current_time() + self._turn_s
            try:
                next(steps)
            except StopIteration as end:
                value: T = end.value
                return value
