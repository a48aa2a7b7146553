"""Canceling over HTTP: one or many, idempotent, with a plain word when it is too late."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest

from actors.store.api_keys import Scope
from store_rows import START, insert, insert_notification
from surface_doubles import Surface, assert_problem

PATH = "/v1/orgs/acme/notifications"
LATER = START + timedelta(days=300)


async def post(surface: Surface, path: str, document: Any = None) -> httpx.Response:
    headers = await surface.authorization("acme", Scope.NOTIFICATIONS_WRITE)
    return await surface.client.post(f"{PATH}/{path}", json=document, headers=headers)


async def notification(surface: Surface, **columns: Any) -> str:
    return await insert_notification(surface.services.pool, surface.services.new_id(), **columns)


@pytest.mark.parametrize("status", ["scheduled", "queued"])
async def test_one_that_was_not_sent_yet_is_canceled_and_announced_once(surface: Surface, status: str) -> None:
    await surface.authorization()
    id = await notification(surface, status=status, next_retry_at=LATER)

    first, again = await post(surface, f"{id}/cancel"), await post(surface, f"{id}/cancel")

    assert (first.status_code, first.json()) == (200, {"id": id, "status": "canceled"})
    assert (again.status_code, again.json()) == (200, {"id": id, "status": "canceled"})
    assert surface.dispatch.canceled == [("acme", [(id, "email")])]
    reading = await surface.authorization("acme", Scope.NOTIFICATIONS_READ)
    document = (await surface.client.get(f"{PATH}/{id}", headers=reading)).json()
    assert (document["status"], document["reason"], document["send_at"]) == ("canceled", "canceled", None)
    assert document["timeline"][-1]["event"] == "canceled"
    assert [one["id"] for one in (await surface.client.get(f"{PATH}?status=canceled", headers=reading)).json()["items"]] == [id]


@pytest.mark.parametrize("status", ["sending", "delivered", "failed"])
async def test_one_that_is_on_its_way_or_final_can_not_be_canceled(surface: Surface, status: str) -> None:
    await surface.authorization()
    id = await notification(surface, status=status)

    problem = assert_problem(await post(surface, f"{id}/cancel"), 409, "not_cancelable")

    assert status in problem["detail"]
    assert surface.dispatch.canceled == []


async def test_somebody_elses_or_none_is_not_found(surface: Surface) -> None:
    await surface.authorization()
    theirs = await notification(surface, organization_id="other")

    for id in (theirs, surface.services.new_id(), "x"):
        assert (await post(surface, f"{id}/cancel")).status_code == 404


async def test_all_of_a_correlation_id_are_canceled_and_counted(surface: Surface) -> None:
    await surface.authorization()
    waiting = await notification(surface, status="scheduled", next_retry_at=LATER, correlation_id="order 1".replace(" ", "-"))
    queued = await notification(surface, correlation_id="order-1")
    await notification(surface, status="delivered", correlation_id="order-1")
    await notification(surface, correlation_id="order-2")
    digest = surface.services.new_id()
    pool = surface.services.pool
    await insert(pool, "digests", id=digest, organization_id="acme", rule="r", user_id="u", channel="email", key="", due_at=LATER)
    await insert(pool, "digest_items", digest_id=digest, event_id="e", correlation_id="order-1", data={}, at=START)

    first = await post(surface, "cancel", {"correlation_id": "order-1"})
    again = await post(surface, "cancel", {"correlation_id": "order-1"})

    statuses = {"canceled": 2, "delivered": 1}
    assert first.json() == {"canceled": 2, "digest_items": 1, "more": False, "statuses": statuses}
    assert again.json() == {"canceled": 0, "digest_items": 0, "more": False, "statuses": statuses}
    assert sorted(surface.dispatch.canceled[0][1]) == sorted([(waiting, "email"), (queued, "email")])


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/correlation_id"),
        ({"correlation_id": ""}, "/correlation_id"),
        ({"correlation_id": "a b"}, "/correlation_id"),
        ({"correlation_id": "x" * 256}, "/correlation_id"),
        ({"correlation_id": 7}, "/correlation_id"),
        ({"correlation_id": "x", "more": 1}, ""),
    ],
)
async def test_what_names_no_correlation_id_cancels_nothing(surface: Surface, body: Any, pointer: str) -> None:
    await surface.authorization()
    problem = assert_problem(await post(surface, "cancel", body), 422, "field_unknown" if "more" in body else "field_invalid")

    assert problem["pointer"] == pointer


async def test_canceling_needs_the_right_to_write(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.NOTIFICATIONS_READ)
    id = await notification(surface)

    assert (await surface.client.post(f"{PATH}/{id}/cancel", headers=headers)).status_code == 403
    assert (await surface.client.post(f"{PATH}/cancel", json={"correlation_id": "x"}, headers=headers)).status_code == 403


async def test_what_was_canceled_can_not_be_queued_again(surface: Surface) -> None:
    await surface.authorization()
    id = await notification(surface)
    await post(surface, f"{id}/cancel")

    headers = await surface.authorization("acme", Scope.DEAD_LETTERS_WRITE)
    response = await surface.client.post(f"/v1/orgs/acme/dead-letters/{id}/requeue", headers=headers)

    assert_problem(response, 404, "dead_letter_not_found")


async def test_one_that_waits_shows_until_when_and_what_it_belongs_to(surface: Surface) -> None:
    reading = await surface.authorization("acme", Scope.NOTIFICATIONS_READ)
    id = await notification(surface, status="scheduled", next_retry_at=LATER, correlation_id="order-1")

    document = (await surface.client.get(f"{PATH}/{id}", headers=reading)).json()

    assert (document["status"], document["send_at"], document["correlation_id"]) == (
        "scheduled",
        "2026-12-26T12:00:00.000000Z",
        "order-1",
    )
    assert [one["id"] for one in (await surface.client.get(f"{PATH}?status=scheduled", headers=reading)).json()["items"]] == [id]
