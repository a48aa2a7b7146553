"""A listener's side of the event stream: what the demo and ``dispatcher listen`` use, and an example for writing one's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, RejectConnection, Request, TextMessage

from dispatcher.errors import DispatcherError

CONNECT_DEADLINE_S = 10.0


class StreamEnded(DispatcherError):
    """The stream was refused or closed. ``code`` is the HTTP status or the close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the event stream ended with {code}{f' ({reason})' if reason else ''}")
        self.code = code


@asynccontextmanager
async def listen(url: str, organization_id: str, api_key: str, since: str | None = None) -> AsyncIterator[AsyncIterator[str]]:
    """Follow an organization's events: JSON texts, from after the position ``since``, or from now.

    ``url`` is the dispatcher's, such as ``http://127.0.0.1:8080``. Raises StreamEnded when it is refused, and from the iterator when the
    server closes it; OSError when there is nobody.
    """
    parts = urlsplit(url)
    target = f"/v1/orgs/{quote(organization_id)}/stream" + (f"?since={quote(since)}" if since else "")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    with trio.fail_after(CONNECT_DEADLINE_S):
        stream: trio.abc.Stream
        if parts.scheme == "https":
            stream = await trio.open_ssl_over_tcp_stream(parts.hostname or "", port)
        else:
            stream = await trio.open_tcp_stream(parts.hostname or "", port)
    async with stream:
        websocket = WSConnection(ConnectionType.CLIENT)
        headers = [(b"authorization", f"Bearer {api_key}".encode())]
        await stream.send_all(websocket.send(Request(host=parts.netloc, target=target, extra_headers=headers)))
        events = _events(stream, websocket)
        with trio.fail_after(CONNECT_DEADLINE_S):
            first = await anext(events)
        if not isinstance(first, AcceptConnection):
            raise StreamEnded(first.status_code if isinstance(first, RejectConnection) else 0, "refused")
        yield _texts(events)


async def _texts(events: AsyncIterator[Event]) -> AsyncIterator[str]:
    part = ""
    async for event in events:
        if isinstance(event, TextMessage):
            part += event.data
            if event.message_finished:
                yield part
                part = ""
        elif isinstance(event, CloseConnection):
            raise StreamEnded(event.code, event.reason or "")


async def _events(stream: trio.abc.Stream, websocket: WSConnection) -> AsyncIterator[Event]:
    while True:
        for event in websocket.events():
            if isinstance(event, Ping):
                await stream.send_all(websocket.send(event.response()))
            else:
                yield event
        try:
            data = await stream.receive_some()
        except trio.BrokenResourceError:
            data = b""
        websocket.receive_data(data or None)
