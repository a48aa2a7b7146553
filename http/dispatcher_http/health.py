"""Whether this process lives, whether it can work, and what it counts. For machines on the inside: no key is asked for.

``/healthz`` says only that the process turns its loop: a database that is down is no reason to be restarted. ``/readyz``
says whether requests are worth sending here. Neither says anything about an organization.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson
import trio
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from quart_trio.wrappers import TrioResponse

from dispatcher.problems import Problem
from dispatcher_http.problems import CONTENT_TYPE, STOPPING, headers_of
from dispatcher_http.routing import answer
from dispatcher_http.services import Services

if TYPE_CHECKING:
    from dispatcher_http.app import App

READY_DEADLINE_S = 5.0

_NOT_READY = Problem(503, "not_ready", "Not ready", "A server we depend on does not answer; see 'checks'.", retry_after_s=1)


def add_routes(app: App, services: Services) -> None:
    """``/healthz``, ``/readyz`` and ``/metrics``."""

    async def healthz() -> TrioResponse:
        return answer({"status": "alive"})

    async def readyz() -> TrioResponse:
        if app.stopping.is_set():
            return _refusal(STOPPING, {})
        checks: Mapping[str, bool] = {}
        with trio.move_on_after(READY_DEADLINE_S):
            checks = await services.ready()
            if all(checks.values()):
                return answer({"status": "ready", "checks": checks})
        return _refusal(_NOT_READY, checks)

    async def metrics() -> TrioResponse:
        return TrioResponse(generate_latest(services.registry), 200, content_type=CONTENT_TYPE_LATEST)

    for rule, view in (("/healthz", healthz), ("/readyz", readyz), ("/metrics", metrics)):
        app.add_url_rule(rule, rule, view, methods=["GET"])


def _refusal(problem: Problem, checks: Mapping[str, bool]) -> TrioResponse:
    document = orjson.dumps({**problem.document(), "checks": checks})
    return TrioResponse(document, problem.status, dict(headers_of(problem)), content_type=CONTENT_TYPE)
