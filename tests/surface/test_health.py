"""What machines on the inside ask: alive, ready, and how much of what."""

from __future__ import annotations

import pytest

from dispatcher.errors import StoreUnavailable
from dispatcher_http import health
from surface_doubles import Surface, assert_problem


async def test_alive_needs_nothing_but_the_process(surface: Surface) -> None:
    surface.dispatch.checks = {"postgres": False}
    surface.dispatch.failure = RuntimeError("everything is broken")

    response = await surface.client.get("/healthz")

    assert (response.status_code, response.json()) == (200, {"status": "alive"})


async def test_ready_when_everything_answers(surface: Surface) -> None:
    response = await surface.client.get("/readyz")

    assert (response.status_code, response.json()) == (200, {"status": "ready", "checks": {"postgres": True, "redis": True}})


async def test_not_ready_says_what_does_not_answer(surface: Surface) -> None:
    surface.dispatch.checks = {"postgres": True, "redis": False}

    response = await surface.client.get("/readyz")

    assert assert_problem(response, 503, "not_ready")["checks"] == {"postgres": True, "redis": False}
    assert response.headers["retry-after"] == "1"


async def test_a_check_that_fails_is_an_answer_too(surface: Surface) -> None:
    surface.dispatch.failure = StoreUnavailable("away")

    assert_problem(await surface.client.get("/readyz"), 503, "store_unavailable")


async def test_a_check_that_does_not_come_back_is_not_waited_for(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "READY_DEADLINE_S", 0)

    assert_problem(await surface.client.get("/readyz"), 503, "not_ready")


async def test_a_process_that_stops_is_not_ready(surface: Surface) -> None:
    surface.app.stopping.set()

    assert_problem(await surface.client.get("/readyz"), 503, "stopping")


async def test_metrics_are_prometheus_text_and_count_answers_by_route(surface: Surface) -> None:
    headers = await surface.authorization()
    await surface.client.get("/v1/orgs/acme/templates", headers=headers)
    await surface.client.get("/v1/orgs/acme/secret-path")

    response = await surface.client.get("/metrics")

    assert response.headers["content-type"].startswith("text/plain; version=")
    assert 'dispatcher_http_requests_total{method="GET",route="/v1/orgs/<org>/templates",status="200"} 1.0' in response.text
    assert 'dispatcher_http_requests_total{method="unknown",route="unknown",status="404"} 1.0' in response.text
    assert "acme" not in response.text
    assert "secret" not in response.text
