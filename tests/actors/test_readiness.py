"""Whoever asks whether the servers answer has an answer within a second. On a virtual clock."""

from __future__ import annotations

from typing import cast

import pytest
import trio
import trio.testing

from actors.io.postgres import CANCEL_DEADLINE_S, Pool
from actors.io.redis import Redis
from actors.readiness import ANSWER_S, Readiness
from dispatcher.errors import QueueUnavailable, StoreUnavailable


class Servers:
    """Both of them, as their clients see them."""

    def __init__(self) -> None:
        self.silent = False
        self.away = False
        self.asked = 0

    async def fetch(self, _sql: str, *, deadline_s: float) -> list[tuple[int]]:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.silent:  # the statement is given up at the deadline, and taken back at a server that does not hear that either
            await trio.sleep(deadline_s)
            with trio.CancelScope(shield=True):
                await trio.sleep(CANCEL_DEADLINE_S)
            raise StoreUnavailable("Postgres did not answer")
        return [(1,)]

    async def execute(self, _command: str) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise QueueUnavailable("away")
        return b"PONG"


@pytest.fixture
async def servers() -> Servers:
    return Servers()


@pytest.fixture
async def readiness(servers: Servers, nursery: trio.Nursery) -> Readiness:
    readiness = Readiness(cast("Pool", servers), cast("Redis", servers))
    nursery.start_soon(readiness.run)
    await trio.testing.wait_all_tasks_blocked()
    return readiness


async def test_each_server_is_told_apart(autojump_clock: trio.testing.MockClock, servers: Servers, readiness: Readiness) -> None:
    well = await readiness.ready()
    servers.away = True
    ill = await readiness.ready()

    assert well == {"postgres": True, "redis": True}
    assert ill == {"postgres": True, "redis": False}


async def test_a_silent_server_keeps_nobody_waiting_for_longer_than_it_is_asked(
    autojump_clock: trio.testing.MockClock, servers: Servers, readiness: Readiness
) -> None:
    servers.silent = True
    began_s = trio.current_time()
    answers = await readiness.ready()

    assert trio.current_time() - began_s == pytest.approx(ANSWER_S)
    assert answers == {"postgres": False, "redis": True}


async def test_however_many_ask_a_server_is_asked_once_at_a_time(
    autojump_clock: trio.testing.MockClock, servers: Servers, readiness: Readiness
) -> None:
    servers.silent = True
    answers = []

    async def ask() -> None:
        answers.append((await readiness.ready())["postgres"])

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
    servers.silent = False
    await trio.sleep(ANSWER_S + CANCEL_DEADLINE_S)
    asked, again = servers.asked, await readiness.ready()

    assert answers == [False] * 20
    assert asked == 1
    assert again == {"postgres": True, "redis": True}


async def test_before_it_runs_nothing_is_ready(servers: Servers) -> None:
    readiness = Readiness(cast("Pool", servers), cast("Redis", servers))

    assert await readiness.ready() == {"postgres": False, "redis": False}
