"""A listener's side of the event stream: what the demo and ``dispatcher listen`` use, and an example for writing one's own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from urllib.parse import quote, urlsplit

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, RejectConnection, Request, TextMessage
from wsproto.utilities import ProtocolError

from dispatcher.errors import DispatcherError

CONNECT_DEADLINE_S = 10.0
SEND_DEADLINE_S = 10.0


class StreamEnded(DispatcherError):
    """The stream was refused or closed. ``code`` is the HTTP status or the close code, 0 where nobody gave one."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the event stream ended{f' with {code}' if code else ''}{f' ({reason})' if reason else ''}")
        self.code = code


@asynccontextmanager
async def listen(url: str, organization_id: str, api_key: str, since: str | None = None) -> AsyncIterator[AsyncIterator[str]]:
    """Follow an organization's events: JSON texts, from after the position ``since``, or from now.

    ``url`` is the dispatcher's, such as ``http://127.0.0.1:8080``. Raises StreamEnded when it is refused, and from the iterator
    when it ends; OSError when there is nobody, TooSlowError when nobody answers.
    """
    parts = urlsplit(url)
    path = f"{parts.path.rstrip('/')}/v1/orgs/{quote(organization_id)}/stream"
    target = path + (f"?since={quote(since)}" if since else "")
    with trio.fail_after(CONNECT_DEADLINE_S):
        stream = await _connect(parts.scheme == "https", parts.hostname or "", parts.port)
    websocket = WSConnection(ConnectionType.CLIENT)
    async with stream, aclosing(_events(stream, websocket)) as events:
        headers = [(b"authorization", f"Bearer {api_key}".encode())]
        with trio.fail_after(CONNECT_DEADLINE_S):
            host = parts.netloc.rpartition("@")[2]
            await _send(stream, websocket.send(Request(host=host, target=target, extra_headers=headers)))
            first = await anext(events)
        if not isinstance(first, AcceptConnection):
            raise StreamEnded(first.status_code if isinstance(first, RejectConnection) else 0, "refused")
        async with aclosing(_texts(events)) as texts:
            yield texts


async def _connect(tls: bool, host: str, port: int | None) -> trio.abc.Stream:
    if not tls:
        return await trio.open_tcp_stream(host, port or 80)
    stream = await trio.open_ssl_over_tcp_stream(host, port or 443, https_compatible=True)
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise StreamEnded(0, getattr(error.__cause__, "verify_message", None) or "no TLS connection") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _texts(events: AsyncIterator[Event]) -> AsyncGenerator[str, None]:
    part = ""
    async for event in events:
        if isinstance(event, TextMessage):
            part += event.data
            if event.message_finished:
                yield part
                part = ""
        elif isinstance(event, CloseConnection):
            raise StreamEnded(event.code, event.reason or "")


async def _events(stream: trio.abc.Stream, websocket: WSConnection) -> AsyncGenerator[Event, None]:
    while True:
        for event in websocket.events():
            if isinstance(event, Ping):
                with trio.fail_after(SEND_DEADLINE_S):
                    await _send(stream, websocket.send(event.response()))
            else:
                yield event
        try:
            data = bytes(await stream.receive_some())
        except trio.BrokenResourceError:
            data = b""
        try:
            websocket.receive_data(data or None)
        except ProtocolError as error:
            raise StreamEnded(0, "what answers does not speak websocket") from error


async def _send(stream: trio.abc.Stream, data: bytes) -> None:
    try:
        await stream.send_all(data)
    except trio.BrokenResourceError as error:
        raise StreamEnded(0, "the connection broke") from error
