"""``POST /v1/orgs/{org}/setup``, answered below Quart: a whole set-up is larger than other bodies may be.

Quart takes a body in before anybody has shown a key. Here the key comes first, and the bytes of all such bodies together are
bounded. The rules are those of every other route: the same keys, scopes, problems and metrics.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import orjson
from werkzeug.datastructures import Headers, MultiDict

from actors.store.api_keys import Scope
from dispatcher.problems import Refused
from dispatcher_http import setups, wire
from dispatcher_http.accept_lane import App, refusal_of, require_json
from dispatcher_http.auth import Authenticator
from dispatcher_http.body import Body, BodyBudget, Gone, Receive, Send
from dispatcher_http.preconditions import entity_tag, expected_tag
from dispatcher_http.problems import body_too_large
from dispatcher_http.services import Services
from dispatcher_http.telemetry import Telemetry

RULE = "/v1/orgs/<org>/setup"
BODY_DEADLINE_S = 30.0
BODIES_MAX = 2
"""How many bodies of the largest size may be in memory at once; as many bytes of smaller ones. Each is compiled, too."""

_PREFIX, _SUFFIX = "/v1/orgs/", "/setup"
_YES_NO = {"true": True, "false": False}


class SetupLane:
    """ASGI middleware around ``otherwise``. A body may be as large as one of the accepting route."""

    def __init__(self, otherwise: App, services: Services, authenticator: Authenticator, telemetry: Telemetry) -> None:
        self._otherwise = otherwise
        self._services = services
        self._authenticator = authenticator
        self._telemetry = telemetry
        self._body_bytes_max = services.config.body_bytes_max
        self._budget = BodyBudget(BODIES_MAX * services.config.body_bytes_max)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            path: str = scope["path"]
            organization_id = path[len(_PREFIX) : -len(_SUFFIX)]
            if path == f"{_PREFIX}{organization_id}{_SUFFIX}" and organization_id and "/" not in organization_id:
                await self._serve(organization_id, scope, receive, send)
                return
        await self._otherwise(scope, receive, send)

    async def _serve(self, organization_id: str, scope: Any, receive: Receive, send: Send) -> None:
        with Body(receive, self._budget) as body:
            try:
                status, headers, answer = await self._answer(organization_id, scope, body)
            except Gone:
                return
            except Exception as error:
                status, headers, answer = refusal_of(error, "changing a set-up")
            self._telemetry.count("POST", RULE, status)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            if not body.is_read:
                await send({"type": "http.response.body", "body": answer, "more_body": True})
                await body.discard()
                answer = b""
            await send({"type": "http.response.body", "body": answer, "more_body": False})

    async def _answer(self, organization_id: str, scope: Any, body: Body) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]])
        authorization = headers.get("Authorization")
        principal = await self._authenticator.principal(None if authorization is None else authorization.encode("latin-1"))
        dry_run = _dry_run(scope.get("query_string", b""))
        principal.require(organization_id, Scope.SETUP_READ if dry_run else Scope.SETUP_WRITE)
        require_json(_latin_1(headers.get("Content-Type")), _latin_1(headers.get("Content-Encoding")))
        expected = expected_tag(headers)
        length = headers.get("Content-Length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > self._body_bytes_max:
            raise Refused(body_too_large(self._body_bytes_max))
        raw = await body.read(self._body_bytes_max, BODY_DEADLINE_S)
        report, tag = await setups.change(self._services, principal.organization_id, raw, expected, dry_run=dry_run)
        answer = orjson.dumps(report)
        sent = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        return 200, [*sent, (b"etag", entity_tag(tag).encode())], answer


def _dry_run(query: bytes) -> bool:
    args = MultiDict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    wire.refuse_unknown(args, {"dry_run"})
    return wire.query_value(args, "dry_run", _yes_no, "true or false") or False


def _yes_no(text: str) -> bool:
    if text not in _YES_NO:
        raise ValueError("yes or no")
    return _YES_NO[text]


def _latin_1(text: str | None) -> bytes | None:
    return None if text is None else text.encode("latin-1")
