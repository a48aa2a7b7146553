"""The ways a request can be carried to a provider, behind one door: the request's origin says which one it takes.

Whatever the transport, a failure is :class:`~actors.io.http.NotSent` or :class:`~actors.io.http.MaybeSent`: may the peer have
acted? Invariant: nothing that leaves here names an address, a header or a body.
"""

from __future__ import annotations

from attrs import frozen

from actors.io.http import Deadlines, HttpPool
from dispatcher.providers.provider import Request, Response


@frozen
class Transports:
    """All transports of a process. ``http`` carries the schemes ``http`` and ``https``, as HTTP/1.1."""

    http: HttpPool

    async def exchange(self, request: Request, deadlines: Deadlines) -> Response:
        """Carry one request and bring back its answer. Raises NotSent or MaybeSent."""
        return await self.http.exchange(request, deadlines)
