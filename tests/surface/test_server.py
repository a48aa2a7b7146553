"""Starting and stopping: one clear line when it cannot listen, and nobody cut off who was being served."""

from __future__ import annotations

from functools import partial

import httpx
import pytest
import trio
from attrs import evolve

from dispatcher.config import SurfaceConfig
from dispatcher.errors import ConfigError
from dispatcher_http.server import hypercorn_config, serve
from surface_doubles import Closed, Surface, websocket

PATH = "/v1/orgs/acme/notifications"


async def test_an_address_in_use_is_one_line_that_says_what_to_change(surface: Surface) -> None:
    config = evolve(surface.services.config, port=surface.port)

    with pytest.raises(ConfigError) as error:
        await serve(surface.app, config, trio.Event(), grace_s=1)

    message = str(error.value)
    assert str(surface.port) in message
    assert "DISPATCHER_PORT" in message
    assert "\n" not in message


async def test_an_address_that_is_not_ours_is_one_line_too(surface: Surface) -> None:
    with pytest.raises(ConfigError, match="DISPATCHER_HOST"):
        await serve(surface.app, SurfaceConfig(host="192.0.2.1", port=0), trio.Event(), grace_s=1)
    with pytest.raises(ConfigError, match="DISPATCHER_HOST"):
        await serve(surface.app, SurfaceConfig(host="no.such.host.invalid", port=0), trio.Event(), grace_s=1)


async def test_a_request_under_way_is_answered_and_new_ones_find_nobody(surface: Surface) -> None:
    headers = await surface.authorization() | {"content-type": "application/json"}
    arrived, go_on = trio.Event(), trio.Event()
    answers: list[httpx.Response] = []

    async def hold() -> None:
        arrived.set()
        await go_on.wait()

    surface.dispatch.accepting = hold

    async def post() -> None:
        answers.append(await surface.client.post(PATH, content=b"{}", headers=headers))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(post)
        await arrived.wait()
        surface.stop.set()
        await surface.app.stopping.wait()
        with pytest.raises(httpx.ConnectError):
            await surface.client.get("/healthz")
        go_on.set()

    assert [answer.status_code for answer in answers] == [202]


async def stopped(surface: Surface, stop: trio.Event, grace_s: float, *, task_status: trio.TaskStatus[int]) -> None:
    await serve(surface.app, surface.services.config, stop, grace_s=grace_s, task_status=task_status)


async def test_an_idle_connection_does_not_hold_up_a_stop(surface: Surface) -> None:
    stop = trio.Event()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(partial(stopped, surface, stop, 100))
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                assert (await client.get("/healthz")).status_code == 200
                stop.set()
                while nursery.child_tasks:
                    await trio.lowlevel.checkpoint()


async def test_a_request_that_does_not_end_is_cut_after_the_grace(surface: Surface) -> None:
    headers = await surface.authorization() | {"content-type": "application/json"}
    stop = trio.Event()

    async def hold() -> None:
        stop.set()
        await trio.sleep_forever()

    surface.dispatch.accepting = hold
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(partial(stopped, surface, stop, 0.05))
            with pytest.raises(httpx.RemoteProtocolError):
                await surface.client.post(f"http://127.0.0.1:{port}{PATH}", content=b"{}", headers=headers)


async def test_a_listener_that_takes_no_bytes_does_not_hold_up_a_stop(surface: Surface) -> None:
    surface.dispatch.listener_buffer_max = 10_000
    key = await surface.new_key("acme")
    stop = trio.Event()
    with trio.fail_after(5):  # less than the deadline of a write
        async with trio.open_nursery() as nursery:
            port = await nursery.start(partial(stopped, surface, stop, 0.05))
            async with websocket(port, receive_buffer_bytes=4096) as stalled:
                await stalled.handshake("/v1/orgs/acme/stream", [(b"authorization", f"Bearer {key}".encode())])
                for _ in range(100):
                    surface.dispatch.publish("acme", b"x" * 500_000)
                stop.set()
                while nursery.child_tasks:
                    await trio.lowlevel.checkpoint()


async def test_a_listener_is_pinged(surface: Surface) -> None:
    key = await surface.new_key("acme")
    async with websocket(surface.port) as client:
        await client.handshake("/v1/orgs/acme/stream", [(b"authorization", f"Bearer {key}".encode())])
        surface.dispatch.publish("acme", b"1")
        await client.receive()
        surface.stop.set()
        with pytest.raises(Closed):
            await client.receive()
        assert client.pings > 0


def test_hypercorn_tells_nobody_what_it_is_and_logs_no_requests() -> None:
    config = hypercorn_config()

    assert not config.include_server_header
    assert config.accesslog is None
    assert config.websocket_ping_interval == 20
