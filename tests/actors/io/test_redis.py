"""The client as its callers see it, against a real server that is restarted, flushed, demoted and cut off."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import exceptions

from actors.io.redis import Encodable, Redis, Script, ScriptCall, open_redis, parse_endpoint
from dispatcher.errors import ConfigError, QueueUnavailable
from house import Tls
from redis_peers import gathered, own_valkey, scripted_peer, tls_front

ADD = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
NAME = Script("return {KEYS[1], ARGV[1]}")


def client(url: str, *, command_deadline_s: float = 10, pending_max: int = 10_000) -> AbstractAsyncContextManager[Redis]:
    return open_redis(
        url, connect_deadline_s=10, command_deadline_s=command_deadline_s, random=random.Random(7), pending_max=pending_max
    )


async def until_answered(redis: Redis, *command: Encodable) -> object:
    """Repeat a command until the server serves again."""
    with trio.fail_after(30):
        while True:
            try:
                return await redis.execute(*command)
            except QueueUnavailable:
                await trio.sleep(0.01)


async def test_a_command_returns_its_reply_as_bytes_and_numbers(redis_url: str) -> None:
    async with client(redis_url) as redis:
        assert await redis.execute("SET", "k", b"\x00\xff") == b"OK"
        assert await redis.execute("GET", "k") == b"\x00\xff"
        assert await redis.execute("APPEND", "k", "é") == 4
        assert await redis.execute("GET", "nothing") is None


async def test_an_error_reply_is_raised(redis_url: str) -> None:
    async with client(redis_url) as redis:
        await redis.execute("SET", "k", "v")
        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE|wrong kind"):
            await redis.execute("LPUSH", "k", "v")

        assert await redis.execute("GET", "k") == b"v"


async def test_a_batch_holds_error_replies_as_values(redis_url: str) -> None:
    async with client(redis_url) as redis:
        set_, wrong, got = await redis.execute_many([("SET", "k", "v"), ["LPUSH", "k", "v"], ("GET", "k")])

    assert (set_, got) == (b"OK", b"v")
    assert isinstance(wrong, exceptions.ResponseError)


async def test_a_batch_of_one_and_of_none_are_lists(redis_url: str) -> None:
    async with client(redis_url) as redis:
        assert await redis.execute_many([("PING",)]) == [b"PONG"]
        assert await redis.execute_many([]) == []
        assert await redis.run_many([]) == []


async def test_a_transaction_is_a_batch(redis_url: str) -> None:
    async with client(redis_url) as redis:
        assert await redis.execute_many([("MULTI",), ("INCR", "n"), ("INCR", "n"), ("EXEC",)]) == [
            b"OK",
            b"QUEUED",
            b"QUEUED",
            [1, 2],
        ]


async def test_a_command_that_cannot_be_packed_reaches_nobody(redis_url: str) -> None:
    async with client(redis_url) as redis:
        with pytest.raises(exceptions.DataError):
            await redis.execute("SELECT", 1)
        with pytest.raises(exceptions.DataError):
            await redis.execute_many([("SET", "k", "v"), ("MULTI",)])

        assert await redis.execute("EXISTS", "k") == 0


async def test_many_tasks_share_the_connection(redis_url: str) -> None:
    async with client(redis_url) as redis:
        async with trio.open_nursery() as nursery:

            async def echo(i: int) -> None:
                for j in range(20):
                    assert await redis.execute("ECHO", f"{i}.{j}") == f"{i}.{j}".encode()

            for i in range(50):
                nursery.start_soon(echo, i)
        statistics = redis.statistics()

    assert (statistics.connections_total, statistics.commands_total, statistics.pending) == (1, 1_000, 0)
    assert statistics.sends_total < 1_000


async def test_a_large_value_makes_the_round_trip(redis_url: str) -> None:
    value = bytes(range(256)) * 40_000
    async with client(redis_url) as redis:
        await redis.execute("SET", "large", value)
        assert await redis.execute("GET", "large") == value


async def test_tls_and_a_password_work_together(tmp_path: Path, tls: Tls) -> None:
    with own_valkey(tmp_path, requirepass="s3cret") as server:
        async with tls_front(server.path, tls.server_context()) as port:
            url = f"rediss://:s3cret@localhost:{port}/2?ssl_ca_certs={tls.ca_file}"
            async with client(url) as redis:
                assert await redis.execute("SET", "k", "v") == b"OK"
                assert b"db=2" in await redis.execute("CLIENT", "INFO")
                assert await redis.run(NAME, ["k"], ["v"]) == [b"k", b"v"]


async def test_a_script_is_loaded_where_it_is_missing(redis_url: str) -> None:
    async with client(redis_url) as redis:
        assert await redis.run(ADD, ["n"], [5]) == 5
        assert await redis.run(ADD, ["n"], [5]) == 10
        await redis.execute("SCRIPT", "FLUSH")
        assert await redis.run(ADD, ["n"], [5]) == 15
        assert await redis.execute("SCRIPT", "EXISTS", ADD.sha, NAME.sha) == [1, 0]


async def test_a_batch_of_scripts_loads_what_is_missing_and_runs_each_call_once(redis_url: str) -> None:
    calls: list[ScriptCall] = [(ADD, ["n"], [1]), (NAME, ["a"], ["b"]), (ADD, ["n"], [1]), (NAME, ["c"], ["d"])]
    async with client(redis_url) as redis:
        await redis.execute("SCRIPT", "LOAD", ADD.source)
        replies = await redis.run_many(calls)
        again = await redis.run_many(calls)

    assert replies == [1, [b"a", b"b"], 2, [b"c", b"d"]]
    assert again == [3, [b"a", b"b"], 4, [b"c", b"d"]]


async def test_an_error_inside_a_script_is_raised_once_and_as_a_value_in_a_batch(redis_url: str) -> None:
    failing = Script("redis.call('INCR', KEYS[1]); return redis.call('LPUSH', KEYS[1], 'x')")
    async with client(redis_url) as redis:
        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE|wrong kind"):
            await redis.run(failing, ["n"], [])
        (reply,) = await redis.run_many([(failing, ["n"], [])])

        assert isinstance(reply, exceptions.ResponseError)
        assert await redis.execute("GET", "n") == b"2"


async def test_a_script_that_does_not_compile_says_so(redis_url: str) -> None:
    broken = Script("this is not Lua")
    async with client(redis_url) as redis:
        with pytest.raises(exceptions.ResponseError, match="compiling"):
            await redis.run(broken, [], [])
        good, bad = await redis.run_many([(NAME, ["a"], ["b"]), (broken, [], [])])

    assert good == [b"a", b"b"]
    assert "compiling" in str(bad)


async def test_a_server_that_never_keeps_scripts_is_not_asked_for_ever(tmp_path: Path) -> None:
    async with scripted_peer(tmp_path) as peer, trio.open_nursery() as nursery:
        heard: list[bytes] = []

        async def serve() -> None:
            conversation = await peer.welcome()
            while True:
                heard.append((await conversation.command())[0])
                await conversation.say(b"-NOSCRIPT none\r\n" if heard[-1] == b"EVALSHA" else b"$1\r\nx\r\n")

        nursery.start_soon(serve)
        async with client(peer.url) as redis:
            with pytest.raises(exceptions.NoScriptError):
                await redis.run(ADD, ["n"], [1])
            nursery.cancel_scope.cancel()

    assert heard == [b"EVALSHA", b"SCRIPT", b"EVALSHA", b"SCRIPT", b"EVALSHA"]


async def test_a_killed_connection_is_replaced_and_what_was_asked_is_not_repeated(redis_url: str) -> None:
    async with client(redis_url) as redis:
        await redis.execute("INCR", "n")
        own_id = await redis.execute("CLIENT", "ID")
        # The server executes the first INCR, then drops us; the second is not executed, by nobody and never.
        answers = await gathered(
            lambda: redis.execute_many([("INCR", "n"), ("CLIENT", "KILL", "ID", own_id, "SKIPME", "no"), ("INCR", "n")])
        )
        value = await until_answered(redis, "GET", "n")

    assert isinstance(answers[0], QueueUnavailable)
    assert value == b"2"


async def test_a_command_whose_reply_is_lost_is_not_sent_again(tmp_path: Path) -> None:
    async with scripted_peer(tmp_path) as peer, client(peer.url) as redis, trio.open_nursery() as nursery:
        answers: list[list[object]] = []

        async def ask() -> None:
            answers.append(await gathered(lambda: redis.execute("INCR", "n")))

        nursery.start_soon(ask)
        first = await peer.welcome()
        assert await first.command() == [b"INCR", b"n"]
        await first.stream.aclose()
        second = await peer.welcome()
        nursery.start_soon(redis.execute, "GET", "n")
        assert await second.command() == [b"GET", b"n"]
        await second.say(b"$1\r\n1\r\n")

    assert isinstance(answers[0][0], QueueUnavailable)


async def test_a_restarted_server_is_found_again_with_its_scripts_reloaded(tmp_path: Path) -> None:
    with own_valkey(tmp_path) as server:
        async with client(server.url) as redis:
            assert await redis.run(ADD, ["n"], [1]) == 1
            server.kill()
            with pytest.raises(QueueUnavailable) as failure:
                await until_refused(redis)
            assert isinstance(failure.value.__cause__, exceptions.ConnectionError)
            server.start()
            await until_answered(redis, "PING")

            assert await redis.run(ADD, ["n"], [1]) == 1
            assert redis.statistics().connections_total == 2


async def until_refused(redis: Redis) -> None:
    with trio.fail_after(30):
        while True:
            await redis.execute("PING")


async def test_a_master_that_became_a_replica_is_dropped_and_used_again_once_it_is_master(tmp_path: Path) -> None:
    with own_valkey(tmp_path) as server:
        async with client(server.url) as redis, client(server.url) as operator:
            await redis.execute("SET", "k", "before")
            await operator.execute("REPLICAOF", "127.0.0.1", 1)
            # Reads still work: the connection looks healthy until the first write.
            assert await redis.execute("GET", "k") == b"before"
            with pytest.raises(QueueUnavailable) as failure:
                await redis.execute("SET", "k", "lost")
            assert isinstance(failure.value.__cause__, exceptions.ReadOnlyError)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(QueueUnavailable):  # not even a read: the client waits for a master
                await redis.execute("GET", "k")
            await operator.execute("REPLICAOF", "NO", "ONE")

            assert await until_answered(redis, "SET", "k", "after") == b"OK"
            assert redis.statistics().connections_total >= 2


async def test_a_password_that_changes_under_us_is_unavailability(tmp_path: Path) -> None:
    with own_valkey(tmp_path) as server:
        async with client(server.url) as redis:
            await redis.execute("CONFIG", "SET", "requirepass", "s3cret")
            own_id = await redis.execute("CLIENT", "ID")
            await gathered(lambda: redis.execute("CLIENT", "KILL", "ID", own_id, "SKIPME", "no"))
            with pytest.raises(QueueUnavailable) as failure:
                await until_refused(redis)
            while not isinstance(failure.value.__cause__, exceptions.AuthenticationError):
                with pytest.raises(QueueUnavailable) as failure:
                    await until_refused(redis)


async def test_a_half_open_connection_is_noticed_and_replaced(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    async with scripted_peer(tmp_path) as peer, client(peer.url) as redis, trio.open_nursery() as nursery:
        answers: list[list[object]] = []

        async def ask() -> None:
            answers.append(await gathered(lambda: redis.execute("GET", "k")))

        nursery.start_soon(ask)
        silent = await peer.welcome()
        await silent.command()
        mock_clock.jump(10)
        await silent.closed_by_client()
        mock_clock.jump(0.1)
        fresh = await peer.welcome()
        nursery.start_soon(redis.execute, "GET", "k")
        await fresh.command()
        await fresh.say(b"$1\r\nv\r\n")

    assert isinstance(answers[0][0], QueueUnavailable)
    assert isinstance(answers[0][0].__cause__, exceptions.TimeoutError)


async def test_a_cancelled_call_leaves_the_connection_to_the_others(redis_url: str) -> None:
    async with client(redis_url) as redis:
        await redis.execute("PING")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(redis.execute, "INCR", "n")
                nursery.start_soon(redis.execute_many, [("INCR", "n"), ("ECHO", "x")])
                await trio.lowlevel.checkpoint()
                scope.cancel()
        assert scope.cancelled_caught
        assert await redis.execute("ECHO", "mine") == b"mine"
        assert redis.statistics().connections_total == 1


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fates=st.lists(st.tuples(st.integers(1, 5), st.none() | st.integers(0, 8)), min_size=2, max_size=30))
def test_among_random_cancellations_every_reply_is_its_callers_own_on_a_real_server(
    redis_url: str, fates: list[tuple[int, int | None]]
) -> None:
    async def call(redis: Redis, number: int, size: int, patience: int | None) -> None:
        names = [f"{number}.{i}".encode() for i in range(size)]
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                if patience is not None:
                    nursery.start_soon(cancel_after, patience, scope)
                assert await redis.execute_many([("ECHO", name) for name in names]) == names
                assert await redis.run(NAME, [str(number)], ["x"]) == [str(number).encode(), b"x"]
                nursery.cancel_scope.cancel()

    async def main() -> None:
        async with client(redis_url) as redis:
            async with trio.open_nursery() as nursery:
                for number, (size, patience) in enumerate(fates):
                    nursery.start_soon(call, redis, number, size, patience)
            assert await redis.execute("ECHO", "last") == b"last"
            assert redis.statistics().connections_total == 1
            assert redis.statistics().pending == 0

    trio.run(main)


async def cancel_after(turns: int, scope: trio.CancelScope) -> None:
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
    scope.cancel()


@asynccontextmanager
async def busy(url: str) -> AsyncIterator[Redis]:
    async with client(url) as redis, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(redis.execute_many, [("PING",)] * 100)
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
        yield redis


async def test_closing_with_calls_outstanding_hangs_nowhere(redis_url: str) -> None:
    async with busy(redis_url) as redis:
        pass
    with pytest.raises(QueueUnavailable):
        await redis.execute("PING")


async def test_a_url_that_cannot_be_used_is_refused_at_once() -> None:
    with pytest.raises(ConfigError):
        async with client("http://localhost"):
            raise AssertionError("entered")


async def test_memory_that_is_full_is_the_servers_error(tmp_path: Path) -> None:
    with own_valkey(tmp_path, maxmemory="1") as server:
        async with client(server.url) as redis:
            with pytest.raises(exceptions.OutOfMemoryError):
                await redis.execute("SET", "k", "v")


def test_a_script_is_known_by_the_digest_of_its_source() -> None:
    assert Script("return 1").sha == "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
    assert "return" not in repr(Script("return 1"))


def test_an_endpoint_is_named_without_its_password() -> None:
    assert parse_endpoint("redis://:s3cret@cache").address == "cache:6379"
