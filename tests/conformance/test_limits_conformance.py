"""What the queue port keeps of channels' limits: one behaviour, in memory and on Redis.

Time passes by moving what is stored towards the past, as in the suite of the queue itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Protocol

import pytest
import redis as redis_py
from attrs import evolve

from actors.io.redis import open_redis
from actors.memory import MemoryQueue
from actors.ports import KEPT_S, Arrival, Queue, Settlement
from actors.redis_queue import RedisQueue
from dispatcher.breaker import SavedBreaker, State
from dispatcher.channel_memory import SavedChannel, from_kept, to_fields
from dispatcher.ids import uuid7
from dispatcher.keys import Keys
from dispatcher.model import Channel, NotificationId, OrganizationId
from dispatcher.pace import SavedPace
from dispatcher.quota import QuotaAnswer, QuotaAsk, QuotaPolicy

ACME, OTHER = OrganizationId("acme"), OrganizationId("other")
EMAIL, SMS = Channel.EMAIL, Channel.SMS
HOUR_S = 3600.0
POLICY = QuotaPolicy("account-1", 100, HOUR_S)
SAVED = SavedChannel(
    "c-1", 7, 2.5, 0.25, 30.0, True, SavedBreaker(State.OPEN, 3, 12.5, None), SavedPace(20.5, 30.0), 1_700_000_000_000
)


class World(Protocol):
    """One queue, and what a test may do to the server behind it."""

    queue: Queue

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""

    def lose_memory(self) -> None:
        """Forget everything; at least a millisecond passes."""


class MemoryWorld:
    def __init__(self) -> None:
        self._now_s = 1_700_000_000.0
        self._queue = MemoryQueue(lambda: self._now_s, lease_s=100.0)
        self.queue: Queue = self._queue

    def pass_time(self, seconds: float) -> None:
        self._now_s += seconds

    def lose_memory(self) -> None:
        self._queue.lose_memory()
        self._now_s += 0.001


class RedisWorld:
    def __init__(self, queue: RedisQueue, client: redis_py.Redis) -> None:
        self.queue: Queue = queue
        self._client: Any = client

    def pass_time(self, seconds: float) -> None:
        for key in self._client.scan_iter("notifications:provider:*"):
            self._client.hincrby(key, "at_ms", -int(seconds * 1000))
        for kind in ("provider", "rate"):
            for key in self._client.scan_iter(f"notifications:{kind}:*"):
                self._client.pexpireat(key, self._client.pexpiretime(key) - int(seconds * 1000))

    def lose_memory(self) -> None:
        self._client.flushall()
        seconds, micros = self._client.time()
        while self._client.time() < (seconds, micros + 1000):  # a server does not start anew within a millisecond
            pass


@asynccontextmanager
async def redis_world(url: str) -> AsyncIterator[RedisWorld]:
    with redis_py.Redis.from_url(url) as client:
        async with open_redis(url, connect_deadline_s=10, command_deadline_s=10, random=Random(1)) as redis:
            yield RedisWorld(RedisQueue(redis, lease_s=100.0, shards=4), client)


@pytest.fixture(params=["memory", "redis"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    url: str = request.getfixturevalue("redis_url")
    async with redis_world(url) as world:
        yield world


async def take(world: World, channel: Channel = EMAIL, organization_id: OrganizationId = ACME) -> Any:
    return (await world.queue.take_channels(organization_id, [channel]))[channel]


async def keep(world: World, life: int, saved: SavedChannel = SAVED, *, clean: bool = True) -> None:
    await world.queue.keep_channels(ACME, {EMAIL: (life, to_fields(saved, clean=clean))})


async def ask(world: World, n: int, window: int = 0, used: int = 0, policy: QuotaPolicy = POLICY) -> QuotaAnswer:
    return await world.queue.ask_quota(ACME, EMAIL, QuotaAsk(policy, n, window, used))


# --- records ------------------------------------------------------------------------------------------------------------


async def test_of_a_channel_that_never_lived_nothing_is_remembered(world: World) -> None:
    kept = await take(world)

    assert kept.age_s == 0.0
    assert from_kept(kept) is None


async def test_what_a_life_leaves_behind_is_read_with_its_age(world: World) -> None:
    kept = await take(world)
    await keep(world, kept.life)
    world.pass_time(90)
    remembered = from_kept(await take(world))

    assert remembered is not None
    assert remembered.saved == SAVED
    assert remembered.clean
    assert remembered.age_s == pytest.approx(90.0, abs=5.0)


async def test_reading_a_record_takes_its_tokens_until_the_reader_writes(world: World) -> None:
    await keep(world, (await take(world)).life)
    await take(world)
    world.pass_time(60)
    after_a_crash = from_kept(await take(world))

    assert after_a_crash is not None
    assert not after_a_crash.clean
    assert after_a_crash.saved == SAVED
    assert after_a_crash.age_s == pytest.approx(60.0, abs=5.0)


async def test_only_the_life_that_read_last_may_write(world: World) -> None:
    first = await take(world)
    second = await take(world)
    await keep(world, second.life, evolve(SAVED, level=1.0))
    await keep(world, first.life, evolve(SAVED, level=9.0))
    remembered = from_kept(await take(world))

    assert second.life > first.life
    assert remembered is not None
    assert remembered.saved is not None
    assert remembered.saved.level == 1.0


async def test_a_record_that_was_lost_may_be_written_again_by_whoever_lives(world: World) -> None:
    kept = await take(world)
    world.lose_memory()
    await keep(world, kept.life)
    remembered = from_kept(await take(world))

    assert remembered is not None
    assert remembered.saved == SAVED


async def test_a_life_whose_record_was_lost_does_not_write_over_that_of_a_later_one(world: World) -> None:
    early = await take(world)
    world.lose_memory()
    later = await take(world)
    await keep(world, later.life, evolve(SAVED, level=1.0))
    await keep(world, early.life, evolve(SAVED, level=9.0))
    remembered = from_kept(await take(world))

    assert remembered is not None
    assert remembered.saved is not None
    assert remembered.saved.level == 1.0


async def test_channels_and_organizations_have_records_of_their_own(world: World) -> None:
    both = await world.queue.take_channels(ACME, [EMAIL, SMS])
    mails, texts = to_fields(SAVED, clean=True), to_fields(evolve(SAVED, level=None, pace=None), clean=True)
    await world.queue.keep_channels(ACME, {EMAIL: (both[EMAIL].life, mails), SMS: (both[SMS].life, texts)})
    again = await world.queue.take_channels(ACME, [SMS, EMAIL])
    levels = [found.saved.level for found in map(from_kept, again.values()) if found is not None and found.saved is not None]

    assert list(again) == [SMS, EMAIL]
    assert levels == [None, 2.5]
    assert from_kept(await take(world, EMAIL, OTHER)) is None


async def test_a_record_ends_a_day_after_it_was_last_touched(world: World) -> None:
    await keep(world, (await take(world)).life)
    world.pass_time(KEPT_S - 60)
    still = from_kept(await take(world))
    world.pass_time(KEPT_S + 60)

    assert still is not None
    assert from_kept(await take(world)) is None


# --- quota --------------------------------------------------------------------------------------------------------------


async def test_units_are_granted_until_the_quota_is_used_up_and_again_in_the_next_window(world: World) -> None:
    answers = [await ask(world, 40) for _ in range(4)]
    world.pass_time(HOUR_S - 30)
    before = await ask(world, 40)
    world.pass_time(60)
    after = await ask(world, 40)

    assert [answer.granted for answer in answers] == [40, 40, 20, 0]
    assert [answer.used for answer in answers] == [40, 80, 100, 100]
    assert len({answer.window for answer in answers}) == 1
    assert answers[0].ends_in_s == pytest.approx(HOUR_S, abs=5.0)
    assert before.granted == 0
    assert before.ends_in_s == pytest.approx(30.0, abs=5.0)
    assert (after.granted, after.used) == (40, 40)
    assert after.ends_in_s == pytest.approx(HOUR_S, abs=5.0)


async def test_what_is_given_back_can_be_leased_again(world: World) -> None:
    answer = await ask(world, 100)
    back = await ask(world, -30, answer.window)
    again = await ask(world, 50, answer.window, 70)

    assert (back.granted, back.used) == (0, 70)
    assert (again.granted, again.used, again.window) == (30, 100, answer.window)


async def test_a_window_in_which_nothing_was_spent_has_not_begun(world: World) -> None:
    answer = await ask(world, 20)
    world.pass_time(600)
    now_known_as = (await ask(world, 20)).window  # time passes here by moving the window
    await ask(world, -40, now_known_as)
    fresh = await ask(world, 20)

    assert answer.granted == fresh.granted == 20
    assert fresh.ends_in_s == pytest.approx(HOUR_S, abs=5.0)


async def test_units_of_another_window_are_not_given_back_to_this_one(world: World) -> None:
    answer = await ask(world, 100)
    await ask(world, -50, answer.window - 1000)

    assert (await ask(world, 1)).granted == 0


async def test_another_account_has_a_counter_of_its_own(world: World) -> None:
    await ask(world, 100)
    other = await ask(world, 100, policy=evolve(POLICY, account="account 2"))

    assert (other.granted, other.used) == (100, 100)


async def test_a_counter_that_was_lost_goes_on_from_what_the_asker_has_last_heard(world: World) -> None:
    heard = await ask(world, 90)
    world.lose_memory()
    after = await ask(world, 40, heard.window, heard.used)

    assert (after.granted, after.used, after.window) == (10, 100, heard.window)


async def test_of_two_counts_the_larger_one_holds(world: World) -> None:
    heard = await ask(world, 60)
    world.lose_memory()
    await ask(world, 10)
    after = await ask(world, 40, heard.window, heard.used)
    one_more = await ask(world, 40, after.window, 20)

    assert (after.granted, after.used) == (40, 100)
    assert one_more.granted == 0


async def test_a_changed_quota_counts_for_the_window_under_way_and_a_shorter_window_shortens_it(world: World) -> None:
    await ask(world, 50)
    less = await ask(world, 50, policy=evolve(POLICY, quota=60))
    none = await ask(world, 50, policy=evolve(POLICY, quota=40, window_s=600.0))

    assert (less.granted, less.used) == (10, 60)
    assert none.granted == 0
    assert none.ends_in_s == pytest.approx(600.0, abs=5.0)


# --- parked ids ---------------------------------------------------------------------------------------------------------


async def test_a_claim_says_which_of_the_channels_it_is_asked_about_have_parked_ids(world: World) -> None:
    made = [NotificationId(uuid7(1_700_000_000_000 + number, number)) for number in range(2)]
    await world.queue.enqueue([Arrival(ACME, made, ())])
    await world.queue.claim(ACME, 2)
    await world.queue.settle([Settlement(ACME, done=made[1:], parked=[(SMS, made[0])])])
    both = await world.queue.claim(ACME, 1, [EMAIL, SMS])
    none = await world.queue.claim(ACME, 1)
    await world.queue.unpark(ACME, SMS, 1)
    after = await world.queue.claim(ACME, 1, [EMAIL, SMS])

    assert (list(both.parked), list(none.parked), list(after.parked)) == ([SMS], [], [])


# --- only on Redis ------------------------------------------------------------------------------------------------------


async def test_limits_are_kept_and_quota_is_leased_when_redis_is_out_of_memory(redis_url: str) -> None:
    async with redis_world(redis_url) as world:
        with redis_py.Redis.from_url(redis_url) as client:
            client.config_set("maxmemory", "1")
            try:
                kept = await take(world)
                await keep(world, kept.life)
                remembered = from_kept(await take(world))
                answer = await ask(world, 10)
            finally:
                client.config_set("maxmemory", "0")

    assert remembered is not None
    assert remembered.saved == SAVED
    assert answer.granted == 10


async def test_keys_of_another_making_are_no_record_and_no_counter(redis_url: str) -> None:
    async with redis_world(redis_url) as world:
        with redis_py.Redis.from_url(redis_url) as client:
            client.hset(Keys().provider(ACME, EMAIL), mapping={"level": "nan", "at_ms": "soon", "life": "x", "\xff": b"\xff"})
            client.set(Keys().rate(ACME, EMAIL), "17")
        kept = await take(world)
        remembered = from_kept(kept)

        assert kept.age_s == 0.0
        assert remembered is not None
        assert (remembered.clean, remembered.saved) == (False, None)
        assert (await ask(world, 100)).granted == 100


async def test_nothing_that_limits_a_channel_outlives_its_window_or_its_day(redis_url: str) -> None:
    async with redis_world(redis_url) as world:
        await keep(world, (await take(world)).life)
        await ask(world, 1)
        with redis_py.Redis.from_url(redis_url) as client:
            seconds = {name: client.ttl(name(ACME, EMAIL)) for name in (Keys().provider, Keys().rate)}

    assert list(seconds.values()) == [pytest.approx(KEPT_S, abs=5), pytest.approx(HOUR_S, abs=5)]
