"""Borrowing, with deadlines and errors. The clock stands still, so that only a test can let a deadline pass."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from random import Random

import psycopg
import pytest
import trio
from psycopg import errors
from psycopg.types.json import Jsonb
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.io.pg_lender import Lender
from actors.io.pg_pool import open_pool
from dispatcher.errors import StoreUnavailable
from postgres_peers import Observer

LOCK = 7
BLOCKED = f"SELECT 1 FROM pg_advisory_xact_lock({LOCK})"


@pytest.fixture
def url(fresh_database: Callable[[], str]) -> str:
    return fresh_database()


@pytest.fixture
def observer(url: str) -> Iterator[Observer]:
    """Has a table ``t (n int primary key)``."""
    with Observer(url) as observer:
        observer.connection.execute("CREATE TABLE t (n int PRIMARY KEY)")
        yield observer


@pytest.fixture(params=["pool", "session"])
async def lender(request: pytest.FixtureRequest, url: str, observer: Observer, mock_clock: MockClock) -> AsyncIterator[Lender]:
    """A pool of one connection, or a session of it: both lend in the same way."""
    async with open_pool(url, size_max=1, connect_deadline_s=10, statement_deadline_s=5, random=Random(0)) as pool:
        if request.param == "pool":
            yield pool
        else:
            async with pool.session() as session:
                yield session


async def test_a_statement_gives_its_rows(lender: Lender) -> None:
    rows = await lender.fetch("SELECT n, %s::text, '100%%' FROM generate_series(1, %s) AS n", ("x", 2))

    assert rows == [(1, "x", "100%"), (2, "x", "100%")]


async def test_parameters_may_have_names(lender: Lender) -> None:
    assert await lender.fetch("SELECT %(b)s::int, %(a)s::int", {"a": 1, "b": 2}) == [(2, 1)]


async def test_a_statement_gives_how_many_rows_it_touched(lender: Lender) -> None:
    assert await lender.execute("INSERT INTO t SELECT generate_series(1, %s)", (3,)) == 3
    assert await lender.execute("UPDATE t SET n = n + 10 WHERE n > %s", (1,)) == 2
    assert await lender.execute("SET application_name = 'x'") == -1


async def test_ids_and_json_have_the_dispatchers_types(lender: Lender) -> None:
    ((id, value),) = await lender.fetch("SELECT %s::uuid, %s", ("0" * 32, Jsonb({"a": [1]})))

    assert (id, value) == ("00000000-0000-0000-0000-000000000000", {"a": [1]})


async def test_each_statement_commits_by_itself(lender: Lender, observer: Observer) -> None:
    async with lender.connection() as connection:
        await connection.execute("INSERT INTO t VALUES (1)")
        assert observer.one("SELECT n FROM t") == 1


async def test_an_error_of_the_statement_passes_without_its_values(lender: Lender) -> None:
    await lender.execute("INSERT INTO t VALUES (4711)")

    with pytest.raises(errors.UniqueViolation) as caught:
        await lender.execute("INSERT INTO t VALUES (4711)")

    assert "4711" not in str(caught.value)
    assert await lender.fetch("SELECT 1") == [(1,)]


async def test_an_error_of_the_conversion_passes_without_its_values(lender: Lender) -> None:
    with pytest.raises(psycopg.DataError) as caught:
        await lender.fetch("SELECT '20000-01-01'::date")

    assert "20000" not in str(caught.value)


async def test_an_error_of_the_body_passes_as_it_is(lender: Lender) -> None:
    async def fail() -> None:
        async with lender.connection():
            raise KeyError("x")

    with pytest.raises(KeyError):
        await fail()
    assert await lender.fetch("SELECT 1") == [(1,)]


async def test_a_backend_ended_in_mid_statement_is_unavailability_and_replaced(lender: Lender, observer: Observer) -> None:
    observer.hold(LOCK)
    ((pid,),) = await lender.fetch("SELECT pg_backend_pid()")

    async def terminate() -> None:
        await observer.until_blocked(LOCK)
        observer.terminate(pid)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(terminate)
        with pytest.raises(StoreUnavailable, match="an administrator ended the connection") as caught:
            await lender.fetch(BLOCKED)

    assert isinstance(caught.value.__cause__, errors.AdminShutdown)
    assert await lender.fetch("SELECT pg_backend_pid() <> %s", (pid,)) == [(True,)]


async def test_a_backend_ended_in_idleness_is_replaced_unnoticed(lender: Lender, observer: Observer) -> None:
    ((pid,),) = await lender.fetch("SELECT pg_backend_pid()")
    observer.terminate(pid)

    assert await lender.fetch("SELECT pg_backend_pid() <> %s", (pid,)) == [(True,)]


async def test_a_server_that_became_read_only_is_left(lender: Lender) -> None:
    """After a failover the connection must not stay with what is now the standby."""
    await lender.execute("SET default_transaction_read_only = on")
    ((pid,),) = await lender.fetch("SELECT pg_backend_pid()")

    with pytest.raises(StoreUnavailable, match="no longer the primary"):
        await lender.execute("INSERT INTO t VALUES (1)")

    assert await lender.fetch("SELECT pg_backend_pid() <> %s", (pid,)) == [(True,)]


async def test_a_plan_made_stale_by_a_migration_fails_once(lender: Lender, observer: Observer) -> None:
    await lender.fetch("SELECT * FROM t")
    observer.connection.execute("ALTER TABLE t ADD more int")

    with pytest.raises(StoreUnavailable, match="a table changed"):
        await lender.fetch("SELECT * FROM t")

    assert await lender.fetch("SELECT * FROM t") == []


@pytest.mark.parametrize("own_deadline_s", [None, 3.0])
async def test_a_statement_past_its_deadline_is_cancelled_and_unavailability(
    lender: Lender, observer: Observer, mock_clock: MockClock, own_deadline_s: float | None
) -> None:
    observer.hold(LOCK)
    ((pid,),) = await lender.fetch("SELECT pg_backend_pid()")

    async def let_time_pass() -> None:
        await observer.until_blocked(LOCK)
        mock_clock.jump(own_deadline_s or 5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_time_pass)
        with pytest.raises(StoreUnavailable, match=f"Postgres did not answer within {own_deadline_s or 5:g} s"):
            await lender.fetch(BLOCKED, deadline_s=own_deadline_s)

    assert not observer.one("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
    assert await lender.fetch("SELECT pg_backend_pid() <> %s", (pid,)) == [(True,)]


async def test_the_deadline_holds_for_the_whole_block(lender: Lender, mock_clock: MockClock) -> None:
    async def dawdle() -> None:
        async with lender.connection(3) as connection:
            await connection.execute("SELECT 1")
            nursery.start_soon(let_time_pass)
            await trio.sleep_forever()

    async def let_time_pass() -> None:
        await wait_all_tasks_blocked()
        mock_clock.jump(3)

    async with trio.open_nursery() as nursery:
        with pytest.raises(StoreUnavailable, match="within 3 s"):
            await dawdle()
    assert await lender.fetch("SELECT 1") == [(1,)]


async def test_a_deadline_passed_on_the_last_moment_takes_nothing_back(lender: Lender, mock_clock: MockClock) -> None:
    async with lender.connection(3) as connection:
        cursor = await connection.execute("SELECT 1")
        mock_clock.jump(4)

    assert await cursor.fetchall() == [(1,)]


async def test_a_cancelled_statement_gives_its_connection_back(lender: Lender, observer: Observer) -> None:
    """The pool has one connection: if it leaked, the next statement would wait for ever."""
    observer.hold(LOCK)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                await observer.until_blocked(LOCK)
                scope.cancel()

            nursery.start_soon(cancel)
            await lender.fetch(BLOCKED)
    assert scope.cancelled_caught

    observer.let_go(LOCK)
    assert await lender.fetch(BLOCKED) == [(1,)]


async def test_a_cancelled_body_gives_its_connection_back(lender: Lender) -> None:
    with trio.CancelScope() as scope:
        async with lender.connection():
            scope.cancel()
            await trio.sleep_forever()

    assert await lender.fetch("SELECT 1") == [(1,)]
