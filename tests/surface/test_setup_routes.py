"""A whole set-up over HTTP: read as one document, changed all at once or not at all, with every fault named."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import httpx
import pytest
import trio

from actors.store import definitions as store
from actors.store.api_keys import Scope
from dispatcher.config import SurfaceConfig
from dispatcher.definitions import Kind
from dispatcher.model import OrganizationId
from surface_doubles import Surface, assert_problem

ACME = OrganizationId("acme")
SEND = [{"channel": "email", "template": "paid"}]
WHOLE: dict[str, Any] = {
    "rules": {"paid": {"event": "order.paid", "recipients": [{"user": "event.user_id"}], "send": SEND, "topic": "orders"}},
    "topics": {"orders": {"title": "Orders"}},
    "layouts": {"frame": {"text": "{{ content }}\n-- \nAcme", "html": "<main>{{ content }}</main>"}},
    "catalogues": {
        "en": {"messages": {"hello": {"text": "Hello {name}"}}},
        "pt": {"messages": {"hello": {"text": "Olá {name}"}}},
    },
    "policy": {"time_zone": "Europe/Lisbon"},
    "templates": [
        {
            "name": "paid",
            "channel": "email",
            "locale": locale,
            "subject": subject,
            "body_template": f"{subject}: {{{{ total }}}}",
            "layout": "frame",
            "variables": {"total": {"required": True}},
        }
        for locale, subject in (("en", "Paid"), ("pt", "Pago"))
    ],
}


@pytest.fixture
def surface_config() -> SurfaceConfig:
    return SurfaceConfig(port=0, body_bytes_max=2 * 1024 * 1024)


async def push(
    surface: Surface, document: Any, *, dry_run: bool = False, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    address = f"/v1/orgs/acme/setup{'?dry_run=true' if dry_run else ''}"
    return await surface.client.post(address, json=document, headers={**await surface.authorization(), **(headers or {})})


async def pull(surface: Surface) -> tuple[dict[str, Any], str]:
    answer = await surface.client.get("/v1/orgs/acme/setup", headers=await surface.authorization())
    assert answer.status_code == 200, answer.text
    return answer.json(), answer.headers["etag"]


async def versions(surface: Surface) -> list[tuple[str, int]]:
    """Locale and version of the templates in force."""
    answer = await surface.client.get("/v1/orgs/acme/templates", headers=await surface.authorization())
    return sorted((each["locale"], each["version"]) for each in answer.json()["items"])


def changed(**fields: Any) -> dict[str, Any]:
    return {**deepcopy(WHOLE), **fields}


def kinds(report: Mapping[str, Any], verb: str) -> list[str]:
    return [each["kind"] for each in report[verb]]


def pointers(answer: httpx.Response) -> list[tuple[str, str]]:
    errors = assert_problem(answer, 422, answer.json()["code"])["errors"]
    return sorted((each["pointer"], each["code"]) for each in errors)


async def test_what_is_pushed_is_what_is_read_and_pushing_it_again_changes_nothing(surface: Surface) -> None:
    created = await push(surface, WHOLE)
    whole, etag = await pull(surface)
    again = (await push(surface, whole)).json()

    assert created.status_code == 200, created.text
    assert kinds(created.json(), "created") == ["catalogue", "catalogue", "layout", "rule", "template", "template", "topic"]
    assert kinds(created.json(), "updated") == ["policy"]
    assert created.headers["etag"] == etag
    expected = deepcopy(WHOLE)
    for template in expected["templates"]:
        template["variables"]["total"]["required"] = True
    assert whole == {"default_locale": "en", **expected}
    assert (again["changed"], len(again["unchanged"])) == (False, 8)
    assert await versions(surface) == [("en", 1), ("pt", 1)]
    assert surface.dispatch.changes == [ACME]


async def test_an_update_names_what_differs_and_only_that_gets_a_new_version(surface: Surface) -> None:
    await push(surface, WHOLE)
    document = changed()
    document["templates"][1]["subject"] = "Pagamento"
    document["rules"]["paid"]["when"] = "data.total > 0"

    report = (await push(surface, document)).json()

    assert report["updated"] == [
        {"kind": "rule", "name": "paid", "fields": [{"pointer": "/when", "change": "added"}]},
        {
            "kind": "template",
            "name": "paid",
            "channel": "email",
            "locale": "pt",
            "fields": [{"pointer": "/subject", "change": "changed"}],
        },
    ]
    assert await versions(surface) == [("en", 1), ("pt", 2)]


async def test_a_dry_run_tells_the_same_and_keeps_nothing(surface: Surface) -> None:
    before, etag = await pull(surface)
    told = await push(surface, WHOLE, dry_run=True)

    assert await pull(surface) == (before, etag)
    assert surface.dispatch.changes == []
    done = await push(surface, WHOLE)
    assert {**told.json(), "dry_run": False} == done.json()
    assert told.headers["etag"] == done.headers["etag"]


async def test_every_fault_is_named_at_once_and_nothing_is_changed(surface: Surface) -> None:
    before = await pull(surface)
    document = changed(policy={"time_zone": "Lisbon"}, topics={"orders": {"title": 1}}, more=1, default_locale="pt")
    document["rules"]["paid"]["when"] = "data.total >"
    document["layouts"]["frame"]["html"] = "{% if %}"
    document["templates"][0]["subject"] = "{{ total.__class__ }}"
    document["templates"][1]["draft"] = True
    document["catalogues"]["pt"]["messages"]["hello"]["text"] = "Olá {"

    found = pointers(await push(surface, document))

    assert [pointer for pointer, _ in found] == [
        "",
        "/catalogues/pt/messages/hello/text",
        "/default_locale",
        "/layouts/frame/html",
        "/policy/time_zone",
        "/rules/paid/when",
        "/templates/0/subject",
        "/templates/1/draft",
        "/topics/orders/title",
    ]
    assert await pull(surface) == before
    assert surface.dispatch.changes == []


async def test_what_names_nothing_is_refused_wherever_it_stands(surface: Surface) -> None:
    document = changed(topics={}, policy={"caps": [{"name": "c", "count_max": 1, "window_s": 60, "topic": "offers"}]})
    document["rules"]["paid"]["send"] = [{"channel": "email", "template": "paid"}, {"channel": "sms", "template": "paid"}]

    assert pointers(await push(surface, document)) == [
        ("/policy/caps/0/topic", "topic_unknown"),
        ("/rules/paid/send/1/template", "template_unknown"),
        ("/rules/paid/topic", "topic_unknown"),
    ]


async def test_what_is_there_already_need_not_be_pushed_again(surface: Surface) -> None:
    rule = WHOLE["rules"]["paid"]
    assert (await push(surface, {"rules": {"paid": rule}})).status_code == 422
    await push(surface, {section: WHOLE[section] for section in ("topics", "templates", "layouts")})

    report = (await push(surface, {"rules": {"paid": rule}})).json()

    assert (kinds(report, "created"), report["kept"], report["unchanged"]) == (["rule"], [], [])


async def test_what_a_document_lacks_goes_only_if_it_says_so(surface: Surface) -> None:
    await push(surface, WHOLE)
    less = changed(rules={}, templates=WHOLE["templates"][:1])

    kept = (await push(surface, less)).json()
    pruned = (await push(surface, {**less, "prune": True})).json()

    assert (kinds(kept, "kept"), kept["changed"]) == (["rule", "template"], False)
    assert kinds(pruned, "deleted") == ["rule", "template"]
    assert await versions(surface) == [("en", 1)]
    assert (await pull(surface))[0]["rules"] == {}


async def test_what_others_name_can_not_be_pruned_from_under_them(surface: Surface) -> None:
    await push(surface, WHOLE)

    answer = await push(surface, {"topics": {}, "templates": [], "layouts": {}, "prune": True})

    assert pointers(answer) == [("/templates", "definition_in_use"), ("/topics", "definition_in_use")]
    assert pointers(await push(surface, {"layouts": {"frame": {"text": "Acme"}}, "topics": {"orders": {"title": 1}}}))
    refused = assert_problem(await push(surface, {"layouts": {}, "prune": True}), 422, "layout_in_use")
    assert "the template 'paid' (email, en)" in refused["errors"][0]["detail"].lower()
    assert "/layouts" in {each["pointer"] for each in refused["errors"]}


async def test_all_locales_of_a_template_have_the_same_parts(surface: Surface) -> None:
    document = changed()
    document["templates"][0]["html_template"] = "<p>Paid</p>"

    assert pointers(await push(surface, document)) == [("/templates/1/html_template", "template_part_incomplete")]


async def test_translations_fit_the_words_of_the_default_locale_whichever_of_them_comes(surface: Surface) -> None:
    await push(surface, {"catalogues": WHOLE["catalogues"]})
    other = {"messages": {"hello": {"text": "Hi {person}"}}}

    assert pointers(await push(surface, {"catalogues": {"pt": other}})) == [
        ("/catalogues/pt/messages/hello", "placeholders_differ")
    ]
    assert pointers(await push(surface, {"catalogues": {"en": other}})) == [
        ("/catalogues/en/messages/hello", "placeholders_differ")
    ]
    assert (await push(surface, {"catalogues": {"en": other, "pt": other}})).status_code == 200


async def test_no_template_comes_into_force_without_its_words_and_none_loses_them(surface: Surface) -> None:
    greeting = {"name": "hi", "channel": "sms", "locale": "en", "body_template": "{{ 'hello'|t(name=who) }}"}
    english = {"catalogues": {"en": {"messages": {"hello": {"text": "Hello {name}"}, "more": {"text": "More"}}}}}

    wordless = await push(surface, {"templates": [greeting]})
    assert pointers(wordless) == [("/templates/0/body_template", "template_message_missing")]
    assert (await push(surface, {**english, "templates": [greeting]})).status_code == 200
    fewer = {"catalogues": {"en": {"messages": {"more": {"text": "More"}}}}}
    assert pointers(await push(surface, fewer)) == [("/catalogues", "template_message_missing")]
    assert (await push(surface, {"catalogues": {"en": {"messages": {"hello": {"text": "Hi {name}"}}}}})).status_code == 200
    await store.delete(surface.services.pool, ACME, Kind.CATALOGUE, "en")
    assert (await push(surface, fewer)).status_code == 200, "what lacks its words already keeps nobody from mending others"


async def test_a_fault_hides_only_what_can_not_be_told_without_its_place(surface: Surface) -> None:
    document = changed(policy={"time_zone": "Lisbon"})
    document["catalogues"]["pt"]["messages"]["hello"]["text"] = "Olá {person}"
    document["templates"][0]["html_template"] = "<p>{{ total }}</p>"
    told = ("/catalogues/pt/messages/hello", "placeholders_differ"), ("/policy/time_zone", "field_invalid")

    assert pointers(await push(surface, document)) == [*told, ("/templates/1/html_template", "template_part_incomplete")]

    document["templates"][0]["subject"] = "{{"
    assert pointers(await push(surface, document)) == [*told, ("/templates/0/subject", "template_syntax")]


async def test_only_what_was_seen_is_changed(surface: Surface) -> None:
    _, seen = await pull(surface)
    await store.put(surface.services.pool, ACME, Kind.TOPIC, "new", {})

    for dry_run in (False, True):
        refused = await push(surface, WHOLE, headers={"if-match": seen}, dry_run=dry_run)
        assert_problem(refused, 412, "precondition_failed")
    assert (await pull(surface))[0]["topics"] == {"new": {}}
    _, now = await pull(surface)
    assert (await push(surface, WHOLE, headers={"if-match": now})).status_code == 200


async def test_pushes_at_the_same_moment_come_one_after_another(surface: Surface) -> None:
    await surface.new_key("acme")
    statuses: list[int] = []

    async def one(name: str) -> None:
        statuses.append((await push(surface, {"topics": {name: {}}})).status_code)

    async with trio.open_nursery() as nursery:
        for name in ("a", "b", "c"):
            nursery.start_soon(one, name)

    assert statuses == [200, 200, 200]
    assert list((await pull(surface))[0]["topics"]) == ["a", "b", "c"]


async def test_a_set_up_may_be_larger_than_other_bodies_but_not_without_a_key(surface: Surface) -> None:
    large = {"layouts": {f"l{number}": {"text": "x" * 60_000} for number in range(20)}}

    assert (await push(surface, large)).status_code == 200
    refused = await surface.client.post("/v1/orgs/acme/setup", json=large)
    assert_problem(refused, 401, "unauthenticated")
    too_large = {"layouts": {f"l{number}": {"text": "x" * 60_000} for number in range(40)}}
    assert_problem(await push(surface, too_large), 413, "body_too_large")


async def test_a_dry_run_needs_only_the_scope_to_read(surface: Surface) -> None:
    reader = await surface.authorization("acme", Scope.SETUP_READ)

    assert (await surface.client.post("/v1/orgs/acme/setup?dry_run=true", json={}, headers=reader)).status_code == 200
    assert_problem(await surface.client.post("/v1/orgs/acme/setup", json={}, headers=reader), 403, "scope_missing")
    assert_problem(await surface.client.post("/v1/orgs/acme/setup?dry_run=yes", json={}, headers=reader), 400, "query_invalid")
    other = await surface.authorization("globex")
    assert_problem(await surface.client.post("/v1/orgs/acme/setup", json={}, headers=other), 404, "organization_not_found")
