"""``httpx`` over our pool: for the rare calls (token exchange, administration, tests) that want httpx's comfort.

Bodies are buffered in both directions, within limits. What differs from httpx's own transport: ``read`` is the time for
the whole response, not between two pieces of it, and one connection pool may serve many clients, so closing the
transport leaves the pool open.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from math import inf

import httpx

from actors.io.http_pool import HttpPool
from actors.io.http_terms import Deadlines, ExchangeFailed
from dispatcher.http_message import HttpRequest, Origin

_WRITTEN_BY_US = frozenset((b"host", b"content-length", b"transfer-encoding"))
_DEFAULT_PORTS = {"http": 80, "https": 443}

_BY_CODE: dict[str, type[httpx.TransportError]] = {
    "timeout_pool": httpx.PoolTimeout,
    "timeout_resolve": httpx.ConnectTimeout,
    "timeout_connect": httpx.ConnectTimeout,
    "timeout_tls": httpx.ConnectTimeout,
    "timeout_write": httpx.WriteTimeout,
    "timeout_read": httpx.ReadTimeout,
    "pool_full": httpx.PoolTimeout,
    "request_malformed": httpx.LocalProtocolError,
}
_BY_PHASE: dict[str, type[httpx.TransportError]] = {
    "pool": httpx.NetworkError,
    "resolve": httpx.ConnectError,
    "connect": httpx.ConnectError,
    "tls": httpx.ConnectError,
    "write": httpx.WriteError,
    "read": httpx.ReadError,
    "limit": httpx.RemoteProtocolError,
    "protocol": httpx.RemoteProtocolError,
}
_ENDED_EARLY = frozenset(("closed", "truncated"))


class TrioTransport(httpx.AsyncBaseTransport):
    """Hand it to ``httpx.AsyncClient(transport=…)``. Raises httpx's exceptions, caused by ours."""

    def __init__(self, pool: HttpPool, *, total_s: float = inf, request_body_bytes_max: int = 16 * 1024 * 1024) -> None:
        self._pool = pool
        self._total_s = total_s
        self._request_body_bytes_max = request_body_bytes_max

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange on the pool, within the request's own timeouts."""
        url = request.url
        if url.scheme not in _DEFAULT_PORTS or not url.host:
            raise httpx.UnsupportedProtocol("only http:// and https:// URLs can be requested", request=request)
        origin = Origin(url.scheme, url.raw_host.decode("ascii"), url.port or _DEFAULT_PORTS[url.scheme])
        body = await self._whole_body(request)
        headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _WRITTEN_BY_US]
        host = next((value for name, value in request.headers.raw if name.lower() == b"host"), None)
        try:
            response = await self._pool.exchange(
                HttpRequest(origin, request.method.encode("ascii"), url.raw_path, headers, body),
                self._deadlines(request),
                host=host,
            )
        except ExchangeFailed as failure:
            raise _httpx_error(failure, request) from failure
        return httpx.Response(
            response.status,
            headers=list(response.headers),
            stream=httpx.ByteStream(response.body),
            extensions={"http_version": b"HTTP/1.1"},
        )

    async def _whole_body(self, request: httpx.Request) -> bytes:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        body = bytearray()
        parts = aiter(request.stream)
        try:
            async for part in parts:
                body += part
                if len(body) > self._request_body_bytes_max:
                    raise httpx.LocalProtocolError("the request body is larger than this transport sends", request=request)
        finally:
            if isinstance(parts, AsyncGenerator):  # left halfway it would be finished by the garbage collector, somewhere
                await parts.aclose()
        return bytes(body)

    def _deadlines(self, request: httpx.Request) -> Deadlines:
        timeout = request.extensions.get("timeout", {})

        def seconds(phase: str) -> float:
            value = timeout.get(phase)
            return inf if value is None else float(value)

        return Deadlines(
            pool_s=seconds("pool"),
            connect_s=seconds("connect"),
            write_s=seconds("write"),
            read_s=seconds("read"),
            total_s=self._total_s,
        )


def _httpx_error(failure: ExchangeFailed, request: httpx.Request) -> httpx.TransportError:
    if failure.phase == "read" and failure.code in _ENDED_EARLY:
        kind: type[httpx.TransportError] = httpx.RemoteProtocolError
    else:
        kind = _BY_CODE.get(failure.code, _BY_PHASE[failure.phase])
    return kind(str(failure), request=request)
