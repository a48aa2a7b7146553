"""A world in which whole processes deliver, crash and come back, without a task, a socket or a second of real time.

The decisions (:class:`dispatcher.organization.Organization`) and the janitor are the real ones, queue and store are the ones
in memory. What the actors do between them is done here step by step: every command of a core becomes a :class:`Step`, and whoever
drives the world chooses which step of which process comes next and what goes wrong in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from enum import Enum
from functools import partial
from math import inf
from random import Random
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import orjson
from attrs import frozen

from actors import announcements
from actors.janitor import Janitor
from actors.memory import MemoryQueue, Moment
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase
from actors.metrics import Metrics
from actors.ports import Admission, Arrival, Settlement
from delivery_provider import Provider, Reply
from dispatcher.backoff import RetryPolicy
from dispatcher.breaker import BreakerPolicy
from dispatcher.errors import QueueUnavailable, StoreUnavailable
from dispatcher.ids import uuid7
from dispatcher.messages import (
    Alarm,
    Claim,
    ClaimFailed,
    Command,
    Concluded,
    DrainBegan,
    Event,
    Gate,
    Gated,
    LoadProviders,
    ProviderPolicy,
    ProvidersLoaded,
    Record,
    Send,
    Settle,
    Settled,
    Unpark,
    Unparked,
    Verdict,
    WakeIn,
    Withdraw,
    Woken,
)
from dispatcher.model import Channel, Delivery, Lane, NotificationId, OrganizationId, Status
from dispatcher.organization import INTERRUPTED, Now, Organization
from dispatcher.outcome import OnUnknown, Outcome
from dispatcher.recent import RecentIds
from dispatcher.unknowns import key_holds_for_s

T = TypeVar("T")

EPOCH_S = 1_700_000_000.0
LEASE_S = 60.0
CALL_S = 21.0
IN_FLIGHT_MAX = 4
ATTEMPTS_MAX = 3
KEY_RETENTION_S = 150.0
INQUIRY_LAG_S = 30.0
POLICIES = {
    policy.channel: policy
    for policy in (
        ProviderPolicy("e", 1, "mailer", Channel.EMAIL, None, 1, 2, OnUnknown.RESEND, key_retention_s=KEY_RETENTION_S),
        ProviderPolicy("s", 1, "texter", Channel.SMS, 2.0, 2, 2, OnUnknown.RESEND_ONCE),
        ProviderPolicy("p", 1, "pusher", Channel.PUSH, None, 1, 2, OnUnknown.HOLD),
        ProviderPolicy("w", 1, "chatter", Channel.WHATSAPP, None, 1, 2, OnUnknown.ASK, inquiry_lag_s=INQUIRY_LAG_S),
    )
}
"""One channel for each policy about attempts with an unknown effect."""
RETRY = RetryPolicy(base_s=2.0, cap_s=20.0, hint_cap_s=30.0)
BREAKER = BreakerPolicy(calls_min=3, open_base_s=5.0, open_cap_s=20.0, probes=1, ramp_calls_max=2)


class Fault(Enum):
    """What goes wrong with one operation on a server."""

    NONE = "none"
    AWAY = "away"
    """It could not be asked: nothing happened."""
    LOST = "lost"
    """It has acted, and the answer was lost."""


class Call(NamedTuple):
    """An attempt that a core has sent and nobody has made yet."""

    actor: Actor
    delivery: Delivery
    via: ProviderPolicy
    sent_s: float


@frozen(eq=False)
class Step:
    """Something that a process will do. Steps of one process may be taken in any order."""

    name: str
    take: Callable[[], None]
    actor: Actor | None = None  # set for what lives and dies with an organization's actor


class World:
    """Servers, providers, clock and processes."""

    def __init__(self, seed: int, habits: type[Process] | None = None) -> None:
        self.now_s = 0.0
        self.random = Random(seed)
        self.fault = Fault.NONE
        self.fault_in = 0  # operations until the fault happens
        self.database = MemoryDatabase(self.unix_s)
        self.queue = MemoryQueue(self.unix_s, lease_s=LEASE_S, interrupt=self._interrupt_queue, on_wake=self._on_wake)
        self.postgres_is_away = False
        self.providers = {
            Channel.EMAIL: Provider(honours_keys=True, retention_s=KEY_RETENTION_S),
            Channel.SMS: Provider(honours_keys=False),
            Channel.PUSH: Provider(honours_keys=False),
            Channel.WHATSAPP: Provider(honours_keys=False, lag_s=INQUIRY_LAG_S),
        }
        self.policies = dict(POLICIES)
        self.accepted: dict[NotificationId, bytes] = {}  # what callers were told is accepted, with its content
        self.announced: list[dict[str, Any]] = []
        self.processes: list[Process] = []
        self._habits = habits or Process
        self._numbers = 0
        self._incarnations = 0

    def unix_s(self) -> float:
        return EPOCH_S + self.now_s

    def now(self) -> Now:
        return Now(self.now_s, self.unix_s())

    def start_process(self) -> Process:
        self._incarnations += 1
        process = self._habits(self, str(UUID(int=self._incarnations)))
        self.processes.append(process)
        return process

    def next_id(self) -> NotificationId:
        self._numbers += 1
        return NotificationId(uuid7(int(self.unix_s() * 1000) + self._numbers, self._numbers))

    def run(self, operation: Coroutine[Any, Any, T]) -> T:
        """Carry out an operation on a server, which in memory never waits."""
        try:
            operation.send(None)
        except StopIteration as stop:
            result: T = stop.value
            return result
        raise AssertionError("an operation in memory waited")

    def advance(self, seconds: float) -> None:
        """Let time pass; processes that are not frozen renew their leases and hear their timers."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(end_s, self.now_s + LEASE_S / 6)
            for process in self.processes:
                if not process.frozen:
                    process.tick()

    async def _interrupt_queue(self, operation: str, moment: Moment) -> None:
        if self._strikes(moment):
            raise QueueUnavailable(operation)

    async def interrupt_store(self, operation: str, moment: Moment) -> None:
        if self.postgres_is_away or self._strikes(moment):
            raise StoreUnavailable(operation)

    def _strikes(self, moment: Moment) -> bool:
        if self.fault is Fault.NONE:
            return False
        if moment is Moment.BEFORE:
            self.fault_in -= 1
        strikes = self.fault_in < 0 and (self.fault is Fault.AWAY) == (moment is Moment.BEFORE)
        if strikes:
            self.fault = Fault.NONE
        return strikes

    def _on_wake(self, organization_id: OrganizationId) -> None:
        for process in self.processes:
            process.will("hear a wake-up", partial(process.wake, organization_id))


class Actor:
    """One organization in one process: its core, and what its commands turned into."""

    def __init__(self, process: Process, organization_id: OrganizationId) -> None:
        self.process = process
        self.organization_id = organization_id
        self.core = Organization(IN_FLIGHT_MAX, RETRY, BREAKER, RecentIds(300.0, 100), process.world.random.random)
        self.alive = True
        self.wake_at_s = inf
        self.held: set[NotificationId] = set()  # given to the gate and not settled
        self._policies: dict[str, ProviderPolicy] = {}
        self._inbox: deque[Event] = deque()
        self._handling = False

    def tell(self, event: Event) -> None:
        self._inbox.append(event)
        if self._handling or not self.alive:
            return
        self._handling = True
        while self._inbox:
            event = self._inbox.popleft()
            if isinstance(event, Settled):
                self.held.difference_update(event.ids)
            for command in self.core.handle(event, self.process.world.now()):
                self._carry_out(command)
        self._handling = False

    def _carry_out(self, command: Command) -> None:
        process = self.process
        match command:
            case LoadProviders():
                process.will("load", self.load, self)
            case Claim(n):
                process.will("claim", lambda: self._claim(n), self)
            case Gate(ids):
                assert not self.held & set(ids), "an id in flight went to the gate again"
                self.held.update(ids)
                process.will("gate", lambda: process.gate(self, command, again=False))
            case Send(config_id, deliveries):
                now_s = process.world.now_s
                process.calls.extend(Call(self, delivery, self._policies[config_id], now_s) for delivery in deliveries)
            case Withdraw(config_id):
                self._withdraw(config_id)
            case Record(verdict):
                process.will("record", lambda: process.record(self, verdict, again=False))
            case Settle(parked, deferred, dropped):
                settlement = Settlement(self.organization_id, list(dropped), list(deferred), [], list(parked))
                process.will("settle", lambda: process.settle(self, settlement, []))
            case Unpark(lane, n):
                process.will("unpark", lambda: self._unpark(lane, n), self)
            case WakeIn(delay_s):
                self.wake_at_s = min(self.wake_at_s, process.world.now_s + delay_s)
            case Alarm():
                pass

    def load(self) -> None:
        policies = {policy.config_id: policy for policy in self.process.world.policies.values()}
        changed = [config_id for config_id, policy in self._policies.items() if policies.get(config_id) != policy]
        self._policies = policies
        for config_id in changed:
            self._withdraw(config_id)
        self.tell(ProvidersLoaded(list(policies.values())))

    def _claim(self, n: int) -> None:
        event: Event = ClaimFailed(1.0)
        if self.process.may_call and not self.process.draining:
            with suppress(QueueUnavailable):
                event = self.process.world.run(self.process.world.queue.claim(self.organization_id, n))
        self.tell(event)

    def _unpark(self, lane: Lane, n: int) -> None:
        try:
            self.tell(self.process.world.run(self.process.world.queue.unpark(self.organization_id, lane, n)))
        except QueueUnavailable:
            self.tell(Unparked(lane, moved=0, left=1))

    def _withdraw(self, config_id: str) -> None:
        calls = self.process.calls
        mine = [call for call in calls if call.actor is self and call.via.config_id == config_id]
        calls[:] = [call for call in calls if call not in mine]
        for call in mine:
            self.tell(Concluded(call.delivery, INTERRUPTED, call.via, 0.0))


class Process:
    """One incarnation. Broken ones override what they do wrong."""

    store_class: type[MemoryStore] = MemoryStore

    def __init__(self, world: World, incarnation: str) -> None:
        self.world = world
        self.incarnation = incarnation
        self.store = self.store_class(world.database, incarnation, interrupt=world.interrupt_store)
        self.actors: dict[OrganizationId, Actor] = {}
        self.steps: list[Step] = []
        self.calls: list[Call] = []
        self.frozen = False
        self.draining = False
        self.janitor = Janitor(
            self.store,
            world.queue,
            Metrics(),
            sweep_s=15.0,
            random=world.random,
            unix_s=world.unix_s,
            now_s=world.unix_s,
        )
        world.run(self.store.register(LEASE_S))
        self._start_until_s = world.now_s + LEASE_S - CALL_S

    # --- what happens by itself -------------------------------------------------------------------------------------------

    @property
    def may_call(self) -> bool:
        return self.world.now_s < self._start_until_s

    def tick(self) -> None:
        """Renew the lease and hear the timers that have gone off."""
        try:
            if not self.world.run(self.store.renew_lease(LEASE_S)):
                self.world.run(self.store.register(LEASE_S))
            self._start_until_s = self.world.now_s + LEASE_S - CALL_S
        except StoreUnavailable:
            pass
        for actor in list(self.actors.values()):
            if actor.wake_at_s <= self.world.now_s:
                actor.wake_at_s = inf
                actor.tell(Woken())

    def will(self, name: str, take: Callable[[], None], actor: Actor | None = None) -> None:
        self.steps.append(Step(name, take, actor))

    def wake(self, organization_id: OrganizationId) -> None:
        actor = self.actors.get(organization_id)
        if actor is None:
            if self.draining:
                return
            actor = self.actors[organization_id] = Actor(self, organization_id)
        actor.tell(Woken())

    def reload(self) -> None:
        for actor in self.actors.values():
            self.will("load", actor.load, actor)

    def sweep(self) -> None:
        try:
            for organization_id in self.world.run(self.world.queue.active(100)):
                self.wake(organization_id)
        except QueueUnavailable:
            pass

    def mend(self) -> None:
        with suppress(StoreUnavailable, QueueUnavailable):
            self.world.run(self.janitor.mend())

    # --- what producers and operators do ------------------------------------------------------------------------------------

    def accept(
        self, organization_id: OrganizationId, channel: Channel, key: str | None, content: bytes, life_s: float | None
    ) -> None:
        """Accept one notification, or learn what its key stands for already."""
        world = self.world
        id = world.next_id()
        row = {
            "id": id,
            "organization_id": organization_id,
            "channel": channel.value,
            "attempts_max": ATTEMPTS_MAX,
            "created_at": world.unix_s(),
            "expires_at": None if life_s is None else world.unix_s() + life_s,
            "recipient": "somebody",
            "payload": {"text": content.decode()},
            "bulk": (bulk := id[-1] in "13579bdf"),
        }
        admission = Admission(organization_id, id, key, content, row, is_planned=True)
        try:
            existing = world.run(self.store.insert([admission], ()))
        except StoreUnavailable:
            return  # the caller was told to try again
        found = None if key is None else existing.get((organization_id, key))
        if found is not None and found.id != id:
            assert found.id in world.database.rows
            if found.request_hash == content:  # a replay of the first answer; anything else is refused
                world.accepted[found.id] = content
            return
        world.accepted[id] = content
        try:
            world.run(world.queue.enqueue([Arrival(organization_id, [id], (), bulk)]))
        except QueueUnavailable:
            return
        self.wake(organization_id)

    def drain(self) -> None:
        self.draining = True
        for actor in list(self.actors.values()):
            actor.tell(DrainBegan())

    @property
    def is_drained(self) -> bool:
        """Whether it was asked to leave and holds nothing any more."""
        held = any(actor.core.in_flight for actor in self.actors.values())
        return self.draining and not (held or self.steps or self.calls)

    def leave(self) -> None:
        """End in good order."""
        self.world.run(self.store.release_lease())
        self.crash()

    def try_to_sleep(self, actor: Actor) -> None:
        """Put an idle organization to sleep."""
        try:
            retired = actor.core.is_idle and self.world.run(self.world.queue.retire(actor.organization_id))
        except QueueUnavailable:
            return
        if retired and actor.core.is_idle:
            actor.alive = False
            del self.actors[actor.organization_id]

    def crash_actor(self, actor: Actor) -> None:
        """An organization's actor fails; what it held is mended as soon as the ledger is through with it."""
        actor.alive = False
        self.calls[:] = [call for call in self.calls if call.actor is not actor]
        self.steps[:] = [step for step in self.steps if step.actor is not actor]
        for step in [step for step in self.steps if step.name in ("gate", "record")]:
            self.take(step)
        self.mend_actor(actor.organization_id)
        self.actors[actor.organization_id] = Actor(self, actor.organization_id)
        if self.draining:
            self.actors[actor.organization_id].tell(DrainBegan())
        self.wake(actor.organization_id)

    def mend_actor(self, organization_id: OrganizationId) -> None:
        rescued = self.world.run(self.store.disown(organization_id))
        self.world.run(self.world.queue.enqueue([Arrival(organization_id, [r.id for r in rescued if not r.dead], ())]))

    def crash(self) -> None:
        """The process is gone with everything in its memory."""
        for actor in self.actors.values():
            actor.alive = False
        self.steps.clear()
        self.calls.clear()
        self.world.processes.remove(self)

    # --- the channel ----------------------------------------------------------------------------------------------------------

    def make(self, call: Call, reply: Reply) -> None:
        """Make a call; its answer is heard in a later step."""
        self.calls.remove(call)
        delivery = call.delivery
        outcome = INTERRUPTED
        holds_for_s = key_holds_for_s(delivery, call.via)
        relies = holds_for_s is None or self.world.now_s < call.sent_s + holds_for_s
        if self.may_call and delivery.term == self.store.term and relies:
            row = self.world.database.rows[delivery.id]
            assert (row.status, row.claimed_by, row.attempts) == (Status.SENDING, self.incarnation, delivery.attempt), (
                "a call was made without an intent on record"
            )
            outcome = self.exchange(delivery, call.via, reply)
        self.will("hear an answer", lambda: call.actor.tell(Concluded(delivery, outcome, call.via, 0.1)))

    def exchange(self, delivery: Delivery, via: ProviderPolicy, reply: Reply) -> Outcome:
        """What is asked and sent in one attempt."""
        provider, now_s = self.world.providers[delivery.channel], self.world.now_s
        if via.on_unknown is OnUnknown.ASK and delivery.unknown_for_s is not None:
            found = provider.ask(self.key(delivery), reply, now_s)
            if found is not None:
                return found
        return provider.call(self.key(delivery), reply, now_s)

    def key(self, delivery: Delivery) -> str:
        return delivery.id

    # --- the ledger -------------------------------------------------------------------------------------------------------------

    def take(self, step: Step) -> None:
        self.steps.remove(step)
        step.take()

    def gate(self, actor: Actor, gate: Gate, *, again: bool) -> None:
        ids, closed = gate.ids, {(actor.organization_id, lane) for lane in gate.closed}
        through = {(actor.organization_id, lane): config_id for lane, config_id in gate.through.items()}
        try:
            answers = self.world.run(self.store.gate(ids, closed, through, gate.unbound, again=again))
        except StoreUnavailable:
            self.will("gate", lambda: self.gate(actor, gate, again=True))
            return
        answer = answers.get(actor.organization_id, Gated(()))
        answered = {d.id for d in answer.deliveries} | {id for _, id in answer.parked} | {id for id, _ in answer.deferred}
        rest = [id for id in ids if id not in answered and id not in answer.elsewhere]
        actor.held.difference_update(answer.elsewhere)
        actor.tell(Gated(answer.deliveries, answer.parked, answer.deferred, rest, answer.elsewhere))

    def record(self, actor: Actor, verdict: Verdict, *, again: bool) -> None:
        try:
            is_ours = verdict.delivery.id in self.world.run(self.store.record([verdict], again=again))
        except StoreUnavailable:
            self.will("record", lambda: self.record(actor, verdict, again=True))
            return
        self.will_settle(actor, verdict, is_ours=is_ours)

    def will_settle(self, actor: Actor, verdict: Verdict, *, is_ours: bool) -> None:
        id = verdict.delivery.id
        settlement = Settlement(actor.organization_id)
        if not is_ours:
            pass  # its place in the queue is somebody else's
        elif verdict.retry_in_s is None:
            settlement.done.append(id)
        elif verdict.retry_in_s > 0:
            settlement.delayed.append((id, verdict.retry_in_s))
        else:
            settlement.requeued.append(id)
        notice = announcements.concluded(verdict, self.world.unix_s()) if is_ours else None
        if notice is not None:
            settlement.announcements.append(notice)
        self.will("settle", lambda: self.settle(actor, settlement, [] if is_ours else [id]))

    def settle(self, actor: Actor, settlement: Settlement, lost: list[NotificationId]) -> None:
        try:
            self.world.run(self.world.queue.settle([settlement]))
        except QueueUnavailable:
            self.will("settle", lambda: self.settle(actor, settlement, lost))
            return
        self.world.announced.extend(orjson.loads(notice) for notice in settlement.announcements)
        actor.tell(Settled([*settlement.ids(), *lost], lost))
