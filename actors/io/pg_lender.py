"""Borrowing a connection for a block or for one statement, with a deadline over all of it.

Invariant: whatever ends the block, the connection goes back exactly once, and no psycopg error that means "no server" leaves it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import psycopg
import trio
from psycopg.abc import Params

from dispatcher.errors import StoreTimedOut, StoreUnavailable

from .pg_connection import TrioConnection
from .pg_errors import scrub, unavailable

Connection: TypeAlias = TrioConnection[tuple[Any, ...]]


class Lender(ABC):
    """Lends connections for a while; what the pool and a session have in common."""

    def __init__(self, statement_deadline_s: float) -> None:
        self._statement_deadline_s = statement_deadline_s

    @abstractmethod
    async def _take(self) -> Connection:
        """A connection for the caller. A checkpoint only if it has to wait."""

    @abstractmethod
    def _give_back(self, connection: Connection, *, usable: bool) -> None:
        """Called exactly once for each connection taken."""

    @asynccontextmanager
    async def connection(self, deadline_s: float | None = None) -> AsyncIterator[Connection]:
        """A connection in autocommit mode, the caller's alone. Getting it and using it must end within ``deadline_s``.

        Raises ``StoreUnavailable`` when they do not, when there is no server, and in place of the psycopg errors that mean so.
        Other psycopg errors pass. A statement that is still running at the deadline is cancelled at the server, which may take
        another ``CANCEL_DEADLINE_S``.
        """
        allowed_s = self._statement_deadline_s if deadline_s is None else deadline_s
        connection: Connection | None = None
        with trio.CancelScope(deadline=trio.current_time() + allowed_s) as scope:
            connection = await self._take()
            usable = True
            try:
                yield connection
            except psycopg.Error as error:
                scrub(error)
                away = unavailable(error)
                if away is None:
                    raise
                usable = False
                raise away from error
            finally:
                self._give_back(connection, usable=usable)
        if scope.cancelled_caught:
            if connection is None:
                raise StoreUnavailable(f"no connection to Postgres became free within {allowed_s:g} s")
            raise StoreTimedOut(f"Postgres did not answer within {allowed_s:g} s")

    async def fetch(self, sql: str, params: Params = (), *, deadline_s: float | None = None) -> list[tuple[Any, ...]]:
        """All rows of one statement, which is prepared on first use. A literal ``%`` is written ``%%``."""
        async with self.connection(deadline_s) as connection:
            cursor = await connection.execute(sql, params)
            return await cursor.fetchall()

    async def execute(self, sql: str, params: Params = (), *, deadline_s: float | None = None) -> int:
        """Run one statement, prepared on first use; returns how many rows it touched, -1 for statements that touch none."""
        async with self.connection(deadline_s) as connection:
            return (await connection.execute(sql, params)).rowcount
