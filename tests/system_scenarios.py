"""Failures that happen exactly where they hurt most, each as a play for the simulated world.

A play forces one failure at one await (never by luck), and leaves healing and judgement to :func:`perform`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from attrs import evolve, frozen

from actors.clock import LOOK_S
from actors.memory import Moment
from actors.memory_tables import Row
from dispatcher.model import Channel, NotificationId
from dispatcher.outcome import OnUnknown
from system_network import Answering, Reply
from system_plan import settle
from system_process import POSTGRES, REDIS, Fault, Process, Variant
from system_trio import run_seeded
from system_world import MAIL, TEXT, World, organization

ACME = organization(1)
Play = Callable[[World], Awaitable[None]]


@frozen
class Ended:
    """How a play ended: the rules that were broken, and the world as it was then."""

    broken: list[str]
    world: World

    @property
    def rows(self) -> list[Row]:
        """All notifications, oldest first."""
        return [row for _, row in sorted(self.world.database.rows.items())]

    def effects(self, row: Row) -> int:
        """How often it reached its recipient."""
        return self.world.network.effects.get(row.id, 0)

    def callers_of(self, row: Row) -> list[str]:
        """The processes that called for it, in order."""
        return [call.process.name for call in self.world.network.calls if call.id == row.id]


def perform(play: Play, *, seed: int = 1, variant: Variant | None = None) -> Ended:
    """Play, heal, judge."""

    async def main() -> Ended:
        world = World(seed, variant=variant)
        async with world.running():
            world.configure(ACME, MAIL, TEXT)
            await play(world)
            return Ended(await settle(world), world)

    return run_seeded(main, seed)


def texts(n: int) -> list[str]:
    """The texts of a batch."""
    return [f"text {number}" for number in range(n)]


# --- a fault at one await ---------------------------------------------------------------------------------------------------


def struck(
    server: str, operation: str, moment: Moment, fault: Fault, channel: Channel = Channel.SMS, *, another: bool = True
) -> Play:
    """One notification; the fault strikes the first process exactly there, and as a rule there is another process."""

    async def play(world: World) -> None:
        first = await world.started()
        world.trap(server, operation, moment, fault)
        await world.send(first, ACME, channel, key="once")
        await trio.sleep(1.0)
        if another:
            await world.started()
        await trio.sleep(3 * world.config.dispatch.lease_s)

    return play


def stopped(server: str, operation: str, moment: Moment, channel: Channel = Channel.SMS) -> Play:
    """A process stands still exactly there for twice its lease, while another one runs."""

    async def play(world: World) -> None:
        first = await world.started()
        world.trap(server, operation, moment, lambda process: process.stop())
        await world.send(first, ACME, channel)
        await trio.sleep(1.0)
        await world.started()
        await trio.sleep(2 * world.config.dispatch.lease_s)
        first.go_on()
        await trio.sleep(30.0)

    return play


async def stopped_during_a_call(world: World) -> None:
    """A process stands still for twice its lease while it makes one call and another waits for the same caller."""
    world.configure(ACME, evolve(TEXT, concurrency_max=1))
    world.network.conduct = lambda _process, _id: Answering(travels_s=1.0)
    first = await world.started()
    await world.send(first, ACME, Channel.SMS, texts(3))
    await trio.sleep(1.5)
    assert len(world.network.calls) == 1
    first.stop()
    await world.started()
    await trio.sleep(2 * world.config.dispatch.lease_s)
    first.go_on()
    await trio.sleep(30.0)


async def cancelled_during_the_claim(world: World) -> None:
    """The process is told to leave while Redis takes its time with the answer to a claim; its patience ends first."""

    def leave(process: Process) -> float:
        process.leave()
        return 10 * world.config.dispatch.drain_s

    first = await world.started()
    world.trap(REDIS, "claim", Moment.AFTER, leave)
    await world.send(first, ACME, Channel.SMS)
    await trio.sleep(20.0)
    await world.started()


async def an_answer_is_swallowed(world: World) -> None:
    """The provider takes both messages, and its first answer to each never comes."""
    silent: set[NotificationId] = set()

    def conduct(_process: Process, id: NotificationId) -> Answering:
        first = id not in silent
        silent.add(id)
        return Answering(Reply.ACCEPTED_IN_SILENCE if first else Reply.OK)

    world.network.conduct = conduct
    process = await world.started()
    await world.send(process, ACME, Channel.EMAIL)
    await world.send(process, ACME, Channel.SMS)
    await trio.sleep(60.0)


async def the_actor_crashes_during_a_call(world: World) -> None:
    """A script error ends the organization's actor while a call is under way."""
    world.network.conduct = lambda _process, _id: Answering(travels_s=2.0)
    process = await world.started()
    await world.send(process, ACME, Channel.SMS)
    await trio.sleep(1.0)
    world.trap(REDIS, "claim", Moment.BEFORE, Fault.BROKEN)
    await world.send(process, ACME, Channel.SMS)
    await trio.sleep(30.0)


# --- Redis ------------------------------------------------------------------------------------------------------------------


async def redis_restarts_empty(world: World) -> None:
    """Redis loses everything while ids are queued, in flight, delayed and parked."""
    world.configure(ACME, evolve(MAIL, rate_per_s=0.5), TEXT)
    sms_fails = iter([Reply.SOFT] * 3)

    def conduct(_process: Process, id: NotificationId) -> Answering:
        is_mail = world.database.rows[id].channel is Channel.EMAIL
        return Answering(Reply.OK if is_mail else next(sms_fails, Reply.OK), travels_s=0.5)

    world.network.conduct = conduct
    process = await world.started()
    await world.send(process, ACME, Channel.EMAIL, texts(8))
    await world.send(process, ACME, Channel.SMS, texts(8))
    await trio.sleep(1.7)
    held = {name for name, ids in world.queue.holds(ACME).items() if ids}
    assert {"inflight", "delayed", "parked:email"} <= held
    world.redis_restarts_empty()
    await world.send(process, ACME, Channel.SMS)


async def redis_comes_back_older(world: World) -> None:
    """Redis forgets the last seconds: what was settled is queued and in flight again."""
    world.network.conduct = lambda _process, _id: Answering(travels_s=0.5)
    process = await world.started()
    await world.send(process, ACME, Channel.SMS, texts(6))
    await trio.sleep(0.5)
    world.redis_keeps()
    await trio.sleep(5.0)
    world.redis_resurrects()


async def redis_is_full(world: World) -> None:
    """Redis takes nothing new; what it holds is claimed and settled, and what it refused is found by the janitor."""
    process = await world.started()
    await world.send(process, ACME, Channel.SMS, texts(3))
    world.redis_full = True
    await world.send(process, ACME, Channel.SMS, texts(3))
    await trio.sleep(120.0)


# --- processes ----------------------------------------------------------------------------------------------------------------


def a_poisonous_notification(after_s: float, channel: Channel) -> Play:
    """One notification kills the process so long after its call has begun; every process is started again."""

    async def die(process: Process) -> None:
        await trio.sleep(after_s)
        process.kill()

    async def play(world: World) -> None:
        def conduct(process: Process, id: NotificationId) -> Answering:
            if world.database.rows[id].payload["text"] != "poison":
                return Answering()
            world.nursery.start_soon(die, process)
            return Answering(Reply.SILENCE)

        # What is rescued comes back spread over minutes: its key has to be honoured for as long as all of that may take.
        world.configure(ACME, evolve(MAIL, key_retention_s=86_400.0), TEXT)
        world.network.conduct = conduct
        first = await world.started()
        await world.send(first, ACME, channel, ["poison", *texts(3)])
        for _ in range(12):
            await trio.sleep(60.0)
            if not world.alive():
                world.start()

    return play


async def drained(world: World) -> None:
    """SIGTERM under full load; another process is there."""
    await _loaded(world)
    world.processes[0].leave()
    await trio.sleep(30.0)


async def drained_and_killed(world: World) -> None:
    """A second signal a moment after the first."""
    await _loaded(world)
    world.processes[0].leave()
    await trio.sleep(0.5)
    world.processes[0].kill()
    await trio.sleep(30.0)


async def drained_during_a_flush(world: World) -> None:
    """SIGTERM at the very moment at which outcomes are being written."""

    def leave(process: Process) -> float:
        process.leave()
        return 2.0

    world.trap(POSTGRES, "record", Moment.BEFORE, leave)
    await _loaded(world)
    await trio.sleep(30.0)


async def drained_after_a_crash_while_redis_is_away(world: World) -> None:
    """Its actor fails while Redis can not be told how a call has ended, so nobody holds the notification when SIGTERM comes."""
    world.network.conduct = lambda _process, _id: Answering(travels_s=1.0)
    process = await world.started()
    await world.send(process, ACME, Channel.SMS)
    await trio.sleep(1.0)
    world.away.add(REDIS)
    await trio.sleep(3.0)
    world.trap(POSTGRES, "load_providers", Moment.BEFORE, Fault.BROKEN)
    await world.change(process, ACME, TEXT)
    await trio.sleep(5.0)
    process.leave()
    await trio.sleep(2.0)
    world.server_back(REDIS)
    await trio.sleep(10.0)


async def _loaded(world: World) -> None:
    world.network.conduct = lambda _process, _id: Answering(travels_s=1.0)
    first = await world.started()
    await world.send(first, ACME, Channel.SMS, texts(20))
    await world.send(first, ACME, Channel.EMAIL, texts(20))
    await trio.sleep(3.1)
    await world.started()


def clock_jumps(whose: str, offset_s: float) -> Play:
    """A wall clock jumps while calls are under way, retries wait and a channel is rate limited."""

    async def play(world: World) -> None:
        world.configure(ACME, evolve(MAIL, rate_per_s=1.0), TEXT)
        fails = iter([Reply.SOFT] * 4)
        world.network.conduct = lambda _process, _id: Answering(next(fails, Reply.OK), travels_s=2.0)
        first = await world.started()
        await world.started()
        await world.send(first, ACME, Channel.SMS, texts(8))
        await world.send(first, ACME, Channel.EMAIL, texts(8))
        await trio.sleep(5.0)
        world.clock.jump(whose, offset_s)
        await world.send(first, ACME, Channel.SMS, texts(2))
        await trio.sleep(60.0)

    return play


async def two_share_the_work(world: World) -> None:
    """Two processes, and one organization with a slow channel and a long queue that goes on growing."""
    world.configure(ACME, evolve(TEXT, rate_per_s=0.5, concurrency_max=1))
    first = await world.started()
    await world.started()
    for _ in range(6):
        await world.send(first, ACME, Channel.SMS, texts(10))
        await trio.sleep(10.0)


async def handed_on_and_on(world: World) -> None:
    """A slow channel with a long queue, and a new process in the place of the old one every five seconds."""
    world.configure(ACME, evolve(TEXT, rate_per_s=0.2, burst=5, concurrency_max=1))
    process = await world.started()
    await world.send(process, ACME, Channel.SMS, texts(40))
    for _ in range(6):
        await trio.sleep(5.0)
        process.leave()
        process = await world.started()


async def it_wanted_to_sleep_and_redis_went_away(world: World) -> None:
    """An organization leaves its tokens behind and stays, because Redis goes away; it spends them, and its process is killed."""

    def go_away(_process: Process) -> Fault:
        world.away.add(REDIS)
        return Fault.AWAY

    world.configure(ACME, evolve(TEXT, rate_per_s=0.2, burst=20, concurrency_max=1))
    process = await world.started()
    await world.send(process, ACME, Channel.SMS)
    await trio.sleep(100.0)
    await world.send(process, ACME, Channel.SMS)
    world.trap(REDIS, "retire", Moment.BEFORE, go_away)
    await trio.sleep(world.config.dispatch.idle_s + 5.0)
    world.server_back(REDIS)
    await trio.sleep(5.0)
    await world.send(process, ACME, Channel.SMS, texts(40))
    await trio.sleep(10.0)
    process.kill()
    await world.started()
    await trio.sleep(60.0)


async def one_process_with_a_rest(world: World) -> None:
    """A notification for an organization that had nothing to do for a moment."""
    process = await world.started()
    await world.send(process, ACME, Channel.SMS)
    await trio.sleep(120.0)


async def redis_is_away_for_a_moment(world: World) -> None:
    """Redis can not be told of what was accepted, and is back a few seconds later."""
    process = await world.started()
    world.away.add(REDIS)
    await world.send(process, ACME, Channel.SMS, texts(3))
    await trio.sleep(5.0)
    world.server_back(REDIS)
    await trio.sleep(20.0)


# --- providers ----------------------------------------------------------------------------------------------------------------


async def the_provider_is_down_and_its_channel_handed_over(world: World) -> None:
    """Nothing but 503 until the channel rests; then its process leaves and another goes on, while the provider still is down."""
    world.configure(ACME, evolve(TEXT, concurrency_max=1))
    world.network.conduct = lambda _process, _id: Answering(Reply.SOFT)
    first = await world.started()
    await world.send(first, ACME, Channel.SMS, texts(20))
    await trio.sleep(1.0)
    first.leave()
    await world.started()
    await trio.sleep(10.0)


async def a_quota_is_used_up(world: World) -> None:
    """More in one go than an account may send in a window."""
    world.configure(ACME, evolve(TEXT, quota=6, quota_window_s=60.0, concurrency_max=1))
    process = await world.started()
    await world.send(process, ACME, Channel.SMS, texts(40))
    await trio.sleep(60.0)


async def an_answer_is_swallowed_by_a_provider_that_can_be_asked(world: World) -> None:
    """Of two messages the provider takes the first and loses the second; neither answer comes, and it is asked about both."""
    world.configure(ACME, evolve(TEXT, on_unknown=OnUnknown.ASK, inquiry_lag_s=5.0))
    replies = iter((Reply.ACCEPTED_AND_RESET, Reply.RESET))
    world.network.conduct = lambda _process, _id: Answering(next(replies, Reply.OK))
    process = await world.started()
    await world.send(process, ACME, Channel.SMS, texts(2))
    await trio.sleep(60.0)


async def the_actor_crashes_while_its_provider_is_asked(world: World) -> None:
    """A script error ends the organization's actor between the question about an attempt in doubt and its answer."""
    asks = evolve(TEXT, on_unknown=OnUnknown.ASK, inquiry_lag_s=5.0)
    world.configure(ACME, asks)
    calls = 0

    def conduct(process: Process, _id: NotificationId) -> Answering:
        nonlocal calls
        calls += 1
        if calls == 2:
            world.trap(POSTGRES, "load_providers", Moment.BEFORE, Fault.BROKEN)
            world.nursery.start_soon(world.change, process, ACME, asks)
        return Answering(Reply.RESET if calls == 1 else Reply.OK, travels_s=4.0)

    world.network.conduct = conduct
    process = await world.started()
    await world.send(process, ACME, Channel.SMS)
    await trio.sleep(90.0)


async def an_answer_never_comes_where_doubts_are_held(world: World) -> None:
    """The provider takes the message and does not answer; its channel's policy is that a person decides."""
    world.configure(ACME, evolve(TEXT, on_unknown=OnUnknown.HOLD))
    world.network.conduct = lambda _process, _id: Answering(Reply.ACCEPTED_IN_SILENCE)
    process = await world.started()
    await world.send(process, ACME, Channel.SMS)
    await trio.sleep(60.0)


async def the_provider_is_down(world: World) -> None:
    """Nothing but 503 for a minute, with a long queue and one call at a time."""
    world.configure(ACME, evolve(TEXT, concurrency_max=1))
    world.network.conduct = lambda _process, _id: Answering(Reply.SOFT)
    process = await world.started()
    await world.send(process, ACME, Channel.SMS, texts(20))
    await trio.sleep(60.0)


async def one_of_two_providers_is_down(world: World) -> None:
    """The better one answers 503 until its breaker opens, then is well again; the other one takes everything meanwhile."""
    worse = evolve(TEXT, config_id="text-2", priority=1)
    world.configure(ACME, TEXT, worse)
    down_until_s = trio.current_time() + 30.0

    def conduct(_process: Process, _id: NotificationId) -> Answering:
        is_down = world.network.through == TEXT.config_id and trio.current_time() < down_until_s
        return Answering(Reply.SOFT if is_down else Reply.OK)

    world.network.conduct = conduct
    process = await world.started()
    for _ in range(60):
        await world.send(process, ACME, Channel.SMS, texts(4))
        await trio.sleep(2.0)


async def configured_again_and_again(world: World) -> None:
    """A slow channel with a long queue begins anew every two seconds."""
    slow = evolve(TEXT, rate_per_s=0.2, burst=5, concurrency_max=1)
    world.configure(ACME, slow)
    process = await world.started()
    await world.send(process, ACME, Channel.SMS, texts(40))
    for _ in range(6):
        await trio.sleep(2.0)
        await world.change(process, ACME, slow)


# --- what waits for its time ------------------------------------------------------------------------------------------------


async def accepted_for_later_by_one_who_dies(world: World) -> None:
    """Nobody else was told of it."""
    first = await world.started()
    await world.started()
    await world.send(first, ACME, Channel.SMS, after_s=60.0)
    first.kill()
    await trio.sleep(60.0 + 2 * LOOK_S)


async def killed_between_release_and_push(world: World) -> None:
    """It is queued, and Redis does not know it."""
    first = await world.started()
    await world.send(first, ACME, Channel.SMS, after_s=10.0)
    world.trap(POSTGRES, "release", Moment.AFTER, Fault.KILL)
    await trio.sleep(11.0)
    await world.started()
    await trio.sleep(3 * world.config.dispatch.lease_s)


async def canceled_while_they_are_sent(world: World) -> None:
    """Each is canceled at some moment of its way: while it waits, is queued, being sent, or delivered."""
    world.configure(ACME, evolve(TEXT, rate_per_s=2.0, concurrency_max=2))
    first, second = await world.started(), await world.started()
    ids = await world.send(first, ACME, Channel.SMS, texts(20))
    later = await world.send(second, ACME, Channel.SMS, texts(20), after_s=5.0)
    for id in [*(ids or ()), *(later or ())]:
        await trio.sleep(world.random.uniform(0.0, 0.5))
        await world.cancel(world.random.choice((first, second)), id)
