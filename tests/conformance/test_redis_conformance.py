"""The same traces through redis-py's own connection and through ours: replies, types and errors must be equal.

redis-py speaks without decoding and without its reply callbacks, so that what is compared is what the server said.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence

import pytest
import redis
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import exceptions
from redis.connection import Connection

from actors.io.redis import Command, Redis, Reply, Script, open_redis
from dispatcher.errors import QueueUnavailable

Trace = Sequence[Command]

SCRIPT = Script("return {KEYS[1], ARGV[1], 1, {2, 'nested'}, false, redis.call('SET', KEYS[1], ARGV[1])}")
LARGE = bytes(range(256)) * 4_096
EVERY_BYTE = bytes(range(256))

TRACES: dict[str, Trace] = {
    "status, number, nil and bulk": [("SET", "k", "v"), ("INCR", "n"), ("GET", "missing"), ("GET", "k"), ("STRLEN", "k")],
    "binary, empty and unicode values": [
        ("SET", b"\x00\r\n", EVERY_BYTE),
        ("GET", b"\x00\r\n"),
        ("SET", "", ""),
        ("GET", ""),
        ("SET", "é", "日本"),
        ("GET", "é"),
    ],
    "numbers as arguments": [
        ("SET", "i", 7),
        ("GET", "i"),
        ("SET", "f", 1.5),
        ("GET", "f"),
        ("INCRBYFLOAT", "f", 1e-7),
        ("SET", 1, -2),
    ],
    "a megabyte": [("SET", "large", LARGE), ("GET", "large"), ("APPEND", "large", LARGE), ("STRLEN", "large")],
    "lists": [
        ("RPUSH", "l", "a", "b", "c"),
        ("LRANGE", "l", 0, -1),
        ("LPOP", "l", 2),
        ("LRANGE", "l", 0, -1),
        ("LPOP", "gone", 1),
    ],
    "hashes and sorted sets": [
        ("HSET", "h", "a", 1, "b", 2),
        ("HGETALL", "h"),
        ("HMGET", "h", "a", "x"),
        ("ZADD", "z", 1.5, "a", 2, "b"),
        ("ZRANGE", "z", 0, -1, "WITHSCORES"),
        ("ZSCORE", "z", "a"),
        ("ZSCORE", "z", "x"),
        ("ZPOPMIN", "z"),
    ],
    "streams": [
        ("XADD", "s", "1-1", "f", "v"),
        ("XADD", "s", "1-2", "f", "w"),
        ("XRANGE", "s", "-", "+"),
        ("XREAD", "STREAMS", "s", "0"),
        ("XADD", "s", "1-1", "f", "v"),
    ],
    "nested arrays": [("COMMAND", "INFO", "get", "nosuch"), ("EVAL", "return {1,{2,{3,{}}},'x'}", 0), ("SCRIPT", "EXISTS", "00")],
    "errors": [
        ("SET", "k", "v"),
        ("LPUSH", "k", "x"),
        ("GET",),
        ("NOSUCH", "x"),
        ("SET", "k", "v", "EX", "x"),
        ("INCR", "k"),
        ("EVALSHA", "0" * 40, 0),
        ("EVAL", "return redis.error_reply('MINE own code')", 0),
        ("EVAL", "not lua", 0),
        ("CONFIG", "SET", "x", "y"),
        ("XGROUP", "CREATE", "none", "g", "$"),
        ("EVAL", "return redis.call('LPUSH', KEYS[1], 'x')", 1, "k"),
    ],
    "scripts": [
        ("SCRIPT", "LOAD", SCRIPT.source),
        ("EVALSHA", SCRIPT.sha, 1, "k", "v"),
        ("GET", "k"),
        ("SCRIPT", "EXISTS", SCRIPT.sha),
        ("SCRIPT", "FLUSH"),
        ("EVALSHA", SCRIPT.sha, 1, "k", "v"),
    ],
    "transactions": [
        ("MULTI",),
        ("SET", "k", "v"),
        ("LPUSH", "k", "x"),
        ("GET", "k"),
        ("EXEC",),
        ("MULTI",),
        ("SET", "k", "w"),
        ("DISCARD",),
        ("GET", "k"),
    ],
    "a transaction that is refused": [("MULTI",), ("NOSUCH",), ("SET", "k", "v"), ("EXEC",), ("EXISTS", "k")],
}


class Reference:
    """redis-py's connection, one command after the other."""

    def __init__(self, url: str) -> None:
        self._pool = redis.ConnectionPool.from_url(url, protocol=2)
        self._connection: Connection = self._pool.get_connection()

    def reply(self, command: Command) -> Reply:
        self._connection.send_command(*command)  # type: ignore[no-untyped-call]
        try:
            return self._connection.read_response()
        except exceptions.RedisError as error:
            return error

    def close(self) -> None:
        self._connection.disconnect()  # type: ignore[no-untyped-call]
        self._pool.disconnect()


def comparable(reply: Reply) -> object:
    """The reply with everything that should be equal made comparable: types all the way down, errors by class and text."""
    if isinstance(reply, list):
        return [comparable(item) for item in reply]
    if isinstance(reply, QueueUnavailable) and isinstance(reply.__cause__, exceptions.RedisError):
        reply = reply.__cause__
    if isinstance(reply, Exception):
        return type(reply), str(reply)
    return type(reply), reply


async def alone(client: Redis, trace: Trace) -> list[Reply]:
    """Each command in a call of its own."""
    replies: list[Reply] = []
    for command in trace:
        try:
            replies.append(await client.execute(*command))
        except (exceptions.RedisError, QueueUnavailable) as error:
            replies.append(error)
    return replies


async def together(client: Redis, trace: Trace) -> list[Reply]:
    """All commands in one batch."""
    return await client.execute_many(trace)


def ours(url: str, trace: Trace, way: Callable[[Redis, Trace], Awaitable[list[Reply]]]) -> list[Reply]:
    async def main() -> list[Reply]:
        async with open_redis(url, connect_deadline_s=10, command_deadline_s=10, random=random.Random(7)) as client:
            return await way(client, trace)

    return trio.run(main)


@pytest.fixture
def reference(redis_url: str) -> Iterator[Reference]:
    reference = Reference(redis_url)
    yield reference
    reference.close()


def forget(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.flushall()
        client.script_flush()


@pytest.mark.parametrize("name", TRACES)
def test_a_batch_is_answered_as_redis_py_is(name: str, redis_url: str, reference: Reference) -> None:
    expected = [reference.reply(command) for command in TRACES[name]]
    forget(redis_url)

    assert comparable(ours(redis_url, TRACES[name], together)) == comparable(expected)


@pytest.mark.parametrize("name", [name for name in TRACES if "transaction" not in name])
def test_single_commands_are_answered_as_redis_py_is(name: str, redis_url: str, reference: Reference) -> None:
    expected = [reference.reply(command) for command in TRACES[name]]
    forget(redis_url)

    assert comparable(ours(redis_url, TRACES[name], alone)) == comparable(expected)


def test_a_server_that_is_full_or_alone_gives_the_same_errors(redis_url: str, reference: Reference) -> None:
    for setting, value, reset in (("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")):
        reference.reply(("CONFIG", "SET", setting, value))
        try:
            expected = reference.reply(("SET", "k", "v"))
            (got,) = ours(redis_url, [("SET", "k", "v")], alone)
        finally:
            reference.reply(("CONFIG", "SET", setting, reset))

        assert isinstance(expected, exceptions.RedisError)
        assert comparable(got) == comparable(expected)


WORDS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.binary(max_size=50),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False),
)
KEYS = st.sampled_from(["a", "b", b"\xff"])
COMMANDS = st.one_of(
    st.tuples(st.sampled_from(["SET", "GETSET", "APPEND", "RPUSH", "SADD", "SETNX", "INCRBY", "LREM"]), KEYS, WORDS),
    st.tuples(st.sampled_from(["GET", "LLEN", "TYPE", "DEL", "LPOP", "SCARD", "DUMP", "HGETALL"]), KEYS),
    st.tuples(st.sampled_from(["LRANGE", "GETRANGE", "HSET", "SETRANGE"]), KEYS, st.integers(-5, 100), WORDS),
    st.tuples(st.just("ECHO"), WORDS),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trace=st.lists(COMMANDS, min_size=1, max_size=12))
def test_whatever_is_asked_is_answered_as_redis_py_is(trace: Trace, redis_url: str, reference: Reference) -> None:
    forget(redis_url)
    expected = [reference.reply(command) for command in trace]
    forget(redis_url)

    assert comparable(ours(redis_url, trace, together)) == comparable(expected)
