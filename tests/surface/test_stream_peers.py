"""Listeners that misbehave without a word: what they cost is bounded, and their place is free again soon (scenario 38).

The clock goes on as always, and jumps when a test says so.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.store.api_keys import Scope
from dispatcher.config import SurfaceConfig
from dispatcher_http import connection
from dispatcher_http.connection import PONG_DEADLINE_S
from dispatcher_http.server import KEEP_ALIVE_S, PING_S
from surface_doubles import Surface, WebsocketClient, websocket
from vanishing_peers import line_to

PATH = "/v1/orgs/acme/stream"
METRIC = "dispatcher_http_listeners"
LEEWAY_S = 15.0
"""For a busy machine."""
PATIENCE_S = 30.0


@pytest.fixture
def surface_config() -> SurfaceConfig:
    """Room for one listener."""
    return SurfaceConfig(port=0, listeners_max=1)


@pytest.fixture
def clock(mock_clock: MockClock) -> MockClock:
    """Real seconds, and jumps."""
    mock_clock.rate = 1.0
    return mock_clock


async def shake_hands(surface: Surface, client: WebsocketClient) -> None:
    key = await surface.new_key("acme", Scope.STREAM_READ)
    await client.handshake(PATH, [(b"authorization", f"Bearer {key}".encode())])


def listeners(surface: Surface) -> float | None:
    return surface.services.registry.get_sample_value(METRIC)


async def until_nobody_listens(surface: Surface) -> None:
    with trio.fail_after(PATIENCE_S):
        while any(surface.dispatch.listeners.values()) or listeners(surface):
            await trio.lowlevel.checkpoint()


async def pass_time(clock: MockClock, seconds: float) -> None:
    """Let time pass, and let everybody do what is due."""
    clock.jump(seconds)
    await wait_all_tasks_blocked(0.01)


@asynccontextmanager
async def attentive(client: WebsocketClient) -> AsyncIterator[list[str]]:
    """A client that reads all along, and so answers pings; what it heard."""
    heard: list[str] = []

    async def listen() -> None:
        while True:
            heard.append(await client.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        yield heard
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("busy", [False, True])
async def test_a_listener_that_vanishes_behind_a_proxy_frees_its_place(surface: Surface, clock: MockClock, busy: bool) -> None:
    """Its proxy goes on taking bytes, so neither the kernel nor a write ever fails: only the pong is missing."""
    surface.dispatch.listener_buffer_max = 1000
    async with line_to(surface.port) as line, websocket(line.port) as client:
        await shake_hands(surface, client)
        surface.dispatch.publish("acme", b"1")
        assert await client.receive() == "1"
        await wait_all_tasks_blocked(0.01)

        line.lose_the_client()
        for number in range(500 if busy else 0):
            surface.dispatch.publish("acme", b"%d" % number)
        await pass_time(clock, PING_S)
        await pass_time(clock, PONG_DEADLINE_S - LEEWAY_S)
        assert listeners(surface) == 1
        await pass_time(clock, LEEWAY_S)
        await until_nobody_listens(surface)

        await line.ended.wait()
        async with websocket(surface.port) as next_one:
            await shake_hands(surface, next_one)
            surface.dispatch.publish("acme", b"2")
            assert await next_one.receive() == "2"


async def test_a_listener_that_never_answers_a_single_ping_is_one_that_vanished(surface: Surface, clock: MockClock) -> None:
    async with websocket(surface.port) as client:
        await shake_hands(surface, client)
        assert listeners(surface) == 1
        await pass_time(clock, PING_S + PONG_DEADLINE_S)
        await until_nobody_listens(surface)


async def test_a_listener_that_answers_its_pings_may_be_silent_for_ever(surface: Surface, clock: MockClock) -> None:
    async with websocket(surface.port) as client:
        await shake_hands(surface, client)
        async with attentive(client) as heard:
            for number in range(10):
                await pass_time(clock, PING_S)
                while client.pings <= number:
                    await trio.lowlevel.checkpoint()
            surface.dispatch.publish("acme", b"1")
            while not heard:
                await trio.lowlevel.checkpoint()
    assert heard == ["1"]


async def test_a_connection_that_is_no_websocket_knows_no_pings(surface: Surface, clock: MockClock) -> None:
    """An idle connection of a producer is kept although it says nothing."""
    async with await trio.open_tcp_stream("127.0.0.1", surface.port) as stream:
        for _ in range(2):
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 200")
            await pass_time(clock, KEEP_ALIVE_S - LEEWAY_S)


async def test_what_a_reader_that_stops_holds_in_memory_is_bounded(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is announced: its buffer, and the piece that is on its way. Then it loses its connection."""
    surface.dispatch.listener_buffer_max = 20
    event_bytes, announced = 200_000, 400
    async with websocket(surface.port, receive_buffer_bytes=4096) as stalled:
        await shake_hands(surface, stalled)
        monkeypatch.setattr(connection, "WRITE_DEADLINE_S", 0.2)
        tracemalloc.start()
        try:
            for number in range(announced):
                surface.dispatch.publish("acme", b"%06d" % number + bytes([48 + number % 10]) * event_bytes)
                await trio.lowlevel.checkpoint()
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert peak_bytes < announced / 8 * event_bytes
        await until_nobody_listens(surface)
