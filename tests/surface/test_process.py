"""The dispatcher as an operator meets it: processes that start, say one line, drain, are killed, and find everything again."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
import trio

from actors.embedded.folder import holders, in_use, read_running
from dispatcher.keys import shard_of
from dispatcher.model import OrganizationId
from dispatcher_sandbox.behaviour import Outage
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from redis_peers import own_valkey
from running import Customer, enrol, environment, http_client, program, samples, store, until


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def data_dir(servers_folder: Path, tmp_path: Path) -> Path:
    return servers_folder / f"{tmp_path.name}-data"


@asynccontextmanager
async def customer(url: str, postgres_url: str, sandbox: Sandbox, name: str = "acme") -> AsyncIterator[Customer]:
    """An organization with the sandbox as provider, at the dispatcher of that URL."""
    async with http_client() as client:
        async with store(postgres_url) as pool:
            acme = Customer(url, name, await enrol(pool, name), client)
        if not (await acme.get("providers"))["items"]:
            await acme.add_provider(sandbox.url)
        yield acme


def rows(postgres_url: str, sql: LiteralString) -> list[tuple[Any, ...]]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        return connection.execute(sql).fetchall()


def owners(postgres_url: str) -> dict[str, list[int]]:
    """The shards of each process that owns some."""
    found = rows(postgres_url, "SELECT owner::text, array_agg(shard) FROM shards WHERE lease_until > now() GROUP BY owner")
    return {owner: shards for owner, shards in found if owner}


def one_organization_of_each_owner(postgres_url: str) -> list[str]:
    """Names of organizations, in the order of their owners' incarnations."""
    names = [f"org-{number}" for number in range(200)]
    return [
        next(name for name in names if shard_of(OrganizationId(name), 16) in shards)
        for _, shards in sorted(owners(postgres_url).items())
    ]


def recipients(count: int) -> Iterator[str]:
    return (f"reader.{number}@example.org" for number in range(count))


def embedded_url(data_dir: Path) -> str:
    """Where the private Postgres of a dispatcher's data folder listens."""
    running = read_running(data_dir / "postgres")
    assert running is not None
    assert running.url is not None
    return running.url


# --- start and end ------------------------------------------------------------------------------------------


async def test_it_says_one_line_serves_and_ends_when_asked(data_dir: Path, sandbox: Sandbox) -> None:
    """With nothing configured at all: private servers, a key of its own, a schema."""
    settings = environment(None, None, [sandbox.url], data_dir=str(data_dir), encryption_keys="")
    async with program("serve", settings=settings) as dispatcher:
        url = await dispatcher.serving()
        async with customer(url, embedded_url(data_dir), sandbox) as acme, acme.listen() as feed:
            await feed.outcomes([await acme.send("ada@example.org")])
        dispatcher.signal(signal.SIGTERM)
        status = await dispatcher.ended()

    assert status == 0
    assert dispatcher.out == f"Serving on {url}\n"
    assert {line.split(" ")[1] for line in dispatcher.err.splitlines()} == {"INFO"}
    assert "draining" in dispatcher.err
    assert not in_use(data_dir / "postgres")
    assert not in_use(data_dir / "valkey")


async def test_asked_to_end_it_drains(database_url: str, redis_url: str, sandbox: Sandbox) -> None:
    """Calls under way end and are written down; what has not begun stays queued for others."""
    sandbox.change(latency_s=0.2)
    async with program("serve", settings=environment(database_url, redis_url, [sandbox.url])) as dispatcher:
        async with customer(await dispatcher.serving(), database_url, sandbox) as acme:
            ids = await acme.send_all(recipients(300))
            await until(lambda: sandbox.ledger.accepted > 0)
            dispatcher.signal(signal.SIGTERM)
            status = await dispatcher.ended()
        statuses = dict(rows(database_url, "SELECT status, count(*)::int FROM notifications GROUP BY status"))
        taken = sandbox.ledger.accepted

    assert status == 0
    assert statuses == {"delivered": taken, "queued": 300 - taken}
    assert 0 < taken < 300
    assert rows(database_url, "SELECT max(attempts), sum(unknowns)::int FROM notifications WHERE status = 'queued'") == [(0, 0)]
    assert rows(database_url, "SELECT id FROM incarnations") == []

    sandbox.change(latency_s=0)
    async with program("serve", settings=environment(database_url, redis_url, [sandbox.url])) as next_one:
        async with customer(await next_one.serving(), database_url, sandbox) as acme:
            await until(lambda: acme.all_delivered(ids))
    assert {sandbox.ledger.effects(id) for id in ids} == {1}


async def test_asked_twice_it_ends_at_once(database_url: str, redis_url: str, sandbox: Sandbox) -> None:
    settings = environment(database_url, redis_url, [sandbox.url], drain_s="600", request_deadline_s="600", lease_s="700")
    sandbox.change(outage=Outage.SILENT)
    async with program("serve", settings=settings) as dispatcher:
        async with customer(await dispatcher.serving(), database_url, sandbox) as acme:
            await acme.send("ada@example.org")
            await until(lambda: sandbox.ledger.requests > 0)
            dispatcher.signal(signal.SIGTERM)
            await dispatcher.said("draining")
            dispatcher.signal(signal.SIGTERM)
            status = await dispatcher.ended()

    assert status == 128 + signal.SIGTERM
    assert rows(database_url, "SELECT status FROM notifications") == [("sending",)]


# --- killed -------------------------------------------------------------------------------------------------


async def test_killed_in_the_middle_it_finds_everything_again_when_it_is_started_again(data_dir: Path, sandbox: Sandbox) -> None:
    """Its private servers end with it; at a provider that honours keys nothing is sent twice; what may have been is marked."""
    sandbox.change(honour_idempotency_keys=True, latency_s=0.05)
    settings = environment(None, None, [sandbox.url], data_dir=str(data_dir), encryption_keys="")
    async with program("serve", settings=settings) as dispatcher:
        async with customer(await dispatcher.serving(), embedded_url(data_dir), sandbox) as acme:
            ids = await acme.send_all(recipients(400))
            await until(lambda: sandbox.ledger.accepted >= 40)
        dispatcher.signal(signal.SIGKILL)
        await dispatcher.ended()
    await until(lambda: not any(holders(data_dir / name / "server.lock") for name in ("postgres", "valkey")))
    before = sandbox.ledger.accepted

    async with program("serve", settings=settings) as next_one:
        url = await next_one.serving()
        owned = rows(embedded_url(data_dir), "SELECT count(*), min(epoch), max(epoch) FROM shards WHERE owner IS NOT NULL")
        async with customer(url, embedded_url(data_dir), sandbox) as acme:
            await until(lambda: acme.all_delivered(ids))
        unknowns = dict(rows(embedded_url(data_dir), "SELECT id::text, unknowns::int FROM notifications"))
        lost = rows(embedded_url(data_dir), "SELECT count(*) FROM attempts WHERE outcome = 'unknown' AND code = 'process_lost'")
        next_one.signal(signal.SIGTERM)
        status = await next_one.ended()

    assert owned == [(16, 2, 2)]  # at once: nobody waited for the dead one's lease
    assert before < 400
    assert {sandbox.ledger.effects(id) for id in ids} == {1}
    assert sum(unknowns.values()) == lost[0][0] > 0
    assert sandbox.ledger.replayed <= sum(unknowns.values())
    assert status == 0


async def test_a_killed_process_is_replaced_by_the_one_beside_it(database_url: str, redis_url: str, sandbox: Sandbox) -> None:
    sandbox.change(honour_idempotency_keys=True, latency_s=0.05)
    settings = environment(database_url, redis_url, [sandbox.url])
    async with program("serve", settings=settings) as first:
        async with customer(await first.serving(), database_url, sandbox) as acme:
            incarnation = rows(database_url, "SELECT id::text FROM incarnations")[0][0]
            async with program("serve", settings=settings) as second:
                survivor = Customer(await second.serving(), "acme", acme.key, acme.client)
                ids = await acme.send_all(recipients(400))
                await until(lambda: rows(database_url, "SELECT DISTINCT claimed_by::text FROM notifications") != [(None,)])
                await until(lambda: sandbox.ledger.accepted >= 40)
                first.signal(signal.SIGKILL)
                await first.ended()
                # What its lease's end would bring, without waiting for it.
                with psycopg.connect(database_url, autocommit=True) as connection:
                    connection.execute("DELETE FROM incarnations WHERE id = %s", [incarnation])
                await until(lambda: survivor.all_delivered(ids))

    assert {sandbox.ledger.effects(id) for id in ids} == {1}


async def test_a_process_that_stood_still_says_so_asks_for_its_lease_and_goes_on(
    database_url: str, redis_url: str, sandbox: Sandbox
) -> None:
    """Stopped for longer than two renewals of its lease are apart (scenario 8)."""
    sandbox.change(honour_idempotency_keys=True, latency_s=0.05)
    async with program("serve", settings=environment(database_url, redis_url, [sandbox.url])) as dispatcher:
        async with customer(await dispatcher.serving(), database_url, sandbox) as acme:
            ids = await acme.send_all(recipients(300))
            await until(lambda: sandbox.ledger.accepted >= 20)
            dispatcher.signal(signal.SIGSTOP)
            await trio.sleep(2.2)
            dispatcher.signal(signal.SIGCONT)
            await dispatcher.said("this process stood still for ")
            await until(lambda: acme.all_delivered(ids))
            metrics = samples((await acme.client.get(f"{acme.url}/metrics")).text)

    assert metrics["dispatcher_loop_late_s"] >= 1.5
    assert metrics['dispatcher_events_total{event="loop_stalled"}'] >= 1
    assert {sandbox.ledger.effects(id) for id in ids} == {1}


# --- company and weather ------------------------------------------------------------------------------------


async def test_two_processes_share_the_work_and_send_nothing_twice(database_url: str, redis_url: str, sandbox: Sandbox) -> None:
    sandbox.change(latency_s=0.02)
    settings = environment(database_url, redis_url, [sandbox.url])
    async with program("serve", settings=settings) as first, program("serve", settings=settings) as second:
        urls = [await first.serving(), await second.serving()]
        async with customer(urls[0], database_url, sandbox) as acme:
            beside = Customer(urls[1], "acme", acme.key, acme.client)
            async with acme.listen() as here, beside.listen() as there:
                ids = await acme.send_all(recipients(300)) + await beside.send_all(recipients(300))
                outcomes = [await feed.outcomes(ids) for feed in (here, there)]
            await until(lambda: len(owners(database_url)) == 2)
            for name in one_organization_of_each_owner(database_url):
                async with customer(urls[0], database_url, sandbox, name) as theirs:
                    more = await theirs.send_all(recipients(20))
                    await until(partial(theirs.all_delivered, more))
                    ids += more
            shares = [
                samples((await acme.client.get(f"{url}/metrics")).text)[
                    'dispatcher_attempts_total{channel="email",outcome="delivered"}'
                ]
                for url in urls
            ]

    assert outcomes[0] == outcomes[1] == dict.fromkeys(ids[:600], "notification.delivered")
    assert {sandbox.ledger.effects(id) for id in ids} == {1}
    assert sum(shares) == 640
    assert min(shares) > 0


async def test_two_processes_in_bad_weather_lose_nothing_and_send_nothing_twice(
    database_url: str, tmp_path: Path, sandbox: Sandbox
) -> None:
    """Redis comes back empty, Postgres ends its sessions, the provider refuses a share."""
    sandbox.change(latency_s=0.02, error_mix={503: 0.1})
    with own_valkey(tmp_path) as valkey:
        settings = environment(database_url, valkey.url, [sandbox.url], attempts_max="100", log_level="error")
        async with program("serve", settings=settings) as first, program("serve", settings=settings) as second:
            urls = [await first.serving(), await second.serving()]
            async with customer(urls[0], database_url, sandbox) as acme:
                beside = Customer(urls[1], "acme", acme.key, acme.client)
                ids = await acme.send_all(recipients(400)) + await beside.send_all(recipients(400))
                await until(lambda: sandbox.ledger.accepted >= 50)
                valkey.kill()
                ids += await beside.send_all(recipients(20))
                rows(
                    database_url,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()",
                )
                valkey.start()
                await until(lambda: acme.all_delivered(ids))
        said = first.err + second.err

    assert {sandbox.ledger.effects(id) for id in ids} == {1}
    assert said == ""


async def test_another_terminal_works_with_the_running_dispatcher_and_does_not_replace_it(
    data_dir: Path, sandbox: Sandbox
) -> None:
    settings = environment(None, None, [sandbox.url], data_dir=str(data_dir), encryption_keys="")

    async def command(*arguments: str) -> str:
        async with program(*arguments, settings=settings) as running:
            assert await running.ended() == 0, running.err
        return running.out.strip()

    async with program("serve", settings=settings) as dispatcher, http_client() as client:
        url = await dispatcher.serving()
        await command("organizations", "create", "acme")
        key = await command("keys", "create", "acme")
        acme = Customer(url, "acme", key, client)
        await acme.add_provider(sandbox.url)
        async with program("listen", "acme", "--url", url, "--since", "0", settings={**settings, "API_KEY": key}) as listener:
            id = await acme.send("ada@example.org")
            await listener.said(f'"type":"notification.delivered","id":"{id}"')
            listener.signal(signal.SIGINT)
            listened = await listener.ended()
        moved = await command("credentials", "rotate")
        async with program("serve", settings=settings) as second:
            refused = await second.ended()
        ready = await client.get(f"{url}/readyz")
        dispatcher.signal(signal.SIGINT)
        status = await dispatcher.ended()

    assert listened == 130
    assert "Traceback" not in listener.err
    assert moved == "0 credentials moved to the key local; the other keys are not needed any more."
    assert refused == 1
    assert second.err.startswith("Error: the data folder ")
    assert f"process {dispatcher.process.pid}" in second.err
    assert second.err.count("\n") == 1
    assert ready.status_code == 200
    assert status == 0


async def test_a_port_in_use_is_one_clear_line(database_url: str, redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = environment(database_url, redis_url, port=str(taken.getsockname()[1]))
        async with program("serve", settings=settings) as dispatcher:
            status = await dispatcher.ended()

    assert status == 1
    assert dispatcher.out == ""
    assert dispatcher.err.splitlines()[-1].startswith(f"Error: cannot listen on 127.0.0.1 port {settings['DISPATCHER_PORT']}")
    assert "Traceback" not in dispatcher.err
