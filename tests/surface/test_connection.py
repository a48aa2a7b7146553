"""Connections: what one peer does, or stops doing, is its own affair."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from dispatcher_http import connection
from dispatcher_http.connection import IdleClock
from surface_doubles import Surface, WebsocketClient, websocket

HOSTILE = [
    b"\x00\x01\x02\x03",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /%ff%00%0d%0a HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: \xff\xfe\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: a b/../@:99999999\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: " + b"x." * 300 + b"\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: [::1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: a..b\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: " + b"x" * 70 + b"\r\n\r\n",
    (
        b"GET /v1/orgs/acme/stream HTTP/1.1\r\nhost: " + b"x" * 70 + b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-key: x\r\nsec-websocket-version: 13\r\n\r\n"
    ),
    b"GET /healthz?%ff=%00&&&=&=== HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 9" + b"9" * 5000 + b"\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
    b"POST /v1/orgs/acme/notifications HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/orgs/acme/templates HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
    (
        b"GET /v1/orgs/acme/stream HTTP/1.1\r\nhost: x\r\nconnection: \xff, upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-key: \xff\r\nsec-websocket-version: 13\r\n\r\n"
    ),
    (
        b"GET /v1/orgs/acme/stream HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-key: x\r\nsec-websocket-version: 13\r\nsec-websocket-protocol: \xff\r\n\r\n"
    ),
    b"GET /v1/orgs/acme/stream HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: !!!\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
]


@pytest.mark.parametrize("request_bytes", HOSTILE)
async def test_no_bytes_end_the_server_or_get_a_5xx(
    surface: Surface, request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", surface.port) as stream:
        answer = b""
        with trio.fail_after(10):
            try:
                await stream.send_all(request_bytes)
                await stream.send_eof()
                async for piece in stream:
                    answer += piece
            except trio.BrokenResourceError:
                pass

    assert not answer.startswith(b"HTTP/1.1 5"), answer
    assert not any(record.levelname == "ERROR" and "surface" in record.message for record in caplog.records)
    assert (await surface.client.get("/healthz")).status_code == 200


async def test_an_error_inside_one_connection_is_told_by_type_and_ends_it_alone(
    surface: Surface, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await surface.raw(
        b"GET /v1/orgs/acme/stream HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-key: x\r\nsec-websocket-version: 13\r\nsec-websocket-protocol: canary\xff\r\n\r\n"
    )

    assert answer == b""
    assert "a connection failed: " in caplog.text
    assert "UnicodeDecodeError" in caplog.text
    assert "canary" not in caplog.text
    assert (await surface.client.get("/healthz")).status_code == 200


async def test_head_and_body_of_an_answer_leave_together(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    send_all = trio.SocketStream.send_all

    async def noting(stream: trio.SocketStream, data: bytes) -> None:
        written.append(bytes(data))
        await send_all(stream, data)

    async with await trio.open_tcp_stream("127.0.0.1", surface.port) as client:
        await client.send_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        monkeypatch.setattr(trio.SocketStream, "send_all", noting)
        answer = await client.receive_some()

    assert written == [answer]
    assert answer.endswith(b'{"status":"alive"}')


async def test_answers_without_a_body_leave_too(surface: Surface) -> None:
    answer = await surface.raw(b"HEAD /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n")


async def test_a_socket_goes_with_its_peer_and_not_with_the_last_timer(surface: Surface) -> None:
    for request in (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", b"GET /healthz HTTP/1.1\r\n", b""):
        async with await trio.open_tcp_stream("127.0.0.1", surface.port) as client:
            await client.send_all(request)
            await client.send_eof()
            with trio.fail_after(5):
                async for _ in client:
                    pass


async def test_a_connection_that_is_to_be_closed_is_closed_whoever_answers(surface: Surface) -> None:
    (authorization,) = (await surface.authorization()).values()
    for head in (
        "GET /healthz",
        "GET /nowhere",
        "POST /v1/orgs/acme/notifications",
        f"POST /v1/orgs/acme/notifications HTTP/1.1\r\nauthorization: {authorization}\r\ncontent-type: application/json\r\nx:",
    ):
        assert await surface.raw(f"{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}".encode())


async def test_a_promise_to_read_on_is_not_held_back(surface: Surface) -> None:
    (authorization,) = (await surface.authorization()).values()
    async with await trio.open_tcp_stream("127.0.0.1", surface.port) as client:
        await client.send_all(
            f"POST /v1/orgs/acme/notifications HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n"
            "content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n".encode()
        )
        with trio.fail_after(10):
            assert (await client.receive_some()).startswith(b"HTTP/1.1 100 ")
            await client.send_all(b"{}")
            assert (await client.receive_some()).startswith(b"HTTP/1.1 202 ")


async def test_a_peer_that_takes_no_bytes_loses_its_connection(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WRITE_DEADLINE_S", 0.05)
    surface.dispatch.listener_buffer_max = 10_000
    key = await surface.new_key("acme")
    async with websocket(surface.port, receive_buffer_bytes=4096) as stalled:
        await stalled.handshake("/v1/orgs/acme/stream", [(b"authorization", f"Bearer {key}".encode())])
        for _ in range(200):
            surface.dispatch.publish("acme", b"x" * 500_000)

        with trio.fail_after(10):
            while surface.dispatch.listeners["acme"]:  # type: ignore[index]
                await trio.lowlevel.checkpoint()
        assert not await ends_with_a_close_frame(stalled)


async def ends_with_a_close_frame(client: WebsocketClient) -> bool:
    """Whether the server said goodbye before the connection ended."""
    try:
        while True:
            await client.receive()
    except trio.BrokenResourceError:
        return False
    except Exception as closed:
        return getattr(closed, "code", 1006) != 1006


class Closing:
    def __init__(self) -> None:
        self.at_s: float | None = None

    async def __call__(self) -> None:
        self.at_s = trio.current_time()


class Tasks:
    """Hypercorn's task group, as far as it is used."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.spawn = nursery.start_soon
        self.nursery = nursery


async def test_an_idle_connection_is_closed_after_its_time(autojump_clock: trio.testing.MockClock) -> None:
    closing = Closing()
    async with trio.open_nursery() as nursery:
        clock = IdleClock(75, trio.sleep_forever)
        await clock.restart(Tasks(nursery), closing)  # type: ignore[arg-type]

    assert closing.at_s == 75


async def test_idle_time_does_not_count_while_the_connection_is_in_use(autojump_clock: trio.testing.MockClock) -> None:
    closing = Closing()
    async with trio.open_nursery() as nursery:
        tasks = Tasks(nursery)
        clock = IdleClock(75, trio.sleep_forever)
        await clock.stop()
        for _ in range(3):
            await clock.restart(tasks, closing)  # type: ignore[arg-type]
            await trio.sleep(70)
            await clock.stop()
            await trio.sleep(1000)
        assert len(nursery.child_tasks) == 1
        await clock.restart(tasks, closing)  # type: ignore[arg-type]

    assert closing.at_s == 3 * 1070 + 75


@pytest.mark.parametrize("attempt", range(16))
async def test_a_request_at_the_very_last_moment_does_not_make_a_connection_immortal(
    attempt: int, autojump_clock: trio.testing.MockClock
) -> None:
    closing = Closing()
    async with trio.open_nursery() as nursery:
        tasks = Tasks(nursery)
        clock = IdleClock(75, trio.sleep_forever)
        await clock.restart(tasks, closing)  # type: ignore[arg-type]
        # Trio wakes this task and the clock's in the same turn, in either order.
        await trio.sleep(75)
        await clock.stop()
        await trio.sleep(10)
        if closing.at_s is None:
            await clock.restart(tasks, closing)  # type: ignore[arg-type]

    assert closing.at_s in (75, 160)


async def test_a_connection_that_is_over_is_not_closed_again(autojump_clock: trio.testing.MockClock) -> None:
    closing = Closing()
    async with trio.open_nursery() as nursery:
        clock = IdleClock(75, trio.sleep_forever)
        clock.end()
        await clock.restart(Tasks(nursery), closing)  # type: ignore[arg-type]
        await trio.sleep(10)
        clock.end()

    assert (closing.at_s, trio.current_time()) == (None, 10)


@pytest.mark.parametrize("in_use", [True, False])
async def test_a_stop_closes_idle_connections_at_once_and_leaves_the_others(
    in_use: bool, autojump_clock: trio.testing.MockClock
) -> None:
    closing, stopping = Closing(), trio.Event()
    async with trio.open_nursery() as nursery:
        clock = IdleClock(75, stopping.wait)
        await clock.restart(Tasks(nursery), closing)  # type: ignore[arg-type]
        if in_use:
            await clock.stop()
        await trio.sleep(10)
        stopping.set()

    assert closing.at_s == (None if in_use else 10)
