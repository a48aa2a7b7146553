"""Reading notifications over HTTP: whose, which, how many at a time, and how their life is told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from actors.store import templates
from actors.store.api_keys import Scope
from actors.store.templates import NewTemplate
from dispatcher.model import Channel, OrganizationId
from store_rows import START, insert_attempt, insert_dead_letter, insert_notification
from surface_doubles import Surface, assert_problem

PATH = "/v1/orgs/acme/notifications"


async def get(surface: Surface, target: str, *scopes: Scope) -> dict[str, Any]:
    response = await surface.client.get(target, headers=await surface.authorization("acme", *scopes))
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


async def test_one_is_read_whole(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.NOTIFICATIONS_READ)
    id = await insert_notification(
        surface.services.pool, surface.services.new_id(), user_id="u1", idempotency_key="k1", locale="pt-BR"
    )

    document = (await surface.client.get(f"{PATH}/{id}", headers=headers)).json()

    assert document == {
        "id": id,
        "status": "queued",
        "channel": "email",
        "recipient": "somebody@example.org",
        "user_id": "u1",
        "template_id": None,
        "locale": "pt-BR",
        "idempotency_key": "k1",
        "attempts": 0,
        "attempts_max": 8,
        "unknowns": 0,
        "provider": None,
        "provider_config_id": None,
        "provider_message_id": None,
        "reason": None,
        "next_retry_at": None,
        "send_at": None,
        "expires_at": None,
        "correlation_id": None,
        "created_at": "2026-03-01T12:00:00.000000Z",
        "updated_at": "2026-03-01T12:00:00.000000Z",
        "confirmation": None,
        "template": None,
        "payload": {"subject": "Hello", "text": "Hello there"},
        "timeline": [{"at": "2026-03-01T12:00:00.000000Z", "event": "created"}],
    }
    assert (await surface.client.get(f"{PATH}/{id.upper()}", headers=headers)).json() == document


async def test_it_shows_the_version_of_the_template_it_was_rendered_from(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.NOTIFICATIONS_READ)
    pool, new_id = surface.services.pool, surface.services.new_id
    new = NewTemplate("purchase", Channel.EMAIL, "pt", "Hi", "Hello", None, {})
    versions = [(await templates.add(pool, new_id(), OrganizationId("acme"), new)).template for _ in range(2)]
    id = await insert_notification(pool, new_id(), template_id=versions[0].id, locale="pt")

    document = (await surface.client.get(f"{PATH}/{id}", headers=headers)).json()

    assert document["template"] == {"id": versions[0].id, "name": "purchase", "version": 1, "locale": "pt"}


async def test_the_timeline_tells_every_attempt_that_left_a_trace(surface: Surface) -> None:
    await surface.authorization()
    pool, id = surface.services.pool, surface.services.new_id()
    await insert_notification(
        pool, id, status="delivered", attempts=2, updated_at=START + timedelta(minutes=2), provider="sendgrid"
    )
    await insert_attempt(pool, id, 1, "soft", provider="sendgrid", next_retry_at=START + timedelta(minutes=2))
    await insert_attempt(pool, id, 2, "delivered", provider="sendgrid")

    assert (await get(surface, f"{PATH}/{id}"))["timeline"] == [
        {"at": "2026-03-01T12:00:00.000000Z", "event": "created"},
        {
            "at": "2026-03-01T12:01:00.000000Z",
            "event": "soft",
            "attempt": 1,
            "code": "code_1",
            "provider": "sendgrid",
            "next_retry_at": "2026-03-01T12:02:00.000000Z",
        },
        {"at": "2026-03-01T12:02:00.000000Z", "event": "delivered", "attempt": 2, "code": "code_2", "provider": "sendgrid"},
    ]


async def test_the_list_is_newest_first_page_by_page_and_leaves_out_contents(surface: Surface) -> None:
    await surface.authorization()
    ids = [await insert_notification(surface.services.pool, surface.services.new_id()) for _ in range(5)]

    seen, target = [], f"{PATH}?page_size=2"
    while True:
        document = await get(surface, target, Scope.NOTIFICATIONS_READ)
        assert all("payload" not in item for item in document["items"])
        seen.append([item["id"] for item in document["items"]])
        if document["page"]["next"] is None:
            break
        target = f"{PATH}?page_size=2&after={document['page']['next']}"

    assert seen == [ids[:2:-1], ids[2:0:-1], ids[:1]]


async def test_the_list_is_filtered_by_status_and_channel(surface: Surface) -> None:
    await surface.authorization()
    pool, new_id = surface.services.pool, surface.services.new_id
    await insert_notification(pool, new_id())
    sms = await insert_notification(pool, new_id(), channel="sms")
    failed = await insert_dead_letter(pool, new_id())

    assert [item["id"] for item in (await get(surface, f"{PATH}?channel=sms"))["items"]] == [sms]
    assert [item["id"] for item in (await get(surface, f"{PATH}?status=failed"))["items"]] == [failed]
    assert (await get(surface, f"{PATH}?status=failed&channel=sms"))["items"] == []


async def test_a_foreign_notification_does_not_exist(surface: Surface) -> None:
    await surface.authorization("globex")
    id = await insert_notification(surface.services.pool, surface.services.new_id(), "globex")
    headers = await surface.authorization("acme")

    foreign = await surface.client.get(f"{PATH}/{id}", headers=headers)
    unknown = await surface.client.get(f"{PATH}/{surface.services.new_id()}", headers=headers)
    nonsense = await surface.client.get(f"{PATH}/nonsense", headers=headers)

    assert_problem(foreign, 404, "notification_not_found")
    assert foreign.content == unknown.content == nonsense.content
    assert (await get(surface, PATH))["items"] == []


@pytest.mark.parametrize(
    "query",
    [
        "status=lost",
        "status=queued&status=failed",
        "channel=fax",
        "page_size=0",
        "page_size=9999",
        "after=x",
        "stauts=failed",
        "status",
    ],
)
async def test_a_query_that_is_not_understood_is_refused(surface: Surface, query: str) -> None:
    response = await surface.client.get(f"{PATH}?{query}", headers=await surface.authorization())

    assert_problem(response, 400, "query_invalid")


async def test_reading_needs_its_scope(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.NOTIFICATIONS_WRITE)

    assert_problem(await surface.client.get(PATH, headers=headers), 403, "scope_missing")
    assert_problem(await surface.client.get(f"{PATH}/{surface.services.new_id()}", headers=headers), 403, "scope_missing")
