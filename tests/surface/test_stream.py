"""The event stream: who may listen, what arrives, and how it ends for whom."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from actors.store.api_keys import Scope
from dispatcher.errors import QueueUnavailable
from dispatcher.problems import Problem, Refused
from dispatcher_http import stream
from surface_doubles import Closed, Refusal, Surface, WebsocketClient, assert_problem, websocket

PATH = "/v1/orgs/acme/stream"
METRIC = "dispatcher_http_listeners"


@asynccontextmanager
async def listening(
    surface: Surface, target: str = PATH, organization_id: str = "acme", receive_buffer_bytes: int | None = None
) -> AsyncIterator[WebsocketClient]:
    """A listener whose subscription is in place."""
    key = await surface.new_key(organization_id, Scope.STREAM_READ)
    async with websocket(surface.port, receive_buffer_bytes=receive_buffer_bytes) as client:
        with trio.fail_after(10):
            await client.handshake(target, [(b"authorization", f"Bearer {key}".encode())])
        yield client


async def refused(
    surface: Surface, target: str = PATH, headers: Sequence[tuple[bytes, bytes]] = (), subprotocols: Sequence[str] = ()
) -> Refusal:
    async with websocket(surface.port) as client:
        with pytest.raises(Refusal) as refusal, trio.fail_after(10):
            await client.handshake(target, headers, subprotocols)
    assert refusal.value.headers[b"content-type"] == b"application/problem+json"
    return refusal.value


async def receive(client: WebsocketClient) -> str:
    with trio.fail_after(10):
        return await client.receive()


async def close_code(client: WebsocketClient) -> int:
    """Read to the end; why the server closed."""
    with trio.fail_after(10):
        while True:
            try:
                await client.receive()
            except Closed as closed:
                return closed.code


async def until_nobody_listens(surface: Surface) -> None:
    with trio.fail_after(10):
        while any(surface.dispatch.listeners.values()) or surface.services.registry.get_sample_value(METRIC):
            await trio.lowlevel.checkpoint()


async def test_events_arrive_in_order_as_text(surface: Surface) -> None:
    async with listening(surface) as client:
        surface.dispatch.publish("acme", b'{"n":1}')
        surface.dispatch.publish("acme", '{"name":"José"}'.encode())

        assert [await receive(client), await receive(client)] == ['{"n":1}', '{"name":"José"}']


async def test_listeners_hear_their_own_organization_only(surface: Surface) -> None:
    async with listening(surface) as acme, listening(surface, "/v1/orgs/globex/stream", "globex") as globex:
        surface.dispatch.publish("globex", b"2")
        surface.dispatch.publish("acme", b"1")

        assert (await receive(acme), await receive(globex)) == ("1", "2")


async def test_since_is_handed_to_whoever_keeps_the_events(surface: Surface) -> None:
    async with listening(surface, f"{PATH}?since=1700000000000-3"), listening(surface):
        assert surface.dispatch.resumed_from == ["1700000000000-3", None]


async def test_a_browser_authenticates_through_subprotocols(surface: Surface) -> None:
    key = await surface.new_key("acme", Scope.STREAM_READ)
    async with websocket(surface.port) as client:
        await client.handshake(PATH, subprotocols=["bearer", key])

        assert client.subprotocol == "bearer"
        surface.dispatch.publish("acme", b"1")
        assert await receive(client) == "1"


async def test_refusals_come_before_the_upgrade_as_problems(surface: Surface) -> None:
    key = await surface.new_key("acme")
    narrow = await surface.new_key("acme", Scope.NOTIFICATIONS_READ)
    good = [(b"authorization", f"Bearer {key}".encode())]

    anonymous = await refused(surface)
    assert (anonymous.status, anonymous.document()["code"]) == (401, "unauthenticated")
    assert anonymous.headers[b"www-authenticate"].startswith(b"Bearer")
    assert (await refused(surface, subprotocols=["bearer", "ndk_" + "A" * 43])).status == 401
    assert (await refused(surface, subprotocols=["bearer"])).status == 401
    foreign = await refused(surface, "/v1/orgs/globex/stream", good)
    assert (foreign.status, foreign.document()["code"]) == (404, "organization_not_found")
    scope = await refused(surface, headers=[(b"authorization", f"Bearer {narrow}".encode())])
    assert (scope.status, scope.document()["code"]) == (403, "scope_missing")
    for query in ("since=", "since=a%20b", "since=" + "1" * 65, "since=1&since=2", "sinse=1"):
        assert (await refused(surface, f"{PATH}?{query}", good)).document()["code"] == "query_invalid"
    assert (await refused(surface, "/v1/orgs/acme/nothing", good)).document()["code"] == "not_found"
    assert surface.dispatch.resumed_from == []


async def test_an_event_that_cannot_be_resumed_from_refuses_before_the_upgrade(surface: Surface) -> None:
    key = await surface.new_key("acme")
    surface.dispatch.failure = Refused(Problem(410, "events_gone", "Gone", "These events are no longer kept."))

    refusal = await refused(surface, f"{PATH}?since=1-0", [(b"authorization", f"Bearer {key}".encode())])

    assert (refusal.status, refusal.document()["code"]) == (410, "events_gone")


async def test_a_process_that_stops_takes_no_listeners(surface: Surface) -> None:
    key = await surface.new_key("acme")
    surface.app.stopping.set()

    refusal = await refused(surface, headers=[(b"authorization", f"Bearer {key}".encode())])

    assert (refusal.status, refusal.document()["code"]) == (503, "stopping")


async def test_without_an_upgrade_the_address_asks_for_one(surface: Surface) -> None:
    response = await surface.client.get(PATH)

    assert_problem(response, 426, "upgrade_required")
    assert response.headers["upgrade"] == "websocket"


async def test_one_listener_too_many_is_told_to_come_later(surface: Surface) -> None:
    key = await surface.new_key("acme")
    good = [(b"authorization", f"Bearer {key}".encode())]
    async with trio.open_nursery() as nursery:
        for _ in range(surface.services.config.listeners_max):
            await nursery.start(_hold_a_listener, surface)

        refusal = await refused(surface, headers=good)
        assert (refusal.status, refusal.document()["code"], refusal.headers[b"retry-after"]) == (503, "listeners_full", b"5")
        nursery.cancel_scope.cancel()
    await until_nobody_listens(surface)
    async with listening(surface):
        assert surface.services.registry.get_sample_value(METRIC) == 1


async def _hold_a_listener(surface: Surface, *, task_status: trio.TaskStatus[None]) -> None:
    async with listening(surface):
        task_status.started()
        await trio.sleep_forever()


async def test_what_a_listener_says_is_ignored_however_much_it_is(surface: Surface) -> None:
    async with listening(surface) as client:
        for _ in range(100):
            await client.send(TextMessage("hello"))
            await client.send(BytesMessage(b"hello"))
        surface.dispatch.publish("acme", b"1")

        assert await receive(client) == "1"


@pytest.mark.parametrize("closing", [False, True])
async def test_a_listener_that_talks_is_seen_to_leave(surface: Surface, monkeypatch: pytest.MonkeyPatch, closing: bool) -> None:
    monkeypatch.setattr(stream, "CLOSE_S", 1000)
    async with listening(surface) as client:
        if closing:
            surface.dispatch.end("acme")
        for _ in range(100):
            await client.send(TextMessage("hello"))
        await client.send(CloseConnection(code=1000))

        await until_nobody_listens(surface)


async def test_a_message_too_large_to_ignore_ends_the_connection(surface: Surface) -> None:
    async with listening(surface) as client:
        await client.send(TextMessage("x" * 10_000))

        assert await close_code(client) == 1009


async def test_who_falls_behind_is_cut_with_a_code_of_its_own(surface: Surface) -> None:
    async with listening(surface) as slow, listening(surface) as quick:
        # Without a checkpoint nobody gets to send: one event is in each hand, the buffer is full, the next is too much.
        for number in range(1 + surface.dispatch.listener_buffer_max + 1):
            surface.dispatch.publish("acme", b"%d" % number)

        assert await close_code(slow) == stream.TOO_SLOW
        assert await close_code(quick) == stream.TOO_SLOW
    assert surface.services.registry.get_sample_value("dispatcher_http_listeners_cut_total") == 2


async def test_a_reader_that_stalls_does_not_hold_up_the_others(surface: Surface) -> None:
    event = b'"%s"' % (b"x" * 500_000)
    async with listening(surface, receive_buffer_bytes=4096) as stalled, listening(surface) as quick:
        for number in range(60):
            surface.dispatch.publish("acme", event)
            assert await receive(quick) == event.decode(), number

        # By now more is on its way to the stalled one than its buffer holds.
        assert await close_code(stalled) == stream.TOO_SLOW


async def test_a_listener_that_leaves_is_forgotten(surface: Surface) -> None:
    async with listening(surface) as client:
        await client.send(CloseConnection(code=1000))
        await until_nobody_listens(surface)
    async with listening(surface):
        pass
    await until_nobody_listens(surface)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (None, stream.TRY_AGAIN_LATER),
        (QueueUnavailable("away"), stream.TRY_AGAIN_LATER),
        (RuntimeError("secret"), stream.INTERNAL_ERROR),
    ],
)
async def test_a_source_that_ends_closes_its_listeners(surface: Surface, failure: Exception | None, code: int) -> None:
    async with listening(surface) as client:
        surface.dispatch.failure = failure
        surface.dispatch.publish("acme", b"1")
        surface.dispatch.end("acme")

        assert await close_code(client) == code


async def test_shutting_down_closes_with_going_away(surface: Surface) -> None:
    async with listening(surface) as client:
        surface.stop.set()

        assert await close_code(client) == stream.GOING_AWAY
    await until_nobody_listens(surface)


@pytest.mark.parametrize("frame", [b"\xff\xff\xff\xff", b"\x81\x05hello", b"\x81\x82\0\0\0\0\xff\xfe", b"\x83\x80\0\0\0\0"])
async def test_a_broken_frame_ends_its_connection_and_no_other(surface: Surface, frame: bytes) -> None:
    async with listening(surface) as bystander, listening(surface) as broken:
        await broken.send_bytes(frame)
        assert await close_code(broken) == 1006

        surface.dispatch.publish("acme", b"1")
        assert await receive(bystander) == "1"
