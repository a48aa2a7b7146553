"""What bounds an HTTP/2 pool, and what it tells of itself. Deadlines and failures are those of :mod:`actors.io.http_terms`.

Codes that only HTTP/2 knows:

| phase | code | failure | |
|---|---|---|---|
| tls | tls_alpn | NotSent | the peer does not speak HTTP/2 |
| read | stream_refused | NotSent | the peer says that it has not looked at this request |
| read | going_away | NotSent | it will close the connection, and this request came after the last one it has looked at |
| read | stream_reset | MaybeSent | it broke off this request alone |
| read | timeout_ping | MaybeSent | the connection gave no sign of life |
"""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge, gt

from actors.io.http_terms import PoolStatistics


@frozen
class H2Limits:
    """What a pool may hold, and how much of a response it takes in."""

    connections_per_account_max: int = field(default=2, validator=ge(1))
    """To one origin with one ``authorization``. A further one is opened only when streams wait."""
    connections_max: int = field(default=256, validator=ge(1))
    streams_max: int = field(default=1000, validator=ge(1))
    """Streams at once on one connection, if the peer's settings allow so many."""
    waiting_max: int = field(default=10_000, validator=ge(0))
    """Callers waiting for a stream; one more is refused at once with code ``pool_full``."""
    idle_s: float = field(default=300.0, validator=gt(0))
    """Long, because who offers HTTP/2 to senders asks them to keep connections open."""
    age_max_s: float = field(default=3600.0, validator=gt(0))
    """After this a connection takes no new streams, so that a change of the peer's addresses is noticed."""
    ping_after_s: float = field(default=5.0, validator=gt(0))
    """How long a connection with streams under way may be silent before it is asked for a sign of life."""
    ping_wait_s: float = field(default=5.0, validator=gt(0))
    """How long it has for that."""
    body_bytes_max: int = field(default=1024 * 1024, validator=ge(0))
    header_bytes_max: int = field(default=64 * 1024, validator=ge(256))
    """Of one response, uncompressed and counted as HTTP/2 does (32 bytes more for each field)."""


@frozen
class H2Statistics(PoolStatistics):
    """An HTTP/2 pool at one moment. ``idle`` connections carry no stream; ``waiting`` callers wait for a stream.

    ``stale_total`` counts connections that ended while idle.
    """

    streams: int
    """Under way now."""
    refused_total: int
    """Streams that the peer has said it did not look at, one by one or by going away."""
