"""A whole dispatcher whose servers go away and come back: what it says meanwhile, and that nothing is lost or done twice."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
import redis
import trio

import migrations
from dispatcher_http.listener import StreamEnded
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from postgres_peers import StoppableServer
from redis_peers import Valkey, own_valkey
from running import Customer, Running, dispatching, mail, until


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    with own_valkey(tmp_path) as valkey:
        yield valkey


@pytest.fixture
def postgres(servers_folder: Path, tmp_path: Path) -> Iterator[StoppableServer]:
    server = StoppableServer(servers_folder / tmp_path.name)
    server.start()
    migrations.up(server.url)
    yield server
    server.stop()


async def new_customer(running: Running, sandbox: Sandbox) -> Customer:
    acme = await running.customer("acme")
    await acme.add_provider(sandbox.url)
    return acme


async def is_ready(running: Running) -> bool:
    return (await running.client.get(f"{running.url}/readyz")).status_code == 200


def recipients(count: int) -> Iterator[str]:
    return (f"reader.{number}@example.org" for number in range(count))


async def test_a_healthy_dispatcher_is_alive_and_ready(database_url: str, redis_url: str) -> None:
    async with dispatching(database_url, redis_url) as running:
        alive, ready = [await running.client.get(f"{running.url}/{name}") for name in ("healthz", "readyz")]

    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "checks": {"postgres": True, "redis": True}})


async def test_metrics_count_what_happens_and_name_nobody(database_url: str, redis_url: str, sandbox: Sandbox) -> None:
    async with dispatching(database_url, redis_url, [sandbox]) as running:
        acme = await new_customer(running, sandbox)
        async with acme.listen() as feed:
            ids = await acme.send_all([*recipients(5), "bounce@sandbox.test", "soft-1@sandbox.test"])
            await acme.send("ada@example.org", idempotency_key="k")
            await acme.send("ada@example.org", idempotency_key="k")
            await feed.outcomes(ids)
            await running.customer("other")
            metrics = await running.metrics()
            lines = (await running.client.get(f"{running.url}/metrics")).text.splitlines()

    # One metric names organizations; nothing names anybody else.
    named = [line for line in lines if line.startswith("dispatcher_organization_messages_total{")]
    text = "\n".join(line for line in lines if line not in named)
    assert metrics['dispatcher_organization_messages_total{channel="email",organization="acme",state="failed"}'] == 1
    assert metrics['dispatcher_accepted_total{verdict="accepted"}'] == 8
    assert metrics['dispatcher_accepted_total{verdict="duplicate"}'] == 1
    assert metrics['dispatcher_attempts_total{channel="email",outcome="hard"}'] == 1
    assert metrics['dispatcher_attempts_total{channel="email",outcome="soft"}'] == 1
    assert metrics['dispatcher_dead_letters_total{channel="email",reason="hard"}'] == 1
    assert metrics['dispatcher_provider_codes_total{channel="email",code="recipient_refused"}'] == 1
    assert metrics['dispatcher_delivery_latency_seconds_count{channel="email"}'] >= 6
    assert metrics['dispatcher_provider_call_seconds_count{provider="sendgrid"}'] >= 8
    assert metrics["dispatcher_listeners"] == metrics["dispatcher_http_listeners"] == 1
    assert metrics["dispatcher_organizations_alive"] == 1
    for name in ("reader", "example", "sandbox", *ids):
        assert name not in "\n".join(lines)
    assert not {"acme", "other"} & set(re.findall(r'"([^"]*)"', text))


async def test_without_redis_accepting_goes_on_and_everything_is_sent_when_it_is_back(
    database_url: str, valkey: Valkey, sandbox: Sandbox
) -> None:
    """Back with nothing of what it knew."""
    sandbox.change(honour_idempotency_keys=True)
    async with dispatching(database_url, valkey.url, [sandbox]) as running:
        acme = await new_customer(running, sandbox)
        async with acme.listen() as feed:
            ids = await acme.send_all(recipients(200))
            await feed.until(type="notification.delivered")
            valkey.kill()
            alive = await running.client.get(f"{running.url}/healthz")
            ready = await running.client.get(f"{running.url}/readyz")
            ids += [await acme.send(recipient) for recipient in recipients(5)]
            with pytest.raises(StreamEnded) as refused:
                async with acme.listen():
                    pass
            valkey.start()
            await until(lambda: is_ready(running))
            ids += await acme.send_all(recipients(50))
            gap = await feed.until(type="stream.gap")
            await until(lambda: acme.all_delivered(ids))

    assert alive.status_code == 200
    assert (ready.status_code, ready.json()["checks"]) == (503, {"postgres": True, "redis": False})
    assert (ready.json()["code"], ready.headers["retry-after"]) == ("not_ready", "1")
    assert refused.value.code == 503
    assert "position" not in gap
    assert {sandbox.ledger.effects(id) for id in ids} == {1}


async def test_redis_that_forgets_everything_at_once_loses_nothing(database_url: str, redis_url: str, sandbox: Sandbox) -> None:
    sandbox.change(latency_s=0.01)
    async with dispatching(database_url, redis_url, [sandbox]) as running:
        acme = await new_customer(running, sandbox)
        async with acme.listen() as feed:
            ids = await acme.send_all([*recipients(300), *(f"soft+{number}@sandbox.test" for number in range(5))])
            await feed.until(type="notification.delivered")
            with redis.Redis.from_url(redis_url) as client:
                client.flushall()
            await until(lambda: acme.all_delivered(ids))

    assert {sandbox.ledger.effects(id) for id in ids} == {1}


async def test_without_postgres_nothing_is_accepted_and_what_was_is_sent_when_it_is_back(
    postgres: StoppableServer, redis_url: str, sandbox: Sandbox
) -> None:
    sandbox.change(honour_idempotency_keys=True)
    async with dispatching(postgres.url, redis_url, [sandbox], postgres_connect_deadline_s="2") as running:
        acme = await new_customer(running, sandbox)
        async with acme.listen() as feed:
            ids = await acme.send_all(recipients(200))
            await feed.until(type="notification.delivered")
            await trio.to_thread.run_sync(postgres.stop)
            alive = await running.client.get(f"{running.url}/healthz")
            ready = await running.client.get(f"{running.url}/readyz")
            refusals = [
                await acme.call("POST", "notifications", mail("ada@example.org"), {"idempotency-key": "order-1"}),
                await acme.call("GET", "notifications"),
                await Customer(acme.url, "acme", "ndk_" + "A" * 43, acme.client).call("GET", "notifications"),
            ]
            await trio.to_thread.run_sync(postgres.start)
            await until(lambda: is_ready(running))
            repeated = await acme.call("POST", "notifications", mail("ada@example.org"), {"idempotency-key": "order-1"})
            ids.append(repeated.json()["id"])
            await until(lambda: acme.all_delivered(ids))

    assert alive.status_code == 200
    assert (ready.status_code, ready.json()["checks"]) == (503, {"postgres": False, "redis": True})
    for refusal in refusals:
        assert (refusal.status_code, refusal.json()["code"], refusal.headers["retry-after"]) == (503, "store_unavailable", "1")
    assert repeated.status_code == 202
    assert {sandbox.ledger.effects(id) for id in ids} == {1}


async def test_sessions_that_postgres_ends_cost_nothing(database_url: str, redis_url: str, sandbox: Sandbox) -> None:
    """Not even one doubtful attempt: what was asked of Postgres is asked again."""
    async with dispatching(database_url, redis_url, [sandbox]) as running:
        acme = await new_customer(running, sandbox)
        ended = 0
        async with acme.listen() as feed:
            ids = await acme.send_all(recipients(400))
            with psycopg.connect(database_url, autocommit=True) as connection:
                for _ in range(20):
                    await feed.next()
                    ended += connection.execute(
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    ).fetchall()[0][0]
            outcomes = await feed.outcomes(ids)
            found = (await acme.get("notifications?page_size=250"))["items"]

    assert ended > 0
    assert set(outcomes.values()) == {"notification.delivered"}
    assert {sandbox.ledger.effects(id) for id in ids} == {1}
    assert {(item["attempts"], item["unknowns"]) for item in found} == {(1, 0)}
