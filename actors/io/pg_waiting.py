"""Carrying psycopg's generators on Trio.

psycopg does all of its protocol in generators (the accelerated ones of its C module) that yield what they wait for: the socket to
become readable or writable. Here somebody waits for them, and nothing else: no thread, no timer, no polling interval.

Invariant: a generator is only ever advanced from here, so every wait of a connection is one ``wait_readable`` or
``wait_writable`` that a cancel scope can end, and a long run without any wait still lets other tasks go first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import psycopg
import trio
from attrs import define
from psycopg import errors
from psycopg._cmodule import _psycopg
from psycopg.abc import RV, PQGen, PQGenConn
from psycopg.waiting import Ready, Wait

WAIT_R = Wait.R
READY_R = Ready.R
READY_W = Ready.W
STEPS_WITHOUT_WAITING_MAX = 64
"""Steps of a generator before other tasks get a turn: a pipeline or a COPY can find its socket ready every time."""

if _psycopg is None:
    raise ImportError("psycopg's C module is missing: install psycopg[binary]")
poll_now = _psycopg.ready_c
"""``poll_now(fileno, wait)``: what the socket is ready for at this moment, 0 for nothing. One system call."""


@define
class Carrier:
    """Carries the generators of one connection. ``steps`` counts those since the last time anything else could run."""

    steps: int = 0

    async def carry(self, generator: PQGen[RV], fileno: int) -> RV:
        """Advance the generator to its end and return its value. A generator left in the middle can be carried on later.

        Raises ``psycopg.OperationalError`` when the socket is closed by another task.
        """
        try:
            wanted = next(generator)
            while True:
                # A statement is sent before the first wait and no answer is ever there at once, so reading waits straight away;
                # a socket to be written to is nearly always ready.
                if wanted == WAIT_R:
                    await trio.lowlevel.wait_readable(fileno)
                    self.steps = 0
                    wanted = generator.send(READY_R)
                elif ready := poll_now(fileno, wanted):
                    await self._let_others_run()
                    wanted = generator.send(ready)
                else:
                    ready = await _wait(fileno, wanted)
                    self.steps = 0
                    wanted = generator.send(ready)
        except StopIteration as end:
            value: RV = end.value
        except (OSError, trio.ClosedResourceError) as error:
            raise psycopg.OperationalError("the connection was closed while it was in use") from error
        if self.steps >= STEPS_WITHOUT_WAITING_MAX:  # not cancellable: what was asked for is done
            self.steps = 0
            await trio.lowlevel.cancel_shielded_checkpoint()
        self.steps += 1
        return value

    async def carry_for(self, generator: PQGen[RV], fileno: int, timeout_s: float) -> RV:
        """As :meth:`carry`, for so long; looks once even when that is no time. Raises psycopg's ``_WaitTimeout``."""
        with trio.move_on_after(max(0.0, timeout_s)) as scope:
            try:
                wanted = next(generator)
                while True:
                    ready = poll_now(fileno, wanted) or await _wait(fileno, wanted)
                    wanted = generator.send(ready)
            except StopIteration as end:
                value: RV = end.value
                return value
        assert scope.cancelled_caught
        raise errors._WaitTimeout("wait timeout expired")

    async def _let_others_run(self) -> None:
        self.steps += 1
        if self.steps >= STEPS_WITHOUT_WAITING_MAX:
            self.steps = 0
            await trio.lowlevel.checkpoint()


async def carry_connecting(generator: PQGenConn[RV]) -> RV:
    """Advance a generator that brings its own socket (connecting, asking to cancel) to its end; it is closed in any case."""
    try:
        fileno, wanted = next(generator)
        while True:
            fileno, wanted = generator.send(await _wait(fileno, wanted))
    except StopIteration as end:
        value: RV = end.value
        return value
    except OSError as error:
        raise psycopg.OperationalError("the connection's socket broke") from error
    finally:
        generator.close()


async def _wait(fileno: int, wanted: Wait) -> int:
    """Wait until the socket is ready for something that is wanted; returns it."""
    if wanted == Wait.R:
        await trio.lowlevel.wait_readable(fileno)
        return READY_R
    if wanted == Wait.W:
        await trio.lowlevel.wait_writable(fileno)
        return READY_W
    return await _wait_either(fileno)


async def _wait_either(fileno: int) -> int:
    """Wait for either direction: the server may want to be read from before it takes more."""
    ready = 0
    failure: OSError | trio.ClosedResourceError | None = None

    async def one_way(wait: Callable[[int], Awaitable[None]], direction: Ready) -> None:
        nonlocal ready, failure
        try:
            await wait(fileno)
        except (OSError, trio.ClosedResourceError) as error:
            failure = error
        else:
            ready |= direction
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one_way, trio.lowlevel.wait_readable, READY_R)
        nursery.start_soon(one_way, trio.lowlevel.wait_writable, READY_W)
    if failure is not None:
        raise failure
    return ready
