"""A node on real servers: how it ends when everything is well, and when something is not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import orjson
import psycopg
import pytest
import trio

import actors.node
import migrations
from actors.io.postgres import Pool
from actors.janitor import Janitor
from actors.node import Node
from actors.opening import open_node
from actors.ports import Arrival
from actors.store import organizations, providers
from dispatcher import vault
from dispatcher.config import from_mapping
from dispatcher.errors import ConfigError, QueueUnavailable, StoreUnavailable
from dispatcher.ids import uuid7
from dispatcher.model import Channel, NotificationId, OrganizationId
from dispatcher.shares import share
from dispatcher.vault import parse_keys
from dispatcher_sandbox.behaviour import Outage
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from postgres_peers import BadLine, StoppableServer, bad_line
from redis_peers import own_valkey
from running import KEYS, PATIENCE_S, environment, mail, until
from store_rows import insert_notification

ACME = OrganizationId("acme")


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


def node(postgres_url: str, redis_url: str, sandbox: Sandbox, **settings: str) -> AbstractAsyncContextManager[Node]:
    """A node that runs, with the sandbox allowed."""
    config = from_mapping(environment(postgres_url, redis_url, [sandbox.url], **settings))
    return open_node(config, incarnation=str(uuid4()), random=Random(1), random_bytes=Random(2).randbytes, unix_s=time.time)


async def configure(node: Node, sandbox: Sandbox) -> None:
    """The organization acme with the sandbox as provider."""
    id = uuid7(time.time_ns() // 1_000_000, 7)
    sealed = vault.seal(parse_keys(KEYS), b'{"api_key":"SG.a.b"}', providers.sealing_context(ACME, id), Random(3).randbytes)
    settings = {"from_email": "tickets@hall.example", "base_url": sandbox.url}
    await organizations.create(node.pool, ACME, "Acme", "en")
    await providers.add(node.pool, id, ACME, "sendgrid", Channel.EMAIL, sealed, settings, 0)


async def send(node: Node, count: int) -> list[str]:
    items = {"items": [mail(f"reader.{number}@example.org") for number in range(count)]}
    answer = await node.acceptor.accept(ACME, orjson.dumps(items), None)
    return [item["id"] for item in orjson.loads(answer.body)["items"]]


def statuses(url: str) -> dict[str, int]:
    with psycopg.connect(url, autocommit=True) as connection:
        return dict(connection.execute("SELECT status, count(*) FROM notifications GROUP BY status").fetchall())


def over(line: BadLine) -> str:
    """The line's address as a URL."""
    params = psycopg.conninfo.conninfo_to_dict(line.url)
    return f"postgresql://{params['user']}@{params['host']}:{params['port']}/{params['dbname']}?sslmode=disable"


def leases(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        return len(connection.execute("SELECT FROM incarnations").fetchall())


# --- start -----------------------------------------------------------------------------------------------------


async def test_it_does_not_start_without_its_servers(database_url: str, redis_url: str, sandbox: Sandbox) -> None:
    with pytest.raises(ConfigError):
        async with open_node(
            from_mapping({}), incarnation=str(uuid4()), random=Random(1), random_bytes=Random(2).randbytes, unix_s=time.time
        ):
            pass
    for urls, error in (
        (("postgresql://127.0.0.1:1/none", redis_url), StoreUnavailable),
        ((database_url, "redis://127.0.0.1:1"), QueueUnavailable),
    ):
        with pytest.raises(error):
            async with node(*urls, sandbox, postgres_connect_deadline_s="0.3", redis_connect_deadline_s="0.3"):
                pass

    assert leases(database_url) == 0


# --- drain -----------------------------------------------------------------------------------------------------


async def test_a_drain_lets_calls_end_and_leaves_the_rest_queued(database_url: str, redis_url: str, sandbox: Sandbox) -> None:
    sandbox.change(latency_s=0.05)
    async with node(database_url, redis_url, sandbox) as first:
        await configure(first, sandbox)
        ids = await send(first, 300)
        await until(lambda: sandbox.ledger.accepted > 0)
    taken = sandbox.ledger.accepted

    assert 0 < taken < 300
    assert statuses(database_url) == {"delivered": taken, "queued": 300 - taken}
    assert leases(database_url) == 0

    async with node(database_url, redis_url, sandbox):
        await until(lambda: statuses(database_url) == {"delivered": 300})
    assert {sandbox.ledger.effects(id) for id in ids} == {1}


async def test_what_a_drain_can_not_wait_for_is_rescued_by_the_next_one_at_once(
    database_url: str, redis_url: str, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """Its lease was given up, so nobody waits for the end of it; and the attempt counts as one that may have had an effect."""
    sandbox.change(outage=Outage.SILENT)
    patient = {"request_deadline_s": "600", "lease_s": "700", "drain_s": "0.1"}
    async with node(database_url, redis_url, sandbox, **patient) as first:
        await configure(first, sandbox)
        (id,) = await send(first, 1)
        await until(lambda: sandbox.ledger.requests > 0)

    assert "the drain ended before everything did" in caplog.text
    assert statuses(database_url) == {"sending": 1}
    assert leases(database_url) == 0

    sandbox.change(outage=Outage.NONE)
    async with node(database_url, redis_url, sandbox, **patient) as second:
        await until(lambda: statuses(database_url) == {"delivered": 1})
        rows = await second.pool.fetch("SELECT unknowns, attempts FROM notifications WHERE id = %s", (id,))
    assert rows == [(1, 2)]


async def test_a_drain_while_redis_is_away_ends_and_loses_nothing(database_url: str, tmp_path: Path, sandbox: Sandbox) -> None:
    sandbox.change(latency_s=0.05)
    with own_valkey(tmp_path) as valkey:
        async with node(database_url, valkey.url, sandbox, drain_s="0.5") as first:
            await configure(first, sandbox)
            ids = await send(first, 200)
            await until(lambda: sandbox.ledger.accepted > 0)
            valkey.kill()
        assert "sending" not in statuses(database_url)
        valkey.start()
        async with node(database_url, valkey.url, sandbox):
            await until(lambda: statuses(database_url) == {"delivered": 200})

    assert {sandbox.ledger.effects(id) for id in ids} == {1}


async def test_a_drain_while_postgres_is_away_ends_as_well(
    servers_folder: Path, tmp_path: Path, redis_url: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors.node, "FLUSH_S", 0.2)
    sandbox.change(honour_idempotency_keys=True)
    server = StoppableServer(servers_folder / tmp_path.name)
    server.start()
    try:
        migrations.up(server.url)
        async with node(server.url, redis_url, sandbox, drain_s="0.2", postgres_connect_deadline_s="0.5") as first:
            await configure(first, sandbox)
            ids = await send(first, 200)
            await until(lambda: sandbox.ledger.accepted > 0)
            await trio.to_thread.run_sync(server.stop)
        server.start()
        async with node(server.url, redis_url, sandbox) as second:
            # What the end of its lease would bring, without waiting for it.
            await second.pool.execute("DELETE FROM incarnations WHERE id <> %s", (second.incarnation,))
            await until(lambda: statuses(server.url) == {"delivered": 200})
    finally:
        server.stop()

    assert {sandbox.ledger.effects(id) for id in ids} == {1}


# --- between -----------------------------------------------------------------------------------------------------


async def test_a_child_that_fails_is_started_again(
    database_url: str, redis_url: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend, failures = Janitor.mend, 2

    async def fail_at_first(self: Janitor) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise ValueError("a fault of ours")
        await mend(self)

    monkeypatch.setattr(Janitor, "mend", fail_at_first)
    async with node(database_url, redis_url, sandbox) as running:
        await configure(running, sandbox)
        await send(running, 1)
        await until(lambda: not failures)
        await until(lambda: statuses(database_url) == {"delivered": 1})

    assert failures == 0


async def test_servers_that_say_nothing_are_not_ready(database_url: str, redis_url: str, sandbox: Sandbox) -> None:
    async with bad_line(database_url) as line, node(over(line), redis_url, sandbox, drain_s="0.1") as running:
        well = await running.ready()
        line.go_silent()
        with trio.fail_after(PATIENCE_S):
            ill = await running.ready()

    assert well == {"postgres": True, "redis": True}
    assert ill == {"postgres": False, "redis": True}


async def test_everything_that_may_fill_up_or_fall_behind_has_a_gauge(
    database_url: str, redis_url: str, sandbox: Sandbox
) -> None:
    async with node(database_url, redis_url, sandbox) as running:
        gauges = running.gauges()

    assert gauges.keys() >= {
        "accept_pending",
        "announcements_buffered",
        "claims_waiting",
        "channels_in_line",
        "gate_pending",
        "h2_streams_waiting",
        "in_flight",
        "listeners",
        "loop_late_s",
        "organizations_alive",
        "postgres_waiting",
        "provider_connections_waiting",
        "queue_age_s",
        "record_pending",
        "redis_may_evict",
        "redis_pending",
        "redis_waiting",
        "settle_pending",
        "short_of_postgres",
        "short_of_redis_memory",
        "unpushed",
    }


async def test_what_is_claimed_late_shows_as_the_age_of_the_queue(database_url: str, redis_url: str, sandbox: Sandbox) -> None:
    old = NotificationId(uuid7(time.time_ns() // 1_000_000 - 500_000, 1))
    async with node(database_url, redis_url, sandbox) as running:
        await configure(running, sandbox)
        await insert_notification(running.pool, old, created_at=datetime.now(UTC) - timedelta(seconds=500))
        await running.queue.enqueue([Arrival(ACME, [old], ())])
        running.organizations.wake(ACME)
        await until(lambda: running.gauges()["queue_age_s"] > 0)
        age_s = running.gauges()["queue_age_s"]

    assert 500 <= age_s < 600


async def test_a_requeue_that_redis_can_not_hear_of_is_no_failure(database_url: str, tmp_path: Path, sandbox: Sandbox) -> None:
    with own_valkey(tmp_path) as valkey:
        async with node(database_url, valkey.url, sandbox) as running:
            valkey.kill()
            await running.requeued(ACME, [NotificationId(str(uuid4()))])
            await running.letter_news.requeued(ACME, [(NotificationId(str(uuid4())), 0.0), (NotificationId(str(uuid4())), 1.0)])
            await running.letter_news.discarded(ACME, 1)
            await running.changed(ACME)


# --- beside another ----------------------------------------------------------------------------------------------------


def owns_its_share(member: Node, members: set[str]) -> bool:
    return frozenset(member.shards.owned) == share(member.incarnation, members, 16)


async def test_what_another_dispatches_is_accepted_from_a_cache_all_the_same(
    database_url: str, redis_url: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a change that is made anywhere drops it."""
    async with node(database_url, redis_url, sandbox) as first, node(database_url, redis_url, sandbox) as second:
        members = {first.incarnation, second.incarnation}
        for member in (first, second):
            await until(partial(owns_its_share, member, members))
        host, guest = (first, second) if first.shards.owns(ACME) else (second, first)
        loads = 0
        read_all = providers.read_all

        async def counted(pool: Pool, organization_id: OrganizationId) -> Sequence[Any]:
            nonlocal loads
            loads += pool is guest.pool
            return await read_all(pool, organization_id)

        monkeypatch.setattr(providers, "read_all", counted)
        await configure(guest, sandbox)
        ids = [id for _ in range(5) for id in await send(guest, 1)]
        cached = loads
        await until(lambda: statuses(database_url) == {"delivered": 5})
        guests = guest.organizations.alive()
        await host.changed(ACME)

        async def loaded_again() -> bool:
            await send(guest, 1)
            return loads > cached

        await until(loaded_again)
        owned = host.gauges()["shards_owned"] + guest.gauges()["shards_owned"]

    assert cached == 1
    assert guests == []
    assert owned == 16
    assert {sandbox.ledger.effects(id) for id in ids} == {1}


async def test_it_drains_in_the_reverse_order_of_its_start(
    database_url: str, redis_url: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First it takes nothing in and nothing up, then what is under way ends and is written down, and the lease goes last."""
    order: list[str] = []

    def note(owner: object, name: str) -> None:
        method = getattr(owner, name)

        def noted(*args: Any) -> Any:
            order.append(f"{type(owner).__name__}.{name}")
            return method(*args)

        monkeypatch.setattr(owner, name, noted)

    async with node(database_url, redis_url, sandbox) as running:
        for part, name in (
            (running.acceptor, "close"),
            (running.shards, "leave"),
            (running.organizations, "drain"),
            (running.ledger, "barrier"),
            (running.ledger, "close"),
            (running.store, "release_lease"),
        ):
            note(part, name)

    assert order == [
        "Acceptor.close",
        "Shards.leave",
        "Organizations.drain",
        "Ledger.barrier",
        "Ledger.close",
        "PostgresStore.release_lease",
    ]
    with psycopg.connect(database_url, autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM shards WHERE owner IS NULL").fetchone() == (16,)
