from __future__ import annotations

import pytest

from dispatcher.errors import Overloaded, StoreUnavailable
from dispatcher.feedback.feedback import WebhookReply
from dispatcher.problems import Problem, Refused
from dispatcher_http.webhook_lane import BODY_BYTES_MAX, CALLS_MAX
from surface_doubles import Surface, assert_problem

PATH = "/v1/orgs/acme/providers/0198c000-0000-7000-8000-0000000000c1/webhook"


async def test_a_report_is_handed_on_as_it_came_without_a_key(surface: Surface) -> None:
    body = b'[{"a" : "\\u00e9"}]\r\n'

    answer = await surface.client.post(f"{PATH}?x=%20y", content=body, headers={"X-Signature": "s", "content-type": "text/plain"})

    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"", "text/plain; charset=utf-8")
    ((organization_id, config_id, request),) = surface.dispatch.reports
    assert (organization_id, config_id) == ("acme", "0198c000-0000-7000-8000-0000000000c1")
    assert (request.method, request.body, request.headers["x-signature"]) == ("POST", body, "s")
    assert request.url == f"http://127.0.0.1:{surface.port}{PATH}?x=%20y"


async def test_an_echo_that_is_asked_for_is_given(surface: Surface) -> None:
    surface.dispatch.reply = WebhookReply(200, "challenge", b"1158201444")

    answer = await surface.client.get(f"{PATH}?hub.challenge=1158201444")

    assert (answer.status_code, answer.text) == (200, "1158201444")
    assert surface.dispatch.reports[0][2].method == "GET"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (Refused(Problem(403, "signature_invalid", "No", "No.")), 403, "signature_invalid"),
        (Overloaded("reports", 1.0), 503, "overloaded"),
        (StoreUnavailable("away"), 503, "store_unavailable"),
        (RuntimeError("ada@example.org"), 500, "internal_error"),
    ],
)
async def test_what_goes_wrong_is_answered_with_a_problem(surface: Surface, failure: Exception, status: int, code: str) -> None:
    surface.dispatch.failure = failure

    answer = await surface.client.post(PATH, content=b"[]")

    assert_problem(answer, status, code)
    assert "ada" not in answer.text


async def test_a_body_that_is_too_large_is_refused_unread(surface: Surface) -> None:
    answer = await surface.client.post(PATH, content=b"x" * (BODY_BYTES_MAX + 1))

    assert_problem(answer, 413, "body_too_large")
    assert surface.dispatch.reports == []


@pytest.mark.parametrize(
    "path", ["/v1/orgs/acme/providers//webhook", "/v1/orgs/acme/providers/a/b/webhook", "/v1/orgs/a/b/providers/c/webhook"]
)
async def test_what_is_no_such_address_is_none(surface: Surface, path: str) -> None:
    assert (await surface.client.post(path, content=b"[]")).status_code in (401, 404)
    assert surface.dispatch.reports == []


async def test_other_methods_are_named(surface: Surface) -> None:
    answer = await surface.client.put(PATH, content=b"[]")

    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, POST"


async def test_more_calls_than_may_be_under_way_are_turned_away(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CALLS_MAX > 0
    monkeypatch.setattr("dispatcher_http.webhook_lane.CALLS_MAX", 0)

    assert_problem(await surface.client.post(PATH, content=b"[]"), 503, "overloaded")


async def test_answers_are_counted_by_their_route_alone(surface: Surface) -> None:
    await surface.client.post(PATH, content=b"[]")

    text = (await surface.client.get("/metrics")).text

    assert 'dispatcher_http_requests_total{method="POST",route="/v1/orgs/<org>/providers/<id>/webhook",status="200"} 1.0' in text
