"""Drafts, publishing and layouts of templates over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from actors.store import definitions, organizations, templates
from actors.store.api_keys import Scope
from dispatcher.definitions import Kind
from dispatcher.model import Channel, OrganizationId
from surface_doubles import Surface, assert_problem

ACME = OrganizationId("acme")
PATH = "/v1/orgs/acme/templates"
MAIL: dict[str, Any] = {
    "name": "purchase",
    "channel": "email",
    "locale": "en",
    "subject": "Your order",
    "body_template": "Hello {{ name }}",
    "html_template": "<p>{{ name }}</p>",
}
PT = MAIL | {"locale": "pt"}
SMS = {"name": "purchase", "channel": "sms", "locale": "en", "body_template": "Hello {{ name }}, bye"}


async def post(surface: Surface, target: str, body: object) -> httpx.Response:
    headers = await surface.authorization("acme", Scope.TEMPLATES_WRITE)
    return await surface.client.post(target, json=body, headers=headers)


async def add(surface: Surface, document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    response = await post(surface, PATH, document | changes)
    assert response.status_code == 201, response.text
    added: dict[str, Any] = response.json()
    return added


async def publish(surface: Surface, **body: Any) -> httpx.Response:
    return await post(surface, f"{PATH}/publish", {"name": "purchase"} | body)


async def get(surface: Surface, target: str) -> dict[str, Any]:
    response = await surface.client.get(target, headers=await surface.authorization("acme", Scope.TEMPLATES_READ))
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


async def preview(surface: Surface, id: str, **body: Any) -> httpx.Response:
    headers = await surface.authorization("acme", Scope.TEMPLATES_READ)
    return await surface.client.post(f"{PATH}/{id}/preview", json=body, headers=headers)


async def in_force(surface: Surface) -> dict[str, int]:
    found = await templates.read_in_force(surface.services.pool, ACME, "purchase", Channel.EMAIL)
    return {template.locale: template.version for template in found}


async def put_layout(surface: Surface, name: str, **body: str) -> None:
    await definitions.put(surface.services.pool, ACME, Kind.LAYOUT, name, body)


async def test_a_draft_is_seen_and_tried_and_never_used(surface: Surface) -> None:
    published = await add(surface, MAIL)
    draft = await add(surface, MAIL, subject="Your new order", draft=True)

    assert (draft["version"], draft["published_at"]) == (2, None)
    assert published["published_at"] is not None
    assert [item["id"] for item in (await get(surface, PATH))["items"]] == [published["id"]]
    assert [item["id"] for item in (await get(surface, f"{PATH}?state=draft"))["items"]] == [draft["id"]]
    assert await in_force(surface) == {"en": 1}
    assert surface.dispatch.changes == ["acme"], "nobody needs to hear of a draft"
    assert (await preview(surface, draft["id"], variables={"name": "Ann"})).json()["payload"]["subject"] == "Your new order"


async def test_drafts_of_all_locales_and_channels_are_published_together(surface: Surface) -> None:
    await add(surface, MAIL)
    for document in (MAIL, PT, MAIL, SMS):
        await add(surface, document, draft=True)

    answer = (await publish(surface)).json()

    assert [(one["channel"], one["locale"], one["version"]) for one in answer["published"]] == [
        ("email", "en", 3),
        ("email", "pt", 1),
        ("sms", "en", 1),
    ]
    assert answer["published"][2]["segments_at_least"] == {"encoding": "gsm-7", "units": 11, "segments": 1}
    assert await in_force(surface) == {"en": 3, "pt": 1}
    assert (await get(surface, f"{PATH}?state=draft"))["items"] == []
    assert surface.dispatch.changes == ["acme"] * 2
    assert_problem(await publish(surface), 409, "template_no_drafts")


async def test_one_channel_may_be_published_alone(surface: Surface) -> None:
    await add(surface, MAIL, draft=True)
    sms = await add(surface, SMS, draft=True)

    assert [one["id"] for one in (await publish(surface, channel="sms")).json()["published"]] == [sms["id"]]
    assert await in_force(surface) == {}
    assert_problem(await publish(surface, channel="fax"), 422, "field_invalid")
    assert_problem(await publish(surface, name="refund"), 409, "template_no_drafts")


async def test_a_set_with_a_gap_is_not_published_at_all(surface: Surface) -> None:
    await add(surface, MAIL)
    await add(surface, PT, html_template=None, draft=True)
    await add(surface, MAIL, locale="de", html_template=None, draft=True)

    document = assert_problem(await publish(surface), 422, "template_part_incomplete")

    assert [fault["pointer"] for fault in document["errors"]] == ["/html_template"] * 2
    assert await in_force(surface) == {"en": 1}
    assert surface.dispatch.changes == ["acme"]


async def test_what_is_published_at_once_can_not_leave_the_other_locales(surface: Surface) -> None:
    await add(surface, MAIL, html_template=None)
    await add(surface, PT, html_template=None)

    refused = await post(surface, PATH, MAIL)

    assert assert_problem(refused, 422, "template_part_incomplete")["pointer"] == "/html_template"
    await add(surface, MAIL, draft=True)
    assert_problem(await publish(surface), 422, "template_part_incomplete")
    await add(surface, PT, draft=True)
    assert (await publish(surface)).status_code == 200
    assert await in_force(surface) == {"en": 2, "pt": 2}


async def test_a_draft_that_something_newer_was_published_over_is_not_published_any_more(surface: Surface) -> None:
    await add(surface, MAIL, draft=True)
    await add(surface, MAIL)

    assert_problem(await publish(surface), 409, "template_no_drafts")
    assert (await get(surface, f"{PATH}?state=draft"))["items"] == []


async def test_retiring_a_draft_retires_the_drafts_before_it_and_nothing_that_is_published(surface: Surface) -> None:
    await add(surface, MAIL)
    drafts = [await add(surface, MAIL, draft=True) for _ in range(2)]
    headers = await surface.authorization("acme", Scope.TEMPLATES_WRITE)

    assert (await surface.client.delete(f"{PATH}/{drafts[1]['id']}", headers=headers)).status_code == 204

    assert await in_force(surface) == {"en": 1}
    assert_problem(await publish(surface), 409, "template_no_drafts")


async def test_retiring_what_is_published_leaves_a_draft_to_publish(surface: Surface) -> None:
    published = await add(surface, MAIL)
    await add(surface, MAIL, draft=True)
    headers = await surface.authorization("acme", Scope.TEMPLATES_WRITE)

    await surface.client.delete(f"{PATH}/{published['id']}", headers=headers)

    assert await in_force(surface) == {}
    assert (await publish(surface)).status_code == 200
    assert await in_force(surface) == {"en": 2}


async def test_a_template_is_stored_only_with_the_layouts_it_needs(surface: Surface) -> None:
    await surface.authorization("acme")
    wrapped = MAIL | {"layout": "base", "body_template": 'Hello {% include "name" %}'}

    faults = assert_problem(await post(surface, PATH, wrapped), 422, "template_layout_unknown")["errors"]
    assert [fault["pointer"] for fault in faults] == ["/layout", "/body_template"]
    await put_layout(surface, "base", text="{{ content }}\n-- Acme", html="<html>{{ content }}</html>")
    await put_layout(surface, "name", text="<{{ name }}>")
    id = (await add(surface, wrapped))["id"]

    assert (await preview(surface, id, variables={"name": "Ann"})).json()["payload"] == {
        "subject": "Your order",
        "text": "Hello <Ann>\n-- Acme",
        "html": "<html><p>Ann</p></html>",
    }


async def test_a_draft_whose_layout_went_is_not_published(surface: Surface) -> None:
    await surface.authorization("acme")
    await put_layout(surface, "name", text="<{{ name }}>", html="x")
    draft = await add(surface, MAIL, body_template='{% include "name" %}', draft=True)
    await definitions.delete(surface.services.pool, ACME, Kind.LAYOUT, "name")

    document = assert_problem(await publish(surface), 422, "template_include_unknown")

    assert document["pointer"] == "/body_template"
    assert document["detail"].startswith("The draft of 'en' for email: ")
    assert_problem(await preview(surface, draft["id"], variables={"name": "Ann"}), 422, "template_include_unknown")


async def test_words_that_no_catalogue_has_are_not_published(surface: Surface) -> None:
    await surface.authorization("acme")
    spoken = MAIL | {"subject": "{{ 'greeting'|t }}"}

    await add(surface, spoken, draft=True)
    assert assert_problem(await publish(surface), 422, "template_message_missing")["pointer"] == "/subject"
    assert_problem(await post(surface, PATH, spoken), 422, "template_message_missing")
    await definitions.put(surface.services.pool, ACME, Kind.CATALOGUE, "en", {"messages": {"greeting": {"text": "Hello"}}})
    await definitions.put(surface.services.pool, ACME, Kind.CATALOGUE, "pt", {"messages": {"greeting": {"text": "Olá"}}})
    answer = await publish(surface)
    assert answer.status_code == 200, answer.text
    (published,) = answer.json()["published"]

    shown = await preview(surface, published["id"], variables={"name": "Ann"}, locale="pt_BR")
    assert shown.json()["payload"]["subject"] == "Olá"


async def test_a_preview_speaks_to_a_locale_and_zone_and_counts_segments(surface: Surface) -> None:
    source = "{{ at|datetime }} {{ name }}"
    id = (await add(surface, SMS, body_template=source))["id"]
    variables = {"at": "2026-01-02T23:30:00Z", "name": "ê" * 80}

    london = (await preview(surface, id, variables=variables, locale="en-GB", time_zone="Europe/London")).json()
    tokyo = (await preview(surface, id, variables=variables, time_zone="Asia/Tokyo")).json()

    assert "2 Jan 2026" in london["payload"]["text"]
    assert "Jan 3, 2026" in tokyo["payload"]["text"]
    assert london["segments"]["encoding"] == "ucs-2"
    assert london["segments"]["segments"] == 2
    for wrong in ({"locale": "english!"}, {"time_zone": "Mars/Olympus"}):
        (pointer,) = (f"/{name}" for name in wrong)
        assert assert_problem(await preview(surface, id, **wrong), 422, "field_invalid")["pointer"] == pointer


async def test_variables_are_checked_against_the_schema_with_every_fault_at_once(surface: Surface) -> None:
    schema = {
        "type": "object",
        "required": ["name", "seats"],
        "properties": {"name": {"type": "string"}, "seats": {"minItems": 1}},
    }
    id = (await add(surface, MAIL, schema=schema))["id"]

    document = assert_problem(await preview(surface, id, variables={"name": 7}), 422, "template_variable_missing")

    assert document["pointer"] == "/variables/seats"
    assert [(fault["pointer"], fault["code"]) for fault in document["errors"]] == [
        ("/variables/seats", "template_variable_missing"),
        ("/variables/name", "template_variable_invalid"),
    ]
    assert (await get(surface, f"{PATH}/{id}"))["schema"] == schema


@pytest.mark.parametrize(
    ("document", "payload"),
    [
        (
            {"channel": "push", "title": "{{ a }}", "body_template": "b", "data": {"order": "{{ a }}"}},
            {"title": "x", "text": "b", "data": {"order": "x"}},
        ),
        (
            {"channel": "whatsapp", "whatsapp": {"name": "order", "language": "en", "parameters": ["{{ a }}"]}},
            {"template": {"name": "order", "language": "en", "parameters": ["x"]}},
        ),
        ({"channel": "whatsapp", "body_template": "{{ a }}"}, {"text": "x"}),
    ],
)
async def test_every_channel_has_its_parts(surface: Surface, document: dict[str, Any], payload: dict[str, Any]) -> None:
    added = await add(surface, {"name": "n", "locale": "en"}, **document)

    assert {name: added[name] for name in document} == document
    assert await get(surface, f"{PATH}/{added['id']}") == added
    assert (await preview(surface, added["id"], variables={"a": "x"})).json()["payload"] == payload


async def test_the_organizations_own_locale_is_what_messages_are_missing_in(surface: Surface) -> None:
    await surface.authorization("acme")
    organization = await organizations.read(surface.services.pool, ACME)
    assert organization is not None

    refused = assert_problem(await post(surface, PATH, MAIL | {"subject": "{{ 'a'|t }}"}), 422, "template_message_missing")

    assert organization.default_locale in refused["detail"]


async def test_publishing_needs_the_scope_of_writing(surface: Surface) -> None:
    reader = await surface.authorization("acme", Scope.TEMPLATES_READ)

    assert_problem(await surface.client.post(f"{PATH}/publish", json={"name": "x"}, headers=reader), 403, "scope_missing")
