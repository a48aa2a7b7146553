"""Templates over HTTP: versions, previews, and what is refused before it is stored."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from actors.store.api_keys import Scope
from surface_doubles import Surface, assert_problem

PATH = "/v1/orgs/acme/templates"
BODY: dict[str, Any] = {
    "name": "purchase",
    "channel": "email",
    "locale": "en",
    "subject": "Your order {{ number }}",
    "body_template": "Hello {{ user.name }}, thank you.",
    "html_template": "<p>Hello {{ user.name }}</p>",
    "variables": {"number": {"default": 7}, "user": {"required": True, "description": "who bought"}},
}


async def add(surface: Surface, **changes: Any) -> httpx.Response:
    return await surface.client.post(
        PATH, json=BODY | changes, headers=await surface.authorization("acme", Scope.TEMPLATES_WRITE)
    )


async def preview(surface: Surface, id: str, body: object) -> httpx.Response:
    headers = await surface.authorization("acme", Scope.TEMPLATES_READ)
    return await surface.client.post(f"{PATH}/{id}/preview", json=body, headers=headers)


async def test_one_is_stored_and_read_back(surface: Surface) -> None:
    response = await add(surface)

    document = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"{PATH}/{document['id']}"
    assert {name: document[name] for name in ("name", "channel", "locale", "subject", "body_template", "html_template")} == {
        name: BODY[name] for name in ("name", "channel", "locale", "subject", "body_template", "html_template")
    }
    assert (document["version"], document["retired_at"]) == (1, None)
    headers = await surface.authorization("acme", Scope.TEMPLATES_READ)
    assert (await surface.client.get(f"{PATH}/{document['id']}", headers=headers)).json() == document
    assert surface.dispatch.changes == ["acme"]


async def test_the_same_name_channel_and_locale_make_the_next_version(surface: Surface) -> None:
    first, second = (await add(surface)).json(), (await add(surface, locale="EN")).json()
    other = (await add(surface, locale="pt_br")).json()

    assert (first["version"], second["version"]) == (1, 2)
    assert (other["locale"], other["version"]) == ("pt-BR", 1)


async def test_the_list_shows_what_is_in_force_without_sources(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.TEMPLATES_READ)
    await add(surface)
    second = (await add(surface)).json()
    other = (await add(surface, name="refund")).json()

    listed = (await surface.client.get(PATH, headers=headers)).json()
    named = (await surface.client.get(f"{PATH}?name=purchase", headers=headers)).json()
    page = (await surface.client.get(f"{PATH}?page_size=1", headers=headers)).json()

    assert [item["id"] for item in listed["items"]] == [other["id"], second["id"]]
    assert all("body_template" not in item for item in listed["items"])
    assert [item["id"] for item in named["items"]] == [second["id"]]
    assert page["page"]["next"] == other["id"]
    assert_problem(await surface.client.get(f"{PATH}?name=", headers=headers), 400, "query_invalid")


async def test_retiring_ends_a_version_and_those_before_it(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.TEMPLATES_WRITE)
    first, second, third = [(await add(surface)).json() for _ in range(3)]

    assert (await surface.client.delete(f"{PATH}/{second['id']}", headers=headers)).status_code == 204
    for id in (first["id"], second["id"], "nonsense"):
        assert_problem(await surface.client.delete(f"{PATH}/{id}", headers=headers), 404, "template_not_found")

    reader = await surface.authorization()
    listed = (await surface.client.get(PATH, headers=reader)).json()
    retired = (await surface.client.get(f"{PATH}/{first['id']}", headers=reader)).json()
    assert [item["id"] for item in listed["items"]] == [third["id"]]
    assert retired["retired_at"] is not None
    assert surface.dispatch.changes == ["acme"] * 4


async def test_a_preview_renders_as_a_notification_would_be(surface: Surface) -> None:
    id = (await add(surface)).json()["id"]

    response = await preview(surface, id, {"variables": {"user": {"name": "<Ann>"}}})

    assert (response.status_code, response.json()) == (
        200,
        {"payload": {"subject": "Your order 7", "text": "Hello <Ann>, thank you.", "html": "<p>Hello &lt;Ann&gt;</p>"}},
    )


@pytest.mark.parametrize(
    ("variables", "pointer", "code"),
    [
        (None, "/variables/user", "template_variable_missing"),
        ({}, "/variables/user", "template_variable_missing"),
        ({"user": {}}, "/variables/user/name", "template_variable_missing"),
        ({"user": {"name": "x"}, "number": "1\n2"}, "/variables", "template_subject_line_break"),
        ({"user": {"name": "a\0"}}, "/variables", "field_invalid"),
        ([], "/variables", "field_invalid"),
    ],
)
async def test_a_preview_that_cannot_be_rendered_says_for_want_of_what(
    surface: Surface, variables: object, pointer: str, code: str
) -> None:
    id = (await add(surface)).json()["id"]

    document = assert_problem(await preview(surface, id, {"variables": variables}), 422, code)

    assert document["pointer"] == pointer


async def test_a_loop_without_end_ends(surface: Surface) -> None:
    id = (
        await add(
            surface,
            subject="x",
            html_template=None,
            variables={},
            body_template="{% for a in x %}{% for b in x %}{{ b }}{% endfor %}{% endfor %}",
        )
    ).json()["id"]

    response = await preview(surface, id, {"variables": {"x": list(range(100_000))}})

    assert_problem(response, 422, "template_steps_exceeded")


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"body_template": "{{ user.name"}, "/body_template", "template_syntax"),
        ({"body_template": "{{ ''.__class__.__mro__ }}"}, "/body_template", "template_attribute_forbidden"),
        ({"body_template": "{% import 'os' as os %}"}, "/body_template", "template_construct_forbidden"),
        ({"html_template": "{{ nobody }}"}, "/html_template", "template_variable_undeclared"),
        ({"subject": None}, "/subject", "template_part_missing"),
        ({"channel": "sms", "html_template": None}, "/subject", "template_part_forbidden"),
        ({"channel": "fax"}, "/channel", "field_invalid"),
        ({"locale": "english!"}, "/locale", "field_invalid"),
        ({"locale": None}, "/locale", "field_missing"),
        ({"name": "a\nb"}, "/name", "field_invalid"),
        ({"name": ""}, "/name", "field_invalid"),
        ({"body_template": "x" * 200_000}, "/body_template", "field_invalid"),
        ({"variables": {"user": 1, "number": {}}}, "/variables/user", "field_invalid"),
        ({"variables": {"user": {"requird": True}, "number": {}}}, "/variables/user/requird", "field_unknown"),
        ({"variables": {"user": {"required": "yes"}, "number": {}}}, "/variables/user/required", "field_invalid"),
        ({"variables": {"user@example.org": {}}}, "/variables", "field_invalid"),
        ({"variables": {"user": {"default": "a\0"}, "number": {}}}, "/variables", "field_invalid"),
        ({"colour": "red"}, "/colour", "field_unknown"),
    ],
)
async def test_what_cannot_be_used_is_refused_at_its_place_and_not_stored(
    surface: Surface, change: dict[str, Any], pointer: str, code: str
) -> None:
    document = assert_problem(await add(surface, **change), 422, code)

    assert document["pointer"] == pointer
    listed = await surface.client.get(PATH, headers=await surface.authorization())
    assert listed.json()["items"] == []
    assert surface.dispatch.changes == []


async def test_the_faults_of_all_parts_come_at_once(surface: Surface) -> None:
    document = assert_problem(
        await add(surface, subject="{{", body_template="{{", html_template="{{", channel="fax", name=1), 422, "field_invalid"
    )

    assert [fault["pointer"] for fault in document["errors"]] == [
        "/name",
        "/channel",
        "/subject",
        "/body_template",
        "/html_template",
    ]


async def test_a_template_without_declarations_may_use_what_it_likes(surface: Surface) -> None:
    assert (await add(surface, variables=None)).status_code == 201


async def test_a_foreign_template_does_not_exist(surface: Surface) -> None:
    headers = await surface.authorization("globex")
    target = f"/v1/orgs/globex/templates/{(await add(surface)).json()['id']}"

    assert_problem(await surface.client.get(target, headers=headers), 404, "template_not_found")
    assert_problem(await surface.client.post(f"{target}/preview", json={}, headers=headers), 404, "template_not_found")
    assert_problem(await surface.client.delete(target, headers=headers), 404, "template_not_found")
    assert (await surface.client.get("/v1/orgs/globex/templates", headers=headers)).json()["items"] == []


async def test_scopes_are_told_apart(surface: Surface) -> None:
    target = f"{PATH}/{surface.services.new_id()}"
    reader = await surface.authorization("acme", Scope.TEMPLATES_READ)
    writer = await surface.authorization("acme", Scope.TEMPLATES_WRITE)

    for method, address in (("POST", PATH), ("DELETE", target)):
        assert_problem(await surface.client.request(method, address, headers=reader), 403, "scope_missing")
    for method, address in (("GET", PATH), ("GET", target), ("POST", f"{target}/preview")):
        assert_problem(await surface.client.request(method, address, headers=writer), 403, "scope_missing")
