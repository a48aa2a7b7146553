"""The pool against a server of the test's own: certificates, passwords, restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import Random

import pytest
import trio
import trustme
from trio.testing import MockClock

from actors.io.postgres import Pool, open_pool
from dispatcher.errors import StoreUnavailable
from house import Tls
from postgres_peers import Observer, StoppableServer, bad_line, tls_front

LOCK = 7
BLOCKED = f"SELECT 1 FROM pg_advisory_xact_lock({LOCK})"
PATIENCE_S = 60
"""For a server that starts on a busy machine."""


@pytest.fixture(scope="module")
def server(servers_folder: Path) -> Iterator[StoppableServer]:
    server = StoppableServer(servers_folder / "stoppable")
    server.start()
    with Observer(server.url) as observer:
        observer.connection.execute("CREATE ROLE ada SUPERUSER LOGIN PASSWORD 'sesame'")
    yield server
    server.stop()


@pytest.fixture
def observer(server: StoppableServer) -> Iterator[Observer]:
    with Observer(server.url) as observer:
        yield observer


@pytest.fixture
async def front_port(server: StoppableServer, tls: Tls) -> AsyncIterator[int]:
    """Where the server is reached through TLS."""
    async with tls_front(server.url, tls) as port:
        yield port


def over_tls(port: int, ca_file: Path, user: str = "postgres", host: str = "localhost") -> str:
    return f"postgresql://{user}@{host}:{port}/dispatcher?sslmode=verify-full&sslrootcert={ca_file}"


def a_pool(url: str, size_max: int = 2) -> AbstractAsyncContextManager[Pool]:
    return open_pool(url, size_max=size_max, connect_deadline_s=PATIENCE_S, statement_deadline_s=PATIENCE_S, random=Random(0))


@pytest.fixture
async def tls_pool(front_port: int, tls: Tls, mock_clock: MockClock) -> AsyncIterator[Pool]:
    """The clock stands still, so that no deadline passes on a busy machine."""
    async with a_pool(over_tls(front_port, tls.ca_file)) as pool:
        yield pool


# TLS and passwords


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_certificate_that_fits_is_accepted(front_port: int, tls: Tls, host: str) -> None:
    async with a_pool(over_tls(front_port, tls.ca_file, host=host)) as pool, pool.connection() as connection:
        assert connection.pgconn.ssl_in_use
        assert await (await connection.execute("SELECT 1")).fetchone() == (1,)


async def test_a_certificate_of_a_stranger_is_refused(front_port: int, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    async with a_pool(over_tls(front_port, tmp_path / "other.pem")) as pool:
        with pytest.raises(StoreUnavailable, match="certificate verify failed"):
            await pool.fetch("SELECT 1")


async def test_a_certificate_for_another_name_is_refused(front_port: int, tls: Tls) -> None:
    async with a_pool(over_tls(front_port, tls.ca_file, host="store.test") + "&hostaddr=127.0.0.1") as pool:
        with pytest.raises(StoreUnavailable, match='does not match host name "store.test"'):
            await pool.fetch("SELECT 1")


async def test_a_server_without_tls_is_refused_by_who_asks_for_it(server: StoppableServer, tls: Tls) -> None:
    async with bad_line(server.url) as line, a_pool(f"{line.url} sslmode=verify-full sslrootcert={tls.ca_file}") as pool:
        with pytest.raises(StoreUnavailable, match="server does not support SSL, but SSL was required"):
            await pool.fetch("SELECT 1")


async def test_a_password_is_checked_and_never_repeated(front_port: int, tls: Tls) -> None:
    async with a_pool(over_tls(front_port, tls.ca_file, "ada:sesame")) as pool:
        assert await pool.fetch("SELECT current_user::text") == [("ada",)]
    async with a_pool(over_tls(front_port, tls.ca_file, "ada:simsim")) as pool:
        with pytest.raises(StoreUnavailable, match="password authentication failed for this user") as caught:
            await pool.fetch("SELECT 1")
    assert "ada" not in str(caught.value)
    assert "simsim" not in f"{caught.value!r}{caught.value.__cause__!r}"


async def test_long_answers_and_questions_pass_through_tls(tls_pool: Pool) -> None:
    text = "x" * 3_000_000

    assert await tls_pool.fetch("SELECT %s::text, repeat('y', %s)", (text, 2_000_000)) == [(text, "y" * 2_000_000)]


async def test_a_pipeline_passes_through_tls(tls_pool: Pool) -> None:
    text = "x" * 100_000
    async with tls_pool.connection() as connection:
        async with connection.pipeline():
            cursors = [await connection.execute("SELECT %s::text", (text,)) for _ in range(30)]
        assert [await cursor.fetchone() for cursor in cursors] == [(text,)] * 30


async def test_a_statement_is_cancelled_through_tls(tls_pool: Pool, observer: Observer) -> None:
    observer.hold(LOCK)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                await observer.until_blocked(LOCK)
                scope.cancel()

            nursery.start_soon(cancel)
            await tls_pool.fetch(BLOCKED)
    assert scope.cancelled_caught

    assert not observer.one("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")


# Restarts


@pytest.fixture(name="pool")
async def pool_of_two(server: StoppableServer) -> AsyncIterator[Pool]:
    async with a_pool(server.url) as pool:
        yield pool


async def test_a_restart_between_two_statements_is_not_noticed(server: StoppableServer, pool: Pool) -> None:
    async with pool.connection(), pool.connection():
        pass
    assert pool.statistics().idle == 2

    await trio.to_thread.run_sync(server.stop)
    await trio.to_thread.run_sync(server.start)

    assert await pool.fetch("SELECT 1") == [(1,)]
    assert pool.statistics().discarded_total == 2


async def test_a_server_that_stops_is_unavailability_until_it_is_back(server: StoppableServer, pool: Pool) -> None:
    refused: list[str] = []

    async def ask(sql: str) -> None:
        with pytest.raises(StoreUnavailable) as caught:
            await pool.fetch(sql)
        refused.append(str(caught.value))

    with Observer(server.url) as observer:
        observer.hold(LOCK)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, BLOCKED)
            nursery.start_soon(ask, BLOCKED)
            while observer.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") < 2:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(ask, "SELECT 1")  # in line
            await trio.to_thread.run_sync(server.stop)

    assert len(refused) == 3
    with pytest.raises(StoreUnavailable, match="cannot connect"):
        await pool.fetch("SELECT 1")

    await trio.to_thread.run_sync(server.start)
    await pool.wait_ready(PATIENCE_S)
    async with pool.connection() as connection, pool.connection():
        assert await (await connection.execute("SELECT 1")).fetchone() == (1,)
