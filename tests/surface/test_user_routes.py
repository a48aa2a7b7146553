"""Users, their contact points and push tokens, as their organization writes and sees them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.store import contacts
from actors.store.api_keys import Scope
from actors.store.users import drop_expired
from dispatcher.contacts import ContactStatus
from dispatcher.model import Channel, OrganizationId
from dispatcher.people_documents import POINTS_MAX, Profile, is_user_id, parse_profile
from people_world import ADA, Desk
from surface_doubles import Surface, assert_problem

BROWSER = orjson.dumps(
    {"endpoint": "https://push.example/1", "keys": {"p256dh": "B" + "A" * 86, "auth": "A" * 22}, "expirationTime": None}
).decode()


def emails(user: Any) -> list[str]:
    return [point["recipient"] for point in user["contact_points"]["email"]]


def soon() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


async def test_a_profile_is_written_and_read_and_its_points_keep_their_order(surface: Surface) -> None:
    desk = Desk(surface)

    written = await desk.put("/ada", ADA)

    assert written == await desk.get("/ada")
    assert (written["id"], written["locale"], written["time_zone"]) == ("ada", "pt-BR", "America/Sao_Paulo")
    assert written["quiet_hours"] == ADA["quiet_hours"]
    assert emails(written) == ["Ada@example.org", "ada@work.example"]
    assert [(p["recipient"], p["status"]) for p in written["contact_points"]["sms"]] == [("+15551234567", "active")]


async def test_writing_again_replaces_what_is_named_and_leaves_other_channels(surface: Surface) -> None:
    desk = Desk(surface)
    first = await desk.put("/ada", ADA)

    second = await desk.put("/ada", {"locale": "de", "contact_points": {"email": ["ada@work.example"]}})

    assert (second["locale"], second["time_zone"], second["quiet_hours"]) == ("de", None, None)
    assert [p["id"] for p in second["contact_points"]["email"]] == [first["contact_points"]["email"][1]["id"]]
    assert second["contact_points"]["sms"] == first["contact_points"]["sms"]
    assert (await desk.put("/ada", {"contact_points": {"email": [], "sms": []}}))["contact_points"]["email"] == []


async def test_every_fault_of_a_profile_has_its_place_and_no_value(surface: Surface) -> None:
    wrong = {
        "locale": "no locale",
        "time_zone": "Mars/Olympus",
        "quiet_hours": {"start": "25:00", "end": "07:00"},
        "contact_points": {"email": ["ok@example.org", "secret-person"], "sms": ["12"], "push": ["token"]},
        "name": "secret-person",
    }

    document = assert_problem(await Desk(surface).call("PUT", "/ada", wrong), 422, "field_unknown")

    assert [error["pointer"] for error in document["errors"]] == [
        "", "/locale", "/time_zone", "/quiet_hours/start", "/contact_points", "/contact_points/email/1", "/contact_points/sms/0",
    ]  # fmt: skip
    assert "secret-person" not in str(document)
    assert (await Desk(surface).call("GET", "/ada")).status_code == 404


async def test_a_batch_has_a_verdict_for_each_and_a_bad_one_stops_no_other(surface: Surface) -> None:
    desk = Desk(surface)
    rows = [{"id": "ada", **ADA}, {"id": "no/slash", "locale": "x y"}, {"id": "eve"}, {"id": "ada"}, 7]

    answer = (await desk.call("POST", "", {"users": rows})).json()

    assert (answer["stored"], answer["rejected"]) == (2, 3)
    assert [verdict["status"] for verdict in answer["users"]] == ["stored", "rejected", "stored", "rejected", "rejected"]
    problem = answer["users"][1]["problem"]
    assert [error["pointer"] for error in problem["errors"]] == ["/users/1/id", "/users/1/locale"]
    assert answer["users"][3]["problem"]["code"] == "user_repeated"
    assert emails(await desk.get("/ada")) == ["Ada@example.org", "ada@work.example"]
    assert emails(await desk.get("/eve")) == []
    bodies: list[dict[str, Any]] = [{"users": []}, {"users": [{"id": "a"}] * 1001}, {"items": []}, {"users": [], "more": 1}]
    for wrong in bodies:
        assert_problem(await desk.call("POST", "", wrong), 422, "body_invalid")


async def test_two_organizations_never_see_each_others_users(surface: Surface) -> None:
    await Desk(surface).put("/ada", ADA)
    other = Desk(surface, "other")

    assert_problem(await other.call("GET", "/ada"), 404, "user_not_found")
    await other.put("/ada", {"contact_points": {"email": ["ada@other.example"]}})
    assert emails(await other.get("/ada")) == ["ada@other.example"]
    assert emails(await Desk(surface).get("/ada")) == ["Ada@example.org", "ada@work.example"]


async def test_points_are_added_in_front_and_removed_one_by_one(surface: Surface) -> None:
    desk = Desk(surface)
    await desk.put("/ada", ADA)

    added = await desk.call("POST", "/ada/contact_points", {"channel": "email", "recipient": "new@example.org"})
    assert added.status_code == 201
    again = await desk.call("POST", "/ada/contact_points", {"channel": "email", "recipient": "ADA@work.example"})

    assert emails(await desk.get("/ada")) == ["ADA@work.example", "new@example.org", "Ada@example.org"]
    assert (await desk.call("DELETE", f"/ada/contact_points/{again.json()['id']}")).status_code == 204
    assert_problem(await desk.call("DELETE", f"/ada/contact_points/{again.json()['id']}"), 404, "contact_point_not_found")
    assert_problem(await desk.call("DELETE", f"/eve/contact_points/{added.json()['id']}"), 404, "contact_point_not_found")
    assert emails(await desk.get("/ada")) == ["new@example.org", "Ada@example.org"]
    assert_problem(await desk.call("POST", "/eve/contact_points", {"channel": "sms", "recipient": "+15551234567"}), 404,
                   "user_not_found")  # fmt: skip
    assert_problem(await desk.call("POST", "/ada/contact_points", {"channel": "push", "recipient": "t"}), 422, "field_invalid")


async def test_nobody_has_more_points_on_a_channel_than_there_may_be(surface: Surface) -> None:
    desk = Desk(surface)
    await desk.put("/ada", {"contact_points": {"email": [f"ada{n}@example.org" for n in range(POINTS_MAX)]}})

    one_more = {"channel": "email", "recipient": "one.more@example.org"}
    assert_problem(await desk.call("POST", "/ada/contact_points", one_more), 409, "contact_points_full")
    assert len(emails(await desk.get("/ada"))) == POINTS_MAX


async def test_a_token_is_registered_refreshed_and_removed(surface: Surface) -> None:
    desk = Desk(surface)
    await desk.put("/ada", {})
    first = await desk.put("/ada/push_tokens", {"token": "t" * 40, "app": "hall", "platform": "android", "expires_at": soon()})

    second = await desk.put("/ada/push_tokens", {"token": "t" * 40, "app": "hall", "platform": "android"})

    assert (second["id"], second["created_at"], second["expires_at"]) == (first["id"], first["created_at"], None)
    assert second["refreshed_at"] > first["refreshed_at"]
    assert (second["app"], second["platform"], second["status"]) == ("hall", "android", "active")
    assert (await desk.call("POST", "/ada/push_tokens/remove", {"token": "t" * 40})).status_code == 204
    assert_problem(await desk.call("POST", "/ada/push_tokens/remove", {"token": "t" * 40}), 404, "push_token_not_found")
    assert_problem(await desk.call("PUT", "/eve/push_tokens", {"token": "t" * 40}), 404, "user_not_found")


async def test_a_token_that_another_user_registers_moves_to_them(surface: Surface) -> None:
    desk = Desk(surface)
    for user in ("/ada", "/eve"):
        await desk.put(user, {})
        await desk.put(f"{user}/push_tokens", {"token": BROWSER, "platform": "web"})

    assert (await desk.get("/ada"))["contact_points"]["push"] == []
    assert len((await desk.get("/eve"))["contact_points"]["push"]) == 1
    other = Desk(surface, "other")
    await other.put("/ada", {})
    await other.put("/ada/push_tokens", {"token": BROWSER, "platform": "web"})
    assert len((await desk.get("/eve"))["contact_points"]["push"]) == 1


async def test_of_too_many_tokens_the_oldest_go(surface: Surface) -> None:
    desk = Desk(surface)
    await desk.put("/ada", {})
    for n in range(POINTS_MAX + 2):
        await desk.put("/ada/push_tokens", {"token": f"token-{n:030}"})

    tokens = [point["recipient"] for point in (await desk.get("/ada"))["contact_points"]["push"]]

    assert tokens == [f"token-{n:030}" for n in reversed(range(2, POINTS_MAX + 2))]


async def test_a_token_that_its_app_registers_again_is_alive_whatever_was_heard_of_it(surface: Surface) -> None:
    desk = Desk(surface)
    await desk.put("/ada", {})
    await desk.put("/ada/push_tokens", {"token": "t" * 40})
    gone = contacts.Wanted(Channel.PUSH, "t" * 40, ContactStatus.INVALID)
    await contacts.change(surface.services.pool, OrganizationId("acme"), [gone], None)
    assert (await desk.get("/ada"))["contact_points"]["push"][0]["status"] == "invalid"

    assert (await desk.put("/ada/push_tokens", {"token": "t" * 40}))["status"] == "active"

    assert [change.status for change in surface.dispatch.contact_changes] == [ContactStatus.ACTIVE]


async def test_every_fault_of_a_token_has_its_place(surface: Surface) -> None:
    desk = Desk(surface)
    await desk.put("/ada", {})
    wrong: dict[str, Any] = {
        "token": "{not a subscription",
        "app": "",
        "platform": "symbian",
        "expires_at": "2001-01-01T00:00:00Z",
        "x": 1,
    }

    document = assert_problem(await desk.call("PUT", "/ada/push_tokens", wrong), 422, "field_unknown")

    assert [error["pointer"] for error in document["errors"]] == ["", "/token", "/app", "/platform", "/expires_at"]
    for token, platform in ((BROWSER, "ios"), ("t" * 40, "web")):
        one = assert_problem(await desk.call("PUT", "/ada/push_tokens", {"token": token, "platform": platform}), 422,
                             "field_invalid")  # fmt: skip
        assert one["pointer"] == "/platform"


async def test_tokens_that_expired_long_ago_are_removed_in_parts(surface: Surface) -> None:
    desk, pool = Desk(surface), surface.services.pool
    await desk.put("/ada", {})
    for n in range(4):
        await desk.put("/ada/push_tokens", {"token": f"token-{n:030}", "expires_at": soon()})
    await pool.execute(
        "UPDATE contact_points SET expires_at = now() - interval '8 days' WHERE recipient <> %s", ("token-" + "0" * 30,)
    )

    assert [await drop_expired(pool, 2) for _ in range(3)] == [2, 1, 0]
    assert len((await desk.get("/ada"))["contact_points"]["push"]) == 1


async def test_reading_and_writing_need_their_scopes(surface: Surface) -> None:
    reader, writer = Desk(surface, scopes=(Scope.USERS_READ,)), Desk(surface, scopes=(Scope.USERS_WRITE,))

    assert_problem(await reader.call("PUT", "/ada", ADA), 403, "scope_missing")
    assert_problem(await reader.call("POST", "", {"users": []}), 403, "scope_missing")
    assert_problem(await reader.call("PUT", "/ada/push_tokens", {"token": "t"}), 403, "scope_missing")
    assert_problem(await writer.call("GET", "/ada"), 403, "scope_missing")
    assert_problem(await writer.call("GET", "/ada/preferences"), 403, "scope_missing")


async def test_a_user_id_stands_in_paths_whatever_letters_it_has(surface: Surface) -> None:
    desk = Desk(surface)

    assert (await desk.put("/%C3%A4%20b%40c%3F%25", {}))["id"] == "ä b@c?%"
    for impossible in ("%00", "%0A", "%20", "a%20", "x" * 256):
        assert_problem(await desk.call("PUT", f"/{impossible}", {}), 422, "user_id_invalid")


@pytest.mark.parametrize("id", ["", " ", "a/b", ".", "..", "a\n", "\ud800", 7, None, "ä" * 128])
def test_what_nobody_can_be_called(id: Any) -> None:
    assert not is_user_id(id)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3), max_leaves=4
)


@given(st.dictionaries(st.sampled_from(["locale", "time_zone", "quiet_hours", "contact_points", "x"]), json_values))
def test_whatever_is_handed_in_is_a_profile_or_refused_with_places(body: dict[str, Any]) -> None:
    parsed = parse_profile("ada", body)

    assert isinstance(parsed, Profile) or all(error.pointer is not None for error in (parsed, *parsed.errors))
