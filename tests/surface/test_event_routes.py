"""Events over HTTP: who may hand them in, what is read of one afterwards, and how a notification is explained."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from actors.store.api_keys import Scope
from dispatcher.aftermath import ATTEMPTS, BY_HAND, REPORTS, STATES
from dispatcher.decisions import Code, decided, step_of
from dispatcher.feedback.feedback import FeedbackKind
from dispatcher.model import Status
from dispatcher.outcome import OutcomeClass
from event_world import PLANNED_STEPS
from store_rows import START, insert, insert_attempt, insert_notification
from surface_doubles import Surface, assert_problem

EVENTS = "/v1/orgs/acme/events"
NOTIFICATIONS = "/v1/orgs/acme/notifications"
JSON = {"content-type": "application/json"}


async def test_the_desk_gets_the_bytes_of_an_event_as_they_came(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.EVENTS_WRITE) | JSON
    response = await surface.client.post(EVENTS, content=b' {"not": "parsed"} ', headers=headers)

    assert (response.status_code, response.content) == (202, b'{"matched":true}')
    assert surface.dispatch.events.accepted == [("acme", b' {"not": "parsed"} ')]
    assert surface.dispatch.accepted == []


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", EVENTS, Scope.NOTIFICATIONS_WRITE),
        ("POST", f"{EVENTS}/explain", Scope.EVENTS_WRITE),
        ("GET", f"{EVENTS}/e-1", Scope.EVENTS_WRITE),
        ("POST", f"{NOTIFICATIONS}/explain", Scope.NOTIFICATIONS_WRITE),
        ("GET", f"{NOTIFICATIONS}/0192d3a4-7c1e-7f00-8000-0123456789ab/explain", Scope.EVENTS_READ),
    ],
)
async def test_each_route_needs_its_scope(surface: Surface, method: str, path: str, scope: Scope) -> None:
    headers = await surface.authorization("acme", scope) | JSON
    response = await surface.client.request(method, path, content=b"{}" if method == "POST" else None, headers=headers)

    assert_problem(response, 403, "scope_missing")


async def test_what_came_of_an_event_is_read_by_its_id_whatever_that_is(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.EVENTS_READ)
    pool = surface.services.pool
    for id in ("e-1", "order/7?x#y"):
        columns = {
            "type": "a.b",
            "request_hash": b"h",
            "correlation_id": "c-1",
            "received_at": START,
            "answer": '{"matched":false}',
        }
        await insert(pool, "events", organization_id="acme", id=id, **columns)

    one = await surface.client.get(f"{EVENTS}/e-1", headers=headers)
    other = await surface.client.get(f"{EVENTS}/order%2F7%3Fx%23y", headers=headers)

    assert one.json() == {
        "id": "e-1",
        "type": "a.b",
        "correlation_id": "c-1",
        "received_at": "2026-03-01T12:00:00.000000Z",
        "answer": {"matched": False},
    }
    assert other.json()["id"] == "order/7?x#y"
    assert_problem(await surface.client.get(f"{EVENTS}/e-2", headers=headers), 404, "event_not_found")


async def test_a_dry_run_may_show_the_payload(surface: Surface) -> None:
    headers = await surface.authorization()
    body: dict[str, Any] = {"id": "e-1"}
    first = await surface.client.post(f"{EVENTS}/explain", json=body, headers=headers)
    await surface.client.post(f"{NOTIFICATIONS}/explain?payload=true", json=body, headers=headers)
    wrong = await surface.client.post(f"{EVENTS}/explain?payload=1", json=body, headers=headers)

    assert first.json() == {"matched": True}
    assert surface.dispatch.events.explained == [("acme", body, False), ("acme", body, True)]
    assert_problem(wrong, 400, "query_invalid")


async def test_a_notification_tells_how_it_came_about_and_what_happened_since(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.NOTIFICATIONS_READ)
    pool, id = surface.services.pool, surface.services.new_id()
    chain = [decided(Code.RULE_MATCHED, rule="purchase").document(), decided(Code.TIME_NOW).document()]
    await insert_notification(pool, id, status="queued", attempts=1, event_id="e-1", topic="orders", decisions=Jsonb(chain))
    await insert_attempt(pool, id, 1, "rate_limited", provider="sendgrid", next_retry_at=START + timedelta(minutes=9))

    document = (await surface.client.get(f"{NOTIFICATIONS}/{id}/explain", headers=headers)).json()

    assert (document["event_id"], document["topic"], document["decisions"]) == ("e-1", "orders", chain)
    assert document["since"] == [
        {
            "at": "2026-03-01T12:01:00.000000Z",
            "step": "attempt",
            "code": "attempt_rate_limited",
            "detail": {"attempt": 1, "provider": "sendgrid", "provider_code": "code_1"},
        },
        {"at": "2026-03-01T12:00:00.000000Z", "step": "state", "code": "state_queued", "detail": {"attempts": 1}},
    ]


async def test_one_that_nobody_decided_about_says_so(surface: Surface) -> None:
    headers = await surface.authorization()
    id = await insert_notification(surface.services.pool, surface.services.new_id(), status="canceled", reason="canceled")
    document = (await surface.client.get(f"{NOTIFICATIONS}/{id}/explain", headers=headers)).json()
    unknown = await surface.client.get(f"{NOTIFICATIONS}/{surface.services.new_id()}/explain", headers=headers)

    assert [decision["code"] for decision in document["decisions"]] == ["rule_direct", "recipient_given"]
    assert document["since"][-1]["code"] == "state_canceled"
    assert_problem(unknown, 404, "notification_not_found")


def test_whatever_may_happen_has_a_code_of_its_own() -> None:
    assert set(ATTEMPTS) == {kind.value for kind in OutcomeClass} - {"interrupted"}
    assert set(REPORTS) == {f"feedback.{kind.value}" for kind in FeedbackKind}
    assert set(STATES) == set(Status)
    told = {*ATTEMPTS.values(), *REPORTS.values(), *BY_HAND.values(), *STATES.values()}
    assert told == {code for code in Code if step_of(code) not in PLANNED_STEPS}
