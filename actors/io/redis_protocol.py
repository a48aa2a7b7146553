"""Commands to bytes and bytes to replies (RESP2): hiredis does the work, redis-py's classes name the errors.

Invariant: one command gets exactly one reply. A command that would break this, or change the connection under the other callers
that share it, is refused before it is packed. An error reply is a value here; whoever asked for it decides whether to raise it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis import exceptions
from redis._parsers import BaseParser

from dispatcher.errors import QueueUnavailable

Encodable = str | bytes | int | float
Command = Sequence[Encodable]
Reply = Any
"""bytes, int, None, a list of replies, or an exception."""

_error_of: Callable[[str], Exception] = BaseParser.parse_error
# hiredis' own annotations are narrower than what it does.
_pack: Callable[[tuple[Encodable, ...]], bytes] = cast("Any", hiredis.pack_command)

NOTHING = object()
"""What :attr:`Replies.next` returns when the bytes so far hold no further reply."""

_UNAVAILABLE = (exceptions.ConnectionError, exceptions.ReadOnlyError, exceptions.ClusterDownError)
_UNAVAILABLE_CODES = ("BUSY ", "MISCONF ", "NOREPLICAS ")
_UNFIT = (exceptions.ReadOnlyError, exceptions.MasterDownError, exceptions.AuthenticationError)

# These change the state of the connection, get no reply or several, or hold up everybody behind them.
_NOT_SHARED_NAMES = (
    *("SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE", "SSUBSCRIBE", "SUNSUBSCRIBE", "MONITOR", "SYNC", "PSYNC"),
    *("AUTH", "HELLO", "SELECT", "RESET", "QUIT", "READONLY", "READWRITE", "ASKING", "WATCH", "UNWATCH"),
    *("BLPOP", "BRPOP", "BLMOVE", "BLMPOP", "BRPOPLPUSH", "BZPOPMIN", "BZPOPMAX", "BZMPOP", "WAIT", "WAITAOF"),
)


def _spellings(*names: str) -> frozenset[Encodable]:
    texts = [*names, *(name.lower() for name in names)]
    return frozenset([*texts, *(text.encode() for text in texts)])


_NOT_SHARED = _spellings(*_NOT_SHARED_NAMES)
_BEGIN = _spellings("MULTI")
_TRANSACTION = _BEGIN | _spellings("EXEC", "DISCARD")
_NOT_ALONE = _NOT_SHARED | _TRANSACTION


def pack(command: tuple[Encodable, ...]) -> bytes:
    """One command as bytes. Raises redis-py's DataError, which names no value."""
    try:
        return _pack(command)
    except TypeError:
        odd = sorted({type(part).__name__ for part in command if type(part) not in (str, bytes, int, float)})
        raise exceptions.DataError(f"an argument is of type {', '.join(odd)}; convert it to bytes, str, int or float") from None


def pack_one(command: tuple[Encodable, ...]) -> bytes:
    """One command that goes among those of other callers. Raises DataError for what must not."""
    if not command or command[0] in _NOT_ALONE:
        raise _refusal(command)
    return pack(command)


def pack_many(commands: Sequence[Command]) -> bytes:
    """Commands that stay together, so that they may hold whole transactions. Raises DataError for what must not be sent."""
    if not all(commands):
        raise _refusal(())
    names = {command[0] for command in commands}
    if not _NOT_SHARED.isdisjoint(names):
        raise _refusal(next(command for command in commands if command[0] in _NOT_SHARED))
    if not _TRANSACTION.isdisjoint(names):
        _refuse_open_transactions(commands)
    try:
        return b"".join([_pack(tuple(command)) for command in commands])
    except TypeError:
        return b"".join([pack(tuple(command)) for command in commands])  # which names the type at fault


def _refuse_open_transactions(commands: Sequence[Command]) -> None:
    inside = False
    for command in commands:
        if command[0] in _TRANSACTION:
            if inside == (command[0] in _BEGIN):
                break
            inside = not inside
    else:
        if not inside:
            return
    raise exceptions.DataError("MULTI and EXEC (or DISCARD) must come in pairs within one batch: others share the connection")


def _refusal(command: Command) -> exceptions.DataError:
    if not command:
        return exceptions.DataError("a command has no name")
    name = command[0].decode() if isinstance(command[0], bytes) else command[0]
    return exceptions.DataError(f"{name} cannot be used on a connection that others share")


def unavailable(address: str, cause: Exception) -> QueueUnavailable:
    """The error for callers, with redis-py's as its cause."""
    error = QueueUnavailable(f"Redis at {address} is unavailable ({type(cause).__name__})")
    error.__cause__ = cause
    return error


class Replies:
    """Parses what a server sends. Error replies that mean the server cannot serve at the moment come as QueueUnavailable.

    ``unfit`` fills when an error reply showed that this connection leads to the wrong server, such as a master that has become a
    replica, or is not authenticated any more: it works, but is of no use. Whoever reads drops it.
    """

    def __init__(self, address: str) -> None:
        unfit: list[Exception] = []

        def error_value(text: str) -> Exception:
            error = _error_of(text)
            if isinstance(error, _UNFIT):
                unfit.append(error)
            if isinstance(error, _UNAVAILABLE) or text.startswith(_UNAVAILABLE_CODES):
                return unavailable(address, error)
            return error

        # The callback holds the list, not this object: hiredis' reader takes no part in garbage collection of cycles through it.
        reader = hiredis.Reader(protocolError=exceptions.InvalidResponse, replyError=error_value, notEnoughData=NOTHING)
        self.unfit = unfit
        self.feed: Callable[[bytes | bytearray, int, int], None] = cast("Any", reader.feed)
        self.next: Callable[[], Reply] = reader.gets
        self.buffered_bytes: Callable[[], int] = reader.len
