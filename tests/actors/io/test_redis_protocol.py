"""Commands to bytes, bytes to replies."""

from __future__ import annotations

import pytest
from redis import exceptions

from actors.io.redis_protocol import NOTHING, Command, Encodable, Replies, pack, pack_many, pack_one
from dispatcher.errors import QueueUnavailable


def parsed(data: bytes) -> tuple[Replies, list[object]]:
    replies = Replies("here")
    replies.feed(data, 0, len(data))
    found = []
    while (reply := replies.next()) is not NOTHING:
        found.append(reply)
    return replies, found


def test_a_command_is_packed_as_an_array_of_bulk_strings() -> None:
    assert pack(("SET", b"k\x00", 1, 2.5, "é")) == b"*5\r\n$3\r\nSET\r\n$2\r\nk\x00\r\n$1\r\n1\r\n$3\r\n2.5\r\n$2\r\n\xc3\xa9\r\n"


@pytest.mark.parametrize("value", [None, True, ["secret"], bytearray(b"secret"), object()])
def test_a_value_of_another_type_is_refused_by_its_type_alone(value: Encodable) -> None:
    with pytest.raises(exceptions.DataError, match=type(value).__name__) as refusal:
        pack_many([("GET", "k"), ("SET", "k", value)])

    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("name", ["SUBSCRIBE", "select", b"AUTH", b"monitor", "BLPOP", "WATCH", "HELLO", "QUIT", "RESET"])
def test_a_command_that_concerns_the_other_callers_is_refused(name: Encodable) -> None:
    with pytest.raises(exceptions.DataError, match="others share"):
        pack_one((name, "0"))
    with pytest.raises(exceptions.DataError, match="others share"):
        pack_many([("PING",), (name, "0")])


@pytest.mark.parametrize("name", ["MULTI", "multi", b"EXEC", "DISCARD"])
def test_a_transaction_needs_a_batch(name: Encodable) -> None:
    with pytest.raises(exceptions.DataError, match="others share"):
        pack_one((name,))


@pytest.mark.parametrize(
    "commands",
    [
        [("MULTI",), ("PING",)],
        [("PING",), ("EXEC",)],
        [("MULTI",), ("MULTI",), ("EXEC",), ("EXEC",)],
        [("MULTI",), ("EXEC",), ("DISCARD",)],
        [(b"multi",), ("exec",), ("Multi",), (b"MULTI",)],
    ],
)
def test_a_transaction_that_does_not_end_in_its_batch_is_refused(commands: list[Command]) -> None:
    with pytest.raises(exceptions.DataError, match="pairs"):
        pack_many(commands)


def test_whole_transactions_pass() -> None:
    assert pack_many([("MULTI",), ("PING",), ("EXEC",), (b"multi",), (b"discard",)]).count(b"*1\r\n") == 5


def test_a_command_without_a_name_is_refused_because_it_would_get_no_reply() -> None:
    with pytest.raises(exceptions.DataError, match="no name"):
        pack_one(())
    with pytest.raises(exceptions.DataError, match="no name"):
        pack_many([("PING",), ()])


def test_replies_keep_their_types_and_nesting() -> None:
    _, found = parsed(b"+OK\r\n:7\r\n$-1\r\n$0\r\n\r\n*-1\r\n*2\r\n*1\r\n$1\r\na\r\n:1\r\n$5\r\nrest")

    assert found == [b"OK", 7, None, b"", None, [[b"a"], 1]]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"ERR something", exceptions.ResponseError),
        (b"WRONGTYPE Operation against a key", exceptions.ResponseError),
        (b"NOSCRIPT No matching script", exceptions.NoScriptError),
        (b"OOM command not allowed", exceptions.OutOfMemoryError),
        (b"EXECABORT Transaction discarded", exceptions.ExecAbortError),
        (b"NOPERM no permissions", exceptions.NoPermissionError),
        (b"MOVED 1234 10.0.0.1:6379", exceptions.MovedError),
        (b"BUSYGROUP Consumer Group name already exists", exceptions.ResponseError),
    ],
)
def test_an_error_reply_is_redis_pys_exception_as_a_value(text: bytes, error: type[Exception]) -> None:
    replies, found = parsed(b"-" + text + b"\r\n*1\r\n-" + text + b"\r\n")

    assert isinstance(found[1], list)
    assert [type(found[0]), type(found[1][0])] == [error, error]
    assert not replies.unfit


@pytest.mark.parametrize(
    ("text", "error", "unfit"),
    [
        (b"LOADING Redis is loading the dataset in memory", exceptions.BusyLoadingError, False),
        (b"ERR max number of clients reached", exceptions.ConnectionError, False),
        (b"BUSY Redis is busy running a script", exceptions.ResponseError, False),
        (b"MISCONF Redis is configured to save", exceptions.ResponseError, False),
        (b"NOREPLICAS Not enough good replicas to write.", exceptions.ResponseError, False),
        (b"CLUSTERDOWN The cluster is down", exceptions.ClusterDownError, False),
        (b"READONLY You can't write against a read only replica.", exceptions.ReadOnlyError, True),
        (b"MASTERDOWN Link with MASTER is down", exceptions.MasterDownError, True),
        (b"NOAUTH Authentication required.", exceptions.AuthenticationError, True),
    ],
)
def test_a_server_that_cannot_serve_now_is_unavailable(text: bytes, error: type[Exception], unfit: bool) -> None:
    replies, found = parsed(b"-" + text + b"\r\n")

    assert isinstance(found[0], QueueUnavailable)
    assert type(found[0].__cause__) is error
    assert [type(e) for e in replies.unfit] == ([error] if unfit else [])


def test_what_is_no_reply_is_an_invalid_response() -> None:
    with pytest.raises(exceptions.InvalidResponse):
        parsed(b"HTTP/1.1 400 Bad Request\r\n")
