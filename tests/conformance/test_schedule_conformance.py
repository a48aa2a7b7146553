"""What waits for its time: one behaviour, in memory and on Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from random import Random

import pytest
import trio
from attrs import evolve

from actors.schedule_ports import ITEMS_BYTES_MAX, ITEMS_MAX, Ruling, Telling
from dispatcher.caps import CapUse, within
from dispatcher.decisions import Code, decided
from dispatcher.errors import StoreRefused
from dispatcher.model import NotificationId, Status
from dispatcher.policy import Cap
from schedule_world import ACME, OTHER, World, admission, event, insert, memory_world, postgres_world, telling

PLAN = {"v": 1}


@pytest.fixture(params=["memory", "postgres"])
def open_world(request: pytest.FixtureRequest) -> Callable[[], AbstractAsyncContextManager[World]]:
    if request.param == "memory":
        return memory_world
    url: str = request.getfixturevalue("database_url")
    return lambda: postgres_world(url)


@pytest.fixture
async def world(open_world: Callable[[], AbstractAsyncContextManager[World]]) -> AsyncIterator[World]:
    async with open_world() as world:
        await world.store.register(1000.0)
        yield world


# --- waiting and being released -------------------------------------------------------------------------------------------


async def test_the_earliest_time_is_known_of_notifications_and_digests(world: World) -> None:
    assert await world.schedule.next_in_s() is None

    await insert(world, admission(world, send_in_s=300), admission(world, send_in_s=200), admission(world))
    assert await world.schedule.next_in_s() == pytest.approx(200, abs=5)

    await world.store.insert((), (), [event(world, "e1", due_in_s=60)])
    assert await world.schedule.next_in_s() == pytest.approx(60, abs=5)


async def test_what_is_due_is_queued_the_longest_overdue_first_and_once(world: World) -> None:
    later, sooner, far = (admission(world, send_in_s=s) for s in (20, 10, 500))
    await insert(world, later, sooner, far)
    assert await world.schedule.release(10) == []
    world.pass_time(60)

    (first,) = await world.schedule.release(1)
    rest = await world.schedule.release(10)

    assert (first.id, first.status, first.organization_id) == (sooner.id, Status.QUEUED, ACME)
    assert [moved.id for moved in rest] == [later.id]
    assert await world.schedule.release(10) == []
    assert [world.row(a.id)[0] for a in (sooner, later, far)] == ["queued", "queued", "scheduled"]


async def test_what_was_released_passes_the_gate(world: World) -> None:
    one = admission(world, send_in_s=10)
    await insert(world, one)
    assert (await world.store.gate([one.id], (), again=False))[ACME].dropped == [one.id]
    world.pass_time(60)
    await world.schedule.release(10)

    (delivery,) = (await world.store.gate([one.id], (), again=False))[ACME].deliveries

    assert delivery.id == one.id
    assert delivery.created_at_s == pytest.approx(world.now_s - 50, abs=5), "it is late only from its time on"


async def test_what_outlived_its_end_before_it_was_released_is_canceled_without_a_dead_letter(world: World) -> None:
    one = admission(world, send_in_s=10, expires_at=world.now_s + 20)
    asked = admission(world, send_in_s=10, expires_at=world.now_s + 20, plan=PLAN)
    await insert(world, one, asked)
    world.pass_time(60)
    assert await world.store.expire(10) == []

    moved = await world.schedule.release(10)

    assert {(m.id, m.status, m.reason) for m in moved} == {(a.id, Status.CANCELED, "expired") for a in (one, asked)}
    assert world.row(one.id) == ("canceled", "expired")
    assert world.dead_letters() == 0


async def test_what_waits_is_seen_by_nothing_that_mends(world: World) -> None:
    await insert(world, admission(world, send_in_s=10, expires_at=world.now_s + 20))
    world.pass_time(3600)

    assert (await world.store.queued(None, 0.0, 10)).rows == []
    assert await world.store.rescue(10) == []
    assert await world.store.expire(10) == []


# --- what is asked again --------------------------------------------------------------------------------------------------


async def test_what_has_a_plan_is_asked_again_and_carried_out_as_ruled(world: World) -> None:
    sent, put_off, refused = (admission(world, send_in_s=s, plan=PLAN, topic="news", bulk=True) for s in (10, 11, 12))
    await insert(world, sent, put_off, refused)
    world.pass_time(60)
    assert await world.schedule.release(10) == []
    due = await world.schedule.due(10)
    assert [(d.id, d.plan, d.user_id, d.topic, d.recipient) for d in due] == [
        (a.id, PLAN, "ada", "news", "ada@example.org") for a in (sent, put_off, refused)
    ]
    at_s = due[0].due_at_s + 5000

    moved = await world.schedule.rule(
        [
            Ruling(due[0], Status.QUEUED),
            Ruling(due[1], Status.SCHEDULED, (decided(Code.TIME_QUIET_HOURS),), at_s),
            Ruling(due[2], Status.CANCELED, (decided(Code.PREFERENCE_DENIED, topic="news"),)),
        ]
    )

    by_id = {m.id: m for m in moved}
    assert (by_id[sent.id].status, by_id[sent.id].bulk) == (Status.QUEUED, True)
    assert by_id[put_off.id].at_s == pytest.approx(at_s, abs=0.001)
    assert by_id[refused.id].reason == "preference_denied"
    assert [world.row(a.id) for a in (sent, put_off, refused)] == [
        ("queued", None),
        ("scheduled", None),
        ("canceled", "preference_denied"),
    ]
    assert world.decisions(refused.id) == [{"step": "preference", "code": "preference_denied", "detail": {"topic": "news"}}]
    assert await world.schedule.due(10) == []


async def test_a_ruling_on_what_has_changed_since_does_nothing(world: World) -> None:
    canceled, put_off = admission(world, send_in_s=10, plan=PLAN), admission(world, send_in_s=11, plan=PLAN)
    await insert(world, canceled, put_off)
    world.pass_time(60)
    due = await world.schedule.due(10)
    await world.schedule.cancel(ACME, canceled.id)
    await world.schedule.rule([Ruling(due[1], Status.SCHEDULED, (), due[1].due_at_s + 9000)])

    moved = await world.schedule.rule([Ruling(one, Status.QUEUED) for one in due])

    assert moved == []
    assert world.row(canceled.id) == ("canceled", "canceled")
    assert world.row(put_off.id)[0] == "scheduled"


# --- canceling ------------------------------------------------------------------------------------------------------------


async def test_one_is_canceled_while_it_waits_or_is_queued_and_stays_so(world: World) -> None:
    waiting, queued = admission(world, send_in_s=10), admission(world)
    await insert(world, waiting, queued)

    for one in (waiting, queued):
        first, again = await world.schedule.cancel(ACME, one.id), await world.schedule.cancel(ACME, one.id)
        assert first is not None
        assert again is not None
        assert (first.status, first.now, again.status, again.now) == (Status.CANCELED, True, Status.CANCELED, False)

    world.pass_time(60)
    assert await world.schedule.release(10) == []
    assert (await world.store.gate([queued.id], (), again=False))[ACME].dropped == [queued.id]


async def test_what_is_being_sent_or_is_somebody_elses_is_not_canceled(world: World) -> None:
    one, theirs = admission(world), admission(world, organization_id=OTHER)
    await insert(world, one, theirs)
    await world.store.gate([one.id], (), again=False)

    canceled = await world.schedule.cancel(ACME, one.id)

    assert canceled is not None
    assert (canceled.status, canceled.now) == (Status.SENDING, False)
    assert await world.schedule.cancel(ACME, theirs.id) is None
    assert world.row(theirs.id)[0] == "queued"


async def test_all_of_a_correlation_id_are_canceled_its_items_of_digests_too_and_nothing_else(world: World) -> None:
    waiting, queued, sent = (admission(world, correlation_id="order-1", send_in_s=s) for s in (10, None, None))
    other, theirs = admission(world, correlation_id="order-2"), admission(world, organization_id=OTHER, correlation_id="order-1")
    await insert(world, waiting, queued, sent, other, theirs)
    await world.store.gate([sent.id], (), again=False)
    events = [event(world, "e1", correlation_id="order-1"), event(world, "e2", correlation_id="order-2")]
    alone = event(world, "e3", correlation_id="order-1", user_id="bob")
    await world.store.insert((), (), [*events, alone])

    canceled = await world.schedule.cancel_correlated(ACME, "order-1", 100)

    assert {id for id, _ in canceled.canceled} == {waiting.id, queued.id}
    assert (canceled.items, canceled.more) == (2, False)
    assert world.items() == ["e2"]
    assert await world.schedule.standing(ACME, "order-1", 100) == {Status.CANCELED: 2, Status.SENDING: 1}
    assert [world.row(a.id)[0] for a in (other, theirs)] == ["queued", "queued"]
    again = await world.schedule.cancel_correlated(ACME, "order-1", 100)
    assert (again.canceled, again.items) == ([], 0)
    world.pass_time(120)
    assert [len(digest.items) for digest in await world.schedule.digests(10)] == [1], "an empty digest is gone"


async def test_many_are_canceled_in_parts(world: World) -> None:
    await insert(world, *(admission(world, correlation_id="c", send_in_s=10) for _ in range(5)))

    parts = [await world.schedule.cancel_correlated(ACME, "c", 2) for _ in range(3)]

    assert [(len(part.canceled), part.more) for part in parts] == [(2, True), (2, True), (1, False)]


@pytest.mark.parametrize("seed", range(2))
async def test_each_is_either_sent_or_canceled_whoever_asks_at_the_same_moment(world: World, seed: int) -> None:
    chance = Random(seed)
    queued = [admission(world, correlation_id=f"c{n % 10}") for n in range(120)]
    ids = [one.id for one in queued]
    await insert(world, *queued)
    sent: list[NotificationId] = []
    canceled: list[NotificationId] = []

    async def send() -> None:
        for part in range(0, len(ids), 15):
            gated = await world.store.gate(ids[part : part + 15], (), again=False)
            sent.extend(delivery.id for delivery in gated[ACME].deliveries)

    async def cancel_some() -> None:
        for id in chance.sample(ids, 60):
            answer = await world.schedule.cancel(ACME, id)
            if answer is not None and answer.now:
                canceled.append(id)

    async def cancel_correlated() -> None:
        for n in range(0, 10, 2):
            canceled.extend(id for id, _ in (await world.schedule.cancel_correlated(ACME, f"c{n}", 100)).canceled)

    async with trio.open_nursery() as nursery:
        for task in (send, cancel_some, cancel_some, cancel_correlated):
            nursery.start_soon(task)

    assert len(canceled) == len(set(canceled))
    assert set(sent).isdisjoint(canceled)
    assert {id for id in ids if world.row(id)[0] == "canceled"} == set(canceled)
    assert {id for id in ids if world.row(id)[0] == "sending"} == set(sent)


# --- frequency caps -------------------------------------------------------------------------------------------------------


def use(world: World, in_s: float = 0.0, *, cap: str = "daily", count_max: int = 2, user: str = "ada") -> CapUse:
    return CapUse(user, cap, world.now_s + in_s, count_max, 3600)


async def test_what_is_over_a_cap_is_left_out_and_named(world: World) -> None:
    first, second, third = (admission(world, caps=(use(world, s),)) for s in (0, 1, 2))

    assert (await insert(world, first, second)).capped == set()
    inserted = await insert(world, third, other := admission(world, caps=(use(world, 3, user="bob"),)))

    assert inserted.capped == {third.id}
    assert world.row(other.id)[0] == "queued"
    assert len(world.payloads()) == 3


async def test_times_to_come_count_as_well_and_leave_room_before_and_after(world: World) -> None:
    planned = [admission(world, send_in_s=s, caps=(use(world, s),)) for s in (4000, 4001)]
    await insert(world, *planned)

    between = admission(world, caps=(use(world, 2000),))
    free = admission(world, caps=(use(world, 100),))

    assert (await insert(world, between)).capped == {between.id}
    assert (await insert(world, free)).capped == set()


async def test_times_outside_the_window_no_longer_count(world: World) -> None:
    await insert(world, *(admission(world, caps=(use(world),)) for _ in range(2)))
    world.pass_time(7200)

    assert (await insert(world, admission(world, caps=(use(world),)))).capped == set()


async def test_several_caps_are_all_kept_and_a_refused_one_uses_none(world: World) -> None:
    tight = admission(world, caps=(use(world, cap="wide", count_max=2), use(world, cap="tight", count_max=1)))
    refused = admission(world, caps=(use(world, 1, cap="wide", count_max=2), use(world, 1, cap="tight", count_max=1)))
    wide = [admission(world, caps=(use(world, s, cap="wide", count_max=2),)) for s in (2, 3)]

    assert (await insert(world, tight)).capped == set()
    assert (await insert(world, refused)).capped == {refused.id}
    assert (await insert(world, *wide)).capped == {wide[1].id}


async def test_what_is_left_out_for_another_reason_uses_nothing_of_a_cap(world: World) -> None:
    await insert(world, admission(world, key="k"))
    duplicate = admission(world, key="k", caps=(use(world, count_max=1),))

    assert (await insert(world, duplicate)).capped == set()
    assert (await insert(world, admission(world, caps=(use(world, count_max=1),)))).capped == set()


async def test_inserts_of_the_same_moment_together_stay_within_a_cap(world: World) -> None:
    rounds = [[admission(world, caps=(use(world, s, count_max=4), use(world, s, user="bob", count_max=9)))] for s in range(12)]
    capped: set[NotificationId] = set()

    async def one(part: int) -> None:
        for batch in rounds[part::4]:
            capped.update((await insert(world, *batch)).capped)

    async with trio.open_nursery() as nursery:
        for part in range(4):
            nursery.start_soon(one, part)

    assert len(capped) == 12 - 4
    assert len(world.payloads()) == 4


async def test_no_span_ever_holds_more_than_a_cap_allows(world: World) -> None:
    chance = Random(3)
    kept: list[float] = []
    for _ in range(30):
        batch = [admission(world, caps=(use(world, float(chance.randrange(0, 20_000)), count_max=3),)) for _ in range(3)]
        capped = (await insert(world, *batch)).capped
        for one in sorted(batch, key=lambda a: (a.caps[0].at_s, a.id)):
            allowed = within(sorted(kept), one.caps[0].at_s, Cap("daily", 3, 3600))
            assert allowed == (one.id not in capped)
            if allowed:
                kept.append(one.caps[0].at_s)


# --- digests --------------------------------------------------------------------------------------------------------------


async def test_events_of_one_digest_are_told_of_together_when_it_is_due_and_once(world: World) -> None:
    await world.store.insert((), (), [event(world, "e1", due_in_s=60), event(world, "e2", due_in_s=90)])
    assert await world.schedule.digests(10) == []
    world.pass_time(70)
    (digest,) = await world.schedule.digests(10)
    assert ([item.event_id for item in digest.items], digest.user_id, digest.rule) == (["e1", "e2"], "ada", "news")
    assert digest.items[0].data == {"n": "e1"}

    told, again = await world.schedule.tell([telling(world, digest)]), await world.schedule.tell([telling(world, digest)])

    assert (set(told.done), set(again.done)) == ({digest.id}, set())
    assert [payload["events"] for payload in world.payloads()] == [["e1", "e2"]]
    assert world.items() == []


async def test_an_event_that_comes_when_a_digest_is_read_begins_the_next_and_holds_nothing_up(world: World) -> None:
    await world.store.insert((), (), [event(world, "e1", due_in_s=10)])
    world.pass_time(60)
    await world.store.insert((), (), [event(world, "e2")])
    (read,) = await world.schedule.digests(10)
    await world.store.insert((), (), [event(world, "e3")])

    assert (await world.schedule.tell([telling(world, read)])).done == {read.id}
    assert [payload["events"] for payload in world.payloads()] == [["e1", "e2"]]
    assert (world.items(), await world.schedule.digests(10)) == (["e3"], [])

    world.pass_time(70)
    (following,) = await world.schedule.digests(10)
    assert ([item.event_id for item in following.items], following.id != read.id) == (["e3"], True)


async def test_a_digest_of_which_something_was_canceled_since_it_was_read_is_read_anew(world: World) -> None:
    await world.store.insert((), (), [event(world, "e1", due_in_s=10), event(world, "e2", due_in_s=10, correlation_id="c2")])
    world.pass_time(60)
    (read,) = await world.schedule.digests(10)
    await world.schedule.cancel_correlated(ACME, "c2", 10)

    assert (await world.schedule.tell([telling(world, read)])).done == frozenset(), "it is not what it was when it was read"
    (digest,) = await world.schedule.digests(10)
    await world.schedule.tell([telling(world, digest)])

    assert [payload["events"] for payload in world.payloads()] == [["e1"]]


async def test_of_very_many_events_of_a_digest_the_last_are_read_and_all_are_counted(world: World) -> None:
    events = [event(world, f"e{number:04d}", due_in_s=10) for number in range(ITEMS_MAX + 5)]
    large = event(world, "large", due_in_s=10, user_id="ben")
    await world.store.insert((), (), [*events, large._replace(data={"n": "x" * (ITEMS_BYTES_MAX + 1)})])
    await world.store.insert((), (), [event(world, "later", user_id="ben")._replace(received_at_s=world.now_s + 1)])
    world.pass_time(60)

    many, few = sorted(await world.schedule.digests(10), key=lambda digest: -digest.count)
    assert (many.count, [item.event_id for item in many.items]) == (ITEMS_MAX + 5, [e.id for e in events[5:]])
    assert (few.count, [item.event_id for item in few.items]) == (2, ["later"])

    assert (await world.schedule.tell([telling(world, many), telling(world, few)])).done == {many.id, few.id}
    assert world.items() == []


async def test_a_digest_that_nobody_is_to_hear_of_goes_without_a_notification(world: World) -> None:
    await world.store.insert((), (), [event(world, "e1", due_in_s=10)])
    world.pass_time(60)
    (digest,) = await world.schedule.digests(10)

    assert (await world.schedule.tell([Telling(digest, None)])).done == {digest.id}
    assert (world.payloads(), world.items()) == ([], [])


async def test_a_digest_whose_notification_can_not_be_stored_stays(world: World) -> None:
    await world.store.insert((), (), [event(world, "e1", due_in_s=10)])
    world.pass_time(60)
    (digest,) = await world.schedule.digests(10)
    bad = telling(world, digest)
    assert bad.admission is not None

    with pytest.raises(StoreRefused):
        await world.schedule.tell([evolve(bad, admission=bad.admission._replace(row={**bad.admission.row, "recipient": "\x00"}))])

    assert (world.payloads(), world.items()) == ([], ["e1"])


async def test_every_event_is_told_of_exactly_once_whatever_comes_at_the_same_moment(world: World) -> None:
    ids = [f"e{n}" for n in range(60)]
    users = ("ada", "bob", "eve")
    arriving = 3

    async def arrive(part: int) -> None:
        nonlocal arriving
        for n, id in list(enumerate(ids))[part::3]:
            await world.store.insert((), (), [event(world, id, due_in_s=-1, user_id=users[n % 3])])
        arriving -= 1

    async def tell() -> None:
        while arriving or world.items():
            await world.schedule.tell([telling(world, digest) for digest in await world.schedule.digests(2)])
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for part in range(3):
            nursery.start_soon(arrive, part)
        for _ in range(2):
            nursery.start_soon(tell)

    assert sorted(id for payload in world.payloads() for id in payload["events"]) == sorted(ids)
