"""Request bodies, read as they come in and never past their limit.

Hypercorn hands a body over in pieces through a short queue. Two things must never happen to it: that we keep more of it
than we may, and that we stop reading while the peer still sends, because Hypercorn then cannot even take our refusal. So
a body is read up to its limit, and what a refusal leaves unread is thrown away for a moment while the refusal is under
way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import trio

from dispatcher.errors import Overloaded
from dispatcher.problems import Refused
from dispatcher_http.problems import BODY_TIMEOUT, body_too_large

LINGER_S = 2.0
"""How long what a refusal left unread is thrown away, so that the refusal arrives instead of a reset."""

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Gone(Exception):
    """The peer left before its request was whole: nobody is there to answer."""


class BodyBudget:
    """How many bytes of bodies all requests together may hold."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_free = bytes_max

    def take(self, count: int) -> None:
        """Raises Overloaded when it is not to be had."""
        if count > self._bytes_free:
            raise Overloaded("memory for request bodies", 1)
        self._bytes_free -= count

    def give_back(self, count: int) -> None:
        """Everything taken comes back once its request is over."""
        self._bytes_free += count


class Body:
    """The body of one request. Use as a context manager: what it holds of the budget is given back at the end."""

    __slots__ = ("_budget", "_bytes_held", "_receive", "is_read")

    def __init__(self, receive: Receive, budget: BodyBudget) -> None:
        self._receive = receive
        self._budget = budget
        self._bytes_held = 0
        self.is_read = False
        """Whether all of it has come in, so that the peer is waiting for us and not we for the peer."""

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *error: object) -> None:
        self._budget.give_back(self._bytes_held)

    async def read(self, bytes_max: int, deadline_s: float) -> bytes:
        """The whole body. Raises Refused when it is too large or too slow, Overloaded, or Gone."""
        pieces: list[bytes] = []
        with trio.CancelScope(deadline=trio.current_time() + deadline_s):
            while not self.is_read:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                piece: bytes = message.get("body", b"")
                self.is_read = not message.get("more_body", False)
                if piece:
                    if self._bytes_held + len(piece) > bytes_max:
                        raise Refused(body_too_large(bytes_max))
                    self._budget.take(len(piece))
                    self._bytes_held += len(piece)
                    pieces.append(piece)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        raise Refused(BODY_TIMEOUT)

    async def discard(self) -> None:
        """Throw away the rest until it ends, the peer leaves or :data:`LINGER_S` is up."""
        with trio.move_on_after(LINGER_S):
            while not self.is_read:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    return
                self.is_read = not message.get("more_body", False)


def lingering(receive: Receive, send: Send) -> tuple[Receive, Send]:
    """The same pair, but the end of an answer waits, up to :data:`LINGER_S`, for the end of the request.

    For an application that goes on receiving while it answers, as Quart does.
    """
    ended = trio.Event()

    async def noting_receive() -> MutableMapping[str, Any]:
        message = await receive()
        if not message.get("more_body", False):
            ended.set()
        return message

    async def patient_send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False) and not ended.is_set():
            with trio.move_on_after(LINGER_S):
                await ended.wait()
        await send(message)

    return noting_receive, patient_send
