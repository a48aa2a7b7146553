"""Keeps one connection: connects, serves, and after a loss connects again with full jitter.

::

    connecting ──connected──> up ──lost──> connecting ──failed──> down ──connected──> up
                              └──lost soon after it came up──────────^

While *connecting*, callers wait, at most their deadline and at most a bounded number of them. While *down* (the last attempt
failed) they fail at once with the reason, so that an outage costs a caller no time. A connection that was lost soon after it came
up counts as a failed attempt: a server that accepts and then turns everybody away is not hammered.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import trio
from attrs import frozen
from redis import exceptions

from actors.io.redis_pipeline import RETRY_AFTER_S, Pipeline, Traffic
from actors.io.redis_protocol import unavailable
from actors.io.redis_url import Endpoint
from actors.io.redis_wire import Wire, dial
from dispatcher.backoff import full_jitter_s
from dispatcher.errors import Overloaded

_BASE_S = 0.05
_CAP_S = 5.0
_SETTLED_S = 5.0
"""A connection that lived so long was a good one: its loss starts the attempts anew."""

_log = logging.getLogger(__name__)

P = TypeVar("P", bound=Pipeline)


@frozen
class LinkStatistics:
    """``pending`` are commands without a reply, ``waiting`` callers without a connection; the totals never fall."""

    connected: bool
    pending: int
    waiting: int
    connections_total: int
    commands_total: int
    sends_total: int
    down_reason: str | None
    """The class of the error that ended the last attempt to connect."""


class Link(Generic[P]):
    """One connection to one server, whichever it is at the moment."""

    def __init__(
        self,
        endpoint: Endpoint,
        make_pipeline: Callable[[Wire, Traffic], P],
        *,
        connect_deadline_s: float,
        command_deadline_s: float,
        waiting_max: int,
        random: random.Random,
    ) -> None:
        self.pipeline: P | None = None
        """The connection in use, which may be lost already. Written by ``_keep_connected`` only."""
        self._endpoint = endpoint
        self._make_pipeline = make_pipeline
        self._connect_deadline_s = connect_deadline_s
        self._command_deadline_s = command_deadline_s
        self._waiting_max = waiting_max
        self._random = random
        self._waiting = 0
        self._down: Exception | None = None
        self._changed = trio.Event()
        self._connections = 0
        self._traffic = Traffic()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Keep the connection while the body runs. The body's own exception passes as it is, not wrapped in a group."""
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_connected)
                try:
                    yield
                except trio.Cancelled:
                    raise
                except BaseException as error:
                    if nursery.cancel_scope.cancel_called:
                        raise
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            self._turn(None, exceptions.ConnectionError("closed"))
        if failure is not None:
            raise failure

    async def connected(self) -> P:
        """The connection, waiting for it while one is being made. Raises QueueUnavailable, Overloaded."""
        await trio.lowlevel.checkpoint()
        if self._waiting >= self._waiting_max:
            raise Overloaded("the callers that wait for Redis", RETRY_AFTER_S)
        self._waiting += 1
        try:
            with trio.move_on_after(self._command_deadline_s):
                while self._down is None:
                    if self.pipeline is not None and self.pipeline.lost is None:
                        return self.pipeline
                    await self._changed.wait()
        finally:
            self._waiting -= 1
        reason = self._down or exceptions.TimeoutError(f"no connection within {self._command_deadline_s:g} s")
        raise unavailable(self._endpoint.address, reason)

    def statistics(self) -> LinkStatistics:
        """How it stands at the moment."""
        return LinkStatistics(
            connected=self.pipeline is not None,
            pending=self.pipeline.pending if self.pipeline is not None else 0,
            waiting=self._waiting,
            connections_total=self._connections,
            commands_total=self._traffic.commands,
            sends_total=self._traffic.sends,
            down_reason=None if self._down is None else type(self._down).__name__,
        )

    async def _keep_connected(self) -> None:
        failures = 0
        while True:
            came_up_s = None
            try:
                wire = await dial(self._endpoint, self._connect_deadline_s)
            except exceptions.RedisError as error:
                reason: Exception = error
            else:
                came_up_s = trio.current_time()
                reason = await self._serve(wire)
            if came_up_s is not None and trio.current_time() - came_up_s >= _SETTLED_S:
                failures = 0
            else:
                failures += 1
            self._report_loss(reason, down=failures > 0)
            self._turn(None, reason if failures else None)
            await trio.sleep(full_jitter_s(max(1, failures), _BASE_S, _CAP_S, self._random.random()))

    async def _serve(self, wire: Wire) -> Exception:
        pipeline = self._make_pipeline(wire, self._traffic)
        self._connections += 1
        _log.info("connected to Redis")
        self._turn(pipeline, None)
        return await pipeline.serve()

    def _turn(self, pipeline: P | None, down: Exception | None) -> None:
        self.pipeline = pipeline
        self._down = down
        self._changed.set()
        self._changed = trio.Event()

    def _report_loss(self, reason: Exception, *, down: bool) -> None:
        if self._down is None:  # once an outage, not once an attempt
            _log.warning("Redis is %s: %s", "unavailable" if down else "being connected to again", type(reason).__name__)
