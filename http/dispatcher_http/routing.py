"""What a route is, apart from Quart: a method, a rule, the scope it needs, and a function from a call to an answer.

A route's function sees only calls that are authorized for the organization in their path. It never touches Quart's
globals, and what it raises becomes a problem document (:mod:`dispatcher_http.problems`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import orjson
import trio
from attrs import frozen
from quart_trio.wrappers import TrioRequest, TrioResponse
from werkzeug.datastructures import MultiDict

from actors.store.api_keys import Scope
from dispatcher.errors import QueueUnavailable
from dispatcher.model import OrganizationId
from dispatcher.problems import Refused
from dispatcher_http import wire
from dispatcher_http.accept_lane import require_json
from dispatcher_http.problems import resource_not_found

CHANGE_DEADLINE_S = 15.0
"""How long a change and its announcement may take together."""


@frozen
class Call:
    """One authorized request. ``path`` holds the variable parts of its address; ``key_id`` and ``scopes`` are its key's."""

    organization_id: OrganizationId
    path: Mapping[str, str]
    request: TrioRequest
    key_id: str = ""
    scopes: frozenset[str] = frozenset()

    @property
    def args(self) -> MultiDict[str, str]:
        """The query."""
        return self.request.args

    def id_of(self, what: str) -> str:
        """The id in the path. What cannot be an id is answered like one that does not exist."""
        id = wire.uuid_or_none(self.path["id"])
        if id is None:
            raise Refused(resource_not_found(what))
        return id

    async def has_body(self) -> bool:
        """Whether anything was sent along. Raises like :meth:`json`."""
        return bool(await self.request.get_data(True, False, False))

    async def json(self) -> dict[str, Any]:
        """The body, a JSON object. Raises Refused, or werkzeug's exceptions for too large and too slow."""
        content_type, encoding = self.request.headers.get("Content-Type"), self.request.headers.get("Content-Encoding")
        require_json(_latin_1(content_type), _latin_1(encoding))
        return wire.object_of(await self.request.get_data(False, False, False))


@frozen
class Route:
    """One method of one address. The rule starts with ``/v1/orgs/<org>``."""

    method: str
    rule: str
    scope: Scope
    view: Callable[[Call], Awaitable[TrioResponse]]


def answer(document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> TrioResponse:
    """An answer in JSON."""
    return TrioResponse(orjson.dumps(document), status, dict(headers or {}), content_type="application/json")


def no_content() -> TrioResponse:
    """The answer to what needs no words."""
    response = TrioResponse(b"", 204)
    # RFC 9110 forbids the one and makes the other pointless.
    del response.headers["content-length"], response.headers["content-type"]
    return response


def whole_change() -> AbstractContextManager[object]:
    """Around a change and telling others of it: a client that hangs up in between must not separate the two.

    Raises TooSlowError after :data:`CHANGE_DEADLINE_S`.
    """
    return trio.fail_after(CHANGE_DEADLINE_S, shield=True)


async def announce(telling: Awaitable[None]) -> None:
    """Tell others of a change that is on record. When they cannot be told now, caches that expire and the sweep find it."""
    try:
        await telling
    except QueueUnavailable:
        logging.getLogger("dispatcher.http").warning("a change is on record but could not be announced: the queue is unavailable")


def _latin_1(text: str | None) -> bytes | None:
    return None if text is None else text.encode("latin-1")
