"""Dead letters over HTTP: seen, sent again, dropped."""

from __future__ import annotations

from actors.store import dead_letters, notifications
from actors.store.api_keys import Scope
from dispatcher.errors import QueueUnavailable, StoreUnavailable
from dispatcher.model import OrganizationId, Status
from store_rows import START, insert_dead_letter, insert_notification
from surface_doubles import Surface, assert_problem

PATH = "/v1/orgs/acme/dead-letters"
ACME = OrganizationId("acme")


async def test_the_list_says_why_and_not_to_whom(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.DEAD_LETTERS_READ)
    id = await insert_dead_letter(surface.services.pool, surface.services.new_id(), unknowns=2)

    response = await surface.client.get(PATH, headers=headers)

    assert response.json() == {
        "items": [
            {
                "notification_id": id,
                "reason": "hard",
                "code": "http_400",
                "channel": "email",
                "provider": "sendgrid",
                "created_at": "2026-03-01T12:00:00.000000Z",
                "unknowns": 2,
            }
        ],
        "page": {"next": None},
    }


async def test_the_list_is_paged_and_filtered_by_reason(surface: Surface) -> None:
    headers = await surface.authorization()
    pool, new_id = surface.services.pool, surface.services.new_id
    first, second = [await insert_dead_letter(pool, new_id(), "expired") for _ in range(2)]
    await insert_dead_letter(pool, new_id(), "hard")

    page = (await surface.client.get(f"{PATH}?reason=expired&page_size=1", headers=headers)).json()
    rest = (await surface.client.get(f"{PATH}?reason=expired&page_size=1&after={page['page']['next']}", headers=headers)).json()

    assert ([item["notification_id"] for item in page["items"]], page["page"]["next"]) == ([second], second)
    assert ([item["notification_id"] for item in rest["items"]], rest["page"]["next"]) == ([first], None)
    assert_problem(await surface.client.get(f"{PATH}?reason=bored", headers=headers), 400, "query_invalid")


async def test_one_is_queued_again_once_and_the_queue_is_told(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.DEAD_LETTERS_WRITE)
    pool = surface.services.pool
    id = await insert_dead_letter(pool, surface.services.new_id())

    response = await surface.client.post(f"{PATH}/{id}/requeue", headers=headers)
    again = await surface.client.post(f"{PATH}/{id}/requeue", headers=headers)

    assert (response.status_code, response.json()) == (202, {"id": id, "status": "queued"})
    assert_problem(again, 404, "dead_letter_not_found")
    assert surface.dispatch.requeues == [("acme", [id])]
    detail = await notifications.read(pool, ACME, id)
    assert detail is not None
    assert (detail.summary.status, detail.summary.attempts, detail.summary.attempts_max) == (Status.QUEUED, 3, 11)
    assert detail.timeline[-1].event == "requeued"


async def test_whoever_requeues_what_was_held_has_decided_and_the_count_of_possible_doubles_stays(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.DEAD_LETTERS_WRITE)
    pool = surface.services.pool
    new_id = surface.services.new_id()
    id = await insert_dead_letter(pool, new_id, "unknown", unknowns=2, unknown_since=START, unknown_last=START)

    assert (await surface.client.post(f"{PATH}/{id}/requeue", headers=headers)).status_code == 202
    rows = await pool.fetch("SELECT unknowns::int, unknown_since, unknown_last FROM notifications WHERE id = %s", (id,))
    assert rows == [(2, None, None)]


async def test_a_queue_that_cannot_be_told_does_not_undo_what_is_on_record(surface: Surface) -> None:
    headers = await surface.authorization()
    id = await insert_dead_letter(surface.services.pool, surface.services.new_id())
    surface.dispatch.failure = QueueUnavailable("away")

    assert (await surface.client.post(f"{PATH}/{id}/requeue", headers=headers)).status_code == 202


async def test_another_failure_of_telling_is_not_hidden(surface: Surface) -> None:
    headers = await surface.authorization()
    id = await insert_dead_letter(surface.services.pool, surface.services.new_id())
    surface.dispatch.failure = StoreUnavailable("away")

    assert_problem(await surface.client.post(f"{PATH}/{id}/requeue", headers=headers), 503, "store_unavailable")


async def test_one_is_dropped_and_its_notification_stays_failed(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.DEAD_LETTERS_WRITE)
    pool = surface.services.pool
    id = await insert_dead_letter(pool, surface.services.new_id())

    response = await surface.client.delete(f"{PATH}/{id}", headers=headers)

    assert (response.status_code, response.content) == (204, b"")
    assert_problem(await surface.client.delete(f"{PATH}/{id}", headers=headers), 404, "dead_letter_not_found")
    detail = await notifications.read(pool, ACME, id)
    assert detail is not None
    assert detail.summary.status is Status.FAILED


async def test_foreign_letters_and_living_notifications_are_no_dead_letters(surface: Surface) -> None:
    await surface.authorization("globex")
    headers = await surface.authorization()
    pool, new_id = surface.services.pool, surface.services.new_id
    foreign = await insert_dead_letter(pool, new_id(), organization_id="globex")
    living = await insert_notification(pool, new_id())

    for id in (foreign, living, "nonsense"):
        assert_problem(await surface.client.post(f"{PATH}/{id}/requeue", headers=headers), 404, "dead_letter_not_found")
        assert_problem(await surface.client.delete(f"{PATH}/{id}", headers=headers), 404, "dead_letter_not_found")
    assert await dead_letters.discard(pool, OrganizationId("globex"), foreign)


async def test_scopes_are_told_apart(surface: Surface) -> None:
    id = surface.services.new_id()
    reader = await surface.authorization("acme", Scope.DEAD_LETTERS_READ)
    writer = await surface.authorization("acme", Scope.DEAD_LETTERS_WRITE)

    assert_problem(await surface.client.post(f"{PATH}/{id}/requeue", headers=reader), 403, "scope_missing")
    assert_problem(await surface.client.delete(f"{PATH}/{id}", headers=reader), 403, "scope_missing")
    assert_problem(await surface.client.get(PATH, headers=writer), 403, "scope_missing")
