"""The terms of an outbound exchange: what bounds it, and what its caller is told when it fails.

The one question a caller must be able to answer after a failure is whether the peer may have acted. So there are two
failures and no third: :class:`NotSent` (it cannot have, try again freely) and :class:`MaybeSent` (it may have).
Neither carries a URL, a header or a body.

| phase | codes |
|---|---|
| pool | timeout_pool, pool_full, pool_closed |
| resolve | timeout_resolve, name_unresolved |
| connect | timeout_connect, refused, unreachable, files_exhausted, connect_failed, pool_closed |
| tls | timeout_tls, tls_verify, tls_failed, closed, reset |
| write | timeout_write, reset, pool_closed |
| read | timeout_read, closed (no byte of an answer), truncated, reset, tls_failed, pool_closed |
| limit | body_too_large, headers_too_large |
| protocol | protocol_error, upgrade_unasked, transfer_coding_unsupported, request_malformed (the only NotSent of these) |
"""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen
from attrs.validators import ge, gt

from dispatcher.errors import DispatcherError

Phase = Literal["pool", "resolve", "connect", "tls", "write", "read", "limit", "protocol"]


class ExchangeFailed(DispatcherError):
    """An exchange ended without a response. ``code`` is a short stable token, free of personal data.

    ``phase`` says what was under way, or that the response broke a limit or the protocol.
    """

    def __init__(self, phase: Phase, code: str) -> None:
        super().__init__(f"{phase}: {code}")
        self.phase: Phase = phase
        self.code = code


class NotSent(ExchangeFailed):
    """No byte of the request was handed to the network, or the peer has said by its protocol that it did not look at it.

    It cannot have acted.
    """


class MaybeSent(ExchangeFailed):
    """Some of the request was handed to the network: the peer may have acted.

    ``status`` is the final status when its head had arrived before the failure: then the peer has answered, only its
    body is lost.
    """

    def __init__(self, phase: Phase, code: str, status: int | None = None) -> None:
        super().__init__(phase, code)
        self.status = status


@frozen
class Deadlines:
    """How long each phase of one exchange may take. ``total_s`` ends the exchange whatever the phase."""

    pool_s: float = field(default=5.0, validator=ge(0))
    """Waiting for a place in the pool."""
    connect_s: float = field(default=5.0, validator=ge(0))
    """Resolving, connecting and the TLS handshake together."""
    write_s: float = field(default=10.0, validator=ge(0))
    """Handing the whole request to the kernel."""
    read_s: float = field(default=20.0, validator=ge(0))
    """From the request's last byte to the response's last byte."""
    total_s: float = field(default=20.0, validator=ge(0))
    """From the call to its end."""


@frozen
class PoolLimits:
    """What a pool may hold, and how much of a response it takes in."""

    connections_per_origin_max: int = field(default=64, validator=ge(1))
    connections_max: int = field(default=1024, validator=ge(1))
    waiting_max: int = field(default=10_000, validator=ge(0))
    """Callers waiting for a place; one more is refused at once with code ``pool_full``."""
    idle_s: float = field(default=55.0, validator=gt(0))
    """Shorter than the 60 s after which common load balancers drop an idle connection without a word."""
    body_bytes_max: int = field(default=1024 * 1024, validator=ge(0))
    """After removing the transfer coding."""
    header_bytes_max: int = field(default=64 * 1024, validator=ge(256))
    """Status line, headers, interim responses and trailers of one response together."""


@frozen
class PoolStatistics:
    """A pool at one moment. ``connections`` counts places taken: idle, in use, and being opened."""

    connections: int
    idle: int
    in_use: int
    """Places held by exchanges, those still connecting included. Zero when no exchange is under way."""
    waiting: int
    origins: int
    opened_total: int
    stale_total: int
    """Idle connections found closed by the peer at the moment of reuse."""
    expired_total: int
    """Idle connections closed by us after ``idle_s`` or to make room for another origin."""
