"""What lives and gets nowhere is ended and mended; what waits for a good reason is left alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock

from actor_world import ACME, BUDGET, MAIL, OTHER, SWEEP_S, ActorWorld, FaultyCore, Operations
from actors.janitor import Janitor
from actors.memory import Moment
from actors.supervision import BudgetSpent, RestartBudget, Stalled, supervise
from actors.watchdog import SILENT_S, STALLED_MIN_S, SWEEPS, watched
from dispatcher.errors import QueueUnavailable, StoreUnavailable
from dispatcher.messages import Command, DrainBegan, Event, Woken
from dispatcher.model import Channel, NotificationId
from dispatcher.organization import Now

STALLED_S = max(SWEEPS * SWEEP_S, STALLED_MIN_S)
NOTICED_S = STALLED_S + 2 * 1.5 * SWEEP_S
"""By then a stall is noticed, however the sweeps fall."""


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """So many cores, of those that are woken with nothing to do, hear no wake-up from then on."""
    left = [0]
    broken: set[int] = set()
    handle = FaultyCore.handle

    def forget(core: FaultyCore, event: Event, now: Now) -> list[Command]:
        if isinstance(event, Woken):
            if left[0] and id(core) not in broken and core._policies_known and not core.in_flight:
                broken.add(id(core))
                left[0] -= 1
            if id(core) in broken:
                return []
        return handle(core, event, now)

    monkeypatch.setattr(FaultyCore, "handle", forget)
    return left


async def keep_busy(world: ActorWorld) -> None:
    """So that the organization does not fall asleep, and begin anew when it wakes."""
    while True:
        await world.accept(1)
        await trio.sleep(5.0)


# --- an organization's actor ----------------------------------------------------------------------------------------------


async def test_an_actor_that_forgot_its_work_is_replaced(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, forgetful: list[int]
) -> None:
    world = ActorWorld()
    async with world.running():
        first = await world.accept(1)
        await trio.sleep(5.0)
        forgetful[0] = 1
        second = await world.accept(3)
        await trio.sleep(STALLED_S)
        before = world.statuses(second), world.metrics.events["consumer_restarted"]
        await trio.sleep(NOTICED_S - STALLED_S + 5.0)

    assert before == ({"queued"}, 0)
    assert world.statuses([*first, *second]) == {"delivered"}
    assert world.metrics.events["consumer_restarted"] == world.metrics.events["actor_restart"] == 1
    assert "organization acme has work and has not claimed for" in caplog.text


async def test_an_actor_that_lost_the_answer_to_its_claim_is_replaced(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its core waits for an answer that nobody will give; the actor knows that no claim is under way."""
    world = ActorWorld()
    async with world.running():
        first = await world.accept(1)
        await trio.sleep(5.0)
        world.made[0].core._claiming_n = 16
        second = await world.accept(3)
        await trio.sleep(NOTICED_S + 5.0)

    assert world.statuses([*first, *second]) == {"delivered"}
    assert world.metrics.events["consumer_restarted"] == 1


async def test_one_that_keeps_standing_still_ends_in_quarantine_with_its_alarm(
    autojump_clock: MockClock, forgetful: list[int]
) -> None:
    """Although each stall takes longer to notice than its restarts are counted for."""
    world = ActorWorld()
    world.organizations._budget = evolve(BUDGET, period_s=60.0)
    forgetful[0] = 1000
    async with world.running() as nursery:
        nursery.start_soon(keep_busy, world)
        await trio.sleep((BUDGET.restarts_max + 1) * (NOTICED_S + 20.0))
        quarantined = world.organizations.quarantined

    assert quarantined == 1
    assert world.metrics.events["consumer_restarted"] == BUDGET.restarts_max + 1
    assert world.metrics.events["organization_quarantined"] == 1
    assert b"organization.quarantined" in b"".join(world.queue.announced(ACME))


async def test_stalls_hours_apart_are_no_series(autojump_clock: MockClock, forgetful: list[int]) -> None:
    world = ActorWorld()
    world.organizations._budget = RestartBudget(restarts_max=1, period_s=60.0, pause_s=1.0)
    async with world.running() as nursery:
        nursery.start_soon(keep_busy, world)
        for _ in range(3):
            forgetful[0] = 1
            await trio.sleep(3600.0)

    assert world.metrics.events["consumer_restarted"] == 3
    assert world.organizations.quarantined == 0


def calls_under_way(world: ActorWorld) -> None:
    async def conduct(_: NotificationId) -> int:
        await trio.sleep(3 * NOTICED_S)
        return 202

    world.provider.conduct = conduct


def breaker_open(world: ActorWorld) -> None:
    async def conduct(_: NotificationId) -> int:
        return 503

    world.provider.conduct = conduct


def rate_exhausted(world: ActorWorld) -> None:
    world.policies = [evolve(MAIL, rate_per_s=1 / (2 * NOTICED_S), burst=1)]


def rate_limited(world: ActorWorld) -> None:
    async def conduct(_: NotificationId) -> int:
        return 429

    world.provider.conduct = conduct


def no_providers(world: ActorWorld) -> None:
    world.policies = []


def other_channel_only(world: ActorWorld) -> None:
    world.policies = [evolve(MAIL, channel=Channel.SMS)]


def queue_away(world: ActorWorld) -> None:
    world.queue.interrupt = operations = Operations()

    async def away() -> None:
        raise QueueUnavailable("away")

    operations.on["claim", Moment.BEFORE] = away


def gate_away(world: ActorWorld) -> None:
    world.store.interrupt = operations = Operations()

    async def away() -> None:
        raise StoreUnavailable("away")

    operations.on["gate", Moment.BEFORE] = away


def lease_lost(world: ActorWorld) -> None:
    world.store.interrupt = operations = Operations()

    async def away() -> None:
        raise StoreUnavailable("away")

    operations.on["renew_lease", Moment.BEFORE] = away


def providers_unreadable(world: ActorWorld) -> None:
    async def load() -> None:
        raise StoreUnavailable("away")

    world.load = load  # type: ignore[assignment,method-assign]


REASONS = [
    calls_under_way,
    breaker_open,
    rate_exhausted,
    rate_limited,
    no_providers,
    other_channel_only,
    queue_away,
    gate_away,
    lease_lost,
    providers_unreadable,
]


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.__name__)
async def test_who_has_a_reason_to_wait_is_left_alone(autojump_clock: MockClock, reason: Callable[[ActorWorld], None]) -> None:
    world = ActorWorld()
    reason(world)
    async with world.running():
        await world.accept(40)
        await trio.sleep(4 * NOTICED_S)

    assert world.metrics.events["consumer_restarted"] == 0
    assert world.metrics.events["actor_restart"] == 0


async def test_who_waits_for_permits_is_left_alone(autojump_clock: MockClock) -> None:
    world = ActorWorld(permits=1)

    async def conduct(id: NotificationId) -> int:
        await trio.sleep(3 * NOTICED_S)
        return 202

    world.provider.conduct = conduct
    async with world.running():
        await world.accept(1, OTHER)
        await trio.sleep(1.0)
        await world.accept(3)
        await trio.sleep(2 * NOTICED_S)
        waiting = world.permits.statistics().waiting

    assert waiting == 2, "the one with nothing, and the other one for more"
    assert world.metrics.events["consumer_restarted"] == 0


async def test_a_drained_actor_is_left_alone(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    async with world.running():
        await world.accept(1)
        await trio.sleep(5.0)
        world.made[0].tell(DrainBegan())
        await world.accept(3)
        await trio.sleep(2 * NOTICED_S)

    assert world.metrics.events["consumer_restarted"] == 0


async def test_what_was_seen_before_an_outage_says_nothing_after_it(autojump_clock: MockClock, forgetful: list[int]) -> None:
    world = ActorWorld()
    world.queue.interrupt = operations = Operations()

    async def away() -> None:
        raise QueueUnavailable("away")

    async with world.running():
        await world.accept(1)
        await trio.sleep(5.0)
        forgetful[0] = 1
        await world.accept(3)
        await trio.sleep(STALLED_S / 2)
        operations.on["active", Moment.BEFORE] = away
        await trio.sleep(2 * STALLED_S)
        operations.on.clear()
        await trio.sleep(STALLED_S - 1.0)
        too_soon = world.metrics.events["consumer_restarted"]
        await trio.sleep(NOTICED_S)

    assert (too_soon, world.metrics.events["consumer_restarted"]) == (0, 1)


async def test_idle_organizations_are_never_suspected(autojump_clock: MockClock) -> None:
    """They stay among those with work until they sleep, and each sweep wakes them in vain."""
    world = ActorWorld()
    async with world.running():
        for _ in range(20):
            await world.accept(1)
            await trio.sleep(25.0)

    assert len(world.made) == 1
    assert world.metrics.events["consumer_restarted"] == 0


# --- tasks that go round ----------------------------------------------------------------------------------------------------


async def hang() -> None:
    await trio.sleep_forever()


async def test_a_janitor_that_hangs_is_started_again(autojump_clock: MockClock) -> None:
    """A store that keeps its deadlines can not do that to it: here one does not."""
    world = ActorWorld()
    world.store.interrupt = operations = Operations()
    operations.on["rescue", Moment.BEFORE] = hang
    janitor = Janitor(world.store, world.queue, world.metrics, sweep_s=SWEEP_S, random=Random(1), unix_s=lambda: 0.0)
    async with trio.open_nursery() as nursery:

        async def child() -> None:
            await watched("the janitor", janitor.run, lambda: janitor.stepped_s)

        nursery.start_soon(supervise, "janitor", child, BUDGET, Random(1))
        await trio.sleep(SILENT_S + 10.0)
        hung = operations.count("rescue")
        operations.on.clear()
        await trio.sleep(SILENT_S + 10.0)
        working = operations.count("rescue")
        nursery.cancel_scope.cancel()

    assert hung == 2
    assert working > 3


async def test_a_sweep_that_hangs_is_started_again(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    world.queue.interrupt = operations = Operations()
    operations.on["active", Moment.BEFORE] = hang
    async with world.running():
        ids = await world.accept(1, wake=False)
        await trio.sleep(SILENT_S)
        operations.on.clear()
        await trio.sleep(3 * SWEEP_S)

    assert world.statuses(ids) == {"delivered"}


async def test_a_task_that_gets_on_is_left_alone_and_its_end_is_its_own(autojump_clock: MockClock) -> None:
    stepped_s = 0.0

    async def rounds() -> None:
        nonlocal stepped_s
        for _ in range(10):
            await trio.sleep(SILENT_S * 0.9)
            stepped_s = trio.current_time()

    await watched("rounds", rounds, lambda: stepped_s)

    assert trio.current_time() == pytest.approx(9 * SILENT_S)


async def test_what_a_watched_task_raises_is_raised_as_it_is(autojump_clock: MockClock) -> None:
    async def fail() -> None:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        await watched("it", fail, lambda: 0.0)
    with pytest.raises(Stalled):
        await watched("it", hang, lambda: 0.0)


async def test_a_task_that_hangs_every_time_ends_its_supervisor(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def child() -> None:
        await watched("it", hang, lambda: 0.0)

    with caplog.at_level(logging.ERROR), pytest.raises(BudgetSpent):
        await supervise("it", child, RestartBudget(restarts_max=5, period_s=60.0), Random(1))

    assert trio.current_time() == pytest.approx(6 * SILENT_S, rel=0.1)
