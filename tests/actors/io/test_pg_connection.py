"""The driver against a real server. The clock stands still, so that only a test can let a deadline pass."""

from __future__ import annotations

import ast
import inspect
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio
from psycopg import errors, pq
from psycopg.rows import dict_row
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.io.pg_connection import CANCEL_AGAIN_S, CANCEL_DEADLINE_S, TrioConnection, connection_params
from actors.io.pg_types import ADAPTERS
from postgres_peers import Observer, bad_line, overtake

Connection = TrioConnection[tuple[Any, ...]]
LOCK = 7
BLOCKED = f"SELECT 1 FROM pg_advisory_xact_lock({LOCK})"


@pytest.fixture
def url(fresh_database: Callable[[], str]) -> str:
    return fresh_database()


@pytest.fixture
def observer(url: str) -> Iterator[Observer]:
    with Observer(url) as observer:
        yield observer


@pytest.fixture
async def connection(url: str, mock_clock: MockClock) -> AsyncIterator[Connection]:
    connection = await TrioConnection.connect(url, autocommit=True, prepare_threshold=0)
    yield connection
    await connection.close()


async def one(connection: Connection, sql: str, *params: object) -> Any:
    row = await (await connection.execute(sql, params)).fetchone()
    assert row is not None
    return row[0]


async def cancel_when_blocked(scope: trio.CancelScope, observer: Observer) -> None:
    await observer.until_blocked(LOCK)
    scope.cancel()


# Where psycopg depends on an event loop

SEAMS = {
    "connection_async.py": {"connect", "cancel_safe", "<module>"},
    "_conninfo_attempts_async.py": {"_resolve_hostnames", "<module>"},
    "_acompat.py": {"aspawn", "agather", "AQueue", "<module>"},
    "errors.py": {"<module>"},
    "waiting.py": {"wait_async", "wait_conn_async", "<module>"},
}
"""Every function of psycopg that touches asyncio, by file: all replaced, or (``_acompat``) for a COPY writer nobody asks for."""


def touches_asyncio(node: ast.AST) -> bool:
    match node:
        case ast.Name(id="asyncio" | "get_running_loop" | "sleep" | "Future"):
            return True
        case ast.ImportFrom(module="asyncio") | ast.Import(names=[ast.alias(name="asyncio")]):
            return True
    return False


def test_psycopg_touches_asyncio_only_where_it_is_replaced() -> None:
    """Fails when a new release of psycopg has a new seam: look at it, replace it, add it above."""
    found: dict[str, set[str]] = {}
    for path in Path(inspect.getfile(psycopg)).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        owners = {
            id(node): top.name
            for parent in ast.walk(tree)
            if isinstance(parent, ast.Module | ast.ClassDef)
            for top in parent.body
            if isinstance(top, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            for node in ast.walk(top)
        }
        for node in ast.walk(tree):
            if touches_asyncio(node):
                found.setdefault(path.name, set()).add(owners.get(id(node), "<module>"))

    assert found == SEAMS


# Connecting


async def test_a_connection_is_configured_as_asked(url: str) -> None:
    connection = await TrioConnection.connect(
        url, autocommit=True, prepare_threshold=3, context=ADAPTERS, row_factory=dict_row, application_name="me"
    )
    async with connection:
        assert connection.autocommit
        assert connection.prepare_threshold == 3
        assert not connection.interrupted
        cursor = await connection.execute("SELECT current_setting('application_name') AS name, %s::uuid AS id", ("0" * 32,))
        assert await cursor.fetchone() == {"name": "me", "id": "00000000-0000-0000-0000-000000000000"}
    assert connection.closed


async def test_the_first_host_that_answers_is_taken(url: str) -> None:
    folder = psycopg.conninfo.conninfo_to_dict(url)["host"]
    connection = await TrioConnection.connect(url, host=f"/nowhere,{folder}")
    await connection.close()


async def test_when_no_host_answers_all_reasons_are_told(url: str) -> None:
    with pytest.raises(psycopg.OperationalError) as caught:
        await TrioConnection.connect(url, host="/nowhere,/elsewhere")

    assert "/nowhere" in str(caught.value)
    assert "/elsewhere" in str(caught.value)


async def test_a_name_is_looked_up_before_libpq_sees_it(mock_clock: MockClock) -> None:
    """libpq's own lookup would block every task; it gets the address beside the name."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]

    async def connect() -> None:
        with pytest.raises(psycopg.OperationalError, match="127.0.0.1"):
            await TrioConnection.connect(f"postgresql://u@localhost:{port}/x?sslmode=disable")

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(connect)
        await (await listener.accept()).aclose()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Accepts connections into its backlog and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_each_host_gets_its_share_of_the_deadline(url: str, silent_port: int, mock_clock: MockClock) -> None:
    """Else a silent first host would use it up."""
    folder = psycopg.conninfo.conninfo_to_dict(url)["host"]

    async def let_time_pass() -> None:
        await wait_all_tasks_blocked()
        mock_clock.jump(5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_time_pass)
        with trio.fail_after(10):
            connection = await TrioConnection.connect(
                url, host=f"127.0.0.1,{folder}", port=f"{silent_port},5432", sslmode="disable"
            )
    await connection.close()


async def test_the_connect_timeout_of_the_url_is_kept(silent_port: int, autojump_clock: MockClock) -> None:
    with pytest.raises(errors.ConnectionTimeout):
        await TrioConnection.connect(f"postgresql://u@127.0.0.1:{silent_port}/x?connect_timeout=3&sslmode=disable")

    assert trio.current_time() == pytest.approx(3)


async def test_a_cancelled_connect_hangs_up(mock_clock: MockClock) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with listener, trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            async def cancel_and_look() -> None:
                async with await listener.accept() as peer:
                    assert await peer.receive_some() != b""  # the start of the protocol
                    scope.cancel()
                    assert await peer.receive_some() == b""

            nursery.start_soon(cancel_and_look)
            await TrioConnection.connect(f"postgresql://u@127.0.0.1:{port}/x?sslmode=disable")
    assert scope.cancelled_caught


@pytest.mark.parametrize("bad", ["postgresql//ada:secret@db", "host=db password=secret port", "nonsense=secret"])
async def test_a_malformed_connection_string_is_not_repeated(bad: str) -> None:
    with pytest.raises(psycopg.ProgrammingError) as caught:
        await TrioConnection.connect(bad)

    assert str(caught.value) == "the connection string of Postgres is malformed"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_kerberos_is_asked_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGGSSENCMODE", raising=False)
    assert connection_params("dbname=x")["gssencmode"] == "disable"
    assert connection_params("dbname=x gssencmode=prefer")["gssencmode"] == "prefer"


# Statements


async def test_other_tasks_run_while_a_statement_does(connection: Connection, observer: Observer) -> None:
    observer.hold(LOCK)

    async def let_go() -> None:
        await observer.until_blocked(LOCK)
        observer.let_go(LOCK)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_go)
        assert await one(connection, BLOCKED) == 1


async def test_a_cancelled_task_sends_nothing(connection: Connection, observer: Observer) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await connection.execute("CREATE TABLE never (n int)")

    assert observer.one("SELECT to_regclass('never')") is None
    assert not connection.interrupted


async def test_a_cancelled_statement_ends_at_the_server_and_leaves_the_connection_usable(
    connection: Connection, observer: Observer
) -> None:
    observer.hold(LOCK)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when_blocked, scope, observer)
            await connection.execute(BLOCKED)
    assert scope.cancelled_caught

    assert not observer.one("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
    assert connection.interrupted
    assert not connection.is_reusable()
    assert await one(connection, "SELECT 2") == 2


async def test_a_cancel_request_that_overtook_its_statement_is_made_again(
    url: str, observer: Observer, mock_clock: MockClock
) -> None:
    """A server that has not read the statement yet ignores the request."""
    observer.hold(LOCK)
    async with bad_line(url) as line:
        connection = await TrioConnection.connect(line.url, autocommit=True)
        line.hold_back()
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(overtake, line, observer, LOCK, scope, partial(mock_clock.jump, CANCEL_AGAIN_S))
                await connection.execute(BLOCKED)
        assert scope.cancelled_caught

        assert await one(connection, "SELECT 2") == 2
        await connection.close()


async def test_a_server_that_does_not_give_in_loses_the_connection(url: str, observer: Observer, mock_clock: MockClock) -> None:
    observer.hold(LOCK)

    async def cut_and_cancel(scope: trio.CancelScope) -> None:
        await observer.until_blocked(LOCK)
        line.go_silent()
        scope.cancel()
        await wait_all_tasks_blocked()
        mock_clock.jump(CANCEL_DEADLINE_S)

    async with bad_line(url) as line:
        connection = await TrioConnection.connect(line.url, autocommit=True)
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(cut_and_cancel, scope)
                await connection.execute(BLOCKED)
        assert scope.cancelled_caught
        assert connection.closed
        assert connection.broken


async def test_an_error_carries_no_value(connection: Connection) -> None:
    await connection.execute("CREATE TEMP TABLE people (email text UNIQUE)")
    await connection.execute("INSERT INTO people VALUES ('ada@example.org')")

    with pytest.raises(errors.UniqueViolation) as caught:
        await connection.execute("INSERT INTO people VALUES (%s)", ("ada@example.org",))

    assert "ada" not in repr(caught.value)
    assert caught.value.diag.constraint_name == "people_email_key"


async def test_a_text_that_cannot_be_encoded_is_not_repeated(connection: Connection) -> None:
    with pytest.raises(psycopg.DataError) as caught:
        await connection.execute("SELECT %s", ("ada@example.org\ud800",))

    assert str(caught.value) == "a parameter is not valid Unicode"
    assert caught.value.__context__ is None
    assert await one(connection, "SELECT 2") == 2


async def test_a_backend_ended_in_mid_statement_is_an_error_and_a_closed_connection(
    connection: Connection, observer: Observer
) -> None:
    observer.hold(LOCK)

    async def terminate() -> None:
        await observer.until_blocked(LOCK)
        observer.terminate(pid)

    pid = connection.info.backend_pid
    async with trio.open_nursery() as nursery:
        nursery.start_soon(terminate)
        with pytest.raises(errors.AdminShutdown):
            await connection.execute(BLOCKED)

    with pytest.raises(psycopg.OperationalError):
        await connection.execute("SELECT 1")
    assert connection.broken
    assert not connection.is_reusable()


async def test_closing_ends_the_wait_of_another_task(connection: Connection, observer: Observer) -> None:
    observer.hold(LOCK)

    async def run() -> None:
        with pytest.raises(psycopg.OperationalError, match="closed while it was in use"):
            await connection.execute(BLOCKED)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await observer.until_blocked(LOCK)
        await connection.close()
        await connection.close()

    assert connection.closed
    assert not connection.broken


async def test_a_statement_is_prepared_from_its_first_use(connection: Connection) -> None:
    for _ in range(3):
        await connection.execute("SELECT %s::int", (1,))

    assert await one(connection, "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT $1::int'") == 1


# Cancel requests


async def test_another_task_may_ask_for_the_end_of_a_statement(connection: Connection, observer: Observer) -> None:
    observer.hold(LOCK)

    async def ask() -> None:
        await observer.until_blocked(LOCK)
        await connection.cancel_safe()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        with pytest.raises(errors.QueryCanceled):
            await connection.execute(BLOCKED)

    assert connection.interrupted


async def test_a_cancel_request_without_an_answer_times_out(url: str, mock_clock: MockClock) -> None:
    async with bad_line(url) as line:
        connection = await TrioConnection.connect(line.url)
        line.go_silent()

        async def let_time_pass() -> None:
            await wait_all_tasks_blocked()
            mock_clock.jump(3)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(let_time_pass)
            with pytest.raises(errors.CancellationTimeout):
                await connection.cancel_safe(timeout=3)
        await connection.close()
        await connection.cancel_safe()  # nothing to cancel any more


async def test_the_blocking_cancel_is_refused(connection: Connection) -> None:
    with pytest.raises(psycopg.NotSupportedError, match="cancel_safe"):
        connection.cancel()


# Idle connections


async def test_an_idle_connection_is_quiet(connection: Connection) -> None:
    assert connection.is_quiet()
    assert connection.is_reusable()
    assert not connection.is_active()


async def test_an_idle_connection_whose_server_went_is_not_quiet(connection: Connection, observer: Observer) -> None:
    observer.terminate(connection.info.backend_pid)

    assert not connection.is_quiet()
    assert not connection.is_quiet()


async def test_what_the_server_says_unasked_does_not_end_the_quiet(connection: Connection, observer: Observer) -> None:
    await connection.execute("LISTEN news")
    for n in range(3):
        observer.connection.execute(f"NOTIFY news, '{n}'")
    await observer.until("SELECT pg_notification_queue_usage() = 0")

    assert connection.is_quiet()


async def test_a_closed_connection_is_neither_quiet_nor_reusable(connection: Connection) -> None:
    await connection.close()

    assert not connection.is_quiet()
    assert not connection.is_reusable()


async def test_a_connection_in_a_transaction_is_not_reusable(connection: Connection) -> None:
    await connection.execute("BEGIN")
    assert not connection.is_reusable()
    await connection.execute("ROLLBACK")
    assert connection.is_reusable()


# The rest of psycopg, on Trio's waits


async def test_a_connection_block_commits_and_closes(url: str, observer: Observer) -> None:
    async with await TrioConnection.connect(url) as connection:
        await connection.execute("CREATE TABLE kept (n int)")

    assert connection.closed
    assert observer.one("SELECT to_regclass('kept')::text") == "kept"


async def test_commit_and_rollback_by_hand(url: str, observer: Observer) -> None:
    async with await TrioConnection.connect(url) as connection:
        await connection.execute("CREATE TABLE kept (n int)")
        await connection.commit()
        await connection.execute("DROP TABLE kept")
        await connection.rollback()
        await connection.set_autocommit(True)
        assert connection.autocommit

    assert observer.one("SELECT to_regclass('kept')::text") == "kept"


async def test_copy_goes_both_ways(connection: Connection) -> None:
    await connection.execute("CREATE TEMP TABLE t (n int)")
    async with connection.cursor() as cursor:
        async with cursor.copy("COPY t FROM STDIN") as copy:
            for n in range(1000):
                await copy.write_row((n,))
        async with cursor.copy("COPY t TO STDOUT") as copy:
            assert len([row async for row in copy.rows()]) == 1000

    assert connection.is_reusable()


async def test_a_cancelled_copy_writes_nothing(connection: Connection, observer: Observer) -> None:
    observer.connection.execute("CREATE TABLE t (n int)")
    with trio.CancelScope() as scope:
        async with connection.cursor() as cursor, cursor.copy("COPY t FROM STDIN") as copy:
            await copy.write_row((1,))
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert connection.is_active()

    await connection.stop()

    assert connection.closed
    assert observer.one("SELECT count(*) FROM t") == 0


async def test_rows_can_be_streamed(connection: Connection) -> None:
    async with connection.cursor() as cursor:
        assert [row[0] async for row in cursor.stream("SELECT generate_series(1, 1000)")] == list(range(1, 1001))

    assert connection.is_reusable()


async def test_a_server_side_cursor_fetches_in_parts(url: str) -> None:
    async with await TrioConnection.connect(url) as connection, connection.cursor("c") as cursor:
        await cursor.execute("SELECT generate_series(1, 10)")
        assert await cursor.fetchmany(3) == [(1,), (2,), (3,)]


async def test_notifications_are_heard_within_a_time(connection: Connection, observer: Observer, mock_clock: MockClock) -> None:
    await connection.execute("LISTEN news")
    observer.connection.execute("NOTIFY news, 'one'")
    assert [n.payload async for n in connection.notifies(stop_after=1)] == ["one"]

    async def let_time_pass() -> None:
        await wait_all_tasks_blocked()
        mock_clock.jump(5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_time_pass)
        assert [n async for n in connection.notifies(timeout=5)] == []
    assert connection.pgconn.transaction_status == pq.TransactionStatus.IDLE


async def test_who_stops_listening_leaves_the_connection_as_good_as_new(connection: Connection) -> None:
    await connection.execute("LISTEN news")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_blocked, scope)
            async for _ in connection.notifies():
                raise AssertionError("nobody notifies")
    assert scope.cancelled_caught

    assert connection.is_reusable()


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()
