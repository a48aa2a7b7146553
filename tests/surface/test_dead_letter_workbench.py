"""Many dead letters over HTTP: what a request may say, what it is answered, and who may read whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
import trio

from actors.store import dead_letter_export, dead_letters, notifications
from actors.store.api_keys import Scope
from actors.store.dead_letter_filter import LetterFilter
from dispatcher.errors import QueueUnavailable, StoreTimedOut
from dispatcher.model import DeadLetterReason, OrganizationId, Status
from dispatcher_http import connection, letter_export
from store_rows import START, insert_dead_letter, insert_letter_of
from surface_doubles import Surface, assert_problem

PATH = "/v1/orgs/acme/dead-letters"
ACME = OrganizationId("acme")
EVERYTHING: dict[str, Any] = {"filter": {}}


async def letters(surface: Surface, count: int, **letter: Any) -> list[str]:
    return [await insert_letter_of(surface.services.pool, surface.services.new_id(), **letter) for _ in range(count)]


async def left(surface: Surface) -> int:
    return (await dead_letters.count(surface.services.pool, ACME, LetterFilter())).rows


# --- reading ------------------------------------------------------------------------------------------------------------


async def test_the_list_takes_every_filter(surface: Surface) -> None:
    headers = await surface.authorization()
    (sms,) = await letters(surface, 1, channel="sms", code="http_503", provider=None, reason="exhausted")
    (mail,) = await letters(surface, 1)

    for query, expected in (
        ("", [mail, sms]),
        ("reason=exhausted&code=http_503&channel=sms&provider=none", [sms]),
        ("provider=sendgrid", [mail]),
        ("template=welcome", []),
        (f"template={mail}", []),
        ("created_from=2026-03-01T12:00:00Z&created_before=2026-03-01T12:00:01Z", [mail, sms]),
        ("created_before=2026-03-01T12:00:00%2B00:00", []),
        (f"ids={sms},{surface.services.new_id()}", [sms]),
    ):
        response = await surface.client.get(f"{PATH}?{query}", headers=headers)
        assert [item["notification_id"] for item in response.json()["items"]] == expected, query


@pytest.mark.parametrize(
    "query",
    [
        "colour=red",
        "reason=bored",
        "channel=fax",
        "code=",
        "created_from=yesterday",
        "created_from=2026-03-01T12:00:00",
        "ids=1,2",
    ],
)
@pytest.mark.parametrize("address", ["", "/groups", "/export"])
async def test_a_query_that_is_not_understood_is_refused(surface: Surface, address: str, query: str) -> None:
    headers = await surface.authorization()

    assert_problem(await surface.client.get(f"{PATH}{address}?{query}", headers=headers), 400, "query_invalid")


async def test_groups_come_with_the_filter_that_means_them(surface: Surface) -> None:
    headers = await surface.authorization()
    ids = await letters(surface, 2, reason="expired", code="expired", provider=None)
    await letters(surface, 1)

    answer = (await surface.client.get(f"{PATH}/groups", headers=headers)).json()
    selected = {"filter": answer["items"][0]["filter"]}
    requeued = (await surface.client.post(f"{PATH}/requeue", json=selected, headers=headers)).json()

    assert answer["more"] is False
    assert answer["items"][0] == {
        "reason": "expired",
        "code": "expired",
        "channel": "email",
        "provider": None,
        "count": 2,
        "count_more": False,
        "oldest_at": "2026-03-01T12:00:00.000000Z",
        "newest_at": "2026-03-01T12:00:00.000000Z",
        "example_ids": answer["items"][0]["example_ids"],
        "filter": {"reason": "expired", "code": "expired", "channel": "email", "provider": "none"},
    }
    assert sorted(answer["items"][0]["example_ids"]) == sorted(ids)
    assert (requeued["requeued"], requeued["left"]) == (2, {"count": 0, "more": False})
    assert await left(surface) == 1


# --- changing many ------------------------------------------------------------------------------------------------------


async def test_a_paced_requeue_says_how_many_how_many_are_left_and_when_the_last_is_due(surface: Surface) -> None:
    headers = await surface.authorization()
    ids = await letters(surface, 5)
    asked = {**EVERYTHING, "per_s": 10, "limit": 4, "start_at": "2099-01-01T00:00:00Z"}

    preview = (await surface.client.post(f"{PATH}/requeue", json={**asked, "dry_run": True}, headers=headers)).json()
    assert surface.dispatch.paced == []
    done = (await surface.client.post(f"{PATH}/requeue", json=asked, headers=headers)).json()

    assert done == {
        "requeued": 4,
        "left": {"count": 1, "more": False},
        "dry_run": False,
        "last_due_at": "2099-01-01T00:00:00.400000Z",
    }
    assert preview == {**done, "dry_run": True}
    ((organization_id, due),) = surface.dispatch.paced
    assert (organization_id, [id for id, _ in due]) == ("acme", ids[:4])
    assert [round(later - due[0][1], 3) for _, later in due] == [0.0, 0.1, 0.2, 0.3]


async def test_ids_may_be_named_instead_of_a_filter(surface: Surface) -> None:
    headers = await surface.authorization()
    ids = await letters(surface, 3)
    body = {"ids": [ids[0].upper(), ids[2], surface.services.new_id()]}

    first = (await surface.client.post(f"{PATH}/requeue", json=body, headers=headers)).json()
    again = (await surface.client.post(f"{PATH}/requeue", json=body, headers=headers)).json()

    assert (first["requeued"], first["last_due_at"], again["requeued"]) == (2, None, 0)
    assert len(surface.dispatch.paced) == 1
    assert await left(surface) == 1


async def test_the_timeline_names_the_key_that_did_it(surface: Surface) -> None:
    headers = await surface.authorization()
    key = (await surface.services.pool.fetch("SELECT id FROM api_keys"))[0][0]
    single, many, dropped = await letters(surface, 3)

    await surface.client.post(f"{PATH}/{single}/requeue", headers=headers)
    await surface.client.post(f"{PATH}/requeue", json={"ids": [many]}, headers=headers)
    await surface.client.delete(f"{PATH}/{dropped}", headers=headers)

    for id, event in ((single, "requeued"), (many, "requeued"), (dropped, "discarded")):
        document = (await surface.client.get(f"/v1/orgs/acme/notifications/{id}", headers=headers)).json()
        assert (document["timeline"][-1]["event"], document["timeline"][-1]["api_key_id"]) == (event, key)


async def test_discarding_many_leaves_them_failed_and_tells_how_many_are_left(surface: Surface) -> None:
    headers = await surface.authorization()
    ids = await letters(surface, 3)

    would = (await surface.client.post(f"{PATH}/discard", json={**EVERYTHING, "dry_run": True}, headers=headers)).json()
    done = (await surface.client.post(f"{PATH}/discard", json={**EVERYTHING, "limit": 2}, headers=headers)).json()

    assert would == {"discarded": 3, "left": {"count": 0, "more": False}, "dry_run": True}
    assert done == {"discarded": 2, "left": {"count": 1, "more": False}, "dry_run": False}
    assert surface.dispatch.discards == [("acme", 2)]
    detail = await notifications.read(surface.services.pool, ACME, ids[0])
    assert detail is not None
    assert detail.summary.status is Status.FAILED


async def test_a_queue_that_is_away_does_not_undo_what_is_on_record(surface: Surface) -> None:
    headers = await surface.authorization()
    await letters(surface, 2)
    surface.dispatch.failure = QueueUnavailable("away")

    assert (await surface.client.post(f"{PATH}/requeue", json={**EVERYTHING, "limit": 1}, headers=headers)).json()[
        "requeued"
    ] == 1
    assert (await surface.client.post(f"{PATH}/discard", json=EVERYTHING, headers=headers)).json()["discarded"] == 1


async def test_a_count_that_fails_does_not_undo_what_is_on_record(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was done, so that is the answer, and others hear of it; how many are left is not known."""
    headers = await surface.authorization()
    ids = await letters(surface, 2)

    async def fails(*_: object, **__: object) -> dead_letters.Count:
        raise StoreTimedOut("slow")

    monkeypatch.setattr(dead_letters, "count", fails)
    requeued = await surface.client.post(f"{PATH}/requeue", json={**EVERYTHING, "limit": 1}, headers=headers)
    discarded = await surface.client.post(f"{PATH}/discard", json=EVERYTHING, headers=headers)

    assert (requeued.status_code, requeued.json()["requeued"]) == (200, 1)
    assert (discarded.status_code, discarded.json()["discarded"]) == (200, 1)
    assert requeued.json()["left"] == discarded.json()["left"] == {"count": 0, "more": True}
    assert [[id for id, _ in due] for _, due in surface.dispatch.paced] == [ids[:1]]
    assert surface.dispatch.discards == [("acme", 1)]


async def test_every_fault_of_a_body_is_named_at_once(surface: Surface) -> None:
    headers = await surface.authorization()
    await letters(surface, 1)
    filter_ = {
        "reason": "bored",
        "code": 7,
        "channel": "fax",
        "provider": None,
        "template": "",
        "created_from": "yesterday",
        "created_before": "2026-03-01T12:00:00",
        "colour": "red",
    }
    body = {"filter": filter_, "limit": 0, "per_s": True, "start_at": 5, "dry_run": "no", "pace": 1}

    problem = assert_problem(await surface.client.post(f"{PATH}/requeue", json=body, headers=headers), 422, "field_invalid")

    assert {(error["pointer"], error["code"]) for error in problem["errors"]} == {
        *((f"/filter/{name}", "field_invalid") for name in filter_ if name != "colour"),
        ("/filter/colour", "field_unknown"),
        *((f"/{name}", "field_invalid") for name in ("limit", "per_s", "start_at", "dry_run")),
        ("/pace", "field_unknown"),
    }
    assert await left(surface) == 1


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, [""]),
        ({"filter": None, "ids": None}, [""]),
        ({"filter": {}, "ids": []}, [""]),
        ({"filter": "everything"}, ["/filter"]),
        ({"ids": []}, ["/ids"]),
        ({"ids": ["x", None, 5]}, ["/ids/0", "/ids/1", "/ids/2"]),
        ({"filter": {}, "per_s": 0}, ["/per_s"]),
        ({"filter": {}, "per_s": 10_001}, ["/per_s"]),
        ({"filter": {}, "limit": 10_001}, ["/limit"]),
    ],
)
async def test_nothing_that_is_not_understood_means_everything(
    surface: Surface, body: dict[str, Any], pointers: list[str]
) -> None:
    headers = await surface.authorization()
    await letters(surface, 1)

    response = await surface.client.post(f"{PATH}/requeue", json=body, headers=headers)

    assert response.status_code == 422
    document = response.json()
    assert [error["pointer"] for error in document.get("errors", [document])] == pointers
    assert await left(surface) == 1


async def test_a_discard_has_no_pace(surface: Surface) -> None:
    headers = await surface.authorization()
    response = await surface.client.post(f"{PATH}/discard", json={**EVERYTHING, "per_s": 5}, headers=headers)

    assert assert_problem(response, 422, "field_unknown")["pointer"] == "/per_s"


# --- export -------------------------------------------------------------------------------------------------------------


async def test_an_export_is_one_line_of_json_a_letter_over_all_pages(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (dead_letter_export, letter_export):
        monkeypatch.setattr(module, "ROWS_MAX", 2)
    headers = await surface.authorization()
    ids = await letters(surface, 4)
    await letters(surface, 1, code="other")
    await letters(surface, 1, organization_id="globex")

    whole = await surface.client.get(f"{PATH}/export?code=http_400", headers=headers)
    rest = await surface.client.get(f"{PATH}/export?code=http_400&after={ids[2]}", headers=headers)
    nothing = await surface.client.get(f"{PATH}/export?code=nothing", headers=headers)
    head = await surface.client.head(f"{PATH}/export", headers=headers)

    assert whole.headers["content-type"] == "application/x-ndjson"
    assert [orjson.loads(line)["notification_id"] for line in whole.content.splitlines()] == ids[::-1]
    assert [orjson.loads(line)["notification_id"] for line in rest.content.splitlines()] == ids[1::-1]
    assert (nothing.status_code, nothing.content) == (200, b"")
    assert (head.status_code, head.content) == (200, b"")


async def test_an_export_names_people_only_to_who_may_read_notifications(surface: Surface) -> None:
    (id,) = await letters(surface, 1, columns={"user_id": "u-1", "idempotency_key": "order-1"})
    reader = await surface.authorization("acme", Scope.DEAD_LETTERS_READ)
    trusted = await surface.authorization("acme", Scope.DEAD_LETTERS_READ, Scope.NOTIFICATIONS_READ)

    bare = (await surface.client.get(f"{PATH}/export", headers=reader)).json()
    full = (await surface.client.get(f"{PATH}/export", headers=trusted)).json()

    assert bare == {
        "notification_id": id,
        "reason": "hard",
        "code": "http_400",
        "channel": "email",
        "provider": "sendgrid",
        "created_at": "2026-03-01T12:00:00.000000Z",
        "accepted_at": "2026-03-01T12:00:00.000000Z",
        "expires_at": None,
        "attempts": 3,
        "attempts_max": 8,
        "unknowns": 0,
        "template_id": None,
        "template": None,
        "locale": None,
    }
    assert full == {**bare, "recipient": "somebody@example.org", "user_id": "u-1", "idempotency_key": "order-1"}


async def many(surface: Surface, count: int) -> None:
    """A file of many megabytes, more than sockets hold."""
    row = await insert_dead_letter(surface.services.pool, surface.services.new_id())
    await surface.services.pool.execute(
        "WITH made AS (INSERT INTO notifications (id, organization_id, status, channel, attempts_max, created_at, updated_at, "
        "recipient, payload) SELECT gen_random_uuid(), 'acme', 'failed', 'email', 8, %s, %s, 'x', '{}' "
        "FROM generate_series(1, %s) RETURNING id) "
        "INSERT INTO dead_letters SELECT id, 'acme', 'hard', repeat('y', 2000), 'email', NULL, now() FROM made",
        (START, START, count),
    )
    assert row


async def begin_export(surface: Surface, stream: trio.SocketStream, headers: dict[str, str]) -> None:
    request = f"GET {PATH}/export HTTP/1.1\r\nhost: x\r\nauthorization: {headers['authorization']}\r\n\r\n"
    await stream.send_all(request.encode())
    assert (await stream.receive_some(100)).startswith(b"HTTP/1.1 200")


async def slow_reader(port: int) -> trio.SocketStream:
    socket = trio.socket.socket()
    socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
    await socket.connect(("127.0.0.1", port))
    return trio.SocketStream(socket)


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many exports are under way."""
    made: list[letter_export.Exports] = []
    original = letter_export.Exports.__init__

    def note(self: letter_export.Exports, *arguments: Any) -> None:
        original(self, *arguments)
        made.append(self)

    monkeypatch.setattr(letter_export.Exports, "__init__", note)
    return lambda: sum(each.under_way() for each in made)


async def test_a_slow_reader_of_an_export_holds_no_connection_to_postgres(exports: Callable[[], int], surface: Surface) -> None:
    headers = await surface.authorization()
    await many(surface, 6000)
    async with await slow_reader(surface.port) as stream:
        await begin_export(surface, stream, headers)
        pool = surface.services.pool
        before = -1
        with trio.fail_after(20):
            while before != pool.statistics().acquired_total:  # it goes on until the socket takes no more
                before = pool.statistics().acquired_total
                await trio.sleep(0.2)
        statistics = pool.statistics()

        assert exports() == 1
        assert (statistics.size - statistics.idle, statistics.waiting) == (0, 0)
        assert before < 12, "it read on although nobody took what it had"


@pytest.mark.parametrize("way", ["closes", "resets", "stalls"])
async def test_a_reader_who_goes_away_frees_the_export(
    exports: Callable[[], int], surface: Surface, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    headers = await surface.authorization()
    await many(surface, 6000)
    if way == "stalls":
        monkeypatch.setattr(connection, "WRITE_DEADLINE_S", 0.05)
    stream = await slow_reader(surface.port)
    async with stream:
        await begin_export(surface, stream, headers)
        assert exports() == 1
        if way == "resets":
            stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if way != "stalls":
            await stream.aclose()
        with trio.fail_after(20):
            while exports():
                await trio.lowlevel.checkpoint()
    assert surface.services.pool.statistics().waiting == 0


async def test_an_export_that_can_not_be_finished_does_not_look_finished(
    exports: Callable[[], int], surface: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = await surface.authorization()
    await many(surface, 1200)
    read_letters = dead_letter_export.read_letters
    pages = 0

    async def fail_later(*arguments: Any, **named: Any) -> Any:
        nonlocal pages
        pages += 1
        if pages > 1:
            raise QueueUnavailable("stands for any failure")
        return await read_letters(*arguments, **named)

    monkeypatch.setattr(letter_export, "read_letters", fail_later)
    request = f"GET {PATH}/export HTTP/1.1\r\nhost: x\r\nauthorization: {headers['authorization']}\r\n\r\n"

    answer = await surface.raw(request.encode())

    assert answer.startswith(b"HTTP/1.1 200")
    assert not answer.endswith(b"0\r\n\r\n")
    assert exports() == 0


async def test_exports_at_once_are_bounded(exports: Callable[[], int], surface: Surface) -> None:
    headers = await surface.authorization()
    await many(surface, 6000)
    async with await slow_reader(surface.port) as first, await slow_reader(surface.port) as second:
        await begin_export(surface, first, headers)
        await begin_export(surface, second, headers)
        assert exports() == 2

        refused = await surface.client.get(f"{PATH}/export", headers=headers)
        assert_problem(refused, 503, "overloaded")
        assert refused.headers["retry-after"] == "5"


# --- who may ------------------------------------------------------------------------------------------------------------


async def test_scopes_and_organizations_are_told_apart(surface: Surface) -> None:
    await letters(surface, 1, organization_id="globex")
    reader = await surface.authorization("acme", Scope.DEAD_LETTERS_READ)
    writer = await surface.authorization("acme", Scope.DEAD_LETTERS_WRITE)

    for address in ("requeue", "discard"):
        assert_problem(await surface.client.post(f"{PATH}/{address}", json=EVERYTHING, headers=reader), 403, "scope_missing")
        done = await surface.client.post(f"{PATH}/{address}", json=EVERYTHING, headers=writer)
        assert (done.status_code, done.json()["left"]) == (200, {"count": 0, "more": False})
    for address in ("groups", "export"):
        assert_problem(await surface.client.get(f"{PATH}/{address}", headers=writer), 403, "scope_missing")
    assert (await surface.client.get(f"{PATH}/groups", headers=reader)).json() == {"items": [], "more": False}
    assert (await surface.client.get(f"{PATH}/export", headers=reader)).content == b""
    foreign = f"{PATH.replace('acme', 'globex')}/groups"
    assert_problem(await surface.client.get(foreign, headers=reader), 404, "organization_not_found")
    assert (
        await dead_letters.count(surface.services.pool, OrganizationId("globex"), LetterFilter(DeadLetterReason.HARD))
    ).rows == 1
