"""Keeping one connection: what callers see while it is made, used, lost and away."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from redis import exceptions

from actors.io.redis_link import Link
from actors.io.redis_pipeline import Pipeline, Traffic
from actors.io.redis_protocol import Reply, pack_one
from actors.io.redis_url import parse_endpoint
from actors.io.redis_wire import Wire
from dispatcher.errors import Overloaded, QueueUnavailable
from redis_peers import Conversation, Peer, gathered, scripted_peer

PING = pack_one(("PING",))
LONG_ENOUGH_S = 5.0
"""A connection that lived so long was a good one."""


class Longest(random.Random):
    """Always the longest delay, and a note of when each was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_s: list[float] = []

    def random(self) -> float:
        self.asked_s.append(trio.current_time())
        return 1.0


def link_to(url: str, *, waiting_max: int = 100, chance: random.Random | None = None) -> Link[Pipeline]:
    endpoint = parse_endpoint(url)

    def make_pipeline(wire: Wire, traffic: Traffic) -> Pipeline:
        return Pipeline(wire, endpoint.address, deadline_s=5, pending_max=100, traffic=traffic)

    return Link(
        endpoint,
        make_pipeline,
        connect_deadline_s=5,
        command_deadline_s=3,
        waiting_max=waiting_max,
        random=chance or Longest(),
    )


async def ping(link: Link[Pipeline]) -> Reply:
    return await (link.pipeline or await link.connected()).call(PING, 1)


async def serve(conversation: Conversation) -> None:
    """Answer PING until the client goes away."""
    while True:
        await conversation.command()
        await conversation.say(b"+PONG\r\n")


@asynccontextmanager
async def kept(link: Link[Pipeline]) -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery, link.kept():
        yield nursery
        nursery.cancel_scope.cancel()


async def test_callers_wait_while_the_first_connection_is_made(tmp_path: Path) -> None:
    async with scripted_peer(tmp_path) as peer:
        link = link_to(peer.url)
        async with kept(link) as nursery:
            answers: list[list[Reply]] = []

            async def ask() -> None:
                answers.append(await gathered(lambda: ping(link), lambda: ping(link)))

            nursery.start_soon(ask)
            conversation = await peer.accept()
            await trio.testing.wait_all_tasks_blocked()
            assert link.statistics().waiting == 2
            await conversation.greet()
            for _ in range(2):
                await conversation.command()
                await conversation.say(b"+PONG\r\n")
            await trio.testing.wait_all_tasks_blocked()

            assert answers == [[b"PONG", b"PONG"]]
            assert link.statistics().connected
            assert link.statistics().waiting == 0


async def test_a_caller_waits_no_longer_than_its_deadline(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_peer(tmp_path) as peer:
        link = link_to(peer.url)
        async with kept(link):
            started_s = trio.current_time()
            with pytest.raises(QueueUnavailable) as failure:
                await ping(link)

            assert trio.current_time() - started_s == pytest.approx(3)
            assert isinstance(failure.value.__cause__, exceptions.TimeoutError)
            assert link.statistics().waiting == 0


async def test_no_more_callers_wait_than_the_bound_allows(tmp_path: Path) -> None:
    async with scripted_peer(tmp_path) as peer:
        link = link_to(peer.url, waiting_max=1)
        async with kept(link) as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(gathered, lambda: refused(link, scope))
                await ping(link)
            assert scope.cancelled_caught  # and its place is free again
            assert link.statistics().waiting == 0


async def refused(link: Link[Pipeline], scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(Overloaded):
        await ping(link)
    scope.cancel()


async def test_while_the_server_is_away_callers_fail_at_once_with_the_reason(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    link = link_to(f"unix://{tmp_path}/nobody.sock")
    async with kept(link):
        with pytest.raises(QueueUnavailable):
            await ping(link)
        await trio.sleep(60)
        started_s = trio.current_time()
        with pytest.raises(QueueUnavailable, match="ConnectionError") as failure:
            await ping(link)

        assert trio.current_time() == started_s
        assert isinstance(failure.value.__cause__, exceptions.ConnectionError)
        assert link.statistics().down_reason == "ConnectionError"


async def test_attempts_grow_apart_up_to_a_cap(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    chance = Longest()
    async with kept(link_to(f"unix://{tmp_path}/nobody.sock", chance=chance)):
        await trio.sleep(60)

    pauses = [later - sooner for sooner, later in zip(chance.asked_s, chance.asked_s[1:], strict=False)]
    assert pauses[:8] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0])
    assert pauses[8:] == pytest.approx([5.0] * len(pauses[8:]))


async def test_the_server_that_comes_back_is_found(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_peer(tmp_path) as peer:
        link = link_to(peer.url)
        away = peer.path.rename(tmp_path / "away.sock")
        async with kept(link) as nursery:
            await trio.sleep(60)
            assert not link.statistics().connected
            away.rename(peer.path)
            nursery.start_soon(serve, await peer.welcome())
            await trio.testing.wait_all_tasks_blocked()

            assert await ping(link) == b"PONG"
            assert link.statistics().down_reason is None
            assert link.statistics().connections_total == 1


async def test_after_a_good_connection_is_lost_callers_wait_for_the_next(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with scripted_peer(tmp_path) as peer:
        link = link_to(peer.url)
        async with kept(link) as nursery:
            await lose_one(peer, after_s=LONG_ENOUGH_S)
            nursery.start_soon(welcome_and_serve, peer)

            assert await ping(link) == b"PONG"
            assert link.statistics().connections_total == 2


async def lose_one(peer: Peer, *, after_s: float) -> None:
    conversation = await peer.welcome()
    await trio.sleep(after_s)
    await conversation.stream.aclose()
    await trio.testing.wait_all_tasks_blocked()


async def welcome_and_serve(peer: Peer) -> None:
    await serve(await peer.welcome())


async def test_who_calls_between_the_loss_and_the_next_connection_waits_too(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with scripted_peer(tmp_path) as peer:
        link = link_to(peer.url)
        async with kept(link) as nursery:
            await peer.welcome()
            lost = await link.connected()
            await trio.sleep(LONG_ENOUGH_S)
            lost.lose(exceptions.ConnectionError("as if the reader had just seen it"))
            nursery.start_soon(welcome_and_serve, peer)

            assert await link.connected() is not lost


async def test_a_server_that_turns_everybody_away_is_not_hammered(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_peer(tmp_path) as peer:
        chance = Longest()
        link = link_to(peer.url, chance=chance)
        async with kept(link):
            for _ in range(8):
                await lose_one(peer, after_s=0)
            with pytest.raises(QueueUnavailable):
                await ping(link)

    pauses = [later - sooner for sooner, later in zip(chance.asked_s, chance.asked_s[1:], strict=False)]
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2])


async def test_the_exception_of_the_body_passes_unwrapped(tmp_path: Path) -> None:
    error = ValueError("the body's own")
    with pytest.raises(ValueError, match="own") as passed:
        async with link_to(f"unix://{tmp_path}/nobody.sock").kept():
            raise error

    assert passed.value is error


async def test_a_cancelled_body_ends_the_link_and_its_connection(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_peer(tmp_path) as peer:
        link = link_to(peer.url)
        with trio.CancelScope() as scope:
            async with link.kept():
                conversation = await peer.welcome()
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await trio.sleep_forever()

        await conversation.closed_by_client()
        started_s = trio.current_time()
        with pytest.raises(QueueUnavailable, match="unavailable"):
            await link.connected()
        assert trio.current_time() == started_s


async def test_a_fault_of_the_link_itself_ends_the_body(tmp_path: Path) -> None:
    class Broken(random.Random):
        def random(self) -> float:
            raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError):
        async with link_to(f"unix://{tmp_path}/nobody.sock", chance=Broken()).kept():
            await trio.sleep_forever()


async def test_an_outage_is_logged_once_and_names_no_more_than_the_kind_of_error(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "actors.io.redis_link"):
        async with kept(link_to(f"unix://someone:s3cret@{tmp_path}/nobody.sock")):
            await trio.sleep(60)

    assert [record.getMessage() for record in caplog.records] == ["Redis is unavailable: ConnectionError"]
