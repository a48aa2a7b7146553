"""The world around the processes: two servers, providers, clocks, producers, and what goes wrong.

Everything is driven by one seed. ``fault_at`` is asked at every await of every process on a server: first the traps that a
scenario has set, then outages, then the weather.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from random import Random
from typing import Any

import orjson
import trio
from attrs import define, evolve, field, frozen

from actors.io.redis import Reconnected
from actors.memory import Moment
from actors.memory_tables import MemoryDatabase
from dispatcher.breaker import BreakerPolicy
from dispatcher.config import Config, DispatchConfig
from dispatcher.messages import ProviderPolicy
from dispatcher.model import Channel, DeadLetterReason, NotificationId, OrganizationId, Status
from dispatcher.outcome import OnUnknown
from system_checker import Checker
from system_network import Answering, Bound, Network
from system_process import POSTGRES, REDIS, Fault, Process, Variant

EPOCH_S = 1_700_000_000.0
CONFIG = Config(
    dispatch=DispatchConfig(
        calls_max=16,
        in_flight_max=64,
        organization_in_flight_max=8,
        lease_s=30.0,
        request_deadline_s=10.0,
        connect_deadline_s=3.0,
        idle_s=20.0,
        drain_s=10.0,
        sweep_s=10.0,
        attempts_max=4,
        retry_base_s=2.0,
        retry_cap_s=20.0,
        retry_hint_cap_s=30.0,
        shards=4,
        cache_ttl_min_s=60.0,
        cache_ttl_max_s=120.0,
    ),
    breaker=BreakerPolicy(calls_min=4, failures_in_a_row=4, open_base_s=6.0, open_cap_s=24.0, probes=2, ramp_calls_max=4),
)
KEY_RETENTION_S = 400.0
MAIL = ProviderPolicy(
    "mail", 1, "mailer", Channel.EMAIL, None, 1, 4, on_unknown=OnUnknown.RESEND, key_retention_s=KEY_RETENTION_S
)
TEXT = ProviderPolicy("text", 1, "texter", Channel.SMS, None, 1, 4)
START_AGAIN_S = 5.0
RECIPIENTS = {Channel.EMAIL: "reader@example.org", Channel.SMS: "+15551234567"}


def obliging(_process: Process, _id: NotificationId) -> Answering:
    """A provider that takes everything."""
    return Answering()


async def at_once(_operation: str, _moment: Moment) -> None:
    """The queue's own moments pass; those of the process that asks do not."""


@frozen
class Weather:
    """Chances at each await: of a pause, a server away, an answer lost, death, a failure nobody foresaw, a lost wake-up."""

    slow: float = 0.0
    away: float = 0.0
    lost: float = 0.0
    kill: float = 0.0
    broken: float = 0.0
    deaf: float = 0.0


CALM = Weather()


@define
class Clock:
    """Wall clocks: of both servers and of every process, each of which may be wrong. The monotonic one never is."""

    offsets_s: dict[str, float] = field(factory=dict)
    jumped_s: dict[str, float] = field(factory=dict)
    jumps_s: dict[str, list[float]] = field(factory=dict)
    """All times at which each clock was set, ``jumped_s`` being the last."""

    def unix_s(self, whose: str) -> float:
        return EPOCH_S + trio.current_time() + self.offsets_s.get(whose, 0.0)

    def jump(self, whose: str, offset_s: float) -> None:
        self.offsets_s[whose] = offset_s
        self.jumped_s[whose] = trio.current_time()
        self.jumps_s.setdefault(whose, []).append(trio.current_time())


Spring = Callable[[Process], Fault | float | None]


@define
class Trap:
    """Goes off once, when one moment of one operation is passed for the time after ``skip`` others.

    ``spring`` may do anything to the process, and says what goes wrong: a fault, a pause in seconds, or nothing.
    """

    server: str
    operation: str
    moment: Moment
    spring: Spring
    skip: int = 0


class World:
    """All there is. ``seed`` decides everything that is not decided by a scenario."""

    def __init__(self, seed: int, *, config: Config = CONFIG, variant: Variant | None = None, trace: bool = False) -> None:
        self.seed = seed
        self.config = config
        self.variant = variant or Variant()
        self.random = Random(f"world {seed}")
        self.clock = Clock()
        self.weather = CALM
        self.away: set[str] = set()
        self.redis_full = False
        self.traps: list[Trap] = []
        self.database = MemoryDatabase(lambda: self.clock.unix_s(POSTGRES))
        self.queue = self.variant.queue(
            lambda: self.clock.unix_s(REDIS),
            lease_s=config.dispatch.lease_s,
            shards=config.dispatch.shards,
            interrupt=at_once,
            on_wake=self._woken,
        )
        self.policies: dict[OrganizationId, list[ProviderPolicy]] = {}
        self.accepted: dict[NotificationId, OrganizationId] = {}
        self.processes: list[Process] = []
        self.checker = Checker(self)
        self.network = Network(self.random, obliging, self.checker.call_began)
        self._digest = blake2b(digest_size=16)
        self.lines: list[str] | None = [] if trace else None
        self._kept: object | None = None

    # --- the trace ------------------------------------------------------------------------------------------------------

    def note(self, *words: object) -> None:
        """One line of the trace: what happened, never what it was about."""
        line = f"{trio.current_time():.6f} {' '.join(map(str, words))}"
        self._digest.update(line.encode())
        if self.lines is not None:
            self.lines.append(line)

    def digest(self) -> str:
        """The whole trace in one word."""
        return self._digest.hexdigest()

    # --- processes ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Processes can be started inside; at the end all are killed."""
        logger = logging.getLogger("actors")
        before = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        try:
            async with trio.open_nursery() as self.nursery:
                yield
                self.nursery.cancel_scope.cancel()
        finally:
            logger.setLevel(before)

    def start(self) -> Process:
        """A new incarnation."""
        process = Process(self, len(self.processes) + 1)
        self.processes.append(process)
        self.note(process.name, "start")
        self.nursery.start_soon(self._host, process)
        return process

    async def _host(self, process: Process) -> None:
        """Run a process, and another one in its place when it could not even start."""
        await process.run()
        if not process.up.is_set() and not process.killed:
            await trio.sleep(START_AGAIN_S)
            self.start()

    async def started(self) -> Process:
        """A new incarnation that is up."""
        process = self.start()
        await process.up.wait()
        return process

    def alive(self) -> list[Process]:
        """Those that run and take requests."""
        return [process for process in self.processes if process.alive]

    # --- configuration --------------------------------------------------------------------------------------------------

    def configure(self, organization_id: OrganizationId, *policies: ProviderPolicy) -> None:
        """Set an organization's provider configurations, as the surface would."""
        known = {policy.config_id: policy.revision for policy in self.policies.get(organization_id, ())}
        renewed = [evolve(policy, revision=known.get(policy.config_id, 0) + 1) for policy in policies]
        self.policies[organization_id] = renewed
        for policy in renewed:
            self.checker.limits.configured(organization_id, policy)

    def configured(self, organization_id: OrganizationId) -> Sequence[tuple[ProviderPolicy, Bound]]:
        """What a read of the configurations finds."""
        return [(policy, Bound(policy, self.variant.key_of)) for policy in self.policies.get(organization_id, ())]

    # --- producers and operators ----------------------------------------------------------------------------------------

    async def send(
        self,
        process: Process,
        organization_id: OrganizationId,
        channel: Channel,
        texts: Sequence[str] = ("hello",),
        key: str | None = None,
        life_s: float | None = None,
        after_s: float | None = None,
    ) -> list[NotificationId] | None:
        """Hand in one notification or a batch, for ``after_s`` from now if it is given, and with so much life from then on.

        Returns the ids that are accepted, or None when there was no answer that said so.
        """
        items = []
        for text in texts:
            content = {"subject": "s", "text": text} if channel is Channel.EMAIL else {"text": text}
            item: dict[str, Any] = {"channel": channel.value, "recipient": RECIPIENTS[channel], "content": content}
            if life_s is not None:
                item["expires_at"] = rfc3339(process.unix_s() + life_s + (after_s or 0.0))
            if after_s is not None:
                item["send_at"] = rfc3339(process.unix_s() + after_s)
            items.append(item)
        body = orjson.dumps(items[0] if len(items) == 1 else {"items": items})
        answer = await process.ask(lambda: process.node.acceptor.accept(organization_id, body, key))
        if answer is None or isinstance(answer, Exception):
            self.note(process.name, "accept", type(answer).__name__)
            return None
        document = orjson.loads(answer.body)
        ids = [NotificationId(item["id"]) for item in document.get("items", [document]) if item.get("id")]
        self.note(process.name, "accept", *ids)
        self.accepted.update((id, organization_id) for id in ids)
        return ids

    async def cancel(self, process: Process, id: NotificationId) -> bool:
        """Cancel one by hand. Whether it was this that canceled it."""
        row = self.database.rows[id]

        async def request() -> bool:
            canceled = await process.schedule.cancel(row.organization_id, id)
            if canceled is None or not canceled.now:
                return False
            process.node.clock.canceled(row.organization_id, [(id, canceled.channel)])
            return True

        return await process.ask(request) is True

    async def requeue(self, process: Process, id: NotificationId) -> bool:
        """Queue a dead letter again, by hand."""

        async def request() -> bool:
            letter = self.database.dead_letters.pop(id, None)
            if letter is None:
                return False
            row, now_s = self.database.rows[id], self.clock.unix_s(POSTGRES)
            row.status, row.rescues, row.attempts_max = Status.QUEUED, 0, row.attempts + self.config.dispatch.attempts_max
            row.next_retry_at_s, row.claimed_by, row.updated_at_s = None, None, now_s
            if letter.reason in {DeadLetterReason.UNKNOWN, DeadLetterReason.POISON}:
                row.unknown_since_s = row.unknown_last_s = None
            if row.expires_at_s is not None and row.expires_at_s <= now_s:
                row.expires_at_s = None
            self.checker.looks_at_rows("requeue", process)
            await process.node.requeued(row.organization_id, [id])
            return True

        return await process.ask(request) is True

    async def change(self, process: Process, organization_id: OrganizationId, *policies: ProviderPolicy) -> None:
        """Change configurations through one process."""
        self.configure(organization_id, *policies)
        await process.ask(lambda: process.node.changed(organization_id))

    # --- servers --------------------------------------------------------------------------------------------------------

    def server_back(self, server: str) -> None:
        """An outage ends."""
        self.away.discard(server)
        if server == REDIS:
            for process in self.processes:
                process.hear(Reconnected("connection"))

    def redis_restarts_empty(self) -> None:
        """Redis loses its memory, and every connection."""
        self.note("redis lost its memory")
        self.checker.redis_forgot()
        self.queue.lose_memory()
        for process in self.processes:
            process.hear(Reconnected("connection"))

    def redis_keeps(self) -> None:
        """Redis writes its memory to disk."""
        self._kept = self.queue.snapshot()

    def redis_resurrects(self) -> None:
        """Redis comes back with what it last wrote to disk: newer claims are undone, settled ids are back."""
        if self._kept is not None:
            self.note("redis is back with an older state")
            self.checker.redis_forgot()
            self.queue.resurrect(self._kept)
            for process in self.processes:
                process.hear(Reconnected("connection"))

    def _woken(self, organization_id: OrganizationId) -> None:
        for process in self.processes:
            if not process.dead and not (self.weather.deaf and self.random.random() < self.weather.deaf):
                process.hear_wake(organization_id)

    # --- faults ---------------------------------------------------------------------------------------------------------

    def trap(
        self,
        server: str,
        operation: str,
        moment: Moment,
        spring: Callable[[Process], Fault | float | None] | Fault,
        skip: int = 0,
    ) -> Trap:
        """Have something happen exactly there, once."""
        trap = Trap(server, operation, moment, spring if callable(spring) else lambda _process: spring, skip)
        self.traps.append(trap)
        return trap

    def broken(self, process: Process, operation: str) -> None:
        """An operation failed in a way nobody foresaw, which an organization's actor does not survive."""
        self.checker.actor_crashed(process)

    def fault_at(self, process: Process, server: str, operation: str, moment: Moment) -> Fault | float | None:
        """What goes wrong here, if anything."""
        if self.traps:
            for trap in self.traps:
                if (trap.server, trap.operation, trap.moment) == (server, operation, moment):
                    if trap.skip:
                        trap.skip -= 1
                        continue
                    self.traps.remove(trap)
                    return trap.spring(process)
        before = moment is Moment.BEFORE
        if before and (server in self.away or (self.redis_full and server == REDIS and operation == "enqueue")):
            return Fault.AWAY
        weather = self.weather
        if weather is CALM:
            return None
        draw = self.random.random()
        for chance, fault in (
            (weather.slow, Fault.SLOW),
            (weather.away if before else weather.lost, Fault.AWAY if before else Fault.LOST),
            (weather.kill, Fault.KILL),
            (weather.broken if operation in ("claim", "unpark", "load_providers") else 0.0, Fault.BROKEN),
        ):
            if draw < chance:
                return fault
            draw -= chance
        return None

    def heal(self) -> None:
        """All faults end: servers are there, clocks are right, everybody goes on, and somebody runs."""
        self.note("heal")
        self.weather = CALM
        self.traps.clear()
        self.redis_full = False
        for server in sorted(self.away):
            self.server_back(server)
        for whose in sorted(self.clock.offsets_s):
            if self.clock.offsets_s[whose]:
                self.clock.jump(whose, 0.0)
        self.network.conduct = obliging
        for process in self.processes:
            process.go_on()
        if all(process.dead for process in self.processes):
            self.start()


def rfc3339(unix_s: float) -> str:
    """An instant as producers write it."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat()


def organization(n: int) -> OrganizationId:
    """The n-th organization."""
    return OrganizationId(f"org-{n}")
