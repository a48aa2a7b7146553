"""psycopg's asynchronous connection, native to Trio.

psycopg keeps whatever depends on an event loop in a few places, and each is replaced here: the wait for a statement, the lock,
name lookup and the wait for a connection, the cancel request, and the blocks (pipeline, transaction) whose exit must happen
although the task is being cancelled. Everything else (protocol, types, rows, prepared statements) is psycopg's own code.

Invariant: when a statement is interrupted, whatever the reason, the server is told to stop and the answer is read to its end,
both under a shield and within ``CANCEL_DEADLINE_S``; where that does not work out the connection is closed. So no interrupted
connection ever holds the rest of an answer, and ``interrupted`` says that it has been one.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, cast

import psycopg
import trio
from psycopg import errors, generators, pq
from psycopg._conninfo_utils import get_param
from psycopg.abc import RV, AdaptContext, ConnParam, PQGen
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_attempts, conninfo_to_dict, make_conninfo, timeout_from_conninfo
from psycopg.rows import AsyncRowFactory, Row, tuple_row

from .pg_blocks import ConnectionLock, TrioPipeline, TrioTransaction
from .pg_errors import scrub
from .pg_names import with_addresses
from .pg_waiting import WAIT_R, Carrier, carry_connecting, poll_now

if TYPE_CHECKING:
    from psycopg.abc import ConnDict
    from psycopg.pq.abc import PGconn

CANCEL_DEADLINE_S: Final = 2.0
"""How long an interrupted statement may hold up its task: for the cancel request and for the server to give in."""
CANCEL_AGAIN_S: Final = 0.25

_OK = pq.ConnStatus.OK
_ACTIVE = pq.TransactionStatus.ACTIVE
_IDLE = pq.TransactionStatus.IDLE
_FATAL = pq.ExecStatus.FATAL_ERROR
_QUIET_READS_MAX = 4
_TUPLES = cast("AsyncRowFactory[Any]", tuple_row)


class TrioConnection(psycopg.AsyncConnection[Row]):
    """A connection for tasks of one Trio run; statements of several tasks take turns.

    Use it as psycopg's ``AsyncConnection``. A cancelled statement raises ``trio.Cancelled`` and leaves the connection idle, in a
    failed transaction, or closed. Errors are psycopg's, their texts without data (see ``pg_errors``).
    """

    lock: ConnectionLock  # type: ignore[assignment]
    _pipeline: TrioPipeline | None

    def __init__(self, pgconn: PGconn, row_factory: AsyncRowFactory[Row] = _TUPLES) -> None:
        super().__init__(pgconn, row_factory)
        self.lock = ConnectionLock()
        self.interrupted = False
        """Whether a cancel request was made. It names the session, not the statement: a late one could end a later statement."""
        self._carrier = Carrier()

    @classmethod
    async def connect(
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: AsyncRowFactory[Row] | None = None,
        cursor_factory: type[psycopg.AsyncCursor[Row]] | None = None,
        **kwargs: ConnParam,
    ) -> Self:
        """Connect. Several hosts or addresses are tried in order, each with ``connect_timeout`` and a fair share of the deadline.

        Raises ``psycopg.OperationalError``, and ``psycopg.ProgrammingError`` for a connection string that is none.
        """
        params = connection_params(conninfo, **kwargs)
        timeout_s = timeout_from_conninfo(params)
        attempts = conninfo_attempts(await with_addresses(params))
        failures: list[psycopg.Error] = []
        for index, attempt in enumerate(attempts):
            share_s = (trio.current_effective_deadline() - trio.current_time()) / (len(attempts) - index)
            with trio.move_on_after(max(0.0, min(timeout_s, share_s))):
                try:
                    connection = await carry_connecting(cls._connect_gen(make_conninfo("", **attempt)))
                except psycopg.Error as error:
                    failures.append(error.with_traceback(None))
                    continue
                connection._autocommit = autocommit
                connection.prepare_threshold = prepare_threshold
                connection.row_factory = row_factory or connection.row_factory
                connection.cursor_factory = cursor_factory or connection.cursor_factory
                if context is not None:
                    connection._adapters = AdaptersMap(context.adapters)
                return connection
            await trio.lowlevel.checkpoint_if_cancelled()
            failures.append(errors.ConnectionTimeout("connection timeout expired"))
        if len(failures) == 1:
            raise failures[0]
        lines = [str(failures[-1]), "all attempts failed:", *(f"- {failure}" for failure in failures)]
        raise type(failures[-1])("\n".join(lines))

    async def wait(self, gen: PQGen[RV], interval: float = 0.0, timeout: float | None = None) -> RV:
        """Carry one of psycopg's generators; every statement passes here. ``interval`` is not needed in Trio."""
        await trio.lowlevel.checkpoint_if_cancelled()  # a task that is cancelled already sends nothing
        try:
            if timeout is None:
                return await self._carrier.carry(gen, self.pgconn.socket)
            return await self._carrier.carry_for(gen, self.pgconn.socket, timeout)
        except psycopg.Error as error:
            scrub(error)
            raise
        except UnicodeError:
            pass  # its repr holds the whole text, so it ends here
        except (trio.Cancelled, KeyboardInterrupt, BaseExceptionGroup):
            await self.stop(gen)
            raise
        raise psycopg.DataError("a parameter is not valid Unicode")

    async def stop(self, gen: PQGen[object] | None = None) -> None:
        """Have the server stop what it does for this connection, and read the answer to its end with ``gen``.

        Shielded, within ``CANCEL_DEADLINE_S``. Without a generator, in a pipeline, or when the server does not give in, it closes
        the connection as well. Does nothing when the server is doing nothing.
        """
        pgconn = self.pgconn
        in_pipeline = pgconn.pipeline_status != pq.PipelineStatus.OFF
        if pgconn.status != _OK or not (in_pipeline or pgconn.transaction_status == _ACTIVE):
            return
        self.interrupted = True
        deadline = trio.current_time() + CANCEL_DEADLINE_S
        with trio.CancelScope(shield=True, deadline=deadline), suppress(psycopg.Error):
            await self._cancel_and_read(_rest_of_pipeline(pgconn) if in_pipeline else gen)
        if in_pipeline or pgconn.transaction_status == _ACTIVE:
            self.abandon()

    async def _cancel_and_read(self, gen: PQGen[object] | None) -> None:
        """Ask for the end and wait for it; ask again, for a request that overtook its statement was ignored."""
        while True:
            await carry_connecting(self._cancel_gen())
            if gen is None:
                return
            with trio.move_on_after(CANCEL_AGAIN_S):
                with suppress(psycopg.Error):  # most likely QueryCanceled, which is what was asked for
                    await self._carrier.carry(gen, self.pgconn.socket)
                return

    def abandon(self) -> None:
        """Close at once, without waiting. A task that waits for the connection gets ``psycopg.OperationalError``."""
        with suppress(psycopg.OperationalError):  # libpq may have closed the socket itself
            trio.lowlevel.notify_closing(self.pgconn.socket)
        self.pgconn.finish()
        if self._pipeline is not None:  # else its unfinished generators would look for the answers as they are collected
            self._pipeline.command_queue.clear()
            self._pipeline.result_queue.clear()

    async def close(self) -> None:
        """Close. Never waits and is no checkpoint."""
        if not self.closed:
            self._closed = True
            self.abandon()

    def cancel(self) -> NoReturn:
        """Refused: it would block all tasks."""
        raise psycopg.NotSupportedError("cancel() blocks: use await cancel_safe()")

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Ask the server to end what another task is running here. Raises ``psycopg.errors.CancellationTimeout``."""
        if not self._should_cancel():
            return
        self.interrupted = True
        with trio.move_on_after(timeout or math.inf) as scope:
            await carry_connecting(self._cancel_gen())
        if scope.cancelled_caught:
            raise errors.CancellationTimeout("cancellation timeout expired")

    def is_quiet(self) -> bool:
        """Whether the server is still there, as far as an idle connection can tell without asking. Costs one system call."""
        try:
            for _ in range(_QUIET_READS_MAX):
                if not poll_now(self.pgconn.socket, WAIT_R):
                    return True
                self.pgconn.consume_input()  # a notice or a changed setting; or the end, which raises
        except psycopg.OperationalError:
            pass
        return False

    def is_active(self) -> bool:
        """Whether the server owes the rest of an answer, or of a question."""
        return self.pgconn.transaction_status == _ACTIVE or self.pgconn.pipeline_status != pq.PipelineStatus.OFF

    def is_reusable(self) -> bool:
        """Whether somebody else may have it next: idle, outside of every block, never interrupted."""
        pgconn = self.pgconn
        return (
            pgconn.status == _OK
            and pgconn.transaction_status == _IDLE
            and self._pipeline is None
            and not self.interrupted
            and not self.lock.locked()
        )

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[TrioPipeline]:
        """Send statements without waiting for the answers of those before; see psycopg."""
        self._check_connection_ok()
        pipeline = self._pipeline
        if pipeline is None:
            pipeline = self._pipeline = TrioPipeline(self)
        try:
            async with pipeline:
                yield pipeline
        finally:
            if pipeline.level == 0:
                self._pipeline = None

    @asynccontextmanager
    async def _pipeline_nolock(self) -> AsyncIterator[TrioPipeline]:
        pipeline = self._pipeline = TrioPipeline(self, _no_lock=True)
        try:
            async with pipeline:
                yield pipeline
        finally:
            self._pipeline = None

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[TrioTransaction]:
        """Commit at the end of the block, roll back if it raises, cancellation included; see psycopg."""
        transaction = TrioTransaction(self, savepoint_name, force_rollback)
        if self._pipeline is None:
            async with transaction:
                yield transaction
        else:
            async with self.pipeline(), transaction, self.pipeline():
                yield transaction


def _rest_of_pipeline(pgconn: PGconn) -> PQGen[None]:
    """Read a pipeline's answers up to the first error, after which the server skips the rest, or to the last.

    The server is asked to flush and not to synchronise: that would commit what it has done so far.
    """
    pgconn.send_flush_request()
    yield from generators.send(pgconn)
    empty = 0
    while empty < 2:  # one may be the end of an answer that was read before
        results = yield from generators.fetch_many(pgconn)
        if any(result.status == _FATAL for result in results):
            return
        empty = 0 if results else empty + 1


def connection_params(conninfo: str, **overrides: ConnParam) -> ConnDict:
    """The parameters a connection string stands for. Raises ``psycopg.ProgrammingError`` that does not quote it."""
    try:
        params = conninfo_to_dict(conninfo, **overrides)
    except psycopg.ProgrammingError:
        pass  # its text quotes the string, password and all
    else:
        if get_param(params, "gssencmode") is None:
            params["gssencmode"] = "disable"  # libpq would ask the Kerberos library first, which blocks
        return params
    raise psycopg.ProgrammingError("the connection string of Postgres is malformed")
