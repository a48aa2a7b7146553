"""The ways a request can be carried to a provider, behind one door: the request's origin says which one it takes.

Whatever the transport, a failure is :class:`~actors.io.http.NotSent` or :class:`~actors.io.http.MaybeSent`: may the peer have
acted? Invariant: nothing that leaves here names an address, a header or a body.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import overload

from attrs import frozen

from actors.io.h2 import H2Pool
from actors.io.http import Deadlines, HttpPool, NotSent
from actors.io.smtp import SmtpPool
from dispatcher.http_message import HttpRequest, HttpResponse
from dispatcher.providers.provider import Request, Response
from dispatcher.smtp_message import SmtpRequest, SmtpResponse


@frozen
class Transports:
    """All transports of a process. ``http`` carries the schemes ``http`` and ``https``, as HTTP/1.1.

    ``smtp`` carries mail transactions, ``h2`` the scheme ``h2``: HTTP/2, always over TLS. A process without one sends none.
    """

    http: HttpPool
    smtp: SmtpPool | None = None
    h2: H2Pool | None = None

    @overload
    async def exchange(self, request: HttpRequest, deadlines: Deadlines) -> HttpResponse: ...
    @overload
    async def exchange(self, request: SmtpRequest, deadlines: Deadlines) -> SmtpResponse: ...
    async def exchange(self, request: Request, deadlines: Deadlines) -> Response:
        """Carry one request and bring back its answer. Raises NotSent or MaybeSent."""
        if isinstance(request, SmtpRequest):
            if self.smtp is None:
                raise NotSent("pool", "transport_missing")
            return await self.smtp.exchange(request, deadlines)
        if request.origin.scheme == "h2":
            if self.h2 is None:
                raise NotSent("pool", "transport_missing")
            return await self.h2.exchange(request, deadlines)
        return await self.http.exchange(request, deadlines)

    def gauges(self) -> Mapping[str, float]:
        """Present values of the transports beside HTTP/1.1, as far as there are."""
        gauges: dict[str, float] = {}
        if self.smtp is not None:
            sessions = self.smtp.statistics()
            gauges |= {"smtp_connections": sessions.connections, "smtp_connections_waiting": sessions.waiting}
        if self.h2 is not None:
            pool = self.h2.statistics()
            gauges |= {"h2_connections": pool.connections, "h2_streams": pool.streams, "h2_streams_waiting": pool.waiting}
        return gauges
