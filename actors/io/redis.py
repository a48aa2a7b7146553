"""Redis native to Trio: one connection that all tasks share, with their commands pipelined by themselves.

What is called in one scheduler tick leaves in one send; ``bench/io_redis.py`` shows what that saves. Replies are bytes, int, None
or lists of them, exactly as redis-py's without decoding and callbacks (``tests/conformance/test_redis_conformance.py``).

- **Deadline.** A reply comes within ``command_deadline_s``, and a connection that has to be made first within the same again.
  When a reply is overdue the connection is dropped: it may be half-open.
- **Errors.** :class:`~dispatcher.errors.QueueUnavailable`, with redis-py's exception as its cause: no connection, no reply, or a
  server that cannot serve now (it loads, is a replica, is busy, wants a password). :class:`~dispatcher.errors.Overloaded`: too
  much is pending; nothing was sent. Other error replies are redis-py's ``ResponseError`` and its kin, programming errors its
  ``DataError``.
- **At most once.** No command is ever sent again, because it may have been executed. The one exception is a script that the
  server answered with NOSCRIPT: it was not executed.
- **Cancelled** on entry, a call sends nothing. Cancelled later, its commands may have been executed; the reply is dropped.

Commands that change the connection for the other callers, or that block, are refused.
"""

from __future__ import annotations

import random as _random
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha1

from attrs import field, frozen
from redis import exceptions

from actors.io.redis_link import Link, LinkStatistics
from actors.io.redis_pipeline import Pipeline, Traffic
from actors.io.redis_protocol import Command, Encodable, Reply, pack_many, pack_one
from actors.io.redis_subscriber import Message, Reconnected, Subscriber, SubscriberStatistics, open_subscriber
from actors.io.redis_url import Endpoint, parse_endpoint
from actors.io.redis_wire import Wire

__all__ = [
    "Command",
    "Encodable",
    "Endpoint",
    "LinkStatistics",
    "Message",
    "Reconnected",
    "Redis",
    "Reply",
    "Script",
    "ScriptCall",
    "Subscriber",
    "SubscriberStatistics",
    "open_redis",
    "open_subscriber",
    "parse_endpoint",
]


@frozen
class Script:
    """A Lua script, called by its digest; its source travels only to a server that does not have it."""

    source: str = field(repr=False)
    sha: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "sha", sha1(self.source.encode(), usedforsecurity=False).hexdigest())


ScriptCall = tuple[Script, Sequence[str], Sequence[Encodable]]

_RELOADS_MAX = 2


class Redis:
    """Made by :func:`open_redis`."""

    def __init__(self, link: Link[Pipeline]) -> None:
        self._link = link

    async def execute(self, *command: Encodable) -> Reply:
        """One command, each word an argument of its own. Raises its error reply."""
        data = pack_one(command)
        pipeline = self._link.pipeline
        if pipeline is None or pipeline.lost is not None:
            pipeline = await self._link.connected()
        reply = await pipeline.call(data, 1)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def execute_many(self, commands: Sequence[Command]) -> list[Reply]:
        """Commands that travel together, in order, nothing of another caller between them. Error replies stand in the list.

        A transaction is a batch with MULTI at its beginning and EXEC at its end.
        """
        data = pack_many(commands)
        if not commands:
            return []
        pipeline = self._link.pipeline
        if pipeline is None or pipeline.lost is not None:
            pipeline = await self._link.connected()
        reply = await pipeline.call(data, len(commands))
        return reply if len(commands) > 1 else [reply]

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Encodable]) -> Reply:
        """Run a script, loading it first where the server does not have it. Raises its error reply."""
        try:
            return await self.execute("EVALSHA", script.sha, len(keys), *keys, *args)
        except exceptions.NoScriptError:
            (reply,) = await self._run_loaded([(script, keys, args)])
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def run_many(self, calls: Sequence[ScriptCall]) -> list[Reply]:
        """Run scripts in one batch, in order. Error replies stand in the list.

        Calls the server answered with NOSCRIPT run in a second batch, after the others, in their order.
        """
        replies = await self.execute_many([_evalsha(call) for call in calls])
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, exceptions.NoScriptError)]
        if missing:
            for i, reply in zip(missing, await self._run_loaded([calls[i] for i in missing]), strict=True):
                replies[i] = reply
        return replies

    def statistics(self) -> LinkStatistics:
        """The state of the connection and what went over it."""
        return self._link.statistics()

    async def _run_loaded(self, calls: Sequence[ScriptCall]) -> list[Reply]:
        """Load the scripts and run the calls in one batch. Somebody may flush the scripts in between, so more than once."""
        replies: list[Reply] = [None] * len(calls)
        missing = list(range(len(calls)))
        for _ in range(_RELOADS_MAX):
            scripts = list(dict.fromkeys(calls[i][0] for i in missing))
            loads: list[Command] = [("SCRIPT", "LOAD", script.source) for script in scripts]
            batch = await self.execute_many([*loads, *(_evalsha(calls[i]) for i in missing)])
            refused = {s: reply for s, reply in zip(scripts, batch, strict=False) if isinstance(reply, Exception)}
            for i, reply in zip(missing, batch[len(scripts) :], strict=True):
                # Why a script could not be loaded says more than that it is not there.
                replies[i] = refused.get(calls[i][0], reply)
            missing = [i for i in missing if isinstance(replies[i], exceptions.NoScriptError)]
            if not missing:
                break
        return replies


def _evalsha(call: ScriptCall) -> Command:
    script, keys, args = call
    return ("EVALSHA", script.sha, len(keys), *keys, *args)


@asynccontextmanager
async def open_redis(
    url: str,
    *,
    connect_deadline_s: float,
    command_deadline_s: float,
    random: _random.Random,
    pending_max: int = 10_000,
    tls_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Redis]:
    """A client whose connection is kept in the background. Returns at once, also when the server is away.

    ``pending_max`` commands may wait for replies, ``tls_context`` replaces the verifying default of a ``rediss://`` URL.
    Raises ConfigError for a URL that cannot be used.
    """
    endpoint = parse_endpoint(url, tls_context)

    def make_pipeline(wire: Wire, traffic: Traffic) -> Pipeline:
        return Pipeline(wire, endpoint.address, deadline_s=command_deadline_s, pending_max=pending_max, traffic=traffic)

    link = Link(
        endpoint,
        make_pipeline,
        connect_deadline_s=connect_deadline_s,
        command_deadline_s=command_deadline_s,
        waiting_max=pending_max,
        random=random,
    )
    async with link.kept():
        yield Redis(link)
