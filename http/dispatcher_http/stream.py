"""The event stream of an organization: ``GET /v1/orgs/{org}/stream`` as a websocket, one JSON text per event.

Listeners only listen: what they send is read and ignored. Between a listener and the rest stands a bounded buffer. Who
does not empty it is cut with 4008 and may come back with ``since``; who does not even take bytes off the wire loses the
connection (:mod:`dispatcher_http.server`), because no close frame could reach them. Nobody else waits for either.
Refusals come before the upgrade, as problem documents.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import trio
from quart import websocket
from quart_trio.wrappers import TrioResponse

from actors.store.api_keys import Scope
from dispatcher.errors import DispatcherError, Overloaded
from dispatcher.problems import Refused
from dispatcher_http import wire
from dispatcher_http.auth import BEARER_SUBPROTOCOL, Authenticator, key_in_subprotocols
from dispatcher_http.logs import failed
from dispatcher_http.problems import LISTENERS_FULL, STOPPING, UPGRADE_REQUIRED
from dispatcher_http.services import Services

if TYPE_CHECKING:
    from dispatcher_http.app import App

RULE = "/v1/orgs/<org>/stream"

GOING_AWAY = 1001
INTERNAL_ERROR = 1011
TRY_AGAIN_LATER = 1013
TOO_SLOW = 4008
CLOSE_S = 2.0
"""How long a closed listener has to take its leave."""

_SINCE = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)


def add_routes(app: App, services: Services, authenticator: Authenticator) -> None:
    """The websocket, and what its address says to whoever does not upgrade."""
    listeners_max = services.config.listeners_max
    listeners = app.telemetry.listeners
    open_now = 0

    async def listen(org: str) -> None:
        nonlocal open_now
        offered = key_in_subprotocols(websocket.requested_subprotocols)
        header = websocket.headers.get("Authorization")
        principal = await authenticator.principal(offered if header is None else header.encode("latin-1"))
        principal.require(org, Scope.STREAM_READ)
        wire.refuse_unknown(websocket.args, {"since"})
        since = wire.query_value(websocket.args, "since", _since, "the id of an event")
        if app.stopping.is_set():
            raise Refused(STOPPING)
        if open_now >= listeners_max:
            raise Refused(LISTENERS_FULL)
        open_now += 1
        listeners.inc()
        try:
            async with services.listen(principal.organization_id, since) as events:
                await websocket.accept(subprotocol=BEARER_SUBPROTOCOL if offered is not None else None)
                code = await _pass_on(events, app.stopping)
            if code == TOO_SLOW:
                app.telemetry.listeners_cut.inc()
            await websocket.close(code)
            # The peer's own close frame ends this task; without one, patience does.
            with trio.move_on_after(CLOSE_S):
                await _ignore_messages()
        finally:
            open_now -= 1
            listeners.dec()

    async def not_upgraded(org: str) -> TrioResponse:
        raise Refused(UPGRADE_REQUIRED)

    app.add_websocket(RULE, "stream", listen)
    app.add_url_rule(RULE, "stream without upgrade", not_upgraded, methods=["GET"])


async def _pass_on(events: AsyncIterator[bytes], stopping: trio.Event) -> int:
    """Send events until there is a reason to close; returns the code that says which."""
    code = GOING_AWAY
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ignore_messages)
        nursery.start_soon(_cancel_when, stopping, nursery.cancel_scope)
        try:
            async for event in events:
                await websocket.send(event.decode())
            code = TRY_AGAIN_LATER
        except Overloaded:
            code = TOO_SLOW
        except DispatcherError:
            code = TRY_AGAIN_LATER
        except Exception as error:
            failed("a listener", error)
            code = INTERNAL_ERROR
        nursery.cancel_scope.cancel()
    return code


async def _ignore_messages() -> None:
    # Unread messages would fill Hypercorn's queue, and behind them nobody would see the peer leave.
    while True:
        await websocket.receive()


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _since(text: str) -> str:
    if _SINCE.fullmatch(text) is None:
        raise ValueError("since")
    return text
