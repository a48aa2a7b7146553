"""Postgres restarts, fails over, forgets to answer, is slow or has no connection left: nothing is lost, nothing sent twice, and
producers are told in time. Everything is real; what would be sent twice shows, for the provider honours no keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
import trio

import migrations
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from postgres_peers import BadLine, StoppableServer, bad_line
from running import Customer, Running, dispatching, mail, until

TURN_AWAY_SOON = "0.3"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def postgres(servers_folder: Path, tmp_path: Path) -> Iterator[StoppableServer]:
    # Its memory is lost with it, so a commit must reach the files before it is answered.
    server = StoppableServer(servers_folder / tmp_path.name, synchronous_commit="on")
    server.start()
    migrations.up(server.url)
    yield server
    server.stop()


def patient(
    database_url: str, redis_url: str, sandboxes: Sequence[Sandbox] = (), /, **settings: str
) -> AbstractAsyncContextManager[Running]:
    """A dispatcher whose calls have time, also on a machine that has none: one that is given up might be sent twice."""
    calls = {"request_deadline_s": "30", "connect_deadline_s": "30", "lease_s": "60"}
    return dispatching(database_url, redis_url, sandboxes, **calls, **settings)


async def customer(running: Running, sandbox: Sandbox, **settings: Any) -> Customer:
    found = await running.customer("acme")
    await found.add_provider(sandbox.url, **settings)
    return found


def recipients(count: int, first: int = 0) -> Iterator[str]:
    return (f"reader.{number}@example.org" for number in range(first, first + count))


def rows(url: str, sql: LiteralString) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(sql).fetchall()


@contextmanager
def nobody_writes_notifications(url: str) -> Iterator[None]:
    """Every statement that would waits for as long as the block takes."""
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE notifications IN SHARE MODE")
        yield


async def is_ready(running: Running) -> bool:
    return (await running.client.get(f"{running.url}/readyz")).status_code == 200


async def is_short(running: Running) -> bool:
    return (await running.metrics())["dispatcher_short_of_postgres"] == 1


async def is_at_ease(running: Running) -> bool:
    return not await is_short(running)


def over(line: BadLine) -> str:
    """The line's conninfo as a URL."""
    params = psycopg.conninfo.conninfo_to_dict(line.url)
    return f"postgresql://{params['user']}@{params['host']}:{params['port']}/{params['dbname']}?sslmode=disable"


def are_delivered(url: str) -> bool:
    return rows(url, "SELECT bool_and(status = 'delivered') FROM notifications") == [(True,)]


def as_ever(sandbox: Sandbox, sent: list[str], url: str) -> None:
    """Each was sent once, at the first attempt, and nothing about it is in doubt."""
    assert {sandbox.ledger.effects(id) for id in sent} == {1}
    assert rows(url, "SELECT DISTINCT status, attempts, unknowns FROM notifications") == [("delivered", 1, 0)]


# --- gone and back ------------------------------------------------------------------------------------------


async def test_a_postgres_that_is_killed_and_started_again_costs_nothing_but_time(
    postgres: StoppableServer, redis_url: str, sandbox: Sandbox
) -> None:
    """Not even a doubtful attempt (scenario 21)."""
    sandbox.change(latency_s=0.02)
    async with patient(postgres.url, redis_url, [sandbox]) as running:
        acme = await customer(running, sandbox)
        sent = await acme.send_all(recipients(200))
        await until(lambda: sandbox.ledger.accepted >= 20)
        await trio.to_thread.run_sync(postgres.kill)
        refused = await acme.call("POST", "notifications", mail("ada@example.org"))
        await trio.to_thread.run_sync(postgres.start)
        await until(lambda: is_ready(running))
        await until(lambda: acme.all_delivered(sent))

    assert refused.status_code in (429, 503)
    assert "retry-after" in refused.headers
    as_ever(sandbox, sent, postgres.url)


async def test_a_primary_that_became_a_standby_is_waited_for_and_no_row_is_given_up(
    postgres: StoppableServer, redis_url: str, sandbox: Sandbox
) -> None:
    """It answers, but takes no writes: connections to it are dropped and none is made before it is primary again."""
    sandbox.change(latency_s=0.02)
    async with patient(postgres.url, redis_url, [sandbox]) as running:
        acme = await customer(running, sandbox)
        sent = await acme.send_all(recipients(200))
        await until(lambda: sandbox.ledger.accepted >= 20)
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            connection.execute("SELECT pg_reload_conf()")
            await until(lambda: running.service.node.metrics.events["ledger_retry"] > 0)
            refused = await acme.call("POST", "notifications", mail("ada@example.org"))
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")
        await until(lambda: is_ready(running))
        await until(lambda: acme.all_delivered(sent))
        sent.append(await acme.send("ada@example.org"))
        await until(lambda: acme.all_delivered(sent))
        events = running.service.node.metrics.events

    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
    assert events["row_refused"] == events["stale_record"] == 0
    as_ever(sandbox, sent, postgres.url)


async def test_commits_whose_acknowledgement_is_lost_are_neither_lost_nor_repeated(
    database_url: str, redis_url: str, sandbox: Sandbox
) -> None:
    """Gate and record ask again and find what they did (scenario 22)."""
    sandbox.change(latency_s=0.02)
    async with bad_line(database_url) as line, patient(over(line), redis_url, [sandbox]) as running:
        acme = await customer(running, sandbox)
        async with acme.listen() as feed:
            sent = await acme.send_all(recipients(300))
            while line.lost < 10 and not await trio.to_thread.run_sync(are_delivered, database_url):
                line.lose_answers()
                await trio.sleep(0.01)
            await feed.outcomes(sent)

    assert line.lost >= 5
    as_ever(sandbox, sent, database_url)


async def test_an_accept_whose_commit_was_not_acknowledged_is_made_good_by_its_key_and_sent_at_once(
    database_url: str, redis_url: str, sandbox: Sandbox
) -> None:
    """The producer is told that nobody knows; what it hands in was on disk all the same (scenario 22)."""
    async with bad_line(database_url) as line, patient(over(line), redis_url, [sandbox]) as running:
        acme = await customer(running, sandbox)
        warm = await acme.send("warm@example.org")
        await until(lambda: acme.all_delivered([warm]))
        for number in range(100):  # the cut may meet the lease's renewal, or come before the insert has arrived
            line.lose_answers()
            key = {"idempotency-key": f"k{number}"}
            refused = again = await acme.call("POST", "notifications", mail("a@example.org"), key)
            while again.status_code != 202:
                again = await acme.call("POST", "notifications", mail("a@example.org"), key)
            if again is not refused and "idempotent-replayed" in again.headers:
                break
        stored = rows(database_url, "SELECT id::text FROM notifications")
        await until(lambda: acme.all_delivered([id for (id,) in stored]))

    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["id"] in {id for (id,) in stored}
    assert len(stored) == number + 2
    as_ever(sandbox, [id for (id,) in stored], database_url)


# --- one bad row --------------------------------------------------------------------------------------------


async def test_one_row_that_postgres_refuses_fails_no_other_of_five_thousand(
    database_url: str, redis_url: str, sandbox: Sandbox
) -> None:
    """Neither those of its own request nor those of requests of the same moment (scenario 23)."""
    rows_bad = "bad@example.org"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE notifications ADD CHECK (recipient <> 'bad@example.org')")
    answers: dict[int, dict[str, Any]] = {}
    async with patient(database_url, redis_url, [sandbox]) as running:
        acme = await customer(running, sandbox, rate_per_s=0.01, burst=1)  # only what is accepted matters here

        async def hand_in(number: int, addresses: list[str]) -> None:
            answers[number] = await acme.post("notifications", {"items": [mail(address) for address in addresses]})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hand_in, 0, [*recipients(3000), rows_bad, *recipients(1499, 3000)])
            for number in range(1, 6):
                nursery.start_soon(hand_in, number, list(recipients(100, 10_000 * number)))

    verdicts = {number: (answer["accepted"], answer["rejected"]) for number, answer in answers.items()}
    assert verdicts == {0: (4499, 1), **dict.fromkeys(range(1, 6), (100, 0))}
    assert answers[0]["items"][3000]["problem"]["code"] == "not_storable"
    assert rows(database_url, "SELECT count(*)::int FROM notifications") == [(4999,)]


# --- slow and crowded ---------------------------------------------------------------------------------------


async def test_when_statements_are_slow_producers_are_turned_away_early_and_let_in_again_by_themselves(
    database_url: str, redis_url: str, sandbox: Sandbox
) -> None:
    """(scenario 25) What had been handed in before is accepted; what waits is bounded meanwhile."""
    async with patient(
        database_url, redis_url, [sandbox], accept_wait_max_s=TURN_AWAY_SOON, postgres_statement_deadline_s="40"
    ) as running:
        acme = await customer(running, sandbox)
        sent = [await acme.send("warm@example.org")]
        await until(lambda: acme.all_delivered(sent))

        async def hand_in(recipient: str) -> None:
            sent.append(await acme.send(recipient))

        async with trio.open_nursery() as nursery:
            with nobody_writes_notifications(database_url):
                for recipient in recipients(3):
                    nursery.start_soon(hand_in, recipient)
                await until(lambda: is_short(running))
                refusals = [await acme.call("POST", "notifications", mail(recipient)) for recipient in recipients(20)]
                pending = (await running.metrics())["dispatcher_accept_pending"]

        async def is_accepted() -> bool:
            answer = await acme.call("POST", "notifications", mail("ada@example.org"))
            if answer.status_code == 202:
                sent.append(answer.json()["id"])
            return answer.status_code == 202

        await until(is_accepted)
        await until(lambda: acme.all_delivered(sent))
        await until(lambda: is_at_ease(running))

    assert {(refusal.status_code, refusal.json()["code"]) for refusal in refusals} == {(429, "database_slow")}
    assert {1 <= int(refusal.headers["retry-after"]) <= 10 for refusal in refusals} == {True}
    assert pending <= 3
    assert len(sent) >= 5
    as_ever(sandbox, sent, database_url)


async def test_when_all_connections_are_taken_producers_are_turned_away_and_let_in_again(
    database_url: str, redis_url: str, sandbox: Sandbox
) -> None:
    """(scenario 25) Also those whose key would have to be looked up first."""
    async with patient(
        database_url, redis_url, [sandbox], accept_wait_max_s=TURN_AWAY_SOON, postgres_pool_size_max="2"
    ) as running:
        acme = await customer(running, sandbox)
        stranger = Customer(acme.url, "acme", "ndk_" + "A" * 43, acme.client)
        pool = running.service.node.pool
        async with trio.open_nursery() as nursery:
            async with pool.connection(60), pool.connection(60):
                nursery.start_soon(acme.call, "GET", "notifications")
                await until(lambda: is_short(running))
                refusals = [await who.call("POST", "notifications", mail("ada@example.org")) for who in (acme, stranger, acme)]
        answers: list[int] = []

        async def is_accepted() -> bool:
            answers.append((await acme.call("POST", "notifications", mail("ada@example.org"))).status_code)
            return answers[-1] == 202

        await until(is_accepted)

    assert [refusal.json()["code"] for refusal in refusals[1:]] == ["database_slow"] * 2
    assert set(answers) <= {202, 429}


async def test_a_session_that_forgot_its_transaction_costs_two_dead_rows_a_notification_and_no_delivery(
    database_url: str, redis_url: str, sandbox: Sandbox
) -> None:
    """(scenario 24) Nothing can be cleaned up meanwhile; afterwards everything is, and the table says by itself how early."""
    n = 400
    async with patient(database_url, redis_url, [sandbox], in_flight_max="64") as running:
        acme = await customer(running, sandbox)
        with psycopg.connect(database_url) as forgetful:
            forgetful.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            forgetful.execute("SELECT count(*) FROM notifications")
            sent: list[str] = []
            for part in range(4):
                sent += await acme.send_all(recipients(n // 4, part * n))
            await until(lambda: acme.all_delivered(sent))
            pinned = vacuumed(database_url)
        free = vacuumed(database_url)
    (options,) = rows(database_url, "SELECT reloptions FROM pg_class WHERE relname = 'notifications'")

    assert n <= pinned <= 2 * n + 64
    assert free == 0
    assert {"fillfactor=70", "autovacuum_vacuum_scale_factor=0.01", "autovacuum_vacuum_cost_delay=0"} <= set(options[0])
    as_ever(sandbox, sent, database_url)


def vacuumed(url: str) -> int:
    """How many dead rows of the table a VACUUM has to leave."""
    said: list[str] = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.add_notice_handler(lambda notice: said.append(notice.message_primary or "" + (notice.message_detail or "")))
        connection.execute("VACUUM (VERBOSE) notifications")
        found = connection.execute("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'notifications'").fetchone()
    assert said
    assert found is not None
    return int(found[0])
