"""Every address at once: whatever is sent, the answer is one of ours and says nothing it should not, and neither do the logs."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from actors.io.postgres import Pool
from dispatcher.errors import StoreUnavailable
from store_rows import insert_dead_letter, insert_notification
from surface_doubles import Surface, assert_problem

ORGANIZATION = "/v1/orgs/acme"
CANARY = "canary.person@example.org"
SECRET = "SG.canary-secret"

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["email", "sms", "sendgrid", "en", "{{ a }}", "{{ a.b() }}", "{% for a in b %}", "\0", "x" * 3000, "1e999"]
    ),
    lambda values: st.lists(values, max_size=5) | st.dictionaries(st.text(max_size=10), values, max_size=5),
    max_leaves=10,
)
TEMPLATE: dict[str, Any] = {
    "name": "n",
    "channel": "email",
    "locale": "en",
    "subject": "s",
    "body_template": "{{ a }}",
    "html_template": "<p>{{ a }}</p>",
    "variables": {"a": {"required": True, "default": 1, "description": "d"}},
}
PROVIDER: dict[str, Any] = {
    "provider": "sendgrid",
    "channel": "email",
    "credentials": {"api_key": "k"},
    "settings": {"from_email": "a@example.org", "rate_per_s": 1, "burst": 1, "categories": ["c"], "concurrency_max": 2},
    "priority": 1,
}
PREVIEW: dict[str, Any] = {"variables": {"a": "b"}}


@st.composite
def mutated(draw: st.DrawFn, valid: dict[str, Any]) -> Any:
    """A valid body with something else in a place or two; or just anything."""
    if draw(st.integers(0, 9)) == 0:
        return draw(JSON)
    body: dict[str, Any] = orjson.loads(orjson.dumps(valid))
    for _ in range(draw(st.integers(1, 2))):
        at = body
        while True:
            name = draw(st.sampled_from([*sorted(at), "surplus"]))
            if isinstance(at.get(name), dict) and at[name] and draw(st.booleans()):
                at = at[name]
            else:
                at[name] = draw(JSON)
                break
    return body


def encode(body: Any) -> bytes:
    """As the standard library writes it: also numbers and surrogates that are not JSON."""
    return json.dumps(body).encode("utf-8", "surrogatepass")


BODIES = st.binary(max_size=60) | JSON.map(encode)
TARGETS = [
    ("POST", "/notifications", None),
    ("POST", "/templates", TEMPLATE),
    ("POST", "/templates/{id}/preview", PREVIEW),
    ("POST", "/providers", PROVIDER),
    ("PUT", "/providers/{id}", PROVIDER),
    ("POST", "/dead-letters/{id}/requeue", None),
]


@pytest.fixture
async def ids(surface: Surface) -> dict[str, str]:
    """Things that exist, so that bodies are read at all."""
    headers = await surface.authorization()
    template = await surface.client.post(f"{ORGANIZATION}/templates", json=TEMPLATE, headers=headers)
    provider = await surface.client.post(f"{ORGANIZATION}/providers", json=PROVIDER, headers=headers)
    letter = await insert_dead_letter(surface.services.pool, surface.services.new_id())
    return {"templates": template.json()["id"], "providers": provider.json()["id"], "dead-letters": letter}


@pytest.mark.parametrize(("method", "path", "valid"), TARGETS)
async def test_no_body_gets_a_5xx(
    surface: Surface, ids: dict[str, str], method: str, path: str, valid: dict[str, Any] | None
) -> None:
    target = ORGANIZATION + path.format(id=ids.get(path.split("/")[1], ""))
    headers = await surface.authorization() | {"content-type": "application/json"}

    @settings(max_examples=75, suppress_health_check=list(HealthCheck))
    @given(BODIES if valid is None else BODIES | mutated(valid).map(encode))
    @example(b"[" * 1000 + b"]" * 1000)
    @example(b"{" * 1000)
    @example(b'{"a":' * 500 + b"1" + b"}" * 500)
    @example(b'{"variables":' * 100 + b"1" + b"}" * 100)
    @example(b"9" * 5000)
    def every_body_is_answered(body: bytes) -> None:
        response = trio.from_thread.run(send, body)
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert response.headers["content-type"] == "application/problem+json"

    async def send(body: bytes) -> httpx.Response:
        return await surface.client.request(method, target, content=body, headers=headers)

    # Hypothesis is synchronous: it runs beside the loop, its requests on it.
    await trio.to_thread.run_sync(every_body_is_answered)


SEGMENT = st.text(max_size=12) | st.sampled_from(
    ["acme", "notifications", "templates", "stream", "..", "%00", "\0", "\u202e", "requeue"]
)


async def test_no_address_query_or_method_gets_a_5xx(surface: Surface) -> None:
    headers = await surface.authorization()

    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "BREW"]),
        st.lists(SEGMENT, max_size=5),
        st.booleans(),
        st.dictionaries(
            st.sampled_from(["after", "page_size", "status", "reason", "since", "name"]) | st.text(max_size=5),
            st.text(max_size=9),
        ),
    )
    def every_address_is_answered(method: str, segments: list[str], in_organization: bool, query: dict[str, str]) -> None:
        path = "/".join(quote(segment.encode("utf-8", "surrogatepass"), safe="") for segment in segments)
        target = (ORGANIZATION if in_organization else "") + "/" + path
        response = trio.from_thread.run(send, method, target, query)
        assert response.status_code < 500, (method, target)
        if response.status_code >= 400 and method != "HEAD":
            assert response.headers["content-type"] == "application/problem+json"

    async def send(method: str, target: str, query: dict[str, str]) -> httpx.Response:
        return await surface.client.request(method, f"http://127.0.0.1:{surface.port}{target}", params=query, headers=headers)

    await trio.to_thread.run_sync(every_address_is_answered)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/orgs/acme", 404, "not_found"),
        ("GET", "/v1//orgs/acme/templates", 404, "not_found"),
        ("GET", "/v1/orgs/acme/templates/", 404, "not_found"),
        ("GET", "/static/x", 404, "not_found"),
        ("DELETE", "/healthz", 405, "method_not_allowed"),
        ("OPTIONS", "/healthz", 405, "method_not_allowed"),
        ("PATCH", "/v1/orgs/acme/templates", 405, "method_not_allowed"),
        ("POST", "/v1/orgs/acme/stream", 405, "method_not_allowed"),
    ],
)
async def test_wrong_addresses_and_methods_are_problems(surface: Surface, method: str, path: str, status: int, code: str) -> None:
    response = await surface.client.request(method, path)

    assert_problem(response, status, code)
    assert ("allow" in response.headers) == (status == 405)


ROUTES = [
    ("GET", "/notifications"),
    ("GET", "/notifications/{id}"),
    ("POST", "/notifications"),
    ("POST", "/templates"),
    ("GET", "/templates"),
    ("GET", "/templates/{id}"),
    ("POST", "/templates/{id}/preview"),
    ("DELETE", "/templates/{id}"),
    ("POST", "/providers"),
    ("GET", "/providers"),
    ("GET", "/providers/{id}"),
    ("PUT", "/providers/{id}"),
    ("DELETE", "/providers/{id}"),
    ("GET", "/dead-letters"),
    ("POST", "/dead-letters/{id}/requeue"),
    ("DELETE", "/dead-letters/{id}"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_wants_a_key_of_the_organization_in_its_path(surface: Surface, method: str, path: str) -> None:
    target = ORGANIZATION + path.format(id=surface.services.new_id())
    key = await surface.new_key("globex")

    assert_problem(await surface.client.request(method, target), 401, "unauthenticated")
    foreign = await surface.client.request(method, target, headers={"authorization": f"Bearer {key}"})
    assert_problem(foreign, 404, "organization_not_found")


@pytest.mark.parametrize(
    ("method", "path"), [route for route in ROUTES if route[0] in ("POST", "PUT") and "requeue" not in route[1]]
)
async def test_every_body_must_be_json_and_small(surface: Surface, ids: dict[str, str], method: str, path: str) -> None:
    target = ORGANIZATION + path.format(id=ids.get(path.split("/")[1], ""))
    headers = await surface.authorization()

    text = await surface.client.request(method, target, content=b"{}", headers=headers | {"content-type": "text/plain"})
    large = await surface.client.request(
        method, target, content=b" " * 1_048_577, headers=headers | {"content-type": "application/json"}
    )

    assert_problem(text, 415, "media_type_unsupported")
    assert_problem(large, 413, "body_too_large")


async def test_a_body_that_grows_past_the_limit_is_refused_while_it_comes_in(surface: Surface) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 64 * 1024

    headers = await surface.authorization() | {"content-type": "application/json"}
    response = await surface.client.post(f"{ORGANIZATION}/templates", content=pieces(), headers=headers)

    assert_problem(response, 413, "body_too_large")


async def test_a_store_that_is_away_is_a_503_that_says_when_to_come_back(
    surface: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = await surface.authorization()

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable(f"connection of {CANARY} refused")

    monkeypatch.setattr(Pool, "fetch", away)
    for method, path in ROUTES:
        if (method, path) != ("POST", "/notifications"):
            response = await surface.client.request(
                method, ORGANIZATION + path.format(id=surface.services.new_id()), headers=headers
            )
            assert_problem(response, 503, "store_unavailable")
            assert response.headers["retry-after"] == "1"


async def test_quart_itself_logs_types_and_places_only(surface: Surface, caplog: pytest.LogCaptureFixture) -> None:
    surface.app.log_exception((ValueError, ValueError(CANARY), None))

    assert "ValueError" in caplog.text
    assert CANARY not in caplog.text


async def test_nothing_personal_gets_into_a_log_or_an_error(
    surface: Surface, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    # The client's own logs are not the surface's.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    headers = await surface.authorization()
    id = await insert_notification(surface.services.pool, surface.services.new_id(), recipient=CANARY)
    answers: list[httpx.Response] = []

    async def send(method: str, path: str, **request: Any) -> None:
        request["headers"] = headers | {"x-trace": CANARY, "user-agent": SECRET, "referer": CANARY} | request.pop("headers", {})
        answers.append(await surface.client.request(method, path, **request))

    bodies: list[Any] = [
        {CANARY: CANARY},
        {**TEMPLATE, "name": [CANARY], "locale": CANARY, "channel": CANARY, "variables": {CANARY: CANARY, "a": {CANARY: 1}}},
        {**TEMPLATE, "body_template": f"{CANARY} {{{{ b c }}}}", "subject": f"{CANARY} {{{{ ''.__class__ }}}}"},
        {
            **PROVIDER,
            "credentials": {"api_key": {"value": SECRET}, SECRET: SECRET},
            "settings": {"from_email": [CANARY], CANARY: 1},
        },
        {**PROVIDER, "provider": SECRET, "priority": SECRET},
        {"variables": {"a": {CANARY: CANARY}}},
        f'{{"recipient": "{CANARY}", "broken',
    ]
    for method, path in ROUTES:
        for body in bodies:
            content = body if isinstance(body, str) else orjson.dumps(body)
            request = {"content": content, "headers": {"content-type": "application/json"}} if method in ("POST", "PUT") else {}
            await send(
                method, ORGANIZATION + path.format(id=surface.services.new_id()) + f"?{CANARY}={CANARY}&after={CANARY}", **request
            )
    await send("GET", f"/{CANARY}")
    await send("GET", f"{ORGANIZATION}/templates/{CANARY}")
    await send("GET", f"/v1/orgs/{CANARY}/templates")
    await send("GET", f"{ORGANIZATION}/templates", headers={"authorization": f"Bearer {SECRET}"})
    await send("GET", f"{ORGANIZATION}/stream?since={CANARY}")

    surface.dispatch.failure = RuntimeError(f"cannot deliver to {CANARY} with {SECRET}")
    await send("POST", f"{ORGANIZATION}/notifications", content=b"{}", headers={"content-type": "application/json"})
    await send("GET", "/readyz")

    async def broken(*_: object, **__: object) -> None:
        raise ValueError(f"row of {CANARY}")

    monkeypatch.setattr(Pool, "fetch", broken)
    await send("GET", f"{ORGANIZATION}/notifications/{id}")

    assert [answer.status_code for answer in answers[-3:]] == [500, 500, 500]
    refusals = [answer for answer in answers if answer.status_code >= 400]
    assert len(refusals) > 100
    for answer in refusals:
        for canary in (CANARY, SECRET):
            assert canary not in answer.text
            assert canary not in repr(answer.headers)
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 3
    assert "ValueError at " in caplog.text
    for record in caplog.records:
        logged = f"{record.getMessage()} {record.args} {record.exc_info} {record.__dict__}"
        assert CANARY not in logged
        assert SECRET not in logged
        assert ORGANIZATION not in logged
