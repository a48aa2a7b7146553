"""Two providers for one channel: everything real, in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from dispatcher_sandbox.behaviour import Outage
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from running import Customer, Running, dispatching, provider, until


class Two(NamedTuple):
    """A customer with two providers; the second one is a standby."""

    acme: Customer
    best: Sandbox
    standby: Sandbox
    best_id: str
    standby_id: str

    async def send(self, n: int) -> list[str]:
        return await self.acme.send_all(f"reader.{number}@example.org" for number in range(n))


@pytest.fixture
async def sandboxes() -> AsyncIterator[tuple[Sandbox, Sandbox]]:
    async with open_sandbox() as best, open_sandbox() as standby:
        yield best, standby


@pytest.fixture
async def running(database_url: str, redis_url: str, sandboxes: tuple[Sandbox, Sandbox]) -> AsyncIterator[Running]:
    async with dispatching(database_url, redis_url, sandboxes) as running:
        yield running


@pytest.fixture
async def two(running: Running, sandboxes: tuple[Sandbox, Sandbox]) -> Two:
    acme = await running.customer("acme")
    best, standby = sandboxes
    best_id = await acme.add_provider(best.url, concurrency_max=4)
    standby_id = (await acme.post("providers", {**provider(standby.url), "priority": 10}))["id"]
    return Two(acme, best, standby, best_id, standby_id)


async def test_what_one_provider_can_not_take_another_does_and_it_gets_its_traffic_back(two: Two, running: Running) -> None:
    acme = two.acme
    async with acme.listen() as feed:
        before = await two.send(10)
        await feed.outcomes(before)
        two.best.change(outage=Outage.UNAVAILABLE)
        during = await two.send(60)
        moved = await feed.until(type="channel.failed_over", channel="email")
        outcomes = await feed.outcomes(during)
        timelines = [(await acme.get(f"notifications/{id}"))["timeline"] for id in during]
        metrics = await running.metrics()
        two.best.change(outage=Outage.NONE)
        after: list[str] = []

        async def is_back() -> bool:
            after.extend(await two.send(10))
            return any(event["type"] == "channel.failed_back" for event in feed.heard)

        while not await is_back():
            await feed.outcomes(after)
        last = await two.send(10)
        await feed.outcomes(last)

    assert (moved["provider_config_id"], moved["to"]) == (two.best_id, two.standby_id)
    assert metrics['dispatcher_alarms_total{channel="email",code="failed_over"}'] >= 1
    assert set(outcomes.values()) == {"notification.delivered"}
    assert {two.standby.ledger.effects(id) for id in during} == {1}
    assert {two.best.ledger.effects(id) for id in [*before, *last]} == {1}
    assert not any(two.standby.ledger.effects(id) for id in [*before, *last])
    assert {timeline[-1]["provider_config_id"] for timeline in timelines} == {two.standby_id}
    both = [{entry["provider_config_id"] for entry in timeline[1:]} for timeline in timelines]
    assert {two.best_id, two.standby_id} in both  # those that the better one refused before its breaker opened


async def test_what_one_provider_may_have_taken_waits_for_it_while_the_rest_goes_elsewhere(two: Two) -> None:
    acme = two.acme
    two.best.change(outage=Outage.CLOSE)
    async with acme.listen() as feed:
        ids = await two.send(40)
        await feed.until(type="channel.failed_over", channel="email")

        async def of_the_rest_all_are_delivered() -> bool:
            found = [await acme.get(f"notifications/{id}") for id in ids]
            return all(each["status"] == "delivered" or each["unknowns"] for each in found)

        await until(of_the_rest_all_are_delivered)
        doubted = [id for id in ids if (await acme.get(f"notifications/{id}"))["unknowns"]]
        elsewhere = [id for id in doubted if two.standby.ledger.effects(id)]
        two.best.change(outage=Outage.NONE)
        outcomes = await feed.outcomes(ids)
    delivered = [id for id, outcome in outcomes.items() if outcome == "notification.delivered"]

    assert doubted
    assert len(doubted) < len(ids)
    assert elsewhere == []
    assert not any(two.standby.ledger.effects(id) for id in doubted)
    assert {*ids} - {*doubted} <= {*delivered}
    assert {two.best.ledger.effects(id) for id in delivered if id in doubted} <= {1}  # else a second doubt: for a person


async def test_equals_share_by_weight(two: Two) -> None:
    acme = two.acme
    document = provider(two.standby.url, weight=300)
    await acme.call("DELETE", f"providers/{two.standby_id}")
    await acme.post("providers", document)
    async with acme.listen() as feed:
        for _ in range(4):
            await feed.outcomes(await two.send(40))

    shares = [sum(dict(each.ledger.organizations.items()).values()) for each in (two.best, two.standby)]
    assert sum(shares) == 160
    assert 100 <= shares[1] <= 140
