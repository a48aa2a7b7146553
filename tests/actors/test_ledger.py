"""The ledger: batched across organizations, patient with servers, and never in doubt who holds what."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from actor_world import ACME, LEASE_S, MAIL, OTHER, ActorWorld, Operations
from actors.ledger import Ledger
from actors.memory import Moment
from actors.memory_store import MemoryStore
from actors.ports import Settlement
from dispatcher.errors import QueueUnavailable, StoreUnavailable
from dispatcher.messages import Event, Gated, Settled, Verdict
from dispatcher.model import Channel, DeadLetterReason, Delivery, NotificationId, OrganizationId, Status
from dispatcher.outcome import Outcome, OutcomeClass

OPEN: frozenset[Channel] = frozenset()
OK = Outcome(OutcomeClass.DELIVERED, "accepted", "m-1")
SOFT = Outcome(OutcomeClass.SOFT, "http_503")


@define
class Ear:
    """What one organization is told."""

    heard: list[Event] = field(factory=list)

    def __call__(self, event: Event) -> None:
        self.heard.append(event)

    @property
    def gated(self) -> list[Delivery]:
        return [d for event in self.heard if isinstance(event, Gated) for d in event.deliveries]

    @property
    def settled(self) -> list[NotificationId]:
        return [id for event in self.heard if isinstance(event, Settled) for id in event.ids]

    @property
    def lost(self) -> list[NotificationId]:
        return [id for event in self.heard if isinstance(event, Settled) for id in event.lost]


class Desk:
    """A world of which only the ledger runs, with operations that can be interfered with."""

    def __init__(self) -> None:
        self.world = ActorWorld()
        self.operations = self.world.store.interrupt = self.world.queue.interrupt = Operations()
        self.ledger: Ledger = self.world.ledger
        self.ear = Ear()

    async def claimed(self, n: int, organization_id: OrganizationId = ACME) -> list[NotificationId]:
        """Notifications that are in flight in the queue."""
        ids = await self.world.accept(n, organization_id, wake=False)
        await self.world.queue.claim(organization_id, n)
        return ids

    async def attempts(self, n: int, organization_id: OrganizationId = ACME) -> list[Delivery]:
        """Notifications that passed the gate."""
        ids = await self.claimed(n, organization_id)
        gated = await self.world.store.gate(ids, frozenset(), again=False)
        return sorted(gated[organization_id].deliveries, key=lambda delivery: delivery.id)


@pytest.fixture
async def desk(nursery: trio.Nursery, autojump_clock: MockClock) -> Desk:
    """Tests ask for the clock as well, or pytest-trio would not see it."""
    desk = Desk()
    await desk.world.lease.register()
    nursery.start_soon(desk.ledger.run)
    await trio.sleep(10.0)
    desk.operations.counts.clear()
    return desk


def verdicts(deliveries: Sequence[Delivery]) -> list[Verdict]:
    """One of each kind: delivered, again later, again at once, failed."""
    delivered, later, at_once, failed = deliveries
    return [
        Verdict(delivered, OK, MAIL, Status.DELIVERED),
        Verdict(later, SOFT, MAIL, Status.QUEUED, retry_in_s=30.0),
        Verdict(at_once, Outcome(OutcomeClass.INTERRUPTED, "interrupted"), None, Status.QUEUED, refund=True, retry_in_s=0.0),
        Verdict(failed, Outcome(OutcomeClass.HARD, "http_400"), MAIL, Status.FAILED, dead=DeadLetterReason.HARD),
    ]


# --- the gate ---------------------------------------------------------------------------------------------------------------


async def test_one_statement_gates_for_all_organizations_and_each_hears_of_its_own(autojump_clock: MockClock, desk: Desk) -> None:
    mine, theirs = await desk.claimed(3), await desk.claimed(2, OTHER)
    others_ear = Ear()
    desk.ledger.gate(ACME, mine[:2], OPEN, desk.ear)
    desk.ledger.gate(OTHER, theirs, OPEN, others_ear)
    desk.ledger.gate(ACME, mine[2:], OPEN, desk.ear)
    await trio.sleep(0.1)

    assert [d.id for d in desk.ear.gated] == mine
    assert [d.id for d in others_ear.gated] == theirs
    assert desk.operations.count("gate") == 1


async def test_a_channel_that_one_organization_closed_is_open_for_another(autojump_clock: MockClock, desk: Desk) -> None:
    mine, theirs = await desk.claimed(1), await desk.claimed(1, OTHER)
    others_ear = Ear()
    desk.ledger.gate(ACME, mine, frozenset({Channel.EMAIL}), desk.ear)
    desk.ledger.gate(OTHER, theirs, OPEN, others_ear)
    await trio.sleep(0.1)

    (gated,) = desk.ear.heard
    assert isinstance(gated, Gated)
    assert (list(gated.deliveries), list(gated.parked)) == ([], [(Channel.EMAIL, mine[0])])
    assert [d.id for d in others_ear.gated] == theirs


async def test_every_id_is_answered_for_also_those_that_nobody_knows(autojump_clock: MockClock, desk: Desk) -> None:
    known = await desk.claimed(1)
    unknown = NotificationId("0198c000-0000-7000-8000-00000000dead")
    desk.ledger.gate(ACME, [*known, unknown], OPEN, desk.ear)
    await trio.sleep(0.1)
    (gated,) = desk.ear.heard

    assert isinstance(gated, Gated)
    assert [d.id for d in gated.deliveries] == known
    assert list(gated.dropped) == [unknown]


async def test_an_id_that_is_none_stops_no_other(autojump_clock: MockClock, desk: Desk) -> None:
    """Somebody may have pushed anything into a list in Redis."""
    mine, theirs = await desk.claimed(5), await desk.claimed(3, OTHER)
    garbage = NotificationId("person@example.org")
    others_ear = Ear()
    desk.ledger.gate(ACME, [*mine[:3], garbage, *mine[3:]], OPEN, desk.ear)
    desk.ledger.gate(OTHER, theirs, OPEN, others_ear)
    await trio.sleep(0.1)
    (gated,) = desk.ear.heard

    assert isinstance(gated, Gated)
    assert sorted(d.id for d in gated.deliveries) == mine
    assert list(gated.dropped) == [garbage]
    assert sorted(d.id for d in others_ear.gated) == theirs
    assert all(d.attempt == 1 for d in [*desk.ear.gated, *others_ear.gated])
    assert desk.world.metrics.events["row_refused"] == 1


@pytest.mark.parametrize("moment", Moment)
async def test_the_gate_insists_until_postgres_answers_and_counts_one_attempt(
    autojump_clock: MockClock, desk: Desk, moment: Moment
) -> None:
    ids = await desk.claimed(2)

    async def away() -> None:
        raise StoreUnavailable("away")

    desk.operations.on["gate", moment] = away
    desk.ledger.gate(ACME, ids, OPEN, desk.ear)
    await trio.sleep(20.0)
    heard_meanwhile = list(desk.ear.heard)
    desk.operations.on.clear()
    await trio.sleep(3.0)

    assert heard_meanwhile == []
    assert [(d.id, d.attempt) for d in desk.ear.gated] == [(id, 1) for id in ids]
    assert desk.operations.count("gate") < 60


# --- record and settle --------------------------------------------------------------------------------------------------------


async def test_a_verdict_is_recorded_then_settled_then_told(autojump_clock: MockClock, desk: Desk) -> None:
    deliveries = await desk.attempts(4)
    for verdict in verdicts(deliveries):
        desk.ledger.record(verdict, desk.ear)
    await trio.sleep(1.0)
    ids = [d.id for d in deliveries]
    holds = desk.world.queue.holds(ACME)

    assert [desk.world.row(id).status.value for id in ids] == ["delivered", "queued", "queued", "failed"]
    assert (holds["queue"], holds["delayed"], holds["inflight"]) == ([ids[2]], [ids[1]], [])
    assert sorted(desk.ear.settled) == ids
    assert desk.ear.lost == []


async def test_one_statement_records_for_all_organizations(autojump_clock: MockClock, desk: Desk) -> None:
    mine, theirs = await desk.attempts(3), await desk.attempts(2, OTHER)
    others_ear = Ear()
    desk.operations.counts.clear()
    for delivery in mine:
        desk.ledger.record(Verdict(delivery, OK, MAIL, Status.DELIVERED), desk.ear)
    for delivery in theirs:
        desk.ledger.record(Verdict(delivery, OK, MAIL, Status.DELIVERED), others_ear)
    await trio.sleep(1.0)

    assert desk.operations.counts == {"record": 1, "settle": 1}
    assert sorted(desk.ear.settled) == [d.id for d in mine]
    assert sorted(others_ear.settled) == [d.id for d in theirs]


async def test_what_is_worth_knowing_is_announced_and_counted(autojump_clock: MockClock, desk: Desk) -> None:
    for verdict in verdicts(await desk.attempts(4)):
        desk.ledger.record(verdict, desk.ear)
    await trio.sleep(1.0)
    announced = b"\n".join(desk.world.queue.announced(ACME)).decode()
    metrics = desk.world.metrics

    assert announced.count("notification.") == 3  # an interruption is nobody's news
    for part in ("notification.delivered", "notification.retrying", "notification.failed", '"reason":"hard"'):
        assert part in announced
    assert "canary" not in announced
    assert "person" not in announced
    assert metrics.attempts == {
        ("email", "delivered"): 1,
        ("email", "soft"): 1,
        ("email", "interrupted"): 1,
        ("email", "hard"): 1,
    }
    assert metrics.dead_letters == {("email", "hard"): 1}
    assert metrics.codes == {("email", "http_503"): 1, ("email", "http_400"): 1}


async def test_nothing_is_settled_before_it_is_on_record(autojump_clock: MockClock, desk: Desk) -> None:
    (delivery,) = await desk.attempts(1)

    async def away() -> None:
        raise StoreUnavailable("away")

    desk.operations.on["record", Moment.BEFORE] = away
    desk.ledger.record(Verdict(delivery, OK, MAIL, Status.DELIVERED), desk.ear)
    await trio.sleep(20.0)

    assert desk.world.queue.holds(ACME)["inflight"] == [delivery.id]
    assert desk.ear.heard == []
    assert desk.world.queue.announced(ACME) == []


@pytest.mark.parametrize("moment", Moment)
async def test_a_record_insists_until_postgres_answers_and_is_written_once(
    autojump_clock: MockClock, desk: Desk, moment: Moment
) -> None:
    (delivery,) = await desk.attempts(1)

    async def away() -> None:
        raise StoreUnavailable("away")

    desk.operations.on["record", moment] = away
    desk.ledger.record(Verdict(delivery, SOFT, MAIL, Status.QUEUED, retry_in_s=5.0), desk.ear)
    await trio.sleep(20.0)
    desk.operations.on.clear()
    await trio.sleep(3.0)

    assert desk.world.row(delivery.id).status == "queued"
    assert len(desk.world.database.timeline) == 1
    assert desk.world.queue.holds(ACME)["delayed"] == [delivery.id]
    assert (desk.ear.settled, desk.ear.lost) == ([delivery.id], [])


@pytest.mark.parametrize("moment", Moment)
async def test_a_settlement_insists_until_redis_answers(autojump_clock: MockClock, desk: Desk, moment: Moment) -> None:
    (delivery,) = await desk.attempts(1)

    async def away() -> None:
        raise QueueUnavailable("away")

    desk.operations.on["settle", moment] = away
    desk.ledger.record(Verdict(delivery, OK, MAIL, Status.DELIVERED), desk.ear)
    await trio.sleep(20.0)
    meanwhile = list(desk.ear.heard)
    desk.operations.on.clear()
    await trio.sleep(3.0)

    assert meanwhile == []
    assert desk.ear.settled == [delivery.id]
    assert desk.world.metrics.attempts["email", "delivered"] == 1


async def test_an_attempt_that_was_rescued_meanwhile_is_let_go_and_reported_lost(autojump_clock: MockClock, desk: Desk) -> None:
    kept, taken = await desk.attempts(2)
    desk.world.database.rows[taken.id].claimed_by = "dead"
    await MemoryStore(desk.world.database, "somebody").rescue(10)
    for delivery in (kept, taken):
        desk.ledger.record(Verdict(delivery, OK, MAIL, Status.DELIVERED), desk.ear)
    await trio.sleep(1.0)

    assert desk.world.row(taken.id).status == "queued"
    assert sorted(desk.ear.settled) == [kept.id, taken.id]
    assert desk.ear.lost == [taken.id]
    assert len(desk.world.queue.announced(ACME)) == 1
    assert desk.world.metrics.events["stale_record"] == 1


@pytest.mark.parametrize("fate", ["requeued", "parked"])
async def test_who_took_an_attempt_over_keeps_its_place_in_the_queue_when_the_old_one_ends(
    autojump_clock: MockClock, desk: Desk, fate: str
) -> None:
    """Else a hand-back of theirs would find nothing in flight, and the id would be nowhere."""
    (taken,) = await desk.attempts(1)
    desk.world.database.rows[taken.id].claimed_by = "dead"
    theirs = MemoryStore(desk.world.database, "somebody")
    await theirs.rescue(10)
    desk.operations.counts.clear()
    desk.ledger.record(Verdict(taken, OK, MAIL, Status.DELIVERED), desk.ear)
    await trio.sleep(1.0)
    settlement = (
        Settlement(ACME, requeued=[taken.id]) if fate == "requeued" else Settlement(ACME, parked=[(Channel.SMS, taken.id)])
    )
    settled_for_us = desk.operations.count("settle")
    await desk.world.queue.settle([settlement])
    holds = desk.world.queue.holds(ACME)

    assert (desk.ear.settled, desk.ear.lost, settled_for_us) == ([taken.id], [taken.id], 0)
    assert [id for place in ("queue", "parked:sms") for id in holds.get(place, ())] == [taken.id]
    assert holds["inflight"] == []


async def test_an_attempt_that_was_lost_and_ended_elsewhere_leaves_the_queue_when_its_lease_has_run_out(
    autojump_clock: MockClock, desk: Desk
) -> None:
    (taken,) = await desk.attempts(1)
    row = desk.world.database.rows[taken.id]
    row.status, row.claimed_by = Status.DELIVERED, None
    desk.ledger.record(Verdict(taken, SOFT, MAIL, Status.QUEUED, retry_in_s=5.0), desk.ear)
    await trio.sleep(LEASE_S + 1.0)
    assert desk.ear.lost == [taken.id]
    claimed = (await desk.world.queue.claim(ACME, 10)).ids
    desk.ledger.gate(ACME, claimed, OPEN, desk.ear)
    await trio.sleep(1.0)
    gated = desk.ear.heard[-1]

    assert isinstance(gated, Gated)
    assert (list(gated.deliveries), list(gated.dropped), list(gated.elsewhere)) == ([], [taken.id], [])


async def test_an_id_that_another_is_sending_is_neither_delivered_nor_dropped(autojump_clock: MockClock, desk: Desk) -> None:
    (taken,) = await desk.attempts(1)
    desk.world.database.rows[taken.id].claimed_by = "somebody"
    unknown = NotificationId("0198c000-0000-7000-8000-00000000dead")
    desk.ledger.gate(ACME, [taken.id, unknown], OPEN, desk.ear)
    await trio.sleep(1.0)
    (gated,) = desk.ear.heard

    assert isinstance(gated, Gated)
    assert (list(gated.deliveries), list(gated.dropped), list(gated.elsewhere)) == ([], [unknown], [taken.id])


async def test_a_verdict_that_postgres_refuses_stops_no_other_and_is_recorded_without_its_text(
    autojump_clock: MockClock, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    deliveries = await desk.attempts(6)
    odd = deliveries[3]
    with caplog.at_level(logging.ERROR):
        for delivery in deliveries:
            outcome = Outcome(OutcomeClass.DELIVERED, "accepted", "canary\x00") if delivery is odd else OK
            desk.ledger.record(Verdict(delivery, outcome, MAIL, Status.DELIVERED), desk.ear)
        await trio.sleep(1.0)
    ids = [d.id for d in deliveries]

    assert desk.world.statuses(ids) == {"delivered"}
    assert [desk.world.row(id).provider_message_id for id in ids] == ["m-1", "m-1", "m-1", None, "m-1", "m-1"]
    assert sorted(desk.ear.settled) == ids
    assert desk.ear.lost == []
    assert "canary" not in caplog.text


async def test_leftovers_of_the_gate_are_settled_without_a_record(autojump_clock: MockClock, desk: Desk) -> None:
    parked, deferred, dropped = await desk.claimed(3)
    settlement = Settlement(ACME, [dropped], [(deferred, 30.0)], [], [(Channel.SMS, parked)])
    desk.ledger.settle(settlement, desk.ear)
    await trio.sleep(1.0)
    holds = desk.world.queue.holds(ACME)

    assert (holds["parked:sms"], holds["delayed"], holds["inflight"]) == ([parked], [deferred], [])
    assert sorted(desk.ear.settled) == [parked, deferred, dropped]
    assert desk.operations.count("record") == 0


# --- order and end ------------------------------------------------------------------------------------------------------------


async def test_a_barrier_waits_for_everything_handed_in_before_it(autojump_clock: MockClock, desk: Desk) -> None:
    (attempt,) = await desk.attempts(1)
    (claimed,) = await desk.claimed(1)

    async def slow() -> None:
        await trio.sleep(5.0)

    desk.operations.on["gate", Moment.BEFORE] = desk.operations.on["record", Moment.BEFORE] = slow
    desk.ledger.gate(ACME, [claimed], OPEN, desk.ear)
    desk.ledger.record(Verdict(attempt, OK, MAIL, Status.DELIVERED), desk.ear)
    began_s = trio.current_time()
    await desk.ledger.barrier()

    assert desk.world.row(claimed).status == "sending"
    assert desk.world.row(attempt.id).status == "delivered"
    assert trio.current_time() >= began_s + 5.0


async def test_a_barrier_in_an_idle_ledger_is_passed_at_once(autojump_clock: MockClock, desk: Desk) -> None:
    began_s = trio.current_time()
    await desk.ledger.barrier()

    assert trio.current_time() == pytest.approx(began_s, abs=0.1)


async def test_closed_it_flushes_what_it_has_stage_by_stage_and_ends(autojump_clock: MockClock) -> None:
    desk = Desk()
    await desk.world.lease.register()
    deliveries = await desk.attempts(4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.ledger.run)
        await wait_all_tasks_blocked()
        for verdict in verdicts(deliveries):
            desk.ledger.record(verdict, desk.ear)
        desk.ledger.close()

    assert sorted(desk.ear.settled) == [d.id for d in deliveries]
    assert trio.current_time() < LEASE_S


async def test_statistics_show_what_waits_in_each_stage(autojump_clock: MockClock, desk: Desk) -> None:
    ids = await desk.claimed(3)
    desk.ledger.gate(ACME, ids, OPEN, desk.ear)
    waiting = desk.ledger.statistics().gate.pending
    await trio.sleep(1.0)

    assert waiting == 3
    assert desk.ledger.statistics().gate.pending == 0
    assert desk.ledger.statistics().gate.rows_total == 3
