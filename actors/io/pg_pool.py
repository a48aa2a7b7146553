"""A pool of Postgres connections that knows when the server is away.

    short of connections --> keeper opens one --ok--> the first in line, or idle --> in use --> idle
                                 |                                                     |
                                 +--fails--> away: everybody in line is refused        +--> discarded, when in doubt
                                             at once, the keeper tries again later

One task, the keeper, opens all connections, one at a time and on demand; nobody else ever waits for a connect. While it fails,
with a delay of full jitter in between, and no connection is left, callers are refused at once.

Invariant: ``size`` counts exactly the connections that are open or being closed and never exceeds ``size_max``; each is idle, in
use by one caller, or being closed. A connection becomes idle only when it is provably like new: no transaction, no block, no
statement ever interrupted on it. State of the session (SET, temporary tables, advisory locks) is the caller's to clean up.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Final

import outcome
import psycopg
import trio
from attrs import frozen
from psycopg._conninfo_utils import get_param
from psycopg.abc import ConnDict
from psycopg.conninfo import make_conninfo

from dispatcher.backoff import full_jitter_s
from dispatcher.errors import ConfigError, StoreUnavailable

from .pg_connection import TrioConnection, connection_params
from .pg_errors import unreachable
from .pg_lender import Connection, Lender
from .pg_types import ADAPTERS

RECONNECT_BASE_S: Final = 0.1
RECONNECT_CAP_S: Final = 5.0
WAITING_MAX: Final = 10_000
"""Callers in line for a connection; one more is refused."""

DEFAULTS: Final[ConnDict] = {
    "target_session_attrs": "read-write",  # of several hosts, the one that can be written to; a standby is no store
    "keepalives_idle": 30,  # a server that vanished without a word is noticed on idle connections too
    "keepalives_interval": 10,
    "keepalives_count": 3,
}

logger = logging.getLogger(__name__)


@frozen
class PoolStatistics:
    """The pool at one moment."""

    size: int
    """Connections open, whether in use or not."""
    idle: int
    """Those nobody uses."""
    waiting: int
    """Callers in line."""
    acquired_total: int
    """How often a connection was handed to a caller."""
    discarded_total: int
    """Connections thrown away: broken, interrupted, or left in the middle of something."""


class Session(Lender):
    """One connection kept for one task, for statement after statement; replaced when it breaks. See :meth:`Pool.session`."""

    def __init__(self, pool: Pool, statement_deadline_s: float) -> None:
        super().__init__(statement_deadline_s)
        self._pool = pool
        self._kept: Connection | None = None

    async def _take(self) -> Connection:
        kept, self._kept = self._kept, None
        if kept is None:
            return await self._pool._take()
        if kept.is_quiet():
            return kept
        self._pool._give_back(kept, usable=False)
        return await self._pool._take()

    def _give_back(self, connection: Connection, *, usable: bool) -> None:
        if usable and self._kept is None and connection.is_reusable():
            self._kept = connection
        else:
            self._pool._give_back(connection, usable=usable)

    def _end(self) -> None:
        if self._kept is not None:
            self._pool._give_back(self._kept, usable=True)
            self._kept = None


class Pool(Lender):
    """See the module. Made by :func:`open_pool`; its methods may be called by any task of the same Trio run."""

    def __init__(
        self,
        params: ConnDict,
        nursery: trio.Nursery,
        *,
        size_max: int,
        connect_deadline_s: float,
        statement_deadline_s: float,
        random: Random,
    ) -> None:
        super().__init__(statement_deadline_s)
        self._conninfo = make_conninfo("", **params)
        self._place = _place(params)
        self._nursery = nursery
        self._size_max = size_max
        self._connect_deadline_s = connect_deadline_s
        self._random = random
        self._idle: list[Connection] = []  # the one used last is taken first, so that few stay warm and the rest stay idle
        self._line: OrderedDict[trio.lowlevel.Task, None] = OrderedDict()
        self._size = 0
        self._short = trio.Event()
        self._short.set()
        self._answers = trio.Event()  # replaced by a fresh one when the server goes away
        self._fault: StoreUnavailable | None = None  # why the last connect failed; written by the keeper
        self._closed = False
        self._acquired_total = 0
        self._discarded_total = 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """For an actor that sends statement after statement: once it has a connection it never stands in line for it again."""
        session = Session(self, self._statement_deadline_s)
        try:
            yield session
        finally:
            session._end()

    async def wait_ready(self, deadline_s: float) -> None:
        """Wait until the server answers, as far as is known. Raises ``StoreUnavailable``, with the reason, at the deadline."""
        with trio.move_on_after(deadline_s):
            await self._answers.wait()
            return
        raise self._refusal() or StoreUnavailable(f"Postgres at {self._place} did not answer within {deadline_s:g} s")

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(self._size, len(self._idle), len(self._line), self._acquired_total, self._discarded_total)

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_quiet():
                self._acquired_total += 1
                return connection
            self._discard(connection)
        refusal = self._refusal()
        if self._closed or (refusal is not None and self._size == 0):
            raise refusal or StoreUnavailable("the pool of Postgres connections is closed")
        if len(self._line) >= WAITING_MAX:
            raise StoreUnavailable(f"{WAITING_MAX} callers already wait for a connection to Postgres")
        task = trio.lowlevel.current_task()
        self._line[task] = None
        self._notice_shortage()

        def leave(_: object) -> trio.lowlevel.Abort:
            del self._line[task]
            return trio.lowlevel.Abort.SUCCEEDED

        # Nothing may await between being given a connection here and the caller's try.
        given: Connection = await trio.lowlevel.wait_task_rescheduled(leave)
        return given

    def _give_back(self, connection: Connection, *, usable: bool) -> None:
        if usable and not self._closed and connection.is_reusable() and connection.autocommit:
            self._hand_out(connection)
        else:
            self._discard(connection)

    def _hand_out(self, connection: Connection) -> None:
        if self._line:
            task, _ = self._line.popitem(last=False)
            self._acquired_total += 1
            trio.lowlevel.reschedule(task, outcome.Value(connection))
        else:
            self._idle.append(connection)

    def _discard(self, connection: Connection) -> None:
        self._discarded_total += 1
        if connection.is_active() and not self._closed:
            # Left in the middle of an answer (a stream, a COPY): the server has to be told, which takes a connection of its own.
            self._nursery.start_soon(self._stop_and_forget, connection)
        else:
            self._forget(connection)

    async def _stop_and_forget(self, connection: Connection) -> None:
        try:
            await connection.stop()
        finally:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        connection.abandon()
        self._size -= 1
        self._notice_shortage()

    def _is_short(self) -> bool:
        return self._size < self._size_max and (self._size == 0 or len(self._line) > 0)

    def _notice_shortage(self) -> None:
        if self._is_short():
            self._short.set()

    def _refusal(self) -> StoreUnavailable | None:
        """The fault as an exception of the caller's own."""
        if self._fault is None:
            return None
        refusal = StoreUnavailable(str(self._fault))
        refusal.__cause__ = self._fault.__cause__
        return refusal

    def _refuse_all(self) -> None:
        while self._line:
            task, _ = self._line.popitem(last=False)
            refusal = self._refusal() or StoreUnavailable("the pool of Postgres connections is closed")
            trio.lowlevel.reschedule(task, outcome.Error(refusal))

    async def _keep(self) -> None:
        """The keeper: opens connections whenever the pool is short of them."""
        failures = 0
        while True:
            await self._short.wait()
            self._short = trio.Event()
            while self._is_short():
                try:
                    connection = await self._connect()
                except StoreUnavailable as fault:
                    if self._fault is None:
                        logger.warning("%s; trying again", fault)
                    self._fault = fault
                    if self._size == 0:
                        if self._answers.is_set():
                            self._answers = trio.Event()
                        self._refuse_all()
                    failures += 1
                    await trio.sleep(full_jitter_s(failures, RECONNECT_BASE_S, RECONNECT_CAP_S, self._random.random()))
                else:
                    if self._closed:  # it came in the very turn in which the pool was closed
                        connection.abandon()
                        return
                    if self._fault is not None:
                        logger.warning("connected to Postgres at %s again", self._place)
                    self._fault = None
                    failures = 0
                    self._size += 1
                    self._answers.set()
                    self._hand_out(connection)
            self._fault = None

    async def _connect(self) -> Connection:
        try:
            with trio.fail_after(self._connect_deadline_s):
                return await TrioConnection.connect(self._conninfo, autocommit=True, prepare_threshold=0, context=ADAPTERS)
        except trio.TooSlowError as error:
            raise StoreUnavailable(f"Postgres at {self._place} did not answer within {self._connect_deadline_s:g} s") from error
        except psycopg.Error as error:
            raise unreachable(error, self._place) from error

    def _close(self) -> None:
        self._closed = True
        while self._idle:
            self._forget(self._idle.pop())
        self._refuse_all()


def _place(params: ConnDict) -> str:
    """Where the server is, for messages."""
    host = params.get("host") or params.get("hostaddr") or "the default socket"
    port = params.get("port")
    return f"{host}" if port is None else f"{host}, port {port}"


@asynccontextmanager
async def open_pool(
    url: str,
    *,
    size_max: int,
    connect_deadline_s: float,
    statement_deadline_s: float,
    random: Random,
    name: str = "dispatcher",
) -> AsyncIterator[Pool]:
    """A pool for the length of the block. Returns at once; see :meth:`Pool.wait_ready`.

    ``url`` is anything libpq understands, TLS parameters included; ``name`` shows up in ``pg_stat_activity``. Behind PgBouncer in
    transaction mode, prepared statements need its ``max_prepared_statements``. Raises ``ConfigError`` for a URL that is none.
    """
    if size_max < 1:
        raise ValueError("a pool has at least one connection")
    try:
        params = connection_params(url)
    except psycopg.ProgrammingError as error:
        raise ConfigError(
            f"{error}: it is a URL (postgresql://user:password@host:port/database) or libpq's key=value form"
        ) from None
    defaults = {**DEFAULTS, "fallback_application_name": name}
    params.update((key, value) for key, value in defaults.items() if get_param(params, key) is None)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        pool = Pool(
            params,
            nursery,
            size_max=size_max,
            connect_deadline_s=connect_deadline_s,
            statement_deadline_s=statement_deadline_s,
            random=random,
        )
        nursery.start_soon(pool._keep)
        try:
            yield pool
        except Exception as error:
            failure = error  # raised below, so that the nursery does not wrap it
        finally:
            pool._close()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
