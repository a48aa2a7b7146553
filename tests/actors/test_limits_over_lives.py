"""Limits that hold although actors sleep, drain, crash and start: real actors on virtual time, one queue in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock

from actor_world import ACME, IDLE_S, MAIL, OTHER, ActorWorld, Operations
from actors.callers import Callers
from actors.channel_memory import TRIES_MAX, ChannelMemory
from actors.io.http import Deadlines, MaybeSent
from actors.memory import Moment
from actors.ports import Settlement
from dispatcher.breaker import BreakerPolicy
from dispatcher.channel_state import ChannelState
from dispatcher.errors import QueueRefused, QueueUnavailable
from dispatcher.http_message import HttpRequest, HttpResponse
from dispatcher.messages import Verdict
from dispatcher.model import Channel, NotificationId
from dispatcher.organization import PARKED_LOOK_S
from dispatcher.outcome import OutcomeClass
from dispatcher.quota import block_of

EMAIL, SMS = Channel.EMAIL, Channel.SMS
TEXT = evolve(MAIL, config_id="c-text", provider="texter", channel=SMS)
METERED = evolve(MAIL, quota=30, quota_window_s=3600.0)


def following(world: ActorWorld, number: int = 2) -> ActorWorld:
    """The process after this one: another incarnation, the same servers, the same configuration."""
    process = ActorWorld(queue=world.queue, database=world.database, incarnation=f"incarnation-{number}")
    process.policies = world.policies
    process.provider = world.provider
    return process


def calls(world: ActorWorld) -> int:
    return len(world.provider.called)


def answering(status: int) -> Callable[[NotificationId], Awaitable[int]]:
    async def conduct(_: NotificationId) -> int:
        await trio.sleep(0.1)
        return status

    return conduct


async def hang() -> None:
    await trio.sleep_forever()


# --- tokens -------------------------------------------------------------------------------------------------------------


async def test_no_burst_is_given_away_by_a_restart_a_sleep_or_a_crash(autojump_clock: MockClock) -> None:
    """At one call in a hundred seconds each life would begin with a token if it did not know of the one before."""
    world = ActorWorld()
    world.policies = [evolve(MAIL, rate_per_s=0.01, burst=3)]
    for number in range(20):
        process = following(world, number)
        async with process.running():
            await process.accept(2)
            await trio.sleep(2.0)
            if number % 2:
                await process.organizations.drain()

    assert calls(world) <= 2


async def test_tokens_saved_up_before_a_sleep_are_there_after_it(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.policies = [evolve(MAIL, rate_per_s=0.1, burst=4)]
    async with world.running():
        await world.accept(1)
        await trio.sleep(35.0)
        await world.organizations.drain()
    process = following(world)
    async with process.running():
        before = calls(world)
        await process.accept(10)
        await trio.sleep(2.0)

    assert calls(world) - before == 3


async def test_what_an_actor_spends_after_it_could_not_fall_asleep_is_not_on_record_as_unspent(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.policies = [evolve(MAIL, rate_per_s=0.1, burst=5)]
    world.queue.interrupt = operations = Operations()
    refusals = 1

    async def refuse() -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise QueueUnavailable("away")

    operations.on["retire", Moment.BEFORE] = refuse
    async with world.running():
        await world.accept(1)
        await trio.sleep(IDLE_S + 20.0)
        assert not refusals
        await world.accept(10)
        await trio.sleep(5.0)
        first_life = calls(world)
    process = following(world)
    async with process.running():
        await process.accept(10)
        await trio.sleep(2.0)

    assert first_life >= 5
    assert calls(world) <= first_life + 1


async def test_it_is_put_on_record_with_the_next_claim_when_redis_could_not_be_told_at_once(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.policies = [evolve(MAIL, rate_per_s=0.1, burst=5)]
    world.queue.interrupt = operations = Operations()
    away_until_s = IDLE_S + 10.0

    async def refuse() -> None:
        if trio.current_time() < away_until_s:
            operations.on["keep_channels", Moment.BEFORE] = refuse  # and it stays away for what comes next
            raise QueueUnavailable("away")

    operations.on["retire", Moment.BEFORE] = refuse
    async with world.running():
        await world.accept(1)
        await trio.sleep(IDLE_S + 15.0)
        assert ("keep_channels", Moment.BEFORE) in operations.on
        await world.accept(10)
        await trio.sleep(2.0)
        first_life = calls(world)
    process = following(world)
    async with process.running():
        await process.accept(10)
        await trio.sleep(2.0)

    assert first_life >= 4
    assert calls(world) <= first_life + 1


# --- breakers and pauses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drained", [True, False])
async def test_an_open_breaker_is_still_open_for_the_next_process(autojump_clock: MockClock, drained: bool) -> None:
    """However the first one ended; and what its calls cost is not paid again (scenario 40)."""
    world = ActorWorld()
    world.provider.conduct = answering(503)
    async with world.running():
        await world.accept(20)
        await trio.sleep(3.0)
        if drained:
            await world.organizations.drain()
    first_life = calls(world)
    process = following(world)
    async with process.running():
        await process.accept(20)
        await trio.sleep(1.5)
        (actor,) = process.organizations.alive()
        state = actor.core.routes.states[MAIL.config_id].breaker_state
        at_once = calls(world)
        await trio.sleep(20.0)

    assert state == "open"
    assert at_once == first_life
    assert first_life < calls(world) <= first_life + 2 * 3  # its time has passed: probes


async def test_what_changed_while_redis_was_away_is_on_record_once_it_is_back(autojump_clock: MockClock) -> None:
    """Nothing else may change for long: an open breaker of an hour, say."""
    memory, channel = ChannelMemory(ACME, queue := ActorWorld().queue), ChannelState.start(MAIL, BreakerPolicy(), 0.0)
    queue.interrupt = operations = Operations()

    async def refuse() -> None:
        if trio.current_time() < 20.0:
            raise QueueUnavailable("away")

    operations.on["keep_channels", Moment.BEFORE] = refuse
    await memory.recall([MAIL])
    assert memory.changed(MAIL.config_id)
    await memory.gather({MAIL.config_id: channel})

    assert "breaker" in (await queue.take_channels(ACME, [EMAIL]))[EMAIL].fields
    assert operations.count("keep_channels") == 21
    assert memory.changed(MAIL.config_id)  # it has ended, and can be begun again


async def test_a_late_repetition_does_not_take_back_that_a_life_has_ended(autojump_clock: MockClock) -> None:
    memory, channel = ChannelMemory(ACME, queue := ActorWorld().queue), ChannelState.start(MAIL, BreakerPolicy(), 0.0)
    queue.interrupt = operations = Operations()

    async def be_slow_and_fail() -> None:
        operations.on.clear()
        await trio.sleep(1.0)
        raise QueueUnavailable("away")

    operations.on["keep_channels", Moment.BEFORE] = be_slow_and_fail
    await memory.recall([MAIL])
    assert memory.changed(MAIL.config_id)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(memory.gather, {MAIL.config_id: channel})
        await trio.sleep(0.5)
        await memory.leave({MAIL.config_id: channel}, ())

    assert (await queue.take_channels(ACME, [EMAIL]))[EMAIL].fields["clean"] == "1"


async def test_limits_that_redis_never_takes_are_not_written_for_ever(autojump_clock: MockClock) -> None:
    memory, channel = ChannelMemory(ACME, queue := ActorWorld().queue), ChannelState.start(MAIL, BreakerPolicy(), 0.0)
    queue.interrupt = operations = Operations()
    refused = True

    async def refuse() -> None:
        if refused:
            raise QueueRefused("refused")

    operations.on["keep_channels", Moment.BEFORE] = refuse
    await memory.recall([MAIL])
    assert memory.changed(MAIL.config_id)
    await memory.gather({MAIL.config_id: channel})
    refused = False
    assert memory.changed("another")
    await memory.gather({MAIL.config_id: channel})

    assert operations.count("keep_channels") == TRIES_MAX + 1
    assert "breaker" in (await queue.take_channels(ACME, [EMAIL]))[EMAIL].fields


async def test_a_provider_that_refuses_is_not_pressed_by_each_new_process(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.provider.conduct = answering(429)
    for number in range(10):
        process = following(world, number)
        async with process.running():
            await process.accept(5)
            await trio.sleep(3.0)
            await process.organizations.drain()

    assert calls(world) <= 4 + 30 / 1.0  # at most one a pause after the first calls at once


async def test_changes_are_written_at_most_once_a_second_for_all_channels_together(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.policies = [MAIL, TEXT]
    world.queue.interrupt = operations = Operations()
    world.provider.conduct = answering(503)
    async with world.running():
        for _ in range(60):
            await world.accept(3)
            await world.accept(3, channel=SMS)
            await trio.sleep(0.5)

    assert 1 <= operations.count("keep_channels") <= 31
    assert operations.count("take_channels") == 1


@pytest.mark.parametrize("operation", ["take_channels", "keep_channels", "ask_quota"])
async def test_redis_being_away_delays_nothing_but_what_needs_a_quota(autojump_clock: MockClock, operation: str) -> None:
    world = ActorWorld()
    world.policies = [MAIL, evolve(TEXT, quota=1000)]
    world.queue.interrupt = operations = Operations()
    away = True

    async def fail() -> None:
        if away:
            raise QueueUnavailable("away")

    operations.on[operation, Moment.BEFORE] = fail
    async with world.running():
        mails = await world.accept(10)
        texts = await world.accept(10, channel=SMS)
        await trio.sleep(5.0)
        at_first = world.statuses(mails), world.statuses(texts)
        away = False
        await trio.sleep(20.0)

    assert at_first == ({"delivered"}, {"queued"} if operation == "ask_quota" else {"delivered"})
    assert world.statuses(texts) == {"delivered"}
    assert operations.count(operation) < 30


@pytest.mark.parametrize("where", ["take_channels", "keep_channels", "ask_quota"])
@pytest.mark.parametrize("moment", Moment)
async def test_cancelled_while_limits_are_on_their_way_it_gives_every_permit_back(
    autojump_clock: MockClock, where: str, moment: Moment
) -> None:
    world = ActorWorld()
    world.policies = [METERED]
    world.provider.conduct = answering(429)
    world.queue.interrupt = operations = Operations()
    operations.on[where, moment] = hang
    async with world.running():
        await world.accept(10)
        await trio.sleep(3.0)

    assert operations.count(where) >= 1
    assert world.permits.statistics().held == 0


# --- quota --------------------------------------------------------------------------------------------------------------


async def test_a_quota_holds_over_processes_and_what_is_left_waits_for_the_next_window(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.policies = [METERED]
    sent = []
    for number in range(3):
        process = following(world, number)
        async with process.running():
            await process.accept(20)
            await trio.sleep(5.0)
            sent.append(calls(world))
            if number < 2:
                await process.organizations.drain()
            else:
                rows = list(world.database.rows.values())
                attempts = sum(row.attempts for row in rows)
                await trio.sleep(3700.0)
                sent.append(calls(world))

    assert sent[:3] == [20, 30, 30]
    assert attempts == 30  # waiting costs none
    assert sent[3] == 60
    assert sum(notice.count(b"channel.quota_used_up") for notice in world.queue.announced(ACME)) == 2  # once in each window


async def test_a_process_that_dies_takes_no_more_of_the_quota_along_than_what_it_held(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.policies = [evolve(METERED, quota=200)]
    async with world.running():
        await world.accept(50)
        await trio.sleep(10.0)
    process = following(world)
    async with process.running():
        await process.accept(300)
        await trio.sleep(60.0)

    assert 200 - 2 * block_of(200) <= calls(world) <= 200


async def test_units_a_sleeping_organization_does_not_need_are_there_for_others(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.policies = [evolve(METERED, quota=1000)]
    async with world.running():
        await world.accept(3)
        await trio.sleep(IDLE_S + 10.0)
        asleep = world.organizations.alive() == []

    assert asleep
    assert world.queue.limits.counters[ACME, EMAIL].used == 3


async def test_a_redis_that_lost_its_memory_begins_no_new_window_while_somebody_knows(
    autojump_clock: MockClock,
) -> None:
    world = ActorWorld()
    world.policies = [METERED]
    async with world.running():
        await world.accept(20)
        await trio.sleep(3.0)
        world.queue.lose_memory()
        await world.accept(30)
        await trio.sleep(30.0)

    assert calls(world) == 30


# --- one channel beside another -------------------------------------------------------------------------------------------


async def test_a_channel_at_a_call_a_second_does_not_hold_up_one_without_a_limit(autojump_clock: MockClock) -> None:
    """Mixed as they come, the texts take as long as they take alone, and no mail passes the gate in vain."""
    in_vain = 0

    async def seconds_for_texts(*, mixed: bool) -> float:
        world = ActorWorld(queue=None)
        world.policies = [evolve(MAIL, rate_per_s=1.0, burst=1), evolve(TEXT, concurrency_max=4)]
        began_s = trio.current_time()
        record = world.store.record

        async def counting(verdicts: Sequence[Verdict], *, again: bool) -> set[NotificationId]:
            nonlocal in_vain
            in_vain += sum(verdict.outcome.kind is OutcomeClass.INTERRUPTED for verdict in verdicts)
            return await record(verdicts, again=again)

        world.store.record = counting  # type: ignore[method-assign]
        async with world.running():
            texts = []
            for _ in range(40):
                if mixed:
                    await world.accept(5, wake=False)
                texts += await world.accept(5, channel=SMS)
            for _ in range(2000):
                if world.statuses(texts) == {"delivered"}:
                    break
                await trio.sleep(0.05)
            took_s = trio.current_time() - began_s
            mails = sum(row.status == "delivered" for row in world.database.rows.values()) - len(texts)
            assert mails >= int(took_s) * mixed
        return took_s

    alone_s = await seconds_for_texts(mixed=False)
    mixed_s = await seconds_for_texts(mixed=True)

    assert mixed_s <= 1.25 * alone_s
    assert in_vain == 0


async def test_ids_parked_by_a_process_that_died_are_noticed_while_the_organization_is_busy(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.policies = [MAIL, TEXT]
    async with world.running():
        for _ in range(10):
            await world.accept(3)
            await trio.sleep(1.0)
        (lost,) = await world.store_rows(1, channel=SMS)
        claimed = [*(await world.accept(0)), lost]
        world.queue._of(ACME).inflight[lost] = 10**15  # as if another process had claimed it,
        await world.queue.settle([Settlement(ACME, parked=[(SMS, id) for id in claimed])])  # parked it, and died
        for _ in range(int(PARKED_LOOK_S) + 2):
            await world.accept(3)
            await trio.sleep(1.0)
        status = world.row(lost).status.value

    assert status == "delivered"


# --- brown-out ----------------------------------------------------------------------------------------------------------


class Brownout:
    """A provider whose mails take twenty seconds and fail three times in ten, while everything else is quick. Keeps deadlines."""

    def __init__(self, world: ActorWorld) -> None:
        self.world = world
        self.made: list[tuple[float, float]] = []
        self._exchange = world.provider.exchange
        world.provider.exchange = self.exchange  # type: ignore[method-assign, assignment]

    async def exchange(self, request: HttpRequest, deadlines: Deadlines) -> HttpResponse:
        row = self.world.row(NotificationId(request.target.decode()[1:]))
        if row.organization_id != ACME or row.channel is not EMAIL:
            return await self._exchange(request, deadlines)
        self.made.append((trio.current_time(), deadlines.total_s))
        with trio.move_on_after(deadlines.total_s):
            await trio.sleep(20.0)
            return HttpResponse(503 if self.world.random.random() < 0.3 else 202, [], b"")
        raise MaybeSent("read", "timeout_read")


async def test_a_brown_out_costs_bounded_attempts_and_delays_no_other_channel_and_no_other_organization(
    autojump_clock: MockClock,
) -> None:
    """Three answers in ten are a 503 and all take 20 s (scenario 26)."""
    world = ActorWorld()
    world.policies = [evolve(MAIL, concurrency_max=8), TEXT]  # which could hold all that an organization may
    world.callers = Callers(32)
    brownout = Brownout(world)
    late: list[NotificationId] = []
    async with world.running():
        mails = await world.accept(60)
        await trio.sleep(1.0)
        for _ in range(60):
            quick = [*(await world.accept(2, channel=SMS)), *(await world.accept(2, OTHER))]
            await trio.sleep(5.0)
            late.extend(id for id in quick if world.row(id).status != "delivered")
    seconds = trio.current_time()
    before_it_opened = [at_s for at_s, total_s in brownout.made if total_s == Deadlines().total_s]
    probes = [at_s for at_s, total_s in brownout.made if total_s < Deadlines().total_s]

    assert late == []
    assert sum(world.row(id).attempts for id in mails) <= len(brownout.made)
    assert len(before_it_opened) <= 12  # a window of slow and failed calls, and those that were under way
    assert 0 < len(probes) <= 3 * seconds / 10.0  # some at each half-opening, and no half-opening sooner than after ten seconds
    assert len(brownout.made) <= 60


async def test_a_probe_that_takes_longer_than_its_deadline_has_failed_and_the_breaker_is_open_again(
    autojump_clock: MockClock,
) -> None:
    world = ActorWorld()
    brownout = Brownout(world)
    async with world.running():
        await world.accept(30)
        await trio.sleep(120.0)
        (actor,) = world.organizations.alive()
        under_way = actor.core.routes.states[MAIL.config_id].under_way
    probes = [total_s for _, total_s in brownout.made if total_s < Deadlines().total_s]

    assert set(probes) == {10.0}
    assert under_way <= 3


async def test_probes_under_way_when_their_process_is_drained_leave_no_breaker_wedged(autojump_clock: MockClock) -> None:
    """The next process probes, closes and delivers everything (scenario 28)."""
    world = ActorWorld()
    world.provider.conduct = answering(503)
    async with world.running():
        ids = await world.accept(20)
        await trio.sleep(5.0)

        async def stuck(_: NotificationId) -> int:
            await trio.sleep(10_000.0)
            return 202

        world.provider.conduct = stuck
        probing = world.provider.at_once
        for _ in range(600):
            if probing:
                break
            await trio.sleep(0.1)
            probing = world.provider.at_once
        with trio.move_on_after(2.0):
            await world.organizations.drain()
    world.provider.conduct = world.provider.accept
    process = following(world)
    async with process.running():
        await trio.sleep(90.0)  # what was under way has died with its process: its lease has to run out
        await process.store.rescue(100)
        await trio.sleep(60.0)
        states = [actor.core.routes.states[MAIL.config_id].breaker_state for actor in process.organizations.alive()]

    assert probing >= 1
    assert set(states) <= {"closed"}
    assert sum(world.row(id).status == "delivered" for id in ids) >= len(ids) - 3
