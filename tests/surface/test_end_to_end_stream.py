"""The event stream of a whole dispatcher: live, resumed, and for those who read slowly or come back late."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dispatcher_http.listener import StreamEnded
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from running import Customer, Event, Feed, Running, dispatching


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def running(database_url: str, redis_url: str, sandbox: Sandbox) -> AsyncIterator[Running]:
    async with dispatching(database_url, redis_url, [sandbox]) as running:
        yield running


@pytest.fixture
async def acme(running: Running, sandbox: Sandbox) -> Customer:
    acme = await running.customer("acme")
    await acme.add_provider(sandbox.url)
    return acme


def position(event: Event) -> tuple[int, ...]:
    return tuple(int(part) for part in event["position"].split("-"))


async def deliver(customer: Customer, feed: Feed, count: int) -> list[str]:
    ids = await customer.send_all(f"reader.{number}@example.org" for number in range(count))
    await feed.outcomes(ids)
    return ids


async def test_positions_rise_and_no_event_comes_twice(acme: Customer) -> None:
    async with acme.listen() as feed:
        ids = await deliver(acme, feed, 50)
    positions = [position(event) for event in feed.heard]

    assert positions == sorted(set(positions))
    assert all(feed.of(id) == ["created", "delivered"] for id in ids)


async def test_who_comes_back_with_a_position_hears_exactly_what_was_missed(acme: Customer) -> None:
    async with acme.listen() as witness:
        async with acme.listen() as early:
            await deliver(acme, early, 10)
            left_at = early.heard[-1]
        await deliver(acme, witness, 10)
        async with acme.listen(since=left_at["position"]) as late:
            await deliver(acme, late, 10)
            await late.until(position=witness.heard[-1]["position"])
            await witness.until(position=late.heard[-1]["position"])

    assert late.heard == [event for event in witness.heard if position(event) > position(left_at)]


async def test_since_0_replays_everything_that_is_kept(acme: Customer) -> None:
    async with acme.listen() as witness:
        await deliver(acme, witness, 20)
    async with acme.listen(since="0") as feed:
        await feed.until(position=witness.heard[-1]["position"])

    assert feed.heard == witness.heard


async def test_a_position_the_stream_no_longer_has_begins_with_a_gap(acme: Customer) -> None:
    async with acme.listen() as witness:
        ids = await deliver(acme, witness, 5)
    async with acme.listen(since="1000-0") as feed:
        first = await feed.next()
        await feed.outcomes(ids)

    assert first["type"] == "stream.gap"
    assert feed.heard[1:] == witness.heard


async def test_a_position_that_is_none_is_refused_before_the_upgrade(acme: Customer) -> None:
    with pytest.raises(StreamEnded) as refused:
        async with acme.listen(since="yesterday"):
            pass

    assert refused.value.code == 400


async def test_a_large_batch_reaches_an_attentive_listener_whole(acme: Customer) -> None:
    """Its events come in one burst, faster than a websocket takes them."""
    async with acme.listen() as feed:
        ids = await deliver(acme, feed, 1500)

    assert all(feed.of(id) == ["created", "delivered"] for id in ids)


async def test_who_is_cut_for_being_slow_comes_back_and_has_missed_nothing(
    database_url: str, redis_url: str, sandbox: Sandbox
) -> None:
    heard: list[Event] = []
    cuts: list[int] = []

    def delivered() -> set[str]:
        return {event["id"] for event in heard if event["type"] == "notification.delivered"}

    async with dispatching(database_url, redis_url, [sandbox], listener_buffer_max="20") as running:
        acme = await running.customer("acme")
        await acme.add_provider(sandbox.url)
        async with acme.listen() as feed:
            ids = await acme.send_all(f"reader.{number}@example.org" for number in range(300))
            heard.append(await feed.next())
        while delivered() != set(ids):
            async with acme.listen(since=heard[-1]["position"]) as feed:
                try:
                    while delivered() != set(ids):
                        heard.append(await feed.next())
                except StreamEnded as cut:
                    cuts.append(cut.code)
        metrics = await running.metrics()

    assert set(cuts) <= {4008}
    assert metrics["dispatcher_http_listeners_cut_total"] >= 1
    positions = [position(event) for event in heard]
    assert positions == sorted(set(positions))
    assert {event["id"] for event in heard if event["type"] == "notification.created"} == set(ids)
