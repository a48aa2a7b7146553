"""The surface as one ASGI application: every address, who may call it, and what becomes of an error.

``create_app`` is all there is to build it; what it needs of the world is in :class:`~dispatcher_http.services.Services`.
Requests come through the accept lane, which answers the hot route itself and hands the rest to Quart.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import trio
from quart.globals import request_ctx
from quart_trio import QuartTrio
from quart_trio.wrappers import TrioRequest, TrioResponse

from actors.store import api_keys
from dispatcher.model import OrganizationId
from dispatcher_http import (
    accept_lane,
    catalogue_files,
    contacts,
    dead_letters,
    definitions,
    events,
    health,
    notifications,
    person_rights,
    preferences,
    presets,
    providers,
    setup_lane,
    setups,
    statistics,
    stream,
    templates,
    unsubscribe,
    users,
    webhook_lane,
)
from dispatcher_http.auth import Authenticator
from dispatcher_http.logs import failed
from dispatcher_http.problems import INTERNAL, body_of, headers_of, problem_of
from dispatcher_http.routing import Call, Route
from dispatcher_http.services import Services
from dispatcher_http.telemetry import Telemetry

_RESOURCES = (
    catalogue_files,
    contacts,
    dead_letters,
    definitions,
    events,
    notifications,
    person_rights,
    preferences,
    presets,
    providers,
    setups,
    statistics,
    templates,
    users,
)
BODY_BYTES_MAX = 1024 * 1024
"""Of every route but accepting, which has a setting of its own. Quart buffers before anybody is authenticated."""
BODY_DEADLINE_S = 30


class App(QuartTrio):
    """Quart that answers every error with a problem document and logs none of what came in."""

    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__("dispatcher_http", static_folder=None)
        self.telemetry = telemetry
        self.stopping = trio.Event()
        """Set by the server when it begins to shut down: listeners leave, readiness ends."""
        self.config.update(
            MAX_CONTENT_LENGTH=BODY_BYTES_MAX,
            BODY_TIMEOUT=BODY_DEADLINE_S,
            PROVIDE_AUTOMATIC_OPTIONS=False,
            PROPAGATE_EXCEPTIONS=False,
        )
        # An address that is almost right is wrong: a redirect would repeat the path, and lose the body.
        self.url_map.strict_slashes = True
        self.url_map.merge_slashes = False
        self.url_map.redirect_defaults = False
        self.register_error_handler(Exception, on_error)

    async def handle_request(self, request: Any) -> Any:
        """Answer one request; also one that Quart cannot even make a context for, for example because of its Host."""
        try:
            response = await super().handle_request(request)
        except Exception as error:
            response = refusal(error)
        rule = request.url_rule
        if rule is None:
            self.telemetry.count("unknown", "unknown", response.status_code)
        else:
            self.telemetry.count(request.method, rule.rule, response.status_code)
        return response

    async def handle_websocket(self, websocket: Any) -> Any:
        """The same for a websocket that is not upgraded yet."""
        try:
            return await super().handle_websocket(websocket)
        except Exception as error:
            return refusal(error)

    def log_exception(self, exception_info: Any) -> None:
        """Quart's own words would repeat the path and the exception's text."""
        failed("the surface", exception_info[1])


def create_app(services: Services) -> App:
    """The application, ready to be served."""
    telemetry = Telemetry(services.registry)
    authenticator = Authenticator(partial(api_keys.find, services.pool), services.config.key_cache_s, trio.current_time)
    app = App(telemetry)
    health.add_routes(app, services)
    stream.add_routes(app, services, authenticator)
    unsubscribe.add_routes(app, services)
    for module in _RESOURCES:
        for route in module.routes(services):
            _add(app, route, authenticator)
    # Never reached, because the lanes answer first; it makes 405 answers name the method.
    for rule in accept_lane.RULES:
        app.url_map.add(app.url_rule_class(rule, endpoint="accept", methods=["POST"]))
    app.url_map.add(app.url_rule_class(setup_lane.RULE, endpoint="change_setup", methods=["POST"]))
    app.url_map.add(app.url_rule_class(webhook_lane.RULE, endpoint="webhook", methods=list(webhook_lane.METHODS)))
    webhooks: Any = webhook_lane.WebhookLane(cast("Any", app.asgi_app), services, telemetry)
    setup: Any = setup_lane.SetupLane(webhooks, services, authenticator, telemetry)
    lane: Any = accept_lane.AcceptLane(setup, services, authenticator, telemetry)
    app.asgi_app = lane  # type: ignore[method-assign]
    return app


async def on_error(error: Exception) -> TrioResponse:
    """Quart runs plain functions in threads; this one must not."""
    return refusal(error)


def refusal(error: Exception) -> TrioResponse:
    """The problem document for an exception."""
    problem = problem_of(error)
    if problem is INTERNAL:
        failed("the surface", error)
    return TrioResponse(body_of(problem), problem.status, dict(headers_of(problem, error)))


def _add(app: App, route: Route, authenticator: Authenticator) -> None:
    async def view(org: str, **path: str) -> TrioResponse:
        request = cast("TrioRequest", request_ctx.request)
        principal = await authenticator.principal(authorization_of(request.headers.get("Authorization")))
        principal.require(org, route.scope)
        return await route.view(Call(OrganizationId(org), path, request, principal.key_id, principal.scopes))

    app.add_url_rule(route.rule, f"{route.method} {route.rule}", view, methods=[route.method])


def authorization_of(header: str | None) -> bytes | None:
    """The header as it was on the wire."""
    return None if header is None else header.encode("latin-1")
