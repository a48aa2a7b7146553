"""Redis is an index that may be lost, damaged, full, silent or out of date: nothing is lost by that, and nothing sent twice.

Everything is real. The provider honours no keys here, so whatever would be sent twice shows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
import redis as redis_py
import trio

from actors import headroom
from actors.io.redis import open_redis
from actors.janitor import GRACE_S, Janitor
from actors.metrics import Metrics
from actors.ports import Arrival, Settlement
from actors.redis_queue import SENTINEL, RedisQueue
from actors.store.dispatching import PostgresStore
from dispatcher.errors import QueueUnavailable
from dispatcher.ids import uuid7
from dispatcher.keys import Keys, shard_of
from dispatcher.model import NotificationId, OrganizationId
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from redis_peers import Valkey, deaf_line, own_valkey
from running import Customer, Running, dispatching, mail, store, until
from store_rows import insert_notification

ACME, OTHER = OrganizationId("acme"), OrganizationId("other")
KEYS = Keys()
SHARDS = 16
LONG_AGO = datetime.now(UTC) - timedelta(seconds=2 * GRACE_S)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    with own_valkey(tmp_path) as valkey:
        yield valkey


@pytest.fixture
def keys_of(valkey: Valkey) -> Iterator[Any]:
    """A client that sees and changes everything."""
    with redis_py.Redis.from_url(valkey.url) as client:
        yield client


def patient(
    database_url: str, redis_url: str, sandboxes: Sequence[Sandbox] = (), /, **settings: str
) -> AbstractAsyncContextManager[Running]:
    """A dispatcher whose calls have time, also on a machine that has none: one that is given up might be sent twice."""
    calls = {"request_deadline_s": "30", "connect_deadline_s": "30", "lease_s": "60"}
    return dispatching(database_url, redis_url, sandboxes, **calls, **settings)


async def customer(running: Running, sandbox: Sandbox, organization_id: str = "acme") -> Customer:
    found = await running.customer(organization_id)
    await found.add_provider(sandbox.url)
    return found


def recipients(count: int) -> Iterator[str]:
    return (f"reader.{number}@example.org" for number in range(count))


def ids(n: int) -> list[NotificationId]:
    return [NotificationId(uuid7(1_700_000_000_000 + i, i)) for i in range(n)]


async def is_ready(running: Running) -> bool:
    return (await running.client.get(f"{running.url}/readyz")).status_code == 200


def as_ever(sandbox: Sandbox, sent: list[str], database_url: str) -> None:
    """Each was sent once, at the first attempt, and nothing about it is in doubt."""
    assert {sandbox.ledger.effects(id) for id in sent} == {1}
    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT DISTINCT status, attempts, unknowns FROM notifications").fetchall()
    assert found == [("delivered", 1, 0)]


# --- silent -------------------------------------------------------------------------------------------------


async def test_while_redis_says_nothing_accepting_does_not_wait_for_it(
    database_url: str, valkey: Valkey, sandbox: Sandbox
) -> None:
    """Whatever patience commands have; and what was accepted is sent as soon as Redis goes on."""
    async with patient(database_url, valkey.url, [sandbox], redis_command_deadline_s="600") as running:
        acme = await customer(running, sandbox)
        sent = await acme.send_all(recipients(20))
        valkey.pause()
        for recipient in recipients(5):
            sent.append(await acme.send(recipient))
        valkey.resume()
        await until(lambda: acme.all_delivered(sent))

    as_ever(sandbox, sent, database_url)


async def test_what_a_silent_redis_missed_is_pushed_when_it_answers_again(
    database_url: str, valkey: Valkey, sandbox: Sandbox
) -> None:
    """By the process that accepted it: the janitor would look for it half a minute later."""
    async with patient(
        database_url, valkey.url, [sandbox], redis_command_deadline_s="0.3", redis_connect_deadline_s="0.3"
    ) as running:
        acme = await customer(running, sandbox)
        valkey.pause()
        sent = await acme.send_all(recipients(5))
        await until(lambda: running.service.node.metrics.events["enqueue_missed"] == 5)
        sent += await acme.send_all(recipients(5))
        waiting = (await running.metrics())["dispatcher_unpushed"]
        valkey.resume()
        await until(lambda: acme.all_delivered(sent))
        metrics = await running.metrics()

    assert waiting == 10
    assert metrics["dispatcher_unpushed"] == 0
    assert metrics['dispatcher_events_total{event="enqueued_late"}'] >= 5
    assert 'dispatcher_events_total{event="restored"}' not in metrics
    assert {sandbox.ledger.effects(id) for id in sent} == {1}


async def test_a_process_that_hears_nothing_any_more_notices_and_connects_again(
    database_url: str, tmp_path: Path, valkey: Valkey, sandbox: Sandbox
) -> None:
    """Connections that look alive and say nothing: the one for commands and the one for announcements."""
    async with deaf_line(tmp_path, valkey) as line:
        async with patient(database_url, line.url, [sandbox], redis_command_deadline_s="0.5") as running:
            acme = await customer(running, sandbox)
            async with acme.listen() as feed:
                first = await acme.send("ada@example.org")
                await feed.until(type="notification.delivered", id=first)
                before = line.taken
                line.swallow()
                sent = await acme.send_all(recipients(5))
                await feed.outcomes(sent)
            after = line.taken

    assert after >= before + 2
    as_ever(sandbox, [first, *sent], database_url)


# --- lost and damaged ---------------------------------------------------------------------------------------


async def test_a_claim_whose_reply_was_lost_is_handed_out_again_when_its_lease_ends(tmp_path: Path, valkey: Valkey) -> None:
    """The script ran, the connection was cut before the answer (scenario 10). In between each id is in flight, never nowhere."""
    made = ids(5)
    async with deaf_line(tmp_path, valkey) as line, connected(line.url) as behind, connected(valkey.url) as direct:
        far, near = (RedisQueue(redis, lease_s=0.5, shards=SHARDS) for redis in (behind, direct))
        await far.claim(ACME, 1)  # the script is known from here on
        await near.enqueue([Arrival(ACME, made, ())])
        line.swallow()

        async def claim_in_vain() -> None:
            with pytest.raises(QueueUnavailable):
                await far.claim(ACME, 10)

        async def in_flight() -> bool:
            return bool(await direct.execute("ZCARD", KEYS.inflight(ACME)) == 5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(claim_in_vain)
            await until(in_flight)
            await line.cut()
        found: list[NotificationId] = []

        async def claimed() -> bool:
            found.extend((await near.claim(ACME, 10)).ids)
            return bool(found)

        left = await direct.execute("LLEN", KEYS.queue(ACME))
        await until(claimed)

    assert left == 0
    assert found == made


async def test_a_failover_that_brings_old_state_back_sends_nothing_again(
    database_url: str, valkey: Valkey, keys_of: Any, sandbox: Sandbox
) -> None:
    """Queue, leases and marks as they stood before everything was settled (scenario 13)."""
    async with patient(database_url, valkey.url, [sandbox]) as running:
        acme = await customer(running, sandbox)
        sandbox.change(latency_s=0.3)
        sent = await acme.send_all(recipients(100))
        await until(lambda: sandbox.ledger.accepted > 0)
        old = {key: keys_of.dump(key) for key in keys_of.scan_iter() if key != SENTINEL.encode()}
        sandbox.change(latency_s=0)
        await until(lambda: acme.all_delivered(sent))
        keys_of.flushall()
        for key, value in old.items():
            keys_of.restore(key, 0, value)
        keys_of.set(SENTINEL, "1")
        for key in keys_of.keys("notifications:inflight:*"):  # their leases end
            for member in keys_of.zrange(key, 0, -1):
                keys_of.zadd(key, {member: 1})
        for key in keys_of.keys("notifications:active:*"):
            for member in keys_of.zrange(key, 0, -1):
                keys_of.zadd(key, {member: 1})

        def is_forgotten() -> bool:
            return not keys_of.exists(KEYS.queue(ACME), KEYS.inflight(ACME))

        resurrected = keys_of.llen(KEYS.queue(ACME)) + keys_of.zcard(KEYS.inflight(ACME))
        await until(is_forgotten)

    assert resurrected > 50
    as_ever(sandbox, sent, database_url)


async def test_scripts_that_are_flushed_again_and_again_stop_nothing(
    database_url: str, valkey: Valkey, keys_of: Any, sandbox: Sandbox
) -> None:
    """(scenario 16)"""
    async with patient(database_url, valkey.url, [sandbox]) as running:
        acme = await customer(running, sandbox)
        async with acme.listen() as feed:
            sent = await acme.send_all(recipients(100))
            for _ in range(40):
                await feed.next()
                keys_of.script_flush()
            await feed.outcomes(sent)

    as_ever(sandbox, sent, database_url)


async def test_damaged_keys_of_one_organization_are_nobody_elses_misfortune(
    database_url: str, valkey: Valkey, keys_of: Any, sandbox: Sandbox
) -> None:
    """Once somebody removes what is damaged, its own notifications go out as well (scenario 16)."""
    async with patient(database_url, valkey.url, [sandbox]) as running:
        acme, other = await customer(running, sandbox), await customer(running, sandbox, "other")
        keys_of.set(KEYS.queue(ACME), "not a list")
        keys_of.set(KEYS.inflight(ACME), "not a sorted set")
        damaged = [await acme.send(recipient) for recipient in recipients(3)]
        fine = [await other.send(recipient) for recipient in recipients(10)]
        await until(lambda: other.all_delivered(fine))
        meanwhile = await acme.statuses()
        keys_of.delete(KEYS.queue(ACME), KEYS.inflight(ACME))
        await until(lambda: acme.all_delivered(damaged))

    assert set(meanwhile.values()) == {"queued"}
    as_ever(sandbox, [*damaged, *fine], database_url)


async def test_damaged_keys_keep_the_janitor_from_mending_nobody_else(database_url: str, valkey: Valkey, keys_of: Any) -> None:
    made = ids(4)
    keys_of.set(KEYS.queue(ACME), "not a list")
    async with store(database_url) as pool, connected(valkey.url) as redis:
        queue = RedisQueue(redis, lease_s=60, shards=SHARDS)
        for id, organization_id in zip(made, (ACME, ACME, OTHER, OTHER), strict=True):
            await insert_notification(pool, id, organization_id)
        janitor = Janitor(
            PostgresStore(pool, "0192d3a4-7c1e-7f00-8000-0123456789ab"),
            queue,
            Metrics(),
            sweep_s=1,
            random=Random(1),
            unix_s=lambda: 1_800_000_000.0,
        )
        await janitor.mend()
        reseeded = (await queue.claim(OTHER, 10)).ids
        keys_of.delete(KEYS.inflight(OTHER))
        await janitor.mend()
        restored = (await queue.claim(OTHER, 10)).ids
        keys_of.delete(KEYS.queue(ACME))
        await janitor.mend()
        mended = (await queue.claim(ACME, 10)).ids

    assert reseeded == restored == made[2:]
    assert mended == made[:2]


async def test_ids_that_stand_in_the_wrong_places_are_each_sent_once(
    database_url: str, valkey: Valkey, keys_of: Any, sandbox: Sandbox
) -> None:
    """In flight and not in the list, in the list and in flight, twice, or nowhere at all (scenario 17)."""
    nowhere, lapsed, both, twice, delayed, elsewhere, unknown = ids(7)
    queued = [nowhere, lapsed, both, twice, delayed]
    async with patient(database_url, valkey.url, [sandbox]) as running:
        acme = await customer(running, sandbox)
        async with store(database_url) as pool:
            for id in queued:
                await insert_notification(pool, id, created_at=LONG_AGO, updated_at=LONG_AGO)
            await insert_notification(pool, elsewhere, status="delivered", attempts=1)
        keys_of.zadd(KEYS.inflight(ACME), {lapsed: 1, both: 1, elsewhere: 1})
        keys_of.zadd(KEYS.delayed(ACME), {delayed: 1})
        keys_of.lpush(KEYS.queue(ACME), both, twice, twice, delayed, elsewhere, unknown)
        keys_of.zadd(KEYS.active(shard_of(ACME, SHARDS)), {ACME: 1})
        await until(lambda: acme.all_delivered(queued))

        def is_empty() -> bool:
            return not keys_of.exists(KEYS.queue(ACME), KEYS.inflight(ACME), KEYS.delayed(ACME))

        await until(is_empty)

    assert sandbox.ledger.effects(elsewhere) == sandbox.ledger.effects(unknown) == 0
    as_ever(sandbox, list(queued), database_url)


# --- full ---------------------------------------------------------------------------------------------------


async def test_before_redis_is_full_producers_are_turned_away_and_when_it_is_full_work_goes_on(
    database_url: str, valkey: Valkey, keys_of: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(scenario 15) What was accepted is claimed, settled and announced; what was accepted too late is pushed when there is
    room, and nobody has to lend a hand."""
    monkeypatch.setattr(headroom, "MEMORY_EVERY_S", 0.1)
    async with patient(database_url, valkey.url, [sandbox]) as running:
        acme = await customer(running, sandbox)
        sandbox.change(latency_s=0.2)
        async with acme.listen() as feed:
            sent = await acme.send_all(recipients(150))
            await feed.until(type="notification.delivered")
            keys_of.script_flush()
            keys_of.config_set("maxmemory", "1")
            late = await acme.call("POST", "notifications", mail("late@example.org"))
            await until(lambda: is_short(running))
            refused = await acme.call("POST", "notifications", mail("ada@example.org"), {"idempotency-key": "k"})
            sandbox.change(latency_s=0)
            await feed.outcomes(sent)
            still = await running.service.node.queue.survived()
            full = await running.metrics()
            keys_of.config_set("maxmemory", "0")
            await until(lambda: not is_short(running))
            sent.append((await acme.post("notifications", mail("ada@example.org")))["id"])
            if late.status_code == 202:
                sent.append(late.json()["id"])
            await until(lambda: acme.all_delivered(sent))

    assert still
    assert (refused.status_code, refused.json()["code"]) == (429, "redis_memory_low")
    assert refused.headers["content-type"] == "application/problem+json"
    assert 5 <= int(refused.headers["retry-after"]) <= 10
    assert full["dispatcher_short_of_redis_memory"] == 1
    assert full["dispatcher_redis_memory_ratio"] > 1
    turned_away = 1 + (late.status_code == 429)
    assert full['dispatcher_events_total{event="turned_away_redis_memory_low"}'] == turned_away
    as_ever(sandbox, sent, database_url)


async def test_a_redis_that_may_evict_is_an_alarm(database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with own_valkey(tmp_path, maxmemory_policy="allkeys-lru") as valkey:
        async with patient(database_url, valkey.url) as running:
            await until(lambda: "set maxmemory-policy noeviction" in caplog.text)
            metrics = await running.metrics()

    assert metrics["dispatcher_redis_may_evict"] == 1
    assert metrics["dispatcher_short_of_redis_memory"] == 0


async def test_a_redis_that_does_not_tell_its_memory_turns_nobody_away(
    database_url: str, valkey: Valkey, keys_of: Any, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    keys_of.execute_command("ACL", "SETUSER", "default", "-info")
    async with patient(database_url, valkey.url, [sandbox]) as running:
        acme = await customer(running, sandbox)
        await until(lambda: "does not tell how much memory" in caplog.text)
        sent = [await acme.send("ada@example.org")]
        await until(lambda: acme.all_delivered(sent))


async def test_settling_what_a_full_redis_no_longer_knows_does_no_harm(valkey: Valkey, keys_of: Any) -> None:
    async with connected(valkey.url) as redis:
        queue = RedisQueue(redis, lease_s=60, shards=SHARDS)
        await queue.survived()
        keys_of.config_set("maxmemory", "1")
        await queue.settle([Settlement(ACME, done=ids(3), announcements=[b"{}"])])
        restored = await queue.restore(ACME, ids(3))
        claimed = (await queue.claim(ACME, 10)).ids

    assert restored == 3
    assert claimed == ids(3)


def is_short(running: Running) -> bool:
    return bool(running.service.node.headroom.gauges()["short_of_redis_memory"])


def connected(url: str) -> Any:
    return open_redis(url, connect_deadline_s=10, command_deadline_s=10, random=Random(1))
