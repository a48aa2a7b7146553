"""psycopg's own blocking connection and ours on Trio, held to the same behaviour."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from decimal import Decimal
from ipaddress import ip_address
from typing import Any, Protocol, TypeAlias
from uuid import UUID

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from actors.io.postgres import TrioConnection

Cursor: TypeAlias = psycopg.Cursor[tuple[Any, ...]] | psycopg.AsyncCursor[tuple[Any, ...]]


class Driver(Protocol):
    """One connection in autocommit mode."""

    info: psycopg.ConnectionInfo

    async def run(self, sql: str, params: Sequence[object] | None = None) -> Cursor: ...

    async def rows(self, cursor: Cursor) -> list[tuple[Any, ...]]: ...

    async def run_many(self, sql: str, params: Iterable[Sequence[object]]) -> Cursor: ...

    async def copy_in(self, sql: str, rows: Iterable[Sequence[object]]) -> None: ...

    async def copy_out(self, sql: str) -> list[tuple[Any, ...]]: ...

    async def stream(self, sql: str) -> list[tuple[Any, ...]]: ...

    def transaction(self) -> AbstractAsyncContextManager[object]: ...

    def pipeline(self) -> AbstractAsyncContextManager[object]: ...

    def on_notice(self, callback: Callable[[errors.Diagnostic], None]) -> None: ...


class Blocking:
    """psycopg's own."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection
        self.info = connection.info

    async def run(self, sql: str, params: Sequence[object] | None = None) -> Cursor:
        return self._connection.execute(sql, params)

    async def rows(self, cursor: Cursor) -> list[tuple[Any, ...]]:
        assert isinstance(cursor, psycopg.Cursor)
        return cursor.fetchall()

    async def run_many(self, sql: str, params: Iterable[Sequence[object]]) -> Cursor:
        cursor = self._connection.cursor()
        cursor.executemany(sql, params)
        return cursor

    async def copy_in(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        with self._connection.cursor().copy(sql) as copy:
            for row in rows:
                copy.write_row(row)

    async def copy_out(self, sql: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor().copy(sql) as copy:
            return list(copy.rows())

    async def stream(self, sql: str) -> list[tuple[Any, ...]]:
        return list(self._connection.cursor().stream(sql))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[object]:
        with self._connection.transaction() as transaction:
            yield transaction

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[object]:
        with self._connection.pipeline() as pipeline:
            yield pipeline

    def on_notice(self, callback: Callable[[errors.Diagnostic], None]) -> None:
        self._connection.add_notice_handler(callback)


class OnTrio:
    """Ours."""

    def __init__(self, connection: TrioConnection[tuple[Any, ...]]) -> None:
        self._connection = connection
        self.info = connection.info

    async def run(self, sql: str, params: Sequence[object] | None = None) -> Cursor:
        return await self._connection.execute(sql, params)

    async def rows(self, cursor: Cursor) -> list[tuple[Any, ...]]:
        assert isinstance(cursor, psycopg.AsyncCursor)
        return await cursor.fetchall()

    async def run_many(self, sql: str, params: Iterable[Sequence[object]]) -> Cursor:
        cursor = self._connection.cursor()
        await cursor.executemany(sql, params)
        return cursor

    async def copy_in(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        async with self._connection.cursor().copy(sql) as copy:
            for row in rows:
                await copy.write_row(row)

    async def copy_out(self, sql: str) -> list[tuple[Any, ...]]:
        async with self._connection.cursor().copy(sql) as copy:
            return [row async for row in copy.rows()]

    async def stream(self, sql: str) -> list[tuple[Any, ...]]:
        return [row async for row in self._connection.cursor().stream(sql)]

    def transaction(self) -> AbstractAsyncContextManager[object]:
        return self._connection.transaction()

    def pipeline(self) -> AbstractAsyncContextManager[object]:
        return self._connection.pipeline()

    def on_notice(self, callback: Callable[[errors.Diagnostic], None]) -> None:
        self._connection.add_notice_handler(callback)


@pytest.fixture(params=["psycopg", "trio"])
async def driver(request: pytest.FixtureRequest, fresh_database: Callable[[], str]) -> AsyncIterator[Driver]:
    """Has a table ``t (n int primary key, note text)``."""
    url = fresh_database()
    if request.param == "psycopg":
        with psycopg.connect(url, autocommit=True, prepare_threshold=0) as blocking:
            driver: Driver = Blocking(blocking)
            await driver.run("CREATE TABLE t (n int PRIMARY KEY, note text)")
            yield driver
    else:
        async with await TrioConnection.connect(url, autocommit=True, prepare_threshold=0) as connection:
            driver = OnTrio(connection)
            await driver.run("CREATE TABLE t (n int PRIMARY KEY, note text)")
            yield driver


async def numbers(driver: Driver) -> list[int]:
    return [row[0] for row in await driver.rows(await driver.run("SELECT n FROM t ORDER BY n"))]


async def is_usable(driver: Driver) -> bool:
    return await driver.rows(await driver.run("SELECT 1")) == [(1,)]


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("int8", 2**62),
        ("float8", 0.1),
        ("numeric", Decimal("1.10")),
        ("bool", True),
        ("text", "Zoë ☂ 'quoted' % \\ \n"),
        ("bytea", bytes(range(256))),
        ("uuid", UUID("0192d3a4-7c1e-7f00-8000-0123456789ab")),
        ("timestamptz", dt.datetime(2026, 11, 22, 10, 0, 0, 123456, dt.UTC)),
        ("date", dt.date(2026, 2, 28)),
        ("interval", dt.timedelta(days=3, seconds=7)),
        ("inet", ip_address("2001:db8::1")),
        ("text[]", ["a", None, 'b"c']),
        ("int4[]", [1, 2, 3]),
        ("int4[]", []),
        ("jsonb", {"a": [1, None, "x"]}),
        ("text", None),
    ],
)
async def test_values_go_there_and_back(driver: Driver, type_name: str, value: object) -> None:
    sent = Jsonb(value) if type_name == "jsonb" else value

    assert await driver.rows(await driver.run(f"SELECT %s::{type_name}", (sent,))) == [(value,)]


async def test_a_result_is_described(driver: Driver) -> None:
    cursor = await driver.run("SELECT 1::int8 AS one, 'x'::text AS two")

    assert [(column.name, column.type_code) for column in cursor.description or ()] == [("one", 20), ("two", 25)]
    assert (cursor.rowcount, cursor.statusmessage) == (1, "SELECT 1")


async def test_rows_touched_are_counted(driver: Driver) -> None:
    assert (await driver.run("INSERT INTO t SELECT generate_series(1, 5)")).rowcount == 5
    assert (await driver.run("DELETE FROM t WHERE n > %s", (3,))).rowcount == 2
    assert (await driver.run("UPDATE t SET note = 'x' WHERE n > 10")).rowcount == 0


async def test_a_statement_without_rows_has_none_to_fetch(driver: Driver) -> None:
    cursor = await driver.run("INSERT INTO t VALUES (1)")

    with pytest.raises(psycopg.ProgrammingError, match="didn't produce records"):
        await driver.rows(cursor)


@pytest.mark.parametrize(
    ("sql", "params", "kind"),
    [
        ("INSERT INTO t VALUES (1), (1)", (), errors.UniqueViolation),
        ("INSERT INTO t VALUES (%s)", (None,), errors.NotNullViolation),
        ("SELECT 1 / %s", (0,), errors.DivisionByZero),
        ("SELECT %s::text::int", ("x",), errors.InvalidTextRepresentation),
        ("SELECT nothing", (), errors.UndefinedColumn),
        ("SELEC 1", (), errors.SyntaxError),
        ("SELECT * FROM nowhere", (), errors.UndefinedTable),
        ("SELECT %s, %s", (1,), psycopg.ProgrammingError),
        ("SELECT %s", (object(),), psycopg.ProgrammingError),
        ("SELECT %s", ("a\0b",), psycopg.DataError),
    ],
)
async def test_an_error_has_the_same_type_and_leaves_the_connection_usable(
    driver: Driver, sql: str, params: Sequence[object], kind: type[psycopg.Error]
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        await driver.run(sql, params)

    assert type(caught.value) is kind
    assert await is_usable(driver)


async def test_an_error_tells_code_which_constraint_it_was(driver: Driver) -> None:
    with pytest.raises(errors.UniqueViolation) as caught:
        await driver.run("INSERT INTO t VALUES (1), (1)")

    assert (caught.value.sqlstate, caught.value.diag.constraint_name, caught.value.diag.table_name) == ("23505", "t_pkey", "t")


async def test_a_transaction_commits_or_rolls_back_whole(driver: Driver) -> None:
    async def fail() -> None:
        async with driver.transaction():
            await driver.run("INSERT INTO t VALUES (2)")
            await driver.run("INSERT INTO t VALUES (2)")

    async with driver.transaction():
        await driver.run("INSERT INTO t VALUES (1)")
    with pytest.raises(errors.UniqueViolation):
        await fail()

    assert await numbers(driver) == [1]


async def test_a_nested_transaction_is_a_savepoint(driver: Driver) -> None:
    async with driver.transaction():
        await driver.run("INSERT INTO t VALUES (1)")
        with suppress(psycopg.Rollback):
            async with driver.transaction():
                await driver.run("INSERT INTO t VALUES (2)")
                raise psycopg.Rollback
        await driver.run("INSERT INTO t VALUES (3)")

    assert await numbers(driver) == [1, 3]


async def test_a_deferred_constraint_fails_at_the_commit(driver: Driver) -> None:
    await driver.run("CREATE TABLE d (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")

    async def fail() -> None:
        async with driver.transaction():
            await driver.run("INSERT INTO d VALUES (1), (1)")

    with pytest.raises(errors.UniqueViolation):
        await fail()
    assert await is_usable(driver)


async def test_a_pipeline_answers_in_order(driver: Driver) -> None:
    async with driver.pipeline():
        cursors = [await driver.run("SELECT %s::int", (n,)) for n in range(200)]

    assert [(await driver.rows(cursor))[0][0] for cursor in cursors] == list(range(200))


async def test_an_answer_may_be_had_inside_the_pipeline(driver: Driver) -> None:
    async with driver.pipeline():
        cursor = await driver.run("INSERT INTO t VALUES (1) RETURNING n")
        assert await driver.rows(cursor) == [(1,)]
        await driver.run("INSERT INTO t VALUES (2)")

    assert await numbers(driver) == [1, 2]


async def test_a_failed_statement_undoes_its_pipeline(driver: Driver) -> None:
    async def fail() -> None:
        async with driver.pipeline():
            await driver.run("INSERT INTO t VALUES (1)")
            await driver.run("INSERT INTO t VALUES (1)")
            await driver.run("INSERT INTO t VALUES (2)")

    with pytest.raises(errors.UniqueViolation):
        await fail()

    assert await numbers(driver) == []
    assert await is_usable(driver)


async def test_a_transaction_works_inside_a_pipeline(driver: Driver) -> None:
    async with driver.pipeline(), driver.transaction():
        await driver.run("INSERT INTO t VALUES (1)")
        await driver.run("INSERT INTO t VALUES (2)")

    assert await numbers(driver) == [1, 2]


async def test_many_rows_of_parameters_are_counted_together(driver: Driver) -> None:
    cursor = await driver.run_many("INSERT INTO t VALUES (%s, %s)", [(n, "x") for n in range(300)])

    assert cursor.rowcount == 300
    assert await numbers(driver) == list(range(300))


async def test_copy_goes_both_ways(driver: Driver) -> None:
    await driver.copy_in("COPY t (n, note) FROM STDIN", [(1, "a\tb"), (2, None)])

    assert await driver.copy_out("COPY (SELECT n, note FROM t ORDER BY n) TO STDOUT") == [("1", "a\tb"), ("2", None)]


async def test_rows_can_be_streamed(driver: Driver) -> None:
    assert await driver.stream("SELECT generate_series(1, 500)") == [(n,) for n in range(1, 501)]
    assert await is_usable(driver)


async def test_notices_are_heard(driver: Driver) -> None:
    heard: list[tuple[str | None, str | None]] = []
    driver.on_notice(lambda diagnostic: heard.append((diagnostic.severity_nonlocalized, diagnostic.message_primary)))

    await driver.run("DO $$ BEGIN RAISE NOTICE 'a word'; RAISE WARNING 'another'; END $$")

    assert heard == [("NOTICE", "a word"), ("WARNING", "another")]


async def test_a_statement_is_prepared_once(driver: Driver) -> None:
    for n in range(3):
        await driver.run("SELECT %s::int", (n,))

    found = await driver.run("SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT $1::int'")
    assert await driver.rows(found) == [(1,)]


async def test_a_lost_backend_is_an_operational_error(driver: Driver, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", (driver.info.backend_pid,))

    with pytest.raises(psycopg.OperationalError):
        await driver.run("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        await driver.run("SELECT 1")
