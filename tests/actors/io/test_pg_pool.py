"""The pool's book-keeping, against a real server or none. The clock stands still unless a test moves it."""

from __future__ import annotations

import gc
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.io import pg_pool
from actors.io.pg_connection import CANCEL_DEADLINE_S, TrioConnection
from actors.io.pg_lender import Connection
from actors.io.pg_pool import RECONNECT_BASE_S, RECONNECT_CAP_S, Pool, PoolStatistics, open_pool
from dispatcher.errors import ConfigError, StoreUnavailable
from postgres_peers import Observer, bad_line

LOCK = 7
BLOCKED = f"SELECT 1 FROM pg_advisory_xact_lock({LOCK})"


@pytest.fixture
def url(fresh_database: Callable[[], str]) -> str:
    return fresh_database()


@pytest.fixture
def observer(url: str) -> Iterator[Observer]:
    with Observer(url) as observer:
        yield observer


def a_pool(url: str, size_max: int = 2, random: Random | None = None) -> AbstractAsyncContextManager[Pool]:
    return open_pool(url, size_max=size_max, connect_deadline_s=10, statement_deadline_s=5, random=random or Random(0))


@pytest.fixture(name="pool")
async def pool_of_two(url: str, mock_clock: MockClock) -> AsyncIterator[Pool]:
    """Of two connections, one of them open."""
    async with a_pool(url) as pool:
        await pool.wait_ready(10)
        yield pool


@pytest.fixture
def nowhere(tmp_path: Path) -> str:
    """The URL of no server."""
    return f"postgresql://ada:secret@/x?host={tmp_path}"


def is_closed(connection: Connection) -> bool:
    return connection.closed


# Size


async def test_connections_are_opened_on_demand_and_the_last_used_is_taken_first(pool: Pool) -> None:
    assert pool.statistics() == PoolStatistics(size=1, idle=1, waiting=0, acquired_total=0, discarded_total=0)

    async with pool.connection() as first:
        async with pool.connection() as second:
            assert first is not second
            assert pool.statistics() == PoolStatistics(size=2, idle=0, waiting=0, acquired_total=2, discarded_total=0)
    async with pool.connection() as third:
        assert third is first
    assert pool.statistics() == PoolStatistics(size=2, idle=2, waiting=0, acquired_total=3, discarded_total=0)


async def test_no_more_connections_are_opened_than_the_pool_may_have(pool: Pool, observer: Observer) -> None:
    observer.hold(LOCK)
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(pool.fetch, BLOCKED)
        while observer.one(waiting) < 2:
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert pool.statistics() == PoolStatistics(size=2, idle=0, waiting=3, acquired_total=2, discarded_total=0)
        observer.let_go(LOCK)

    assert pool.statistics() == PoolStatistics(size=2, idle=2, waiting=0, acquired_total=5, discarded_total=0)


async def test_who_waits_for_a_connection_that_is_thrown_away_gets_a_new_one(url: str, mock_clock: MockClock) -> None:
    async with a_pool(url, size_max=1) as pool, trio.open_nursery() as nursery:
        async with pool.connection() as connection:
            await connection.execute("BEGIN")
            nursery.start_soon(pool.fetch, "SELECT 1")
            await wait_all_tasks_blocked()


async def test_callers_are_served_in_the_order_they_came(url: str, mock_clock: MockClock) -> None:
    order: list[int] = []

    async def borrow(n: int) -> None:
        async with pool.connection():
            order.append(n)

    async with a_pool(url, size_max=1) as pool, trio.open_nursery() as nursery:
        async with pool.connection():
            for n in range(5):
                nursery.start_soon(borrow, n)
                await wait_all_tasks_blocked()
            assert pool.statistics().waiting == 5

    assert order == [0, 1, 2, 3, 4]


async def test_a_connection_that_does_not_become_free_in_time_is_unavailability(pool: Pool, mock_clock: MockClock) -> None:
    async def let_time_pass() -> None:
        await wait_all_tasks_blocked()
        mock_clock.jump(3)

    async with pool.connection(100), pool.connection(100), trio.open_nursery() as nursery:
        nursery.start_soon(let_time_pass)
        with pytest.raises(StoreUnavailable, match="no connection to Postgres became free within 3 s"):
            await pool.fetch("SELECT 1", deadline_s=3)

    assert pool.statistics().waiting == 0


async def test_a_line_that_is_too_long_refuses(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pg_pool, "WAITING_MAX", 1)
    async with trio.open_nursery() as nursery:
        async with pool.connection(), pool.connection():
            nursery.start_soon(pool.fetch, "SELECT 1")
            await wait_all_tasks_blocked()
            with pytest.raises(StoreUnavailable, match="1 callers already wait"):
                await pool.fetch("SELECT 1")


def test_a_pool_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        trio.run(a_pool("postgresql://", size_max=0).__aenter__)


# Cancellation


async def test_a_caller_cancelled_in_line_leaves_it(pool: Pool) -> None:
    async with trio.open_nursery() as nursery:
        async with pool.connection(), pool.connection():
            with trio.CancelScope() as scope:
                nursery.start_soon(_cancel_when_blocked, scope)
                await pool.fetch("SELECT 1")
            assert scope.cancelled_caught
            assert pool.statistics().waiting == 0

    assert await _all_connections_can_be_had(pool)


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_a_caller_cancelled_as_it_is_handed_a_connection_gives_it_back(pool: Pool) -> None:
    scope = trio.CancelScope()

    async def borrow() -> None:
        with scope:
            async with pool.connection():
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        async with pool.connection(), pool.connection():
            nursery.start_soon(borrow)
            await wait_all_tasks_blocked()
        scope.cancel()  # it has the connection and has not run yet
    assert scope.cancelled_caught

    assert await _all_connections_can_be_had(pool)


async def _all_connections_can_be_had(pool: Pool) -> bool:
    async with pool.connection(10), pool.connection(10):
        return pool.statistics().size == 2


@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_of_cancellations_leaks_no_connection(pool: Pool, observer: Observer, seed: int) -> None:
    """Cancelled in line, while connecting, in a statement, in a pipeline, in a transaction: wherever chance has it."""
    random = Random(seed)
    observer.connection.execute("CREATE TABLE t (n int)")

    async def use(way: int) -> None:
        if way == 0:
            await pool.fetch("SELECT %s::int", (1,))
            return
        async with pool.connection() as connection:
            if way == 1:
                async with connection.pipeline():
                    for n in range(5):
                        await connection.execute("INSERT INTO t VALUES (%s)", (n,))
            else:
                async with connection.transaction():
                    await connection.execute("INSERT INTO t VALUES (%s)", (100,))
                    await connection.execute("SELECT pg_sleep(0.0001)")

    async def one_caller() -> None:
        for _ in range(8):
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_later, scope, random.randrange(60))
                await use(random.randrange(3))

    async def cancel_later(scope: trio.CancelScope, turns: int) -> None:
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(one_caller)

    assert await _all_connections_can_be_had(pool)
    assert pool.statistics().waiting == 0
    count = "SELECT count(*) = 2 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'dispatcher'"
    await observer.until(count)


# What is not lent again


async def test_a_connection_left_in_a_transaction_is_not_lent_again(pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute("BEGIN")

    assert connection.closed
    assert pool.statistics().discarded_total == 1


async def test_a_connection_out_of_autocommit_is_not_lent_again(pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.set_autocommit(False)

    assert connection.closed


async def test_a_connection_whose_statement_was_interrupted_is_not_lent_again(pool: Pool, observer: Observer) -> None:
    """A late cancel request would hit the next caller's statement."""
    observer.hold(LOCK)
    async with trio.open_nursery() as nursery, pool.connection() as connection:
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                await observer.until_blocked(LOCK)
                scope.cancel()

            nursery.start_soon(cancel)
            await connection.execute(BLOCKED)
        assert await (await connection.execute("SELECT 1")).fetchone() == (1,)  # its borrower may go on

    assert connection.closed


async def test_a_connection_left_in_mid_answer_is_ended_at_the_server(pool: Pool, observer: Observer) -> None:
    observer.connection.execute("CREATE TABLE t (n int)")
    with trio.CancelScope() as scope:
        async with pool.connection() as connection:
            pid = connection.info.backend_pid
            async with connection.cursor() as cursor, cursor.copy("COPY t FROM STDIN") as copy:
                await copy.write_row((1,))
                scope.cancel()
                await trio.sleep_forever()

    assert await pool.fetch("SELECT count(*) FROM t") == [(0,)]
    await observer.until_gone(pid)
    assert await _all_connections_can_be_had(pool)


@pytest.mark.filterwarnings("ignore:Async generator 'psycopg:ResourceWarning")
async def test_a_connection_whose_stream_was_forgotten_is_not_lent_again(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    async with pool.connection() as connection:
        async for _ in connection.cursor().stream("SELECT generate_series(1, 100000)"):
            break

    assert await _all_connections_can_be_had(pool)
    gc.collect()
    await wait_all_tasks_blocked()
    assert connection.closed
    assert caplog.records == []


async def test_a_connection_being_ended_still_counts(url: str, observer: Observer, mock_clock: MockClock) -> None:
    """Else a server that is slow to end them would get more connections than it was promised."""
    observer.connection.execute("CREATE TABLE t (n int)")
    async with bad_line(url) as line, a_pool(line.url, size_max=1) as pool:
        with trio.CancelScope() as scope:
            async with pool.connection() as connection, connection.cursor() as cursor, cursor.copy("COPY t FROM STDIN"):
                line.go_silent()
                scope.cancel()
                await trio.sleep_forever()
        await wait_all_tasks_blocked()
        assert pool.statistics().size == 1

        mock_clock.jump(CANCEL_DEADLINE_S)
        await wait_all_tasks_blocked()
        assert pool.statistics().size == 0


# The server away


async def test_callers_are_refused_at_once_while_the_server_is_away(nowhere: str, autojump_clock: MockClock) -> None:
    async with a_pool(nowhere) as pool:
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="cannot connect to Postgres at .*No such file") as caught:
                await pool.fetch("SELECT 1", deadline_s=1000)
            assert isinstance(caught.value.__cause__, psycopg.OperationalError)
            assert "secret" not in f"{caught.value}{caught.value.__cause__}"

    assert trio.current_time() == 0


async def test_everybody_in_line_is_refused_when_the_connect_fails(mock_clock: MockClock) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"postgresql://u@127.0.0.1:{listener.socket.getsockname()[1]}/x?sslmode=disable"
    refused: list[str] = []

    async def ask() -> None:
        with pytest.raises(StoreUnavailable) as caught:
            await pool.fetch("SELECT 1")
        refused.append(str(caught.value))

    async with listener, a_pool(url) as pool, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert refused == []
        await (await listener.accept()).aclose()

    assert len(refused) == 3
    assert "closed the connection unexpectedly" in refused[0]


async def test_the_delays_between_connects_are_jittered_over_a_growing_span(nowhere: str, autojump_clock: MockClock) -> None:
    class Recorded(Random):
        def random(self) -> float:
            times.append(trio.current_time())
            return 0.5

    times: list[float] = []
    async with a_pool(nowhere, random=Recorded()):
        await trio.sleep(30)

    delays = [later - earlier for earlier, later in pairwise(times)]
    expected = [0.5 * min(RECONNECT_CAP_S, RECONNECT_BASE_S * 2**n) for n in range(len(delays))]
    assert delays == pytest.approx(expected)
    assert delays[-1] == RECONNECT_CAP_S / 2


async def test_an_absence_is_logged_once_with_its_reason(
    nowhere: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with a_pool(nowhere):
            await trio.sleep(30)

    (record,) = caplog.records
    assert "cannot connect to Postgres" in record.getMessage()
    assert "secret" not in record.getMessage()
    assert "ada" not in record.getMessage()


async def test_a_server_that_does_not_answer_a_connect_is_away(mock_clock: MockClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"postgresql://u@127.0.0.1:{listener.getsockname()[1]}/x?sslmode=disable"

        async def let_time_pass() -> None:
            await wait_all_tasks_blocked()
            mock_clock.jump(10)

        async with a_pool(url) as pool, trio.open_nursery() as nursery:
            nursery.start_soon(let_time_pass)
            with pytest.raises(StoreUnavailable, match="did not answer within 10 s"):
                await pool.fetch("SELECT 1", deadline_s=1000)


async def test_waiting_for_readiness_ends_with_the_reason(nowhere: str, autojump_clock: MockClock) -> None:
    async with a_pool(nowhere) as pool:
        with pytest.raises(StoreUnavailable, match="No such file"):
            await pool.wait_ready(3)

    assert trio.current_time() == 3


async def test_waiting_for_readiness_ends_without_a_reason_too(mock_clock: MockClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"postgresql://u@127.0.0.1:{listener.getsockname()[1]}/x?sslmode=disable"

        async def let_time_pass() -> None:
            await wait_all_tasks_blocked()
            mock_clock.jump(3)

        async with a_pool(url) as pool, trio.open_nursery() as nursery:
            nursery.start_soon(let_time_pass)
            with pytest.raises(StoreUnavailable, match="did not answer within 3 s"):
                await pool.wait_ready(3)


async def test_waiting_for_readiness_lasts_through_many_failures(url: str, mock_clock: MockClock) -> None:
    async with bad_line(url) as line, a_pool(line.url) as pool:
        await pool.wait_ready(10)
        line.refuse()
        async with pool.connection() as connection:
            await connection.execute("BEGIN")  # so that it is thrown away, and a new one is needed
        with pytest.raises(StoreUnavailable):
            await pool.fetch("SELECT 1")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.wait_ready, 1000)
            for failures in (2, 3):
                await wait_all_tasks_blocked()
                mock_clock.jump(RECONNECT_CAP_S)
                while line.refused < failures:
                    await trio.lowlevel.checkpoint()
            line.accept()
            await wait_all_tasks_blocked()
            mock_clock.jump(RECONNECT_CAP_S)

        assert await pool.fetch("SELECT 1") == [(1,)]


async def test_while_connections_live_a_failed_connect_refuses_nobody(url: str, mock_clock: MockClock) -> None:
    """A server without a free slot for one more still serves those it has."""
    async with bad_line(url) as line, a_pool(line.url) as pool, trio.open_nursery() as nursery:
        async with pool.connection() as connection:
            line.refuse()
            nursery.start_soon(pool.fetch, "SELECT 1")
            while "cannot connect" not in str(pool._fault):
                await trio.lowlevel.checkpoint()
            assert pool.statistics().waiting == 1
            assert await (await connection.execute("SELECT 1")).fetchone() == (1,)


# Opening and closing


@pytest.mark.parametrize("bad", ["postgresql//ada:secret@db", "host=db password=secret port"])
async def test_a_url_that_is_none_is_a_config_error_that_does_not_repeat_it(bad: str) -> None:
    with pytest.raises(ConfigError, match="connection string of Postgres is malformed") as caught:
        await a_pool(bad).__aenter__()

    assert "secret" not in str(caught.value)


async def test_what_the_url_says_goes_before_the_pools_defaults(url: str, mock_clock: MockClock) -> None:
    async with a_pool(psycopg.conninfo.make_conninfo(url, application_name="mine", keepalives_idle=77)) as pool:
        async with pool.connection() as connection:
            params = connection.info.get_parameters()
            assert await (await connection.execute("SHOW application_name")).fetchone() == ("mine",)

    assert params["keepalives_idle"] == "77"
    assert params["keepalives_interval"] == "10"
    assert params["target_session_attrs"] == "read-write"


async def test_an_error_of_the_block_leaves_it_unwrapped(url: str, mock_clock: MockClock) -> None:
    async def fail() -> None:
        async with a_pool(url):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await fail()


async def test_the_end_of_the_pool_closes_what_is_idle(url: str, mock_clock: MockClock) -> None:
    async with a_pool(url) as pool:
        async with pool.connection() as connection:
            pass
        assert not is_closed(connection)

    assert is_closed(connection)
    assert pool.statistics() == PoolStatistics(size=0, idle=0, waiting=0, acquired_total=1, discarded_total=0)


async def test_the_end_of_the_pool_refuses_who_waits_and_closes_what_comes_back(url: str, mock_clock: MockClock) -> None:
    borrowed: list[Connection] = []
    done = trio.Event()

    async def borrow() -> None:
        async with pool.connection() as connection:
            borrowed.append(connection)
            await done.wait()

    async def ask() -> None:
        with pytest.raises(StoreUnavailable, match="is closed"):
            await pool.fetch("SELECT 1")

    async with trio.open_nursery() as nursery:
        async with a_pool(url, size_max=1) as pool:
            await pool.wait_ready(10)
            nursery.start_soon(borrow)
            await wait_all_tasks_blocked()
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            assert pool.statistics().waiting == 1
        await ask()
        assert not is_closed(borrowed[0])
        done.set()

    assert is_closed(borrowed[0])
    assert pool.statistics() == PoolStatistics(size=0, idle=0, waiting=0, acquired_total=1, discarded_total=1)


# Sessions


async def test_a_session_keeps_its_connection_between_statements(pool: Pool) -> None:
    async with pool.session() as session:
        async with session.connection() as first:
            pass
        assert pool.statistics().idle == 0
        async with session.connection() as second:
            assert second is first
    assert pool.statistics().idle == 1
    assert pool.statistics().acquired_total == 1


async def test_a_session_that_was_never_used_gives_nothing_back(pool: Pool) -> None:
    async with pool.session():
        pass

    assert pool.statistics() == PoolStatistics(size=1, idle=1, waiting=0, acquired_total=0, discarded_total=0)


async def test_two_tasks_on_one_session_do_not_share_a_connection(pool: Pool) -> None:
    async with pool.session() as session:
        async with session.connection() as first, session.connection() as second:
            assert first is not second
        assert pool.statistics().idle == 1
    assert pool.statistics() == PoolStatistics(size=2, idle=2, waiting=0, acquired_total=2, discarded_total=0)


async def test_a_connection_that_comes_in_the_turn_in_which_the_pool_closes_is_closed_too(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = TrioConnection.connect
    late: list[Connection] = []

    async def too_late(*args: Any, **named: Any) -> Connection:
        with trio.CancelScope(shield=True):
            late.append(await connect(*args, **named))
        return late[0]

    monkeypatch.setattr(TrioConnection, "connect", too_late)
    async with a_pool(url) as pool:
        with trio.move_on_after(0):
            await pool.fetch("SELECT 1")
        await wait_all_tasks_blocked()

    assert [connection.closed for connection in late] == [True]
