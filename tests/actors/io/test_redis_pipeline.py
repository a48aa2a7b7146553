"""Many callers on one wire. The server's end is in the test's hands: replies come, or stay away, as each test likes."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from attrs import define
from hypothesis import given
from hypothesis import strategies as st
from redis import exceptions

from actors.io.redis_pipeline import UNSENT_BYTES_MAX, Pipeline, Traffic
from actors.io.redis_protocol import Reply, pack_many, pack_one
from actors.io.redis_wire import Wire
from dispatcher.errors import Overloaded, QueueUnavailable
from redis_peers import Conversation, gathered

DEADLINE_S = 5.0


@define(eq=False)
class Setting:
    """A pipeline that is served, the other end of its wire, and why serving ended."""

    pipeline: Pipeline
    server: Conversation
    traffic: Traffic
    scope: trio.CancelScope
    ended: trio.Event
    reason: Exception | None = None

    async def echo(self, text: str) -> Reply:
        return await self.pipeline.call(pack_one(("ECHO", text)), 1)

    def echoes(self, *texts: str) -> list[Callable[[], Awaitable[Reply]]]:
        return [lambda text=text: self.echo(text) for text in texts]  # type: ignore[misc]

    async def answer(self, count: int) -> None:
        """Answer so many ECHO commands."""
        for command in await self.server.commands(count):
            await self.server.say(b"$%d\r\n%s\r\n" % (len(command[1]), command[1]))


@asynccontextmanager
async def served(pending_max: int = 1_000) -> AsyncIterator[Setting]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    server = Conversation(trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
    traffic = Traffic()
    pipeline = Pipeline(Wire(ours, "here", None), "here", deadline_s=DEADLINE_S, pending_max=pending_max, traffic=traffic)
    setting = Setting(pipeline, server, traffic, trio.CancelScope(), trio.Event())

    async def serve() -> None:
        with setting.scope:
            setting.reason = await pipeline.serve()
        setting.ended.set()

    async with server.stream, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked()
        yield setting
        setting.scope.cancel()


async def test_replies_go_to_their_callers_in_order() -> None:
    async with served() as s, trio.open_nursery() as nursery:
        nursery.start_soon(s.answer, 3)

        assert await gathered(*s.echoes("a", "b", "c")) == [b"a", b"b", b"c"]


async def test_what_is_called_in_one_tick_leaves_in_one_send() -> None:
    async with served() as s, trio.open_nursery() as nursery:
        for i in range(20):
            nursery.start_soon(s.echo, str(i))

        assert {command[1] for command in await s.server.commands(20)} == {b"%d" % i for i in range(20)}
        assert s.server.chunks == 1
        assert (s.traffic.commands, s.traffic.sends) == (20, 1)
        s.scope.cancel()
        nursery.cancel_scope.cancel()


async def test_a_batch_gets_the_list_of_its_replies_whatever_pieces_they_come_in() -> None:
    async with served() as s, trio.open_nursery() as nursery:
        replies: list[Reply] = []

        async def ask() -> None:
            replies.append(await s.pipeline.call(pack_many([("GET", "k")] * 3), 3))

        nursery.start_soon(ask)
        await s.server.commands(3)
        for piece in (b"$1\r\na\r\n$1", b"\r\nb\r\n", b"-ERR c\r\n"):
            await s.server.say(piece)
            await trio.testing.wait_all_tasks_blocked()

    assert replies[0][:2] == [b"a", b"b"]
    assert isinstance(replies[0][2], exceptions.ResponseError)


async def test_the_reply_of_a_cancelled_call_is_not_handed_to_the_next_caller() -> None:
    async with served() as s, trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(s.echo, "first")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(cancel_when_blocked, scope)
            await s.echo("abandoned")
        assert scope.cancelled_caught
        nursery.start_soon(s.answer, 3)

        assert await s.echo("last") == b"last"
        assert s.pipeline.pending == 0


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


async def test_a_batch_that_is_cancelled_between_two_of_its_replies_takes_the_rest_along() -> None:
    async with served() as s, trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def abandoned() -> None:
            with scope:
                await s.pipeline.call(pack_many([("ECHO", "x"), ("ECHO", "y"), ("ECHO", "z")]), 3)

        nursery.start_soon(abandoned)
        await s.answer(1)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        nursery.start_soon(s.answer, 3)

        assert await s.echo("mine") == b"mine"


async def test_a_call_that_is_cancelled_on_entry_sends_nothing() -> None:
    async with served() as s:
        with trio.CancelScope() as scope:
            scope.cancel()
            await s.echo("never")
        assert scope.cancelled_caught
        assert (s.traffic.commands, s.pipeline.pending) == (0, 0)


class Fate:
    """What becomes of one caller: it starts after some turns of the scheduler, and is cancelled after more, or never."""

    def __init__(self, start: int, patience: int | None, size: int) -> None:
        self.start, self.patience, self.size = start, patience, size

    def __repr__(self) -> str:
        return f"Fate({self.start}, {self.patience}, {self.size})"


FATES = st.builds(Fate, st.integers(0, 6), st.none() | st.integers(0, 12), st.integers(1, 4))


@given(fates=st.lists(FATES, min_size=1, max_size=25), pieces=st.lists(st.integers(1, 40), min_size=1))
def test_among_random_cancellations_every_reply_is_its_callers_own(fates: list[Fate], pieces: list[int]) -> None:
    async def main() -> None:
        survivors = 0

        async def serve(server: Conversation) -> None:
            # Replies trickle in pieces of random size, in step with the scheduler's turns.
            turn = 0
            while True:
                command = await server.command()
                reply = b"$%d\r\n%s\r\n" % (len(command[1]), command[1])
                while reply:
                    size = pieces[turn % len(pieces)]
                    await server.say(reply[:size])
                    reply = reply[size:]
                    turn += 1

        async def call(number: int, fate: Fate, s: Setting) -> None:
            nonlocal survivors
            await turns(fate.start)
            names = [f"{number}.{i}" for i in range(fate.size)]
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    if fate.patience is not None:
                        nursery.start_soon(cancel_after, fate.patience, scope)
                    reply = await s.pipeline.call(pack_many([("ECHO", name) for name in names]), len(names))
                    nursery.cancel_scope.cancel()
                assert (reply if fate.size > 1 else [reply]) == [name.encode() for name in names]
                survivors += 1

        async with served() as s:
            async with trio.open_nursery() as peers:
                peers.start_soon(serve, s.server)
                async with trio.open_nursery() as nursery:
                    for number, fate in enumerate(fates):
                        nursery.start_soon(call, number, fate, s)
                assert await s.echo("last") == b"last"
                peers.cancel_scope.cancel()
            assert s.pipeline.pending == 0
            assert survivors >= sum(fate.patience is None for fate in fates)

    trio.run(main)


async def turns(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


async def cancel_after(count: int, scope: trio.CancelScope) -> None:
    await turns(count)
    scope.cancel()


async def test_a_silent_peer_is_dropped_at_the_deadline_and_every_caller_told(mock_clock: trio.testing.MockClock) -> None:
    async with served() as s, trio.open_nursery() as nursery:
        answers: list[list[Reply]] = []

        async def ask() -> None:
            answers.append(await gathered(*s.echoes("a", "b")))

        nursery.start_soon(ask)
        await s.server.commands(2)
        mock_clock.jump(DEADLINE_S)
        await s.ended.wait()

    assert isinstance(s.reason, exceptions.TimeoutError)
    for answer in answers[0]:
        assert isinstance(answer, QueueUnavailable)
        assert answer.__cause__ is s.reason


async def test_the_deadline_counts_from_the_oldest_call_without_a_reply(mock_clock: trio.testing.MockClock) -> None:
    async with served() as s, trio.open_nursery() as nursery:
        nursery.start_soon(gathered, *s.echoes("early"))
        await s.server.command()
        mock_clock.jump(DEADLINE_S - 1)
        nursery.start_soon(gathered, *s.echoes("late"))
        await s.server.command()
        await s.server.say(b"$5\r\nearly\r\n")
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(DEADLINE_S - 1)
        await trio.testing.wait_all_tasks_blocked()
        assert s.reason is None

        mock_clock.jump(1)
        await s.ended.wait()
        assert isinstance(s.reason, exceptions.TimeoutError)


async def test_an_idle_connection_has_no_deadline(mock_clock: trio.testing.MockClock) -> None:
    async with served() as s, trio.open_nursery() as nursery:
        for _ in range(5):
            mock_clock.jump(DEADLINE_S)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(s.answer, 1)

        assert await s.echo("still here") == b"still here"


async def test_a_reply_that_came_while_we_did_not_run_beats_the_deadline(mock_clock: trio.testing.MockClock) -> None:
    replies: list[Reply] = []
    for _ in range(30):  # the scheduler's order is random
        async with served() as s, trio.open_nursery() as nursery:

            async def ask(s: Setting = s) -> None:
                replies.append(await s.echo("x"))

            nursery.start_soon(ask)
            await s.server.command()
            # Without a checkpoint in between: reply and deadline find the scheduler at the same time.
            assert isinstance(s.server.stream, trio.SocketStream)
            with socket.socket(fileno=socket.dup(s.server.stream.socket.fileno())) as raw:
                raw.send(b"$1\r\nx\r\n")
            mock_clock.jump(DEADLINE_S)
        assert s.reason is None

    assert replies == [b"x"] * 30


async def test_beyond_the_bound_calls_are_refused_and_nothing_is_sent() -> None:
    async with served(pending_max=3) as s, trio.open_nursery() as nursery:
        nursery.start_soon(gathered, *s.echoes("a", "b"))
        await trio.testing.wait_all_tasks_blocked()

        with pytest.raises(Overloaded):
            await s.pipeline.call(pack_many([("ECHO", "c"), ("ECHO", "d")]), 2)
        nursery.start_soon(s.answer, 3)
        assert await s.echo("e") == b"e"
        assert s.traffic.commands == 3


async def test_an_abandoned_call_counts_until_its_reply_has_come() -> None:
    async with served(pending_max=1) as s, trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when_blocked, scope)
            await s.echo("abandoned")

        with trio.testing.assert_checkpoints(), pytest.raises(Overloaded):
            await s.echo("refused")
        await s.answer(1)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(s.answer, 1)
        assert await s.echo("taken") == b"taken"


async def test_a_large_batch_is_taken_when_nothing_is_pending() -> None:
    async with served(pending_max=3) as s, trio.open_nursery() as nursery:
        nursery.start_soon(s.answer, 10)

        assert len(await s.pipeline.call(pack_many([("ECHO", "x")] * 10), 10)) == 10


async def test_unsent_bytes_are_bounded_too() -> None:
    async with served() as s, trio.open_nursery() as nursery:
        # The writer is stuck with the first, because the peer does not read; the second waits behind it.
        for _ in range(2):
            nursery.start_soon(gathered, lambda: s.pipeline.call(b"x" * (UNSENT_BYTES_MAX + 1), 1))
            await trio.testing.wait_all_tasks_blocked()

        with pytest.raises(Overloaded):
            await s.echo("refused")
        s.scope.cancel()


async def test_only_bytes_that_still_wait_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.io.redis_pipeline.UNSENT_BYTES_MAX", 1_000)
    async with served() as s, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(s.echo, "x" * 900)
            await s.server.command()
        assert s.pipeline.pending == 5
        nursery.cancel_scope.cancel()


async def test_a_lost_connection_fails_every_call_once_with_the_reason() -> None:
    async with served() as s, trio.open_nursery() as nursery:
        answers: list[list[Reply]] = []

        async def ask() -> None:
            answers.append(await gathered(*s.echoes("a", "b", "c")))

        nursery.start_soon(ask)
        await s.answer(1)
        await s.server.stream.aclose()
        await s.ended.wait()

    done, *failed = sorted(answers[0], key=lambda answer: isinstance(answer, Exception))
    assert done in (b"a", b"b", b"c")
    assert isinstance(s.reason, exceptions.ConnectionError)
    assert [(type(f), f.__cause__) for f in failed] == [(QueueUnavailable, s.reason)] * 2
    assert failed[0] is not failed[1]


async def test_a_call_on_a_lost_connection_fails_at_once() -> None:
    async with served() as s:
        await s.server.stream.aclose()
        await s.ended.wait()

        # A caller that tries again and again must not keep the others from running.
        with trio.testing.assert_checkpoints(), pytest.raises(QueueUnavailable):
            await s.echo("too late")


async def test_whoever_waits_when_serving_is_cancelled_is_told() -> None:
    async with served() as s, trio.open_nursery() as nursery:
        answers: list[list[Reply]] = []

        async def ask() -> None:
            answers.append(await gathered(*s.echoes("a")))

        nursery.start_soon(ask)
        await s.server.command()
        s.scope.cancel()

    assert isinstance(answers[0][0], QueueUnavailable)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (b"+OK\r\n+NOBODY ASKED\r\n", exceptions.InvalidResponse),
        (b"HTTP/1.1 400 Bad Request\r\n", exceptions.InvalidResponse),
        (b"-READONLY You can't write against a read only replica.\r\n", exceptions.ReadOnlyError),
        (b"-NOAUTH Authentication required.\r\n", exceptions.AuthenticationError),
    ],
)
async def test_a_peer_that_is_of_no_use_is_dropped(words: bytes, reason: type[Exception]) -> None:
    async with served() as s, trio.open_nursery() as nursery:
        nursery.start_soon(gathered, *s.echoes("x"))
        await s.server.command()
        await s.server.say(words)
        await s.ended.wait()

    assert type(s.reason) is reason


async def test_replies_that_came_along_with_a_readonly_error_still_reach_their_callers() -> None:
    async with served() as s, trio.open_nursery() as nursery:
        answers: list[list[Reply]] = []

        async def ask() -> None:
            answers.append(await gathered(*s.echoes("a", "b", "c")))

        nursery.start_soon(ask)
        await s.server.commands(3)
        await s.server.say(b"+1\r\n", b"-READONLY replica\r\n", b"+3\r\n")
        await s.ended.wait()

    assert {b"1", b"3"} < {answer if isinstance(answer, bytes) else type(answer) for answer in answers[0]}
