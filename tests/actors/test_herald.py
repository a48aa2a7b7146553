"""Listeners hear everything once and in order, also across a gap; a slow one hurts nobody else. On a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import orjson
import pytest
import redis
import trio
import trio.testing
from attrs import define, field

from actors.herald import CHANGED_TOPIC, Herald
from actors.io.redis import Redis, Subscriber, open_redis, open_subscriber
from actors.ports import Arrival
from actors.redis_queue import RedisQueue
from dispatcher.errors import Overloaded, QueueUnavailable
from dispatcher.keys import Keys, shard_of
from dispatcher.model import NotificationId, OrganizationId
from dispatcher.problems import Refused

ORG, OTHER = OrganizationId("acme"), OrganizationId("other")
SHARDS = 4
KEYS = Keys()


@define
class Around:
    """A herald and what stands around it."""

    herald: Herald
    redis: Redis
    queue: RedisQueue
    woken: list[str] = field(factory=list)
    changed: list[str] = field(factory=list)
    missed: list[None] = field(factory=list)
    news: trio.Event = field(factory=trio.Event)
    count: int = 0

    async def announce(self, n: int, organization_id: OrganizationId = ORG) -> list[int]:
        """Publish ``n`` numbered events as the queue does."""
        numbers = list(range(self.count, self.count + n))
        self.count += n
        events = [orjson.dumps({"type": "test", "n": number}) for number in numbers]
        ids = [NotificationId(f"0192d3a4-7c1e-7f00-8000-{number:012d}") for number in numbers]
        await self.queue.enqueue([Arrival(organization_id, ids, events)])
        return numbers

    def notice(self) -> None:
        self.news.set()

    async def until(self, happened: Any) -> None:
        with trio.fail_after(10):
            while not happened():
                self.news = trio.Event()
                await self.news.wait()


@asynccontextmanager
async def running(redis_url: str, *, listeners_max: int = 10, buffer_max: int = 100) -> AsyncIterator[Around]:
    connection, subscription = (
        open_redis(redis_url, random=Random(1), connect_deadline_s=5, command_deadline_s=5),
        open_subscriber(redis_url, random=Random(1), connect_deadline_s=5, command_deadline_s=5),
    )
    async with connection as client, subscription as subscriber, trio.open_nursery() as nursery:
        around = Around(None, client, RedisQueue(client, lease_s=60, shards=SHARDS))  # type: ignore[arg-type]
        around.herald = make(around, client, subscriber, listeners_max, buffer_max)
        nursery.start_soon(around.herald.run)
        yield around
        nursery.cancel_scope.cancel()


def make(around: Around, client: Redis, subscriber: Subscriber, listeners_max: int, buffer_max: int) -> Herald:
    def woken(organization_id: OrganizationId) -> None:
        around.woken.append(organization_id)
        around.notice()

    def changed(organization_id: OrganizationId) -> None:
        around.changed.append(organization_id)
        around.notice()

    def missed() -> None:
        around.missed.append(None)
        around.notice()

    return Herald(
        client,
        subscriber,
        shards=SHARDS,
        listeners_max=listeners_max,
        buffer_max=buffer_max,
        on_wake=woken,
        on_changed=changed,
        on_missed=missed,
    )


async def heard(events: AsyncIterator[bytes], n: int) -> list[dict[str, Any]]:
    """The next ``n`` events."""
    with trio.fail_after(10):
        return [orjson.loads(await anext(events)) for _ in range(n)]


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["n"] for event in events]


async def test_a_listener_hears_what_is_announced_from_now_on(redis_url: str) -> None:
    async with running(redis_url) as around:
        await around.announce(3)
        async with around.herald.listen(ORG, None) as events:
            first = await around.announce(2)
            told = await heard(events, 2)

    assert numbers(told) == first
    assert told[0]["position"] < told[1]["position"]


async def test_a_listener_resumes_after_a_position_without_gap_or_repeat(redis_url: str) -> None:
    async with running(redis_url) as around:
        async with around.herald.listen(ORG, None) as events:
            await around.announce(3)
            told = await heard(events, 2)
        await around.announce(2)
        async with around.herald.listen(ORG, told[-1]["position"]) as events:
            await around.announce(2)
            rest = await heard(events, 5)

    assert numbers(told + rest) == list(range(7))


async def test_from_zero_a_listener_hears_all_that_is_kept(redis_url: str) -> None:
    async with running(redis_url) as around:
        all_of_them = await around.announce(5)
        async with around.herald.listen(ORG, "0") as events:
            told = await heard(events, 5)

    assert numbers(told) == all_of_them


async def test_a_position_that_is_no_longer_kept_begins_with_a_gap_notice(redis_url: str) -> None:
    async with running(redis_url) as around:
        await around.announce(1)
        async with around.herald.listen(ORG, "1-1") as events:
            told = await heard(events, 2)

    assert told[0]["type"] == "stream.gap"
    assert numbers(told[1:]) == [0]


@pytest.mark.parametrize("since", ["", "x", "1-2-3", "-1", "9" * 30, "0x1", "1\n"])
async def test_a_position_that_is_none_is_refused(redis_url: str, since: str) -> None:
    async with running(redis_url) as around:
        with pytest.raises(Refused) as caught:
            async with around.herald.listen(ORG, since):
                pass

    assert caught.value.problem.code == "position_invalid"


async def test_nobody_hears_another_organization(redis_url: str) -> None:
    async with running(redis_url) as around:
        async with around.herald.listen(ORG, "0") as events:
            await around.announce(3, OTHER)
            mine = await around.announce(1)
            told = await heard(events, 1)

    assert numbers(told) == mine


async def test_a_slow_listener_is_cut_and_the_others_hear_everything(redis_url: str) -> None:
    async with running(redis_url, buffer_max=5) as around:
        async with around.herald.listen(ORG, None) as slow, around.herald.listen(ORG, None) as quick:
            told: list[int] = []
            for _ in range(4):
                await around.announce(3)
                told += numbers(await heard(quick, 3))
            with pytest.raises(Overloaded):
                await heard(slow, 12)

    assert told == list(range(12))


async def test_listeners_are_limited_and_leave_room_when_they_go(redis_url: str) -> None:
    async with running(redis_url, listeners_max=1) as around:
        async with around.herald.listen(ORG, None):
            with pytest.raises(Overloaded):
                async with around.herald.listen(ORG, None):
                    pass
        async with around.herald.listen(ORG, None):
            assert around.herald.statistics().listeners == 1
        assert (around.herald.statistics().listeners, around.herald.statistics().topics) == (0, 0)


async def test_a_cancelled_listener_leaves_nothing_behind(redis_url: str) -> None:
    async with running(redis_url) as around:
        for _ in range(5):
            async with trio.open_nursery() as nursery:

                async def listen() -> None:
                    async with around.herald.listen(ORG, None) as events:
                        await anext(events)

                nursery.start_soon(listen)
                await trio.testing.wait_all_tasks_blocked(0.01)
                nursery.cancel_scope.cancel()
        assert (around.herald.statistics().listeners, around.herald.statistics().topics) == (0, 0)


async def test_after_a_lost_connection_the_missed_events_follow(redis_url: str) -> None:
    async with running(redis_url) as around:
        async with around.herald.listen(ORG, None) as events:
            await around.announce(1)
            told = await heard(events, 1)
            with redis.Redis.from_url(redis_url) as outsider:
                outsider.client_kill_filter(_type="pubsub")
            await around.announce(5)
            told += await heard(events, 5)
            await around.announce(1)
            told += await heard(events, 1)

    assert numbers(told) == list(range(7))
    assert around.missed


async def test_missed_events_follow_also_when_commands_work_later_than_the_subscription(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have connections of their own, which come back at their own time."""
    async with running(redis_url) as around:
        async with around.herald.listen(ORG, None) as events:
            await around.announce(1)
            told = await heard(events, 1)
            execute_many, refusals = around.redis.execute_many, [QueueUnavailable("still away")] * 3

            async def late(commands: Any) -> Any:
                if refusals and commands[0][0] == "XRANGE":
                    raise refusals.pop()
                return await execute_many(commands)

            with monkeypatch.context() as patch:
                patch.setattr(around.redis, "execute_many", late)
                with redis.Redis.from_url(redis_url) as outsider:
                    outsider.client_kill_filter(_type="pubsub")
                await around.announce(5)
                told += await heard(events, 5)
            await around.announce(1)
            told += await heard(events, 1)

    assert numbers(told) == list(range(7))
    assert refusals == []


async def test_who_missed_more_than_fits_the_buffer_must_come_back_and_nobody_else_is_harmed(redis_url: str) -> None:
    async with running(redis_url, buffer_max=10) as around:
        async with around.herald.listen(ORG, None) as events, around.herald.listen(OTHER, None) as others:
            await around.announce(1)
            await heard(events, 1)
            with redis.Redis.from_url(redis_url) as outsider:
                outsider.client_kill_filter(_type="pubsub")
            await around.announce(50)
            theirs = await around.announce(1, OTHER)
            with pytest.raises(Overloaded):
                await heard(events, 50)
            told = await heard(others, 1)

    assert numbers(told) == theirs


async def test_what_is_held_for_a_listener_that_reads_its_replay_slowly_is_bounded(redis_url: str) -> None:
    async with running(redis_url, buffer_max=10) as around:
        await around.announce(3)
        async with around.herald.listen(ORG, "0") as events, around.herald.listen(ORG, None) as quick:
            told = await heard(events, 1)
            for _ in range(4):
                await around.announce(5)
                await heard(quick, 5)
            with pytest.raises(Overloaded):
                told += await heard(events, 20)

    assert numbers(told) == [0]


async def test_wake_ups_and_changes_are_handed_on(redis_url: str) -> None:
    async with running(redis_url) as around:
        with redis.Redis.from_url(redis_url) as outsider:
            while not outsider.publish(KEYS.wake(shard_of(ORG, SHARDS)), ORG):
                await trio.lowlevel.checkpoint()
            outsider.publish(CHANGED_TOPIC, OTHER)
        await around.until(lambda: around.woken and around.changed)

    assert (around.woken, around.changed) == (["acme"], ["other"])


async def test_a_change_is_told_to_every_process_and_to_this_one_even_without_redis(redis_url: str) -> None:
    async with running(redis_url) as here, running(redis_url) as there:
        await there.announce(1, OTHER)  # by its wake-up we know that it listens
        await there.until(lambda: there.woken)
        await here.herald.changed(ORG)
        await there.until(lambda: there.changed)

    assert here.changed[0] == "acme"
    assert there.changed == ["acme"]
