"""Where providers report: ``POST /v1/orgs/{org}/providers/{id}/webhook``, answered below Quart.

Nobody shows a key here: a report is authentic by its provider's signature over the raw bytes, or it is nothing. A provider that
reports each message by itself makes as many calls as we do, and three for each, so this route costs as little as accepting does.
``GET`` is for providers that ask for an echo before they report. Of a request only its code is ever logged or counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dispatcher.errors import Overloaded
from dispatcher.feedback.feedback import WebhookRequest
from dispatcher.model import OrganizationId
from dispatcher.problems import Refused
from dispatcher_http.accept_lane import App, Headers, refusal_of
from dispatcher_http.body import Body, BodyBudget, Gone, Receive, Send
from dispatcher_http.problems import body_too_large
from dispatcher_http.services import Services
from dispatcher_http.telemetry import Telemetry

RULE = "/v1/orgs/<org>/providers/<id>/webhook"
METHODS = ("GET", "POST")
BODY_BYTES_MAX = 2 * 1024 * 1024
"""The largest that is known to be sent are SendGrid's, of some 768 KB."""
BODY_DEADLINE_S = 10.0
BODIES_MAX = 8
"""How many bodies of the largest size may be in memory at once; as many bytes of smaller ones."""
CALLS_MAX = 256
"""Calls under way at once. Providers repeat what is turned away."""

_PREFIX, _MIDDLE, _SUFFIX = "/v1/orgs/", "/providers/", "/webhook"


class WebhookLane:
    """ASGI middleware around ``otherwise``."""

    def __init__(self, otherwise: App, services: Services, telemetry: Telemetry) -> None:
        self._otherwise = otherwise
        self._take_in = services.take_in
        self._telemetry = telemetry
        self._budget = BodyBudget(BODIES_MAX * BODY_BYTES_MAX)
        self._calls = 0

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in METHODS:
            names = _names(scope["path"])
            if names is not None:
                await self._serve(*names, scope, receive, send)
                return
        await self._otherwise(scope, receive, send)

    async def _serve(self, organization_id: str, config_id: str, scope: Any, receive: Receive, send: Send) -> None:
        self._calls += 1
        try:
            with Body(receive, self._budget) as body:
                try:
                    answer = await self._answer(organization_id, config_id, scope, body)
                except Gone:
                    return
                except Exception as error:
                    answer = refusal_of(error, "taking a report in")
                status, headers, content = answer
                self._telemetry.count(scope["method"], RULE, status)
                await send({"type": "http.response.start", "status": status, "headers": headers})
                if not body.is_read:
                    await send({"type": "http.response.body", "body": content, "more_body": True})
                    await body.discard()
                    content = b""
                await send({"type": "http.response.body", "body": content, "more_body": False})
        finally:
            self._calls -= 1

    async def _answer(
        self, organization_id: str, config_id: str, scope: Any, body: Body
    ) -> tuple[int, Sequence[tuple[bytes, bytes]], bytes]:
        if self._calls > CALLS_MAX:
            raise Overloaded("reports of providers", 1.0)
        headers = _headers(scope["headers"])
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 9 or int(length) > BODY_BYTES_MAX:
            raise Refused(body_too_large(BODY_BYTES_MAX))
        raw = await body.read(BODY_BYTES_MAX, BODY_DEADLINE_S)
        request = WebhookRequest(scope["method"], _url(scope, headers), headers, raw)
        reply = await self._take_in(OrganizationId(organization_id), config_id, request)
        content_type = f"{reply.content_type}; charset=utf-8" if reply.content_type.startswith("text/") else reply.content_type
        answer_headers = [(b"content-type", content_type.encode("latin-1")), (b"content-length", b"%d" % len(reply.body))]
        return reply.status, answer_headers, reply.body


def _names(path: str) -> tuple[str, str] | None:
    """The organization and the configuration that an address names."""
    if not (path.startswith(_PREFIX) and path.endswith(_SUFFIX)):
        return None
    organization_id, middle, config_id = path[len(_PREFIX) : -len(_SUFFIX)].partition(_MIDDLE)
    if not middle or not organization_id or not config_id or "/" in organization_id or "/" in config_id:
        return None
    return organization_id, config_id


def _headers(pairs: Headers) -> dict[str, str]:
    """Of a header that is there twice the first counts: what a proxy in front of us adds comes after."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    return headers


def _url(scope: Any, headers: dict[str, str]) -> str:
    """The URL as it looks from here. Whoever needs the one the provider was given has it in the settings."""
    query = scope.get("query_string", b"").decode("latin-1")
    raw_path = scope.get("raw_path") or scope["path"].encode("utf-8")
    path = raw_path.partition(b"?")[0].decode("latin-1")
    return f"{scope.get('scheme', 'http')}://{headers.get('host', '')}{path}{'?' if query else ''}{query}"
