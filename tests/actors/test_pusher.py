"""What was accepted reaches Redis as soon as it answers, and nobody waits for it. On the in-memory queue and a virtual clock."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest
import trio
import trio.testing

from actors.memory import MemoryQueue, Moment, checkpoint
from actors.metrics import Metrics
from actors.ports import Arrival
from actors.pusher import Pusher
from dispatcher.errors import ArrivalsRefused, QueueUnavailable
from dispatcher.ids import uuid7
from dispatcher.model import NotificationId, OrganizationId

ACME, OTHER = OrganizationId("acme"), OrganizationId("other")
KEPT_MAX = 20


def ids(n: int, first: int = 0) -> list[NotificationId]:
    return [NotificationId(uuid7(1_700_000_000_000 + first + i, i)) for i in range(n)]


class Desk:
    """A pusher on a queue that a test may take away."""

    def __init__(self) -> None:
        self.queue = MemoryQueue(lambda: 1_800_000_000.0 + trio.current_time(), lease_s=60)
        self.metrics = Metrics()
        self.woken: list[str] = []
        self.calls = 0
        self.pusher = Pusher(self.queue, self.metrics, wake=self.woken.append, random=Random(1), kept_max=KEPT_MAX)

    def put(self, made: Iterable[NotificationId], organization_id: OrganizationId = ACME, notices: Iterable[bytes] = ()) -> None:
        self.pusher.put([Arrival(organization_id, list(made), list(notices))])

    def take_away(self) -> None:
        async def away(_operation: str, _moment: Moment) -> None:
            self.calls += 1
            await trio.lowlevel.checkpoint()
            raise QueueUnavailable("away")

        self.queue.interrupt = away

    def queued(self, organization_id: OrganizationId = ACME) -> list[NotificationId]:
        return self.queue.holds(organization_id)["queue"]


@pytest.fixture
async def desk(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> Desk:
    desk = Desk()
    nursery.start_soon(desk.pusher.run)
    await trio.testing.wait_all_tasks_blocked()
    return desk


async def test_what_is_handed_in_is_queued_announced_and_its_organization_woken(
    autojump_clock: trio.testing.MockClock, desk: Desk
) -> None:
    made = ids(3)
    desk.put(made[:2], notices=[b"a", b"b"])
    desk.put(made[2:], notices=[b"c"])
    desk.put(ids(1, first=9), OTHER)
    await trio.testing.wait_all_tasks_blocked()

    assert desk.queued() == made
    assert desk.queue.announced(ACME) == [b"a", b"b", b"c"]
    assert desk.woken == ["acme", "other"]
    assert desk.pusher.pending == 0


async def test_what_a_redis_that_was_away_missed_is_pushed_when_it_is_back(
    autojump_clock: trio.testing.MockClock, desk: Desk
) -> None:
    """Without the announcements of what was tried: they may have gone out, for perhaps only the answer was lost."""
    made = ids(4)
    desk.take_away()
    desk.put(made[:2], notices=[b"a", b"b"])
    await trio.sleep(60)
    desk.put(made[2:], notices=[b"c", b"d"])
    kept = desk.pusher.pending
    desk.queue.interrupt = checkpoint
    await trio.sleep(2)

    assert kept == 4
    assert desk.queued() == made
    assert (desk.pusher.pending, desk.woken) == (0, ["acme"])
    assert desk.queue.announced(ACME) == [b"c", b"d"]
    assert desk.metrics.events["enqueue_missed"] == desk.metrics.events["enqueued_late"] == 2


async def test_an_absence_costs_a_call_now_and_then_however_much_is_accepted(
    autojump_clock: trio.testing.MockClock, desk: Desk
) -> None:
    desk.take_away()
    for number in range(KEPT_MAX):
        desk.put(ids(1, first=number))
        await trio.sleep(0.001)
    within = desk.calls
    await trio.sleep(60)

    assert within <= 3
    assert 30 <= desk.calls <= 200


async def test_what_is_kept_is_bounded_and_the_rest_left_to_the_janitor(
    autojump_clock: trio.testing.MockClock, desk: Desk
) -> None:
    desk.take_away()
    for number in range(0, 60, 10):
        desk.put(ids(10, first=number))
        await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(10)

    assert desk.pusher.pending <= 2 * KEPT_MAX
    assert desk.metrics.events["left_to_janitor"] + desk.pusher.pending == 60


async def test_an_organization_whose_keys_are_damaged_holds_up_no_other(
    autojump_clock: trio.testing.MockClock, desk: Desk
) -> None:
    enqueue = desk.queue.enqueue
    damaged = True

    async def refuse_acme(arrivals: list[Arrival]) -> None:
        fine = [arrival for arrival in arrivals if arrival.organization_id != ACME or not damaged]
        await enqueue(fine)
        if len(fine) < len(arrivals):
            raise ArrivalsRefused([ACME], "ResponseError")

    desk.queue.enqueue = refuse_acme  # type: ignore[method-assign, assignment]
    desk.put(ids(1))
    for number in range(5):
        desk.put(ids(1, first=number + 10), OTHER)
        await trio.testing.wait_all_tasks_blocked()
        assert len(desk.queued(OTHER)) == number + 1
    refused = desk.pusher.pending
    damaged = False
    await trio.sleep(2)

    assert refused == 1
    assert desk.queued() == ids(1)
    assert len(desk.queued(OTHER)) == 5


async def test_closed_it_pushes_what_it_has_and_ends(autojump_clock: trio.testing.MockClock) -> None:
    desk = Desk()
    desk.put(ids(2))
    desk.pusher.close()
    await desk.pusher.run()

    assert desk.queued() == ids(2)


async def test_closed_while_redis_is_away_it_ends_as_well(autojump_clock: trio.testing.MockClock) -> None:
    desk = Desk()
    desk.take_away()
    desk.put(ids(2))
    desk.pusher.close()
    await desk.pusher.run()

    assert desk.pusher.pending == 2


async def test_what_is_of_bulk_is_kept_and_queued_apart(autojump_clock: trio.testing.MockClock, desk: Desk) -> None:
    made = ids(4)
    desk.take_away()
    desk.pusher.put([Arrival(ACME, made[:1], (), True), Arrival(ACME, made[1:2], ())])
    await trio.testing.wait_all_tasks_blocked()
    desk.queue.interrupt = checkpoint
    desk.pusher.put([Arrival(ACME, made[2:3], (), True), Arrival(ACME, made[3:], ())])
    await trio.sleep(5)

    assert desk.queue.holds(ACME)["queue"] == [made[1], made[3]]
    assert desk.queue.holds(ACME)["bulk"] == [made[0], made[2]]
    assert desk.pusher.pending == 0
