"""The lock of a connection, and its blocks: the pipeline and the transaction.

A block has an exit that must happen whatever ended its body. In Trio a cancelled task stays cancelled, so an exit that simply
awaits would never run; these shield it, for a bounded time, and close the connection when that was not enough.

Invariant: after the exit of a block the server is out of it, or the connection is closed. A transaction that left its block
without an exception was committed.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg
import trio
from psycopg import AsyncPipeline, AsyncTransaction, errors, pq

if TYPE_CHECKING:
    from .pg_connection import TrioConnection

EXIT_DEADLINE_S: Final = 2.0
"""How long the rollback of a cancelled task may take, from waiting for the connection to the server's answer."""

_OK = pq.ConnStatus.OK
_IN_ERROR = pq.TransactionStatus.INERROR


class ConnectionLock:
    """One statement at a time, first come, first served.

    Taking a free lock is no checkpoint: the wait for the statement is one, and a second would double the cost of scheduling.
    Any task may release it, for a stream that its reader forgot is closed by a task of Trio's.
    """

    __slots__ = ("_turn",)

    def __init__(self) -> None:
        self._turn = trio.Semaphore(1, max_value=1)

    def locked(self) -> bool:
        return self._turn.value == 0

    async def __aenter__(self) -> None:
        try:
            self._turn.acquire_nowait()
        except trio.WouldBlock:
            await self._turn.acquire()

    async def __aexit__(self, exc_type: object, exc: object, traceback: object) -> None:
        self._turn.release()


class TrioPipeline(AsyncPipeline):
    """psycopg's pipeline. Interrupted with answers outstanding, it has the server stop and closes the connection."""

    _conn: TrioConnection[Any]

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        try:
            if exc_val is None or isinstance(exc_val, Exception):
                async with self._lock:
                    await self._conn.wait(self._exit_gen())
        except Exception:
            if exc_val is None:
                raise  # else: what the body raised says more than what it led to
        finally:
            self.level -= 1
            await self._leave()

    async def _leave(self) -> None:
        if self.pgconn.status != _OK:
            return
        if self.result_queue or self.command_queue:
            await self._conn.stop()
        elif self.level == 0:
            self.pgconn.exit_pipeline_mode()


class TrioTransaction(AsyncTransaction):
    """psycopg's transaction, which also rolls back for a cancelled task.

    Unlike psycopg's it never ends quietly without a commit: when its connection broke, or one of its statements failed and the
    body carried on, leaving the block raises.
    """

    _conn: TrioConnection[Any]

    async def __aenter__(self) -> Self:
        async with self._conn.lock:
            self._check_enter()
            try:
                await self._conn.wait(self._enter_gen())
            except BaseException as error:
                if self.status is self.Status.ACTIVE:
                    await self._roll_back(error, locked=True)
                raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool:
        if exc_val is not None:
            return await self._roll_back(exc_val)
        if self.pgconn.status != _OK:
            self.status = self.Status.FAILED
            raise psycopg.OperationalError("the connection was closed before the transaction could commit")
        if self._outer_transaction and self.pgconn.transaction_status == _IN_ERROR:
            failure = errors.InFailedSqlTransaction("a statement of the transaction failed, so it was rolled back")
            await self._roll_back(failure)
            raise failure
        try:
            return await super().__aexit__(None, None, None)
        except BaseException as error:
            if self.status is self.Status.ACTIVE:  # cancelled before the commit was sent
                await self._roll_back(error)
            raise

    async def _roll_back(self, error: BaseException, *, locked: bool = False) -> bool:
        """Undo, under a shield. Returns whether the error is a ``Rollback`` and thereby done with."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + EXIT_DEADLINE_S) as scope:
            if self.pgconn.status == _OK:
                if locked:
                    return await self._conn.wait(self._exit_gen(type(error), error, None))
                async with self._conn.lock:
                    return await self._conn.wait(self._exit_gen(type(error), error, None))
        if scope.cancelled_caught:
            self._conn.abandon()
        self.status = self.Status.FAILED
        return False
