"""A process that stood still sends nothing late, and gives up no answer that came meanwhile. A jump of the clock is the stall."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.io import http_pool
from actors.io.http_dial import dial
from actors.io.http_pool import open_http_pool
from actors.io.http_terms import Deadlines, NotSent
from actors.io.http_watch import Watch
from http_peer import Peer, peers

DEADLINES = Deadlines(20.0, 20.0, 20.0, 20.0, 20.0)
STALL_S = 40.0


async def test_a_request_whose_time_passed_while_it_was_being_connected_is_not_sent(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then another process may have taken it over."""
    heard: list[bytes] = []

    async def script(peer: Peer) -> None:
        heard.append(bytes(await peer.stream.receive_some(100)))

    async def dial_and_stand_still(*args: Any) -> Any:
        try:
            return await dial(*args)
        finally:
            mock_clock.jump(STALL_S)

    monkeypatch.setattr(http_pool, "dial", dial_and_stand_still)
    async with peers(script) as server, open_http_pool() as pool:
        with pytest.raises(NotSent) as failure:
            await pool.exchange(server.post(), DEADLINES)
        await trio.testing.wait_all_tasks_blocked()
        connections = pool.statistics().connections

    assert failure.value.code == "timeout_connect"
    assert connections == 0
    assert heard in ([], [b""])


async def test_what_arrives_at_the_moment_of_a_deadline_is_read_before_anybody_is_interrupted(autojump_clock: MockClock) -> None:
    """A stopped process comes back with its deadlines over and nothing heard of its sockets yet."""
    for _ in range(20):
        watch, near, far = Watch(), *trio.socket.socketpair()
        deadline_s = trio.current_time() + 1.0
        read: list[bytes] = []
        known: list[list[bytes]] = []

        async def receive(near: trio.socket.SocketType = near, read: list[bytes] = read) -> None:
            read.append(await near.recv(10))

        def look(_: float, watch: Watch = watch, read: list[bytes] = read, known: list[list[bytes]] = known) -> float:
            known.append(list(read))
            watch.stop()
            return inf

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(watch.run, look)
            watch.by(deadline_s)
            await trio.sleep_until(deadline_s)
            await far.send(b"answer")
        near.close()
        far.close()

        assert known == [[b"answer"]]
