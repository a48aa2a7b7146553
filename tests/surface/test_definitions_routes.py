"""Definitions over HTTP: stored as they are or refused with every fault, changed only as they were seen, kept while in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
import trio

from actors.store import definitions as store
from actors.store.api_keys import Scope
from dispatcher.definitions import Kind
from dispatcher.model import OrganizationId
from surface_doubles import Surface, assert_problem

ACME = OrganizationId("acme")
TOPIC = {"title": "Offers", "default": ["email"]}
CAPPED = {"caps": [{"name": "offers", "count_max": 3, "window_s": 86400, "topic": "offers"}]}


async def call(
    surface: Surface, method: str, path: str, document: Any = None, headers: Mapping[str, str] | None = None, org: str = "acme"
) -> httpx.Response:
    return await surface.client.request(
        method, f"/v1/orgs/{org}/{path}", json=document, headers={**await surface.authorization(org), **(headers or {})}
    )


def pointers(problem: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(each["pointer"], each["code"]) for each in problem["errors"]]


async def test_a_document_is_stored_read_replaced_and_removed(surface: Surface) -> None:
    created = await call(surface, "PUT", "topics/offers", TOPIC)
    again = await call(surface, "PUT", "topics/offers", TOPIC)
    read = await call(surface, "GET", "topics/offers")
    replaced = await call(surface, "PUT", "topics/offers", {"title": "Bargains"})

    assert (created.status_code, created.json()["revision"], created.json()["body"]) == (201, 1, TOPIC)
    assert (again.status_code, again.headers["etag"]) == (200, created.headers["etag"])
    assert (read.json(), read.headers["etag"]) == (created.json(), created.headers["etag"])
    assert (replaced.json()["revision"], replaced.json()["body"]) == (2, {"title": "Bargains"})
    assert replaced.headers["etag"] != created.headers["etag"]
    assert (await call(surface, "DELETE", "topics/offers")).status_code == 204
    assert_problem(await call(surface, "GET", "topics/offers"), 404, "topic_not_found")
    assert_problem(await call(surface, "DELETE", "topics/offers"), 404, "topic_not_found")


async def test_every_change_is_announced_and_no_refusal_is(surface: Surface) -> None:
    await call(surface, "PUT", "topics/offers", {"title": 1})
    assert surface.dispatch.changes == []

    await call(surface, "PUT", "topics/offers", TOPIC)
    await call(surface, "PUT", "policy", {})
    await call(surface, "DELETE", "topics/offers")
    assert surface.dispatch.changes == [ACME] * 3


async def test_every_fault_is_named_at_once(surface: Surface) -> None:
    answer = await call(surface, "PUT", "topics/Offers", {"title": 1, "critical": "no", "default": ["fax"], "else": 1})

    assert pointers(assert_problem(answer, 422, "name_invalid")) == [
        ("", "name_invalid"),
        ("", "field_unknown"),
        ("/title", "field_invalid"),
        ("/critical", "field_invalid"),
        ("/default", "field_invalid"),
    ]
    assert_problem(await call(surface, "PUT", "topics/offers", {"title": "\0"}), 422, "field_invalid")
    assert_problem(await call(surface, "PUT", "topics/offers", []), 422, "body_invalid")


async def test_a_change_of_what_somebody_else_has_changed_is_refused(surface: Surface) -> None:
    first = (await call(surface, "PUT", "topics/offers", TOPIC, {"if-none-match": "*"})).headers["etag"]

    assert_problem(await call(surface, "PUT", "topics/offers", {}, {"if-none-match": "*"}), 412, "precondition_failed")
    assert_problem(await call(surface, "PUT", "topics/new", {}, {"if-match": "*"}), 412, "precondition_failed")
    second = (await call(surface, "PUT", "topics/offers", {}, {"if-match": first})).headers["etag"]
    assert_problem(await call(surface, "PUT", "topics/offers", TOPIC, {"if-match": first}), 412, "precondition_failed")
    assert_problem(await call(surface, "DELETE", "topics/offers", None, {"if-match": first}), 412, "precondition_failed")
    assert (await call(surface, "GET", "topics/offers")).json()["body"] == {}
    assert (await call(surface, "DELETE", "topics/offers", None, {"if-match": second})).status_code == 204


@pytest.mark.parametrize(
    "headers", [{"if-match": "1-abc"}, {"if-match": 'W/"1"'}, {"if-none-match": '"1"'}, {"if-match": '"a", "b"'}]
)
async def test_a_precondition_that_is_none_is_refused(surface: Surface, headers: dict[str, str]) -> None:
    assert_problem(await call(surface, "PUT", "topics/offers", TOPIC, headers), 400, "precondition_invalid")


async def test_there_is_always_a_policy(surface: Surface) -> None:
    none = await call(surface, "GET", "policy")
    stored = await call(surface, "PUT", "policy", {"time_zone": "Europe/Lisbon"}, {"if-match": none.headers["etag"]})

    assert none.json() == {"name": "default", "revision": 0, "body": {}}
    assert (await call(surface, "GET", "policy")).json() == stored.json()
    assert stored.json()["body"] == {"time_zone": "Europe/Lisbon"}
    assert_problem(await call(surface, "PUT", "policy", {}, {"if-match": none.headers["etag"]}), 412, "precondition_failed")
    assert (await call(surface, "DELETE", "policy")).status_code == 405


async def test_a_topic_that_is_named_stays_and_a_name_that_leads_nowhere_is_a_warning(surface: Surface) -> None:
    warned = (await call(surface, "PUT", "policy", CAPPED)).json()
    await call(surface, "PUT", "topics/offers", TOPIC)
    unwarned = (await call(surface, "PUT", "policy", CAPPED)).json()

    assert [(each["pointer"], each["code"]) for each in warned["warnings"]] == [("/caps/0/topic", "topic_unknown")]
    assert "warnings" not in unwarned
    refused = assert_problem(await call(surface, "DELETE", "topics/offers"), 409, "definition_in_use")
    assert "the policy" in refused["detail"]
    await call(surface, "PUT", "policy", {})
    assert (await call(surface, "DELETE", "topics/offers")).status_code == 204


async def test_a_rule_may_come_before_what_it_names_and_says_so(surface: Surface) -> None:
    send = [{"channel": "sms", "template": "late"}, {"channel": "email", "template": "late"}]
    rule = {"event": "a.b", "recipients": [{"user": "data.user"}], "send": send, "topic": "offers"}
    english = {"name": "late", "channel": "sms", "locale": "en", "body_template": "Late"}
    assert (await call(surface, "POST", "templates", english)).status_code == 201

    stored = (await call(surface, "PUT", "rules/late", rule)).json()

    assert [(each["pointer"], each["code"]) for each in stored["warnings"]] == [
        ("/topic", "topic_unknown"),
        ("/send/1/template", "template_unknown"),
    ]
    await call(surface, "PUT", "topics/offers", TOPIC)
    refused = assert_problem(await call(surface, "DELETE", "topics/offers"), 409, "definition_in_use")
    assert "the rule 'late'" in refused["detail"]


async def test_a_layout_that_something_is_made_of_is_neither_broken_nor_removed(surface: Surface) -> None:
    await call(surface, "PUT", "layouts/frame", {"text": "{{ content }}"})
    await call(surface, "PUT", "layouts/footer", {"text": "Acme"})
    sms = {"name": "late", "channel": "sms", "locale": "en", "body_template": 'Late {% include "footer" %}', "layout": "frame"}
    assert (await call(surface, "POST", "setup", {"templates": [sms]})).status_code == 200

    for change in (("PUT", "layouts/frame", {"text": "no place"}), ("DELETE", "layouts/frame"), ("DELETE", "layouts/footer")):
        refused = assert_problem(await call(surface, *change), 409, "layout_in_use")
        assert "The template 'late' (sms, en) would be broken" in refused["detail"]
    assert (await call(surface, "GET", "layouts/frame")).json()["body"] == {"text": "{{ content }}"}
    assert (await call(surface, "PUT", "layouts/frame", {"text": "{{ content }}!"})).status_code == 200


@pytest.mark.parametrize("address", ["layouts/l", "catalogues/en"])
async def test_more_changes_at_once_than_there_are_connections_wait_for_nobody_but_each_other(
    surface: Surface, address: str
) -> None:
    body: dict[str, Any] = {"text": "Acme"} if address.startswith("layouts/") else {"messages": {}}
    headers = await surface.authorization()
    statuses: set[int] = set()

    async def change() -> None:
        answer = await surface.client.put(f"/v1/orgs/acme/{address}", json=body, headers=headers)
        statuses.add(answer.status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(change)

    assert statuses <= {200, 201}


async def test_a_catalogue_says_how_it_stands_beside_the_default_one(surface: Surface) -> None:
    hello = {"messages": {"hello": {"text": "Hello"}, "bye": {"text": "Bye"}}}
    hallo = {"messages": {"hello": {"text": "Olá", "source": "Hello"}, "old": {"text": "Velho"}}}
    await call(surface, "PUT", "catalogues/en", hello)
    fresh = (await call(surface, "PUT", "catalogues/pt", hallo)).json()
    await call(surface, "PUT", "catalogues/en", {"messages": {"hello": {"text": "Hi"}}})
    stale = (await call(surface, "GET", "catalogues/pt")).json()

    assert fresh["state"] == {"stale": [], "missing": ["bye"], "unused": ["old"], "differing": []}
    assert stale["state"] == {"stale": ["hello"], "missing": [], "unused": ["old"], "differing": []}


async def test_lists_go_by_name_page_by_page(surface: Surface) -> None:
    for name in ("b", "a", "c"):
        await call(surface, "PUT", f"topics/{name}", TOPIC)

    first = (await call(surface, "GET", "topics?page_size=2")).json()
    second = (await call(surface, "GET", f"topics?page_size=2&after={first['page']['next']}")).json()

    assert [each["name"] for each in first["items"] + second["items"]] == ["a", "b", "c"]
    assert second["page"]["next"] is None
    assert (await call(surface, "GET", "topics", org="globex")).json()["items"] == []
    assert_problem(await call(surface, "GET", "topics?page=1"), 400, "query_invalid")


async def test_what_this_program_can_not_read_is_shown_with_its_fault(surface: Surface) -> None:
    await surface.new_key("acme")
    await store.put(surface.services.pool, ACME, Kind.TOPIC, "offers", {"colour": "blue"})

    shown = (await call(surface, "GET", "topics/offers")).json()
    (listed,) = (await call(surface, "GET", "topics")).json()["items"]

    assert (shown["body"], shown["fault"]["code"]) == ({"colour": "blue"}, "field_unknown")
    assert listed["fault"] == shown["fault"]


async def test_reading_and_changing_need_scopes_of_their_own(surface: Surface) -> None:
    reader = await surface.authorization("acme", Scope.SETUP_READ)
    writer = await surface.authorization("acme", Scope.SETUP_WRITE)
    for address in ("topics/offers", "policy"):
        refused = await surface.client.put(f"/v1/orgs/acme/{address}", json={}, headers=reader)
        assert_problem(refused, 403, "scope_missing")
        assert_problem(await surface.client.get(f"/v1/orgs/acme/{address}", headers=writer), 403, "scope_missing")
