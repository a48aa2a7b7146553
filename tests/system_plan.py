"""What one seed plans: organizations, notifications, faults for some minutes, then healing, then judgement.

The plan is drawn before anything runs, apart from what happens at single awaits: that is drawn as it comes to them. Either way
the seed decides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random

import trio
from attrs import evolve, frozen

from dispatcher.messages import ProviderPolicy
from dispatcher.model import NotificationId, OrganizationId, Status
from dispatcher.outcome import OnUnknown
from system_checker import HEALED_WITHIN_S
from system_network import Answering, Reply
from system_process import POSTGRES, REDIS, Process, Variant
from system_trio import run_seeded
from system_world import CALM, MAIL, TEXT, Weather, World, organization

WEATHERS = (
    CALM,
    Weather(slow=0.02),
    Weather(slow=0.02, away=0.01, lost=0.01, deaf=0.1),
    Weather(slow=0.03, away=0.03, lost=0.03, kill=0.001, broken=0.01, deaf=0.3),
    Weather(slow=0.05, away=0.1, lost=0.1, kill=0.002, broken=0.02, deaf=1.0),
    Weather(kill=0.006),
)
QUOTA_WINDOW_S = 20.0
INQUIRY_LAG_S = 5.0
"""Longer than any message is on its way to its provider."""
RETENTIONS_S = (60.0, 400.0)
SECOND = ("priority", "weight", "failover_on_unknown")
ACCOUNTS = (MAIL.config_id, TEXT.config_id, f"{MAIL.config_id}-2", f"{TEXT.config_id}-2")
HINTS = (b"3", b"0", b"25", b"3600", b"soon", b"Wed, 21 Oct 2015 07:28:00 GMT", None)
MOODS: Sequence[Sequence[tuple[Reply, float]]] = (
    ((Reply.OK, 1.0),),
    ((Reply.OK, 0.8), (Reply.SOFT, 0.1), (Reply.ACCEPTED_IN_SILENCE, 0.05), (Reply.HARD, 0.05)),
    ((Reply.OK, 0.5), (Reply.ACCEPTED_AND_RESET, 0.2), (Reply.RESET, 0.1), (Reply.SILENCE, 0.1), (Reply.SOFT, 0.1)),
    ((Reply.OK, 0.6), (Reply.RATE_LIMITED, 0.35), (Reply.DENIED, 0.05)),
    ((Reply.SOFT, 0.6), (Reply.REFUSED, 0.4)),
    ((Reply.OK, 0.2), (Reply.SOFT, 0.8)),
)
"""How providers feel in turns: each a set of replies with their weights."""


@frozen
class Report:
    """How one seed ended. ``broken`` names what did not hold; ``lines`` is the trace, if it was asked for."""

    seed: int
    broken: Sequence[str]
    digest: str
    virtual_s: float
    notifications: int
    calls: int
    lines: Sequence[str] = ()


def run_seed(seed: int, *, variant: Variant | None = None, trace: bool = False) -> Report:
    """Run one seed from its first notification to the judgement."""

    async def main() -> Report:
        world = World(seed, variant=variant, trace=trace)
        async with world.running():
            await Storm(world).run()
            broken = await settle(world)
        return Report(
            seed,
            broken,
            world.digest(),
            trio.current_time(),
            len(world.database.rows),
            len(world.network.calls),
            world.lines or (),
        )

    return run_seeded(main, seed)


async def settle(world: World) -> list[str]:
    """Heal, wait until everything has ended or the bound is over, and judge."""
    world.heal()
    until_s = trio.current_time() + HEALED_WITHIN_S
    while trio.current_time() < until_s and (world.checker.unfinished() or world.checker.held()):
        await trio.sleep(1.0)
        if all(process.dead for process in world.processes):
            world.start()
    return world.checker.finish()


class Storm:
    """The faults of one seed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = Random(f"plan {world.seed}")
        self._organizations = [organization(n) for n in range(1, self._random.randint(2, 4) + 1)]
        self._length_s = self._random.uniform(40.0, 240.0)
        self._moods: dict[str, Sequence[tuple[Reply, float]]] = {}  # by configuration
        self._seconds = {name: self._second() for name in self._organizations}
        self._answers = Random(f"answers {world.seed}")
        self._times = Random(f"times {world.seed}")

    async def run(self) -> None:
        """From the first process to the last fault."""
        world, random = self._world, self._random
        world.network.conduct = self._answer
        for organization_id in self._organizations:
            world.configure(organization_id, *self._policies(organization_id))
        for _ in range(random.choice((1, 2, 2, 3))):
            world.start()
        world.weather = random.choice(WEATHERS)
        plan = [self._event() for _ in range(random.randint(4, 16))] + [self._arrival() for _ in range(random.randint(8, 25))]
        plan += [(self._times.uniform(0.0, self._length_s), self._cancel) for _ in range(self._times.randint(0, 6))]
        async with trio.open_nursery() as nursery:
            for at_s, happen in plan:
                nursery.start_soon(self._at, at_s, happen)
            await trio.sleep(self._length_s)
            nursery.cancel_scope.cancel()

    async def _at(self, at_s: float, happen: Callable[[], Awaitable[None]]) -> None:
        await trio.sleep(at_s)
        await happen()

    # --- organizations and notifications --------------------------------------------------------------------------------

    def _second(self) -> ProviderPolicy | None:
        """What some organizations have beside their first configuration of a channel."""
        random = self._random
        if random.random() < 0.5:
            return None
        return evolve(
            random.choice((MAIL, TEXT)),
            priority=random.choice((0, 1)),
            weight=random.choice((100, 300)),
            failover_on_unknown=random.random() < 0.2,
        )

    def _policies(self, organization_id: OrganizationId) -> list[ProviderPolicy]:
        random, second = self._random, self._seconds[organization_id]
        mail = evolve(
            MAIL,
            rate_per_s=random.choice((None, None, 0.5, 3.0)),
            burst=random.randint(1, 5),
            concurrency_max=random.randint(1, 4),
            key_retention_s=random.choice(RETENTIONS_S),
        )
        text = evolve(
            TEXT,
            rate_per_s=random.choice((None, 1.0, 5.0)),
            burst=random.randint(1, 5),
            concurrency_max=random.randint(1, 4),
            on_unknown=random.choice((OnUnknown.RESEND_ONCE, OnUnknown.RESEND_ONCE, OnUnknown.HOLD, OnUnknown.ASK)),
            inquiry_lag_s=INQUIRY_LAG_S,
            quota=random.choice((None, None, 6, 60)),
            quota_window_s=QUOTA_WINDOW_S,
        )
        if second is None:
            return [mail, text] if random.random() < 0.7 else [random.choice((mail, text))]
        like = mail if second.channel is mail.channel else text
        mail, text = (evolve(each, failover_on_unknown=second.failover_on_unknown) for each in (mail, text))
        return [mail, text, evolve(like, **{name: getattr(second, name) for name in SECOND}, config_id=f"{like.config_id}-2")]

    def _arrival(self) -> tuple[float, Callable[[], Awaitable[None]]]:
        random = self._random
        organization_id = random.choice(self._organizations)
        channel = random.choice([policy.channel for policy in self._world.policies[organization_id]])
        texts = [f"text {random.randint(1, 3)}" for _ in range(random.choice((1, 1, 1, 2, 4)))]
        key = f"key-{random.randint(1, 6)}" if random.random() < 0.4 else None
        life_s = random.uniform(2.0, 60.0) if random.random() < 0.2 else None
        after_s = self._times.uniform(0.5, 60.0) if self._times.random() < 0.2 else None

        async def arrive() -> None:
            for _ in range(4):
                process = self._somebody()
                if process is not None and await self._world.send(process, organization_id, channel, texts, key, life_s, after_s):
                    return
                await trio.sleep(3.0)

        return random.uniform(0.0, 0.9 * self._length_s), arrive

    # --- providers ------------------------------------------------------------------------------------------------------

    def _answer(self, _process: Process, _id: NotificationId) -> Answering:
        random = self._answers
        mood = self._moods.get(self._world.network.through, MOODS[0])
        (reply,) = random.choices([reply for reply, _ in mood], [weight for _, weight in mood])
        return Answering(reply, random.choice((0.02, 0.1, 0.5, 4.0)), random.choice(HINTS))

    # --- faults -----------------------------------------------------------------------------------------------------------

    def _somebody(self) -> Process | None:
        alive = [process for process in self._world.alive() if not process.stands_still]
        return self._world.random.choice(alive) if alive else None

    def _event(self) -> tuple[float, Callable[[], Awaitable[None]]]:
        events = (
            self._kill,
            self._kill,
            self._stop,
            self._drain,
            self._drain_and_kill,
            self._join,
            self._postgres_away,
            self._redis_away,
            self._redis_full,
            self._redis_empty,
            self._redis_older,
            self._clock,
            self._configuration,
            self._requeue,
            self._weather,
            self._mood,
            self._mood,
            self._mood,
        )
        return self._random.uniform(0.0, self._length_s), self._random.choice(events)

    async def _kill(self) -> None:
        process = self._somebody()
        if process is not None:
            process.kill()
            await self._join()

    async def _stop(self) -> None:
        process = self._somebody()
        if process is not None:
            process.stop()
            await trio.sleep(self._world.random.uniform(1.0, 3.0 * self._world.config.dispatch.lease_s))
            process.go_on()

    async def _drain(self) -> None:
        process = self._somebody()
        if process is not None:
            process.leave()
            await self._join()

    async def _drain_and_kill(self) -> None:
        process = self._somebody()
        if process is not None:
            process.leave()
            await trio.sleep(self._world.random.uniform(0.0, 5.0))
            process.kill()
            await self._join()

    async def _join(self) -> None:
        await trio.sleep(self._world.random.uniform(0.0, 10.0))
        if len([process for process in self._world.processes if not process.dead]) < 3:
            self._world.start()

    async def _postgres_away(self) -> None:
        await self._outage(POSTGRES)

    async def _redis_away(self) -> None:
        await self._outage(REDIS)

    async def _outage(self, server: str) -> None:
        self._world.note(server, "is away")
        self._world.away.add(server)
        await trio.sleep(self._world.random.choice((1.0, 10.0, 60.0)))
        self._world.server_back(server)

    async def _redis_full(self) -> None:
        self._world.redis_full = True
        await trio.sleep(self._world.random.uniform(1.0, 30.0))
        self._world.redis_full = False

    async def _redis_empty(self) -> None:
        self._world.redis_restarts_empty()

    async def _redis_older(self) -> None:
        self._world.redis_keeps()
        await trio.sleep(self._world.random.uniform(0.2, 10.0))
        self._world.redis_resurrects()

    async def _clock(self) -> None:
        random = self._world.random
        whose = random.choice((POSTGRES, REDIS, *(process.name for process in self._world.processes)))
        offset_s = random.choice((-300.0, 300.0, -1.0))
        self._world.note("the clock of", whose, "jumps", offset_s)
        self._world.clock.jump(whose, offset_s)

    async def _configuration(self) -> None:
        process, organization_id = self._somebody(), self._random.choice(self._organizations)
        if process is not None:
            present = {policy.channel for policy in self._world.policies[organization_id]}
            renewed = [policy for policy in self._policies(organization_id) if policy.channel in present]
            if {policy.channel for policy in renewed} == present:
                await self._world.change(process, organization_id, *renewed)

    async def _cancel(self) -> None:
        process = self._somebody()
        open_ = sorted(row.id for row in self._world.database.rows.values() if row.status in (Status.SCHEDULED, Status.QUEUED))
        if process is not None and open_:
            await self._world.cancel(process, self._times.choice(open_))

    async def _requeue(self) -> None:
        process = self._somebody()
        letters: list[NotificationId] = sorted(self._world.database.dead_letters)
        if process is not None and letters:
            await self._world.requeue(process, self._world.random.choice(letters))

    async def _weather(self) -> None:
        self._world.weather = self._world.random.choice(WEATHERS)

    async def _mood(self) -> None:
        self._moods[self._world.random.choice(ACCOUNTS)] = self._world.random.choice(MOODS)
