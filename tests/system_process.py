"""One process of the simulated system: the node's own tree over ports in memory, and everything that may be done to a process.

This module is the only place that knows what a node is made of. What stands between the tree and the servers is one method,
:meth:`Process.interrupt`: it is awaited before and after each operation on a server, and there a process stands still, dies, or
is told that the server is away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from inspect import iscoroutinefunction
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

import trio
from attrs import frozen

from actors.herald import Herald
from actors.io.http import HttpPool
from actors.io.pg_pool import PoolStatistics
from actors.io.postgres import Pool
from actors.io.redis import Message, Reconnected, Redis, Subscriber
from actors.memory import MemoryQueue, Moment
from actors.memory_feedback import MemoryFeedback
from actors.memory_people import MemoryPeople
from actors.memory_schedule import MemorySchedule
from actors.memory_store import MemoryStore
from actors.node import FLUSH_S, RELEASE_S, Node
from actors.node_ports import Ports
from actors.ports import Queue
from actors.transports import Transports
from dispatcher.config import Config
from dispatcher.errors import QueueUnavailable, StoreUnavailable
from dispatcher.keys import Keys, shard_of
from dispatcher.messages import ProviderPolicy
from dispatcher.model import Delivery, OrganizationId
from dispatcher.providers.registry import Bound
from dispatcher.setup import Setup
from dispatcher.template_sets import TemplateSet
from dispatcher.templates import CompiledTemplate

if TYPE_CHECKING:
    from system_world import World

T = TypeVar("T")

POSTGRES, REDIS, PROVIDER = "postgres", "redis", "provider"
MESSAGES_MAX = 10_000


class Fault(Enum):
    """What goes wrong at one await of one process."""

    SLOW = "slow"
    AWAY = "away"
    """The server can not be asked: nothing happened. Only before an operation."""
    LOST = "lost"
    """It has acted, and its answer is lost. Only after one."""
    KILL = "kill"
    """The process dies at this very await."""
    BROKEN = "broken"
    """The operation fails in a way nobody foresaw: a script error, a bug."""


class ScriptFailed(Exception):
    """What nobody foresaw."""


def same_key(delivery: Delivery) -> str:
    """The key of a call: the same for every attempt."""
    return delivery.id


def as_it_is(config: Config) -> Config:
    """Heed the settings."""
    return config


class Process:
    """One incarnation. ``up`` once its node has started; ``dead`` from the instant it is killed or has left."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.name = f"p{number}"
        self.incarnation = str(UUID(int=number))
        self.random = Random(f"{world.seed} {number}")
        self.dead = False
        self.killed = False
        self.started_s = trio.current_time()
        self.ended_s: float | None = None
        self.left_well: bool | None = None
        self.last_stop_s = float("-inf")
        self.up = trio.Event()
        self._scope = trio.CancelScope()
        self._told_to_leave = trio.Event()
        self._going: trio.Event | None = None  # set when a process that stands still goes on
        self._surface: trio.Nursery | None = None
        self._asks = 0
        self._answered = trio.Event()
        self._messages = trio.open_memory_channel[Message | Reconnected](MESSAGES_MAX)
        self.store = world.variant.store(world.database, self.incarnation, interrupt=self._interrupt_store)
        self.schedule = MemorySchedule(world.database, interrupt=self._interrupt_store)
        self.queue = cast("Queue", world.variant.handle(self, world.queue))
        self.node = self._make_node()

    def _make_node(self) -> Node:
        world = self.world
        config = world.variant.reads(world.config)

        def make_herald(node: Node) -> Herald:
            return Herald(
                cast("Redis", Publisher(self)),
                cast("Subscriber", Listener(self)),
                shards=config.dispatch.shards,
                listeners_max=10,
                buffer_max=10,
                on_wake=node.organizations.wake,
                on_changed=node.drop_cached,
                on_missed=node.drop_all_cached,
                on_shards=node.shards.look,
            )

        return Node(
            config,
            ports=Ports(
                store=self.store,
                queue=self.queue,
                load_providers=self._load_providers,
                load_template=self._load_template,
                load_setup=self._load_setup,
                load_template_set=self._load_no_templates,
                people=MemoryPeople(world.database),
                stored_answer=self._stored_answer,
                feedback=MemoryFeedback(world.database),
                load_webhook=_no_webhook,
                schedule=self.schedule,
            ),
            pool=cast("Pool", Connections()),
            redis=cast("Redis", Publisher(self)),
            transports=Transports(cast("HttpPool", world.network.of(self))),
            make_herald=make_herald,
            incarnation=self.incarnation,
            random=self.random,
            random_bytes=self.random.randbytes,
            unix_s=self.unix_s,
        )

    # --- reads that have no port ----------------------------------------------------------------------------------------

    async def _load_providers(self, organization_id: OrganizationId) -> Sequence[tuple[ProviderPolicy, Bound]]:
        await self._interrupt_store("load_providers", Moment.BEFORE)
        configured = self.world.configured(organization_id)
        await self._interrupt_store("load_providers", Moment.AFTER)
        return configured

    async def _load_setup(self, *_: object) -> Setup:
        return Setup()

    async def _load_no_templates(self, *_: object) -> TemplateSet | None:
        return None

    async def _load_template(self, *_: object) -> CompiledTemplate | None:
        return None

    async def _stored_answer(self, organization_id: OrganizationId, key: str) -> tuple[bytes, bytes] | None:
        await self._interrupt_store("stored_answer", Moment.BEFORE)
        return self.world.database.batch_answers.get((organization_id, key))

    # --- life -----------------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether it runs and takes requests."""
        return self.up.is_set() and not self.dead and not self._told_to_leave.is_set()

    @property
    def stands_still(self) -> bool:
        """Whether it was stopped and not continued."""
        return self._going is not None

    def unix_s(self) -> float:
        """Its wall clock."""
        return self.world.clock.unix_s(self.name)

    async def run(self) -> None:
        """Live until killed or told to leave."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self.node.run)
                    self.up.set()
                    await self._serve()
                    began_s = trio.current_time()
                    left_well = await self.node.leave()
                    if not self.dead:
                        self.left_well = left_well
                        self.world.checker.left(self, trio.current_time() - began_s, left_well)
                    nursery.cancel_scope.cancel()
        except Exception as error:
            if not self.dead:
                self.world.checker.ended_by_itself(self, error)
        finally:
            self._die("ended")

    async def _serve(self) -> None:
        """The surface: requests, until told to leave; then those under way may end."""
        async with trio.open_nursery() as surface:
            self._surface = surface
            await self._told_to_leave.wait()
            with trio.move_on_after(self.world.config.dispatch.drain_s):
                while self._asks:
                    self._answered = trio.Event()
                    await self._answered.wait()
            surface.cancel_scope.cancel()
        self._surface = None

    def kill(self) -> None:
        """kill -9: from this instant it does nothing more to anybody."""
        if not self.dead:
            self.killed = True
            self._die("killed")
            self._scope.cancel()

    def leave(self) -> None:
        """SIGTERM."""
        self.world.note(self.name, "leave")
        self._told_to_leave.set()

    def stop(self) -> None:
        """SIGSTOP."""
        if self._going is None:
            self.world.note(self.name, "stop")
            self._going = trio.Event()

    def go_on(self) -> None:
        """SIGCONT."""
        if self._going is not None:
            self.world.note(self.name, "go on")
            self._going.set()
            self._going = None
            self.last_stop_s = trio.current_time()

    def _die(self, how: str) -> None:
        if not self.dead:
            self.world.note(self.name, how)
            self.dead = True
            self.ended_s = trio.current_time()

    async def steady(self) -> bool:
        """Wait while it stands still; for ever once it is dead. Whether it had to wait."""
        waited = False
        while self._going is not None and not self.dead:
            waited = True
            await self._going.wait()
        if self.dead:
            await trio.sleep_forever()
        return waited

    # --- requests -------------------------------------------------------------------------------------------------------

    async def ask(self, request: Callable[[], Awaitable[T]]) -> T | Exception | None:
        """Make a request of it, as a client does: its answer, its refusal, or None when no answer comes."""
        if not self.alive or self._surface is None:
            return None
        answers: list[T | Exception] = []
        done = trio.Event()

        async def serve() -> None:
            self._asks += 1
            try:
                answers.append(await request())
            except Exception as error:  # the surface answers 4xx or 5xx
                answers.append(error)
            finally:
                self._asks -= 1
                self._answered.set()
                done.set()

        self._surface.start_soon(serve)
        await done.wait()
        return answers[0] if answers and not self.dead else None

    # --- what it hears --------------------------------------------------------------------------------------------------

    def hear(self, message: Message | Reconnected) -> None:
        """Something was published."""
        if not self.dead:
            self._messages[0].send_nowait(message)

    def hear_wake(self, organization_id: OrganizationId) -> None:
        """Somebody has work."""
        shard = shard_of(organization_id, self.world.config.dispatch.shards)
        self.hear(Message(Keys().wake(shard), organization_id.encode()))

    async def heard(self) -> Message | Reconnected:
        """The next message."""
        message = await self._messages[1].receive()
        await self.steady()
        return message

    # --- the servers ----------------------------------------------------------------------------------------------------

    async def _interrupt_store(self, operation: str, moment: Moment) -> None:
        if moment is Moment.AFTER and not self.dead:
            self.world.checker.looks_at_rows(operation, self)
        await self.interrupt(POSTGRES, operation, moment)

    async def interrupt(self, server: str, operation: str, moment: Moment) -> None:
        """Pass one moment of an operation on a server, or do not."""
        world = self.world
        if moment is Moment.BEFORE:
            await trio.lowlevel.checkpoint()
        if self.dead or self._going is not None:
            await self.steady()
        fault = world.fault_at(self, server, operation, moment)
        world.note(self.name, server, operation, moment.value, fault.value if isinstance(fault, Fault) else fault or "")
        if self.dead or self._going is not None:
            await self.steady()
        if fault is None:
            return
        if fault is Fault.SLOW or isinstance(fault, float):
            await trio.sleep(fault if isinstance(fault, float) else world.random.uniform(0.001, 3.0))
            await self.steady()
        elif fault is Fault.KILL:
            self.kill()
            await trio.sleep_forever()
        elif fault is Fault.BROKEN:
            world.broken(self, operation)
            raise ScriptFailed(operation)
        elif server == POSTGRES:
            raise StoreUnavailable(operation)
        else:
            raise QueueUnavailable(operation)

    @property
    def grace_s(self) -> float:
        """How long it may take to leave."""
        return self.world.config.dispatch.drain_s + FLUSH_S + 2 * RELEASE_S


class QueueHandle:
    """The queue that all processes share, as one of them reaches it."""

    def __init__(self, process: Process, queue: MemoryQueue) -> None:
        self._process = process
        self._queue = queue

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._queue, name)
        if not iscoroutinefunction(operation):
            return operation
        process, checker = self._process, self._process.world.checker

        async def reach(*args: Any, **named: Any) -> Any:
            try:
                await process.interrupt(REDIS, name, Moment.BEFORE)
                before = checker.looks_at_queue(name, args)
                answer = await operation(*args, **named)
                checker.queue_acted(process, name, args, answer, before)
                await process.interrupt(REDIS, name, Moment.AFTER)
            finally:
                if name == "take_channels":  # it begins now, whether or not Redis could be asked
                    checker.limits.life_began(process, *args)
            return answer

        setattr(self, name, reach)
        return reach


@frozen
class Variant:
    """What a deliberately broken system does differently: in its ports, its keys, or in how it reads its settings."""

    store: type[MemoryStore] = MemoryStore
    queue: type[MemoryQueue] = MemoryQueue
    handle: type[QueueHandle] = QueueHandle
    key_of: Callable[[Delivery], str] = same_key
    reads: Callable[[Config], Config] = as_it_is


class Listener:
    """A subscriber's connection."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def subscribe(self, *_: str) -> None:
        await trio.lowlevel.checkpoint()

    async def receive(self) -> Message | Reconnected:
        return await self._process.heard()


class Connections:
    """The pool's own figures: it has as many connections as anybody wants."""

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(1, 1, 0, 0, 0)


class Publisher:
    """A connection for commands: announcing to other processes, and asking how much memory is left."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def execute(self, command: str, topic: str, payload: str = "") -> int | bytes:
        if command == "INFO":
            await self._process.interrupt(REDIS, "info", Moment.BEFORE)
            return b"maxmemory:0"
        assert command == "PUBLISH"
        await self._process.interrupt(REDIS, "publish", Moment.BEFORE)
        for process in self._process.world.processes:
            process.hear(Message(topic, payload.encode()))
        return 1


async def _no_webhook(_organization_id: OrganizationId, _id: str) -> None:
    """Nobody reports anything here."""
