"""Outbound HTTP/1.1 native to Trio: the public names.

``HttpPool.exchange`` takes an :class:`~dispatcher.http_message.HttpRequest` and returns an
:class:`~dispatcher.http_message.HttpResponse`, or raises :class:`NotSent` or :class:`MaybeSent`, which answer the only
question that matters after a failure: may the peer have acted? :class:`TrioTransport` puts the same pool under
``httpx.AsyncClient`` for the rare calls that want its comfort.

| module | one idea |
|---|---|
| http_terms | deadlines, limits, statistics, the two failures |
| http_wire | bytes to values and back, no I/O |
| http_slots | the pool's policy, synchronous |
| http_watch | one alarm for all deadlines |
| tls | TLS over memory |
| http_dial | a new connection |
| http_connection | one exchange on a connection |
| http_pool | the shell that awaits |
| http_transport | under httpx |

Nothing in these modules logs, and no exception they raise names a URL, a header or a body.
"""

from actors.io.http_pool import HttpPool, open_http_pool
from actors.io.http_terms import Deadlines, ExchangeFailed, MaybeSent, NotSent, Phase, PoolLimits, PoolStatistics
from actors.io.http_transport import TrioTransport

__all__ = [
    "Deadlines",
    "ExchangeFailed",
    "HttpPool",
    "MaybeSent",
    "NotSent",
    "Phase",
    "PoolLimits",
    "PoolStatistics",
    "TrioTransport",
    "open_http_pool",
]
