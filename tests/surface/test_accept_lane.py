"""The hot route: who may use it, what gets through to the acceptor, and what never does."""

from __future__ import annotations

import httpx
import pytest
import trio
from attrs import evolve
from prometheus_client import CollectorRegistry

from actors.store.api_keys import Scope
from dispatcher.errors import Overloaded, QueueUnavailable, StoreUnavailable
from dispatcher.problems import Problem, Refused
from dispatcher_http import accept_lane
from dispatcher_http.telemetry import Telemetry
from surface_doubles import FixedAnswer, Surface, assert_problem

PATH = "/v1/orgs/acme/notifications"
JSON = {"content-type": "application/json"}


async def test_the_acceptor_gets_the_bytes_as_they_came_with_the_organization_of_the_key(surface: Surface) -> None:
    headers = await surface.authorization() | JSON | {"idempotency-key": "order-1"}

    response = await surface.client.post(PATH, content=b' {"not": "parsed"} ', headers=headers)

    assert (response.status_code, response.content) == (202, b'{"status":"queued"}')
    assert response.headers["content-type"] == "application/json"
    assert surface.dispatch.accepted == [("acme", b' {"not": "parsed"} ', "order-1")]


async def test_the_acceptors_status_and_headers_are_passed_on(surface: Surface) -> None:
    surface.dispatch.answer = FixedAnswer(207, b"[]", {"idempotency-replayed": "true"})

    response = await surface.client.post(PATH, content=b"{}", headers=await surface.authorization() | JSON)

    assert (response.status_code, response.headers["idempotency-replayed"], response.content) == (207, "true", b"[]")


async def test_while_there_is_no_room_nothing_of_a_request_is_looked_at(surface: Surface) -> None:
    """Not even its key: to look that up may need what is short. The connection stays in use."""

    def admit() -> None:
        raise Refused(Problem(429, "database_slow", "Slow", "Later.", retry_after_s=3))

    services = evolve(surface.services, admit=admit, registry=CollectorRegistry())
    lane = accept_lane.AcceptLane(None, services, None, Telemetry(services.registry))  # type: ignore[arg-type]
    sent = []

    async def send(message: dict[str, object]) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    async def receive() -> dict[str, object]:
        await trio.lowlevel.checkpoint()
        return {"type": "http.request", "body": b"{}", "more_body": False}

    await lane({"type": "http", "method": "POST", "path": PATH, "headers": []}, receive, send)

    assert sent[0]["status"] == 429
    assert (b"retry-after", b"3") in sent[0]["headers"]  # type: ignore[operator]
    assert surface.dispatch.accepted == []


@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer", "Bearer nonsense", "Basic dXNlcjpwYXNz", "Bearer ndk_" + "A" * 43, "Bearer ndk_" + "A" * 5000],
)
async def test_without_a_valid_key_nothing_is_accepted(surface: Surface, authorization: str | None) -> None:
    headers = JSON if authorization is None else JSON | {"authorization": authorization}

    response = await surface.client.post(PATH, content=b"{}", headers=headers)

    assert_problem(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert surface.dispatch.accepted == []


async def test_a_foreign_organization_is_answered_like_one_that_does_not_exist(surface: Surface) -> None:
    headers = await surface.authorization("acme") | JSON
    await surface.authorization("globex")

    foreign = await surface.client.post("/v1/orgs/globex/notifications", content=b"{}", headers=headers)
    unknown = await surface.client.post("/v1/orgs/nowhere/notifications", content=b"{}", headers=headers)

    assert_problem(foreign, 404, "organization_not_found")
    assert foreign.content == unknown.content
    assert surface.dispatch.accepted == []


async def test_a_key_without_the_scope_is_told_which_one_it_lacks(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.NOTIFICATIONS_READ) | JSON

    document = assert_problem(await surface.client.post(PATH, content=b"{}", headers=headers), 403, "scope_missing")

    assert "notifications:write" in document["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "application/json; charset=utf-8", "content-encoding": "br"},
    ],
)
async def test_what_is_not_plain_json_in_utf_8_is_refused(surface: Surface, headers: dict[str, str]) -> None:
    response = await surface.client.post(PATH, content=b"{}", headers=await surface.authorization() | headers)

    assert_problem(response, 415, "media_type_unsupported")
    assert surface.dispatch.accepted == []


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON", "application/json; charset=UTF-8"])
async def test_every_spelling_of_plain_json_is_taken(surface: Surface, content_type: str) -> None:
    headers = await surface.authorization() | {"content-type": content_type}

    assert (await surface.client.post(PATH, content=b"{}", headers=headers)).status_code == 202


@pytest.mark.parametrize("key", ["", "k" * 256, "two words", "sn\tow", "schlüssel".encode("latin-1")])
async def test_an_idempotency_key_must_be_short_visible_ascii(surface: Surface, key: str | bytes) -> None:
    headers = [*(await surface.authorization()).items(), *JSON.items(), ("idempotency-key", key)]

    response = await surface.client.post(PATH, content=b"{}", headers=httpx.Headers(headers))  # type: ignore[arg-type]

    assert_problem(response, 400, "idempotency_key_invalid")
    assert surface.dispatch.accepted == []


async def test_two_idempotency_keys_are_one_too_many(surface: Surface) -> None:
    headers = [*(await surface.authorization()).items(), *JSON.items(), ("idempotency-key", "a"), ("idempotency-key", "b")]

    assert_problem(await surface.client.post(PATH, content=b"{}", headers=headers), 400, "idempotency_key_invalid")


async def test_a_body_of_the_largest_size_is_taken(surface: Surface) -> None:
    body = b" " * surface.services.config.body_bytes_max

    assert (await surface.client.post(PATH, content=body, headers=await surface.authorization() | JSON)).status_code == 202
    assert surface.dispatch.accepted == [("acme", body, None)]


async def test_a_body_that_announces_too_many_bytes_is_refused_unread(surface: Surface) -> None:
    (authorization,) = (await surface.authorization()).values()
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\ncontent-type: application/json\r\n"

    answer = await surface.raw(f"{head}content-length: 999999999\r\n\r\n".encode(), until_close=False)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in answer


async def test_a_body_that_grows_past_the_limit_is_refused_while_it_comes_in(surface: Surface) -> None:
    async def endless() -> object:
        for _ in range(64):
            yield b"x" * 16 * 1024

    response = await surface.client.post(PATH, content=endless(), headers=await surface.authorization() | JSON)  # type: ignore[arg-type]

    assert_problem(response, 413, "body_too_large")
    assert surface.dispatch.accepted == []


async def test_a_refusal_arrives_although_the_body_is_still_being_sent(surface: Surface) -> None:
    body = b"x" * 8 * 1024 * 1024

    assert_problem(await surface.client.post(PATH, content=body, headers=JSON), 401, "unauthenticated")


async def test_a_connection_is_usable_after_a_refusal_that_left_a_body_unread(surface: Surface) -> None:
    headers = await surface.authorization() | JSON
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(base_url=surface.client.base_url, limits=limits) as client:
        assert (await client.post(PATH, content=b"x" * 2_000_000, headers=JSON)).status_code == 401
        assert (await client.post(PATH, content=b"{}", headers=headers)).status_code == 202


async def test_a_peer_that_leaves_in_the_middle_of_its_body_is_not_accepted_from(surface: Surface) -> None:
    (authorization,) = (await surface.authorization()).values()
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\ncontent-type: application/json\r\n"
    async with await trio.open_tcp_stream("127.0.0.1", surface.port) as stream:
        await stream.send_all(f"{head}content-length: 10\r\n\r\n12345".encode())

    assert (await surface.client.get("/healthz")).status_code == 200
    assert surface.dispatch.accepted == []


async def test_all_bodies_together_have_a_limit_too(surface: Surface) -> None:
    headers = await surface.authorization() | JSON
    budget = accept_lane.BODIES_MAX
    body = b" " * surface.services.config.body_bytes_max
    arrived, go_on = trio.Event(), trio.Event()

    async def hold() -> None:
        if len(surface.dispatch.accepted) == budget:
            arrived.set()
        await go_on.wait()

    surface.dispatch.accepting = hold
    statuses: list[int] = []

    async def post() -> None:
        statuses.append((await surface.client.post(PATH, content=body, headers=headers)).status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(budget):
            nursery.start_soon(post)
        await arrived.wait()
        one_too_many = await surface.client.post(PATH, content=b"{}", headers=headers)
        go_on.set()

    assert_problem(one_too_many, 503, "overloaded")
    assert statuses == [202] * budget
    assert (await surface.client.post(PATH, content=body, headers=headers)).status_code == 202


@pytest.mark.parametrize(
    ("failure", "status", "code", "retry_after"),
    [
        (Refused(Problem(409, "in_progress", "In progress", "Wait.", retry_after_s=1)), 409, "in_progress", "1"),
        (Refused(Problem(422, "field_invalid", "No", "No.", "/channel")), 422, "field_invalid", None),
        (Overloaded("accepting", 2.3), 503, "overloaded", "3"),
        (StoreUnavailable("connection refused"), 503, "store_unavailable", "1"),
        (QueueUnavailable("connection refused"), 503, "queue_unavailable", "1"),
        (ExceptionGroup("a nursery", [StoreUnavailable("gone")]), 503, "store_unavailable", "1"),
        (RuntimeError("secret@example.org"), 500, "internal_error", None),
    ],
)
async def test_every_failure_of_the_acceptor_has_its_answer(
    surface: Surface, failure: Exception, status: int, code: str, retry_after: str | None
) -> None:
    surface.dispatch.failure = failure

    response = await surface.client.post(PATH, content=b"{}", headers=await surface.authorization() | JSON)

    assert_problem(response, status, code)
    assert response.headers.get("retry-after") == retry_after
    assert "secret" not in response.text


@pytest.mark.parametrize("path", ["/v1/orgs//notifications", "/v1/orgs/notifications", "/v1/orgs/a/b/notifications", PATH + "/"])
async def test_addresses_that_are_almost_right_are_not_found(surface: Surface, path: str) -> None:
    response = await surface.client.post(path, content=b"{}", headers=await surface.authorization() | JSON)

    assert_problem(response, 404, "not_found")


async def test_the_methods_of_the_address_are_named_to_whoever_uses_another(surface: Surface) -> None:
    response = await surface.client.put(PATH, content=b"{}")

    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD, POST"


async def test_answers_are_counted_by_status(surface: Surface) -> None:
    headers = await surface.authorization() | JSON
    for _ in range(2):
        await surface.client.post(PATH, content=b"{}", headers=headers)
    await surface.client.post(PATH, content=b"{}", headers=JSON)

    def count(status: str) -> float | None:
        labels = {"method": "POST", "route": accept_lane.RULE, "status": status}
        return surface.services.registry.get_sample_value("dispatcher_http_requests_total", labels)

    assert (count("202"), count("401")) == (2, 1)
