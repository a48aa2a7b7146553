"""The two routes that must cost nothing: ``POST /v1/orgs/{org}/notifications`` and ``…/events``, answered below Quart.

Quart gives a request a context, a session, a router, signals and two tasks; a producer's request needs a key checked and a
body passed on. This is ASGI middleware in the place Quart has for it: it answers these two requests itself and hands every
other to Quart. ``bench/accept_route.py`` shows what that saves. The rules are those of every other route: the
same keys, scopes, problems and metrics.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from actors.store.api_keys import Scope
from dispatcher.problems import Problem, Refused
from dispatcher_http.auth import Authenticator
from dispatcher_http.body import Body, BodyBudget, Gone, Receive, Send, lingering
from dispatcher_http.logs import failed
from dispatcher_http.problems import INTERNAL, MEDIA_TYPE, body_of, body_too_large, headers_of, problem_of
from dispatcher_http.services import Services
from dispatcher_http.telemetry import Telemetry

App = Callable[[Any, Receive, Send], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

RULE = "/v1/orgs/<org>/notifications"
EVENTS_RULE = "/v1/orgs/<org>/events"
RULES = (RULE, EVENTS_RULE)
BODY_DEADLINE_S = 30.0
BODIES_MAX = 8
"""How many bodies of the largest size may be in memory at once; as many bytes of smaller ones."""
IDEMPOTENCY_KEY_LENGTH_MAX = 255

_LENGTH_DIGITS_MAX = 18
_PREFIX, _SUFFIX, _EVENTS_SUFFIX = "/v1/orgs/", "/notifications", "/events"
_JSON = (b"content-type", b"application/json")
_BAD_KEY = Problem(
    400,
    "idempotency_key_invalid",
    "Invalid Idempotency-Key",
    f"The header must be there once, with 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} visible ASCII characters.",
)


class AcceptLane:
    """ASGI middleware around ``otherwise``, which is Quart."""

    def __init__(self, otherwise: App, services: Services, authenticator: Authenticator, telemetry: Telemetry) -> None:
        self._otherwise = otherwise
        self._accept = services.accept
        self._events = services.events
        self._admit = services.admit
        self._authenticator = authenticator
        self._body_bytes_max = services.config.body_bytes_max
        self._budget = BodyBudget(BODIES_MAX * services.config.body_bytes_max)
        self._telemetry = telemetry

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if scope["method"] == "POST" and path.startswith(_PREFIX) and path.endswith((_SUFFIX, _EVENTS_SUFFIX)):
                is_event = path.endswith(_EVENTS_SUFFIX)
                organization_id = path[len(_PREFIX) : -len(_EVENTS_SUFFIX if is_event else _SUFFIX)]
                if organization_id and "/" not in organization_id:
                    await self._serve(organization_id, scope["headers"], receive, send, is_event=is_event)
                    return
            receive, send = lingering(receive, send)
        await self._otherwise(scope, receive, send)

    async def _serve(self, organization_id: str, headers: Headers, receive: Receive, send: Send, *, is_event: bool) -> None:
        with Body(receive, self._budget) as body:
            try:
                status, answer_headers, answer = await self._answer(organization_id, headers, body, is_event=is_event)
            except Gone:
                return
            except Exception as error:
                status, answer_headers, answer = refusal_of(error, "accepting")
            self._telemetry.count("POST", EVENTS_RULE if is_event else RULE, status)
            await send({"type": "http.response.start", "status": status, "headers": answer_headers})
            if not body.is_read:
                await send({"type": "http.response.body", "body": answer, "more_body": True})
                await body.discard()
                answer = b""
            await send({"type": "http.response.body", "body": answer, "more_body": False})

    async def _answer(
        self, organization_id: str, headers: Headers, body: Body, *, is_event: bool
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        self._admit()  # first, because even to look a key up may need what is short
        authorization = content_type = encoding = length = None
        keys: list[bytes] = []
        for name, value in headers:
            if name == b"authorization":
                authorization = value
            elif name == b"content-type":
                content_type = value
            elif name == b"idempotency-key":
                keys.append(value)
            elif name == b"content-length":
                length = value
            elif name == b"content-encoding":
                encoding = value
        principal = await self._authenticator.principal(authorization)
        principal.require(organization_id, Scope.EVENTS_WRITE if is_event else Scope.NOTIFICATIONS_WRITE)
        if content_type != b"application/json":
            require_json(content_type, encoding)
        elif encoding is not None:
            raise Refused(MEDIA_TYPE)
        if length is not None and (len(length) > _LENGTH_DIGITS_MAX or int(length) > self._body_bytes_max):
            raise Refused(body_too_large(self._body_bytes_max))
        key = _idempotency_key(keys) if keys else None
        raw = await body.read(self._body_bytes_max, BODY_DEADLINE_S)
        if is_event:
            answer = await self._events.accept(principal.organization_id, raw)
        else:
            answer = await self._accept(principal.organization_id, raw, key)
        answer_headers = [_JSON, (b"content-length", b"%d" % len(answer.body))]
        for each, text in answer.headers.items():
            answer_headers.append((each.encode("latin-1"), text.encode("latin-1")))
        return answer.status, answer_headers, answer.body


def require_json(content_type: bytes | None, encoding: bytes | None) -> None:
    """Raise Refused unless a body of this type and content encoding is plain JSON in UTF-8."""
    media_type, *parameters = (content_type or b"").lower().split(b";")
    charsets = [each.strip() for each in parameters if each.strip().startswith(b"charset=")]
    if media_type.strip() != b"application/json" or any(each not in _UTF_8 for each in charsets) or encoding is not None:
        raise Refused(MEDIA_TYPE)


_UTF_8 = {b"charset=utf-8", b'charset="utf-8"'}


def _idempotency_key(values: list[bytes]) -> str:
    text = values[0].decode("latin-1")
    if len(values) > 1 or not 1 <= len(text) <= IDEMPOTENCY_KEY_LENGTH_MAX or not all("!" <= c <= "~" for c in text):
        raise Refused(_BAD_KEY)
    return text


def refusal_of(error: Exception, doing: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """The status, headers and body that an exception is answered with."""
    problem = problem_of(error)
    if problem is INTERNAL:
        failed(doing, error)
    document = body_of(problem)
    headers = [(name.encode(), value.encode()) for name, value in headers_of(problem)]
    return problem.status, [*headers, (b"content-length", b"%d" % len(document))], document
