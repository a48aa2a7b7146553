from __future__ import annotations

from typing import Any

from actors.store.api_keys import Scope
from dispatcher.contacts import ContactStatus
from surface_doubles import Surface, assert_problem

ADA = {"channel": "email", "recipient": "Ada@example.org"}


async def post(surface: Surface, path: str, document: Any, *scopes: Scope, organization_id: str = "acme") -> Any:
    headers = await surface.authorization(organization_id, *scopes)
    return await surface.client.post(f"/v1/orgs/{organization_id}/contacts{path}", json=document, headers=headers)


async def get(surface: Surface, path: str, *, organization_id: str = "acme") -> Any:
    headers = await surface.authorization(organization_id)
    return await surface.client.get(f"/v1/orgs/{organization_id}/contacts{path}", headers=headers)


async def test_a_contact_is_suppressed_by_hand_and_opened_again(surface: Surface) -> None:
    closed = (await post(surface, "", {**ADA, "status": "unsubscribed", "note": "By phone."})).json()
    assert (closed["status"], closed["code"], closed["note"]) == ("unsubscribed", "manual", "By phone.")
    assert closed["changed_by"] is not None
    assert (await get(surface, f"/{closed['id']}")).json() == closed
    assert (await post(surface, "/find", {"channel": "email", "recipient": "ada@EXAMPLE.org"})).json() == closed

    opened = (await post(surface, "", {**ADA, "status": "active"})).json()

    assert (opened["id"], opened["status"], opened["since"]) == (closed["id"], "active", None)
    assert [(change.id, change.status) for change in surface.dispatch.contact_changes] == [
        (closed["id"], ContactStatus.UNSUBSCRIBED),
        (closed["id"], ContactStatus.ACTIVE),
    ]


async def test_contacts_are_listed_by_status_and_channel_page_by_page(surface: Surface) -> None:
    rows = [{"channel": "email", "recipient": f"guest{n}@example.org", "status": "bounced"} for n in range(5)]
    rows.append({"channel": "sms", "recipient": "+15551234567", "status": "complained"})
    brought = (await post(surface, "/import", {"items": rows})).json()
    assert brought == {"contacts": 6, "changed": 6}
    assert (await post(surface, "/import", {"items": rows})).json() == {"contacts": 6, "changed": 0}

    first = (await get(surface, "?status=bounced&page_size=3")).json()
    second = (await get(surface, f"?status=bounced&page_size=3&after={first['page']['next']}")).json()

    assert [len(first["items"]), len(second["items"]), second["page"]["next"]] == [3, 2, None]
    assert {item["recipient"] for item in first["items"] + second["items"]} == {row["recipient"] for row in rows[:5]}
    assert [item["recipient"] for item in (await get(surface, "?channel=sms")).json()["items"]] == ["+15551234567"]


async def test_contacts_of_another_organization_are_none(surface: Surface) -> None:
    ours = (await post(surface, "", {**ADA, "status": "bounced"})).json()

    assert (await get(surface, "", organization_id="other")).json()["items"] == []
    assert_problem(await get(surface, f"/{ours['id']}", organization_id="other"), 404, "contact_not_found")
    assert_problem(await post(surface, "/find", ADA, organization_id="other"), 404, "contact_not_found")


async def test_every_fault_of_an_import_has_its_place(surface: Surface) -> None:
    rows = [{**ADA, "status": "bounced"}, {"channel": "email", "recipient": "no", "status": "gone"}, {**ADA, "state": "x"}]

    document = assert_problem(await post(surface, "/import", {"items": rows}), 422, "field_invalid")

    pointers = {error["pointer"] for error in document["errors"]}
    assert {"/items/1/status", "/items/2/status", "/items/2/state"} <= pointers
    assert "example.org" not in str(document)
    assert (await get(surface, "")).json()["items"] == []


async def test_reading_and_deciding_need_their_scopes(surface: Surface) -> None:
    assert_problem(await post(surface, "", {**ADA, "status": "bounced"}, Scope.CONTACTS_READ), 403, "scope_missing")
    assert_problem(await post(surface, "/find", ADA, Scope.CONTACTS_WRITE), 403, "scope_missing")
    assert_problem(await post(surface, "/import", {"items": []}), 422, "field_invalid")
