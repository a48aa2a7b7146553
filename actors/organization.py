"""The actor of one organization: hears events, asks its core once for each, carries out the commands.

The core runs inside :meth:`OrganizationActor.tell`, at once and without a task switch: a finished call costs its organization
no wake-up. What must wait (a claim, a load) becomes a task of the actor's nursery and tells its result. The actor's own task
only keeps time and, after ``idle_s`` without work, puts the organization to sleep.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from random import Random

import trio
from attrs import frozen

from actors import announcements
from actors.cache import HotCache
from actors.callers import Callers
from actors.channel import ChannelActor
from actors.channel_memory import ChannelMemory
from actors.io.http import Deadlines
from actors.lease import Lease
from actors.ledger import Ledger
from actors.metrics import Metrics
from actors.permits import Permits, Purse
from actors.ports import Queue, Settlement
from actors.transports import Transports
from dispatcher.errors import QueueUnavailable, StoreUnavailable
from dispatcher.messages import (
    Alarm,
    Claim,
    ClaimFailed,
    Command,
    DrainBegan,
    DrainEnded,
    Event,
    Gate,
    Gated,
    Keep,
    LeaseQuota,
    LoadProviders,
    ProviderPolicy,
    ProvidersLoaded,
    QuotaLeased,
    Record,
    ReturnQuota,
    Send,
    Settle,
    Unpark,
    Unparked,
    WakeIn,
    Withdraw,
    Woken,
)
from dispatcher.model import Delivery, Lane, NotificationId, OrganizationId
from dispatcher.organization import Now, Organization
from dispatcher.providers.registry import Bound
from dispatcher.quota import QuotaAsk

logger = logging.getLogger(__name__)

SERVER_AWAY_RETRY_S = 1.0
"""Mean pause before a claim or a load is tried again while its server is away."""


@frozen
class Surroundings:
    """What every organization's actor of this process shares."""

    queue: Queue
    ledger: Ledger
    callers: Callers
    transports: Transports
    deadlines: Deadlines
    lease: Lease
    permits: Permits
    metrics: Metrics
    random: Random
    unix_s: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    """Fresh unpredictable bytes, for what requests are encrypted with."""
    refresh_s: Callable[[], float]
    """How long provider configurations are kept before they are read again: jittered, drawn anew each time."""
    idle_s: float
    owns: Callable[[OrganizationId], bool] = lambda _: True
    """Whether this process may claim for an organization now."""


class OrganizationActor:
    """One organization. ``load_providers`` reads and binds its provider configurations, best first."""

    def __init__(
        self,
        organization_id: OrganizationId,
        core: Organization,
        cache: HotCache[object],
        load_providers: Callable[[], Awaitable[Sequence[tuple[ProviderPolicy, Bound]]]],
        surroundings: Surroundings,
    ) -> None:
        self.organization_id = organization_id
        self.cache = cache
        self._core = core
        self._load_providers_now = load_providers
        self._with = surroundings
        self._memory = ChannelMemory(organization_id, surroundings.queue)
        self._nursery: trio.Nursery | None = None  # None before run() has begun: events wait in the inbox
        self._inbox: deque[Event] = deque()
        self._handling = False
        self._channels: dict[str, ChannelActor] = {}  # by configuration
        self._wake_at_s = inf
        self._refresh_at_s = inf  # when the provider configurations have been kept for long enough
        self._timer = trio.Event()
        self._purse = Purse()
        self._permits_held = 0  # of those in the purse, the ones that a claim has taken out
        self._claiming = 0  # permits of claims under way
        self._loads = 0  # counts loads begun, so that an older one that ends later is not believed
        self._failure: Exception | None = None
        self._abandoned: list[Delivery] = []  # they waited for a caller when the actor ended
        self._draining = False
        self._ended = False  # it will not be resumed
        self._gone = False  # and holds nothing any more
        self._waiting = 0  # tasks that claim, load or unpark, or wait for leave or a server to do so
        self.claims = 0
        """Claims that have ended, one way or the other: its progress."""
        self._worked_at_s = -inf  # when it last held something
        self._empty = trio.Event()  # set whenever nothing is held in flight after an event, and when the actor ends

    # --- for everybody --------------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Take one event in and carry out what follows, now. Never waits; events told meanwhile follow in order.

        Never raises either: a failure of the organization ends its actor, not the one who told it something.
        """
        self._inbox.append(event)
        if self._handling or self._nursery is None or self._failure is not None:
            return
        self._handling = True
        try:
            while self._inbox:
                now = Now(trio.current_time(), self._with.unix_s())
                for command in self._core.handle(self._inbox.popleft(), now):
                    self._carry_out(command)
            self._balance_permits(now.s)
        except Exception as error:
            self.fail(error)
        finally:
            self._handling = False

    def reload(self, delay_s: float = 0.0) -> None:
        """The organization's configuration or templates changed: forget what was cached and, ``delay_s`` later, load anew."""
        self.cache.drop()
        if self._nursery is not None:
            self._start(self._load_providers, delay_s)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held, under way or waiting."""
        return self._core.is_idle and not self._inbox

    @property
    def paused(self) -> bool:
        """Whether it begins nothing more, for now or for good."""
        return self._draining

    @property
    def should_claim(self) -> bool:
        """Whether a hint has to make it claim: it waits for no server, lease, permit, call, provider or channel."""
        around = self._with
        if self._nursery is None or self._draining or self._waiting or not around.lease.holds:
            return False
        return around.owns(self.organization_id) and self._core.must_claim(Now(trio.current_time(), around.unix_s()))

    @property
    def core(self) -> Organization:
        """The decisions, for statistics."""
        return self._core

    # --- for the registry -----------------------------------------------------------------------------------------------

    async def run(self, asleep: Callable[[], bool]) -> None:
        """Live until put to sleep. ``asleep`` is asked last, without a pause after it: True means that the registry let go."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._worked_at_s = trio.current_time()
                self.tell(Woken())
                while not self._gone and not await self._sleep(asleep):
                    self.tell(Woken())
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            self._abandon()
            self._with.permits.release(self._purse, self._purse.held)
            self._permits_held = 0
            self._empty.set()
        if self._failure is not None:
            raise self._failure

    def pause(self) -> None:
        """Claim nothing more, and hand back what has not started."""
        if not self._draining:
            self._draining = True
            self.tell(DrainBegan())

    def resume(self) -> None:
        """Claim again after a pause, unless it was told to end."""
        if self._draining and not self._ended:
            self._draining = False
            self.tell(DrainEnded())

    async def drain(self) -> None:
        """Pause, and wait until everything held is settled."""
        self.pause()
        while self._nursery is not None and (self._core.in_flight or self._claiming):
            if self._empty.is_set():
                self._empty = trio.Event()
            await self._empty.wait()
        await self._leave()

    async def end(self) -> None:
        """Pause for good, and leave as soon as nothing is held."""
        self._ended = True
        await self.drain()
        self._gone = True
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def fail(self, error: Exception) -> None:
        """End as after a fault of its own."""
        if self._nursery is not None and self._failure is None:
            self._failure = error
            self._abandon()
            self._nursery.cancel_scope.cancel()

    def not_begun(self) -> dict[NotificationId, int]:
        """Of an actor that has failed: the attempts it held of which it is certain that no call was begun, by id.

        They waited for a caller, or their gate answered when nobody listened any more. What was in the event over which it failed
        is not among them: that may be why, and has to end as poison if it happens again and again.
        """
        unheard = (delivery for event in self._inbox if isinstance(event, Gated) for delivery in event.deliveries)
        return {delivery.id: delivery.attempt for delivery in (*self._abandoned, *unheard)}

    async def _sleep(self, asleep: Callable[[], bool]) -> bool:
        """Wait for the timer. True when, after ``idle_s`` in which it held nothing, the organization may leave."""
        while (now_s := trio.current_time()) < (until_s := min(self._wake_at_s, self._worked_at_s + self._with.idle_s)):
            self._timer = trio.Event()
            with trio.move_on_at(min(until_s, self._refresh_at_s)):
                await self._timer.wait()  # an earlier wake-up was asked for
            if trio.current_time() >= self._refresh_at_s:
                self._refresh_at_s = inf
                self.reload()
        if now_s >= self._wake_at_s:
            self._wake_at_s = inf
            return False
        self._worked_at_s = now_s
        idle = self.is_idle
        try:
            # It may have heard something while it asked, so it is asked again.
            if idle and await self._leave() and await self._with.queue.retire(self.organization_id) and self.is_idle and asleep():
                return True
        except QueueUnavailable:
            pass
        for config_id in self._core.routes.states if idle else ():
            self._carry_out(Keep(config_id))  # it stays, and what it spends from now on is not on record
        return False

    # --- commands -------------------------------------------------------------------------------------------------------

    def _carry_out(self, command: Command) -> None:
        ledger = self._with.ledger
        match command:
            case Record(verdict):
                ledger.record(verdict, self.tell)
            case Claim(n, look):
                self._start(self._claim, n, look)
            case Gate(ids, closed, through, unbound):
                ledger.gate(self.organization_id, ids, closed, self._gated, through, unbound)
            case Send(config_id, deliveries, deadline_s):
                self._channels[config_id].send(deliveries, deadline_s)
            case Settle(parked, deferred, dropped):
                settlement = Settlement(self.organization_id, list(dropped), list(deferred), [], list(parked))
                ledger.settle(settlement, self.tell)
            case WakeIn(delay_s):
                self._wake_in(delay_s)
            case LoadProviders():
                self._start(self._load_providers)
            case Unpark(lane, n):
                self._start(self._unpark, lane, n)
            case Withdraw(config_id):
                if config_id in self._channels:
                    self._channels[config_id].withdraw()
            case LeaseQuota(policy, ask):
                self._start(self._lease_quota, policy, ask)
            case ReturnQuota():
                self._start(self._memory.give_back, command)
            case Keep(config_id):
                if self._memory.changed(config_id):
                    self._start(self._memory.gather, self._core.routes.states)
            case Alarm():
                self._alarm(command)

    def _start(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        assert self._nursery is not None
        self._waiting += 1
        self._nursery.start_soon(self._wait, task, args)

    async def _wait(self, task: Callable[..., Awaitable[None]], args: Sequence[object]) -> None:
        try:
            await task(*args)
        finally:
            self._waiting -= 1

    def _gated(self, event: Event) -> None:
        """What the gate let through begins only while the organization is ours: its next owner has a bucket of its own."""
        if isinstance(event, Gated) and event.deliveries:
            self._observe_age(event.deliveries)
        if not self._with.owns(self.organization_id):
            self.pause()
        self.tell(event)

    async def _claim(self, n: int, look: Sequence[Lane]) -> None:
        """Claim as many as there are permits for; nothing while we may not start a call anyway, or are about to leave."""
        granted = await self._with.permits.acquire(self._purse, n)
        self._permits_held += granted
        event: Event = ClaimFailed(self._server_away_s())
        if self._with.lease.holds and not self._draining and self._with.owns(self.organization_id):
            self._claiming += granted
            try:
                event = claimed = await self._with.queue.claim(self.organization_id, granted, look)
                if claimed.ids:
                    for config_id in self._memory.to_retract:  # it meant to leave, stayed, and could not tell Redis so
                        self._carry_out(Keep(config_id))
            except QueueUnavailable:
                pass
            finally:
                self._claiming -= granted
        self.claims += 1
        self.tell(event)

    def _observe_age(self, deliveries: Sequence[Delivery]) -> None:
        """Of what passed together the youngest: what comes back (a retry, a lapsed lease) is older than what waited its turn."""
        age_s = self._with.unix_s() - max(delivery.created_at_s for delivery in deliveries)
        self._with.metrics.queue_age.observe(age_s, trio.current_time())

    async def _unpark(self, lane: Lane, n: int) -> None:
        try:
            self.tell(await self._with.queue.unpark(self.organization_id, lane, n))
        except QueueUnavailable:
            await trio.sleep(self._server_away_s())
            self.tell(Unparked(lane, moved=0, left=1))

    async def _lease_quota(self, policy: ProviderPolicy, ask: QuotaAsk) -> None:
        answer = None
        try:
            answer = await self._with.queue.ask_quota(self.organization_id, self._memory.name_of(policy.config_id), ask)
        except QueueUnavailable:
            await trio.sleep(self._server_away_s())
        self.tell(QuotaLeased(policy, answer))

    async def _leave(self) -> bool:
        """Leave behind what the next life should know. Always True."""
        await self._memory.leave(self._core.routes.states, self._core.give_back(trio.current_time()))
        return True

    async def _load_providers(self, delay_s: float = 0.0) -> None:
        self._loads += 1
        mine = self._loads
        self._refresh_at_s = inf
        if delay_s:
            await trio.sleep(delay_s)
        while True:
            try:
                loaded = await self._load_providers_now()
                break
            except StoreUnavailable:
                await trio.sleep(self._server_away_s())
        policies = [policy for policy, _ in loaded]
        remembered = await self._memory.recall(policies)
        if mine != self._loads:
            return
        found = {configured[0].config_id: configured for configured in loaded}
        for config_id in sorted(self._channels.keys() | found.keys()):
            self._renew_channel(config_id, found.get(config_id))
        self.tell(ProvidersLoaded(policies, remembered))
        self._memory.consumed()
        self._refresh_at_s = trio.current_time() + self._with.refresh_s()
        self._timer.set()

    def _renew_channel(self, config_id: str, found: tuple[ProviderPolicy, Bound] | None) -> None:
        """Replace the actor of a configuration that has changed. Calls under way end on the old one."""
        present = self._channels.get(config_id)
        if present is not None and found is not None and present.policy == found[0]:
            return
        if found is None:
            del self._channels[config_id]
        else:
            around = self._with
            self._channels[config_id] = ChannelActor(
                found[0],
                found[1],
                transports=around.transports,
                deadlines=around.deadlines,
                lease=around.lease,
                callers=around.callers,
                share=around.callers.share_of(self.organization_id),
                tell=self.tell,
                unix_s=around.unix_s,
                random_bytes=around.random_bytes,
                metrics=around.metrics,
            )
        if present is not None:
            present.withdraw()

    def _alarm(self, alarm: Alarm) -> None:
        code, channel, who = alarm.code, alarm.channel.value, f"{alarm.config_id} {alarm.to}".rstrip()
        logger.warning("organization %s, channel %s: %s (%s)", self.organization_id, channel, code, who)
        self._with.metrics.alarms[code, channel] += 1
        announcement = announcements.channel_alarm(alarm, self._with.unix_s())
        self._with.ledger.settle(Settlement(self.organization_id, announcements=[announcement]), self.tell)

    def _wake_in(self, delay_s: float) -> None:
        at_s = trio.current_time() + delay_s
        if at_s < self._wake_at_s:
            self._wake_at_s = at_s
            self._timer.set()

    def _server_away_s(self) -> float:
        return SERVER_AWAY_RETRY_S * (0.5 + self._with.random.random())

    def _abandon(self) -> None:
        """Begin none of the calls that wait: whoever mends this actor takes them back."""
        for channel in self._channels.values():
            self._abandoned.extend(channel.abandon())

    def _balance_permits(self, now_s: float) -> None:
        """Give back the permits that no id in flight and no claim under way needs any more."""
        needed = len(self._core.in_flight) + self._claiming
        if self._permits_held > needed:
            self._with.permits.release(self._purse, self._permits_held - needed)
            self._permits_held = needed
        if self._core.in_flight:
            self._worked_at_s = now_s
        if not needed:
            self._empty.set()
