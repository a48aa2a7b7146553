"""Blocks left in every way, against a real server. The clock stands still, so that only a test can let a deadline pass."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
import pytest
import trio
from psycopg import errors, pq
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.io.pg_blocks import EXIT_DEADLINE_S, ConnectionLock
from actors.io.pg_connection import CANCEL_AGAIN_S, CANCEL_DEADLINE_S, TrioConnection
from postgres_peers import Observer, bad_line, overtake

Connection = TrioConnection[tuple[Any, ...]]
LOCK = 7
BLOCKED = f"SELECT pg_advisory_xact_lock({LOCK})"


@pytest.fixture
def url(fresh_database: Callable[[], str]) -> str:
    return fresh_database()


@pytest.fixture
def observer(url: str) -> Iterator[Observer]:
    """Has a table ``t (n int primary key)``."""
    with Observer(url) as observer:
        observer.connection.execute("CREATE TABLE t (n int PRIMARY KEY)")
        yield observer


@pytest.fixture
async def connection(url: str, observer: Observer, mock_clock: MockClock) -> AsyncIterator[Connection]:
    connection = await TrioConnection.connect(url, autocommit=True, prepare_threshold=0)
    yield connection
    await connection.close()


def rows(observer: Observer) -> list[int]:
    return [row[0] for row in observer.connection.execute("SELECT n FROM t ORDER BY n")]


def is_idle(connection: Connection) -> bool:
    return connection.pgconn.transaction_status == pq.TransactionStatus.IDLE


async def cancel_when(scope: trio.CancelScope, observer: Observer) -> None:
    """Cancel once a statement waits for the lock."""
    await observer.until_blocked(LOCK)
    scope.cancel()


async def test_a_free_lock_is_taken_without_letting_others_go_first() -> None:
    lock = ConnectionLock()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with lock:
            assert lock.locked()
    assert not scope.cancelled_caught
    assert not lock.locked()


async def test_a_taken_lock_is_handed_on_in_order() -> None:
    lock = ConnectionLock()
    order: list[int] = []

    async def take(number: int) -> None:
        async with lock:
            order.append(number)

    async with trio.open_nursery() as nursery:
        async with lock:
            for number in range(5):
                nursery.start_soon(take, number)
                await wait_all_tasks_blocked()

    assert order == [0, 1, 2, 3, 4]


async def test_statements_of_two_tasks_take_turns(connection: Connection) -> None:
    found: set[int] = set()

    async def ask(number: int) -> None:
        row = await (await connection.execute("SELECT %s::int", (number,))).fetchone()
        assert row is not None
        found.add(row[0])

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, number)

    assert found == set(range(20))


# Pipelines


async def test_a_pipeline_answers_in_order(connection: Connection) -> None:
    async with connection.pipeline():
        cursors = [await connection.execute("SELECT %s::int", (n,)) for n in range(300)]

    assert [await cursor.fetchone() for cursor in cursors] == [(n,) for n in range(300)]
    assert is_idle(connection)


async def test_a_pipeline_with_more_to_write_than_the_line_holds_does_not_lock_up(connection: Connection) -> None:
    """Both directions full at once: the client must read before it can go on writing."""
    text = "x" * 200_000
    async with connection.pipeline():
        cursors = [await connection.execute("SELECT %s::text", (text,)) for _ in range(30)]

    assert [await cursor.fetchone() for cursor in cursors] == [(text,)] * 30


async def test_an_error_in_a_pipeline_leaves_a_usable_connection(connection: Connection) -> None:
    async def insert_twice() -> None:
        async with connection.pipeline():
            await connection.execute("INSERT INTO t VALUES (1)")
            await connection.execute("INSERT INTO t VALUES (1)")

    with pytest.raises(errors.UniqueViolation):
        await insert_twice()

    assert await (await connection.execute("SELECT 1")).fetchone() == (1,)


async def test_an_error_of_the_body_outranks_what_it_led_to(connection: Connection, observer: Observer) -> None:
    observer.hold(LOCK)

    async def fail_twice() -> None:
        async with connection.pipeline():
            await connection.execute(BLOCKED)
            await connection.execute("SELECT 1 / (count(*) - count(*)) FROM t")
            observer.let_go(LOCK)
            raise KeyError

    with pytest.raises(KeyError):
        await fail_twice()

    assert await (await connection.execute("SELECT 1")).fetchone() == (1,)


async def test_a_pipeline_inside_a_pipeline_is_one_pipeline(connection: Connection) -> None:
    async with connection.pipeline() as outer, connection.pipeline() as inner:
        assert inner is outer
        cursor = await connection.execute("SELECT 1")
    assert await cursor.fetchone() == (1,)


async def test_a_pipeline_cancelled_while_a_statement_runs_ends_at_the_server_and_closes(
    connection: Connection, observer: Observer
) -> None:
    observer.hold(LOCK)
    pid = connection.info.backend_pid
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when, scope, observer)
            async with connection.pipeline():
                await connection.execute("INSERT INTO t VALUES (1)")
                await connection.execute(BLOCKED)
                await connection.execute("INSERT INTO t VALUES (2)")
    assert scope.cancelled_caught

    await observer.until_gone(pid)
    assert connection.closed
    assert rows(observer) == []


async def test_a_pipeline_cancelled_between_its_statements_ends_at_the_server_and_closes(
    connection: Connection, observer: Observer
) -> None:
    observer.hold(LOCK)
    pid = connection.info.backend_pid
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when, scope, observer)
            async with connection.pipeline():
                await connection.execute(BLOCKED)
                await trio.sleep_forever()
    assert scope.cancelled_caught

    await observer.until_gone(pid)
    assert connection.closed


async def test_a_pipeline_cancelled_as_it_is_left_ends_at_the_server_and_closes(
    url: str, observer: Observer, mock_clock: MockClock
) -> None:
    """The cancel request overtakes the statement here, so it has to be made again."""
    observer.hold(LOCK)
    async with bad_line(url) as line:
        connection = await TrioConnection.connect(line.url, autocommit=True)
        pid = connection.info.backend_pid
        line.hold_back()
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with connection.pipeline():
                    await connection.execute(BLOCKED)
                    nursery.start_soon(overtake, line, observer, LOCK, scope, partial(mock_clock.jump, CANCEL_AGAIN_S))
            assert scope.cancelled_caught
        assert connection.closed
    await observer.until_gone(pid)


async def test_a_pipeline_cancelled_before_it_is_left_ends_at_the_server_and_closes(
    connection: Connection, observer: Observer
) -> None:
    pid = connection.info.backend_pid
    with trio.CancelScope() as scope:
        async with connection.pipeline():
            await connection.execute("INSERT INTO t VALUES (1)")
            scope.cancel()
    assert scope.cancelled_caught

    await observer.until_gone(pid)
    assert connection.closed
    assert rows(observer) == []


async def test_a_pipeline_with_nothing_outstanding_survives_a_cancellation(connection: Connection) -> None:
    with trio.CancelScope() as scope:
        async with connection.pipeline():
            scope.cancel()
            await trio.sleep_forever()

    assert await (await connection.execute("SELECT 1")).fetchone() == (1,)


async def test_many_rows_of_parameters_travel_as_one_pipeline(connection: Connection, observer: Observer) -> None:
    async with connection.cursor() as cursor:
        await cursor.executemany("INSERT INTO t VALUES (%s)", [(n,) for n in range(500)])

    assert rows(observer) == list(range(500))
    assert is_idle(connection)


async def test_many_rows_cancelled_end_at_the_server_and_close(connection: Connection, observer: Observer) -> None:
    observer.hold(LOCK)
    pid = connection.info.backend_pid
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when, scope, observer)
            async with connection.cursor() as cursor:
                await cursor.executemany(f"INSERT INTO t SELECT %s FROM pg_advisory_xact_lock({LOCK})", [(1,), (2,)])
    assert scope.cancelled_caught

    await observer.until_gone(pid)
    assert connection.closed
    assert rows(observer) == []


async def test_an_inner_pipeline_cancelled_closes_the_outer_one_too(connection: Connection, observer: Observer) -> None:
    with trio.CancelScope() as scope:
        async with connection.pipeline(), connection.pipeline():
            await connection.execute("INSERT INTO t VALUES (1)")
            scope.cancel()
    assert scope.cancelled_caught

    assert connection.closed
    assert rows(observer) == []


# Transactions


async def test_a_transaction_commits_at_its_end(connection: Connection, observer: Observer) -> None:
    async with connection.transaction():
        await connection.execute("INSERT INTO t VALUES (1)")
        assert rows(observer) == []

    assert rows(observer) == [1]


async def test_a_transaction_rolls_back_for_an_error(connection: Connection, observer: Observer) -> None:
    async def fail() -> None:
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
            raise KeyError

    with pytest.raises(KeyError):
        await fail()

    assert rows(observer) == []
    assert is_idle(connection)


async def test_a_rollback_asked_for_is_no_error(connection: Connection, observer: Observer) -> None:
    async with connection.transaction():
        await connection.execute("INSERT INTO t VALUES (1)")
        if observer.one("SELECT true"):
            raise psycopg.Rollback

    assert rows(observer) == []


async def test_a_savepoint_rolls_back_alone(connection: Connection, observer: Observer) -> None:
    async with connection.transaction():
        await connection.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(errors.UniqueViolation):
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (1)")
        await connection.execute("INSERT INTO t VALUES (2)")

    assert rows(observer) == [1, 2]


async def test_a_transaction_in_a_pipeline_commits(connection: Connection, observer: Observer) -> None:
    async with connection.pipeline(), connection.transaction():
        await connection.execute("INSERT INTO t VALUES (1)")
        await connection.execute("INSERT INTO t VALUES (2)")

    assert rows(observer) == [1, 2]


async def test_a_transaction_whose_failed_statement_was_ignored_does_not_end_quietly(
    connection: Connection, observer: Observer
) -> None:
    async def carry_on() -> None:
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
            with suppress(errors.UniqueViolation):
                await connection.execute("INSERT INTO t VALUES (1)")

    with pytest.raises(errors.InFailedSqlTransaction):
        await carry_on()

    assert rows(observer) == []
    assert is_idle(connection)


async def test_a_transaction_whose_connection_was_lost_does_not_end_quietly(connection: Connection, observer: Observer) -> None:
    async def carry_on() -> None:
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
            observer.terminate(connection.info.backend_pid)
            with suppress(psycopg.OperationalError):
                await connection.execute("INSERT INTO t VALUES (2)")

    with pytest.raises(psycopg.OperationalError, match="before the transaction could commit"):
        await carry_on()

    assert rows(observer) == []


async def test_a_transaction_cancelled_in_a_statement_rolls_back(connection: Connection, observer: Observer) -> None:
    observer.hold(LOCK)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when, scope, observer)
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (1)")
                await connection.execute(BLOCKED)
    assert scope.cancelled_caught

    assert is_idle(connection)
    assert rows(observer) == []


async def test_a_transaction_cancelled_between_statements_rolls_back(connection: Connection, observer: Observer) -> None:
    with trio.CancelScope() as scope:
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
            scope.cancel()
            await trio.sleep_forever()

    assert is_idle(connection)
    assert rows(observer) == []


async def test_a_transaction_cancelled_before_its_commit_was_sent_rolls_back(connection: Connection, observer: Observer) -> None:
    with trio.CancelScope() as scope:
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
            scope.cancel()
    assert scope.cancelled_caught

    assert is_idle(connection)
    assert rows(observer) == []


async def test_a_transaction_cancelled_during_its_commit_is_over_one_way_or_the_other(
    connection: Connection, observer: Observer
) -> None:
    """A deferred trigger makes the commit wait."""
    wait = f"BEGIN PERFORM pg_advisory_xact_lock({LOCK}); RETURN NULL; END"
    observer.connection.execute(f"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS '{wait}'")
    observer.connection.execute(
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    observer.hold(LOCK)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when, scope, observer)
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (1)")
    assert scope.cancelled_caught

    assert is_idle(connection)
    assert rows(observer) == []


async def test_a_transaction_cancelled_before_it_began_leaves_nothing(connection: Connection, observer: Observer) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        async with connection.transaction():
            raise AssertionError("not reached")
    assert scope.cancelled_caught

    async with connection.transaction():
        await connection.execute("INSERT INTO t VALUES (1)")
    assert rows(observer) == [1]


async def test_a_transaction_cancelled_while_it_begins_is_undone(connection: Connection) -> None:
    """The server's answer is not there yet when the scope is cancelled."""
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_soon, scope)
            async with connection.transaction():
                pass

    assert is_idle(connection)
    async with connection.transaction():
        pass


async def cancel_soon(scope: trio.CancelScope) -> None:
    scope.cancel()


async def test_a_transaction_waits_for_its_turn_before_it_rolls_back(connection: Connection, observer: Observer) -> None:
    """Another task's statement is on the connection when the transaction is cancelled."""
    observer.hold(LOCK)

    async def other() -> None:
        await connection.execute(BLOCKED)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (1)")
                nursery.start_soon(other)
                await observer.until_blocked(LOCK)
                scope.cancel()
                observer.let_go(LOCK)
                await trio.sleep_forever()
    assert scope.cancelled_caught

    assert is_idle(connection)
    assert rows(observer) == []


async def test_a_rollback_that_gets_no_answer_closes_the_connection(url: str, observer: Observer, mock_clock: MockClock) -> None:
    async def let_time_pass() -> None:
        for _ in range(4):
            await wait_all_tasks_blocked()
            mock_clock.jump(max(EXIT_DEADLINE_S, CANCEL_DEADLINE_S))

    async with bad_line(url) as line:
        connection = await TrioConnection.connect(line.url, autocommit=True)
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with connection.transaction():
                    await connection.execute("INSERT INTO t VALUES (1)")
                    line.go_silent()
                    nursery.start_soon(let_time_pass)
                    scope.cancel()
                    await trio.sleep_forever()
        assert scope.cancelled_caught
        assert connection.closed
    await observer.until(
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    )
    assert rows(observer) == []


async def test_a_rollback_whose_turn_never_comes_closes_the_connection(
    connection: Connection, observer: Observer, mock_clock: MockClock
) -> None:
    observer.hold(LOCK)

    async def other() -> None:
        with pytest.raises(psycopg.OperationalError):
            await connection.execute(BLOCKED)

    async def let_time_pass() -> None:
        await wait_all_tasks_blocked()
        mock_clock.jump(EXIT_DEADLINE_S)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with connection.transaction():
                nursery.start_soon(other)
                await wait_all_tasks_blocked()
                nursery.start_soon(let_time_pass)
                scope.cancel()
                await trio.sleep_forever()

    assert connection.closed
