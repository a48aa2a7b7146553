"""A simulation that has never found anything proves nothing: systems with one mechanism broken, each of which must be caught.

Every variant is the whole system with one promise left out, run on a few seeds (or, where few seeds come there, in a forced
scenario) until the checker names the invariant that the promise is there for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any
from weakref import WeakSet

import pytest
from attrs import evolve, frozen

from actors.lease import Lease
from actors.memory import MemoryQueue, Moment
from actors.memory_store import MemoryStore
from actors.organization import OrganizationActor
from actors.ports import Admission, BatchAnswer, EventAdmission, Expired, Inserted, Page, Rescued, Settlement
from beside import Result, beside
from dispatcher.bucket import Bucket
from dispatcher.channel_state import ChannelState
from dispatcher.config import Config
from dispatcher.errors import QueueUnavailable
from dispatcher.messages import Claimed, Unparked, Verdict
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, Status
from dispatcher.quota import QuotaAnswer, QuotaAsk
from dispatcher.routes import Routes
from dispatcher.verdicts import conclude
from system_plan import run_seed
from system_process import POSTGRES, REDIS, Fault, QueueHandle, Variant
from system_scenarios import (
    Play,
    a_quota_is_used_up,
    an_answer_is_swallowed_by_a_provider_that_can_be_asked,
    an_answer_never_comes_where_doubts_are_held,
    configured_again_and_again,
    drained,
    handed_on_and_on,
    one_of_two_providers_is_down,
    one_process_with_a_rest,
    perform,
    redis_is_away_for_a_moment,
    stopped,
    stopped_during_a_call,
    struck,
    the_actor_crashes_during_a_call,
    the_provider_is_down,
    two_share_the_work,
)
from system_world import at_once

SEEDS_MAX = 60


def at_the_server(store: MemoryStore) -> MemoryStore:
    """The same store, without the moments at which it may be interrupted."""
    return MemoryStore(store.database, store.incarnation, interrupt=at_once)


# --- stores ---------------------------------------------------------------------------------------------------------------


class CommitsLater(MemoryStore):
    """Says that rows are inserted, and inserts them with the next renewal of the lease: who dies before has lost them."""

    async def insert(
        self, admissions: Sequence[Admission], batch_answers: Sequence[BatchAnswer], events: Sequence[EventAdmission] = ()
    ) -> Inserted:
        await self.interrupt("insert", Moment.BEFORE)
        self.__dict__.setdefault("owed", []).append((list(admissions), list(batch_answers)))
        await self.interrupt("insert", Moment.AFTER)
        return Inserted()

    async def renew_lease(self, lease_s: float) -> bool:
        for admissions, batch_answers in self.__dict__.pop("owed", []):
            await at_the_server(self).insert(admissions, batch_answers)
        return await super().renew_lease(lease_s)


class KnowsNothingOfTheQueued(MemoryStore):
    """Nobody can put back what Redis has lost."""

    async def queued(self, after: tuple[float, NotificationId] | None, older_than_s: float, limit: int) -> Page:
        await self.interrupt("queued", Moment.BEFORE)
        return Page((), None)


class LetsEverythingThroughTheGate(MemoryStore):
    """Does not look at the status."""

    async def gate(self, ids: Sequence[NotificationId], *ways: Any, again: bool) -> Any:
        await self.interrupt("gate", Moment.BEFORE)
        for id in ids:
            self.database.rows[id].status = Status.QUEUED
        store = at_the_server(self)
        store.term = self.term
        answer = await store.gate(ids, *ways, again=again)
        await self.interrupt("gate", Moment.AFTER)
        return answer


class ForgetsThroughWhom(MemoryStore):
    """What may have been sent goes wherever everything else goes."""

    async def gate(self, ids: Sequence[NotificationId], *ways: Any, again: bool) -> Any:
        closed, through, _ = ways
        everybody = {row.provider_config_id for row in self.database.rows.values() if row.provider_config_id is not None}
        return await super().gate(ids, closed, through, everybody, again=again)


class RecordsWhatIsNoLongerIts(MemoryStore):
    """Does not look at who holds the row."""

    async def record(self, verdicts: Sequence[Verdict], *, again: bool) -> set[NotificationId]:
        await self.interrupt("record", Moment.BEFORE)
        for verdict in verdicts:
            row = self.database.rows[verdict.delivery.id]
            row.status, row.claimed_by, row.attempts = Status.SENDING, self.incarnation, verdict.delivery.attempt
        ours = await at_the_server(self).record(verdicts, again=again)
        await self.interrupt("record", Moment.AFTER)
        return ours


class RecordsLater(MemoryStore):
    """Says that an outcome is on record, and records it with the next one: Redis is told first."""

    async def record(self, verdicts: Sequence[Verdict], *, again: bool) -> set[NotificationId]:
        await self.interrupt("record", Moment.BEFORE)
        owed, self.__dict__["owed"] = self.__dict__.get("owed", []), list(verdicts)
        await at_the_server(self).record(owed, again=again)
        await self.interrupt("record", Moment.AFTER)
        return {verdict.delivery.id for verdict in verdicts}


class RescuesTheLiving(MemoryStore):
    """Takes back whatever is being sent, whoever sends it."""

    async def rescue(self, limit: int) -> Sequence[Rescued]:
        await self.interrupt("rescue", Moment.BEFORE)
        leases, self.database.leases = self.database.leases, {}
        rescued = await at_the_server(self).rescue(limit)
        self.database.leases = leases
        await self.interrupt("rescue", Moment.AFTER)
        return rescued


class RescuesWithoutAMark(MemoryStore):
    """Does not say that what it takes back may have been sent."""

    async def rescue(self, limit: int) -> Sequence[Rescued]:
        await self.interrupt("rescue", Moment.BEFORE)
        rescued = await at_the_server(self).rescue(limit)
        for one in rescued:
            self.database.rows[one.id].unknowns -= 1
        await self.interrupt("rescue", Moment.AFTER)
        return rescued


class SendsWhatHasExpired(MemoryStore):
    """Nobody looks at ``expires_at``."""

    async def expire(self, limit: int) -> Sequence[Expired]:
        return ()

    async def gate(self, ids: Sequence[NotificationId], *ways: Any, again: bool) -> Any:
        answer = await super().gate(ids, *ways, again=again)
        return {
            name: evolve(gated, deliveries=[evolve(delivery, expires_at_s=None) for delivery in gated.deliveries])
            for name, gated in answer.items()
        }


class DisownsNothing(MemoryStore):
    """An actor is restarted, and what the one before it held stays as it was."""

    async def disown(self, organization_id: OrganizationId) -> Sequence[Rescued]:
        await self.interrupt("disown", Moment.BEFORE)
        return ()

    async def sending(self, older_than_s: float, limit: int) -> Sequence[tuple[OrganizationId, NotificationId]]:
        return ()


# --- queues ---------------------------------------------------------------------------------------------------------------


class ClaimsWithoutALease(MemoryQueue):
    """A claimed id is nowhere but in memory."""

    async def claim(self, organization_id: OrganizationId, n: int, look: Sequence[str] = ()) -> Claimed:
        claimed = await super().claim(organization_id, n, look)
        await self.settle([Settlement(organization_id, done=list(claimed.ids))])
        return claimed


class UnparksNothing(MemoryQueue):
    """What was parked stays parked."""

    async def unpark(self, organization_id: OrganizationId, lane: str, n: int) -> Unparked:
        return Unparked(lane, moved=0, left=0)


class NamesNobody(MemoryQueue):
    """The sweep finds no organization that has work: only wake-ups do."""

    async def active(self, limit: int, shards: Collection[int] | None = None) -> list[OrganizationId]:
        return []


class GrantsEverything(MemoryQueue):
    """A quota's counter always begins anew."""

    async def ask_quota(self, organization_id: OrganizationId, name: str, ask: QuotaAsk) -> QuotaAnswer:
        self.limits.counters.clear()
        return await super().ask_quota(organization_id, name, evolve(ask, used=0, window=0))


class SettlesOnce(QueueHandle):
    """A settlement whose answer was lost, or that found Redis away, is not tried again."""

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        try:
            await self.__getattr__("settle")(settlements)
        except QueueUnavailable:
            pass
        finally:
            self.__dict__.pop("settle", None)


# --- settings and decisions -----------------------------------------------------------------------------------------------


def breaker_that_never_opens(config: Config) -> Config:
    """Everything is let through."""
    return evolve(config, breaker=evolve(config.breaker, calls_min=100_000, failures_in_a_row=100_000))


def never_exhausted(delivery: Any, *rest: Any) -> Verdict:
    """Tries for ever."""
    verdict = conclude(evolve(delivery, attempts_max=1_000_000), *rest)
    return evolve(verdict, delivery=delivery)


def full_bucket(rate_per_s: float, burst: int, _level: float, at_s: float) -> Bucket:
    """Each new bucket is a free burst."""
    return Bucket(rate_per_s, burst, float(burst), at_s)


async def leave_at_once(_actor: object) -> None:
    """A drain that waits for nothing."""


def always(*_: object) -> bool:
    """The lease is believed to hold."""
    return True


def whole_burst(_remembered: object, _config_id: str, _rate_per_s: float, burst: int) -> float:
    """Whoever begins has never sent anything."""
    return float(burst)


def no_objection(*_: object) -> None:
    """What is in doubt is sent like anything else."""


def always_the_standby(routes: Routes, delivery: Delivery) -> ChannelState:
    """The way that is on record is not looked at."""
    return routes.lanes[delivery.channel].routes[-1].state


async def nobody_asked(*_: object) -> None:
    """The provider is believed to know nothing."""


def forget(*_: object) -> None:
    """What Redis did not take is left to others."""


def nobody(*_: object) -> list[object]:
    """No actor ever stands still."""
    return []


_lost_one: WeakSet[Lease] = WeakSet()


async def lose_the_first(actor: OrganizationActor, n: int, look: Sequence[Channel]) -> None:
    """The first claim of a process ends without a word: its organization waits for ever."""
    if actor._with.lease in _lost_one:
        await CLAIM(actor, n, look)
    else:
        _lost_one.add(actor._with.lease)


CLAIM = OrganizationActor._claim


@frozen
class Broken:
    """A variant, what is patched besides, and the invariants one of which must be named."""

    variant: Variant = Variant()
    patches: Sequence[tuple[str, Callable[..., Any]]] = ()
    expected: Collection[str] = ()
    play: Play | None = None
    """Where it shows, when few seeds come there."""


BROKEN = {
    "pushed before the commit": Broken(Variant(store=CommitsLater), expected={"I1"}),
    "Redis loses its memory and nobody puts it back": Broken(Variant(store=KnowsNothingOfTheQueued), expected={"I1"}),
    "claimed without a lease": Broken(Variant(queue=ClaimsWithoutALease), expected={"I13"}),
    "a gate that does not look at the status": Broken(Variant(store=LetsEverythingThroughTheGate), expected={"I5"}),
    "a second provider after an unknown attempt": Broken(Variant(store=ForgetsThroughWhom), expected={"I3"}),
    "another provider than the one on record": Broken(
        patches=[("dispatcher.routes.Routes.of", always_the_standby)], expected={"I4"}, play=one_of_two_providers_is_down
    ),
    "a record that does not look at the claimer": Broken(
        Variant(store=RecordsWhatIsNoLongerIts), expected={"I4", "I5"}, play=stopped(POSTGRES, "record", Moment.BEFORE)
    ),
    "acknowledged before it is on record": Broken(Variant(store=RecordsLater), expected={"I13"}),
    "live work is rescued": Broken(Variant(store=RescuesTheLiving), expected={"I4"}),
    "rescued without a mark": Broken(Variant(store=RescuesWithoutAMark), expected={"I3"}),
    "a key for each attempt": Broken(Variant(key_of=lambda delivery: f"{delivery.id} {delivery.attempt}"), expected={"I2"}),
    "tried without end": Broken(patches=[("dispatcher.organization.conclude", never_exhausted)], expected={"I8"}),
    "sent after its time": Broken(Variant(store=SendsWhatHasExpired), expected={"I8"}),
    "called without a look at the lease": Broken(
        patches=[("actors.lease.Lease.covers", always)], expected={"I4"}, play=stopped_during_a_call
    ),
    "a drain that forgets what is held": Broken(
        patches=[("actors.organization.OrganizationActor.drain", leave_at_once)], expected={"I12"}, play=drained
    ),
    "parked for ever": Broken(Variant(queue=UnparksNothing), expected={"I1"}),
    "settled once and not again": Broken(
        Variant(handle=SettlesOnce), expected={"I5"}, play=struck(REDIS, "settle", Moment.BEFORE, Fault.AWAY, another=False)
    ),
    "a breaker that never opens": Broken(Variant(reads=breaker_that_never_opens), expected={"I10"}, play=the_provider_is_down),
    "a bucket that starts full": Broken(
        patches=[("dispatcher.channel_state.Bucket", full_bucket)], expected={"I6"}, play=configured_again_and_again
    ),
    "an actor restarted and not mended": Broken(
        Variant(store=DisownsNothing), expected={"I1"}, play=the_actor_crashes_during_a_call
    ),
    "claimed without a look at who owns the shard": Broken(
        patches=[("actors.shards.Shards.owns", always)], expected={"I6"}, play=two_share_the_work
    ),
    "a new owner begins with a full bucket": Broken(
        patches=[("dispatcher.channel_state.level_now", whole_burst)], expected={"I6"}, play=handed_on_and_on
    ),
    "a quota that nobody counts": Broken(Variant(queue=GrantsEverything), expected={"I6"}, play=a_quota_is_used_up),
    "held for a person and sent all the same": Broken(
        patches=[("dispatcher.organization.judge", no_objection)],
        expected={"I3"},
        play=an_answer_never_comes_where_doubts_are_held,
    ),
    "sent again without having asked": Broken(
        patches=[("actors.channel.ChannelActor._ask", nobody_asked)],
        expected={"I3"},
        play=an_answer_is_swallowed_by_a_provider_that_can_be_asked,
    ),
    "a pusher that forgets, and a janitor that finds nothing": Broken(
        Variant(store=KnowsNothingOfTheQueued),
        patches=[("actors.pusher.Pusher._keep", forget)],
        expected={"I1"},
        play=redis_is_away_for_a_moment,
    ),
    "an actor that stands still, and nobody looks": Broken(
        patches=[("actors.organization.OrganizationActor._claim", lose_the_first), ("actors.watchdog.Watchdog.look", nobody)],
        expected={"I1"},
        play=one_process_with_a_rest,
    ),
    "a wake-up swallowed and no sweep": Broken(Variant(queue=NamesNobody), expected={"I1"}),
}


def is_caught(broken: Broken, seed: int) -> bool:
    """Whether the checker names what is expected."""
    if broken.play is None:
        found = run_seed(seed, variant=broken.variant).broken
    else:
        found = perform(broken.play, seed=seed, variant=broken.variant).broken
    return any(line.partition(":")[0] in broken.expected for line in found)


def first_that_catches(name: str) -> int | None:
    """The seed, if there is one."""
    broken = BROKEN[name]
    with pytest.MonkeyPatch.context() as patches:
        for target, replacement in broken.patches:
            patches.setattr(target, replacement)
        return next((seed for seed in range(1, SEEDS_MAX + 1) if is_caught(broken, seed)), None)


@beside(first_that_catches)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_mechanism_is_caught(name: str, result: Result) -> None:
    assert result() is not None


def test_an_actor_that_stands_still_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.organization.OrganizationActor._claim", lose_the_first)
    ended = perform(one_process_with_a_rest)

    assert ended.broken == []
    assert [row.status for row in ended.rows] == [Status.DELIVERED]


def test_a_pusher_that_remembers_needs_no_janitor() -> None:
    assert perform(redis_is_away_for_a_moment, variant=Variant(store=KnowsNothingOfTheQueued)).broken == []
