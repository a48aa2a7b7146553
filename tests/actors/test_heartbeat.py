"""A process that stood still notices, and starts nothing before it knows again that it may. On a virtual clock."""

from __future__ import annotations

import logging
from random import Random

import pytest
import trio
import trio.testing

from actor_world import ACME, CALL_S, EPOCH_S, LEASE_S, ActorWorld
from actors.heartbeat import BEAT_S, Heartbeat
from actors.lease import RENEWALS, Lease
from actors.memory import Moment
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase
from actors.metrics import Metrics, Peak
from dispatcher.config import from_mapping
from system_process import POSTGRES
from system_world import World


class Watch:
    """A heartbeat, and what it told. The machine may be paused: then only the wall clock goes on."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.paused_s = 0.0
        self.stalls: list[float] = []
        self.heartbeat = Heartbeat(
            self.metrics,
            doubt_s=10.0,
            on_stall=self.stalls.append,
            unix_s=lambda: EPOCH_S + trio.current_time() + self.paused_s,
        )

    def late_s(self) -> float:
        return self.metrics.loop_late.read(trio.current_time())


@pytest.fixture
async def watch(mock_clock: trio.testing.MockClock, nursery: trio.Nursery) -> Watch:
    watch = Watch()
    nursery.start_soon(watch.heartbeat.run)
    await trio.testing.wait_all_tasks_blocked()
    return watch


async def test_a_loop_that_turns_in_time_is_nothing_to_speak_of(
    watch: Watch, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(100):
        mock_clock.jump(0.25)
        await trio.testing.wait_all_tasks_blocked()

    assert watch.late_s() == pytest.approx(0.0)
    assert (watch.stalls, caplog.messages) == ([], [])


async def test_a_long_stall_is_logged_once_measured_and_told(
    watch: Watch, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    mock_clock.jump(40.25)
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(10):
        mock_clock.jump(0.25)
        await trio.testing.wait_all_tasks_blocked()

    assert watch.stalls == [pytest.approx(40.0)]
    assert watch.late_s() == pytest.approx(40.0)
    assert watch.metrics.events["loop_stalled"] == 1
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [(logging.WARNING, "this process stood still for 40.0 s")]


async def test_a_short_stall_is_measured_and_raises_no_doubt(watch: Watch, mock_clock: trio.testing.MockClock) -> None:
    mock_clock.jump(2.25)
    await trio.testing.wait_all_tasks_blocked()

    assert watch.stalls == []
    assert watch.late_s() == pytest.approx(2.0)


async def test_a_pause_of_the_machine_that_only_the_wall_clock_knows_counts_as_well(
    watch: Watch, mock_clock: trio.testing.MockClock
) -> None:
    watch.paused_s = 300.0
    mock_clock.jump(0.25)
    await trio.testing.wait_all_tasks_blocked()

    assert watch.stalls == [pytest.approx(300.0)]


def test_a_peak_is_the_largest_of_its_window_and_is_forgotten_after_two() -> None:
    peak = Peak(window_s=10.0)
    peak.observe(1.0, 0.0)
    peak.observe(5.0, 3.0)
    peak.observe(2.0, 9.0)

    assert peak.read(9.0) == 5.0
    peak.observe(1.0, 11.0)
    assert peak.read(12.0) == 5.0
    assert peak.read(22.0) == 1.0
    assert peak.read(100.0) == 0.0


async def test_a_lease_in_doubt_covers_nothing_until_it_is_renewed_which_is_at_once(
    mock_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    store = MemoryStore(MemoryDatabase(lambda: EPOCH_S + trio.current_time()), "incarnation-1")
    lease = Lease(store, Metrics(), lease_s=LEASE_S, call_s=CALL_S, random=Random(1))
    await lease.register()
    nursery.start_soon(lease.run)
    await trio.testing.wait_all_tasks_blocked()

    lease.doubt(40.0)
    in_doubt = lease.holds
    await trio.testing.wait_all_tasks_blocked()

    assert not in_doubt
    assert lease.holds


async def test_a_renewal_that_was_asked_for_before_the_stall_is_not_believed(
    mock_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    store = MemoryStore(MemoryDatabase(lambda: EPOCH_S + trio.current_time()), "incarnation-1")
    lease = Lease(store, Metrics(), lease_s=LEASE_S, call_s=CALL_S, random=Random(1))
    await lease.register()
    answering = trio.Event()

    async def held_up(operation: str, moment: Moment) -> None:
        if moment is Moment.AFTER:
            await answering.wait()

    store.interrupt = held_up
    nursery.start_soon(lease.run)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(LEASE_S / RENEWALS * 1.25)
    await trio.testing.wait_all_tasks_blocked()
    lease.doubt(40.0)
    answers = 0

    async def count(operation: str, moment: Moment) -> None:
        nonlocal answers
        if moment is Moment.BEFORE:
            answers += 1
            assert not lease.holds

    store.interrupt = count
    answering.set()
    await trio.testing.wait_all_tasks_blocked()

    assert answers == 1
    assert lease.holds


async def test_after_a_stall_no_call_starts_on_a_lease_that_may_have_lapsed(mock_clock: trio.testing.MockClock) -> None:
    """Forty seconds of work that holds the loop, while another process takes over: what waited is handed back, not sent
    (scenario 8)."""
    world = ActorWorld()
    heartbeat = Heartbeat(
        world.metrics,
        doubt_s=LEASE_S / RENEWALS,
        on_stall=world.lease.doubt,
        unix_s=lambda: EPOCH_S + trio.current_time(),
    )
    release = trio.Event()

    async def slow(_: object) -> int:
        await release.wait()
        return 202

    world.provider.conduct = slow
    async with world.running() as nursery, trio.open_nursery() as beating:
        beating.start_soon(heartbeat.run)
        ids = await world.accept(12)
        for _ in range(20):
            mock_clock.jump(0.05)
            await trio.testing.wait_all_tasks_blocked()
        begun = {id for id, _ in world.provider.called}
        mock_clock.jump(LEASE_S + 40.0)
        other = MemoryStore(world.database, "incarnation-2")
        await other.register(LEASE_S)
        taken_over = {row.id for row in await other.rescue(100)}
        called_before = len(world.provider.called)
        release.set()
        await trio.testing.wait_all_tasks_blocked()
        started_unknowing = [
            id for id, at_s in world.provider.called[called_before:] if world.row(id).claimed_by != "incarnation-1"
        ]
        for _ in range(400):
            mock_clock.jump(0.5)
            await trio.testing.wait_all_tasks_blocked()
        beating.cancel_scope.cancel()
        assert nursery is not None

    assert begun
    assert begun <= taken_over
    assert set(ids) - begun  # some had passed the gate and not begun
    assert started_unknowing == []
    assert world.metrics.events["loop_stalled"] >= 1
    assert {world.provider.calls_of(id) for id in set(ids) - begun} <= {0, 1}
    assert world.row(ids[0]).organization_id == ACME


@pytest.mark.parametrize(
    ("paused_s", "doubted"), [(0.5, ""), (2.0, "shards"), (9.0, "shards"), (40.0, "shards and attempts")], ids=str
)
async def test_a_node_doubts_its_shards_sooner_than_its_attempts(
    autojump_clock: trio.testing.MockClock, paused_s: float, doubted: str
) -> None:
    """Shards are another's after seconds, attempts after a minute: the machine was paused, and only the wall clock went on."""
    world = World(1, config=from_mapping({"DISPATCHER_LEASE_S": "60", "DISPATCHER_OWNER_LEASE_S": "5"}))
    async with world.running():
        process = await world.started()
        node = process.node
        await trio.sleep(1.0)
        before = (len(node.shards.owned) > 0, node.lease.holds)
        world.away.add(POSTGRES)
        world.clock.jump(process.name, paused_s)
        await trio.sleep(2 * BEAT_S)
        after = (len(node.shards.owned) > 0, node.lease.holds)
        world.away.clear()
        await trio.sleep(15.0)
        again = (len(node.shards.owned) > 0, node.lease.holds)

    assert before == again == (True, True)
    assert after == ("shards" not in doubted, "attempts" not in doubted)
