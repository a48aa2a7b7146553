"""Both ends of the surface for its tests: what stands behind it, in memory, and who comes to it over a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import trio
from attrs import define, field, frozen
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Event,
    Message,
    Ping,
    RejectConnection,
    RejectData,
    Request,
)

from actors.feedback_ports import ContactChange
from actors.prober import ProbeReport
from actors.schedule_ports import CANCELED
from actors.store.api_keys import Scope
from dispatcher.errors import Overloaded
from dispatcher.feedback.feedback import WebhookReply, WebhookRequest
from dispatcher.model import Channel, NotificationId, OrganizationId
from dispatcher_http.app import App
from dispatcher_http.services import Services


@frozen
class FixedAnswer:
    """What the acceptor answered."""

    status: int = 202
    body: bytes = b'{"status":"queued"}'
    headers: Mapping[str, str] = field(factory=dict)


class _Listener:
    def __init__(self, buffer_max: int) -> None:
        self.send, self.receive = trio.open_memory_channel[bytes](buffer_max)
        self.overrun = False


@define
class InMemoryEvents:
    """Takes in events, and explains them, as it is set to."""

    answer: FixedAnswer = FixedAnswer(body=b'{"matched":true}')
    accepted: list[tuple[OrganizationId, bytes]] = field(factory=list)
    explained: list[tuple[OrganizationId, Any, bool]] = field(factory=list)

    async def accept(self, organization_id: OrganizationId, body: bytes) -> FixedAnswer:
        await trio.lowlevel.checkpoint()
        self.accepted.append((organization_id, body))
        return self.answer

    async def explain(self, organization_id: OrganizationId, row: Any, *, with_payload: bool) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        self.explained.append((organization_id, row, with_payload))
        return {"matched": True}


@define
class InMemoryDispatch:
    """Everything behind the surface but the database: notes what it is told, answers what it is set to.

    ``failure`` is raised by every port that is set; ``accepting`` may hold the acceptor up.
    """

    answer: FixedAnswer = FixedAnswer()
    events: InMemoryEvents = field(factory=InMemoryEvents)
    failure: Exception | None = None
    checks: dict[str, bool] = field(factory=lambda: {"postgres": True, "redis": True})
    listener_buffer_max: int = 8
    accepted: list[tuple[OrganizationId, bytes, str | None]] = field(factory=list)
    contact_changes: list[ContactChange] = field(factory=list)
    reports: list[tuple[OrganizationId, str, WebhookRequest]] = field(factory=list)
    reply: WebhookReply = WebhookReply(200, "taken_in")
    changes: list[OrganizationId] = field(factory=list)
    requeues: list[tuple[OrganizationId, list[NotificationId]]] = field(factory=list)
    paced: list[tuple[OrganizationId, list[tuple[NotificationId, float]]]] = field(factory=list)
    probes: list[tuple[OrganizationId, str, str | None]] = field(factory=list)
    report: ProbeReport | None = None
    discards: list[tuple[OrganizationId, int]] = field(factory=list)
    resumed_from: list[str | None] = field(factory=list)
    canceled: list[tuple[OrganizationId, list[tuple[NotificationId, Channel]]]] = field(factory=list)
    cancel_reasons: list[str] = field(factory=list)
    accepting: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
    listeners: dict[OrganizationId, list[_Listener]] = field(factory=dict)

    async def accept(self, organization_id: OrganizationId, body: bytes, idempotency_key: str | None) -> FixedAnswer:
        self.accepted.append((organization_id, body, idempotency_key))
        await self.accepting()
        self._fail()
        return self.answer

    async def probe(self, organization_id: OrganizationId, config_id: str, recipient: str | None) -> ProbeReport | None:
        await trio.lowlevel.checkpoint()
        self._fail()
        self.probes.append((organization_id, config_id, recipient))
        return self.report

    async def take_in(self, organization_id: OrganizationId, config_id: str, request: WebhookRequest) -> WebhookReply:
        self.reports.append((organization_id, config_id, request))
        await self.accepting()
        self._fail()
        return self.reply

    async def changed(self, organization_id: OrganizationId) -> None:
        self.changes.append(organization_id)
        self._fail()

    async def requeued(self, organization_id: OrganizationId, ids: Sequence[NotificationId]) -> None:
        self.requeues.append((organization_id, list(ids)))
        self._fail()

    async def requeued_many(self, organization_id: OrganizationId, due: Sequence[tuple[NotificationId, float]]) -> None:
        self.paced.append((organization_id, list(due)))
        self._fail()

    async def discarded(self, organization_id: OrganizationId, count: int) -> None:
        self.discards.append((organization_id, count))
        self._fail()

    def note_canceled(
        self, organization_id: OrganizationId, canceled: Sequence[tuple[NotificationId, Channel]], reason: str = CANCELED
    ) -> None:
        if canceled:
            self.canceled.append((organization_id, list(canceled)))
            self.cancel_reasons.append(reason)

    async def contacts_changed(self, changes: Sequence[ContactChange]) -> None:
        self.contact_changes.extend(changes)
        self._fail()

    async def ready(self) -> Mapping[str, bool]:
        await trio.lowlevel.checkpoint()
        self._fail()
        return self.checks

    @asynccontextmanager
    async def listen(self, organization_id: OrganizationId, since: str | None) -> AsyncIterator[AsyncIterator[bytes]]:
        self._fail()
        self.resumed_from.append(since)
        listener = _Listener(self.listener_buffer_max)
        self.listeners.setdefault(organization_id, []).append(listener)
        try:
            yield self._events(listener)
        finally:
            self.listeners[organization_id].remove(listener)

    def publish(self, organization_id: str, event: bytes) -> None:
        """Announce to everybody who listens; whose buffer is full has fallen behind."""
        for listener in self.listeners.get(OrganizationId(organization_id), []):
            if listener.overrun:
                continue
            try:
                listener.send.send_nowait(event)
            except trio.WouldBlock:
                listener.overrun = True
                listener.send.close()

    def end(self, organization_id: str) -> None:
        """The source of events goes away."""
        for listener in self.listeners.get(OrganizationId(organization_id), []):
            listener.send.close()

    async def _events(self, listener: _Listener) -> AsyncIterator[bytes]:
        async for event in listener.receive:
            yield event
            self._fail()
        if listener.overrun:
            raise Overloaded("listener", 1)

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


@frozen
class Surface:
    """A served surface: where it is, what stands behind it, and a client that sends no key of its own."""

    app: App
    services: Services
    dispatch: InMemoryDispatch
    client: httpx.AsyncClient
    port: int
    stop: trio.Event
    new_key: Callable[..., Awaitable[str]]
    """``await new_key(organization_id, *scopes)``: a key of an organization, made if need be; without scopes, one with all."""

    async def authorization(self, organization_id: str = "acme", *scopes: Scope) -> dict[str, str]:
        """Headers with a fresh key."""
        return {"authorization": f"Bearer {await self.new_key(organization_id, *scopes)}"}

    async def raw(self, request: bytes, *, until_close: bool = True) -> bytes:
        """Send bytes as they are; returns all that comes back until the server closes."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(request)
            answer = b""
            with trio.fail_after(10):
                async for piece in stream:
                    answer += piece
                    if not until_close and b"\r\n\r\n" in answer:
                        break
            return answer


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is a problem document of this status and code; returns it."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document: dict[str, Any] = response.json()
    assert (response.status_code, document["status"], document["code"]) == (status, status, code), document
    assert {"type", "title", "detail"} <= document.keys()
    return document


class Refusal(Exception):
    """The server answered a handshake with something else than an upgrade."""

    def __init__(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body

    def document(self) -> Any:
        """The problem document."""
        return orjson.loads(self.body)


class Closed(Exception):
    """The server closed the websocket; with 1006 if it just closed the connection."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class WebsocketClient:
    """A websocket on a Trio socket: wsproto speaks, this carries."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []
        self.subprotocol: str | None = None
        self.pings = 0

    async def handshake(self, target: str, headers: Sequence[tuple[bytes, bytes]] = (), subprotocols: Sequence[str] = ()) -> None:
        """Raises Refusal when the server does not upgrade."""
        request = Request(host="test", target=target, extra_headers=list(headers), subprotocols=list(subprotocols))
        await self._stream.send_all(self._protocol.send(request))
        event = await self._event()
        if isinstance(event, RejectConnection):
            body = b""
            while True:
                data = await self._event()
                assert isinstance(data, RejectData), data
                body += data.data
                if data.body_finished:
                    raise Refusal(event.status_code, event.headers, body)
        assert isinstance(event, AcceptConnection), event
        self.subprotocol = event.subprotocol

    async def receive(self) -> str:
        """The next whole text message. Raises Closed when the server closes instead."""
        text = ""
        while True:
            event = await self._event()
            match event:
                case Message(data=str() as data, message_finished=finished):
                    text += data
                    if finished:
                        return text
                case Ping():
                    self.pings += 1
                    if self._protocol.state is ConnectionState.OPEN:
                        await self._stream.send_all(self._protocol.send(event.response()))
                case CloseConnection(code=code):
                    if self._protocol.state is ConnectionState.REMOTE_CLOSING:
                        await self._stream.send_all(self._protocol.send(event.response()))
                    raise Closed(code)
                case _:
                    raise AssertionError(event)

    async def send(self, event: Event) -> None:
        """Send anything a client may send."""
        await self._stream.send_all(self._protocol.send(event))

    async def send_bytes(self, data: bytes) -> None:
        """Send what no client may send."""
        await self._stream.send_all(data)

    async def _event(self) -> Event:
        while not self._events:
            data = await self._stream.receive_some(65536)
            self._protocol.receive_data(data or None)
            self._events.extend(self._protocol.events())
        return self._events.pop(0)


@asynccontextmanager
async def websocket(port: int, *, receive_buffer_bytes: int | None = None) -> AsyncIterator[WebsocketClient]:
    """A connection to shake hands on."""
    socket = trio.socket.socket()
    if receive_buffer_bytes is not None:
        socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer_bytes)
    await socket.connect(("127.0.0.1", port))
    async with trio.SocketStream(socket) as stream:
        yield WebsocketClient(stream)
