"""What has waited is asked again when its time comes, by what is known then; digests are told of by one message."""

from __future__ import annotations

from datetime import time
from typing import Any

import pytest
import trio
import trio.testing
from attrs import evolve

from actors.memory_tables import Row
from actors.schedule_ports import Digest, DigestItem, Due, Ruling
from dispatcher.model import Channel, NotificationId, Status
from dispatcher.people import QuietHours, User
from event_world import ANA, NOW, ORG, RULE, Desk, event, template, template_set

LATER = {**RULE, "delay_s": 3600}


@pytest.fixture
async def desk(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> Desk:
    desk = Desk()
    desk.set_up(rule={"purchase": LATER})
    desk.user(ANA)
    nursery.start_soon(desk.admitting.run)
    return desk


def due(row: Row) -> Due:
    assert row.plan is not None
    assert row.next_retry_at_s is not None
    return Due(ORG, row.id, row.channel, row.recipient, row.user_id, row.topic, row.plan, row.next_retry_at_s)


async def ruling(desk: Desk, user: User | None = None, **definitions: Any) -> tuple[str, str, float | None]:
    """What becomes of one that was planned under the first rule, once this is known."""
    await desk.accept(event(1))
    (row,) = desk.rows()
    desk.now_s += 3600
    if user is not None:
        desk.user(user)
    desk.set_up(**{"rule": {"purchase": LATER}, **definitions})
    (found,) = await desk.due.ask([due(row)])
    assert isinstance(found, Ruling)
    return found.status.value, found.decisions[-1].code.value, found.at_s


async def test_it_is_sent_when_nothing_has_changed(desk: Desk) -> None:
    assert await ruling(desk) == ("queued", "time_now", None)


async def test_it_is_canceled_when_the_person_does_not_want_it_any_more(desk: Desk) -> None:
    assert await ruling(desk, evolve(ANA, preferences={("purchases", "email"): False})) == ("canceled", "preference_denied", None)


async def test_a_preference_about_a_topic_that_is_not_set_up_any_more_holds(desk: Desk) -> None:
    assert (await ruling(desk, evolve(ANA, preferences={("purchases", "*"): False}), topic={}))[1] == "preference_denied"


async def test_a_critical_topic_is_sent_whatever_the_person_prefers_and_the_hour_is(desk: Desk) -> None:
    changed = evolve(ANA, preferences={("*", "*"): False}, quiet_hours=QuietHours(time(0), time(23)))

    assert await ruling(desk, changed, topic={"purchases": {"critical": True}}) == ("queued", "time_critical", None)


async def test_it_is_put_off_when_quiet_hours_have_come_up(desk: Desk) -> None:
    # It is due at 06:00 in São Paulo.
    changed = evolve(ANA, quiet_hours=QuietHours(time(22), time(7)))

    assert await ruling(desk, changed) == ("scheduled", "time_quiet_hours", NOW + 2 * 3600)


async def test_it_is_canceled_when_its_contact_point_is_gone_or_has_expired(desk: Desk) -> None:
    assert (await ruling(desk, evolve(ANA, points=ANA.points[1:])))[:2] == ("canceled", "recipient_no_contact_point")


async def test_it_is_canceled_when_its_contact_point_has_expired(desk: Desk) -> None:
    points = (evolve(ANA.points[0], expires_at_s=NOW + 10), *ANA.points[1:])

    assert (await ruling(desk, evolve(ANA, points=points)))[:2] == ("canceled", "recipient_expired")


async def test_it_is_canceled_when_the_person_was_erased(desk: Desk) -> None:
    await desk.accept(event(1))
    (row,) = desk.rows()
    del desk.database.users[ORG, "ana"]
    (found,) = await desk.due.ask([due(row)])

    assert (found.status, found.decisions[-1].code.value) == (Status.CANCELED, "recipient_unknown")


def digest(*numbers: int, rule: str = "weekly") -> Digest:
    items = tuple(
        DigestItem(f"evt-{number}", f"order-{number}", {"order": number, "name": "Ana"}, NOW + number) for number in numbers
    )
    return Digest("0192d3a4-0000-7000-8000-00000000d1e5", ORG, rule, "ana", Channel.EMAIL, "", NOW, items)


@pytest.fixture
def weekly(desk: Desk) -> Desk:
    text = "{{ name }}, {{ count }}: {% for item in items %}{{ item.order }} {% endfor %}{{ shout }}"
    desk.templates["weekly", Channel.EMAIL] = template_set(template("weekly", Channel.EMAIL, "en", text, "News"))
    send = {"channel": "email", "template": "weekly", "variables": {"shout": "data.order * 2"}}
    desk.set_up(rule={"weekly": {**RULE, "send": [send], "digest": {"window_s": 3600}}})
    return desk


async def test_a_digest_tells_of_all_its_events_in_one_message(weekly: Desk) -> None:
    told = await weekly.due.tell(digest(1, 2, 3))

    assert told is not None
    assert told.row["payload"]["text"] == "Ana, 3: 1 2 3 6"
    assert (told.row["event_id"], told.row["user_id"]) == ("evt-3", "ana")
    assert told.idempotency_key == f"digest {digest().id}"
    again = await weekly.due.tell(digest(1, 2, 3))
    assert again is not None
    assert again.idempotency_key == told.idempotency_key


async def test_what_tells_of_several_correlation_ids_is_not_canceled_by_one_of_them(weekly: Desk) -> None:
    several, one = await weekly.due.tell(digest(1, 2)), await weekly.due.tell(digest(3))

    assert several is not None
    assert one is not None
    assert (several.row["correlation_id"], one.row["correlation_id"]) == (None, "order-3")


@pytest.mark.parametrize("change", ["no rule", "disabled", "denied", "broken", "erased"])
async def test_a_digest_that_can_not_be_told_is_told_to_nobody(
    weekly: Desk, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    if change == "denied":
        weekly.user(evolve(ANA, preferences={("purchases", "*"): False}))
    elif change == "broken":
        broken = template("weekly", Channel.EMAIL, "en", "{{ nothing }}", "News")
        weekly.templates["weekly", Channel.EMAIL] = template_set(broken)
    elif change == "erased":
        del weekly.database.users[ORG, "ana"]
    elif change == "disabled":
        send = {"channel": "email", "template": "weekly"}
        weekly.set_up(rule={"weekly": {**RULE, "send": [send], "digest": {"window_s": 3600}, "enabled": False}})

    assert await weekly.due.tell(digest(1, rule="gone" if change == "no rule" else "weekly")) is None
    assert "Ana" not in caplog.text


async def test_a_digest_keeps_quiet_hours(weekly: Desk) -> None:
    weekly.user(evolve(ANA, quiet_hours=QuietHours(time(0), time(9))))
    told = await weekly.due.tell(digest(1))

    assert told is not None
    assert (told.row["status"], told.row["send_at"]) == ("scheduled", NOW + 4 * 3600)
    assert NotificationId(told.id) == told.row["id"]
