"""What users want to get, as their organization writes and sees it."""

from __future__ import annotations

from typing import Any

from people_world import Desk
from surface_doubles import Surface, assert_problem


async def desk_of(surface: Surface) -> Desk:
    desk = Desk(surface)
    await desk.add_topics()
    await desk.put("/ada", {})
    return desk


def said(document: Any) -> dict[tuple[str, str], bool]:
    return {(each["topic"], each["channel"]): each["allowed"] for each in document["preferences"]}


async def test_preferences_are_written_whole_and_shown_with_what_they_come_to(surface: Surface) -> None:
    desk = await desk_of(surface)
    wanted = [{"topic": "offers", "channel": "email", "allowed": True}, {"topic": "*", "channel": "*", "allowed": False}]

    document = await desk.put("/ada/preferences", {"preferences": wanted})

    assert document == await desk.get("/ada/preferences")
    assert said(document) == {("offers", "email"): True, ("*", "*"): False}
    assert {each["source"] for each in document["preferences"]} == {"api"}
    effect = {topic["topic"]: topic["channels"] for topic in document["topics"]}
    assert effect["offers"] == {"email": True, "sms": False, "push": False, "whatsapp": False}
    assert not any(effect["reminders"].values())
    assert all(effect["security"].values())
    assert said(await desk.put("/ada/preferences", {"preferences": wanted[:1]})) == {("offers", "email"): True}
    assert said(await desk.put("/ada/preferences", {"preferences": []})) == {}


async def test_one_preference_is_written_and_taken_back(surface: Surface) -> None:
    desk = await desk_of(surface)
    await desk.put("/ada/preferences/reminders/email", {"allowed": True})

    document = await desk.put("/ada/preferences/*/sms", {"allowed": False})

    assert said(document) == {("reminders", "email"): True, ("*", "sms"): False}
    assert said((await desk.call("DELETE", "/ada/preferences/*/sms")).json()) == {("reminders", "email"): True}
    assert said((await desk.call("DELETE", "/ada/preferences/*/sms")).json()) == {("reminders", "email"): True}


async def test_writing_the_same_again_does_not_change_its_date(surface: Surface) -> None:
    desk = await desk_of(surface)
    first = await desk.put("/ada/preferences/offers/email", {"allowed": False})

    assert await desk.put("/ada/preferences/offers/email", {"allowed": False}) == first


async def test_every_fault_has_its_place_and_an_unknown_topic_is_named(surface: Surface) -> None:
    desk = await desk_of(surface)
    rows = [
        {"topic": "ofers", "channel": "fax", "allowed": 1},
        {"topic": "offers", "channel": "email", "allowed": True},
        {"topic": "offers", "channel": "email", "allowed": False},
        {"topic": {}, "channel": [], "allowed": True, "why": 1},
        "no",
    ]

    document = assert_problem(await desk.call("PUT", "/ada/preferences", {"preferences": rows}), 422, "topic_unknown")

    assert [error["pointer"] for error in document["errors"]] == [
        "/preferences/0/topic", "/preferences/0/channel", "/preferences/0/allowed", "/preferences/2", "/preferences/3",
        "/preferences/3/topic", "/preferences/3/channel", "/preferences/4",
    ]  # fmt: skip
    assert '"ofers"' in document["errors"][0]["detail"]
    one = assert_problem(await desk.call("PUT", "/ada/preferences/ofers/fax", {"allowed": None}), 422, "field_missing")
    assert [error["pointer"] for error in one["errors"]] == ["/allowed", "/topic", "/channel"]
    assert said(await desk.get("/ada/preferences")) == {}


async def test_only_users_have_preferences_each_of_their_own_organization(surface: Surface) -> None:
    desk = await desk_of(surface)
    other = Desk(surface, "other")
    await other.put("/ada", {})
    await desk.put("/ada/preferences/offers/email", {"allowed": False})

    assert await other.get("/ada/preferences") == {"preferences": [], "topics": []}
    assert_problem(await desk.call("GET", "/eve/preferences"), 404, "user_not_found")
    assert_problem(await desk.call("PUT", "/eve/preferences", {"preferences": []}), 404, "user_not_found")
    assert_problem(await desk.call("PUT", "/eve/preferences/offers/email", {"allowed": True}), 404, "user_not_found")
    assert_problem(await desk.call("DELETE", "/eve/preferences/offers/email"), 404, "user_not_found")
    assert_problem(await other.call("PUT", "/ada/preferences/offers/email", {"allowed": True}), 422, "topic_unknown")
