"""The clock: what waits is released on time, once, by whoever is there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock

from actors.clock import AGAIN_S, LOOK_S, PUT_OFF_S, Ask, Clock, Tell
from actors.janitor import GRACE_S, Janitor
from actors.memory import MemoryQueue, Moment, checkpoint
from actors.memory_schedule import MemorySchedule
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase
from actors.metrics import Metrics
from actors.ports import Admission
from actors.pusher import Pusher
from actors.schedule_ports import Digest, Due, Ruling, Scheduled
from dispatcher.decisions import Code, decided
from dispatcher.errors import StoreUnavailable
from dispatcher.model import Channel, OrganizationId, Status
from schedule_world import ACME, OTHER, OURS, admission, event, new_id, telling

EPOCH_S = 1_700_000_000.0


async def nothing_asked(due: Sequence[Due]) -> Sequence[Ruling]:
    raise AssertionError(due)


async def nothing_told(digest: Digest) -> Admission | None:
    raise AssertionError(digest)


class Bench:
    """One database and one queue, and clocks at them."""

    def __init__(self) -> None:
        self.database = MemoryDatabase(self.unix_s)
        self.store = MemoryStore(self.database, OURS)
        self.schedule = MemorySchedule(self.database, interrupt=self.interrupt)
        self.queue = MemoryQueue(self.unix_s, lease_s=30.0)
        self.metrics = Metrics()
        self.away = False
        self.asked: list[str] = []
        self.now_s = EPOCH_S  # for admissions

    def unix_s(self) -> float:
        return EPOCH_S + trio.current_time()

    async def interrupt(self, operation: str, moment: Moment) -> None:
        await checkpoint(operation, moment)
        if moment is Moment.BEFORE:
            self.asked.append(operation)
            if self.away:
                raise StoreUnavailable(operation)

    def admission(self, in_s: float, **columns: Any) -> Admission:
        self.now_s = self.unix_s()
        return admission(self, send_in_s=in_s, **columns)

    @asynccontextmanager
    async def clock(self, ask: Ask = nothing_asked, tell: Tell = nothing_told) -> AsyncIterator[Clock]:
        pusher = Pusher(self.queue, self.metrics, wake=lambda _: None, random=Random(1))
        clock = Clock(self.schedule, self.queue, pusher, self.metrics, ask=ask, tell=tell, random=Random(1), unix_s=self.unix_s)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pusher.run)
            nursery.start_soon(clock.run)
            yield clock
            nursery.cancel_scope.cancel()

    async def claimed(self, organization_id: OrganizationId = ACME) -> list[str]:
        return list((await self.queue.claim(organization_id, 100)).ids)

    def told(self, organization_id: OrganizationId = ACME) -> list[tuple[str, str]]:
        events = [orjson.loads(text) for text in self.queue.announced(organization_id)]
        return [(event["type"].removeprefix("notification."), event["id"]) for event in events]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def heard(one: Admission) -> Scheduled:
    return Scheduled(one.organization_id, one.id, Channel.EMAIL, one.row["send_at"])


async def test_what_waits_is_queued_at_its_time_and_announced(bench: Bench, autojump_clock: MockClock) -> None:
    one = bench.admission(1000)
    await bench.store.insert([one], ())
    async with bench.clock():
        await trio.sleep(999.9)
        assert await bench.claimed() == []
        await trio.sleep(0.2)

        assert await bench.claimed() == [one.id]

    assert bench.told() == [("released", one.id)]
    assert bench.metrics.events["released"] == 1


async def test_an_earlier_one_that_is_accepted_here_is_released_on_time(bench: Bench, autojump_clock: MockClock) -> None:
    async with bench.clock() as clock:
        await trio.sleep(100)
        await bench.store.insert([one := bench.admission(3)], ())
        clock.scheduled([heard(one)])
        await trio.sleep(3.1)

        assert await bench.claimed() == [one.id]

    assert bench.told() == [("scheduled", one.id), ("released", one.id)]


async def test_what_another_process_accepted_and_left_is_released_a_look_later_at_most(
    bench: Bench, autojump_clock: MockClock
) -> None:
    async with bench.clock():
        await trio.sleep(100)
        await bench.store.insert([one := bench.admission(1)], ())
        await trio.sleep(1 + 1.5 * LOOK_S)

        assert await bench.claimed() == [one.id]


async def test_an_hour_in_which_nothing_is_due_costs_a_question_now_and_then(bench: Bench, autojump_clock: MockClock) -> None:
    await bench.store.insert([bench.admission(1e6) for _ in range(100)], ())
    async with bench.clock():
        await trio.sleep(3600)

    assert bench.asked.count("next_in_s") < 2 * 3600 / LOOK_S
    assert bench.asked.count("release") == bench.asked.count("next_in_s")


async def test_announcements_do_not_make_it_look(bench: Bench, autojump_clock: MockClock) -> None:
    async with bench.clock() as clock:
        await trio.sleep(1)
        looks = len(bench.asked)
        for _ in range(5):
            clock.canceled(ACME, [(new_id(), Channel.SMS)])
            await trio.sleep(0.1)

        assert len(bench.asked) == looks

    assert [kind for kind, _ in bench.told()] == ["canceled"] * 5
    assert bench.metrics.events["canceled"] == 5


async def test_two_clocks_release_each_once(bench: Bench, autojump_clock: MockClock) -> None:
    waiting = [bench.admission(10) for _ in range(50)]
    ids = [one.id for one in waiting]
    await bench.store.insert(waiting, ())
    async with bench.clock(), bench.clock():
        await trio.sleep(60)

    assert sorted(await bench.claimed()) == sorted(ids)
    assert bench.metrics.events["released"] == 50


async def test_while_postgres_is_away_it_waits_and_then_catches_up(bench: Bench, autojump_clock: MockClock) -> None:
    await bench.store.insert([one := bench.admission(5)], ())
    async with bench.clock():
        await trio.sleep(1)
        bench.away = True
        await trio.sleep(100)
        bench.away = False
        await trio.sleep(2 * AGAIN_S)

        assert await bench.claimed() == [one.id]


async def test_what_was_released_and_never_pushed_is_put_back_by_the_janitor(bench: Bench, autojump_clock: MockClock) -> None:
    await bench.store.insert([one := bench.admission(5)], ())
    await trio.sleep(10)
    await bench.schedule.release(10)  # and then the process is gone
    assert await bench.claimed() == []
    await trio.sleep(GRACE_S + 1)
    janitor = Janitor(bench.store, bench.queue, bench.metrics, sweep_s=10.0, random=Random(1), unix_s=bench.unix_s)

    await janitor.mend()

    assert await bench.claimed() == [one.id]


async def test_nothing_that_waits_is_known_to_redis_whatever_is_mended(bench: Bench, autojump_clock: MockClock) -> None:
    await bench.store.insert([bench.admission(1e6)], ())
    await trio.sleep(1000)
    janitor = Janitor(bench.store, bench.queue, bench.metrics, sweep_s=10.0, random=Random(1), unix_s=bench.unix_s)
    bench.queue.lose_memory()

    await janitor.mend()
    await janitor.mend()

    assert await bench.queue.active(10) == []
    assert await bench.claimed() == []


# --- asking again ---------------------------------------------------------------------------------------------------------


async def test_what_has_a_plan_is_asked_again_and_sent_put_off_or_canceled(bench: Bench, autojump_clock: MockClock) -> None:
    sent, put_off, refused = (bench.admission(s, plan={"n": s}) for s in (1, 2, 3))
    await bench.store.insert([sent, put_off, refused], ())

    async def ask(due: Sequence[Due]) -> list[Ruling]:
        rulings = {
            sent.id: lambda one: Ruling(one, Status.QUEUED),
            put_off.id: lambda one: Ruling(one, Status.SCHEDULED, (decided(Code.TIME_QUIET_HOURS),), bench.unix_s() + 500),
            refused.id: lambda one: Ruling(one, Status.CANCELED, (decided(Code.PREFERENCE_DENIED),)),
        }
        return [rulings[one.id](one) for one in due]

    async with bench.clock(ask):
        await trio.sleep(100)

    assert await bench.claimed() == [sent.id]
    assert bench.database.rows[put_off.id].status is Status.SCHEDULED
    assert bench.database.rows[refused.id].reason == "preference_denied"
    assert set(bench.told()) == {("released", sent.id), ("scheduled", put_off.id), ("canceled", refused.id)}


async def test_an_organization_that_nothing_can_be_asked_about_stands_in_no_others_way(
    bench: Bench, autojump_clock: MockClock
) -> None:
    broken, fine = bench.admission(1, plan={}), bench.admission(2, plan={}, organization_id=OTHER)
    await bench.store.insert([broken, fine], ())
    failing = True

    async def ask(due: Sequence[Due]) -> list[Ruling]:
        if failing and due[0].organization_id == ACME:
            raise ValueError("a fault of ours")
        return [Ruling(one, Status.QUEUED) for one in due]

    async with bench.clock(ask):
        await trio.sleep(10)
        assert await bench.claimed(OTHER) == [fine.id]
        assert await bench.claimed() == []
        failing = False
        await trio.sleep(PUT_OFF_S + 1)

        assert await bench.claimed() == [broken.id]


# --- digests --------------------------------------------------------------------------------------------------------------


async def test_a_digest_becomes_a_notification_when_it_is_due(bench: Bench, autojump_clock: MockClock) -> None:
    await bench.store.insert((), (), [event(bench, "e1", due_in_s=50), event(bench, "e2", due_in_s=80)])

    async def tell(digest: Digest) -> Admission | None:
        return telling(bench, digest).admission

    async with bench.clock(tell=tell):
        await trio.sleep(49)
        assert bench.database.rows == {}
        await trio.sleep(2)

        (row,) = bench.database.rows.values()
        assert row.payload["events"] == ["e1", "e2"]
        assert await bench.claimed() == [row.id]

    assert bench.told() == [("created", row.id)]


async def test_a_digest_that_can_not_be_told_of_now_is_put_off_and_one_that_never_can_is_dropped(
    bench: Bench, autojump_clock: MockClock
) -> None:
    entering = [event(bench, id, due_in_s=5, user_id=id) for id in ("fails", "unstorable", "fine")]
    await bench.store.insert((), (), entering)

    async def tell(digest: Digest) -> Admission | None:
        if digest.user_id == "fails":
            raise ValueError("a fault of ours")
        made = telling(bench, digest).admission
        assert made is not None
        return made if digest.user_id == "fine" else made._replace(row={**made.row, "recipient": "\x00"})

    async with bench.clock(tell=tell):
        await trio.sleep(20)

    assert [row.payload["events"] for row in bench.database.rows.values()] == [["fine"]]
    (left,) = bench.database.digests.values()
    assert (list(left.items), left.due_at_s > EPOCH_S + PUT_OFF_S) == (["fails"], True)
    assert bench.metrics.events["digests_refused"] == 1


@pytest.mark.parametrize("seed", range(30))
async def test_every_event_is_told_of_exactly_once_however_often_a_clock_dies(seed: int, autojump_clock: MockClock) -> None:
    chance, bench, scope = Random(seed), Bench(), trio.CancelScope()
    ids = [f"e{n}" for n in range(20)]
    deaths = 0

    async def tell(digest: Digest) -> Admission | None:
        return telling(bench, digest).admission

    async def perhaps_die(_operation: str, _moment: Moment) -> None:
        nonlocal deaths
        await trio.sleep(chance.random())
        if chance.random() < 0.15:
            deaths += 1
            scope.cancel()
            await trio.sleep_forever()

    async def arrive() -> None:
        for n, id in enumerate(ids):
            await trio.sleep(chance.random() * 3)
            bench.now_s = bench.unix_s()
            await bench.store.insert((), (), [event(bench, id, due_in_s=chance.random() * 5, user_id=f"u{n % 2}")])

    bench.schedule.interrupt = perhaps_die
    async with trio.open_nursery() as nursery:
        nursery.start_soon(arrive)
        while sum(len(row.payload["events"]) for row in bench.database.rows.values()) < len(ids):
            with trio.CancelScope() as scope:
                async with bench.clock(tell=tell):
                    await trio.sleep(20)
    told = sorted(id for row in bench.database.rows.values() for id in row.payload["events"])
    assert told == sorted(ids)
    assert bench.database.digests == {}
    assert deaths
