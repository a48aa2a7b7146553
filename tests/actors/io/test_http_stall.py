"""A process that stood still sends nothing late, and gives up no answer that came meanwhile. A jump of the clock is the stall."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.io import http_pool
from actors.io.http_dial import dial
from actors.io.http_pool import open_http_pool
from actors.io.http_terms import Deadlines, NotSent
from http_peer import OK, Peer, peers

DEADLINES = Deadlines(20.0, 20.0, 20.0, 20.0, 20.0)
STALL_S = 40.0


async def test_a_request_whose_time_passed_while_it_was_being_connected_is_not_sent(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then another process may have taken it over."""
    heard: list[bytes] = []

    async def script(peer: Peer) -> None:
        heard.append(await peer.stream.receive_some(100))

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


async def test_an_answer_that_came_while_we_stood_still_counts(mock_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        while await peer.request() is not None:
            mock_clock.jump(STALL_S)  # the answer leaves in the same breath
            await peer.send(OK)

    async with peers(script) as server, open_http_pool() as pool:
        for _ in range(30):
            assert (await pool.exchange(server.post(), DEADLINES)).status == 200
