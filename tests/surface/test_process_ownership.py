"""Two processes that share out the organizations: one is killed, stopped, or asked to end, and the other goes on for both."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from attrs import frozen

from dispatcher.keys import shard_of
from dispatcher.model import OrganizationId
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from running import PATIENCE_S, Customer, Program, enrol, environment, http_client, program, samples, store, until

ACME = OrganizationId("acme")
SHARDS = 16


@frozen
class Side:
    """One of two processes, and the organization acme as it is seen there."""

    program: Program
    incarnation: str
    acme: Customer

    async def metric(self, name: str) -> float:
        return samples((await self.acme.client.get(f"{self.acme.url}/metrics")).text).get(f"dispatcher_{name}", 0.0)


def owner_of(url: str, shard: int = shard_of(ACME, SHARDS)) -> tuple[str | None, int]:
    """Who owns a shard, and its epoch."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT owner::text, epoch FROM shards WHERE shard = %s", [shard]).fetchone()
    assert row is not None
    return row


def counts(url: str) -> dict[str, int]:
    """How many shards each process owns, by the clock of Postgres."""
    with psycopg.connect(url, autocommit=True) as connection:
        sql = "SELECT owner::text, count(*) FROM shards WHERE lease_until > now() GROUP BY owner"
        return dict(connection.execute(sql).fetchall())


def incarnations(url: str) -> set[str]:
    with psycopg.connect(url, autocommit=True) as connection:
        return {id for (id,) in connection.execute("SELECT id::text FROM incarnations").fetchall()}


@asynccontextmanager
async def two(
    database_url: str, redis_url: str, sandbox: Sandbox, owner_lease_s: float = 2.0
) -> AsyncIterator[tuple[Side, Side]]:
    """Two processes that have shared everything out; the first is the owner of acme."""
    settings = environment(database_url, redis_url, [sandbox.url], owner_lease_s=str(owner_lease_s))
    async with program("serve", settings=settings) as first, http_client() as client:
        first_url = await first.serving()
        (first_id,) = incarnations(database_url)
        await until(lambda: counts(database_url) == {first_id: SHARDS})
        async with store(database_url) as pool:
            key = await enrol(pool, ACME)
        async with program("serve", settings=settings) as second:
            second_url = await second.serving()
            (second_id,) = incarnations(database_url) - {first_id}
            sides = (
                Side(first, first_id, Customer(first_url, ACME, key, client)),
                Side(second, second_id, Customer(second_url, ACME, key, client)),
            )
            await sides[0].acme.add_provider(sandbox.url)

            async def shared_out() -> bool:
                owned = [await side.metric("shards_owned") for side in sides]
                return sum(owned) == SHARDS and (min(owned) > 0 or len(counts(database_url)) == 1)

            await until(shared_out)
            is_owner = owner_of(database_url)[0] == first_id
            yield sides if is_owner else (sides[1], sides[0])


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


async def test_a_killed_owner_is_succeeded_by_the_process_beside_it(database_url: str, redis_url: str, sandbox: Sandbox) -> None:
    """What is new is delivered as soon as the lease of its shards ends; what it held, when that of its attempts does."""
    sandbox.change(honour_idempotency_keys=True, latency_s=0.02)
    async with two(database_url, redis_url, sandbox) as (owner, other):
        ids = await other.acme.send_all(f"reader.{number}@example.org" for number in range(300))
        await until(lambda: sandbox.ledger.accepted >= 40)
        _, epoch = owner_of(database_url)
        owner.program.signal(signal.SIGKILL)
        await owner.program.ended()
        new = await other.acme.send_all(f"later.{number}@example.org" for number in range(20))
        await until(lambda: other.acme.all_delivered(new))
        held, still_registered = counts(database_url), incarnations(database_url)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("DELETE FROM incarnations WHERE id = %s", [owner.incarnation])  # the end of its other lease
        await until(lambda: other.acme.all_delivered(ids))
        successor = owner_of(database_url)

    assert held == {other.incarnation: SHARDS}
    assert owner.incarnation in still_registered
    assert successor == (other.incarnation, epoch + 1)
    assert {sandbox.ledger.effects(id) for id in (*ids, *new)} == {1}


async def test_an_owner_that_is_asked_to_end_hands_over_at_once(database_url: str, redis_url: str, sandbox: Sandbox) -> None:
    """Nobody waits for a lease, which would last for longer than this test has patience."""
    sandbox.change(latency_s=0.02)
    async with two(database_url, redis_url, sandbox, owner_lease_s=4 * PATIENCE_S) as (owner, other):
        ids = await other.acme.send_all(f"reader.{number}@example.org" for number in range(300))
        await until(lambda: sandbox.ledger.accepted >= 40)
        owner.program.signal(signal.SIGTERM)
        await until(lambda: other.acme.all_delivered(ids))
        held = counts(database_url)
        status = await owner.program.ended()
        said = owner.program.err

    assert status == 0
    assert held == {other.incarnation: SHARDS}
    assert {sandbox.ledger.effects(id) for id in ids} == {1}
    assert "ERROR" not in said


async def test_an_owner_that_stood_still_finds_its_shards_taken_and_sends_nothing_twice(
    database_url: str, redis_url: str, sandbox: Sandbox
) -> None:
    """Each call whose answer it slept through is marked, as one that may have had an effect. (scenario 7)"""
    sandbox.change(honour_idempotency_keys=True, latency_s=0.02)
    async with two(database_url, redis_url, sandbox) as (owner, other):
        ids = await other.acme.send_all(f"reader.{number}@example.org" for number in range(300))
        await until(lambda: sandbox.ledger.accepted >= 40)
        owner.program.signal(signal.SIGSTOP)
        new = await other.acme.send_all(f"later.{number}@example.org" for number in range(20))
        await until(lambda: other.acme.all_delivered(new))
        taken = owner_of(database_url)[0]
        owner.program.signal(signal.SIGCONT)
        await until(lambda: other.acme.all_delivered(ids))

        async def shared_out() -> bool:
            return await owner.metric("shards_owned") + await other.metric("shards_owned") == SHARDS

        await until(shared_out)
        with psycopg.connect(database_url, autocommit=True) as connection:
            ((unknowns,),) = connection.execute("SELECT sum(unknowns)::int FROM notifications").fetchall()

    assert taken == other.incarnation
    assert {sandbox.ledger.effects(id) for id in (*ids, *new)} == {1}
    assert sandbox.ledger.replayed <= unknowns
